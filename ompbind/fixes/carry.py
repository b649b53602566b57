"""How fixes get into a worker: variables of its environment, and a word where they cannot act."""

from __future__ import annotations

import os

from ompbind.errors import UsageError
from ompbind.messages import quote
from ompbind.plans import Caution
from ompbind.worker.program import find_python

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ompbind.fixes.registry import Fix
    from ompbind.plans import Plan

HOOK = os.path.join(os.path.dirname(os.path.abspath(__file__)), "worker", "path")
NAMED = "OMPBIND_FIX"  # name@module,…


def with_fixes(
    plan: Plan,
    fixes: Sequence[Fix],
    environ: Mapping[str, str],
    *,
    children: bool = True,
    verbose: bool = False,
) -> Plan:
    """The plan whose workers carry the fixes. Raises UsageError."""
    if os.pathsep in HOOK:
        problem = f"ompbind's own directory {quote(HOOK)} cannot stand in PYTHONPATH"
        raise UsageError(f"--fix: {problem}", hint=f"install it where there is no {os.pathsep}")
    env = {
        NAMED: ",".join(f"{fix.key}@{fix.target}" for fix in fixes),
        "OMPBIND_FIX_CHILDREN": "yes" if children else "no",
    }
    if verbose:
        env["OMPBIND_FIX_VERBOSE"] = "1"
    ranks = tuple(r.replace(env=tuple((dict(r.env) | env).items())) for r in plan.ranks)
    return renewed(plan.replace(ranks=ranks), environ)


def renewed(plan: Plan, environ: Mapping[str, str]) -> Plan:
    """The plan with fixes for this environment: the user's PYTHONPATH as it is now, and whether
    they can act in this command."""
    path = join_path(environ.get("PYTHONPATH", ""))
    ranks = []
    for r in plan.ranks:
        env = dict(r.env)
        if NAMED in env:
            env["PYTHONPATH"] = path
        ranks.append(r.replace(env=tuple(env.items())))
    cautions = [caution for caution in plan.cautions if caution.kind != "fix"]
    if problem := problem_of(plan.command, environ):
        cautions.append(Caution("fix", f"--fix: {problem}"))
    return plan.replace(ranks=tuple(ranks), cautions=tuple(cautions))


def join_path(inherited: str) -> str:
    """PYTHONPATH with the hook in front, once, and the user's entries as they were."""
    if not inherited:  # not an empty entry, which would be the current directory
        return HOOK
    return os.pathsep.join([HOOK, *(p for p in inherited.split(os.pathsep) if p != HOOK)])


# --- whether they can act ------------------------------------------------------------------------


def problem_of(command: Sequence[str], environ: Mapping[str, str]) -> str:
    """Why fixes cannot act in a command, or ""; also where that cannot be told."""
    if not command:
        return ""
    interpreter = find_python(command, environ)
    if interpreter is None:
        name = quote(command[0])
        return f"{name} is not Python as far as can be seen: only Python that it starts is fixed"
    return ignores(interpreter)


def ignores(command: Sequence[str]) -> str:
    """Why a Python started so does not look at what we say, or "". Source: python's manual, its
    command line."""
    told = {"I": "isolated mode", "E": "it ignores PYTHONPATH", "S": "it does not import site"}
    for flag in python_flags(command[1:]):
        if flag in told:
            return f"{quote(command[0])} is started with -{flag} ({told[flag]}): no fix can act"
    return ""


def python_flags(words: Sequence[str]) -> list[str]:
    """The one-letter options of Python before its script, -m or -c."""
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
