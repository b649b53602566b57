"""Who has leases: the kernel's list of locks, and what a process's descriptors say of its own.

Sources: proc_locks(5), proc_pid_fdinfo(5), the kernel's fs/locks.c.
"""

from __future__ import annotations

import os

from ompbind import host
from ompbind.cpuset import LIMIT, CpuSet, parse_whole, union

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from ompbind.machine.roots import LivingRoot


def read_takers(root: LivingRoot) -> list[int]:
    """Return the processes that have taken leases which are still held, as far as they are of this
    pid namespace, each once."""
    pids = dict.fromkeys(pid for kind, pid, _ in read_locks(root) if kind == "FLOCK" and pid > 0)
    return list(pids)


def read_leases(root: LivingRoot) -> list[CpuSet]:
    """Return the cpus of each held lease's runs of bytes: a cpu of two leases is in two of them."""
    return [cpus for kind, _, cpus in read_locks(root) if kind == "OFDLCK" and cpus]


def read_locks(root: LivingRoot) -> Iterator[tuple[str, int, CpuSet]]:
    """Yield the locks on the directory of the cpus: kind, pid and bytes as cpus."""
    try:
        stat = os.stat(host.CPUS)
        text = root.read_whole("proc/locks").decode("ascii", "replace")
    except OSError:
        return
    file = f"{os.major(stat.st_dev):02x}:{os.minor(stat.st_dev):02x}:{stat.st_ino}"
    for line in text.splitlines():
        yield from parse_held(line, file)


def parse_held(line: str, file: str = "") -> Iterator[tuple[str, int, CpuSet]]:
    """Yield the lock that a line of /proc/locks or of a fdinfo is about, if it is held, on `file`
    where one is given: `1: OFDLCK ADVISORY READ -1 00:16:3562 0 3`."""
    words = line.removeprefix("lock:").split()
    if len(words) != 8 or words[1] == "->":  # waited for
        return
    _, kind, _, _, pid, name, start, end = words
    if file and name != file:
        return
    first, last = parse_whole(start), parse_whole(end)
    cpus = CpuSet()
    if kind == "OFDLCK" and first is not None and last is not None and first <= last < LIMIT:
        cpus = CpuSet.from_mask(((1 << (last - first + 1)) - 1) << first)
    yield kind, parse_whole(pid) or 0, cpus


def read_lease(root: LivingRoot, pid: int) -> CpuSet | None:
    """Return the cpus that a process holds by the lease it has under the usual descriptor; None
    where it has none there. Raises OSError where its descriptors cannot be read."""
    try:
        data = root.read_whole(f"proc/{pid}/fdinfo/{host.DESCRIPTOR}")
    except FileNotFoundError:
        return None
    locks = [lock for line in data.decode("ascii", "replace").splitlines()
             if line.startswith("lock:") for lock in parse_held(line)]  # fmt: skip
    return union(cpus for _, _, cpus in locks) or None


def read_user(root: LivingRoot, pid: int) -> int | None:
    """Return the number of a process's effective user; None where it is not known."""
    from ompbind.machine.processes import parse_user

    try:
        return parse_user(root.read_whole(f"proc/{pid}/status"))
    except OSError:
        return None


def name_user(user: int) -> str:
    """Return a user's name, or the number where it has none."""
    import pwd

    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return str(user)
