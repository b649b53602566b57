"""A multiprocessing context whose processes are a plan's ranks: each is bound, with its environment
complete, before its interpreter starts.

It works as the standard library's "spawn" method, but what it starts is a process that binds itself
and then becomes the interpreter, with the same pid and descriptors. What multiprocessing keeps for
the whole program, such as its executable, is not changed.
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

PATIENCE = 5.0  # seconds that a start waits for an exiting process to free its rank


def get_context(
    plan: Plan, method: str = "spawn", *, on_denied: Literal["error", "degrade"] = "error"
) -> Context:
    """Return a context for the plan's ranks. Raises UsageError for any method but spawn."""
    check_method(method)
    if os.name != "posix":
        raise UsageError("multiprocessing cannot start ranks on this system")
    return Context(Ranks(plan, on_denied))


def check_method(method: str | None) -> None:
    if method not in (None, "spawn"):
        raise UsageError(
            f"method {method!r}: only a spawned process can be bound before its interpreter starts",
            hint="use spawn; a forked process inherits binding, threads and OpenMP runtime",
        )


class Ranks:
    """The ranks of a plan, and the live process that has each. Safe from several threads."""

    def __init__(self, plan: Plan, on_denied: str) -> None:
        self.plan = plan
        self.on_denied = on_denied
        self._lock = threading.Lock()
        self._holders: dict[int, Popen] = {}

    def take(self, wanted: int | None, holder: Popen) -> int:
        """Assign the wanted rank, or the lowest free one, to `holder` and return it.

        Waits for up to PATIENCE seconds for a process to exit. Raises PlanError.
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
                raise make_taken(wanted, live)
            time.sleep(0.01)

    def give_back(self, rank: int) -> None:
        with self._lock:
            del self._holders[rank]


def make_taken(wanted: int | None, live: Mapping[int, int | None]) -> PlanError:
    """Return the error for a rank that is not free; `live`: the pid of each live rank's process."""
    if wanted is not None:
        message = f"rank {wanted} has a live process (pid {live[wanted]})"
    else:
        message = f"all {len(live)} ranks of the plan have a live process"
    hint = "join a process first, or plan more ranks"
    return PlanError(message, hint=hint, rank=wanted, wanted=1, available=0)


class Popen(popen_spawn_posix.Popen):
    """A started process, with the interface that multiprocessing expects."""

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
        self._fds.append(tracker)  # type: ignore[arg-type]  # getfd has started it
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
        # Only the child has its ends now: if it has died, this does not wait for a reader.
        try:
            with open(parent_writes, "wb", closefd=False, buffering=0) as file:
                while data:
                    data = data[file.write(data) :]
        except BrokenPipeError:
            pass  # it has died; its exit status says why

    def _dump(self, process_obj: Process) -> memoryview:
        """Return the pickled preparation and process object, for the child to read."""
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
        """Return the exit status, None while it runs. Unlike multiprocessing's own method, this one
        may be called from several threads at once."""
        if self.returncode is None and self._process is not None:
            code = self._process.poll() if flag == os.WNOHANG else self._process.wait()
            if code is not None:
                self.returncode = code
        return self.returncode


def open_pipe(reader: ExitStack, writer: ExitStack) -> tuple[int, int]:
    """Return a new pipe's ends; each is closed with its stack."""
    reads, writes = os.pipe()
    reader.callback(os.close, reads)
    writer.callback(os.close, writes)
    return reads, writes


def close_fds(*fds: int) -> None:
    for fd in fds:
        os.close(fd)


class Process(SpawnProcess):
    """A process that is a rank. `rank`: its number; before the start None, unless requested."""

    _ranks: Ranks

    def __init__(self, *args: Any, rank: int | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.rank = rank

    @staticmethod
    def _Popen(process_obj: Process) -> Popen:  # type: ignore[override]  # noqa: N802
        return Popen(process_obj)

    def __reduce__(self) -> tuple[object, ...]:
        """Become one of the standard library's in the child: this class belongs to a context."""
        kind = type(self)
        return make_process, (SpawnProcess if "_ranks" in vars(kind) else kind,), vars(self)


def make_process(kind: type[SpawnProcess]) -> SpawnProcess:
    return kind.__new__(kind)


class Context(SpawnContext):
    """The counterpart of what multiprocessing.get_context returns, for a plan's ranks. A process
    gets the lowest free rank; one that has exited frees its rank."""

    Process: type[Process]  # type: ignore[misc]  # each context has its own

    def __init__(self, ranks: Ranks) -> None:
        self.plan = ranks.plan
        self.Process = type("Process", (Process,), {"_ranks": ranks})

    def __reduce__(self) -> tuple[object, ...]:
        raise TypeError("a context knows which ranks are free: it cannot be pickled")

    def get_context(self, method: str | None = None) -> Context:  # type: ignore[override]
        """Return this context. Raises UsageError for any method but spawn."""
        check_method(method)
        return self

    def Pool(  # noqa: N802
        self,
        processes: int | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: Iterable[Any] = (),
        maxtasksperchild: int | None = None,
    ) -> Pool:
        """Return a pool with as many processes as there are ranks, unless `processes` is given."""
        count = len(self.plan.ranks) if processes is None else processes
        return super().Pool(count, initializer, initargs, maxtasksperchild)

    def Manager(self) -> SyncManager:  # noqa: N802
        """Return a manager, whose process is not a rank."""
        return multiprocessing.get_context("spawn").Manager()
