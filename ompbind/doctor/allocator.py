"""Which memory allocator a command will use, and which it could: by LD_PRELOAD, and by the files of
the system and of the command's own environment."""

from __future__ import annotations

import os

from ompbind.record import Record
from ompbind.worker.elf import DIRECTORIES, Linker

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# How the files of allocators begin; with the names that are looked for, the best first.
ALLOCATORS = {"libtcmalloc": "tcmalloc", "libjemalloc": "jemalloc", "libmimalloc": "mimalloc"}
TCMALLOC = ("libtcmalloc_minimal.so.4", "libtcmalloc.so.4", "libtcmalloc_minimal.so",
            "libtcmalloc.so")  # fmt: skip


class Allocator(Record):
    """The allocator of a command. `name`: "" for the C library's; `path`: as LD_PRELOAD has it;
    `exists`: whether that file does; `available`: a file of tcmalloc that could be preloaded."""

    name: str = ""
    path: str = ""
    exists: bool = True
    available: str = ""


def find_allocator(environ: Mapping[str, str], folders: Sequence[str]) -> Allocator:
    """Return the allocator of commands in this environment. `folders`: directories of packages, of
    which some bring tcmalloc (vLLM's wheels in vllm/libs), and below whose `lib` conda has it."""
    linker = Linker(environ)
    for path in environ.get("LD_PRELOAD", "").replace(":", " ").split():
        file = os.path.basename(path)
        for start, name in ALLOCATORS.items():
            if file.startswith(start):
                exists = os.path.isfile(path) if "/" in path else bool(search(linker, (file,)))
                return Allocator(name, path, exists)
    return Allocator(available=search(linker, TCMALLOC) or search_folders(folders))


def search(linker: Linker, names: Sequence[str]) -> str:
    """Return the first of these libraries that the dynamic linker finds, "" if none."""
    for name in names:
        paths = [os.path.join(d, name) for d in linker.library_path if d]
        paths += [*linker.cached(name), *(f"{d}/{name}" for d in DIRECTORIES)]
        if path := next((p for p in paths if os.path.isfile(p)), ""):
            return path
    return ""


def search_folders(folders: Sequence[str]) -> str:
    """Return a file of tcmalloc beside packages, "" without one."""
    places = [os.path.join(folder, "vllm", "libs") for folder in folders]
    places += [os.path.dirname(os.path.dirname(folder)) for folder in folders]
    for place in places:
        for file in sorted(os.listdir(place)) if os.path.isdir(place) else ():
            if file.startswith("libtcmalloc") and ".so" in file:
                return os.path.join(place, file)
    return ""
