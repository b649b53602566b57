"""Read the files of a machine in a tar archive, as hwloc-gather-topology makes one.

The archive is read once, front to back, and nothing is unpacked to disk: what is in it can do no
harm. One that could, or that unpacks to more than a machine needs, is refused all the same.
"""

from __future__ import annotations

import bz2
import gzip
import io
import posixpath
import tarfile
import zlib

from ompbind.errors import TopologyError
from ompbind.machine.formats import is_bzip2, is_gzip
from ompbind.messages import quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import IO, NoReturn

    from typing_extensions import Self

# Unpacked: tar has 1 KiB for each of the kernel's small files, a cpu some 150 of them.
MAX_BYTES = 512 << 20
MAX_MEMBERS = 600_000
MAX_KEPT_BYTES = 64 << 20  # of all texts together
MAX_FILE_BYTES = 1 << 20  # as roots.py reads of a file
MAX_HEADER_BYTES = 1 << 16  # of a long name, which these kinds of header hold
HEADERS = (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE, tarfile.XGLTYPE,
           tarfile.SOLARIS_XHDTYPE)  # fmt: skip
BLOCK = 512  # bytes of a header
MAX_LINKS = 40  # on the way to a file, as Linux follows
WANTED = ("sys", "proc")


def parse_archive(data: bytes) -> ArchiveRoot:
    """Return the root of the machine in an archive. Raises TopologyError."""
    files: dict[str, str] = {}
    links: dict[str, str] = {}
    tops: set[str] = set()
    kept = 0
    for name, member, read in read_members(data):
        if (top := find_top(name)) is not None:
            tops.add(top)
        if member.issym():
            links[name] = member.linkname
        elif member.isreg():
            if member.issparse():
                refuse(f"{quote(name)} in the archive is a sparse file")
            text = read(MAX_FILE_BYTES)
            kept += len(text)
            if kept > MAX_KEPT_BYTES:
                refuse(f"the archive has more than {MAX_KEPT_BYTES >> 20} MiB of files")
            files[name] = text.replace(b"\0", b"").decode("utf-8", "replace")
    if len(tops) > 1:
        first, second = sorted(tops)[:2]
        refuse(f"the archive has several machines: {quote(first)}, {quote(second)}")
    start = f"{tops.pop()}/" if tops else "/"
    start = start.removeprefix("/")
    root = ArchiveRoot(
        {name[len(start) :]: text for name, text in files.items() if name.startswith(start)},
        {
            name[len(start) :]: find_target(name, target, start)
            for name, target in links.items()
            if name.startswith(start)
        },
    )
    if not root.names("sys"):
        refuse("the archive has no sys directory")
    return root


def read_members(
    data: bytes,
) -> Iterator[tuple[str, tarfile.TarInfo, Callable[[int], bytes]]]:
    """Yield each member's plain name, what the archive says of it, and what reads so many of its
    bytes. Raises TopologyError for one that could do harm where it is unpacked."""
    count = 0
    try:
        stream = Counted(open_stream(data))
        with tarfile.open(fileobj=stream, mode="r|", tarinfo=Member) as archive:  # type: ignore[call-overload]
            for member in archive:
                count += 1
                if count > MAX_MEMBERS:
                    refuse(f"the archive has more than {MAX_MEMBERS} files")
                check_member(member)
                file = archive.extractfile(member) if member.isreg() else None
                name = posixpath.normpath(member.name)
                yield name, member, file.read if file else lambda _: b""
    except (tarfile.TarError, zlib.error, OSError, EOFError, ValueError) as e:
        refuse(f"the archive is damaged: {e}")


def check_member(member: tarfile.TarInfo) -> None:
    """Refuse a member that is no file, directory or symbolic link, or whose name leads out of the
    archive."""
    name = quote(member.name)
    if member.name.startswith("/") or ".." in member.name.split("/"):
        refuse(f"{name} in the archive leads out of it")
    if not (member.isreg() or member.isdir() or member.issym()):
        kind = "a hard link" if member.islnk() else "a device or something like it"
        refuse(f"{name} in the archive is {kind}, which no machine's files are")


def find_top(name: str) -> str | None:
    """Return the directory in which a machine's `sys` or `proc` is, by the name of a file in one of
    these; None for another file."""
    words = name.split("/")
    for n, word in enumerate(words[:3]):
        if word in WANTED:
            return "/".join(words[:n])
    return None


def find_target(name: str, target: str, start: str) -> str:
    """Return the path that a symbolic link leads to. Raises TopologyError for one that leads out of
    the machine's files, which all begin with `start`."""
    whole = posixpath.normpath(posixpath.join(posixpath.dirname(name), target))
    if not f"{whole}/".startswith(start or whole) or target.startswith("/") or whole[:2] == "..":
        refuse(f"{quote(name)} in the archive is a link that leads out of it, to {quote(target)}")
    return whole[len(start) :]


class ArchiveRoot:
    """The files of a machine, by path, and where its symbolic links lead; see `roots.Root`."""

    def __init__(self, files: dict[str, str], links: dict[str, str]) -> None:
        self.files = files
        self.links = links
        self.directories: dict[str, set[str]] = {}
        for path in (*files, *links):
            folder, name = posixpath.split(path)
            while name not in self.directories.setdefault(folder, set()):
                self.directories[folder].add(name)
                folder, name = posixpath.split(folder)

    def read(self, path: str) -> str | None:
        return self.files.get(self.follow(path))

    def names(self, path: str) -> list[str]:
        return sorted(self.directories.get(self.follow(path), ()))

    def resolve(self, path: str) -> str | None:
        folder, name = posixpath.split(path)
        return self.links.get(posixpath.join(self.follow(folder), name))

    def follow(self, path: str) -> str:
        """Return the path of what a path leads to, through links on its way and at its end; one
        that is in no archive where they lead nowhere."""
        done, left = "", path.split("/")
        for _ in range(MAX_LINKS + len(left)):
            if not left:
                return done
            done = posixpath.join(done, left.pop(0))
            if (target := self.links.get(done)) is not None:
                left = target.split("/") + left
                done = ""
                if len(left) > 1000:
                    break
        return done if not left else "\0"


class Counted:
    """A file to read, up to MAX_BYTES. Raises TopologyError for more."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.count = 0

    def read(self, size: int) -> bytes:
        data = self.file.read(size)
        self.count += len(data)
        if self.count > MAX_BYTES:
            refuse(f"the archive unpacks to more than {MAX_BYTES >> 20} MiB")
        return data


class Member(tarfile.TarInfo):
    """What an archive says of a file. Raises TopologyError for a header that says too much: tarfile
    reads long names and the like whole."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        member = super().frombuf(buf, encoding, errors)
        if member.type in HEADERS and member.size > MAX_HEADER_BYTES:
            refuse("the archive has names longer than those of any file")
        return member


def open_stream(data: bytes) -> IO[bytes]:
    """Return the bytes as a file that is unpacked as it is read."""
    if is_gzip(data):
        return gzip.GzipFile(fileobj=io.BytesIO(data))  # type: ignore[return-value]
    if is_bzip2(data):
        return bz2.BZ2File(io.BytesIO(data))
    return io.BytesIO(data)


def refuse(problem: str) -> NoReturn:
    raise TopologyError(problem)
