"""One run of a variant: its launch, its figures, and what it wrote where it failed."""

from __future__ import annotations

import os
import tempfile
from typing import TYPE_CHECKING

from ompbind.compare.experiment import Run
from ompbind.compare.metric import Metric, join_figures
from ompbind.launch.trial import MESSAGES, Trial, run_trial
from ompbind.messages import one_line

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from ompbind.compare.variants import Variant

LINES = 5  # of a failed run's output
MOST = 64 << 20  # bytes of a rank's output that are searched for a figure
LEAST = 1e-6  # seconds: what a time is at least, so that ratios can be formed


def measure(
    variant: Variant,
    number: int,
    metric: Metric,
    environ: Mapping[str, str],
    *,
    grace: float,
    on_denied: str,
    timeout: float | None,
    tick: Callable[[], object] | None,
) -> Run:
    """Run a variant once, in round `number`. Raises OSError; an interruption ends the run."""
    with tempfile.TemporaryDirectory(prefix="ompbind-") as directory:
        trial = run_trial(
            variant.plan, environ, directory,
            grace=grace, on_denied=on_denied, timeout=timeout, tick=tick,
        )  # fmt: skip
        value, failure = None, find_failure(trial, timeout)
        if not failure:
            try:
                value = find_value(metric, trial, variant, directory)
            except ValueError as e:
                failure = str(e)
        return Run(
            variant=variant.name,
            round=number,
            value=value,
            **make_figures(trial),
            status=trial.status,
            failure=failure,
            tail=find_tail(variant, directory) if failure else (),
            ranks=trial.ranks,
        )


def make_figures(trial: Trial) -> dict[str, Any]:
    """Return the figures of a run: of the rank that ran longest, and the sums of all."""
    return {
        "wall": max((rank["elapsed_seconds"] for rank in trial.ranks), default=0.0),
        "user": sum(rank["user_seconds"] for rank in trial.ranks),
        "system": sum(rank["system_seconds"] for rank in trial.ranks),
        "peak": sum(rank["peak_memory_bytes"] for rank in trial.ranks),
    }


def find_failure(trial: Trial, timeout: float | None) -> str:
    """Return why a launch counts as failed, "" where it does not."""
    if trial.timed_out:
        return f"took longer than {timeout:g} s"
    return f"ended with status {trial.status}" if trial.status else ""


def find_value(metric: Metric, trial: Trial, variant: Variant, directory: str) -> float:
    """Return the figure of a run. Raises ValueError with the reason where there is none."""
    if not metric.is_printed:
        figures = make_figures(trial)
        figures["cpu"] = figures["user"] + figures["system"]
        return max(float(figures[metric.name]), LEAST)
    outputs = [
        [read_end(path, MOST) for path in paths_of(directory, rank.number)]
        for rank in variant.plan.ranks
    ]
    return join_figures(metric, outputs)


def find_tail(variant: Variant, directory: str) -> tuple[str, ...]:
    """Return the last lines that a failed run wrote: ranks' errors, what ompbind said, else the
    ranks' output."""
    ranks = [paths_of(directory, rank.number) for rank in variant.plan.ranks]
    for paths in (
        [err for _, err in ranks],
        [os.path.join(directory, MESSAGES)],
        [out for out, _ in ranks],
    ):
        texts = (read_end(path, 4096) for path in paths)
        lines = [one_line(line) for text in texts for line in text.splitlines() if line.strip()]
        if lines:
            return tuple(line[:300] for line in lines[-LINES:])
    return ()


def paths_of(directory: str, rank: int) -> tuple[str, str]:
    """Return the files of a rank's standard output and error."""
    start = os.path.join(directory, f"rank-{rank}")
    return f"{start}.out", f"{start}.err"


def read_end(path: str, most: int) -> str:
    """Return the last `most` bytes of a file as text; "" where it does not exist."""
    try:
        with open(path, "rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - most))
            return file.read().decode("utf-8", "replace")
    except FileNotFoundError:
        return ""
