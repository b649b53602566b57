"""What a command's Python has installed, by its files alone: in which directories, and which
version of a package. Nothing is imported or executed."""

from __future__ import annotations

import os

from ompbind.worker import find_program, find_python

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

MAX_FILE_BYTES = 16 << 20  # of metadata; a RECORD lists tens of thousands of files
PACKAGES = ("site-packages", "dist-packages")  # the second on Debian


def find_version(command: Sequence[str], environ: Mapping[str, str], names: Sequence[str]) -> str:
    """Return the version of the first of these distributions that the command's Python finds, such
    as 0.32.0+cpu; "" where none is found, or where the command is not Python's."""
    interpreter = find_python(command, environ) if command else None
    if not interpreter:
        return ""
    python = find_program(interpreter[0], environ) or interpreter[0]
    return find_installed(list_package_folders([python], environ), names)


def find_installed(folders: Sequence[str], names: Sequence[str]) -> str:
    """Return the version of the first of these distributions that the folders have, "" if none."""
    for name in names:
        start = name.replace("-", "_").lower() + "-"
        for folder in folders:
            for entry in sorted(list_entries(folder), reverse=True):
                if entry.lower().startswith(start) and entry.endswith(".dist-info"):
                    version = read_version(os.path.join(folder, entry, "METADATA"))
                    return version or entry[len(start) : -len(".dist-info")]
    return ""


def read_version(path: str) -> str:
    """Return the version in a distribution's metadata; "" where that cannot be read."""
    for line in read_text(path).split("\n\n", 1)[0].splitlines():
        if line.startswith("Version:"):
            return line.partition(":")[2].strip()
    return ""


def list_package_folders(programs: Iterable[str], environ: Mapping[str, str]) -> list[str]:
    """Return the directories where a Python finds installed packages, as far as its files show.
    `programs`: paths of the interpreter, and of scripts that were installed beside it."""
    folders = [p for p in environ.get("PYTHONPATH", "").split(os.pathsep) if p]
    paths = [f(program) for program in programs for f in (os.path.abspath, os.path.realpath)]
    for prefix in dict.fromkeys(os.path.dirname(os.path.dirname(p)) for p in paths):
        for lib in ("lib", "lib64", os.path.join("local", "lib")):
            top = os.path.join(prefix, lib)
            for name in sorted(list_entries(top)):
                if name.startswith("python3"):
                    folders += (os.path.join(top, name, last) for last in PACKAGES)
    folders = [f for f in folders if os.path.isdir(f)]
    return [*dict.fromkeys((*folders, *(d for f in folders for d in read_paths(f))))]


def read_paths(folder: str) -> list[str]:
    """Return the directories that the `*.pth` files of a directory add. Source: site's manual."""
    paths = []
    for name in sorted(list_entries(folder)) if os.path.basename(folder) in PACKAGES else ():
        if name.endswith(".pth"):
            lines = read_text(os.path.join(folder, name)).splitlines()
            paths += [os.path.join(folder, line.strip()) for line in lines
                      if not line.startswith(("#", "import ", "import\t"))]  # fmt: skip
    return [path for path in paths if os.path.isdir(path)]


def read_text(path: str) -> str:
    """Return a file's text; "" if it cannot be read."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read(MAX_FILE_BYTES)
    except OSError:
        return ""


def list_entries(folder: str) -> list[str]:
    """Return the names in a directory; [] for one that does not exist or may not be read."""
    try:
        return os.listdir(folder)
    except OSError:
        return []
