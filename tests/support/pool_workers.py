"""What the processes of tests/test_multiprocessing.py do; they import this and not the tests."""

from __future__ import annotations

import os
import sys
import threading
import time
from multiprocessing import current_process, shared_memory
from typing import Any

Seen = tuple[int, int, list[int]]


def see(_: object = None) -> Seen:
    """Who this is: its rank, its pid, its cpus."""
    return int(os.environ["OMPBIND_RANK"]), os.getpid(), sorted(os.sched_getaffinity(0))


def meet(barrier: Any) -> Seen:
    """The same, once so many processes as the barrier wants have come."""
    barrier.wait(60)
    return see()


def stay(ready: Any, go: Any) -> None:
    """Says that it runs, and stays until it is told to go."""
    ready.release()
    go.wait(60)


def put(queue: Any) -> None:
    queue.put((see(), current_process().name, current_process().rank))  # type: ignore[attr-defined]


def send(connection: Any, lock: Any, value: Any, name: str) -> None:
    """Through a pipe, what it adds to a shared number, and into shared memory."""
    with lock:
        value.value += 10 ** see()[0]
    memory = shared_memory.SharedMemory(name)
    assert memory.buf is not None
    memory.buf[see()[0]] = see()[0] + 1
    memory.close()
    connection.send(see())
    connection.close()


def end(status: int) -> None:
    sys.exit(status)


def raise_it() -> None:
    raise ValueError("from a worker")


def tell_start(queue: Any) -> None:
    """What the interpreter's own first steps saw: sitecustomize left it behind."""
    queue.put(sys.bound_at_start)  # type: ignore[attr-defined]


def count_openmp(library: str) -> int:
    """How many threads an OpenMP runtime that is loaded here and now would use."""
    import ctypes

    return int(ctypes.CDLL(library).omp_get_max_threads())


def start_own(queue: Any) -> None:
    """A process of this process' own: no rank of the plan, bound as its parent is."""
    import multiprocessing

    process = multiprocessing.get_context("spawn").Process(target=put_cpus, args=(queue,))
    process.start()
    process.join()


def put_cpus(queue: Any) -> None:
    queue.put((os.environ["OMPBIND_RANK"], sorted(os.sched_getaffinity(0))))


def big(data: bytes) -> int:
    return len(data)


def linger(seconds: float) -> None:
    """Ends late: what it was to do is done long before."""
    threading.Thread(target=time.sleep, args=(seconds,)).start()
