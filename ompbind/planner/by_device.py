"""Maps ranks by GPU or network card, and finds the cores near a device. Pure."""

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

    from ompbind.devices.nics import Card
    from ompbind.devices.visible import Gpu
    from ompbind.machine.topology import Device, Machine
    from ompbind.planner.cores import Core
    from ompbind.planner.request import Request

    ByNode = dict[int | None, tuple[Core, ...]]
    Target = Gpu | Card  # what a rank may be mapped by

NIC_HINT = "ompbind topo shows the devices; a container sees its own interfaces only"
NOUNS = {"gpus": "GPU", "accels": "accelerator", "nics": "network card"}


class NearestNode(Record):
    """The node whose usable cores are nearest to a device."""

    node: int | None  # None: not known
    note: str = ""  # how it is related to the device's own node, where it is another one
    far: bool = False  # the device's own node has cpus, none of which may be used


class Targets(Record):
    """The devices by which ranks are mapped, in their order. `field`: that of RankPlan which names
    a rank's; `warnings`: of what found them."""

    field: str
    devices: tuple[Target, ...]
    warnings: tuple[str, ...] = ()

    @property
    def noun(self) -> str:
        return NOUNS[self.field]

    def give(self, devices: tuple[Target, ...]) -> dict[str, tuple[Target, ...]]:
        """Return the field of a share that has these devices."""
        return {"nics" if self.field == "nics" else "gpus": devices}


# --- when devices say where ranks go --------------------------------------------------------------


def is_by_gpu(request: Request) -> bool:
    """Return whether GPUs say where the ranks go: --per gpu; or --numa-bind with a rank for each
    visible GPU, or one rank for them all, and nothing else that says it."""
    if request.per is not None or not request.numa_bind:
        return request.per in ("gpu", "accel")
    named = (request.nodes, request.cpus, request.near)
    if named != (None, None, None) or not request.visible:
        return False
    count = len(request.visible.gpus)
    return count > 0 and not request.visible.problem and (request.ranks or 1) in (1, count)


def find_targets(request: Request) -> Targets | None:
    """Return the devices by which ranks are mapped; None where none are."""
    if request.per == "nic" and request.cards is not None:
        cards = request.cards
        left_out = f"left out: {'; '.join(cards.left_out)}"
        return Targets("nics", cards.cards, (left_out,) if cards.left_out else ())
    if request.visible is not None and is_by_gpu(request):
        field = "accels" if request.per == "accel" else "gpus"
        return Targets(field, request.visible.gpus, request.visible.warnings)
    return None


def check_devices(request: Request) -> None:
    """Refuse what needs GPUs or network cards where there are none. Raises PlanError."""
    visible, cards = request.visible, request.cards
    if request.per in ("gpu", "accel") and (not visible or visible.problem or not visible.gpus):
        problem = visible.problem if visible else "no GPU to compute with was found"
        raise PlanError(f"--per {request.per}: {problem}", hint=visible.hint if visible else "")
    if request.gpu_env and request.per == "accel" and visible and not visible.variable:
        raise PlanError(
            f"--gpu-env: no variable is known for accelerators of vendor "
            f"{visible.gpus[0].device.vendor}",
            hint="leave it out: LOCAL_RANK is the number of a rank's device",
        )
    if request.gpu_env and not is_by_gpu(request):
        problem = f": {visible.problem}" if visible and visible.problem else ""
        raise PlanError(
            f"--gpu-env gives each rank its GPU, and no rank has one{problem}",
            hint=(visible.hint if visible and problem else "") or "--per gpu gives each rank one",
        )
    if (request.nic_env or request.per == "nic") and (cards is None or not cards.cards):
        option = "--per nic" if request.per == "nic" else "--nic-env"
        problem = cards.problem if cards else "no network card to use was found"
        raise PlanError(f"{option}: {problem}", hint=NIC_HINT)


# --- mapping -------------------------------------------------------------------------------------


def map_devices(machine: Machine, request: Request, cores: tuple[Core, ...]) -> Mapped:
    """Map each rank to the cores near its device; the ranks of one node split or share its cores.

    Declines where devices do not say where ranks go, and with --numa-bind alone also where they had
    better not, with a warning. Raises PlanError.
    """
    targets, visible = find_targets(request), request.visible
    if targets is None:
        if visible is not None and visible.bad and request.numa_bind:
            return decline(visible.problem)
        return DECLINED
    by_node = nodes_with_cores(machine, request, cores)
    devices_of = assign_devices(request, targets.devices)
    used = dict.fromkeys(target for devices in devices_of for target in devices)
    nearest = {target: find_nearest_node(machine, target.device, by_node) for target in used}
    if request.per is None and (problem := why_not_by_gpu(request, devices_of, nearest, by_node)):
        if request.gpu_env:
            raise PlanError(f"--gpu-env: {problem}", hint="--per gpu gives each GPU a rank")
        return decline(problem) if devices_of[1:] else DECLINED
    kind = targets.field[:-1]
    cautions = [Caution(kind, text) for text in targets.warnings]
    cautions += warn_of_devices(request, targets, len(devices_of))
    unknown = [target for target in used if nearest[target].node is None]
    if unknown and len(by_node) > 1:
        if len(unknown) == len(used):
            return map_without_nodes(machine, request, cores, targets, devices_of, cautions)
        chosen = choose_nodes(unknown, nearest, devices_of, by_node)
        nearest |= chosen
        names = " ".join(target.device.pci for target in unknown)
        nodes = CpuSet(near.node for near in chosen.values() if near.node is not None)
        least = f"the least loaded {label('node', nodes)}"
        text = f"the NUMA node of {targets.noun} {names} is not known; using {least}"
        cautions.append(Caution(kind, text))
    cautions += [
        Caution(kind, f"{targets.noun} {target.device.pci} {nearest[target].note}")
        for target in used
        if nearest[target].far
    ]
    shares = map_near_devices(machine, request, cores, by_node, targets, devices_of, nearest)
    return Mapped(shares, tuple(cautions))


def decline(problem: str) -> Mapped:
    text = f"{problem}: --numa-bind takes the nodes in order"
    return Mapped(None, (Caution("gpu", text),))


def map_near_devices(
    machine: Machine,
    request: Request,
    cores: tuple[Core, ...],
    by_node: ByNode,
    targets: Targets,
    devices_of: Sequence[tuple[Target, ...]],
    nearest: Mapping[Target, NearestNode],
) -> list[Share]:
    """Map to each node's cores the ranks whose devices are nearest to it. Devices that are near a
    part of it, as hwloc knows of some, get neighbouring parts in the order of their cores."""
    shares: dict[int, Share] = {}
    nodes = [nearest[devices[0]].node for devices in devices_of]
    for domain, ranks in find_gpu_domains(machine, request, cores, by_node, nodes):
        ranks.sort(key=lambda r, d=domain: first_near(d.cores, devices_of[r][0].device))  # type: ignore[misc]
        for rank, share in zip(ranks, map_to_domain(request, ranks, domain), strict=True):
            note = nearest[devices_of[rank][0]].note
            near = nodes[rank] if request.numa_bind else None
            shares[rank] = share.replace(
                domain=f"{name_devices(targets, devices_of[rank])}, {share.domain}",
                notes=f"{share.notes} ({note})" if note else share.notes,
                home=CpuSet() if near is None else CpuSet([near]),
                **targets.give(devices_of[rank]),
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
    devices_of: Sequence[tuple[Target, ...]],
    nearest: Mapping[Target, NearestNode],
    by_node: Mapping[int | None, Sequence[Core]],
) -> str:
    """Return why --numa-bind alone had better leave the GPUs out of it, as its ranks may not use
    any; "": it may go by them."""
    nodes = [nearest[devices[0]].node for devices in devices_of]
    every = {near.node for near in nearest.values()}
    if None in every:
        return "the machine does not say which nodes the GPUs are near"
    if not devices_of[1:] and len(every) > 1:
        return "the one rank's GPUs are near several nodes"
    for node in dict.fromkeys(nodes):
        count = nodes.count(node)
        if count > len(by_node[node]) and not (request.share or request.oversubscribe):
            return f"node {node} is near {count} ranks' GPUs and has {len(by_node[node])} cores"
    return ""


def assign_devices(request: Request, devices: tuple[Target, ...]) -> list[tuple[Target, ...]]:
    """Return each rank's devices: one, in consecutive blocks of ranks or round them; all GPUs for
    the single rank of --numa-bind."""
    if request.per is None and (request.ranks or 1) == 1:
        return [devices]
    count = request.ranks or len(devices)
    if request.distribution == "cyclic":
        return [(devices[rank % len(devices)],) for rank in range(count)]
    ranks_of = blocks(range(count), min(count, len(devices)))
    return [(target,) for target, ranks in zip(devices, ranks_of, strict=False) for _ in ranks]


def nodes_with_cores(machine: Machine, request: Request, cores: tuple[Core, ...]) -> ByNode:
    """Return the usable cores by node; with --numa-bind only of nodes whose memory is allowed."""
    if request.numa_bind and machine.topology.numa and machine.topology.nodes:
        return {domain.home.first: domain.cores for domain in find_nodes(machine, request, cores)}
    return {group[0].first_cpu.node: group for group in split_by(cores, "node")}


def map_without_nodes(
    machine: Machine,
    request: Request,
    cores: tuple[Core, ...],
    targets: Targets,
    devices_of: Sequence[tuple[Target, ...]],
    cautions: Sequence[Caution],
) -> Mapped:
    """Divide the machine as -n does, where no device's node is known. Raises PlanError."""
    count = len(devices_of)
    text = (
        f"the machine does not say which node its {targets.noun}s are near: it is divided evenly, "
        f"as without {targets.noun}s"
    )
    divided = map_by_division(machine, request.replace(ranks=count), cores)
    placed = []
    for rank, share in enumerate(divided.shares or ()):
        nodes = machine.topology.nodes_of(share.cpus)
        if request.numa_bind and len(nodes) != 1:
            device = f"{targets.noun} {devices_of[rank][0].device.pci}"
            raise PlanError(
                f"rank {rank}: the node of {device} is not known, "
                "but --numa-bind needs a single node",
                hint="name each rank's node: --numa-bind-nodes 0 0 1 1",
                rank=rank,
            )
        domain = f"{name_devices(targets, devices_of[rank])}, {share.domain}"
        home = nodes if request.numa_bind else CpuSet()
        devices = targets.give(devices_of[rank])
        placed.append(share.replace(domain=domain, home=home, **devices))
    return Mapped(placed, (*cautions, *divided.cautions, Caution(targets.field[:-1], text)))


def choose_nodes(
    unknown: Sequence[Target],
    nearest: Mapping[Target, NearestNode],
    devices_of: Sequence[tuple[Target, ...]],
    by_node: Mapping[int | None, Sequence[Core]],
) -> dict[Target, NearestNode]:
    """Return for each device of unknown node the one with the fewest ranks for its cores."""
    sizes = {node: len(cores) for node, cores in by_node.items() if node is not None}
    ranks = dict.fromkeys(sizes, 0)
    for devices in devices_of:
        node = nearest[devices[0]].node
        if node in ranks:
            ranks[node] += 1
    chosen: dict[Target, NearestNode] = {}
    for devices in devices_of:
        if devices[0] not in unknown:
            continue
        if devices[0] not in chosen:
            node = min(sizes, key=lambda n: (ranks[n] / sizes[n], n))
            chosen[devices[0]] = NearestNode(node, "its node is not known")
        node = chosen[devices[0]].node
        if node is not None:
            ranks[node] += 1
    return chosen


def warn_of_devices(request: Request, targets: Targets, count: int) -> list[Caution]:
    """Return warnings of devices and ranks of which there are not as many. `count`: ranks."""
    texts = []
    devices, seen = targets.devices, "visible GPU" if targets.field == "gpus" else targets.noun
    if request.per is not None and count < len(devices):
        texts.append(f"{count} of {len(devices)} {seen}s get a rank, the last ones none")
    if targets.field != "gpus":
        return [Caution(targets.field[:-1], text) for text in texts]
    if request.per is not None and count > len(devices) and not request.gpu_env:
        texts.append(
            f"{count} ranks share {len(devices)} GPUs: LOCAL_RANK does not name a rank's GPU, "
            "--gpu-env gives it that one only"
        )
    if devices[1:] and any(gpu.name.startswith("MIG-") for gpu in devices) and not request.gpu_env:
        texts.append("a process sees one MIG device, the first: --gpu-env gives each its own")
    return [Caution("gpu", text) for text in texts]


def name_devices(targets: Targets, devices: Sequence[Target]) -> str:
    """Return `GPU 0000:3b:00.0`, `network card mlx5_0:1`, the first of several."""
    names = [d.name if targets.field == "nics" else d.device.pci for d in devices]
    names = list(dict.fromkeys(names))
    more = f" and {len(names) - 2} more" if names[2:] else ""
    return f"{plural(targets.noun, len(names))} {' '.join(names[:2])}{more}"


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
    """Return the device of --near, named by an interface, a port (`mlx5_0:1`), a PCI address, or
    gpuN as workers count. Raises PlanError."""
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
    addresses = name.lower(), f"0000:{name.lower()}"
    card = name.partition(":")[0]
    for device in devices:
        ports = [port.name for port in device.ports]
        if device.pci in addresses or name in device.names or name in ports:
            return device
        if card in device.names:
            if not ports:  # the machine does not say which it has
                return device
            raise PlanError(
                f"--near {quote(name)}: {card} has no such port",
                hint=f"{plural('port', len(ports))} of this card: {' '.join(ports)}",
            )
    known = [n for d in devices for n in d.names] + [d.pci for d in devices if not d.names]
    raise PlanError(
        f"--near {quote(name)}: there is no such device",
        hint=f"devices: {' '.join(known[:8])}{' …' * bool(known[8:])}" if known
        else "this machine shows no network card, GPU or accelerator",
    )  # fmt: skip
