"""`ompbind show`: the plan that `run` would execute, drawn, as JSON or for other tools."""

from __future__ import annotations

import os

from ompbind.cli.run import list_fixes, may_have_groups, read_launch, wants_list
from ompbind.cli.shell import argv_lines, environment_lines, find_rank
from ompbind.messages import say, write_output
from ompbind.options import make_plan_options
from ompbind.options.reports import EXPORTS
from ompbind.options.values import parse_rank

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ompbind.groups.request import Groups
    from ompbind.machine.topology import Machine
    from ompbind.options import PlanOptions
    from ompbind.options.values import Values
    from ompbind.plans import Plan


def show(args: Sequence[str]) -> int:
    """Carry out `ompbind show`; return the exit status. Raises OmpbindError."""
    from ompbind.resolve import resolve_plan

    values, command = read_launch(args, "show")
    if wants_list(values):
        return list_fixes()
    environ = dict(os.environ)
    printed = values.pop("rank", None)
    if "hosts" in values:
        from ompbind.cli.show_cluster import show_cluster

        # Planned for processes to come: the engine of this one does not count, nor do the masks of
        # those that took the snapshots.
        values = {"inherited": "ignore", **values, "engine": "none"}
        options = make_plan_options(values, command, environ)
        return show_cluster(values, options, environ, printed)
    if isinstance(printed, str) and printed.startswith("env:"):
        values["rank"] = parse_rank(printed, "--rank")  # as run takes it: the plan has it only
        printed = None
    form = values.get("format", "table")
    machine = None
    if may_have_groups(values, command) and (groups := find_groups(values, command)):
        from ompbind.groups.plan import plan_groups

        values = groups.values
        plan = plan_groups(groups, environ)
    else:
        options = make_plan_options(values, command, environ)
        machine = read_for_both(options, values, form)
        plan = resolve_plan(options, environ, machine)
    if environ.get("OMPBIND_OPTIONS"):
        from ompbind.options.defaults import describe_defaults

        notes = describe_defaults(args, environ)
        plan = plan.replace(inherited=(*notes, *plan.inherited))
    rank = find_rank(len(plan.ranks), printed, form if form in ("env", "systemd") else "")
    machine = read_wanted_shape(values, plan, form, machine)
    sentences: list[str] = []
    if "explain" in values:
        from ompbind.render.sentences import explain

        sentences = explain(plan, machine)
    if form == "json":
        from ompbind.planner.sharing import list_sharing

        write_output(plan.to_json(sentences, sharing=list_sharing(plan, machine)))
    elif form == "env":
        write_output(environment_lines(plan, rank or 0))
    elif form == "argv":
        write_output(argv_lines(plan, rank))
    elif form in EXPORTS:
        print_export(plan, form, rank, environ)
    elif "svg" in values or "html" in values:
        write_drawing(values, plan, machine, sentences)
    else:
        from ompbind.render import make_text
        from ompbind.render.plan import draw_plan

        write_output(make_text(draw_plan(plan, sentences, rank, machine)))
        return 0
    for caution in plan.cautions if form != "json" else ():
        say("warning", caution.text, caution.hint)
    return 0


def find_groups(values: Values, command: Sequence[str]) -> Groups | None:
    """Return the groups that are asked for; None for one command. Raises OmpbindError."""
    from ompbind import groups

    return groups.find_groups(values, command, "show")


def read_for_both(options: PlanOptions, values: Values, form: str) -> Machine | None:
    """Return the machine if a new plan is to be shown in its shape: to read it once, with all
    levels, is half the work. None where other things than these are read of it. Raises
    TopologyError."""
    if options.saved is not None or form not in ("table", "json") or is_drawing(values):
        return None
    from ompbind.machine import read_machine
    from ompbind.resolve import wants_devices

    path = options.topology
    return read_machine(path, devices=wants_devices(options.request, path))


def is_drawing(values: Values) -> bool:
    """Whether a picture or a page was asked for."""
    return "svg" in values or "html" in values


def read_wanted_shape(
    values: Values, plan: Plan, form: str, machine: Machine | None
) -> Machine | None:
    """Return the machine that the plan is for, as far as it is shown; None if it is not needed, or
    not known. `machine`: it, if it has been read for the plan."""
    drawn = is_drawing(values)
    if not drawn and form not in ("table", "json"):
        return None
    devices = drawn or (form == "table" and any(r.devices for r in plan.ranks))
    if machine is None:
        return read_shape(values.get("topology"), plan, devices=devices, details=drawn)
    if machine.topology.devices and not devices:
        machine = machine.replace(topology=machine.topology.replace(devices=()))
    return machine


def write_drawing(
    values: Values, plan: Plan, machine: Machine | None, sentences: Sequence[str]
) -> None:
    """Write the picture or the page that was asked for. Raises OmpbindError."""
    from ompbind.cli.output_file import write_file

    if "svg" in values:
        from ompbind.render.picture import make_plan_picture, make_svg

        write_file("--svg", values["svg"], make_svg(make_plan_picture(plan, machine)))
    else:
        from ompbind.render.pages import make_plan_page

        write_file("--html", values["html"], make_plan_page(plan, machine, sentences))


def print_export(plan: Plan, form: str, rank: int | None, environ: Mapping[str, str]) -> None:
    """Print the plan for another tool, and warn of what that does not express. Raises UsageError,
    OmpbindError."""
    from ompbind.exports import make_export
    from ompbind.worker import find_program

    def find(name: str) -> str:
        path = find_program(name, environ)
        return os.path.abspath(path) if path else name

    text, warning, hint = make_export(form, plan, rank, find)
    write_output(text)
    if warning:
        say("warning", warning, hint)


def read_shape(path: object, plan: Plan, *, devices: bool, details: bool = False) -> Machine | None:
    """Return the machine that the plan is for, in whose shape it is drawn; None where it is another
    than the one that is named or runs here."""
    from ompbind.errors import TopologyError
    from ompbind.machine import read_machine

    try:
        machine = read_machine(
            path if isinstance(path, str) else None, devices=devices, details=details
        )
    except TopologyError:
        return None
    return machine if machine.topology.online == plan.host.cpus else None
