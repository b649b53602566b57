"""What a worker is and which OpenMP runtimes it loads, by its files; nothing is executed.

- `guess_worker(command, environ)`: Python, a compiled program or unknown, with its runtimes. On
  the launch path: it takes next to no time for Python and less than half a millisecond for most
  programs, and never fails.
- `package_runtimes(directory, environ)`: those of an installed Python package, which it ships
  (torch/lib, scikit_learn.libs) or which its extension modules need. The package is not imported.

What a program opens while it runs (dlopen, Python's imports) cannot be known from its files.
"""

from __future__ import annotations

import os

from ompbind.plans import PRELOAD_VARIABLE, split_preload
from ompbind.record import Record
from ompbind.worker import find_program, is_python, read_python

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

# How the files of OpenMP runtimes begin, and which runtime each is: GNU's, LLVM's, Intel's.
RUNTIMES = {"libgomp": "libgomp", "libomp": "libomp", "libomp5": "libomp", "libiomp5": "libiomp5"}
# Libraries of every program that never need OpenMP: what they need is not read.
PLAIN = ("libc.so", "libm.so", "libpthread.so", "libdl.so", "librt.so", "libgcc_s.so",
         "libstdc++.so", "libresolv.so", "libutil.so", "libz.so", "ld-linux", "ld-musl",
         "linux-vdso", "ld64.so")  # fmt: skip


class Runtime(Record):
    """An OpenMP runtime."""

    name: str  # one of the values of RUNTIMES
    path: str  # its file; "" where it was not found
    via: str  # what asks for it: a library's name, "LD_PRELOAD", or "" for a file of a package


class Worker(Record):
    """What a command is."""

    # "python", "compiled" (an ELF program), "wrapper" (one without OpenMP, while LD_PRELOAD has
    # a runtime: that is for what it starts, as with `sh -c`), or "unknown" (missing, another
    # language, no command)
    kind: str
    runtimes: tuple[Runtime, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """The names of its runtimes. Two files with one name are two runtimes."""
        return tuple(r.name for r in self.runtimes)


UNKNOWN = Worker("unknown")


def guess_worker(command: Sequence[str], environ: Mapping[str, str]) -> Worker:
    """Return what a command is, as far as its files show. Of Python, only LD_PRELOAD's runtimes are
    known: what it imports is not known before it runs."""
    if not command:
        return UNKNOWN
    try:
        is_named = is_python(command[0])
        path = command[0] if is_named else find_program(command[0], environ)
        if path is None:
            return UNKNOWN
        if is_named or read_python(command, path):
            return Worker("python", preloaded(environ))
        from ompbind.worker.elf import Linker, walk_needed  # not needed for Python

        linker = Linker(environ)
        if linker.read(path) is None:
            return UNKNOWN
        names = walk_needed([path], linker, PLAIN)
        own, before = find_runtimes(names), preloaded(environ)
        if any(name.startswith("libpython") for name, _ in names):
            kind = "python"
        else:
            kind = "wrapper" if before and not own else "compiled"
        return Worker(kind, merge(before, own))
    except (OSError, ValueError):
        return UNKNOWN


def package_runtimes(directory: str, environ: Mapping[str, str]) -> tuple[Runtime, ...]:
    """Return the OpenMP runtimes of the Python package in `directory`: files that it ships,
    wherever wheels put them, and files that its extension modules need."""
    from ompbind.worker.elf import Linker, walk_needed

    linker = Linker(environ)
    beside = (f"{directory.rstrip('/')}.libs", f"{directory.rstrip('/')}.dylibs")
    shipped, modules = [], []
    for top in (directory, *beside):
        for folder, _, names in os.walk(top):
            for name in sorted(names):
                path = os.path.join(folder, name)
                if family := family_of(name):
                    shipped.append(Runtime(family, os.path.realpath(path), ""))
                elif name.endswith(".so") or ".so." in name:
                    modules.append(path)
    needed = [r for m in modules for r in find_runtimes(walk_needed([m], linker, PLAIN)) if r.path]
    sonames = {soname(r) for r in shipped}  # each is loaded once, wherever a module would search it
    return merge(tuple(shipped), tuple(r for r in needed if r.via not in sonames))


def preloaded(environ: Mapping[str, str]) -> tuple[Runtime, ...]:
    """Return the runtimes that LD_PRELOAD names, or that its libraries need."""
    paths = split_preload(environ.get(PRELOAD_VARIABLE, ""))
    if not paths:
        return ()
    from ompbind.worker.elf import Linker, walk_needed

    linker = Linker(environ)
    named = find_runtimes((os.path.basename(p), p if "/" in p else "") for p in paths)
    needed = find_runtimes(walk_needed([p for p in paths if "/" in p], linker, PLAIN))
    return tuple(r.replace(via=PRELOAD_VARIABLE) for r in merge(named, needed))


def find_runtimes(names: Iterable[tuple[str, str]]) -> tuple[Runtime, ...]:
    """Return the OpenMP runtimes among libraries, given as the names asked for and their files. The
    file decides which runtime it is: conda's and LLVM's libgomp.so.1 can be links to libomp."""
    runtimes = []
    for name, path in names:
        if family := family_of(name):
            real = os.path.realpath(path) if path else ""
            runtimes.append(Runtime(family_of(os.path.basename(real)) or family, real, name))
    return tuple(runtimes)


def merge(*several: tuple[Runtime, ...]) -> tuple[Runtime, ...]:
    """Return each file once, whatever asks for it; a preloaded one replaces others of its name."""
    merged: list[Runtime] = []
    for r in (r for part in several for r in part):
        if not any(r.path == f.path or (f.via == PRELOAD_VARIABLE and soname(f) == soname(r))
                   for f in merged if f.name == r.name):  # fmt: skip
            merged.append(r)
    return tuple(merged)


def soname(runtime: Runtime) -> str:
    return os.path.basename(runtime.path or runtime.via)


def family_of(file: str) -> str:
    """Return which runtime a file is by its name: libgomp.so.1, libgomp-a34b3233.so.1.0.0,
    libiomp5.so, libomp.dylib; "" for any other file, also for the plugins that libgomp loads to
    offload to a device (libgomp-plugin-nvptx.so.1)."""
    for start, name in RUNTIMES.items():
        rest = file.removeprefix(start)
        if rest != file and rest[:1] in (".", "-") and (".so" in rest or rest.endswith(".dylib")):
            return "" if rest.startswith("-plugin-") else name
    return ""


def select_runtimes(files: Iterable[str]) -> tuple[str, ...]:
    """Return the names among `files` that are OpenMP runtimes, in their order."""
    return tuple(file for file in files if family_of(file))
