"""In the worker: decide for each fix of a module that has just been imported, and apply it.

A fix is a file with a function that takes the module, with TARGET, the module's name, and
optionally VERSIONS, the range of the package's versions it is for, and is_needed(module), the
probe. An AttributeError or a LookupError of the probe means that the module's code has changed in a
way that the fix does not know.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from types import ModuleType

LOUD = ("changed", "failed")  # always reported; all others with -v
REPORTED: set[tuple[str, str]] = set()  # in this process
COMPARISONS = (">=", "<=", "==", "!=", ">", "<")  # the long ones first


class ChangedError(Exception):
    """The target is not as the fix knows it; the text says how."""


def apply_fixes(names: Iterable[str], module: ModuleType) -> None:
    """Apply the fixes that are needed. Never raises, whatever a fix does."""
    for name in names:
        try:
            outcome, why = apply_fix(name, module)
        except ChangedError as e:
            outcome, why = "changed", str(e)
        except (Exception, SystemExit) as e:
            outcome, why = "failed", f"{type(e).__name__}: {e}"
        report(name, module, outcome, why)


def apply_fix(name: str, module: ModuleType) -> tuple[str, str]:
    """Return what was done, and details. Raises what the fix raises."""
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
            raise ChangedError(f"the version of {package} is unknown, for {wanted} only")
        if not in_range(version, wanted):
            return "not needed", f"{package} is {version}, for {wanted} only"
    try:
        if hasattr(fix, "is_needed") and not fix.is_needed(module):
            return "not needed", f"{module.__name__} does not need it"
    except (AttributeError, LookupError) as e:
        missing = getattr(e, "name", None)  # of an AttributeError, since 3.10
        text = f"it has no {missing}" if missing else e.args[0] if e.args else type(e).__name__
        raise ChangedError(f"{module.__name__} has changed shape, unchanged: {text}") from None
    detail = getattr(fix, function)(module)
    return "applied", detail if isinstance(detail, str) else ""


def locate(name: str) -> tuple[str, str]:
    """Return the file and the function of a fix: by a name of ompbind's, or by
    /path/file.py:function, in which % and , are escaped."""
    if ":" in name:
        path, _, function = name.replace("%2C", ",").replace("%25", "%").rpartition(":")
        return path, function
    here = os.path.dirname(os.path.abspath(__file__))
    return os.path.join(here, name.replace("-", "_") + ".py"), "apply"


def load_file(path: str) -> ModuleType:
    """Return the file as a module outside every package, executed once."""
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
    """Write one line to standard error for each fix and outcome, once in a process."""
    kind = "warning" if outcome in LOUD else "note"
    reports = os.environ.get("OMPBIND_FIX_VERBOSE", "")
    if reports == "0" or (kind == "note" and not reports):
        return
    if (name, outcome) in REPORTED or sys.stderr is None:
        return
    REPORTED.add((name, outcome))
    text = f"fix {name}: {outcome} in process {os.getpid()}" + (f" ({why})" if why else "")
    try:
        sys.stderr.write(f"ompbind: {kind}: {' '.join(text.split())}\n")
    except (OSError, ValueError):
        return  # closed


# --- versions ------------------------------------------------------------------------------------


def find_version(package: str) -> str | None:
    """Return a package's version by its module, else by its installed metadata."""
    for module in (sys.modules.get(package), sys.modules.get(package + ".version")):
        version = getattr(module, "__version__", None)
        if isinstance(version, str):
            return str(version)
    from importlib import metadata

    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def parse_release(version: str) -> tuple[int, ...]:
    """Return the release numbers of a version: (2, 10, 1) for 2.10.1.dev20260101+cu128, (2, 10, 0)
    for 2.10.0a0+git12. Development, post and local builds count as that release, as they have its
    code. Raises ValueError."""
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
    """Whether a version is in a range such as `2.10.*`, `>=2.6`, `>=1.26,<3`. Raises ValueError."""
    release = parse_release(version)
    results = [holds(release, clause.strip()) for clause in wanted.split(",")]  # checks each one
    return all(results)


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
