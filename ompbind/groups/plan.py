"""The plan of several groups on one machine: each on what the others leave."""

from __future__ import annotations

from ompbind.cpuset import CpuSet, union
from ompbind.errors import OmpbindError, PlanError, UsageError
from ompbind.machine import linux_root, read_machine
from ompbind.machine.topology import TREE
from ompbind.memory.warming import join_files
from ompbind.messages import counted, label
from ompbind.openmp.thread_pools import join_pools
from ompbind.options import is_under_engine, make_plan_options
from ompbind.planner.cores import group_cores
from ompbind.planner.mapping import EVERY_CORE
from ompbind.planner.request import Pool
from ompbind.plans import RANK_VARIABLE, RANKS_VARIABLE, Caution, Group, Plan, Role
from ompbind.record import Record
from ompbind.resolve import (
    apply_inherited,
    claims_cores,
    resolve_plan,
    wants_devices,
    with_neighbours,
)
from ompbind.worker.template import fill, make_names

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ompbind.groups.request import GroupRequest, Groups
    from ompbind.host import Lease
    from ompbind.machine.topology import Machine
    from ompbind.options import PlanOptions
    from ompbind.planner.request import Request
    from ompbind.plans import RankPlan


NOTHING = Pool("", 0)


class Planned(Record):
    """A group and its plan, in which ranks are numbered from 0."""

    request: GroupRequest
    options: PlanOptions
    plan: Plan


def plan_groups(
    groups: Groups,
    environ: Mapping[str, str],
    *,
    is_run: bool = False,
    lease: Lease | None = None,
) -> Plan:
    """Return the plan of all groups. `is_run`: it is for this machine; `lease`: it then holds the
    plan's cpus. Raises OmpbindError, whose message names the group."""
    check_engine(environ, elsewhere="topology" in groups.values)
    asked = [make_options(groups, member, environ) for member in groups.members]
    first = asked[0]
    devices = any(wants_devices(o.request, o.topology) for o in asked)
    machine = read_machine(first.topology, ("core", *TREE, "kind"), devices=devices)
    machine, narrowed = apply_inherited(machine, first, environ)
    # What was inherited is settled: each group is planned inside that.
    check_waiting(asked)
    settled = [
        o.replace(inherited="intersect", neighbours=False, exclusive=False,
                  wait=o.wait if claims_cores(o) else None)
        for o in asked
    ]  # fmt: skip
    pairs = list(zip(groups.members, settled, strict=True))
    planned = plan_all(machine, pairs, environ, lease=lease, is_run=is_run)
    check_devices(planned)
    plan = join(machine, planned).replace(narrowed=narrowed)
    if any(rank.need for rank in plan.ranks):
        from ompbind.host.room import check_room

        plan = check_room(plan, machine, linux_root() if first.topology is None else None)
    if narrowed and first.inherited == "ignore" and plan.binder != "none":
        from ompbind.host.restrictions import can_be_reset

        plan = plan.replace(reset_inherited=can_be_reset(narrowed))
    if first.topology is not None:
        return plan
    if first.exclusive:
        from ompbind.claims import claim_plan

        claim_plan(plan, first, environ, machine, lease)
        return plan
    # Groups that have claimed their cores hold them by the same lease.
    whole = first.replace(request=first.request.replace(free=NOTHING, part=None))
    return with_neighbours(plan, whole, environ, machine, lease)


def check_waiting(asked: Sequence[PlanOptions]) -> None:
    """Refuse to wait for the cores of several groups: two launches that had those of one each would
    wait for each other for ever. Raises UsageError."""
    if sum(claims_cores(options) for options in asked) > 1 and asked[0].wait is not None:
        raise UsageError(
            "--wait waits for the cores of one group, and several ask for free ones",
            hint="--exclusive waits for the cores of all groups",
        )


def plan_all(
    machine: Machine,
    pairs: Sequence[tuple[GroupRequest, PlanOptions]],
    environ: Mapping[str, str],
    *,
    lease: Lease | None = None,
    is_run: bool = False,
) -> list[Planned]:
    """Return the groups' plans, in their order. A cgroup's quota of cpu time is shared by all
    groups, as their numbers of cpus, which a first plan without claims tells. Raises OmpbindError.
    """
    quota = machine.allowed.quota
    shares: dict[str, float | None] = {}
    if quota is not None:
        first = plan_in_turn(machine, pairs, environ, shares)
        sizes = {name: len(union(r.cpus for r in p.plan.ranks)) for name, p in first.items()}
        total = max(sum(sizes.values()), 1)
        shares = {name: quota * size / total for name, size in sizes.items()}
    planned = plan_in_turn(machine, pairs, environ, shares, lease=lease, is_run=is_run)
    return [planned[member.name] for member, _ in pairs]


def plan_in_turn(
    machine: Machine,
    pairs: Sequence[tuple[GroupRequest, PlanOptions]],
    environ: Mapping[str, str],
    quotas: Mapping[str, float | None],
    *,
    lease: Lease | None = None,
    is_run: bool = False,
) -> dict[str, Planned]:
    """Plan one group after the other, each with its quota. Raises OmpbindError."""
    planned: dict[str, Planned] = {}
    for member, options in sorted(pairs, key=lambda pair: urgency(pair[1].request)):
        allowed = machine.allowed.replace(quota=quotas.get(member.name))
        before = list(planned.values())
        planned[member.name] = plan_group(
            machine.replace(allowed=allowed), member, options, environ, before,
            lease=lease, is_run=is_run,
        )  # fmt: skip
    return planned


def check_engine(environ: Mapping[str, str], *, elsewhere: bool) -> None:
    """Refuse groups in one of several ranks that an engine has started on this node: each would
    plan them all. Raises UsageError."""
    if elsewhere or not is_under_engine({}, environ):
        return
    from ompbind.engines import find_rank

    task = find_rank(None, None, environ).task
    if task and task.local_ranks != 1:
        raise UsageError(
            f"groups are for one ompbind on a node, and {task.label} has started several ranks",
            hint="one on each node, as srun --ntasks-per-node=1 starts it",
        )


def make_options(groups: Groups, member: GroupRequest, environ: Mapping[str, str]) -> PlanOptions:
    """Return what a group's plan is made from. Raises OmpbindError."""
    values = groups.values | member.values | {"engine": "none", "group": member.name}
    try:
        return make_plan_options(values, member.command, environ)
    except OmpbindError as e:
        raise in_group(e, member.name) from None


def urgency(request: Request) -> int:
    """Return when a group is planned: one that names its cpus first, then those of a fixed size,
    those that name nodes, and at last those that take all that is left."""
    if request.cpus is not None:
        return 0
    if request.cores_per_rank or (request.per == "core" and request.ranks is not None):
        return 1
    return 2 if request.nodes is not None else 3


def plan_group(
    machine: Machine,
    member: GroupRequest,
    options: PlanOptions,
    environ: Mapping[str, str],
    before: Sequence[Planned],
    *,
    lease: Lease | None = None,
    is_run: bool = False,
) -> Planned:
    """Plan a group on the cores of which no group `before` it has a hardware thread; one that names
    its cpus, on those cpus. Raises OmpbindError."""
    request = options.request
    taken = union(p.plan.taken for p in before)
    if request.cpus is not None:
        check_named(request, member.name, before)
        left = machine.allowed.cpus - taken
    else:
        free = [cpus for cpus, _ in group_cores(machine, machine.allowed.cpus) if not cpus & taken]
        left = union(free)
    if not left and request.oversubscribe:
        left = machine.allowed.cpus
    if not left:
        raise exhausted(member.name, before)
    rest = machine.replace(allowed=machine.allowed.replace(cpus=left))
    try:
        plan = resolve_plan(options, environ, rest, lease=lease, is_run=is_run)
    except OmpbindError as e:
        raise in_group(e, member.name, before) from None
    return Planned(member, options, plan)


def check_named(request: Request, name: str, before: Sequence[Planned]) -> None:
    """Refuse cpus that another group has. Raises PlanError."""
    for planned in before:
        for rank, cpus in enumerate(request.cpus or ()):
            if both := cpus & planned.plan.taken:
                raise PlanError(
                    f"group {name}, rank {rank}: {label('cpu', both)} already belong"
                    f"{'s' * (len(both) == 1)} to group {planned.request.name}",
                    rank=rank,
                    wanted=cpus,
                )


def exhausted(name: str, before: Sequence[Planned]) -> PlanError:
    sizes = ", ".join(f"{p.request.name} {len(p.plan.taken)} cpus" for p in before)
    return PlanError(
        f"group {name}: no core is left (taken: {sizes})",
        hint="--cores-per-rank N says how many cores a rank gets; --oversubscribe shares them",
    )


def in_group(error: OmpbindError, name: str, before: Sequence[Planned] = ()) -> OmpbindError:
    """Return an error of a group's, with what the groups before it have taken."""
    message = f"group {name}: {error.message}"
    if before and isinstance(error, PlanError):
        sizes = ", ".join(f"{p.request.name} {p.plan.taken}" for p in before)
        message += f" (cpus that other groups have: {sizes})"
    error.reword(message)
    return error


def check_devices(planned: Sequence[Planned]) -> None:
    """Refuse groups that have a GPU in common. Raises PlanError."""
    owners: dict[str, str] = {}
    for p in planned:
        for gpu in {gpu for rank in p.plan.ranks for gpu in (*rank.gpus, *rank.accels)}:
            if owners.setdefault(gpu, p.request.name) != p.request.name:
                raise PlanError(
                    f"groups {owners[gpu]} and {p.request.name} both have GPU {gpu}",
                    hint="--env CUDA_VISIBLE_DEVICES=0,1 in a group says which of them are its",
                )


# --- one plan of all ------------------------------------------------------------------------------


def join(machine: Machine, planned: Sequence[Planned]) -> Plan:
    """Return one plan of the groups' plans, in their order."""
    count = sum(len(p.plan.ranks) for p in planned)
    ranks: list[RankPlan] = []
    roles: list[Role] = []
    groups = []
    cautions: list[Caution] = []
    for p in planned:
        name, first = p.request.name, len(ranks)
        ranks += [renumber(rank, first, count) for rank in p.plan.ranks]
        numbers = CpuSet(range(first, len(ranks)))
        roles += [r.replace(ranks=CpuSet(first + n for n in r.ranks)) for r in p.plan.roles]
        groups.append(
            Group(name, numbers, p.plan.command, p.plan.template, p.request.after,
                  make_ready(p), p.request.background)
        )  # fmt: skip
        cautions += [c.replace(text=f"group {name}: {c.text}") for c in p.plan.cautions]
    if len({rank.binding.binder for rank in ranks}) > 1:  # numactl lacks a policy of one group
        ranks = [rank.rebind(rank.binding.without(["numactl"])) for rank in ranks]
    plans = [p.plan for p in planned]
    reserved = union(plan.reserved for plan in plans)
    taken = union([reserved, *(r.cpus for r in ranks), *(r.cpus for r in roles)])
    excluded = union(plan.excluded for plan in plans) - taken
    allowed = machine.allowed.cpus
    free = [cpus for cpus, _ in group_cores(machine, allowed) if not cpus & taken]
    modes = {plan.omp for plan in plans}
    return Plan(
        host=plans[0].host.replace(allowed=allowed, quota=machine.allowed.quota),
        ranks=tuple(ranks),
        reserved=reserved,
        roles=tuple(roles),
        unused=union(free) - excluded,
        excluded=excluded,
        cautions=(*dict.fromkeys(cautions), *warn_of_shared_cores(machine, planned)),
        inherited=tuple(dict.fromkeys(i for plan in plans for i in plan.inherited)),
        places_why=join_reasons([(p.request.name, p.plan.places_why) for p in planned]),
        omp=modes.pop() if len(modes) == 1 else "all",
        omp_why=join_reasons([(p.request.name, p.plan.omp_why) for p in planned]),
        groups=tuple(groups),
        warm=join_files(file for plan in plans for file in plan.warm),
        pools=join_pools([plan.pools for plan in plans if plan.pools]),
        huge_pages=next((plan.huge_pages for plan in plans if plan.huge_pages), ""),
    )


def renumber(rank: RankPlan, first: int, count: int) -> RankPlan:
    """Return a group's rank as one of the launch's `count`: its program sees its numbers in the
    group, ompbind knows it by those of the launch."""
    number, why = first + rank.rank, rank.why
    if why == EVERY_CORE:
        why = "every core that the other groups leave"
    env = dict(rank.env) | {RANK_VARIABLE: str(number), RANKS_VARIABLE: str(count)}
    return rank.replace(rank=number, env=tuple(env.items()), why=why)


def make_ready(planned: Planned) -> tuple[str, ...]:
    """Return by what it is known that a group is ready, templates filled in for each rank. Raises
    UsageError."""
    from ompbind.launch.ready import parse_condition

    ready, name = planned.request.ready, planned.request.name
    if not ready:
        return ()
    texts = [ready]
    try:
        if "{" in ready and not ready.startswith("line:"):
            plan = planned.plan
            texts = [
                fill(ready, make_names(plan.numbers_of(r), r.cpus, r.nodes, r.group))
                for r in plan.ranks
            ]
        for text in texts:
            parse_condition(text)
    except OmpbindError as e:
        raise UsageError(f"group {name}: --ready {e.message}", hint=e.hint) from None
    return tuple(dict.fromkeys(texts))


def join_reasons(reasons: Sequence[tuple[str, str]]) -> str:
    """Return the groups' reasons, one where they are the same."""
    texts = {text for _, text in reasons}
    if len(texts) == 1:
        return texts.pop()
    return "; ".join(f"{name}: {text}" for name, text in reasons if text)


def warn_of_shared_cores(machine: Machine, planned: Sequence[Planned]) -> list[Caution]:
    """Return a warning for groups that have hardware threads of one core, which only those can
    that name cpus, or that --oversubscribe lets share cores."""
    cautions = []
    cores = machine.topology.groups("core")
    for number, p in enumerate(planned):
        for other in planned[:number]:
            mine, theirs = (union(r.cpus for r in x.plan.ranks) for x in (p, other))
            shared = [c for c in cores if c & mine and c & theirs]
            if shared:
                text = (
                    f"groups {other.request.name} and {p.request.name} have "
                    f"{counted(len(shared), 'core')} in common: {label('cpu', union(shared))}"
                )
                cautions.append(Caution("shared-core", text))
    return cautions
