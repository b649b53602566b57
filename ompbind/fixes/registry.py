"""Find fixes: those of ompbind, of installed packages, and in a user's file.

No code of a user is executed here: what a file says about its fix is read from its text.
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

BUILT_IN = ("torch-accelerator", "fxgraph-pickle", "joblib-threads", "dask-threads")
GROUP = "ompbind.fixes"  # entry points
LIST_HINT = "ompbind run --fix list prints all; for a file's function: --fix path.py:function"
WORKER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "worker")


class Fix(Record):
    """One fix."""

    name: str  # as --fix takes it
    target: str  # the module after whose import it is applied
    versions: str  # of the target's package; "": all
    reason: str
    source: str  # where the problem is described
    path: str
    function: str
    probed: bool  # whether it has a probe, which decides in the worker
    offered: str = ""  # the package that offers it; "": ompbind or the user's file

    @property
    def key(self) -> str:
        """What identifies it in the worker: a name of ompbind's, or a file and its function."""
        if self.name in BUILT_IN:
            return self.name
        return f"{self.path}:{self.function}".replace("%", "%25").replace(",", "%2C")


def find_fixes(text: str) -> tuple[Fix, ...]:
    """Return the fixes that --fix names, each once, in order. Raises UsageError."""
    names = [word.strip() for word in text.split(",")]
    if not all(names):
        raise UsageError(f"--fix {quote(text)}: an empty name", hint=LIST_HINT, option="--fix")
    if "auto" in names:  # the worker decides which are needed, when their modules are imported
        at = names.index("auto")
        names[at : at + 1] = BUILT_IN
    fixes: dict[str, Fix] = {}
    for name in names:
        fix = find_fix(name)
        fixes.setdefault(fix.key, fix)
    return tuple(fixes.values())


def find_fix(name: str) -> Fix:
    """Return the fix of that name. Raises UsageError."""
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
        f"--fix: unknown fix {quote(name)}",
        hint=did_you_mean(name, (*BUILT_IN, *offered, "auto", "list")) or LIST_HINT,
        option="--fix",
        text=name,
    )


def list_fixes() -> str:
    """Return what --fix list prints."""
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


# --- ompbind's fixes -----------------------------------------------------------------------------


def read_built_in(name: str) -> Fix:
    from importlib import import_module

    stem = name.replace("-", "_")
    module = import_module(f"ompbind.fixes.worker.{stem}")
    path = os.path.join(WORKER, f"{stem}.py")
    facts = (module.TARGET, module.VERSIONS, module.REASON, module.SOURCE)
    return Fix(name, *facts, path, "apply", probed=True)


# --- a file's ------------------------------------------------------------------------------------


def read_fix(name: str, path: str, function: str, offered: str = "") -> Fix:
    """Return the fix in a file, which is not executed. Raises UsageError."""
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
        raise refuse(
            f"{quote(path)}{line} is not Python: {reason}", "fix the syntax error"
        ) from None
    functions = {n.name: n for n in tree.body if isinstance(n, ast.FunctionDef)}
    if function not in functions:
        names = ", ".join(functions) or "none"
        hint = did_you_mean(function, tuple(functions)) or f"its functions: {names}"
        raise refuse(f"the file has no function {quote(function)}", hint)
    constants = read_constants(tree)
    target, versions = constants.get("TARGET", ""), constants.get("VERSIONS", "")
    if not all(part.isidentifier() for part in target.split(".")):
        hint = 'write TARGET = "package.module", the module it waits for, at the top of the file'
        raise refuse("the file has no TARGET", hint)
    try:
        if versions:
            in_range("1", versions)
    except ValueError as e:
        raise refuse(f"VERSIONS: {e}", 'as in VERSIONS = ">=1.26,<3"') from None
    docstring = (ast.get_docstring(functions[function]) or "").strip().partition("\n")[0]
    reason = constants.get("REASON") or docstring
    probed = "is_needed" in functions
    source = constants.get("SOURCE", "")
    return Fix(name, target, versions, reason, source, path, function, probed, offered)


def read_constants(tree: ast.Module) -> dict[str, str]:
    """Return the texts that are assigned to names at the top of the file."""
    import ast

    constants = {}
    for node in tree.body:
        if isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(node.value, ast.Constant):
            names = node.targets if isinstance(node, ast.Assign) else [node.target]
            if isinstance(node.value.value, str):
                value = node.value.value
                constants.update({n.id: value for n in names if isinstance(n, ast.Name)})
    return constants


# --- an installed package's ----------------------------------------------------------------------


def find_offered() -> Mapping[str, EntryPoint]:
    """Return the entry points of installed packages by name, without names of ompbind's fixes."""
    from importlib.metadata import entry_points

    return {e.name: e for e in entry_points(group=GROUP) if e.name not in (*BUILT_IN, "auto")}


def read_offered(entry: EntryPoint) -> Fix:
    """Return the fix of an entry point `package.module:function` without importing the package.

    Raises UsageError.
    """
    from importlib.util import find_spec

    problem = f"--fix {quote(entry.name)}: the entry point {quote(entry.value)}"
    hint = 'write name = "package.module:function" for a function at the top of a .py file'
    module, _, function = entry.value.partition(":")
    top, *rest = module.split(".")
    try:
        spec = find_spec(top)  # of a top-level package: nothing is executed
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
