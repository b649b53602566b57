"""Cores into parts, by the machine's tree: pure algorithms.

What is best, in this order: a part lies in one package and one node where there are enough parts;
parts of one node differ by one core at most, on a machine with several kinds of core by as little
capacity as can be; caches are crossed as seldom as can be. Parts are runs of neighbours in the
tree's order, of each kind of core by itself; only caches of unlike size are paired otherwise.
"""

from __future__ import annotations

from ompbind.planner.cores import split_by

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ompbind.machine.topology import Level
    from ompbind.planner.cores import Core

# Levels where staying inside comes before parts of equal size: memory is further away outside.
MEMORY_LEVELS: tuple[Level, ...] = ("drawer", "book", "package", "node")
CACHE_LEVELS: tuple[Level, ...] = ("die", "l3", "cluster", "l2")

# With more caches of unlike size, which fit together is not looked for: it takes 3^n steps.
MAX_CACHES = 8


def divide(cores: tuple[Core, ...], count: int) -> list[tuple[Core, ...]]:
    """The machine in `count` <= len(cores) parts by its own tree.

    Parts are dealt to packages and nodes in proportion to what those can do, so that none crosses
    a node that need not; within a node the parts are as equal as they can be.
    """
    kinds = split_by(cores, "kind")
    firm = [lv for lv in MEMORY_LEVELS if lv == "node" or not kinds[1:] or is_mixed(cores, lv)]
    return divide_by(cores, count, firm)


def is_mixed(cores: tuple[Core, ...], level: Level) -> bool:
    """Whether a group at `level` has several kinds of core. Old kernels on Arm call the clusters of
    each kind packages: to stay inside one would be to stay with one kind."""
    return any(split_by(group, "kind")[1:] for group in split_by(cores, level))


def divide_by(
    cores: tuple[Core, ...], count: int, levels: Sequence[Level]
) -> list[tuple[Core, ...]]:
    """`count` parts along `levels`, the coarsest first; evenly below them."""
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
    dealt = apportion(weights, count, least, [len(group) for group in groups])
    divided = [divide_by(g, n, levels) for g, n in zip(groups, dealt, strict=True)]
    return [part for parts in divided for part in parts]


def weigh(cores: Sequence[Core]) -> int:
    """What they can do: their number, where all are of one kind."""
    return sum(core.weight for core in cores)


def apportion(
    weights: Sequence[int], count: int, least: Sequence[int], most: Sequence[int]
) -> list[int]:
    """How many of `count` each group gets: its least, the next always where a share is largest when
    half of that one is given already (ties: the first), but none gets more than its most. Of whole
    cores, the smallest share is then the largest that can be, and the largest the smallest."""
    dealt = list(least)
    for _ in range(count - sum(least)):
        able = [i for i, n in enumerate(dealt) if n < most[i]]
        best = max(able, key=lambda i: (weights[i] / (dealt[i] + 0.5), -i))
        dealt[best] += 1
    return dealt


def cut(weights: Sequence[int], count: int) -> list[tuple[int, int]]:
    """Consecutive groups in `count` runs, as [first, end): the lightest as heavy as can be, then
    the heaviest as light as can be; where that leaves a choice, earlier runs are longer."""
    sums = [0]
    for weight in weights:
        sums.append(sums[-1] + weight)

    def find_ends(low: int, high: int) -> list[int] | None:
        """Where runs that weigh from `low` to `high` can end; None: there are no such runs."""
        # Bit k of after[i]: the groups from i on can be had in k runs.
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
    """The largest number from `sure`, which fits, to `most` that fits; none above it does."""
    while sure < most:
        middle = (sure + most + 1) // 2
        if fits(middle):
            sure = middle
        else:
            most = middle - 1
    return sure


def split_evenly(cores: tuple[Core, ...], count: int) -> list[tuple[Core, ...]]:
    """`count` parts that differ by at most one core, or on a machine with several kinds by as
    little capacity as can be; inside caches where the numbers allow it."""
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
    """Runs of these sizes and whose each is: where sizes differ by one only, which runs are the
    longer ones is chosen by caches."""
    having = [rank for rank, size in enumerate(sizes) if size]
    if max(sizes) - min(sizes[rank] for rank in having) <= 1:
        runs = split_in_runs(cores, len(having))
        ranks_of = {size: [r for r in having if sizes[r] == size] for size in set(sizes)}
        return [ranks_of[len(run)].pop(0) for run in runs], runs
    ends = [sum(sizes[: rank + 1]) for rank in having]
    return having, [cores[end - sizes[rank] : end] for rank, end in zip(having, ends, strict=True)]


def balance(kinds: Sequence[tuple[int, int]], count: int) -> list[list[int]]:
    """For each kind, given as (weight, how many there are), how many each of `count` parts gets:
    the same of each where that divides, else so that the sums are as equal as they come."""
    dealt = [[0] * count for _ in kinds]
    sums = [0] * count
    for kind, (weight, number) in enumerate(kinds):
        for _ in range(number):
            least = min(range(count), key=lambda rank: (sums[rank], rank))
            dealt[kind][least] += 1
            sums[least] += weight
    while even_out(dealt, sums, [weight for weight, _ in kinds]):
        pass
    return dealt


def even_out(dealt: list[list[int]], sums: list[int], weights: Sequence[int]) -> bool:
    """Whether something could be given from one part to another, or exchanged, that brings their
    sums nearer; if so it is done."""
    order = sorted(range(len(sums)), key=lambda rank: (sums[rank], rank))
    pairs = [(rich, order[0]) for rich in reversed(order)] + [(order[-1], r) for r in order]
    offers = [(give, take) for give in range(len(weights)) for take in (None, *range(len(weights)))]
    for giver, taker in pairs:
        for give, take in offers:
            moved = weights[give] - (0 if take is None else weights[take])
            if not 0 < moved < sums[giver] - sums[taker] or not dealt[give][giver]:
                continue
            if take is None and sum(row[giver] for row in dealt) == 1:
                continue  # its only core
            if take is not None and not dealt[take][taker]:
                continue
            for kind, change in ((give, 1), (take, -1)):
                if kind is not None:
                    dealt[kind][giver] -= change
                    dealt[kind][taker] += change
            sums[giver] -= moved
            sums[taker] += moved
            return True
    return False


def split_in_runs(cores: tuple[Core, ...], count: int) -> list[tuple[Core, ...]]:
    """`count` runs whose lengths differ by at most one, which cross as few caches as can be."""
    runs = []
    for own, number in pair_caches(cores, count):
        runs += cut_runs(own, number)
    place = {id(core): i for i, core in enumerate(cores)}
    return sorted(runs, key=lambda run: place[id(run[0])])


def pair_caches(cores: tuple[Core, ...], count: int) -> list[tuple[tuple[Core, ...], int]]:
    """As many groups of caches as can be that some of the `count` runs fill exactly, with how many
    do: a cache is crossed only inside a group.

    Only where caches have unlike numbers of cores, as a cgroup may leave them, are those that fit
    together not neighbours.
    """
    levels = parting_levels(cores)
    caches = split_by(cores, levels[0]) if levels else []
    sizes = [len(cache) for cache in caches]
    if count == 1 or len(set(sizes)) < 2 or len(caches) > MAX_CACHES:
        return [(cores, count)]
    length = len(cores) // count
    # By set of caches and number of runs: how many groups, the one with the first cache, its runs.
    found: list[dict[int, tuple[int, int, int]]] = [{0: (0, 0, 0)}]
    for mask in range(1, 1 << len(caches)):
        first = mask & -mask
        ways: dict[int, tuple[int, int, int]] = {}
        others = rest = mask ^ first
        while True:
            group = first | others
            total = sum(size for i, size in enumerate(sizes) if group >> i & 1)
            for runs in range(-(-total // (length + 1)), total // length + 1):
                for more, (groups, *_) in found[mask ^ group].items():
                    if groups + 1 > ways.get(more + runs, (0,))[0]:
                        ways[more + runs] = (groups + 1, group, runs)
            if not others:
                break
            others = (others - 1) & rest
        found.append(ways)
    pairs, mask, left = [], len(found) - 1, count
    while mask:
        _, group, runs = found[mask][left]
        own = tuple(core for i, cache in enumerate(caches) if group >> i & 1 for core in cache)
        pairs.append((own, runs))
        mask, left = mask ^ group, left - runs
    return pairs


def cut_runs(cores: tuple[Core, ...], count: int) -> list[tuple[Core, ...]]:
    """Consecutive runs; those are the longer ones with which most end where a cache ends, else the
    first."""
    length, longer = divmod(len(cores), count)
    worth = value_cuts(cores) if longer else {}
    if not worth:
        return [tuple(cores[i] for i in block) for block in blocks(range(len(cores)), count)]
    # After `done` runs of which `used` are longer ones, the best that the cuts to come can be.
    best = [[0] * (longer + 2) for _ in range(count + 1)]

    def values(done: int, used: int) -> tuple[int, int]:
        """Of a longer run and of another one next; -1 where there is none."""
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
    """What it is worth to cut before each position: a coarser cache more than any number of finer
    ones. Where every core has its own, nothing."""
    worth: dict[int, int] = {}
    for nth, level in enumerate(reversed(parting_levels(cores))):
        for i in range(1, len(cores)):
            if getattr(cores[i].first_cpu, level) != getattr(cores[i - 1].first_cpu, level):
                worth[i] = worth.get(i, 0) + (len(cores) + 1) ** nth
    return worth


def parting_levels(cores: tuple[Core, ...]) -> list[Level]:
    """The kinds of cache that part them, the coarsest first; not those that each core has."""
    levels = [(len(split_by(cores, level)), i) for i, level in enumerate(CACHE_LEVELS)]
    return [CACHE_LEVELS[i] for number, i in sorted(levels) if 1 < number < len(cores)]


def blocks(items: Sequence[int], count: int) -> list[Sequence[int]]:
    """`items` in `count` consecutive blocks, sizes differing by at most one, larger ones first."""
    least, more = divmod(len(items), count)
    ends = [least * (i + 1) + min(i + 1, more) for i in range(count)]
    return [items[a:b] for a, b in zip([0, *ends[:-1]], ends, strict=True)]
