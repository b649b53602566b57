"""Ranks by GPU, and what is near a device: from visible devices to shares of the cores. Pure."""

from __future__ import annotations

from ompbind.cpuset import CpuSet
from ompbind.errors import PlanError
from ompbind.messages import plural, quote
from ompbind.planner.cores import llc_level, split_by
from ompbind.planner.division import blocks, divide
from ompbind.planner.mapping import Share, deal_one, describe, node_domains
from ompbind.plans import Caution
from ompbind.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ompbind.gpus.visible import Gpu
    from ompbind.machine.topology import Device, Machine
    from ompbind.planner.cores import Core
    from ompbind.planner.request import Request

    ByNode = dict[int | None, tuple[Core, ...]]


class Spot(Record):
    """The node whose cores serve a device (None: not known), and what is to be said about it;
    `grave`: in a warning, as the device is not near."""

    node: int | None
    told: str = ""
    grave: bool = False


# --- when GPUs say where ranks go ----------------------------------------------------------------


def is_by_gpu(request: Request) -> bool:
    """Whether GPUs say where the ranks go: --per gpu; or --numa-bind with a rank for each visible
    GPU, or one rank for them all, and nothing else that says it."""
    if request.per is not None or not request.numa_bind:
        return request.per == "gpu"
    named = (request.nodes, request.cpus, request.near)
    if named != (None, None, None) or not request.visible:
        return False
    count = len(request.visible.gpus)
    return count > 0 and not request.visible.problem and (request.ranks or 1) in (1, count)


def check_gpus(request: Request) -> None:
    """Refuses what needs GPUs where there are none. Raises PlanError."""
    visible = request.visible
    if request.per == "gpu" and (visible is None or visible.problem or not visible.gpus):
        problem = visible.problem if visible else "no GPU to compute with was found"
        raise PlanError(f"--per gpu: {problem}", hint=visible.hint if visible else "")
    if request.gpu_env and not is_by_gpu(request):
        problem = f": {visible.problem}" if visible and visible.problem else ""
        raise PlanError(
            f"--gpu-env gives each rank its GPU, and no rank has one{problem}",
            hint=(visible.hint if visible and problem else "") or "--per gpu gives each rank one",
        )
    if request.gpu_domain != "numa" and request.per != "gpu":
        raise PlanError(
            f"--gpu-domain {request.gpu_domain} is for ranks by GPU", hint="--per gpu makes them"
        )
    if request.gpu_domain == "package" and request.numa_bind:
        raise PlanError(
            "--gpu-domain package is on several nodes, --numa-bind for one",
            hint="leave one of them out",
        )
    named = "a list of nodes or cpus" if request.nodes is not None or request.cpus else ""
    if request.near is not None and (named or request.per == "gpu"):
        raise PlanError(
            f"--near and {named or '--per gpu'} both say where ranks go",
            hint="leave one of them out",
        )


# --- dealing -------------------------------------------------------------------------------------


def deal_gpus(
    machine: Machine, request: Request, cores: tuple[Core, ...], warnings: list[Caution]
) -> list[Share] | None:
    """Each rank on the cores near its GPU; the ranks of one node split its cores, or share them.

    None: GPUs do not say where ranks go; with --numa-bind also where they had better not. Raises
    PlanError.
    """
    visible = request.visible
    if visible is None or not is_by_gpu(request):
        if visible is not None and visible.bad and request.numa_bind:
            warnings.append(
                Caution("gpu", f"{visible.problem}: --numa-bind takes the nodes in order")
            )
        return None
    by_node = nodes_with_cores(machine, request, cores)
    owned = own_gpus(request, visible.gpus)
    used = dict.fromkeys(gpu for own in owned for gpu in own)
    spots = {gpu: locate(machine, gpu.device, by_node) for gpu in used}
    if request.per is None and (why_not := why_not_by_gpu(request, owned, spots, by_node)):
        if request.gpu_env:
            raise PlanError(f"--gpu-env: {why_not}", hint="--per gpu gives each GPU a rank")
        if owned[1:]:
            warnings.append(Caution("gpu", f"{why_not}: --numa-bind takes the nodes in order"))
        return None
    warnings += [Caution("gpu", text) for text in visible.warnings]
    warn_gpus(request, visible.gpus, len(owned), warnings)
    unknown = [gpu for gpu, spot in spots.items() if spot.node is None]
    if unknown and len(by_node) > 1:
        if len(unknown) == len(spots):
            return deal_unknown(machine, request, cores, owned, warnings)
        settle_unknown(spots, owned, by_node)
        which = " ".join(gpu.device.pci for gpu in unknown)
        warnings.append(
            Caution(
                "gpu", f"the machine does not say which node is near {which}: the emptiest is taken"
            )
        )
    warnings += [
        Caution("gpu", f"GPU {g.device.pci} {s.told}") for g, s in spots.items() if s.grave
    ]
    return deal_nodes(machine, request, cores, by_node, owned, spots)


def deal_nodes(
    machine: Machine,
    request: Request,
    cores: tuple[Core, ...],
    by_node: ByNode,
    owned: Sequence[tuple[Gpu, ...]],
    spots: Mapping[Gpu, Spot],
) -> list[Share]:
    """Each node's cores among the ranks whose GPUs it serves. GPUs that are near a part of it, as
    hwloc knows of some, get neighbouring parts in the order of their cores."""
    shares: dict[int, Share] = {}
    nodes = [spots[own[0]].node for own in owned]
    for where, ranks, group in domains_of(machine, request, cores, by_node, nodes):
        ranks.sort(key=lambda r, group=group: first_near(group, owned[r][0].device))  # type: ignore[misc]
        for rank, share in zip(ranks, deal_one(request, ranks, group, where), strict=True):
            node, told = nodes[rank], spots[owned[rank][0]].told
            shares[rank] = share.replace(
                why=f"{gpu_names(owned[rank])}, {share.why}{f' ({told})' if told else ''}",
                node=node if request.numa_bind else None,
                gpus=owned[rank],
            )
    return [shares[r] for r in range(len(owned))]


def first_near(cores: Sequence[Core], device: Device) -> int:
    return next((n for n, core in enumerate(cores) if core.cpus & device.cpus), 0)


def domains_of(
    machine: Machine,
    request: Request,
    cores: tuple[Core, ...],
    by_node: ByNode,
    nodes: Sequence[int | None],
) -> list[tuple[str, list[int], tuple[Core, ...]]]:
    """What is near the GPU of each rank, whose node is given: name, ranks and cores of each such
    domain. The caches of a node are dealt round its ranks, larger ones first."""
    found: dict[str, tuple[list[int], tuple[Core, ...]]] = {}
    for rank, node in enumerate(nodes):
        where = "the machine" if node is None else f"node {node}"
        group = by_node.get(node, cores)
        if node is not None and request.gpu_domain == "package":
            package = group[0].traits.package
            where = f"package {package}"
            group = tuple(core for core in cores if core.traits.package == package)
        elif node is not None and request.gpu_domain == "l3":
            caches = sorted(split_by(group, llc_level(machine)), key=len, reverse=True)
            which = nodes[:rank].count(node) % len(caches)
            where, group = f"node {node}, cache {which}", caches[which]
        found.setdefault(where, ([], group))[0].append(rank)
    return [(where, ranks, group) for where, (ranks, group) in found.items()]


def why_not_by_gpu(
    request: Request,
    owned: Sequence[tuple[Gpu, ...]],
    spots: Mapping[Gpu, Spot],
    by_node: Mapping[int | None, Sequence[Core]],
) -> str:
    """Why --numa-bind alone had better leave GPUs out of it, as its ranks may not use any."""
    nodes = [spots[own[0]].node for own in owned]
    if None in [spot.node for spot in spots.values()]:
        return "the machine does not say which nodes the GPUs are near"
    if not owned[1:] and len({spot.node for spot in spots.values()}) > 1:
        return "the one rank's GPUs are near several nodes"
    for node in dict.fromkeys(nodes):
        many = nodes.count(node)
        if many > len(by_node[node]) and not (request.share or request.oversubscribe):
            return f"node {node} is near {many} ranks' GPUs and has {len(by_node[node])} cores"
    return ""


def own_gpus(request: Request, gpus: tuple[Gpu, ...]) -> list[tuple[Gpu, ...]]:
    """Each rank's GPUs: one, in consecutive blocks of ranks or round them; all for the single rank
    of --numa-bind."""
    if request.per is None and (request.ranks or 1) == 1:
        return [gpus]
    count = request.ranks or len(gpus)
    if request.distribution == "cyclic":
        return [(gpus[rank % len(gpus)],) for rank in range(count)]
    dealt = blocks(range(count), min(count, len(gpus)))
    return [(gpu,) for gpu, block in zip(gpus, dealt, strict=False) for _ in block]


def nodes_with_cores(machine: Machine, request: Request, cores: tuple[Core, ...]) -> ByNode:
    """The usable cores by node; with --numa-bind only of nodes whose memory is allowed."""
    if request.numa_bind and machine.topology.numa and machine.topology.nodes:
        groups, _, numbers = node_domains(machine, cores)
        return dict(zip(numbers, groups, strict=True))
    return {group[0].traits.node: group for group in split_by(cores, "node")}


def deal_unknown(
    machine: Machine,
    request: Request,
    cores: tuple[Core, ...],
    owned: Sequence[tuple[Gpu, ...]],
    warnings: list[Caution],
) -> list[Share]:
    """Of no GPU is the node known: the machine is divided as by -n."""
    count = len(owned)
    warnings.append(
        Caution(
            "gpu",
            "the machine does not say which node its GPUs are near: it is divided evenly, "
            "as without GPUs",
        )
    )
    if request.share or count > len(cores):
        shares = deal_one(request, range(count), cores, "the machine")
    else:
        shares = describe(machine, divide(cores, count), f"1/{count} of the machine")
    placed = []
    for rank, share in enumerate(shares):
        on = machine.topology.nodes_of(share.cpus)
        if request.numa_bind and len(on) != 1:
            raise PlanError(
                f"rank {rank}: the node of GPU {owned[rank][0].device.pci} is not known, "
                f"--numa-bind is for one",
                hint="name each rank's node: --numa-bind-nodes 0 0 1 1",
                rank=rank,
            )
        why = f"{gpu_names(owned[rank])}, {share.why}"
        node = on.first if request.numa_bind else None
        placed.append(share.replace(why=why, node=node, gpus=owned[rank]))
    return placed


def settle_unknown(
    spots: dict[Gpu, Spot], owned: Sequence[tuple[Gpu, ...]], by_node: Mapping[int | None, object]
) -> None:
    """Puts the GPUs of unknown place where fewest ranks are for the cores."""
    sizes = {n: len(by_node[n]) for n in by_node if n is not None}  # type: ignore[arg-type]
    ranks = dict.fromkeys(sizes, 0)
    for own in owned:
        node = spots[own[0]].node
        if node in ranks:
            ranks[node] += 1
    for own in owned:
        if spots[own[0]].node is None:
            node = min(sizes, key=lambda n: (ranks[n] / sizes[n], n))
            spots[own[0]] = Spot(node, "of unknown place")
        node = spots[own[0]].node
        if node is not None and spots[own[0]].told == "of unknown place":
            ranks[node] += 1


def warn_gpus(request: Request, gpus: Sequence[Gpu], count: int, warnings: list[Caution]) -> None:
    if request.per is not None and count < len(gpus):
        warnings.append(
            Caution("gpu", f"{count} of {len(gpus)} visible GPUs get a rank, the last ones none")
        )
    if request.per is not None and count > len(gpus) and not request.gpu_env:
        warnings.append(
            Caution(
                "gpu",
                f"{count} ranks share {len(gpus)} GPUs: LOCAL_RANK does not name a rank's GPU, "
                "--gpu-env gives it that one only",
            )
        )
    if gpus[1:] and any(gpu.name.startswith("MIG-") for gpu in gpus) and not request.gpu_env:
        warnings.append(
            Caution("gpu", "a process sees one MIG device, the first: --gpu-env gives each its own")
        )


def gpu_names(own: Sequence[Gpu]) -> str:
    places = list(dict.fromkeys(gpu.device.pci for gpu in own))
    more = f" and {len(places) - 2} more" if places[2:] else ""
    return f"{plural('GPU', len(places))} {' '.join(places[:2])}{more}"


# --- what is near --------------------------------------------------------------------------------


def locate(machine: Machine, device: Device, by_node: Mapping[int | None, object]) -> Spot:
    """The node whose usable cores are nearest to a device."""
    topology = machine.topology
    if list(by_node) == [None]:
        return Spot(None)
    node = device.node
    near = topology.nodes_of(device.cpus)  # a node of memory alone is near some other's cpus
    if node is None:
        if len(topology.nodes) == 1:
            node = topology.nodes[0].node
        elif len(near) == 1:
            node = near.first
        else:  # where one node may be used, there is nothing to choose
            return Spot(next(iter(by_node)) if len(by_node) == 1 else None)
    if node in by_node:
        return Spot(node)
    found = topology.find_node(node)
    usable = CpuSet(n for n in by_node if n is not None)
    if found is not None and found.cpus:
        taken = topology.nearest(node, usable)
        told = f"is near node {node}, whose cpus may not be used; the nearest is node {taken}"
        return Spot(taken, told, grave=True)
    told = f"nearest to its node {node}, which has no cpus"
    if len(near) == 1 and near.first in by_node:
        return Spot(near.first, told)
    return Spot(topology.nearest(node, near & usable or usable), told)


def keep_near(
    machine: Machine, request: Request, cores: tuple[Core, ...], warnings: list[Caution]
) -> tuple[Core, ...]:
    """The cores nearest to the device that --near names. Raises PlanError."""
    device = find_device(machine, request)
    by_node: ByNode = {group[0].traits.node: group for group in split_by(cores, "node")}
    spot = locate(machine, device, by_node)
    if spot.node is None:
        own = tuple(core for core in cores if core.cpus & device.cpus)
        if own and (len(own) < len(cores) or len(by_node) == 1):
            return own
        raise PlanError(
            f"--near {request.near}: the machine does not say which node {device.pci} is near",
            hint="name the node: --numa-bind-nodes; the machine's manual or its vendor knows it",
        )
    if spot.grave:
        warnings.append(Caution("gpu", f"--near {request.near}: {device.pci} {spot.told}"))
    return by_node[spot.node]


def find_device(machine: Machine, request: Request) -> Device:
    """By an interface's name, a PCI address, or gpuN as workers count. Raises PlanError."""
    name = request.near or ""
    devices = machine.topology.devices
    visible = request.visible
    if name[:3] == "gpu" and name[3:].isdigit() and name.isascii() and len(name) < 9:
        gpus = visible.gpus if visible else ()
        if int(name[3:]) < len(gpus):
            return gpus[int(name[3:])].device
        problem = visible.problem if visible and visible.problem else ""
        raise PlanError(
            f"--near {name}: {problem or f'there are {len(gpus)} visible GPUs'}",
            hint=(visible.hint if visible and problem else "")
            or f"gpu0 to gpu{len(gpus) - 1}, or a PCI address",
        )
    address = name.lower() if name.count(":") > 1 else f"0000:{name.lower()}"
    for device in devices:
        if device.pci in (name.lower(), address) or name in device.names:
            return device
        if name.partition(":")[0] in device.names:  # mlx5_0:1 is a port of it
            return device
    known = [n for d in devices for n in d.names] + [d.pci for d in devices if not d.names]
    raise PlanError(
        f"--near {quote(name)}: there is no such device",
        hint=f"devices: {' '.join(known[:8])}{' …' * bool(known[8:])}" if known
        else "this machine shows no network card, GPU or accelerator",
    )  # fmt: skip
