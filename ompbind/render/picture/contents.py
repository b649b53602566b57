"""What is drawn of a machine: blocks in blocks, with their cores, memory and devices. Pure."""

from __future__ import annotations

from ompbind.cpuset import CpuSet
from ompbind.devices.visible import VENDORS, make_visible, why_not
from ompbind.machine.topology import Topology
from ompbind.messages import counted, format_size
from ompbind.record import Record
from ompbind.render.inventory import describe_memory, name_kind, number_gpus
from ompbind.render.outline import (
    HOLDERS,
    Part,
    find_device_home,
    has_holder,
    list_loose,
    make_tree,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ompbind.machine.topology import Device, Machine, Node
    from ompbind.plans import Plan

CACHES = ("l2", "l3", "cluster")
MAX_CHIPS = 12  # of one block
OTHER_VENDORS = {"1a03": "ASPEED", "102b": "Matrox", "15b3": "Mellanox", "14e4": "Broadcom",
                 "1d0f": "Amazon", "1da3": "Habana", "1af4": "virtio"}  # fmt: skip


class Memory(Record):
    """The memory of a NUMA node."""

    node: int
    bytes: int | None  # None: unknown
    text: str  # its size in words, with its kind
    ranks: tuple[int, ...] = ()  # those that are bound to it
    allowed: bool = True


class Chip(Record):
    """A device, or several that are alike."""

    text: str
    title: str  # shown under the pointer
    rank: int | None = None  # to which it is given
    usable: bool = True


class Block(Record):
    """A part of the machine that has a box of its own."""

    # "package", "node", "cache", "memory" (a node without cpus), "group" (cores without a box) or
    # "machine" (all).
    look: str
    name: str = ""
    detail: str = ""
    cores: tuple[CpuSet, ...] = ()
    blocks: tuple[Block, ...] = ()
    memories: tuple[Memory, ...] = ()
    chips: tuple[Chip, ...] = ()


def make_contents(machine: Machine, plan: Plan | None = None) -> Block:
    """Return the whole machine; with a plan, which ranks use which memory and GPUs."""
    topology = machine.topology
    nodes = {n.node: make_memory(n, machine, plan) for n in topology.nodes} if topology.numa else {}
    devices = make_chips(topology, plan)
    parts = make_tree(machine)
    cores = () if parts else tuple(topology.groups("core")) or each_alone(topology)
    loose = [nodes[n.node] for n in list_loose(topology, parts) if n.node in nodes]
    return make_block(Contents(machine, nodes), None, parts, cores, loose, devices)


def each_alone(topology: Topology) -> tuple[CpuSet, ...]:
    return tuple(CpuSet([c.cpu]) for c in topology.cpus)


class Contents(Record):
    """What every block is made of."""

    machine: Machine
    memories: dict[int, Memory]


def make_block(
    contents: Contents,
    part: Part | None,
    parts: Sequence[Part],
    cores: tuple[CpuSet, ...],
    loose: Sequence[Memory],
    devices: Sequence[tuple[CpuSet, Chip]],
) -> Block:
    """Return the block of a part, None for the machine. `loose`: memory without cpus that belongs
    to it; `devices`: those in it, each with the cpus that it is near."""
    inner = []
    for child in parts:
        holds = has_holder(child)
        near = [item for item in devices if holds and item[0] and item[0] <= child.cpus]
        devices = [item for item in devices if item not in near]
        memory = [contents.memories[n.node] for n in child.memory_nodes]
        inner.append(make_block(contents, child, child.parts, child.cores, memory, near))
    inner = merge_small(inner)
    if loose and cores:
        inner, cores = [Block("group", "", "", cores)], ()
    inner += [Block("memory", f"node {m.node}", "no cpus", memories=(m,)) for m in loose]
    memories = []
    look, name, also = "machine", "", ""
    if part is not None:
        node = dict(zip(part.levels, part.numbers, strict=True)).get("node")
        memories = [m for m in contents.memories.values() if m.node == node and is_worth_drawing(m)]
        look, name, also = name_block(part, numa=contents.machine.topology.numa)
    chips = tuple(chip for _, chip in devices)
    detail = ", ".join(filter(None, (describe_cores(contents.machine, cores), also)))
    return Block(look, name, detail, cores, tuple(inner), tuple(memories), shorten_chips(chips))


def name_block(part: Part, *, numa: bool) -> tuple[str, str, str]:
    """Return a part's look, its name, and what else it is."""
    named = [
        (level, text, size)
        for level, text, size in zip(part.levels, part.names, part.cache_bytes, strict=True)
        if (level != "node" or numa) and not (level == "die" and "package" in part.levels)
    ]
    holders = [level for level, _, _ in named if level in HOLDERS]
    look = "cache" if named else "group"
    if holders:
        look = "node" if holders == ["node"] else "package"
    first, also = [], []
    for level, text, size in named:
        sized = format_size(size) if size else ""
        if bool(holders) == (level in HOLDERS):
            first.append(text)
            also += [sized] if sized else []
        else:
            also.append(f"{text} {sized}".rstrip())
    return look, " · ".join(first), ", ".join(also)


def merge_small(blocks: Sequence[Block]) -> list[Block]:
    """Return the blocks, those that are a cache of one core each put together without a box: most
    cores have caches of their own."""
    merged: list[Block] = []
    for block in blocks:
        if block.look != "cache" or len(block.cores) != 1 or block.chips:
            merged.append(block)
            continue
        last = merged[-1] if merged else None
        if last is not None and last.look == "group" and last.detail == block.detail:
            merged[-1] = last.replace(cores=last.cores + block.cores)
        else:
            merged.append(Block("group", "", block.detail, block.cores))
    return merged


def describe_kind(machine: Machine, cores: Sequence[CpuSet]) -> str:
    """Return the kind of these cores, "" where all are of one kind or the machine has only one."""
    kinds = machine.topology.groups("kind")
    mine = {n for n, cpus in enumerate(kinds) for core in cores if core & cpus}
    return name_kind(min(mine), len(kinds)) if len(mine) == 1 else ""


def describe_cores(machine: Machine, cores: Sequence[CpuSet]) -> str:
    kind = describe_kind(machine, cores)
    return f"{kind} cores" if kind else ""


# --- memory --------------------------------------------------------------------------------------


def make_memory(node: Node, machine: Machine, plan: Plan | None) -> Memory:
    ranks: tuple[int, ...] = ()
    if plan is not None and plan.server:
        ranks = tuple(w.worker for w in plan.server.workers if node.node in w.mems)
    elif plan is not None:
        ranks = tuple(r.number for r in plan.ranks if node.node in r.mems)
    text = describe_memory(node) or "memory"
    return Memory(node.node, node.memory_bytes, text, ranks, node.node in machine.allowed.nodes)


def is_worth_drawing(memory: Memory) -> bool:
    return memory.bytes is not None or bool(memory.ranks) or not memory.allowed


# --- devices -------------------------------------------------------------------------------------


def make_chips(topology: Topology, plan: Plan | None) -> list[tuple[CpuSet, Chip]]:
    """Return the devices, each with the cpus that it is near, () for all or unknown: those that
    people name one by one, others that are alike together."""
    numbers = number_gpus(topology)
    owners = find_device_owners(topology, plan)
    noun = "worker" if plan is not None and plan.server else "rank"
    chips: list[tuple[CpuSet, Chip]] = []
    alike: dict[tuple[CpuSet, str], list[Device]] = {}
    for device in topology.devices:
        home = find_device_home(topology, device)
        if device.pci in numbers:
            owner = owners.get(device.pci)
            whose = VENDORS.get(device.vendor, "") if owner is None else f"{noun} {owner}"
            title = f"{numbers[device.pci]}: {describe_device(device)}"
            chips.append((home, Chip(f"{numbers[device.pci]} {whose}".strip(), title, owner)))
        elif device.names and not device.virtual:
            title = f"{device.kind} {' '.join(device.names)}: {describe_device(device)}"
            chips.append((home, Chip(" ".join(device.names[:2]), title)))
        else:
            alike.setdefault((home, name_unnamed(device)), []).append(device)
    for (home, name), devices in alike.items():
        text = counted(len(devices), name) if len(devices) > 1 else name
        title = "; ".join(describe_device(d) for d in devices[:4])
        title += f"; and {len(devices) - 4} more" if devices[4:] else ""
        chips.append((home, Chip(text, f"{name}: {title}", usable=devices[0].kind != "gpu")))
    return chips


def name_unnamed(device: Device) -> str:
    if device.virtual:
        return "virtual function"
    vendor = VENDORS.get(device.vendor) or OTHER_VENDORS.get(device.vendor, "")
    noun = "display" if device.kind == "gpu" else device.kind
    return f"{vendor} {noun}".strip()


def describe_device(device: Device) -> str:
    words = [device.pci]
    if device.vendor:
        words.append(f"{device.vendor}:{device.model}".rstrip(":"))
    words.append("no node" if device.node is None else f"node {device.node}")
    if device.driver is not None:
        words.append(f"driver {device.driver}" if device.driver else "no driver")
    if device.kind == "gpu" and (reason := why_not(device)):
        words.append(reason)
    return ", ".join(words)


def find_device_owners(topology: Topology, plan: Plan | None) -> dict[str, int]:
    """Return the number of each device's rank by PCI address; of several ranks the first."""
    owners: dict[str, int] = {}
    if plan is None:
        return owners
    holders: Iterable[tuple[int, tuple[str, ...]]]
    if plan.server:
        holders = [(w.worker, w.gpus) for w in plan.server.workers]
    else:
        holders = [(r.number, (*r.gpus, *r.nics)) for r in plan.ranks]
    named = {port.name: d.pci for d in reversed(topology.devices) for port in d.ports}
    for gpu in make_visible(topology.devices, {}).gpus:
        for name in (gpu.name, gpu.device.uuid):
            if name:
                named.setdefault(name, gpu.device.pci)
    for number, names in holders:
        for name in names:
            if name in named:
                owners.setdefault(named[name], number)
    return owners


def shorten_chips(chips: Sequence[Chip]) -> tuple[Chip, ...]:
    if len(chips) <= MAX_CHIPS:
        return tuple(chips)
    rest = chips[MAX_CHIPS - 1 :]
    more = Chip(f"{len(rest)} more", "; ".join(chip.text for chip in rest))
    return (*chips[: MAX_CHIPS - 1], more)
