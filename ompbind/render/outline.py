"""A machine as a tree of parts, and which of them memory and devices belong to. Pure."""

from __future__ import annotations

from math import log2

from ompbind.cpuset import CpuSet, union
from ompbind.machine.topology import TREE
from ompbind.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ompbind.machine.topology import Cpu, Device, Level, Machine, Node, Topology

NAMES = {"l3": "L3", "l2": "L2"}  # of levels that are not called so
HOLDERS = ("drawer", "book", "package", "node")  # that memory and devices belong to


class Part(Record):
    """A part of a machine: the cpus that share all of `levels`."""

    levels: tuple[Level, ...]
    numbers: tuple[int | None, ...]  # of the group of each level; None: it is in none
    cpus: CpuSet
    cache_bytes: tuple[int, ...] = ()  # of each level, 0 where it is no cache or of unknown size
    memory_nodes: tuple[Node, ...] = ()  # those without cpus that it is nearest to
    cores: tuple[CpuSet, ...] = ()  # of a leaf
    parts: tuple[Part, ...] = ()  # of any other

    @property
    def names(self) -> tuple[str, ...]:
        """The names of everything that it is: ("package 0", "node 0")."""
        return tuple(map(name_part, self.levels, self.numbers))


def name_part(level: Level, number: int | None) -> str:
    name = NAMES.get(level, level)
    return f"no {name}" if number is None else f"{name} {number}"


def make_tree(machine: Machine) -> tuple[Part, ...]:
    """Return the machine's top parts, usually packages."""
    topology = machine.topology
    shared = [level for level in TREE if is_shared(topology.cpus, level)]
    parts = make_parts(machine, topology.cpus, shared)
    loose = [(find_home(topology, n), n) for n in topology.nodes if not n.cpus]
    return tuple(attach(part, loose) for part in parts)


def attach(part: Part, loose: Sequence[tuple[CpuSet, Node]]) -> Part:
    """Return the part with the nodes without cpus that belong to it, each where it fits best.
    `loose`: such nodes, with the cpus that they are nearest to."""
    mine = [(home, n) for home, n in loose if home and home <= part.cpus and has_holder(part)]
    if not mine:
        return part
    parts = tuple(attach(inner, mine) for inner in part.parts)
    taken = {n.node for inner in parts for n in list_attached(inner)}
    nodes = tuple(n for _, n in mine if n.node not in taken)
    return part.replace(parts=parts, memory_nodes=nodes)


def list_attached(part: Part) -> list[Node]:
    """Return the nodes without cpus in a part."""
    return [*part.memory_nodes, *(n for inner in part.parts for n in list_attached(inner))]


def list_loose(topology: Topology, parts: Sequence[Part]) -> list[Node]:
    """Return the nodes without cpus that belong to no part of these."""
    attached = {n.node for part in parts for n in list_attached(part)}
    return [n for n in topology.nodes if not n.cpus and n.node not in attached]


def has_holder(part: Part) -> bool:
    """Whether nodes and devices belong to a part, or to one in it, and not only to caches."""
    return any(level in HOLDERS for level in part.levels) or any(map(has_holder, part.parts))


def find_home(topology: Topology, node: Node) -> CpuSet:
    """Return the cpus that are nearest to a node without any: of one node or of several that are
    equally near, or near the GPU whose memory it is; none where nothing is known."""
    if node.initiators:
        return union(n.cpus for n in topology.nodes if n.node in node.initiators)
    gpu = next((d for d in topology.devices if d.memory_node == node.node), None)
    if gpu and gpu.cpus and gpu.cpus != topology.online:
        return gpu.cpus
    if not topology.distances:
        return CpuSet()
    position = [n.node for n in topology.nodes].index(node.node)
    distances = {
        n.node: min(row[position], topology.distances[position][at])
        for at, (n, row) in enumerate(zip(topology.nodes, topology.distances, strict=True))
        if n.cpus
    }
    least = min(distances.values(), default=0)
    return union(n.cpus for n in topology.nodes if distances.get(n.node) == least)


def find_device_home(topology: Topology, device: Device) -> CpuSet:
    """Return the cpus of a device's node, else those near it unless that is all of them."""
    node = None if device.node is None else topology.find_node(device.node)
    if node is not None:
        return node.cpus or find_home(topology, node)
    return CpuSet() if device.cpus == topology.online else device.cpus


def round_memory(size: int | None) -> int | None:
    """Return a size that is equal for sizes that differ by what firmware keeps."""
    return size and round(2 * log2(size))


def is_shared(cpus: Sequence[Cpu], level: Level) -> bool:
    """Whether the machine has the level, and some group of it has more than one core."""
    by_group: dict[int, set[int | None]] = {}
    for c in cpus:
        number = getattr(c, level)
        if number is not None:
            by_group.setdefault(number, set()).add(c.core if c.core is not None else -1 - c.cpu)
    single = level in ("package", "node") and len(by_group) > 0
    return single or any(len(cores) > 1 for cores in by_group.values())


def make_parts(machine: Machine, cpus: Sequence[Cpu], levels: Sequence[Level]) -> tuple[Part, ...]:
    """Divide `cpus` by the coarsest of `levels`, and by those that divide them in the same way."""
    splits = {level: split(cpus, level) for level in levels}
    if not splits:
        return ()
    fewest = min(len(groups) for groups in splits.values())
    first = next(level for level in splits if len(splits[level]) == fewest)
    groups = splits[first]
    same = [level for level in splits if splits[level] == groups]
    rest = [level for level in levels if level not in same]
    parts = [make_part(machine, group, same, rest) for group in groups]
    return tuple(parts)


def make_part(
    machine: Machine, cpus: tuple[Cpu, ...], same: Sequence[Level], rest: Sequence[Level]
) -> Part:
    numbers = CpuSet(c.cpu for c in cpus)
    groups = tuple(getattr(cpus[0], level) for level in same)
    sizes = tuple(find_size(machine, level, numbers) for level in same)
    parts = make_parts(machine, cpus, rest)
    cores = () if parts else tuple(CpuSet(c.cpu for c in g) for g in split(cpus, "core"))
    return Part(tuple(same), groups, numbers, sizes, (), cores, parts)


def find_size(machine: Machine, level: Level, cpus: CpuSet) -> int:
    """Return the bytes of the cache that these cpus share; 0 if the level is none."""
    name = NAMES.get(level, "")
    return next((c.bytes for c in machine.caches if c.name == name and c.cpus == cpus), 0)


def split(cpus: Sequence[Cpu], level: Level) -> list[tuple[Cpu, ...]]:
    """Return the groups in the order of their lowest cpu; a cpu without a core is its own group."""
    groups: dict[tuple[int | None, int | None], list[Cpu]] = {}
    for c in cpus:
        number = getattr(c, level)
        alone = c.cpu if number is None and level == "core" else None
        groups.setdefault((number, alone), []).append(c)
    return [tuple(group) for group in groups.values()]
