"""Ranks started from a Python program that goes on: through a small process that binds itself and
becomes the worker, so that nothing of the program's own changes, at no instant.

Neither a fork of the program, which may have threads, nor code in it between fork and exec.
"""

from __future__ import annotations

import os
import sys

from ompbind.errors import CommandError, OmpbindError, UsageError
from ompbind.launch.pipes import make_pipe, move_up
from ompbind.launch.rank import make_environ
from ompbind.launch.report import parse_told
from ompbind.launch.trampoline import make_words

TYPE_CHECKING = False
if TYPE_CHECKING:
    import subprocess
    from collections.abc import Mapping, Sequence
    from typing import Any

    from ompbind.launch.report import Told
    from ompbind.plans import Plan, RankPlan

# Of subprocess.Popen's arguments those that cannot be had here, and what can.
REFUSED = {
    "preexec_fn": "a program with threads must not run code between fork and exec",
    "shell": "nothing goes through a shell: give the worker's arguments as a list",
    "executable": "the worker's program is the first of its arguments",
    "close_fds": "name the descriptors that the worker is to have in pass_fds",
    "restore_signals": "a worker starts with Python's ignored signals restored",
}
PATIENCE = 2.0  # seconds in which ranks that were interrupted may end by themselves
DEFAULTS = {"close_fds": True, "restore_signals": True, "shell": False}

# Ours is found beside the standard library: no site, no PYTHON* variable changes what is run.
CODE = "import sys; sys.path.append(sys.argv[1]); from {module} import main; main(sys.argv[2:])"


def start_rank(
    plan: Plan,
    rank: RankPlan,
    argv: Sequence[str],
    environ: Mapping[str, str],
    *,
    on_denied: str = "error",
    **kwargs: Any,
) -> subprocess.Popen[Any]:
    """Starts a rank's worker, bound and with its environment, and returns when its program has
    begun; `argv` is its own command, `kwargs` are Popen's.

    Raises DeniedError, CommandError, UsageError; then nothing is left over.
    """
    for name, value in kwargs.items():
        if name in REFUSED and value is not None and value != DEFAULTS.get(name):
            raise UsageError(f"{name}={value!r} cannot be had for a rank", hint=REFUSED[name])
    if on_denied not in ("error", "degrade"):
        raise UsageError(f"on_denied: {on_denied!r} is not one of error, degrade")
    env = make_environ(rank, environ)
    if plan.binder == "none":
        return spawn(rank.rank, argv, env, kwargs)
    if not hasattr(os, "sched_setaffinity"):
        raise UsageError(
            f"the plan binds ({plan.binder}), which {sys.platform} cannot",
            hint="make the plan on the machine where it is to run",
        )
    words = make_words(plan, rank, argv, on_denied)
    process, report = start_python("ompbind.launch.trampoline", words, env, rank.rank, kwargs)
    process.args = list(argv)
    try:
        told = read_report(report)
        for text in told.warnings:
            import warnings

            warnings.warn(text, RuntimeWarning, stacklevel=3)  # may be an error
    except BaseException:
        process.kill()
        with process:
            raise
    if error := error_of(process, told):
        with process:  # closes its pipes and takes it away
            raise error
    return process


def start_python(
    module: str,
    words: Sequence[str],
    env: dict[str, str],
    rank: int | None,
    kwargs: Mapping[str, Any],
) -> tuple[subprocess.Popen[Any], int]:
    """Starts a Python that calls `main` of a module of ours with words, the first two being its
    report's descriptor and LC_CTYPE; the process, and where its report can be read."""
    if getattr(sys, "frozen", False) or not sys.executable:
        raise UsageError(
            "there is no Python that could be started (sys.executable)",
            hint="start the whole program with ompbind run instead",
        )
    package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    ctype = f"={env['LC_CTYPE']}" if "LC_CTYPE" in env else ""
    ours, theirs = make_pipe()
    command = [sys.executable, *own_flags(), "-c", CODE.format(module=module),
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


def own_flags() -> list[str]:
    """How that Python is started: isolated, without site, its arguments' bytes kept."""
    flags = ["-I", "-S", "-X", "utf8"]
    if sys.dont_write_bytecode:
        flags.append("-B")
    if sys.pycache_prefix is not None:
        flags += ["-X", f"pycache_prefix={sys.pycache_prefix}"]
    return flags


def spawn(
    rank: int | None, argv: Sequence[str], env: dict[str, str], kwargs: Mapping[str, Any]
) -> subprocess.Popen[Any]:
    """subprocess.Popen, whose errors about the command are CommandError; those about other
    arguments, such as cwd, stay as they are."""
    import subprocess

    try:
        return subprocess.Popen(argv, env=env, **kwargs)
    except OSError as e:
        if e.filename not in (None, argv[0]):
            raise
        what = f"rank {rank}: its process" if rank is not None else "the process"
        reason = e.strerror or str(e)
        found = not isinstance(e, FileNotFoundError)
        raise CommandError(
            f"{what} cannot be started: {reason}", found=found, rank=rank, errno=e.errno
        ) from None


def read_report(fd: int) -> Told:
    """Reads to the end, which comes when the process has become the worker, or has ended."""
    with open(fd, "rb") as pipe:
        return parse_told(pipe.read().decode())


def error_of(process: subprocess.Popen[Any], told: Told) -> OmpbindError | None:
    """What kept a started process from becoming what it should."""
    if told.begun:
        return told.error
    status = process.wait()
    return OmpbindError(
        f"{sys.executable!r}, which was to bind the worker, ended with {status} before it could",
        hint="what it wrote is on the worker's standard error",
        status=status,
    )


def supervise(
    plan: str,
    options: Sequence[str],
    command: Sequence[str],
    env: dict[str, str],
    kwargs: Mapping[str, Any],
) -> int:
    """Runs a plan (its JSON) in a process that watches over its ranks, and waits for its status.

    Raises OmpbindError. Whatever ends the waiting ends the ranks.
    """
    import tempfile

    if os.name != "posix":
        raise UsageError(
            f"all ranks cannot be watched over on {sys.platform}",
            hint="start each with plan.popen",
        )
    with tempfile.TemporaryFile() as hidden, open(move_up(os.dup(hidden.fileno())), "wb") as file:
        file.write(plan.encode("utf-8", "surrogateescape"))
        file.flush()
        file.seek(0)
        words = [str(os.getpid()), str(file.fileno()), *options, *command]
        kwargs = {**kwargs, "pass_fds": (file.fileno(),)}
        process, report = start_python("ompbind.cli.child", words, env, None, kwargs)
    with process:
        try:
            told = read_report(report)
            status = process.wait()
        except BaseException as e:
            end(process, PATIENCE if isinstance(e, KeyboardInterrupt) else 0)
            raise
    if error := error_of(process, told):
        raise error
    if told.status is not None:  # also where someone else has taken the process away
        return told.status
    return status if status >= 0 else 128 - status


def end(process: subprocess.Popen[Any], patience: float) -> None:
    """Ends a process that watches over ranks, which takes them along; `patience`: seconds in which
    it may end by itself, as where a terminal has interrupted it, too."""
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
