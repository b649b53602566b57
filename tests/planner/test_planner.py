"""The planner: what holds on every machine for every request, and worked examples by hand."""

from __future__ import annotations

import itertools
import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from ompbind.cpuset import CpuSet, union
from ompbind.errors import OmpbindError, PlanError
from ompbind.machine.topology import TREE, Allowed, Cpu, Machine, Node, Topology
from ompbind.plan_json import parse_plan
from ompbind.planner import make_plan
from ompbind.planner.cores import levels_for
from ompbind.planner.quota import scale
from ompbind.planner.request import Request
from ompbind.planner.sizes import assign
from ompbind.plans import Plan
from tests.support.machines import MACHINES, make_asked, make_machine
from tests.support.requests import cores_of, machines, requests, usable_cpus, wild_requests
from tests.support.trees import Kind, Shape, make_files, write_tree

# --- what holds on every machine -----------------------------------------------------------------


ASKED = machines().flatmap(lambda m: st.tuples(st.just(m), requests(m)))
SHARING = machines().flatmap(lambda m: st.tuples(st.just(m), requests(m, share=True)))
WITH_ROLES = machines().flatmap(lambda m: st.tuples(st.just(m), requests(m, roles=True)))
WITH_NUMACTL = machines().flatmap(lambda m: st.tuples(st.just(m), requests(m, binder="numactl")))
WILD = machines().flatmap(lambda m: st.tuples(st.just(m), wild_requests(m)))


def plan_or_none(machine: Machine, request: Request) -> Plan | None:
    """The plan; None where it cannot be had, which must be said in one line."""
    try:
        return make_plan(machine, request)
    except PlanError as e:
        assert e.message.isprintable()
        assert e.hint.isprintable()
        return None


def plan_of(machine: Machine, request: Request) -> Plan:
    """The plan; the few requests that cannot be had are no examples."""
    plan = plan_or_none(machine, request)
    return reject() if plan is None else plan


@pytest.mark.parametrize("asked", [ASKED, SHARING, WITH_ROLES, WITH_NUMACTL])
def test_most_requests_can_be_had(asked: st.SearchStrategy[tuple[Machine, Request]]) -> None:
    """Those that are drawn for what holds of plans: three of four at the least. One in a hundred is
    refused, but of each Hypothesis may try a dozen variants."""
    plans: list[Plan | None] = []

    @settings(max_examples=100, database=None, derandomize=True)  # it counts: same draws
    @given(asked)
    def draw(one: tuple[Machine, Request]) -> None:
        plans.append(plan_or_none(*one))

    draw()
    assert plans.count(None) * 4 <= len(plans)
    assert asked is not WITH_ROLES or sum(bool(p and p.roles) for p in plans) * 4 >= len(plans)
    assert asked is not SHARING or sum(bool(p and p.ranks[1:]) for p in plans) * 10 >= len(plans)


@given(WILD)
def test_anything_asked_is_a_plan_or_a_refusal(asked: tuple[Machine, Request]) -> None:
    """Whatever options come together; what is refused, is refused in one line."""
    machine, request = asked
    plan = plan_or_none(machine, request)
    if plan is not None:
        assert union(r.cpus for r in plan.ranks) <= usable_cpus(machine, request)
        assert request.ranks in (None, len(plan.ranks))


def by_list(plan: Plan) -> bool:
    """Whether a list of places in the environment was dealt out: it may split cores."""
    return any(rank.why.endswith("of OMP_PLACES") for rank in plan.ranks)


@given(ASKED)
def test_ranks_use_only_what_is_allowed(asked: tuple[Machine, Request]) -> None:
    """Cpus and memory nodes come from those allowed, never from those excluded, none is empty."""
    machine, request = asked
    for rank in plan_of(machine, request).ranks:
        assert rank.cpus
        assert rank.cpus <= usable_cpus(machine, request)
        assert rank.mems <= machine.allowed.nodes
        assert bool(rank.mems) == (rank.mem not in ("none", "local"))
        assert rank.nodes == machine.topology.nodes_of(rank.cpus)


@given(ASKED)
def test_ranks_are_apart(asked: tuple[Machine, Request]) -> None:
    """Without --share, no cpu belongs to two ranks, nor does a core that ompbind distributes."""
    machine, request = asked
    plan = plan_of(machine, request)
    if request.share or request.oversubscribe:
        return
    assert sum(len(r.cpus) for r in plan.ranks) == len(union(r.cpus for r in plan.ranks))
    if request.cpus is None and not by_list(plan):
        for core in cores_of(machine.topology, machine.topology.online):
            assert sum(1 for r in plan.ranks if r.cpus & core) <= 1


@given(ASKED)
def test_every_core_is_accounted_for(asked: tuple[Machine, Request]) -> None:
    """An allowed core is used, reserved or left over, exactly one of them; nothing else is."""
    machine, request = asked
    plan = plan_of(machine, request)
    used = union(r.cpus for r in plan.ranks)
    usable = usable_cpus(machine, request)
    whole = (plan.reserved, plan.unused, plan.others)  # all threads of a core, or none
    owners = [used, *(role.cpus for role in plan.roles), *whole]
    assert union(owners) <= usable
    for core in cores_of(machine.topology, usable):
        assert sum(bool(core & cpus) for cpus in owners) == 1, (core, owners)
        assert all(core <= cpus for cpus in whole if core & cpus)
    reserved_cores = cores_of(machine.topology, plan.reserved)
    each = len(plan.ranks) if request.reserve.per_rank else 1
    assert len(reserved_cores) == request.reserve.cores * each


@given(WITH_ROLES)
def test_roles_are_as_asked(asked: tuple[Machine, Request]) -> None:
    """Each pool has its cores, of the threads that workers would use of them, and reaches its
    ranks; one of each rank's own lies where the rank is."""
    machine, request = asked
    plan = plan_of(machine, request)
    for pool in request.roles:
        matching = [role for role in plan.roles if role.name == pool.name]
        assert [len(role.ranks) for role in matching] == (
            [1] * len(plan.ranks) if pool.per_rank else [len(plan.ranks)]
        )
        for role in matching:
            cores = cores_of(machine.topology, usable_cpus(machine, request))
            touched = [core for core in cores if core & role.cpus]
            assert len(touched) == pool.cores
            assert role.cpus == union(CpuSet(list(core)[: request.smt]) for core in touched)
            for rank in role.ranks:
                env = dict(plan.ranks[rank].env)
                assert CpuSet.parse_kernel(env[f"OMPBIND_ROLE_{pool.name.upper()}"]) == role.cpus
    assert len(plan.roles) == sum(len(plan.ranks) if p.per_rank else 1 for p in request.roles)


@given(machines(), st.integers(1, 4), st.data())
def test_parts_of_different_launches_do_not_meet(
    machine: Machine, count: int, data: st.DataObject
) -> None:
    """Whatever each asks beside --part and the same --exclude; and each sees where the others
    are."""
    everything = cores_of(machine.topology, machine.topology.online)
    cpu = data.draw(st.sampled_from(sorted(machine.allowed.cpus)))
    exclude = data.draw(
        st.sampled_from([[], ["--exclude", f"{cpu}"], ["--exclude-cpus", f"{cpu}"]])
    )
    lost = CpuSet([cpu] if exclude else [])
    if "--exclude" in exclude:
        lost = next(core for core in everything if cpu in core)
    cores = len(cores_of(machine.topology, machine.allowed.cpus - lost))
    if not cores:
        return
    count = min(count, cores)
    taken = CpuSet()
    for number in range(1, count + 1):
        ranks = data.draw(st.integers(1, 6))
        args = ["--part", f"{number}/{count}", "--ranks", str(ranks), *exclude]
        args += data.draw(st.sampled_from([["--oversubscribe"], ["--share"]]))
        args += data.draw(st.sampled_from([[], ["--smt", "all"], ["--places", "one"]]))
        if ranks == 1 and cores >= 2 * count and len(machine.topology.nodes) < 2:
            args += data.draw(st.sampled_from([[], ["--reserve", "1"], ["--role", "kv=1"]]))
        plan = plan_of(machine, make_asked(args))
        mine = union([r.cpus for r in plan.ranks] + [r.cpus for r in plan.roles])
        mine |= plan.reserved | plan.unused
        assert mine
        assert not mine & taken
        assert taken <= plan.others
        assert not mine & plan.others
        assert mine | plan.others <= machine.allowed.cpus - lost
        taken |= mine
        assert plan.part == f"{number}/{count}"


@given(ASKED)
def test_places_partition_the_ranks_cpus(asked: tuple[Machine, Request]) -> None:
    """Every cpu of a rank is in exactly one place, and OMP_PLACES says just these places. Where
    places are wide, the first holds all and the others hold a core each."""
    machine, request = asked
    for rank in plan_of(*asked).ranks:
        assert union(rank.places) == rank.cpus
        apart = list(rank.places)
        if request.places == "wide" and request.proc_bind != "false" and not request.place_list:
            cores = cores_of(machine.topology, rank.cpus)
            assert apart.pop(0) == rank.cpus
            assert len(apart) == len(cores) - 1
            assert all(place in cores for place in apart)
        else:
            assert sum(len(p) for p in apart) == len(rank.cpus)
        assert all(not a & b for a, b in itertools.combinations(apart, 2))
        assert read_places(dict(rank.env)["OMP_PLACES"]) == list(rank.places)


def read_places(text: str) -> list[CpuSet]:
    """As the OpenMP standard reads explicit places without intervals."""
    assert text[0] == "{"
    assert text[-1] == "}"
    places = [[int(n) for n in place.split(",")] for place in text[1:-1].split("},{")]
    assert all(len(set(p)) == len(p) for p in places)
    return [CpuSet(p) for p in places]


@given(ASKED)
def test_hardware_threads_used(asked: tuple[Machine, Request]) -> None:
    """--smt N takes the first N allowed threads of each core, all of them under `all`."""
    machine, request = asked
    plan = plan_of(machine, request)
    if request.cpus is not None or by_list(plan):
        return
    usable = usable_cpus(machine, request)
    for core in cores_of(machine.topology, usable):
        for rank in plan.ranks:
            if rank.cpus & core:
                assert rank.cpus & core == CpuSet(list(core)[: request.smt])


@given(ASKED)
def test_same_input_same_bytes_and_back(asked: tuple[Machine, Request]) -> None:
    """A plan is deterministic, and its JSON holds all of it, arguments that are not UTF-8 too."""
    plan = plan_of(*asked)
    text = plan.to_json()
    assert make_plan(*asked).to_json() == text
    assert text.isascii()
    assert parse_plan(text) == plan
    assert parse_plan(text).to_json() == text


@given(ASKED)
def test_the_command_is_the_users(asked: tuple[Machine, Request]) -> None:
    """A rank's arguments end in the worker's own, only {rank} and {ranks} filled in if wished."""
    machine, request = asked
    ranks = plan_of(machine, request).ranks
    count = len(ranks)
    for rank in ranks:
        wanted = request.command
        if request.template:
            wanted = tuple(
                w.replace("{rank}", str(rank.rank)).replace("{ranks}", str(count)) for w in wanted
            )
        assert rank.argv[len(rank.argv) - len(wanted) :] == wanted
        binding = rank.argv[: len(rank.argv) - len(wanted)]
        assert bool(binding) == (request.binder == "numactl")
        if binding:
            assert binding[:2] == ("numactl", f"--physcpubind={rank.cpus}")
            assert (binding[-1] == "--") == wanted[0].startswith("-")


@given(ASKED)
def test_levels_not_asked_for_do_not_matter(asked: tuple[Machine, Request]) -> None:
    """What levels_for leaves out need not be read: the plan is the same without it."""
    machine, request = asked
    keep: list[str] = [*levels_for(request)]
    keep += ["capacity"] if "kind" in keep else []
    cpus = tuple(
        Cpu(c.cpu, **{level: getattr(c, level) for level in keep}) for c in machine.topology.cpus
    )
    bare = machine.replace(topology=machine.topology.replace(cpus=cpus, devices=()))
    full, less = plan_or_none(machine, request), plan_or_none(bare, request)
    assert (full and full.to_json()) == (less and less.to_json())


@given(machines(), st.integers(1, 20))
def test_sizes_and_nodes_when_the_machine_is_divided(machine: Machine, count: int) -> None:
    """With -n alone and a rank or more for each node, none crosses a node and those within one
    differ by at most one core."""
    request = make_asked(["-n", str(count)])
    plan = plan_or_none(machine, request)
    nodes: dict[int | None, CpuSet] = {}
    for c in machine.topology.cpus:
        if c.cpu in machine.allowed.cpus:
            nodes[c.node] = nodes.get(c.node, CpuSet()) | CpuSet([c.cpu])
    if plan is None:
        assert count > len(cores_of(machine.topology, machine.allowed.cpus))
        return
    assert plan.unused == CpuSet()
    if count < len(nodes):
        return
    if any(c.kind is not None for c in machine.topology.cpus):  # then capacity counts
        assert all(len(r.nodes) <= 1 for r in plan.ranks)
        return
    for cpus in nodes.values():
        inside = [r for r in plan.ranks if r.cpus & cpus]
        assert all(r.cpus <= cpus for r in inside)
        assert max(len(r.cpus) for r in inside) - min(len(r.cpus) for r in inside) <= 1


@given(machines(), st.lists(st.integers(0, 3), min_size=1, max_size=8))
def test_sizes_when_nodes_are_named(machine: Machine, picks: list[int]) -> None:
    """The ranks of a named node split all its allowed cores, sizes differing by at most one where
    all cores are of one kind."""
    nodes = [n.node for n in machine.topology.nodes if n.cpus & machine.allowed.cpus]
    if not nodes:
        return
    named = [nodes[p % len(nodes)] for p in picks]
    plan = plan_or_none(
        machine, make_asked(["--numa-bind-nodes", *map(str, named), "--mem", "none"])
    )
    allowed = machine.allowed.cpus
    if plan is None:
        assert any(
            len(cores_of(machine.topology, n.cpus & allowed)) < named.count(n.node)
            for n in machine.topology.nodes
        )
        return
    assert [str(r.nodes) for r in plan.ranks] == [str(n) for n in named]
    for node in set(named):
        ranks = [r for r in plan.ranks if named[r.rank] == node]
        sizes = [len(r.cpus) for r in ranks]
        if all(c.kind is None for c in machine.topology.cpus):  # else it is capacity that counts
            assert max(sizes) - min(sizes) <= 1
        description = machine.topology.find_node(node)
        assert description is not None
        assert sum(sizes) == len(cores_of(machine.topology, description.cpus & allowed))


@given(SHARING)
def test_sharing_ranks_have_the_same(asked: tuple[Machine, Request]) -> None:
    """With --share, two dealt ranks overlap only where they have the very same cpus."""
    machine, request = asked
    plan = plan_of(machine, request)
    if request.cpus is not None:
        return
    for a in plan.ranks:
        for b in plan.ranks:
            assert a.cpus == b.cpus or not a.cpus & b.cpus


def test_hash_seed_does_not_matter(tmp_path: Path) -> None:
    """Another PYTHONHASHSEED gives the same bytes."""
    tree = write_tree(make_files(Shape(packages=2, nodes=4, l3s=8, cores=16, threads=2)), tmp_path)
    command = [sys.executable, "-m", "ompbind", "show", "--format", "json", "--topology", str(tree)]
    command += ["--numa-bind-nodes", "0", "0", "3", "--smt", "all", "--reserve", "2", "--", "true"]
    texts = []
    for seed in ("1", "2"):
        env = {**os.environ, "PYTHONHASHSEED": seed}
        done = subprocess.run(command, env=env, capture_output=True, timeout=30, check=True)
        texts.append(done.stdout)
    assert texts[0] == texts[1]
    assert len(json.loads(texts[0])["ranks"]) == 3


# --- worked examples -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """What is asked of a machine, and for each rank "cpus | places | mem mems"; places that are
    each one cpu of the rank's, in order, are left out."""

    machine: str
    args: str
    ranks: list[str]
    nodes: str = ""  # of each rank's cpus, by blanks
    reserved: str = ""
    unused: str = ""
    roles: list[str] = field(default_factory=list)  # "name cpus ranks"
    others: str = ""
    warnings: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return f"{self.machine} {self.args}".strip()


WORTH = "the cgroup's quota is worth 2.5 cpus: "
IDLE = "{} puts {} on {}: {} of 16 cores are idle"
CROWDED = "more ranks than cores: {} ranks share {} and will wait for each other"
UNEVEN = "ranks get from {} to {} cores, so that no node is divided"
SHARED = "{} share {} cpus and have {} threads together (--threads {} gives each its own)"
INSIDE = "ranks get from {} to {} cores, so that no rank spans two nodes"

CASES = [
    # -n: inside nodes, as equal as possible, then along caches
    Case("server", "", ["0-15"], nodes="0-3"),
    Case("server", "-n 1", ["0-15"], nodes="0-3"),
    Case("server", "-n 2", ["0-7", "8-15"], nodes="0-1 2-3"),
    Case("server", "-n 3", ["0-7", "8-11", "12-15"], nodes="0-1 2 3",
         warnings=[UNEVEN.format(4, 8)]),
    Case("server", "-n 4", ["0-3", "4-7", "8-11", "12-15"], nodes="0 1 2 3"),
    Case("server", "-n 8", ["0-1", "2-3", "4-5", "6-7", "8-9", "10-11", "12-13", "14-15"]),
    Case("server", "-n 5", ["0-1", "2-3", "4-7", "8-11", "12-15"],
         warnings=[INSIDE.format(2, 4)]),
    Case("paired", "-n 2", ["0,2,4,6,8,10,12,14", "16,18,20,22,24,26,28,30"]),
    Case("alternating", "-n 2", ["0,2,4,6,8,10,12,14", "1,3,5,7,9,11,13,15"], nodes="0-1 2-3"),
    Case("alternating", "-n 4", ["0,2,4,6", "8,10,12,14", "1,3,5,7", "9,11,13,15"]),
    Case("desktop", "-n 2", ["0-2", "3-5"]),
    Case("desktop", "-n 3", ["0-1", "2-3", "4-5"]),  # even before whole caches
    Case("desktop", "-n 4", ["0-1", "2", "3-4", "5"]),
    Case("desktop", "-n 6", ["0", "1", "2", "3", "4", "5"]),
    Case("desktop", "-n 2 --share", ["0-5", "0-5"],
         warnings=[SHARED.format("ranks 0-1", 6, 12, 3)]),
    Case("mute", "-n 3", ["0-1", "2", "3"], warnings=[
        "the system does not say which cpus share a core (/sys may be hidden): each cpu counts as "
        "a core"]),
    Case("one-core", "", ["0"]),
    # in a container: both threads of a core count as one core, a lone thread is one too
    Case("container", "", ["0-5,7"], nodes="0-1",
         warnings=[WORTH + "2 threads instead of 7 (--threads N overrides)"]),
    Case("container", "-n 2 --smt all",
         ["0-3,16-19 | 0,16 1,17 2,18 3,19", "4-5,7,20-21 | 4,20 5,21 7"],
         warnings=[WORTH + "2 threads instead of 7 over all ranks (--threads N overrides)"]),
    Case("container", "--numa-bind-cpus 4,20", ["4,20 | 4,20"], unused="0-3,5,7,16-19,21"),
    # --per
    Case("server", "--per package", ["0-7", "8-15"]),
    Case("server", "--per package -n 4", ["0-3", "4-7", "8-11", "12-15"]),
    Case("server", "--per package -n 3", ["0-3", "4-7", "8-15"]),
    Case("server", "--per package -n 1", ["0-7"], unused="8-15,24-31",
         warnings=[IDLE.format("--per package", "1 rank", "1 of 2 packages", 8)]),
    Case("server", "--per numa", ["0-3", "4-7", "8-11", "12-15"]),
    Case("server", "--per numa -n 2", ["0-3", "4-7"], unused="8-15,24-31",
         warnings=[IDLE.format("--per numa", "2 ranks", "2 of 4 nodes", 8)]),
    Case("server", "--per numa -n 6", ["0-1", "2-3", "4-5", "6-7", "8-11", "12-15"]),
    Case("server", "--per numa -n 6 --share", ["0-3", "0-3", "4-7", "4-7", "8-11", "12-15"],
         warnings=[SHARED.format("ranks 0-3: each 2", 4, 8, 2)]),
    Case("server", "--per numa --numa-bind",
         ["0-3 || bind 0", "4-7 || bind 1", "8-11 || bind 2", "12-15 || bind 3"]),
    Case("server", "--per l3", [f"{2 * n}-{2 * n + 1}" for n in range(8)]),
    Case("server", "--per l3 -n 10",
         ["0", "1", "2", "3", "4-5", "6-7", "8-9", "10-11", "12-13", "14-15"]),
    Case("server", "--per l3 -n 3", ["0-1", "2-3", "4-5"], unused="6-15,22-31"),
    Case("server", "--per core", [str(n) for n in range(16)]),
    Case("server", "--per core -n 2", ["0", "1"], unused="2-15,18-31"),
    Case("server", "--per core -n 2 --smt 2", ["0,16 | 0,16", "1,17 | 1,17"], unused="2-15,18-31"),
    Case("server", "--per package --mem interleave",
         ["0-7 || interleave 0-1", "8-15 || interleave 2-3"]),
    # nodes by themselves and by name
    Case("lopsided", "-n 4 --numa-bind --cores-per-rank 2,1,1,1",
         ["0-1 || bind 0", "2 || bind 0", "4 || bind 1", "5 || bind 1"], unused="3"),
    Case("server", "--numa-bind", ["0-3 || bind 0"], unused="4-15,20-31",
         warnings=[IDLE.format("--numa-bind", "1 rank", "1 of 4 nodes", 12)]),
    Case("server", "--numa-bind -n 2", ["0-3 || bind 0", "4-7 || bind 1"], unused="8-15,24-31",
         warnings=[IDLE.format("--numa-bind", "2 ranks", "2 of 4 nodes", 8)]),
    Case("server", "--numa-bind -n 5",
         ["0-1 || bind 0", "2-3 || bind 0", "4-7 || bind 1", "8-11 || bind 2", "12-15 || bind 3"],
         warnings=[INSIDE.format(2, 4)]),
    Case("server", "--numa-bind-nodes 0 0 1 1",
         ["0-1 || bind 0", "2-3 || bind 0", "4-5 || bind 1", "6-7 || bind 1"],
         nodes="0 0 1 1", unused="8-15,24-31"),
    Case("server", "--numa-bind-nodes 0,0,1,1",
         ["0-1 || bind 0", "2-3 || bind 0", "4-5 || bind 1", "6-7 || bind 1"], unused="8-15,24-31"),
    Case("server", "--numa-bind-nodes 1 0 1",
         ["4-5 || bind 1", "0-3 || bind 0", "6-7 || bind 1"], unused="8-15,24-31",
         warnings=["ranks get from 2 to 4 cores"]),
    Case("server", "--numa-bind-nodes 3 3 3", ["12-13 || bind 3", "14 || bind 3", "15 || bind 3"],
         unused="0-11,16-27"),
    Case("server", "--numa-bind-nodes 0 0 --share", ["0-3 || bind 0", "0-3 || bind 0"],
         unused="4-15,20-31", warnings=[SHARED.format("ranks 0-1", 4, 8, 2)]),
    Case("server", "--numa-bind-nodes 2 --mem preferred", ["8-11 || preferred 2"],
         unused="0-7,12-23,28-31"),
    Case("server", "--numa-bind-nodes 2 --mem none", ["8-11"], unused="0-7,12-23,28-31"),
    Case("server", "--numa-bind-nodes 2 --mem local", ["8-11 || local"], unused="0-7,12-23,28-31"),
    # cpus by name
    Case("server", "--numa-bind-cpus 0-3 4-7", ["0-3", "4-7"], unused="8-15,24-31"),
    Case("server", "--numa-bind-cpus 0-1,16-17", ["0-1,16-17 | 0,16 1,17"], unused="2-15,18-31"),
    Case("server", "--numa-bind-cpus 0 16", ["0", "16"], unused="1-15,17-31",
         warnings=["ranks 0 and 1 have hardware threads of one core "
                   "(slower: give each whole cores)"]),
    Case("server", "--numa-bind-cpus 0-1 1-2 --share", ["0-1", "1-2"], unused="3-15,19-31"),
    Case("server", "--numa-bind-cpus 0-1 8-9 --numa-bind-nodes 0 3",
         ["0-1 || bind 0", "8-9 || bind 3"], nodes="0 2", unused="2-7,10-15,18-23,26-31",
         warnings=["rank 1: its memory is on node 3, its cpus on 2 "
                   "(farther away: name its cpus' node, or --mem interleave)"]),
    Case("server", "--numa-bind-cpus 3,4 --mem preferred", ["3-4 || preferred 0-1"],
         nodes="0-1", unused="0-2,5-15,16-18,21-31"),
    Case("server", "--per numa --mem preferred", ["0-3 || preferred 0", "4-7 || preferred 1",
         "8-11 || preferred 2", "12-15 || preferred 3"]),
    Case("server", "--numa-bind-cpus 0-1", ["0-1"], unused="2-15,18-31"),
    # several nodes for a rank
    Case("server", "--numa-bind-nodes 0+1", ["0-7 || bind 0-1"], unused="8-15,24-31"),
    Case("server", "--numa-bind-nodes 2+3 0+1", ["8-15 || bind 2-3", "0-7 || bind 0-1"]),
    Case("server", "--numa-bind-nodes 0-1+3 --mem interleave", ["0-7,12-15 || interleave 0-1,3"],
         unused="8-11,24-27"),
    Case("server", "--numa-bind-nodes 0+1 0+1", ["0-3 || bind 0-1", "4-7 || bind 0-1"],
         nodes="0 1", unused="8-15,24-31"),
    Case("server", "--numa-bind-nodes 0+1 1 --share", ["0-7 || bind 0-1", "4-7 || bind 1"],
         unused="8-15,24-31", warnings=["ranks get from 4 to 8 cores"]),
    Case("server", "--numa-bind-cpus 0-3 --numa-bind-nodes 0+1", ["0-3 || bind 0-1"],
         unused="4-15,20-31"),
    # memory without --numa-bind
    Case("server", "-n 2 --mem bind", ["0-7 || bind 0-1", "8-15 || bind 2-3"]),
    Case("server", "-n 2 --mem preferred", ["0-7 || preferred 0-1", "8-15 || preferred 2-3"]),
    Case("server", "--mem interleave", ["0-15 || interleave 0-3"]),
    Case("server", "--mem local", ["0-15 || local"]),
    Case("expander", "", ["0-7"]),
    Case("expander", "--per numa --numa-bind", ["0-3 || bind 0", "4-7 || bind 1"]),
    Case("expander", "--mem interleave", ["0-7 || interleave 0-1"]),
    # nodes for memory apart from the cpus
    Case("expander", "--mem interleave --mem-nodes all", ["0-7 || interleave 0-2"]),
    Case("expander", "--mem bind --mem-nodes 2", ["0-7 || bind 2"]),
    Case("expander", "--mem preferred --mem-nodes all", ["0-7 || preferred 0-2"]),
    Case("expander", "--mem weighted-interleave --mem-nodes 0,2",
         ["0-7 || weighted-interleave 0,2"]),
    Case("expander", "--per numa --numa-bind --mem preferred --mem-nodes 2",
         ["0-3 || preferred 2", "4-7 || preferred 2"]),
    Case("expander", "--numa-bind-nodes 1 0 --mem-nodes 0,2",
         ["4-7 || bind 0,2", "0-3 || bind 0,2"]),
    Case("server", "-n 2 --mem bind --mem-nodes 0,2 1,3", ["0-7 || bind 0,2", "8-15 || bind 1,3"]),
    Case("server", "-n 2 --mem bind --mem-nodes all 1", ["0-7 || bind 0-3", "8-15 || bind 1"]),
    Case("server", "-n 2 --share --mem interleave --mem-nodes 0-1 2",
         ["0-15 || interleave 0-1", "0-15 || interleave 2"],
         warnings=[SHARED.format("ranks 0-1", 16, 32, 8)]),
    Case("expander", "--numa-bind-cpus 0-3 --mem bind --mem-nodes 1", ["0-3 || bind 1"],
         unused="4-7"),
    Case("hungry", "--mem interleave --mem-nodes all", ["0-5 || interleave 0,2"]),
    Case("hungry", "--mem interleave --mem-nodes 1-2", ["0-5 || interleave 0,2"],
         warnings=["node 1 has no memory; using node 0, the nearest that has"]),
    # a node without cpus is named for its memory: nothing to warn of
    Case("expander", "--numa-bind-cpus 0-3 --numa-bind-nodes 2", ["0-3 || bind 2"], unused="4-7"),
    Case("expander", "--numa-bind-cpus 0-3 --numa-bind-nodes 1+2", ["0-3 || bind 1-2"],
         unused="4-7", warnings=["rank 0: its memory is on nodes 1-2, its cpus on 0 "
                                 "(farther away: name its cpus' node, or --mem interleave)"]),
    Case("hungry", "--per numa --numa-bind", ["0-1 || bind 0", "2-3 || bind 0", "4-5 || bind 2"],
         warnings=["node 1 has no memory; using node 0, the nearest that has"]),
    Case("hungry", "--numa-bind-nodes 1 --mem preferred", ["2-3 || preferred 0"], unused="0-1,4-5",
         warnings=["node 1 has no memory; using node 0, the nearest that has"]),
    Case("flat", "--numa-bind", ["0-3"],
         warnings=["this kernel has no NUMA: all memory is one node, so no policy is set"]),
    Case("flat", "--mem local", ["0-3"],
         warnings=["this kernel has no NUMA: all memory is one node, so no policy is set"]),
    Case("hidden", "-n 2", ["0-1", "2-3"], nodes="- -"),
    # --reserve: from whoever has the most, the last such rank first
    Case("server", "--reserve 1", ["0-14"], reserved="15,31"),
    Case("server", "-n 2 --reserve 1", ["0-7", "8-14"], reserved="15,31"),
    Case("server", "-n 2 --reserve 2", ["0-6", "8-14"], reserved="7,15,23,31"),
    Case("server", "--per numa --reserve 3", ["0-3", "4-6", "8-10", "12-14"],
         reserved="7,11,15,23,27,31"),
    Case("server", "--numa-bind-nodes 0 1 1 --reserve 1",
         ["0-2 || bind 0", "4-5 || bind 1", "6-7 || bind 1"], reserved="3,19",
         unused="8-15,24-31"),
    Case("server", "-n 2 --share --reserve 2", ["0-13", "0-13"], reserved="14-15,30-31",
         warnings=[SHARED.format("ranks 0-1", 14, 28, 7)]),
    Case("server", "--reserve 0", ["0-15"]),
    Case("server", "--per package --reserve 1/rank", ["0-6", "8-14"], reserved="7,15,23,31"),
    Case("server", "--per package --share -n 4 --reserve 1/rank",
         ["0-5", "0-5", "8-13", "8-13"], reserved="6-7,14-15,22-23,30-31",
         warnings=[SHARED.format("ranks 0-3: each 2", 6, 12, 3)]),
    # --role: of all together as --reserve does, or of each rank's own; siblings stay idle
    Case("server", "--role kv=2", ["0-13"], roles=["kv 14-15 0"]),
    Case("server", "--per package --role kv=1", ["0-7", "8-14"], roles=["kv 15 0-1"]),
    Case("server", "--per package --role kv=1/rank", ["0-6", "8-14"],
         roles=["kv 7 0", "kv 15 1"]),
    Case("server", "--per package --role kv=1/rank --smt all --places threads",
         ["0-6,16-22 | 0 16 1 17 2 18 3 19 4 20 5 21 6 22",
          "8-14,24-30 | 8 24 9 25 10 26 11 27 12 28 13 29 14 30"],
         roles=["kv 7,23 0", "kv 15,31 1"]),
    Case("server", "--numa-bind-nodes 0 2 --role kv=1/rank --role io=1 --reserve 1",
         ["0-1 || bind 0", "8-9 || bind 2"], roles=["kv 3 0", "kv 11 1", "io 10 0-1"],
         reserved="2,18", unused="4-7,12-15,20-23,28-31"),
    Case("server", "--numa-bind-nodes 3 3 --share --role kv=1/rank",
         ["12-13 || bind 3", "12-13 || bind 3"], roles=["kv 15 0", "kv 14 1"],
         unused="0-11,16-27", warnings=[SHARED.format("ranks 0-1", 2, 4, 1)]),
    # --part: as -n N cuts the machine, then divided as it says
    Case("server", "--part 1/2", ["0-7"], others="8-15,24-31"),
    Case("server", "--part 2/2 -n 2", ["8-11", "12-15"], others="0-7,16-23"),
    Case("server", "--part 2/2 --per l3 --smt 2 --places l3",
         [f"{a}-{a + 1},{a + 16}-{a + 17} | {a}-{a + 1},{a + 16}-{a + 17}"
          for a in (8, 10, 12, 14)], others="0-7,16-23"),
    Case("server", "--part 1/2 --numa-bind-nodes 1", ["4-7 || bind 1"], unused="0-3,16-19",
         others="8-15,24-31"),
    Case("server", "--part 2/2 --numa-bind", ["8-11 || bind 2"], unused="12-15,28-31",
         others="0-7,16-23"),
    Case("server", "--part 1/3 -n 2 --role kv=1 --reserve 1", ["0-2", "4-6"],
         roles=["kv 7 0-1"], reserved="3,19", others="8-15,24-31"),
    Case("server", "--part 1/1", ["0-15"]),
    # several kinds of core: the same number of each, else capacity as equal as it comes
    Case("hybrid", "-n 2", ["0,2,8-11", "4,6,12-15"]),
    Case("hybrid", "-n 4", ["0,8-9", "2,10-11", "4,12-13", "6,14-15"]),
    Case("hybrid", "-n 3", ["0,2,14-15", "4,8-10", "6,11-13"]),
    Case("hybrid", "-n 3 --kind all --reserve 1", ["0,2,14", "4,8-10", "6,11-13"], reserved="15"),
    Case("hybrid", "--kind performance", ["0,2,4,6"], unused="8-15"),
    Case("hybrid", "--kind performance -n 2 --smt 2", ["0-3 | 0-1 2-3", "4-7 | 4-5 6-7"],
         unused="8-15"),
    Case("hybrid", "--kind efficiency -n 2 --places l3", ["8-11 | 8-11", "12-15 | 12-15"],
         unused="0-7"),
    Case("hybrid", "--part 2/2 --kind performance", ["4,6"], unused="12-15",
         others="0-3,8-11"),
    Case("hybrid", "--numa-bind-nodes 0 0", ["0,2,8-11 || bind 0", "4,6,12-15 || bind 0"]),
    Case("hybrid", "--role kv=1", ["0,2,4,6,8-14"], roles=["kv 15 0"]),
    Case("old-arm", "-n 2", ["0-1,4-5", "2-3,6-7"]),
    Case("gb10", "-n 2", ["0-9", "10-19"]),
    Case("gb10", "--reserve 1", ["0-13,15-19"], reserved="14"),  # the last of the small ones
    Case("gb10", "-n 4", ["0-2,8-9", "3-7", "10-12,18-19", "13-17"]),
    Case("server", "--kind performance -n 2", ["0-7", "8-15"]),
    # more ranks than cores
    Case("one-core", "-n 3 --oversubscribe", ["0", "0", "0"],
         warnings=[CROWDED.format(3, "1 core")]),
    Case("desktop", "-n 8 --oversubscribe", ["0", "0", "1", "2", "3", "3", "4", "5"],
         warnings=[CROWDED.format(4, "2 cores")]),
    Case("desktop", "-n 3 --oversubscribe", ["0-1", "2-3", "4-5"]),
    Case("server", "--numa-bind-nodes 0 0 0 0 0 1 --oversubscribe --smt 2",
         ["0,16 | 0,16 | bind 0", "0,16 | 0,16 | bind 0", "1,17 | 1,17 | bind 0",
          "2,18 | 2,18 | bind 0", "3,19 | 3,19 | bind 0",
          "4-7,20-23 | 4,20 5,21 6,22 7,23 | bind 1"], unused="8-15,24-31",
         warnings=["ranks get from 1 to 4 cores", CROWDED.format(2, "1 core")]),
    # --exclude
    Case("server", "--exclude 0", ["1-15"]),
    Case("server", "--exclude 16", ["1-15"]),
    Case("server", "--exclude 0,16", ["1-15"]),
    Case("server", "--exclude 0 --exclude 17,2-3", ["4-15"]),
    Case("server", "--exclude 0-3 --per numa", ["4-7", "8-11", "12-15"]),
    Case("server", "--exclude 0 --numa-bind-nodes 0 --smt 2",
         ["1-3,16-19 | 16 1,17 2,18 3,19 | bind 0"], unused="4-15,20-31"),
    Case("server", "--exclude 0 --smt all --part 1/2", ["1-7,17-23 | 1,17 2,18 3,19 4,20 5,21 "
         "6,22 7,23"], others="8-15,24-31"),
    Case("server", "--exclude-cpus 0", ["1-16 | 16 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15"]),
    Case("server", "--exclude-cpus 0-14 --exclude-cpus 15 --exclude 16-29", ["30-31"]),
    Case("server", "--exclude 12-15,28-31 -n 3", ["0-3", "4-7", "8-11"]),
    Case("server", "--exclude 0,16,99", ["1-15"],
         warnings=["--exclude names cpus that this machine does not have: 99"]),
    # --smt and --places
    Case("server", "--numa-bind-nodes 0 --smt 2",
         ["0-3,16-19 | 0,16 1,17 2,18 3,19 | bind 0"], unused="4-15,20-31"),
    Case("server", "--numa-bind-nodes 0 --smt all --places threads",
         ["0-3,16-19 | 0 16 1 17 2 18 3 19 | bind 0"], unused="4-15,20-31"),
    Case("paired", "--numa-bind-nodes 0 --smt all", ["0-7 | 0-1 2-3 4-5 6-7 | bind 0"],
         unused="8-31"),
    Case("server", "-n 2 --places l3", ["0-7 | 0-1 2-3 4-5 6-7", "8-15 | 8-9 10-11 12-13 14-15"]),
    Case("server", "-n 2 --places numa", ["0-7 | 0-3 4-7", "8-15 | 8-11 12-15"]),
    Case("server", "-n 2 --places one", ["0-7 | 0-7", "8-15 | 8-15"]),
    Case("server", "-n 2 --places cores", ["0-7", "8-15"]),
    Case("server", "-n 8 --places wide",
         ["0-1 | 0-1 1", "2-3 | 2-3 3", "4-5 | 4-5 5", "6-7 | 6-7 7", "8-9 | 8-9 9",
          "10-11 | 10-11 11", "12-13 | 12-13 13", "14-15 | 14-15 15"]),
    Case("server", "-n 8 --proc-bind false --places cores",
         ["0-1 | 0-1", "2-3 | 2-3", "4-5 | 4-5", "6-7 | 6-7", "8-9 | 8-9", "10-11 | 10-11",
          "12-13 | 12-13", "14-15 | 14-15"]),
    Case("server", "-n 2 --places threads", ["0-7", "8-15"]),
    Case("server", "--places numa --smt all",
         ["0-31 | 0-3,16-19 4-7,20-23 8-11,24-27 12-15,28-31"]),
    Case("alternating", "--places numa", ["0-15 | 0,2,4,6 8,10,12,14 1,3,5,7 9,11,13,15"]),
    # SMT-8 with two threads switched on
    Case("power", "-n 2", ["0,8", "16,24"]),
    Case("power", "--smt all", ["0-1,8-9,16-17,24-25 | 0-1 8-9 16-17 24-25"]),
    Case("power", "--smt 2 --places threads -n 4", ["0-1", "8-9", "16-17", "24-25"]),
    Case("power", "--per l3", ["0,8", "16,24"]),
    # ranks of unlike size
    Case("lopsided", "-n 2", ["0-3", "4-5"], warnings=[UNEVEN.format(2, 4)]),
    Case("lopsided", "-n 3", ["0-1", "2-3", "4-5"]),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=str)
def test_worked_example(case: Case) -> None:
    """What the contract says for this machine and these options, worked out by hand."""
    plan = make_plan(MACHINES[case.machine], make_asked(case.args.split()))
    got = []
    for r in plan.ranks:
        simple = list(r.places) == [CpuSet([c]) for c in r.cpus]
        places = "" if simple else " ".join(map(str, r.places))
        mem = "" if r.mem == "none" else f"{r.mem} {r.mems}".strip()
        got.append(f"{r.cpus} | {places} | {mem}".replace("|  |", "||").rstrip(" |"))
    assert got == case.ranks
    if case.nodes:
        assert [str(r.nodes) or "-" for r in plan.ranks] == case.nodes.split()
    assert plan.reserved == CpuSet.parse_kernel(case.reserved)
    assert plan.unused == CpuSet.parse_kernel(case.unused)
    assert [f"{r.name} {r.cpus} {r.ranks}" for r in plan.roles] == case.roles
    assert plan.others == CpuSet.parse_kernel(case.others)
    assert list(plan.warnings) == case.warnings


def test_an_excluded_cpu_that_is_not_allowed_excludes_its_core() -> None:
    """What runs on it competes with the core's allowed thread all the same."""
    container = MACHINES["container"]  # of core 7, cpus 7 and 23, the first is allowed
    for args, cpus in (("--exclude 22", "0-5,7"), ("--exclude 23", "0-5")):
        (rank,) = make_plan(container, make_asked(args.split())).ranks
        assert str(rank.cpus) == cpus


@pytest.mark.parametrize(
    ("args", "threads"),
    [
        ("", "16"),
        ("--smt all", "16"),
        ("--smt all --places threads", "32"),
        ("--places one", "16"),
        ("--places wide", "16"),
        ("--places wide --smt all", "16"),
        ("--places cores --smt all --proc-bind false", "16"),
        ("--places one --smt all", "32"),
        ("--places one --smt all --threads cores", "16"),
        ("--places threads --smt all --threads cores -n 2", "8"),
        ("--places numa", "16"),
        ("--places l3", "16"),
        ("--threads 3", "3"),
        ("--places one --threads 7", "7"),
        ("-n 4", "4"),
    ],
)
def test_number_of_threads(args: str, threads: str) -> None:
    """One thread for each place of a core or thread, for each cpu where places are larger."""
    plan = make_plan(MACHINES["server"], make_asked(args.split()))
    assert [dict(r.env)["OMP_NUM_THREADS"] for r in plan.ranks] == [threads] * len(plan.ranks)
    assert plan.warnings == ()


def test_too_many_threads_are_warned_of() -> None:
    """More threads than cpus is done and warned of, nested levels' first number counting."""
    machine = MACHINES["desktop"]
    plan = make_plan(machine, make_asked(["-n", "2", "--threads", "4"]))
    assert plan.warnings == ("ranks 0-1: 4 threads on 3 cpus (--threads 3 gives each its own)",)
    halves = {"OMP_PLACES": "{0},{16},{1},{17}", "OMP_PROC_BIND": "close"}
    plan = make_plan(MACHINES["server"], make_asked([], environ=halves))
    assert dict(plan.ranks[0].env)["OMP_NUM_THREADS"] == "4"  # the user's places, each of a thread
    assert plan.warnings == ()
    nested = make_plan(machine, make_asked([], environ={"OMP_NUM_THREADS": "6,9"}))
    assert nested.warnings == ()
    assert dict(nested.ranks[0].env)["OMP_NUM_THREADS"] == "6,9"


@pytest.mark.parametrize(
    ("quota", "args", "threads", "message"),
    [
        (8.0, "", [8], None),
        (7.9, "", [7], "7 threads instead of 8"),
        (4.0, "-n 2", [2, 2], "4 threads instead of 8 over all ranks"),
        (5.0, "-n 2", [2, 2], "4 threads instead of 8 over all ranks"),
        (3.5, "-n 2", [1, 1], "2 threads instead of 8 over all ranks"),
        (4.0, "--numa-bind-nodes 0 1 1", [2, 1, 1], "4 threads instead of 8 over all ranks"),
        (7.0, "--numa-bind-nodes 0 1 1", [3, 1, 1], "5 threads instead of 8 over all ranks"),
        (4.0, "-n 2 --share", [2, 2], "4 threads instead of 16 over all ranks"),
        (
            3.5,
            "-n 2 --role kv=1/rank",
            [1, 1],
            "each of 2 ranks has one thread, beside 2 of roles, and will be throttled",
        ),
        (
            5.0,
            "-n 2 --role kv=1/rank",
            [1, 1],
            "2 threads instead of 6 over all ranks, beside 2 of roles",
        ),
        (8.0, "-n 2 --role kv=1/rank", [3, 3], None),
        (2.0, "--role kv=2", [1], "there is one thread, beside 2 of roles: they will be throttled"),
        (
            6.0,
            "--smt all --places one --threads cores -n 2",
            [3, 3],
            "6 threads instead of 8 over all ranks",
        ),
        (2.0, "-n 4", [1, 1, 1, 1], "each of 4 ranks has one thread, and will be throttled"),
        (0.5, "", [1], "there is one thread"),
        (3.0, "--places one --smt all", [3], "3 threads instead of 16"),
    ],
)
def test_threads_follow_a_quota(
    quota: float, args: str, threads: list[int], message: str | None
) -> None:
    """In proportion to the ranks' sizes, equal where these are, one for each at least; what roles
    run on is taken off before; the cpus stay."""
    shape = Shape(packages=2, nodes=2, cores=8, threads=2, numbering="halves")
    plan = make_plan(make_machine(shape, quota=quota), make_asked(args.split()))
    free = make_plan(make_machine(shape), make_asked(args.split()))
    assert [int(dict(r.env)["OMP_NUM_THREADS"]) for r in plan.ranks] == threads
    assert [r.cpus for r in plan.ranks] == [r.cpus for r in free.ranks]
    if message is None:
        assert plan.warnings == ()
    else:
        worth = f"the cgroup's quota is worth {quota:g} cpus: {message} (--threads N overrides)"
        assert worth in plan.warnings


def test_threads_asked_for_are_not_the_quotas() -> None:
    """--threads and OMP_NUM_THREADS stand, with a warning where they are too many for the quota."""
    machine = make_machine(Shape(cores=8), quota=4)
    asked = make_plan(machine, make_asked(["--threads", "6"]))
    assert dict(asked.ranks[0].env)["OMP_NUM_THREADS"] == "6"
    assert asked.warnings == (
        "the cgroup's quota is worth 4 cpus, but 6 threads are asked for: they will be throttled",
    )
    inherited = make_plan(machine, make_asked(["-n", "2"], environ={"OMP_NUM_THREADS": "2,4"}))
    assert [dict(r.env)["OMP_NUM_THREADS"] for r in inherited.ranks] == ["2,4", "2,4"]
    assert inherited.warnings == ()


@given(st.lists(st.integers(1, 12), min_size=1, max_size=6), st.integers(0, 40))
def test_threads_within_any_quota(numbers: list[int], within: int) -> None:
    """In proportion to the ranks' sizes, equal where these are, and as many as there can be: with
    any larger factor they would exceed the quota, unless all have one thread or all they had."""
    threads = scale(numbers, within)
    assert all(1 <= n <= most for n, most in zip(threads, numbers, strict=True))
    of_size = dict(zip(numbers, threads, strict=True))
    assert threads == [of_size[number] for number in numbers]
    assert sum(threads) <= within or set(threads) == {1}
    factors = sorted({Fraction(n, number) for number in numbers for n in range(1, number + 1)})
    sums = [sum(max(1, int(number * factor)) for number in numbers) for factor in factors]
    fits = [total for total in sums if total <= within]
    assert sum(threads) == max(fits, default=len(numbers))


def test_ranks_that_share_cpus_are_warned_of_their_threads() -> None:
    """Each has a thread for each of the cpus, so that all together have more."""
    args = ["--numa-bind-nodes", "0", "0", "1", "--share"]
    assert make_plan(MACHINES["server"], make_asked(args)).warnings == (
        "ranks 0-1 share 4 cpus and have 8 threads together (--threads 2 gives each its own)",
    )
    assert make_plan(MACHINES["server"], make_asked([*args, "--threads", "2"])).warnings == ()


def test_isolated_cpus_are_warned_of() -> None:
    """Mixed with others they are likely a mistake; several in a place are a trap."""
    machine = make_machine(Shape(cores=4, isolated="2-3"))
    mixed = ("cpus 2-3 of this plan are isolated (isolcpus) and others are not: --exclude 2-3 "
             "leaves them out")  # fmt: skip
    trap = ("cpus 2-3 are isolated: the kernel does not balance threads over them, so those of "
            "one place stay together on one cpu; --places cores gives each its own")  # fmt: skip
    for args, warnings in (
        ("", [mixed]),
        ("--places one", [mixed, trap]),
        ("--exclude 2-3 --places one", []),
        ("--numa-bind-cpus 2-3", []),
        ("--numa-bind-cpus 2-3 --places one", [trap]),
        ("--exclude 0-1,3 --places one", []),
        (
            "--exclude 2",
            [
                "cpu 3 of this plan is isolated (isolcpus) and others are not: --exclude "
                "3 leaves it out"
            ],
        ),
    ):
        assert list(make_plan(machine, make_asked(args.split())).warnings) == warnings, args


def test_environment_of_a_rank() -> None:
    """The whole environment of a rank among several, and of a single one."""
    machine = MACHINES["desktop"]
    two = make_plan(machine, make_asked(["-n", "2", "--proc-bind", "spread"]))
    assert two.ranks[1].env == (
        ("OMP_NUM_THREADS", "3"),
        ("OMP_PLACES", "{3},{4},{5}"),
        ("OMP_PROC_BIND", "spread"),
        ("OMPBIND_RANK", "1"),
        ("OMPBIND_RANKS", "2"),
        ("RANK", "1"),
        ("LOCAL_RANK", "1"),
        ("WORLD_SIZE", "2"),
        ("LOCAL_WORLD_SIZE", "2"),
        ("OMPBIND_CPUS", "3-5"),
        ("OMPBIND_MEM", "none"),
    )
    one = make_plan(machine, make_asked([]))
    assert [k for k, _ in one.ranks[0].env if "RANK" in k] == ["OMPBIND_RANK", "OMPBIND_RANKS"]
    asked = make_plan(machine, make_asked(["--rank-env"]))
    assert dict(asked.ranks[0].env)["WORLD_SIZE"] == "1"
    unasked = make_plan(machine, make_asked(["-n", "2", "--no-rank-env"]))
    assert "RANK" not in dict(unasked.ranks[1].env)
    assert dict(unasked.ranks[1].env)["OMPBIND_RANK"] == "1"


def test_plan_of_a_container_names_the_host() -> None:
    """The host's part of a plan says what was there and what of it allowed."""
    host = make_plan(MACHINES["container"], make_asked([])).host
    assert (str(host.cpus), str(host.allowed), str(host.nodes)) == ("0-31", "0-5,7,16-21", "0-3")
    assert (host.name, host.quota) == ("made-up", 2.5)


def test_a_crowded_package_does_not_make_ranks_cross_nodes() -> None:
    """With a rank for each node none crosses one, also where a package has many small nodes."""
    shape = Shape(packages=2, nodes=6, cores=24)  # three nodes of four cores in each package
    machine = make_machine(shape, "0,4,8,12-15")  # one core of each of the first three
    plan = make_plan(machine, make_asked(["-n", "4"]))
    assert [str(r.cpus) for r in plan.ranks] == ["0", "4", "8", "12-15"]


@pytest.mark.parametrize(
    ("machine", "args", "message", "hint"),
    [
        ("server", "--numa-bind-nodes 0 7", "rank 1: node 7 does not exist",
         "nodes with usable cpus: 0-3"),
        ("expander", "--numa-bind-nodes 2", "rank 0: node 2 has no cpus",
         "nodes with usable cpus: 0-1; the nearest is 1. "
         "--numa-bind-cpus gives cpus, the node then memory"),
        ("container", "--numa-bind-nodes 0 3",
         "rank 1: none of the cpus of node 3 (12-15,28-31) may be used",
         "nodes with usable cpus: 0-1; allowed cpus: 0-5,7,16-21"),
        ("server", "--numa-bind-cpus 0 99", "rank 1: cpu 99 does not exist", "allowed cpus: 0-31"),
        ("server", "--numa-bind-cpus 98-99", "rank 0: cpus 98-99 do not exist",
         "allowed cpus: 0-31"),
        ("power", "--numa-bind-cpus 2", "rank 0: cpu 2 is offline",
         "allowed cpus: 0-1,8-9,16-17,24-25"),
        ("power", "--numa-bind-cpus 0 2-3", "rank 1: cpus 2-3 are offline",
         "allowed cpus: 0-1,8-9,16-17,24-25"),
        ("container", "--numa-bind-cpus 6",
         "rank 0: cpu 6 is not allowed (affinity mask or cgroup)", "allowed cpus: 0-5,7,16-21"),
        ("server", "--numa-bind-cpus 0-1 1-2", "rank 1: cpu 1 already belongs to rank 0",
         "--share lets ranks overlap"),
        ("server", "-n 17", "rank 16: the machine has 16 usable cores for 17 ranks",
         "at most 16 ranks there, or --oversubscribe to let them share cores"),
        ("one-core", "-n 2", "rank 1: the machine has 1 usable core for 2 ranks",
         "at most 1 rank there, or --oversubscribe to let them share cores"),
        ("server", "--numa-bind-nodes 1 0 0 0 0 0", "rank 5: node 0 has 4 usable cores for 5 ranks",
         "at most 4 ranks there, or --oversubscribe to let them share cores"),
        ("server", "--per l3 -n 17", "rank 2: L3 0 has 2 usable cores for 3 ranks",
         "at most 2 ranks there, or --oversubscribe to let them share cores"),
        ("server", "--numa-bind-nodes 0 1 -n 3",
         "the number of ranks is unclear: --numa-bind-nodes is for 2, --ranks is for 3",
         "give each list one value for every rank"),
        ("server", "--numa-bind-nodes 0 1 --numa-bind-cpus 0",
         "the number of ranks is unclear: --numa-bind-nodes is for 2, --numa-bind-cpus is for 1",
         "give each list one value for every rank"),
        ("server", "--per numa --numa-bind-nodes 0",
         "--per numa and a list of nodes or cpus both say where ranks go",
         "leave one of them out"),
        ("server", "--numa-bind-cpus 0 --smt 2",
         "--numa-bind-cpus names exactly the cpus to use; --smt would change them",
         "leave --smt out"),
        ("server", "--numa-bind-cpus 0 --reserve 1",
         "--numa-bind-cpus names exactly the cpus to use; --reserve would change them",
         "leave --reserve out"),
        ("server", "--numa-bind-cpus 0 --exclude 1",
         "--numa-bind-cpus names exactly the cpus to use; --exclude would change them",
         "leave --exclude out"),
        ("server", "--smt 3", "--smt 3: no core has that many allowed hardware threads",
         "--smt 2 or --smt all"),
        ("server", "--exclude 0-31", "no cpu is left to use", "allowed: 0-31; excluded: 0-31"),
        ("server", "--exclude 16-31", "no cpu is left to use", "allowed: 0-31; excluded: 0-31; "
         "--exclude-cpus leaves the other hardware threads of their cores"),
        ("server", "-n 8 --reserve 9", "--reserve 9 would leave ranks without a core",
         "at most 8 can be reserved with this many ranks"),
        ("server", "-n 8 --reserve 3 --role kv=6", "--reserve 3 would leave ranks without a core",
         "at most 2 can be reserved with this many ranks"),
        ("server", "-n 8 --role kv=9", "--role kv=9 would leave ranks without a core",
         "at most 8 can be set aside with this many ranks"),
        ("server", "-n 5 --role kv=2/rank", "rank 0: --role kv=2/rank would leave it without a "
         "core", "at most 1 can be taken from each rank there"),
        ("server", "-n 2 --share --reserve 8/rank", "rank 0: --reserve 8/rank would leave it "
         "without a core", "at most 7 can be taken from each rank there"),
        ("desktop", "--part 1/7", "--part 1/7: the machine has 6 usable cores",
         "at most 6 parts"),
        ("desktop", "--part 1/2 -n 4",
         "rank 3: part 1/2 of the machine has 3 usable cores for 4 ranks",
         "at most 3 ranks there, or --oversubscribe to let them share cores"),
        ("server", "--part 1/2 --numa-bind-nodes 0 2",
         "rank 1: none of the cpus of node 2 (8-11,24-27) is in part 1/2",
         "nodes with usable cpus: 0-1"),
        ("server", "--part 1/2 --numa-bind-cpus 0",
         "--numa-bind-cpus names exactly the cpus to use; --part would change them",
         "leave --part out"),
        ("server", "--role kv=1 --numa-bind-cpus 0",
         "--numa-bind-cpus names exactly the cpus to use; --role would change them",
         "leave --role out"),
        ("server", "--kind efficiency",
         "--kind efficiency: the cores of this machine are all of one kind", "leave --kind out"),
        ("hybrid", "--kind performance --exclude 0-7",
         "--kind performance: none of the usable cores is of that kind",
         "ompbind topo shows the kinds of core"),
        ("server", "--per package --numa-bind",
         "rank 0: package 0 spans nodes 0-1, but --numa-bind needs a single node",
         "--per numa, or --mem interleave without --numa-bind"),
        ("server", "--numa-bind-cpus 0 --numa-bind-nodes 9", "rank 0: node 9 does not exist",
         "nodes: 0-3"),
        ("container", "--numa-bind-cpus 0 --numa-bind-nodes 3",
         "rank 0: memory of node 3 is not allowed (cgroup cpuset)",
         "memory allowed on: 0-1; --mem none binds cpus only"),
        ("expander", "--mem preferred --mem-balancing",
         "--mem-balancing is for --mem bind, not for --mem preferred", "leave one of them out"),
        ("expander", "--mem-balancing", "--mem-balancing is for a memory policy, and none is set",
         "--mem bind"),
        ("server", "--per numa --mem bind --mem-nodes 0 1",
         "--mem-nodes is for 2 ranks, and the plan has 4 ranks",
         "one value for each rank, as in 0,4 1,5, or one for all"),
        ("server", "-n 3 --mem bind --mem-nodes 0 1",
         "the number of ranks is unclear: --mem-nodes is for 2, --ranks is for 3",
         "give each list one value for every rank"),
        ("server", "-n 1 --numa-bind-nodes 0 1",
         "the number of ranks is unclear: --numa-bind-nodes is for 2, --ranks is for 1",
         "one rank on several nodes: --numa-bind-nodes 0+1"),
        ("server", "--numa-bind-nodes 0+1 1+2", "rank 1: node 1 already belongs to rank 0, which "
         "has nodes 0-1", "name the same nodes for both, which then split them, or --share"),
        ("server", "--numa-bind-nodes 0+9", "rank 0: node 9 does not exist",
         "nodes with usable cpus: 0-3"),
        ("expander", "--mem bind --mem-nodes 2-4", "--mem-nodes: nodes 3-4 do not exist",
         "nodes: 0-2"),
        ("expander", "--mem-nodes 2", "--mem-nodes is for a memory policy, and none is set",
         "--mem bind, preferred or interleave"),
        ("expander", "--mem local --mem-nodes 2",
         "--mem-nodes names nodes, --mem local is for no node", "leave one of them out"),
        ("container", "--mem bind --mem-nodes 3",
         "rank 0: memory of node 3 is not allowed (cgroup cpuset)",
         "memory allowed on: 0-1; --mem none binds cpus only"),
        ("hidden", "--per numa", "--per numa: the machine does not say which node cpu 0 is in",
         "-n N divides the machine by what it does say"),
        ("mute", "--per l3",
         "--per l3: the machine does not say which last-level cache cpu 0 is in",
         "-n N divides the machine by what it does say"),
        ("mute", "--per l2", "--per l2: the machine does not say which L2 cache cpu 0 is in",
         "-n N divides the machine by what it does say"),
        ("server", "--per book", "--per book: the machine does not say which book cpu 0 is in",
         "-n N divides the machine by what it does say"),
        ("mute", "--places l3",
         "--places l3: the machine does not say which last-level cache cpu 0 is on",
         "--places cores, threads or one"),
        ("hidden", "--per core --numa-bind",
         "rank 0: core 0 is on no known node, but --numa-bind needs a single node",
         "--per numa, or --mem interleave without --numa-bind"),
        # more ranks than cores: the sizes are said, and it is no case for --oversubscribe
        ("one-core", "--cores-per-rank 1,2 --oversubscribe",
         "rank 1: the machine has 1 usable core, not 1+2 for ranks 0-1",
         "at most 1 there together"),
        ("hidden", "--places numa",
         "--places numa: the machine does not say which node cpu 0 is on",
         "--places cores, threads or one"),
        ("hidden", "--mem bind",
         "rank 0: its cpus (0-3) are on no known node, so there is no memory to bind",
         "--mem none"),
        ("hidden", "--numa-bind", "--numa-bind: no node has both usable cpus and allowed memory",
         "nodes of the machine: none; memory allowed on: none"),
        ("hidden", "--numa-bind --mem none",
         "--numa-bind: no node has both usable cpus and allowed memory",
         "nodes of the machine: none; memory allowed on: none"),
    ],
)  # fmt: skip
def test_what_cannot_be_had(machine: str, args: str, message: str, hint: str) -> None:
    """The error says which rank, what it wanted and what there is; the hint what to do."""
    with pytest.raises(PlanError) as e:
        make_plan(MACHINES[machine], make_asked(args.split()))
    assert (e.value.message, e.value.hint) == (message, hint)
    assert e.value.status == 125


def test_memory_nowhere() -> None:
    """A node without memory and no other allowed: there is nothing to bind to."""
    machine = make_machine(
        Shape(nodes=2, packages=2, cores=4, without_memory=(0,)), cpus="0-1", nodes="0"
    )
    with pytest.raises(PlanError) as e:
        make_plan(machine, make_asked(["--numa-bind-nodes", "0"]))
    assert e.value.message == "rank 0: node 0 has no memory, nor has any other that is allowed"
    assert e.value.hint == "memory allowed on nodes: 0"


def test_per_gpu_is_not_there_yet() -> None:
    """--per gpu is refused rather than taken for something else."""
    with pytest.raises(OmpbindError) as e:
        make_plan(MACHINES["server"], make_asked(["--per", "gpu"]))
    assert e.value.status == 125


# --- how ranks are dealt over things, and how many cores each gets ------------------------------


TWO_PACKAGES = Shape(packages=2, nodes=2, cores=8, threads=1, l3s=2)


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (["--per", "package", "-n", "4"], ["0-1", "2-3", "4-5", "6-7"]),
        (["--per", "package", "-n", "4", "--distribution", "cyclic"], ["0-1", "4-5", "2-3", "6-7"]),
        (["--per", "package", "-n", "3", "--distribution", "cyclic"], ["0-1", "4-7", "2-3"]),
        (["--per", "package", "-n", "4", "--cores-per-rank", "1"], ["0", "1", "4", "5"]),
        (["--per", "package", "--cores-per-rank", "3"], ["0-2", "4-6"]),
        (["-n", "4", "--cores-per-rank", "1"], ["0", "2", "4", "6"]),
        (["--cores-per-rank", "3"], ["0-2"]),
        (["--numa-bind-nodes", "1", "0", "1", "--cores-per-rank", "2"], ["4-5", "0-1", "6-7"]),
        (["--numa-bind", "-n", "4", "--distribution", "cyclic"], ["0-1", "4-5", "2-3", "6-7"]),
        (["--cores-per-rank", "1,3"], ["0", "4-6"]),
        (["--cores-per-rank", "3,1,2"], ["0-2", "4", "5-6"]),
        (["--cores-per-rank", "3,2,1,2"], ["0-2", "4-5", "3", "6-7"]),
        (["--cores-per-rank", "5,2"], ["0-4", "5-6"]),
        (["-n", "2", "--cores-per-rank", "4,4"], ["0-3", "4-7"]),
        (["--per", "package", "--cores-per-rank", "1,3,2"], ["0", "1-3", "4-5"]),
        (["--numa-bind-nodes", "1", "0", "1", "--cores-per-rank", "1,2,3"], ["4", "0-1", "5-7"]),
        (["--part", "2/2", "--cores-per-rank", "1,2"], ["4", "5-6"]),
    ],
)
def test_ranks_are_dealt_in_blocks_or_round(args: list[str], expected: list[str]) -> None:
    """Blocks put neighbours together, cyclic goes round; a number of cores is taken from a part."""
    plan = make_plan(make_machine(TWO_PACKAGES), make_asked(args))
    assert [str(r.cpus) for r in plan.ranks] == expected


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["-n", "4", "--cores-per-rank", "3"], "rank 0: its part has 2 usable cores"),
        (["--per", "package", "-n", "6", "--cores-per-rank", "2"], "rank 2: package 0 has 4"),
        (["--cores-per-rank", "9"], "rank 0: the machine has 8 usable cores"),
        (
            ["-n", "9", "--oversubscribe", "--cores-per-rank", "2"],
            "rank 4: the machine has 8 usable cores, not 2 for each of 9 ranks",
        ),
        (["-n", "2", "--distribution", "cyclic"], "maps ranks to what --per names"),
        (["-n", "2", "--distribution", "spread"], "maps ranks to what --per names"),
        (["--per", "gpu", "--distribution", "spread"], "--per gpu takes devices in order"),
        (["--cores-per-rank", "2", "--reserve", "1"], "--reserve"),
        (
            ["--cores-per-rank", "5,4"],
            r"rank 1: the machine has 8 usable cores, not 5\+4 for ranks",
        ),
        (["--per", "package", "--cores-per-rank", "3,2,4"], "rank 1: package 0 has 4 usable cores"),
        (["-n", "3", "--cores-per-rank", "1,2"], "--cores-per-rank is for 2, --ranks is for 3"),
        (["--cores-per-rank", "2,2", "--share"], "--share gives each rank a whole domain"),
        (
            ["--per", "numa", "-n", "4", "--cores-per-rank", "2", "--share"],
            "--share gives each rank",
        ),
        (["--numa-bind-cpus", "0-1", "--cores-per-rank", "1"], "--cores-per-rank would change"),
    ],
)
def test_cores_per_rank_that_cannot_be_had(args: list[str], message: str) -> None:
    """The rank that comes short is named, with how many there are."""
    with pytest.raises(PlanError, match=message) as caught:
        make_plan(make_machine(TWO_PACKAGES), make_asked(args))
    assert caught.value.hint


# 2 drawers of 2 books of 2 packages; each package has 2 dies of 2 L2s of 2 cores, each node a book
MAINFRAME = Shape(
    drawers=2, books=4, packages=8, nodes=4, dies=16, clusters=32, l2s=32, l3s=16, cores=64
)


@pytest.mark.parametrize(
    ("per", "count", "width", "name"),
    [
        ("drawer", 2, 32, "drawer 1"),
        ("book", 4, 16, "book 3"),
        ("package", 8, 8, "package 7"),
        ("die", 16, 4, "die 15"),
        ("l2", 32, 2, "L2 31"),
        ("cluster", 32, 2, "cluster 31"),
    ],
)
def test_a_rank_for_each_thing_of_the_tree(per: str, count: int, width: int, name: str) -> None:
    """Each has the cores of one, and `why` names it."""
    plan = make_plan(make_machine(MAINFRAME), make_asked(["--per", per]))
    assert [r.cpus for r in plan.ranks] == [
        CpuSet(range(width * i, width * (i + 1))) for i in range(count)
    ]
    assert plan.ranks[-1].why == name


@pytest.mark.parametrize(
    ("args", "first_cpus"),
    [
        ("--per numa -n 2", [0, 32]),
        ("--per numa -n 3", [0, 16, 32]),
        ("--numa-bind -n 2", [0, 32]),
        ("--per package -n 2", [0, 32]),
        ("--per package -n 4", [0, 16, 32, 48]),
        ("--per package -n 6", [0, 8, 16, 32, 40, 48]),
        ("--per l3 -n 4", [0, 16, 32, 48]),
        ("--per l3 -n 1", [0]),
        ("--per core -n 8", [0, 8, 16, 24, 32, 40, 48, 56]),
        ("--per numa -n 5", [0, 8, 16, 32, 48]),
        ("--per numa", [0, 16, 32, 48]),
    ],
)
def test_few_ranks_are_spread_over_the_machine(args: str, first_cpus: list[int]) -> None:
    """As many in each drawer as in any other, then in each book, and so on; in the order of the
    things. Where there are no more things than ranks, all have some, in blocks."""
    request = make_asked([*args.split(), "--distribution", "spread"])
    plan = make_plan(make_machine(MAINFRAME), request)
    assert [r.cpus.first for r in plan.ranks] == first_cpus


@given(machines(), st.sampled_from(["numa", "package", "l3", "core"]), st.integers(1, 16))
def test_spread_ranks_fill_the_tree_evenly(machine: Machine, per: str, count: int) -> None:
    """Of the level that parts the things most coarsely, no group has two ranks more than another
    that has a thing left; and no thing has a second rank before all have one."""
    args = ["--per", per, "--ranks", str(count), "--distribution", "spread", "--share"]
    every = plan_of(machine, make_asked(["--per", per])).ranks
    ranks = plan_of(machine, make_asked(args)).ranks
    assert len({r.cpus for r in ranks}) == min(count, len(every))
    cpu_of = {c.cpu: c for c in machine.topology.cpus}
    numbers = {level: [getattr(cpu_of[r.cpus.first], level) for r in every] for level in TREE}
    for level in TREE:  # where things overlap at a level, nobody can say in which group one is
        values = [{getattr(cpu_of[cpu], level) for cpu in r.cpus} for r in every]
        if any(len(v) > 1 for v in values) and sum(map(len, values)) > len(set().union(*values)):
            return
    parting = [groups for groups in numbers.values() if 1 < len(set(groups)) < len(every)]
    if not parting:
        return
    coarsest = min(parting, key=lambda groups: len(set(groups)))
    having = dict.fromkeys(coarsest, 0)
    left = set()
    chosen = {r.cpus for r in ranks}
    for group, rank in zip(coarsest, every, strict=True):
        if rank.cpus in chosen:
            having[group] += 1
        else:
            left.add(group)
    assert all(having[group] + 1 >= max(having.values()) for group in left)


ROOMS = st.lists(st.integers(1, 6), min_size=1, max_size=4)


@given(ROOMS, st.lists(st.integers(1, 5), min_size=1, max_size=5))
def test_sizes_are_assigned_in_order_where_that_can_be(rooms: list[int], sizes: list[int]) -> None:
    """Of all ways to cut the ranks into one run for each room, the fullest room of the one chosen
    is as little full as can be. Where there is none, each room still holds what is assigned."""
    ways = []
    for cuts in itertools.combinations_with_replacement(range(len(sizes) + 1), len(rooms) - 1):
        ends = [0, *cuts, len(sizes)]
        ways.append([list(range(a, b)) for a, b in itertools.pairwise(ends)])

    def fullest(way: list[list[int]]) -> Fraction:
        loads = (sum(sizes[i] for i in members) for members in way)
        return max(Fraction(load, room) for load, room in zip(loads, rooms, strict=True))

    best = min(map(fullest, ways))
    assigned = assign(rooms, sizes)
    if best <= 1:
        assert assigned in ways
        assert fullest(assigned) == best
    elif assigned is not None:
        assert fullest(assigned) <= 1
        assert sorted(itertools.chain(*assigned)) == list(range(len(sizes)))


@given(machines(), st.lists(st.integers(1, 6), min_size=2, max_size=5))
def test_each_rank_has_as_many_cores_as_asked(machine: Machine, sizes: list[int]) -> None:
    """Whatever the machine: as many, all different; a refusal where there are not as many."""
    cores = cores_of(machine.topology, machine.allowed.cpus)
    request = make_asked(["--cores-per-rank", ",".join(map(str, sizes))])
    plan = plan_or_none(machine, request)
    assert (plan is None) == (sum(sizes) > len(cores))
    if plan is not None:
        assert [len(r.cpus) for r in plan.ranks] == sizes
        assert len(union(r.cpus for r in plan.ranks)) == sum(sizes)


# --- rare machines and combinations ---------------------------------------------------------------

# two packages, whose tree has nodes 0 and 2 before 1 and 3
CROSSED = Machine(
    Topology(
        tuple(Cpu(n, core=n, package=n // 4, node=(0, 2, 1, 3)[n // 2]) for n in range(8)),
        tuple(
            Node(node, CpuSet([2 * i, 2 * i + 1]), 1 << 30)
            for node, i in ((0, 0), (1, 2), (2, 1), (3, 3))
        ),
    ),
    Allowed(CpuSet(range(8)), CpuSet(range(4))),
)


def test_nodes_go_by_their_numbers() -> None:
    """--numa-bind takes the nodes in the order of their numbers, not of the machine's tree."""
    plan = make_plan(CROSSED, make_asked(["--numa-bind", "-n", "2"]))
    assert [str(r.mems) for r in plan.ranks] == ["0", "1"]
    assert [str(r.cpus) for r in plan.ranks] == ["0-1", "4-5"]


def test_other_things_go_in_the_order_of_the_tree() -> None:
    """Whatever the numbers of their nodes are."""
    for per in ("core", "package"):
        ranks = make_plan(CROSSED, make_asked(["--per", per])).ranks
        assert [r.cpus.first for r in ranks] == ([*range(8)] if per == "core" else [0, 4])


def test_ranks_that_are_spread_go_in_the_order_of_things() -> None:
    """Though the one of package 1 is chosen behind both of package 0."""
    args = "--per numa -n 3 --distribution spread"
    plan = make_plan(CROSSED, make_asked(args.split()))
    assert [str(r.nodes) for r in plan.ranks] == ["0", "1", "2"]


def test_nodes_whose_memory_is_denied_are_left_out() -> None:
    """--per numa --numa-bind makes a rank for each node with cpus and allowed memory."""
    machine = make_machine(Shape(nodes=2, packages=2, cores=4), "0-3", "0")
    plan = make_plan(machine, make_asked(["--per", "numa", "--numa-bind"]))
    assert [(str(r.cpus), str(r.mems)) for r in plan.ranks] == [("0-1", "0")]
    assert plan.warnings == (
        "--numa-bind leaves out node 1, whose memory is not allowed (cgroup cpuset): --mem none "
        "binds cpus only",
    )
    shape = Shape(nodes=4, packages=4, cores=8)
    for args, count in (("-n 1", 0), ("-n 3", 1), ("--per package --on-denied degrade", 0)):
        request = make_asked(["--numa-bind", *args.split()])
        plan = make_plan(make_machine(shape, nodes="0-2"), request)
        assert sum("leaves out" in text for text in plan.warnings) == count, args


@pytest.mark.parametrize("mem", ["none", "local"])
def test_cpus_are_bound_to_nodes_without_their_memory(mem: str) -> None:
    """Where no policy names nodes, it does not matter whose memory is allowed: --mem none, which
    the hint of the refusal names, is not refused for the same reason."""
    shape = Shape(nodes=2, packages=2, cores=4)
    machine = make_machine(shape, "0-3", "")
    with pytest.raises(PlanError, match="no node has both") as error:
        make_plan(machine, make_asked(["--numa-bind", "-n", "2"]))
    assert error.value.hint.endswith("--mem none binds cpus only")
    plan = make_plan(machine, make_asked(["--numa-bind", "-n", "2", "--mem", mem]))
    assert [str(r.cpus) for r in plan.ranks] == ["0-1", "2-3"]
    assert plan.warnings == ()


def test_an_excluded_node_is_not_said_to_be_in_another_part() -> None:
    """Cpus that --exclude names are missing for that reason, in every part."""
    machine = make_machine(Shape(nodes=2, packages=2, cores=4))
    for exclude, wording in (("2-3", "may be used"), ("99", "is in part 1/2")):
        args = ["--part", "1/2", "--exclude", exclude, "--numa-bind-nodes", "1"]
        with pytest.raises(PlanError) as error:
            make_plan(machine, make_asked(args))
        expected = f"rank 0: none of the cpus of node 1 (2-3) {wording}"
        assert error.value.message == expected


def test_nodes_of_unknown_memory_are_bound_to() -> None:
    """Where the machine says of a cpu that it is on a node, and the system that its memory may be
    used."""
    cpus = tuple(Cpu(n, core=n, node=n // 2) for n in range(4))
    topology = Topology(cpus, (Node(0, CpuSet([0, 1]), 1 << 30),))
    machine = Machine(topology, Allowed(CpuSet(range(4)), CpuSet([0, 1])))
    plan = make_plan(machine, make_asked(["--numa-bind", "-n", "2"]))
    assert [(str(r.cpus), str(r.mems)) for r in plan.ranks] == [("0-1", "0"), ("2-3", "1")]


def test_nodes_whose_memory_is_denied_have_ranks_where_memory_is_named() -> None:
    """Cpus of all nodes, and memory of the one that is allowed."""
    machine = make_machine(Shape(nodes=2, packages=2, cores=4), nodes="0")
    nodes = tuple(node.replace(kind="dram") for node in machine.topology.nodes)
    machine = machine.replace(topology=machine.topology.replace(nodes=nodes))
    for named, why in (("--mem-nodes 0", ""), ("--mem-kind dram", "the nearest DRAM")):
        plan = make_plan(machine, make_asked(["--numa-bind", "-n", "2", *named.split()]))
        assert [(str(r.cpus), str(r.mems)) for r in plan.ranks] == [("0-1", "0"), ("2-3", "0")]
        assert [r.mem_why for r in plan.ranks] == [why, why]
        assert plan.warnings == ()


@pytest.mark.parametrize(
    ("node_of", "node", "message", "hint"),
    [
        # cpus of unknown nodes are on none that could be had
        ((0, None), 9, "node 9 does not exist", "nodes with usable cpus: 0"),
        ((None, None), 1, "node 1 has no cpus", "nodes with usable cpus: none"),
    ],
)
def test_nodes_beside_cpus_of_unknown_nodes(
    node_of: tuple[int | None, ...], node: int, message: str, hint: str
) -> None:
    cpus = tuple(Cpu(n, core=n, node=node) for n, node in enumerate(node_of))
    nodes = tuple(Node(n, CpuSet(c.cpu for c in cpus if c.node == n), 1 << 30) for n in range(2))
    machine = Machine(Topology(cpus, nodes), Allowed(CpuSet([0, 1]), CpuSet([0, 1])))
    with pytest.raises(PlanError) as error:
        make_plan(machine, make_asked(["--numa-bind-nodes", str(node)]))
    assert (error.value.message, error.value.hint) == (f"rank 0: {message}", hint)


def test_a_node_of_another_kind_of_core_is_not_said_to_be_in_another_part() -> None:
    """Where there are no parts, its cpus may not be used."""
    kinds = (Kind(4, capacity=446), Kind(4, capacity=1024))
    machine = make_machine(Shape(packages=2, nodes=2, kinds=kinds))
    with pytest.raises(PlanError) as error:
        make_plan(machine, make_asked(["--kind", "performance", "--numa-bind-nodes", "0"]))
    assert error.value.message == "rank 0: none of the cpus of node 0 (0-3) may be used"
    assert error.value.hint == "nodes with usable cpus: 1; allowed cpus: 0-7"


def test_a_warning_appears_once() -> None:
    """However many ranks it is about."""
    plan = make_plan(MACHINES["hungry"], make_asked(["--numa-bind-nodes", "1", "1"]))
    assert plan.warnings == ("node 1 has no memory; using node 0, the nearest that has",)


def test_a_list_of_places_beats_one_place() -> None:
    """The user's own list stands where one place is only the default, as it is for Python."""
    environ = {"OMP_PLACES": "{0},{1}"}
    request = make_asked([], environ=environ).replace(places="one")
    (rank,) = make_plan(MACHINES["desktop"], request).ranks
    assert rank.places == (CpuSet([0]), CpuSet([1]))


def test_isolated_threads_of_one_core_in_a_place() -> None:
    """The kernel need not move threads between them: no trap, unlike two isolated cores."""
    machine = make_machine(Shape(cores=2, threads=2, numbering="pairs", isolated="0-3"))
    for args, kinds in (
        ("--smt all --places cores", []),
        ("--smt all --places one", ["isolated"]),
    ):
        plan = make_plan(machine, make_asked(args.split()))
        assert [caution.kind for caution in plan.cautions] == kinds, args


def test_sharing_is_not_oversubscription() -> None:
    """With --share ranks are meant to have the same cores, however many there are; their threads
    are counted all the same."""
    plan = make_plan(MACHINES["desktop"], make_asked(["-n", "8", "--share", "--oversubscribe"]))
    assert plan.warnings == ("ranks 0-7 share 6 cpus and have 48 threads together",)


def test_uneven_ranks_say_which_bound_is_kept() -> None:
    """No node is divided, or none is spanned. Where the user names the nodes, the sizes need no
    reason."""
    for args, reason in (
        ("-n 3", ", so that no node is divided"),
        ("-n 5", ", so that no rank spans two nodes"),
        ("--numa-bind-nodes 0 0 0 1", ""),
    ):
        plan = make_plan(MACHINES["server"], make_asked(args.split()))
        sizes = [len(r.places) for r in plan.ranks]
        text = f"ranks get from {min(sizes)} to {max(sizes)} cores{reason}"
        assert plan.warnings == (text,), args


@pytest.mark.parametrize(
    ("args", "hint"),
    [
        ("-n 2 --per package --cores-per-rank 4", "at most 1 rank there with"),
        ("-n 2 --per package --cores-per-rank 9", "at most --cores-per-rank 6 there"),
    ],
)
def test_hint_of_too_many_cores_for_each_rank(args: str, hint: str) -> None:
    """It names a number of ranks that could be had; where none could, a number of cores."""
    with pytest.raises(PlanError) as error:
        make_plan(MACHINES["desktop"], make_asked(args.split()))
    assert error.value.hint.startswith(hint)


@pytest.mark.parametrize(
    ("args", "counts"),
    [
        # more ranks than cores: by the tree, as hwloc-distrib places them
        ("-n 24 --oversubscribe", [6, 6, 6, 6]),
        ("-n 20 --oversubscribe", [5, 5, 5, 5]),
        ("-n 18 --oversubscribe", [5, 4, 5, 4]),
        ("-n 24 --oversubscribe --exclude 1-3", [2, 7, 8, 7]),
        # by usable cores, not in equal blocks: node 0 has one core left
        ("-n 8 --numa-bind --exclude 1-3", [1, 2, 3, 2]),
        ("-n 13 --numa-bind --exclude 1-3", [1, 4, 4, 4]),
        ("-n 8 --numa-bind --exclude 1-3 --mem none", [1, 2, 3, 2]),
        ("-n 7 --numa-bind --exclude 1-3 --cores-per-rank 1", [1, 2, 2, 2]),
        ("-n 6 --numa-bind --exclude 1,5 --cores-per-rank 2", [1, 1, 2, 2]),
        ("-n 13 --numa-bind --exclude 1-3 --share", [1, 4, 4, 4]),
        ("-n 2 --numa-bind --exclude 1-3,8-15 --share", [1, 1, 0, 0]),
        ("-n 2 --numa-bind --exclude 1-3,8-15 --cores-per-rank 1", [1, 1, 0, 0]),
        ("-n 4 --numa-bind --exclude 3,6-15 --share", [2, 2, 0, 0]),
        ("-n 4 --numa-bind --exclude 3,6-15 --cores-per-rank 1", [2, 2, 0, 0]),
        ("-n 24 --numa-bind --oversubscribe --exclude 1-3", [2, 7, 8, 7]),
        # --per gives each node as many
        ("-n 4 --per numa --exclude 1-3", [1, 1, 1, 1]),
        ("-n 2 --numa-bind", [1, 1, 0, 0]),
    ],
)
def test_ranks_of_each_node(args: str, counts: list[int]) -> None:
    plan = make_plan(MACHINES["server"], make_asked(args.split()))
    assert [sum(list(r.nodes) == [n] for r in plan.ranks) for n in range(4)] == counts
    assert all(len(r.nodes) == 1 for r in plan.ranks)
    nodes = [r.nodes.first for r in plan.ranks]
    assert nodes == sorted(nodes)


def test_a_node_gets_no_more_ranks_than_it_has_room_for() -> None:
    """By its size the first would get two of them, and has cores for one."""
    machine = make_machine(Shape(nodes=2, packages=2, cores=32))
    args = "-n 5 --numa-bind --exclude 0-8 --cores-per-rank 4"
    plan = make_plan(machine, make_asked(args.split()))
    assert [str(r.cpus) for r in plan.ranks] == ["9-12", "16-19", "20-23", "24-27", "28-31"]
    with pytest.raises(PlanError, match=r"^rank 1: node 0 has 7 usable cores, not 4 for each of 2"):
        make_plan(machine, make_asked([*args.split(), "--ranks", "6"]))


def test_ranks_go_round_nodes_that_have_cores_left() -> None:
    """Cyclically: a node that has all its ranks is passed over."""
    args = "-n 8 --numa-bind --exclude 1-3 --distribution cyclic"
    plan = make_plan(MACHINES["server"], make_asked(args.split()))
    assert [r.nodes.first for r in plan.ranks] == [0, 1, 2, 3, 1, 2, 3, 2]


def test_nodes_are_numbered_alike_with_memory_and_without() -> None:
    """By node, also where a package has nodes 0 and 2: --numa-bind changes no rank's cpus."""
    for node_of in ((0, 1, 2, 3), (1, 0, 3, 2)):
        cpus = tuple(Cpu(n, core=n, package=n // 2 % 2, node=node_of[n // 2]) for n in range(8))
        nodes = tuple(
            Node(n, CpuSet(c.cpu for c in cpus if c.node == n), 1 << 30) for n in range(4)
        )
        machine = Machine(Topology(cpus, nodes), Allowed(CpuSet(range(8)), CpuSet(range(4))))
        for args in ("--per numa", "--per numa --numa-bind", "-n 4 --numa-bind"):
            plan = make_plan(machine, make_asked(args.split()))
            assert [r.nodes.first for r in plan.ranks] == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("args", "cpus", "hint"),
    [
        ("-n 3", "0-7 8-11 12-15", "--balance equal gives each rank 5 or 6, across nodes; "
                                   "with --leave-over 4, inside nodes"),
        ("-n 3 --balance local --reserve 1", "0-6 8-11 12-15",
         "--balance equal gives each rank 5, across nodes"),
        ("-n 3 --role kv=1", "0-6 8-11 12-15", "--balance equal gives each rank 5, across nodes"),
        ("-n 3 --balance equal", "0-5 6-10 11-15", None),
        ("-n 3 --balance equal --leave-over", "0-3 4-7 8-11", None),
        ("-n 5 --balance equal --leave-over --part 1/2", "0 1 2 4 6", None),
        ("-n 5 --balance equal --part 1/2 --oversubscribe", "0-1 2-3 4-5 6 7", None),
        ("-n 3 --share", "0-15 0-15 0-15", None),
        ("--numa-bind-nodes 0 0 0 1", "0-1 2 3 4-7", ""),
        ("-n 7 --numa-bind --exclude 1-7", "0 8-9 10 11 12-13 14 15", None),
        ("-n 4 --numa-bind --exclude 1-3", "0 4-7 8-11 12-15", ""),
    ],
)  # fmt: skip
def test_balance(args: str, cpus: str, hint: str | None) -> None:
    """What -n gives by --balance, and what the warning of unequal ranks says of the other ways;
    None: there is no such warning."""
    plan = make_plan(MACHINES["server"], make_asked(args.split()))
    assert " ".join(str(r.cpus) for r in plan.ranks) == cpus
    hints = [c.hint for c in plan.cautions if c.kind == "uneven"]
    assert hints == ([] if hint is None else [hint])


@pytest.mark.parametrize(
    ("args", "problem"),
    [
        ("--balance equal", "--balance equal is for dividing the machine"),
        ("-n 2 --balance local --per numa", "--balance local divides the machine, --per does not"),
        ("-n 2 --balance equal --share", "--balance equal divides the machine, --share does not"),
        ("-n 2 --leave-over", "--leave-over is for equal ranks"),
        ("-n 2 --balance local --leave-over", "--leave-over is for equal ranks"),
        ("-n 2 --balance equal --leave-over --reserve 1", "--leave-over leaves cores free"),
    ],
)
def test_balance_goes_with_a_division(args: str, problem: str) -> None:
    with pytest.raises(PlanError, match=re.escape(problem)):
        make_asked(args.split())
