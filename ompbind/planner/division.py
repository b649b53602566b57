"""Divides cores into parts: what is best is in docs/explanation/binding.md. Pure algorithms.

The goals, in this order: no part crosses a node unless it must; the smallest part is as large as
possible, the largest one as small, the others as equal; the parts divide as few caches as possible,
the coarsest level first; then as few drawers, books, packages and dies. A part is a run of
neighbours in the tree's order, unless combining groups of unlike size divides fewer of them.
"""

from __future__ import annotations

from ompbind.planner.cores import split_by
from ompbind.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ompbind.machine.topology import Level
    from ompbind.planner.combining import Block
    from ompbind.planner.cores import Core

    # Levels with the worth of not dividing a group of each once more.
    Worths = Sequence[tuple[Level, int]]

# Families of levels: the earlier family comes first, and within one the level with fewer groups.
FAMILIES: tuple[tuple[Level, ...], ...] = (
    ("node",),
    ("l3", "cluster", "l2"),
    ("drawer", "book", "package", "die"),
)

# How many steps the searches of a plan may take, each less than a microsecond. Caches of a few
# different sizes need thousands.
MOST_STEPS = 300_000


def divide(cores: tuple[Core, ...], count: int) -> list[tuple[Core, ...]]:
    """Return `count` <= len(cores) parts of the machine; none crosses a node that it need not."""
    nodes = split_by(cores, "node")
    if count == 1 or not nodes[1:]:
        return split_evenly(cores, count)
    if count < len(nodes):
        return join_nodes(nodes, count)
    steps = MOST_STEPS // len(nodes)
    return [part for node, n in zip(nodes, count_parts(nodes, count), strict=True)
            for part in split_evenly(node, n, steps)]  # fmt: skip


def split_evenly(
    cores: tuple[Core, ...], count: int, steps: int = MOST_STEPS
) -> list[tuple[Core, ...]]:
    """Return `count` parts that differ by at most one core, or on a machine with several kinds of
    core by as little capacity as possible, and cross as few nodes and caches as possible."""
    if has_several_kinds(cores):
        return split_by_capacity(cores, count)
    return split_in_runs(cores, count, make_worths(cores), steps)


def has_several_kinds(cores: Sequence[Core]) -> bool:
    return any(core.first_cpu.kind != cores[0].first_cpu.kind for core in cores)


def weigh(cores: Sequence[Core]) -> int:
    """Return the capacity of cores: their number, where all are of one kind."""
    return sum(core.weight for core in cores)


# --- over nodes ----------------------------------------------------------------------------------


def join_nodes(nodes: Sequence[tuple[Core, ...]], count: int) -> list[tuple[Core, ...]]:
    """Return `count` < len(nodes) parts, runs of whole neighbouring nodes."""
    every = tuple(core for node in nodes for core in node)
    worths = make_worths(every)
    groups = [[{getattr(core.first_cpu, level) for core in node} for level, _ in worths]
              for node in nodes]  # fmt: skip

    def divided(start: int, end: int) -> int:
        """Return the worth of the groups that a run of nodes has a part of or all of."""
        return sum(
            worth * len(set().union(*(groups[n][i] for n in range(start, end))))
            for i, (_, worth) in enumerate(worths)
        )

    runs = cut([weigh(node) for node in nodes], count, divided)
    return [tuple(core for node in nodes[a:b] for core in node) for a, b in runs]


def cut(
    weights: Sequence[int], count: int, cost: Callable[[int, int], int]
) -> list[tuple[int, int]]:
    """Return `count` runs of consecutive groups, as [first, end).

    The lightest is as heavy as possible, then the heaviest as light, then the sum of the squares as
    small, then the sum of the costs; where that leaves a choice, earlier runs are longer.
    """
    sums = [0]
    for weight in weights:
        sums.append(sums[-1] + weight)

    def is_possible(low: int, high: int) -> bool:
        # Bit k of after[i]: the groups from i on can be cut into k runs that weigh low to high.
        after = [0] * len(sums)
        after[-1] = 1
        for i in reversed(range(len(weights))):
            for j in range(i + 1, len(sums)):
                if sums[j] - sums[i] > high:
                    break
                if sums[j] - sums[i] >= low:
                    after[i] |= after[j] << 1
        return bool(after[0] >> count & 1)

    low = largest(1, sums[-1] // count, lambda n: is_possible(n, sums[-1]))
    high = -largest(-sums[-1], -(sums[-1] // count), lambda n: is_possible(low, -n))
    # For the groups from i on, by the number of runs: squares, costs, the end of the first run
    # (negative, so that of several the longest is least).
    best: list[dict[int, tuple[int, int, int]]] = [{} for _ in sums]
    best[-1][0] = (0, 0, 0)
    for i in reversed(range(len(weights))):
        for j in range(i + 1, len(sums)):
            weight = sums[j] - sums[i]
            if weight > high:
                break
            if weight < low or not best[j]:
                continue
            price = cost(i, j)
            for runs, (squares, costs, _) in best[j].items():
                way = (squares + weight * weight, costs + price, -j)
                if runs < count and way < best[i].get(runs + 1, (way[0] + 1,)):
                    best[i][runs + 1] = way
    ends = [0]
    for left in range(count, 0, -1):
        ends.append(-best[ends[-1]][left][2])
    return list(zip(ends[:-1], ends[1:], strict=True))


def count_parts(nodes: Sequence[tuple[Core, ...]], count: int) -> list[int]:
    """Return how many of `count` >= len(nodes) parts each node has."""
    every = [core for node in nodes for core in node]
    sizes = [len(node) for node in nodes]
    if has_several_kinds(every):
        return apportion([weigh(node) for node in nodes], count, [1] * len(nodes), sizes)
    least, most = bound_counts(sizes, count)
    left = count - sum(least)
    room = [b - a for a, b in zip(least, most, strict=True)]
    counts = [n + more for n, more in zip(least, distribute(nodes, left, room), strict=True)]
    worths = [(level, worth) for level, worth in make_worths(every) if level != "node"]
    if not left or left == sum(room) or not worths:
        return counts
    steps = MOST_STEPS // len(nodes)
    numbers: dict[object, int] = {}
    forms = [numbers.setdefault(make_form(node, worths), len(numbers)) for node in nodes]
    if sum(room) * max(room) > steps:
        return counts  # parts of a core or two, on many nodes
    if max(room) == 1 and len({form for form, r in zip(forms, room, strict=True) if r}) == 1:
        return counts  # alike: whichever gets one more, as many caches are divided
    prices: dict[tuple[int, int], int] = {}

    def price(i: int, parts: int) -> int:
        """Return the worth of what dividing a node into so many parts divides."""
        key = (forms[i], parts)
        if key not in prices:
            prices[key] = weigh_divided(split_in_runs(nodes[i], parts, worths, steps), worths)
        return prices[key]

    spent = sum(price(i, n) for i, n in enumerate(counts))
    ranges = [range(a, b + 1) for a, b in zip(least, most, strict=True)]
    if spent == sum(min(price(i, n) for n in choices) for i, choices in enumerate(ranges)):
        return counts
    # By the number of parts for the nodes so far: what they divide, and the nodes' numbers.
    ways: dict[int, tuple[int, tuple[int, ...]]] = {0: (0, ())}
    for i, choices in enumerate(ranges):
        further: dict[int, tuple[int, tuple[int, ...]]] = {}
        lowest = count - sum(most[i + 1 :])
        for total, (cost, chosen) in ways.items():
            for n in choices:
                new = cost + price(i, n)
                if total + n >= lowest and new < further.get(total + n, (new + 1,))[0]:
                    further[total + n] = (new, (*chosen, n))
        ways = further
    cost, chosen = ways[count]
    return list(chosen) if cost < spent else counts


def bound_counts(sizes: Sequence[int], count: int) -> tuple[list[int], list[int]]:
    """Return the least and the largest number of parts of each node.

    All numbers between that sum up to `count` make parts whose smallest is as large as possible,
    then the largest as small, then the sum of the squares of all.
    """
    low = largest(1, min(sizes), lambda n: sum(size // n for size in sizes) >= count)

    def is_possible(high: int) -> bool:
        least = [-(-size // high) for size in sizes]
        return sum(least) <= count and all(
            n <= size // low for n, size in zip(least, sizes, strict=True)
        )

    high = -largest(-max(sizes), -low, lambda n: is_possible(-n))
    least, most = [-(-size // high) for size in sizes], [size // low for size in sizes]

    def squares(size: int, parts: int) -> int:
        length, longer = divmod(size, parts)
        return parts * length**2 + longer * (2 * length + 1)

    # One part more lessens a node's squares, by less each time (they are convex): so what lessens
    # them most is taken first.
    numbers: dict[int, int] = {}
    for size in sizes:
        numbers[size] = numbers.get(size, 0) + 1
    gains: dict[int, int] = {}
    for size, number in numbers.items():
        for n in range(-(-size // high), size // low):
            gain = squares(size, n) - squares(size, n + 1)
            gains[gain] = gains.get(gain, 0) + number
    left, last = count - sum(least), 0
    for gain in sorted(gains, reverse=True):
        if left <= 0:
            break
        left, last = left - gains[gain], gain

    def reach(size: int, parts: int, end: int, margin: int) -> int:
        while parts < end and squares(size, parts) - squares(size, parts + 1) >= margin:
            parts += 1
        return parts

    bounds = [*zip(sizes, least, most, strict=True)]
    if count == sum(least):
        return least, least
    return [reach(*b, last + 1) for b in bounds], [reach(*b, last) for b in bounds]


def distribute(groups: Sequence[tuple[Core, ...]], number: int, room: Sequence[int]) -> list[int]:
    """Return how many of `number` each group gets, at most its `room`: evenly by the tree, for the
    coarsest level first, in proportion to the room there."""
    parted = []
    for i, level in enumerate(("drawer", "book", "package", "node", "die", "l3", "cluster", "l2")):
        members: dict[int | None, list[int]] = {}
        for n, group in enumerate(groups):
            members.setdefault(getattr(group[0].first_cpu, level), []).append(n)
        if 1 < len(members) < len(groups):
            parted.append((len(members), i, [*members.values()]))
    if not parted or not number:
        return apportion(room, number, [0] * len(groups), room)
    members_of = min(parted)[2]
    rooms = [sum(room[n] for n in numbers) for numbers in members_of]
    result = [0] * len(groups)
    for numbers, part in zip(
        members_of, apportion(rooms, number, [0] * len(rooms), rooms), strict=True
    ):
        inner = distribute([groups[n] for n in numbers], part, [room[n] for n in numbers])
        for n, got in zip(numbers, inner, strict=True):
            result[n] = got
    return result


def crowd(cores: Sequence[Core], count: int) -> list[int]:
    """Return how many of `count` >= len(cores) ranks each core has: as many as every other or one
    more, those with more distributed evenly over the tree."""
    each, more = divmod(count, len(cores))
    return [each + n for n in distribute([(core,) for core in cores], more, [1] * len(cores))]


def apportion(
    weights: Sequence[int], count: int, least: Sequence[int], most: Sequence[int]
) -> list[int]:
    """Return how many of `count` parts each group gets, from its `least` to its `most`.

    Each next part goes to the group with the largest weight for its parts, half of the next one
    counted (Webster's method; ties: the first group).
    """
    counts = list(least)
    for _ in range(count - sum(least)):
        able = [i for i, n in enumerate(counts) if n < most[i]]
        best = max(able, key=lambda i: (weights[i] / (counts[i] + 0.5), -i))
        counts[best] += 1
    return counts


def largest(sure: int, most: int, fits: Callable[[int], bool]) -> int:
    """Return the largest number up to `most` that fits. `sure` fits; above the result none does."""
    while sure < most:
        middle = (sure + most + 1) // 2
        if fits(middle):
            sure = middle
        else:
            most = middle - 1
    return sure


# --- over kinds of core --------------------------------------------------------------------------


def split_by_capacity(cores: tuple[Core, ...], count: int) -> list[tuple[Core, ...]]:
    """Return `count` parts that differ by as little capacity as possible: of each kind a run, which
    crosses as few caches as possible."""
    from ompbind.planner.kinds import balance  # seldom wanted

    kinds = split_by(cores, "kind")
    kinds.sort(key=lambda group: (-group[0].weight, -(group[0].first_cpu.kind or 0)))
    parts: list[list[Core]] = [[] for _ in range(count)]
    numbers = balance([(group[0].weight, len(group)) for group in kinds], count)
    for group, sizes in zip(kinds, numbers, strict=True):
        for rank, run in zip(*match_runs(group, sizes), strict=True):
            parts[rank] += run
    place = {id(core): i for i, core in enumerate(cores)}
    for part in parts:
        part.sort(key=lambda core: place[id(core)])
    return sorted(map(tuple, parts), key=lambda part: place[id(part[0])])


def match_runs(
    cores: tuple[Core, ...], sizes: Sequence[int]
) -> tuple[list[int], list[tuple[Core, ...]]]:
    """Cut runs of these sizes; return the rank of each, and the runs. Where the sizes differ by one
    at most, caches decide which runs are the longer ones."""
    having = [rank for rank, size in enumerate(sizes) if size]
    if max(sizes) - min(sizes[rank] for rank in having) <= 1:
        runs = split_in_runs(cores, len(having), make_worths(cores), MOST_STEPS)
        ranks_of = {size: [r for r in having if sizes[r] == size] for size in set(sizes)}
        return [ranks_of[len(run)].pop(0) for run in runs], runs
    ends = [sum(sizes[: rank + 1]) for rank in having]
    return having, [cores[end - sizes[rank] : end] for rank, end in zip(having, ends, strict=True)]


# --- over caches ---------------------------------------------------------------------------------


class Lengths(Record):
    """The lengths that parts have: `shorts` parts of `length` cores, `longs` of one more."""

    length: int
    shorts: int
    longs: int

    @classmethod
    def make(cls, total: int, count: int) -> Lengths:
        """Return the lengths of `count` parts of `total` cores that differ by one at most."""
        length, longs = divmod(total, count)
        return cls(length, count - longs, longs)

    def find_points(self, total: int) -> list[tuple[int, int]]:
        """Return the numbers of shorter and longer parts that have so many cores together."""
        length, most = self.length, min(self.longs, total // (self.length + 1))
        points = [((total - n * (length + 1)) // length, n)
                  for n in range(total % length, most + 1, length)]  # fmt: skip
        return [(shorts, longs) for shorts, longs in points if shorts <= self.shorts]


def make_worths(cores: Sequence[Core]) -> Worths:
    """Return the levels that part the cores, the most important first, each with its worth: more
    than all divisions of the later ones. Not those of which each core has a group for itself."""
    levels: list[Level] = []
    for family in FAMILIES:
        numbers = [(len({getattr(core.first_cpu, level) for core in cores}), i)
                   for i, level in enumerate(family)]  # fmt: skip
        levels += [family[i] for number, i in sorted(numbers) if 1 < number < len(cores)]
    return [(level, (len(cores) + 1) ** n) for n, level in enumerate(reversed(levels))][::-1]


def weigh_divided(parts: Sequence[Sequence[Core]], worths: Worths) -> int:
    """Return the worth of the groups that each part has cores of: the more, the more often groups
    are divided between parts."""
    return sum(
        worth * sum(len({getattr(core.first_cpu, level) for core in part}) for part in parts)
        for level, worth in worths
    )


def make_form(cores: Sequence[Core], worths: Worths) -> object:
    """Return a value that is equal for cores that are grouped alike."""
    form = []
    for level, _ in worths:
        numbers: dict[int | None, int] = {}
        form += [numbers.setdefault(getattr(c.first_cpu, level), len(numbers)) for c in cores]
    return tuple(form)


def split_in_runs(
    cores: tuple[Core, ...], count: int, worths: Worths, steps: int
) -> list[tuple[Core, ...]]:
    """Return `count` parts whose sizes differ by at most one and that divide as few groups as
    possible. `worths`: the levels that count; `steps`: how many the search may take."""
    runs = cut_runs(cores, count, worths)
    if count == 1 or is_surely_best(cores, runs, worths):
        return runs
    return combine(cores, runs, worths, steps)


def is_surely_best(
    cores: tuple[Core, ...], runs: Sequence[tuple[Core, ...]], worths: Worths
) -> bool:
    """Return whether it is plain that no other parts divide fewer groups: none is divided that
    need not, or there is one level, whose groups are of one size."""
    parting = [(level, groups) for level, _ in worths if (groups := split_by(cores, level))[1:]]
    if not parting[1:] and len({len(group) for _, groups in parting for group in groups}) < 2:
        return True
    return all(
        sum(len({getattr(core.first_cpu, level) for core in run}) for run in runs)
        == max(len(runs), len(groups))
        for level, groups in parting
    )


def cut_runs(cores: tuple[Core, ...], count: int, worths: Worths) -> list[tuple[Core, ...]]:
    """Return consecutive runs whose lengths differ by at most one; the longer ones are those with
    which the cuts are worth most, of several choices the first ones."""
    # A cut after some shorter and some longer runs is a point; a way from (0, 0) to the end that
    # never turns back is a sequence of runs. Points off the edges of groups are worth nothing.
    lengths = Lengths.make(len(cores), count)
    length, longer = lengths.length, lengths.longs
    points = [
        (shorts, longs, worth)
        for position, worth in value_cuts(cores, worths).items()
        for shorts, longs in lengths.find_points(position)
    ]
    points.sort(reverse=True)
    tree = [0] * (longer + 2)  # a Fenwick tree: the best worth by the number of longer runs left
    by_worth: dict[int, list[tuple[int, int, int]]] = {}
    best = 0
    for shorts, longs, worth in points:
        total, i = 0, longer - longs + 1
        while i > 0:
            total, i = max(total, tree[i]), i & (i - 1)
        total, i = total + worth, longer - longs + 1
        by_worth.setdefault(total, []).append((shorts, longs, worth))
        best = max(best, total)
        while i < len(tree):
            tree[i], i = max(tree[i], total), i + (i & -i)
    way, here = [], (0, 0)
    while best:
        # Of points from which as much is to be had, no one is behind another.
        on_way = [p for p in by_worth[best] if p[0] >= here[0] and p[1] >= here[1]]
        shorts, longs, worth = max(on_way, key=lambda p: p[1])
        here, best = (shorts, longs), best - worth
        way.append(here)
    runs, start, here = [], 0, (0, 0)
    for shorts, longs in [*way, (lengths.shorts, longer)]:
        for size in [length + 1] * (longs - here[1]) + [length] * (shorts - here[0]):
            runs.append(cores[start : start + size])
            start += size
        here = (shorts, longs)
    return runs


def combine(
    cores: tuple[Core, ...], runs: Sequence[tuple[Core, ...]], worths: Worths, steps: int
) -> list[tuple[Core, ...]]:
    """Return parts of the lengths that `runs` have and that divide as few groups as possible; the
    runs, where no others divide fewer.

    If the search takes too many steps, it is the best of what suits each level alone.
    """
    from ompbind.planner.combining import find_blocks, pair, sort_alone, sort_by_tree

    count, lengths = len(runs), Lengths.make(len(cores), len(runs))
    steps //= len(worths) + bool(worths[1:])  # for each level, and for all together
    ends = (lengths.find_points, (lengths.shorts, lengths.longs))
    place = {id(core): i for i, core in enumerate(cores)}

    def cut_blocks(blocks: Sequence[Block]) -> list[tuple[Core, ...]]:
        parts = []
        for groups, number in blocks:
            block = sorted((c for group in groups for c in group), key=lambda c: place[id(c)])
            parts += cut_runs(tuple(block), number, worths)
        return sorted(parts, key=lambda part: place[id(part[0])])

    best, reached = list(runs), weigh_divided(runs, worths)
    least = 0  # what parts divide at the least, each level alone
    for level, worth in worths:
        groups = split_by(cores, level)
        blocks: Sequence[Block] = pair(groups, *ends)
        better = find_blocks(
            sort_alone(groups), (worth,), (len(groups) - len(blocks)) * worth, *ends, steps
        )
        if better is not None:
            blocks = better or blocks
            least += worth * (len(groups) - len(blocks))
        parts = cut_blocks(blocks)
        if (divided := weigh_divided(parts, worths)) < reached:
            best, reached = parts, divided
    most = reached - count * sum(worth for _, worth in worths)
    if most > least and worths[1:]:
        sorts = sort_by_tree(cores, [level for level, _ in worths])
        if better := find_blocks(sorts, [worth for _, worth in worths], most, *ends, steps):
            best = cut_blocks(better)
    return best


def value_cuts(cores: tuple[Core, ...], worths: Worths) -> dict[int, int]:
    """Return the worth of a cut before each position where a group ends."""
    values: dict[int, int] = {}
    for level, worth in worths:
        last = getattr(cores[0].first_cpu, level)
        for i, core in enumerate(cores):
            if (group := getattr(core.first_cpu, level)) != last:
                values[i], last = values.get(i, 0) + worth, group
    return values


def blocks(items: Sequence[int], count: int) -> list[Sequence[int]]:
    """Return `count` consecutive blocks of `items`; sizes differ by at most one, larger first."""
    least, more = divmod(len(items), count)
    ends = [least * (i + 1) + min(i + 1, more) for i in range(count)]
    return [items[a:b] for a, b in zip([0, *ends[:-1]], ends, strict=True)]
