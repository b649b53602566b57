"""Costs: what all ranks of a run have used together, the median over a variant's measured runs."""

from __future__ import annotations

from typing import Any

from ompbind.compare.costs import find_costs
from ompbind.compare.experiment import Run
from ompbind.compare.metric import Metric
from ompbind.compare.result import Result
from ompbind.compare.variants import Variant
from ompbind.cpuset import CpuSet
from ompbind.plans import Host, Plan

PLAN = Plan(Host("", CpuSet(), CpuSet(), CpuSet()), ())


def make_result(runs: list[tuple[str, int, list[dict[str, Any]]]]) -> Result:
    """The bills of the ranks in each run, with its variant and round."""
    names = dict.fromkeys(name for name, _, _ in runs)
    variants = tuple(Variant(name, (), PLAN) for name in names)
    made = tuple(Run(name, number, 1.0, ranks=tuple(ranks)) for name, number, ranks in runs)
    return Result(("x",), Metric(), variants, (), 1, made, "")


def bill(**figures: float | None) -> dict[str, Any]:
    return {"user_seconds": 1.0, "system_seconds": 0.5, "swap_bytes": None, **figures}


def test_ranks_are_summed_and_runs_have_a_median() -> None:
    """The cpu time of two ranks is theirs together; of three runs the one in the middle counts,
    and warm-ups do not; what a quota throttled is the same for all ranks."""
    runs = [
        ("a", number, [bill(user_seconds=seconds, cgroup_throttled_seconds=0.25)] * 2)
        for number, seconds in ((0, 99.0), (1, 1.0), (2, 7.0), (3, 2.0))
    ]
    costs = {cost.title: cost.medians for cost in find_costs(make_result(runs))}
    assert costs == {"cpu time": {"a": 5.0}, "throttled": {"a": 0.25}}


def test_what_is_nothing_is_left_out() -> None:
    """Switches are always shown, swap and migrations only where some variant has any."""
    runs = [
        ("a", 1, [bill(involuntary_switches=0, migrations=0, swap_bytes=0)]),
        ("b", 1, [bill(involuntary_switches=0, migrations=3, swap_bytes=0)]),
    ]
    costs = {cost.title: cost.medians for cost in find_costs(make_result(runs))}
    assert costs["switches"] == {"a": 0.0, "b": 0.0}
    assert costs["migrations"] == {"a": 0.0, "b": 3.0}
    assert "swapped" not in costs


def test_without_bills_there_are_none() -> None:
    """As where no rank could be started."""
    assert find_costs(make_result([("a", 1, [])])) == []
