"""Libraries that programs are preloaded with, by name: where systems, conda, wheels and vLLM put
them, and whether the dynamic linker would load a file into a program.

Nothing is executed: files are read. Sources: ld.so(8); the packages gperftools, jemalloc, mimalloc
and intel-openmp of Debian, Fedora, conda-forge and PyPI.
"""

from __future__ import annotations

import os

from ompbind.messages import quote
from ompbind.record import Record
from ompbind.worker import find_program, find_python
from ompbind.worker.elf import DIRECTORIES, Linker, walk_needed
from ompbind.worker.installed import list_entries, list_package_folders
from ompbind.worker.versions import read_versions

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from ompbind.worker.elf import Elf


class Library(Record):
    """A library that has a name here. `files`: its file's names, the best first; `start`: how they
    all begin, also where a wheel has renamed them; `hint`: what installs it."""

    files: tuple[str, ...]
    start: str
    hint: str


LIBRARIES = {
    "tcmalloc": Library(
        ("libtcmalloc_minimal.so.4", "libtcmalloc.so.4", "libtcmalloc_minimal.so",
         "libtcmalloc.so"),
        "libtcmalloc",
        "apt-get install libtcmalloc-minimal4, dnf install gperftools-libs, or conda install "
        "gperftools",
    ),
    "jemalloc": Library(
        ("libjemalloc.so.2", "libjemalloc.so"),
        "libjemalloc",
        "apt-get install libjemalloc2, dnf install jemalloc, or conda install jemalloc",
    ),
    "mimalloc": Library(
        ("libmimalloc.so.3", "libmimalloc.so.2", "libmimalloc.so"),
        "libmimalloc",
        "apt-get install libmimalloc2.0, dnf install mimalloc, or pip install cmeel-mimalloc",
    ),
    "iomp5": Library(
        ("libiomp5.so", "libiomp5.so.5"),
        "libiomp5",
        "pip install intel-openmp, or conda install intel-openmp",
    ),
}  # fmt: skip
ALLOCATORS = ("tcmalloc", "jemalloc", "mimalloc")
# Where packages have them, below their directory: vLLM's wheels, Ray's, and cmeel's of C++.
IN_PACKAGES = ("vllm/libs", "ray/core", "cmeel.prefix/lib")
# Variables that name an environment with a `lib`, and where Intel's compiler is installed.
PREFIXES = ("CONDA_PREFIX", "VIRTUAL_ENV", "CMPLR_ROOT")
INTEL = "/opt/intel/oneapi/compiler/latest/lib"
# Parts of names of files that do something else as well, or are no libraries.
OTHERS = ("debug", "profiler", ".dbg", "_db.")
MAX_SCRIPTS = 5  # one may be the interpreter of another; the kernel's own limit is near


def name_allocator(file: str) -> str:
    """Return which allocator a file is by its name, "" for any other."""
    is_library = ".so" in file
    names = (n for n in ALLOCATORS if is_library and file.startswith(LIBRARIES[n].start))
    return next(names, "")


def select_allocators(files: Iterable[str]) -> tuple[str, ...]:
    """Return the names among `files` that are allocators, in their order."""
    return tuple(file for file in files if name_allocator(file))


# --- where they are ------------------------------------------------------------------------------


class Finder:
    """Finds libraries for a command in an environment. `program`: what is executed for it, None
    where that is not known; any kind of file will then do that this machine executes."""

    def __init__(self, command: Sequence[str], environ: Mapping[str, str]) -> None:
        self.command = command
        self.environ = environ
        self.linker = Linker(environ)
        self.program = find_elf(command, environ, self.linker)

    def find(self, name: str) -> str:
        """Return the first file of a library that would load, else the first that there is, ""
        where there is none."""
        library = LIBRARIES[name]
        first = ""
        for path in self.list_files(library):
            if not self.explain(path):
                return path
            first = first or path
        return first

    def find_file(self, file: str) -> str:
        """Return where the dynamic linker finds a file that is named without a directory, or ""."""
        directories = (*self.linker.library_path, *DIRECTORIES)
        paths = (os.path.join(d, file) for d in directories if d)
        for path in (*self.linker.cached(file), *paths):
            if os.path.isfile(path) and not self.explain(path):
                return path
        return ""

    def list_files(self, library: Library) -> Iterator[str]:
        """Yield the files of a library: those of LD_LIBRARY_PATH, of the command's own Python, of
        the environment that is active, and of the system."""
        folders = self.list_folders()
        directories = [d for d in self.linker.library_path if d]
        # conda's `lib`, which data files of wheels go to as well, lies two levels above.
        directories += dict.fromkeys(os.path.dirname(os.path.dirname(f)) for f in folders)
        directories += [os.path.join(f, inner) for f in folders for inner in IN_PACKAGES]
        for variable in PREFIXES:
            if prefix := self.environ.get(variable, ""):
                directories.append(os.path.join(prefix, "lib"))
        for directory in directories:
            yield from list_matches(directory, library)
        for file in library.files:
            yield from (p for p in self.linker.cached(file) if os.path.isfile(p))
        for directory in (*DIRECTORIES, INTEL):
            yield from list_matches(directory, library)

    def list_folders(self) -> list[str]:
        """Return the directories of packages of the command's Python, else of ompbind's."""
        import sys

        interpreter = find_python(self.command, self.environ) if self.command else None
        words = [interpreter[0]] if interpreter else [sys.executable]
        if interpreter and len(self.command) and self.command[0] != interpreter[0]:
            words.append(self.command[0])  # a script beside its interpreter
        paths = [find_program(word, self.environ) or "" for word in words]
        return list_package_folders([path for path in paths if os.sep in path], self.environ)

    def explain(self, path: str) -> str:
        """Return why the dynamic linker would not load a file into the program, "" where it
        would."""
        return explain_problem(path, self.program, self.linker)


def list_matches(directory: str, library: Library) -> list[str]:
    """Return the files of a library in a directory, the best first."""
    entries = set(list_entries(directory))
    names = [file for file in library.files if file in entries]
    if not names:
        names = sorted(
            entry for entry in entries
            if entry.startswith(library.start) and ".so" in entry
            and not any(part in entry for part in OTHERS)
        )  # fmt: skip
    return [os.path.join(directory, name) for name in names]


def find_elf(command: Sequence[str], environ: Mapping[str, str], linker: Linker) -> Elf | None:
    """Return the binary that the kernel executes for a command: its program, or the interpreter in
    the first line of its script; None where that cannot be seen."""
    path = find_program(command[0], environ) if command else None
    for _ in range(MAX_SCRIPTS):
        if path is None:
            return None
        elf = linker.read(path)
        if elf is not None:
            return elf
        words = read_first_line(path)
        if words and os.path.basename(words[0]) == "env":
            words = [word for word in words[1:] if not word.startswith("-") and "=" not in word]
        path = find_program(words[0], environ) if words else None
    return None


def read_first_line(path: str) -> list[str]:
    """Return the words after `#!` in a script, [] for any other file."""
    try:
        with open(path, "rb", buffering=0) as file:
            head = os.fsdecode(file.read(1024))
    except OSError:
        return []
    return head[2:].split("\n", 1)[0].split() if head.startswith("#!") else []


# --- whether they load ---------------------------------------------------------------------------


def explain_problem(path: str, program: Elf | None, linker: Linker) -> str:
    """Return why the dynamic linker would not load the file at `path` into a program, "" where it
    would, as far as files show. `program`: None for this machine's own Python."""
    import sys

    if not os.path.exists(path):
        return "does not exist"
    if not os.access(path, os.R_OK):
        return "cannot be read"
    elf = linker.read(path)
    if elf is None:
        return "is not a shared library"
    example = program or linker.read(os.path.realpath(sys.executable))
    if example is not None and elf.kind != example.kind:
        who = quote(os.path.basename(program.path)) if program else "this machine's programs"
        return f"is built for another kind of processor than {who}"
    if not elf.shared:
        return "is not a shared library"
    if os.statvfs(path).f_flag & getattr(os, "ST_NOEXEC", 0):  # macOS has none
        return "lies in a file system that is mounted noexec"
    return explain_needs(elf, program, linker)


def explain_needs(elf: Elf, program: Elf | None, linker: Linker) -> str:
    """Return what a library needs and would not find in a program, "" for nothing. What the program
    loads itself is loaded before that, and is found by name."""
    paths = [program.path, elf.path] if program else [elf.path]
    files = dict(walk_needed(paths, linker, ()))
    todo, seen = [elf], {elf.path}
    for library in todo:  # grows while it is walked
        for name in library.needed:
            if not files.get(name):
                return f"needs {name}, which is not found"
            inner = linker.read(files[name])
            if inner is not None and inner.path not in seen:
                seen.add(inner.path)
                todo.append(inner)
        for name, version in read_versions(library).needed:
            provider = linker.read(files.get(name, ""))
            defined = read_versions(provider).defined if provider else frozenset()
            if defined and version not in defined:
                return f"needs {version} of {name}, which {files[name]} does not have"
    return ""
