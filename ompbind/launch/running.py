"""Binding processes that run already: masks of their threads, and the nodes of their pages.

Nothing is stopped for it. A thread waits only where it touches a page at the moment at which the
kernel copies it, and no more than 512 pages are taken from it at a time (before Linux 6.3: one). A
process's memory policy cannot be set from outside: what it allocates later goes by its own.

Sources: sched_setaffinity(2), move_pages(2), the kernel's mm/migrate.c and syscall tables.
"""

from __future__ import annotations

import errno
import os
import sys

from ompbind.launch.syscalls import Library, set_affinity
from ompbind.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ompbind.cpuset import CpuSet
    from ompbind.machine.regions import Region

# move_pages by machine (as uname says it) and whether pointers have 64 bits.
MOVE_PAGES = {
    ("x86_64", True): 279,
    ("x86_64", False): 317,
    ("i686", False): 317,
    ("i586", False): 317,
    ("aarch64", True): 239,
    ("aarch64", False): 344,
    ("armv7l", False): 344,
    ("armv8l", False): 344,
    ("ppc64le", True): 301,
    ("ppc64", True): 301,
    ("s390x", True): 310,
    ("riscv64", True): 239,
    ("loongarch64", True): 239,
    ("sparc64", True): 307,
}
MPOL_MF_MOVE = 2  # pages that no other process maps
STEP = 4096  # pages in a call: before each the kernel empties a list of every cpu


def set_mask(tid: int, cpus: CpuSet) -> None:
    """Let a thread run on these cpus only. Raises OSError, also when the kernel silently takes
    fewer cpus."""
    set_affinity(cpus, tid)


class Moved(Record):
    """What became of pages on other nodes than they should be, in bytes. `left`: of pages that
    could not be moved, `reason` the last one's."""

    moved: int = 0
    left: int = 0
    reason: int = 0  # an errno, 0 where no page is left


class PageMover(Library):
    """Moves pages of other processes."""

    def __init__(self) -> None:
        """Raises OSError where there is no such call."""
        super().__init__()
        import ctypes

        number = MOVE_PAGES.get((os.uname().machine, sys.maxsize > 2**32))
        if number is None:
            raise OSError(errno.ENOSYS, f"move_pages is not known on {os.uname().machine}")
        self._number = self._long(number)
        self._int = ctypes.c_int
        self._pointer = ctypes.c_void_p

    def move_region(self, pid: int, region: Region, nodes: CpuSet) -> Moved:
        """Move the pages of a region that are on other nodes to these, by turns, a few at a time.
        Raises OSError."""
        moved = left = reason = seen = 0
        present = sum(count for _, count in region.pages)
        turn = list(nodes)
        for first in range(region.start, region.end, STEP * region.page):
            last = min(first + STEP * region.page, region.end)
            addresses = range(first, last, region.page)
            places = self.call(pid, addresses)
            wrong = [a for a, node in zip(addresses, places, strict=True)
                     if node >= 0 and node not in nodes]  # fmt: skip
            if wrong:
                wanted = [turn[a // region.page % len(turn)] for a in wrong]
                results = self.call(pid, wrong, wanted)
                # The pages of a huge one are moved with the first of them: what counts is where
                # they are then.
                for node, result in zip(self.call(pid, wrong), results, strict=True):
                    moved += node in nodes
                    if node >= 0 and node not in nodes:
                        left += 1
                        reason = -result if result < 0 else errno.EBUSY
            seen += sum(node >= 0 for node in places)
            if seen >= present:  # the rest is reserved, and may be terabytes
                break
        return Moved(moved * region.page, left * region.page, reason)

    def call(
        self, pid: int, addresses: Sequence[int], nodes: Sequence[int] | None = None
    ) -> list[int]:
        """Move the pages at these addresses, each to its node; return for each its node then, or
        minus an errno. Without `nodes` nothing is moved. Raises OSError."""
        count = len(addresses)
        pages = (self._pointer * count)(*addresses)
        unknown = -errno.ENOENT if nodes is None else -errno.EBUSY
        status = (self._int * count)(*[unknown] * count)
        wanted = None if nodes is None else (self._int * count)(*nodes)
        flags = self._int(0 if nodes is None else MPOL_MF_MOVE)
        result = self._syscall(
            self._number, self._int(pid), self._word(count), pages, wanted, status, flags
        )
        if result < 0:  # above 0: so many were not moved
            code = self._errno()
            raise OSError(code, os.strerror(code))
        return list(status)
