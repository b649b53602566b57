"""What runs have cost beside the figure by which they are compared, which may explain a difference:
medians over the measured runs of each variant, of what all ranks of a run have used together."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING

from ompbind.record import Record

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ompbind.compare.experiment import Run
    from ompbind.compare.result import Result

# The fields of a rank's bill that count, each with its title, its unit, and whether it is shown
# where it is nothing in all variants.
FIELDS = (
    (("user_seconds", "system_seconds"), "cpu time", "s", True),
    (("wait_seconds",), "cpu wait", "s", True),
    (("involuntary_switches",), "switches", "", True),
    (("migrations",), "migrations", "", False),
    (("major_faults",), "major faults", "", False),
    (("misplaced_bytes",), "elsewhere", "B", False),
    (("swap_bytes",), "swapped", "B", False),
    (("cgroup_throttled_seconds",), "throttled", "s", False),
    (("peak_memory_bytes",), "peak memory", "B", True),
)
SHARED = ("cgroup_throttled_seconds",)  # of all ranks together: the same in each


class Cost(Record):
    """A figure beside the metric. `title`: what it is called; `unit`: `s`, `B` or `""`; `medians`:
    of each variant that has it."""

    title: str
    unit: str
    medians: Mapping[str, float]


def find_costs(result: Result) -> list[Cost]:
    """Return the costs that are known of any variant."""
    costs = []
    for keys, title, unit, always in FIELDS:
        medians = {}
        for variant in result.variants:
            runs = [r for r in result.runs if r.variant == variant.name and r.round]
            sums = [s for r in runs if r.value is not None and (s := find_sum(r, keys)) is not None]
            if sums:
                medians[variant.name] = float(median(sums))
        if medians and (always or any(medians.values())):
            costs.append(Cost(title, unit, medians))
    return costs


def find_sum(run: Run, keys: tuple[str, ...]) -> float | None:
    """Return the sum of these fields over the ranks of a run; None where no rank has them."""
    figures: list[float] = [
        rank[key] for rank in run.ranks for key in keys if rank.get(key) is not None
    ]
    if not figures:
        return None
    return max(figures) if keys == SHARED else sum(figures)
