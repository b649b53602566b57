"""python -m bench.noise PROGRAM RUNS: record how long runs of a program take."""

from __future__ import annotations

import datetime
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench.load import Load

HASH = "import hashlib\nfor _ in range(40): hashlib.sha256(bytes(1 << 20)).digest()"
# By name: what it is, the source that is compiled ("" for Python), and its arguments.
PROGRAMS = {
    "loops": ("short OpenMP loops, a thread for each cpu", "loops.c", ["400"]),
    "hash": ("a Python program with one thread", "", ["-I", "-S", "-c", HASH]),
}


def main() -> None:
    name, runs = sys.argv[1], int(sys.argv[2])
    title, source, arguments = PROGRAMS[name]
    with tempfile.TemporaryDirectory(prefix="ompbind-bench-") as folder:
        program = sys.executable
        if source:
            program = str(Path(folder) / name)
            path = Path(__file__).parents[1] / source
            subprocess.run(["gcc", "-O2", "-fopenmp", "-o", program, path], check=True)
        record(title, [program, *arguments], runs)


def record(title: str, argv: list[str], runs: int) -> None:
    """Run the program one time after another and print the recording."""
    cpus = len(os.sched_getaffinity(0))
    environ = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "GOMP_"))}
    actions = [(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
    rows, begin, load = [], time.perf_counter(), Load()
    for _ in range(runs):
        start = time.perf_counter()
        pid = os.posix_spawn(argv[0], argv, environ, file_actions=actions)
        status = os.waitpid(pid, 0)[1]
        rows.append(f"{time.perf_counter() - start:.5f}")
        if status:
            raise SystemExit(f"{argv[0]}: status {status}")
    elapsed = time.perf_counter() - begin
    first = ", before all other work (chrt -f 1)" if os.sched_getscheduler(0) else ""
    print(f"# {title}; {runs} runs without a pause in {elapsed:.0f} s{first}")
    machine = f"{cpus} cpus, Linux {platform.release().split('-')[0]}"
    print(f"# {machine}, {datetime.date.today():%B %Y}; {load}")
    print("# seconds of each run", *rows, sep="\n")


if __name__ == "__main__":
    main()
