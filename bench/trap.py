"""The main-thread trap: which cpus a worker's main thread is left with, and what that costs all
that starts from there, by what an OpenMP place is. docs/explanation/openmp.md has the table."""

from __future__ import annotations

import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from bench.environments import find_program
from bench.measure import TIMEOUT
from bench.startup import find_ompbind

BASE = "--places one"
LAYOUTS = (
    BASE,
    "--places wide",
    "--places cores",
    "--places cores --proc-bind spread",
    "--places cores --proc-bind primary",
    "--places cores --proc-bind false",
)
PYTHON = ("torch", "numpy", "torch numpy")  # imported in this order; the last one multiplies
COLUMNS = {"threads": "Python threads", "children": "processes", "product": "matrix product"}

# As many threads, and then processes, as there are cpus hash the same amount each. What is timed
# goes before all other work of the machine where that is allowed; the best of several counts.
WORKER = """
import hashlib, importlib, json, os, subprocess, sys, threading, time

names, amount, size, times = sys.argv[1].split(), *map(int, sys.argv[2:])
cpus = sorted(os.sched_getaffinity(0))
modules = [importlib.import_module(name) for name in names]
block = bytes(1 << 20)

def work():
    for _ in range(amount):
        hashlib.sha256(block).digest()

def timed(function):
    best = float("inf")
    for _ in range(times):
        begin = time.perf_counter()
        function()
        best = min(best, time.perf_counter() - begin)
        time.sleep(0.005)
    return best

def threads():
    started = [threading.Thread(target=work) for _ in cpus]
    for thread in started:
        thread.start()
    for thread in started:
        thread.join()

def children():
    code = "import hashlib; block = bytes(1 << 20)\\n"
    code += f"for _ in range({amount}): hashlib.sha256(block).digest()"
    started = [subprocess.Popen([sys.executable, "-I", "-S", "-c", code]) for _ in cpus]
    for child in started:
        assert child.wait() == 0

left = sorted(os.sched_getaffinity(0))
square = modules[-1].ones((size, size))
square @ square
try:
    for task in os.listdir("/proc/self/task"):
        os.sched_setscheduler(int(task), os.SCHED_FIFO, os.sched_param(1))
except OSError:
    pass
told = {"cpus": len(cpus), "left": len(left), "threads": timed(threads),
        "children": timed(children)}
told["product"] = timed(lambda: square @ square)
print(json.dumps(told))
"""


def bench(python: str, rounds: int, *, small: bool = False) -> None:
    """Prints a table for each kind of worker that can be had here."""
    rounds = max(rounds // 3, 1)  # a round takes half a minute, most of it torch's import
    amount, size, times = (4, 128, 1) if small else (20, 700, 9)
    # That of torchrun has torch and NumPy; a test makes do with what it has.
    interpreter = "" if small else find_program("torchrun", "python", make=True)
    interpreter = interpreter or sys.executable
    absent = []
    for names in ("numpy",) if small else PYTHON:
        lacking = [n for n in names.split() if not has_module(interpreter, n)]
        if lacking:
            absent += lacking
            continue
        worker = [interpreter, "-c", WORKER, names, *map(str, (amount, size, times))]
        title = f"trap: a Python worker, import {names.replace(' ', ', then ')}"
        print_rows(title, run_rounds(python, worker, rounds), tuple(COLUMNS))
    if shutil.which("gcc"):
        with tempfile.TemporaryDirectory(prefix="ompbind-bench-") as folder:
            program = str(Path(folder) / "loops")
            source = Path(__file__).with_name("loops.c")
            subprocess.run(["gcc", "-O2", "-fopenmp", "-o", program, source], check=True)
            first = ["chrt", "-f", "1"]  # before all other work, where that is allowed
            if subprocess.run([*first, "true"], stderr=subprocess.DEVNULL, check=False).returncode:
                first = []
            worker = [*first, program, "10" if small else "1000"]
            rows = run_rounds(python, worker, rounds * 3)
            print_rows("trap: a compiled program, short OpenMP loops", rows, ("loops",))
    else:
        absent.append("gcc")
    if absent:
        print(f"\nnot installed: {', '.join(dict.fromkeys(absent))}")


def has_module(interpreter: str, name: str) -> bool:
    code = f"import importlib.util, sys; sys.exit(importlib.util.find_spec({name!r}) is None)"
    return subprocess.run([interpreter, "-c", code], check=False).returncode == 0


def run_rounds(python: str, worker: list[str], rounds: int) -> dict[str, list[dict[str, Any]]]:
    """For each layout what the worker told, round by round; all take turns, in a random order."""
    order = random.Random(1)  # noqa: S311
    rows: dict[str, list[dict[str, Any]]] = {layout: [] for layout in LAYOUTS}
    for _ in range(rounds):
        for layout in order.sample(LAYOUTS, len(LAYOUTS)):
            rows[layout].append(run_once(python, layout, worker))
    return rows


def run_once(python: str, layout: str, worker: list[str]) -> dict[str, Any]:
    command = [*find_ompbind(python), "run", *layout.split(), "--", *worker]
    env = {k: v for k, v in os.environ.items() if not k.startswith(("MKL_", "OPENBLAS_"))}
    env["OMPBIND_NEIGHBOURS"] = "no"  # other workers of this machine are nobody's business here
    done = subprocess.run(
        command, stdout=subprocess.PIPE, text=True, env=env, timeout=6 * TIMEOUT, check=True
    )
    line = done.stdout.splitlines()[-1]
    if line.startswith("{"):
        told: dict[str, Any] = json.loads(line)
        return told
    return {"loops": float(line.split()[0])}


def print_rows(title: str, rows: dict[str, list[dict[str, Any]]], columns: tuple[str, ...]) -> None:
    """Times as medians of the ratios to the first row of the same round: more is slower."""
    print(f"\n{title}")
    names = [COLUMNS.get(c, c) for c in columns]
    width = max(map(len, rows))
    left = "left" in rows[BASE][0]
    head = f"{'main thread':>13}" if left else ""
    print(f"  {'':{width}}{head}" + "".join(f"{name:>18}" for name in names))
    for layout, runs in rows.items():
        cells = ""
        if left:
            masks = sorted({f"{told['left']} of {told['cpus']}" for told in runs})
            cells = f"{'/'.join(masks):>13}"
        for column in columns:
            ratios = [
                told[column] / base[column] for told, base in zip(runs, rows[BASE], strict=True)
            ]
            cell = f"{statistics.median(ratios):.2f}"
            if layout == BASE:
                cell += f" ({statistics.median(told[column] for told in runs) * 1000:.0f} ms)"
            cells += f"{cell:>18}"
        print(f"  {layout:{width}}{cells}")
