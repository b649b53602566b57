"""A machine as a tree of parts, whole, or with similar ones folded so that a large one fits a
screen. Pure."""

from __future__ import annotations

from math import log2

from ompbind.cpuset import CpuSet, union
from ompbind.machine.topology import TREE
from ompbind.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ompbind.machine.topology import Cpu, Level, Machine

NAMES = {"l3": "L3", "l2": "L2"}


class Part(Record):
    """A part of a machine: the cpus that share all of `levels`."""

    levels: tuple[Level, ...]
    numbers: tuple[int | None, ...]  # of the group of each level; None: it is in none
    cpus: CpuSet
    memory_bytes: int | None = None
    cores: tuple[CpuSet, ...] = ()  # of a leaf
    parts: tuple[Part, ...] = ()  # of any other
    # In an outline, the first name and the cpus of each part of the same shape after it, which are
    # not drawn.
    similar_parts: tuple[tuple[str, CpuSet], ...] = ()
    shape: tuple[object, ...] = ()  # equal for parts that look the same

    @property
    def names(self) -> tuple[str, ...]:
        """The names of everything that it is: ("package 0", "node 0")."""
        return tuple(
            name_part(level, number)
            for level, number in zip(self.levels, self.numbers, strict=True)
        )

    @property
    def similar_cpus(self) -> CpuSet:
        """The cpus of the parts that are not drawn."""
        return union(cpus for _, cpus in self.similar_parts)


def name_part(level: Level, number: int | None) -> str:
    name = NAMES.get(level, level)
    return f"no {name}" if number is None else f"{name} {number}"


def make_tree(machine: Machine) -> tuple[Part, ...]:
    """Return the machine's top parts, usually packages."""
    topology = machine.topology
    shared = [level for level in TREE if is_shared(topology.cpus, level)]
    return make_parts(machine, topology.cpus, shared)


def make_outline(machine: Machine) -> tuple[Part, ...]:
    """Return the machine's top parts, similar ones folded at every level."""
    return tuple(fold(make_tree(machine)))


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
    topology = machine.topology
    groups: dict[Level, int | None] = {level: getattr(cpus[0], level) for level in same}
    node = groups.get("node")
    found = None if node is None else topology.find_node(node)
    memory = found.memory_bytes if found else None
    parts = make_parts(machine, cpus, rest)
    cores = () if parts else tuple(CpuSet(c.cpu for c in g) for g in split(cpus, "core"))
    shape = (
        tuple(same),
        memory and round(2 * log2(memory)),  # a few reserved MiB do not matter
        tuple(len(core) for core in cores),
        tuple(c.kind for c in cpus),
        tuple(part.shape for part in parts),
        len(numbers & machine.allowed.cpus),
        len(numbers & topology.isolated),
    )
    return Part(tuple(groups), tuple(groups.values()), numbers, memory, cores, parts, shape=shape)


def split(cpus: Sequence[Cpu], level: Level) -> list[tuple[Cpu, ...]]:
    """Return the groups in the order of their lowest cpu; a cpu without a core is its own group."""
    groups: dict[tuple[int | None, int | None], list[Cpu]] = {}
    for c in cpus:
        number = getattr(c, level)
        alone = c.cpu if number is None and level == "core" else None
        groups.setdefault((number, alone), []).append(c)
    return [tuple(group) for group in groups.values()]


def fold(parts: Sequence[Part]) -> list[Part]:
    """Replace runs of parts of one shape by the first, with the names and cpus of the others."""
    folded: list[Part] = []
    for part in parts:
        last = folded[-1] if folded else None
        if last is not None and last.shape == part.shape:
            similar = (*last.similar_parts, (part.names[0], part.cpus))
            folded[-1] = last.replace(similar_parts=similar)
        else:
            folded.append(part)
    return [part.replace(parts=tuple(fold(part.parts))) for part in folded]
