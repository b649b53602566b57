"""From options to a plan, new or saved, with all that its workers get: for `run` and `show`."""

from __future__ import annotations

import os

from ompbind.cpuset import CpuSet, union
from ompbind.errors import ParseError, UsageError
from ompbind.host import Lease, find_leased, find_threads
from ompbind.machine import linux_root, living_root, read_machine
from ompbind.messages import label, quote
from ompbind.openmp import choose_places
from ompbind.planner import is_about_devices, make_plan
from ompbind.planner.cores import levels_for
from ompbind.plans import CPUS_VARIABLE, PRELOAD_VARIABLE, Caution, Inherited
from ompbind.worker import find_program, find_python
from ompbind.worker.runtimes import guess_worker

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from ompbind.machine.topology import Device, Machine
    from ompbind.memory.preloads import Preload
    from ompbind.options import PlanOptions
    from ompbind.planner.request import Request
    from ompbind.plans import Plan


# The variables by which vLLM and SGLang bind their CPU workers, and the value that binds none.
BY_VARIABLE = {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "SGLANG_CPU_OMP_THREADS_BIND": ""}


def resolve_plan(
    options: PlanOptions,
    environ: Mapping[str, str],
    machine: Machine | None = None,
    *,
    is_run: bool = False,
    lease: Lease | None = None,
    is_shown: bool = True,
) -> Plan:
    """Return the plan that is asked for, on this machine or on the one that is named, with all that
    its workers get. `machine`: that machine, where it has been read; `is_run`: a saved plan is for
    this machine, whatever it was made for; `lease`: it then holds the plan's cpus; `is_shown`:
    whether anybody is told what restricted this process. Raises OmpbindError."""
    preloads: tuple[Preload, ...] = ()
    if options.preload:
        from ompbind.memory.preloads import find_preloads

        here = options.topology is None
        preloads = find_preloads(options.preload, options.request.command, environ, check=here)
    if options.saved is not None:
        from ompbind.saved import load_plan, without_foreign

        plan = load_plan(options.saved, options.request, environ)
        if options.found:
            from ompbind.engines.fitting import pick_rank

            plan = pick_rank(plan, options.found)
        if options.request.command and not options.saved_variables:
            given = {name for name, _ in options.variables.assignments} if options.variables else {}
            asked = ["OMPBIND_FIX"] * bool(options.fixes) + [PRELOAD_VARIABLE] * bool(preloads)
            plan = without_foreign(plan, {*given, *asked})
    else:
        if options.variables and wants_devices(options.request, options.topology):
            options, environ = see_devices(options, environ)
        seen = see_worker(options, preloads, environ)
        plan, machine = make_new_plan(
            options, environ, machine, lease, seen=seen, is_run=is_run, is_shown=is_shown
        )
    variables = options.variables
    if variables and options.found:
        from ompbind.engines.variables import fit_variables

        variables = fit_variables(variables, options.found, plan, environ)
    if variables:
        from ompbind.worker.environment import with_environment

        plan = with_environment(plan, variables, environ)
    if options.pools or (options.pools is None and plan.host.quota is not None):
        plan = with_pools(plan, options, environ)
    if preloads or variables or options.saved is not None:
        plan = with_preloads(plan, preloads, options, environ)
    if options.huge_pages:
        from ompbind.memory.huge_pages import add_huge_pages

        root = linux_root() if options.topology is None else None
        plan = add_huge_pages(plan, options.huge_pages, environ, root)
    if options.warm or plan.warm:
        from ompbind.memory.warming import add_files, check_files

        plan = add_files(check_files(plan) if is_run else plan, options.warm)
    if any(rank.need for rank in plan.ranks):
        plan = with_room(plan, options, machine, is_run=is_run)
    if any(caution.kind == "neighbours" for caution in plan.cautions):  # those of then, when saved
        kept = tuple(caution for caution in plan.cautions if caution.kind != "neighbours")
        plan = plan.replace(cautions=kept)
    if options.exclusive and not claims_cores(options):
        from ompbind.claims import claim_plan

        claim_plan(plan, options, environ, machine, lease)
    elif options.topology is None and (is_run or is_of_this_host(plan, options)):
        plan = with_neighbours(plan, options, environ, machine, lease)
    return with_fixes(plan, options, environ)


def see_devices(
    options: PlanOptions, environ: Mapping[str, str]
) -> tuple[PlanOptions, Mapping[str, str]]:
    """Return the options and the environment with the devices that workers will see by --env and
    --env-file: `CUDA_VISIBLE_DEVICES=0,1` is what --per gpu distributes, and --gpu-env divides.
    Raises UsageError."""
    from ompbind.devices import accelerators
    from ompbind.devices.visible import VARIABLES
    from ompbind.worker.environment import read_files

    variables = options.variables
    if variables is None:
        return options, environ
    names = {name for several in VARIABLES.values() for name in several}
    names |= set(accelerators.VARIABLES)
    read = read_files(variables)
    named = {name for name, _ in variables.assignments}  # --env comes after the files
    in_files = {v.name: v.value for v in read if v.name not in named}
    # A template differs by rank, and says nothing of what all of them see.
    given = {n: v for n, v in variables.assignments if v is not None and "{" not in v}
    seen = {n: v for n, v in (in_files | given).items() if n in names}
    if options.request.gpu_env:  # each rank gets its part of the value instead
        rest = tuple((name, value) for name, value in variables.assignments if name not in given
                     or name not in names)  # fmt: skip
        read = tuple(v for v in read if v.name not in names)
        variables = variables.replace(assignments=rest)
    return options.replace(variables=variables.replace(read=read)), {**environ, **seen}


def see_worker(
    options: PlanOptions, preloads: Sequence[Preload], environ: Mapping[str, str]
) -> Mapping[str, str]:
    """Return the environment with the LD_PRELOAD that workers will have."""
    given = options.variables.assignments if options.variables else ()
    if not preloads and not any(name == PRELOAD_VARIABLE for name, _ in given):
        return environ
    from ompbind.memory.preloads import see_environment

    return see_environment(environ, preloads, given)


def with_pools(plan: Plan, options: PlanOptions, environ: Mapping[str, str]) -> Plan:
    """Return the plan with the threads of pools beside OpenMP's; as it is where nobody asks for
    them, and it leaves OpenMP's variables alone or was saved. Raises UsageError."""
    if options.saved is not None or (plan.omp != "all" and not options.pools):
        return plan
    if not all("OMP_NUM_THREADS" in dict(rank.env) for rank in plan.ranks):
        raise UsageError(
            f"--pools needs a number of threads, and the plan sets none: {plan.omp_why}",
            hint="--threads N",
        )
    from ompbind.openmp.thread_pools import add_pools

    return add_pools(plan, environ)


def with_preloads(
    plan: Plan, preloads: Sequence[Preload], options: PlanOptions, environ: Mapping[str, str]
) -> Plan:
    """Return the plan whose ranks preload these libraries, with warnings of what LD_PRELOAD does
    not do for them."""
    if not preloads and not any(rank.preloads for rank in plan.ranks):
        return plan
    from ompbind.memory.preloads import put_first, warn_of_preloads

    if preloads:
        plan = put_first(plan, preloads, environ)
    return warn_of_preloads(plan, preloads, environ, check=options.topology is None)


def with_room(plan: Plan, options: PlanOptions, machine: Machine | None, *, is_run: bool) -> Plan:
    """Return the plan with what there is to say of the memory that its ranks need. Raises PlanError
    where that is not there."""
    from ompbind.host.room import check_room

    if options.saved is not None and not (is_run or is_of_this_host(plan, options)):
        return plan  # of a machine that is not at hand
    if machine is None:
        machine = read_machine(None, (), devices=False)
    return check_room(plan, machine, linux_root() if options.topology is None else None)


def check_waiting(options: PlanOptions) -> None:
    """Refuse --wait where no cores are claimed that others may not hold. Raises UsageError."""
    if options.wait is not None and not (claims_cores(options) or options.exclusive):
        part = "/".join(map(str, options.request.part or ()))
        text = f"--wait is for cores that nobody else may hold, and part {part} may be held"
        raise UsageError(text, hint="--part auto/N, or --exclusive")


def claims_cores(options: PlanOptions) -> bool:
    """Whether cores are to be chosen that nobody else holds."""
    request = options.request
    return bool(request.free) or (request.part is not None and not request.part[0])


def is_of_this_host(plan: Plan, options: PlanOptions) -> bool:
    """Whether a plan is for this machine; a saved one may be for another."""
    if options.saved is None:
        return True
    from ompbind.machine.limits import read_hostname

    root = linux_root()
    return root is not None and plan.host.name == read_hostname(root)


def with_neighbours(
    plan: Plan,
    options: PlanOptions,
    environ: Mapping[str, str],
    machine: Machine | None,
    lease: Lease | None,
) -> Plan:
    """Return the plan with a warning if other launches hold cores of it, and hold them by `lease`,
    where there is one. Whether others do is asked of their leases, whatever their number; their
    variables and masks are read where a lease is in the way, or where it was asked for.
    """
    if plan.binder == "none" or not hasattr(os, "sched_getaffinity"):
        return plan
    cpus = union(map(plan.held_by, plan.ranks))
    claimed = claims_cores(options)  # nobody else has a lease on these
    inherited = Lease.find_inherited() if CPUS_VARIABLE in environ else None
    leased = CpuSet()
    if inherited and not claimed:
        leased = find_leased(cpus, machine, inherited)
    if lease is not None:  # whole cores: that they are held is so for all, and takes fewer locks
        lease.hold(cpus if machine is None else find_threads(cpus, machine))
    wanted = options.neighbours
    if wanted is None:
        word = environ.get("OMPBIND_NEIGHBOURS", "").lower()
        if word in ("no", "off", "false", "0"):
            return plan
        wanted = word in ("yes", "on", "true", "1")
    elif not wanted:
        return plan
    if not inherited and not claimed:
        leased = find_leased(cpus, machine, lease)
    if not leased and not wanted:
        return plan
    from ompbind.host.neighbours import find_neighbours, make_warning

    neighbours = find_neighbours(living_root(), cpus, environ, plan.task.job, leased=leased)
    caution = make_warning(neighbours, plan.host.allowed)
    return plan.warn(caution) if caution else plan


def make_new_plan(
    options: PlanOptions,
    environ: Mapping[str, str],
    machine: Machine | None = None,
    lease: Lease | None = None,
    *,
    seen: Mapping[str, str] | None = None,
    is_run: bool = False,
    is_shown: bool = True,
) -> tuple[Plan, Machine]:
    """Return a plan for this or another machine's topology, and that machine. `lease`: what is to
    hold cpus that nobody else does; `seen`: the environment in which the worker's libraries are
    looked for, None for `environ`; `is_shown`: whether anybody is told what restricted this
    process. Raises OmpbindError."""
    seen = environ if seen is None else seen
    request, path, found = options.request, options.topology, options.found
    devices = wants_devices(request, path)
    levels = levels_for(request)
    if found and found.task and not found.seems_bound:  # one of several ranks that are planned
        levels = levels_for(request.replace(ranks=1))
    if machine is None:
        machine = read_machine(path, levels, devices=devices)
    chosen: dict[str, Any] = {}
    if request.omp == "all" and not request.places_why:
        chosen = choose_default_places(request, seen)
    if devices:
        chosen |= find_devices(request, machine.topology.devices, environ, path)
    found_here = machine
    machine, narrowed = apply_inherited(machine, options, environ, is_shown=is_shown)
    if options.measured is not None or machine.measured is not None:
        from ompbind.machine.calibration import use_measurement

        machine = use_measurement(machine, options.measured, path)
    binder = choose_binder(request.binder, machine, path, environ)
    request = request.replace(binder=binder, **chosen)
    check_waiting(options)
    if claims_cores(options):
        from ompbind.claims import claim_cores

        request = claim_cores(machine, request, options, environ, lease, is_run=is_run)
    fitted = None
    if found and found.task:
        from ompbind.engines.fitting import fit_here

        fitted = fit_here(machine, request, found, environ, options.within, levels)
        if fitted.widened and not narrowed:
            _, narrowed = apply_inherited(found_here, options, environ)
        machine, request, narrowed = fitted.machine, fitted.request, fitted.narrow(narrowed)
    plan = with_able_binder(
        make_plan(with_memory(machine, request, path), request), options, environ
    )
    if fitted:
        plan = fitted.complete(plan)
    elif found:
        plan = plan.replace(task=found.task)
    if path is None and machine.topology.nodes[1:]:
        plan = warn_of_kernel(plan)
    if request.omp == "all" and options.from_env is None:
        plan = warn_of_binding(plan, environ)
    elif options.from_env is None and options.serve is None:
        plan = warn_of_lists(plan, environ)
    if request.omp == "all" and options.request.places_why and seen.get(PRELOAD_VARIABLE):
        from ompbind.memory.preloads import warn_of_runtimes

        plan = plan if options.preload else warn_of_runtimes(plan, seen)
    if not narrowed:
        return plan, machine
    from ompbind.host.restrictions import can_be_reset

    widened = options.inherited == "ignore" or (fitted is not None and fitted.widened)
    reset = widened and binder != "none" and can_be_reset(narrowed)
    return plan.replace(narrowed=narrowed, reset_inherited=reset), machine


def warn_of_kernel(plan: Plan) -> Plan:
    """Return the plan with a warning about settings of this kernel that work against it."""
    root = linux_root()
    if root is None:
        return plan
    from ompbind.host.kernel import advise
    from ompbind.machine.limits import read_sysctl

    cautions = advise(plan, read_sysctl(root, "kernel/numa_balancing") or "")
    return plan.warn(*cautions) if cautions else plan


def with_memory(machine: Machine, request: Request, path: str | None) -> Machine:
    """Return the machine with what few requests ask of its memory nodes. Raises TopologyError."""
    if request.mem != "weighted-interleave" and request.mem_kind is None:
        return machine
    from ompbind.machine.memories import add_memory_facts

    root = linux_root(path)
    return machine if root is None else add_memory_facts(root, machine)


def with_able_binder(plan: Plan, options: PlanOptions, environ: Mapping[str, str]) -> Plan:
    """Return the plan, bound without numactl where the one installed here is too old for its memory
    policies. Raises UsageError where numactl was asked for."""
    if plan.binder != "numactl" or options.topology is not None:
        return plan
    if not any(rank.binding.is_recent for rank in plan.ranks):
        return plan
    from ompbind.launch.numactl import replace_numactl

    return replace_numactl(plan, environ, required=options.request.binder == "numactl")


def warn_of_binding(plan: Plan, environ: Mapping[str, str]) -> Plan:
    """Return the plan with a warning if the environment tells a Python program, of which nothing
    else is known, how to bind the workers that it starts."""
    names = [name for name, nothing in BY_VARIABLE.items()
             if environ.get(name, nothing) not in ("", nothing)]  # fmt: skip
    if not names or not plan.command or not find_python(plan.command, environ):
        return plan
    text = (
        f"{names[0]} is set; if the command binds workers by it, the OpenMP variables that they "
        "inherit from this plan override that"
    )
    return plan.warn(Caution("openmp", text, "--omp off leaves OpenMP's variables alone"))


def warn_of_lists(plan: Plan, environ: Mapping[str, str]) -> Plan:
    """Return the plan with a warning if a variable by which a server binds its workers names cpus
    that a rank does not have: GNU's OpenMP leaves the rank's mask for them, or dies."""
    for name, nothing in BY_VARIABLE.items():
        value = environ.get(name, nothing)
        try:
            listed = union(CpuSet.parse_kernel(part) for part in value.split("|"))
        except ParseError:  # auto, nobind
            continue
        short = [rank for rank in plan.ranks if rank.cpus and listed - rank.cpus]
        if short:
            text = (
                f"{name}={quote(value)} names {label('cpu', listed - short[0].cpus)}, which rank "
                f"{short[0].rank} does not have: its workers will leave the plan for them"
            )
            hint = f"--serve plans for the workers; or unset {name}"
            return plan.warn(Caution("openmp", text, hint))
    return plan


def apply_inherited(
    machine: Machine, options: PlanOptions, environ: Mapping[str, str], *, is_shown: bool = True
) -> tuple[Machine, tuple[Inherited, ...]]:
    """Return the machine with what may be used of it under --inherited, and the inherited
    restrictions, which are not looked for where all of the machine may be used, or where nobody is
    told. Raises PlanError."""
    allowed, topology = machine.allowed, machine.topology
    how, path = options.inherited, options.topology
    whole = allowed.cpus == topology.online and allowed.nodes == topology.node_numbers
    if (whole or not is_shown) and how == "intersect":
        return machine, ()
    root = linux_root(path)
    if root is None and path is None:
        return machine, ()
    from ompbind.host.restrictions import find_restrictions, mark_reset, refuse_restrictions
    from ompbind.machine.surroundings import Surroundings, read_surroundings

    if root is not None:
        surroundings = read_surroundings(root, policy=how != "intersect")
    else:  # hwloc's XML has the cpuset in it, and does not say whose it is
        surroundings = Surroundings(cpuset=allowed.cpus, mems=allowed.nodes)
    narrowed = find_restrictions(surroundings, topology, environ if path is None else {})
    if how == "error":
        refuse_restrictions(narrowed)
    if how == "ignore":
        narrowed = mark_reset(narrowed)
        cpuset = topology.online & (surroundings.cpuset or topology.online)
        machine = machine.replace(allowed=allowed.replace(cpus=cpuset or allowed.cpus))
    return machine, narrowed


def wants_devices(request: Request, path: str | None) -> bool:
    """Whether the plan may depend on devices: reading them takes time."""
    if is_about_devices(request):
        return True
    if request.per is not None or request.nodes is not None or request.cpus is not None:
        return False
    if not request.numa_bind or path is not None:
        return request.numa_bind
    from ompbind.machine.devices import has_driven_gpu

    root = linux_root()
    return root is not None and has_driven_gpu(root)


def find_devices(
    request: Request, devices: Sequence[Device], environ: Mapping[str, str], path: str | None
) -> dict[str, Any]:
    """Return the request's fields about the GPUs and network cards of its workers."""
    chosen = find_gpus(request, devices, environ, path)
    if request.nic_env or request.per == "nic":
        chosen |= find_nics(request.replace(**chosen), devices, environ)
    return chosen


def find_gpus(
    request: Request, devices: Sequence[Device], environ: Mapping[str, str], path: str | None
) -> dict[str, Any]:
    """Return the request's fields about the GPUs, or for --per accel the other accelerators, that
    its workers will see. On this machine the driver is asked."""
    if request.per == "accel":
        from ompbind.devices import accelerators

        if path is None:
            from ompbind.devices.files import hide_accelerators

            devices = hide_accelerators(devices)
        visible = accelerators.make_visible(devices, environ)
    elif path is None:
        from ompbind.devices import find_visible

        visible = find_visible(devices, environ)
    else:
        from ompbind.devices.visible import make_visible

        visible = make_visible(devices, environ)
    if not request.gpu_env:
        return {"visible": visible}
    why = "each rank is given its own of these GPUs"
    notes = [
        Inherited(name, environ[name], "overridden" if name == visible.variable else "removed", why)
        for name in (visible.variable, *visible.unset)
        if name in environ
    ]
    return {"visible": visible, "inherited": (*request.inherited, *notes)}


def find_nics(
    request: Request, devices: Sequence[Device], environ: Mapping[str, str]
) -> dict[str, Any]:
    """Return the request's fields about network cards. A variable that is set stays as it is."""
    from ompbind.devices.nics import find_cards

    cards = find_cards(devices)
    if not request.nic_env:
        return {"cards": cards}
    why = "set already: --nic-env leaves it alone"
    notes = [
        Inherited(name, environ[name], "respected", why)
        for name in cards.variables
        if name in environ
    ]
    return {"cards": cards, "inherited": (*request.inherited, *notes)}


def choose_default_places(request: Request, environ: Mapping[str, str]) -> dict[str, Any]:
    """Return the request's fields about what a place is for this worker."""
    if request.proc_bind == "false":
        return {"places": "one"}  # threads are not bound to places
    worker = guess_worker(request.command, environ)
    name = quote(os.path.basename(request.command[0])) if request.command else ""
    runtime = None if request.runtime == "auto" else request.runtime
    places, why = choose_places(worker.kind, worker.names, name, runtime)
    return {"places": places, "places_why": why}


def with_fixes(plan: Plan, options: PlanOptions, environ: Mapping[str, str]) -> Plan:
    """Return the plan with the fixes that are asked for, or with those of the saved plan. Raises
    UsageError."""
    if options.fixes is not None:
        from ompbind.fixes import environment
        from ompbind.fixes.registry import find_fixes

        fixes, children = find_fixes(options.fixes), options.fix_children is not False
        return environment.add_fixes(
            plan, fixes, environ, children=children, verbose=options.verbose, quiet=options.quiet
        )
    if options.saved is not None:
        from ompbind.fixes import environment

        if any(environment.FIXES_VARIABLE in dict(r.env) for r in plan.ranks):
            return environment.renew_fixes(plan, environ, quiet=options.quiet)
    return plan


def choose_binder(
    binder: str, machine: Machine, path: str | None, environ: Mapping[str, str]
) -> str:
    """Return numactl, native or none. `auto` is numactl where it is installed and the kernel has
    NUMA, without which numactl refuses to work. What another machine has installed is not known:
    its plan is for numactl. Raises UsageError."""
    if not machine.can_bind:
        return "none"
    if binder == "numactl" and not machine.topology.numa:
        raise UsageError(
            "--binder numactl: this kernel has no NUMA, and numactl refuses to work without",
            hint="--binder native binds the cpus by system calls",
        )
    if binder == "native" or (binder == "numactl" and path is not None):
        return binder
    if binder == "auto" and not machine.topology.numa:
        return "native"
    if path is not None or find_program("numactl", environ):
        return "numactl"
    if binder == "auto":
        return "native"
    raise UsageError(
        "--binder numactl: numactl is not installed (not in PATH)",
        hint="install it, or --binder native",
    )
