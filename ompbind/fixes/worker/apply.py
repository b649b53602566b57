"""In the worker: judges each fix for a module that has just been imported, and applies it.

A fix is a file with a function that takes the module, and beside it, all but the first optional:
TARGET, the module's name; VERSIONS, those of the package that it is for; is_needed(module), the
probe. An AttributeError or a LookupError out of the probe means that the module is not of the shape
that the fix knows.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from types import ModuleType

LOUD = ("changed", "failed")  # said always; everything else with -v
SAID: set[tuple[str, str]] = set()  # in this process
COMPARISONS = (">=", "<=", "==", "!=", ">", "<")  # the long ones first


class ChangedError(Exception):
    """The target is not what the fix knows, and how."""


def apply_fixes(names: Iterable[str], module: ModuleType) -> None:
    """Applies those of the fixes that are needed; never raises for what a fix does."""
    for name in names:
        try:
            outcome, why = apply_fix(name, module)
        except ChangedError as e:
            outcome, why = "changed", str(e)
        except (Exception, SystemExit) as e:
            outcome, why = "failed", f"{type(e).__name__}: {e}"
        report(name, module, outcome, why)


def apply_fix(name: str, module: ModuleType) -> tuple[str, str]:
    """What was done, and more about it."""
    off = os.environ.get("OMPBIND_FIX_OFF", "").split(",")
    if name in off or "all" in off:
        return "switched off", "OMPBIND_FIX_OFF"
    path, function = locate(name)
    fix = load_file(path)
    wanted = getattr(fix, "VERSIONS", "")
    package = module.__name__.partition(".")[0]
    if wanted:
        version = find_version(package)
        if version is None:
            raise ChangedError(f"the version of {package} cannot be told, it is for {wanted}")
        if not in_range(version, wanted):
            return "not needed", f"{package} is {version}, it is for {wanted}"
    try:
        if hasattr(fix, "is_needed") and not fix.is_needed(module):
            return "not needed", f"{module.__name__} does without"
    except (AttributeError, LookupError) as e:
        missing = getattr(e, "name", None)  # of an AttributeError, since 3.10
        text = f"it has no {missing}" if missing else e.args[0] if e.args else type(e).__name__
        raise ChangedError(f"{module.__name__} has changed shape, left alone: {text}") from None
    detail = getattr(fix, function)(module)
    return "applied", detail if isinstance(detail, str) else ""


def locate(name: str) -> tuple[str, str]:
    """The file and the function of a fix: one that comes with ompbind, or /path/file.py:function
    with its % and , escaped."""
    if ":" in name:
        path, _, function = name.replace("%2C", ",").replace("%25", "%").rpartition(":")
        return path, function
    here = os.path.dirname(os.path.abspath(__file__))
    return os.path.join(here, name.replace("-", "_") + ".py"), "apply"


def load_file(path: str) -> ModuleType:
    """The file as a module of its own, outside every package, executed once."""
    from importlib.util import module_from_spec, spec_from_file_location

    name = "_ompbind_fix:" + path
    if name not in sys.modules:
        spec = spec_from_file_location(name, path)
        if spec is None or spec.loader is None:
            raise ChangedError(f"{path} is not a Python file")
        module = module_from_spec(spec)
        spec.loader.exec_module(module)
        sys.modules[name] = module
    return sys.modules[name]


def report(name: str, module: ModuleType, outcome: str, why: str) -> None:
    """One line on standard error for each fix and outcome, once in a process."""
    kind = "warning" if outcome in LOUD else "note"
    if kind == "note" and not os.environ.get("OMPBIND_FIX_VERBOSE"):
        return
    if (name, outcome) in SAID or sys.stderr is None:
        return
    SAID.add((name, outcome))
    text = f"fix {name}: {outcome} in process {os.getpid()}" + (f" ({why})" if why else "")
    try:
        sys.stderr.write(f"ompbind: {kind}: {' '.join(text.split())}\n")
    except (OSError, ValueError):
        return  # closed


# --- versions ------------------------------------------------------------------------------------


def find_version(package: str) -> str | None:
    """What the package says of itself, or its installation's record does."""
    for place in (sys.modules.get(package), sys.modules.get(package + ".version")):
        version = getattr(place, "__version__", None)
        if isinstance(version, str):
            return str(version)
    from importlib import metadata

    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def parse_release(version: str) -> tuple[int, ...]:
    """The release numbers of a version: 2.10.1.dev20260101+cu128 is (2, 10, 1), 2.10.0a0+git12 is
    (2, 10, 0). A build before or after a release, or of one's own, counts as that release: what it
    contains is what a fix is about. Raises ValueError."""
    text = version.strip().lower().rpartition("!")[2]
    text = text[1:] if text.startswith("v") else text
    numbers = []
    for part in text.split("."):
        digits = len(part) - len(part.lstrip("0123456789"))
        if digits:
            numbers.append(int(part[:digits]))
        if digits < len(part) or not part:
            break
    if not numbers:
        raise ValueError(f"{version!r} is not a version")
    return tuple(numbers)


def in_range(version: str, wanted: str) -> bool:
    """Whether the version is among those wanted: `2.10.*`, `>=2.6`, `>=1.26,<3`; all of several
    must hold. Raises ValueError."""
    release = parse_release(version)
    held = [holds(release, clause.strip()) for clause in wanted.split(",")]  # each is checked
    return all(held)


def holds(release: tuple[int, ...], clause: str) -> bool:
    sign = next((c for c in COMPARISONS if clause.startswith(c)), "==")
    text = clause[len(sign) :] if clause.startswith(sign) else clause
    text = text.strip()
    series = text.endswith(".*")
    numbers = text[:-2] if series else text
    if not all(p.isascii() and p.isdigit() for p in numbers.split(".")) or (
        series and sign not in ("==", "!=")
    ):
        raise ValueError(f"{clause!r} is not a range of versions such as 2.10.* or >=2.6")
    bound = tuple(map(int, numbers.split(".")))
    if series:
        same = padded(release, len(bound))[: len(bound)] == bound
        return same == (sign == "==")
    length = max(len(release), len(bound))
    ours, theirs = padded(release, length), padded(bound, length)
    return {
        ">=": ours >= theirs,
        "<=": ours <= theirs,
        "==": ours == theirs,
        "!=": ours != theirs,
        ">": ours > theirs,
        "<": ours < theirs,
    }[sign]


def padded(numbers: Sequence[int], length: int) -> tuple[int, ...]:
    return (*numbers, *(0 for _ in range(length - len(numbers))))
