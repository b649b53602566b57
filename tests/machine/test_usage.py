"""What processes have used, from made-up files, and from this process's own."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

from ompbind.machine.roots import DirectoryRoot
from ompbind.machine.usage import (
    TaskUse,
    Throttling,
    parse_migrations,
    read_swap,
    read_task,
    read_tasks,
    read_throttling,
)
from tests.support.processes import write_files

SCHED = "name (7, #threads: 1)\n---\nse.exec_start  :  5.0\nse.nr_migrations    :      12\nx : 1\n"


@pytest.mark.parametrize(
    ("text", "number"),
    [(SCHED, 12), ("", None), ("nr_migrations", None), ("se.nr_migrations : many\n", None)],
)
def test_migrations(text: str, number: int | None) -> None:
    """Are a line of `sched`, whatever is before its name."""
    assert parse_migrations(text.encode()) == number


def test_threads_of_a_process(tmp_path: Path) -> None:
    """Each has its figures; one that is gone, or without figures, has none."""
    write_files(tmp_path, {
        "proc/7/task/7/schedstat": "100 20 3\n", "proc/7/task/7/sched": SCHED,
        "proc/7/task/8/schedstat": "5 6 7\n",
        "proc/7/task/9/schedstat": "", "proc/7/task/10/comm": "x",
    })  # fmt: skip
    root = DirectoryRoot(str(tmp_path))
    assert dict(read_tasks(root, 7)) == {7: TaskUse(100, 20, 12), 8: TaskUse(5, 6)}
    assert dict(read_tasks(root, 6)) == {}


def test_swap(tmp_path: Path) -> None:
    """Is what the status says, in bytes."""
    write_files(tmp_path, {"proc/7/status": "Name:\tx\nVmSwap:\t     12 kB\nThreads:\t1\n",
                           "proc/8/status": "Name:\tkernel thread\n"})  # fmt: skip
    root = DirectoryRoot(str(tmp_path))
    assert [read_swap(root, pid) for pid in (7, 8, 9)] == [12288, 0, 0]


VERSION_2 = {
    "proc/self/cgroup": "0::/a/b\n",
    "proc/self/mountinfo": "30 20 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n",
    "sys/fs/cgroup/a/b/cpu.stat": "usage_usec 9\nnr_periods 9\nnr_throttled 2\n"
    "throttled_usec 500000\n",
    "sys/fs/cgroup/a/cpu.stat": "nr_throttled 1\nthrottled_usec 250000\nodd\n",
    "sys/fs/cgroup/cpu.stat": "usage_usec 9\n",
    "sys/fs/cgroup/other/cpu.stat": "nr_throttled 100\nthrottled_usec 1\n",
}
VERSION_1 = {
    "proc/self/cgroup": "3:cpu,cpuacct:/job\n0::/\n",
    "proc/self/mountinfo": "30 20 0:26 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct\n",
    "sys/fs/cgroup/cpu/job/cpu.stat": "nr_periods 9\nnr_throttled 4\nthrottled_time 1500000000\n",
}


@pytest.mark.parametrize(
    ("files", "throttling"),
    [(VERSION_2, Throttling(0.75, 3)), (VERSION_1, Throttling(1.5, 4)),
     (VERSION_2 | {"proc/self/cgroup": "0::/\n"}, None), ({"proc/self/cgroup": ""}, None)],
)  # fmt: skip
def test_throttling(files: dict[str, str], throttling: Throttling | None, tmp_path: Path) -> None:
    """Is that of the process's cgroup and of those above it, in both versions' units; None where
    no cgroup says anything, as the root of version 2."""
    write_files(tmp_path, files)
    assert read_throttling(DirectoryRoot(str(tmp_path))) == throttling


def test_what_was_added_since() -> None:
    """Is the difference of two readings."""
    assert Throttling(2.5, 9).since(Throttling(0.5, 4)) == Throttling(2.0, 5)


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's figures are Linux's")
def test_this_process() -> None:
    """Has run for as long as the kernel's clocks say that its threads have, and longer later."""
    root, pid = DirectoryRoot("/"), os.getpid()
    use = read_task(root, pid, pid)
    if use is None:
        pytest.skip("this kernel does not say how long threads waited")
    began = time.thread_time_ns()
    while time.thread_time_ns() < began + 30 * 10**6:  # the figures are as of the last tick
        pass
    later = read_task(root, pid, pid)
    assert later is not None
    assert use.ran < later.ran <= time.process_time_ns()
    assert use.waited <= later.waited
