"""How long it takes to start workers that do nothing, beside other launchers; what the launchers
need while workers just run."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from bench.measure import TIMEOUT, Contender, FailedError, measure, print_table, program
from ompbind.machine.processes import make_family, read_parents
from ompbind.machine.roots import DirectoryRoot

TRUE = shutil.which("true") or "/bin/true"
RANKS = (1, 4, 16, 64, 256)
IDLE = 2.0  # seconds for which launchers are watched while nothing happens


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
        few = max(rounds // 4, 3) if count > 64 else rounds
        many = "s" if count > 1 else ""
        measure(contenders, few)
        print_table(f"start-up: {count} rank{many} of true", contenders, base)
        base = program(base.name, [python, "-c", "pass"])
        worker = [python, "-I", "-S", "-c", "pass"]
        contenders = [base, *make_contenders(find_ompbind(python), count, absent, worker)]
        measure(contenders, max(few // 3, 1))
        print_table(f"start-up: {count} rank{many} of python -c pass", contenders, base)
    watch_idle(find_ompbind(python), max(c for c in ranks if c <= 64), absent)
    if absent:
        print(f"\nnot installed: {', '.join(sorted(absent))}")


def make_contenders(
    ompbind: list[str], count: int, absent: set[str], worker: Sequence[str] = (TRUE,)
) -> list[Contender]:
    """Every launcher that is installed; the others' names go to `absent`."""
    launchers = make_launchers(ompbind, count, absent, worker)
    found = [program(name, argv) for name, argv in launchers.items()]
    found.append(shell_loop("shell loop", [], count, worker))
    for name, prefix in (
        ("taskset", ["taskset", "-c", own_cpus()]),
        ("numactl", ["numactl", f"--physcpubind={own_cpus()}"]),
        ("hwloc-bind", ["hwloc-bind", "machine:0", "--"]),
    ):
        if is_installed(name, absent):
            found.append(shell_loop(f"{name}, shell loop", prefix, count, worker))
    if is_gnu_parallel():
        words = [str(i) for i in range(count)]
        argv = ["parallel", "--will-cite", "-j", str(count), "-N0", *worker, ":::", *words]
        found.append(program("parallel (GNU)", argv))
    else:
        absent.add("parallel (GNU)")
    return found


def make_launchers(
    ompbind: list[str], count: int, absent: set[str], worker: Sequence[str]
) -> dict[str, list[str]]:
    """The command lines of those that watch over ranks, by name."""
    many = [] if count == 1 else ["-n", str(count), "--share"]
    n = str(count)
    found = {"ompbind run, native": [*ompbind, "run", "--binder", "native", *many, "--", *worker]}
    if is_installed("numactl", absent):
        argv = [*ompbind, "run", "--binder", "numactl", *many, "--", *worker]
        found["ompbind run, numactl"] = argv
    if is_installed("mpiexec.hydra", absent):
        found["mpiexec.hydra"] = ["mpiexec.hydra", "-n", n, "-bind-to", "core", *worker]
    if mpirun := find_open_mpi():
        root = ["--allow-run-as-root"] if os.geteuid() == 0 else []
        found["mpirun (Open MPI)"] = [mpirun, *root, "--oversubscribe", "-n", n, *worker]
    else:
        absent.add("mpirun (Open MPI)")
    if is_installed("srun", absent):
        found["srun"] = ["srun", "--overcommit", "-n", n, *worker]
    return found


def watch_idle(ompbind: list[str], count: int, absent: set[str]) -> None:
    """Prints how much memory each launcher's own processes need while `count` ranks sleep, and how
    often they wake up meanwhile."""
    print(f"\nwhile {count} ranks sleep: the launcher's own processes")
    print(f"  {'':22}  {'processes':>9}  {'memory':>9}  {'wake-ups a second':>17}")
    sleeper = [shutil.which("sleep") or "/bin/sleep", "86400"]
    for name, argv in make_launchers(ompbind, count, absent, sleeper).items():
        if name == "ompbind run, numactl":
            continue
        null = subprocess.DEVNULL
        launcher = subprocess.Popen(argv, stdin=null, stdout=null, stderr=null)
        try:
            own = find_own(launcher.pid, sleeper, count)
            before = count_switches(own)
            time.sleep(IDLE)
            wakes = (count_switches(own) - before) / IDLE
            memory = sum(read_pss(pid) for pid in own)
            print(f"  {name:22}  {len(own):9}  {memory / 1024:5.1f} MiB  {wakes:17.1f}")
        except (FailedError, OSError) as e:
            print(f"  {name:22}  {e}")
        finally:
            launcher.terminate()
            launcher.wait()


def find_own(pid: int, sleeper: Sequence[str], count: int) -> list[int]:
    """A launcher's processes, once all its ranks sleep, without these. Raises FailedError."""
    root = DirectoryRoot("/")
    end = time.monotonic() + TIMEOUT
    while time.monotonic() < end:
        family = [pid, *make_family([pid], read_parents(root))[pid]]
        ranks = [p for p in family if read_command(p) == list(sleeper)]
        if len(ranks) == count:
            time.sleep(0.5)  # what follows a start
            return [p for p in family if p not in ranks]
        time.sleep(0.05)
    raise FailedError("its ranks did not start")


def read_command(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().split("\0")[:-1]
    except OSError:
        return []


def count_switches(pids: Sequence[int]) -> int:
    """How often all threads of these processes have given up the cpu by themselves."""
    total = 0
    for pid in pids:
        for status in Path(f"/proc/{pid}/task").glob("*/status"):
            for line in status.read_text().splitlines():
                if line.startswith("voluntary_ctxt_switches:"):
                    total += int(line.split()[1])
    return total


def read_pss(pid: int) -> int:
    """A process' memory in KiB, what it shares counted in parts."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1])
    return 0


def is_installed(name: str, absent: set[str]) -> bool:
    if shutil.which(name):
        return True
    absent.add(name)
    return False


def shell_loop(name: str, prefix: Sequence[str], count: int, worker: Sequence[str]) -> Contender:
    """`prefix` worker, started so often by a shell, all at once; then waited for."""
    script = f'i=0; while [ $i -lt {count} ]; do "$@" & i=$((i+1)); done; wait'
    return program(name, ["sh", "-c", script, "sh", *prefix, *worker])


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
