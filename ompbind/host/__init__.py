"""What surrounds a launch here and now; first the leases by which launches share a machine.

A lease is a read lock on bytes of the directory in which the kernel lists the cpus: byte N stands
for cpu N. Everybody may open it and lock it, and look at the locks of all others, so there is no
file, no daemon and no right to be had. The lock belongs to one open file description: the kernel
drops it when the last process closes the descriptor or exits, however it ends. Read locks exclude
nobody; who wants cpus for itself alone looks first (`ompbind.host.queue`).

Leases are seen by all who share the same sysfs, also by other users and in other pid and user
namespaces, but not from a network namespace with a sysfs of its own, as most containers have.

Sources: fcntl(2) on open file description locks; flock(2); measured on Linux 6.18: 11 us in all.
"""

from __future__ import annotations

import os
import sys

from ompbind.cpuset import CpuSet, union
from ompbind.errors import TopologyError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ompbind.machine.topology import Machine

CPUS = "/sys/devices/system/cpu"

# Workers inherit the descriptor under this number or the next free one: out of the way of what
# they open, below the 255 of bash, and not the 200 that scripts take for locks of their own.
DESCRIPTOR = 240


class Lease:
    """The cpus that this process holds, and those that it starts, by one open descriptor."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.cpus = CpuSet()  # what was held by it here

    @classmethod
    def open(cls, directory: str = "") -> Lease | None:
        """Return a lease of no cpus yet; None where the system has no such locks or descriptors."""
        try:
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
            fd = os.open(directory or CPUS, flags)
        except (OSError, AttributeError):
            return None
        import fcntl

        try:
            if fd < 3:  # a standard stream is closed, and stays so
                low, fd = fd, fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3)
                os.close(low)
        except OSError:
            os.close(fd)
            return None
        if hasattr(fcntl, "F_OFD_SETLK") and sys.maxsize > 1 << 32:  # see make_lock
            return cls(fd)
        os.close(fd)
        return None

    @classmethod
    def find_inherited(cls, directory: str = "") -> Lease | None:
        """Return the lease that this process has inherited as a rank of another launch; None where
        there is none, or where its descriptor was closed on the way."""
        try:
            if os.path.samestat(os.fstat(DESCRIPTOR), os.stat(directory or CPUS)):
                return cls(DESCRIPTOR)
        except OSError:
            pass
        return None

    def hold(self, cpus: CpuSet) -> bool:
        """Hold these cpus as well; return whether that was possible."""
        import fcntl

        self.cpus |= cpus
        try:
            # Excludes nobody either: /proc/locks names the process for it, and for no other lock.
            fcntl.flock(self.fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:  # somebody locks the directory exclusively: this lease has no name
            return self.set(fcntl.F_RDLCK, cpus)
        return self.set(fcntl.F_RDLCK, cpus)

    def give_up(self, cpus: CpuSet) -> None:
        """Hold these cpus no longer."""
        import fcntl

        self.cpus -= cpus
        self.set(fcntl.F_UNLCK, cpus)

    def set(self, kind: int, cpus: CpuSet) -> bool:
        """Lock or unlock the bytes of these cpus; return whether that was possible."""
        import fcntl

        try:
            for first, count in cpus.runs():
                fcntl.fcntl(self.fd, fcntl.F_OFD_SETLK, make_lock(kind, first, count))
        except OSError:  # out of locks or of memory
            return False
        return True

    def find_others(self, cpus: CpuSet) -> CpuSet:
        """Return which of these cpus others hold, none where the kernel does not say."""
        import fcntl

        mask = 0
        left = cpus.runs()
        while left:
            first, count = left.pop()
            # The lock that would exclude all others; only asked about, as it cannot be had here.
            question = make_lock(fcntl.F_WRLCK, first, count)
            try:
                answer = fcntl.fcntl(self.fd, fcntl.F_OFD_GETLK, question)
            except OSError:
                return CpuSet()
            kind, start, length = parse_lock(answer)
            if kind == fcntl.F_UNLCK:
                continue
            end = min(start + length, first + count) if length else first + count  # 0: to the end
            start = max(start, first)
            mask |= ((1 << (end - start)) - 1) << start
            # One of several locks, and not the first: there may be more on either side.
            left += [(a, b - a) for a, b in ((first, start), (end, first + count)) if a < b]
        return CpuSet.from_mask(mask) & cpus

    def make_inheritable(self) -> int:
        """Return another descriptor of this lease, which is inherited across exec; -1 where no
        descriptor is left."""
        import fcntl

        for lowest in (DESCRIPTOR, 3):  # a limit of open files may be lower
            try:
                return fcntl.fcntl(self.fd, fcntl.F_DUPFD, lowest)
            except OSError:
                continue
        return -1

    def find_descriptor(self) -> int:
        """Return the number that `make_inheritable` would return, for forked processes to inherit
        their leases under; -1 where no descriptor is left."""
        descriptor = self.make_inheritable()
        if descriptor >= 0:
            os.close(descriptor)
        return descriptor

    def close(self) -> None:
        """Close this process's descriptor: the cpus are free when no other process has one."""
        os.close(self.fd)


def find_leased(cpus: CpuSet, machine: Machine | None, lease: Lease | None) -> CpuSet:
    """Return the hardware threads of the cores of `cpus` on which there is another lease than this
    one, None for any lease. `machine`: None where it has not been read."""
    looking = lease or Lease.open()
    if looking is None:
        return CpuSet()
    others = looking.find_others(find_threads(cpus, machine))
    if lease is None:
        looking.close()
    return others


def find_threads(cpus: CpuSet, machine: Machine | None) -> CpuSet:
    """Return the hardware threads of the cores of `cpus`. `machine`: None where it has not been
    read."""
    if machine is not None:
        return cpus | union(core for core in machine.topology.groups("core") if core & cpus)
    from ompbind.machine import living_root
    from ompbind.machine.cpus import read_cores

    try:
        return cpus | union(read_cores(living_root(), cpus))
    except TopologyError:  # it does not say which cpus share a core
        return cpus


def fill_gaps(cpus: CpuSet, spare: CpuSet) -> CpuSet:
    """Return `cpus` with the gaps filled between them that are wholly in `spare`: where threads of
    one core have neighbouring numbers, one lock instead of one a core."""
    runs, mask = cpus.runs(), cpus.mask
    for (first, count), (after, _) in zip(runs, runs[1:], strict=False):
        gap = ((1 << (after - first - count)) - 1) << (first + count)
        mask |= gap if not gap & ~spare.mask else 0
    return CpuSet.from_mask(mask)


def make_lock(kind: int, first: int, count: int) -> bytes:
    """Return the kernel's struct flock of a 64-bit system: a kind and bytes counted from the
    file's beginning."""
    order = sys.byteorder
    head = kind.to_bytes(2, order) + bytes(6)
    return head + first.to_bytes(8, order) + count.to_bytes(8, order) + bytes(8)


def parse_lock(data: bytes) -> tuple[int, int, int]:
    """Return kind, start and length of a struct flock."""
    order = sys.byteorder
    kind, start, length = data[:2], data[8:16], data[16:24]
    return (int.from_bytes(kind, order), int.from_bytes(start, order, signed=True),
            int.from_bytes(length, order, signed=True))  # fmt: skip
