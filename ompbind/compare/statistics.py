"""Judge variants by their figures: which is best, and which of the others differ from it. Pure.

All variants run once in each round, in random order, so a pair of variants is compared by the ratio
of its two figures in each round: a drift, or load that lasts longer than a round, is in both. The
judgement makes one assumption: had the two been equal, either would have come out ahead in a round
with the same chance, which the random order provides whatever the noise is like. It is thus built
on the sign test, which only counts in how many rounds one variant was ahead of the other.

Three things would make an ordinary sign test call equal variants different too often:

- The figures are judged after every round, and measuring ends when they say something. The test
  must hold at all these looks together. Let one variant be ahead in k of n rounds. For a coin that
  is fair the chance of exactly k is C(n, k) / 2^n; averaged over all coins, fair and unfair alike,
  it is 1 / (n + 1). The ratio of the two, (n + 1) C(n, k) / 2^n, falls to `alpha` or below at
  *some* n in at most `alpha` of all experiments with equal variants (Ville's inequality). An
  ordinary sign test has the sum of such chances, over k and what is more extreme, in its place.
- The best is chosen by the figures, so any two variants may come to be compared. `alpha` is divided
  by the number of all pairs (Bonferroni), and the intervals hold for all of them together.
- That no difference was seen does not show that there is none. Two variants are called the same
  only when the interval of their ratio lies within a margin around 1 (a test of equivalence).

The interval of the median of the ratios contains those values that the test does not reject, which
makes its ends two of the ratios, counted from the least and from the greatest.

Sources: J. Ville, Étude critique de la notion de collectif (1939). D. A. Darling and H. Robbins,
Confidence sequences for mean, variance, and median, PNAS 58 (1967) 66-68. H. Robbins, Statistical
methods related to the law of the iterated logarithm, Ann. Math. Statist. 41 (1970) 1397-1409. The
sign test, its interval, and tests of equivalence are in textbooks: W. J. Conover, Practical
Nonparametric Statistics, 3.2 and 3.4; S. Wellek, Testing Statistical Hypotheses of Equivalence.
How often it errs over recorded noise is in docs/explanation/comparing.md.
"""

from __future__ import annotations

import math

from ompbind.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Literal

    Better = Literal["lower", "higher"]
    Kind = Literal["best", "worse", "same", "open"]

ALPHA = 0.05  # of experiments in which something untrue may be stated
MARGIN = 0.02  # a difference that does not matter


class Verdict(Record):
    """What the rounds say of one variant, compared with the best one."""

    name: str
    # "best"; "worse": it is; "same": it differs by no more than the margin; "open": the rounds
    # show neither.
    kind: Kind
    # The median, over the rounds that have both, of its figure divided by the best one's; None
    # where no round has both.
    ratio: float | None
    # The ends of the interval that contains the true median; None: too few rounds for an interval.
    low: float | None
    high: float | None
    rounds: int  # that have both


def judge(
    rounds: Sequence[Mapping[str, float]],
    better: Better,
    *,
    alpha: float = ALPHA,
    margin: float = MARGIN,
) -> list[Verdict]:
    """Return a verdict for each variant that has figures, the best first, then by ratio.

    `rounds`: for each round the figures by variant, without those that failed. The verdicts can be
    asked for after any number of rounds, as often as one likes: in at most `alpha` of all
    experiments any of them ever is untrue, of a "worse" variant as well as of an interval. Raises
    ValueError for a figure that is negative or no number.
    """
    names = list(dict.fromkeys(name for figures in rounds for name in figures))
    for figures in rounds:
        for name, figure in figures.items():
            if not figure >= 0 or math.isinf(figure):
                raise ValueError(f"{name}: {figure} cannot be compared")
    best = choose_best(names, rounds, better)
    pairs = len(names) * (len(names) - 1) // 2
    verdicts = [
        make_verdict(name, make_ratios(rounds, name, best), better, alpha / pairs, margin)
        for name in names
        if name != best
    ]
    backwards = -1 if better == "higher" else 1
    verdicts.sort(key=lambda v: math.inf if v.ratio is None else v.ratio * backwards)
    count = sum(best in figures for figures in rounds)
    return [Verdict(best, "best", 1.0, 1.0, 1.0, count) for _ in names[:1]] + verdicts


def is_settled(verdicts: Sequence[Verdict]) -> bool:
    """Whether every comparison with the best has an answer, so that measuring can end."""
    return all(v.kind != "open" for v in verdicts)


def fewest_rounds(variants: int, *, alpha: float = ALPHA) -> int:
    """Return the number of rounds before which no comparison of so many variants is settled."""
    pairs = max(variants * (variants - 1) // 2, 1)
    rounds = 1
    while find_ends(rounds, alpha / pairs) is None:
        rounds += 1
    return rounds


def make_ratios(rounds: Sequence[Mapping[str, float]], a: str, b: str) -> list[float]:
    """Return the figure of `a` divided by that of `b` in each round that has both, sorted."""
    pairs = [(figures[a], figures[b]) for figures in rounds if a in figures and b in figures]
    return sorted(1.0 if x == y else x / y if y else math.inf for x, y in pairs)


def choose_best(names: Sequence[str], rounds: Sequence[Mapping[str, float]], better: Better) -> str:
    """Return the variant that loses to no other, or whose worst loss is the smallest; "" for none.

    Medians of pairs need not be transitive: a may beat b, b beat c, and c beat a.
    """
    worst: dict[str, float] = {}  # by what factor it loses to any other, at worst
    for number, a in enumerate(names):
        for b in names[:number]:
            ratio = find_median(make_ratios(rounds, a, b))
            if ratio is not None:
                inverse = 1 / ratio if ratio else math.inf
                losses = (ratio, inverse) if better == "lower" else (inverse, ratio)
                worst[a] = max(worst.get(a, 0.0), losses[0])
                worst[b] = max(worst.get(b, 0.0), losses[1])
    # One that no round has together with another comes last.
    return min(names, key=lambda name: worst.get(name, math.inf), default="")


def make_verdict(
    name: str, ratios: Sequence[float], better: Better, alpha: float, margin: float
) -> Verdict:
    """Return the verdict on a variant from its sorted ratios to the best one."""
    low, high = find_interval(ratios, alpha)
    kind: Kind = "open"
    if low is not None and high is not None:
        if low > 1 if better == "lower" else high < 1:
            kind = "worse"
        elif low >= 1 / (1 + margin) and high <= 1 + margin:
            kind = "same"
    return Verdict(name, kind, find_median(ratios), low, high, len(ratios))


def find_median(ordered: Sequence[float]) -> float | None:
    """Return the median of sorted ratios, of two in the middle the geometric mean; None of none.

    The median of a/b is thus the inverse of that of b/a.
    """
    if not ordered:
        return None
    middle = len(ordered) // 2
    if len(ordered) % 2:
        return ordered[middle]
    return math.sqrt(ordered[middle - 1]) * math.sqrt(ordered[middle])


def find_interval(ordered: Sequence[float], alpha: float) -> tuple[float | None, float | None]:
    """Return the ends of the interval for the median of what sorted values are drawn from; None
    where they are too few. The median lies outside at some number of values in at most `alpha` of
    all experiments."""
    ends = find_ends(len(ordered), alpha)
    return (None, None) if ends is None else (ordered[ends], ordered[-1 - ends])


def find_ends(count: int, alpha: float) -> int | None:
    """Return at which of `count` sorted values the interval for their median begins, from 0, which
    is as far from the first as its end is from the last; None: too few values.

    A value is outside when the test rejects it as the median: when so few lie below it, or above
    it, that (n + 1) C(n, k) / 2^n is at most `alpha`.
    """
    ends = None
    for k in range((count + 1) // 2):
        if (count + 1) * math.comb(count, k) / (1 << count) > alpha:
            break
        ends = k
    return ends
