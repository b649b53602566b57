"""From samples, taken in turns, to figures: medians with their intervals. Pure."""

from __future__ import annotations

from ompbind.compare.statistics import ALPHA, find_interval, find_median
from ompbind.machine.measurement import Figure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Mapping, Sequence
    from typing import TypeVar

    Key = TypeVar("Key", bound=Hashable)


def make_figures(rounds: Sequence[Mapping[Key, float]]) -> dict[Key, Figure]:
    """Return a figure for each thing that was sampled once in each round.

    A round's samples are divided by their median first, and what is left varies around 1: a drift
    of the whole machine is in all of them, and does not hide that one differs from the others. Of a
    single thing the samples are taken as they are. The intervals hold for all of them together
    (Bonferroni).
    """
    keys = list(dict.fromkeys(key for samples in rounds for key in samples))
    levels = [median(samples.values()) for samples in rounds if samples]
    level = median(levels) if levels else 1.0
    figures = {}
    for key in keys:
        ratios = sorted(samples[key] / (own if keys[1:] else level)
                        for samples, own in zip(filter(None, rounds), levels, strict=True)
                        if key in samples)  # fmt: skip
        middle = find_median(ratios) or 1.0
        low, high = find_interval(ratios, ALPHA / len(keys))
        figures[key] = Figure(
            middle * level,
            None if low is None else low * level,
            None if high is None else high * level,
        )
    return figures


def median(values: Iterable[float]) -> float:
    """Return the median of one value or more; of two in the middle the geometric mean."""
    return find_median(sorted(values)) or 0.0


def count_rounds(things: int, seconds: float, budget: float) -> int:
    """Return how many rounds of so many things, each of which takes so long, to take in a number of
    seconds: enough for intervals of all of them, and not more than help."""
    least = 1
    while find_interval([1.0] * least, ALPHA / max(things, 1))[0] is None:
        least += 1
    return max(least, min(2 * least, int(budget / (things * seconds))))
