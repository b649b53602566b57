"""An experiment: variants are run in rounds, each once in every round and in random order, until
the rounds show which is best. It starts nothing itself: it is given what runs a variant, and a
clock.
"""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

from ompbind.compare.statistics import fewest_rounds, is_settled, judge
from ompbind.record import Record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from typing import Any, Literal

    from ompbind.compare.statistics import Verdict
    from ompbind.compare.watch import Watch

ROUNDS = 50  # at most, where neither --runs nor --time says anything
FAILURES = 3  # failed runs after which a variant is run no more


class Run(Record):
    """One run of a variant. `round`: from 1, 0 for a warm-up; `value`: its figure, None where it
    gave none; `wall`, `user`, `system`: seconds; `peak`: bytes; `status`: as a shell has it;
    `failure`: why it gave no figure, and `tail` the last lines that it wrote; `ranks`: what each of
    them has used, as `ompbind run --report` has it."""

    variant: str
    round: int
    value: float | None
    wall: float = 0.0
    user: float = 0.0
    system: float = 0.0
    peak: int = 0
    status: int = 0
    failure: str = ""
    tail: tuple[str, ...] = ()
    ranks: tuple[Mapping[str, Any], ...] = ()


class Limits(Record):
    """How long an experiment goes on: rounds, seconds (None: no limit), and rounds of warm-up."""

    runs: int | None = ROUNDS
    seconds: float | None = None
    warmup: int = 1


class Progress(Record):
    """How far an experiment is. `number`: of the round, 0 for a warm-up; `runs`: ended in this
    round, of `variants`; `left`: seconds that it takes at most from now on, None: not known yet."""

    number: int
    runs: int
    variants: int
    name: str  # of the variant that runs now
    left: float | None
    most: int | None  # rounds


class Experiment:
    """Runs variants in rounds. `runs` has every run so far, those of an earlier experiment first;
    `ending` says why it ended: "settled", "runs", "time", "failed" (fewer than two variants are
    left) or, before it has ended and after an interruption, ""."""

    def __init__(
        self,
        names: Sequence[str],
        better: Literal["lower", "higher"],
        limits: Limits,
        seed: int,
        run: Callable[[str, int], Run],
        clock: Callable[[], float],
        earlier: Iterable[Run] = (),
        watch: Callable[[Progress], object] | None = None,
        machine: Watch | None = None,
    ) -> None:
        self.names, self.better, self.limits, self.seed = names, better, limits, seed
        self.run, self.clock = run, clock
        self.watch = watch or (lambda progress: None)
        self.machine = machine
        self.runs = list(earlier)
        self.ending = ""
        self.walls: list[float] = []  # seconds of the rounds
        self.begun = 0.0

    def carry_out(self) -> None:
        """Run rounds until one of the limits is reached or every comparison is settled. What
        interrupts it comes out; the runs until then are kept."""
        self.begun = self.clock()
        number = max((run.round for run in self.runs), default=0)
        for _ in range(self.limits.warmup):
            self.run_round(0)
        while not self.ending:
            self.ending = self.find_ending(number)
            if not self.ending:
                number += 1
                begun = self.clock()
                if self.machine:
                    self.machine.begin()
                self.run_round(number)
                if self.machine:
                    self.machine.end(number)
                self.walls.append(self.clock() - begun)

    def find_ending(self, rounds: int) -> str:
        """Return why no further round is to come, "" if one is."""
        if len(self.living()) < min(2, len(self.names)):
            return "failed"
        if rounds >= fewest_rounds(len(self.names)) and is_settled(self.judge()):
            return "settled"
        if self.limits.runs is not None and rounds >= self.limits.runs:
            return "runs"
        if self.limits.seconds is not None and rounds:
            spent = self.clock() - self.begun
            if spent + (self.mean_round() or 0) > self.limits.seconds:
                return "time"
        return ""

    def judge(self) -> list[Verdict]:
        """Return the verdicts on the rounds so far."""
        return judge(list(make_rounds(self.runs)), self.better)

    def run_round(self, number: int) -> None:
        """Run each variant that is left once, in an order that seed and round decide."""
        order = self.living()
        Random(f"{self.seed} {number} {len(self.runs)}").shuffle(order)  # noqa: S311
        for position, name in enumerate(order):
            left = self.find_time_left(number, position / len(order))
            most = self.limits.runs
            self.watch(Progress(number, position, len(order), name, left, most))
            self.runs.append(self.run(name, number))

    def living(self) -> list[str]:
        """Return the variants that are run: not those whose first run failed, or too many."""
        return [name for name in self.names if not self.has_left(name)]

    def has_left(self, name: str) -> bool:
        runs = [run for run in self.runs if run.variant == name]
        failed = sum(run.value is None for run in runs)
        return failed > 0 and (failed == len(runs) or failed >= FAILURES)

    def mean_round(self) -> float | None:
        """Return the mean seconds of a round; None before the first."""
        return sum(self.walls) / len(self.walls) if self.walls else None

    def find_time_left(self, number: int, done: float) -> float | None:
        """Return the seconds until the limits are reached, with a part of this round `done`."""
        left = []
        if self.limits.seconds is not None:
            left.append(max(0.0, self.limits.seconds - (self.clock() - self.begun)))
        mean = self.mean_round()
        if self.limits.runs is not None and mean is not None:
            left.append(mean * max(0.0, self.limits.runs - number + 1 - done))
        return min(left, default=None)


def make_rounds(runs: Iterable[Run]) -> Iterable[dict[str, float]]:
    """Return the figures of each measured round, by variant."""
    rounds: dict[int, dict[str, float]] = {}
    for run in runs:
        if run.round and run.value is not None:
            rounds.setdefault(run.round, {})[run.variant] = run.value
    return rounds.values()
