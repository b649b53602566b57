"""Whether a program that starts others changes itself meanwhile: another thread looks all the time,
and other processes are counted before and after."""

from __future__ import annotations

import gc
import multiprocessing.spawn
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from tests.support.observe import status_field

TASKS = Path("/proc/self/task")


def look() -> dict[str, object]:
    """What must stay as it is: every thread's binding, the environment, the executables."""
    seen: dict[str, object] = {
        "environ": dict(os.environ),
        "executable": (sys.executable, multiprocessing.spawn.get_executable()),
        "cwd": os.getcwd(),
    }
    bindings = set()
    for task in TASKS.iterdir():
        with suppress(FileNotFoundError, ProcessLookupError):  # a thread may end meanwhile
            bindings.add(
                tuple(status_field(task, f"{what}_allowed_list") for what in ("Cpus", "Mems"))
            )
    seen["bindings"] = bindings
    return seen


@contextmanager
def untouched() -> Iterator[list[int]]:
    """Fails if anything of this process differs at any of many looks while the block runs. Gives a
    list whose only number is how often it has looked."""
    before = look()
    looks, differences = [0], []
    done = threading.Event()

    def watch() -> None:
        while not done.is_set():
            if (now := look()) != before:
                differences.append(now)
            looks[0] += 1
            time.sleep(0.0005)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield looks
    finally:
        done.set()
        watcher.join()
    assert not differences, differences[0]


def descriptors() -> set[str]:
    """The open descriptors of this process, and what they are of."""
    found = set()
    for fd in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            found.add(f"{fd} {os.readlink(f'/proc/self/fd/{fd}')}")
    return {f for f in found if "/proc/" not in f}


def children() -> set[int]:
    """The pids of this process' children, zombies too."""
    found: set[int] = set()
    for task in TASKS.iterdir():
        with suppress(OSError):
            found.update(map(int, (task / "children").read_text().split()))
    return found


@contextmanager
def nothing_left() -> Iterator[None]:
    """Fails if the block leaves a child or a descriptor. What earlier tests left to be collected is
    collected first, and what a thread is about to close may still be."""
    gc.collect()
    before = Holdings.now()
    yield
    before.wait_for()


class Holdings(NamedTuple):
    """What a process holds: its descriptors and its children."""

    descriptors: set[str]
    children: set[int]

    @classmethod
    def now(cls) -> Holdings:
        return cls(descriptors(), children())

    def wait_for(self) -> None:
        """Return once this process holds no more than these; fail when it goes on to."""
        end = time.monotonic() + 10
        gc.collect()
        while (now := Holdings.now()).exceed(self):
            assert time.monotonic() < end, (now, self)
            time.sleep(0.01)

    def exceed(self, before: Holdings) -> bool:
        return bool(self.descriptors - before.descriptors or self.children - before.children)
