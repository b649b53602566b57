"""`ompbind run`: from arguments to the workers' exit status.

On everybody's start path: what only some launches need is imported where they need it.
"""

from __future__ import annotations

import os
import sys

from ompbind.errors import UsageError
from ompbind.host import Lease
from ompbind.messages import cut, say, write_output
from ompbind.options import make_plan_options, make_settings, read_arguments
from ompbind.options.table import GROUP_OPTIONS
from ompbind.plans import describe_numbers
from ompbind.worker import may_bind_workers

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ompbind.groups.request import Groups
    from ompbind.launch.rank import Announce, Prove, Settings
    from ompbind.options.values import Values
    from ompbind.plans import Plan, Task

# Seconds in place of the default of --grace, for a server: a busy one takes ten to end its workers,
# and Kubernetes, for one, kills after thirty.
SERVER_GRACE = 30.0

# Warnings that `show` and `doctor` give, and a launch does not repeat: NUMA balancing is the
# default of kernels, so that each plain -n 2 on a server would begin with it, and ranks that share
# their cpus have as many threads each by default, so that each --share would.
QUIET = ("numa-balancing", "shared-threads")
# Warnings of what only this rank's cpus and memory meet: each of an engine's ranks gives its own.
OWN = ("neighbours", "memory")


def run(args: Sequence[str]) -> int:
    """Carry out `ompbind run`; return the exit status. Raises OmpbindError."""
    values, command = read_launch(args, "run")
    if wants_list(values):
        return list_fixes()
    groups = None
    if may_have_groups(values, command):
        from ompbind.groups import find_groups

        groups = find_groups(values, command, "run")
        values = groups.values if groups else values
    if "topology" in values:
        raise UsageError(
            "--topology is another machine, where nothing can be run from here",
            hint="ompbind show --topology plans for it",
        )
    if not command and not groups and "plan" not in values:
        raise UsageError("no command to run", hint="put it after --: ompbind run -- COMMAND")
    return start(values, command, groups)


def may_have_groups(values: Values, command: Sequence[str]) -> bool:
    """Whether to ask `groups`, which no other launch needs, about a command line."""
    marked = ":::" in command or ":" in command
    return marked or not values.keys().isdisjoint(GROUP_OPTIONS)


def read_launch(args: Sequence[str], command: str) -> tuple[Values, list[str]]:
    """Return the values of the options of `run` or `show`, those of OMPBIND_OPTIONS among them, and
    the worker's command. Raises UsageError, ParseError, PlanError."""
    if not os.environ.get("OMPBIND_OPTIONS"):
        return read_arguments(args, command)
    from ompbind.options.defaults import read_with_defaults

    return read_with_defaults(args, command, os.environ)


def start(values: Values, command: Sequence[str], groups: Groups | None = None) -> int:
    """Plan and start the ranks that these options ask for; return the exit status. Raises
    OmpbindError."""
    from ompbind import launch

    settings = make_settings(values)
    settings = settings.replace(prove=make_verifier(settings))
    environ = given_environment()
    lease = Lease.open()
    if groups:
        from ompbind.groups.plan import plan_groups

        plan = plan_groups(groups, environ, is_run=True, lease=lease)
    else:
        from ompbind.resolve import resolve_plan

        options = make_plan_options(values, command, environ)
        plan = resolve_plan(options, environ, is_run=True, lease=lease, is_shown=False)
    if "plan" in values:
        from ompbind.saved import check_plan

        check_plan(plan)
    if settings.report:
        from ompbind.cli.output_file import find_report

        settings = settings.replace(report=find_report(settings.report, plan, environ))
    if settings.verbose or settings.report_bindings:
        settings = settings.replace(announce=make_announcer())
    if plan.warm and not settings.quiet:
        from ompbind.cli.progress import WarmingBar

        settings = settings.replace(warming=WarmingBar())
    if not settings.quiet:
        say_what_matters(plan, verbose=settings.verbose)
    settings = settle_supervision(settings, values, plan)
    warn = (lambda _: None) if settings.quiet else lambda text: say("warning", text)
    return launch.run(plan, environ, warn, settings, lease)


def say_what_matters(plan: Plan, *, verbose: bool) -> None:
    """Report what the user may not expect of a plan, and its warnings."""
    task = plan.task
    if not task.rank:  # the first of an engine's ranks speaks for all
        if plan.inherited:
            variables = "; ".join(f"{i.name}={cut(i.value)} {i.action}" for i in plan.inherited)
            say("note", f"{variables} (ompbind show tells why)")
        if task.note:
            say("note", task.note)
        if verbose:
            say_engine(task)
    speaks = not task.local_rank or task.engine == "hand"  # for all ranks on its node
    for caution in plan.cautions:
        if caution.kind not in QUIET and (speaks or caution.kind in OWN):
            say("warning", caution.text, caution.hint)


def say_engine(task: Task) -> None:
    """Report the engine that started this rank, and those that were passed over."""
    if task:
        parts = (describe_numbers(task), task.by, task.why)
        say("note", f"{task.label}: {'; '.join(filter(None, parts))}")
    for name, why in task.passed_over:
        say("note", f"{name} is passed over: {why}")


def settle_supervision(settings: Settings, values: Values, plan: Plan) -> Settings:
    """Return the settings with those that depend on the command: what starts workers of its own is
    supervised, so that they do not outlive it, and gets more time to end them. Raises UsageError.
    """
    if settings.supervise is False and len(plan.ranks) > 1:
        raise UsageError(
            f"--no-supervise is for a single rank, and this plan has {len(plan.ranks)}",
            hint="leave it out",
        )
    if settings.supervise is False and plan.names_threads:
        raise UsageError(
            "--no-supervise leaves nobody who puts threads on the cpus of a role by their names",
            hint="leave it out, or the names in --role",
        )
    commands = [g.command for g in plan.groups] or [plan.command]
    if not any(map(may_bind_workers, commands)):
        return settings
    from ompbind.worker.launchers import find_launch

    if all(find_launch(command) is None for command in commands):
        return settings
    if "grace" not in values:
        settings = settings.replace(grace=SERVER_GRACE)
    return settings.replace(watched=settings.supervise is not False)


def given_environment() -> dict[str, str]:
    """Return the environment that ompbind was started with.

    In the C locale Python adds an LC_CTYPE (PEP 538), which workers must not inherit.
    """
    environ = dict(os.environ)
    if environ.get("LC_CTYPE") in ("C.UTF-8", "C.utf8", "UTF-8"):
        from ompbind.machine import living_root
        from ompbind.machine.processes import read_environ

        given = read_environ(living_root(), os.getpid()) if sys.platform == "linux" else None
        if given is not None and "LC_CTYPE" not in dict(given):
            del environ["LC_CTYPE"]
    return environ


def make_verifier(settings: Settings) -> Prove | None:
    """Return what checks the ranks for --verify. Raises TopologyError."""
    if settings.verify is None and not settings.verify_strict:
        return None
    from ompbind.machine import living_root
    from ompbind.verify.after_start import SECONDS, Verifier

    within = SECONDS if settings.verify is None else settings.verify
    return Verifier(living_root(), within=within, strict=settings.verify_strict)


def make_announcer() -> Announce:
    """Return what makes a line for each rank when it starts. Raises TopologyError."""
    from ompbind.launch.announcement import LEVELS, Announcer
    from ompbind.machine import read_machine

    return Announcer(read_machine(None, LEVELS, devices=False).topology)


def wants_list(values: Values) -> bool:
    """Whether `list` is among the names that --fix was given."""
    return "list" in str(values.get("fix")).split(",")


def list_fixes() -> int:
    """Print the fixes that there are; return the exit status."""
    from ompbind.fixes import registry

    write_output(registry.list_fixes())
    return 0
