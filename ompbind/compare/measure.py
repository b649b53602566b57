"""One run of a variant: its figures, and what was written where it failed."""

from __future__ import annotations

import tempfile
from typing import TYPE_CHECKING

from ompbind.compare.experiment import Run
from ompbind.compare.metric import Metric, join_figures
from ompbind.compare.output import MOST, find_tail, paths_of, read_end
from ompbind.compare.procedure import Outcome, find_failure, make_alone, make_folder
from ompbind.compare.server import serve
from ompbind.launch.trial import run_trial

if TYPE_CHECKING:
    from typing import Any

    from ompbind.compare.procedure import Conditions, Procedure
    from ompbind.compare.variants import Variant
    from ompbind.plans import Plan

NOT_STARTED = 125  # the status of a run whose ranks were not started
LEAST = 1e-6  # seconds: what a time is at least, so that ratios can be formed


def measure(
    variant: Variant, number: int, metric: Metric, procedure: Procedure, conditions: Conditions
) -> Run:
    """Run a variant once, in round `number`. Raises OSError; an interruption ends the run."""
    with tempfile.TemporaryDirectory(prefix="ompbind-") as directory:
        outcome = carry_out(variant.plan, procedure, conditions, directory)
        value, failure, trial = None, outcome.failure, outcome.trial
        if trial and not failure:
            try:
                value = find_value(metric, outcome)
            except ValueError as e:
                failure = str(e)
        return Run(
            variant=variant.name,
            round=number,
            value=value,
            **make_figures(outcome),
            status=trial.status if trial else NOT_STARTED,
            failure=failure,
            tail=find_tail(outcome.plan, outcome.directory) if failure else (),
            ranks=trial.ranks if trial else (),
        )


def make_figures(outcome: Outcome) -> dict[str, Any]:
    """Return the figures of a run: the time of the rank, or the load, that ran longest, and the
    sums of all ranks."""
    ranks = outcome.trial.ranks if outcome.trial else ()
    timed = ranks if outcome.loading is None else outcome.loading.ranks
    return {
        "wall": max((rank["elapsed_seconds"] for rank in timed), default=0.0),
        "user": round(sum(rank["user_seconds"] for rank in ranks), 6),
        "system": round(sum(rank["system_seconds"] for rank in ranks), 6),
        "peak": sum(rank["peak_memory_bytes"] for rank in ranks),
    }


def find_value(metric: Metric, outcome: Outcome) -> float:
    """Return the figure of a run. Raises ValueError with the reason where there is none."""
    if not metric.is_printed:
        figures = make_figures(outcome)
        figures["cpu"] = figures["user"] + figures["system"]
        return max(float(figures[metric.name]), LEAST)
    outputs = [
        [read_end(path, MOST) for path in paths_of(outcome.directory, rank.number)]
        for rank in outcome.plan.ranks
    ]
    return join_figures(metric, outputs)


# --- what belongs to a run -----------------------------------------------------------------------


def carry_out(plan: Plan, procedure: Procedure, conditions: Conditions, directory: str) -> Outcome:
    """Run a plan's ranks, with what belongs before, beside and after them, and leave nothing
    running; what interrupts it comes out after the cleanup. Output is below `directory`. Raises
    OSError."""
    outcome = None
    try:
        outcome = run_step(plan, procedure.setup, "--setup", conditions, directory)
        if outcome is None:
            outcome = run_ranks(plan, procedure, conditions, directory)
    finally:
        cleanup = run_step(plan, procedure.cleanup, "--cleanup", conditions, directory)
    if cleanup and not outcome.failure:
        return cleanup.replace(trial=outcome.trial)
    return outcome


def run_step(
    plan: Plan, command: tuple[str, ...], name: str, conditions: Conditions, directory: str
) -> Outcome | None:
    """Run a command that belongs to the run of a plan; return its outcome where it fails."""
    if not command:
        return None
    alone, folder = make_alone(plan, command), make_folder(directory, name)
    trial = run_trial(
        alone, conditions.environ, folder,
        grace=conditions.grace, timeout=conditions.timeout, tick=conditions.tick,
    )  # fmt: skip
    failure = find_failure(trial, conditions.timeout)
    return Outcome(None, f"{name} {failure}", alone, folder) if failure else None


def run_ranks(plan: Plan, procedure: Procedure, conditions: Conditions, directory: str) -> Outcome:
    """Run the ranks, where they are servers with the load on them."""
    if procedure.load:
        return serve(plan, procedure, conditions, directory)
    trial = run_trial(
        plan, conditions.environ, directory, grace=conditions.grace,
        on_denied=conditions.on_denied, timeout=conditions.timeout, tick=conditions.tick,
    )  # fmt: skip
    return Outcome(trial, find_failure(trial, conditions.timeout), plan, directory)
