"""What a request means for one rank of an engine: whose cpus its affinity mask holds, its own,
those of all ranks on the node, or of some; and what to plan on them. All ranks that share cpus
are planned as one launch would plan them, and this process starts its own.

Every local rank must come to the same answer by itself, or ranks would overlap: what only one of
them sees, such as which cpus its own mask has, may not decide between two ways to plan.

One module, as every rank of an engine waits for its import. Source: mpirun(1) of Open MPI 4.1,
which binds to cores up to two ranks, else to sockets.
"""

from __future__ import annotations

from ompbind.cpuset import CpuSet
from ompbind.errors import PlanError
from ompbind.machine import read_machine
from ompbind.messages import counted, label
from ompbind.planner.cores import group_cores, levels_for
from ompbind.plans import ENGINE_TASK, ENGINE_VARIABLE, Caution, Numbers, World
from ompbind.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Hashable, Mapping, Sequence
    from typing import Any, TypeVar

    from ompbind.devices.nics import Card
    from ompbind.devices.visible import Gpu
    from ompbind.engines import Engine, Found
    from ompbind.machine.topology import Level, Machine, Topology
    from ompbind.planner.request import Pool, Request
    from ompbind.plans import Inherited, Plan, Task

    AnyTarget = TypeVar("AnyTarget", Gpu, Card)

BOUND_TO: tuple[Level, ...] = ("package", "node", "l3", "core")  # what engines bind ranks to
OWN, ALL, SOME = "own", "all", "some"
WHOLE_CORES = "srun -c 2 or --hint=nomultithread gives each task a whole core"


class Fitted(Record):
    """A request as one rank of an engine plans it. `machine`: with the cpus that it may use;
    `widened`: whether these are more than this process's mask."""

    machine: Machine
    request: Request
    task: Task
    cautions: tuple[Caution, ...] = ()
    widened: bool = False

    def narrow(self, narrowed: tuple[Inherited, ...]) -> tuple[Inherited, ...]:
        """Return the inherited restrictions, the mask marked as one that is given up where the plan
        is for more than that."""
        if not self.widened:
            return narrowed
        return tuple(
            r.replace(action="widened", why=f"{r.why}; {self.task.why}")
            if r.name == "affinity mask"
            else r
            for r in narrowed
        )

    def complete(self, plan: Plan) -> Plan:
        """Return the plan with what it is for the engine, also in its ranks' environment."""
        task, cautions = self.task, self.cautions
        per, world = self.request.per, self.request.world
        if per and plan.unused and task.local_ranks == 1 and world and world.only is not None:
            text = f"--per {per}: {task.label} has started one rank here, which gets the first"
            cautions += (Caution("engine", text, "-n N starts N ranks on each node"),)
        if cautions:
            plan = plan.replace(cautions=(*cautions, *plan.cautions))
        return with_task(plan, task)


def with_task(plan: Plan, task: Task) -> Plan:
    """Return the plan with what it is for the engine, also in its ranks' environment."""
    variables = ((ENGINE_VARIABLE, task.engine), (ENGINE_TASK, task.key))
    env = variables if task.job else variables[:1]
    ranks = tuple(r.replace(env=r.env + env) for r in plan.ranks)
    return plan.replace(ranks=ranks, task=task)


def fit_here(
    machine: Machine,
    request: Request,
    found: Found,
    environ: Mapping[str, str],
    within: str,
    levels: Collection[Level],
) -> Fitted:
    """Return what to plan on this machine, of which `levels` have been read; those that are needed
    to divide it are read where they are wanted. Raises PlanError, TopologyError."""
    fitted = fit(machine, request, found, environ, within)
    wanted = levels_for(fitted.request)
    if not set(wanted) <= set(levels):
        again = read_machine(None, wanted, devices=bool(machine.topology.devices))
        fitted = fitted.replace(machine=again.replace(allowed=fitted.machine.allowed))
    return fitted


def needs_cpuset(found: Found, within: str) -> bool:
    """Whether the cpuset says what the ranks of an engine share: where its daemon cannot be seen or
    is outside, as Slurm's is."""
    slurm = found.engine is not None and found.engine.name == "slurm"
    return found.daemon is None or slurm or within == "node"


def pick_rank(plan: Plan, found: Found) -> Plan:
    """Return a saved plan with the one rank that this process starts: that of --rank, or where the
    plan has a rank for each of an engine's local ranks, this one's. Raises PlanError."""
    task, count = found.task, len(plan.ranks)
    rank, ranks = task.local_rank, task.local_ranks
    if not task or plan.task or (found.engine and ranks in (1, None)):
        return plan
    if found.engine and ranks != count:
        raise PlanError(
            f"--plan has {counted(count, 'rank')}; {task.label} has started {ranks} here",
            hint=f"ompbind show -n {ranks} --format json makes a plan for them",
            wanted=ranks,
            available=count,
        )
    if rank is None or rank >= count:
        raise PlanError(
            f"--rank {rank}: the plan has {counted(count, 'rank')}, from 0",
            wanted=rank,
            available=count,
        )
    chosen = plan.ranks[rank]
    first = rank if found.engine is None or task.rank is None else task.rank
    size = count if found.engine is None or task.ranks is None else task.ranks
    numbers = Numbers(first, size, rank, count)
    kept = chosen.replace(rank=0, numbers=numbers)
    return with_task(plan.replace(ranks=(kept,)), task)


def fit(
    machine: Machine,
    request: Request,
    found: Found,
    environ: Mapping[str, str],
    within: str,
) -> Fitted:
    """Return what to plan on which cpus. `within`: what --within says, or "". Raises PlanError."""
    task, engine, topology = found.task, found.engine, machine.topology
    if engine is None:  # by hand: the rank of a plan for all ranks
        number = task.rank or 0
        return Fitted(machine, request.replace(world=World(0, 0, 0, 0, only=number)), task)
    check_ranks(request, task, engine, machine.name)
    online = topology.online
    mask = machine.allowed.cpus
    around = online if found.daemon is None else found.daemon & online
    if needs_cpuset(found, within):
        # A step's cpuset is one for all its tasks, but need not be slurmstepd's.
        around = around & (machine.allowed.cpuset or online) or mask
    sharing = find_sharing(task, engine, environ, mask, around, topology, within)
    if sharing.widened:
        machine = machine.replace(allowed=machine.allowed.replace(cpus=sharing.cpus))
    request, cautions = fit_request(request, task, engine, sharing, machine)
    if request.visible is not None:
        gpus = pick_devices(request.visible.gpus, request, task)
        request = request.replace(visible=request.visible.replace(gpus=gpus))
    if request.cards is not None and request.per == "nic":
        cards = pick_devices(request.cards.cards, request, task)
        request = request.replace(cards=request.cards.replace(cards=cards))
    task = task.replace(sharing=sharing.kind, why=sharing.why, note=sharing.note)
    return Fitted(machine, request, task, tuple(cautions), sharing.widened)


def pick_devices(
    devices: tuple[AnyTarget, ...], request: Request, task: Task
) -> tuple[AnyTarget, ...]:
    """Return those of the visible GPUs or network cards that the ranks of this plan would have
    among all local ranks, where the plan is not for all of them."""
    world, count = request.world, task.local_ranks or 1
    planned = request.ranks or 1
    if world is None or planned >= count or (request.per is None and len(devices) != count):
        return devices
    from ompbind.planner.by_device import assign_devices

    of_ranks = assign_devices(request.replace(ranks=count, per="gpu"), devices)
    first = world.local_first
    picked = {id(d) for rank in range(first, first + planned) for d in of_ranks[rank]}
    return tuple(d for d in devices if id(d) in picked)


def fit_request(
    request: Request, task: Task, engine: Engine, sharing: Sharing, machine: Machine
) -> tuple[Request, list[Caution]]:
    """Return what to plan on the cpus of `sharing`, and warnings. Raises PlanError."""
    world = make_world(request, task)
    if request.ranks is not None and task.local_ranks == 1:  # one ompbind on each node
        return request.replace(world=world), []
    rank = task.local_rank or 0
    members = sharing.members or (rank,)
    ranks = len(members) if members[1:] or request.per else None
    only = members.index(rank)
    world = world.replace(first=world.first - only, local_first=rank - only, only=only)
    count, mem_nodes = task.local_ranks or 1, request.mem_nodes
    reserve, roles = request.reserve, request.roles
    if sharing.kind != ALL and count > len(members):
        reserve = cut_pool(reserve, members, count)
        roles = tuple(p for role in roles if (p := cut_pool(role, members, count)))
    request = request.replace(
        cpus=pick(request.cpus, members), nodes=pick(request.nodes, members), ranks=ranks,
        mem_nodes=pick(mem_nodes, members) if mem_nodes[1:] else mem_nodes,
        world=world, reserve=reserve, roles=roles,
    )  # fmt: skip
    cautions: list[Caution] = []
    if ranks is not None or sharing.kind == SOME:  # to count cores takes time
        cores = len(group_cores(machine, sharing.cpus - request.exclude))
        if sharing.kind == SOME and not sharing.members:
            return share_blindly(request, sharing, cores)
        request, cautions = split_cores(request, task, engine, sharing, len(members), cores)
    if sharing.caution:
        cautions.append(Caution("shared-core", sharing.caution, sharing.hint))
    return request, cautions


def check_ranks(request: Request, task: Task, engine: Engine, host: str) -> None:
    """Refuse a number of ranks that is not the engine's. `host`: this node's name. Raises
    PlanError."""
    count = task.local_ranks or 1
    on = f" on {host}" if host else ""
    for option, values in (
        ("--numa-bind-nodes", request.nodes), ("--numa-bind-cpus", request.cpus),
        ("--mem-nodes", request.mem_nodes if request.mem_nodes[1:] else None),
    ):  # fmt: skip
        if values is not None and len(values) != (request.ranks or count):
            raise PlanError(
                f"{option} is for {counted(len(values), 'rank')}; {task.label} has started "
                f"{count}{on}",
                hint=f"give it {counted(count, 'value')}, one for each local rank",
                wanted=len(values),
                available=count,
            )
    if request.ranks is None:
        return
    problem = ""
    hint = "leave -n out: the engine says how many ranks there are"
    if count > 1:
        problem = f"{task.label} has already started {count} ranks{on}"
    elif engine.name == "torchrun" and task.ranks != 1:
        problem = "torchrun has given each of its workers a rank"
        hint = "torchrun --nproc-per-node N starts N on each node"
    elif task.uneven:
        problem = f"{task.label} has started several ranks on some nodes and one here"
        hint = "one ompbind on each node: srun --ntasks-per-node=1 ompbind run -n N"
    elif task.node is None or task.nodes is None:
        problem = f"{task.label} does not say which of the nodes this is"
    if problem:
        wanted = f"--ranks {request.ranks}"
        raise PlanError(f"{wanted}: {problem}", hint=hint, wanted=request.ranks, available=count)


def make_world(request: Request, task: Task) -> World:
    """Return where the ranks of the plan stand among those of the job. Raises PlanError where that
    is asked for and not known."""
    if request.ranks is not None:
        first, size = (task.node or 0) * request.ranks, (task.nodes or 1) * request.ranks
        return World(first, size, 0, request.ranks)
    if request.rank_env or request.template:
        for thing, value in (("rank", task.rank), ("number of ranks", task.ranks)):
            if value is None:
                raise PlanError(
                    f"{task.label} does not say the {thing}, for --rank-env, --master-port and "
                    "--template",
                    hint="--rank R --ranks N gives them by hand",
                )
    rank = task.local_rank if task.rank is None else task.rank
    return World(rank or 0, task.ranks or 1, task.local_rank or 0, task.local_ranks or 1)


def pick(values: Sequence[Any] | None, members: Sequence[int]) -> tuple[Any, ...] | None:
    """Return the values of these local ranks."""
    return None if values is None else tuple(values[member] for member in members)


def cut_pool(pool: Pool, members: Sequence[int], count: int) -> Pool:
    """Return what `members` give of a pool that all `count` local ranks give together, one core
    after the other, from the last rank backwards; each rank plans its own only."""
    if pool.per_rank:
        return pool
    share, more = divmod(pool.cores, count)
    cores = sum(share + (member >= count - more) for member in members)
    return pool.replace(cores=cores)


def share_blindly(request: Request, sharing: Sharing, cores: int) -> tuple[Request, list[Caution]]:
    """Plan for one of several ranks that may each use all of the cpus: with its part of the
    threads, and in one place, as those of all ranks would fill the same places first."""
    threads = request.threads or str(max(cores // sharing.crowd, 1))
    request = request.replace(threads=threads)
    if not request.places_why and request.place_list is None:
        request = request.replace(places="one", places_why="other ranks have the same cpus")
    return request, [Caution("engine", sharing.caution, sharing.hint)] * bool(sharing.caution)


def split_cores(
    request: Request, task: Task, engine: Engine, sharing: Sharing, ranks: int, cores: int
) -> tuple[Request, list[Caution]]:
    """Plan hardware threads as cores where there are more ranks than cores. Raises PlanError where
    there are more ranks than cpus."""
    if ranks <= cores or request.share or request.oversubscribe or request.cpus is not None:
        return request, []
    usable = len(sharing.cpus)
    on = f"{label('cpu', sharing.cpus)}"
    if ranks > usable or request.place_list is not None or request.numa_bind or request.per:
        raise PlanError(
            f"{task.label} has started {ranks} ranks on {on}, {counted(cores, 'core')} "
            f"({engine.crowd}?)",
            hint="fewer ranks on each node, more cpus for each, or --oversubscribe to let them "
            "share cores",
            wanted=ranks,
            available=cores,
        )
    text = (
        f"{task.label} has started {ranks} ranks on {on}, {counted(cores, 'core')}: each gets "
        "hardware threads of a core that another rank uses, too"
    )
    hint = WHOLE_CORES if engine.name == "slurm" else "fewer ranks on each node"
    caution = Caution("shared-core", text, hint)
    return request.replace(by_thread=True), [caution]


# --- whose cpus -----------------------------------------------------------------------------------


class Sharing(Record):
    """Which cpus to plan, and for which of the local ranks.

    `kind`: OWN, ALL or SOME; `members`: the local ranks among which `cpus` are divided, this one
    with them, () where they are not known; `crowd`: how many they are; `cpus`: those to plan;
    `widened`: whether these are more than the rank's mask; `why`: in a few words; `note`, `caution`
    and `hint`: what the user may not expect.
    """

    kind: str
    cpus: CpuSet
    members: tuple[int, ...] = ()
    crowd: int = 1
    widened: bool = False
    why: str = ""
    note: str = ""
    caution: str = ""
    hint: str = ""


def find_sharing(
    task: Task,
    engine: Engine,
    environ: Mapping[str, str],
    mask: CpuSet,
    around: CpuSet,
    topology: Topology,
    within: str = "",
) -> Sharing:
    """Return which cpus this rank shares with which others on its node.

    `mask`: what this process may use; `around`: what the engine's own process may, or where that
    cannot be seen, what the cpuset holds; `within`: "task" to stay within the mask, "node" to plan
    over `around`, "" to decide. Raises PlanError where the masks of ranks overlap in part, and
    where the local rank is needed and not known.
    """
    count = task.local_ranks
    if count == 1:
        return Sharing(OWN, mask, (task.local_rank or 0,), why="the only rank on this node")
    around = around if mask <= around or around <= mask else around | mask
    if within == "node" and mask != around:
        why = "--within node"
        return Sharing(ALL, around, need_members(task), count or 1, widened=True, why=why)
    if any(name in environ for name in engine.masks):
        from ompbind.engines.masks import read_masks

        if masks := read_masks(engine, environ, task, mask):
            return by_masks(task, engine, mask, masks, topology.groups("core"))
    if around <= mask:
        why = f"{engine.label} has not bound its ranks"
        return Sharing(ALL, mask, need_members(task), count or 1, why=why)
    crowd = count_crowd(count, mask, around, topology)
    if crowd == 1:
        return Sharing(
            OWN, mask, (task.local_rank or 0,), why=f"{engine.label} has bound this rank"
        )
    text = (
        f"{engine.label} has bound ranks to {counted(len(mask), 'cpu')} each, so that "
        f"{counted(count or 1, 'rank')} share {label('cpu', around)}"
    )
    if not within and is_default(engine, environ):
        note = f"{text}: its default; planning over all of them (--within task keeps its masks)"
        why = f"{engine.label} binds several ranks to the same cpus by default"
        return Sharing(ALL, around, need_members(task), count or 1, True, why, note)
    why = f"{engine.label} has bound {crowd} ranks to these cpus"
    if within:
        return Sharing(SOME, mask, (), crowd, why=why)
    caution = f"{text}: which of them share these cpus is not known, so each may use all of them"
    hint = f"{engine.unbind} leaves binding to ompbind, as does --within node; --within task as now"
    return Sharing(SOME, mask, (), crowd, why=why, caution=caution, hint=hint)


def need_members(task: Task) -> tuple[int, ...]:
    """Return all local ranks. Raises PlanError where their number, or this one's, is not known."""
    if task.local_ranks is None or task.local_rank is None:
        missing = "local rank" if task.local_rank is None else "number of ranks on this node"
        variable = {"prrte": "PMIX_RANK", "flux": "FLUX_TASK_LOCAL_ID"}.get(task.engine, "NAME")
        raise PlanError(
            f"{task.label} does not say the {missing}, and its ranks share their cpus",
            hint=f"--rank env:{variable} --ranks N says both by hand, or let it bind its ranks",
        )
    return tuple(range(task.local_ranks))


def by_masks(
    task: Task,
    engine: Engine,
    mask: CpuSet,
    masks: Sequence[Hashable],
    cores: Sequence[CpuSet],
) -> Sharing:
    """Return the sharing by the engine's own word. `masks`: of each local rank what it is bound
    to."""
    rank = task.local_rank or 0
    members = tuple(r for r, other in enumerate(masks) if other == masks[rank])
    if len(members) == 1:
        why = f"{engine.label} has bound this rank"
        sharing = Sharing(OWN, mask, members, why=why)
        beside = [r for r, other in enumerate(masks) if r != rank and is_beside(other, mask, cores)]
        if masks[rank] == mask.mask and beside:
            others = label("local rank", CpuSet(beside))
            text = f"local rank {rank} has hardware threads of a core that {others} uses, too"
            return sharing.replace(caution=text, hint=WHOLE_CORES)
        return sharing
    kind = ALL if len(members) == len(masks) else SOME
    why = f"{engine.label} has bound {'all' if kind == ALL else len(members)} ranks to these cpus"
    return Sharing(kind, mask, members, len(members), why=why)


def is_beside(other: Hashable, mask: CpuSet, cores: Sequence[CpuSet]) -> bool:
    """Whether another rank's mask, by the kernel's numbers, has cpus of a core of this mask."""
    if not isinstance(other, int):
        return False
    theirs = CpuSet.from_mask(other)
    return any(core & mask and core & theirs for core in cores)


def count_crowd(count: int | None, mask: CpuSet, around: CpuSet, topology: Topology) -> int:
    """Return how many ranks at the least have a mask such as this one: more than one where `count`
    masks of its size do not fit into `around`, or the ranks are more than the things of which it is
    one. Without `count` nothing is known, and each has its own."""
    if count is None:
        return 1
    for level in BOUND_TO:
        if topology.group_of(mask.first, level) & around == mask:
            usable = [thing for thing in topology.groups(level) if thing & around]
            if len(usable) > 1:
                # Ranks on a smaller package must decide as those on a larger one.
                return -(-count // len(usable))
    different = max(len(around) // len(mask), 1)
    return -(-count // different)


def is_default(engine: Engine, environ: Mapping[str, str]) -> bool:
    """Whether the engine has bound by its default, and not because the user asked for that."""
    asked = any(name in environ for name in engine.asked)
    return bool(engine.bound) and all(name in environ for name in engine.bound) and not asked
