"""What a launch and its ranks' starts need, and how a process becomes a worker."""

from __future__ import annotations

import os
import sys

from ompbind.errors import CommandError
from ompbind.launch.binding import make_degraded, make_denied, try_binding
from ompbind.launch.syscalls import Library, restore_signals, signal
from ompbind.record import Record
from ompbind.worker import require_program

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import NoReturn

    from ompbind.host import Lease
    from ompbind.launch.warm import Warming
    from ompbind.plans import Plan, RankPlan

    Say = Callable[[str, str], None]  # a kind ("note", "warning", "error") and a text
    # Returns what is reported of a plan's ranks when they start, a line each.
    Announce = Callable[[Plan], Sequence[str]]

    # By rank: the pids of the living, and of the others the seconds from start to exit.
    Prove = Callable[[Plan, Mapping[int, int], Mapping[int, float], Say], float | None]

    # The workers' files, by command name and the PATH that a rank has of its own; and NUMACTL.
    Programs = dict[tuple[str, str | None], str]

NUMACTL = ("numactl", None)


class Settings(Record):
    """How ranks are started, watched and ended: the options of `run` that are not the plan's."""

    on_denied: str = "error"
    watched: bool = False  # a single rank is a child, too, instead of replacing this process
    supervise: bool | None = None  # --supervise; None: as the command needs it
    may_switch: bool = False  # --binder auto: a numactl that does not work is replaced
    grace: float = 10.0  # seconds from each step of the stop ladder to the next
    on_failure: str = "stop"
    leave_children: bool = False
    output: str = ""  # --output, "" the default
    output_dir: str = ""  # where the ranks' files go, "" for no files
    overwrite: bool = False
    stdin: str = ""  # --stdin, "" the default
    verbose: bool = False
    quiet: bool = False
    report: str = ""  # the file for what each rank has used, "" for none
    report_bindings: bool = False
    announce: Announce | None = None  # for --report-bindings
    warming: Warming | None = None  # shows how far --warm is
    verify: float | None = None  # seconds within which ranks are to be as planned
    verify_strict: bool = False  # ranks that are not as planned are an error
    # Called when all ranks have executed, again after the seconds that it returns, and when all
    # have exited, until it returns None; an error that it raises ends all ranks.
    prove: Prove | None = None

    @property
    def reader(self) -> int | None:
        """The rank that shares ompbind's standard input."""
        return None if self.stdin in ("all", "none") else int(self.stdin or 0)

    @property
    def redirects(self) -> bool:
        """Whether a single rank has other streams than ompbind's."""
        return bool(self.output_dir) or self.stdin not in ("", "0", "all")


class Launch(Record):
    """Ranks to be started, and how. `programs`: the workers' files; `lease`: holds the ranks' cpus
    until they do themselves, None where they cannot be held."""

    plan: Plan
    environ: Mapping[str, str]
    programs: Programs
    settings: Settings
    lease: Lease | None = None

    def drop_lease(self) -> None:
        """Let this process hold the ranks' cpus no longer."""
        if self.lease is not None:
            self.lease.close()

    def make_starts(self) -> list[Start]:
        """Prepare every rank's start. Raises CommandError."""
        return make_starts(self.plan, self.environ, self.programs)


class Start(Record):
    """What the start of one rank needs: `path` is executed with `argv` in `env`. `stdin`, `stdout`
    and `stderr`: the descriptors that become the rank's; None: it shares ompbind's."""

    rank: RankPlan
    path: str
    argv: tuple[str, ...]
    env: dict[bytes, bytes]
    stdin: int | None = None
    stdout: int | None = None
    stderr: int | None = None

    @property
    def moves(self) -> tuple[tuple[int, int], ...]:
        """Which descriptors become which standard streams."""
        streams = enumerate((self.stdin, self.stdout, self.stderr))
        return tuple((fd, number) for number, fd in streams if fd is not None)


def find_programs(plan: Plan, environ: Mapping[str, str]) -> Programs:
    """Return the files of the workers' commands, and numactl's where it binds. A PATH that the plan
    sets for a rank counts.

    Raises CommandError.
    """
    programs: Programs = {}
    if plan.binder == "numactl":
        programs[NUMACTL] = require_program(NUMACTL[0], environ)
    for rank in plan.ranks:
        key = name, path = program_key(rank)
        if key not in programs:
            base = environ if path is None else {**environ, "PATH": path}
            programs[key] = require_program(name, base)
    return programs


def program_key(rank: RankPlan) -> tuple[str, str | None]:
    return rank.command[0], dict(rank.env).get("PATH")


def make_starts(plan: Plan, environ: Mapping[str, str], programs: Programs) -> list[Start]:
    """Prepare every rank's start; what they share is computed once."""
    base = encode(environ)
    starts = []
    for rank in plan.ranks:
        added, argv = dict(rank.env), rank.argv
        path = programs[program_key(rank) if argv == rank.command else NUMACTL]
        env = base | encode(added)
        for name in rank.unset:
            if name not in added:
                env.pop(os.fsencode(name), None)
        starts.append(Start(rank, path, argv, env))
    return starts


def encode(environ: Mapping[str, str]) -> dict[bytes, bytes]:
    return {os.fsencode(k): os.fsencode(v) for k, v in environ.items()}


def make_environ(rank: RankPlan, environ: Mapping[str, str]) -> dict[str, str]:
    """Return a worker's whole environment, made from a mapping that other threads may change."""
    kept = {k: v for k in list(environ) if (v := environ.get(k)) is not None}
    return {k: v for k, v in kept.items() if k not in rank.unset} | dict(rank.env)


# --- this process becomes the worker -------------------------------------------------------------


def bind(rank: RankPlan, on_denied: str, say: Callable[[str], None]) -> RankPlan:
    """Bind this process, which is to become the only rank, and return that as it is bound: without
    what is denied, which is reported to `say`. Raises DeniedError."""
    refusals = try_binding(rank.rank, rank.binding)
    for refusal in refusals:
        if on_denied != "degrade":
            raise make_denied(rank, refusal)
        say(make_degraded(rank, refusal))
    return rank.rebind(rank.binding.without([r.part for r in refusals])) if refusals else rank


def execute(start: Start) -> NoReturn:
    """Become the worker. Raises CommandError."""
    flush()
    restore_signals()
    stderr = os.dup(2) if start.stderr is not None else -1
    try:
        redirect(start)
        os.execve(start.path, start.argv, start.env)
    except OSError as e:
        if stderr >= 0:
            os.dup2(stderr, 2)  # the error belongs where the user looks
        raise cannot_execute(start, e.strerror or str(e)) from None


def redirect(start: Start) -> None:
    """Make the rank's descriptors this process's standard streams."""
    for fd, number in start.moves:
        os.dup2(fd, number)  # exec closes `fd`, as every descriptor that Python made


def flush() -> None:
    """Write what is buffered, so that it comes before the workers' output."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:  # None: closed by the process that started us
            stream.flush()


def cannot_execute(start: Start, reason: str) -> CommandError:
    """Return the error for a command that exec refuses."""
    return CommandError(
        f"rank {start.rank.name}: {start.argv[0]!r} cannot be executed: {reason}", found=True
    )


def die_with(parent: int) -> None:
    """Ask the kernel to send this process SIGTERM when `parent`, its parent, exits."""
    Library().die_with_parent(signal.SIGTERM)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGTERM)  # it exited before the kernel knew
