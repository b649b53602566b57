"""Which hosts of a cluster are of one kind, and which differ from theirs. Pure."""

from __future__ import annotations

from ompbind.cluster.differences import are_similar, list_differences
from ompbind.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ompbind.cluster.differences import Difference
    from ompbind.cluster.snapshots import Described
    from ompbind.machine.topology import Machine


class Group(Record):
    """Hosts that get the same plan. `kind`: the number of their kind, from 0, the most frequent
    first; `positions`: theirs in the list of hosts; `path`: what describes them, None for the
    running machine; `differences`: from their kind, () for the group that stands for it."""

    kind: int
    positions: tuple[int, ...]
    machine: Machine
    path: str | None
    differences: tuple[Difference, ...] = ()


class Kind:
    """A kind of host that is being collected: the machine that stands for it, and its groups by
    their differences."""

    def __init__(self, first: Described, machine: Machine) -> None:
        self.machine = machine
        self.name = first.kind
        # By what is different, and by all cpus where anything is: a text names only an example.
        self.groups: dict[tuple[tuple[Difference, ...], object], list[Described]] = {}

    def add(self, described: Described) -> None:
        differences = list_differences(described.machine, self.machine)
        cpus = described.machine.topology.cpus if differences else ()
        self.groups.setdefault((differences, cpus), []).append(described)

    @property
    def count(self) -> int:
        return sum(len(d.positions) for group in self.groups.values() for d in group)


def make_groups(
    described: Sequence[Described], read_kind: Callable[[str], Machine]
) -> tuple[Group, ...]:
    """Return the groups of hosts: by kind, in each the usual hosts before those that differ.

    `described`: the most frequent first, so that it stands for its kind. A host whose kind is named
    belongs to that kind, whose machine `read_kind` returns; any other to the first one that is
    similar.
    """
    kinds: list[Kind] = []
    for one in described:
        kind = next((k for k in kinds if is_of(one, k)), None)
        if kind is None:
            kind = Kind(one, one.machine if one.kind is None else read_kind(one.kind))
            kinds.append(kind)
        kind.add(one)
    kinds.sort(key=lambda k: -k.count)
    groups = []
    for number, kind in enumerate(kinds):
        for key in sorted(kind.groups, key=lambda key: bool(key[0])):
            members = kind.groups[key]
            positions = sorted(p for member in members for p in member.positions)
            first = members[0]
            groups.append(Group(number, tuple(positions), first.machine, first.path, key[0]))
    return tuple(groups)


def is_of(one: Described, kind: Kind) -> bool:
    """Whether hosts belong to a kind: to the one that is named, else to a similar one."""
    if one.kind is not None or kind.name is not None:
        return one.kind == kind.name
    return are_similar(one.machine, kind.machine)
