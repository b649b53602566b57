"""Starting workers: the only package that forks, executes, signals or binds."""

from __future__ import annotations

import os

from ompbind.cpuset import union
from ompbind.errors import UsageError
from ompbind.host import Lease
from ompbind.launch.binding import apply_on_denied, probe, reset_inherited
from ompbind.launch.rank import (
    NUMACTL,
    Launch,
    Settings,
    bind,
    execute,
    find_programs,
    make_starts,
)
from ompbind.launch.syscalls import signal
from ompbind.messages import write_line

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ompbind.plans import Plan

__all__ = ["Launch", "Settings", "run"]


def run(
    plan: Plan,
    environ: Mapping[str, str],
    say: Callable[[str], None],
    settings: Settings,
    lease: Lease | None = None,
) -> int:
    """Start every rank as planned and return the exit status.

    The ranks hold their cpus as long as one of their processes keeps the descriptor of `lease`,
    which holds them by now; None: one is taken here.

    A plan of one rank replaces this process and does not return, unless that rank is watched.
    Raises CommandError for a command that cannot be executed and DeniedError for a binding that is
    denied, with nothing started. `say` gets a warning for each part that `on_denied` "degrade"
    leaves out.
    """
    if not all(rank.command for rank in plan.ranks):
        raise UsageError("no command to run", hint="put it after --: ompbind run -- COMMAND")
    if plan.names_threads:
        settings = settings.replace(watched=True)
    programs = find_programs(plan, environ)
    if hasattr(signal, "SIGCHLD"):  # if it is ignored, every child's exit status is lost
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    if plan.reset_inherited:
        reset_inherited(plan.host.allowed)
    if plan.binder != "native":  # several native ranks are bound before any executes
        refusals = probe(plan, environ, programs.get(NUMACTL))
        switch = settings.may_switch and {r.part for r in refusals} == {"numactl"}
        on_denied = "degrade" if switch else settings.on_denied
        plan = apply_on_denied(plan, refusals, on_denied, say)
    if plan.binder == "none":
        lease = None
    elif lease is None and (lease := Lease.open()):
        lease.hold(union(map(plan.held_by, plan.ranks)))
    if plan.warm:
        from ompbind.launch.warm import warm_files

        results = warm_files(plan.warm, settings.on_denied, say, settings.warming)
        if settings.warming:
            settings.warming.finish(results)
    if not hasattr(os, "fork"):
        from ompbind.launch.portable import run_portably

        if settings.redirects or settings.watched or plan.groups:
            raise UsageError("this system has no fork: ranks cannot be watched or redirected here",
                             hint="leave --output, --stdin, --verify, groups out")  # fmt: skip
        announce(plan, settings)
        return run_portably(make_starts(plan, environ, programs))
    if len(plan.ranks) > 1 or settings.watched:
        from ompbind.launch.parent import run_supervised

        return run_supervised(Launch(plan, environ, programs, settings, lease))
    start = make_starts(plan, environ, programs)[0]
    if settings.redirects:
        from ompbind.launch.streams import Streams

        first = plan.ranks[0].number
        start = Streams(settings, 1, environ, first).connect_alone(start)
    if lease is not None:
        lease.make_inheritable()
    if plan.binder == "native":
        plan = plan.replace(ranks=(bind(plan.ranks[0], settings.on_denied, say),))
    announce(plan, settings)
    return execute(start)


def announce(plan: Plan, settings: Settings) -> None:
    """Report what each rank is bound to, where that is asked for."""
    if settings.announce:
        for line in settings.announce(plan):
            write_line(f"ompbind: {line}")
