"""The variables that carry fixes into workers, and a warning if fixes cannot work in a command."""

from __future__ import annotations

import os

from ompbind.errors import UsageError
from ompbind.messages import quote
from ompbind.plans import Caution
from ompbind.worker import find_python

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ompbind.fixes.registry import Fix
    from ompbind.plans import Plan

HOOK = os.path.join(os.path.dirname(os.path.abspath(__file__)), "worker", "path")
FIXES_VARIABLE = "OMPBIND_FIX"  # name@module,…
REPORTS_VARIABLE = "OMPBIND_FIX_VERBOSE"  # "1": each process reports all, "0": nothing


def add_fixes(
    plan: Plan,
    fixes: Sequence[Fix],
    environ: Mapping[str, str],
    *,
    children: bool = True,
    verbose: bool = False,
    quiet: bool = False,
) -> Plan:
    """Return the plan with the variables for these fixes. Raises UsageError."""
    if os.pathsep in HOOK:
        problem = f"ompbind's directory {quote(HOOK)} cannot be in PYTHONPATH"
        hint = f"install ompbind in a directory without {os.pathsep} in its name"
        raise UsageError(f"--fix: {problem}", hint=hint)
    env = {
        FIXES_VARIABLE: ",".join(f"{fix.key}@{fix.target}" for fix in fixes),
        "OMPBIND_FIX_CHILDREN": "yes" if children else "no",
    }
    if verbose:
        env[REPORTS_VARIABLE] = "1"
    ranks = tuple(r.replace(env=tuple((dict(r.env) | env).items())) for r in plan.ranks)
    return renew_fixes(plan.replace(ranks=ranks), environ, quiet=quiet)


def renew_fixes(plan: Plan, environ: Mapping[str, str], *, quiet: bool = False) -> Plan:
    """Return the plan with its fixes adapted to `environ`: the user's current PYTHONPATH, and the
    warning if fixes cannot work in the command. `quiet`: workers report nothing of them."""
    path = join_path(environ.get("PYTHONPATH", ""))
    ranks = []
    for r in plan.ranks:
        env = dict(r.env)
        if FIXES_VARIABLE in env:
            env["PYTHONPATH"] = path
            if quiet:
                env[REPORTS_VARIABLE] = "0"
        ranks.append(r.replace(env=tuple(env.items())))
    cautions = [caution for caution in plan.cautions if caution.kind != "fix"]
    if problem := explain_failure(plan.command, environ):
        cautions.append(Caution("fix", f"--fix: {problem}"))
    return plan.replace(ranks=tuple(ranks), cautions=tuple(cautions))


def names_other_code(text: str) -> bool:
    """Whether a value of OMPBIND_FIX names code that is not ompbind's."""
    from ompbind.fixes.registry import BUILT_IN

    return any(entry.rpartition("@")[0] not in BUILT_IN for entry in text.split(","))


def join_path(inherited: str) -> str:
    """Return PYTHONPATH with the hook in front, once, and the user's entries unchanged."""
    if not inherited:  # no empty entry: that would be the current directory
        return HOOK
    return os.pathsep.join([HOOK, *(p for p in inherited.split(os.pathsep) if p != HOOK)])


# --- whether fixes work in a command -------------------------------------------------------------


def explain_failure(command: Sequence[str], environ: Mapping[str, str]) -> str:
    """Say why fixes cannot work in a command; "" if they can, or if that is unknown."""
    if not command:
        return ""
    interpreter = find_python(command, environ)
    if interpreter is None:
        name = quote(command[0])
        return f"{name} does not seem to be Python: only Python that it starts is fixed"
    return find_ignoring_flag(interpreter)


def find_ignoring_flag(command: Sequence[str]) -> str:
    """Say which option makes Python ignore the hook; "" if none. Source: Python's manual, "Command
    line and environment"."""
    reasons = {"I": "isolated mode", "E": "it ignores PYTHONPATH", "S": "it does not import site"}
    for flag in python_flags(command[1:]):
        if flag in reasons:
            reason = f"{quote(command[0])} is started with -{flag} ({reasons[flag]})"
            return f"{reason}, so fixes have no effect"
    return ""


def python_flags(words: Sequence[str]) -> list[str]:
    """Return the one-letter options of Python before its script, -m or -c."""
    flags: list[str] = []
    rest = list(words)
    while rest and rest[0].startswith("-") and rest[0] not in ("-", "--"):
        word = rest.pop(0)
        if word.startswith("--"):
            if word == "--check-hash-based-pycs":
                rest = rest[1:]
            continue
        for n, letter in enumerate(word[1:], 2):
            if letter in "cm":
                return flags
            if letter in "WX":  # take a value, here or in the next word
                rest = rest if word[n:] else rest[1:]
                break
            flags.append(letter)
    return flags
