"""Huge pages that the kernel gives: transparent ones, and reserved ones of 2 MiB.

Sources: the kernel's admin-guide/mm/transhuge.rst and hugetlbpage.rst.
"""

from __future__ import annotations

import os

from ompbind.cpuset import parse_whole
from ompbind.host.kernel import TRANSPARENT_HUGE_PAGES, parse_choice
from ompbind.machine.cpus import NODES
from ompbind.machine.limits import unescape
from ompbind.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ompbind.machine.roots import Root

SIZES = "sys/kernel/mm/hugepages"
SIZE = "hugepages-2048kB"
BYTES = 2 << 20
# What root can do about it: give transparent ones on request, or always; reserve pages on a node.
GIVE_ON_REQUEST = f"as root: echo madvise >/{TRANSPARENT_HUGE_PAGES}"
GIVE_ALWAYS = f"as root: echo always >/{TRANSPARENT_HUGE_PAGES}"
RESERVE_ON_NODE = f"as root: echo N >/{NODES}/nodeN/hugepages/{SIZE}/nr_hugepages"


class HugePages(Record):
    """The huge pages that the kernel has to give."""

    transparent: str | None = None  # `always`, `madvise` or `never`; None: it has none
    reserved: int | None = None  # free pages of 2 MiB, and those made on demand; None: no such size
    on_demand: int = 0  # of these, the ones made on demand
    by_node: tuple[tuple[int, int], ...] = ()  # (node, free pages)
    mounts: tuple[str, ...] = ()  # the directories of file systems of such pages


def read_huge_pages(root: Root) -> HugePages:
    """Return the huge pages that the kernel has to give now."""
    folder = f"{SIZES}/{SIZE}"
    on_demand = read_count(root, f"{folder}/nr_overcommit_hugepages")
    free = read_count(root, f"{folder}/free_hugepages")
    free -= read_count(root, f"{folder}/resv_hugepages")  # promised to a process, but not yet taken
    nodes = [
        (number, read_count(root, f"{NODES}/{name}/hugepages/{SIZE}/free_hugepages"))
        for name in root.names(NODES)
        if name.startswith("node") and (number := parse_whole(name[4:])) is not None
    ]
    return HugePages(
        transparent=parse_choice(root.read(TRANSPARENT_HUGE_PAGES)),
        reserved=max(free, 0) + on_demand if SIZE in root.names(SIZES) else None,
        on_demand=on_demand,
        by_node=tuple(sorted(nodes)),
        mounts=parse_mounts(root.read("proc/self/mounts") or ""),
    )


def read_count(root: Root, path: str) -> int:
    return parse_whole((root.read(path) or "").strip()) or 0


def parse_mounts(text: str) -> tuple[str, ...]:
    """Return where file systems of pages of 2 MiB are mounted. Source: fstab(5)."""
    points = []
    for line in text.splitlines():
        words = line.split(" ")
        if len(words) >= 4 and words[2] == "hugetlbfs" and "pagesize=2M" in words[3].split(","):
            points.append(unescape(words[1]))
    return tuple(points)


def find_writable(points: tuple[str, ...]) -> str:
    """Return the first of these directories in which this user may make files, "" for none."""
    return next((p for p in points if os.access(p, os.W_OK | os.X_OK)), "")
