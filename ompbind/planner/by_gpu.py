"""Maps ranks by GPU, and finds the cores near a device. Pure."""

from __future__ import annotations

from ompbind.cpuset import CpuSet
from ompbind.errors import PlanError
from ompbind.messages import label, plural, quote
from ompbind.planner.cores import llc_level, split_by
from ompbind.planner.division import blocks
from ompbind.planner.mapping import (
    DECLINED,
    Domain,
    Mapped,
    Share,
    find_nodes,
    map_by_division,
    map_to_domain,
)
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


class NearestNode(Record):
    """The node whose usable cores are nearest to a device."""

    node: int | None  # None: not known
    note: str = ""  # how it is related to the device's own node, where it is another one
    far: bool = False  # the device's own node has cpus, none of which may be used


# --- when GPUs say where ranks go ----------------------------------------------------------------


def is_by_gpu(request: Request) -> bool:
    """Return whether GPUs say where the ranks go: --per gpu; or --numa-bind with a rank for each
    visible GPU, or one rank for them all, and nothing else that says it."""
    if request.per is not None or not request.numa_bind:
        return request.per == "gpu"
    named = (request.nodes, request.cpus, request.near)
    if named != (None, None, None) or not request.visible:
        return False
    count = len(request.visible.gpus)
    return count > 0 and not request.visible.problem and (request.ranks or 1) in (1, count)


def check_gpus(request: Request) -> None:
    """Refuse what needs GPUs where there are none. Raises PlanError."""
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


# --- mapping -------------------------------------------------------------------------------------


def map_gpus(machine: Machine, request: Request, cores: tuple[Core, ...]) -> Mapped:
    """Map each rank to the cores near its GPU; the ranks of one node split or share its cores.

    Declines where GPUs do not say where ranks go, and with --numa-bind alone also where they had
    better not, with a warning. Raises PlanError.
    """
    visible = request.visible
    if visible is None or not is_by_gpu(request):
        if visible is not None and visible.bad and request.numa_bind:
            return decline(visible.problem)
        return DECLINED
    by_node = nodes_with_cores(machine, request, cores)
    gpus_of = assign_gpus(request, visible.gpus)
    used = dict.fromkeys(gpu for gpus in gpus_of for gpu in gpus)
    nearest = {gpu: find_nearest_node(machine, gpu.device, by_node) for gpu in used}
    if request.per is None and (problem := why_not_by_gpu(request, gpus_of, nearest, by_node)):
        if request.gpu_env:
            raise PlanError(f"--gpu-env: {problem}", hint="--per gpu gives each GPU a rank")
        return decline(problem) if gpus_of[1:] else DECLINED
    cautions = [Caution("gpu", text) for text in visible.warnings]
    cautions += warn_of_gpus(request, visible.gpus, len(gpus_of))
    unknown = [gpu for gpu in used if nearest[gpu].node is None]
    if unknown and len(by_node) > 1:
        if len(unknown) == len(used):
            return map_without_nodes(machine, request, cores, gpus_of, cautions)
        chosen = choose_nodes(unknown, nearest, gpus_of, by_node)
        nearest |= chosen
        names = " ".join(gpu.device.pci for gpu in unknown)
        nodes = CpuSet(near.node for near in chosen.values() if near.node is not None)
        least = f"the least loaded {label('node', nodes)}"
        text = f"the NUMA node of GPU {names} is not known; using {least}"
        cautions.append(Caution("gpu", text))
    cautions += [
        Caution("gpu", f"GPU {gpu.device.pci} {nearest[gpu].note}")
        for gpu in used
        if nearest[gpu].far
    ]
    return Mapped(
        map_near_gpus(machine, request, cores, by_node, gpus_of, nearest), tuple(cautions)
    )


def decline(problem: str) -> Mapped:
    text = f"{problem}: --numa-bind takes the nodes in order"
    return Mapped(None, (Caution("gpu", text),))


def map_near_gpus(
    machine: Machine,
    request: Request,
    cores: tuple[Core, ...],
    by_node: ByNode,
    gpus_of: Sequence[tuple[Gpu, ...]],
    nearest: Mapping[Gpu, NearestNode],
) -> list[Share]:
    """Map to each node's cores the ranks whose GPUs are nearest to it. GPUs that are near a part
    of it, as hwloc knows of some, get neighbouring parts in the order of their cores."""
    shares: dict[int, Share] = {}
    nodes = [nearest[gpus[0]].node for gpus in gpus_of]
    for domain, ranks in find_gpu_domains(machine, request, cores, by_node, nodes):
        ranks.sort(key=lambda r, d=domain: first_near(d.cores, gpus_of[r][0].device))  # type: ignore[misc]
        for rank, share in zip(ranks, map_to_domain(request, ranks, domain), strict=True):
            note = nearest[gpus_of[rank][0]].note
            shares[rank] = share.replace(
                domain=f"{name_gpus(gpus_of[rank])}, {share.domain}",
                notes=f"{share.notes} ({note})" if note else share.notes,
                node=nodes[rank] if request.numa_bind else None,
                gpus=gpus_of[rank],
            )
    return [shares[rank] for rank in sorted(shares)]


def first_near(cores: Sequence[Core], device: Device) -> int:
    """Return the position of the first core that is near a device; 0 where none is."""
    return next((n for n, core in enumerate(cores) if core.cpus & device.cpus), 0)


def find_gpu_domains(
    machine: Machine,
    request: Request,
    cores: tuple[Core, ...],
    by_node: ByNode,
    nodes: Sequence[int | None],
) -> list[tuple[Domain, list[int]]]:
    """Return each domain of --gpu-domain near a GPU, with its ranks. `nodes`: the node nearest to
    the GPU of each rank. The ranks of a node go round its caches, larger ones first."""
    domains: dict[str, tuple[Domain, list[int]]] = {}
    for rank, node in enumerate(nodes):
        name = "the machine" if node is None else f"node {node}"
        group = by_node.get(node, cores)
        if node is not None and request.gpu_domain == "package":
            package = group[0].first_cpu.package
            name = f"package {package}"
            group = tuple(core for core in cores if core.first_cpu.package == package)
        elif node is not None and request.gpu_domain == "l3":
            caches = sorted(split_by(group, llc_level(machine)), key=len, reverse=True)
            number = nodes[:rank].count(node) % len(caches)
            name, group = f"node {node}, cache {number}", caches[number]
        domains.setdefault(name, (Domain(group, name), []))[1].append(rank)
    return list(domains.values())


def why_not_by_gpu(
    request: Request,
    gpus_of: Sequence[tuple[Gpu, ...]],
    nearest: Mapping[Gpu, NearestNode],
    by_node: Mapping[int | None, Sequence[Core]],
) -> str:
    """Return why --numa-bind alone had better leave the GPUs out of it, as its ranks may not use
    any; "": it may go by them."""
    nodes = [nearest[gpus[0]].node for gpus in gpus_of]
    every = {near.node for near in nearest.values()}
    if None in every:
        return "the machine does not say which nodes the GPUs are near"
    if not gpus_of[1:] and len(every) > 1:
        return "the one rank's GPUs are near several nodes"
    for node in dict.fromkeys(nodes):
        count = nodes.count(node)
        if count > len(by_node[node]) and not (request.share or request.oversubscribe):
            return f"node {node} is near {count} ranks' GPUs and has {len(by_node[node])} cores"
    return ""


def assign_gpus(request: Request, gpus: tuple[Gpu, ...]) -> list[tuple[Gpu, ...]]:
    """Return each rank's GPUs: one, in consecutive blocks of ranks or round them; all for the
    single rank of --numa-bind."""
    if request.per is None and (request.ranks or 1) == 1:
        return [gpus]
    count = request.ranks or len(gpus)
    if request.distribution == "cyclic":
        return [(gpus[rank % len(gpus)],) for rank in range(count)]
    ranks_of = blocks(range(count), min(count, len(gpus)))
    return [(gpu,) for gpu, ranks in zip(gpus, ranks_of, strict=False) for _ in ranks]


def nodes_with_cores(machine: Machine, request: Request, cores: tuple[Core, ...]) -> ByNode:
    """Return the usable cores by node; with --numa-bind only of nodes whose memory is allowed."""
    if request.numa_bind and machine.topology.numa and machine.topology.nodes:
        return {domain.node: domain.cores for domain in find_nodes(machine, request, cores)}
    return {group[0].first_cpu.node: group for group in split_by(cores, "node")}


def map_without_nodes(
    machine: Machine,
    request: Request,
    cores: tuple[Core, ...],
    gpus_of: Sequence[tuple[Gpu, ...]],
    cautions: Sequence[Caution],
) -> Mapped:
    """Divide the machine as -n does, where no GPU's node is known. Raises PlanError."""
    count = len(gpus_of)
    text = (
        "the machine does not say which node its GPUs are near: it is divided evenly, "
        "as without GPUs"
    )
    divided = map_by_division(machine, request.replace(ranks=count), cores)
    placed = []
    for rank, share in enumerate(divided.shares or ()):
        nodes = machine.topology.nodes_of(share.cpus)
        if request.numa_bind and len(nodes) != 1:
            raise PlanError(
                f"rank {rank}: the node of GPU {gpus_of[rank][0].device.pci} is not known, "
                "but --numa-bind needs a single node",
                hint="name each rank's node: --numa-bind-nodes 0 0 1 1",
                rank=rank,
            )
        domain = f"{name_gpus(gpus_of[rank])}, {share.domain}"
        node = nodes.first if request.numa_bind else None
        placed.append(share.replace(domain=domain, node=node, gpus=gpus_of[rank]))
    return Mapped(placed, (*cautions, *divided.cautions, Caution("gpu", text)))


def choose_nodes(
    unknown: Sequence[Gpu],
    nearest: Mapping[Gpu, NearestNode],
    gpus_of: Sequence[tuple[Gpu, ...]],
    by_node: Mapping[int | None, Sequence[Core]],
) -> dict[Gpu, NearestNode]:
    """Return for each GPU of unknown node the one with the fewest ranks for its cores."""
    sizes = {node: len(cores) for node, cores in by_node.items() if node is not None}
    ranks = dict.fromkeys(sizes, 0)
    for gpus in gpus_of:
        node = nearest[gpus[0]].node
        if node in ranks:
            ranks[node] += 1
    chosen: dict[Gpu, NearestNode] = {}
    for gpus in gpus_of:
        if gpus[0] not in unknown:
            continue
        if gpus[0] not in chosen:
            node = min(sizes, key=lambda n: (ranks[n] / sizes[n], n))
            chosen[gpus[0]] = NearestNode(node, "its node is not known")
        node = chosen[gpus[0]].node
        if node is not None:
            ranks[node] += 1
    return chosen


def warn_of_gpus(request: Request, gpus: Sequence[Gpu], count: int) -> list[Caution]:
    """Return warnings of GPUs and ranks of which there are not as many. `count`: ranks."""
    texts = []
    if request.per is not None and count < len(gpus):
        texts.append(f"{count} of {len(gpus)} visible GPUs get a rank, the last ones none")
    if request.per is not None and count > len(gpus) and not request.gpu_env:
        texts.append(
            f"{count} ranks share {len(gpus)} GPUs: LOCAL_RANK does not name a rank's GPU, "
            "--gpu-env gives it that one only"
        )
    if gpus[1:] and any(gpu.name.startswith("MIG-") for gpu in gpus) and not request.gpu_env:
        texts.append("a process sees one MIG device, the first: --gpu-env gives each its own")
    return [Caution("gpu", text) for text in texts]


def name_gpus(gpus: Sequence[Gpu]) -> str:
    addresses = list(dict.fromkeys(gpu.device.pci for gpu in gpus))
    more = f" and {len(addresses) - 2} more" if addresses[2:] else ""
    return f"{plural('GPU', len(addresses))} {' '.join(addresses[:2])}{more}"


# --- devices -------------------------------------------------------------------------------------


def find_nearest_node(
    machine: Machine, device: Device, by_node: Mapping[int | None, object]
) -> NearestNode:
    """Return the node whose usable cores are nearest to a device."""
    topology = machine.topology
    if list(by_node) == [None]:
        return NearestNode(None)
    number = device.node
    near = topology.nodes_of(device.cpus)  # a node of memory alone is near some other's cpus
    if number is None:
        if len(topology.nodes) == 1:
            number = topology.nodes[0].node
        elif len(near) == 1:
            number = near.first
        else:  # where only one node may be used, there is nothing to choose
            return NearestNode(next(iter(by_node)) if len(by_node) == 1 else None)
    if number in by_node:
        return NearestNode(number)
    node = topology.find_node(number)
    usable = CpuSet(n for n in by_node if n is not None)
    if node is not None and node.cpus:
        other = topology.nearest(number, usable)
        note = f"is near node {number}, whose cpus may not be used; the nearest is node {other}"
        return NearestNode(other, note, far=True)
    note = f"nearest to its node {number}, which has no cpus"
    if len(near) == 1 and near.first in by_node:
        return NearestNode(near.first, note)
    return NearestNode(topology.nearest(number, near & usable or usable), note)


def keep_near(
    machine: Machine, request: Request, cores: tuple[Core, ...]
) -> tuple[tuple[Core, ...], list[Caution]]:
    """Return the cores nearest to the device that --near names, and warnings. Raises PlanError."""
    device = find_device(machine, request)
    by_node: ByNode = {group[0].first_cpu.node: group for group in split_by(cores, "node")}
    nearest = find_nearest_node(machine, device, by_node)
    if nearest.node is None:
        near = tuple(core for core in cores if core.cpus & device.cpus)
        if near and (len(near) < len(cores) or len(by_node) == 1):
            return near, []
        raise PlanError(
            f"--near {request.near}: the machine does not say which node {device.pci} is near",
            hint="name the node: --numa-bind-nodes; the machine's manual or its vendor knows it",
        )
    text = f"--near {request.near}: {device.pci} {nearest.note}"
    return by_node[nearest.node], [Caution("gpu", text)] if nearest.far else []


def find_device(machine: Machine, request: Request) -> Device:
    """Return the device of --near, named by an interface, a PCI address, or gpuN as workers count.
    Raises PlanError."""
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
