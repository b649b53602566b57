"""What programs print of themselves, run after run, and how far it spreads."""

from __future__ import annotations

import os
import random
import statistics
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from bench.measure import FailedError
from ompbind.compare.statistics import Verdict, judge

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ompbind.compare.statistics import Better


SECONDS = 300.0  # for one run at most


def make_environ() -> dict[str, str]:
    """Return this environment without what chooses threads, and with other work overlooked."""
    chosen = ("OMP_", "GOMP_", "KMP_", "MKL_", "OPENBLAS_", "NUMBA_", "POLARS_", "OMPBIND_")
    environ = {k: v for k, v in os.environ.items() if not k.startswith(chosen)}
    return environ | {"OMPBIND_NEIGHBOURS": "no"}


def read_figure(argv: Sequence[str]) -> float:
    """Return the number at the start of the last line that a program prints. Raises FailedError."""
    try:
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, env=make_environ(),
            timeout=SECONDS, check=False,
        )  # fmt: skip
        if done.returncode:
            raise FailedError(f"{argv[0]}: status {done.returncode}: {done.stderr[-300:]}")
        return float(done.stdout.splitlines()[-1].split()[0])
    except (subprocess.TimeoutExpired, IndexError, ValueError) as e:
        raise FailedError(f"{argv[0]}: {e}") from None


@contextmanager
def compiled(source: str) -> Iterator[str]:
    """Compile a source of this folder with OpenMP; the program is removed afterwards."""
    with tempfile.TemporaryDirectory(prefix="ompbind-bench-") as folder:
        program = str(Path(folder) / source.partition(".")[0])
        path = Path(__file__).with_name(source)
        subprocess.run(["gcc", "-O2", "-fopenmp", "-o", program, path], check=True)
        yield program


def make_run(argv: Sequence[str]) -> Callable[[], list[float]]:
    """Return what runs a command and returns its figure."""
    return lambda: [read_figure(argv)]


def run_at_once(commands: Sequence[Sequence[str]]) -> Callable[[], list[float]]:
    """Return what runs commands at the same time and returns the figure of each."""

    def run() -> list[float]:
        with ThreadPoolExecutor(len(commands)) as pool:
            return list(pool.map(read_figure, commands))

    return run


def take_turns(
    runs: Mapping[str, Callable[[], Sequence[float]]], rounds: int
) -> list[dict[str, Sequence[float]]]:
    """Make each run once to warm up and once in every round, in random order, and return their
    figures round by round."""
    order = random.Random(1)  # noqa: S311
    results: list[dict[str, Sequence[float]]] = []
    for _ in range(rounds + 1):
        figures = {name: runs[name]() for name in order.sample(list(runs), len(runs))}
        results.append({name: figures[name] for name in runs})
    return results[1:]


def print_spread(
    title: str, unit: str, results: Sequence[Mapping[str, Sequence[float]]], better: Better
) -> None:
    """Print the figures of all runs as a table in Markdown, with the verdict of `compare` on the
    medians of the rounds."""
    medians = [{name: statistics.median(figures) for name, figures in row.items()}
               for row in results]  # fmt: skip
    verdicts = {v.name: v for v in judge(medians, better)}
    print(f"\n{title}\n")
    print(f"| | median, {unit} | least | greatest | greatest / least | compared with the best |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name in results[0]:
        figures = [x for row in results for x in row[name]]
        cells = [f"{x:.3g}" for x in (statistics.median(figures), min(figures), max(figures))]
        cells.append(f"{max(figures) / min(figures):.2f}" if min(figures) else "-")
        print("|", " | ".join([name, *cells, describe(verdicts[name])]), "|")


def describe(verdict: Verdict) -> str:
    """Return `best`, or the ratio to the best one with its interval."""
    if verdict.kind == "best" or verdict.ratio is None:
        return verdict.kind
    interval = "too few rounds"
    if verdict.low is not None and verdict.high is not None:
        interval = f"{verdict.low:.2f} to {verdict.high:.2f}"
    return f"{verdict.ratio:.2f} ({interval})"
