"""Where a machine's files are read from: a directory that holds its `/sys` and `/proc`.

The readers take any object with `read` and `names`, so a saved machine is read like a living one.
"""

from __future__ import annotations

import errno
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
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
