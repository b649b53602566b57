"""ELF files: the shared libraries that a program needs, and where the dynamic linker finds them.

Sources: elf(5), ld.so(8); the Linux Standard Base on symbol versions. Nothing is executed; a file
that cannot be read needs nothing.
"""

from __future__ import annotations

import os

from ompbind.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

CACHE = "/etc/ld.so.cache"  # musl has none; it searches these directories
DIRECTORIES = ("/lib64", "/usr/lib64", "/lib", "/usr/lib", "/usr/local/lib")
PT_LOAD, PT_DYNAMIC, PT_INTERP = 1, 2, 3
DT_NULL, DT_NEEDED, DT_STRTAB, DT_STRSZ, DT_RPATH, DT_RUNPATH = 0, 1, 5, 10, 15, 29
# Versions of symbols: those that a library defines, and those that it needs of others.
DT_VERDEF, DT_VERNEED = 0x6FFFFFFC, 0x6FFFFFFE
ET_DYN = 3
MAX_TABLE_BYTES = 1 << 20  # larger tables are damaged
MAX_LIBRARIES = 512  # of one program


class Elf(Record):
    """A program or shared library."""

    path: str
    kind: bytes  # class, byte order and machine; the same for all files of a process
    needed: tuple[str, ...]  # the names of the libraries it asks for
    rpath: tuple[str, ...]
    runpath: tuple[str, ...]
    shared: bool = True  # whether it may be a library
    dynamic: bool = False  # whether it is a program that a dynamic linker starts
    # Where tables are in the file, by DT_STRTAB, DT_VERDEF and DT_VERNEED.
    tables: tuple[tuple[int, int], ...] = ()


def read_elf(path: str) -> Elf | None:
    """Read what an ELF file needs; None for any other file, or if it cannot be read."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError):
        return None
    try:
        return parse_elf(fd, path)
    except (OSError, IndexError, OverflowError):
        return None
    finally:
        os.close(fd)


def parse_elf(fd: int, path: str) -> Elf | None:
    head = os.pread(fd, 1024, 0)
    if head[:4] != b"\x7fELF" or len(head) < 52:
        return None
    wide, order = head[4] == 2, "little" if head[5] == 1 else "big"

    def number(data: bytes, at: int, size: int) -> int:
        return int.from_bytes(data[at : at + size], order)  # type: ignore[arg-type]

    word = 8 if wide else 4
    start = number(head, 32 if wide else 28, word)
    size, count = number(head, 54 if wide else 42, 2), number(head, 56 if wide else 44, 2)
    table = head[start : start + size * count]
    if len(table) < size * count:
        table = os.pread(fd, size * count, start)
    loads, dynamic, has_linker = [], b"", False
    for at in range(0, len(table), size or MAX_TABLE_BYTES):
        kind = number(table, at, 4)
        offset, address = number(table, at + word, word), number(table, at + 2 * word, word)
        length = number(table, at + 4 * word, word)
        if kind == PT_LOAD:
            loads.append((address, offset, length))
        elif kind == PT_DYNAMIC:
            dynamic = os.pread(fd, min(length, MAX_TABLE_BYTES), offset)
        elif kind == PT_INTERP:
            has_linker = True
    wanted: list[tuple[int, int]] = []
    text_size = 0
    addresses: dict[int, int] = {}
    for at in range(0, len(dynamic), 2 * word):
        tag, value = number(dynamic, at, word), number(dynamic, at + word, word)
        if tag == DT_NULL:
            break
        if tag in (DT_NEEDED, DT_RPATH, DT_RUNPATH):
            wanted.append((tag, value))
        elif tag in (DT_STRTAB, DT_VERDEF, DT_VERNEED):
            addresses[tag] = value
        elif tag == DT_STRSZ:
            text_size = value
    texts_of: dict[int, list[str]] = {DT_NEEDED: [], DT_RPATH: [], DT_RUNPATH: []}
    tables = {
        tag: offset + value - a
        for tag, value in addresses.items()
        for a, offset, length in loads
        if a <= value < a + length
    }
    if wanted and DT_STRTAB in tables:
        texts = os.pread(fd, min(text_size, MAX_TABLE_BYTES), tables[DT_STRTAB])
        for tag, value in wanted:
            if value < len(texts):
                texts_of[tag].append(os.fsdecode(texts[value : texts.index(b"\0", value)]))
    return Elf(
        path,
        head[4:6] + head[18:20],
        tuple(texts_of[DT_NEEDED]),
        tuple(d for text in texts_of[DT_RPATH] for d in text.split(":") if d),
        tuple(d for text in texts_of[DT_RUNPATH] for d in text.split(":") if d),
        shared=number(head, 16, 2) == ET_DYN,
        dynamic=has_linker,
        tables=tuple(tables.items()),
    )


class Linker:
    """Finds libraries as the dynamic linker does in one environment. Caches the files it reads."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        text = environ.get("LD_LIBRARY_PATH", "")
        self.library_path = text.replace(";", ":").split(":") if text else []
        self.cache: bytes | None = None
        self.files: dict[str, Elf | None] = {}

    def read(self, path: str) -> Elf | None:
        if path not in self.files:
            self.files[path] = read_elf(path)
        return self.files[path]

    def find(self, name: str, by: Elf, above: tuple[str, ...] = ()) -> str | None:
        """Return the file that `by` loads for `name`; None if there is none that fits.

        `above`: the DT_RPATH directories of the files that loaded `by`.
        """
        if "/" in name:
            return name if self.fits(name, by) else None
        before = [] if by.runpath else [*expand(by.rpath, by.path), *above]
        after = expand(by.runpath, by.path)
        for directory in (*before, *self.library_path, *after):
            path = os.path.join(directory or ".", name)
            if self.fits(path, by):
                return path
        for path in (*self.cached(name), *(f"{d}/{name}" for d in DIRECTORIES)):
            if self.fits(path, by):
                return path
        return None

    def fits(self, path: str, by: Elf) -> bool:
        elf = self.read(path)
        return elf is not None and elf.kind == by.kind

    def cached(self, name: str) -> list[str]:
        """Return the paths in the linker's cache that end in `name`.

        The cache has them as texts between NULs: searching for these is quicker than reading its
        tables.
        """
        if self.cache is None:
            try:
                with open(CACHE, "rb", buffering=0) as file:
                    self.cache = file.read()
            except OSError:
                self.cache = b""
        paths = []
        tail = b"/" + os.fsencode(name) + b"\0"
        at = self.cache.find(tail)
        while at >= 0:
            start = self.cache.rfind(b"\0", 0, at) + 1
            paths.append(os.fsdecode(self.cache[start : at + len(tail) - 1]))
            at = self.cache.find(tail, at + 1)
        return [path for path in paths if path.startswith("/")]


def expand(directories: tuple[str, ...], path: str) -> tuple[str, ...]:
    """Replace $ORIGIN, the directory of the file at `path`, and $LIB; drop other variables."""
    origin = os.path.dirname(os.path.realpath(path))
    filled = (d.replace("${ORIGIN}", origin).replace("$ORIGIN", origin) for d in directories)
    lib = "lib64" if os.path.isdir("/lib64") else "lib"
    return tuple(
        d for f in filled if "$" not in (d := f.replace("$LIB", lib).replace("${LIB}", lib))
    )


def walk_needed(paths: list[str], linker: Linker, spare: tuple[str, ...]) -> list[tuple[str, str]]:
    """Return all libraries that the files at `paths` load, nearest first: each name asked for and
    its file, "" if not found. Names that begin with one of `spare` are listed without a file, and
    what they need is not read."""
    libraries: dict[str, str] = {}
    todo: list[tuple[Elf, tuple[str, ...]]] = []
    todo += [(elf, ()) for path in paths if (elf := linker.read(path)) is not None]
    while todo and len(libraries) < MAX_LIBRARIES:
        elf, above = todo.pop(0)
        below = (*(() if elf.runpath else expand(elf.rpath, elf.path)), *above)
        for name in elf.needed:
            if name in libraries:
                continue
            if name.startswith(spare):
                libraries[name] = ""
                continue
            path = linker.find(name, elf, above)
            libraries[name] = path or ""
            inner = linker.read(path) if path else None
            if inner is not None:
                todo.append((inner, below))
    return list(libraries.items())
