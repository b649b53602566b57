"""NumPy, Numba and Polars under a cpu quota, as containers have one: their threads follow the
number of cpus and are held up together when it is used up; ompbind starts as many as it pays for.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.environments import find_program
from bench.figures import make_run, print_spread, take_turns
from bench.measure import FailedError
from bench.startup import find_ompbind

CGROUPS = Path("/sys/fs/cgroup")
JOIN = 'echo $$ >"$1/cgroup.procs" && shift && exec "$@"'
PERIOD = 100_000  # microseconds, the kernel's default

# Each times many short operations, as a service does, and prints the slowest of a hundred in
# milliseconds: threads that are held up wait for the next period.
WORKER = """
import sys, time
size, times = int(sys.argv[1]), int(sys.argv[2])
{setup}
seconds = []
for _ in range(times + 3):
    begin = time.perf_counter()
    {operation}
    seconds.append(time.perf_counter() - begin)
print(sorted(seconds[3:])[-1 - times // 100] * 1e3)
"""
# By name: the preparation, the operation, and its size.
WORKERS = {
    "NumPy, product of two matrices": (
        "import numpy; a = numpy.ones((size, size))", "a @ a", 512,
    ),
    "Numba, parallel loop": (
        "import numpy, numba\n"
        "@numba.njit(parallel=True)\n"
        "def add(a):\n"
        "    s = 0.0\n"
        "    for i in numba.prange(a.size): s += a[i] ** 0.5\n"
        "    return s\n"
        "a = numpy.ones(size * 1000)", "add(a)", 8000,
    ),
    "Polars, grouped sum": (
        "import polars\n"
        "frame = polars.DataFrame({'k': [n % 97 for n in range(size * 1000)], "
        "'v': range(size * 1000)})",
        "frame.group_by('k').agg(polars.col('v').sum())", 600,
    ),
}  # fmt: skip


def bench(python: str, rounds: int, *, small: bool = False) -> None:
    """Print a table for each library, of the times that one operation in a hundred exceeds."""
    cpus = len(os.sched_getaffinity(0))
    interpreter = find_program("frameworks", "python", make=not small)
    if not interpreter:
        print("\nquota: not installed: NumPy, Numba, Polars")
        return
    quota = cpus / 2
    times = 10 if small else 300
    try:
        with in_quota(quota) as inside:
            for name, (setup, operation, size) in WORKERS.items():
                code = WORKER.format(setup=setup, operation=operation)
                worker = [interpreter, "-c", code, str(size // 10 if small else size), str(times)]
                bound = [*inside, *find_ompbind(python), "run", "--", *worker]
                unbound = [*inside, *worker]
                results = take_turns(
                    {
                        "unbound": make_run(unbound),
                        "ompbind run": make_run(bound),
                    },
                    max(rounds // 5, 1),  # a run takes seconds
                )
                title = f"quota: {name}, {cpus} cpus with a quota of {quota:g}"
                print_spread(f"{title}, the slowest of a hundred", "ms", results, "lower")
    except (OSError, FailedError) as e:
        print(f"\nquota: not possible here: {e}")


@contextmanager
def in_quota(cpus: float) -> Iterator[list[str]]:
    """Yield what starts a command under a quota: in a cgroup made by root, else in a scope of the
    user's systemd. Raises OSError where neither is possible."""
    percent = f"{cpus * 100:g}%"
    scope = ["systemd-run", "--user", "--scope", "--quiet", "-p", f"CPUQuota={percent}"]
    if os.geteuid() != 0:
        if not shutil.which(scope[0]) or subprocess.run([*scope, "true"], check=False).returncode:
            raise OSError("systemd-run --user --scope starts nothing")
        yield scope
        return
    one = (CGROUPS / "cpu").is_dir()
    folder = (CGROUPS / "cpu" if one else CGROUPS) / f"ompbind-bench-{os.getpid()}"
    if not one:
        (CGROUPS / "cgroup.subtree_control").write_text("+cpu")
    folder.mkdir()
    try:
        if one:
            (folder / "cpu.cfs_period_us").write_text(str(PERIOD))
            (folder / "cpu.cfs_quota_us").write_text(str(round(cpus * PERIOD)))
        else:
            (folder / "cpu.max").write_text(f"{round(cpus * PERIOD)} {PERIOD}")
        yield ["sh", "-c", JOIN, "sh", str(folder)]
    finally:
        folder.rmdir()
