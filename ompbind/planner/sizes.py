"""Places ranks of different sizes in the machine's tree: --cores-per-rank 4,8,8. Pure."""

from __future__ import annotations

from ompbind.machine.topology import TREE
from ompbind.planner.cores import split_by

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ompbind.planner.cores import Core

    Cores = tuple[Core, ...]


def place_sizes(cores: Cores, sizes: Sequence[int]) -> list[Cores]:
    """Return for each rank as many cores as `sizes` says; all together there are enough.

    Level by level, the ranks are assigned to packages, nodes and caches so that none crosses one
    and the fullest is as little full as possible. Where no assignment is found at a level, the
    ranks there follow one another without gaps.
    """
    parts: dict[int, Cores] = {}
    place(cores, list(enumerate(sizes)), parts)
    return [parts[rank] for rank in range(len(sizes))]


def place(cores: Cores, ranks: Sequence[tuple[int, int]], parts: dict[int, Cores]) -> None:
    """Add to `parts` the cores of these ranks, given with their sizes."""
    groups = split_coarsely(cores)
    sizes = [size for _, size in ranks]
    assigned = assign([len(group) for group in groups], sizes) if groups[1:] and ranks else None
    if assigned is not None:
        for group, members in zip(groups, assigned, strict=True):
            place(group, [ranks[i] for i in members], parts)
        return
    start = 0
    for rank, size in ranks:
        parts[rank] = cores[start : start + size]
        start += size


def split_coarsely(cores: Cores) -> list[Cores]:
    """Return the cores by the coarsest level of the tree that parts them."""
    splits = [split_by(cores, level) for level in TREE]
    return min((s for s in splits if 1 < len(s) < len(cores)), key=len, default=[cores])


def assign(rooms: Sequence[int], sizes: Sequence[int]) -> list[list[int]] | None:
    """Return the positions of the sizes in each room; None where none is found. In their order if
    that is possible, else the largest first, each where most room is left, or in the first room
    with enough of it."""
    assigned = assign_in_order(rooms, sizes)
    if assigned is None:
        assigned = assign_largest_first(rooms, sizes, spread=True)
    if assigned is None:
        assigned = assign_largest_first(rooms, sizes, spread=False)
    return assigned


def assign_in_order(rooms: Sequence[int], sizes: Sequence[int]) -> list[list[int]] | None:
    """Return consecutive positions for each room, so that the fullest is as little full as can be;
    earlier rooms are filled first."""
    # The limits that a room can have: each number of its cores, as a part of them.
    limits = sorted((load / room, load, room) for room in set(rooms) for load in range(1, room + 1))

    def fill(limit: tuple[float, int, int]) -> list[list[int]] | None:
        _, load, full = limit
        filled, position = [], 0
        for room in rooms:
            start, used = position, 0
            while position < len(sizes) and (used + sizes[position]) * full <= room * load:
                used += sizes[position]
                position += 1
            filled.append(list(range(start, position)))
        return filled if position == len(sizes) else None

    if fill(limits[-1]) is None:
        return None
    low, high = -1, len(limits) - 1
    while high - low > 1:
        middle = (low + high) // 2
        if fill(limits[middle]) is None:
            low = middle
        else:
            high = middle
    return fill(limits[high])


def assign_largest_first(
    rooms: Sequence[int], sizes: Sequence[int], *, spread: bool
) -> list[list[int]] | None:
    left = list(rooms)
    assigned: list[list[int]] = [[] for _ in rooms]
    for position in sorted(range(len(sizes)), key=lambda i: (-sizes[i], i)):
        able = [i for i, room in enumerate(left) if room >= sizes[position]]
        if not able:
            return None
        chosen = max(able, key=lambda i: (left[i], -i)) if spread else able[0]
        left[chosen] -= sizes[position]
        assigned[chosen].append(position)
    return [sorted(positions) for positions in assigned]
