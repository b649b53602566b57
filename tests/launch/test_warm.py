"""Reading files into memory, piece by piece. What is asked for with --warm is in tests/memory."""

from __future__ import annotations

import errno
import mmap
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ompbind.cpuset import CpuSet
from ompbind.launch import warm
from ompbind.launch.warm import Warmed, explain_left, find_misplaced, warm_file, warm_files
from ompbind.plans import WarmFile
from tests.support.calls import Calls, noting

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="files are warmed on Linux")

MIB = 1 << 20
ROOT: Any = "root"


def make_file(name: str, size: int = 10, mem: str = "preferred", mems: str = "1") -> WarmFile:
    return WarmFile(f"/x/{name}", size, mem, CpuSet.parse_kernel(mems))


# --- files ---------------------------------------------------------------------------------------


def test_files_are_read_one_after_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each under its policy, which is gone after it, also where reading fails; what cannot be read
    is said, and the others are. How far all are is shown."""
    calls: Calls = []
    a, b, c = make_file("a"), make_file("b", 20), make_file("c", 5, "none", "")
    policies = {a: (3, CpuSet([7])), b: (0, CpuSet()), c: None}

    def read(root: object, file: WarmFile) -> Iterator[Warmed]:
        if file == b:
            raise PermissionError(errno.EACCES, "Permission denied")
        yield Warmed(file, 4)
        yield Warmed(file, file.bytes, left=((0, 3),) if file == a else ())

    library = SimpleNamespace(memory=noting(calls, "memory"))
    monkeypatch.setattr(warm, "Library", lambda: library)
    monkeypatch.setattr(warm, "set_policy", lambda library, file: policies[file])
    monkeypatch.setattr(warm, "warm_file", read)
    warming: Any = SimpleNamespace(show=noting(calls, "show"))
    results = warm_files((a, b, c), "error", lambda text: calls.append((text,)), warming)
    assert [(r.file, r.read) for r in results] == [(a, 10), (c, 5)]
    assert calls == [
        ("show", "a", 4, 35), ("show", "a", 10, 35), ("memory", 0, 3, CpuSet([7])),
        (explain_left(results[0]),),
        ("--warm '/x/b': Permission denied",), ("memory", 0, 0, CpuSet()),
        ("show", "c", 34, 35), ("show", "c", 35, 35),
    ]  # fmt: skip


def test_a_file_whose_policy_is_denied_is_only_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever the kernel puts it: nobody looks where that is, and no policy is set back."""
    read: list[WarmFile] = []

    def note(root: object, file: WarmFile) -> Iterator[Warmed]:
        read.append(file)
        yield Warmed(file, file.bytes)

    denied = PermissionError(errno.EPERM, "Operation not permitted")
    monkeypatch.setattr(warm, "Library", SimpleNamespace)
    monkeypatch.setattr(warm, "set_policy", noting([], "set", denied))
    monkeypatch.setattr(warm, "warm_file", note)
    said: list[str] = []
    warm_files((make_file("a"),), "degrade", said.append)
    assert [file.mem for file in read] == ["none"]
    assert said == [
        "--warm: the kernel denies a memory policy (Operation not permitted): a is only read"
    ]


def test_an_empty_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Is read at once."""
    monkeypatch.setattr(warm, "set_policy", lambda *_: None)
    (tmp_path / "a").touch()
    said: list[str] = []
    (result,) = warm_files((WarmFile(str(tmp_path / "a"), 0, "none", CpuSet()),), "error",
                           said.append)  # fmt: skip
    assert (result.read, said) == (0, [])


def test_the_policy_of_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """Is set for this thread, and the one before it is kept; without nodes none is."""
    calls: Calls = []
    library: Any = SimpleNamespace(memory=noting(calls, "memory", (3, CpuSet([7]))))
    monkeypatch.setattr(warm, "set_memory", noting(calls, "set"))
    assert warm.set_policy(library, make_file("a", mem="none", mems="")) is None
    assert calls == []
    assert warm.set_policy(library, make_file("a")) == (3, CpuSet([7]))
    assert calls == [("memory", 1), ("set", "preferred", CpuSet([1]), library)]


# --- pieces --------------------------------------------------------------------------------------


class Pieces:
    """A file of ten bytes in pieces of four, and where their pages are: by the piece's start the
    bytes on each node, before it is dropped and after."""

    def __init__(
        self,
        folder: Path,
        monkeypatch: pytest.MonkeyPatch,
        before: dict[int, dict[int, int]],
        after: dict[int, dict[int, int]] | None = None,
        users: tuple[tuple[int, str], ...] = (),
    ) -> None:
        self.calls: Calls = []
        self.before, self.after, self.users = before, after or {}, users
        self.dropped: set[int] = set()
        self.fds: set[int] = set()
        self.path = folder / "a"
        self.path.write_bytes(b"x" * 10)
        monkeypatch.setattr(warm, "PIECE", 4)
        monkeypatch.setattr(warm, "read_piece", self.read)
        monkeypatch.setattr(warm, "drop_piece", self.drop)
        monkeypatch.setattr(warm, "count_nodes", self.count)
        monkeypatch.setattr(warm, "find_mappers", self.find)

    def read(self, fd: int, start: int, length: int) -> int:
        self.fds.add(fd)
        self.calls.append(("read", start, length))
        return length

    def drop(self, fd: int, start: int, length: int) -> None:
        assert fd in self.fds
        self.dropped.add(start)
        self.calls.append(("drop", start, length))

    def count(self, root: object, fd: int, start: int, length: int) -> dict[int, int]:
        assert fd in self.fds
        self.calls.append(("count", start, length))
        nodes = (self.after if start in self.dropped else self.before).get(start)
        if nodes is None:
            raise OSError(errno.ENODEV, "No such device")
        return nodes

    def find(self, root: object, fd: int, but: int) -> list[tuple[int, str]]:
        assert (root, fd in self.fds, but) == (ROOT, True, os.getpid())
        self.calls.append(("find",))
        return list(self.users)

    def warm(self, mem: str = "preferred") -> list[Warmed]:
        """Warm the file, which belongs on node 1, and return what is reported."""
        file = WarmFile(str(self.path), 10, mem, CpuSet([1]) if mem != "none" else CpuSet())
        results = list(warm_file(ROOT, file))
        assert all(r.file == file for r in results)
        for fd in self.fds:
            with pytest.raises(OSError, match="Bad file descriptor"):
                os.fstat(fd)
        return results


READS: Calls = [("read", 0, 4), ("read", 4, 4), ("read", 8, 2)]


def test_pieces_that_are_in_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Are read and counted; a file that nobody wants on a node is only read."""
    pieces = Pieces(tmp_path, monkeypatch, {0: {1: 4}, 4: {1: 4}, 8: {1: 2}})
    assert [(r.read, r.counted, r.moved, r.left) for r in pieces.warm()] == [
        (4, 4, 0, ()), (8, 8, 0, ()), (10, 10, 0, ())
    ]  # fmt: skip
    assert pieces.calls == [call for read in READS for call in (read, ("count", *read[1:]))]
    pieces.calls.clear()
    assert [(r.read, r.counted, r.uncounted) for r in pieces.warm("none")][-1] == (10, 0, "")
    assert pieces.calls == READS


def test_pieces_that_are_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Are dropped, read and counted once more; what stays elsewhere is reported by node, and it is
    looked once who else has them mapped."""
    before = {0: {0: 3, 1: 1}, 4: {2: 4}, 8: {0: 1, 1: 1}}
    after = {0: {1: 4}, 4: {2: 3, 1: 1}, 8: {0: 2}}
    pieces = Pieces(tmp_path, monkeypatch, before, after)
    assert [(r.read, r.counted, r.moved, r.left) for r in pieces.warm()] == [
        (4, 4, 3, ()), (8, 8, 4, ((2, 3),)), (10, 10, 4, ((0, 2), (2, 3))),
    ]  # fmt: skip
    again = [[("read", *at), ("count", *at), ("drop", *at), ("read", *at), ("count", *at)]
             for _, *at in READS]  # fmt: skip
    again[0].insert(2, ("find",))
    assert pieces.calls == [call for calls in again for call in calls]


def test_pieces_that_somebody_maps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stay where they are, and it is known who that is."""
    before = {0: {1: 4}, 4: {0: 4}, 8: {0: 2}}
    pieces = Pieces(tmp_path, monkeypatch, before, users=((7, "w"), (8, "v")))
    results = pieces.warm()
    assert [r.users for r in results] == [(), *[((7, "w"), (8, "v"))] * 2]
    assert (results[-1].moved, results[-1].left) == (0, ((0, 6),))
    assert pieces.dropped == set()
    assert pieces.calls.count(("find",)) == 1


def test_pieces_that_cannot_be_counted_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Are not said to have moved, and none is counted after them."""
    pieces = Pieces(tmp_path, monkeypatch, {0: {0: 4}, 4: {0: 4}})
    results = pieces.warm()
    assert [(r.read, r.counted, r.moved, r.uncounted) for r in results] == [
        (n, 0, 0, "No such device") for n in (4, 8, 10)
    ]
    assert [call[1] for call in pieces.calls if call[0] == "count"] == [0, 0]


# --- the kernel ----------------------------------------------------------------------------------


def test_a_piece_is_read_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """To its end, and not beyond; of a file that is shorter, what there is."""
    calls: list[tuple[int, int, int]] = []

    def read(fd: int, length: int, start: int) -> bytes:
        calls.append((fd, length, start))
        return b"x" * min(length, max(end - start, 0))

    end = 99
    monkeypatch.setattr(warm, "BLOCK", 4)
    monkeypatch.setattr(os, "pread", read)
    assert warm.read_piece(5, 8, 10) == 10
    assert calls == [(5, 4, 8), (5, 4, 12), (5, 2, 16)]
    end = 14
    assert warm.read_piece(5, 8, 10) == 6
    end = 3
    assert warm.read_piece(5, 8, 10) == 0


@pytest.mark.parametrize(("length", "dropped"), [(warm.PIECE, warm.PIECE), (warm.PIECE - 1, 0)])
def test_a_piece_is_dropped(length: int, dropped: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """After it was written, as the kernel keeps what is not; the last one with its last page, to
    the file's end (0)."""
    calls: Calls = []
    monkeypatch.setattr(os, "fdatasync", noting(calls, "write"))
    monkeypatch.setattr(os, "posix_fadvise", noting(calls, "advise"))
    warm.drop_piece(5, 4096, length)
    assert calls == [("write", 5), ("advise", 5, 4096, dropped, os.POSIX_FADV_DONTNEED)]


def test_the_pages_of_a_piece_are_mapped(monkeypatch: pytest.MonkeyPatch) -> None:
    """All of them at once, as the kernel counts only those."""
    calls: Calls = []

    class Mapping:
        def __init__(self, fd: int, length: int, **more: Any) -> None:
            calls.append((fd, length, *sorted(more.items())))

        def __enter__(self) -> None:
            calls.append(("mapped",))

        def __exit__(self, *_: object) -> None:
            calls.append(("unmapped",))

    monkeypatch.setattr(mmap, "mmap", Mapping)
    monkeypatch.setattr(warm, "read_mapped_nodes", noting(calls, "count", {1: 5}))
    assert warm.count_nodes(ROOT, 5, 4096, 5) == {1: 5}
    flags = mmap.MAP_SHARED | mmap.MAP_POPULATE
    asked = (("flags", flags), ("offset", 4096), ("prot", mmap.PROT_READ))
    assert calls == [(5, 5, *asked), ("mapped",), ("count", ROOT, 5), ("unmapped",)]


# --- what is wrong -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("nodes", "wrong"),
    [
        ({0: 50.0, 1: 30.0}, {}),
        ({0: 60.0, 1: 20.0}, {}),  # one and a half times its part
        ({0: 61.0, 1: 19.0}, {0: 21.0}),
        ({2: 80.0}, {2: 80.0}),
        ({0: 40.0, 1: 20.0, 2: 20.0}, {2: 20.0}),
        # Of small files a megabyte more does not count.
        ({0: 1.0}, {}),
        ({0: 1.25}, {}),
        ({0: 3.5, 1: 0.5}, {0: 1.5}),
    ],
)
def test_an_uneven_interleave(nodes: dict[int, float], wrong: dict[int, float]) -> None:
    """Far more than a node's part is too much for it, in MiB."""
    file = make_file("a", mem="interleave", mems="0-1")
    sizes = {node: int(size * MIB) for node, size in nodes.items()}
    assert find_misplaced(sizes, file) == {node: int(size * MIB) for node, size in wrong.items()}


@pytest.mark.parametrize(
    ("users", "why"),
    [
        ((), "node 1 may be full, or its file system keeps files in memory (tmpfs)"),
        (((7, "w"),), "pid 7 (w) has it mapped"),
        (((7, "w"), (8, "v")), "pid 7 (w) and 1 more have it mapped"),
        (((7, "w"), (8, "v"), (9, "u")), "pid 7 (w) and 2 more have it mapped"),
    ],
)
def test_why_pages_stay(users: tuple[tuple[int, str], ...], why: str) -> None:
    """By who has the file mapped, the first of several."""
    result = Warmed(make_file("a"), 10, left=((0, 3 * MIB), (2, MIB)), users=users)
    assert explain_left(result) == (
        "--warm '/x/a': planned for node 1, but 3.0 MiB on node 0, 1.0 MiB on node 2 stay there: "
        f"{why}"
    )
    assert explain_left(result.replace(left=())) == ""
