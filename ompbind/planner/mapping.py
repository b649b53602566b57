"""Maps ranks to cores: by cpu lists, by named nodes, by --per, or by dividing the machine.

A mapper is given the machine, the request and the cores that may be used, and returns what it
mapped, or declines. The list of mappers, in their order, is in `ompbind.planner`.
"""

from __future__ import annotations

from ompbind.cpuset import CpuSet, union
from ompbind.errors import PlanError
from ompbind.messages import counted, label
from ompbind.planner.cores import (
    Core,
    find_excluded,
    group_cores,
    in_tree_order,
    levels_for,
    llc_level,
    split_by,
)
from ompbind.plans import Caution
from ompbind.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ompbind.devices.nics import Card
    from ompbind.devices.visible import Gpu
    from ompbind.machine.topology import Level, Machine
    from ompbind.planner.request import Request

EVERY_CORE = "every allowed core"  # the reason for a single rank's cores


class Share(Record):
    """The cores that a rank is mapped to, and why."""

    cores: tuple[Core, ...]  # in the tree's order
    domain: str  # what these are, or are a part of: "node 0"
    part: str = ""  # which part of that, where it is divided: "part 1 of 2"
    notes: str = ""  # what follows both: ", less 1 reserved"
    home: CpuSet = CpuSet()  # the nodes named for its memory; empty: those of its cpus
    gpus: tuple[Gpu, ...] = ()
    nics: tuple[Card, ...] = ()
    nics_why: str = ""  # the reason for these
    places: tuple[CpuSet, ...] = ()  # its part of the user's own list of places

    @property
    def cpus(self) -> CpuSet:
        return union(core.cpus for core in self.cores)

    @property
    def why(self) -> str:
        """The reason for these cores, in a few words."""
        return f"{self.domain}{', ' * bool(self.part)}{self.part}{self.notes}"

    @property
    def why_shared(self) -> str:
        """The reason that all ranks of the domain have in common: without the part."""
        return self.domain + self.notes


class Mapped(Record):
    """What a mapper returns. `shares`: each rank's; None where the mapper declines. A mapper that
    declines may warn, too."""

    shares: list[Share] | None
    cautions: tuple[Caution, ...] = ()


class Domain(Record):
    """Cores that ranks share or split, as a node's or a cache's. `home`: the nodes named for their
    memory."""

    cores: tuple[Core, ...]
    name: str
    home: CpuSet = CpuSet()


DECLINED = Mapped(None)

# What --per names, beside cores, GPUs and the last-level cache, and its level in the tree.
LEVEL_OF: dict[str, Level] = {
    "numa": "node", "package": "package", "die": "die", "cluster": "cluster", "l2": "l2",
    "book": "book", "drawer": "drawer",
}  # fmt: skip
NOUNS = {"numa": "node", "l3": "last-level cache", "l2": "L2 cache"}


# --- mappers -------------------------------------------------------------------------------------


def map_by_cpus(machine: Machine, request: Request, cores: tuple[Core, ...]) -> Mapped:
    """Map rank r to exactly the r-th list of --numa-bind-cpus. Raises PlanError."""
    if request.cpus is None:
        return DECLINED
    rank_of: dict[int, int] = {}
    shares = []
    for rank, cpus in enumerate(request.cpus):
        check_cpus(machine, rank, cpus)
        for cpu in cpus:
            if cpu in rank_of and not request.share:
                raise PlanError(
                    f"rank {rank}: cpu {cpu} already belongs to rank {rank_of[cpu]}",
                    hint="--share lets ranks overlap",
                    rank=rank,
                    wanted=cpus,
                )
            rank_of[cpu] = rank
        named = [Core(threads, threads, cpu) for threads, cpu in group_cores(machine, cpus)]
        home = CpuSet() if request.nodes is None else request.nodes[rank]
        ordered = in_tree_order(named, levels_for(request))
        shares.append(Share(ordered, "the cpus named", home=home))
    return Mapped(shares, () if request.share else find_shared_cores(shares))


def check_cpus(machine: Machine, rank: int, cpus: CpuSet) -> None:
    """Refuse cpus that cannot be used. Raises PlanError."""
    topology, allowed = machine.topology, machine.allowed.cpus
    for one, several, bad in (
        ("does not exist", "do not exist", cpus - topology.online - topology.offline),
        ("is offline", "are offline", cpus & topology.offline),
        ("is not allowed", "are not allowed", cpus - allowed),
    ):
        if bad:
            cause = " (affinity mask or cgroup)" if one == "is not allowed" else ""
            raise PlanError(
                f"rank {rank}: {label('cpu', bad)} {one if len(bad) == 1 else several}{cause}",
                hint=f"allowed cpus: {allowed}",
                rank=rank,
                wanted=cpus,
                available=allowed,
            )


def find_shared_cores(shares: Sequence[Share]) -> tuple[Caution, ...]:
    """Return a warning for each core of which two ranks have hardware threads."""
    rank_of: dict[int, int] = {}
    cautions = []
    for rank, share in enumerate(shares):
        for core in share.cores:
            number = core.first_cpu.core
            if number is not None and rank_of.setdefault(number, rank) != rank:
                text = (
                    f"ranks {rank_of[number]} and {rank} have hardware threads of one core "
                    "(slower: give each whole cores)"
                )
                cautions.append(Caution("shared-core", text))
    return tuple(cautions)


def map_by_nodes(machine: Machine, request: Request, cores: tuple[Core, ...]) -> Mapped:
    """Map rank r to the r-th node, or nodes, of --numa-bind-nodes; ranks of the same nodes share or
    split their cores. Raises PlanError."""
    if request.nodes is None:
        return DECLINED
    by_node = {group[0].first_cpu.node: group for group in split_by(cores, "node")}
    ranks_of: dict[CpuSet, list[int]] = {}
    for rank, nodes in enumerate(request.nodes):
        for node in nodes:
            if node not in by_node:
                raise no_such_node(machine, request, rank, node, by_node)
        if nodes not in ranks_of:
            check_overlap(request, rank, nodes, ranks_of)
        ranks_of.setdefault(nodes, []).append(rank)
    domains = []
    for nodes, ranks in ranks_of.items():
        inside = tuple(
            core for core in cores if core.first_cpu.node in nodes
        )  # in the tree's order
        domains.append((Domain(inside, label("node", nodes), nodes), ranks))
    return Mapped(map_to_domains(request, domains))


def check_overlap(
    request: Request, rank: int, nodes: CpuSet, ranks_of: Mapping[CpuSet, Sequence[int]]
) -> None:
    """Refuse nodes of which another rank has some but not the same. Raises PlanError."""
    for others, ranks in ranks_of.items():
        if nodes & others and not request.share:
            raise PlanError(
                f"rank {rank}: {label('node', nodes & others)} already "
                f"{'belong' if len(nodes & others) > 1 else 'belongs'} to rank {ranks[0]}, which "
                f"has {label('node', others)}",
                hint="name the same nodes for both, which then split them, or --share",
                rank=rank,
                wanted=nodes,
            )


def map_by_domain(machine: Machine, request: Request, cores: tuple[Core, ...]) -> Mapped:
    """Map ranks to the things that --per names, or with --numa-bind alone to the nodes: one rank
    to each, or `request.ranks` in balanced blocks, round them, or few of them spread over the
    machine. Raises PlanError."""
    if request.per is not None:
        domains = find_domains(machine, request, cores)
        count = request.ranks or len(domains)
    elif request.numa_bind:
        domains = find_nodes(machine, request, cores)
        count = request.ranks or 1
    else:
        return DECLINED
    if request.distribution == "spread":
        from ompbind.planner.spread import choose_spread  # seldom wanted

        positions = choose_spread([domain.cores[0].first_cpu for domain in domains], count)
        domains = [domains[i] for i in positions]
    domains = domains[:count]
    counts = count_ranks(request, domains, count)
    order = [d for d, n in enumerate(counts) for _ in range(n)]
    if request.distribution == "cyclic":
        order = [d for turn in range(max(counts)) for d, n in enumerate(counts) if turn < n]
    ranks_of: list[list[int]] = [[] for _ in domains]
    for rank, d in enumerate(order):
        ranks_of[d].append(rank)
    return Mapped(map_to_domains(request, list(zip(domains, ranks_of, strict=True))))


def count_ranks(request: Request, domains: Sequence[Domain], count: int) -> list[int]:
    """Return how many of `count` >= len(domains) ranks each domain gets: the same number, or with
    --numa-bind alone as many as its usable cores are good for."""
    from ompbind.planner.division import apportion, blocks, count_parts, crowd

    if request.per is not None or request.cores_per_rank[1:]:
        return [len(block) for block in blocks(range(count), len(domains))]
    sizes = [len(domain.cores) for domain in domains]
    if request.share:
        return apportion(sizes, count, [1] * len(sizes), [count] * len(sizes))
    if request.cores_per_rank:
        room = [size // request.cores_per_rank[0] for size in sizes]
        fits = min(room) > 0 and sum(room) >= count
        return apportion(sizes, count, [1] * len(sizes), room if fits else [count] * len(sizes))
    if count > sum(sizes):
        ranks_on = iter(crowd([core for domain in domains for core in domain.cores], count))
        return [sum(next(ranks_on) for _ in range(size)) for size in sizes]
    return count_parts([domain.cores for domain in domains], count)


def map_by_division(machine: Machine, request: Request, cores: tuple[Core, ...]) -> Mapped:
    """Map each rank to a part of the machine, which its own tree divides. Never declines. Raises
    PlanError."""
    whole = f"{part_name(request)} of the machine" if request.part else "the machine"
    if request.ranks is None:
        domain = whole if request.part else EVERY_CORE
        return Mapped([Share(first_cores(cores, request, 0, whole), domain)])
    count = request.ranks
    if request.share:
        domain = whole if request.part else "the whole machine"
        return Mapped([Share(cores, f"{domain}, shared by {count} ranks")] * count)
    if count > len(cores):
        return Mapped(oversubscribe(request, range(count), Domain(cores, whole)))
    if request.cores_per_rank[1:]:
        from ompbind.planner.sizes import place_sizes  # seldom wanted

        check_sizes(request, range(count), Domain(cores, whole))
        parts = place_sizes(cores, request.cores_per_rank)
        return Mapped(share_parts(machine, parts, whole))
    if request.leave_over:
        from ompbind.planner.leftover import take_equal_parts  # seldom wanted

        parts = take_equal_parts(cores, count)
        return Mapped(share_parts(machine, parts, f"one of {count} equal parts of {whole}"))
    from ompbind.planner.division import divide, split_evenly

    divided = (split_evenly if request.balance == "equal" else divide)(cores, count)
    parts = [first_cores(part, request, r, "its part") for r, part in enumerate(divided)]
    return Mapped(share_parts(machine, parts, f"1/{count} of {whole}"))


# --- domains -------------------------------------------------------------------------------------


def find_domains(machine: Machine, request: Request, cores: tuple[Core, ...]) -> list[Domain]:
    """Return the things that --per names, with --numa-bind each with its node. Raises PlanError."""
    per = request.per or ""
    if per == "numa" and request.numa_bind:
        return find_nodes(machine, request, cores)
    groups: list[tuple[Core, ...]]
    if per == "core":
        groups = [(core,) for core in cores]
    else:
        level = llc_level(machine) if per == "l3" else LEVEL_OF[per]
        groups = split_by(cores, level)
        unknown = [core for core in cores if getattr(core.first_cpu, level) is None]
        if unknown:
            noun, cpu = NOUNS.get(per, per), unknown[0].cpus.first
            raise PlanError(
                f"--per {per}: the machine does not say which {noun} cpu {cpu} is in",
                hint="-n N divides the machine by what it does say",
            )
    domains = [Domain(group, domain_name(per, group)) for group in groups]
    if per == "numa":  # by number, as --numa-bind takes them
        domains.sort(key=lambda domain: domain.cores[0].first_cpu.node or 0)
    if not request.numa_bind:
        return domains
    return [
        domain.replace(home=CpuSet([single_node(rank, domain)]))
        for rank, domain in enumerate(domains)
    ]


def domain_name(per: str, cores: tuple[Core, ...]) -> str:
    cpu = cores[0].first_cpu
    if per == "core":
        return f"core {cpu.core}" if cpu.core is not None else f"cpu {cpu.cpu}"
    if per == "l3" and cpu.l3 is not None:
        return f"L3 {cpu.l3}"
    if per in ("l2", "l3"):
        return f"L2 {cpu.l2}"
    return f"{LEVEL_OF[per]} {getattr(cpu, LEVEL_OF[per])}"


def single_node(rank: int, domain: Domain) -> int:
    """Return the node that all cores of a domain are on. Raises PlanError."""
    nodes = nodes_of(domain.cores)
    if len(nodes) != 1:
        on = f"spans {label('node', nodes)}" if nodes else "is on no known node"
        raise PlanError(
            f"rank {rank}: {domain.name} {on}, but --numa-bind needs a single node",
            hint="--per numa, or --mem interleave without --numa-bind",
            rank=rank,
        )
    return nodes.first


def find_nodes(machine: Machine, request: Request, cores: tuple[Core, ...]) -> list[Domain]:
    """Return the nodes that have usable cores and, for a policy that names nodes, allowed memory,
    by number.

    A node without memory is among them: its ranks' memory comes from the nearest that has some.
    Raises PlanError.
    """
    topology, allowed = machine.topology, machine.allowed
    groups = {group[0].first_cpu.node: group for group in split_by(cores, "node")}
    usable = CpuSet(number for number in groups if number is not None)
    if request.mem not in ("none", "local") and not request.names_memory:
        bare = CpuSet(n.node for n in topology.nodes if n.memory_bytes == 0)
        usable = usable & (allowed.nodes | bare | (usable - topology.node_numbers))
    if not usable:
        hint = (
            f"nodes of the machine: {topology.node_numbers or 'none'}; "
            f"memory allowed on: {allowed.nodes or 'none'}"
        )
        if groups.keys() - {None}:
            hint += "; --mem none binds cpus only"
        raise PlanError(
            "--numa-bind: no node has both usable cpus and allowed memory",
            hint=hint,
            available=allowed.nodes,
        )
    return [Domain(groups[number], f"node {number}", CpuSet([number])) for number in usable]


def no_such_node(
    machine: Machine, request: Request, rank: int, number: int, usable: Mapping[int | None, object]
) -> PlanError:
    """Return why ranks cannot run on a node: it does not exist, has no cpus, or none is allowed."""
    topology = machine.topology
    node = topology.find_node(number)
    available = CpuSet(n for n in usable if n is not None)
    hint = f"nodes with usable cpus: {available or 'none'}"
    if node is None:
        problem = f"node {number} does not exist"
    elif not node.cpus:
        problem = f"node {number} has no cpus"
        nearest = topology.nearest(number, available)
        if nearest is not None:
            hint += f"; the nearest is {nearest}. --numa-bind-cpus gives cpus, the node then memory"
    elif request.part and node.cpus & machine.allowed.cpus - find_excluded(machine, request):
        problem = f"none of the cpus of node {number} ({node.cpus}) is in {part_name(request)}"
    else:
        problem = f"none of the cpus of node {number} ({node.cpus}) may be used"
        hint += f"; allowed cpus: {machine.allowed.cpus}"
    return PlanError(
        f"rank {rank}: {problem}", hint=hint, rank=rank, wanted=number, available=available
    )


# --- the ranks of a domain -----------------------------------------------------------------------


def map_to_domains(
    request: Request, domains: Sequence[tuple[Domain, Sequence[int]]]
) -> list[Share]:
    """Map to each domain its ranks; return the shares by rank. Raises PlanError."""
    shares: dict[int, Share] = {}
    for domain, ranks in domains:
        for rank, share in zip(ranks, map_to_domain(request, ranks, domain), strict=True):
            shares[rank] = share.replace(home=domain.home)
    return [shares[rank] for rank in sorted(shares)]


def map_to_domain(request: Request, ranks: Sequence[int], domain: Domain) -> list[Share]:
    """Give each rank all of the domain, or split it evenly. Raises PlanError."""
    cores, name, count = domain.cores, domain.name, len(ranks)
    if count == 1:
        return [Share(first_cores(cores, request, ranks[0], name), name)]
    if request.share:
        return [Share(cores, f"{name}, shared by {count} ranks") for _ in ranks]
    if count > len(cores):
        return oversubscribe(request, ranks, domain)
    if request.cores_per_rank:
        ends = [0, *check_sizes(request, ranks, domain)]
        parts = [cores[a:b] for a, b in zip(ends[:-1], ends[1:], strict=True)]
    else:
        from ompbind.planner.division import split_evenly

        parts = split_evenly(cores, count)
    return [Share(part, name, f"part {i} of {count}") for i, part in enumerate(parts, 1)]


def oversubscribe(request: Request, ranks: Sequence[int], domain: Domain) -> list[Share]:
    """With --oversubscribe: consecutive ranks share a core. Raises PlanError without it, and where
    ranks are to have several cores each."""
    cores = domain.cores
    if max(request.cores_per_rank, default=1) > 1:
        check_sizes(request, ranks, domain)
    if not request.oversubscribe:
        raise too_many_ranks(ranks, domain)
    from ompbind.planner.division import crowd

    shares = []
    for core, number in zip(cores, crowd(cores, len(ranks)), strict=True):
        sharing = f", a core shared by {number} ranks" if number > 1 else ", a core"
        shares += [Share((core,), domain.name + sharing)] * number
    return shares


def first_cores(
    cores: tuple[Core, ...], request: Request, rank: int, name: str
) -> tuple[Core, ...]:
    """Return the first of a rank's cores, as many as --cores-per-rank says. Raises PlanError."""
    wanted = request.cores_for(rank)
    if wanted is not None and wanted > len(cores):
        raise PlanError(
            f"rank {rank}: {name} has {counted(len(cores), 'usable core')}, "
            f"--cores-per-rank asks for {wanted}",
            hint="fewer ranks, or fewer cores for each",
            rank=rank,
            wanted=wanted,
            available=len(cores),
        )
    return cores[:wanted]


def too_many_ranks(ranks: Sequence[int], domain: Domain) -> PlanError:
    available = len(domain.cores)
    rank = ranks[available]
    return PlanError(
        f"rank {rank}: {domain.name} has {counted(available, 'usable core')} "
        f"for {len(ranks)} ranks",
        hint=f"at most {counted(available, 'rank')} there, or --oversubscribe to let them share "
        "cores",
        rank=rank,
        wanted=len(ranks),
        available=available,
    )


def check_sizes(request: Request, ranks: Sequence[int], domain: Domain) -> list[int]:
    """Return the sums of the cores that --cores-per-rank gives these ranks, from the first rank to
    each. Raises PlanError where the domain has fewer."""
    sizes = [request.cores_for(rank) or 1 for rank in ranks]
    sums = [sum(sizes[:n]) for n in range(1, len(sizes) + 1)]
    available, each = len(domain.cores), sizes[0]
    if sums[-1] <= available:
        return sums
    rank = ranks[next(n for n, total in enumerate(sums) if total > available)]
    if len(set(sizes)) > 1:
        problem = f"{'+'.join(map(str, sizes))} for {label('rank', CpuSet(ranks))}"
        hint = f"at most {available} there together"
    else:
        problem, most = f"{each} for each of {len(ranks)} ranks", available // each
        hint = f"at most --cores-per-rank {available} there"
        if most:
            hint = f"at most {counted(most, 'rank')} there with --cores-per-rank {each}"
    raise PlanError(
        f"rank {rank}: {domain.name} has {counted(available, 'usable core')}, not {problem}",
        hint=hint,
        rank=rank,
        wanted=sums[-1],
        available=available,
    )


# --- the machine, whole or in parts --------------------------------------------------------------


def part_name(request: Request) -> str:
    number, count = request.part or (1, 1)
    return f"part {number}/{count}"


def cut_part(
    cores: tuple[Core, ...], request: Request
) -> tuple[tuple[Core, ...], tuple[Core, ...]]:
    """Return the cores of this launch's --part, and those of the other parts.

    Nothing else in the request may change the cut, or launches of different parts would overlap.
    Raises PlanError.
    """
    if request.part is None:
        return cores, ()
    number, count = request.part
    parts = cut_parts(cores, number, count)
    others = [core for n, part in enumerate(parts, 1) if n != number for core in part]
    return parts[number - 1], tuple(others)


def cut_parts(cores: tuple[Core, ...], number: int, count: int) -> list[tuple[Core, ...]]:
    """Return the cores of each part of --part, of which `number` is asked for, 0 for any. Raises
    PlanError."""
    if count > len(cores):
        raise PlanError(
            f"--part {number or 'auto'}/{count}: the machine has "
            f"{counted(len(cores), 'usable core')}",
            hint=f"at most {counted(len(cores), 'part')}",
            wanted=count,
            available=len(cores),
        )
    from ompbind.planner.division import divide

    return divide(cores, count)


def share_parts(machine: Machine, parts: Sequence[tuple[Core, ...]], name: str) -> list[Share]:
    """Return a share for each part of the divided machine, with the packages and nodes it is on."""
    several_packages = bool(machine.topology.groups("package")[1:])
    several_nodes = bool(machine.topology.nodes[1:])
    shares = []
    for cores in parts:
        packages = CpuSet(c.first_cpu.package for c in cores if c.first_cpu.package is not None)
        nodes = nodes_of(cores)
        words = [name]
        if several_packages and packages:
            words.append(label("package", packages))
        if several_nodes and nodes:
            words.append(label("node", nodes))
        shares.append(Share(cores, ", ".join(words)))
    return shares


def nodes_of(cores: Sequence[Core]) -> CpuSet:
    """Return the nodes that cores are on, as far as they are known."""
    return CpuSet(c.first_cpu.node for c in cores if c.first_cpu.node is not None)
