"""Eight benchmark runs on one machine: all started at once by hand, and by BenchExec and ompbind,
which give each run cores of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

from bench.environments import find_program
from bench.figures import (
    SECONDS,
    compiled,
    make_environ,
    make_run,
    print_spread,
    run_at_once,
    take_turns,
)
from bench.measure import FailedError
from bench.startup import find_ompbind

RUNS = 8

# What BenchExec wants to know of a program, and of what to run.
TOOL = """
from benchexec.tools.template import BaseTool2

class Tool(BaseTool2):
    def name(self):
        return "loops"
    def executable(self, tool_locator):
        return {program!r}
    def cmdline(self, executable, options, task, rlimits):
        return [executable, {amount!r}]
"""
BENCHMARK = """<?xml version="1.0"?>
<!DOCTYPE benchmark PUBLIC "+//IDN sosy-lab.org//DTD BenchExec benchmark 1.9//EN"
 "https://www.sosy-lab.org/benchexec/benchmark-1.9.dtd">
<benchmark tool="measured.loops" walltimelimit="{seconds} s">
<rundefinition/><tasks>{tasks}</tasks>
</benchmark>
"""


def bench(python: str, rounds: int, *, small: bool = False) -> None:
    """Print a table of the seconds that the runs measured of themselves."""
    if not shutil.which("gcc"):
        print("\ntogether: gcc is not installed")
        return
    cpus = len(os.sched_getaffinity(0))
    at_once = min(RUNS, cpus)
    with compiled("loops.c") as program:
        amount = "1" if small else "400"
        worker = [program, amount]
        part = [*find_ompbind(python), "run", "--part", f"auto/{at_once}", "--wait", "--", *worker]
        runs: dict[str, Callable[[], list[float]]] = {
            f"one alone on {cpus // at_once} of {cpus} cpus": make_run(part),
            f"{RUNS} at once by hand": run_at_once([worker] * RUNS),
            f"{RUNS} at once, ompbind run --part auto/{at_once} --wait": run_at_once([part] * RUNS),
        }
        name = f"{RUNS}, benchexec -N {at_once} -c {cpus // at_once}"
        if benchexec := find_program("benchexec", "benchexec", make=not small):
            runs[name] = lambda: run_benchexec(benchexec, program, amount, at_once)
        try:
            results = take_turns(runs, max(rounds // 4, 1))  # a round takes seconds
        except FailedError as e:
            print(f"\ntogether: {e}")
            return
    print_spread(f"together: {RUNS} runs of 400 parallel loops", "s", results, "lower")
    if not benchexec:
        print("\nnot installed: BenchExec")


def run_benchexec(benchexec: str, program: str, amount: str, at_once: int) -> list[float]:
    """Return the figures of RUNS runs under BenchExec, without its container: with one, it would
    measure the same, but needs more than every machine allows. Raises FailedError."""
    cores = len(os.sched_getaffinity(0)) // at_once
    with tempfile.TemporaryDirectory(prefix="ompbind-bench-") as text:
        folder = Path(text)
        (folder / "measured").mkdir()
        (folder / "measured/__init__.py").touch()
        (folder / "measured/loops.py").write_text(TOOL.format(program=program, amount=amount))
        tasks = "".join(f"<withoutfile>{n}</withoutfile>" for n in range(RUNS))
        description = BENCHMARK.format(seconds=int(SECONDS), tasks=tasks)
        (folder / "loops.xml").write_text(description)
        options = ["--no-container", "--no-compress-results", "-N", str(at_once), "-c", str(cores)]
        argv = [benchexec, *options, "-o", f"{text}/out/", "loops.xml"]
        done = subprocess.run(
            argv,
            cwd=folder,
            env=make_environ() | {"PYTHONPATH": text},
            capture_output=True,
            text=True,
            check=False,
        )
        logs = sorted(folder.glob("out/*.logfiles/*.log"))
        lines = [log.read_text().splitlines()[-1:] for log in logs]
        try:
            figures = [float(line.split()[0]) for (line,) in lines]
        except (ValueError, IndexError):
            figures = []
        if len(figures) != RUNS:
            raise FailedError(f"benchexec: {len(figures)} of {RUNS} runs: {done.stderr[-300:]}")
        return figures
