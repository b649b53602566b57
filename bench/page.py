"""docs/performance.md: the aims, and the figures that they are held against, made on one machine.

The page's text is by hand; what stands between its two marks is written here.
"""

from __future__ import annotations

import contextlib
import io
import math
import os
import platform
import statistics
import subprocess
import sys
import textwrap
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import NamedTuple

from bench import growth, interactive, latency, output, phases
from bench.environments import find_program
from bench.load import Load
from bench.measure import Contender, measure, program
from bench.startup import (
    TRUE,
    find_ompbind,
    find_open_mpi,
    make_contenders,
    output_of,
)

PAGE = Path(__file__).parents[1] / "docs/performance.md"
BEGIN, END = "<!-- made by make bench: begin -->", "<!-- made by make bench: end -->"
RANKS = (1, 2, 64, 256)
WIDTH = 110  # of a line of prose
NATIVE, NUMACTL, LOOP = "ompbind run, native", "ompbind run, numactl", "shell loop"
HYDRA, MPIRUN = "mpiexec.hydra (MPICH 5)", "mpirun (Open MPI)"


class Aim(NamedTuple):
    """What a figure is to be at most; `value` is NaN where it could not be measured."""

    text: str
    most: float
    value: float
    unit: str = ""

    def row(self) -> str:
        if math.isnan(self.value):
            return f"| {self.text} | at most {self.most:g}{self.unit} | not measured | |"
        verdict = "met" if self.value <= self.most else "**not met**"
        return (f"| {self.text} | at most {self.most:g}{self.unit} | {self.value:.2f}{self.unit} "
                f"| {verdict} |")  # fmt: skip


PHASES = """\
`make bench ARGS=startup-phases`: processor time and page faults by phase. The probe that counts
them adds its own to the sums: compare phases, not these sums with the launches above.
"""


def bench(python: str, rounds: int, *, quick: bool = False, small: bool = False) -> None:
    """Measure all that the page has, and write it; if `quick`, a part of it and only print it."""
    quick = quick or small
    load = Load()
    ranks: tuple[int, ...] = (1, 2) if small else (1, 2, 64) if quick else RANKS
    started = {
        n: measure_start(python, n, max(rounds // (1 if n < 64 else 3 if n == 64 else 5), 1))
        for n in ranks
    }
    count = 2 if small else 64
    workers = measure_workers(python, count, max(rounds // 5, 1))
    with contextlib.redirect_stdout(io.StringIO()):
        typed = interactive.bench(python, max(rounds // 2, 1))
        series = growth.bench(python, max(rounds // 6, 1), small=quick)
        lines = 100 if small else 300 if quick else latency.LINES
        counts = (1, 2) if small else (1, 8) if quick else latency.RANKS
        delays = latency.bench(python, counts, lines, alone=quick)
    ratio = find_ratio(workers, NATIVE, LOOP)
    words = f"{count} ranks of an empty Python: times these without ompbind"
    aims = [*make_aims(started), Aim(words, 1.25, ratio), *make_interactive_aims(typed, delays)]
    parts = [
        describe_surroundings(python, rounds),
        f"Meanwhile {load}: the busier it was, the less the figures say.\n",
        "## Aims\n",
        "| | aim | measured | |\n| --- | --- | --- | --- |",
        *(aim.row() for aim in aims),
        "\n## Starting ranks\n",
        *(make_table(f"{n} rank{'s' * (n > 1)} of `true`", rows) for n, rows in started.items()),
        make_table(f"{count} ranks of `python -c pass`", workers),
        "\n## Commands that are typed\n",
        make_table("beside an empty Python", typed),
        "\n## How the cost of a launch grows\n",
        "Medians beyond an empty Python in the same environment.\n",
        capture(lambda: print_all(series)),
        *(f"\nThe cost of one more grows: {one.title}." for one in series if not one.is_linear),
        "\n## Output\n",
        "Latency: from the time in a line to the reading of the line from the launcher's pipe.\n",
        make_latency_table(delays),
        "",
    ]
    if not small:
        size = 10**7 if quick else 10**8
        parts.append(capture(lambda: output.bench(python, 1 if quick else 3, size)))
        parts.append("\n## Where the time goes\n")
        parts.append(PHASES)
        shown = (1,) if quick else (1, 2, 64)
        parts.append(capture(lambda: phases.bench(python, 5 if quick else rounds, shown)))
    text = "\n".join(parts)
    if quick:
        print(text)
        return
    write_page(text)
    print(f"written: {PAGE.relative_to(PAGE.parents[1])}")


def write_page(text: str) -> None:
    """Put the text between the page's marks."""
    old = PAGE.read_text(encoding="utf-8")
    before, after = old.partition(BEGIN)[0], old.partition(END)[2]
    PAGE.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}", encoding="utf-8")


def measure_start(python: str, count: int, rounds: int) -> list[Contender]:
    """Return launchers of so many ranks of `true`, after an empty Python."""
    absent: set[str] = set()
    contenders = make_contenders(find_ompbind(python), count, absent)
    if hydra := find_program("mpich5", "mpiexec.hydra", make=False):
        argv = [hydra, "-n", str(count), TRUE]
        contenders = [c for c in contenders if c.name != "mpiexec.hydra"]
        contenders.insert(2, program(HYDRA, argv))
    contenders.insert(0, program("python -c pass", [python, "-c", "pass"]))
    measure(contenders, rounds)
    return contenders


def measure_workers(python: str, count: int, rounds: int) -> list[Contender]:
    """Return a loop of so many empty Pythons, and ompbind with them."""
    worker = [python, "-c", "pass"]
    wanted = {LOOP: 0, NATIVE: 1}
    contenders = [
        c for c in make_contenders(find_ompbind(python), count, set(), worker) if c.name in wanted
    ]
    contenders.sort(key=lambda c: wanted[c.name])
    measure(contenders, rounds)
    return contenders


def find_ratio(contenders: Sequence[Contender], name: str, base: str) -> float:
    """Return the median of the ratios of two of them in the same rounds; NaN where one has none."""
    rows = {c.name: c for c in contenders}
    if name not in rows or base not in rows:
        return math.nan
    pairs = zip(rows[name].seconds, rows[base].seconds, strict=False)
    ratios = [r for a, b in pairs if not math.isnan(r := a / b)]
    return statistics.median(ratios) if ratios else math.nan


def find_median(contender: Contender) -> float:
    timed = [s for s in contender.seconds if not math.isnan(s)]
    return statistics.median(timed) if timed else math.nan


def make_aims(started: dict[int, list[Contender]]) -> list[Aim]:
    """Return what is aimed at with launches of `true`, as far as it was measured now."""
    empty = "python -c pass"
    aims = []
    for count, name, most in ((1, NATIVE, 1.35), (1, NUMACTL, 1.6), (2, NATIVE, 1.9)):
        ratio = find_ratio(started[count], name, empty)
        words = f"{count} rank{'s' * (count > 1)}, {name.rpartition(' ')[2]}: times an empty Python"
        aims.append(Aim(words, most, ratio))
    for count in (n for n in started if n >= 64):
        for other, most in ((HYDRA, 1.0), (MPIRUN, 1 / 3)):
            words = f"{count} ranks: times {other}"
            ratio = find_ratio(started[count], NATIVE, other)
            aims.append(Aim(words, round(most, 2), ratio))
    if 64 in started and 256 in started:
        many, few = (
            next(find_median(c) for c in started[n] if c.name == NATIVE) for n in (256, 64)
        )
        aims.append(Aim("256 ranks: times 64 ranks", 4.2, many / few))
    return aims


def make_interactive_aims(
    typed: list[Contender], delays: dict[int, dict[str, tuple[float, float]]]
) -> list[Aim]:
    """Return what is aimed at with commands that are typed, and with output."""
    aims = []
    base = typed[0]
    for contender in typed[1:]:
        most = 60 if contender.name.startswith(("show", "topo")) else 25
        beyond = [a - b for a, b in zip(contender.seconds, base.seconds, strict=False)]
        words = f"{contender.name}: beyond an empty Python"
        aims.append(Aim(words, most, statistics.median(beyond) * 1e3, " ms"))
    for count, launchers in delays.items():
        median, most_of = launchers.get("ompbind run --output tag", (math.nan, math.nan))
        words = f"latency, {count} rank{'s' * (count > 1)}"
        aims.append(Aim(f"{words}: median", 1, median * 1e3, " ms"))
        aims.append(Aim(f"{words}: 99 of 100", 5, most_of * 1e3, " ms"))
    return aims


def make_table(title: str, contenders: Sequence[Contender]) -> str:
    """Return medians, the middle half, and the ratios to the first row as a table in Markdown."""
    base = contenders[0]
    rows = [f"| {title} | median | middle half | times {base.name} |", "| --- | --: | --: | --: |"]
    for c in contenders:
        timed = sorted(s for s in c.seconds if not math.isnan(s))
        if not timed:  # installed, and of no use here, as srun is without a cluster
            continue
        low, high = timed[len(timed) // 4], timed[-1 - len(timed) // 4]
        ratio = find_ratio(contenders, c.name, base.name)
        failed = f"; {len(c.failures)} failed" if c.failures else ""
        rows.append(f"| {c.name}{failed} | {statistics.median(timed) * 1e3:.1f} ms "
                    f"| {low * 1e3:.1f} to {high * 1e3:.1f} ms | {ratio:.2f} |")  # fmt: skip
    return "\n".join([*rows, ""])


def make_latency_table(delays: dict[int, dict[str, tuple[float, float]]]) -> str:
    rows = ["| ranks | launcher | median | 99 of 100 |", "| --: | --- | --: | --: |"]
    for count, launchers in delays.items():
        for name, (median, most) in launchers.items():
            rows.append(f"| {count} | {name} | {median * 1e3:.2f} ms | {most * 1e3:.2f} ms |")
    return "\n".join(rows)


def print_all(series: Sequence[growth.Series]) -> None:
    for one in series:
        growth.print_series(one)


def capture(call: Callable[[], None]) -> str:
    """Return what a function prints, as a block of text."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        call()
    return f"```text\n{printed.getvalue().strip()}\n```"


def describe_surroundings(python: str, rounds: int) -> str:
    """Return the machine, the date, and the versions of all that is compared."""
    kernel = platform.uname()
    model = next(
        (line.partition(":")[2].strip() for line in read_lines("/proc/cpuinfo")
         if line.startswith("model name")), kernel.machine)  # fmt: skip
    version = subprocess.run(
        [python, "--version"], stdout=subprocess.PIPE, text=True, check=True
    ).stdout.strip()
    peers = [first_line(output_of(tool, "--version")) for tool in ("parallel", "taskset", "srun")]
    if mpirun := find_open_mpi():
        peers.append(first_line(output_of(mpirun, "--version")))
    if hydra := find_program("mpich5", "mpiexec.hydra", make=False):
        words = output_of(hydra, "--version").split("Version:")[1:]
        peers.append(f"hydra of MPICH {words[0].split()[0]}" if words else "hydra")
    day = datetime.now(timezone.utc).strftime("%d %B %Y")
    return textwrap.fill(
        f"Made on {day}: {len(os.sched_getaffinity(0))} cpus ({model}), "
        f"{kernel.system} {kernel.release}, {version}; {', '.join(filter(None, peers))}. "
        f"{rounds} rounds in which all take turns, fewer of what takes long."
        f"{describe_priority()}",
        WIDTH,
        break_on_hyphens=False,
    )


def describe_priority() -> str:
    """Return a sentence where this runs before other work, or after it."""
    nice = os.getpriority(os.PRIO_PROCESS, 0)
    return f" Started with a niceness of {nice}." if nice else ""


def first_line(text: str) -> str:
    return text.splitlines()[0].strip() if text.strip() else ""


def read_lines(path: str) -> list[str]:
    try:
        return Path(path).read_text(encoding="utf-8").splitlines()
    except OSError:
        print(f"{path} cannot be read", file=sys.stderr)
        return []
