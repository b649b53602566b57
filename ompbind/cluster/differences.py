"""How a machine differs from the one that stands for its kind. Pure."""

from __future__ import annotations

from ompbind.cpuset import CpuSet
from ompbind.messages import counted, format_size, label, plural
from ompbind.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ompbind.machine.topology import Cpu, Device, Level, Machine, Topology

# How cpus are grouped; the first one that differs is named for another numbering.
COMPARED: tuple[Level, ...] = ("node", "package", "core", "l3", "die", "l2", "cluster", "book",
                               "drawer", "kind")  # fmt: skip
NOUNS = {"l3": "L3 cache", "l2": "L2 cache", "kind": "kind of core"}
# Firmware keeps a little of each node for itself; a module of memory is more than this.
MEMORY_TOLERANCE = 0.02
# Two machines are of one kind if they differ in at most an eighth of their cpus or of their cores.
TOLERANCE = 8
MOST_DEVICES = 4  # named in one text
LONGEST_LIST = 40  # characters of a list of cpus


class Difference(Record):
    """Something that a host has otherwise than its kind. `about`: a word that programs may test:
    "cpus", "offline", "isolated", "structure", "numbering", "nodes", "memory", "distances",
    "allowed", "quota", "devices" or "system"; `text`: a clause about the host."""

    about: str
    text: str


def are_similar(one: Machine, other: Machine) -> bool:
    """Whether both can be of one kind: nearly as many cpus, or as many cores where hyperthreads
    are switched off."""
    cpus = [len(m.topology.online | m.topology.offline) for m in (one, other)]
    cores = [len(m.topology.groups("core")) for m in (one, other)]
    return any(
        min(counts) and max(counts) - min(counts) <= max(1, max(counts) // TOLERANCE)
        for counts in (cpus, cores)
    )


def list_differences(machine: Machine, kind: Machine) -> tuple[Difference, ...]:
    """Return how a machine differs from its kind in what plans depend on; () if in nothing."""
    here, there = machine.topology, kind.topology
    return (
        *compare_cpus(here, there),
        *compare_levels(here, there),
        *compare_nodes(here, there),
        *compare_limits(machine, kind),
        *compare_devices(here.devices, there.devices),
    )


def compare_cpus(here: Topology, there: Topology) -> list[Difference]:
    """Compare which cpus there are, and which are kept free of other work."""
    differences = []
    offline = there.online & here.offline
    missing = there.online - here.online - offline
    more = here.online - there.online
    if missing:
        text = f"{label('cpu', missing)} {be(missing)} missing"
        differences.append(Difference("cpus", text))
    if offline:
        text = f"{label('cpu', offline)} {be(offline)} offline"
        differences.append(Difference("offline", text))
    if more:
        text = f"{label('cpu', more)} {be(more)} online, but not in its kind"
        differences.append(Difference("cpus", text))
    common = here.online & there.online
    for name, ours, theirs in (
        ("isolated", here.isolated & common, there.isolated & common),
        ("nohz_full", here.nohz_full & common, there.nohz_full & common),
    ):
        if ours != theirs:
            text = f"{name} cpus: {ours or 'none'}, in its kind: {theirs or 'none'}"
            differences.append(Difference("isolated", text))
    return differences


def compare_levels(here: Topology, there: Topology) -> list[Difference]:
    """Compare how the cpus that both have are grouped: in how many groups of which sizes, and where
    these are the same, which cpus are together."""
    common = here.online & there.online
    ours = [c for c in here.cpus if c.cpu in common]
    theirs = [c for c in there.cpus if c.cpu in common]
    structure, numbering = [], []
    for level in COMPARED:
        groups, kind_groups = group_cpus(ours, level), group_cpus(theirs, level)
        noun = NOUNS.get(level, level)
        if not groups or not kind_groups:
            if groups or kind_groups:
                text = (
                    f"the machine {'says' if groups else 'does not say'} which cpus share a {noun}"
                )
                structure.append(Difference("structure", text))
        elif count_sizes(groups) != count_sizes(kind_groups):
            text = f"{counted(len(groups), noun)}, in its kind {len(kind_groups)}"
            if len(groups) == len(kind_groups):
                text = f"{plural(noun, 2)} of other sizes than in its kind"
            structure.append(Difference("structure", text))
        elif groups != kind_groups:
            numbering.append(Difference("numbering", name_moved(groups, kind_groups, noun)))
    return structure + numbering[:1]


def group_cpus(cpus: Sequence[Cpu], level: Level) -> dict[int, CpuSet]:
    """Return the groups of these cpus: NUMA nodes by number, others by their first cpu."""
    masks: dict[int, int] = {}
    for c in cpus:
        number = getattr(c, level)
        if number is not None:
            masks[number] = masks.get(number, 0) | 1 << c.cpu
    groups = {number: CpuSet.from_mask(mask) for number, mask in masks.items()}
    return groups if level == "node" else {group.first: group for group in groups.values()}


def count_sizes(groups: dict[int, CpuSet]) -> list[int]:
    return sorted(map(len, groups.values()))


def name_moved(groups: dict[int, CpuSet], kind_groups: dict[int, CpuSet], noun: str) -> str:
    """Return a text about the first cpu whose group is another one than in its kind."""
    number_of = {cpu: number for number, cpus in groups.items() for cpu in cpus}
    kind_number_of = {cpu: number for number, cpus in kind_groups.items() for cpu in cpus}
    cpu = next(
        cpu
        for cpu, number in sorted(number_of.items())
        if groups[number] != kind_groups.get(kind_number_of[cpu]) or number != kind_number_of[cpu]
    )
    ours, theirs = number_of[cpu], kind_number_of[cpu]
    if noun == "node":
        where, there = f"on node {ours}", f"on node {theirs}"
    else:
        where = f"in the {noun} of cpus {shorten(groups[ours])}"
        there = f"in that of cpus {shorten(kind_groups[theirs])}"
    if where == there:  # the node has the number, but other cpus
        where = f"beside cpus {shorten(groups[ours])}"
        there = f"beside cpus {shorten(kind_groups[theirs])}"
    return f"cpus are numbered differently: cpu {cpu} is {where}, in its kind {there}"


def shorten(cpus: CpuSet) -> str:
    text = str(cpus)
    return text if len(text) <= LONGEST_LIST else f"{text[:LONGEST_LIST].rpartition(',')[0]},…"


def compare_nodes(here: Topology, there: Topology) -> list[Difference]:
    """Compare the NUMA nodes, their memory and the distances between them."""
    differences = []
    missing = there.node_numbers - here.node_numbers
    more = here.node_numbers - there.node_numbers
    if missing:
        text = f"{label('node', missing)} {be(missing)} missing"
        differences.append(Difference("nodes", text))
    if more:
        text = f"{label('node', more)} {be(more)} there, but not in its kind"
        differences.append(Difference("nodes", text))
    for node in here.nodes:
        other = there.find_node(node.node)
        if other is None or node.memory_bytes is None or other.memory_bytes is None:
            continue
        size, usual = node.memory_bytes, other.memory_bytes
        if abs(size - usual) > MEMORY_TOLERANCE * max(size, usual):
            texts = [format_size(count) if count else "no memory" for count in (size, usual)]
            text = f"node {node.node} has {texts[0]}, in its kind {texts[1]}"
            differences.append(Difference("memory", text))
    if not missing and not more and here.distances != there.distances:
        differences.append(
            Difference("distances", "other distances between nodes than in its kind")
        )
    return differences


def compare_limits(machine: Machine, kind: Machine) -> list[Difference]:
    """Compare what may be used of the machines, as far as both have it."""
    differences = []
    here, there = machine.topology, kind.topology
    common = here.online & there.online
    ours, theirs = machine.allowed.cpus & common, kind.allowed.cpus & common
    if ours != theirs:
        text = f"allowed cpus: {ours or 'none'}, in its kind: {theirs or 'none'}"
        differences.append(Difference("allowed", text))
    nodes = here.node_numbers & there.node_numbers
    ours, theirs = machine.allowed.nodes & nodes, kind.allowed.nodes & nodes
    if ours != theirs:
        text = f"allowed nodes: {ours or 'none'}, in its kind: {theirs or 'none'}"
        differences.append(Difference("allowed", text))
    if machine.allowed.quota != kind.allowed.quota:
        text = f"quota: {write_quota(machine)}, in its kind: {write_quota(kind)}"
        differences.append(Difference("quota", text))
    if here.numa != there.numa or machine.can_bind != kind.can_bind:
        differences.append(Difference("system", "another operating system or kernel"))
    return differences


def write_quota(machine: Machine) -> str:
    quota = machine.allowed.quota
    return "none" if quota is None else f"{quota:g} cpus"


def compare_devices(here: Sequence[Device], there: Sequence[Device]) -> list[Difference]:
    """Compare which devices are where; virtual functions come and go, and are left out."""
    ours, theirs = by_address(here), by_address(there)
    differences = []
    for verb, names in (
        ("missing", [n for n in theirs if n not in ours]),
        ("there, but not in its kind", [n for n in ours if n not in theirs]),
    ):
        if names:
            more = f" and {len(names) - MOST_DEVICES} more" if names[MOST_DEVICES:] else ""
            text = f"{', '.join(names[:MOST_DEVICES])}{more} {be(names)} {verb}"
            differences.append(Difference("devices", text))
    for name, device in ours.items():
        other = theirs.get(name)
        if other is not None and device.node != other.node:
            text = f"{name} is {near(device)}, in its kind {near(other)}"
            differences.append(Difference("devices", text))
    return differences


def by_address(devices: Sequence[Device]) -> dict[str, Device]:
    return {f"{d.kind} {d.pci}": d for d in devices if not d.virtual and not d.hidden}


def near(device: Device) -> str:
    return "near no node" if device.node is None else f"near node {device.node}"


def be(things: CpuSet | list[str]) -> str:
    return "is" if len(things) == 1 else "are"
