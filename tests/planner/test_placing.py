"""Where ranks of unlike sizes, few ranks, and ranks that leave cores over go, by themselves."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ompbind.planner.leftover import find_runs, take_inside
from ompbind.planner.sizes import assign, assign_in_order, assign_largest_first, place_sizes
from ompbind.planner.spread import choose_spread, split_coarsely
from tests.planner.test_division import make_cores, numbers

# --- sizes ---------------------------------------------------------------------------------------


@given(
    st.lists(st.integers(1, 6), min_size=1, max_size=4),
    st.lists(st.integers(1, 5), min_size=0, max_size=5),
)
def test_the_earlier_rooms_are_filled_first(rooms: list[int], sizes: list[int]) -> None:
    """Of all runs, one for each room, whose fullest room is as little full as can be, those whose
    first is the longest, and so on; None where no runs fit."""
    fitting = []
    for cuts in itertools.combinations_with_replacement(range(len(sizes) + 1), len(rooms) - 1):
        ends = [0, *cuts, len(sizes)]
        loads = [sum(sizes[a:b]) for a, b in itertools.pairwise(ends)]
        fullest = max(load / room for load, room in zip(loads, rooms, strict=True))
        if fullest <= 1:
            lengths = [a - b for a, b in itertools.pairwise(ends)]  # negative: the longest first
            fitting.append((fullest, lengths, ends))
    assigned = assign_in_order(rooms, sizes)
    if not fitting:
        assert assigned is None
        return
    # Not below the fullness of a room with a core: without ranks nothing is to be had.
    least = max(min(fitting)[0], 1 / max(rooms))
    _, ends = min((lengths, ends) for fullest, lengths, ends in fitting if fullest <= least)
    assert assigned == [list(range(a, b)) for a, b in itertools.pairwise(ends)]


@pytest.mark.parametrize(
    ("rooms", "sizes", "assigned"),
    [
        ([4, 4], [3, 3, 1, 1], [[0, 2], [1, 3]]),  # the largest first, where most room is left
        ([4, 5], [3, 4, 2], [[1], [0, 2]]),  # ... or in the first room with enough of it
        ([3, 3], [2, 2, 2], None),
        ([6, 6], [4, 1, 4, 1, 1, 1], [[0, 1, 4], [2, 3, 5]]),
        ([4, 4, 4], [1, 2, 2, 3, 2, 2], [[0, 3], [1, 4], [2, 5]]),
        ([4, 4], [2, 2, 2, 2], [[0, 1], [2, 3]]),  # in their order
        ([8, 8], [2, 2], [[0], [1]]),
        ([6, 6], [1, 1], [[0], [1]]),
        ([8, 4], [2, 2], [[0, 1], []]),
        ([8, 2], [1, 1, 1], [[0, 1, 2], []]),
        ([1], [2], None),
    ],
)  # fmt: skip
def test_ranks_are_assigned_to_rooms(
    rooms: list[int], sizes: list[int], assigned: list[list[int]] | None
) -> None:
    assert assign(rooms, sizes) == assigned


@given(st.lists(st.integers(1, 6), min_size=1, max_size=4), st.lists(st.integers(1, 5), max_size=6))
def test_the_largest_are_assigned_first(rooms: list[int], sizes: list[int]) -> None:
    """By hand: each to the room with the most left, or to the first that has enough."""
    for spread in (True, False):
        left, wanted = list(rooms), [[] for _ in rooms]  # type: ignore[var-annotated]
        order = sorted(range(len(sizes)), key=lambda i: sizes[i], reverse=True)
        for i in order:
            able = [room for room in range(len(rooms)) if left[room] >= sizes[i]]
            if spread:
                able.sort(key=lambda room: -left[room])
            if not able:
                break
            left[able[0]] -= sizes[i]
            wanted[able[0]].append(i)
        fits = sum(map(len, wanted)) == len(sizes)
        got = assign_largest_first(rooms, sizes, spread=spread)
        assert got == ([sorted(members) for members in wanted] if fits else None)


@pytest.mark.parametrize(
    ("columns", "sizes", "parts"),
    [
        (["node=aaaabbbb"], [3, 3, 1, 1], ["012", "456", "3", "7"]),
        (["node=aaaabbbb"], [2, 2, 2, 2], ["01", "23", "45", "67"]),
        (["node=aaaabbbb"], [2, 2], ["01", "45"]),
        (["node=aaaabbbb"], [3, 2, 3], ["012", "34", "567"]),  # no assignment: one after another
        (["node=aaaabbbb"], [6, 2], ["012345", "67"]),
        (["package=aaaabbbb", "l3=aabbccdd"], [1, 2, 1, 2, 2], ["2", "01", "3", "45", "67"]),
        (["package=aaaabbbb", "l3=aabbccdd"], [3, 1, 2], ["012", "4", "67"]),
        (["l3=aabbccdd", "l2=abcdefgh"], [1, 2, 2], ["0", "23", "45"]),
        (["l3=aaaaaaaa"], [1, 2], ["0", "12"]),
        (["l2=aabbccdd", "l3=aaaabbbb"], [4, 2], ["0123", "45"]),
    ],
)  # fmt: skip
def test_ranks_of_unlike_size_keep_inside_groups(
    columns: list[str], sizes: list[int], parts: list[str]
) -> None:
    """Level by level, the coarsest first; without gaps where that cannot be."""
    placed = place_sizes(make_cores(*columns), sizes)
    assert numbers(placed) == [[int(digit) for digit in part] for part in parts]


# --- spread --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("columns", "count", "chosen"),
    [
        (["package=aaaabbbb"], 1, "0"),
        (["package=aaaabbbb"], 2, "04"),
        (["package=aaaabbbb"], 3, "024"),
        (["package=aaaabbbb"], 4, "0246"),
        (["package=aaaabbbb"], 6, "012456"),
        (["package=aaaabbbb"], 8, "01234567"),
        (["package=aaaabbbb"], 9, "01234567"),
        (["package=aabbccdd"], 3, "024"),
        (["package=aabbccdd"], 2, "04"),
        (["package=aaaaaabb"], 4, "0367"),  # though one has more of them
        (["package=aaaaaaab"], 4, "0247"),
        (["package=aaaabbbb", "l3=aabbccdd"], 4, "0246"),
        (["package=aaaabbbb", "l3=aabbccdd"], 3, "024"),
        (["package=aaaabbbb", "l3=aabbccdd"], 6, "012456"),
        (["l3=aabbccdd", "l2=aaaabbbb"], 2, "04"),  # the level with fewer groups, whichever it is
        (["package=aaaaaaaa"], 3, "025"),
        (["package=abcdefgh"], 2, "04"),
        (["package=abcdefgh"], 4, "0246"),
    ],
)
def test_few_things_lie_far_apart(columns: list[str], count: int, chosen: str) -> None:
    """By the coarsest level, then evenly; all of them where there are no more."""
    first_cpus = [core.first_cpu for core in make_cores(*columns)]
    assert choose_spread(first_cpus, count) == [int(digit) for digit in chosen]


def test_things_are_split_by_the_coarsest_level_that_parts_them() -> None:
    """Not by one of which each has a group for itself, nor by one that all share."""
    for columns, groups in (
        (["package=aabb", "l2=abcd"], [[0, 1], [2, 3]]),
        (["package=aaaa", "l2=aabb"], [[0, 1], [2, 3]]),
        (["package=aaab", "l2=abbc"], [[0, 1, 2], [3]]),
        (["package=abcd"], [[0, 1, 2, 3]]),
        (["package=aaaa"], [[0, 1, 2, 3]]),
        (["package=aabc", "l3=aabb"], [[0, 1], [2, 3]]),
        (["package=aaab", "l3=aabb"], [[0, 1, 2], [3]]),  # of two the first in the tree
    ):
        first_cpus = [core.first_cpu for core in make_cores(*columns)]
        assert split_coarsely(first_cpus, range(4)) == groups
        assert split_coarsely(first_cpus, [1]) == [[1]]


# --- cores left over -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sizes", "least", "runs"),
    [
        ([2, 2, 2, 2], 2, [(0, 1), (1, 2), (2, 3), (3, 4)]),
        ([2, 2, 2, 2], 3, [(0, 2), (2, 4)]),
        ([2, 2, 2], 4, [(0, 2)]),
        ([1, 3, 1], 3, [(0, 2)]),
        ([4, 1], 4, [(0, 1)]),
        ([2, 2], 5, []),
        ([2, 2], 0, []),
    ],
)
def test_runs_of_nodes(sizes: list[int], least: int, runs: list[tuple[int, int]]) -> None:
    """Neighbours with so many cores, each run as short as can be."""
    assert find_runs(sizes, least) == runs


@pytest.mark.parametrize(
    ("columns", "count", "size", "parts"),
    [
        (["l3=aaaabbbb"], 2, 3, ["012", "456"]),
        (["l3=aaaabbbb"], 2, 4, ["0123", "4567"]),
        (["l3=aaabbbbb"], 2, 4, ["0123", "4567"]),  # not both inside caches: one after another
        (["l3=aaaabbbb"], 3, 2, ["01", "23", "45"]),
        (["l3=aaaabbbb"], 1, 2, ["01"]),
        (["l3=aaaabbbb"], 0, 2, []),
        (["l3=aaaaaabb"], 3, 2, ["01", "23", "67"]),
        (["l3=aaaabbbb", "l2=abbbcddd"], 2, 3, ["123", "567"]),
        (["l3=aaabbbcc"], 3, 2, ["01", "34", "67"]),
    ],
)
def test_parts_inside_of_caches(
    columns: list[str], count: int, size: int, parts: list[str]
) -> None:
    """Where there is room for all; the finer ones inside of the coarser."""
    taken = take_inside(make_cores(*columns), count, size)
    assert numbers(taken) == [[int(digit) for digit in part] for part in parts]
