"""What a worker is, and which OpenMP runtimes it brings: told from its files, nothing is started.

- `guess_worker(command, environ)`: Python, a compiled program, or unknown, with its runtimes. On
  the launch path: it costs next to nothing for Python and less than half a millisecond for most
  programs, and it never fails: what cannot be told is "unknown".
- `package_runtimes(directory, environ)`: those of an installed Python package, which it ships
  (torch/lib, scikit_learn.libs) or which its extension modules need, without importing it.

What a program opens by itself while it runs (dlopen, Python's imports) cannot be seen from here.
"""

from __future__ import annotations

import os

from ompbind.record import Record
from ompbind.worker.program import find_program, find_python

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

# How the files of OpenMP runtimes begin, and which runtime each is: GNU's, LLVM's, Intel's.
RUNTIMES = {"libgomp": "libgomp", "libomp": "libomp", "libomp5": "libomp", "libiomp5": "libiomp5"}
# Never need OpenMP; found in every program, so not looked into.
PLAIN = ("libc.so", "libm.so", "libpthread.so", "libdl.so", "librt.so", "libgcc_s.so",
         "libstdc++.so", "libresolv.so", "libutil.so", "libz.so", "ld-linux", "ld-musl",
         "linux-vdso", "ld64.so")  # fmt: skip


class Runtime(Record):
    """An OpenMP runtime."""

    name: str  # one of the values of RUNTIMES
    path: str  # its file; "" where it was not found
    via: str  # what asks for it: a library's name, "LD_PRELOAD", or "" for a file of a package


class Worker(Record):
    """What a command is. `kind`: "python", "compiled" (an ELF program), or "unknown" (not there, a
    script in another language, no command at all)."""

    kind: str
    runtimes: tuple[Runtime, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Its runtimes' names. Two files of one name are two runtimes."""
        return tuple(r.name for r in self.runtimes)


UNKNOWN = Worker("unknown")


def guess_worker(command: Sequence[str], environ: Mapping[str, str]) -> Worker:
    """What a command is, as far as its files tell. Python's runtimes are not looked for: what it
    imports is not known before it runs; LD_PRELOAD's are."""
    if not command:
        return UNKNOWN
    try:
        if find_python(command, environ):
            return Worker("python", preloaded(environ))
        path = find_program(command[0], environ)
        if path is None:
            return UNKNOWN
        from ompbind.worker.elf import Linker, walk_needed  # nothing of it is needed for Python

        linker = Linker(environ)
        if linker.read(path) is None:
            return UNKNOWN
        names = walk_needed([path], linker, PLAIN)
        kind = "python" if any(n.startswith("libpython") for n, _ in names) else "compiled"
        return Worker(kind, merged(preloaded(environ), pick(names)))
    except (OSError, ValueError):
        return UNKNOWN


def package_runtimes(directory: str, environ: Mapping[str, str]) -> tuple[Runtime, ...]:
    """The OpenMP runtimes of the Python package in `directory`: files of its own, wherever wheels
    put them, and those that its extension modules need."""
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
    needed = [r for m in modules for r in pick(walk_needed([m], linker, PLAIN)) if r.path]
    own = {
        soname(r) for r in shipped
    }  # loaded once, whatever directory another module would search
    return merged(tuple(shipped), tuple(r for r in needed if r.via not in own))


def preloaded(environ: Mapping[str, str]) -> tuple[Runtime, ...]:
    """The runtimes that LD_PRELOAD names, or that its libraries need."""
    text = environ.get("LD_PRELOAD", "")
    if not text:
        return ()
    from ompbind.worker.elf import Linker, walk_needed

    linker = Linker(environ)
    paths = text.replace(":", " ").split()
    own = pick((os.path.basename(p), p if "/" in p else "") for p in paths)
    needed = pick(walk_needed([p for p in paths if "/" in p], linker, PLAIN))
    return tuple(r.replace(via="LD_PRELOAD") for r in merged(own, needed))


def pick(names: Iterable[tuple[str, str]]) -> tuple[Runtime, ...]:
    """The OpenMP runtimes among libraries: names asked for and the files they mean. The file says
    which it is: conda's and LLVM's libgomp.so.1 can be links to libomp."""
    found = []
    for name, path in names:
        if family := family_of(name):
            real = os.path.realpath(path) if path else ""
            found.append(Runtime(family_of(os.path.basename(real)) or family, real, name))
    return tuple(found)


def merged(*several: tuple[Runtime, ...]) -> tuple[Runtime, ...]:
    """Each file once, whoever asks for it; a preloaded one stands for others of its name."""
    found: list[Runtime] = []
    for r in (r for part in several for r in part):
        if not any(r.path == f.path or (f.via == "LD_PRELOAD" and soname(f) == soname(r))
                   for f in found if f.name == r.name):  # fmt: skip
            found.append(r)
    return tuple(found)


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
