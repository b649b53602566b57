"""A rank's process: what it needs, worked out before any is started; becoming the worker."""

from __future__ import annotations

import os
import sys

from ompbind.errors import CommandError
from ompbind.launch.binding import try_binding
from ompbind.launch.refusals import Refusal, denied, left_out
from ompbind.program import require_program
from ompbind.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from collections.abc import Callable, Mapping
    from typing import NoReturn

    from ompbind.plans import Plan, RankPlan
    from ompbind.syscalls import Library
else:
    import _signal as signal  # `signal` itself wraps this in enums, a third of the whole start-up


class Start(Record):
    """All that starting one rank needs, worked out before any is started. `stdin`, `stdout` and
    `stderr`: the descriptors that become the rank's; None: it has ompbind's own."""

    rank: RankPlan
    path: str
    env: dict[bytes, bytes]
    stdin: int | None = None
    stdout: int | None = None
    stderr: int | None = None


def make_start(
    plan: Plan, rank: RankPlan, environ: Mapping[str, str], programs: Mapping[str, str]
) -> Start:
    worker = rank.worker(plan.binder)
    path = programs[worker[0]]
    if rank.argv != worker:
        path = require_program(rank.argv[0], environ)
    env = make_environ(rank, environ)
    return Start(rank, path, {os.fsencode(k): os.fsencode(v) for k, v in env.items()})


def make_environ(rank: RankPlan, environ: Mapping[str, str]) -> dict[str, str]:
    """All of a worker's environment, made from this one, in which threads may set variables."""
    kept = {k: v for k in list(environ) if (v := environ.get(k)) is not None}
    return {k: v for k, v in kept.items() if k not in rank.unset} | dict(rank.env)


def run_alone(start: Start, on_denied: str, say: Callable[[str], None]) -> NoReturn:
    """Binds this process and becomes the only rank. Raises DeniedError, CommandError."""
    rank = start.rank
    for part, reason in try_binding(rank.cpus, rank.mem, rank.mems):
        error = denied(rank, Refusal(rank.rank, part, reason))
        if on_denied != "degrade":
            raise error
        say(f"{error.message}; {left_out(part)}")
    execute(start)


def execute(start: Start) -> NoReturn:
    """Becomes the worker. Raises CommandError."""
    flush()
    restore_signals()
    try:
        os.execve(start.path, start.rank.argv, start.env)
    except OSError as e:
        raise cannot_execute(start, e.strerror or str(e)) from None


class Gate(Record):
    """What ranks wait at until all are bound. `library` is loaded before forking; `supervisor`: the
    pid of their parent; `report`: where each says what was refused, and when it is through;
    `go`: the pipe whose end lets them all execute; `sigmask`: what they are to have; `bind`:
    whether a rank binds itself or its command does; `foreground`: the rank that is in the process
    `group` that the user started, to read the terminal."""

    library: Library
    supervisor: int
    report: int
    go: tuple[int, int]
    sigmask: frozenset[int]
    bind: bool
    group: int
    foreground: int | None = None


def become(start: Start, gate: Gate) -> NoReturn:
    """In the child: binds, waits for all others, and becomes the worker, or says why not.

    What it reports is lines of a rank, what was refused and why, and an empty line when it is
    through.
    """
    part, reason = "exec", ""
    try:
        rank = start.rank
        os.setpgid(0, gate.group if rank.rank == gate.foreground else 0)
        gate.library.die_with_parent(signal.SIGKILL)
        if os.getppid() != gate.supervisor:
            os._exit(125)  # it had gone before the kernel knew
        os.close(gate.go[1])
        refused = []
        if gate.bind:
            refused = try_binding(rank.cpus, rank.mem, rank.mems, gate.library)
        lines = [f"{rank.rank}\t{part}\t{why}\n" for part, why in refused]
        os.write(gate.report, f"{''.join(lines)}\n".encode("utf-8", "replace"))
        os.read(gate.go[0], 1)
        redirect(start)
        restore_signals()
        signal.pthread_sigmask(signal.SIG_SETMASK, gate.sigmask)
        os.execve(start.path, rank.argv, start.env)
    except OSError as e:
        reason = e.strerror or str(e)
    except BaseException as e:
        reason = repr(e)
    finally:
        os.write(gate.report, f"{start.rank.rank}\t{part}\t{reason}\n".encode("utf-8", "replace"))
        os._exit(125)


def follow(parent: int) -> None:
    """Has this process ended, by TERM, when `parent`, which started it, ends."""
    from ompbind.syscalls import Library

    Library().die_with_parent(signal.SIGTERM)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGTERM)  # it had gone before the kernel knew


def redirect(start: Start) -> None:
    """Makes the rank's own descriptors this process' standard ones."""
    for fd, own in enumerate((start.stdin, start.stdout, start.stderr)):
        if own is not None:
            os.dup2(own, fd)  # exec closes `own`, as every descriptor that Python made


def flush() -> None:
    """What was written so far comes before the workers' output."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:  # None: closed by whoever started us
            stream.flush()


def restore_signals() -> None:
    """Python ignores the first two, and handles INT: a worker has what ompbind was given."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    for name in ("SIGPIPE", "SIGXFSZ"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_DFL)


def cannot_execute(start: Start, reason: str) -> CommandError:
    name = start.rank.argv[0]
    return CommandError(
        f"rank {start.rank.rank}: {name!r} cannot be executed: {reason}", found=True
    )
