"""Which version of a package a command's Python has installed, by its files alone."""

from __future__ import annotations

import os

from ompbind.worker import find_program, find_python

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence


def find_version(command: Sequence[str], environ: Mapping[str, str], names: Sequence[str]) -> str:
    """Return the version of the first of these distributions that the command's Python finds, such
    as 0.32.0+cpu; "" where none is found, or where the command is not Python's."""
    folders = [*list_site_folders(command, environ)]
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
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            for line in file.read(1 << 16).split("\n\n", 1)[0].splitlines():
                if line.startswith("Version:"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return ""


def list_site_folders(command: Sequence[str], environ: Mapping[str, str]) -> Iterator[str]:
    """Yield the directories where a command's Python finds installed packages."""
    interpreter = find_python(command, environ) if command else None
    if not interpreter:
        return
    yield from (p for p in environ.get("PYTHONPATH", "").split(os.pathsep) if p)
    python = find_program(interpreter[0], environ) or interpreter[0]
    places = dict.fromkeys((os.path.abspath(python), os.path.realpath(python)))
    for prefix in dict.fromkeys(os.path.dirname(os.path.dirname(p)) for p in places):
        for lib in ("lib", "lib64", os.path.join("local", "lib")):
            top = os.path.join(prefix, lib)
            for name in sorted(list_entries(top)):
                if name.startswith("python3"):
                    yield os.path.join(top, name, "site-packages")
                    yield os.path.join(top, name, "dist-packages")


def list_entries(folder: str) -> list[str]:
    """Return the names in a directory; [] for one that does not exist or may not be read."""
    try:
        return os.listdir(folder)
    except OSError:
        return []
