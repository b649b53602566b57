"""How the cost of a launch grows with what surrounds it: processes and cpus of the machine, ranks,
the environment, and the folders of PATH."""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from bench.figures import compiled
from bench.measure import Contender, measure, program
from bench.reading import find_memory, make_tree_files, write_linked_tree
from bench.startup import TRUE, find_ompbind

PROCESSES = (0, 2500, 5000, 10_000)
CPUS = (64, 512, 4096)
RANKS = (1, 64, 256, 1000)
KIBIBYTES = (0, 256, 512, 1024)  # of environment
FOLDERS = (0, 250, 500, 1000)  # of PATH before those that are there
DELAYS = (0, 5, 10, 20)  # milliseconds that one of them takes to answer
VALUE = 1000  # bytes of a variable
BAR = 40  # columns


class Series(NamedTuple):
    """Medians in seconds beyond an empty Python's, by size."""

    title: str
    unit: str
    points: tuple[tuple[int, float], ...]

    @property
    def slopes(self) -> tuple[float, float]:
        """What one more costs in the first part of the sizes, and in the last, in seconds."""
        slopes = [
            (b - a) / (n - m) for (m, a), (n, b) in zip(self.points, self.points[1:], strict=False)
        ]
        return slopes[0], slopes[-1]

    @property
    def is_linear(self) -> bool:
        """Whether one more costs no more at the end than at the beginning, within half of it, or
        the whole way costs less than a millisecond."""
        first, last = self.slopes
        return last <= 1.5 * max(first, 0.0) or self.points[-1][1] - self.points[0][1] < 0.001


def bench(python: str, rounds: int, *, small: bool = False) -> list[Series]:
    """Print the series, with bars, and return them. `small`: only the two smallest sizes."""
    end = 2 if small else None
    series = [
        *measure_processes(python, rounds, (0, 50) if small else PROCESSES),
        *measure_cpus(python, rounds, (*CPUS[:1], 128) if small else CPUS),
        measure_ranks(python, rounds, (1, 4) if small else RANKS),
        measure_environment(python, rounds, KIBIBYTES[:end]),
        measure_path(python, rounds, FOLDERS[:end]),
        *measure_slow_path(python, rounds, DELAYS[:end]),
    ]
    for one in series:
        print_series(one)
    return series


def print_series(series: Series) -> None:
    print(f"\ngrowth: {series.title}")
    longest = max(seconds for _, seconds in series.points)
    for size, seconds in series.points:
        bar = "#" * round(BAR * max(seconds, 0) / longest)
        print(f"  {size:6,} {series.unit:11} {seconds * 1e3:8.1f} ms  {bar}")
    first, last = (slope * 1e6 for slope in series.slopes)
    print(f"  one more: {first:.2f} µs in the first part, {last:.2f} µs in the last")


def measure_series(
    python: str, title: str, unit: str, rounds: int, sizes: Sequence[int],
    commands: Sequence[Sequence[str]], environs: Sequence[Mapping[str, str]],
) -> Series:  # fmt: skip
    """Return medians of what each command takes beyond an empty Python in the same environment,
    in the same round. Raises FailedError where one cannot be run."""
    pairs: list[tuple[Contender, Contender]] = [
        (program(f"{size}", argv, environ), program("base", [python, "-c", "pass"], environ))
        for size, argv, environ in zip(sizes, commands, environs, strict=True)
    ]
    measure([contender for pair in pairs for contender in pair], rounds)
    points = []
    for size, (ours, base) in zip(sizes, pairs, strict=True):
        if ours.failures:
            print(f"{title}: {size:,} {unit}: {ours.failures[-1]}")
            continue
        beyond = [a - b for a, b in zip(ours.seconds, base.seconds, strict=True)]
        points.append((size, statistics.median(beyond)))
    return Series(title, unit, tuple(points))


def measure_processes(python: str, rounds: int, sizes: Sequence[int]) -> list[Series]:
    """Return two series, of launches that search other processes' masks and that do not; without a
    compiler none."""
    if not shutil.which("gcc"):
        print("\ngrowth: gcc is not installed")
        return []
    run = [*find_ompbind(python), "run", "--binder", "native", "-n", "2", "--share"]
    kinds = {"run -n 2": [*run, "--", TRUE], "run -n 2 --neighbours": [*run, "--neighbours", "--",
                                                                     TRUE]}  # fmt: skip
    points: dict[str, list[tuple[int, float]]] = {kind: [] for kind in kinds}
    with compiled("sleepers.c") as sleepers:
        for wanted in sizes:
            with sleeping(sleepers, wanted) as count:
                for kind, argv in kinds.items():
                    one = measure_series(python, kind, "", rounds, [count], [argv], [os.environ])
                    points[kind] += one.points
    return [Series(f"{kind}, other processes on the machine", "processes", tuple(found))
            for kind, found in points.items()]  # fmt: skip


@contextmanager
def sleeping(sleepers: str, count: int) -> Iterator[int]:
    """Yield how many processes sleep meanwhile: as many as are wanted, or allowed."""
    ours, theirs = os.pipe()
    with (
        subprocess.Popen(
            [sleepers, str(count)], stdin=subprocess.PIPE, stdout=theirs, text=True
        ) as parent,
        os.fdopen(ours) as made,
    ):
        os.close(theirs)
        yield int(made.readline())
        parent.communicate()


def measure_cpus(python: str, rounds: int, sizes: Sequence[int]) -> list[Series]:
    """Return series of plans for machines of other sizes, whose files are in memory."""
    with tempfile.TemporaryDirectory(prefix="ompbind-bench-", dir=find_memory()) as name:
        trees = [write_linked_tree(make_tree_files(n), Path(name) / str(n)) for n in sizes]
        series = []
        for asked in ([], ["-n", "8"]):
            show = [*find_ompbind(python), "show", "--format", "argv", *asked, "--topology"]
            title = " ".join(["show --format argv", *asked, "(reads and plans as run does)"])
            series.append(
                measure_series(
                    python, f"{title}, cpus of the machine", "cpus", rounds, sizes,
                    [[*show, str(tree), "--", TRUE] for tree in trees], [os.environ] * len(sizes),
                )
            )  # fmt: skip
        return series


def measure_ranks(python: str, rounds: int, sizes: Sequence[int]) -> Series:
    run = [*find_ompbind(python), "run", "--binder", "native", "--share", "-n"]
    return measure_series(
        python, "run -n N, ranks", "ranks", max(rounds // 2, 1), sizes,
        [[*run, str(n), "--", TRUE] for n in sizes], [os.environ] * len(sizes),
    )  # fmt: skip


def measure_environment(python: str, rounds: int, sizes: Sequence[int]) -> Series:
    """Every rank gets all of it, and the kernel copies it for every program."""
    run = [*find_ompbind(python), "run", "--binder", "native", "-n", "2", "--share", "--", TRUE]
    environs = [
        {**os.environ, **{f"BENCH_{n}": "x" * VALUE for n in range(size * 1024 // VALUE)}}
        for size in sizes
    ]
    return measure_series(
        python, "run -n 2, environment", "KiB", rounds, sizes, [run] * len(sizes), environs
    )


def measure_path(python: str, rounds: int, sizes: Sequence[int]) -> Series:
    """Folders that do not exist are looked up as those are that have no such program."""
    run = [*find_ompbind(python), "run", "--", "true"]
    environs = [
        {**os.environ, "PATH": ":".join([*(f"/bench/{n}" for n in range(size)),
                                         os.environ.get("PATH", os.defpath)])}
        for size in sizes
    ]  # fmt: skip
    return measure_series(
        python, "run, folders of PATH before the right one", "folders", rounds, sizes,
        [run] * len(sizes), environs,
    )  # fmt: skip


def measure_slow_path(python: str, rounds: int, sizes: Sequence[int]) -> list[Series]:
    """A folder of PATH on a slow network file system: strace holds each question to it up for so
    many milliseconds, and takes time itself. Without strace none."""
    if not shutil.which("strace"):
        print("\ngrowth: strace is not installed")
        return []
    folder = "/bench/slow"
    environ = {**os.environ, "PATH": f"{folder}:{os.environ.get('PATH', os.defpath)}"}
    traced = ["strace", "--follow-forks", "--seccomp-bpf", "-qq", "-o", os.devnull,
              *(word for name in ("true", "numactl") for word in ("-P", f"{folder}/{name}")),
              "-e", "trace=%file"]  # fmt: skip
    run = [*find_ompbind(python), "run", "--", "true"]
    commands = [
        [*traced, "-e", f"inject=%file:delay_enter={milliseconds * 1000}", *run]
        for milliseconds in sizes
    ]
    title = "run, through strace, a folder of PATH that is slow to answer"
    environs = [environ] * len(sizes)
    return [measure_series(python, title, "ms", rounds, sizes, commands, environs)]
