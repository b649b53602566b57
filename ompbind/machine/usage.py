"""Read what processes have used, as far as the kernel tells while they run: how long threads
ran and waited for a cpu, their migrations, memory and swap, and how a quota throttled a cgroup.

Sources: proc(5), the kernel's scheduler/sched-stats.rst (schedstat), cgroup-v2.rst (cpu.stat) and
sched-bwc.rst.
"""

from __future__ import annotations

from ompbind.cpuset import parse_whole
from ompbind.machine.limits import parse_counters, read_directories
from ompbind.machine.processes import parse_numa_maps, status_field
from ompbind.record import Record

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


def read_throttling(root: Root) -> Throttling | None:
    """Return how much the quotas of this process's cgroup, and of those above it, have throttled
    them; None where nothing says."""
    seconds, periods, readable = 0.0, 0, False
    for directories in read_directories(root, "", "cpu").values():
        for directory in directories:
            fields = parse_counters(root.read(f"{directory}/cpu.stat") or "")
            if "nr_throttled" in fields:
                readable = True
                periods += fields["nr_throttled"]
                seconds += fields.get("throttled_usec", 0) / 1e6  # version 2
                seconds += fields.get("throttled_time", 0) / 1e9  # version 1
    return Throttling(seconds, periods) if readable else None


def parse_number(word: bytes) -> int:
    return parse_whole(word.decode("ascii", "replace")) or 0
