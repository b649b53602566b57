"""What the best division is, against every other division of small machines."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ompbind.cpuset import CpuSet
from ompbind.errors import PlanError
from ompbind.machine.topology import Cpu
from ompbind.planner import combining
from ompbind.planner.combining import find_blocks, pair, sort_alone
from ompbind.planner.cores import Core
from ompbind.planner.division import (
    MOST_STEPS,
    Lengths,
    apportion,
    bound_counts,
    cut,
    cut_runs,
    divide,
    make_worths,
    split_evenly,
    weigh,
)
from ompbind.planner.kinds import balance, find_move
from ompbind.planner.leftover import take_equal_parts
from tests.planner import divisions


def make_cores(*columns: str, kinds: str = "", weights: Sequence[int] = ()) -> tuple[Core, ...]:
    """A core for each position: columns such as "l3=aabb" say which share a thing."""
    levels = {name: text for name, _, text in (c.partition("=") for c in columns)}
    count = len(next(iter(levels.values()))) if levels else len(kinds)
    cores = []
    for n in range(count):
        groups = {name: ord(text[n]) for name, text in levels.items()}
        kind = int(kinds[n]) if kinds else None
        cpus = CpuSet([n])
        cores.append(Core(cpus, cpus, Cpu(n, core=n, kind=kind, **groups),
                          weights[kind] if weights and kind is not None else 1))  # fmt: skip
    return tuple(cores)


def numbers(parts: Sequence[Sequence[Core]]) -> list[list[int]]:
    return [[core.first_cpu.cpu for core in part] for part in parts]


def compositions(total: int) -> Iterator[tuple[int, ...]]:
    """All ways to write it as a sum, order counting."""
    if total == 0:
        yield ()
    for first in range(1, total + 1):
        yield from ((first, *rest) for rest in compositions(total - first))


def partitions(count: int, parts: int) -> Iterator[list[list[int]]]:
    """All ways to put so many cores into so many parts, none empty."""

    def place(n: int, chosen: list[list[int]]) -> Iterator[list[list[int]]]:
        if n == count:
            if all(chosen):
                yield [list(part) for part in chosen]
            return
        empty = False
        for part in chosen:
            if not part and empty:
                break  # the same as the empty one before it
            empty = not part
            part.append(n)
            yield from place(n + 1, chosen)
            part.pop()

    yield from place(0, [[] for _ in range(parts)])


def crossings(parts: Sequence[Sequence[int]], caches: str) -> int:
    """How many caches beyond its first one each part is in."""
    return sum(len({caches[n] for n in part}) - 1 for part in parts)


@pytest.mark.parametrize("count", [2, 3, 4])
def test_no_division_crosses_fewer_caches(count: int) -> None:
    """Of all divisions of up to eight cores whose sizes differ by one at most, wherever up to four
    caches end."""
    for total in range(count, 9):
        fair = [p for p in partitions(total, count)
                if max(map(len, p)) - min(map(len, p)) <= 1]  # fmt: skip
        for sizes in compositions(total):
            if len(sizes) > 4:
                continue
            caches = "".join(letter * n for letter, n in zip("abcd", sizes, strict=False))
            got = numbers(split_evenly(make_cores(f"l3={caches}"), count))
            assert sorted(chain(*got)) == list(range(total))
            assert max(map(len, got)) - min(map(len, got)) <= 1
            best = min(crossings(p, caches) for p in fair)
            assert crossings(got, caches) == best, (caches, got)
            assert got == sorted(got), "ranks stand in the order of their first cores"


@given(st.lists(st.integers(1, 4), min_size=1, max_size=4), st.integers(1, 4), st.integers(1, 5))
def test_runs_end_where_caches_do(groups: list[int], inner: int, count: int) -> None:
    """No other runs of such lengths end at coarser caches, then at finer ones."""
    outer = "".join(chr(97 + i) * n * inner for i, n in enumerate(groups))
    fine = "".join(chr(97 + i) * inner for i in range(sum(groups)))
    cores = make_cores(f"l3={outer}", f"l2={fine}")
    if count > len(cores):
        return

    def value(sizes: Sequence[int]) -> tuple[int, int]:
        """How many runs end with a coarser cache, and how many with a finer one."""
        ends = list(itertools.accumulate(sizes[:-1]))
        return (
            sum(outer[end - 1] != outer[end] for end in ends),
            sum(fine[end - 1] != fine[end] for end in ends),
        )

    length, longer = divmod(len(cores), count)
    got = [len(run) for run in cut_runs(cores, count, make_worths(cores))]
    every = {tuple(p) for p in itertools.permutations([length + 1] * longer
                                                      + [length] * (count - longer))}  # fmt: skip
    best = max(map(value, every))
    assert value(got) == best
    assert tuple(got) == max(p for p in every if value(p) == best), "the first are the longer ones"


def test_coarser_caches_come_first() -> None:
    """Ending at one L3 counts more than at any number of L2s; numbers say which is coarser."""
    levels = make_worths(make_cores("cluster=aabbccdd", "l2=aaaabbbb"))
    assert [level for level, _ in levels] == ["l2", "cluster"]
    for dies, l2s, sizes in (
        ("aaabbbb", "aabbccd", [3, 4]),  # after four cores an L2 ends, after three an L3
        ("aaaabbb", "aabccdd", [4, 3]),
    ):
        cores = make_cores(f"l3={dies}", f"l2={l2s}")
        assert [len(run) for run in cut_runs(cores, 2, make_worths(cores))] == sizes
    assert numbers(split_evenly(make_cores("l3=aabbb"), 2)) == [[0, 1], [2, 3, 4]]
    # equal parts come before whole caches
    assert numbers(split_evenly(make_cores("l3=abbbb"), 2)) == [[0, 1, 2], [3, 4]]


def test_caches_that_fit_together() -> None:
    """What a cgroup leaves of caches may fit only out of order."""
    assert numbers(split_evenly(make_cores("l3=aabbbc"), 2)) == [[0, 1, 5], [2, 3, 4]]
    # of nine sizes: no other nine parts of five cross fewer than five
    text = "".join(letter * n for letter, n in zip("abcdefghi", range(1, 10), strict=True))
    parts = split_evenly(make_cores(f"l3={text}"), 9)
    assert [len(part) for part in parts] == [5] * 9
    assert crossings(numbers(parts), text) == 4


@given(st.lists(st.integers(1, 9), min_size=2, max_size=7), st.data())
def test_whole_nodes_are_put_together_evenly(weights: list[int], data: st.DataObject) -> None:
    """With fewer ranks than nodes: of all runs of neighbouring nodes those whose lightest is
    heaviest, then whose heaviest is lightest."""
    count = data.draw(st.integers(1, len(weights)))
    every = []
    for ends in itertools.combinations(range(1, len(weights)), count - 1):
        bounds = [0, *ends, len(weights)]
        sums = [sum(weights[a:b]) for a, b in itertools.pairwise(bounds)]
        every.append((min(sums), -max(sums)))
    runs = cut(weights, count, lambda a, b: 0)
    assert [a for a, _ in runs] == [0, *(b for _, b in runs[:-1])]
    assert runs[-1][1] == len(weights)
    sums = [sum(weights[a:b]) for a, b in runs]
    assert (min(sums), -max(sums)) == max(every)


@pytest.mark.parametrize(
    ("weights", "count"),
    [
        ([2, 7, 3, 4], 3),
        ([1, 7, 2, 7, 3, 3], 4),
        ([2, 7, 6, 3, 2, 1], 4),
        ([6, 5, 9, 3, 1, 8], 4),
        ([9, 5, 4, 9, 7], 3),
        ([6, 6, 1, 12, 5, 31], 4),
        ([9, 1, 7, 2, 2, 6], 5),
        ([4, 5, 3, 2, 5], 3),
        ([1, 7, 1, 1, 1, 4, 7, 1], 5),  # its heaviest one is lighter
    ],
)
def test_the_lightest_and_the_heaviest_come_before_evenness(weights: list[int], count: int) -> None:
    """Runs whose squares are least have a lighter lightest one here, or a heavier heaviest."""
    every = []
    for ends in itertools.combinations(range(1, len(weights)), count - 1):
        sums = [sum(weights[a:b]) for a, b in itertools.pairwise([0, *ends, len(weights)])]
        every.append((min(sums), -max(sums), -sum(n * n for n in sums)))
    sums = [sum(weights[a:b]) for a, b in cut(weights, count, lambda a, b: 0)]
    assert (min(sums), -max(sums), -sum(n * n for n in sums)) == max(every)
    assert max(every)[2] < max(squares for _, _, squares in every)


@pytest.mark.parametrize(
    "every",
    [
        *([*itertools.product(range(1, 8), repeat=nodes)] for nodes in (1, 2, 3)),
        [(5, 12), (9, 7), (9, 1), (8, 1)],
    ],
    ids=["one", "two", "three", "larger"],
)
def test_bounds_hold_exactly_the_best_numbers(every: list[tuple[int, ...]]) -> None:
    """Of all numbers of ranks for nodes of up to seven cores, and a few of more, those between the
    bounds are the best by the smallest, the largest and the squares; no others are."""
    for sizes in every:
        by_count: dict[int, list[tuple[tuple[int, int, int], tuple[int, ...]]]] = {}
        for numbers_of in itertools.product(*(range(1, n + 1) for n in sizes)):
            lengths = [
                n // k + (i < n % k)
                for n, k in zip(sizes, numbers_of, strict=True)
                for i in range(k)
            ]
            key = (-min(lengths), max(lengths), sum(n * n for n in lengths))
            by_count.setdefault(sum(numbers_of), []).append((key, numbers_of))
        for count, ways in by_count.items():
            best = {way for key, way in ways if key == min(ways)[0]}
            least, most = bound_counts(sizes, count)
            ranges = [range(a, b + 1) for a, b in zip(least, most, strict=True)]
            assert {w for w in itertools.product(*ranges) if sum(w) == count} == best


@given(
    st.lists(st.integers(1, 5), min_size=1, max_size=5),
    st.lists(st.integers(1, 3), min_size=5, max_size=5),
    st.integers(1, 12),
)
def test_no_node_is_crossed_that_need_not(
    sizes: list[int], packages: list[int], count: int
) -> None:
    """A rank for each node or more: each is in one node. Fewer: each node is in one rank, and each
    package where there are ranks enough."""
    nodes = "".join(chr(97 + i) * n for i, n in enumerate(sizes))
    order = [p for p, n in enumerate(packages) for _ in range(n)][: len(sizes)]
    order += [max(order)] * (len(sizes) - len(order))
    package = "".join(chr(97 + order[i]) * n for i, n in enumerate(sizes))
    if count > len(nodes):
        return
    parts = numbers(divide(make_cores(f"node={nodes}", f"package={package}"), count))
    assert sorted(chain(*parts)) == list(range(len(nodes)))
    if count >= len(sizes):
        assert crossings(parts, nodes) == 0
    else:
        homes = [{i for i, part in enumerate(parts) if any(nodes[n] == node for n in part)}
                 for node in set(nodes)]  # fmt: skip
        assert all(len(home) == 1 for home in homes)
    for node in set(nodes):
        inside = [len(p) for p in parts if {nodes[n] for n in p} == {node}]
        assert not inside or max(inside) - min(inside) <= 1


@pytest.mark.parametrize("groups", [2, 3, 4])
def test_ranks_in_proportion(groups: int) -> None:
    """Of all ways to give nodes of up to seven cores so many ranks, one at least to each, none has
    a larger smallest share; of those that have the same, none a smaller largest one."""
    for weights in itertools.combinations_with_replacement(range(1, 8), groups):
        every: dict[int, tuple[int, int]] = {}
        for ranks in itertools.product(*(range(1, w + 1) for w in weights)):
            shares = [*zip(weights, ranks, strict=True)]
            value = (min(w // n for w, n in shares), -max(-(-w // n) for w, n in shares))
            every[sum(ranks)] = max(value, every.get(sum(ranks), value))
        for count, best in every.items():
            dealt = apportion(weights, count, [1] * groups, weights)
            shares = [*zip(weights, dealt, strict=True)]
            assert sum(dealt) == count
            assert all(1 <= n <= w for w, n in shares)
            assert (min(w // n for w, n in shares), -max(-(-w // n) for w, n in shares)) == best


def test_the_largest_share_gets_the_next_rank() -> None:
    """Half of the next rank is counted (Webster): counting all of it (D'Hondt) would give three."""
    assert apportion([3, 2], 4, [1, 1], [3, 2]) == [2, 2]


@pytest.mark.parametrize("seed", range(40))
def test_no_division_is_better(seed: int) -> None:
    """All levels together, against every division of small machines of every form and every number
    of ranks: `make test-division` compares hundreds of thousands."""
    tally, worse = divisions.run(seed, machines=15, most=9)
    assert worse == []
    assert tally["local"] > 40
    assert tally["equal"] > 5
    assert tally["local, fewer ranks than nodes"] > 0


@pytest.mark.parametrize(
    ("columns", "count", "sizes"),
    [
        # sockets of a virtual machine without NUMA: balance comes first
        (["package=aaaaabbbbb"], 3, [4, 3, 3]),
        (["node=aaaaaabbbbbbccccccddddddeeeeeeffffffgggggghhhhhh",
          "package=aaaaaaaaaaaaaaaaaaaaaaaabbbbbbbbbbbbbbbbbbbbbbbb"], 3, [18, 18, 12]),
        # three nodes in each package
        (["node=aabbccddeeff", "package=aaaaaabbbbbb"], 3, [4, 4, 4]),
        # what a cgroup left of four nodes: nodes count, not the sums of packages
        (["node=aaaaabbbbbcccdddddd", "package=aaaaaaaaaabbbbbbbbb"], 5, [5, 5, 3, 3, 3]),
        # several caches in a die, of unlike size: pairs of one die
        (["die=aaaabbbb", "l3=aaabcccd"], 2, [4, 4]),
    ],
)  # fmt: skip
def test_divisions_worked_out_by_hand(columns: list[str], count: int, sizes: list[int]) -> None:
    """Balance before packages, nodes before balance, and caches last."""
    assert [len(part) for part in divide(make_cores(*columns), count)] == sizes


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("l2=abccddef", [[0, 1], [2, 3], [4, 5], [6], [7]]),
        ("die=abcdeef cluster=abbcccd", [[0, 6], [1, 2], [3], [4, 5]]),
        ("package=aaabbbcdddee l3=aaabcccdddee",
         [[0, 1], [2, 3], [4, 5], [6], [7, 8], [9], [10, 11]]),
        ("package=abccdeff l3=aaaaaabb l2=aaaaabbb die=aaaaaabb", [[0, 1, 4], [2, 3, 5], [6, 7]]),
        ("node=aabbcc die=aabbcd", [[0, 1], [2], [3], [4], [5]]),
    ],
)  # fmt: skip
def test_of_several_divisions_as_good(text: str, parts: list[list[int]]) -> None:
    """Longer ones come first, and neighbours stay together where that costs nothing: a launch gets
    the same cpus with each version."""
    columns = dict(column.split("=") for column in text.split())
    machine = divisions.SmallMachine(
        {level: [ord(c) for c in groups] for level, groups in columns.items()},
        sum(map(len, parts)),
    )
    assert numbers(divide(machine.make_cores(), len(parts))) == parts
    assert divisions.judge(machine, parts) == divisions.find_best(machine, len(parts))


def make_caches(sizes: Sequence[int]) -> tuple[tuple[Core, ...], str]:
    text = "".join(chr(0x100 + i) * size for i, size in enumerate(sizes))
    return make_cores(f"l3={text}"), text


@pytest.mark.parametrize(
    ("sizes", "count", "least"),
    [
        ([3] * 5 + [1] * 5, 5, 5),  # a pair for each rank
        ([6] * 6 + [2] * 6, 6, 6),
        ([8, 7, 6, 5] * 6, 13, 13),  # 7+5, 6+6 and 8+8+8 fill ranks of 12
        ([*range(1, 13)], 6, 6),
        ([8, 7, 6, 5] * 4, 13, 9),  # pairs alone would cross 11
    ],
)
def test_many_caches_of_unlike_size(sizes: list[int], count: int, least: int) -> None:
    """More caches than any division could try: the fewest crossings are known by hand."""
    cores, text = make_caches(sizes)
    parts = numbers(split_evenly(cores, count))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    assert crossings(parts, text) == least


def test_many_caches_of_several_nodes() -> None:
    """Each node's share of the steps is enough for the search that one such node needs."""
    _, text = make_caches([8, 7, 6, 5] * 8)
    cores = make_cores(f"l3={text}", f"node={'a' * 104}{'b' * 104}")
    assert crossings(numbers(divide(cores, 26)), text) == 2 * 9


def test_a_search_that_would_take_too_long_is_given_up() -> None:
    """Dozens of caches of as many sizes: parts are even and whole, and no worse than neighbours."""
    sizes = [(i * 7) % 31 + 1 for i in range(60)]
    cores, text = make_caches(sizes)
    for count in (7, 50, 200):
        parts = numbers(split_evenly(cores, count))
        assert sorted(chain(*parts)) == list(range(len(text)))
        assert max(map(len, parts)) - min(map(len, parts)) <= 1
        runs = numbers(cut_runs(cores, count, make_worths(cores)))
        assert crossings(parts, text) <= crossings(runs, text)


@pytest.mark.parametrize(
    ("columns", "searches"),
    [(["l3=aabbbccddeeeff"], 1), (["l3=aabbbccddeeeff", "l2=abbccddeffgghh"], 3)],
)
def test_the_steps_of_a_plan_are_shared(
    columns: list[str], searches: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its nodes; on each by the searches for every level and for all together."""
    asked = []

    def note_steps(*args: Any) -> Any:
        asked.append(args[-1])
        return find_blocks(*args)

    monkeypatch.setattr(combining, "find_blocks", note_steps)
    divide(make_cores("node=aaaaaaabbbbbbb", *columns), 5)
    assert set(asked) == {MOST_STEPS // 2 // searches}


@pytest.mark.parametrize(
    ("sizes", "count", "wanted"),
    [
        ([4, 3, 1, 2, 2, 3, 1], 4, [[4], [3, 1], [3, 1], [2, 2]]),
        ([3, 3, 2], 2, [[3, 3, 2]]),  # no two fill a rank: one block of all
        ([2, 2, 1], 2, [[2], [2, 1]]),  # one rank of two, one of three
        ([5, 1, 1], 3, [[5], [1, 1]]),  # ranks of three and two, and of two
        ([8, 3, 2], 3, [[8], [3, 2]]),
    ],
)
def test_pairs_of_caches(sizes: list[int], count: int, wanted: list[list[int]]) -> None:
    """What is taken where a search takes too long: one cache or two that fill ranks, then the rest;
    all blocks together have as many ranks as there are."""
    cores, text = make_caches(sizes)
    groups = [tuple(c for c in cores if text[c.first_cpu.cpu] == t) for t in dict.fromkeys(text)]
    lengths = Lengths.make(len(cores), count)
    blocks = pair(groups, lengths.find_points, (lengths.shorts, lengths.longs))
    assert [[len(group) for group in block] for block, _ in blocks] == wanted
    assert sum(number for _, number in blocks) == count
    for block, number in blocks:
        total = sum(map(len, block))
        assert number * lengths.length <= total <= number * (lengths.length + 1)


@pytest.mark.parametrize(
    ("sizes", "count", "steps"),
    [
        ([*range(1, 13)], 6, 1_000),
        ([1, 1, 2, 2, 3, 3, 3, 4, 5, 5, 6, 6, 7, 8], 6, 20_000),
        ([1, 2, 2, 2, 3, 3, 3, 5, 6, 6, 6, 7, 8, 8], 14, 4_000),
        ([1, 3, 3, 3, 5, 5, 5, 6, 7, 8, 8, 8, 8, 8], 8, 40_000),
    ],
)
def test_a_search_is_short_where_nothing_better_can_come(
    sizes: list[int], count: int, steps: int
) -> None:
    """What each cache needs beside itself tells early that pairs are best; only what is better
    than asked for is an answer, and too few steps are none."""
    cores, text = make_caches(sizes)
    groups = [tuple(c for c in cores if text[c.first_cpu.cpu] == t) for t in dict.fromkeys(text)]
    lengths = Lengths.make(len(cores), count)
    ends = (lengths.find_points, (lengths.shorts, lengths.longs))
    joins = len(groups) - len(pair(groups, *ends))
    assert find_blocks(sort_alone(groups), (1,), joins, *ends, steps) == []
    assert find_blocks(sort_alone(groups), (1,), joins + 1, *ends, 10) is None
    blocks = find_blocks(sort_alone(groups), (1,), joins + 1, *ends, 10 * steps)
    assert blocks is not None
    assert len(blocks) == len(groups) - joins
    assert sorted(len(g) for block, _ in blocks for g in block) == sorted(sizes)
    assert sum(number for _, number in blocks) == count


# --- equal parts, and cores left over -------------------------------------------------------------


@pytest.mark.parametrize(
    ("nodes", "count", "size", "crossed"),
    [
        ("aaaabbbb", 3, 2, 0),  # inside nodes
        ("aabbccdd", 3, 2, 0),  # a node each, and one is left over
        ("aabbccddee", 2, 4, 2),  # two whole nodes each
        ("aaaaaaaabcd", 2, 4, 0),  # both in the large node, where the others have less
        ("aab", 3, 1, 0),
        ("aaaabccccd", 3, 2, 0),
        ("abcdefg", 3, 2, 3),
    ],
)
def test_equal_parts_that_leave_cores_over(nodes: str, count: int, size: int, crossed: int) -> None:
    """As large as can be had inside nodes, or of whole ones."""
    parts = numbers(take_equal_parts(make_cores(f"node={nodes}"), count))
    assert [len(part) for part in parts] == [size] * count
    assert crossings(parts, nodes) == crossed
    assert parts == sorted(parts)
    taken = list(chain(*parts))
    assert len(set(taken)) == len(taken)
    if crossed:
        assert all(nodes[n] not in {nodes[m] for m in set(taken) - set(part)}
                   for part in parts for n in part), "no node is divided"  # fmt: skip


@pytest.mark.parametrize(
    ("columns", "count", "wanted"),
    [
        # three cores of each cache, none of both
        (["l3=aaaabbbb", "node=aaaaaaaa"], 2, [[0, 1, 2, 3], [4, 5, 6, 7]]),
        (["l3=aaaaabbbbb"], 3, [[0, 1, 2], [3, 4, 5], [6, 7, 8]]),  # 3+3 would not fit in one
        (["l3=aaaabbbbcc"], 4, [[0, 1], [2, 3], [4, 5], [8, 9]]),
        (["l3=aaabbbcc", "node=aaabbbcc"], 2, [[0, 1, 2], [3, 4, 5]]),
        (["node=aaabc"], 3, [[0], [1], [3]]),  # by room; a node each would give no more
        (["l2=aabbccd"], 3, [[0, 1], [2, 3], [4, 5]]),
        (["l3=aaaabbbb", "l2=aabbccdd", "node=aaaaaaab"], 3, [[0, 1], [2, 3], [4, 5]]),
    ],
)
def test_equal_parts_inside_caches(columns: list[str], count: int, wanted: list[list[int]]) -> None:
    assert numbers(take_equal_parts(make_cores(*columns), count)) == wanted


def test_equal_parts_of_several_kinds() -> None:
    """As many of each kind; a kind of which not all could have one is left over."""
    cores = make_cores(kinds="1110000000", weights=(400, 1024))
    assert numbers(take_equal_parts(cores, 2)) == [[0, 3, 4, 5], [1, 6, 7, 8]]
    assert numbers(take_equal_parts(cores, 4)) == [[3], [4], [5], [6]]
    with pytest.raises(PlanError, match="no kind of core has one for each of 8 ranks") as caught:
        take_equal_parts(cores, 8)
    assert caught.value.hint == "at most 7 ranks, or without --leave-over"


# --- several kinds of core ----------------------------------------------------------------------


def spread(number: int, count: int) -> Iterator[tuple[int, ...]]:
    """All ways to deal so many alike to so many."""
    if count == 1:
        yield (number,)
        return
    for first in range(number + 1):
        yield from ((first, *rest) for rest in spread(number - first, count - 1))


@pytest.mark.parametrize("weights", [(1024, 624), (1024, 446), (1024, 737), (3, 2), (9, 7, 2)])
def test_capacity_is_as_equal_as_it_comes(weights: tuple[int, ...]) -> None:
    """Where each kind divides, the same of each; else no other way of dealing up to eight cores
    gives the weakest rank a fourteenth more, and mostly none gives it anything more."""
    cases = worse = 0
    for having in itertools.product(range(1, 7), repeat=len(weights)):
        for count in range(2, min(5, sum(having) + 1)):
            if sum(having) > 8:
                continue
            dealt = balance(list(zip(weights, having, strict=True)), count)
            assert [sum(row) for row in dealt] == list(having)
            sums = [sum(w * row[r] for w, row in zip(weights, dealt, strict=True))
                    for r in range(count)]  # fmt: skip
            assert find_move(dealt, sums, weights) is None, "no move brings two nearer"
            sums = [sum(w * row[r] for w, row in zip(weights, dealt, strict=True))
                    for r in range(count)]  # fmt: skip
            assert all(sums)
            if all(n % count == 0 for n in having):
                assert all(set(row) == {n // count} for row, n in zip(dealt, having, strict=True))
            every = itertools.product(*(list(spread(n, count)) for n in having))
            best = max(
                min(sum(w * row[r] for w, row in zip(weights, way, strict=True))
                    for r in range(count))
                for way in every
            )  # fmt: skip
            assert min(sums) * 14 > best * 13
            cases += 1
            worse += min(sums) < best
    assert worse * 20 < cases


@pytest.mark.parametrize(
    ("kinds", "count"),
    [([(5, 9), (3, 11)], 6), ([(10, 6), (9, 10), (1, 12)], 3), ([(9, 10), (7, 11), (2, 3)], 5)],
)
def test_cores_move_as_long_as_that_helps(kinds: list[tuple[int, int]], count: int) -> None:
    """Where it takes several moves: none that is left brings two parts nearer."""
    weights = [weight for weight, _ in kinds]
    dealt = balance(kinds, count)
    assert [sum(row) for row in dealt] == [number for _, number in kinds]
    sums = [sum(w * row[r] for w, row in zip(weights, dealt, strict=True)) for r in range(count)]
    assert find_move(dealt, sums, weights) is None


@pytest.mark.parametrize(
    ("kinds", "count", "dealt"),
    [
        ([(3, 6), (2, 4)], 3, [[1, 3, 2], [3, 0, 1]]),
        ([(3, 6), (2, 7)], 3, [[1, 3, 2], [4, 1, 2]]),
        ([(3, 8), (2, 6)], 4, [[1, 1, 3, 3], [3, 3, 0, 0]]),
        ([(2, 3), (1, 3)], 3, [[1, 1, 1], [1, 1, 1]]),
        ([(5, 1), (1, 4)], 2, [[1, 0], [0, 4]]),
    ],
)
def test_cores_are_dealt_as_worked_out(
    kinds: list[tuple[int, int]], count: int, dealt: list[list[int]]
) -> None:
    """To the weakest part, the first of several; then moved from the strongest to the weakest."""
    assert balance(kinds, count) == dealt


@given(st.text(alphabet="01", min_size=1, max_size=12), st.integers(1, 5))
def test_parts_of_several_kinds(kinds: str, count: int) -> None:
    """Every core is dealt once, to ranks in the order of their first cores, whose capacities do not
    differ by more than one core's."""
    cores = make_cores("l3=" + "a" * len(kinds), kinds=kinds, weights=(600, 1024))
    if count > len(cores):
        return
    parts = divide(cores, count)
    assert sorted(chain(*numbers(parts))) == list(range(len(kinds)))
    assert numbers(parts) == sorted(numbers(parts))
    sums = [sum((600, 1024)[int(kinds[n])] for n in part) for part in numbers(parts)]
    assert max(sums) - min(sums) <= 1024
    assert all(part == sorted(part) for part in numbers(parts))


@pytest.mark.parametrize(
    ("node", "kinds", "parts"),
    [
        ("aaabbb", "000111", [[0, 1, 2], [3, 4], [5]]),  # the node of the larger cores has two
        ("abbb", "0111", [[0], [1, 2, 3]]),  # one at the least for each, though it is weak
        ("aabb", "0101", [[0, 1], [2, 3]]),
    ],
)
def test_several_kinds_on_several_nodes(node: str, kinds: str, parts: list[list[int]]) -> None:
    """Nodes have ranks by their capacity."""
    cores = make_cores(f"node={node}", kinds=kinds, weights=(400, 1024))
    assert numbers(divide(cores, len(parts))) == parts


def test_runs_of_a_kind_have_the_lengths_of_their_ranks() -> None:
    """Where caches decide which runs are the longer ones."""
    columns = ("l3=aabbccc", "l2=abbbccd")
    cores = make_cores(*columns, kinds="0110100", weights=(3, 5))
    assert numbers(divide(cores, 5)) == [[0, 3], [1], [2], [4], [5, 6]]


def test_capacity_of_cores() -> None:
    """Their number, where nothing says what each is worth."""
    assert weigh(make_cores("l3=aab")) == 3
    assert weigh(make_cores(kinds="001", weights=(400, 1024))) == 1824


def test_clusters_called_packages() -> None:
    """On one node, packages of one kind each are no bounds; with a mixed one they are."""
    cores = make_cores("package=aaaabbbb", "node=aaaaaaaa", kinds="00001111", weights=(400, 1024))
    assert numbers(divide(cores, 2)) == [[0, 1, 4, 5], [2, 3, 6, 7]]
    mixed = make_cores("package=aaaabbbb", "node=aaaaaaaa", kinds="00110011", weights=(400, 1024))
    assert numbers(divide(mixed, 2)) == [[0, 1, 2, 3], [4, 5, 6, 7]]


def test_one_rank_on_nodes_that_span_packages() -> None:
    """Has its cores in their order, and not by node: nothing is divided."""
    cores = make_cores("package=aaaabbbb", "node=aabbaabb")
    assert numbers(divide(cores, 1)) == [list(range(8))]


def test_the_most_capable_cores_are_distributed_first() -> None:
    """Whichever kind has the lower numbers: the ranks that get one are the same."""
    for kinds, parts in (
        ("0000011", [[0, 5], [1, 6], [2, 3, 4]]),
        ("1100000", [[0, 2], [1, 3], [4, 5, 6]]),
    ):
        cores = make_cores("l3=aaaaaaa", kinds=kinds, weights=(600, 1024))
        assert numbers(split_evenly(cores, 3)) == parts


@given(st.lists(st.integers(1, 9), min_size=1, max_size=6), st.data())
def test_no_runs_are_better(weights: list[int], data: st.DataObject) -> None:
    """The lightest is as heavy as possible, the heaviest as light, the squares and the costs small,
    and then earlier runs are longer."""
    count = data.draw(st.integers(1, len(weights)))
    costs = data.draw(st.lists(st.integers(0, 3), min_size=49, max_size=49))

    def worst_last(runs: Sequence[tuple[int, int]]) -> tuple[object, ...]:
        sums = [sum(weights[a:b]) for a, b in runs]
        price = sum(costs[7 * a + b] for a, b in runs)
        return -min(sums), max(sums), sum(s * s for s in sums), price, [a - b for a, b in runs]

    ways = []
    for inner in itertools.combinations(range(1, len(weights)), count - 1):
        ends = (0, *inner, len(weights))
        ways.append(list(itertools.pairwise(ends)))
    assert cut(weights, count, lambda a, b: costs[7 * a + b]) == min(ways, key=worst_last)


@given(st.lists(st.integers(1, 7), min_size=1, max_size=4), st.data())
def test_bounds_hold_all_best_counts_and_no_others(sizes: list[int], data: st.DataObject) -> None:
    """How many parts of each node: the smallest part as large as possible, the largest as small,
    and the squares small."""
    count = data.draw(st.integers(len(sizes), sum(sizes)))

    def worst_last(counts: Sequence[int]) -> tuple[int, ...]:
        parts = [
            size // n + (k < size % n) for size, n in zip(sizes, counts, strict=True)
            for k in range(n)
        ]  # fmt: skip
        return -min(parts), max(parts), sum(part * part for part in parts)

    ways = [w for w in itertools.product(*(range(1, s + 1) for s in sizes)) if sum(w) == count]
    best = min(map(worst_last, ways))
    least, most = bound_counts(sizes, count)
    for way in ways:
        inside = all(a <= n <= b for a, n, b in zip(least, way, most, strict=True))
        assert inside == (worst_last(way) == best)
