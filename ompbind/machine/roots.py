"""Roots: where a machine's files are read from, and the formats of the kernel's small files.

A root is a directory that holds a machine's `/sys` and `/proc`, or anything else with the same
methods, so that a saved machine is read exactly as the running one.
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
        """Paths are relative and have no `..`: `sys/devices/system/cpu/online`."""

        def read(self, path: str) -> str | None:
            """Return a file's text without NUL bytes; None if it is absent or unreadable."""

        def names(self, path: str) -> list[str]:
            """Return the names in a directory, sorted; [] if it is absent or unreadable."""

        def resolve(self, path: str) -> str | None:
            """Return the path that the symbolic link at `path` leads to; None if it is no link."""

    class LivingRoot(Root, Protocol):
        """A root whose files can also be read as bytes, with the reason if that fails."""

        def read_whole(self, path: str) -> bytes:
            """Return all of a file. Raises OSError."""


# O_NONBLOCK, where the system has it: a FIFO in place of a file must not block us.
OPEN_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)
# Errors of this process, not of the file, which must therefore not count as absent.
OUT_OF_RESOURCES = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)
MAX_FILE_BYTES = 1 << 20  # the only larger file, /proc/cpuinfo, may be truncated


class DirectoryRoot:
    """A directory that holds `sys` and `proc`; "/" is the running machine.

    Reading raises OSError when this process has no descriptors or memory left: without the file,
    the plan would be a different one.
    """

    def __init__(self, path: str) -> None:
        self.path = path.rstrip("/")

    def read(self, path: str) -> str | None:
        try:
            fd = os.open(f"{self.path}/{path}", OPEN_FLAGS)
        except OSError as e:
            if e.errno in OUT_OF_RESOURCES:
                raise
            return None
        try:
            data = os.read(fd, 65536)
            if len(data) >= 4096:  # files of sysfs have at most a page
                while len(data) < MAX_FILE_BYTES and (more := os.read(fd, 65536)):
                    data += more
        except OSError as e:  # ENODEV, EIO…: the cpu has just gone offline
            if e.errno in OUT_OF_RESOURCES:
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
            if e.errno in OUT_OF_RESOURCES:
                raise
            return []

    def resolve(self, path: str) -> str | None:
        try:
            target = os.readlink(f"{self.path}/{path}")
        except OSError as e:
            if e.errno in OUT_OF_RESOURCES:
                raise
            return None
        return os.path.normpath(os.path.join(os.path.dirname(path), target))


class SnapshotRoot:
    """A saved machine: by path, texts of files, names in directories and targets of links."""

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
    """A root that records what is read from another, so that it can be saved."""

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


# --- the kernel's small files: lists, masks, numbers, and numbered names --------------------------


def read_list(root: Root, path: str) -> CpuSet | None:
    """Return a list such as `0-3,8`; None if it is absent. Raises TopologyError for garbage."""
    text = root.read(path)
    try:
        return None if text is None else CpuSet.parse_kernel(text)
    except ParseError as e:
        raise damaged(path, e) from None


def read_optional_list(root: Root, path: str) -> CpuSet:
    """Return a list that only advises; the empty set if it is absent or garbage.

    `nohz_full` contains "(null)" on kernels that support but do not use it.
    """
    try:
        return CpuSet.parse_kernel(root.read(path) or "")
    except ParseError:
        return CpuSet()


def read_mask(root: Root, path: str) -> CpuSet | None:
    """Return a mask, or the list beside it; None if both are absent. Raises TopologyError."""
    text = root.read(path)
    try:
        if text is not None:
            return CpuSet.parse_mask(text)
    except ParseError as e:
        raise damaged(path, e) from None
    return read_list(root, f"{path}_list")


def damaged(path: str, error: ParseError) -> TopologyError:
    hint = "the machine's files are damaged; ompbind does not guess its topology"
    return TopologyError(f"{path}: {error.message}", hint=hint, path=path)


def read_int(root: Root, path: str) -> int | None:
    """Return a whole number; None if it is absent or anything else."""
    text = (root.read(path) or "").strip()
    value = parse_whole(text.removeprefix("-"))
    return -value if value is not None and text.startswith("-") else value


def parse_numbered(names: Iterable[str], prefix: str) -> list[int]:
    """Return 12 for `cpu12`, of every name of that form, in ascending order."""
    parts = (name[len(prefix) :] for name in names if name.startswith(prefix))
    return sorted(int(p) for p in parts if p.isascii() and p.isdigit() and len(p) < 6)
