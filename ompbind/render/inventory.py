"""What a machine has, as words and rows: for the drawing of `topo`, and for pages. Pure."""

from __future__ import annotations

from ompbind.devices.visible import VENDORS, make_visible, why_not
from ompbind.messages import counted, format_size
from ompbind.render.lists import short_list
from ompbind.render.words import Row, Rows

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ompbind.cpuset import CpuSet
    from ompbind.machine.topology import Device, Machine, Node, Topology

MAX_DEVICES = 4  # named in one row


def describe_machine(machine: Machine) -> str:
    """Return `2 packages, 2 NUMA nodes, 16 cores, 32 cpus, 64.0 GiB`."""
    topology = machine.topology
    memory = [n.memory_bytes for n in topology.nodes if n.memory_bytes is not None]
    counts = [
        (len(topology.groups("package")), "package"),
        (len(topology.nodes) if topology.numa else 0, "NUMA node"),
        (len(topology.groups("core")), "core"),
        (len(topology.cpus), "cpu"),
    ]
    words = [counted(count, noun) for count, noun in counts if count]
    words += [format_size(sum(memory))] if memory else []
    return ", ".join(words)


def describe_caches(machine: Machine) -> str:
    """Return `L3 32.0 MiB × 2, L2 1.0 MiB × 16`, the largest first; "" if none are known."""
    sizes: dict[str, dict[int, int]] = {}
    for cache in machine.caches:
        counts = sizes.setdefault(cache.name, {})
        counts[cache.bytes] = counts.get(cache.bytes, 0) + 1
    texts = []
    for name in sorted(sizes, key=lambda name: (-int(name[1]), name)):
        each = [f"{format_size(size)} × {count}" for size, count in sizes[name].items()]
        texts.append(f"{name} {' and '.join(each)}")
    return ", ".join(texts)


def describe_memory(node: Node) -> str:
    """Return `64.0 GiB`, with its kind where that is not DRAM: `16.0 GiB HBM`; "" where nothing is
    known of it."""
    if node.memory_bytes is None:
        return ""
    size = format_size(node.memory_bytes) if node.memory_bytes else "no memory"
    return f"{size} {node.kind.upper()}" if node.kind not in ("", "dram") else size


def name_kind(kind: int, kinds: int) -> str:
    """Return what a kind of cores is called, as --kind does where it can."""
    if kind == kinds - 1:
        return "performance"
    return "efficiency"


def list_exceptions(machine: Machine) -> list[tuple[str, str]]:
    """Return what is unusual, by name."""
    topology, allowed = machine.topology, machine.allowed
    lines = [
        ("not allowed: cpus", topology.online - allowed.cpus),
        ("not allowed: memory of nodes", topology.node_numbers - allowed.nodes),
        ("offline: cpus", topology.offline),
        ("isolated: cpus", topology.isolated),
        ("without timer ticks (nohz_full): cpus", topology.nohz_full),
    ]
    exceptions = [(name, short_list(cpus)) for name, cpus in lines if cpus]
    kinds = topology.groups("kind")
    for n, cpus in enumerate(kinds):
        name = f"{name_kind(n, len(kinds))} cores (kind {n}): cpus"
        exceptions.append((name, short_list(cpus)))
    if allowed.quota is not None:
        exceptions.append(("cgroup quota:", f"{allowed.quota:g} cpus' worth of time"))
    if not machine.can_bind:
        exceptions.append(("this system", "cannot bind processes to cpus or memory"))
    elif not topology.nodes:
        exceptions.append(("NUMA nodes:", "hidden in this container"))
    return exceptions or [("allowed:", "everything")]


def make_node_rows(machine: Machine) -> Rows:
    """Return a row for each NUMA node."""
    rows = []
    for node in machine.topology.nodes:
        size = describe_memory(node) or "-"
        allowed = "yes" if node.node in machine.allowed.nodes else "no"
        rows.append(Row((str(node.node), size, short_list(node.cpus) or "none", allowed)))
    return Rows(("node", "memory", "cpus", "memory allowed"), tuple(rows))


def make_distance_rows(topology: Topology) -> Rows:
    """Return the table of distances between nodes, its first column their numbers."""
    numbers = [str(node.node) for node in topology.nodes]
    rows = tuple(
        Row((number, *map(str, row)))
        for number, row in zip(numbers, topology.distances, strict=True)
    )
    return Rows(("", *numbers), rows)


def make_device_rows(topology: Topology, most: int = MAX_DEVICES) -> Rows:
    """Return devices of one kind near the same cpus as one row, but those with names separately;
    GPUs by the names that --near reads as well."""
    groups: dict[tuple[str, int | None, CpuSet, str], list[Device]] = {}
    for device in topology.devices:
        key = (device.kind, device.node, device.cpus, device_remark(device))
        groups.setdefault(key, []).append(device)
    numbers = number_gpus(topology)
    rows = []
    for (kind, node, cpus, remark), devices in groups.items():
        shown = devices if devices[0].pci in numbers else devices[:most]
        names = [f"{numbers.get(d.pci, '')} {d.pci}".strip() for d in shown]
        more = f"  and {len(devices) - most} more" if len(devices) > len(shown) else ""
        place = f"node {node}" if node is not None else "no node"
        rows.append(Row((kind, place, short_list(cpus), "  ".join(names) + more, remark)))
    return Rows(("device", "node", "cpus near it", "address", "remark"), tuple(rows))


def number_gpus(topology: Topology) -> dict[str, str]:
    """Return the names by which --near reads the GPUs that workers may see, by PCI address."""
    visible = make_visible(topology.devices, {})
    return {gpu.device.pci: f"gpu{n}" for n, gpu in enumerate(visible.gpus)}


def device_remark(device: Device) -> str:
    """Return the names of a device, whose it is, and what keeps workers from using it."""
    remarks = [" ".join(device.names)] if device.names else []
    if device.vendor in VENDORS and device.kind != "nic":
        remarks.append(f"{VENDORS[device.vendor]} {device.vendor}:{device.model}".rstrip(":"))
    if device.kind == "gpu" and (reason := why_not(device)):
        remarks.append(reason)
    elif device.driver == "":
        remarks.append("has no driver")
    elif device.ports and all(port.up is False for port in device.ports):
        remarks.append("has no link")
    return ", ".join(remarks)
