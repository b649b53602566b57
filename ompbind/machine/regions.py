"""The memory of a process region by region: the policy of each, and the nodes of its pages.

Source: numa(7) for numa_maps, the kernel's mpol_to_str().
"""

from __future__ import annotations

import os

from ompbind.cpuset import parse_whole
from ompbind.machine.limits import unescape
from ompbind.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ompbind.cpuset import CpuSet
    from ompbind.machine.roots import LivingRoot


# What numa_maps calls private memory in reserved huge pages, as if that were a file.
RESERVED_PAGES = "/anon_hugepage"


class Region(Record):
    """A mapping of a process."""

    start: int  # its address
    policy: str  # as the kernel writes it
    is_file: bool  # or shared memory: its pages may be others' as well
    is_stack: bool  # the main thread's
    page: int  # the bytes of a page
    pages: tuple[tuple[int, int], ...]  # (node, number of pages) of those that are in memory
    end: int = 0  # the address after its last byte; `start` where that was not read
    file: str = ""  # its path as os.fsdecode has it; "": of none, or of another name than a file's

    def count_outside(self, nodes: CpuSet) -> int:
        """Return how many of its pages are on other nodes than these."""
        return sum(count for node, count in self.pages if node not in nodes)


def parse_regions(numa_maps: bytes) -> Iterator[Region]:
    """Yield the regions of lines such as `7f00 bind:0 anon=3 dirty=3 N0=3 kernelpagesize_kB=4`.

    A policy may have two words ("prefer (many):0-1"); what is no such line is left out.
    """
    for line in numa_maps.splitlines():
        words = os.fsdecode(line).split(" ")
        if len(words) < 2:
            continue
        policy, rest = words[1], 2
        if policy in ("prefer", "weighted") and words[2:]:
            policy, rest = f"{policy} {words[2]}", 3
        pages, is_file, is_stack, size, file = [], False, False, 4, ""
        for word in words[rest:]:
            name, _, value = word.partition("=")
            if name == "stack":
                is_stack = True
            elif name == "file":
                is_file, file = not value.startswith(RESERVED_PAGES), unescape(value)
            elif name == "kernelpagesize_kB":
                size = parse_whole(value) or 0
            elif name[:1] == "N" and (node := parse_whole(name[1:])) is not None:
                pages.append((node, parse_whole(value) or 0))
        start = parse_address(words[0])
        yield Region(start, policy, is_file, is_stack, size * 1024, tuple(pages), start,
                     file)  # fmt: skip


def find_policy(regions: Iterable[Region]) -> str:
    """Return the main thread's policy: the stack's, else that of most memory; "" without any."""
    sizes: dict[str, int] = {}
    for region in regions:
        if region.is_stack:
            return region.policy
        count = sum(count for _, count in region.pages)
        sizes[region.policy] = sizes.get(region.policy, 0) + count * region.page
    return max(sizes, key=lambda policy: sizes[policy], default="")


def read_regions(root: LivingRoot, pid: int) -> list[Region]:
    """Return the regions of a process, each with its end. Raises OSError."""
    ends = {}
    for line in root.read_whole(f"proc/{pid}/maps").splitlines():
        start, _, end = line.partition(b" ")[0].decode("ascii", "replace").partition("-")
        ends[parse_address(start)] = parse_address(end)
    regions = parse_regions(root.read_whole(f"proc/{pid}/numa_maps"))
    return [r.replace(end=ends[r.start]) for r in regions if r.start in ends]


def parse_address(text: str) -> int:
    """Return a hexadecimal number of at most 16 digits; 0 for anything else."""
    plain = text.isascii() and text.isalnum() and len(text) <= 16
    try:
        return int(text, 16) if plain else 0
    except ValueError:
        return 0
