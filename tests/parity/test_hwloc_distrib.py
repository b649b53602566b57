"""hwloc-distrib, which divides a machine by its tree, run on the same machines as the judge."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ompbind.cpuset import CpuSet, union
from ompbind.machine.topology import Topology
from ompbind.planner import make_plan
from tests.parity.plans import cores_of
from tests.support.machines import make_asked
from tests.support.needs import unavailable
from tests.support.shared_trees import machine_names, read_tree, unpacked

if TYPE_CHECKING:
    from ompbind.machine.topology import Level

COUNTS = (1, 2, 3, 4, 6, 8)

# Trees of which hwloc 2.9 does not show the machine.
NOT_JUDGED = {
    "40intel64-4n10c+pci-conflicts": "its masks contradict each other, and hwloc drops a package",
    "test1": "the tree holds cgroup files only",
    "nvidiagpunumanodes": "it takes cpus that the tree's cgroup does not allow",
}


def distribute(tree: Path, count: int) -> list[CpuSet]:
    """What hwloc-distrib gives each of `count` processes; [] where it cannot load the tree."""
    done = subprocess.run(
        ["hwloc-distrib", "--if", "fsroot", "-i", str(tree), "--taskset", str(count)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    if done.returncode != 0:
        return []
    return [CpuSet.from_mask(int(word, 16)) for word in done.stdout.split()]


@pytest.mark.parametrize("name", machine_names() or [""])
def test_the_machine_is_divided_as_hwloc_divides_it(name: str) -> None:
    """Where the number of ranks divides the tree the parts are the same; where it does not,
    hwloc halves what halves and rounds down first: our smallest rank is then never smaller, unless
    hwloc's crosses a book, package or node that ours stays inside. Of several kinds of core hwloc
    counts the cores alone: what our weakest rank can do is then never less."""
    tree = unpacked(name)
    if not shutil.which("hwloc-distrib"):
        unavailable("there is no hwloc-distrib; `tools/setup-system test` installs it")
    if name in NOT_JUDGED:
        pytest.skip(f"hwloc-distrib is no judge here: {NOT_JUDGED[name]}")
    machine = read_tree(name)
    topology, allowed = machine.topology, machine.allowed.cpus
    total = len(cores_of(topology, set(allowed)))
    compared = 0
    for count in [n for n in COUNTS if n <= total]:
        theirs = distribute(tree, count)
        if len(theirs) != count or union(theirs) != allowed:
            continue  # a tree that it cannot load, or of which it leaves cpus out
        compared += 1
        plan = make_plan(machine, make_asked(f"-n {count} --smt all --binder native".split()))
        ours = [rank.cpus for rank in plan.ranks]
        sizes = [len(cores_of(topology, set(cpus))) for cpus in theirs]
        told = f"{count} ranks: hwloc {list(map(str, theirs))}, ompbind {list(map(str, ours))}"
        if any(c.kind is not None for c in topology.cpus):  # capacity counts, not cores
            able = [[capacity(topology, cpus) for cpus in parts] for parts in (theirs, ours)]
            assert min(able[1]) >= min(able[0]), told
            continue
        if len(set(sizes)) == 1 and sum(sizes) == total:
            assert sorted(map(str, ours)) == sorted(map(str, theirs)), told
            continue
        own = [len(cores_of(topology, set(cpus))) for cpus in ours]
        if min(own) < min(sizes):
            crossing = [levels_crossed(topology, cpus) for cpus in (theirs, ours)]
            assert crossing[1] < crossing[0], told
    if not compared:
        pytest.skip("hwloc-distrib cannot load this tree, or leaves cpus of it out")


def capacity(topology: Topology, cpus: CpuSet) -> int:
    """What the cores that hold any of `cpus` can do together."""
    able = {c.core: c.capacity or 1 for c in topology.cpus if c.cpu in cpus}
    return sum(able.values())


def levels_crossed(topology: Topology, parts: list[CpuSet]) -> list[int]:
    """How many parts cross a drawer, a book, a package, a node: the coarsest first."""
    counts = []
    levels: tuple[Level, ...] = ("drawer", "book", "package", "node")
    for level in levels:
        groups = topology.groups(level)
        whole = [sum(bool(g & part) for g in groups) for part in parts]
        counts.append(sum(n > 1 for n in whole))
    return counts
