"""One run of servers: they are started, waited for, loaded, and ended by the stop ladder."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from ompbind.compare.output import MOST, paths_of, read_end
from ompbind.compare.procedure import Outcome, find_failure, make_alone, make_folder
from ompbind.compare.readiness import describe, find_problem
from ompbind.launch.ready import is_taken
from ompbind.launch.trial import Launched, wait_for_any

if TYPE_CHECKING:
    from ompbind.compare.procedure import Conditions, Procedure
    from ompbind.launch.ready import Condition
    from ompbind.plans import Plan

FIRST, LAST = 0.02, 0.5  # seconds between two looks whether a server is ready


def serve(plan: Plan, procedure: Procedure, conditions: Conditions, directory: str) -> Outcome:
    """Carry out one run of a plan's servers: figures are in what the load writes, wall time is the
    load's, and the rest is the servers' from start to end. Raises OSError."""
    for ready in procedure.ready:
        if is_taken(ready):
            failure = f"{describe(ready)} answers before the server is started"
            return Outcome(None, failure, plan, directory)
    with Launched(plan, conditions.environ, directory, grace=conditions.grace,
                  on_denied=conditions.on_denied) as server:  # fmt: skip
        problem = wait_until_ready(server, procedure, conditions)
        if problem:
            has_ended = server.has_ended()
            trial = server.stop(conditions.tick)
            if has_ended:
                problem = f"the server ended with status {trial.status} before it was ready"
            return Outcome(trial, problem, plan, directory)
        alone, folder = make_alone(plan, procedure.load), make_folder(directory, "--load")
        with Launched(alone, conditions.environ, folder, grace=conditions.grace) as load:
            first = wait_for_any([load, server], conditions.timeout, conditions.tick)
            loading = load.collect() if first is load else load.stop(conditions.tick)
        trial = server.stop(conditions.tick)
    if first is server:
        failure = f"the server ended with status {trial.status} while it was loaded"
        return Outcome(trial, failure, plan, directory)
    loading = loading.replace(timed_out=first is None)
    failure = find_failure(loading, conditions.timeout)
    return Outcome(
        trial=trial.replace(status=loading.status),
        failure=f"--load {failure}" if failure else "",
        plan=alone,
        directory=folder,
        loading=loading,
    )


def wait_until_ready(server: Launched, procedure: Procedure, conditions: Conditions) -> str:
    """Wait until servers give every sign that they are ready; return why they do not, "" if they
    do."""
    ends, pause = time.monotonic() + procedure.within, FIRST
    while True:
        ready, problem = find_unready(server, procedure)
        if ready is None:
            return ""
        left = ends - time.monotonic()
        if left <= 0:
            late = f"the server was not ready within {procedure.within:g} s"
            return f"{late}: {describe(ready)}: {problem}"
        if wait_for_any([server], min(pause, left), conditions.tick):
            return "the server has ended"
        pause = min(2 * pause, LAST)


def find_unready(server: Launched, procedure: Procedure) -> tuple[Condition | None, str]:
    """Return the first sign that is missing and why, or None."""
    outputs: list[str] = []
    if any(ready.kind == "line" for ready in procedure.ready):
        outputs = [read_rank(server.directory, rank.number) for rank in server.plan.ranks]
    for ready in procedure.ready:
        if problem := find_problem(ready, outputs):
            return ready, problem
    return None, ""


def read_rank(directory: str, rank: int) -> str:
    """Return what a rank has written so far, its output before its errors."""
    return "\n".join(read_end(path, MOST) for path in paths_of(directory, rank))
