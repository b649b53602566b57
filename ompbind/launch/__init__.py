"""Starting workers: the only place that forks, executes, signals or binds."""

from __future__ import annotations

import os

from ompbind.errors import UsageError
from ompbind.launch.binding import probe, widen
from ompbind.launch.rank import execute, find_programs, make_starts, run_alone
from ompbind.launch.refusals import settle

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from collections.abc import Callable, Mapping

    from ompbind.launch.rank import Start
    from ompbind.launch.settings import Settings
    from ompbind.plans import Plan
else:
    import _signal as signal  # `signal` itself wraps this in enums, a third of the whole start-up


def run(
    plan: Plan,
    environ: Mapping[str, str],
    say: Callable[[str], None],
    settings: Settings,
) -> int:
    """Starts every rank as planned and returns the exit status.

    A plan of one rank replaces this process and does not return, unless that is to be watched.
    Raises CommandError for a command that cannot be executed and DeniedError for a binding that is
    refused, with nothing started. `say` gets a warning for each part that `on_denied` "degrade"
    leaves out.
    """
    for rank in plan.ranks:
        if not rank.command:
            raise UsageError("no command to run", hint="put it after --: ompbind run -- COMMAND")
    programs = find_programs(plan, environ)
    if hasattr(signal, "SIGCHLD"):  # ignored, it would lose every child's exit status
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    if plan.binder != "none" and any(n.action == "widened" for n in plan.narrowed):
        widen(plan.host.allowed)
    if plan.binder != "native":  # several native ranks say it themselves, before any executes
        refusals = probe(plan, environ)
        switch = settings.may_switch and {r.part for r in refusals} == {"numactl"}
        plan = settle(plan, refusals, "degrade" if switch else settings.on_denied, say)

    def make(plan: Plan) -> list[Start]:
        return make_starts(plan, environ, programs)

    if not hasattr(os, "fork"):
        from ompbind.launch.portable import run_portably

        if settings.redirects or settings.watched:
            raise UsageError("this system has no fork: ranks cannot be watched or redirected here",
                             hint="leave --output, --stdin, --verify and the like out")  # fmt: skip
        return run_portably(make(plan))
    if len(plan.ranks) > 1 or settings.watched:
        from ompbind.launch.parent import run_supervised
        from ompbind.launch.streams import Streams

        streams = Streams(settings, len(plan.ranks), environ)
        return run_supervised(plan, make, settings, say, streams)
    start = make(plan)[0]
    if settings.redirects:
        from ompbind.launch.streams import Streams

        start = Streams(settings, 1, environ).connect_alone(start)
    if plan.binder == "native":
        return run_alone(start, settings.on_denied, say)
    return execute(start)
