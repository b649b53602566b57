"""Compare the division of small machines with every other division of them.

    python -m tests.planner.divisions [--machines N] [--seed N] [--jobs N]

The judge shares no code with the planner. It writes each node's size as every possible sum, keeps
the sums that have the best smallest, largest and squares, and puts cores into parts of these sizes
in every way; of fewer ranks than nodes it tries every sequence of neighbouring nodes.
"""

from __future__ import annotations

import argparse
import itertools
import os
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cache, partial

from ompbind.cpuset import CpuSet
from ompbind.machine.topology import Cpu
from ompbind.planner.cores import Core
from ompbind.planner.division import divide, split_evenly

# How levels contain one another, the largest first; a machine has some of them. Where a virtual
# machine has no NUMA, its packages are inside a node.
CHAINS = (
    ("drawer", "book", "package", "node", "die", "l3", "cluster", "l2"),
    ("node", "drawer", "book", "package", "die", "l3", "cluster", "l2"),
)
# What counts when sizes are equal, the most important first.
PRIORITY = ("l3", "cluster", "l2", "drawer", "book", "package", "die")
BASE = 256  # more than any count of pairs of a part and a group

Labels = tuple[int, ...]  # a core's group at each level of PRIORITY
Score = tuple[int, ...]


class SmallMachine:
    """The node of each core, and its groups by PRIORITY; cores in the order of the tree."""

    def __init__(self, columns: dict[str, Sequence[int]], count: int) -> None:
        self.columns = columns
        self.nodes = list(columns.get("node") or [0] * count)
        self.labels = [
            tuple(columns[level][n] if level in columns else 0 for level in PRIORITY)
            for n in range(count)
        ]

    def make_cores(self) -> tuple[Core, ...]:
        return tuple(
            Core(CpuSet([n]), CpuSet([n]),
                 Cpu(n, core=n, **{level: text[n] for level, text in self.columns.items()}))
            for n in range(len(self.nodes))
        )  # fmt: skip

    def __str__(self) -> str:
        """As `make_cores` of the tests takes it."""
        return " ".join(f"{level}={''.join(chr(97 + n) for n in numbers)}"
                        for level, numbers in self.columns.items())  # fmt: skip


def draw_machine(rng: random.Random, most: int) -> SmallMachine:
    """A machine of up to `most` cores: a tree, regular or not, of which some cores may be lost."""
    chain = CHAINS[rng.random() < 0.3]
    kept = [level for level in chain if rng.random() < (0.6 if level in ("node", "l3") else 0.3)]
    regular = rng.random() < 0.4
    total = rng.randint(2, most + (6 if rng.random() < 0.3 else 0))
    groups = [[*range(total)]]
    columns: dict[str, list[int]] = {}
    for level in kept:
        ways = rng.randint(1, 4)
        finer = []
        for group in groups:
            number = min(ways if regular else rng.randint(1, 4), len(group))
            if regular:
                ends = [len(group) * i // number for i in range(1, number)]
            else:
                ends = sorted(rng.sample(range(1, len(group)), number - 1))
            finer += [group[a:b] for a, b in itertools.pairwise([0, *ends, len(group)])]
        groups = finer
        columns[level] = [i for i, group in enumerate(groups) for _ in group]
    left = total if rng.random() < 0.5 else rng.randint(max(1, total // 2), total)
    chosen = sorted(rng.sample(range(total), min(left, most)))
    return SmallMachine({lv: [c[n] for n in chosen] for lv, c in columns.items()}, len(chosen))


# --- the judge -----------------------------------------------------------------------------------


def judge(machine: SmallMachine, parts: Sequence[Sequence[int]], equal: bool = False) -> Score:
    """What a division is worth; less is better."""
    sizes = [len(part) for part in parts]
    crossings = sum(len({machine.nodes[n] for n in part}) - 1 for part in parts)
    evenness = (-min(sizes), max(sizes), sum(size * size for size in sizes))
    pairs = sum(pack(machine.labels[n] for n in part) for part in parts)
    return (*evenness, crossings, pairs) if equal else (crossings, *evenness, pairs)


def pack(cores: Iterator[Labels] | Sequence[Labels]) -> int:
    """The number of groups that a part has cores of at each level, as digits."""
    value = 0
    for groups in zip(*cores, strict=True):
        value = value * BASE + len(set(groups))
    return value


def find_best(machine: SmallMachine, count: int) -> Score:
    """What the best of all divisions is worth."""
    order = list(dict.fromkeys(machine.nodes))
    homes = {node: [n for n, other in enumerate(machine.nodes) if other == node] for node in order}
    if count < len(order):
        every = []
        for ends in itertools.combinations(range(1, len(order)), count - 1):
            runs = itertools.pairwise([0, *ends, len(order)])
            parts = [[n for node in order[a:b] for n in homes[node]] for a, b in runs]
            every.append(judge(machine, parts))
        return min(every)
    best: tuple[int, ...] | None = None
    ways: list[tuple[tuple[int, ...], ...]] = []
    for sums in itertools.product(*(partitions(len(homes[node])) for node in order)):
        sizes = [size for one in sums for size in one]
        if len(sizes) == count:
            evenness = (-min(sizes), max(sizes), sum(size * size for size in sizes))
            if best is None or evenness <= best:
                ways = [sums] if evenness != best else [*ways, sums]
                best = evenness
    assert best is not None
    pairs = min(
        sum(least_pairs(cells_of(machine, homes[node]), sizes)
            for node, sizes in zip(order, sums, strict=True))
        for sums in ways
    )  # fmt: skip
    return (0, *best, pairs)


def find_best_equal(machine: SmallMachine, count: int) -> Score:
    """The same where sizes differ by one core at most, whatever nodes they cross."""
    total = len(machine.nodes)
    length, longer = divmod(total, count)
    sizes = (length + 1,) * longer + (length,) * (count - longer)
    labelled = [(node, *labels) for node, labels in zip(machine.nodes, machine.labels, strict=True)]
    pairs = least_pairs(tuple(sorted(Counter(labelled).items())), sizes)
    nodes, pairs = divmod(pairs, BASE ** len(PRIORITY))
    return (-min(sizes), max(sizes), sum(n * n for n in sizes), nodes - count, pairs)


def cells_of(machine: SmallMachine, cores: Sequence[int]) -> tuple[tuple[Labels, int], ...]:
    """Cores of equal labels, which can stand for one another, with their number."""
    return tuple(sorted(Counter(machine.labels[n] for n in cores).items()))


@cache
def partitions(total: int, most: int | None = None) -> tuple[tuple[int, ...], ...]:
    """All ways to write it as a sum, the largest first, order not counting."""
    if total == 0:
        return ((),)
    return tuple((first, *rest) for first in range(min(total, most or total), 0, -1)
                 for rest in partitions(total - first, first))  # fmt: skip


def least_pairs(cells: tuple[tuple[Labels, int], ...], sizes: tuple[int, ...]) -> int:
    """The fewest pairs of a part and a group of which it has cores, over all ways to put cores
    into parts of these sizes."""
    labels = [label for label, _ in cells]
    worth_of: dict[tuple[int, ...], int] = {}
    best: dict[tuple[tuple[int, ...], tuple[int, ...]], int] = {}

    def take(left: tuple[int, ...], size: int, i: int) -> Iterator[tuple[int, ...]]:
        """All ways to take so many cores of what is left, from the i-th cell on."""
        if i == len(left):
            if size == 0:
                yield ()
            return
        for n in range(min(size, left[i]) + 1):
            for rest in take(left, size - n, i + 1):
                yield (n, *rest)

    def solve(left: tuple[int, ...], sizes: tuple[int, ...]) -> int:
        if not sizes:
            return 0
        key = (left, sizes)
        if key not in best:
            first = next(i for i, n in enumerate(left) if n)
            options = []
            for size in set(sizes):  # of the part that has the first core
                others = list(sizes)
                others.remove(size)
                one = tuple(n - (i == first) for i, n in enumerate(left))
                for more in take(one, size - 1, 0):
                    part = tuple(n + (i == first) for i, n in enumerate(more))
                    used = tuple(i for i, n in enumerate(part) if n)
                    if used not in worth_of:
                        worth_of[used] = pack([labels[i] for i in used])
                    rest = tuple(a - b for a, b in zip(left, part, strict=True))
                    options.append(worth_of[used] + solve(rest, tuple(others)))
            best[key] = min(options)
        return best[key]

    return solve(tuple(n for _, n in cells), sizes)


# --- comparing -----------------------------------------------------------------------------------


def compare(machine: SmallMachine, equal: bool = False) -> Iterator[tuple[int, Score, Score]]:
    """For each number of ranks: the score of ompbind's division, and the best one."""
    cores = machine.make_cores()
    for count in range(1, len(cores) + 1):
        parts = split_evenly(cores, count) if equal else divide(cores, count)
        numbers = [[core.first_cpu.cpu for core in part] for part in parts]
        assert sorted(n for part in numbers for n in part) == list(range(len(cores)))
        assert numbers == sorted(numbers), "ranks stand in the order of their first cores"
        best = find_best_equal(machine, count) if equal else find_best(machine, count)
        yield count, judge(machine, numbers, equal), best


def run(seed: int, machines: int, most: int = 12) -> tuple[Counter[str], list[str]]:
    """Compare so many drawn machines of up to `most` cores; return the numbers of divisions
    compared, and what differs."""
    rng = random.Random(seed)
    tally: Counter[str] = Counter()
    worse = []
    for number in range(machines):
        machine = draw_machine(rng, most)
        equal = number % 4 == 3
        mode = "equal" if equal else "local"
        tally["machines"] += 1
        for count, ours, best in compare(machine, equal):
            tally[mode] += 1
            if mode == "local" and count < len(set(machine.nodes)):
                tally["local, fewer ranks than nodes"] += 1
            if ours != best:
                worse.append(f"{mode} -n {count} on {machine}: {ours}, best {best}")
    return tally, worse


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.planner.divisions")
    parser.add_argument("--machines", type=int, default=50_000, metavar="N")
    parser.add_argument("--seed", type=int, default=1, metavar="N")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, metavar="N")
    options = parser.parse_args()
    share = 250
    seeds = [options.seed * 1_000_000 + i for i in range(-(-options.machines // share))]
    tally: Counter[str] = Counter()
    worse: list[str] = []
    with ProcessPoolExecutor(options.jobs) as pool:
        for counted, lines in pool.map(partial(run, machines=share), seeds):
            tally += counted
            worse += lines
            print(*lines, sep="\n", end="\n" if lines else "", flush=True)
    print(*(f"{name}: {number:,}" for name, number in tally.items()), sep="\n")
    print(f"worse than the best: {len(worse):,}")
    return bool(worse)


if __name__ == "__main__":
    raise SystemExit(main())
