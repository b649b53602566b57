"""LLNL's mpibind: its published cases, and more that were got by running it.

mpibind deals tasks over the NUMA domains and then down the tree; `-n N` does the same, and the
cores are compared, task by task. Which hardware threads of them are used is a matter of `--smt`
here, of the number of tasks there. Where the two differ on purpose, DIFFERENCES says how, and the
tests hold exactly that.
"""

from __future__ import annotations

import json
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from ompbind.cpuset import CpuSet, union
from ompbind.errors import PlanError
from ompbind.machine import read_machine
from ompbind.machine.topology import Machine
from tests.parity.plans import cores_of, plan_for
from tests.support.shared_trees import need_topologies, topologies

DIFFERENCES = {
    "unbound": "it leaves tasks without a cpu, or knows no answer: each of ours has cores",
    "one node": "greedy off, it keeps to a NUMA domain for each task: that is --per numa here",
    "crowded": "more tasks than cores: it puts several on a core, here that is refused",
    "threads": "a number of threads picks the level it places on: here --threads changes no cpus",
    "overlap": "its tasks share cores while others are idle, or lie idle: ours divide them",
}
# Trees where it takes the nodes without cpus, or those of another kind of memory, for domains to
# deal tasks over, or keeps to the package that has the GPUs.
MISREAD = ("knl-quad-flat-hwloc1", "cts1-pascal")


@cache
def cases() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for path in sorted(topologies().glob("mpibind/*.cases.json")):
        found += json.loads(path.read_text())
    return found


def machine_of(case: dict[str, Any]) -> tuple[Path, Machine]:
    path = topologies() / f"mpibind/{case['topology']}.xml"
    return path, read(path)


@cache
def read(path: Path) -> Machine:
    return read_machine(str(path))


def difference(case: dict[str, Any], machine: Machine) -> str | None:
    """The name of the difference that a case shows; None where the two agree."""
    options, expected = case["options"], case["expected"] or []
    topology = machine.topology
    sets = [CpuSet.parse_kernel(task["cpus"]) for task in expected]
    usable = restricted(case, machine)
    cores = cores_of(topology, set(usable))
    if len(sets) < options["ntasks"] or not all(sets):
        return "unbound"
    if options["ntasks"] > len(cores):
        return "crowded"
    if not options["greedy"] and options["ntasks"] < len(topology.groups("node", usable)):
        return "one node"
    if case["topology"] in MISREAD:
        return "overlap"
    taken = [cores_of(topology, set(s)) for s in sets]
    if options["nthreads"] and frozenset[int]().union(*taken) < cores:
        return "threads"
    return None


def restricted(case: dict[str, Any], machine: Machine) -> CpuSet:
    """The cpus that a case lets mpibind use."""
    options = case["options"]
    allowed = machine.allowed.cpus
    if options["restrict"] is None:
        return allowed
    wanted = CpuSet.parse_kernel(options["restrict"])
    if options["restrict_type"] == "cpu":
        return allowed & wanted
    return allowed & union(n.cpus for n in machine.topology.nodes if n.node in wanted)


def asked(case: dict[str, Any], machine: Machine, *more: str) -> str:
    """Our options for a case."""
    options = case["options"]
    words = [f"-n {options['ntasks']}", "--smt all", "--binder native", *more]
    if left_out := machine.allowed.cpus - restricted(case, machine):
        words.append(f"--exclude {left_out}")
    if options["nthreads"]:
        words.append(f"--threads {options['nthreads']}")
    return " ".join(words)


def test_each_task_has_the_cores_that_mpibind_gives_it() -> None:
    """In all its published cases, and in every other that no named difference explains."""
    need_topologies()
    told = Counter[str]()
    for case in cases():
        path, machine = machine_of(case)
        name = difference(case, machine)
        told[name or "same"] += 1
        if not case["origin"].startswith("generated"):
            assert name in (None, "crowded"), case
        if name is not None:
            continue
        topology = machine.topology
        plan = plan_for(path, asked(case, machine))
        ours = [cores_of(topology, set(rank.cpus)) for rank in plan.ranks]
        theirs = [cores_of(topology, set(CpuSet.parse_kernel(t["cpus"]))) for t in case["expected"]]
        assert ours == theirs, (case["topology"], case["description"], case["options"])
        if case["options"]["nthreads"]:
            threads = {dict(rank.env)["OMP_NUM_THREADS"] for rank in plan.ranks}
            assert threads == {str(case["options"]["nthreads"])}
    assert set(told) <= {"same", *DIFFERENCES}
    assert told["same"] > 100, told


def test_where_mpibind_is_asked_to_stay_on_a_node_per_numa_does() -> None:
    """`greedy` off, with fewer tasks than NUMA domains: the same as one rank for each node."""
    need_topologies()
    compared = 0
    for case in cases():
        path, machine = machine_of(case)
        if difference(case, machine) != "one node" or case["topology"] in MISREAD:
            continue
        topology = machine.topology
        plan = plan_for(path, asked(case, machine, "--per numa"))
        for rank, task in zip(plan.ranks, case["expected"], strict=True):
            theirs = cores_of(topology, set(CpuSet.parse_kernel(task["cpus"])))
            assert cores_of(topology, set(rank.cpus)) == theirs, case
            compared += 1
    assert compared > 5


@pytest.mark.parametrize("name", ["unbound", "threads", "overlap"])
def test_where_ours_differs_every_rank_has_cores_of_its_own(name: str) -> None:
    """What mpibind leaves unbound, idle or shared is divided: disjoint, and all of it used."""
    need_topologies()
    compared = 0
    for case in cases():
        path, machine = machine_of(case)
        usable = restricted(case, machine)
        if difference(case, machine) != name:
            continue
        cores = cores_of(machine.topology, set(usable))
        if case["options"]["ntasks"] > len(cores):
            continue
        ranks = plan_for(path, asked(case, machine)).ranks
        assert sum(len(r.cpus) for r in ranks) == len(union(r.cpus for r in ranks)) == len(usable)
        assert all(r.cpus for r in ranks)
        compared += 1
    assert compared > 3


def test_more_tasks_than_cores_are_refused() -> None:
    """mpibind shares cores silently; here the rank without one is named, and what is possible."""
    need_topologies()
    crowded = [c for c in cases() if difference(c, machine_of(c)[1]) == "crowded"]
    assert len(crowded) > 10
    for case in crowded:
        path, machine = machine_of(case)
        with pytest.raises(PlanError, match=r"rank \d+: .* usable core") as caught:
            plan_for(path, asked(case, machine))
        assert "--oversubscribe" in caught.value.hint
