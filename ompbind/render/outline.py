"""A machine as a tree of parts, repeated ones folded, so that a large one fits a screen. Pure."""

from __future__ import annotations

from math import log2

from ompbind.cpuset import CpuSet
from ompbind.machine.topology import TREE
from ompbind.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ompbind.machine.topology import Cpu, Level, Machine

NAMES = {"l3": "L3", "l2": "L2"}


class Part(Record):
    """A part of a machine: `names` of all that it is at once ("package 0", "node 0"), its cpus, the
    cores in it when it is a leaf, else its parts. `alike` tells how many parts of the same shape
    follow it, which are not drawn, and `alike_cpus` which cpus those hold."""

    names: tuple[str, ...]
    cpus: CpuSet
    memory_bytes: int | None = None
    cores: tuple[CpuSet, ...] = ()
    parts: tuple[Part, ...] = ()
    alike: int = 0
    alike_cpus: CpuSet = CpuSet()
    shape: tuple[object, ...] = ()


def make_outline(machine: Machine) -> tuple[Part, ...]:
    """The machine's top parts, packages as a rule, what is the same told once."""
    topology = machine.topology
    shared = [level for level in TREE if is_shared(topology.cpus, level)]
    return make_parts(machine, topology.cpus, shared)


def is_shared(cpus: Sequence[Cpu], level: Level) -> bool:
    """Whether the machine says the level, and it is more than a core's own."""
    by_group: dict[int, set[int | None]] = {}
    for c in cpus:
        number = getattr(c, level)
        if number is not None:
            by_group.setdefault(number, set()).add(c.core if c.core is not None else -1 - c.cpu)
    single = level in ("package", "node") and len(by_group) > 0
    return single or any(len(cores) > 1 for cores in by_group.values())


def make_parts(machine: Machine, cpus: Sequence[Cpu], levels: Sequence[Level]) -> tuple[Part, ...]:
    """`cpus` by the coarsest of `levels`, together with those levels that part them alike."""
    splits = {level: split(cpus, level) for level in levels}
    if not splits:
        return ()
    fewest = min(len(groups) for groups in splits.values())
    first = next(level for level in splits if len(splits[level]) == fewest)
    groups = splits[first]
    same = [level for level in splits if splits[level] == groups]
    rest = [level for level in levels if level not in same]
    parts = [make_part(machine, group, same, rest) for group in groups]
    return tuple(fold(parts))


def make_part(
    machine: Machine, cpus: tuple[Cpu, ...], same: Sequence[Level], rest: Sequence[Level]
) -> Part:
    own = CpuSet(c.cpu for c in cpus)
    names, memory = [], None
    for level in same:
        number = getattr(cpus[0], level)
        if number is None:
            names.append(f"no {NAMES.get(level, level)}")
            continue
        names.append(f"{NAMES.get(level, level)} {number}")
        if level == "node" and (node := machine.topology.find_node(number)):
            memory = node.memory_bytes
    parts = make_parts(machine, cpus, rest)
    cores = () if parts else tuple(CpuSet(c.cpu for c in g) for g in split(cpus, "core"))
    topology = machine.topology
    shape = (
        tuple(same),
        memory and round(2 * log2(memory)),  # a few reserved MiB make no other shape
        [len(core) for core in cores],
        [c.kind for c in cpus],
        [(*part.shape, part.alike) for part in parts],
        len(own & machine.allowed.cpus),
        len(own & topology.isolated),
    )
    return Part(tuple(names), own, memory, cores, parts, shape=shape)


def split(cpus: Sequence[Cpu], level: Level) -> list[tuple[Cpu, ...]]:
    """The cpus by group, groups by their lowest cpu; cpus of no core each by itself."""
    groups: dict[tuple[int | None, int | None], list[Cpu]] = {}
    for c in cpus:
        number = getattr(c, level)
        alone = c.cpu if number is None and level == "core" else None
        groups.setdefault((number, alone), []).append(c)
    return [tuple(group) for group in groups.values()]


def fold(parts: Sequence[Part]) -> list[Part]:
    """Runs of parts of one shape as their first, with the number of the others."""
    folded: list[Part] = []
    for part in parts:
        last = folded[-1] if folded else None
        if last is not None and last.shape == part.shape:
            more = last.alike_cpus | part.cpus
            folded[-1] = last.replace(alike=last.alike + 1, alike_cpus=more)
        else:
            folded.append(part)
    return folded
