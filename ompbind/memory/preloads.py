"""What --preload and LD_PRELOAD load into the ranks' programs: found, checked, and put into the
plan's variables."""

from __future__ import annotations

import os

from ompbind.errors import UsageError
from ompbind.messages import did_you_mean, quote
from ompbind.plans import PRELOAD_VARIABLE, Caution, split_preload
from ompbind.record import Record
from ompbind.worker import find_program, find_python
from ompbind.worker.libraries import LIBRARIES, Finder, name_allocator
from ompbind.worker.runtimes import family_of, guess_worker, merge, package_runtimes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ompbind.plans import Plan
    from ompbind.worker.runtimes import Runtime


# The remedy where a process has two OpenMP runtimes.
ONE_PLACE = "--places one leaves the rank's cpus to each of them"


class Preload(Record):
    """A library of --preload: what was asked for, and its file."""

    asked: str
    path: str


# --- what is asked for ---------------------------------------------------------------------------


def find_preloads(
    names: Sequence[str], command: Sequence[str], environ: Mapping[str, str], *, check: bool = True
) -> tuple[Preload, ...]:
    """Return the libraries of --preload in their order, each once. `check`: whether they are for
    this machine: a path on another one is taken as it is. Raises UsageError for one that does not
    exist, or would not load, and for two allocators."""
    finder = Finder(command, environ)
    preloads: dict[str, Preload] = {}
    for name in names:
        path = find_path(name, finder, check=check)
        preloads.setdefault(path, Preload(name, path))
    check_allocators(list(preloads.values()))
    return tuple(preloads.values())


def find_path(name: str, finder: Finder, *, check: bool) -> str:
    """Return the file that a name or a path stands for. Raises UsageError."""
    library = LIBRARIES.get(name)
    if library is not None:
        path, hint = finder.find(name), library.hint
        if not path:
            raise UsageError(f"--preload {name}: not found here", hint=f"{hint}; or --preload PATH")
    elif os.sep in name:
        path, hint = os.path.abspath(name), ""
    else:
        path, hint = finder.find_file(name), "--preload PATH names it by its whole path"
        if not path:
            known = ", ".join(LIBRARIES)
            text = f"--preload: {quote(name)} is neither {known} nor a library that ld.so finds"
            raise UsageError(text, hint=did_you_mean(name, LIBRARIES) or hint)
    if any(c in path for c in ": \t\n"):
        text = (
            f"--preload: {quote(path, 400)} has a blank or a colon, which end a name in LD_PRELOAD"
        )
        raise UsageError(text, hint="a link to it without one will do")
    problem = finder.explain(path) if check else ""
    if problem:
        raise UsageError(f"--preload: {quote(path, 400)} {problem}", hint=hint if library else "")
    return path


def check_allocators(preloads: Sequence[Preload]) -> None:
    """Raises UsageError for two allocators: a process has one."""
    allocators = [p for p in preloads if name_allocator(os.path.basename(p.path))]
    if allocators[1:]:
        both = " and ".join(p.asked for p in allocators[:2])
        raise UsageError(
            f"--preload: {both} are both allocators, and a process uses the first only",
            hint="leave one of them out",
        )


def join_preload(preloads: Sequence[Preload], before: str) -> str:
    """Return LD_PRELOAD with these libraries in front of those in `before`, each once."""
    paths = [p.path for p in preloads]
    return ":".join(dict.fromkeys([*paths, *split_preload(before)]))


def see_environment(
    environ: Mapping[str, str],
    preloads: Sequence[Preload],
    given: Sequence[tuple[str, str | None]] = (),
) -> Mapping[str, str]:
    """Return the environment with the LD_PRELOAD that workers will have. `given`: the variables of
    --env."""
    texts = [value for name, value in given if name == PRELOAD_VARIABLE and value is not None]
    if not preloads and not texts:
        return environ
    before = texts[-1] if texts else environ.get(PRELOAD_VARIABLE, "")
    return {**environ, PRELOAD_VARIABLE: join_preload(preloads, before)}


def put_first(plan: Plan, preloads: Sequence[Preload], environ: Mapping[str, str]) -> Plan:
    """Return the plan whose ranks preload these libraries, in front of those that their LD_PRELOAD
    has."""
    ranks = []
    for rank in plan.ranks:
        env = dict(rank.env)
        before = env.get(PRELOAD_VARIABLE, environ.get(PRELOAD_VARIABLE, ""))
        env[PRELOAD_VARIABLE] = join_preload(preloads, before)
        ranks.append(rank.replace(env=tuple(env.items())))
    return plan.replace(ranks=tuple(ranks))


# --- what comes of it ----------------------------------------------------------------------------


def warn_of_preloads(
    plan: Plan, preloads: Sequence[Preload], environ: Mapping[str, str], *, check: bool = True
) -> Plan:
    """Return the plan with warnings of what a rank's LD_PRELOAD does not do: files that would not
    load, a program that preloads nothing, a second allocator or OpenMP runtime beside the first.
    `check`: whether the plan is for this machine."""
    values = dict.fromkeys(dict(rank.env).get(PRELOAD_VARIABLE, "") for rank in plan.ranks)
    if not any(values):
        return plan
    finder = Finder(plan.command, environ)
    cautions: list[Caution] = []
    for value in values if check else ():
        cautions += warn_of_files(value, finder)
    cautions += warn_of_program(plan, finder)
    cautions += warn_of_allocators(next(iter(values)))
    if preloads:
        cautions += warn_of_second_runtime(plan, preloads, environ)
    return plan.warn(*dict.fromkeys(cautions))


def warn_of_files(value: str, finder: Finder) -> list[Caution]:
    """Return a warning for the first file of an LD_PRELOAD that would not load: ld.so leaves it
    out, and goes on."""
    for path in split_preload(value):
        if os.sep not in path or "$" in path:  # $LIB is ld.so's
            continue
        if problem := finder.explain(path):
            text = f"LD_PRELOAD: {quote(path, 400)} {problem}, and will not be preloaded"
            return [Caution("preload", text)]
    return []


def warn_of_program(plan: Plan, finder: Finder) -> list[Caution]:
    """Return a warning for a program into which nothing is preloaded."""
    program = finder.program
    if program is None:
        return []
    problem = ""
    if not program.dynamic:
        problem = "is statically linked"
    elif os.stat(program.path).st_mode & 0o6000:
        problem = "changes its user or group when it starts"
    if not problem:
        return []
    name = quote(os.path.basename(program.path))
    text = f"LD_PRELOAD: {name} {problem}: nothing is preloaded but into what it starts"
    return [Caution("preload", text)]


def warn_of_allocators(value: str) -> list[Caution]:
    """Return a warning for an allocator in LD_PRELOAD behind another one."""
    paths = [p for p in split_preload(value) if name_allocator(os.path.basename(p))]
    first, second = (*paths, "", "")[:2]
    if not second or os.path.realpath(first) == os.path.realpath(second):
        return []
    text = (
        f"LD_PRELOAD: {quote(second, 400)} comes after {quote(first, 400)}, and allocates nothing"
    )
    return [Caution("preload", text)]


def warn_of_second_runtime(
    plan: Plan, preloads: Sequence[Preload], environ: Mapping[str, str]
) -> list[Caution]:
    """Return a warning if --preload brings an OpenMP runtime beside one of the program's own: each
    has its threads, and the first to start binds the main thread."""
    brought = [p for p in preloads if family_of(os.path.basename(os.path.realpath(p.path)))]
    if not brought or not plan.command:
        return []
    seen = see_environment(environ, preloads)
    runtimes = find_runtimes(plan.command, seen)
    theirs = [r for r in runtimes if r.via != PRELOAD_VARIABLE]
    if not theirs:
        return []
    name = quote(os.path.basename(plan.command[0]))
    others = ", ".join(dict.fromkeys(f"{r.name} ({r.path or r.via})" for r in theirs))
    text = (
        f"--preload {brought[0].asked}: {name} may load another OpenMP runtime beside it, {others}"
    )
    hint = "ompbind verify PID shows which are loaded"
    if any(rank.places[1:] for rank in plan.ranks):
        hint = ONE_PLACE
    elif plan.omp == "all":
        hint += "; with one place, as here, both have all the rank's cpus"
    return [Caution("openmp", text, hint)]


def find_runtimes(command: Sequence[str], environ: Mapping[str, str]) -> tuple[Runtime, ...]:
    """Return the OpenMP runtimes of a command, those of the packages that it imports among them."""
    runtimes = guess_worker(command, environ).runtimes
    path = find_program(command[0], environ)
    if path is None or not find_python(command, environ):
        return runtimes
    from ompbind.doctor.packages import find_packages

    packages, _ = find_packages(path, command, environ)
    for package in packages:
        runtimes = merge(runtimes, package_runtimes(package.directory, environ))
    return runtimes


def warn_of_runtimes(plan: Plan, environ: Mapping[str, str]) -> Plan:
    """Return the plan with a warning if LD_PRELOAD brings the program a second OpenMP runtime, and
    several places were asked for: the first runtime to start binds the main thread to one of them,
    and all threads of the other one stay there."""
    names = guess_worker(plan.command, environ).names
    if len(names) < 2 or not any(rank.places[1:] for rank in plan.ranks):
        return plan
    text = (
        f"{quote(os.path.basename(plan.command[0]))} has several OpenMP runtimes "
        f"({', '.join(names)}, by LD_PRELOAD): the threads of all but one may end up on one place"
    )
    return plan.warn(Caution("openmp", text, ONE_PLACE))
