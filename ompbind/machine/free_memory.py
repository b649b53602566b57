"""Read how much memory may be taken: of a node, of the machine, and by a cgroup's limits.

Sources: proc_meminfo(5), and the kernel's cgroup-v2.rst and cgroup-v1/memory.rst.
"""

from __future__ import annotations

from ompbind.cpuset import parse_whole
from ompbind.machine.cpus import NODES
from ompbind.machine.limits import parse_counters, read_directories
from ompbind.machine.roots import read_int
from ompbind.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ompbind.machine.roots import Root

NO_LIMIT = 1 << 60  # bytes: version 1 writes a number near 2^63
OOM_SCORE = "/proc/self/oom_score_adj"  # 1000: the kernel ends this process first
# What a node's meminfo counts of memory that is free, or holds what can be read again.
AVAILABLE = ("MemFree", "Active(file)", "Inactive(file)", "SReclaimable")


class NodeMemory(Record):
    """A NUMA node's memory in bytes. `available`: free, or holding files that can be read again."""

    total: int
    available: int


def read_node_memory(root: Root, node: int) -> NodeMemory | None:
    """Return the memory of a node; None where the machine does not say."""
    sizes = {}
    for line in (root.read(f"{NODES}/node{node}/meminfo") or "").splitlines():
        words = line.split()  # Node 0 MemFree:  123 kB
        if len(words) == 5 and words[4] == "kB":
            sizes[words[2].rstrip(":")] = (parse_whole(words[3]) or 0) * 1024
    if "MemTotal" not in sizes or "MemFree" not in sizes:
        return None
    return NodeMemory(sizes["MemTotal"], sum(sizes.get(name, 0) for name in AVAILABLE))


def is_at_memory_limit(root: Root) -> bool:
    """Whether this process's cgroup, or one above it, has been at its limit of memory."""
    directories = read_directories(root, "", "memory")
    for directory in directories[""]:
        if parse_counters(root.read(f"{directory}/memory.events") or "").get("oom"):
            return True
    for directory in directories["memory"]:
        limit = read_int(root, f"{directory}/memory.limit_in_bytes")
        most = read_int(root, f"{directory}/memory.max_usage_in_bytes")
        if limit and most and most >= limit:
            return True
    return False


def read_cgroup_room(root: Root) -> int | None:
    """Return how much memory this process's cgroup, and those above it, let it take: what they do
    not use, and what of it holds files that can be read again; None where nothing limits it."""
    directories = read_directories(root, "", "memory")
    rooms = []
    for controller, limit_name, use_name, prefix in (
        ("", "memory.max", "memory.current", ""),
        ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_"),
    ):
        for directory in directories[controller]:
            limit = read_int(root, f"{directory}/{limit_name}")  # "max", or absent: none
            used = read_int(root, f"{directory}/{use_name}")
            if limit is None or used is None or limit >= NO_LIMIT:
                continue
            fields = parse_counters(root.read(f"{directory}/memory.stat") or "")
            names = (f"{prefix}active_file", f"{prefix}inactive_file", "slab_reclaimable")
            rooms.append(max(0, limit - used + sum(fields.get(name, 0) for name in names)))
    return min(rooms, default=None)


def read_machine_room(root: Root) -> NodeMemory | None:
    """Return the whole machine's memory; None where it does not say."""
    lines = (line.split() for line in (root.read("proc/meminfo") or "").splitlines())
    sizes = {w[0]: (parse_whole(w[1]) or 0) * 1024 for w in lines if len(w) == 3 and w[2] == "kB"}
    if "MemTotal:" not in sizes or "MemAvailable:" not in sizes:
        return None
    return NodeMemory(sizes["MemTotal:"], sizes["MemAvailable:"])
