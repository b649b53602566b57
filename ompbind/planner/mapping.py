"""Who gets which cores: a rank's share of the machine by what was asked."""

from __future__ import annotations

from ompbind.cpuset import CpuSet, union
from ompbind.errors import PlanError
from ompbind.messages import counted, label
from ompbind.planner.cores import Core, group_cores, in_tree_order, levels_for, llc_level, split_by
from ompbind.plans import Caution
from ompbind.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ompbind.gpus.visible import Gpu
    from ompbind.machine.topology import Machine
    from ompbind.planner.request import Request


class Share(Record):
    """What a rank was dealt: its cores (in the tree's order), why, the node named for its memory,
    its GPUs, and its part of the user's own list of places."""

    cores: tuple[Core, ...]
    why: str
    node: int | None = None
    gpus: tuple[Gpu, ...] = ()
    places: tuple[CpuSet, ...] = ()

    @property
    def cpus(self) -> CpuSet:
        return union(core.cpus for core in self.cores)


def deal(machine: Machine, request: Request, cores: tuple[Core, ...]) -> list[Share]:
    """Each rank's cores, before anything is reserved."""
    if request.nodes is not None:
        return deal_named_nodes(machine, request, cores)
    if request.per is not None:
        return deal_domains(request, *domains_per(machine, request, cores))
    if request.numa_bind:
        domains, names, nodes = node_domains(machine, cores)
        plain = request if request.ranks else request.replace(ranks=1)
        return deal_domains(plain, domains, names, nodes)
    whole = f"{part_name(request)} of the machine" if request.part else "the machine"
    if request.ranks is None:
        why = whole if request.part else "every allowed core"
        return [Share(take(cores, request, 0, whole), why)]
    count = request.ranks
    if request.share:
        of = whole if request.part else "the whole machine"
        return [Share(cores, f"{of}, shared by {count} ranks")] * count
    if count > len(cores):
        return crowd(request, range(count), cores, whole)
    from ompbind.planner.division import divide

    parts = [take(part, request, r, "its part") for r, part in enumerate(divide(cores, count))]
    return describe(machine, parts, f"1/{count} of {whole}")


def part_name(request: Request) -> str:
    number, count = request.part or (1, 1)
    return f"part {number}/{count}"


def cut_part(
    cores: tuple[Core, ...], request: Request
) -> tuple[tuple[Core, ...], tuple[Core, ...]]:
    """The cores of this launch and those of the other parts. What else is asked must not change
    the cut, or launches of different parts would meet."""
    if request.part is None:
        return cores, ()
    number, count = request.part
    if count > len(cores):
        raise PlanError(
            f"--part {number}/{count}: the machine has {counted(len(cores), 'usable core')}",
            hint=f"at most {len(cores)} parts",
            wanted=count,
            available=len(cores),
        )
    from ompbind.planner.division import divide

    parts = divide(cores, count)
    others = [core for n, part in enumerate(parts, 1) if n != number for core in part]
    return parts[number - 1], tuple(others)


def crowd(
    request: Request, ranks: Sequence[int], cores: tuple[Core, ...], where: str
) -> list[Share]:
    """More ranks than cores, a core for each block of them: where that is wished."""
    if not request.oversubscribe:
        raise too_many(ranks, where, len(cores))
    shares = []
    from ompbind.planner.division import blocks

    for core, block in zip(cores, blocks(ranks, len(cores)), strict=True):
        with_others = f", a core shared by {len(block)} ranks" if len(block) > 1 else ", a core"
        shares += [Share((core,), where + with_others)] * len(block)
    return shares


def take(cores: tuple[Core, ...], request: Request, rank: int, where: str) -> tuple[Core, ...]:
    """The first of a rank's cores, as many as --cores-per-rank says."""
    wanted = request.cores_per_rank
    if wanted is not None and wanted > len(cores):
        raise PlanError(
            f"rank {rank}: {where} has {counted(len(cores), 'usable core')}, "
            f"--cores-per-rank asks for {wanted}",
            hint="fewer ranks, or fewer cores for each",
            rank=rank,
            wanted=wanted,
            available=len(cores),
        )
    return cores[:wanted]


def too_many(ranks: Sequence[int], where: str, available: int) -> PlanError:
    last = ranks[available]
    return PlanError(
        f"rank {last}: {where} has {counted(available, 'usable core')} for {len(ranks)} ranks",
        hint=f"at most {available} ranks there, or --oversubscribe to let them share cores",
        rank=last,
        wanted=len(ranks),
        available=available,
    )


def too_few(request: Request, ranks: Sequence[int], where: str, available: int) -> PlanError:
    each = request.cores_per_rank or 1
    rank = ranks[available // each]
    return PlanError(
        f"rank {rank}: {where} has {counted(available, 'usable core')}, not "
        f"{each} for each of {len(ranks)} ranks",
        hint=f"at most {available // each} ranks there with --cores-per-rank {each}",
        rank=rank,
        wanted=each * len(ranks),
        available=available,
    )


def deal_named_nodes(machine: Machine, request: Request, cores: tuple[Core, ...]) -> list[Share]:
    """Rank r on the r-th node named; the ranks of one node share or split its cores."""
    named = request.nodes or ()
    by_node = {group[0].traits.node: group for group in split_by(cores, "node")}
    for rank, node in enumerate(named):
        if node not in by_node:
            raise no_such_node(machine, request, rank, node, by_node)
    shares: dict[int, Share] = {}
    for node in dict.fromkeys(named):
        ranks = [r for r, n in enumerate(named) if n == node]
        dealt = deal_one(request, ranks, by_node[node], f"node {node}")
        shares |= {r: s.replace(node=node) for r, s in zip(ranks, dealt, strict=True)}
    return [shares[r] for r in range(len(named))]


def no_such_node(
    machine: Machine, request: Request, rank: int, node: int, usable: Mapping[int | None, object]
) -> PlanError:
    """Why ranks cannot run on a node: it is not there, has no cpus, or none is allowed."""
    topology = machine.topology
    found = topology.find_node(node)
    good = CpuSet(n for n in usable if n is not None)
    hint = f"nodes with usable cpus: {good or 'none'}"
    if found is None:
        problem = f"node {node} does not exist"
    elif not found.cpus:
        problem = f"node {node} has no cpus"
        near = topology.nearest(node, good)
        if near is not None:
            hint += f"; the nearest is {near}. --numa-bind-cpus gives cpus, the node then memory"
    elif request.part and found.cpus & machine.allowed.cpus - request.exclude:
        problem = f"none of the cpus of node {node} ({found.cpus}) is in {part_name(request)}"
    else:
        problem = f"none of the cpus of node {node} ({found.cpus}) may be used"
        hint += f"; allowed cpus: {machine.allowed.cpus}"
    return PlanError(f"rank {rank}: {problem}", hint=hint, rank=rank, wanted=node, available=good)


def node_domains(
    machine: Machine, cores: tuple[Core, ...]
) -> tuple[list[tuple[Core, ...]], list[str], list[int | None]]:
    """The nodes with usable cores whose memory is allowed: cores, names, numbers."""
    topology, allowed = machine.topology, machine.allowed
    groups = [g for g in split_by(cores, "node") if g[0].traits.node is not None]
    good = []
    for group in groups:
        node = topology.find_node(group[0].traits.node or 0)
        if node is None or node.memory_bytes == 0 or node.node in allowed.nodes:
            good.append(group)
    if not good:
        raise PlanError(
            "--numa-bind: no node has both usable cpus and allowed memory",
            hint=f"nodes of the machine: {topology.node_numbers or 'none'}; "
            f"memory allowed on: {allowed.nodes or 'none'}; --mem none binds cpus only",
            available=allowed.nodes,
        )
    good.sort(key=lambda g: g[0].traits.node or 0)
    numbers = [g[0].traits.node for g in good]
    return good, [f"node {n}" for n in numbers], numbers


def domains_per(
    machine: Machine, request: Request, cores: tuple[Core, ...]
) -> tuple[list[tuple[Core, ...]], list[str], list[int | None]]:
    """The things that --per names: cores, names, and with --numa-bind the node of each."""
    per = request.per or ""
    if per == "numa" and request.numa_bind:
        return node_domains(machine, cores)
    groups: list[tuple[Core, ...]]
    if per == "core":
        groups = [(core,) for core in cores]
    else:
        level = llc_level(machine) if per == "l3" else "node" if per == "numa" else "package"
        groups = split_by(cores, level)
        lost = [core for core in cores if getattr(core.traits, level) is None]
        if lost:
            raise PlanError(
                f"--per {per}: the machine does not say which {per} cpu {lost[0].cpus.first} is in",
                hint="-n N divides the machine by what it does say",
            )
    names = [domain_name(per, group) for group in groups]
    nodes: list[int | None] = [None] * len(groups)
    if request.numa_bind:
        for rank, group in enumerate(groups):
            of = CpuSet(c.traits.node for c in group if c.traits.node is not None)
            if len(of) != 1:
                raise PlanError(
                    f"rank {rank}: {names[rank]} is on nodes {of or 'none'}, --numa-bind for one",
                    hint="--per numa, or --mem interleave without --numa-bind",
                    rank=rank,
                )
            nodes[rank] = of.first
    return groups, names, nodes


def domain_name(per: str, group: tuple[Core, ...]) -> str:
    traits = group[0].traits
    if per == "core":
        return f"core {traits.core}" if traits.core is not None else f"cpu {traits.cpu}"
    if per == "l3":
        return f"L3 {traits.l3}" if traits.l3 is not None else f"L2 {traits.l2}"
    return f"node {traits.node}" if per == "numa" else f"package {traits.package}"


def deal_domains(
    request: Request,
    domains: list[tuple[Core, ...]],
    names: list[str],
    nodes: list[int | None],
) -> list[Share]:
    """One rank for each domain, or `request.ranks` dealt over them in balanced blocks."""
    count = request.ranks if request.ranks is not None else len(domains)
    domains = domains[:count]
    cyclic = request.distribution == "cyclic"
    from ompbind.planner.division import blocks

    dealt = blocks(range(count), len(domains))
    if cyclic:
        dealt = [range(d, count, len(domains)) for d in range(len(domains))]
    shares: dict[int, Share] = {}
    for d, ranks in enumerate(dealt):
        for rank, share in zip(ranks, deal_one(request, ranks, domains[d], names[d]), strict=True):
            shares[rank] = share.replace(node=nodes[d])
    return [shares[r] for r in range(count)]


def deal_one(
    request: Request, ranks: Sequence[int], cores: tuple[Core, ...], name: str
) -> list[Share]:
    """One domain among its ranks: all of it to each, or split evenly."""
    if len(ranks) == 1:
        return [Share(take(cores, request, ranks[0], name), name)]
    if request.share:
        return [Share(cores, f"{name}, shared by {len(ranks)} ranks") for _ in ranks]
    if len(ranks) > len(cores):
        return crowd(request, ranks, cores, name)
    if each := request.cores_per_rank:
        if each * len(ranks) > len(cores):
            raise too_few(request, ranks, name, len(cores))
        parts = [cores[each * i : each * (i + 1)] for i in range(len(ranks))]
    else:
        from ompbind.planner.division import split_evenly

        parts = split_evenly(cores, len(ranks))
    return [Share(p, f"{name}, part {i + 1} of {len(ranks)}") for i, p in enumerate(parts)]


def describe(machine: Machine, parts: Sequence[tuple[Core, ...]], what: str) -> list[Share]:
    """The parts of a divided machine, each with where it lies: the packages and nodes it is on."""
    several = bool(machine.topology.groups("package")[1:]), bool(machine.topology.nodes[1:])
    shares = []
    for cores in parts:
        packages = CpuSet(c.traits.package for c in cores if c.traits.package is not None)
        nodes = CpuSet(c.traits.node for c in cores if c.traits.node is not None)
        why = [what]
        if several[0] and packages:
            why.append(label("package", packages))
        if several[1] and nodes:
            why.append(label("node", nodes))
        shares.append(Share(cores, ", ".join(why)))
    return shares


def deal_exactly(machine: Machine, request: Request, warnings: list[Caution]) -> list[Share]:
    """Rank r on exactly the r-th cpu list."""
    topology, allowed = machine.topology, machine.allowed
    lists = request.cpus or ()
    owner: dict[int, int] = {}
    core_owner: dict[int, int] = {}
    shares = []
    for rank, cpus in enumerate(lists):
        for name, bad in (
            ("does not exist", cpus - topology.online - topology.offline),
            ("is offline", cpus & topology.offline),
            ("is not allowed (affinity mask or cgroup)", cpus - allowed.cpus),
        ):
            if bad:
                verb = name if len(bad) == 1 else name.replace("is ", "are ").replace("does", "do")
                raise PlanError(
                    f"rank {rank}: {label('cpu', bad)} {verb}",
                    hint=f"allowed cpus: {allowed.cpus}",
                    rank=rank,
                    wanted=cpus,
                    available=allowed.cpus,
                )
        for cpu in cpus:
            if cpu in owner and not request.share:
                raise PlanError(
                    f"rank {rank}: cpu {cpu} is rank {owner[cpu]}'s already",
                    hint="--share lets ranks overlap",
                    rank=rank,
                    wanted=cpus,
                )
            owner[cpu] = rank
        cores = [Core(own, own, traits) for own, traits in group_cores(machine, cpus)]
        for core in cores:
            number = core.traits.core
            if number is not None and core_owner.setdefault(number, rank) != rank:
                other = core_owner[number]
                if not request.share:
                    warnings.append(
                        Caution(
                            "shared-core",
                            f"ranks {other} and {rank} have hardware threads of one core "
                            "(slower: give each whole cores)",
                        )
                    )
        node = None if request.nodes is None else request.nodes[rank]
        shares.append(Share(in_tree_order(cores, levels_for(request)), "the cpus named", node))
    return shares
