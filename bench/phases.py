"""Where the processor time and the page faults of a launch go, phase by phase and file by file."""

from __future__ import annotations

import ast
import os
import statistics
import subprocess
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from bench.startup import TRUE

PROBE = Path(__file__).with_name("probe.py")
RANKS = (1, 2, 64, 256)
FILES = 12  # of those imported, the ones that cost most
# What is shown, in order: a process's role, its phase, and what to call it.
ROWS = (
    ("ompbind", "interpreter", "the interpreter, until our first line"),
    ("ompbind", "imports", "imports"),
    ("ompbind", "options", "options, and the program's place"),
    ("ompbind", "reading", "reading the machine"),
    ("ompbind", "planning", "planning, environment, leases"),
    ("ompbind", "preparing", "pipes, binding, forking the supervisor"),
    ("ompbind", "waiting", "waiting for the supervisor"),
    ("ompbind", "other", "other, with the exit"),
    ("watcher", "", "the supervisor's watcher"),
    ("supervisor", "imports", "supervisor: imports"),
    ("supervisor", "forks", "supervisor: forks"),
    ("supervisor", "relaying", "supervisor: relaying and waiting"),
    ("supervisor", "end", "supervisor: end"),
    ("supervisor", "other", "supervisor: other"),
    ("rank", "", "ranks, from fork to exec"),
)


class Cost(NamedTuple):
    """Seconds of processor time, and page faults that read no disk."""

    seconds: float = 0.0
    faults: int = 0

    def plus(self, other: Cost) -> Cost:
        return Cost(self.seconds + other.seconds, self.faults + other.faults)


class Profile(NamedTuple):
    """One launch: costs by role and phase, by imported file, and all of it as the kernel has it."""

    phases: dict[tuple[str, str], Cost]
    files: dict[str, Cost]
    total: Cost


def bench(python: str, rounds: int, ranks: Sequence[int] = RANKS) -> None:
    """Print a table for each number of ranks and each way to bind."""
    for count in ranks:
        for binder in ("native", "numactl") if count == 1 else ("native",):
            few = max(rounds // 5, 1) if count > 2 else rounds
            if few > 1:  # one that does not count, unless one is all
                profile(python, binder, count)
            profiles = [profile(python, binder, count) for _ in range(few)]
            many = "" if count == 1 else "s"
            print_phases(f"startup-phases: {count} rank{many} of true, {binder}", profiles)


def profile(python: str, binder: str, count: int) -> Profile:
    """Launch once. Raises CalledProcessError."""
    many = [] if count == 1 else ["-n", str(count), "--share"]
    with tempfile.TemporaryDirectory(prefix="ompbind-bench-") as folder:
        file = Path(folder) / "costs"
        argv = [python, str(PROBE), str(file), "run", "--binder", binder, *many, "--", TRUE]
        environ = os.environ | {"OMPBIND_NEIGHBOURS": "no"}
        pid = os.posix_spawn(python, argv, environ)
        _, status, usage = os.wait4(pid, 0)
        if status:
            raise subprocess.CalledProcessError(os.waitstatus_to_exitcode(status), argv)
        processes = [ast.literal_eval(line) for line in file.read_text().splitlines()]
    total = Cost(usage.ru_utime + usage.ru_stime, usage.ru_minflt)
    return add_up(processes, total)


def add_up(processes: Sequence[dict[str, Any]], total: Cost) -> Profile:
    """Return the costs of one launch from what its processes noted."""
    phases: dict[tuple[str, str], Cost] = defaultdict(Cost)
    files: dict[str, Cost] = defaultdict(Cost)
    for process in processes:
        role = process["role"]
        whole = role in ("rank", "watcher")
        for name, (time, faults) in process["spent"].items():
            key = (role, "" if whole else name)
            phases[key] = phases[key].plus(Cost(time / 1e9, faults))
        for name, (time, faults) in process["imports"].items():
            key = (role, "" if whole else "imports")
            cost = Cost(time / 1e9, faults)
            phases[key] = phases[key].plus(cost)
            if role == "ompbind":
                files[name.removeprefix("import ")] = cost
    return Profile(dict(phases), dict(files), total)


def print_phases(title: str, profiles: Sequence[Profile]) -> None:
    """Print the medians of several launches, and the files that cost most to import."""
    print(f"\n{title}, medians of {len(profiles)}")
    print(f"  {'':42}  {'processor time':>14}  {'page faults':>11}")
    for role, phase, label in ROWS:
        costs = [p.phases[role, phase] for p in profiles if (role, phase) in p.phases]
        if costs:
            print_row(label, costs)
    shown = [sum_of(list(p.phases.values())) for p in profiles]
    rest = [Cost(max(p.total.seconds - s.seconds, 0), max(p.total.faults - s.faults, 0))
            for p, s in zip(profiles, shown, strict=True)]  # fmt: skip
    print_row("programs that were executed, and the probe", rest)
    print_row("all", [p.total for p in profiles])
    names = {name for p in profiles for name in p.files}
    of_files = {name: [p.files.get(name, Cost()) for p in profiles] for name in names}
    print(
        f"  {len(names)} modules imported by ompbind; the most expensive without what they import"
    )
    for name in sorted(of_files, key=lambda n: -median(of_files[n]).seconds)[:FILES]:
        print_row(f"  {name}", of_files[name])


def sum_of(costs: Sequence[Cost]) -> Cost:
    total = Cost()
    for cost in costs:
        total = total.plus(cost)
    return total


def median(costs: Sequence[Cost]) -> Cost:
    return Cost(statistics.median(c.seconds for c in costs),
                int(statistics.median(c.faults for c in costs)))  # fmt: skip


def print_row(label: str, costs: Sequence[Cost]) -> None:
    cost = median(costs)
    print(f"  {label:42}  {cost.seconds * 1000:11.2f} ms  {cost.faults:11}")
