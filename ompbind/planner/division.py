"""Divides cores into parts by the machine's tree: pure algorithms.

The goals, in this order: with enough parts, each lies in one package and one node; the parts of one
node differ by one core at most, or on a machine with several kinds of core by as little capacity as
possible; as few parts as possible span two caches. A part is a run of neighbours in the tree's
order, or one run of each kind of core; only caches of unlike size are combined out of order.
"""

from __future__ import annotations

from ompbind.planner.cores import split_by

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ompbind.machine.topology import Level
    from ompbind.planner.cores import Core

# Levels where staying inside comes before parts of equal size: memory is farther away outside.
MEMORY_LEVELS: tuple[Level, ...] = ("drawer", "book", "package", "node")
CACHE_LEVELS: tuple[Level, ...] = ("die", "l3", "cluster", "l2")

# With more caches of unlike size, only neighbours are combined: the search takes 3^n steps.
MAX_CACHES = 8


def divide(cores: tuple[Core, ...], count: int) -> list[tuple[Core, ...]]:
    """Return `count` <= len(cores) parts of the machine.

    Packages and nodes get parts in proportion to their capacity, so that no part spans two nodes
    where that can be avoided; within a node the parts are as equal as possible.
    """
    several_kinds = bool(split_by(cores, "kind")[1:])
    levels = [
        level
        for level in MEMORY_LEVELS
        if level == "node" or not several_kinds or is_mixed(cores, level)
    ]
    return divide_by(cores, count, levels)


def is_mixed(cores: tuple[Core, ...], level: Level) -> bool:
    """Return whether a group at `level` has several kinds of core. Old kernels on Arm call the
    clusters of each kind packages: a part that stays inside one would have one kind only."""
    return any(split_by(group, "kind")[1:] for group in split_by(cores, level))


def divide_by(
    cores: tuple[Core, ...], count: int, levels: Sequence[Level]
) -> list[tuple[Core, ...]]:
    """Return `count` parts along `levels`, the coarsest first, and even ones below them."""
    if count == 1:
        return [cores]
    parted = [(len(groups), i) for i, level in enumerate(levels)
              if len(groups := split_by(cores, level)) > 1]  # fmt: skip
    if not parted:
        return split_evenly(cores, count)
    groups = split_by(cores, levels[min(parted)[1]])  # the coarsest
    weights = [weigh(group) for group in groups]
    if count < len(groups):
        return [tuple(c for g in groups[a:b] for c in g) for a, b in cut(weights, count)]
    # A part for each finest group first, where there are enough: then none crosses any of them.
    finest = [len({tuple(getattr(c.first_cpu, lv) for lv in levels) for c in g}) for g in groups]
    least = finest if sum(finest) <= count else [1] * len(groups)
    counts = apportion(weights, count, least, [len(group) for group in groups])
    divided = [divide_by(g, n, levels) for g, n in zip(groups, counts, strict=True)]
    return [part for parts in divided for part in parts]


def weigh(cores: Sequence[Core]) -> int:
    """Return the capacity of cores: their number, where all are of one kind."""
    return sum(core.weight for core in cores)


def apportion(
    weights: Sequence[int], count: int, least: Sequence[int], most: Sequence[int]
) -> list[int]:
    """Return how many of `count` parts each group gets, from its `least` to its `most`.

    Each next part goes to the group with the largest weight for its parts, half of the next one
    counted (Webster's method; ties: the first group). In whole cores, the smallest part is then as
    large as possible, and the largest as small as possible.
    """
    counts = list(least)
    for _ in range(count - sum(least)):
        able = [i for i, n in enumerate(counts) if n < most[i]]
        best = max(able, key=lambda i: (weights[i] / (counts[i] + 0.5), -i))
        counts[best] += 1
    return counts


def cut(weights: Sequence[int], count: int) -> list[tuple[int, int]]:
    """Return `count` runs of consecutive groups, as [first, end).

    The lightest is as heavy as possible, then the heaviest as light as possible; where that leaves
    a choice, earlier runs are longer.
    """
    sums = [0]
    for weight in weights:
        sums.append(sums[-1] + weight)

    def find_ends(low: int, high: int) -> list[int] | None:
        """Return where runs that weigh from `low` to `high` end; None: there are no such runs."""
        # Bit k of after[i]: the groups from i on can be cut into k such runs.
        after = [0] * len(sums)
        after[-1] = 1
        for i in reversed(range(len(weights))):
            for j in range(i + 1, len(sums)):
                if sums[j] - sums[i] > high:
                    break
                if sums[j] - sums[i] >= low:
                    after[i] |= after[j] << 1
        if not after[0] >> count & 1:
            return None
        ends = [0]
        for left in reversed(range(count)):
            spans = [(j, sums[j] - sums[ends[-1]]) for j in range(ends[-1] + 1, len(sums))]
            ends.append([j for j, w in spans if low <= w <= high and after[j] >> left & 1][-1])
        return ends

    low = largest(1, sums[-1] // count, lambda n: find_ends(n, sums[-1]) is not None)
    high = -largest(-sums[-1], -(sums[-1] // count), lambda n: find_ends(low, -n) is not None)
    ends = find_ends(low, high) or []
    return list(zip(ends[:-1], ends[1:], strict=True))


def largest(sure: int, most: int, fits: Callable[[int], bool]) -> int:
    """Return the largest number up to `most` that fits. `sure` fits; above the result none does."""
    while sure < most:
        middle = (sure + most + 1) // 2
        if fits(middle):
            sure = middle
        else:
            most = middle - 1
    return sure


def split_evenly(cores: tuple[Core, ...], count: int) -> list[tuple[Core, ...]]:
    """Return `count` parts that differ by at most one core, or on a machine with several kinds by
    as little capacity as possible; inside caches where the numbers allow it."""
    kinds = split_by(cores, "kind")
    if not kinds[1:]:
        return split_in_runs(cores, count)
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
        runs = split_in_runs(cores, len(having))
        ranks_of = {size: [r for r in having if sizes[r] == size] for size in set(sizes)}
        return [ranks_of[len(run)].pop(0) for run in runs], runs
    ends = [sum(sizes[: rank + 1]) for rank in having]
    return having, [cores[end - sizes[rank] : end] for rank, end in zip(having, ends, strict=True)]


def balance(kinds: Sequence[tuple[int, int]], count: int) -> list[list[int]]:
    """Return for each kind how many of its cores each of `count` parts gets. `kinds`: weight and
    number of cores. The same of each kind where its number divides, else so that the sums of
    weights are nearly equal."""
    numbers = [[0] * count for _ in kinds]
    sums = [0] * count
    for kind, (weight, number) in enumerate(kinds):
        for _ in range(number):
            least = min(range(count), key=lambda rank: (sums[rank], rank))
            numbers[kind][least] += 1
            sums[least] += weight
    weights = [weight for weight, _ in kinds]
    while move := find_move(numbers, sums, weights):
        giver, taker, give, take = move
        for moved, change in ((give, 1), (take, -1)):
            if moved is not None:
                numbers[moved][giver] -= change
                numbers[moved][taker] += change
                sums[giver] -= change * weights[moved]
                sums[taker] += change * weights[moved]
    return numbers


def find_move(
    numbers: Sequence[Sequence[int]], sums: Sequence[int], weights: Sequence[int]
) -> tuple[int, int, int, int | None] | None:
    """Return a core to move that brings the sums of two parts nearer, as (from part, to part, its
    kind, the kind of the core given in exchange or None); None: there is no such core."""
    order = sorted(range(len(sums)), key=lambda rank: (sums[rank], rank))
    pairs = [(rich, order[0]) for rich in reversed(order)] + [(order[-1], r) for r in order]
    offers = [(give, take) for give in range(len(weights)) for take in (None, *range(len(weights)))]
    for giver, taker in pairs:
        for give, take in offers:
            moved = weights[give] - (0 if take is None else weights[take])
            if not 0 < moved < sums[giver] - sums[taker] or not numbers[give][giver]:
                continue
            if take is None and sum(row[giver] for row in numbers) == 1:
                continue  # its only core
            if take is None or numbers[take][taker]:
                return giver, taker, give, take
    return None


def split_in_runs(cores: tuple[Core, ...], count: int) -> list[tuple[Core, ...]]:
    """Return `count` runs whose lengths differ by at most one and that span as few caches as
    possible."""
    runs = []
    for group, number in combine_caches(cores, count):
        runs += cut_runs(group, number)
    place = {id(core): i for i, core in enumerate(cores)}
    return sorted(runs, key=lambda run: place[id(run[0])])


def combine_caches(cores: tuple[Core, ...], count: int) -> list[tuple[tuple[Core, ...], int]]:
    """Return as many groups of caches as possible that some of the `count` runs fill exactly, each
    with the number of its runs: a run spans two caches only inside a group.

    The caches of a group need not be neighbours where caches have unlike numbers of cores, as a
    cgroup may leave them.
    """
    levels = parting_levels(cores)
    caches = split_by(cores, levels[0]) if levels else []
    sizes = [len(cache) for cache in caches]
    if count == 1 or len(set(sizes)) < 2 or len(caches) > MAX_CACHES:
        return [(cores, count)]
    length = len(cores) // count
    # For each set of caches, by the number of runs: the number of groups, the group with the first
    # cache, the number of its runs.
    best: list[dict[int, tuple[int, int, int]]] = [{0: (0, 0, 0)}]
    for mask in range(1, 1 << len(caches)):
        first = mask & -mask
        ways: dict[int, tuple[int, int, int]] = {}
        others = rest = mask ^ first
        while True:
            group = first | others
            total = sum(size for i, size in enumerate(sizes) if group >> i & 1)
            for runs in range(-(-total // (length + 1)), total // length + 1):
                for more, (groups, *_) in best[mask ^ group].items():
                    if groups + 1 > ways.get(more + runs, (0,))[0]:
                        ways[more + runs] = (groups + 1, group, runs)
            if not others:
                break
            others = (others - 1) & rest
        best.append(ways)
    groups_and_runs, mask, left = [], len(best) - 1, count
    while mask:
        _, group, runs = best[mask][left]
        chosen = tuple(core for i, cache in enumerate(caches) if group >> i & 1 for core in cache)
        groups_and_runs.append((chosen, runs))
        mask, left = mask ^ group, left - runs
    return groups_and_runs


def cut_runs(cores: tuple[Core, ...], count: int) -> list[tuple[Core, ...]]:
    """Return consecutive runs; the longer ones are those with which most runs end where a cache
    ends, else the first ones."""
    length, longer = divmod(len(cores), count)
    worth = value_cuts(cores) if longer else {}
    if not worth:
        return [tuple(cores[i] for i in block) for block in blocks(range(len(cores)), count)]
    # After `done` runs of which `used` are longer ones: the best worth of the remaining cuts.
    best = [[0] * (longer + 2) for _ in range(count + 1)]

    def values(done: int, used: int) -> tuple[int, int]:
        """Return the worth with a longer run next, and with another one; -1 where there is none."""
        end = (done + 1) * length + used
        long = worth.get(end + 1, 0) + best[done + 1][used + 1] if used < longer else -1
        fits = longer - used <= count - done - 1
        return long, worth.get(end, 0) + best[done + 1][used] if fits else -1

    for done in reversed(range(count)):
        for used in range(max(0, longer - (count - done)), min(done, longer) + 1):
            best[done][used] = max(values(done, used))
    runs, start, used = [], 0, 0
    for done in range(count):
        long, other = values(done, used)
        end = start + length + (long >= other)
        used += long >= other
        runs.append(cores[start:end])
        start = end
    return runs


def value_cuts(cores: tuple[Core, ...]) -> dict[int, int]:
    """Return the worth of a cut before each position: a coarser cache counts more than any number
    of finer ones, a cache of a single core nothing."""
    worth: dict[int, int] = {}
    for nth, level in enumerate(reversed(parting_levels(cores))):
        for i in range(1, len(cores)):
            if getattr(cores[i].first_cpu, level) != getattr(cores[i - 1].first_cpu, level):
                worth[i] = worth.get(i, 0) + (len(cores) + 1) ** nth
    return worth


def parting_levels(cores: tuple[Core, ...]) -> list[Level]:
    """Return the levels of cache that part the cores, the coarsest first; not those that each core
    has for itself."""
    levels = [(len(split_by(cores, level)), i) for i, level in enumerate(CACHE_LEVELS)]
    return [CACHE_LEVELS[i] for number, i in sorted(levels) if 1 < number < len(cores)]


def blocks(items: Sequence[int], count: int) -> list[Sequence[int]]:
    """Return `count` consecutive blocks of `items`; sizes differ by at most one, larger first."""
    least, more = divmod(len(items), count)
    ends = [least * (i + 1) + min(i + 1, more) for i in range(count)]
    return [items[a:b] for a, b in zip([0, *ends[:-1]], ends, strict=True)]
