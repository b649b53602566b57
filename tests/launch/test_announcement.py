"""The line of each rank when it starts, and the picture in it."""

from __future__ import annotations

import os
import sys

import pytest

from ompbind.cpuset import CpuSet
from ompbind.launch.announcement import Announcer
from ompbind.machine.topology import Cpu, Node, Topology
from ompbind.plans import Binding, Host, Plan, RankPlan, Task
from tests.support.commands import environment, ompbind_run

linux = pytest.mark.skipif(sys.platform != "linux", reason="ompbind binds on Linux")


def make_machine(nodes: int, cores: int, threads: int = 1, l3: int = 0) -> Topology:
    """A machine of so many nodes, a package each, and cores in each; the threads of a core are as
    far apart as on most machines. `l3`: the cores that share a cache."""
    count = nodes * cores
    cpus = tuple(
        Cpu(t * count + c, core=c, package=c // cores, node=c // cores, l3=c // l3 if l3 else None)
        for t in range(threads)
        for c in range(count)
    )
    of_nodes = ([c.cpu for c in cpus if c.node == n] for n in range(nodes))
    return Topology(cpus, tuple(Node(n, CpuSet(of)) for n, of in enumerate(of_nodes)))


def make_rank(cpus: str, mem: str = "none", mems: str = "", places: int = 1) -> RankPlan:
    binding = Binding(CpuSet.parse_kernel(cpus), mem, CpuSet.parse_kernel(mems))
    return RankPlan(0, binding, (CpuSet([0]),) * places, CpuSet([0]), (), (), ("w",))


@pytest.mark.parametrize(
    ("machine", "cpus", "picture"),
    [
        (make_machine(2, 4), "0-3", "[####|....]"),
        (make_machine(2, 4), "0,2,5", "[#.#.|.#..]"),
        (make_machine(1, 8, l3=4), "4-6", "[....|###.]"),
        (make_machine(1, 4), "0-3", "[####]"),
        (make_machine(4, 1), "2", "[..#.]"),  # nodes of a core each need no bars
        (make_machine(2, 2, threads=2), "1", "[.#|..]"),
        (make_machine(2, 2, threads=2), "5", "[.#|..]"),  # its second thread
        (make_machine(2, 64, l3=8), "0-7,64-65", "[#.......|+.......]"),  # one for each cache
        (make_machine(2, 64), "0-63", "[#.]"),  # one for each node
        (make_machine(2, 48), "0", f"[#{'.' * 47}|{'.' * 48}]"),
        (make_machine(1, 97), "0", "[+]"),
    ],
)
def test_pictures(machine: Topology, cpus: str, picture: str) -> None:
    """A character for each core, between nodes a bar; on a large machine one for each cache or
    node."""
    assert Announcer(machine).draw(CpuSet.parse_kernel(cpus)) == picture


@pytest.mark.parametrize(
    ("rank", "line"),
    [
        (make_rank("0-3", "bind", "0"), "cpus 0-3 node 0 mem bind:0 places one [####|....]"),
        (make_rank("0", "local", places=2), "cpu 0 node 0 mem local places 2 [#...|....]"),
        (make_rank("0-3", places=0).replace(gpus=("1", "2")),
         "cpus 0-3 node 0 mem none gpu 1,2 [####|....]"),
        (make_rank("", "interleave", "0-1", 0), "any cpu mem interleave:0-1"),
        (make_rank("0").replace(nodes=CpuSet()), "cpu 0 mem none places one [#...|....]"),
    ],
)  # fmt: skip
def test_lines(rank: RankPlan, line: str) -> None:
    """Have what a rank gets, and nothing of what it does not; beyond one node the host."""
    nothing = CpuSet()
    host = Host("n7", nothing, nothing, nothing)
    announcer = Announcer(make_machine(2, 4))
    assert announcer(Plan(host, (rank,))) == [f"rank 0: {line}"]
    for nodes, name in ((1, ""), (None, ""), (2, " on n7")):
        task = Task("slurm", nodes=nodes)
        assert announcer(Plan(host, (rank,), task=task)) == [f"rank 0{name}: {line}"]


def test_a_machine_that_names_no_cores() -> None:
    """Has a character for each cpu."""
    machine = make_machine(1, 4)
    machine = machine.replace(cpus=tuple(c.replace(core=None) for c in machine.cpus))
    assert Announcer(machine).draw(CpuSet([1])) == "[.#..]"


@linux
def test_one_rank_still_replaces_ompbind() -> None:
    """Where only the lines are asked for; the kernel has the cpus that the line says."""
    status = "cpus=$(grep Cpus_allowed_list /proc/$$/status); echo $PPID ${cpus##*:}"
    done = ompbind_run(
        "run", "--report-bindings", "--numa-bind-cpus", "0", "--", "sh", "-c", status
    )
    assert done.stdout.split() == [str(os.getpid()), "0"]
    assert done.stderr.startswith("ompbind: rank 0: cpu 0 node 0 mem none places one [#")
    assert done.stderr.count("\n") == 1


@linux
def test_quiet() -> None:
    """Only errors are left, and the line of a rank that failed."""
    args = ("--no-neighbours", "--", "sh", "-c", "sleep 60 & exit 3")
    env = environment(OMP_PLACES="{0}")
    loud = ompbind_run("run", "--supervise", "--places", "one", *args, env=env)
    assert [line.split(":")[1] for line in loud.stderr.splitlines()][:1] == [" note"]
    assert "left behind" in loud.stderr
    quiet = ompbind_run("run", "-q", "--supervise", "--places", "one", *args, env=env)
    assert quiet.stderr.startswith("ompbind: rank 0 (pid ")
    assert (quiet.stderr.count("\n"), quiet.returncode) == (1, 3)
