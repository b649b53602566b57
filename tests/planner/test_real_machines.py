"""Plans for real machines of ../shared/topologies: kinds of core, parts, roles, crowded ones."""

from __future__ import annotations

import itertools
from functools import cache

import pytest

from ompbind.cpuset import CpuSet, union
from ompbind.machine.topology import Machine
from ompbind.planner import make_plan
from ompbind.plans import Plan
from tests.support import shared_trees
from tests.support.machines import make_asked

RAPTOR_LAKE = "20em64t-hybrid-1p6c2t+2ca4co1t"  # six cores of two threads, eight of one
GB10 = "nvidia-dgx-gb10"  # two clusters, each of five middling and five large cores
NAMES = [
    RAPTOR_LAKE,
    GB10,
    "32amd64-4s2n4c-cgroup2",
    "64amd64-4s2n4ca2co",
    "16em64t-4s2c2t-offlines",
]


@cache
def machine(name: str) -> Machine:
    return shared_trees.read_tree(name)


def planned(name: str, args: str) -> Plan:
    shared_trees.need_topologies()
    return make_plan(machine(name), make_asked(args.split()))


def cpus(plan: Plan) -> list[str]:
    return [str(rank.cpus) for rank in plan.ranks]


def test_kinds_are_known_and_weighed() -> None:
    """Intel's types by their counters, Arm's by the kernel's capacity; that two cores boost higher
    than the others makes no kind. What each can do is the firmware's number, or the kernel's."""
    shared_trees.need_topologies()
    intel = {(c.kind, c.capacity) for c in machine(RAPTOR_LAKE).topology.cpus}
    assert intel == {(0, 39 * 1024 // 64), (1, 1024)}
    arm = {(c.kind, c.capacity) for c in machine(GB10).topology.cpus}
    assert arm == {(0, 718 * 1024 // 997), (1, 1024)}


@pytest.mark.parametrize(
    ("name", "args", "wanted"),
    [
        (RAPTOR_LAKE, "-n 2", ["0,2,4,12-15", "6,8,10,16-19"]),  # three large, a cluster of four
        (RAPTOR_LAKE, "-n 2 --smt all", ["0-5,12-15", "6-11,16-19"]),
        (RAPTOR_LAKE, "--kind performance -n 3", ["0,2", "4,6", "8,10"]),
        (RAPTOR_LAKE, "--kind efficiency -n 2", ["12-15", "16-19"]),
        (RAPTOR_LAKE, "--role io=1 --reserve 1", ["0,2,4,6,8,10,12-17"]),  # small ones are taken
        (GB10, "-n 2", ["0-9", "10-19"]),
        (GB10, "-n 4", ["0-2,8-9", "3-7", "10-12,18-19", "13-17"]),  # none leaves its L3
        (GB10, "--kind performance -n 2", ["5-9", "15-19"]),
        (GB10, "--part 2/2 -n 5", ["10,15", "11,16", "12,17", "13,18", "14,19"]),
    ],
)
def test_several_kinds_of_core(name: str, args: str, wanted: list[str]) -> None:
    """The same number of each kind for each rank, inside caches."""
    plan = planned(name, args)
    assert cpus(plan) == wanted
    assert plan.warnings == ()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("count", [2, 3])
def test_parts_cover_the_machine(name: str, count: int) -> None:
    """The parts have every allowed cpu once, whatever each launch asks of its own."""
    asked = ("", "--per numa", "--smt all --reserve 1", "-n 2 --role kv=1/rank")
    plans = [planned(name, f"--part {i + 1}/{count} {asked[i]}") for i in range(count)]
    own = [
        union([*(r.cpus for r in p.ranks), *(r.cpus for r in p.roles), p.reserved, p.unused])
        for p in plans
    ]
    for a, plan in enumerate(plans):
        for b in range(count):
            assert a == b or own[b] <= plan.others
        assert not own[a] & plan.others
        idle = machine(name).allowed.cpus - own[a] - plan.others
        cores = machine(name).topology.groups("core", own[a])
        whole = machine(name).topology.groups("core", own[a] | idle)
        assert len(cores) == len(whole), "what is idle are further threads of its cores"


@pytest.mark.parametrize("name", NAMES)
def test_more_ranks_than_cores(name: str) -> None:
    """Each has one core; no core has two ranks more than another."""
    shared_trees.need_topologies()
    cores = machine(name).topology.groups("core", machine(name).allowed.cpus)
    plan = planned(name, f"-n {len(cores) * 2 + 1} --oversubscribe --smt all")
    shared = [sum(rank.cpus == core for rank in plan.ranks) for core in cores]
    assert sum(shared) == len(plan.ranks)
    assert (min(shared), max(shared)) == (2, 3)
    assert plan.warnings[-1].startswith("more ranks than cores: ")


@pytest.mark.parametrize("name", NAMES)
def test_pools_of_each_rank_are_near_it(name: str) -> None:
    """Each rank's own pool lies on the rank's nodes."""
    plan = planned(name, "--per numa --role kv=1/rank")
    for role in plan.roles:
        (rank,) = role.ranks
        assert machine(name).topology.nodes_of(role.cpus) <= plan.ranks[rank].nodes
        assert not role.cpus & union(r.cpus for r in plan.ranks)
    assert union(role.ranks for role in plan.roles) == CpuSet(range(len(plan.ranks)))


@pytest.mark.parametrize("name", [n for n in NAMES if n not in (RAPTOR_LAKE, GB10)])
def test_the_smallest_rank_is_as_large_as_can_be(name: str) -> None:
    """And then the largest as small: of all numbers of ranks for each node, or of all groups of
    neighbouring nodes, where there are fewer ranks."""
    shared_trees.need_topologies()
    topology, allowed = machine(name).topology, machine(name).allowed.cpus
    sizes = [len(topology.groups("core", group)) for group in topology.groups("node", allowed)]
    for count in range(2, min(9, sum(sizes)) + 1):
        ways = []
        if count < len(sizes):
            for ends in itertools.combinations(range(1, len(sizes)), count - 1):
                runs = itertools.pairwise([0, *ends, len(sizes)])
                ways.append([sum(sizes[a:b]) for a, b in runs])
        else:
            for numbers in itertools.product(*(range(1, n + 1) for n in sizes)):
                if sum(numbers) == count:
                    pairs = [*zip(sizes, numbers, strict=True)]
                    ways.append([n // k for n, k in pairs] + [-(-n // k) for n, k in pairs])
        best = max((min(way), -max(way)) for way in ways)
        ranks = [len(topology.groups("core", r.cpus)) for r in planned(name, f"-n {count}").ranks]
        assert (min(ranks), -max(ranks)) == best, f"-n {count}: {ranks}"
