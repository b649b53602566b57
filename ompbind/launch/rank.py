"""A rank's process: what it needs, worked out before any is started; becoming the worker."""

from __future__ import annotations

import os
import sys

from ompbind.errors import CommandError
from ompbind.launch.binding import try_binding
from ompbind.launch.refusals import Refusal, denied, left_out
from ompbind.launch.syscalls import Library, set_memory
from ompbind.record import Record
from ompbind.worker.program import require_program

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from collections.abc import Callable, Mapping, Sequence
    from typing import NoReturn

    from ompbind.cpuset import CpuSet
    from ompbind.plans import Plan, RankPlan
else:
    import _signal as signal  # `signal` itself wraps this in enums, a third of the whole start-up


class Start(Record):
    """All that starting one rank needs, worked out before any is started. `stdin`, `stdout` and
    `stderr`: the descriptors that become the rank's; None: it has ompbind's own."""

    rank: RankPlan
    path: str
    argv: tuple[str, ...]
    env: dict[bytes, bytes]
    stdin: int | None = None
    stdout: int | None = None
    stderr: int | None = None

    @property
    def redirected(self) -> bool:
        return self.stdin is not None or self.stdout is not None or self.stderr is not None


Programs = dict[tuple[str, "str | None"], str]


def find_programs(plan: Plan, environ: Mapping[str, str]) -> Programs:
    """The files of the workers' commands, by name and by the PATH that a rank has of its own, which
    is what its command is looked for in. Raises CommandError."""
    found: Programs = {}
    for rank in plan.ranks:
        name, path = wanted = wanted_program(rank)
        if wanted not in found:
            base = environ if path is None else {**environ, "PATH": path}
            found[wanted] = require_program(name, base)
    return found


def wanted_program(rank: RankPlan) -> tuple[str, str | None]:
    return rank.command[0], dict(rank.env).get("PATH")


def make_starts(plan: Plan, environ: Mapping[str, str], programs: Programs) -> list[Start]:
    """For every rank; what they have in common is worked out once. Raises CommandError."""
    binder = require_program("numactl", environ) if plan.binder == "numactl" else ""
    base = encode(environ)
    starts = []
    for rank in plan.ranks:
        own, argv = dict(rank.env), rank.argv
        path = programs[wanted_program(rank)] if argv == rank.command else binder
        env = base | encode(own)
        for name in rank.unset:
            if name not in own:
                env.pop(os.fsencode(name), None)
        starts.append(Start(rank, path, argv, env))
    return starts


def encode(environ: Mapping[str, str]) -> dict[bytes, bytes]:
    return {os.fsencode(k): os.fsencode(v) for k, v in environ.items()}


def make_environ(rank: RankPlan, environ: Mapping[str, str]) -> dict[str, str]:
    """All of a worker's environment, made from this one, in which threads may set variables."""
    kept = {k: v for k in list(environ) if (v := environ.get(k)) is not None}
    return {k: v for k, v in kept.items() if k not in rank.unset} | dict(rank.env)


def run_alone(start: Start, on_denied: str, say: Callable[[str], None]) -> NoReturn:
    """Binds this process and becomes the only rank. Raises DeniedError, CommandError."""
    rank = start.rank
    for part, reason in try_binding(rank.binding):
        error = denied(rank, Refusal(rank.rank, part, reason))
        if on_denied != "degrade":
            raise error
        say(f"{error.message}; {left_out(part)}")
    execute(start)


def execute(start: Start) -> NoReturn:
    """Becomes the worker. Raises CommandError."""
    flush()
    restore_signals()
    err = os.dup(2) if start.stderr is not None else -1
    try:
        redirect(start)
        os.execve(start.path, start.argv, start.env)
    except OSError as e:
        if err >= 0:
            os.dup2(err, 2)  # to say so where the user is
        raise cannot_execute(start, e.strerror or str(e)) from None


class Gate(Record):
    """What ranks wait at until all are bound. `library` is loaded before forking; `supervisor`: the
    pid of their parent; `report`: where each says why it cannot execute; `go`: the pipe from which
    each takes a byte before it executes; `sigmask`: what they are to have."""

    library: Library
    supervisor: int
    report: int
    go: int
    sigmask: frozenset[int]


def become(start: Start, gate: Gate) -> NoReturn:
    """In the child, whose environment and binding its parent sees to: waits for all others and
    becomes the worker, or says in a line why not.

    Little is done here: all that is touched has to be copied for each rank.
    """
    reason = ""
    try:
        gate.library.die_with_parent(signal.SIGKILL)
        if os.getppid() != gate.supervisor:
            os._exit(125)  # it had gone before the kernel knew
        os.read(gate.go, 1)
        if start.redirected:
            redirect(start)
        signal.pthread_sigmask(signal.SIG_SETMASK, gate.sigmask)
        os.execv(start.path, start.argv)
    except OSError as e:
        reason = e.strerror or str(e)
    except BaseException as e:
        reason = repr(e)
    finally:
        os.write(gate.report, f"{start.rank.rank}\t{reason}\n".encode("utf-8", "replace"))
        os._exit(125)


def follow(parent: int) -> None:
    """Has this process ended, by TERM, when `parent`, which started it, ends."""
    Library().die_with_parent(signal.SIGTERM)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGTERM)  # it had gone before the kernel knew


class Inheritance:
    """What a rank's process inherits from this one, set before it is forked: its environment and
    its memory policy. In the child each would cost more than all else."""

    def __init__(self, library: Library, envs: Sequence[dict[bytes, bytes]]) -> None:
        """`envs`: the ranks', in the order of forking."""
        self.library = library
        befores = [dict(os.environb), *envs]
        self.changes = [list_changes(*pair) for pair in zip(befores, envs, strict=False)]
        self.changes.reverse()
        self.own: tuple[int, CpuSet] | None = None  # this process' policy, when it is another now
        self.policy: tuple[str, CpuSet] | None = None

    def next_environment(self) -> None:
        """Sets what execv passes on from now on to the next rank's."""
        for name, value in self.changes.pop():
            if value is None:
                os.unsetenv(name)
            else:
                os.putenv(name, value)

    def set_memory(self, mem: str, mems: CpuSet) -> None:
        """The memory policy, "none" this process' own. Raises OSError."""
        if mem == "none":
            self.restore()
        elif (mem, mems) != self.policy:
            own = self.own or self.library.memory(1)
            set_memory(mem, mems, self.library)
            self.own, self.policy = own, (mem, mems)

    def restore(self) -> None:
        """This process' own memory policy. Raises OSError."""
        if self.own is not None:
            self.library.memory(0, *self.own)
            self.own = self.policy = None


def list_changes(
    before: dict[bytes, bytes], after: dict[bytes, bytes]
) -> list[tuple[bytes, bytes | None]]:
    """What makes one environment the other; None: it goes."""
    gone: list[tuple[bytes, bytes | None]] = [(k, None) for k in before if k not in after]
    return gone + [(k, v) for k, v in after.items() if before.get(k) != v]


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
    name = start.argv[0]
    return CommandError(
        f"rank {start.rank.rank}: {name!r} cannot be executed: {reason}", found=True
    )
