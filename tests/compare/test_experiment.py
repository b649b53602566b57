"""Experiments with a made-up clock and made-up runs: rounds, order, warm-up, endings, resuming."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest

from ompbind.compare.experiment import FAILURES, Experiment, Limits, Progress, Run, make_rounds
from ompbind.compare.statistics import fewest_rounds

Figures = Callable[[str, int], float | None]


class World:
    """Runs that take a second each, on a clock of their own."""

    def __init__(self, figures: Figures) -> None:
        self.now, self.figures = 100.0, figures
        self.shown: list[Progress] = []

    def run(self, name: str, number: int) -> Run:
        self.now += 1
        value = self.figures(name, number)
        return Run(name, number, value, failure="" if value else "no figure")

    def experiment(
        self, *names: str, runs: int | None = 8, seconds: float | None = None, warmup: int = 1,
        seed: int = 1, earlier: list[Run] | None = None,
    ) -> Experiment:  # fmt: skip
        return Experiment(
            names, "lower", Limits(runs, seconds, warmup), seed, self.run, lambda: self.now,
            earlier or [], self.shown.append,
        )  # fmt: skip


def noise(name: str, number: int) -> float:
    """Equal variants: in every round another is ahead."""
    return 2.0 if (number % 2) == (name == "a") else 1.0


def test_each_once_in_every_round() -> None:
    """A round has each variant once, after the rounds of warm-up, which count for nothing."""
    world = World(noise)
    experiment = world.experiment("a", "b", "c", runs=5, warmup=2)
    experiment.carry_out()
    rounds = Counter((run.round, run.variant) for run in experiment.runs)
    assert rounds == Counter(
        {(0, n): 2 for n in "abc"} | {(r, n): 1 for r in range(1, 6) for n in "abc"}
    )
    assert len(list(make_rounds(experiment.runs))) == 5
    assert experiment.ending == "runs"


def test_order_is_random_and_repeatable() -> None:
    """Each round has an order of its own; the same seed gives the same, another one others."""

    def orders(seed: int) -> list[str]:
        experiment = World(noise).experiment("a", "b", "c", runs=12, seed=seed)
        experiment.carry_out()
        order = "".join(run.variant for run in experiment.runs)
        return [order[n : n + 3] for n in range(0, len(order), 3)]

    assert orders(1) == orders(1)
    assert orders(1) != orders(2)
    assert len(set(orders(1))) > 3


def test_it_ends_when_all_is_settled() -> None:
    """A variant that is always slower is settled as soon as the statistics can, long before --runs;
    no round comes after that."""
    experiment = World(lambda name, _: 2.0 if name == "a" else 1.0).experiment("a", "b", runs=500)
    experiment.carry_out()
    assert experiment.ending == "settled"
    assert len(list(make_rounds(experiment.runs))) == fewest_rounds(2)
    assert [(v.name, v.kind) for v in experiment.judge()] == [("b", "best"), ("a", "worse")]


@pytest.mark.parametrize(("seconds", "rounds"), [(1, 1), (2, 1), (4, 1), (6, 2), (21, 9)])
def test_time_is_not_exceeded(seconds: float, rounds: int) -> None:
    """No round begins that would end after --time, the warm-up included; but the first round always
    comes, as nothing would be known without it."""
    world = World(noise)
    experiment = world.experiment("a", "b", runs=None, seconds=seconds)
    experiment.carry_out()
    measured = len(list(make_rounds(experiment.runs)))
    assert experiment.ending == "time"
    assert measured == rounds
    assert world.now - 100 <= max(seconds, 4)


def test_failures_are_no_figures() -> None:
    """A variant whose first run fails is run no more; one that fails now and then goes on until
    FAILURES, and its failed runs are in no round."""

    def figures(name: str, number: int) -> float | None:
        if name == "never" or (name == "seldom" and number in (2, 4, 6)):
            return None
        return noise(name, number)

    experiment = World(figures).experiment("a", "b", "never", "seldom", runs=9)
    experiment.carry_out()
    count = Counter(run.variant for run in experiment.runs)
    assert count == {"a": 10, "b": 10, "never": 1, "seldom": 7}
    failed = [run for run in experiment.runs if run.variant == "seldom" and run.value is None]
    assert len(failed) == FAILURES
    rounds = list(make_rounds(experiment.runs))
    assert "seldom" not in rounds[1]
    assert "seldom" in rounds[0]


@pytest.mark.parametrize("left", [["a"], []])
def test_it_ends_without_anything_to_compare(left: list[str]) -> None:
    """With fewer than two variants left there is nothing to measure."""
    experiment = World(lambda name, _: 1.0 if name in left else None).experiment("a", "b", "c")
    experiment.carry_out()
    assert experiment.ending == "failed"
    assert len(experiment.runs) == 3


def test_an_interruption_keeps_what_is_measured() -> None:
    """What interrupts it comes out; the runs until then are there, and it has no ending."""

    def figures(name: str, number: int) -> float:
        if number == 3:
            raise KeyboardInterrupt
        return noise(name, number)

    experiment = World(figures).experiment("a", "b")
    with pytest.raises(KeyboardInterrupt):
        experiment.carry_out()
    assert (len(experiment.runs), experiment.ending) == (6, "")


def test_it_goes_on_where_an_earlier_one_ended() -> None:
    """Rounds are counted on from the earlier ones, which are judged with the new ones."""
    first = World(noise).experiment("a", "b", runs=3)
    first.carry_out()
    second = World(noise).experiment("a", "b", runs=5, earlier=first.runs)
    second.carry_out()
    assert [len(r) for r in make_rounds(second.runs)] == [2] * 5
    assert second.runs[: len(first.runs)] == first.runs
    assert second.judge()[0].rounds == 5


def test_progress_says_what_is_left() -> None:
    """Before each run: the round, the variant, and the seconds left at most, once known."""
    world = World(noise)
    world.experiment("a", "b", runs=4).carry_out()
    assert [(p.number, p.runs, p.left) for p in world.shown] == [
        (0, 0, None), (0, 1, None), (1, 0, None), (1, 1, None), (2, 0, 6.0), (2, 1, 5.0),
        (3, 0, 4.0), (3, 1, 3.0), (4, 0, 2.0), (4, 1, 1.0),
    ]  # fmt: skip
    assert {p.variants for p in world.shown} == {2}
