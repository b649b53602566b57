"""The judgement of variants: exact properties here, its rates of error over recorded noise in
test_rates."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ompbind.compare.statistics import (
    ALPHA,
    Verdict,
    fewest_rounds,
    find_ends,
    find_interval,
    is_settled,
    judge,
    make_ratios,
)


def find_chance_of_ever_rejecting(alpha: float, looks: int) -> float:
    """The exact chance that a fair coin is rejected at any of the first `looks` tosses."""
    alive, rejected = {0: 1.0}, 0.0  # the chance of each number of heads, not yet rejected
    for n in range(1, looks + 1):
        chances: dict[int, float] = {}
        for heads, chance in alive.items():
            for k in (heads, heads + 1):
                chances[k] = chances.get(k, 0.0) + chance / 2
        ends = find_ends(n, alpha)
        alive = {}
        for k, chance in chances.items():
            if ends is not None and min(k, n - k) <= ends:
                rejected += chance
            else:
                alive[k] = chance
    return rejected


@pytest.mark.parametrize("alpha", [0.05, 0.05 / 6, 0.05 / 45])
def test_looking_after_every_round_keeps_the_level(alpha: float) -> None:
    """Equal variants are told apart at any of 400 looks in at most alpha of all experiments, but
    not so rarely that the level is wasted."""
    chance = find_chance_of_ever_rejecting(alpha, 400)
    assert alpha / 3 < chance <= alpha


def test_fewest_rounds() -> None:
    """Two variants need 8 rounds, as 9 / 2^8 is the first of these below 5 %; four need 11 (12 /
    2^11 is below 5 % / 6), ten need 14 (15 / 2^14 is below 5 % / 45)."""
    assert [fewest_rounds(n) for n in (1, 2, 4, 10)] == [8, 8, 11, 14]


def test_a_value_is_rejected_by_the_mean_over_all_coins() -> None:
    """The test's quotient is exact: the integral of p^k (1 - p)^(n - k) over p is k! (n - k)! /
    (n + 1)!, and a value at which its quotient with 2^-n is 1 / alpha is rejected."""
    for n in range(1, 60):
        for alpha in (ALPHA, ALPHA / 3, ALPHA / 190):
            rejected = [
                k for k in range(n // 2 + 1)
                if 2**n * math.factorial(k) * math.factorial(n - k) >= math.factorial(n + 1) / alpha
            ]  # fmt: skip
            assert find_ends(n, alpha) == (rejected[-1] if rejected else None)
    assert find_ends(8, 9 / 2**8) == 0


def test_interval_ends_at_values() -> None:
    """The interval is the range of 8 values, and drops 3 on each side of 20 (21 C(20,3) / 2^20 =
    2.3 %, C(20,4) would give 9.7 %)."""
    assert find_interval(list(range(8)), ALPHA) == (0, 7)
    assert find_interval(list(range(20)), ALPHA) == (3, 16)
    assert find_interval(list(range(7)), ALPHA) == (None, None)


def test_a_clear_difference_is_found_in_the_fewest_rounds() -> None:
    """Slower in every round is worse as soon as it can be, and by the ratio of the rounds."""
    rounds = [{"a": 1.0 + n / 100, "b": (1.0 + n / 100) * 1.1} for n in range(8)]
    assert not is_settled(judge(rounds[:7], "lower"))
    best, worse = judge(rounds, "lower")
    assert best == Verdict("a", "best", 1.0, 1.0, 1.0, 8)
    assert (worse.name, worse.kind, worse.rounds) == ("b", "worse", 8)
    assert worse.ratio == pytest.approx(1.1)
    assert worse.low == pytest.approx(1.1)
    assert is_settled([best, worse])


def test_higher_can_be_better() -> None:
    """With a figure of which more is better, the variant with less of it is worse."""
    rounds = [{"a": 100.0 + n, "b": 90.0} for n in range(10)]
    best, worse = judge(rounds, "higher")
    assert (best.name, worse.kind) == ("a", "worse")
    assert worse.high is not None
    assert worse.high <= 0.9


def test_a_tie_at_the_end_of_the_interval_is_no_difference() -> None:
    """A variant that was as good once in eight rounds is not shown to be worse."""
    tied = [{"a": 1.0, "b": 1.0}]
    assert judge([*([{"a": 1.0, "b": 1.5}] * 7), *tied], "lower")[1].kind == "open"
    assert judge([*([{"a": 1.5, "b": 1.0}] * 7), *tied], "higher")[1].kind == "open"


def test_drift_is_not_a_difference() -> None:
    """Pairs within rounds are compared: figures that triple meanwhile hide no difference of 3 %."""
    rounds = [{"a": 1.0 + n / 4, "b": 1.03 * (1.0 + n / 4)} for n in range(9)]
    assert [v.kind for v in judge(rounds, "lower")] == ["best", "worse"]


def test_same_needs_an_interval_within_the_margin() -> None:
    """Equal figures are the same once there are rounds enough; noise of 10 % leaves it open."""
    equal = [{"a": 1.0, "b": 1.0}] * 8
    assert judge(equal[:7], "lower")[1] == Verdict("b", "open", 1.0, None, None, 7)
    assert judge(equal, "lower")[1] == Verdict("b", "same", 1.0, 1.0, 1.0, 8)
    noisy = [{"a": 1.0, "b": 1.1}, {"a": 1.1, "b": 1.0}] * 4
    assert judge(noisy, "lower")[1].kind == "open"
    assert judge(noisy, "lower", margin=0.2)[1].kind == "same"


def test_one_end_outside_the_margin_leaves_it_open() -> None:
    """Both ends count, on either side of 1, and the margin's lower end is the inverse of the upper
    one, so that it does not matter which variant is called the best."""
    for outlier in (1.03, 1 / 1.03):
        rounds = [{"a": 1.0, "b": x} for x in (1.0, 1.0, 1.0, 1.0, 0.999, 1.0, 1.001, outlier)]
        assert judge(rounds, "lower")[1].kind == "open"
        assert judge(rounds, "lower", margin=0.031)[1].kind == "same"


def test_more_variants_need_more_rounds() -> None:
    """The same figures that tell two variants apart do not tell the first of ten from the rest."""
    others = {f"v{n}": 1.2 + n / 10 for n in range(9)}
    rounds = [{"a": 1.0, **others}] * 13
    assert {v.kind for v in judge(rounds, "lower")} == {"best", "open"}
    assert {v.kind for v in judge([*rounds, rounds[0]], "lower")} == {"best", "worse"}


def test_failed_runs_are_left_out() -> None:
    """A variant is compared over the rounds that have both figures, and is open without any."""
    rounds = [{"a": 1.0, "b": 1.1}] * 8 + [{"a": 1.0}] * 4
    best, worse = judge(rounds, "lower")
    assert (best.rounds, worse.rounds, worse.kind) == (12, 8, "worse")
    rounds = [{"a": 1.0, "b": 1.1, "d": 2.0}] * 8 + [{"b": 1.1}, {"c": 3.0}]
    verdicts = judge(rounds, "lower")
    assert [(v.name, v.rounds) for v in verdicts] == [("a", 8), ("b", 8), ("d", 8), ("c", 0)]
    apart = judge([{"a": 1.0}, {"b": 2.0}], "lower")
    assert apart[1] == Verdict(apart[1].name, "open", None, None, None, 0)


def test_zero_is_a_figure() -> None:
    """Zero is less than anything else, and equal to zero."""
    assert make_ratios([{"a": 0.0, "b": 0.0}], "a", "b") == [1.0]
    assert make_ratios([{"a": 1.0, "b": 0.0}], "a", "b") == [math.inf]
    for figures in ({"a": 0.0, "b": 1.0}, {"b": 1.0, "a": 0.0}):
        verdicts = judge([figures] * 8, "lower")
        assert [(v.name, v.kind) for v in verdicts] == [("a", "best"), ("b", "worse")]


@pytest.mark.parametrize("figure", [-1.0, math.nan, math.inf])
def test_what_has_no_ratio_is_refused(figure: float) -> None:
    """A figure without a ratio to others is an error that names the variant."""
    with pytest.raises(ValueError, match=r"^b: "):
        judge([{"a": 1.0, "b": figure}], "lower")


def test_nothing_and_one() -> None:
    """Without figures there are no verdicts; a single variant is the best and settled."""
    assert judge([], "lower") == judge([{}], "lower") == []
    assert judge([{"a": 3.0}], "lower") == [Verdict("a", "best", 1.0, 1.0, 1.0, 1)]
    assert is_settled(judge([{"a": 3.0}], "lower"))


def test_the_best_loses_to_no_other() -> None:
    """The best is who is ahead of each other in most rounds, whatever a few outliers do to it; in a
    circle it is who loses by the least."""
    rounds = [{"a": 1.0, "b": 1.01}] * 6 + [{"a": 50.0, "b": 1.0}] * 4
    assert judge(rounds, "lower")[0].name == "a"
    circle = [{"a": 1.0, "b": 1.1, "c": 1.3}, {"a": 1.5, "b": 1.0, "c": 1.2},
              {"a": 1.02, "b": 1.2, "c": 1.0}]  # fmt: skip
    assert judge(circle, "lower")[0].name == "a"


# Exact with all their ratios, square roots of these and inverses, so that ties remain ties.
POWERS = st.integers(-3, 3).map(lambda k: 4.0**k)


@given(st.lists(st.lists(POWERS, min_size=3, max_size=3), max_size=30))
def test_units_and_direction_do_not_matter(figures: list[list[float]]) -> None:
    """Figures in other units, and inverse figures of which more is better, have equal verdicts."""
    rounds = [dict(zip("abc", row, strict=True)) for row in figures]
    verdicts = judge(rounds, "lower", margin=20)
    assert judge([{n: x * 1024 for n, x in r.items()} for r in rounds], "lower",
                 margin=20) == verdicts  # fmt: skip
    inverse = judge([{n: 1 / x for n, x in r.items()} for r in rounds], "higher", margin=20)
    for v, i in zip(verdicts, inverse, strict=True):
        assert (v.name, v.kind, v.rounds) == (i.name, i.kind, i.rounds)
        for end, other in ((v.low, i.high), (v.high, i.low), (v.ratio, i.ratio)):
            assert (end is None and other is None) or (end and other and end * other == 1)


def test_the_interval_covers_the_median_at_all_looks() -> None:
    """Of values whose distribution is skewed, the interval contains the median (1) at every one of
    100 looks in at least 95 % of experiments: of 200, more than 18 fail by chance once in 1,000."""
    rng, missed = random.Random(5), 0
    for _ in range(200):
        values: list[float] = []
        for _ in range(100):
            up = rng.random() < 0.5
            values.append(1 + rng.expovariate(1) if up else 1 - 0.1 * rng.random())
            low, high = find_interval(sorted(values), ALPHA)
            if low is not None and high is not None and not low <= 1 <= high:
                missed += 1
                break
    assert missed <= 18
