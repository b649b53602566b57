"""The packages that a Python command loads, as far as files show: those that its code imports, and
those that these require. Nothing is imported or executed.

Sources: the core metadata specifications (METADATA, RECORD, top_level.txt in `*.dist-info`), PEP
508 for requirements, site's documentation for `*.pth` files.
"""

from __future__ import annotations

import os
import sys

from ompbind.record import Record
from ompbind.worker import find_python
from ompbind.worker.installed import PACKAGES, list_package_folders, read_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class Package(Record):
    """An installed package. `name`: as it is imported; `by`: the one that requires it, "" for one
    that the command imports; `distribution`: the name under which it was installed, "" if unknown.
    """

    name: str
    directory: str
    distribution: str = ""
    by: str = ""


class Distribution(Record):
    """What a `*.dist-info` says."""

    name: str  # normalised
    modules: tuple[str, ...]  # the packages that it holds, as they are imported
    requires: tuple[str, ...]  # normalised names


def find_packages(
    path: str, command: Sequence[str], environ: Mapping[str, str]
) -> tuple[list[Package], list[str]]:
    """Return the packages that a Python command at `path` loads, those that its code imports first,
    and the names that it imports but that are not installed."""
    folders = list_folders(path, command, environ)
    packages: dict[str, Package] = {}
    missing: list[str] = []
    for name in list_imports(path, command):
        if directory := find_directory(name, folders):
            packages[name] = Package(name, directory)
        elif not any(os.path.isfile(os.path.join(f, f"{name}.py")) for f in folders):
            missing.append(name)
    distributions = read_distributions(folders)
    owners = {module: d for d in distributions.values() for module in d.modules}
    for name in [*packages]:
        if owner := owners.get(name):
            packages[name] = packages[name].replace(distribution=owner.name)
    for package in (queue := list(packages.values())):  # grows while it is walked
        owner = distributions.get(package.distribution)
        for required in owner.requires if owner else ():
            for name in distributions[required].modules if required in distributions else ():
                directory = find_directory(name, folders)
                if directory and name not in packages:
                    packages[name] = Package(name, directory, required, package.name)
                    queue.append(packages[name])
    return list(packages.values()), missing


def find_directory(name: str, folders: Sequence[str]) -> str:
    """Return the directory of a package, "" if there is none."""
    directories = (os.path.join(folder, name) for folder in folders)
    return next((d for d in directories if os.path.isdir(d)), "")


def list_folders(path: str, command: Sequence[str], environ: Mapping[str, str]) -> list[str]:
    """Return the directories where a command's modules are found, as far as files show."""
    programs = [path, *(find_python(command, environ) or ())[:1]]  # a script, and what executes it
    installed = list_package_folders([p for p in programs if os.sep in p], environ)
    scripts = [os.path.dirname(os.path.abspath(w)) for w in command[1:2] if w.endswith(".py")]
    library = [os.path.dirname(f) for f in installed if os.path.basename(f) in PACKAGES]
    return [*dict.fromkeys((*scripts, os.getcwd(), *installed, *library))]


# --- what the code imports -----------------------------------------------------------------------


def list_imports(path: str, command: Sequence[str]) -> list[str]:
    """Return the packages that a Python command's own code imports (of -c, -m or its script),
    without those of the standard library."""
    import ast

    words = [*command]
    code = ""
    if "-c" in words[1:-1]:
        code = words[words.index("-c", 1) + 1]
    elif "-m" in words[1:-1]:
        code = f"import {words[words.index('-m', 1) + 1].partition('.')[0]}"
    else:
        script = next((w for w in words[1:] if not w.startswith("-")), "")
        script = script if script.endswith(".py") else path
        try:
            with open(script, encoding="utf-8") as file:
                code = file.read(1 << 20)
        except (OSError, UnicodeDecodeError):
            return []
    try:
        tree = ast.parse(code)
    except (SyntaxError, ValueError):
        return []
    names: dict[str, None] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= dict.fromkeys(alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names[node.module.partition(".")[0]] = None
    return [n for n in names if n not in sys.stdlib_module_names and n != "__future__"]


# --- what packages require -----------------------------------------------------------------------


def read_distributions(folders: Sequence[str]) -> dict[str, Distribution]:
    """Return what is installed in these directories, by normalised name; the first one counts."""
    distributions: dict[str, Distribution] = {}
    for folder in folders:
        for entry in sorted(os.listdir(folder)):
            if entry.endswith(".dist-info"):
                d = read_distribution(os.path.join(folder, entry))
                distributions.setdefault(d.name, d)
    return distributions


def read_distribution(directory: str) -> Distribution:
    """Read a `*.dist-info` directory; its name stands for metadata that are not there."""
    name = os.path.basename(directory).partition("-")[0]
    head, _, _ = read_text(os.path.join(directory, "METADATA")).partition("\n\n")
    requires = []
    for line in head.splitlines():
        field, _, value = line.partition(":")
        if field == "Name":
            name = value
        elif field == "Requires-Dist" and (required := parse_requirement(value)):
            requires.append(required)
    modules = read_text(os.path.join(directory, "top_level.txt")).split()
    if not modules:
        files = read_text(os.path.join(directory, "RECORD")).splitlines()
        tops = dict.fromkeys(line.partition("/")[0] for line in files if "/" in line)
        modules = [top for top in tops if top.isidentifier()]
    return Distribution(normalise(name), tuple(modules), tuple(dict.fromkeys(requires)))


def parse_requirement(text: str) -> str:
    """Return the normalised name in a requirement such as `torch>=2 ; python_version > "3.11"`; ""
    for one of an extra, which is not installed unless asked for. Other conditions are not
    evaluated: what they exclude is not there."""
    requirement, _, marker = text.partition(";")
    if "extra" in marker.replace("==", " ").split():
        return ""
    name = ""
    for char in requirement.strip():
        if not (char.isalnum() or char in "-_."):
            break
        name += char
    return normalise(name)


def normalise(name: str) -> str:
    """Return a distribution's name in the form in which equal ones are equal (PEP 503)."""
    words = name.strip().lower().replace("_", "-").replace(".", "-").split("-")
    return "-".join(word for word in words if word)
