"""Saved plans: read from a file, adapted to this launch, checked against this machine."""

from __future__ import annotations

from ompbind.cpuset import CpuSet, union
from ompbind.devices import accelerators, nics
from ompbind.errors import OmpbindError, ParseError, PlanError, UsageError
from ompbind.inputs import read_input
from ompbind.launch.binding import check_binder
from ompbind.machine import read_machine
from ompbind.messages import quote
from ompbind.openmp import judge_environment
from ompbind.openmp.places import parse_places
from ompbind.plan_json import parse_plan
from ompbind.plans import RANK_VARIABLE, Caution
from ompbind.worker import may_bind_workers

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from ompbind.planner.request import Request
    from ompbind.plans import Plan, RankPlan


# Variables that tell ranks their place, which is what a plan is for: how they begin, how they end,
# and whole. All others are foreign to it, and so is the one of OpenMP that names code.
BEGINNINGS = ("OMP_", "OMPBIND_", "KMP_", "GOMP_")
ENDS = ("VISIBLE_DEVICES", "ZE_AFFINITY_MASK", "CPU_OMP_THREADS_BIND")
NAMES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT",
         "MKL_DYNAMIC", "CUDA_DEVICE_ORDER", *nics.VARIABLES,
         *accelerators.VARIABLES)  # fmt: skip
OPENMP_CODE = "OMP_TOOL_LIBRARIES"
HINT = "ompbind show --format json writes a plan"
MAX_PLAN_BYTES = 1 << 30  # of a file: a plan of 65,535 ranks has 60 MB


def load_plan(path: str, request: Request, environ: Mapping[str, str]) -> Plan:
    """Return a saved plan, for another command where the request has one. Raises OmpbindError."""
    plan = read_plan(path)
    if request.on_denied == "degrade":
        plan = keep_memory(plan, read_machine(None, (), devices=False).allowed.nodes)
    if request.command:
        if plan.groups:
            raise UsageError(
                f"--plan {quote(path)}: the plan has groups with commands of their own",
                hint="leave the command out",
            )
        plan = with_command(plan, request.command)
        plan = with_caution(plan)
    given = dict.fromkeys(("places", "proc_bind", "threads"), "the saved plan has its own")
    inherited = judge_environment(environ, given, plan.omp).inherited
    removed = [i.name for i in inherited if i.action == "removed"]
    ranks = (r.replace(unset=tuple(dict.fromkeys((*r.unset, *removed)))) for r in plan.ranks)
    return plan.replace(inherited=inherited, ranks=tuple(ranks))


def read_plan(path: str) -> Plan:
    """Read the plan in a file, or on standard input for `-`. Raises UsageError."""
    try:
        plan = parse_plan(read_input(path, MAX_PLAN_BYTES).decode("utf-8"))
        check_agreement(plan)
        return plan
    except (OSError, UnicodeDecodeError) as e:
        reason = e.strerror if isinstance(e, OSError) else "not UTF-8 text"
        raise UsageError(f"--plan {quote(path)}: {reason}", hint=HINT) from None
    except OmpbindError as e:
        raise UsageError(f"--plan {quote(path)}: {e.message}", hint=HINT, **e.data) from None


def check_agreement(plan: Plan) -> None:
    """Refuse a plan whose variables, places or roles say something else than its bindings: workers
    and other launches go by them. Raises ParseError."""
    for rank in plan.ranks:
        env, where = dict(rank.env), f"ranks[{rank.rank}]"
        for name, value in ((RANK_VARIABLE, str(rank.local_rank)), *rank.binding.environment()):
            if env.get(name, value) != value:
                problem = f"env has {name}={quote(env[name])}, its binding is {quote(value)}"
                raise ParseError(f"{where}: {problem}", part="env")
        for role in plan.roles:
            for name, value in role.environment() if rank.rank in role.ranks else ():
                if env.get(name, value) != value:
                    problem = f"env has {name}={quote(env[name])}, the role has {value}"
                    raise ParseError(f"{where}: {problem}", part="env")
        try:
            places = parse_places(env.get("OMP_PLACES", ""), overlapping=True)
        except ParseError:  # a name, such as cores
            places = rank.places
        if places != rank.places:
            problem = f"env has OMP_PLACES={quote(env['OMP_PLACES'])}, places says otherwise"
            raise ParseError(f"{where}: {problem}", part="env")
        outside = union(rank.places) - rank.cpus
        if rank.cpus and outside:
            problem = f"places have cpus {outside}, which are not among its cpus {rank.cpus}"
            raise ParseError(f"{where}: {problem}", part="places")
    if plan.server:
        from ompbind.options.servers import check_server

        check_server(plan, plan.server)
    for role in plan.roles:
        missing = role.ranks - CpuSet(range(len(plan.ranks)))
        if missing:
            problem = f"is for ranks {missing}, which the plan does not have"
            raise ParseError(f"role {quote(role.name)} {problem}", part="roles")


def without_foreign(plan: Plan, given: Collection[str]) -> Plan:
    """Return the plan for a command of the user's, who asks for the binding only: refuse variables
    that are foreign to a plan, and leave out those that are `given` on the command line. Raises
    UsageError."""
    ranks = []
    for r in plan.ranks:
        foreign = foreign_variables(r)
        for name in sorted(foreign.keys() - set(given)):
            raise UsageError(
                f"--plan: rank {r.rank} has {name}={quote(foreign[name])}, which is not about "
                "binding, and would reach your command",
                hint=f"--env {name}=VALUE gives a value that you trust, --plan-env takes all such "
                "variables of the plan",
            )
        env = tuple(v for v in r.env if v[0] not in foreign)
        ranks.append(r.replace(env=env))
    return plan.replace(ranks=tuple(ranks))


def foreign_variables(rank: RankPlan) -> dict[str, str]:
    """Return a rank's variables but those that tell it its place. PYTHONPATH counts as planned
    beside ompbind's fixes, as it is made anew then; code of other fixes is foreign."""
    from ompbind.fixes.environment import FIXES_VARIABLE, names_other_code
    from ompbind.memory.huge_pages import is_planned as is_huge
    from ompbind.openmp.thread_pools import is_planned

    env = dict(rank.env)
    foreign = {
        name: value
        for name, value in env.items()
        if name == OPENMP_CODE
        or not (name.startswith(BEGINNINGS) or name.endswith(ENDS) or name in NAMES
                or is_planned(name, value) or is_huge(name, value))
    }  # fmt: skip
    if fixes := env.get(FIXES_VARIABLE):
        foreign.pop("PYTHONPATH", None)
        if names_other_code(fixes):
            foreign[FIXES_VARIABLE] = fixes
    return foreign


def with_command(plan: Plan, command: Sequence[str]) -> Plan:
    """Return the plan for another command."""
    ranks = tuple(r.replace(command=command_of_rank(plan, r, command)) for r in plan.ranks)
    return plan.replace(ranks=ranks, command=tuple(command))


def with_caution(plan: Plan) -> Plan:
    """Return the plan with a warning if its command binds workers itself, and OpenMP's variables of
    the plan would override that."""
    if plan.omp == "off" or not may_bind_workers(plan.command):
        return plan
    from ompbind.worker.launchers import find_launch

    launch = find_launch(plan.command)
    if launch is None:
        return plan
    text = (
        f"{launch.launcher.name} {launch.launcher.how}, and would inherit the saved plan's OpenMP "
        "variables, which override that"
    )
    return plan.warn(Caution("openmp", text, "save the plan with --omp off"))


def command_of_rank(plan: Plan, rank: RankPlan, command: Sequence[str]) -> tuple[str, ...]:
    """Return a command as one rank executes it, its templates filled in, with the words that tell a
    server of its workers."""
    words = plan.server.words if plan.server else ()
    if not plan.template:
        return (*command, *words)
    from ompbind.worker.template import fill_arguments, make_names

    names = make_names(plan.numbers_of(rank), rank.cpus, rank.nodes, rank.group)
    return (*fill_arguments(command, names), *words)


def keep_memory(plan: Plan, allowed: CpuSet) -> Plan:
    """Return the plan with only those memory nodes that are allowed here, for --on-denied degrade,
    and with a warning of those that are dropped."""
    ranks, cautions = [], []
    for r in plan.ranks:
        dropped, kept = r.mems - allowed, r
        if dropped:
            kept = r.rebind(r.binding.keep_nodes(allowed))
            left = f"its memory is on {kept.mems}" if kept.mems else "its memory is not bound"
            text = f"rank {r.rank}: memory of nodes {dropped} may not be used here: {left}"
            cautions.append(Caution("memory", text))
        ranks.append(kept)
    if not cautions:
        return plan
    return plan.replace(ranks=tuple(ranks)).warn(*cautions)


def check_plan(plan: Plan) -> None:
    """Refuse a saved plan that does not fit this machine. Raises PlanError."""
    machine = read_machine(None, (), devices=False)
    if plan.binder == "none":
        check_binder(plan.ranks, can_bind=machine.can_bind)
    for r in plan.ranks:
        for thing, wanted, allowed in (
            ("cpus", r.cpus, machine.allowed.cpus),
            ("memory nodes", r.mems, machine.allowed.nodes),
        ):
            if not wanted <= allowed:
                raise PlanError(
                    f"rank {r.rank}: {thing} {wanted - allowed} of the plan may not be used here",
                    hint=f"allowed {thing}: {allowed or 'none'}; the plan is for {name_host(plan)}",
                    rank=r.rank,
                    wanted=wanted,
                    available=allowed,
                )
    for role in plan.roles:
        if not role.cpus <= machine.allowed.cpus:
            raise PlanError(
                f"cpus {role.cpus - machine.allowed.cpus} of the plan's role {role.name} may not "
                "be used here",
                hint=f"allowed cpus: {machine.allowed.cpus}; the plan is for {name_host(plan)}",
                wanted=role.cpus,
                available=machine.allowed.cpus,
            )


def name_host(plan: Plan) -> str:
    """Return the name of the plan's host, or what it has, as plans from snapshots have no name."""
    return plan.host.name or f"a machine with cpus {plan.host.cpus}"
