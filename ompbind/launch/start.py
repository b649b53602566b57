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


def flush() -> None:
    """What was written so far comes before the workers' output."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:  # None: closed by whoever started us
            stream.flush()


def restore_signals() -> None:
    """Python ignores these two, and a worker would inherit that."""
    for name in ("SIGPIPE", "SIGXFSZ"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_DFL)


def cannot_execute(start: Start, reason: str) -> CommandError:
    name = start.rank.argv[0]
    return CommandError(
        f"rank {start.rank.rank}: {name!r} cannot be executed: {reason}", found=True
    )
