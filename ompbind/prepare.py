"""From parsed arguments to a plan: what `run` and `show` do alike."""

from __future__ import annotations

import os

from ompbind import numactl
from ompbind.claims import make_claim
from ompbind.cpuset import union
from ompbind.errors import OmpbindError, PlanError, UsageError
from ompbind.machine import linux_root, living_root, read_machine
from ompbind.messages import quote
from ompbind.openmp import choose_places, judge_environment
from ompbind.planner import make_plan
from ompbind.planner.cores import levels_for
from ompbind.planner.request import make_request
from ompbind.plans import Caution, Inherited, parse_plan
from ompbind.worker.program import find_program
from ompbind.worker.runtimes import guess_worker

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ompbind.cpuset import CpuSet
    from ompbind.machine.topology import Device, Machine, Topology
    from ompbind.options.parse import Values
    from ompbind.planner.request import Request
    from ompbind.plans import Inherited, Plan, RankPlan

# What goes with --plan: it says the rest itself.
ENVIRONMENT = ("env", "env_file", "master_port", "master_addr")
STREAMS = ("output", "output_dir", "overwrite", "stdin")
BESIDE_PLAN = ("plan", "on_denied", "format", "rank", "fix", "fix_children", "verbose",
               "on_failure", "grace", "leave_children", "verify", "verify_strict",
               "explain", "neighbours", *ENVIRONMENT, *STREAMS)  # fmt: skip


def prepare_plan(values: Values, command: Sequence[str], environ: Mapping[str, str]) -> Plan:
    """The plan that the arguments ask for, on this machine or on the one that they name, with the
    fixes that its workers carry.

    Raises OmpbindError.
    """
    told: tuple[Inherited, ...] = ()
    if "from_env" in values and "plan" not in values:
        values, told = from_environment(values, environ)
    if "plan" in values:
        plan = load_plan(values, command, environ)
    else:
        plan = plan_anew(values, command, environ)
    plan = plan.replace(inherited=(*told, *plan.inherited))
    if any(key in values for key in ENVIRONMENT):
        from ompbind.worker.environment import with_environment

        plan = with_environment(plan, values, environ)
    look = values.get("neighbours", environ.get("OMPBIND_NEIGHBOURS") != "no")
    if look and "topology" not in values:
        plan = with_neighbours(plan, environ)
    return with_fixes(plan, values, environ)


def with_neighbours(plan: Plan, environ: Mapping[str, str]) -> Plan:
    """The plan with a warning where other launches hold cpus of it."""
    if plan.binder == "none" or not hasattr(os, "sched_getaffinity"):
        return plan
    from ompbind.host.neighbours import find_neighbours, make_warning

    text = make_warning(find_neighbours(living_root(), union(r.cpus for r in plan.ranks), environ))
    if not text:
        return plan
    return plan.replace(cautions=(*plan.cautions, Caution("neighbours", text)))


def from_environment(
    values: Values, environ: Mapping[str, str]
) -> tuple[Values, tuple[Inherited, ...]]:
    """The options with those that another tool's variables stand for. Raises OmpbindError."""
    from ompbind.machine import read_family
    from ompbind.options.vllm import make_options

    path = text_of(values, "topology")
    rest = {key: value for key, value in values.items() if key != "from_env"}
    machine = read_machine(path, devices=False)
    return make_options(rest, environ, machine, read_family(path))


def plan_anew(values: Values, command: Sequence[str], environ: Mapping[str, str]) -> Plan:
    """A plan by this or another machine's topology. Raises OmpbindError."""
    request = make_request(values, command, environ)
    if request.asked("places") is None:
        request = with_default_places(request, environ)
    path = text_of(values, "topology")
    devices = wants_devices(request, path)
    machine = read_machine(path, levels_for(request), devices=devices)
    if devices:
        request = with_visible(request, machine.topology.devices, environ, path)
    machine, narrowed = settle_narrowed(machine, values, environ)
    binder = request.binder
    if not machine.can_bind:
        binder = "none"
    elif binder == "auto":
        binder = choose_binder(machine.topology, path is not None, environ)
    elif binder == "numactl" and path is None and find_program("numactl", environ) is None:
        raise UsageError(
            "--binder numactl: numactl is not installed (not in PATH)",
            hint="install it, or --binder native",
        )
    plan = make_plan(machine, request.replace(binder=binder))
    if path is None and machine.topology.nodes[1:] and (root := linux_root()):
        from ompbind.host.kernel import advise
        from ompbind.machine.limits import read_sysctl

        if cautions := advise(plan, read_sysctl(root, "kernel/numa_balancing") or ""):
            plan = plan.replace(cautions=(*plan.cautions, *cautions))
    return plan.replace(narrowed=narrowed) if narrowed else plan


def settle_narrowed(
    machine: Machine, values: Values, environ: Mapping[str, str]
) -> tuple[Machine, tuple[Inherited, ...]]:
    """The machine with what may be used of it under --inherited, and what was narrowed before.

    A machine that is whole is not looked at further. Raises PlanError.
    """
    allowed, topology = machine.allowed, machine.topology
    how = values.get("inherited", "intersect")
    whole = allowed.cpus == topology.online and allowed.nodes == topology.node_numbers
    if whole and how == "intersect":
        return machine, ()
    path = text_of(values, "topology")
    root = linux_root(path)
    if root is None:
        return machine, ()
    from ompbind.host import restrictions as narrowing
    from ompbind.machine.limits import read_surroundings

    found = read_surroundings(root, policy=how != "intersect")

    narrowed = narrowing.find_narrowed(found, topology, environ if path is None else {})
    if how == "error":
        narrowing.refuse(narrowed)
    if how == "ignore":
        narrowed = narrowing.widened(narrowed)
        cpuset = topology.online & (found.cpuset or topology.online)
        machine = machine.replace(allowed=allowed.replace(cpus=cpuset or allowed.cpus))
    return machine, narrowed


def wants_devices(request: Request, path: str | None) -> bool:
    """Whether the plan may depend on devices: reading them takes time."""
    if request.per == "gpu" or request.near is not None or request.gpu_env:
        return True
    if request.per is not None or request.nodes is not None or request.cpus is not None:
        return False
    if not request.numa_bind or path is not None:
        return request.numa_bind
    from ompbind.machine.devices import has_driven_gpu

    root = linux_root()
    return root is not None and has_driven_gpu(root)


def with_visible(
    request: Request, devices: Sequence[Device], environ: Mapping[str, str], path: str | None
) -> Request:
    """The request with the GPUs that its workers will see; on this machine the driver is asked."""
    if path is None:
        from ompbind.gpus.nvml import find_visible

        visible = find_visible(devices, environ)
    else:
        from ompbind.gpus.visible import make_visible

        visible = make_visible(devices, environ)
    if not request.gpu_env:
        return request.replace(visible=visible)
    told = [
        Inherited(name, environ[name], "overridden" if name == visible.variable else "removed",
                  "each rank is given its own of these GPUs")
        for name in (visible.variable, *visible.unset) if name in environ
    ]  # fmt: skip
    return request.replace(visible=visible, inherited=(*request.inherited, *told))


def with_default_places(request: Request, environ: Mapping[str, str]) -> Request:
    """The request with what a place is for this worker."""
    if request.proc_bind == "false":
        return request.replace(places="one")  # threads are not bound to places
    worker = guess_worker(request.command, environ)
    name = os.path.basename(request.command[0]) if request.command else ""
    places, why = choose_places(
        worker.kind, worker.names, quote(name) if name else "", request.runtime
    )
    return request.replace(places=places, places_why=why)


def with_fixes(plan: Plan, values: Values, environ: Mapping[str, str]) -> Plan:
    """The plan with the fixes of --fix, or of the saved plan. Raises UsageError."""
    if "fix" in values:
        from ompbind.fixes import carry
        from ompbind.fixes.registry import find_fixes

        fixes = find_fixes(text_of(values, "fix") or "")
        children, verbose = values.get("fix_children") is not False, "verbose" in values
        return carry.with_fixes(plan, fixes, environ, children=children, verbose=verbose)
    if "fix_children" in values:
        name = "--fix-children" if values["fix_children"] else "--no-fix-children"
        raise UsageError(f"{name} has no effect without --fix", hint="--fix list tells of fixes")
    if "plan" in values:
        from ompbind.fixes import carry

        if any(carry.NAMED in dict(r.env) for r in plan.ranks):
            return carry.renewed(plan, environ)
    return plan


def choose_binder(topology: Topology, elsewhere: bool, environ: Mapping[str, str]) -> str:
    """numactl where it is installed and the kernel has NUMA, without which it refuses to work.
    What another machine has installed is not known: its plan is for numactl."""
    if topology.numa and (elsewhere or find_program("numactl", environ)):
        return "numactl"
    return "native"


def load_plan(values: Values, command: Sequence[str], environ: Mapping[str, str]) -> Plan:
    """A saved plan, with another command where one is given. Raises OmpbindError."""
    extra = [key for key in values if key not in BESIDE_PLAN]
    if extra:
        option = "--" + extra[0].replace("_", "-")
        raise UsageError(
            f"{option} has no effect on a saved plan", hint=f"leave --plan or {option} out"
        )
    plan = read_plan(text_of(values, "plan") or "")
    if values.get("on_denied") == "degrade":
        plan = keep_memory(plan, read_machine(None, (), devices=False).allowed.nodes)
    if command:
        plan = with_command(plan, command)
    given = dict.fromkeys(("places", "proc_bind", "threads"), "the saved plan has its own")
    inherited = judge_environment(environ, given).inherited
    removed = [i.name for i in inherited if i.action == "removed"]
    ranks = (r.replace(unset=tuple(dict.fromkeys((*r.unset, *removed)))) for r in plan.ranks)
    return plan.replace(inherited=inherited, ranks=tuple(ranks))


def read_plan(path: str) -> Plan:
    """The plan in a file. Raises UsageError."""
    try:
        with open(path, encoding="utf-8") as file:
            return parse_plan(file.read())
    except (OSError, UnicodeDecodeError) as e:
        reason = e.strerror if isinstance(e, OSError) else "not UTF-8 text"
        raise UsageError(f"--plan {quote(path)}: {reason}") from None
    except OmpbindError as e:
        hint = "ompbind show --format json writes a plan"
        raise UsageError(f"--plan {quote(path)}: {e.message}", hint=hint, **e.data) from None


def with_command(plan: Plan, command: Sequence[str]) -> Plan:
    """The plan for another command."""
    ranks = []
    for r in plan.ranks:
        binding = numactl.make_binding(plan.binder, r.cpus, r.mem, r.mems)
        own = own_command(plan, r, command)
        ranks.append(r.replace(argv=numactl.make_command(binding, own)))
    return plan.replace(ranks=tuple(ranks), command=tuple(command))


def own_command(plan: Plan, rank: RankPlan, command: Sequence[str]) -> tuple[str, ...]:
    """A command for all as one rank has it, without its binding."""
    if not plan.template:
        return tuple(command)
    from ompbind.worker.template import fill_arguments, make_names

    return fill_arguments(command, make_names(rank.rank, len(plan.ranks), rank.cpus, rank.nodes))


def keep_memory(plan: Plan, allowed: CpuSet) -> Plan:
    """A saved plan with those of its memory nodes that may be used here, for --on-denied degrade;
    what is dropped is among the warnings."""
    ranks, cautions = [], []
    for r in plan.ranks:
        dropped, own = r.mems - allowed, r
        if dropped:
            kept = r.mems & allowed
            mem = r.mem if kept else "none"
            binding = numactl.make_binding(plan.binder, r.cpus, mem, kept)
            argv = numactl.make_command(binding, r.worker(plan.binder))
            env = tuple((dict(r.env) | dict(make_claim(r.cpus, mem, kept))).items())
            own = r.replace(mem=mem, mems=kept, argv=argv, env=env)
            left = f"its memory is on {kept}" if kept else "its memory is not bound"
            text = f"rank {r.rank}: memory of nodes {dropped} may not be used here: {left}"
            cautions.append(Caution("memory", text))
        ranks.append(own)
    if not cautions:
        return plan
    return plan.replace(ranks=tuple(ranks), cautions=(*plan.cautions, *cautions))


def check_plan(plan: Plan) -> None:
    """Refuses to run a saved plan whose arguments do not bind as it says, or that does not fit
    this machine. Raises PlanError."""
    machine = read_machine(None, (), devices=False)
    for r in plan.ranks:
        binding = numactl.make_binding(plan.binder, r.cpus, r.mem, r.mems)
        if r.argv[: len(binding)] != binding or (not binding and r.argv[:1] == ("numactl",)):
            raise PlanError(
                f"rank {r.rank}: the plan's argv does not bind as its cpus and mems say",
                hint="make the plan anew with ompbind show --format json",
                rank=r.rank,
            )
        for what, wanted, allowed in (
            ("cpus", r.cpus, machine.allowed.cpus),
            ("memory nodes", r.mems, machine.allowed.nodes),
        ):
            if not wanted <= allowed:
                raise PlanError(
                    f"rank {r.rank}: {what} {wanted - allowed} of the plan may not be used here",
                    hint=f"allowed {what}: {allowed or 'none'}; the plan is for {plan.host.name}",
                    rank=r.rank,
                    wanted=wanted,
                    available=allowed,
                )
    for role in plan.roles:
        if not role.cpus <= machine.allowed.cpus:
            raise PlanError(
                f"cpus {role.cpus - machine.allowed.cpus} of the plan's role {role.name} may not "
                "be used here",
                hint=f"allowed cpus: {machine.allowed.cpus}; the plan is for {plan.host.name}",
                wanted=role.cpus,
                available=machine.allowed.cpus,
            )


def text_of(values: Values, key: str) -> str | None:
    value = values.get(key)
    return value if isinstance(value, str) else None
