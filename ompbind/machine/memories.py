"""Read what only some plans ask of memory nodes: what kind of memory they have, and the kernel's
weights of weighted interleaving.

Sources: the kernel's admin-guide/mm/numaperf.rst, ABI/testing/sysfs-kernel-mm-memory-tiers,
ABI/testing/sysfs-kernel-mm-mempolicy-weighted-interleave, ABI/testing/sysfs-bus-dax and
include/linux/memory-tiers.h.
"""

from __future__ import annotations

from ompbind.cpuset import CpuSet
from ompbind.machine.cpus import NODES
from ompbind.machine.details import CPUINFO
from ompbind.machine.roots import parse_numbered, read_int, read_optional_list
from ompbind.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ompbind.machine.roots import Root
    from ompbind.machine.topology import Machine, Node

WEIGHTS = "sys/kernel/mm/mempolicy/weighted_interleave"
TIERS = "sys/devices/virtual/memory_tiering"
DAX = "sys/bus/dax/devices"
DRAM_TIER = 4  # MEMTIER_ADISTANCE_DRAM; faster memory has lower numbers
# Memory of another kind has at least so many times the bandwidth, or the latency. The tables of
# real machines say 2 to 4 for HBM, and a half or less for CXL.
FACTOR = 1.5
KNIGHTS_LANDING = ("87", "133")  # models of family 6; their MCDRAM is described by distances only


class Access(Record):
    """How fast a node's memory is for its best initiators: MB/s and ns; 0: unknown."""

    bandwidth: int
    latency: int


def add_memory_facts(root: Root, machine: Machine) -> Machine:
    """Return the machine with its nodes' kinds and weights, as far as its files have them."""
    nodes = machine.topology.nodes
    kinds = read_kinds(root, nodes)
    nodes = tuple(
        n.replace(kind=kinds.get(n.node, ""), weight=read_weight(root, n.node)) for n in nodes
    )
    return machine.replace(topology=machine.topology.replace(nodes=nodes))


def read_weight(root: Root, node: int) -> int | None:
    """Return how many pages in turn a node gets; None where the kernel does not say."""
    weight = read_int(root, f"{WEIGHTS}/node{node}")
    return weight if weight is not None and 0 < weight < 256 else None


# --- kinds of memory -----------------------------------------------------------------------------


def read_kinds(root: Root, nodes: Sequence[Node]) -> dict[int, str]:
    """Return the kind of each node's memory, "hbm", "dram" or "cxl", which stands for all that is
    slower than DRAM; nodes of which nothing is said are left out."""
    having = [n for n in nodes if n.memory_bytes != 0]
    kinds = {n.node: "dram" for n in having if n.cpus}
    if any(not n.cpus for n in having) and is_knights_landing(root.read(CPUINFO) or ""):
        kinds |= {n.node: "hbm" for n in having if not n.cpus}
    kinds |= dict.fromkeys(read_cxl_nodes(root), "cxl")
    kinds |= judge_access(having, {n.node: read_access(root, n.node) for n in having})
    kinds |= read_tiers(root)
    return {n.node: kinds[n.node] for n in having if n.node in kinds}


def read_access(root: Root, node: int) -> Access | None:
    """Return how fast a node's memory is by the firmware's table (HMAT); None without one."""
    for access in ("access1", "access0"):  # for cpus; for all initiators
        directory = f"{NODES}/node{node}/{access}/initiators"
        bandwidth = read_int(root, f"{directory}/read_bandwidth")
        if bandwidth:
            return Access(bandwidth, read_int(root, f"{directory}/read_latency") or 0)
    return None


def judge_access(nodes: Sequence[Node], speeds: Mapping[int, Access | None]) -> dict[int, str]:
    """Return the kinds of nodes by their bandwidth and latency, beside the slowest node that has
    cpus: DRAM, unless all cpus have HBM only."""
    known = {node: speed for node, speed in speeds.items() if speed is not None}
    near = [known[n.node] for n in nodes if n.cpus and n.node in known]
    if not near:
        return {}
    usual = min(near, key=lambda access: access.bandwidth)
    kinds = {}
    for node, speed in known.items():
        slow = speed.latency >= usual.latency * FACTOR and usual.latency > 0
        if speed.bandwidth >= usual.bandwidth * FACTOR:
            kinds[node] = "hbm"
        elif speed.bandwidth * FACTOR <= usual.bandwidth or slow:
            kinds[node] = "cxl"
        else:
            kinds[node] = "dram"
    return kinds


def read_tiers(root: Root) -> dict[int, str]:
    """Return the kinds of nodes that the kernel has in another tier than DRAM's, where it has
    several; without the firmware's table all nodes are in that one."""
    kinds: dict[int, str] = {}
    numbers = parse_numbered(root.names(TIERS), "memory_tier")
    for number in numbers if numbers[1:] else ():
        if number != DRAM_TIER:
            nodes = read_optional_list(root, f"{TIERS}/memory_tier{number}/nodelist")
            kinds |= dict.fromkeys(nodes, "hbm" if number < DRAM_TIER else "cxl")
    return kinds


def read_cxl_nodes(root: Root) -> CpuSet:
    """Return the nodes of CXL and persistent memory that is used as the system's."""
    nodes = set()
    for name in root.names(DAX):
        path = root.resolve(f"{DAX}/{name}") or ""
        if "/region" in path or "/ndbus" in path:
            node = read_int(root, f"{DAX}/{name}/target_node")
            nodes |= {node} if node is not None and node >= 0 else set()
    return CpuSet(nodes)


def is_knights_landing(cpuinfo: str) -> bool:
    """Whether /proc/cpuinfo describes a Xeon Phi of the second or third generation."""
    lines = cpuinfo[:4096].splitlines()
    fields = {line.partition(":")[0].strip(): line.partition(":")[2].strip() for line in lines}
    if "Xeon Phi" in fields.get("model name", ""):  # all that a snapshot keeps
        return True
    return fields.get("cpu family") == "6" and fields.get("model") in KNIGHTS_LANDING
