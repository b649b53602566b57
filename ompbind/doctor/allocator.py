"""Which memory allocator a command will use, and which it could: by LD_PRELOAD, by the libraries
that its program needs, and by the files of the system and of the command's own environment."""

from __future__ import annotations

import os

from ompbind.plans import PRELOAD_VARIABLE, split_preload
from ompbind.record import Record
from ompbind.worker.elf import walk_needed
from ompbind.worker.libraries import Finder, name_allocator

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class Allocator(Record):
    """The allocator of a command. `name`: "" for the C library's; `path`: its file, as LD_PRELOAD
    has it where that brings it; `preloaded`: whether it does, and `problem`: why it would not be
    loaded; `available`: a file of tcmalloc that could be preloaded; `hidden`: whether the program
    is statically linked, so that files do not show what it uses."""

    name: str = ""
    path: str = ""
    preloaded: bool = False
    problem: str = ""
    available: str = ""
    hidden: bool = False


def find_allocator(command: Sequence[str], environ: Mapping[str, str]) -> Allocator:
    """Return the allocator of a command in this environment, as far as files show."""
    finder = Finder(command, environ)
    program = finder.program
    hidden = program is not None and not program.dynamic
    for path in split_preload(environ.get(PRELOAD_VARIABLE, "")):
        if name := name_allocator(os.path.basename(path)):
            problem = "the program is statically linked" * hidden
            if os.sep in path:
                problem = problem or finder.explain(path)
            elif not finder.find_file(path):
                problem = problem or "does not exist"
            return Allocator(name, path, preloaded=True, problem=problem, hidden=hidden)
    for file, path in walk_needed([program.path], finder.linker, ()) if program else ():
        if name := name_allocator(file):
            return Allocator(name, path or file)
    path = finder.find("tcmalloc")
    return Allocator(available="" if path and finder.explain(path) else path, hidden=hidden)
