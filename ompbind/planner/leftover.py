"""Equal ranks that leave cores over: --balance equal --leave-over. Pure."""

from __future__ import annotations

from ompbind.errors import PlanError
from ompbind.messages import counted
from ompbind.planner.cores import split_by
from ompbind.planner.division import (
    distribute,
    has_several_kinds,
    largest,
    make_worths,
    split_evenly,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ompbind.planner.cores import Core


def take_equal_parts(cores: tuple[Core, ...], count: int) -> list[tuple[Core, ...]]:
    """Return `count` <= len(cores) parts of as many cores each, as many as possible: inside nodes,
    or of whole neighbouring nodes where that gives more. Of several kinds of core each part has as
    many of each kind. Raises PlanError where there are none that all could have."""
    if has_several_kinds(cores):
        return take_equal_kinds(cores, count)
    nodes = split_by(cores, "node")
    sizes = [len(node) for node in nodes]
    inside = largest(1, max(sizes), lambda n: sum(size // n for size in sizes) >= count)
    across = largest(0, sum(sizes), lambda n: len(find_runs(sizes, n)) >= count)
    if across > inside:
        runs = find_runs(sizes, across)[:count]
        return [tuple(c for node in nodes[a:b] for c in node)[:across] for a, b in runs]
    counts = distribute(nodes, count, [size // inside for size in sizes])
    return [part for node, n in zip(nodes, counts, strict=True)
            for part in take_inside(node, n, inside)]  # fmt: skip


def find_runs(sizes: Sequence[int], least: int) -> list[tuple[int, int]]:
    """Return as many runs of neighbouring nodes, as [first, end), with so many cores as there are;
    none for 0 cores."""
    runs, start, total = [], 0, 0
    for i, size in enumerate(sizes):
        total += size
        if total >= least > 0:
            runs.append((start, i + 1))
            start, total = i + 1, 0
    return runs


def take_inside(cores: tuple[Core, ...], count: int, size: int) -> list[tuple[Core, ...]]:
    """Return `count` parts of `size` cores, inside caches where there is room for all."""
    if count == 0:
        return []
    for level, _ in make_worths(cores):
        groups = split_by(cores, level)
        room = [len(group) // size for group in groups]
        if sum(room) >= count:
            counts = distribute(groups, count, room)
            return [part for group, n in zip(groups, counts, strict=True)
                    for part in take_inside(group, n, size)]  # fmt: skip
    return split_evenly(cores[: count * size], count)


def take_equal_kinds(cores: tuple[Core, ...], count: int) -> list[tuple[Core, ...]]:
    """Return parts that have the same number of cores of each kind. Raises PlanError."""
    kept = {
        id(core)
        for kind in split_by(cores, "kind")
        for core in kind[: len(kind) // count * count]
    }  # fmt: skip
    if not kept:
        most = max(len(kind) for kind in split_by(cores, "kind"))
        raise PlanError(
            f"--leave-over: no kind of core has one for each of {count} ranks",
            hint=f"at most {counted(most, 'rank')}, or without --leave-over",
            wanted=count,
            available=most,
        )
    return split_evenly(tuple(core for core in cores if id(core) in kept), count)
