"""The planner: a machine and a request to a plan. Pure and deterministic, no input or output."""

from __future__ import annotations

from ompbind import numactl, openmp
from ompbind.cpuset import CpuSet, union
from ompbind.errors import PlanError
from ompbind.plans import Host, Plan, RankPlan
from ompbind.record import Record
from ompbind.topology import TREE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from ompbind.request import Request
    from ompbind.topology import Cpu, Level, Machine

# Levels where staying inside comes before ranks of equal size: memory is further away outside.
FIRM: tuple[Level, ...] = ("drawer", "book", "package", "node")
SOFT: tuple[Level, ...] = ("die", "l3", "cluster", "l2")


class Core(Record):
    """A physical core as a rank may use it: `cpus` the hardware threads used, `threads` all that
    are allowed, `traits` its first cpu's place in the tree."""

    cpus: CpuSet
    threads: CpuSet
    traits: Cpu


class Share(Record):
    """What a rank was dealt: its cores (in the tree's order), the node named for its memory, and
    why."""

    cores: tuple[Core, ...]
    why: str
    node: int | None = None

    @property
    def cpus(self) -> CpuSet:
        return union(core.cpus for core in self.cores)


def levels_for(request: Request) -> tuple[Level, ...]:
    """The levels of the topology that planning `request` looks at; the rest need not be read."""
    if request.ranks is None and request.per is None and request.nodes is None:
        # Nothing is divided. Without an L3 anywhere, a place of `l3` is the L2.
        return ("core", "package", "node", "l3", *(("l2",) if request.places == "l3" else ()))
    return ("core", *TREE)


def make_plan(machine: Machine, request: Request) -> Plan:
    """The plan, with `request.binder` already resolved to numactl, native or none.

    Raises PlanError where what was asked cannot be had, naming the rank, what was wanted and what
    is there.
    """
    check_request(request)
    warnings = [*machine_warnings(machine, request)]
    if request.cpus is not None:
        shares = deal_exactly(machine, request, warnings)
        reserved = CpuSet()
    else:
        cores = make_cores(machine, request)
        shares = deal(machine, request, cores)
        shares, reserved = take_reserve(shares, request)
        warn_uneven(shares, request, warnings)
    memory = [memory_of(machine, request, r, share, warnings) for r, share in enumerate(shares)]
    ranks = tuple(
        make_rank(machine, request, r, len(shares), share, memory[r])
        for r, share in enumerate(shares)
    )
    allowed = machine.allowed.cpus
    taken = union(r.cpus for r in ranks) | reserved
    free = [cpus for cpus, _ in group_cores(machine, allowed) if not cpus & taken]
    warn_threads(ranks, warnings)
    warn_quota(machine, ranks, warnings)
    return Plan(
        host=Host(machine.name, machine.topology.online, allowed, machine.topology.node_numbers,
                  machine.allowed.quota),
        ranks=ranks,
        binder=request.binder,
        reserved=reserved,
        unused=union(free) - request.exclude,
        warnings=tuple(dict.fromkeys(warnings)),
        inherited=request.inherited,
        command=request.command,
        template=request.template,
    )  # fmt: skip


# --- what was asked, taken together ------------------------------------------------------------


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
    if request.cpus is not None and (extra := request.asked("smt", "reserve", "exclude")):
        raise PlanError(
            f"--numa-bind-cpus names exactly the cpus to use; --{extra} would change them",
            hint=f"leave --{extra} out",
        )
    if request.per == "gpu":
        raise PlanError(
            "--per gpu: ranks by GPU are not supported by this version",
            hint="name each rank's node: --numa-bind-nodes 0 0 1 1",
        )


def machine_warnings(machine: Machine, request: Request) -> list[str]:
    stray = request.exclude - machine.topology.online - machine.topology.offline
    told = [f"--exclude names cpus that this machine does not have: {stray}"] if stray else []
    if not machine.can_bind:
        told.append(
            "this system binds no process to cpus or memory: the OpenMP variables are all that a "
            "worker gets of this plan"
        )
    elif not machine.topology.numa and (request.numa_bind or request.mem not in (None, "none")):
        told.append("this kernel has no NUMA: all memory is one node, so no policy is set")
    return told


# --- cores ---------------------------------------------------------------------------------------


def make_cores(machine: Machine, request: Request) -> tuple[Core, ...]:
    """The cores that may be used, in the tree's order, each with the hardware threads to use."""
    usable = machine.allowed.cpus - request.exclude
    if not usable:
        raise PlanError(
            "no cpu is left to use",
            hint=f"allowed: {machine.allowed.cpus or 'none'}; excluded: {request.exclude}",
            wanted=1,
            available=0,
        )
    threads = group_cores(machine, usable)
    most = max(len(cpus) for cpus, _ in threads)
    if request.smt is not None and request.smt > most:
        raise PlanError(
            f"--smt {request.smt}: no core has that many allowed hardware threads",
            hint=f"--smt {most} or --smt all",
            wanted=request.smt,
            available=most,
        )
    return in_tree_order(
        (Core(CpuSet(list(cpus)[: request.smt]), cpus, traits) for cpus, traits in threads),
        levels_for(request),
    )


def group_cores(machine: Machine, cpus: CpuSet) -> list[tuple[CpuSet, Cpu]]:
    """`cpus` by core, with the first one's traits; where cores are not known, each by itself."""
    groups: dict[object, list[Cpu]] = {}
    for c in machine.topology.cpus:
        if c.cpu in cpus:
            groups.setdefault((c.core, c.cpu if c.core is None else None), []).append(c)
    return [(CpuSet(c.cpu for c in group), group[0]) for group in groups.values()]


def in_tree_order(cores: Iterable[Core], levels: Sequence[Level]) -> tuple[Core, ...]:
    """Neighbours stand together: sorted by package, node, cache, then by core; by those `levels`
    only that are surely known, so that the order does not depend on what else was read."""
    order = [level for level in (*TREE, "core") if level in levels]

    def place(core: Core) -> tuple[int, ...]:
        keys = [getattr(core.traits, level) for level in order]
        return (*(-1 if k is None else k for k in keys), core.cpus.first)

    return tuple(sorted(cores, key=place))


def split_by(cores: Sequence[Core], level: Level) -> list[tuple[Core, ...]]:
    """The cores by their group at `level`, groups in the order of their first core."""
    groups: dict[int | None, list[Core]] = {}
    for core in cores:
        groups.setdefault(getattr(core.traits, level), []).append(core)
    return [tuple(group) for group in groups.values()]


# --- dealing cores to ranks ----------------------------------------------------------------------


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
    if request.ranks is None:
        return [Share(cores, "every allowed core")]
    count = request.ranks
    if request.share:
        return [Share(cores, f"the whole machine, shared by {count} ranks")] * count
    if count > len(cores):
        raise too_many(range(count), "the machine", len(cores))
    parts = divide(cores, count)
    return [Share(part, describe(machine, part, count)) for part in parts]


def too_many(ranks: Sequence[int], where: str, available: int) -> PlanError:
    last = ranks[available]
    return PlanError(
        f"rank {last}: {where} has {available} usable core{'s' * (available != 1)} "
        f"for {len(ranks)} ranks",
        hint=f"at most {available} ranks there, or --share to let them overlap",
        rank=last,
        wanted=len(ranks),
        available=available,
    )


def deal_named_nodes(machine: Machine, request: Request, cores: tuple[Core, ...]) -> list[Share]:
    """Rank r on the r-th node named; the ranks of one node share or split its cores."""
    named = request.nodes or ()
    by_node = {group[0].traits.node: group for group in split_by(cores, "node")}
    for rank, node in enumerate(named):
        if node not in by_node:
            raise no_such_node(machine, rank, node, by_node)
    shares: dict[int, Share] = {}
    for node in dict.fromkeys(named):
        ranks = [r for r, n in enumerate(named) if n == node]
        dealt = deal_one(request, ranks, by_node[node], f"node {node}")
        shares |= {r: s.replace(node=node) for r, s in zip(ranks, dealt, strict=True)}
    return [shares[r] for r in range(len(named))]


def no_such_node(
    machine: Machine, rank: int, node: int, usable: Mapping[int | None, object]
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


def llc_level(machine: Machine) -> Level:
    """The level of the last-level cache: L3, on machines without one L2."""
    return "l3" if any(c.l3 is not None for c in machine.topology.cpus) else "l2"


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
    shares: list[Share] = []
    for d, ranks in enumerate(blocks(range(count), len(domains))):
        for share in deal_one(request, ranks, domains[d], names[d]):
            shares.append(share.replace(node=nodes[d]))
    return shares


def deal_one(
    request: Request, ranks: Sequence[int], cores: tuple[Core, ...], name: str
) -> list[Share]:
    """One domain among its ranks: all of it to each, or split evenly."""
    if len(ranks) == 1:
        return [Share(cores, name)]
    if request.share:
        return [Share(cores, f"{name}, shared by {len(ranks)} ranks") for _ in ranks]
    if len(ranks) > len(cores):
        raise too_many(ranks, name, len(cores))
    parts = split_evenly(cores, len(ranks))
    return [Share(p, f"{name}, part {i + 1} of {len(ranks)}") for i, p in enumerate(parts)]


def blocks(items: Sequence[int], count: int) -> list[Sequence[int]]:
    """`items` in `count` consecutive blocks, sizes differing by at most one, larger ones first."""
    least, more = divmod(len(items), count)
    ends = [least * (i + 1) + min(i + 1, more) for i in range(count)]
    return [items[a:b] for a, b in zip([0, *ends[:-1]], ends, strict=True)]


def split_evenly(cores: tuple[Core, ...], count: int) -> list[tuple[Core, ...]]:
    """`count` consecutive parts whose sizes differ by at most one core, inside caches where the
    numbers allow it."""
    parts = divide_by(cores, count, SOFT, in_blocks)
    sizes = [len(part) for part in parts]
    return parts if max(sizes) - min(sizes) <= 1 else in_blocks(cores, count)


def in_blocks(cores: tuple[Core, ...], count: int) -> list[tuple[Core, ...]]:
    """`count` consecutive parts, whatever lies between."""
    return [tuple(cores[i] for i in block) for block in blocks(range(len(cores)), count)]


def divide(cores: tuple[Core, ...], count: int) -> list[tuple[Core, ...]]:
    """The machine in `count` <= len(cores) parts by its own tree.

    Ranks are dealt to packages and nodes in proportion to their cores, so that none crosses a
    node that need not; within a node the parts are as equal as they can be.
    """
    return divide_by(cores, count, FIRM, split_evenly)


def divide_by(
    cores: tuple[Core, ...],
    count: int,
    levels: Sequence[Level],
    below: Callable[[tuple[Core, ...], int], list[tuple[Core, ...]]],
) -> list[tuple[Core, ...]]:
    """`count` parts along `levels`, the coarsest first; `below` divides what lies in one group of
    each."""
    if count == 1:
        return [cores]
    parted = [(len(groups), i) for i, level in enumerate(levels)
              if len(groups := split_by(cores, level)) > 1]  # fmt: skip
    if not parted:
        return below(cores, count)
    groups = split_by(cores, levels[min(parted)[1]])  # the coarsest
    sizes = [len(g) for g in groups]
    if count < len(groups):
        return [tuple(c for g in groups[a:b] for c in g) for a, b in cut(sizes, count)]
    # A rank for each finest part first, where there are enough: then none crosses any of them.
    finest = [len({tuple(getattr(c.traits, lv) for lv in levels) for c in g}) for g in groups]
    least = finest if sum(finest) <= count else [1] * len(groups)
    dealt = apportion(sizes, count, least)
    divided = [divide_by(g, n, levels, below) for g, n in zip(groups, dealt, strict=True)]
    return [part for parts in divided for part in parts]


def apportion(sizes: Sequence[int], count: int, least: Sequence[int]) -> list[int]:
    """How many of `count` ranks each group gets: its least, the next always where a rank's share
    is largest (ties: the first)."""
    dealt = list(least)
    for _ in range(count - sum(least)):
        most = max(range(len(sizes)), key=lambda i: (sizes[i] / dealt[i], -i))
        dealt[most] += 1
    return dealt


def cut(sizes: Sequence[int], count: int) -> list[tuple[int, int]]:
    """Consecutive groups in `count` runs, as [first, end), the sizes' sums as equal as they come:
    equal groups in balanced blocks, others cut where the sum is nearest to its due."""
    if len(set(sizes)) == 1:
        runs = blocks(range(len(sizes)), count)
        return [(run[0], run[-1] + 1) for run in runs]
    sums = [0]
    for size in sizes:
        sums.append(sums[-1] + size)
    ends = [0]
    for part in range(1, count):
        due = sums[-1] * part / count
        candidates = range(ends[-1] + 1, len(sizes) - (count - part) + 1)
        ends.append(min(candidates, key=lambda i, due=due: abs(sums[i] - due)))  # type: ignore[misc]
    ends.append(len(sizes))
    return list(zip(ends[:-1], ends[1:], strict=True))


def describe(machine: Machine, cores: tuple[Core, ...], count: int) -> str:
    """Where a part of the divided machine lies: the packages and nodes it is on."""
    packages = CpuSet(c.traits.package for c in cores if c.traits.package is not None)
    nodes = CpuSet(c.traits.node for c in cores if c.traits.node is not None)
    places = []
    if machine.topology.groups("package")[1:] and packages:
        places.append(f"package{'s' * (len(packages) > 1)} {packages}")
    if machine.topology.nodes[1:] and nodes:
        places.append(f"node{'s' * (len(nodes) > 1)} {nodes}")
    return ", ".join([f"1/{count} of the machine", *places])


def deal_exactly(machine: Machine, request: Request, warnings: list[str]) -> list[Share]:
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
                    f"rank {rank}: cpu{'s' * (len(bad) > 1)} {bad} {verb}",
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
                    warnings.append(f"ranks {other} and {rank} have hardware threads of one core")
        node = None if request.nodes is None else request.nodes[rank]
        shares.append(Share(in_tree_order(cores, levels_for(request)), "the cpus named", node))
    return shares


def take_reserve(shares: list[Share], request: Request) -> tuple[list[Share], CpuSet]:
    """Takes `request.reserve` cores away: one at a time from whoever has the most, the last such
    rank first, each time its last core. Ranks that share a domain lose it together."""
    if not request.reserve:
        return shares, CpuSet()
    pools: dict[tuple[Core, ...], list[int]] = {}
    for rank, share in enumerate(shares):
        pools.setdefault(share.cores, []).append(rank)
    cores = [list(pool) for pool in pools]
    spare = sum(len(pool) - 1 for pool in cores)
    if request.reserve > spare:
        raise PlanError(
            f"--reserve {request.reserve} would leave ranks without a core",
            hint=f"at most {spare} can be reserved with this many ranks",
            wanted=request.reserve,
            available=spare,
        )
    reserved = []
    for _ in range(request.reserve):
        most = max(range(len(cores)), key=lambda i: (len(cores[i]), i))
        reserved.append(cores[most].pop().threads)
    left: dict[int, tuple[Core, ...]] = {}
    for pool, ranks in zip(cores, pools.values(), strict=True):
        left |= dict.fromkeys(ranks, tuple(pool))
    return [s.replace(cores=left[r]) for r, s in enumerate(shares)], union(reserved)


# --- memory --------------------------------------------------------------------------------------


def memory_of(
    machine: Machine, request: Request, rank: int, share: Share, warnings: list[str]
) -> tuple[str, CpuSet]:
    """A rank's memory policy and its nodes (none for local and none)."""
    topology = machine.topology
    policy = request.mem or ("bind" if request.numa_bind else "none")
    if request.nodes is not None and request.cpus is not None:
        check_memory_node(machine, rank, request.nodes[rank])
    if policy in ("none", "local") or not topology.numa:
        return ("local" if policy == "local" and topology.numa else "none"), CpuSet()
    cpus = share.cpus
    wanted = CpuSet([share.node]) if share.node is not None else topology.nodes_of(cpus)
    if not wanted:
        raise PlanError(
            f"rank {rank}: its cpus ({cpus}) are on no known node, so there is no memory to bind",
            hint="--mem none",
            rank=rank,
        )
    if policy == "preferred" and len(wanted) > 1:  # the kernel's policy takes one
        most = max(wanted, key=lambda n: (len(cpus & node_cpus(machine, n)), -n))
        wanted = CpuSet([most])
    mems = CpuSet(with_memory(machine, rank, n, warnings) for n in wanted)
    cpu_nodes = topology.nodes_of(cpus)
    if request.cpus is not None and request.nodes is not None and not mems & cpu_nodes:
        warnings.append(f"rank {rank}: its memory is on node {mems}, its cpus on {cpu_nodes}")
    return policy, mems


def node_cpus(machine: Machine, node: int) -> CpuSet:
    found = machine.topology.find_node(node)
    return found.cpus if found else CpuSet()


def check_memory_node(machine: Machine, rank: int, node: int) -> None:
    numbers = machine.topology.node_numbers
    if node not in numbers:
        raise PlanError(
            f"rank {rank}: node {node} does not exist",
            hint=f"nodes: {numbers or 'none'}",
            rank=rank,
            wanted=node,
            available=numbers,
        )


def with_memory(machine: Machine, rank: int, number: int, warnings: list[str]) -> int:
    """The node itself, or where it has no memory the nearest that has, said in a warning."""
    topology, allowed = machine.topology, machine.allowed
    node = topology.find_node(number)
    if node is not None and node.memory_bytes == 0:
        having = CpuSet(n.node for n in topology.nodes if n.memory_bytes != 0) & allowed.nodes
        near = topology.nearest(number, having)
        if near is None:
            raise PlanError(
                f"rank {rank}: node {number} has no memory, nor has any other that is allowed",
                hint=f"memory allowed on nodes: {allowed.nodes or 'none'}",
                rank=rank,
            )
        warnings.append(f"node {number} has no memory: the nearest that has, node {near}, is taken")
        return near
    if number not in allowed.nodes:
        raise PlanError(
            f"rank {rank}: memory of node {number} is not allowed (cgroup cpuset)",
            hint=f"memory allowed on: {allowed.nodes or 'none'}; --mem none binds cpus only",
            rank=rank,
            wanted=number,
            available=allowed.nodes,
        )
    return number


# --- a rank's plan -------------------------------------------------------------------------------


def make_rank(
    machine: Machine,
    request: Request,
    rank: int,
    count: int,
    share: Share,
    memory: tuple[str, CpuSet],
) -> RankPlan:
    cpus = share.cpus
    mem, mems = memory
    places = make_places(machine, request, share)
    threads = request.threads
    if threads is None:
        one_each = request.places in ("cores", "threads")
        threads = str(len(places) if one_each else len(cpus))
    env = openmp.make_environment(places, request.proc_bind, threads)
    env += make_rank_environment(rank, count, request.rank_env)
    binding = numactl.make_binding(request.binder, cpus, mem, mems)
    command = fill(request.command, rank, count) if request.template else request.command
    return RankPlan(
        rank=rank,
        cpus=cpus,
        places=places,
        nodes=machine.topology.nodes_of(cpus),
        mem=mem,
        mems=mems,
        env=env,
        unset=openmp.REMOVED,
        argv=numactl.make_command(binding, command),
        why=share.why,
    )


def make_places(machine: Machine, request: Request, share: Share) -> tuple[CpuSet, ...]:
    """The OpenMP places of a rank, in the order in which `close` fills them."""
    what = request.places
    if what == "one":
        return (share.cpus,)
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


def fill(command: Sequence[str], rank: int, count: int) -> tuple[str, ...]:
    """The worker's arguments with {rank} and {ranks} filled in; nothing else is touched."""
    return tuple(
        word.replace("{rank}", str(rank)).replace("{ranks}", str(count)) for word in command
    )


# --- warnings ------------------------------------------------------------------------------------


def warn_uneven(shares: list[Share], request: Request, warnings: list[str]) -> None:
    sizes = [len(share.cores) for share in shares]
    if max(sizes) - min(sizes) > 1 and request.per is None:
        warnings.append(
            f"ranks get from {min(sizes)} to {max(sizes)} cores, so that none leaves its node"
            if request.nodes is None
            else f"ranks get from {min(sizes)} to {max(sizes)} cores"
        )


def warn_threads(ranks: tuple[RankPlan, ...], warnings: list[str]) -> None:
    """More threads than cpus, ranks of the same numbers told together."""
    crowded: dict[tuple[int, int], list[int]] = {}
    for r in ranks:
        threads = int(dict(r.env)["OMP_NUM_THREADS"].partition(",")[0])
        if threads > len(r.cpus):
            crowded.setdefault((threads, len(r.cpus)), []).append(r.rank)
    for (threads, cpus), found in crowded.items():
        who = f"ranks {CpuSet(found)}" if found[1:] else f"rank {found[0]}"
        warnings.append(f"{who}: {threads} threads on {cpus} cpu{'s' * (cpus > 1)}")


def warn_quota(machine: Machine, ranks: tuple[RankPlan, ...], warnings: list[str]) -> None:
    quota = machine.allowed.quota
    used = union(r.cpus for r in ranks)
    if quota is not None and quota < len(used):
        warnings.append(
            f"the cgroup's quota is worth {quota:g} cpus, this plan uses {len(used)}: "
            "threads will be held up"
        )
