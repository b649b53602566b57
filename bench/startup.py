"""How long it takes to start workers that do nothing, beside other launchers."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from bench.measure import Contender, measure, print_table, program

TRUE = shutil.which("true") or "/bin/true"
RANKS = (1, 4, 16, 64)


def find_ompbind(python: str) -> list[str]:
    """The command beside that Python."""
    script = Path(python).parent / "ompbind"
    return [str(script)] if script.exists() else [python, "-m", "ompbind"]


def bench(python: str, rounds: int, ranks: tuple[int, ...] = RANKS) -> None:
    """Prints a table for each number of ranks, and what is not installed."""
    absent: set[str] = set()
    for count in ranks:
        base = program("python -c pass", [python, "-c", "pass"])
        contenders = [base, *make_contenders(find_ompbind(python), count, absent)]
        measure(contenders, rounds)
        many = "s" if count > 1 else ""
        print_table(f"start-up: {count} rank{many} of true", contenders, base)
    if absent:
        print(f"\nnot installed: {', '.join(sorted(absent))}")


def make_contenders(ompbind: list[str], count: int, absent: set[str]) -> list[Contender]:
    """Every launcher that is installed; the others' names go to `absent`."""
    many = [] if count == 1 else ["-n", str(count), "--share"]
    found = []
    for binder in ("native", "numactl"):
        if binder == "native" or is_installed("numactl", absent):
            argv = [*ompbind, "run", "--binder", binder, *many, "--", TRUE]
            found.append(program(f"ompbind run, {binder}", argv))
    found.append(shell_loop("shell loop", [], count))
    for name, prefix in (
        ("taskset", ["taskset", "-c", own_cpus()]),
        ("numactl", ["numactl", f"--physcpubind={own_cpus()}"]),
        ("hwloc-bind", ["hwloc-bind", "machine:0", "--"]),
    ):
        if is_installed(name, absent):
            found.append(shell_loop(f"{name}, shell loop", prefix, count))
    n = str(count)
    if is_installed("mpiexec.hydra", absent):
        argv = ["mpiexec.hydra", "-n", n, "-bind-to", "core", TRUE]
        found.append(program("mpiexec.hydra", argv))
    if mpirun := find_open_mpi():
        root = ["--allow-run-as-root"] if os.geteuid() == 0 else []
        argv = [mpirun, *root, "--oversubscribe", "-n", n, TRUE]
        found.append(program("mpirun (Open MPI)", argv))
    else:
        absent.add("mpirun (Open MPI)")
    if is_installed("srun", absent):
        found.append(program("srun", ["srun", "--overcommit", "-n", n, TRUE]))
    if is_gnu_parallel():
        words = [str(i) for i in range(count)]
        argv = ["parallel", "--will-cite", "-j", n, "-N0", TRUE, ":::", *words]
        found.append(program("parallel (GNU)", argv))
    else:
        absent.add("parallel (GNU)")
    return found


def is_installed(name: str, absent: set[str]) -> bool:
    if shutil.which(name):
        return True
    absent.add(name)
    return False


def shell_loop(name: str, prefix: list[str], count: int) -> Contender:
    """`prefix` true, started so often by a shell, all at once; then waited for."""
    script = f'i=0; while [ $i -lt {count} ]; do "$@" & i=$((i+1)); done; wait'
    return program(name, ["sh", "-c", script, "sh", *prefix, TRUE])


def own_cpus() -> str:
    return ",".join(map(str, sorted(os.sched_getaffinity(0))))


def find_open_mpi() -> str | None:
    """Its mpirun; MPICH has one, too."""
    for name in ("mpirun.openmpi", "mpirun"):
        if (path := shutil.which(name)) and "Open MPI" in output_of(path, "--version"):
            return path
    return None


def is_gnu_parallel() -> bool:
    """Not the one of moreutils."""
    return bool(shutil.which("parallel")) and "GNU" in output_of("parallel", "--version")


def output_of(*argv: str) -> str:
    try:
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=20, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout
