"""The multiprocessing context: its processes are ranks, bound before their interpreter starts."""

from __future__ import annotations

import gc
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import threading
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import shared_memory, spawn
from pathlib import Path
from typing import Any

import pytest

import ompbind
from tests.support import pool_workers
from tests.support.commands import environment
from tests.support.confine import denying
from tests.support.needs import need_binder, need_cpus, unavailable
from tests.support.observe import mask_of, policy_text, read_words, status_field
from tests.support.recorder import alive, wait_for
from tests.support.untouched import Holdings, children, untouched

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="ompbind binds on Linux only")

TIMEOUT = 60


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plans do not depend on what the tests inherit."""
    for name in set(os.environ) - set(environment()):
        monkeypatch.delenv(name)


@pytest.fixture
def plan() -> ompbind.Plan:
    """Two ranks, each with a cpu of its own."""
    return two_ranks(binder="native")


def two_ranks(**options: Any) -> ompbind.Plan:
    return ompbind.plan(numa_bind_cpus=[[cpu] for cpu in need_cpus(2)], **options)


@pytest.fixture
def context(plan: ompbind.Plan) -> ompbind.multiprocessing.Context:
    return ompbind.multiprocessing.get_context(plan)


def expected(plan: ompbind.Plan, rank: int) -> tuple[int, list[int]]:
    return rank, list(plan.ranks[rank].cpus)


def rank_and_cpus(seen: pool_workers.Seen) -> tuple[int, list[int]]:
    return seen[0], seen[2]


@pytest.mark.parametrize("binder", ["native", "numactl"])
def test_processes_are_ranks(binder: str) -> None:
    """The n-th started has the n-th rank: its cpus, memory and environment, by what the kernel says
    of it; the rest of it is as with the standard library's spawn."""
    need_binder(binder)
    plan = two_ranks(binder=binder, numa_bind_nodes=[0, 0])
    context = ompbind.multiprocessing.get_context(plan)
    ready, go = context.Semaphore(0), context.Event()
    processes = [context.Process(target=pool_workers.stay, args=(ready, go)) for _ in plan.ranks]
    with untouched() as looks:
        for process in processes:
            process.start()
        for _ in processes:
            assert ready.acquire(timeout=TIMEOUT)
    assert looks[0] > 20
    for rank, process in enumerate(processes):
        assert process.rank == rank
        there = Path("/proc", str(process.pid))
        assert {tuple(mask_of(task)) for task in (there / "task").iterdir()} == {
            tuple(plan.ranks[rank].cpus)
        }
        policies = {line.split()[1] for line in (there / "numa_maps").read_text().splitlines()}
        assert policies & set(policy_text("bind", "0"))
        env = dict(word.partition("=")[::2] for word in read_words(there / "environ"))
        assert env == dict(os.environ) | dict(plan.ranks[rank].env)
        assert status_field(there, "PPid") == str(os.getpid())
        command = read_words(there / "cmdline")
        assert command[0] == sys.executable
        assert command[-1] == "--multiprocessing-fork"
    go.set()
    for process in processes:
        process.join(TIMEOUT)
        assert process.exitcode == 0


def test_it_is_bound_before_its_interpreter_starts(
    plan: ompbind.Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What Python runs first of all, before it knows that it is a worker, finds all of it there."""
    (tmp_path / "sitecustomize.py").write_text(
        "import os, sys\n"
        "sys.bound_at_start = (sorted(os.sched_getaffinity(0)), os.environ['OMP_PLACES'])\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    context = ompbind.multiprocessing.get_context(plan)
    queue = context.SimpleQueue()
    process = context.Process(target=pool_workers.tell_start, args=(queue,), rank=1)
    process.start()
    cpu = plan.ranks[1].cpus.first
    assert queue.get() == ([cpu], f"{{{cpu}}}")
    process.join(TIMEOUT)


def test_openmp_in_a_process_follows_its_rank() -> None:
    """A runtime that is loaded there reads the rank's variables."""
    import ctypes.util

    library = ctypes.util.find_library("gomp")
    if library is None:
        unavailable("there is no libgomp")
    cpus = need_cpus(2)
    plan = ompbind.plan(numa_bind_cpus=[cpus], threads=7)
    with ompbind.multiprocessing.get_context(plan).Pool() as pool:
        assert pool.apply(pool_workers.count_openmp, (library,)) == 7


# --- ranks come and go ----------------------------------------------------------------------------


def test_an_ended_process_frees_its_rank(context: ompbind.multiprocessing.Context) -> None:
    """The lowest free comes first, however the one before has ended; a rank may be asked for."""
    ready, go = context.Semaphore(0), context.Event()
    first, second = (context.Process(target=pool_workers.stay, args=(ready, go)) for _ in range(2))
    first.start()
    second.start()
    assert (first.rank, second.rank) == (0, 1)
    second.kill()
    second.join(TIMEOUT)
    assert second.exitcode == -signal.SIGKILL
    third = context.Process(target=pool_workers.end, args=(3,))
    assert third.rank is None
    third.start()
    assert third.rank == 1
    third.join(TIMEOUT)
    assert third.exitcode == 3
    go.set()
    first.join(TIMEOUT)
    for rank in (1, 0):
        process = context.Process(target=pool_workers.raise_it, rank=rank)
        process.start()
        assert process.rank == rank
        process.join(TIMEOUT)
        assert process.exitcode == 1


def test_more_processes_than_ranks_are_an_error(
    context: ompbind.multiprocessing.Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says so, for a rank that is taken who has it; when one is free again, it can start."""
    monkeypatch.setattr(ompbind.multiprocessing, "PATIENCE", 0.1)
    ready, go = context.Semaphore(0), context.Event()
    holders = [context.Process(target=pool_workers.stay, args=(ready, go)) for _ in range(2)]
    for process in holders:
        process.start()
    before = Holdings.now()
    one_more = context.Process(target=pool_workers.end, args=(0,))
    with pytest.raises(ompbind.PlanError, match="all 2 ranks") as raised:
        one_more.start()
    assert raised.value.hint
    assert one_more.rank is None
    again = context.Process(target=pool_workers.end, args=(0,), rank=1)
    with pytest.raises(ompbind.PlanError, match=rf"rank 1 .*pid {holders[1].pid}"):
        again.start()
    for wrong in (2, -1):
        with pytest.raises(ompbind.PlanError, match="2 ranks"):
            context.Process(target=pool_workers.end, args=(0,), rank=wrong).start()
    before.wait_for()
    go.set()
    for process in holders:
        process.join(TIMEOUT)
    one_more.start()
    one_more.join(TIMEOUT)
    ended: tuple[int | None, int | None] = (one_more.rank, one_more.exitcode)
    assert ended == (0, 0)


def test_a_process_about_to_end_is_waited_for(
    context: ompbind.multiprocessing.Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that has done its work, not its end, gives its rank to the next."""
    monkeypatch.setattr(ompbind.multiprocessing, "PATIENCE", TIMEOUT)  # it starts slowly if busy
    processes = [context.Process(target=pool_workers.linger, args=(0.5,), rank=1) for _ in range(2)]
    for process in processes:
        process.start()
    assert processes[0].exitcode == 0
    processes[1].join(TIMEOUT)


# --- what is built upon it ------------------------------------------------------------------------


def test_queues_pipes_locks_and_shared_memory_work(
    plan: ompbind.Plan, context: ompbind.multiprocessing.Context
) -> None:
    """All that multiprocessing hands to a process, by descriptor or by name; nothing is left."""
    queue = context.Queue()
    workers = [
        context.Process(target=pool_workers.put, args=(queue,), name=f"w{n}") for n in (0, 1)
    ]
    for worker in workers:
        worker.start()
    told = sorted(queue.get(timeout=TIMEOUT) for _ in workers)
    assert [(rank_and_cpus(seen), *rest) for seen, *rest in told] == [
        (expected(plan, rank), f"w{rank}", rank) for rank in (0, 1)
    ]
    for worker in workers:
        worker.join(TIMEOUT)
    lock, value = context.Lock(), context.Value("i", 0)
    memory = shared_memory.SharedMemory(create=True, size=2)
    try:
        pipes = [context.Pipe(duplex=False) for _ in plan.ranks]
        workers = [
            context.Process(target=pool_workers.send, args=(theirs, lock, value, memory.name))
            for _, theirs in pipes
        ]
        for worker, (_, theirs) in zip(workers, pipes, strict=True):
            worker.start()
            theirs.close()
        for rank, (ours, _) in enumerate(pipes):
            assert rank_and_cpus(ours.recv()) == expected(plan, rank)
        for worker in workers:
            worker.join(TIMEOUT)
        assert value.value == 11
        assert memory.buf is not None
        assert bytes(memory.buf[:2]) == b"\x01\x02"
    finally:
        memory.close()
        memory.unlink()


def test_an_executors_workers_are_ranks(
    plan: ompbind.Plan, context: ompbind.multiprocessing.Context
) -> None:
    """concurrent.futures, with both workers at work at once."""
    with context.Manager() as manager:
        barrier = manager.Barrier(2)
        with ProcessPoolExecutor(2, mp_context=context) as executor:
            seen = list(executor.map(pool_workers.meet, [barrier, barrier]))
    assert sorted(map(rank_and_cpus, seen)) == [expected(plan, 0), expected(plan, 1)]


@pytest.mark.skipif(sys.version_info < (3, 11), reason="max_tasks_per_child came with 3.11")
def test_an_executors_new_workers_get_freed_ranks(
    plan: ompbind.Plan, context: ompbind.multiprocessing.Context
) -> None:
    """Each task in a process of its own, more of them than ranks."""
    one_task: dict[str, Any] = {"max_tasks_per_child": 1}  # types are checked as of 3.10
    with ProcessPoolExecutor(2, mp_context=context, **one_task) as executor:
        seen = list(executor.map(pool_workers.see, range(6)))
    assert len({pid for _, pid, _ in seen}) == 6
    assert all(rank_and_cpus(s) == expected(plan, s[0]) for s in seen)


def test_a_pool_is_as_large_as_the_plan(
    plan: ompbind.Plan, context: ompbind.multiprocessing.Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If it is not told otherwise; a manager's process takes no rank; workers that are replaced
    have the ranks of those before."""
    with context.Manager() as manager, context.Pool() as pool:
        barrier = manager.Barrier(2)
        seen = pool.map(pool_workers.meet, [barrier, barrier], chunksize=1)
        assert sorted(map(rank_and_cpus, seen)) == [expected(plan, 0), expected(plan, 1)]
    pool.join()
    with context.Pool(1, maxtasksperchild=1) as pool:
        seen = pool.map(pool_workers.see, range(3), chunksize=1)
        assert all(rank_and_cpus(s) == expected(plan, 0) for s in seen)
        assert len({pid for _, pid, _ in seen}) == 3
    pool.join()
    monkeypatch.setattr(ompbind.multiprocessing, "PATIENCE", 0.1)
    with pytest.raises(ompbind.PlanError, match="all 2 ranks"):
        context.Pool(3)


def test_what_a_rank_starts_itself_is_no_rank(context: ompbind.multiprocessing.Context) -> None:
    """Its own processes inherit its binding, as any."""
    queue = context.Queue()
    process = context.Process(target=pool_workers.start_own, args=(queue,), rank=1)
    process.start()
    assert queue.get(timeout=TIMEOUT) == ("1", list(context.plan.ranks[1].cpus))
    process.join(TIMEOUT)


def test_more_than_a_pipe_holds_reaches_a_process(
    context: ompbind.multiprocessing.Context,
) -> None:
    """Ten megabytes of arguments."""
    process = context.Process(target=pool_workers.big, args=(bytes(10_000_000),))
    process.start()
    process.join(TIMEOUT)
    assert process.exitcode == 0


OWN_CLASS = """
import os, sys, ompbind
context = ompbind.multiprocessing.get_context(ompbind.Plan.load(sys.argv[1]))
class Mine(context.Process):
    def __init__(self, word):
        super().__init__(rank=1)
        self.word = word
    def run(self):
        print(self.word, os.environ["OMPBIND_RANK"], *os.sched_getaffinity(0), flush=True)
if __name__ == "__main__":
    process = Mine("hello")
    process.start()
    process.join()
    print(process.exitcode)
"""


def test_a_process_class_of_ones_own(plan: ompbind.Plan, tmp_path: Path) -> None:
    """One derived from the context's is a rank too, and has in the child what it was given."""
    script = tmp_path / "own.py"
    script.write_text(OWN_CLASS)
    plan.save(tmp_path / "plan")
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path / "plan")],
        env=environment(), capture_output=True, text=True, timeout=TIMEOUT,
    )  # fmt: skip
    assert done.stdout == f"hello 1 {plan.ranks[1].cpus}\n0\n", done.stderr


# --- several threads, refusals, what is left ------------------------------------------------------


def test_many_threads_start_processes_at_once() -> None:
    """Each process has a rank of its own, bound to its cpus; the parent is untouched."""
    first, second = need_cpus(2)
    plan = ompbind.plan(numa_bind_cpus=[[first], [second]] * 4, share=True, binder="native")
    context = ompbind.multiprocessing.get_context(plan)
    failures: list[BaseException] = []
    ranks: list[int | None] = []

    def start() -> None:
        try:
            ready, go = context.Semaphore(0), context.Event()
            process = context.Process(target=pool_workers.stay, args=(ready, go))
            process.start()
            assert process.rank is not None
            there = Path("/proc", str(process.pid))
            assert mask_of(there) == list(plan.ranks[process.rank].cpus)
            wait_for(lambda: read_words(there / "environ"))  # an instant after its exec
            assert f"OMPBIND_RANK={process.rank}" in read_words(there / "environ")
            ranks.append(process.rank)
            barrier.wait(TIMEOUT)
            go.set()
            process.join(TIMEOUT)
            assert process.exitcode == 0
        except BaseException as e:
            failures.append(e)
            barrier.abort()

    before = children()
    barrier = threading.Barrier(8)
    with untouched():
        threads = [threading.Thread(target=start) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not failures, failures[0]
    assert sorted(ranks) == list(range(8))  # type: ignore[type-var]
    assert children() <= before


def test_nothing_is_left_after_many_starts(context: ompbind.multiprocessing.Context) -> None:
    """No descriptor, no child, no zombie, whether a start succeeds or fails."""
    context.SimpleQueue()  # starts the resource tracker, which stays

    def start() -> None:
        process = context.Process(target=pool_workers.end, args=(0,))
        process.start()
        process.join(TIMEOUT)
        process.close()

    start()
    gc.collect()
    before = Holdings.now()
    for _ in range(5):
        start()
    unpicklable = context.Process(target=lambda: None)
    with pytest.raises((AttributeError, pickle.PicklingError)):
        unpicklable.start()
    del unpicklable
    before.wait_for()


@pytest.mark.parametrize("method", ["fork", "forkserver", "magic"])
def test_other_methods_are_refused(plan: ompbind.Plan, method: str) -> None:
    """A forked process cannot be bound before its interpreter starts: it never starts one."""
    with pytest.raises(ompbind.UsageError, match=repr(method)) as raised:
        ompbind.multiprocessing.get_context(plan, method)
    assert "spawn" in raised.value.hint
    context = ompbind.multiprocessing.get_context(plan, "spawn")
    with pytest.raises(ompbind.UsageError, match=repr(method)):
        context.get_context(method)
    assert context.get_context() is context.get_context("spawn") is context
    assert context.get_start_method() == "spawn"


def test_a_context_stays_where_it_is(context: ompbind.multiprocessing.Context) -> None:
    """It cannot be handed to a process, which would give the same ranks away again."""
    with pytest.raises(TypeError, match="cannot be pickled"):
        context.Process(target=print, args=(context,)).start()
    process = context.Process(target=pool_workers.end, args=(0,))
    process.start()
    process.join(TIMEOUT)
    assert (process.rank, process.exitcode) == (0, 0)


def test_the_programs_own_settings_stay(plan: ompbind.Plan) -> None:
    """Start method and executable are the whole program's: neither is touched, and an executable
    that was set is what becomes the worker."""
    before = multiprocessing.get_start_method(allow_none=True), spawn.get_executable()
    context = ompbind.multiprocessing.get_context(plan)
    with context.Pool(1) as pool:
        assert pool.apply(pool_workers.see)[0] == 0
    assert (multiprocessing.get_start_method(allow_none=True), spawn.get_executable()) == before


DENIED = """
import os, sys, warnings, ompbind
from tests.support import pool_workers
if __name__ == "__main__":
    plan = ompbind.plan(numa_bind_cpus=sys.argv[1:], numa_bind_nodes=[0, 0], binder="native")
    context = ompbind.multiprocessing.get_context(plan)
    process = context.Process(target=pool_workers.see, rank=1)
    try:
        process.start()
    except ompbind.DeniedError as e:
        print(e.message, e.data)
    print(process.pid, process.is_alive(), process.exitcode, process.rank)
    degraded = ompbind.multiprocessing.get_context(plan, on_denied="degrade")
    process = degraded.Process(target=pool_workers.end, args=(4,))
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        process.start()
    process.join()
    print(process.exitcode, told[0].message)
"""


def test_a_denied_binding_is_an_error(tmp_path: Path) -> None:
    """start() raises what the kernel refused, the process was never there; or goes on without it,
    if told so, with a warning."""
    script = tmp_path / "denied.py"
    script.write_text(DENIED)
    done = subprocess.run(
        [*denying("EPERM", "set_mempolicy"), sys.executable, str(script), *map(str, need_cpus(2))],
        env=environment(PYTHONPATH=str(Path(__file__).parents[1])),
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )
    why = "refuses to bind memory: bind 0 (set_mempolicy: Operation not permitted)"
    assert done.stdout.splitlines() == [
        f"rank 1: the kernel {why} {{'rank': 1, 'part': 'memory'}}",
        "None False None 1",
        f"4 rank 0: the kernel {why}; continuing with memory unbound",
    ], done.stderr


def test_a_program_that_is_killed_leaves_no_process(tmp_path: Path) -> None:
    """Processes notice, as with the standard library, that their parent has gone."""
    script = tmp_path / "killed.py"
    script.write_text(
        "import sys, time, ompbind\nfrom tests.support import pool_workers\n"
        "if __name__ == '__main__':\n"
        "    plan = ompbind.plan(numa_bind_cpus=sys.argv[1:])\n"
        "    pool = ompbind.multiprocessing.get_context(plan).Pool()\n"
        "    print(*{seen[1] for seen in pool.map(pool_workers.see, range(20))}, flush=True)\n"
        "    time.sleep(100)\n"
    )
    with subprocess.Popen(
        [sys.executable, str(script), *map(str, need_cpus(2))],
        env=environment(PYTHONPATH=str(Path(__file__).parents[1])),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdout is not None
        pids = process.stdout.readline().split()
        process.kill()
    assert pids
    wait_for(lambda: not any(alive(int(pid)) for pid in pids))
