"""The planner: a machine and a request to a plan. Pure and deterministic, no input or output.

What only some requests need is imported where they are met: a launch waits for every import.
"""

from __future__ import annotations

from ompbind import openmp
from ompbind.cpuset import CpuSet, union
from ompbind.errors import PlanError
from ompbind.messages import counted, label, plural
from ompbind.planner.cores import group_cores, keep_kind, llc_level, make_cores, split_by
from ompbind.planner.mapping import cut_part, deal, deal_exactly
from ompbind.planner.memory import memory_of
from ompbind.planner.threads import make_threads
from ompbind.plans import Binding, Caution, Host, Plan, RankPlan, Role
from ompbind.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ompbind.machine.topology import Machine
    from ompbind.planner.cores import Core
    from ompbind.planner.mapping import Share
    from ompbind.planner.request import Request


LARGEST_WEIGHT = 1024  # of the most capable core, where there are several kinds

# What says which cpus are used, and so cannot stand beside cpus that are named exactly.
CHANGING = ("smt", "reserve", "role", "exclude", "part", "kind", "oversubscribe", "cores_per_rank")


def make_plan(machine: Machine, request: Request) -> Plan:
    """The plan, with `request.binder` already resolved to numactl, native or none.

    Raises PlanError where what was asked cannot be had, naming the rank, what was wanted and what
    is there.
    """
    check_request(request)
    warnings = [*machine_warnings(machine, request)]
    reserved, others = CpuSet(), CpuSet()
    roles: tuple[Role, ...] = ()
    if request.place_list is not None:
        from ompbind.planner.by_place_list import deal_places, settle_places

        request = settle_places(machine, request)
    if request.place_list is not None:
        shares = deal_places(machine, request, warnings)
    elif request.cpus is not None:
        shares = deal_exactly(machine, request, warnings)
    else:
        cores, elsewhere = cut_part(make_cores(machine, request), request)
        others = union(core.threads for core in elsewhere)
        cores = keep_kind(machine, request, cores)
        shares = deal_all(machine, request, cores, warnings)
        if request.reserve.cores or request.roles:
            from ompbind.planner.reservation import set_aside

            shares, reserved, roles = set_aside(shares, request)
        warn_uneven(shares, request, warnings)
        warn_crowded(shares, request, warnings)
    threads = make_threads(machine, request, shares, warnings)
    commons: dict[tuple[int, int | None, str], Common] = {}
    ranks = []
    for r, share in enumerate(shares):
        key = (id(share.cores), share.node, threads[r])
        if key not in commons:
            commons[key] = make_common(machine, request, r, share, threads[r], warnings)
        ranks.append(make_rank(request, r, len(shares), share, commons[key], roles))
    allowed = machine.allowed.cpus
    used = union(common.cpus for common in commons.values())
    taken = union([used, *(r.cpus for r in roles), reserved, others])
    free = [cpus for cpus, _ in group_cores(machine, allowed) if not cpus & taken]
    warn_threads(ranks, warnings)
    warn_isolated(machine, used, [*commons.values()], warnings)
    return Plan(
        host=Host(machine.name, machine.topology.online, allowed, machine.topology.node_numbers,
                  machine.allowed.quota),
        ranks=tuple(ranks),
        reserved=reserved,
        roles=roles,
        unused=union(free) - request.exclude,
        part="/".join(map(str, request.part or ())),
        others=others,
        cautions=tuple(dict.fromkeys(warnings)),
        inherited=request.inherited,
        command=request.command,
        template=request.template,
        places_why=why_places(request),
    )  # fmt: skip


def deal_all(
    machine: Machine, request: Request, cores: tuple[Core, ...], warnings: list[Caution]
) -> list[Share]:
    """Each rank's share, by devices where those say it."""
    if not is_about_devices(request):
        return deal(machine, request, cores)
    from ompbind.planner import by_gpu as gpus  # seldom wanted

    if request.near is not None:
        cores = gpus.keep_near(machine, request, cores, warnings)
    shares = gpus.deal_gpus(machine, request, cores, warnings) or deal(machine, request, cores)
    if request.near is not None:
        shares = [share.replace(why=f"{share.why}, near {request.near}") for share in shares]
    return shares


def is_about_devices(request: Request) -> bool:
    return (
        request.per == "gpu"
        or request.near is not None
        or request.gpu_env
        or request.visible is not None
    )


def check_request(request: Request) -> None:
    """Refuses options that contradict each other."""
    lists = {"--numa-bind-nodes": request.nodes, "--numa-bind-cpus": request.cpus}
    counts = {name: len(values) for name, values in lists.items() if values is not None}
    if request.ranks is not None:
        counts["--ranks"] = request.ranks
    if len(set(counts.values())) > 1:
        told = ", ".join(f"{name} is for {count}" for name, count in counts.items())
        raise PlanError(
            f"the number of ranks is unclear: {told}",
            hint="give each list one value for every rank",
            counts=counts,
        )
    if request.per is not None and (request.nodes is not None or request.cpus is not None):
        raise PlanError(
            f"--per {request.per} and a list of nodes or cpus both say where ranks go",
            hint="leave one of them out",
        )
    if request.distribution == "cyclic" and request.per is None and not request.numa_bind:
        raise PlanError(
            "--distribution cyclic goes round the things of --per, and there is none",
            hint="--per numa, --per package, ...",
        )
    if request.cores_per_rank is not None and (request.reserve.cores or request.roles):
        raise PlanError(
            "--cores-per-rank says what ranks get; --reserve and --role would take from it",
            hint="leave one of them out: cores that no rank gets stay free",
        )
    if request.cpus is not None and (extra := request.asked(*CHANGING)):
        extra = extra.replace("_", "-")
        raise PlanError(
            f"--numa-bind-cpus names exactly the cpus to use; --{extra} would change them",
            hint=f"leave --{extra} out",
        )
    if is_about_devices(request):
        from ompbind.planner.by_gpu import check_gpus

        check_gpus(request)


def machine_warnings(machine: Machine, request: Request) -> list[Caution]:
    topology = machine.topology
    cautions = []
    if missing := request.exclude - topology.online - topology.offline:
        text = f"--exclude names cpus that this machine does not have: {missing}"
        cautions.append(Caution("exclude", text))
    if not machine.can_bind:
        text = (
            "this system binds no process to cpus or memory: the OpenMP variables are all that a "
            "worker gets of this plan"
        )
        cautions.append(Caution("no-binding", text))
    elif topology.cpus[1:] and all(c.core is None for c in topology.cpus):
        text = (
            "the system does not say which cpus share a core (/sys is hidden?): each counts as one"
        )
        cautions.append(Caution("no-cores", text))
    elif not topology.numa and (request.numa_bind or request.mem not in (None, "none")):
        text = "this kernel has no NUMA: all memory is one node, so no policy is set"
        cautions.append(Caution("no-numa", text))
    return cautions


class Common(Record):
    """What ranks with the same share have in common, worked out once: a thousand ranks may share a
    thousand cores."""

    binding: Binding
    places: tuple[CpuSet, ...]
    nodes: CpuSet
    env: tuple[tuple[str, str], ...]

    @property
    def cpus(self) -> CpuSet:
        return self.binding.cpus


def make_common(
    machine: Machine,
    request: Request,
    rank: int,
    share: Share,
    threads: str,
    warnings: list[Caution],
) -> Common:
    cpus = share.cpus
    mem, mems = memory_of(machine, request, rank, share, warnings)
    places = make_places(machine, request, share)
    return Common(
        binding=Binding(cpus, mem, mems, request.binder),
        places=places,
        nodes=machine.topology.nodes_of(cpus),
        env=openmp.make_environment(places, request.proc_bind, threads, len(share.cores)),
    )


def make_rank(
    request: Request, rank: int, count: int, share: Share, common: Common, roles: tuple[Role, ...]
) -> RankPlan:
    env = common.env + make_rank_environment(rank, count, request.rank_env)
    env += common.binding.environment()
    env += tuple((role.variable, str(role.cpus)) for role in roles if rank in role.ranks)
    gpus = tuple(gpu.name for gpu in share.gpus)
    removed = {i.name for i in request.inherited if i.action == "removed"}
    unset = (*openmp.REMOVED, *(name for name in openmp.LIMITS if name in removed))
    if request.gpu_env and request.visible is not None:
        env += ((request.visible.variable, ",".join(gpus)), *request.visible.env)
        unset += request.visible.unset
    command = request.command
    if request.template:
        from ompbind.worker.template import (  # not on everybody's start path
            fill_arguments,
            make_names,
        )

        command = fill_arguments(command, make_names(rank, count, common.cpus, common.nodes))
    return RankPlan(
        rank=rank,
        binding=common.binding,
        places=common.places,
        nodes=common.nodes,
        env=env,
        unset=unset,
        command=command,
        gpus=gpus,
        why=share.why,
    )


def why_places(request: Request) -> str:
    """What settled what a place is, in a few words."""
    if request.proc_bind == "false":
        return "one place: threads are not to be bound (--proc-bind false)"
    if request.place_list is not None:
        return "the places of OMP_PLACES, dealt out"
    many = {"one": "one place", "wide": "a place for each core, the first for all"}
    what = many.get(request.places, f"places are {request.places}")
    return f"{what}: {request.places_why}" if request.places_why else what


def make_places(machine: Machine, request: Request, share: Share) -> tuple[CpuSet, ...]:
    """The OpenMP places of a rank, in the order in which `close` fills them."""
    what = request.places
    if (what == "one" and not share.places) or request.proc_bind == "false":
        # LLVM's runtime may bind to several even so, by the order of variables in the environment.
        return (share.cpus,)
    if share.places:
        return share.places
    if what == "wide":
        return (share.cpus, *(core.cpus for core in share.cores[1:]))
    if what == "threads":
        return tuple(CpuSet([cpu]) for core in share.cores for cpu in core.cpus)
    if what == "cores":
        return tuple(core.cpus for core in share.cores)
    level = llc_level(machine) if what == "l3" else "node"
    for core in share.cores:
        if getattr(core.traits, level) is None:
            thing = "last-level cache" if what == "l3" else "node"
            raise PlanError(
                f"--places {what}: the machine does not say which {thing} "
                f"cpu {core.cpus.first} is on",
                hint="--places cores, threads or one",
            )
    return tuple(union(c.cpus for c in group) for group in split_by(share.cores, level))


def make_rank_environment(
    rank: int, count: int, rank_env: bool | None
) -> tuple[tuple[str, str], ...]:
    """Who a worker is. RANK and the like only among several ranks, unless asked for: a single one
    may itself stand under torchrun, whose variables must reach the program."""
    env = [("OMPBIND_RANK", str(rank)), ("OMPBIND_RANKS", str(count))]
    if rank_env or (rank_env is None and count > 1):
        env += [("RANK", str(rank)), ("LOCAL_RANK", str(rank))]
        env += [("WORLD_SIZE", str(count)), ("LOCAL_WORLD_SIZE", str(count))]
    return tuple(env)


def warn_uneven(shares: list[Share], request: Request, warnings: list[Caution]) -> None:
    if any(core.weight > 1 for share in shares for core in share.cores):
        from ompbind.planner.division import weigh

        sums = [weigh(share.cores) for share in shares]
        if max(sums) - min(sums) > LARGEST_WEIGHT and request.per is None:
            warnings.append(
                Caution(
                    "uneven",
                    f"ranks get from {min(sums)} to {max(sums)} of capacity "
                    f"({LARGEST_WEIGHT}: the most capable core)",
                )
            )
        return
    sizes = [len(share.cores) for share in shares]
    if max(sizes) - min(sizes) > 1 and request.per is None:
        warnings.append(
            Caution(
                "uneven",
                f"ranks get from {min(sizes)} to {max(sizes)} cores, so that none leaves its node"
                if request.nodes is None
                else f"ranks get from {min(sizes)} to {max(sizes)} cores",
            )
        )


def warn_crowded(shares: list[Share], request: Request, warnings: list[Caution]) -> None:
    """Ranks that share cores because there are more of them; --share is another matter."""
    if request.oversubscribe and not request.share:
        ranks_on: dict[int, int] = {}
        for share in shares:
            ranks_on[id(share.cores)] = ranks_on.get(id(share.cores), 0) + 1
        crowds = [count for count in ranks_on.values() if count > 1]
        if crowds:
            warnings.append(
                Caution(
                    "oversubscribed",
                    f"more ranks than cores: {sum(crowds)} ranks share {len(crowds)} "
                    f"{plural('core', len(crowds))} and will wait for each other",
                )
            )


def warn_threads(ranks: Sequence[RankPlan], warnings: list[Caution]) -> None:
    """More threads than cpus, ranks of the same numbers told together."""
    crowded: dict[tuple[int, int], list[int]] = {}
    for r in ranks:
        threads = int(dict(r.env)["OMP_NUM_THREADS"].partition(",")[0])
        if threads > len(r.cpus):
            crowded.setdefault((threads, len(r.cpus)), []).append(r.rank)
    for (threads, cpus), found in crowded.items():
        who = f"ranks {CpuSet(found)}" if found[1:] else f"rank {found[0]}"
        warnings.append(
            Caution(
                "threads",
                f"{who}: {threads} threads on {counted(cpus, 'cpu')} "
                f"(--threads {cpus} gives each its own)",
            )
        )


def warn_isolated(
    machine: Machine, used: CpuSet, commons: Sequence[Common], warnings: list[Caution]
) -> None:
    """Cpus that the kernel balances nothing on (isolcpus=, isolated partitions)."""
    isolated = machine.topology.isolated & used
    if not isolated:
        return
    if used - isolated:
        warnings.append(
            Caution(
                "isolated",
                f"{label('cpu', isolated)} of this plan are isolated (isolcpus) "
                f"and others are not: --exclude {isolated} leaves them out",
            )
        )
    cores = machine.topology.groups("core", isolated)
    if any(len(place & isolated) > 1 and sum(bool(core & place) for core in cores) > 1
           for common in commons for place in common.places):  # fmt: skip
        warnings.append(
            Caution(
                "isolated",
                f"cpus {isolated} are isolated: the kernel spreads no threads over them, those of "
                "one place stay together on one cpu; --places cores gives each its own",
            )
        )
