"""Which fixes there are: ompbind's own, those that installed packages offer, and a user's file.

Nothing of a user's is executed here: what a file says of its fix is read from its text.
"""

from __future__ import annotations

import os

from ompbind.errors import UsageError
from ompbind.messages import did_you_mean, quote
from ompbind.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    import ast
    from collections.abc import Mapping
    from importlib.metadata import EntryPoint

BUILT_IN = ("torch-accelerator", "fxgraph-pickle")
GROUP = "ompbind.fixes"  # entry points
LIST_HINT = "ompbind run --fix list prints those there are; a file's own: --fix path.py:function"
WORKER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "worker")


class Fix(Record):
    """One fix. `name`: as --fix takes it; `target`: the module after whose import it is applied;
    `versions` of the target's package, "" for all; `source`: where the reason can be read up;
    `offered`: by whom, when not by ompbind."""

    name: str
    target: str
    versions: str
    reason: str
    source: str
    path: str
    function: str
    probed: bool
    offered: str = ""

    @property
    def key(self) -> str:
        """What the worker finds it by: a name of ompbind's own, or a file and its function."""
        if self.name in BUILT_IN:
            return self.name
        return f"{self.path}:{self.function}".replace("%", "%25").replace(",", "%2C")


def find_fixes(text: str) -> tuple[Fix, ...]:
    """The fixes that --fix names, each once, in order. Raises UsageError."""
    names = [word.strip() for word in text.split(",")]
    if not all(names):
        raise UsageError(f"--fix {quote(text)}: an empty name", hint=LIST_HINT, option="--fix")
    if "auto" in names:  # each fix judges for itself in the worker, when its module is there
        at = names.index("auto")
        names[at : at + 1] = BUILT_IN
    found: dict[str, Fix] = {}
    for name in names:
        fix = find_fix(name)
        found.setdefault(fix.key, fix)
    return tuple(found.values())


def find_fix(name: str) -> Fix:
    """The fix of that name. Raises UsageError."""
    if name in BUILT_IN:
        return read_built_in(name)
    if ":" in name or name.endswith(".py"):
        path, _, function = name.rpartition(":")
        if not path or not function:
            hint = "--fix path.py:function"
            raise UsageError(f"--fix {quote(name)} names no function", hint=hint, option="--fix")
        return read_fix(name, path, function)
    offered = find_offered()
    if name in offered:
        return read_offered(offered[name])
    raise UsageError(
        f"--fix: there is no fix {quote(name)}",
        hint=did_you_mean(name, (*BUILT_IN, *offered, "auto", "list")) or LIST_HINT,
        option="--fix",
        text=name,
    )


def list_fixes() -> str:
    """What --fix list prints."""
    fixes = [read_built_in(name) for name in BUILT_IN]
    problems = []
    for name, entry in find_offered().items():
        try:
            fixes.append(read_offered(entry))
        except UsageError as e:
            problems.append(f"{name}\n  cannot be used: {e.message}\n")
    lines = []
    for fix in fixes:
        package = fix.target.partition(".")[0]
        lines.append(f"{fix.name}\n  {fix.reason or 'no reason given'}\n")
        lines.append(f"  for: {package} {fix.versions or '(any version)'}, when {fix.target} is")
        lines.append(f" imported{' and a probe finds it needed' if fix.probed else ''}\n")
        lines.append(f"  source: {fix.source or fix.path}\n")
        lines.append(f"  offered by: {fix.offered}\n" if fix.offered else "")
    return "".join(lines + problems)


# --- ompbind's own -------------------------------------------------------------------------------


def read_built_in(name: str) -> Fix:
    from importlib import import_module

    stem = name.replace("-", "_")
    module = import_module(f"ompbind.fixes.worker.{stem}")
    path = os.path.join(WORKER, f"{stem}.py")
    said = (module.TARGET, module.VERSIONS, module.REASON, module.SOURCE)
    return Fix(name, *said, path, "apply", probed=True)


# --- a file's ------------------------------------------------------------------------------------


def read_fix(name: str, path: str, function: str, offered: str = "") -> Fix:
    """What a file says of the fix in it, found without executing it. Raises UsageError."""
    import ast

    from ompbind.fixes.worker.apply import in_range

    def refuse(problem: str, hint: str) -> UsageError:
        return UsageError(f"--fix {quote(name)}: {problem}", hint=hint, option="--fix", text=name)

    path = os.path.abspath(path)
    try:
        with open(path, "rb") as file:
            tree = ast.parse(file.read(), path)
    except OSError as e:
        raise refuse(f"{quote(path)}: {e.strerror}", "--fix path.py:function") from None
    except (SyntaxError, ValueError, RecursionError) as e:
        line = f", line {e.lineno}" if isinstance(e, SyntaxError) and e.lineno else ""
        reason = e.msg if isinstance(e, SyntaxError) else str(e)
        raise refuse(f"{quote(path)}{line} is not Python: {reason}", "mend the file") from None
    functions = {n.name: n for n in tree.body if isinstance(n, ast.FunctionDef)}
    if function not in functions:
        there = ", ".join(functions) or "none"
        hint = did_you_mean(function, tuple(functions)) or f"functions there: {there}"
        raise refuse(f"the file has no function {quote(function)}", hint)
    said = read_constants(tree)
    target, versions = said.get("TARGET", ""), said.get("VERSIONS", "")
    if not all(part.isidentifier() for part in target.split(".")):
        hint = 'write TARGET = "package.module", the module it waits for, at the top of the file'
        raise refuse("the file does not say what it is for", hint)
    try:
        if versions:
            in_range("1", versions)
    except ValueError as e:
        raise refuse(f"VERSIONS: {e}", 'as in VERSIONS = ">=1.26,<3"') from None
    told = (ast.get_docstring(functions[function]) or "").strip().partition("\n")[0]
    reason = said.get("REASON") or told
    probed = "is_needed" in functions
    source = said.get("SOURCE", "")
    return Fix(name, target, versions, reason, source, path, function, probed, offered)


def read_constants(tree: ast.Module) -> dict[str, str]:
    """The texts that are assigned to names at the top of the file."""
    import ast

    found = {}
    for node in tree.body:
        if isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(node.value, ast.Constant):
            names = node.targets if isinstance(node, ast.Assign) else [node.target]
            if isinstance(node.value.value, str):
                value = node.value.value
                found.update({n.id: value for n in names if isinstance(n, ast.Name)})
    return found


# --- an installed package's ----------------------------------------------------------------------


def find_offered() -> Mapping[str, EntryPoint]:
    """The entry points of installed packages, by name, without those that have ompbind's names."""
    from importlib.metadata import entry_points

    return {e.name: e for e in entry_points(group=GROUP) if e.name not in (*BUILT_IN, "auto")}


def read_offered(entry: EntryPoint) -> Fix:
    """Finds the file of an entry point `package.module:function` without importing the package.

    Raises UsageError.
    """
    from importlib.util import find_spec

    problem = f"--fix {quote(entry.name)}: the entry point {quote(entry.value)}"
    hint = 'write name = "package.module:function" for a function at the top of a .py file'
    module, _, function = entry.value.partition(":")
    top, *rest = module.split(".")
    try:
        spec = find_spec(top)  # of a package without its parent: nothing is executed
        for n in range(len(rest)):
            from importlib.machinery import PathFinder

            inside = spec.submodule_search_locations if spec else None
            spec = PathFinder.find_spec(".".join((top, *rest[: n + 1])), inside or [])
    except (ImportError, ValueError):
        spec = None
    if spec is None or not spec.origin or not spec.origin.endswith(".py"):
        raise UsageError(f"{problem} leads to no .py file", hint=hint, option="--fix")
    if not function.isidentifier():
        raise UsageError(f"{problem} names no function", hint=hint, option="--fix")
    by = entry.dist.name if entry.dist else ""
    return read_fix(entry.name, spec.origin, function, by)
