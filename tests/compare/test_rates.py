"""How often the judgement errs over noise that was recorded on a real machine.

`make bench ARGS=compare` has the rates from 1,000 experiments for each number; here are as many as
tell whether something is wrong. Seeds are fixed, so that a rate is the same in every run; the
bounds leave room for other seeds.
"""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from bench.experiments import (
    SLOWER,
    find_share,
    judge_plainly,
    run_experiments,
)
from bench.noise import list_recordings, read_noise
from ompbind.compare.statistics import Verdict

STEADY = ("hash-first", "loops-first")
COUNT = 150
MOST = 15  # an outcome with a chance of 5 % is seen in more of 150 once in 280 times


@pytest.mark.parametrize("name", list_recordings())
def test_equal_variants_are_called_equal_enough(name: str) -> None:
    """Two equal variants are called different in at most 5 % of the experiments, on any noise. An
    ordinary sign test after every round calls them so in far more: the experiments can show it."""
    outcomes = run_experiments(read_noise(name), [1.0, 1.0], COUNT)
    assert find_share(outcomes, "different") <= MOST / COUNT
    assert find_share(outcomes, "missed") <= MOST / COUNT
    plain = run_experiments(read_noise(name), [1.0, 1.0], COUNT, judge_plainly)
    assert find_share(plain, "different") > 0.15


def test_the_best_of_several_equal_variants() -> None:
    """The best of five equal variants is chosen by the same figures, and still no other is called
    worse in more than 5 % of the experiments."""
    outcomes = run_experiments(read_noise("hash-busy"), [1.0] * 5, 60, most=25)
    assert find_share(outcomes, "different") <= 0.13


@pytest.mark.parametrize("name", STEADY)
def test_a_difference_is_found(name: str) -> None:
    """Where runs differ by some 2 %, a difference of 5 % is found in at least 90 %."""
    outcomes = run_experiments(read_noise(name), [1.0, SLOWER], COUNT)
    assert find_share(outcomes, "found") >= 0.9
    assert find_share(outcomes, "missed") <= MOST / COUNT


@pytest.mark.parametrize("name", ["hash-busy", "loops-first"])
def test_the_sign_is_right(name: str) -> None:
    """The faster of two variants is called worse in at most half as many experiments as equal ones
    are called different, whether the noise allows to find the difference or not."""
    outcomes = run_experiments(read_noise(name), [1.0, 1.02], COUNT)
    assert find_share(outcomes, "wrong") <= 10 / COUNT


def test_untrue_verdicts_are_noticed() -> None:
    """An experiment notices when a judgement is wrong in each of the ways that are counted."""

    def judge_by_name(rounds: Sequence[dict[str, float]]) -> list[Verdict]:
        count = len(rounds)
        return [
            Verdict("0", "best", 1.0, 1.0, 1.0, count),
            Verdict("1", "worse", 1.5, 1.4, 1.6, count),
        ]

    noise = read_noise("hash-first")
    (equal,) = run_experiments(noise, [1.0, 1.0], 1, judge_by_name)
    assert (equal.different, equal.wrong, equal.missed) == (True, False, True)
    (slower,) = run_experiments(noise, [1.2, 1.0], 1, judge_by_name)
    assert (slower.different, slower.wrong, slower.found) == (False, True, False)
    (right,) = run_experiments(noise, [1.0, 1.5], 1, judge_by_name)
    assert (right.different, right.wrong, right.found, right.missed) == (False, False, True, False)
