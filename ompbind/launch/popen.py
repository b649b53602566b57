"""Starting ranks from a Python program that keeps running: through a small process that binds
itself and becomes the worker, so the binding of the program never changes.

The program, which may have threads, is not forked, and no code runs between fork and exec.
"""

from __future__ import annotations

import os
import sys

from ompbind.errors import CommandError, OmpbindError, UsageError
from ompbind.launch.binding import check_binder
from ompbind.launch.pipes import make_pipe, move_up, parse_error, receive
from ompbind.launch.rank import make_environ
from ompbind.launch.trampoline import make_words
from ompbind.plans import THREADS_VARIABLE
from ompbind.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    import subprocess
    from collections.abc import Mapping, Sequence
    from typing import Any

    from ompbind.plans import Plan, RankPlan

# The arguments of subprocess.Popen that are refused here, and why.
REFUSED = {
    "preexec_fn": "a program with threads must not run code between fork and exec",
    "shell": "nothing goes through a shell: give the worker's arguments as a list",
    "executable": "the worker's program is the first of its arguments",
    "close_fds": "name the descriptors that the worker is to have in pass_fds",
    "restore_signals": "a worker starts with Python's ignored signals restored",
}
PATIENCE = 2.0  # seconds in which ranks that were interrupted may exit by themselves
DEFAULTS = {"close_fds": True, "restore_signals": True, "shell": False}

# With our directory last on an isolated path, no site and no PYTHON* variable changes what runs.
CODE = "import sys; sys.path.append(sys.argv[1]); from {module} import main; main(sys.argv[2:])"


class ChildReport(Record):
    """What a started process has reported: whether it ran at all, warnings, and the error or the
    status with which it exited; neither, if it became another program."""

    begun: bool
    warnings: tuple[str, ...] = ()
    error: OmpbindError | None = None
    status: int | None = None


def start_rank(
    plan: Plan,
    rank: RankPlan,
    argv: Sequence[str],
    environ: Mapping[str, str],
    *,
    on_denied: str = "error",
    **kwargs: Any,
) -> subprocess.Popen[Any]:
    """Start a rank's worker, bound and with its environment, and return when its program has begun.

    `argv`: its command; `kwargs`: those of subprocess.Popen. Raises DeniedError, CommandError,
    UsageError; no process is left then.
    """
    for name, value in kwargs.items():
        if name in REFUSED and value is not None and value != DEFAULTS.get(name):
            raise UsageError(f"{name}={value!r} is not possible for a rank", hint=REFUSED[name])
    if on_denied not in ("error", "degrade"):
        raise UsageError(f"on_denied: {on_denied!r} is not one of error, degrade")
    if any(name.startswith(THREADS_VARIABLE) for name, _ in rank.env):
        raise UsageError(
            "a role has names of threads, and nobody watches a rank that is started so",
            hint="leave the names out, or start all ranks with ompbind.run or ompbind run",
        )
    env = make_environ(rank, environ)
    if plan.binder == "none":
        check_binder((rank,), can_bind=hasattr(os, "sched_setaffinity"))
        return spawn(rank.rank, argv, env, kwargs)
    if not hasattr(os, "sched_setaffinity"):
        raise UsageError(
            f"the plan binds ({plan.binder}), which {sys.platform} cannot",
            hint="make the plan on the machine where it is to run",
        )
    words = make_words(rank, argv, on_denied)
    process, pipe = start_python("ompbind.launch.trampoline", words, env, rank.rank, kwargs)
    process.args = list(argv)
    try:
        report = read_report(pipe)
        for text in report.warnings:
            import warnings

            warnings.warn(text, RuntimeWarning, stacklevel=3)  # may be an error
    except BaseException:
        process.kill()
        with process:
            raise
    if error := find_error(process, report):
        with process:  # closes its pipes and reaps it
            raise error
    return process


def start_python(
    module: str,
    words: Sequence[str],
    env: dict[str, str],
    rank: int | None,
    kwargs: Mapping[str, Any],
) -> tuple[subprocess.Popen[Any], int]:
    """Start a Python that calls `main` of one of our modules with words, to which the pipe for its
    report and LC_CTYPE are prepended; return the process and our end of that pipe."""
    if getattr(sys, "frozen", False) or not sys.executable:
        raise UsageError(
            "no Python interpreter can be started (sys.executable)",
            hint="start the whole program with ompbind run instead",
        )
    package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    ctype = f"={env['LC_CTYPE']}" if "LC_CTYPE" in env else ""
    ours, theirs = make_pipe()
    command = [sys.executable, *make_flags(), "-c", CODE.format(module=module),
               os.path.dirname(package), str(theirs), ctype, *words]  # fmt: skip
    fds = (*kwargs.get("pass_fds", ()), theirs)
    try:
        process = spawn(rank, command, env, {**kwargs, "pass_fds": fds})
    except BaseException:
        os.close(ours)
        raise
    finally:
        os.close(theirs)
    return process, ours


def make_flags() -> list[str]:
    """Return the options of that Python: isolated, without site, arguments kept byte by byte."""
    flags = ["-I", "-S", "-X", "utf8"]
    if sys.dont_write_bytecode:
        flags.append("-B")
    if sys.pycache_prefix is not None:
        flags += ["-X", f"pycache_prefix={sys.pycache_prefix}"]
    return flags


def spawn(
    rank: int | None, argv: Sequence[str], env: dict[str, str], kwargs: Mapping[str, Any]
) -> subprocess.Popen[Any]:
    """Call subprocess.Popen; raise its errors about the command as CommandError, but those about
    other arguments, such as cwd, as they are."""
    import subprocess

    try:
        return subprocess.Popen(argv, env=env, **kwargs)
    except OSError as e:
        if e.filename not in (None, argv[0]):
            raise
        subject = f"rank {rank}: its process" if rank is not None else "the process"
        reason = e.strerror or str(e)
        found = not isinstance(e, FileNotFoundError)
        raise CommandError(
            f"{subject} cannot be started: {reason}", found=found, rank=rank, errno=e.errno
        ) from None


def read_report(pipe: int) -> ChildReport:
    """Read to the pipe's end, which comes when the process becomes the worker or exits."""
    report = ChildReport(begun=False)
    for message in receive(pipe):
        kind, *texts = message
        if kind == "begun":
            report = report.replace(begun=True)
        elif kind == "warning":
            report = report.replace(warnings=(*report.warnings, *texts))
        elif kind == "error":
            error = parse_error(message)
            report = report.replace(error=error, status=error.status)
        elif kind == "status":
            report = report.replace(status=int(texts[0]))
    return report


def find_error(process: subprocess.Popen[Any], report: ChildReport) -> OmpbindError | None:
    """Return what kept a started process from becoming what it should, or None."""
    if report.begun:
        return report.error
    status = process.wait()
    return OmpbindError(
        f"{sys.executable!r}, which should bind the worker, exited with {status} before it could",
        hint="its own messages are on the worker's standard error",
        status=status,
    )


def supervise(
    plan: str,
    settings: str,
    command: Sequence[str],
    env: dict[str, str],
    kwargs: Mapping[str, Any],
) -> int:
    """Run a plan (as JSON) in a process that supervises its ranks, and wait for its status.
    `settings`: the values of the options of the launch, as JSON; `command`: the workers', or empty
    for the plan's.

    Raises OmpbindError. Whatever ends the waiting ends the ranks.
    """
    import tempfile

    if os.name != "posix":
        raise UsageError(
            f"ranks cannot be supervised on {sys.platform}",
            hint="start each with plan.popen",
        )
    with (
        tempfile.TemporaryFile() as temporary,
        open(move_up(os.dup(temporary.fileno())), "wb") as file,
    ):
        file.write(plan.encode("utf-8", "surrogateescape"))
        file.flush()
        file.seek(0)
        words = [str(os.getpid()), str(file.fileno()), settings, *command]
        kwargs = {**kwargs, "pass_fds": (file.fileno(),)}
        process, pipe = start_python("ompbind.cli.child", words, env, None, kwargs)
    with process:
        try:
            report = read_report(pipe)
            status = process.wait()
        except BaseException as e:
            end(process, PATIENCE if isinstance(e, KeyboardInterrupt) else 0)
            raise
    if error := find_error(process, report):
        raise error
    if report.status is not None:  # also where the program has reaped the process itself
        return report.status
    return status if status >= 0 else 128 - status


def end(process: subprocess.Popen[Any], patience: float) -> None:
    """End a process that supervises ranks, and with it the ranks. `patience`: seconds in which it
    may exit by itself, since a terminal interrupts it as well."""
    import subprocess

    try:
        try:
            process.wait(patience)
        except subprocess.TimeoutExpired:
            process.terminate()
            process.wait()
    except BaseException:
        process.kill()
        raise
