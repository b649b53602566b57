"""What ranks share: on every machine for every request, against a judge that compares cpus in
pairs, and by hand."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ompbind.cpuset import CpuSet
from ompbind.errors import PlanError
from ompbind.machine.topology import TREE, Allowed, Cpu, Machine, Topology
from ompbind.planner import make_plan
from ompbind.planner.request import Request, Serving
from ompbind.planner.sharing import find_sharing, list_sharing
from ompbind.plans import Plan
from tests.support.machines import MACHINES, SERVER, make_asked, make_machine
from tests.support.requests import machines, requests

ASKED = machines().flatmap(
    lambda m: st.tuples(st.just(m), requests(m) | requests(m, share=True))
)  # fmt: skip
CPU_LEVELS = ("core", *TREE)


def judge(topology: Topology, plan: Plan, a: int, b: int) -> int:
    """The number of groups of the finest level at which two ranks meet, counted cpu by cpu; 0 where
    they meet nowhere."""
    one, other = plan.ranks[a], plan.ranks[b]
    if set(one.cpus) & set(other.cpus):
        return len(topology.cpus)
    met = []
    cpus = {c.cpu: c for c in topology.cpus}
    for level in CPU_LEVELS:
        count = len({getattr(c, level) for c in topology.cpus} - {None})
        for x, y in itertools.product(one.cpus, other.cpus):
            group = getattr(cpus[x], level)
            if level != "node" and group is not None and group == getattr(cpus[y], level):
                met.append(count)
        if level == "node" and set(one.mems or one.nodes) & set(other.mems or other.nodes):
            met.append(count)
    return max(met, default=0)


@given(ASKED)
@settings(max_examples=50)
def test_ranks_meet_at_the_deepest_level(asked: tuple[Machine, Request]) -> None:
    """The first entry that has two ranks names it; who is in no entry together meets nowhere. Each
    entry's ranks, and no others, have something of all its parts; none is there twice."""
    machine, request = asked
    topology = machine.topology
    try:
        plan = make_plan(machine, request)
    except PlanError:
        return
    sharing = find_sharing(plan, topology)
    counts: dict[str, int] = {
        lv: len({getattr(c, lv) for c in topology.cpus} - {None}) for lv in CPU_LEVELS
    }
    counts |= {"cpu": len(topology.cpus), "memory": counts["node"]}
    for a, b in itertools.combinations(range(min(len(plan.ranks), 12)), 2):
        first = next((s for s in sharing if a in s.ranks and b in s.ranks), None)
        assert judge(topology, plan, a, b) == (0 if first is None else counts[first.level])
    for entry in sharing:
        for number in entry.numbers:
            users = {r.rank for r in plan.ranks if number in parts_of(entry.level, r, topology)}
            assert users == set(entry.ranks)
    assert len({entry.ranks for entry in sharing}) == len(sharing)
    assert all(len(entry.ranks) > 1 for entry in sharing)


def parts_of(level: str, rank: object, topology: Topology) -> set[int | None]:
    """The numbers of the parts at a level of which a rank has something."""
    cpus: CpuSet = rank.cpus  # type: ignore[attr-defined]
    if level == "memory":
        return set(rank.mems or rank.nodes)  # type: ignore[attr-defined]
    return {getattr(c, level) for c in topology.cpus if c.cpu in cpus}


@pytest.mark.parametrize(
    ("name", "args", "expected"),
    [
        # four nodes in two packages, two L3s on each node
        ("server", "-n 4", "package 0 0-1, package 1 2-3"),
        ("server", "--numa-bind-nodes 0 0 1", "memory 0 0-1, package 0 0-2"),
        ("server", "-n 2 --numa-bind", "package 0 0-1"),
        ("server", "-n 3 --share", "cpu 0-15 0-2"),
        ("server", "-n 4 --mem interleave --mem-nodes all",
         "memory 0-3 0-3, package 0 0-1, package 1 2-3"),
        # threads of one core, cores of one L3, cores of one node
        ("server", "--numa-bind-cpus 0 16 1 2", "core 0 0-1, l3 0 0-2, memory 0 0-3"),
        ("server", "--numa-bind-cpus 0-1 2,17", "core 1 0-1"),
        # the ranks of core 1 before those of core 8
        ("server", "--numa-bind-cpus 1,8 24 17", "core 1 0,2, core 8 0-1"),
        ("desktop", "-n 2", "memory 0 0-1"),
        ("mute", "-n 2", ""),
        ("server", "-n 1", ""),
    ],
)  # fmt: skip
def test_what_ranks_share(name: str, args: str, expected: str) -> None:
    """By level, numbers of its parts, and ranks."""
    machine = MACHINES[name]
    plan = make_plan(machine, make_asked(args.split()))
    sharing = find_sharing(plan, machine.topology)
    assert ", ".join(f"{s.level} {s.numbers} {s.ranks}" for s in sharing) == expected


@pytest.mark.parametrize(
    ("machine", "args", "expected"),
    [
        # node 1 has no memory: its worker's comes from node 0
        (MACHINES["hungry"], "-n 3", "memory 0 0-1"),
        # of no node that is allowed: that of the cpus' nodes
        (make_machine(SERVER, nodes=""), "-n 8", "memory 0 0-1, memory 1 2-3, memory 2 4-5, "
         "memory 3 6-7, package 0 0-3, package 1 4-7"),
        (MACHINES["server"], "-n 4 --role kv=1", "package 0 0-1, package 1 2-3"),
    ],
)  # fmt: skip
def test_what_the_workers_of_a_server_share(machine: Machine, args: str, expected: str) -> None:
    """In place of its only rank, the server: their cpus, and the memory that it will give them."""
    serving = Serving("vllm", "vLLM", variable="LISTS")
    plan = make_plan(machine, make_asked(args.split()).replace(serving=serving))
    assert len(plan.ranks) == 1
    sharing = find_sharing(plan, machine.topology)
    assert ", ".join(f"{s.level} {s.numbers} {s.ranks}" for s in sharing) == expected


def test_cores_outside_of_all_caches_share_none() -> None:
    """Where only some cores have an L3, as of some hybrid processors."""
    cpus = tuple(Cpu(n, core=n, l3=None if n > 1 else 0) for n in range(4))
    machine = Machine(Topology(cpus, ()), Allowed(CpuSet(range(4)), CpuSet()))
    for args, expected in (("0,2 1 3", ["l3 0 0-1"]), ("2 3", [])):
        plan = make_plan(machine, make_asked(["--numa-bind-cpus", *args.split()]))
        sharing = find_sharing(plan, machine.topology)
        assert [f"{s.level} {s.numbers} {s.ranks}" for s in sharing] == expected


def test_a_machine_that_is_not_known_has_null() -> None:
    """In the JSON: not an empty list, which says that nothing is shared."""
    machine = MACHINES["server"]
    plan = make_plan(machine, make_asked(["-n", "4"]))
    assert list_sharing(plan, None) is None
    assert list_sharing(plan, machine) == [
        {"level": "package", "numbers": "0", "ranks": "0-1"},
        {"level": "package", "numbers": "1", "ranks": "2-3"},
    ]
