"""Forking ranks: the loop that forks several, and what a forked process does until it executes.

What the parent writes between two forks is copied for each of them, and so is what a child touches,
page by page: at 64 ranks that was half of the processor time of a launch. So all that ranks need is
made before the first is forked, the loop does nothing else, and the child calls only a few
functions, on objects that are there.

A child asks for the signal at its parent's death and waits until all ranks are bound. Neither can
be had without a fork: posix_spawn has no prctl, and its child executes at once.
"""

from __future__ import annotations

import os

from ompbind.errors import CommandError
from ompbind.launch.syscalls import Library, set_memory, signal
from ompbind.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import NoReturn

    from ompbind.cpuset import CpuSet
    from ompbind.launch.rank import Start
    from ompbind.launch.syscalls import PreparedCall

    Moves = Sequence[tuple[int, int]]  # which descriptors become which numbers
    # A rank's start, its descriptors, and the calls that do both without an error.
    Child = tuple[Start, Moves, Sequence[PreparedCall]]


class Gate(Record):
    """What forked ranks need to wait until all are bound. `library`: loaded before forking;
    `supervisor`: their parent's pid; `error_pipe`: where they report that they cannot execute;
    `start_pipe`: each takes a byte from here before it executes; `sigmask`: the workers'; `files`:
    their limits of open files, soft and hard, where they are not the supervisor's."""

    library: Library
    supervisor: int
    error_pipe: int
    start_pipe: int
    sigmask: frozenset[int]
    files: tuple[int, int] | None = None


def fork_ranks(
    starts: Sequence[Start], leases: Sequence[Moves], gate: Gate, pids: list[int]
) -> None:
    """Fork a process for each rank, and add it to `pids` at once. `leases`: what else than its
    streams a rank inherits. Raises CommandError."""
    children = [make_child(start, lease, gate) for start, lease in zip(starts, leases, strict=True)]
    fork, execute = os.fork, make_executor(gate)
    for child in children:
        try:
            pid = fork()
        except OSError as e:
            reason = e.strerror or str(e)
            text = f"rank {child[0].rank.name}: its process cannot be created: {reason}"
            raise CommandError(text, found=True) from None
        if pid == 0:
            execute(child)
        pids.append(pid)


def make_child(start: Start, lease: Moves, gate: Gate) -> Child:
    """Prepare what a rank's process does after the gate; no calls where these cannot do it."""
    moves, library = (*start.moves, *lease), gate.library
    execute = library.prepare_exec(start.path, start.argv, start.env)
    if execute is None or gate.files:
        return start, moves, ()
    mask = library.prepare_mask(gate.sigmask)
    return start, moves, (*(library.prepare_move(*move) for move in moves), mask, execute)


def make_executor(gate: Gate) -> Callable[[Child], NoReturn]:
    """Return what a forked process calls to become its rank: wait for all others, and execute, or
    report why that fails. All that it needs is in variables of its own: attributes would be looked
    up in pages that are copied for it."""
    death, supervisor = gate.library.prepare_death(signal.SIGKILL), gate.supervisor
    start_pipe, getppid, read, leave = gate.start_pipe, os.getppid, os.read, os._exit

    def execute(child: Child) -> NoReturn:
        start, moves, calls = child
        reason = ""
        try:
            for call, arguments in death:
                if call(*arguments) < 0:
                    gate.library.die_with_parent(signal.SIGKILL)  # raises the error
            if getppid() != supervisor:
                leave(125)  # it exited before the kernel knew
            read(start_pipe, 1)
            for call, arguments in calls:
                if call(*arguments) < 0:
                    break
            execute_plainly(start, moves, gate)
        except OSError as e:
            reason = e.strerror or str(e)
        except BaseException as e:
            reason = repr(e)
        finally:
            try:
                report_failure(gate, start, reason)
            finally:
                leave(125)

    return execute


def execute_plainly(start: Start, moves: Moves, gate: Gate) -> NoReturn:
    """Become the worker by Python's functions, which say what fails. Raises OSError, ValueError."""
    for fd, number in moves:
        os.dup2(fd, number)  # exec closes `fd`, as every descriptor that Python made
    if gate.files:
        import resource  # loaded before forking

        resource.setrlimit(resource.RLIMIT_NOFILE, gate.files)
    signal.pthread_sigmask(signal.SIG_SETMASK, gate.sigmask)
    os.execve(start.path, start.argv, start.env)


def report_failure(gate: Gate, start: Start, reason: str) -> None:
    """Report why a rank cannot execute. All ranks share the pipe, so the message is short."""
    from ompbind.launch.pipes import send

    send(gate.error_pipe, str(start.rank.rank), "command", reason[:500])


class Inheritance:
    """The memory policy that a rank's process inherits from this one, set before it is forked: to
    set it in the child would cost more than all else it does."""

    def __init__(self, library: Library) -> None:
        self.library = library
        self.original: tuple[int, CpuSet] | None = None  # this process's policy while it is changed
        self.policy: tuple[str, CpuSet, bool] | None = None  # the policy that is set now

    def set_memory(self, mem: str, mems: CpuSet, balancing: bool = False) -> None:
        """Set the memory policy; "none" is this process's original one. Raises OSError."""
        policy = (mem, mems, balancing)
        if mem == "none":
            self.restore()
        elif policy != self.policy:
            original = self.original or self.library.memory(1)
            set_memory(mem, mems, self.library, balancing=balancing)
            self.original, self.policy = original, policy

    def restore(self) -> None:
        """Set this process's original memory policy. Raises OSError."""
        if self.original is not None:
            self.library.memory(0, *self.original)
            self.original = self.policy = None
