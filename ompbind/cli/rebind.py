"""`ompbind rebind`: bind programs that run already."""

from __future__ import annotations

import os

from ompbind.cli.pids import parse_pids
from ompbind.errors import PlanError, UsageError
from ompbind.messages import counted, say, write_output
from ompbind.options import make_plan_options

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ompbind.machine.processes import ProcessId
    from ompbind.machine.roots import LivingRoot
    from ompbind.machine.topology import Machine
    from ompbind.options.values import Values
    from ompbind.plans import Plan
    from ompbind.rebind.result import Result

# What else decides how many ranks there are; otherwise there is one for each process.
COUNTING = ("ranks", "plan", "numa_bind_nodes", "numa_bind_cpus", "cores_per_rank")
# What this process has inherited for OpenMP is not what the others have.
NOT_OURS = ("OMP_", "KMP_", "GOMP_", "OMPBIND_")


def rebind(args: Sequence[str]) -> int:
    """Carry out `ompbind rebind`; return the exit status. Raises OmpbindError."""
    from ompbind.machine import living_root, read_machine
    from ompbind.rebind import Rebinding
    from ompbind.rebind.families import find_named

    values, pids = parse_pids(args, "rebind")
    if not pids:
        raise UsageError("no pid to rebind", hint="ompbind rebind PID... [OPTIONS]")
    root = living_root()
    named = find_named(root, pids)
    machine = within_limits(root, read_machine(), named)
    moves = values.get("mem") != "none"
    plan = make_plan(values, named, machine)
    rebinding = Rebinding(root, machine, plan, named, moves=moves, force="force" in values)
    result = rebinding.make_result() if "dry_run" in values else rebinding.carry_out()
    write_result(result, machine, str(values.get("format", "table")))
    return 0 if result.holds else 1


def within_limits(root: LivingRoot, machine: Machine, named: Sequence[ProcessId]) -> Machine:
    """Return the machine with only what the cgroups of all these processes allow as well. Raises
    PlanError."""
    from ompbind.machine.processes import read_process

    allowed = machine.allowed
    for process in named:
        limits = read_process(root, process.pid)
        if limits is not None:
            cpus = allowed.cpus if limits.cpuset is None else allowed.cpus & limits.cpuset
            nodes = allowed.nodes if limits.mems is None else allowed.nodes & limits.mems
            if not cpus:
                raise PlanError(
                    f"pid {process.pid} may use cpus {limits.cpuset} only, and this process "
                    f"{allowed.cpus}",
                    hint="run ompbind rebind where both may use the same cpus",
                )
            allowed = allowed.replace(cpus=cpus, nodes=nodes)
    return machine.replace(allowed=allowed)


def make_plan(values: Values, named: Sequence[ProcessId], machine: Machine) -> Plan:
    """Return the plan of a rank for each process. Raises OmpbindError."""
    from ompbind.resolve import resolve_plan
    from ompbind.saved import check_plan

    wanted = {k: v for k, v in values.items() if k not in ("dry_run", "force", "format")}
    if not any(key in wanted for key in COUNTING):
        wanted["ranks"] = len(named)
    if "plan" not in wanted and machine.topology.numa:
        wanted.setdefault("mem", "bind")
    wanted = {**wanted, "engine": "none", "neighbours": False}
    environ = {k: v for k, v in os.environ.items() if not k.startswith(NOT_OURS)}
    options = make_plan_options(wanted, (), environ)
    request = options.request.replace(omp="off", omp_why="the processes run already")
    if any(role.threads for role in request.roles):
        raise UsageError("--role with names of threads: nobody stays to watch for new ones",
                         hint="leave the names out, or ompbind run --role")  # fmt: skip
    if request.part is not None and not request.part[0]:
        raise UsageError("--part auto/N: nobody can hold a part for processes that run already",
                         hint="--part 1/2")  # fmt: skip
    plan = resolve_plan(options.replace(request=request), environ, machine)
    if "plan" in wanted:
        check_plan(plan)
    plan = plan.bind_natively()
    if len(plan.ranks) != len(named):
        raise PlanError(
            f"the plan has {counted(len(plan.ranks), 'rank')}, and "
            f"{counted(len(named), 'process')} {'are' if named[1:] else 'is'} named",
            hint="give a pid for each rank, in the order of ranks",
            wanted=len(named),
            available=len(plan.ranks),
        )
    return plan


def write_result(result: Result, machine: Machine, form: str) -> None:
    """Print what was done, or would be, and say what the user may not expect."""
    if form == "json":
        write_output(result.to_json())
    else:
        from ompbind.render import make_text
        from ompbind.render.rebinding import draw_result

        write_output(make_text(draw_result(result, machine)))
    for note in result.notes:
        say("note", note)
    if result.report is not None:
        for caution in result.plan.cautions:
            say("warning", caution.text, caution.hint)
