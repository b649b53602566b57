"""Reads files into memory, onto the nodes that the plan says, before the ranks start.

Pages of a file are put where the policy of the process says that reads them first, and stay there:
a rank bound to another node reads them from afar, each time (numactl#87, llama.cpp#18166). Dropping
a clean page that nobody maps needs no privilege: posix_fadvise(2), POSIX_FADV_DONTNEED.

A file is gone through in pieces. Each is read under the policy, mapped, and its pages are counted
by node; if they are elsewhere, it is unmapped, dropped, read again and counted again.
"""

from __future__ import annotations

import os

from ompbind.errors import DeniedError
from ompbind.launch.syscalls import Library, set_memory
from ompbind.machine import living_root
from ompbind.machine.page_cache import find_mappers, read_mapped_nodes
from ompbind.messages import format_size, label, name_process, quote
from ompbind.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Protocol

    from ompbind.cpuset import CpuSet
    from ompbind.machine.roots import LivingRoot
    from ompbind.plans import WarmFile

    class Warming(Protocol):
        """Shows how far the files of --warm are."""

        def show(self, name: str, done: int, total: int) -> None:
            """`done` of `total` bytes of all files have been gone through, `name` at last."""

        def finish(self, results: Sequence[Warmed]) -> None:
            """Report what has become of each."""


PIECE = 32 << 20  # bytes that are mapped at once
BLOCK = 1 << 20  # bytes that are read at once
UNEVEN = 1.5  # so many times its part of an interleaved piece is too much for a node


class Warmed(Record):
    """What became of a file. `read`: how much of it has been gone through, in bytes; `counted`: of
    which the nodes are known; `moved`: of these, what was on other nodes before; `left`: by node,
    what still is; `users`: the processes that map it, for which it is left where it is;
    `uncounted`: why the nodes of its pages, or of the last of them, are not known."""

    file: WarmFile
    read: int = 0
    counted: int = 0
    moved: int = 0
    left: tuple[tuple[int, int], ...] = ()
    users: tuple[tuple[int, str], ...] = ()
    uncounted: str = ""


def warm_files(
    files: tuple[WarmFile, ...],
    on_denied: str,
    say: Callable[[str], None],
    warming: Warming | None = None,
) -> list[Warmed]:
    """Bring the files into memory, and report what could not be done. Raises DeniedError where the
    kernel denies the memory policy, unless that may be left out."""
    library = Library()
    root = living_root()
    total, before = sum(f.bytes for f in files), 0
    results: list[Warmed] = []
    for file in files:
        name, result = os.path.basename(file.path), Warmed(file)
        try:
            policy = set_policy(library, file)
        except OSError as e:
            if on_denied != "degrade":
                raise DeniedError(
                    f"--warm: the kernel denies a memory policy ({e.strerror})",
                    hint="--on-denied degrade reads the files wherever the kernel puts them",
                ) from None
            say(f"--warm: the kernel denies a memory policy ({e.strerror}): {name} is only read")
            file, policy = file.replace(mem="none"), None  # noqa: PLW2901
        try:
            for result in warm_file(root, file):
                if warming:
                    warming.show(name, before + result.read, total)
        except OSError as e:
            say(f"--warm {quote(file.path, 400)}: {e.strerror or e}")
            continue
        finally:
            before += file.bytes
            if policy is not None:
                library.memory(0, *policy)
        results.append(result)
        if result.uncounted:
            which = "not all of its pages" if result.counted else "its pages"
            verb = "can be counted" if result.counted else "cannot be counted"
            say(f"--warm {quote(file.path, 400)}: {which} {verb} by node: {result.uncounted}")
        if text := explain_left(result):
            say(text)
    return results


def set_policy(library: Library, file: WarmFile) -> tuple[int, CpuSet] | None:
    """Set this thread's memory policy for reading a file, and return the one that it had; None
    where there is nothing to choose. Raises OSError."""
    if file.mem == "none":
        return None
    before = library.memory(1)
    set_memory(file.mem, file.mems, library)
    return before


def warm_file(root: LivingRoot, file: WarmFile) -> Iterator[Warmed]:
    """Bring a file into memory; yield what has become of it after each piece. Raises OSError."""
    fd = os.open(file.path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        whole = os.fstat(fd).st_size
        users: list[tuple[int, str]] | None = None
        size, moved, left, reason = 0, 0, dict[int, int](), ""
        for start in range(0, whole, PIECE):
            length = read_piece(fd, start, min(PIECE, whole - start))
            if not length:  # the file has become shorter
                break
            nodes: dict[int, int] = {}
            if file.mem != "none" and not reason:
                nodes, reason = try_count(root, fd, start, length)
            wrong = find_misplaced(nodes, file)
            if wrong:
                if users is None:
                    users = find_mappers(root, fd, but=os.getpid())
                if not users:
                    drop_piece(fd, start, length)
                    read_piece(fd, start, length)
                    nodes, reason = try_count(root, fd, start, length)
                    still = find_misplaced(nodes, file)
                    if not reason:
                        moved += max(sum(wrong.values()) - sum(still.values()), 0)
                    wrong = still
            size += sum(nodes.values())
            for node, count in wrong.items():
                left[node] = left.get(node, 0) + count
            far, holders = tuple(sorted(left.items())), tuple(users or ())
            yield Warmed(file, start + length, size, moved, far, holders, reason)
    finally:
        os.close(fd)


def read_piece(fd: int, start: int, length: int) -> int:
    """Read a piece of a file, so that it is in memory; return how many bytes of it there are.
    Raises OSError."""
    at, end = start, start + length
    while at < end and (data := os.pread(fd, min(BLOCK, end - at), at)):
        at += len(data)
    return at - start


def drop_piece(fd: int, start: int, length: int) -> None:
    """Drop the pages of a piece that nobody maps; those not yet written are written first. Raises
    OSError."""
    write_back(fd)
    os.posix_fadvise(fd, start, 0 if length < PIECE else length, os.POSIX_FADV_DONTNEED)


def write_back(fd: int) -> None:
    """Write what has changed in a file."""
    try:
        os.fdatasync(fd)
    except OSError:  # EINVAL on squashfs, erofs, iso9660, which have nothing to write
        return


def count_nodes(root: LivingRoot, fd: int, start: int, length: int) -> dict[int, int]:
    """Return the bytes of a piece on each node. Raises OSError."""
    import mmap

    flags = mmap.MAP_SHARED | mmap.MAP_POPULATE
    with mmap.mmap(fd, length, flags=flags, prot=mmap.PROT_READ, offset=start):
        return read_mapped_nodes(root, fd)


def try_count(root: LivingRoot, fd: int, start: int, length: int) -> tuple[dict[int, int], str]:
    """Return the bytes of a piece on each node, and why there are none: the file system cannot map
    files (ENODEV), or the file is shorter by now (ValueError)."""
    try:
        return count_nodes(root, fd, start, length), ""
    except (OSError, ValueError) as e:
        return {}, getattr(e, "strerror", None) or str(e)


def find_misplaced(nodes: dict[int, int], file: WarmFile) -> dict[int, int]:
    """Return the bytes on each node that should be elsewhere: on nodes that are not the file's, or
    of an interleaved piece far more than a node's part."""
    wrong = {node: size for node, size in nodes.items() if node not in file.mems}
    if file.mem != "interleave":
        return wrong if file.mem == "preferred" else {}
    part = sum(nodes.values()) / len(file.mems)
    for node, size in nodes.items():
        if node in file.mems and size > max(UNEVEN * part, part + BLOCK):
            wrong[node] = size - int(part)
    return wrong


def explain_left(result: Warmed) -> str:
    """Return what to warn of; "" for nothing."""
    total = sum(size for _, size in result.left)
    if not total:
        return ""
    nodes = ", ".join(f"{format_size(size)} on node {node}" for node, size in result.left)
    planned = label("node", result.file.mems)
    text = f"--warm {quote(result.file.path, 400)}: planned for {planned}, but {nodes} stay there"
    if result.users:
        pid, name = result.users[0]
        more = f" and {len(result.users) - 1} more have" if result.users[1:] else " has"
        return f"{text}: {name_process(pid, name)}{more} it mapped"
    return f"{text}: {planned} may be full, or its file system keeps files in memory (tmpfs)"
