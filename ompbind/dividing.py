"""Cores into parts, by the machine's tree: pure algorithms."""

from __future__ import annotations

from ompbind.cores import split_by

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ompbind.cores import Core
    from ompbind.topology import Level

# Levels where staying inside comes before parts of equal size: memory is further away outside.
FIRM: tuple[Level, ...] = ("drawer", "book", "package", "node")
SOFT: tuple[Level, ...] = ("die", "l3", "cluster", "l2")


def divide(cores: tuple[Core, ...], count: int) -> list[tuple[Core, ...]]:
    """The machine in `count` <= len(cores) parts by its own tree.

    Ranks are dealt to packages and nodes in proportion to their cores, so that none crosses a
    node that need not; within a node the parts are as equal as they can be.
    """
    return divide_by(cores, count, FIRM, split_evenly)


def split_evenly(cores: tuple[Core, ...], count: int) -> list[tuple[Core, ...]]:
    """`count` consecutive parts whose sizes differ by at most one core, inside caches where the
    numbers allow it."""
    parts = divide_by(cores, count, SOFT, in_blocks)
    sizes = [len(part) for part in parts]
    return parts if max(sizes) - min(sizes) <= 1 else in_blocks(cores, count)


def in_blocks(cores: tuple[Core, ...], count: int) -> list[tuple[Core, ...]]:
    """`count` consecutive parts, whatever lies between."""
    return [tuple(cores[i] for i in block) for block in blocks(range(len(cores)), count)]


def divide_by(
    cores: tuple[Core, ...],
    count: int,
    levels: Sequence[Level],
    below: Callable[[tuple[Core, ...], int], list[tuple[Core, ...]]],
) -> list[tuple[Core, ...]]:
    """`count` parts along `levels`, the coarsest first; `below` divides what lies in one group of
    each."""
    if count == 1:
        return [cores]
    parted = [(len(groups), i) for i, level in enumerate(levels)
              if len(groups := split_by(cores, level)) > 1]  # fmt: skip
    if not parted:
        return below(cores, count)
    groups = split_by(cores, levels[min(parted)[1]])  # the coarsest
    sizes = [len(g) for g in groups]
    if count < len(groups):
        return [tuple(c for g in groups[a:b] for c in g) for a, b in cut(sizes, count)]
    # A rank for each finest part first, where there are enough: then none crosses any of them.
    finest = [len({tuple(getattr(c.traits, lv) for lv in levels) for c in g}) for g in groups]
    least = finest if sum(finest) <= count else [1] * len(groups)
    dealt = apportion(sizes, count, least)
    divided = [divide_by(g, n, levels, below) for g, n in zip(groups, dealt, strict=True)]
    return [part for parts in divided for part in parts]


def apportion(sizes: Sequence[int], count: int, least: Sequence[int]) -> list[int]:
    """How many of `count` ranks each group gets: its least, the next always where a rank's share
    is largest (ties: the first)."""
    dealt = list(least)
    for _ in range(count - sum(least)):
        most = max(range(len(sizes)), key=lambda i: (sizes[i] / dealt[i], -i))
        dealt[most] += 1
    return dealt


def cut(sizes: Sequence[int], count: int) -> list[tuple[int, int]]:
    """Consecutive groups in `count` runs, as [first, end), the sizes' sums as equal as they come:
    equal groups in balanced blocks, others cut where the sum is nearest to its due."""
    if len(set(sizes)) == 1:
        runs = blocks(range(len(sizes)), count)
        return [(run[0], run[-1] + 1) for run in runs]
    sums = [0]
    for size in sizes:
        sums.append(sums[-1] + size)
    ends = [0]
    for part in range(1, count):
        due = sums[-1] * part / count
        candidates = range(ends[-1] + 1, len(sizes) - (count - part) + 1)
        ends.append(min(candidates, key=lambda i, due=due: abs(sums[i] - due)))  # type: ignore[misc]
    ends.append(len(sizes))
    return list(zip(ends[:-1], ends[1:], strict=True))


def blocks(items: Sequence[int], count: int) -> list[Sequence[int]]:
    """`items` in `count` consecutive blocks, sizes differing by at most one, larger ones first."""
    least, more = divmod(len(items), count)
    ends = [least * (i + 1) + min(i + 1, more) for i in range(count)]
    return [items[a:b] for a, b in zip([0, *ends[:-1]], ends, strict=True)]
