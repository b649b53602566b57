"""The made-up machines of the worked examples, and requests made from words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from ompbind.cpuset import CpuSet
from ompbind.machine.topology import Allowed, Cpu, Machine, Topology
from ompbind.options import make_request, read_arguments
from ompbind.planner.request import Request
from tests.support.trees import Kind, Shape, make_topology


def make_machine(
    shape: Shape, cpus: str | None = None, nodes: str | None = None, quota: float | None = None
) -> Machine:
    """Such a machine, of which `cpus` and `nodes` (None: all) may be used."""
    topology = make_topology(shape)
    return Machine(
        topology,
        Allowed(
            topology.online if cpus is None else CpuSet.parse_kernel(cpus) & topology.online,
            topology.node_numbers if nodes is None else CpuSet.parse_kernel(nodes),
            quota,
        ),
        "made-up",
    )


def make_asked(
    args: Sequence[str],
    command: Sequence[str] = ("true",),
    environ: Mapping[str, str] | None = None,
) -> Request:
    """The request that these arguments make, its binder resolved."""
    values, none = read_arguments(args, "run")
    assert none == []
    request = make_request(values, command, environ)
    return request.replace(binder="native" if request.binder == "native" else "numactl")


SERVER = Shape(packages=2, nodes=4, l3s=8, cores=16, threads=2, numbering="halves")
HYBRID = Shape(l2s=None, clusters=None, kinds=(
    Kind(4, 2, pmu="cpu_core", cppc=64), Kind(8, 1, pmu="cpu_atom", cppc=38)))  # fmt: skip
POWER = Shape(cores=4, threads=8, l3s=2, offline="2-7,10-15,18-23,26-31")  # SMT-8, switched to 2

MACHINES: dict[str, Machine] = {
    # 2 packages x 2 nodes x 4 cores x 2 threads; cores 0-15 are cpus 0-15, again 16-31
    "server": make_machine(SERVER),
    # the same with threads side by side: core 0 is cpus 0-1
    "paired": make_machine(replace(SERVER, numbering="pairs")),
    # the same, its cpus dealt round-robin to the packages: even cpus are package 0's
    "alternating": make_machine(replace(SERVER, numbering="round-robin")),
    # one node and one package of 6 cores in 2 caches
    "desktop": make_machine(Shape(cores=6, l3s=2)),
    # the server in a container: node 0 whole, two cores of node 1, one thread of a third
    "container": make_machine(SERVER, "0-5,16-21,7", "0-1", 2.5),
    # 2 nodes with cpus, node 2 only memory
    "expander": make_machine(Shape(nodes=2, packages=2, cores=8, memory_only=(2,))),
    # node 1 has cpus and no memory, and so is not among the nodes of Mems_allowed
    "hungry": make_machine(
        Shape(nodes=3, packages=3, l3s=3, cores=6, without_memory=(1,)), nodes="0,2"
    ),
    "power": make_machine(POWER),
    # a kernel without NUMA
    "flat": make_machine(Shape(cores=4, node_dir="none")),
    # a container that hides the nodes
    "hidden": make_machine(Shape(cores=4, node_dir="hidden")),
    # nothing is said but the cpus
    "mute": Machine(
        Topology(tuple(Cpu(n) for n in range(4)), ()), Allowed(CpuSet(range(4)), CpuSet())
    ),
    # nodes of 4 and 2 cores
    "lopsided": make_machine(Shape(nodes=2, packages=2, cores=8), "0-5", "0-1"),
    "one-core": make_machine(Shape(cores=1)),
    # 4 cores of two threads, 8 of one thread that share an L2 by fours
    "hybrid": make_machine(HYBRID),
    # an old kernel that takes each cluster for a package, the small one first
    "old-arm": make_machine(
        Shape(packages=2, l3s=None, kinds=(Kind(4, capacity=446), Kind(4, capacity=1024)))
    ),
    # two clusters with an L3 each, of five small and five large cores
    "gb10": make_machine(Shape(l3s=2, kinds=(Kind(5, capacity=718), Kind(5, capacity=1017)) * 2)),
}
