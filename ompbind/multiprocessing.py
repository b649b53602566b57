"""A multiprocessing context whose processes are a plan's ranks: each is bound, with its environment
complete, before its interpreter starts.

The ways of the standard library's "spawn" method, but for what is started: a process that binds
itself and then becomes the interpreter, with the same pid and descriptors. What multiprocessing
keeps for the whole program, its executable for one, stays as it is.
"""

from __future__ import annotations

import io
import multiprocessing
import os
import threading
import time
from contextlib import ExitStack
from multiprocessing import popen_spawn_posix, reduction, resource_tracker, spawn, util
from multiprocessing.context import SpawnContext, SpawnProcess, set_spawning_popen

from ompbind.errors import PlanError, UsageError
from ompbind.launch.popen import start_rank

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from multiprocessing.managers import SyncManager
    from multiprocessing.pool import Pool
    from subprocess import Popen as Subprocess
    from typing import Any, Literal

    from ompbind.plans import Plan

PATIENCE = 5.0  # seconds that a start waits for an ending process to free its rank


def get_context(
    plan: Plan, method: str = "spawn", *, on_denied: Literal["error", "degrade"] = "error"
) -> Context:
    """A context for the plan's ranks. Raises UsageError for another method than spawn."""
    check_method(method)
    if os.name != "posix":
        raise UsageError("ranks cannot be multiprocessing's processes on this system")
    return Context(Ranks(plan, on_denied))


def check_method(method: str | None) -> None:
    if method not in (None, "spawn"):
        raise UsageError(
            f"method {method!r}: only spawned processes are bound before their interpreter starts",
            hint="spawn is the method; a forked process inherits its parent's binding, threads and"
            " OpenMP runtime",
        )


class Ranks:
    """The ranks of a plan, and the live process that has each. Safe from several threads."""

    def __init__(self, plan: Plan, on_denied: str) -> None:
        self.plan = plan
        self.on_denied = on_denied
        self._lock = threading.Lock()
        self._holders: dict[int, Popen] = {}

    def take(self, wanted: int | None, holder: Popen) -> int:
        """The lowest free rank, or the wanted one, which is then not free any more.

        A process that is about to end is waited for, not long. Raises PlanError.
        """
        count = len(self.plan.ranks)
        if wanted is not None and not 0 <= wanted < count:
            raise PlanError(f"rank {wanted}: the plan has {count} ranks, from 0", rank=wanted)
        deadline = time.monotonic() + PATIENCE
        while True:
            with self._lock:
                self._holders = {r: h for r, h in self._holders.items() if not h.has_ended()}
                live = {r: h.started_pid for r, h in self._holders.items()}
                free = [r for r in range(count) if r not in live]
                if (wanted is None and free) or wanted in free:
                    rank = free[0] if wanted is None else wanted
                    self._holders[rank] = holder
                    return rank
            if time.monotonic() > deadline:
                raise taken(wanted, live)
            time.sleep(0.01)

    def give_back(self, rank: int) -> None:
        with self._lock:
            del self._holders[rank]


def taken(wanted: int | None, live: Mapping[int, int | None]) -> PlanError:
    if wanted is not None:
        message = f"rank {wanted} has a live process (pid {live[wanted]})"
    else:
        message = f"all {len(live)} ranks of the plan have a live process"
    hint = "join a process first, or plan more ranks"
    return PlanError(message, hint=hint, rank=wanted, wanted=1, available=0)


class Popen(popen_spawn_posix.Popen):
    """A started process, as multiprocessing sees it."""

    _fds: list[int]
    _process: Subprocess[Any] | None = None

    def _launch(self, process_obj: Process) -> None:
        ranks, wanted = process_obj._ranks, process_obj.rank
        process_obj.rank = rank = ranks.take(wanted, self)
        try:
            self._start(process_obj, ranks, rank)
        except BaseException:
            if self._process:
                self._process.kill()
                self._process.wait()
            ranks.give_back(rank)
            process_obj.rank = wanted
            raise

    def _start(self, process_obj: Process, ranks: Ranks, rank: int) -> None:
        tracker = resource_tracker.getfd()
        self._fds.append(tracker)  # type: ignore[arg-type]  # it runs: this started it
        data = self._dump(process_obj)
        with ExitStack() as ours, ExitStack() as theirs:
            self.sentinel, child_writes = open_pipe(ours, theirs)
            child_reads, parent_writes = open_pipe(theirs, ours)
            self._fds += [child_reads, child_writes]
            argv = spawn.get_command_line(tracker_fd=tracker, pipe_handle=child_reads)
            self._process = start_rank(
                ranks.plan,
                ranks.plan.ranks[rank],
                [os.fsdecode(word) for word in argv],
                os.environ,
                on_denied=ranks.on_denied,
                pass_fds=self._fds,
            )
            ours.pop_all()
        self.pid = self._process.pid
        self.finalizer = util.Finalize(self, close_fds, (self.sentinel, parent_writes))
        # Only the child has its ends now: should it have died, this does not wait for a reader.
        try:
            with open(parent_writes, "wb", closefd=False, buffering=0) as file:
                while data:
                    data = data[file.write(data) :]
        except BrokenPipeError:
            pass  # its exit status tells

    def _dump(self, process_obj: Process) -> memoryview:
        """What the child is to know and do."""
        preparation = spawn.get_preparation_data(process_obj.name)
        buffer = io.BytesIO()
        set_spawning_popen(self)
        try:
            reduction.dump(preparation, buffer)
            reduction.dump(process_obj, buffer)
        finally:
            set_spawning_popen(None)
        return buffer.getbuffer()

    @property
    def started_pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    def has_ended(self) -> bool:
        return self._process is not None and self.poll() is not None

    def poll(self, flag: int = os.WNOHANG) -> int | None:
        """The exit status, if it has ended; unlike multiprocessing's own, safe from several
        threads at once."""
        if self.returncode is None and self._process is not None:
            code = self._process.poll() if flag == os.WNOHANG else self._process.wait()
            if code is not None:
                self.returncode = code
        return self.returncode


def open_pipe(reader: ExitStack, writer: ExitStack) -> tuple[int, int]:
    """A pipe, each end to be closed with its stack."""
    reads, writes = os.pipe()
    reader.callback(os.close, reads)
    writer.callback(os.close, writes)
    return reads, writes


def close_fds(*fds: int) -> None:
    for fd in fds:
        os.close(fd)


class Process(SpawnProcess):
    """A process that is a rank: `rank` when it was asked for, and in any case once started."""

    _ranks: Ranks

    def __init__(self, *args: Any, rank: int | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.rank = rank

    @staticmethod
    def _Popen(process_obj: Process) -> Popen:  # type: ignore[override]  # noqa: N802
        return Popen(process_obj)

    def __reduce__(self) -> tuple[object, ...]:
        """In the child it is one of the standard library's: the class itself is a context's own."""
        kind = type(self)
        return make_process, (SpawnProcess if "_ranks" in vars(kind) else kind,), vars(self)


def make_process(kind: type[SpawnProcess]) -> SpawnProcess:
    return kind.__new__(kind)


class Context(SpawnContext):
    """What multiprocessing.get_context returns, for a plan's ranks: the n-th process started gets
    the n-th rank, one that has ended frees its own, and the lowest free comes first."""

    Process: type[Process]  # type: ignore[misc]  # each context has its own

    def __init__(self, ranks: Ranks) -> None:
        self.plan = ranks.plan
        self.Process = type("Process", (Process,), {"_ranks": ranks})

    def __reduce__(self) -> tuple[object, ...]:
        raise TypeError("a context knows which ranks are free: it stays in the program it is from")

    def get_context(self, method: str | None = None) -> Context:  # type: ignore[override]
        """This context; another method than spawn raises UsageError."""
        check_method(method)
        return self

    def Pool(  # noqa: N802
        self,
        processes: int | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: Iterable[Any] = (),
        maxtasksperchild: int | None = None,
    ) -> Pool:
        """A pool of as many processes as there are ranks, if `processes` does not say."""
        count = len(self.plan.ranks) if processes is None else processes
        return super().Pool(count, initializer, initargs, maxtasksperchild)

    def Manager(self) -> SyncManager:  # noqa: N802
        """A manager, whose process is no rank."""
        return multiprocessing.get_context("spawn").Manager()
