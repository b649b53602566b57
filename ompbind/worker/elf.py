"""ELF files: the shared libraries that one needs, and where the dynamic linker finds them.

Sources: elf(5), ld.so(8). Nothing is executed; what cannot be read needs nothing.
"""

from __future__ import annotations

import os

from ompbind.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

CACHE = "/etc/ld.so.cache"  # musl has none, and looks into the directories below
DIRECTORIES = ("/lib64", "/usr/lib64", "/lib", "/usr/lib", "/usr/local/lib")
PT_LOAD, PT_DYNAMIC = 1, 2
DT_NULL, DT_NEEDED, DT_STRTAB, DT_STRSZ, DT_RPATH, DT_RUNPATH = 0, 1, 5, 10, 15, 29
LARGEST = 1 << 20  # bytes of one table; a larger one is damaged
NO_MORE = 512  # files of one program


class Elf(Record):
    """A program or shared library: `kind` is its class, byte order and machine, which all files of
    one process share; `needed` the names of the libraries it asks for."""

    path: str
    kind: bytes
    needed: tuple[str, ...]
    rpath: tuple[str, ...]
    runpath: tuple[str, ...]


def read_elf(path: str) -> Elf | None:
    """What an ELF file needs; None for any other file, and for one that cannot be read."""
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
    loads, dynamic = [], b""
    for at in range(0, len(table), size or LARGEST):
        kind = number(table, at, 4)
        offset, address = number(table, at + word, word), number(table, at + 2 * word, word)
        length = number(table, at + 4 * word, word)
        if kind == PT_LOAD:
            loads.append((address, offset, length))
        elif kind == PT_DYNAMIC:
            dynamic = os.pread(fd, min(length, LARGEST), offset)
    wanted: list[tuple[int, int]] = []
    text_at = text_size = 0
    for at in range(0, len(dynamic), 2 * word):
        tag, value = number(dynamic, at, word), number(dynamic, at + word, word)
        if tag == DT_NULL:
            break
        if tag in (DT_NEEDED, DT_RPATH, DT_RUNPATH):
            wanted.append((tag, value))
        elif tag == DT_STRTAB:
            text_at = value
        elif tag == DT_STRSZ:
            text_size = value
    found: dict[int, list[str]] = {DT_NEEDED: [], DT_RPATH: [], DT_RUNPATH: []}
    inside = [(offset + text_at - a) for a, offset, length in loads if a <= text_at < a + length]
    if wanted and inside:
        texts = os.pread(fd, min(text_size, LARGEST), inside[0])
        for tag, value in wanted:
            if value < len(texts):
                found[tag].append(os.fsdecode(texts[value : texts.index(b"\0", value)]))
    return Elf(
        path,
        head[4:6] + head[18:20],
        tuple(found[DT_NEEDED]),
        tuple(d for text in found[DT_RPATH] for d in text.split(":") if d),
        tuple(d for text in found[DT_RUNPATH] for d in text.split(":") if d),
    )


class Linker:
    """Where a process finds its libraries, under one environment. Remembers what it has read."""

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
        """The file that `by` gets for `name`; `above`: directories of the DT_RPATH of those that
        loaded it. None: there is none that fits."""
        if "/" in name:
            return name if self.fits(name, by) else None
        before = [] if by.runpath else [*expand(by.rpath, by.path), *above]
        own = expand(by.runpath, by.path)
        for directory in (*before, *self.library_path, *own):
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
        """The paths in the linker's cache that end in `name`: it holds them as texts with a NUL at
        either end, so looking for those is enough, and quicker than reading its tables."""
        if self.cache is None:
            try:
                with open(CACHE, "rb", buffering=0) as file:
                    self.cache = file.read()
            except OSError:
                self.cache = b""
        found = []
        tail = b"/" + os.fsencode(name) + b"\0"
        at = self.cache.find(tail)
        while at >= 0:
            start = self.cache.rfind(b"\0", 0, at) + 1
            found.append(os.fsdecode(self.cache[start : at + len(tail) - 1]))
            at = self.cache.find(tail, at + 1)
        return [path for path in found if path.startswith("/")]


def expand(directories: tuple[str, ...], path: str) -> tuple[str, ...]:
    """$ORIGIN, where the file is; what is for the linker's own machine only is left out."""
    origin = os.path.dirname(os.path.realpath(path))
    filled = (d.replace("${ORIGIN}", origin).replace("$ORIGIN", origin) for d in directories)
    lib = "lib64" if os.path.isdir("/lib64") else "lib"
    return tuple(
        d for f in filled if "$" not in (d := f.replace("$LIB", lib).replace("${LIB}", lib))
    )


def walk_needed(paths: list[str], linker: Linker, spare: tuple[str, ...]) -> list[tuple[str, str]]:
    """All libraries that the files at `paths` bring into a process, nearest first: each name asked
    for, and the file it means ("" where there is none). Names beginning with one of `spare` are
    told but not looked into."""
    found: dict[str, str] = {}
    todo: list[tuple[Elf, tuple[str, ...]]] = []
    todo += [(elf, ()) for path in paths if (elf := linker.read(path)) is not None]
    while todo and len(found) < NO_MORE:
        elf, above = todo.pop(0)
        passed_on = (*(() if elf.runpath else expand(elf.rpath, elf.path)), *above)
        for name in elf.needed:
            if name in found:
                continue
            if name.startswith(spare):
                found[name] = ""
                continue
            path = linker.find(name, elf, above)
            found[name] = path or ""
            inner = linker.read(path) if path else None
            if inner is not None:
                todo.append((inner, passed_on))
    return list(found.items())
