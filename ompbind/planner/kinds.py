"""How many cores of each kind each part gets, so that all have equal capacity: pure numbers."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


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
            if take is None or numbers[take][taker]:
                return giver, taker, give, take
    return None
