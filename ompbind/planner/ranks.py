"""What each rank gets on its cores: threads, OpenMP places, memory, environment, command."""

from __future__ import annotations

from ompbind import openmp
from ompbind.cpuset import CpuSet, label_numbers, union
from ompbind.errors import PlanError
from ompbind.messages import counted
from ompbind.planner.cores import llc_level, split_by
from ompbind.plans import (
    GROUP_VARIABLE,
    RANK_VARIABLE,
    RANKS_VARIABLE,
    Binding,
    Caution,
    Numbers,
    RankPlan,
    World,
)
from ompbind.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ompbind.machine.topology import Machine
    from ompbind.planner.mapping import Share
    from ompbind.planner.request import Request
    from ompbind.plans import Role


class SharedPart(Record):
    """What ranks with the same cores, node and threads have in common. It is made once: a thousand
    ranks may share a thousand cores."""

    binding: Binding
    places: tuple[CpuSet, ...]
    nodes: CpuSet
    env: tuple[tuple[str, str], ...]
    weights: tuple[tuple[int, int], ...] = ()  # of its memory nodes


def make_ranks(
    machine: Machine,
    request: Request,
    shares: Sequence[Share],
    threads: Sequence[str],
    roles: tuple[Role, ...],
) -> tuple[list[RankPlan], list[SharedPart], list[Caution]]:
    """Return the ranks that this launch starts, their distinct shared parts, and warnings.
    `threads`: OMP_NUM_THREADS of each rank. Raises PlanError."""
    check_mem_nodes(request, len(shares))
    parts: dict[tuple[object, ...], SharedPart] = {}
    ranks, cautions = [], []
    only = None if request.world is None else request.world.only
    for rank, share in enumerate(shares):
        if only is not None and rank != only:
            continue
        key = (id(share.cores), share.home, request.mem_nodes_of(rank), threads[rank])
        if key not in parts:
            mem, mems, warned = choose_memory(machine, request, rank, share)
            balancing = request.mem_balancing and bool(mems)
            binding = Binding(share.cpus, mem, mems, request.binder, balancing)
            parts[key] = make_shared_part(machine, request, share, binding, threads[rank])
            cautions += warned
        ranks.append(make_rank(request, rank, len(shares), share, parts[key], roles))
    return ranks, list(parts.values()), cautions


def check_mem_nodes(request: Request, count: int) -> None:
    """Refuse nodes for another number of ranks. Raises PlanError."""
    named = request.mem_nodes
    if named[1:] and len(named) != count:
        raise PlanError(
            f"--mem-nodes is for {len(named)} ranks, and the plan has {counted(count, 'rank')}",
            hint="one value for each rank, as in 0,4 1,5, or one for all",
            wanted=len(named),
            available=count,
        )


def choose_memory(
    machine: Machine, request: Request, rank: int, share: Share
) -> tuple[str, CpuSet, list[Caution]]:
    if not request.numa_bind and request.mem in (None, "none"):
        return "none", CpuSet(), []
    from ompbind.planner.memory import find_memory  # not on everybody's start path

    return find_memory(machine, request, rank, share)


def make_shared_part(
    machine: Machine, request: Request, share: Share, binding: Binding, threads: str
) -> SharedPart:
    places = make_places(machine, request, share) if request.omp == "all" else ()
    weights: tuple[tuple[int, int], ...] = ()
    if binding.mem == "weighted-interleave":
        nodes = machine.topology.nodes
        weights = tuple((n.node, n.weight) for n in nodes if n.node in binding.mems and n.weight)
    return SharedPart(
        binding=binding,
        places=places,
        nodes=machine.topology.nodes_of(binding.cpus),
        env=openmp.make_environment(places, request.proc_bind, threads, len(share.cores)),
        weights=weights,
    )


def make_rank(
    request: Request, rank: int, count: int, share: Share, part: SharedPart, roles: tuple[Role, ...]
) -> RankPlan:
    binding = part.binding
    world = request.world or World(0, count, 0, count)
    numbers = Numbers.make(world, rank)
    several = count > 1 and world.only is None  # ranks that this launch starts
    env = part.env + make_rank_environment(numbers, request.rank_env, several=several)
    env += binding.environment()
    env += ((GROUP_VARIABLE, request.group),) if request.group else ()
    env += tuple(v for role in roles if rank in role.ranks for v in role.environment())
    gpus = tuple(gpu.name for gpu in share.gpus)
    removed = {i.name for i in request.inherited if i.action == "removed"}
    unset: tuple[str, ...] = openmp.REMOVED if request.omp == "all" else ()
    unset += tuple(name for name in openmp.LIMITS if name in removed)
    if request.gpu_env and request.visible is not None:
        env += ((request.visible.variable, ",".join(gpus)), *request.visible.env)
        unset += request.visible.unset
    if request.nic_env:
        kept = {i.name for i in request.inherited if i.action == "respected"}
        env += tuple(v for card in share.nics for v in card.variables if v[0] not in kept)
    command = request.command
    if request.template:
        from ompbind.worker.template import (  # not on everybody's start path
            fill_arguments,
            make_names,
        )

        names = make_names(numbers, binding.cpus, part.nodes, request.group)
        command = fill_arguments(command, names)
    return RankPlan(
        rank=0 if world.only is not None else rank,
        numbers=None if request.world is None else numbers,
        group=request.group,
        group_numbers=numbers if request.group else None,
        binding=binding,
        places=part.places,
        nodes=part.nodes,
        env=env,
        unset=unset,
        command=command,
        gpus=() if request.per == "accel" else gpus,
        accels=gpus if request.per == "accel" else (),
        nics=tuple(card.name for card in share.nics),
        nics_why=share.nics_why,
        why=share.why,
        why_shared=share.why_shared,
        weights=part.weights,
        mem_why=f"the nearest {request.mem_kind.upper()}"
        if request.mem_kind and binding.mems
        else "",
        need=request.mem_need.of_each(count) if request.mem_need else 0,
    )


def make_rank_environment(
    numbers: Numbers, rank_env: bool | None, *, several: bool
) -> tuple[tuple[str, str], ...]:
    """Return the variables of a rank's number. RANK and the like only where this launch starts
    several ranks, unless asked for: a single one may itself run under torchrun, whose variables
    must reach the program.
    """
    env = [(RANK_VARIABLE, str(numbers.local_rank)), (RANKS_VARIABLE, str(numbers.local_size))]
    if rank_env or (rank_env is None and several):
        env += numbers.environment()
    return tuple(env)


# --- places --------------------------------------------------------------------------------------


def make_places(machine: Machine, request: Request, share: Share) -> tuple[CpuSet, ...]:
    """Return the OpenMP places of a rank, in the order in which `close` fills them. Raises
    PlanError."""
    kind = request.places
    if (kind == "one" and not share.places) or request.proc_bind == "false":
        # LLVM's runtime may bind to several even so, by the order of variables in the environment.
        return (share.cpus,)
    if share.places:
        return share.places
    if kind == "wide":
        return (share.cpus, *(core.cpus for core in share.cores[1:]))
    if kind == "threads":
        return tuple(CpuSet([cpu]) for core in share.cores for cpu in core.cpus)
    if kind == "cores":
        return tuple(core.cpus for core in share.cores)
    level = llc_level(machine) if kind == "l3" else "node"
    for core in share.cores:
        if getattr(core.first_cpu, level) is None:
            thing = "last-level cache" if kind == "l3" else "node"
            raise PlanError(
                f"--places {kind}: the machine does not say which {thing} "
                f"cpu {core.cpus.first} is on",
                hint="--places cores, threads or one",
            )
    return tuple(union(c.cpus for c in group) for group in split_by(share.cores, level))


def explain_places(request: Request) -> str:
    """Return what a place is, and what decided that, in a few words; "" without places."""
    if request.omp != "all":
        return ""
    if request.proc_bind == "false":
        return "one place: threads are not to be bound (--proc-bind false)"
    if request.place_list is not None:
        return "the places of OMP_PLACES, distributed over the ranks"
    names = {"one": "one place", "wide": "a place for each core, the first for all"}
    name = names.get(request.places, f"places are {request.places}")
    return f"{name}: {request.places_why}" if request.places_why else name


# --- threads -------------------------------------------------------------------------------------


def make_threads(
    machine: Machine, request: Request, shares: Sequence[Share], roles: tuple[Role, ...]
) -> tuple[list[str], list[Caution]]:
    """Return OMP_NUM_THREADS of each rank, "" where it is not set, and warnings."""
    if request.omp == "off":
        return [""] * len(shares), []
    fixed = request.threads not in (None, "cores")
    if request.threads is not None and fixed:
        texts = [openmp.limited(request.threads, request.limit)] * len(shares)
    else:
        counts = [count_threads(request, share) for share in shares]
        texts = [openmp.limited(str(count), request.limit) for count in counts]
    if machine.allowed.quota is None:
        return texts, []
    from ompbind.planner.quota import share_quota  # not on everybody's start path

    numbers = [int(text.partition(",")[0]) for text in texts]
    limited, cautions = share_quota(request, numbers, machine.allowed.quota, roles)
    return texts if fixed else [*map(str, limited)], cautions


def count_threads(request: Request, share: Share) -> int:
    """Return one thread for each place of a core or less, else one for each cpu; with --threads
    cores one for each core."""
    if request.threads == "cores":
        return len(share.cores)
    if share.places:
        cores = [core.cpus for core in share.cores]
        small = all(any(place <= cpus for cpus in cores) for place in share.places)
        return len(share.places) if small else len(share.cpus)
    return len(share.cores) if request.places in ("cores", "wide") else len(share.cpus)


def warn_of_threads(ranks: Sequence[RankPlan], crowded: bool) -> list[Caution]:
    """Return a warning for ranks with more threads than cpus, one for all of the same numbers, and
    one for ranks that share cpus and have more threads together. `crowded`: ranks share cores
    because there are too few, which is warned of elsewhere."""
    ranks_with: dict[tuple[int, int], list[int]] = {}
    sharing: dict[CpuSet, list[tuple[int, int]]] = {}
    for r in ranks:
        threads = int(dict(r.env).get("OMP_NUM_THREADS", "0").partition(",")[0])
        sharing.setdefault(r.cpus, []).append((r.number, threads))
        if threads > len(r.cpus):
            ranks_with.setdefault((threads, len(r.cpus)), []).append(r.number)
    cautions = [
        Caution(
            "threads",
            f"{label_numbers('rank', numbers)}: {threads} threads on "
            f"{counted(cpus, 'cpu')} (--threads {cpus} gives each its own)",
        )
        for (threads, cpus), numbers in ranks_with.items()
    ]
    if crowded:
        return cautions
    groups: dict[tuple[int, int, int], list[list[int]]] = {}
    for cpus, members in sharing.items():
        total = sum(threads for _, threads in members)
        if members[1:] and total > len(cpus) >= max(threads for _, threads in members):
            key = len(cpus), len(members), total
            groups.setdefault(key, []).append([rank for rank, _ in members])
    for (cpus_each, ranks_each, total), several in groups.items():
        who = label_numbers("rank", [rank for group in several for rank in group])
        who += f": each {ranks_each}" if several[1:] else ""
        least = cpus_each // ranks_each
        remedy = f" (--threads {least} gives each its own)" if least else ""
        text = f"{who} share {counted(cpus_each, 'cpu')} and have {total} threads together{remedy}"
        cautions.append(Caution("shared-threads", text))
    return cautions
