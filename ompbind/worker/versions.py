"""The versions of symbols that a shared library defines, and those that it needs of others: where
one is missing, the dynamic linker loads nothing and ends the program.

Source: the Linux Standard Base, "Symbol Versioning"; the tables are the same in 32-bit files.
"""

from __future__ import annotations

import os

from ompbind.record import Record
from ompbind.worker.elf import DT_STRTAB, DT_VERDEF, DT_VERNEED, MAX_TABLE_BYTES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from ompbind.worker.elf import Elf

MAX_ENTRIES = 4096  # of one table; damaged ones may go round in circles
WEAK = 2  # the flag of a version that may be missing


class Versions(Record):
    """`defined`: the names of versions such as GLIBC_2.34; `needed`: pairs of another library's
    name and a version that it must define."""

    defined: frozenset[str] = frozenset()
    needed: tuple[tuple[str, str], ...] = ()


def read_versions(elf: Elf) -> Versions:
    """Read the versions of a library; none from a file that has none, or that cannot be read."""
    tables = dict(elf.tables)
    if DT_STRTAB not in tables:
        return Versions()
    try:
        with open(elf.path, "rb", buffering=0) as file:
            reader = Reader(file.fileno(), tables[DT_STRTAB], little=elf.kind[1] == 1)
            return Versions(
                frozenset(reader.read_defined(tables.get(DT_VERDEF, 0))),
                tuple(reader.read_needed(tables.get(DT_VERNEED, 0))),
            )
    except OSError:
        return Versions()


class Reader:
    """Reads tables of versions in an open file. Their entries are linked by distances in bytes, of
    which 0 ends a list."""

    def __init__(self, fd: int, texts: int, *, little: bool) -> None:
        self.fd = fd
        self.texts = texts
        self.order = "little" if little else "big"

    def read_defined(self, start: int) -> Iterator[str]:
        """Yield the names of the versions in a DT_VERDEF at `start`, 0 for none."""
        for at in self.walk(start, 16):
            first = at + self.number(at + 12, 4)
            yield self.text(self.number(first, 4))

    def read_needed(self, start: int) -> Iterator[tuple[str, str]]:
        """Yield the library and the version of each entry of a DT_VERNEED at `start`."""
        for at in self.walk(start, 12):
            library = self.text(self.number(at + 4, 4))
            for entry in self.walk(at + self.number(at + 8, 4), 12):
                if not self.number(entry + 4, 2) & WEAK:
                    yield library, self.text(self.number(entry + 8, 4))

    def walk(self, start: int, link: int) -> Iterator[int]:
        """Yield the offsets of a list's entries; `link`: where an entry has the distance to the
        next one."""
        for _ in range(MAX_ENTRIES if start else 0):
            yield start
            distance = self.number(start + link, 4)
            if not distance:
                return
            start += distance

    def number(self, at: int, size: int) -> int:
        return int.from_bytes(os.pread(self.fd, size, at), self.order)  # type: ignore[arg-type]

    def text(self, at: int) -> str:
        if at >= MAX_TABLE_BYTES:
            return ""
        return os.fsdecode(os.pread(self.fd, 256, self.texts + at).partition(b"\0")[0])
