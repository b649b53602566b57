"""Chooses things for few ranks that lie far apart: --distribution spread."""

from __future__ import annotations

from ompbind.machine.topology import TREE
from ompbind.planner.division import apportion

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ompbind.machine.topology import Cpu


def choose_spread(first_cpus: Sequence[Cpu], count: int) -> list[int]:
    """Return the positions of `count` things, ascending, as far apart as the machine's tree allows:
    as many in each package as in any other, then in each node, and so on; evenly spaced below that.
    All of them where there are no more. `first_cpus`: the first cpu of each thing."""
    return sorted(choose(first_cpus, range(len(first_cpus)), count))


def choose(first_cpus: Sequence[Cpu], among: Sequence[int], count: int) -> list[int]:
    """Return the positions chosen among some."""
    if count >= len(among):
        return list(among)
    groups = split_coarsely(first_cpus, among)
    if count <= len(groups):
        return [groups[i * len(groups) // count][0] for i in range(count)]
    if len(groups) == 1:
        return [among[i * len(among) // count] for i in range(count)]
    each = [1] * len(groups)
    counts = apportion(each, count, each, [len(group) for group in groups])
    pairs = zip(groups, counts, strict=True)
    return [i for group, number in pairs for i in choose(first_cpus, group, number)]


def split_coarsely(first_cpus: Sequence[Cpu], among: Sequence[int]) -> list[list[int]]:
    """Return the positions by the coarsest level of the tree that parts them into several groups of
    which one has several; else in one group."""
    best: list[list[int]] = [list(among)]
    for level in TREE:
        groups: dict[int | None, list[int]] = {}
        for i in among:
            groups.setdefault(getattr(first_cpus[i], level), []).append(i)
        if 1 < len(groups) < len(among) and (len(best) == 1 or len(groups) < len(best)):
            best = list(groups.values())
    return best
