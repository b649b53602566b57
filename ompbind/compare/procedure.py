"""What is done for one run of a variant besides its command: something before it, something after
it, and where it is a server, waiting until it is ready and a load on it. Every command of these is
an argument list, bound to nothing, and ended with all that it has started.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ompbind.compare.readiness import parse_ready
from ompbind.cpuset import CpuSet
from ompbind.errors import UsageError
from ompbind.options.values import split_words
from ompbind.plans import Binding, Plan, RankPlan
from ompbind.record import Record

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ompbind.launch.ready import Condition
    from ompbind.launch.trial import Trial

READY_WITHIN = 600.0  # seconds; large models take minutes to load


class Procedure(Record):
    """The commands of one run. `ready`: all of these say when a server is ready, within `within`
    seconds; `load`: what is run against it then, () where the command is no server."""

    setup: tuple[str, ...] = ()
    ready: tuple[Condition, ...] = ()
    within: float = READY_WITHIN
    load: tuple[str, ...] = ()
    cleanup: tuple[str, ...] = ()


class Conditions(Record):
    """What holds for every launch of a run. `grace`: seconds from each step of the stop ladder to
    the next; `timeout`: seconds for each command, None for no limit; `tick`: called now and
    then."""

    environ: Mapping[str, str]
    grace: float = 10.0
    on_denied: str = "error"
    timeout: float | None = None
    tick: Callable[[], object] | None = None


class Outcome(Record):
    """What came of a run: the ranks' `trial`, None where they were not started, and why it
    counts as failed. Figures, or the reason of the failure, are in what the ranks of `plan` wrote
    into `directory`. `loading`: of a server, what came of the load."""

    trial: Trial | None
    failure: str
    plan: Plan
    directory: str
    loading: Trial | None = None


def parse_command(text: str, name: str) -> tuple[str, ...]:
    """Return the words of a command, quoted as in a shell, which is not started. Raises
    UsageError."""
    words = tuple(split_words(text, name))
    if not words:
        raise UsageError(f"{name}: an empty command", hint=f"{name} 'COMMAND ARG...'", option=name)
    return words


def make_procedure(
    setup: str | None = None,
    ready: tuple[str, ...] = (),
    within: float | None = None,
    load: str | None = None,
    cleanup: str | None = None,
) -> Procedure:
    """Return the procedure of these options' values. Raises UsageError."""
    return Procedure(
        setup=() if setup is None else parse_command(setup, "--setup"),
        ready=tuple(map(parse_ready, ready)),
        within=READY_WITHIN if within is None else within,
        load=() if load is None else parse_command(load, "--load"),
        cleanup=() if cleanup is None else parse_command(cleanup, "--cleanup"),
    )


def find_failure(trial: Trial, timeout: float | None) -> str:
    """Return why a launch counts as failed, "" where it does not."""
    if trial.timed_out:
        return f"took longer than {timeout:g} s"
    return f"ended with status {trial.status}" if trial.status else ""


def make_alone(plan: Plan, command: tuple[str, ...]) -> Plan:
    """Return the plan of one rank, bound to nothing and with nothing in its environment, on the
    machine of another plan."""
    rank = RankPlan(0, Binding(), (), CpuSet(), (), (), command)
    return Plan(host=plan.host, ranks=(rank,), command=command, omp="off", omp_why="not bound")


def make_folder(directory: str, name: str) -> str:
    """Make and return the directory for the output of `--load` and the like."""
    folder = os.path.join(directory, name.lstrip("-"))
    os.mkdir(folder)
    return folder
