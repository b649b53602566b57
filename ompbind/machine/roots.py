"""Where a machine's files are read from: a directory that holds its `/sys` and `/proc`.

The readers take any object with `read` and `names`, so a saved machine is read like a living one.
"""

from __future__ import annotations

import errno
import os

from ompbind.cpuset import CpuSet, parse_whole
from ompbind.errors import ParseError, TopologyError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Protocol

    class Root(Protocol):
        """Paths are relative, `/` between parts and no `..`: `sys/devices/system/cpu/online`."""

        def read(self, path: str) -> str | None:
            """The text of a file without NUL bytes; None when it is absent or cannot be read."""

        def names(self, path: str) -> list[str]:
            """The names in a directory, sorted; [] when it is absent or cannot be read."""

        def resolve(self, path: str) -> str | None:
            """The path that the symbolic link at `path` leads to; None when it is no link."""

    class LivingRoot(Root, Protocol):
        """A root whose files can be read as they are, and tell why they cannot."""

        def read_whole(self, path: str) -> bytes:
            """All of a file. Raises OSError."""


# Without blocking, where the system has that: a FIFO where a file is expected must not hang us.
OPEN_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)
# These tell of this process, not of the file: what cannot be read for them is not absent.
OURS = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)
LARGEST = 1 << 20  # bytes of one file; the largest that is wanted, /proc/cpuinfo, can be cut


class DirectoryRoot:
    """A directory that holds `sys` and `proc`; "/" is the running machine. Reading raises OSError
    when this process has no descriptors or no memory left: a plan made without what could not be
    read would be another one."""

    def __init__(self, path: str) -> None:
        self.path = path.rstrip("/")

    def read(self, path: str) -> str | None:
        try:
            fd = os.open(f"{self.path}/{path}", OPEN_FLAGS)
        except OSError as e:
            if e.errno in OURS:
                raise
            return None
        try:
            data = os.read(fd, 65536)
            if len(data) >= 4096:  # sysfs files end at a page; others may go on
                while len(data) < LARGEST and (more := os.read(fd, 65536)):
                    data += more
        except OSError as e:  # sysfs answers ENODEV, EIO… for what an offlined cpu takes with it
            if e.errno in OURS:
                raise
            return None
        finally:
            os.close(fd)
        return data.replace(b"\0", b"").decode("utf-8", "replace")

    def read_whole(self, path: str) -> bytes:
        fd = os.open(f"{self.path}/{path}", OPEN_FLAGS)
        try:
            parts = []
            while more := os.read(fd, 1 << 18):
                parts.append(more)
            return b"".join(parts)
        finally:
            os.close(fd)

    def names(self, path: str) -> list[str]:
        try:
            return sorted(os.listdir(f"{self.path}/{path}"))
        except OSError as e:
            if e.errno in OURS:
                raise
            return []

    def resolve(self, path: str) -> str | None:
        try:
            target = os.readlink(f"{self.path}/{path}")
        except OSError as e:
            if e.errno in OURS:
                raise
            return None
        return os.path.normpath(os.path.join(os.path.dirname(path), target))


class SnapshotRoot:
    """A saved machine: texts of files, names in directories and targets of links, by path."""

    def __init__(
        self, files: dict[str, str], directories: dict[str, list[str]], links: dict[str, str]
    ) -> None:
        self.files = files
        self.directories = directories
        self.links = links

    def read(self, path: str) -> str | None:
        return self.files.get(path)

    def names(self, path: str) -> list[str]:
        return self.directories.get(path, [])

    def resolve(self, path: str) -> str | None:
        return self.links.get(path)


class RecordingRoot(SnapshotRoot):
    """Another root that remembers what was read of it, and so can be saved."""

    def __init__(self, inner: Root) -> None:
        super().__init__({}, {}, {})
        self.inner = inner

    def read(self, path: str) -> str | None:
        text = self.inner.read(path)
        if text is not None:
            self.files[path] = text
        return text

    def names(self, path: str) -> list[str]:
        names = self.inner.names(path)
        if names:
            self.directories[path] = names
        return names

    def resolve(self, path: str) -> str | None:
        target = self.inner.resolve(path)
        if target is not None:
            self.links[path] = target
        return target


# --- what the kernel's small files hold: lists, masks, numbers, and numbered names ---------------


def read_list(root: Root, path: str) -> CpuSet | None:
    """A list such as `0-3,8`; None when it is absent. Raises TopologyError for garbage."""
    text = root.read(path)
    try:
        return None if text is None else CpuSet.parse_kernel(text)
    except ParseError as e:
        raise garbage(path, e) from None


def read_unless_garbage(root: Root, path: str) -> CpuSet:
    """A list that only advises: absent and garbage are the empty set.

    `nohz_full` holds "(null)" on kernels that support it but were not told to use it.
    """
    try:
        return CpuSet.parse_kernel(root.read(path) or "")
    except ParseError:
        return CpuSet()


def read_mask(root: Root, path: str) -> CpuSet | None:
    """A mask, or the list beside it; None when neither is there. Raises TopologyError."""
    text = root.read(path)
    try:
        if text is not None:
            return CpuSet.parse_mask(text)
    except ParseError as e:
        raise garbage(path, e) from None
    return read_list(root, f"{path}_list")


def garbage(path: str, error: ParseError) -> TopologyError:
    hint = "the machine's files are damaged; ompbind does not guess its topology"
    return TopologyError(f"{path}: {error.message}", hint=hint, path=path)


def read_int(root: Root, path: str) -> int | None:
    """A whole number; None when it is absent or anything else."""
    text = (root.read(path) or "").strip()
    value = parse_whole(text.removeprefix("-"))
    return -value if value is not None and text.startswith("-") else value


def numbered(names: Iterable[str], prefix: str) -> list[int]:
    """12 of `cpu12`, for every name of that form."""
    parts = (name[len(prefix) :] for name in names if name.startswith(prefix))
    return sorted(int(p) for p in parts if p.isascii() and p.isdigit() and len(p) < 6)
