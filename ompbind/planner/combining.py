"""Finds which caches of unlike size parts should fill together, so that few are divided. Pure.

A block is a set of groups (caches, say) that some parts fill exactly. In a block of several groups,
the parts can be laid along the groups one after another; m groups and k parts then make m + k - 1
pairs of a part and a group of which it has cores, and no fewer would connect them. So with the
numbers of groups and parts given, the fewest pairs come with the most blocks; and on each level
above, with the fewest groups in each block. Which sets are blocks is a matter of their sizes alone:
of `total` cores, k parts of `length` cores or one more can be made if k * length <= total <= k *
(length + 1).
"""

from __future__ import annotations

from ompbind.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from ompbind.machine.topology import Level
    from ompbind.planner.cores import Core

    # The numbers of shorter and of longer parts that have so many cores together.
    FindPoints = Callable[[int], Sequence[tuple[int, int]]]

    # A set of groups, and how many parts fill it.
    Block = tuple[list[tuple[Core, ...]], int]
    # Of a row: how many groups of each sort are in it, the sort of the last one in the open block
    # (-1: no block is open), and how many shorter and longer parts fill the blocks before.
    State = tuple[tuple[int, ...], int, int, int]


class Sort(Record):
    """Groups that can stand for one another: equal in size, and in the larger groups they are in.

    `labels`: the larger group at each level; None where each of the sort is a group for itself.
    """

    labels: tuple[int | None, ...]
    members: tuple[tuple[Core, ...], ...]

    @property
    def size(self) -> int:
        return len(self.members[0])


def sort_alone(groups: Iterable[tuple[Core, ...]]) -> list[Sort]:
    """Return groups by their size, the largest first."""
    by_size: dict[int, list[tuple[Core, ...]]] = {}
    for group in groups:
        by_size.setdefault(len(group), []).append(group)
    return [Sort((None,), tuple(by_size[size])) for size in sorted(by_size, reverse=True)]


def sort_by_tree(cores: Sequence[Core], levels: Sequence[Level]) -> list[Sort]:
    """Return the smallest groups that the levels make together, by what they are in."""
    leaves: dict[tuple[int | None, ...], list[Core]] = {}
    for core in cores:
        labels = tuple(getattr(core.first_cpu, level) for level in levels)
        leaves.setdefault(labels, []).append(core)
    shared: dict[tuple[int, int | None], int] = {}
    for leaf in leaves:
        for i, label in enumerate(leaf):
            shared[i, label] = shared.get((i, label), 0) + 1
    sorts: dict[tuple[tuple[int | None, ...], int], list[tuple[Core, ...]]] = {}
    for leaf, members in leaves.items():
        labels = tuple(label if shared[i, label] > 1 else None for i, label in enumerate(leaf))
        sorts.setdefault((labels, len(members)), []).append(tuple(members))
    return [Sort(labels, tuple(members)) for (labels, _), members in sorts.items()]


def find_blocks(
    sorts: Sequence[Sort],
    worths: Sequence[int],
    most: int,
    find_points: FindPoints,
    whole: tuple[int, int],
    steps: int,
) -> list[Block] | None:
    """Return the blocks whose groups are worth the least, and less than `most`; []: there are none;
    None: the search would take more than so many steps. `whole`: the numbers of shorter and longer
    parts.

    Groups are laid in a row, one at a time, and wherever parts can end there a block may. What
    counts of a row is which groups are in it, where its last block ended and the last group of the
    open one: of rows that have these in common, the cheapest is kept.
    """
    # Inside a block, groups stand in the order of the tree: what is in one larger group, together.
    homes = {labels: i for i, labels in enumerate(dict.fromkeys(sort.labels for sort in sorts))}
    sorts = sorted(sorts, key=lambda sort: homes[sort.labels])
    joins = [[sum(w for w, a, b in zip(worths, one.labels, other.labels, strict=True)
                  if a is None or a != b) for other in sorts] for one in sorts]  # fmt: skip
    # A group that no parts fill needs others: each of a block of two or more bears half a join.
    needs = [
        0 if find_points(sort.size) else
        min([*joins[i], *(row[i] for row in joins)]) for i, sort in enumerate(sorts)
    ]  # fmt: skip
    numbers = [len(sort.members) for sort in sorts]
    # Each state: what the row costs, its cores, twice the least cost of what is left.
    layer: dict[State, tuple[int, int, int]] = {
        ((0,) * len(sorts), -1, 0, 0): (
            0, 0, sum(n * need for n, need in zip(numbers, needs, strict=True)))
    }  # fmt: skip
    back: dict[State, tuple[State, int]] = {}  # the state before, and the sort added
    points_at: dict[int, Sequence[tuple[int, int]]] = {}
    every = range(len(sorts))
    for _ in range(sum(numbers)):
        further: dict[State, tuple[int, int, int]] = {}
        if steps < 0:
            return None
        for state, (cost, total, rest) in layer.items():
            used, last, shorts, longs = state
            steps -= len(sorts)
            if last < 0:  # some block has the first group left: this one, its first
                candidates = [next(i for i in every if used[i] < numbers[i])]
            else:
                candidates = [i for i in every[last:] if used[i] < numbers[i]]
            for i in candidates:
                price, left = cost + (joins[last][i] if last >= 0 else 0), rest - needs[i]
                if 2 * price + left >= 2 * most:
                    continue
                reached = total + sorts[i].size
                if reached not in points_at:
                    points_at[reached] = find_points(reached)
                steps -= len(sorts) + 8 * len(points_at[reached]) + 8
                row = (*used[:i], used[i] + 1, *used[i + 1 :])
                ends = [(-1, *p) for p in points_at[reached] if p[0] >= shorts and p[1] >= longs]
                for end in [(i, shorts, longs), *ends]:
                    after = (row, *end)
                    if price < further.get(after, (price + 1,))[0]:
                        further[after] = (price, reached, left)
                        back[after] = (state, i)
        layer = further
    state = (tuple(numbers), -1, *whole)
    if state not in layer:
        return []
    return trace(sorts, back, state)


def trace(
    sorts: Sequence[Sort],
    back: dict[State, tuple[State, int]],
    state: State,
) -> list[Block]:
    """Return the blocks of the row that led to a state."""
    blocks: list[Block] = []
    groups: list[tuple[Core, ...]] = []
    end = state
    while state in back:
        before, i = back[state]
        groups.append(sorts[i].members[state[0][i] - 1])
        if before[1] < 0:
            blocks.append((groups, end[2] + end[3] - before[2] - before[3]))
            groups, end = [], before
        state = before
    return blocks[::-1]


def pair(
    groups: Sequence[tuple[Core, ...]], find_points: FindPoints, whole: tuple[int, int]
) -> list[Block]:
    """Return blocks of one group or two, as many as come up, and one of the rest."""
    by_size: dict[int, list[tuple[Core, ...]]] = {}
    for group in sorted(groups, key=len, reverse=True):
        by_size.setdefault(len(group), []).append(group)
    blocks: list[Block] = []
    shorts, longs = whole

    for sizes in [(size,) for size in by_size] + [(a, b) for a in by_size for b in by_size]:
        for points in find_points(sum(sizes)):
            while (
                all(len(by_size[size]) >= sizes.count(size) for size in sizes)
                and points[0] <= shorts
                and points[1] <= longs
            ):
                blocks.append(([by_size[size].pop(0) for size in sizes], sum(points)))
                shorts, longs = shorts - points[0], longs - points[1]
    rest = [group for members in by_size.values() for group in members]
    return [*blocks, (rest, shorts + longs)] if rest else blocks
