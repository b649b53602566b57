"""Read what processes have used, as far as the kernel tells while they run: the time that threads
ran and waited for a cpu, their migrations, swap, and how long a quota throttled a cgroup.

Sources: proc(5), the kernel's scheduler/sched-stats.rst (schedstat), cgroup-v2.rst (cpu.stat) and
sched-bwc.rst.
"""

from __future__ import annotations

from ompbind.cpuset import parse_whole
from ompbind.machine.cpus import NODES
from ompbind.machine.limits import read_directories
from ompbind.machine.processes import parse_numa_maps, status_field
from ompbind.machine.roots import read_int
from ompbind.record import Record

NO_LIMIT = 1 << 60  # bytes: version 1 writes a number near 2^63
OOM_SCORE = "/proc/self/oom_score_adj"  # 1000: the kernel ends this process first
AVAILABLE = ("MemFree", "Active(file)", "Inactive(file)", "SReclaimable")

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from ompbind.machine.processes import Memory
    from ompbind.machine.roots import LivingRoot, Root


class TaskUse(Record):
    """What one thread has used since it was created. `ran`: nanoseconds on a cpu; `waited`:
    nanoseconds in which it was ready to run and had none; `migrations`: from one cpu to another,
    None where the kernel does not count them."""

    ran: int
    waited: int
    migrations: int | None = None


class NodeMemory(Record):
    """A NUMA node's memory in bytes. `available`: free, or holding files that can be read again."""

    total: int
    available: int


class Throttling(Record):
    """How a cgroup and those above it were throttled since they were created. `seconds`: the sum
    over cpus; `periods`: those in which they were throttled."""

    seconds: float
    periods: int

    def since(self, before: Throttling) -> Throttling:
        """Return what has been added to an earlier reading."""
        return Throttling(self.seconds - before.seconds, self.periods - before.periods)


def read_tasks(root: LivingRoot, pid: int) -> Iterator[tuple[int, TaskUse]]:
    """Yield each thread of a process, with what it has used. Of a zombie, /proc has only the first
    thread: what the others used is lost with them."""
    for name in root.names(f"proc/{pid}/task"):
        tid = parse_whole(name)
        if tid is not None and (use := read_task(root, pid, tid)):
            yield tid, use


def read_task(root: LivingRoot, pid: int, tid: int) -> TaskUse | None:
    """Return what a thread has used; None if it is gone, or if the kernel does not say
    (CONFIG_SCHED_INFO)."""
    path = f"proc/{pid}/task/{tid}"
    try:
        words = root.read_whole(f"{path}/schedstat").split()
    except OSError:
        return None
    if len(words) < 2:
        return None
    try:
        migrations = parse_migrations(root.read_whole(f"{path}/sched"))
    except OSError:  # a kernel without CONFIG_SCHED_DEBUG
        migrations = None
    return TaskUse(parse_number(words[0]), parse_number(words[1]), migrations)


def parse_migrations(data: bytes) -> int | None:
    """Return the number in a line `se.nr_migrations  :   12`; None without one."""
    _, name, rest = data.partition(b"nr_migrations")
    _, _, value = rest.partition(b"\n")[0].partition(b":")
    return parse_whole(value.strip().decode("ascii", "replace")) if name else None


def read_swap(root: LivingRoot, pid: int) -> int:
    """Return how many bytes of a process are swapped out; 0 if it is gone."""
    try:
        words = status_field(root.read_whole(f"proc/{pid}/status"), b"VmSwap").split()
    except OSError:
        return 0
    return parse_number(words[0]) * 1024 if words else 0


def read_memory(root: LivingRoot, pid: int) -> Memory | None:
    """Return on which nodes a process's memory is; None if it is gone or about to be, or may not be
    read."""
    try:
        memory = parse_numa_maps(root.read_whole(f"proc/{pid}/numa_maps"))
    except OSError:
        return None
    return memory if memory.policy else None


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
        if parse_fields(root.read(f"{directory}/memory.events") or "").get("oom"):
            return True
    for directory in directories["memory"]:
        limit = read_int(root, f"{directory}/memory.limit_in_bytes")
        most = read_int(root, f"{directory}/memory.max_usage_in_bytes")
        if limit and most and most >= limit:
            return True
    return False


def read_cgroup_room(root: Root) -> int | None:
    """Return how much memory this process's cgroup, and those above it, let it take: what they do
    not use, and what of it holds files that can be read again; None where nothing limits it.

    Sources: the kernel's cgroup-v2.rst and cgroup-v1/memory.rst.
    """
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
            fields = parse_fields(root.read(f"{directory}/memory.stat") or "")
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


def read_throttling(root: Root) -> Throttling | None:
    """Return how much the quotas of this process's cgroup, and of those above it, have throttled
    them; None where nothing says."""
    seconds, periods, readable = 0.0, 0, False
    for directories in read_directories(root, "", "cpu").values():
        for directory in directories:
            fields = parse_fields(root.read(f"{directory}/cpu.stat") or "")
            if "nr_throttled" in fields:
                readable = True
                periods += fields["nr_throttled"]
                seconds += fields.get("throttled_usec", 0) / 1e6  # version 2
                seconds += fields.get("throttled_time", 0) / 1e9  # version 1
    return Throttling(seconds, periods) if readable else None


def parse_fields(text: str) -> dict[str, int]:
    """Parse lines such as `nr_throttled 12`; others are skipped."""
    pairs = (line.partition(" ") for line in text.splitlines())
    numbers = ((key, parse_whole(value)) for key, _, value in pairs)
    return {key: number for key, number in numbers if number is not None}


def parse_number(word: bytes) -> int:
    return parse_whole(word.decode("ascii", "replace")) or 0
