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
    rows, used, begin, before = [], 0.0, time.perf_counter(), read_busy()
    for _ in range(runs):
        start = time.perf_counter()
        pid = os.posix_spawn(argv[0], argv, environ, file_actions=actions)
        _, status, usage = os.wait4(pid, 0)
        rows.append(f"{time.perf_counter() - start:.5f}")
        used += usage.ru_utime + usage.ru_stime
        if status:
            raise SystemExit(f"{argv[0]}: status {status}")
    elapsed = time.perf_counter() - begin
    others = max(read_busy() - before - used, 0) / elapsed
    first = ", before all other work (chrt -f 1)" if os.sched_getscheduler(0) else ""
    print(f"# {title}; {runs} runs without a pause in {elapsed:.0f} s{first}")
    machine = f"{cpus} cpus, Linux {platform.release().split('-')[0]}"
    load = f"other work used {others:.2f} of {cpus} cpus"
    print(f"# {machine}, {datetime.date.today():%B %Y}; {load}")
    print("# seconds of each run", *rows, sep="\n")


def read_busy() -> float:
    """Return the seconds of cpu time that the whole machine has spent on work since it booted."""
    words = Path("/proc/stat").read_text(encoding="utf-8").split("\n", 1)[0].split()[1:]
    idle = int(words[3]) + int(words[4])
    return (sum(map(int, words[:8])) - idle) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main()
