"""The planner: a machine and a request to a plan. Pure and deterministic, no input or output.

What only some requests need is imported where they are met: a launch waits for every import.
"""

from __future__ import annotations

from ompbind.cpuset import CpuSet, union
from ompbind.errors import PlanError
from ompbind.messages import counted, label, plural
from ompbind.planner.cores import find_excluded, group_cores, keep_kind, make_cores
from ompbind.planner.mapping import (
    DECLINED,
    Mapped,
    cut_part,
    map_by_cpus,
    map_by_division,
    map_by_domain,
    map_by_nodes,
)
from ompbind.planner.ranks import (
    choose_memory,
    explain_places,
    make_ranks,
    make_threads,
    warn_of_threads,
)
from ompbind.plans import Caution, Host, Plan
from ompbind.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ompbind.machine.topology import Machine
    from ompbind.planner.cores import Core
    from ompbind.planner.mapping import Share
    from ompbind.planner.ranks import SharedPart
    from ompbind.planner.request import Request
    from ompbind.plans import Role, World


BY_DEVICE = ("gpu", "accel", "nic")  # what --per names of devices
LARGEST_WEIGHT = 1024  # of the most capable core, where there are several kinds


def make_plan(machine: Machine, request: Request) -> Plan:
    """Return the plan. `request.binder` must be resolved to numactl, native or none.

    Raises PlanError where what was asked cannot be had, naming the rank, what was wanted and what
    is there.
    """
    if is_about_devices(request):
        from ompbind.planner.by_device import check_devices

        check_devices(request)
    if request.place_list is not None:
        from ompbind.planner.by_place_list import without_unusable_list

        request = without_unusable_list(machine, request)
    usable = find_usable(machine, request)
    shares, mapping_cautions = map_ranks(machine, request, usable.cores)
    if request.world is not None:
        request = request.replace(world=place_in_world(request.world, len(shares)))
    if request.nic_env:
        from ompbind.planner.nearest_nics import give_nics

        shares = give_nics(machine, request, shares)
    reserved = CpuSet()
    roles: tuple[Role, ...] = ()
    if request.reserve.cores or request.roles:
        from ompbind.planner.reservation import set_aside

        shares, reserved, roles = set_aside(shares, request)
    threads, thread_cautions = make_threads(machine, request, shares, roles)
    only = None if request.world is None else request.world.only
    ranks, parts, memory_cautions = make_ranks(machine, request, shares, threads, roles)
    cautions = [
        *warn_of_machine(machine, request),
        *usable.cautions,
        *mapping_cautions,
        *(
            warn_of_nodes(machine, request, usable.cores, shares)
            or warn_of_idle(machine, request, usable.cores, shares)
        ),
        *warn_of_sizes(shares, request),
        *warn_of_oversubscription(shares, request),
        *thread_cautions,
        *memory_cautions,
        *warn_of_threads(ranks, crowded=request.oversubscribe and not request.share),
        *warn_of_isolation(machine, parts),
    ]
    allowed = machine.allowed.cpus
    taken = union(part.binding.cpus for part in parts)
    others = usable.others
    if only is not None:  # the other ranks are started by somebody else
        others |= union(s.cpus for rank, s in enumerate(shares) if rank != only) - taken
        others |= union(role.cpus for role in roles if only not in role.ranks)
        roles = tuple(r.replace(ranks=CpuSet([0])) for r in roles if only in r.ranks)
    taken = union([taken, *(role.cpus for role in roles), reserved, others])
    excluded = find_excluded(machine, request)
    free = [cpus for cpus, _ in group_cores(machine, allowed) if not cpus & taken]
    plan = Plan(
        host=Host(machine.name, machine.topology.online, allowed, machine.topology.node_numbers,
                  machine.allowed.quota),
        ranks=tuple(ranks),
        reserved=reserved,
        roles=roles,
        unused=union(free) - excluded,
        part="/".join(map(str, request.part or ())),
        others=others,
        excluded=(excluded & allowed) - taken,
        cautions=tuple(dict.fromkeys(cautions)),
        inherited=request.inherited,
        command=request.command,
        template=request.template,
        places_why=explain_places(request),
        omp=request.omp,
        omp_why=request.omp_why if request.omp != "all" else "",
    )  # fmt: skip
    if request.serving is None:
        return plan
    from ompbind.planner.server import make_server_plan

    return make_server_plan(machine, request, request.serving, plan)


def place_in_world(world: World, count: int) -> World:
    """Return where a plan's `count` ranks stand; they are the whole job where its size is 0. Raises
    PlanError for a rank that is not among them."""
    if world.only is not None and world.only >= count:
        raise PlanError(
            f"--rank {world.only}: the plan has {counted(count, 'rank')}, from 0",
            hint="--ranks N says how many there are",
            wanted=world.only,
            available=count,
        )
    return world if world.size else world.replace(size=count, local_size=count)


class Usable(Record):
    """The cores to which ranks may be mapped, and the cpus of other launches' parts."""

    cores: tuple[Core, ...]
    others: CpuSet
    cautions: list[Caution]


def find_usable(machine: Machine, request: Request) -> Usable:
    """Return the cores that remain under --exclude, --smt, --part, --kind, --free and --near.
    Raises PlanError."""
    cores, others = cut_part(make_cores(machine, request), request)
    cores = keep_kind(machine, request, cores)
    if request.only:
        cores = tuple(core for core in cores if core.threads <= request.only)
    cautions: list[Caution] = []
    if request.near is not None:
        from ompbind.planner.by_device import keep_near  # seldom wanted

        cores, cautions = keep_near(machine, request, cores)
    return Usable(cores, union(core.threads for core in others), cautions)


# --- mapping -------------------------------------------------------------------------------------


def map_by_place_list(machine: Machine, request: Request, cores: tuple[Core, ...]) -> Mapped:
    if request.place_list is None:
        return DECLINED
    from ompbind.planner.by_place_list import map_places  # seldom wanted

    return map_places(machine, request)


def map_by_device(machine: Machine, request: Request, cores: tuple[Core, ...]) -> Mapped:
    if request.visible is None and request.cards is None:
        return DECLINED
    from ompbind.planner.by_device import map_devices  # seldom wanted

    return map_devices(machine, request, cores)


# The first that does not decline maps the ranks.
MAPPERS = (
    map_by_place_list,  # OMP_PLACES as a list
    map_by_cpus,  # --numa-bind-cpus
    map_by_device,  # --per gpu, --per nic; --numa-bind with a rank for each GPU
    map_by_nodes,  # --numa-bind-nodes
    map_by_domain,  # --per, --numa-bind
    map_by_division,  # -n, or none of these
)


def map_ranks(
    machine: Machine, request: Request, cores: tuple[Core, ...]
) -> tuple[list[Share], list[Caution]]:
    """Return each rank's share, and the mappers' warnings. Raises PlanError."""
    cautions: list[Caution] = []
    for mapper in MAPPERS:
        mapped = mapper(machine, request, cores)
        cautions += mapped.cautions
        if mapped.shares is None:
            continue
        if request.near is None:
            return mapped.shares, cautions
        near = f", near {request.near}"
        return [share.replace(notes=share.notes + near) for share in mapped.shares], cautions
    raise AssertionError("map_by_division never declines")


def is_about_devices(request: Request) -> bool:
    return (
        request.per in BY_DEVICE
        or request.near is not None
        or request.gpu_env
        or request.nic_env
        or request.visible is not None
    )


# --- warnings ------------------------------------------------------------------------------------


def warn_of_machine(machine: Machine, request: Request) -> list[Caution]:
    """Return warnings of what the machine does not have, or does not say."""
    topology = machine.topology
    cautions = []
    for option, cpus in (
        ("--exclude", request.exclude),
        ("--exclude-cpus", request.exclude_cpus),
    ):
        if missing := cpus - topology.online - topology.offline:
            text = f"{option} names cpus that this machine does not have: {missing}"
            cautions.append(Caution("exclude", text))
    if not machine.can_bind:
        text = (
            "this system cannot bind processes to cpus or memory: the OpenMP variables are all "
            "that a worker gets of this plan"
        )
        cautions.append(Caution("no-binding", text))
    elif topology.cpus[1:] and all(c.core is None for c in topology.cpus):
        text = (
            "the system does not say which cpus share a core (/sys may be hidden): each cpu counts "
            "as a core"
        )
        cautions.append(Caution("no-cores", text))
    elif not topology.numa and (request.numa_bind or request.mem not in (None, "none")):
        text = "this kernel has no NUMA: all memory is one node, so no policy is set"
        cautions.append(Caution("no-numa", text))
    return cautions


def warn_of_nodes(
    machine: Machine, request: Request, cores: Sequence[Core], shares: Sequence[Share]
) -> list[Caution]:
    if not request.numa_bind or not machine.topology.numa:
        return []
    from ompbind.planner.memory import warn_of_denied_nodes  # not on everybody's start path

    return warn_of_denied_nodes(machine, request, cores, shares)


def warn_of_idle(
    machine: Machine, request: Request, cores: Sequence[Core], shares: Sequence[Share]
) -> list[Caution]:
    if not request.numa_bind and request.per is None:
        return []
    used = {core.first_cpu.cpu for share in shares for core in share.cores}
    if len(used) == len(cores):
        return []
    from ompbind.planner.idle import warn_of_idle_cores  # seldom wanted

    def plan_cores(other: Request) -> tuple[Sequence[Core], Sequence[Share], Sequence[Caution]]:
        cores = find_usable(machine, other).cores
        shares, cautions = map_ranks(machine, other, cores)
        for rank, share in enumerate(shares):
            cautions += choose_memory(machine, other, rank, share)[2]
        return cores, shares, [*cautions, *warn_of_nodes(machine, other, cores, shares)]

    return warn_of_idle_cores(request, cores, shares, plan_cores)


def warn_of_sizes(shares: Sequence[Share], request: Request) -> list[Caution]:
    """Return a warning where ranks differ by more than one core, and nobody asked for that."""
    named = request.cpus is not None or request.place_list is not None
    if request.per is not None or named or request.cores_per_rank[1:]:
        return []
    if any(core.weight > 1 for share in shares for core in share.cores):
        from ompbind.planner.division import weigh

        sums = [weigh(share.cores) for share in shares]
        if max(sums) - min(sums) <= LARGEST_WEIGHT:
            return []
        text = (
            f"ranks get from {min(sums)} to {max(sums)} of capacity "
            f"({LARGEST_WEIGHT}: the most capable core)"
        )
        return [Caution("uneven", text)]
    sizes = [len(share.cores) for share in shares]
    if max(sizes) - min(sizes) <= 1:
        return []
    reason = "" if request.nodes is not None else explain_sizes(shares)
    text = f"ranks get from {min(sizes)} to {max(sizes)} cores{reason}"
    return [Caution("uneven", text, hint_at_equal_sizes(shares, request))]


def hint_at_equal_sizes(shares: Sequence[Share], request: Request) -> str:
    """Return what --balance equal would give; "": it says nothing here."""
    if request.ranks is None or request.nodes is not None or request.numa_bind or request.share:
        return ""
    from ompbind.planner.leftover import take_equal_parts  # seldom wanted

    cores = tuple(core for share in shares for core in share.cores)
    least, more = divmod(len(cores), len(shares))
    hint = f"--balance equal gives each rank {least}{f' or {least + 1}' * bool(more)}, across nodes"
    if request.reserve.cores or request.roles:
        return hint
    return f"{hint}; with --leave-over {len(take_equal_parts(cores, len(shares))[0])}, inside nodes"


def explain_sizes(shares: Sequence[Share]) -> str:
    """Return which bounds of memory the shares keep, as the end of a sentence; "": none."""
    runs = {id(share.cores): share.cores for share in shares}
    nodes = [{core.first_cpu.node for core in cores} for cores in runs.values()]
    every = set().union(*nodes)
    if None in every or len(every) < 2:
        return ""
    if sum(map(len, nodes)) == len(every):
        return ", so that no node is divided"
    return ", so that no rank spans two nodes" if all(len(n) == 1 for n in nodes) else ""


def warn_of_oversubscription(shares: Sequence[Share], request: Request) -> list[Caution]:
    """Return a warning where ranks share cores because there are more of them. With --share they
    are meant to."""
    if not request.oversubscribe or request.share:
        return []
    ranks_on: dict[int, int] = {}
    for share in shares:
        ranks_on[id(share.cores)] = ranks_on.get(id(share.cores), 0) + 1
    crowds = [count for count in ranks_on.values() if count > 1]
    if not crowds:
        return []
    text = (
        f"more ranks than cores: {sum(crowds)} ranks share {len(crowds)} "
        f"{plural('core', len(crowds))} and will wait for each other"
    )
    return [Caution("oversubscribed", text)]


def warn_of_isolation(machine: Machine, parts: Sequence[SharedPart]) -> list[Caution]:
    """Return warnings of cpus over which the kernel balances no threads (isolcpus=, isolated
    partitions)."""
    used = union(part.binding.cpus for part in parts)
    isolated = machine.topology.isolated & used
    if not isolated:
        return []
    cautions = []
    if used - isolated:
        verb, them = ("are", "them") if len(isolated) > 1 else ("is", "it")
        text = (
            f"{label('cpu', isolated)} of this plan {verb} isolated (isolcpus) and others are not: "
            f"--exclude {isolated} leaves {them} out"
        )
        cautions.append(Caution("isolated", text))
    cores = machine.topology.groups("core", isolated)
    places = [place for part in parts for place in part.places]
    if any(
        len(place & isolated) > 1 and sum(bool(core & place) for core in cores) > 1
        for place in places
    ):
        text = (
            f"{label('cpu', isolated)} are isolated: the kernel does not balance threads over "
            "them, so those of one place stay together on one cpu; --places cores gives each its "
            "own"
        )
        cautions.append(Caution("isolated", text))
    return cautions
