"""How often `compare` errs: experiments whose answer is known, made from recordings of noise.

In an experiment the runs of a recording follow one another as they were recorded, from a random one
on. Each round takes as many of them as there are variants and gives them to the variants in random
order, as `compare` does; the runs of a variant that is to be slower are made longer. So drifts,
bursts of load and outliers are those of a real machine, and only what the variants do is made up.
"""

from __future__ import annotations

import bisect
import math
import random
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bench.noise import list_recordings, read_noise
from ompbind.compare.experiment import ROUNDS
from ompbind.compare.statistics import ALPHA, Verdict, is_settled, judge

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ompbind.compare.statistics import Kind

SLOWER = 1.05  # what a difference of 5 % makes of a time
DIFFERENCES = (1, 2, 3, 4, 5, 7, 10, 15, 20, 30, 50, 100, 200, 300, 500)  # in per cent


@dataclass(frozen=True)
class Outcome:
    """What was said at the end of one experiment, and whether it is true."""

    different: bool  # of two variants of the same speed, that one is worse
    wrong: bool  # of a variant that is better than the one called the best, that it is worse
    found: bool  # of all variants that are worse than the best one, that they are
    settled: bool
    missed: bool  # an interval without the true ratio
    rounds: int


Judge = Callable[[Sequence[dict[str, float]]], list[Verdict]]


def judge_lower(rounds: Sequence[dict[str, float]]) -> list[Verdict]:
    return judge(rounds, "lower")


def judge_plainly(rounds: Sequence[dict[str, float]]) -> list[Verdict]:
    """Judge two variants by an ordinary sign test at 5 %, as if this were the only look."""
    names = sorted(rounds[0])
    ahead = sum(figures[names[0]] < figures[names[1]] for figures in rounds)
    count, less = len(rounds), min(ahead, len(rounds) - ahead)
    chance = 2 * sum(math.comb(count, k) for k in range(less + 1)) / 2**count
    best, other = names if ahead > less else names[::-1]
    kind: Kind = "worse" if chance <= ALPHA else "open"
    return [
        Verdict(best, "best", 1.0, 1.0, 1.0, count),
        Verdict(other, kind, None, None, None, count),
    ]


def experiment(
    noise: Sequence[float],
    factors: Sequence[float],
    rng: random.Random,
    judge: Judge = judge_lower,
    most: int = ROUNDS,
) -> Outcome:
    """Compare variants that take `factors` times as long as the recording, until it is settled or
    `most` rounds have been run."""
    true = {str(n): factor for n, factor in enumerate(factors)}
    rounds: list[dict[str, float]] = []
    verdicts: list[Verdict] = []
    place = rng.randrange(len(noise))
    while len(rounds) < most and not (verdicts and is_settled(verdicts)):
        figures = {}
        for name in rng.sample(list(true), len(true)):
            figures[name] = noise[place] * true[name]
            place = (place + 1) % len(noise)
        rounds.append(figures)
        verdicts = judge(rounds)
    best = true[verdicts[0].name]
    others = [(true[v.name] / best, v) for v in verdicts[1:]]
    return Outcome(
        different=any(ratio == 1 and v.kind == "worse" for ratio, v in others),
        wrong=any(ratio < 1 and v.kind == "worse" for ratio, v in others),
        found=all(v.kind == "worse" or true[v.name] == min(factors) for _, v in others)
        and best == min(factors),
        settled=is_settled(verdicts),
        missed=any(v.low and v.high and not v.low <= ratio <= v.high for ratio, v in others),
        rounds=len(rounds),
    )


def run_experiments(
    noise: Sequence[float],
    factors: Sequence[float],
    count: int,
    judge: Judge = judge_lower,
    most: int = ROUNDS,
) -> list[Outcome]:
    rng = random.Random(1)  # noqa: S311
    return [experiment(noise, factors, rng, judge, most) for _ in range(count)]


def find_share(outcomes: Sequence[Outcome], name: str) -> float:
    """Return the share of experiments of whose outcome this is true."""
    return sum(bool(getattr(outcome, name)) for outcome in outcomes) / len(outcomes)


def find_noise(noise: Sequence[float]) -> float:
    """Return by how much runs differ from the one after them, as a median: 0.02 is 2 %."""
    return statistics.median(
        max(a, b) / min(a, b) - 1 for a, b in zip(noise[:-1], noise[1:], strict=True)
    )


def find_visible(noise: Sequence[float], count: int) -> str:
    """Return the smallest difference that is found in 90 % of experiments with two variants."""

    def is_found(percent: int) -> bool:
        outcomes = run_experiments(noise, [1.0, 1 + percent / 100], count)
        return find_share(outcomes, "found") >= 0.9

    place = bisect.bisect_left(DIFFERENCES, True, key=is_found)  # the greater, the more often
    beyond = place == len(DIFFERENCES)
    return f"more than {DIFFERENCES[-1]} %" if beyond else f"{DIFFERENCES[place]} %"


def bench(count: int) -> None:
    """Print tables in Markdown of how often something untrue is said, and of what is found, from
    `count` experiments for each number."""
    recordings = {name: read_noise(name) for name in list_recordings()}
    title = f"{count} experiments for each number, of at most {ROUNDS} rounds"
    print(f"\ncompare: {title}\n")
    print_row("recording", "variants", "called different", "by a plain sign test", "wrong sign",
              "interval without the truth", "settled")  # fmt: skip
    print_row(*["---"] * 7)
    rows = []
    for name, noise in recordings.items():
        plain = run_experiments(noise, [1.0, 1.0], count, judge_plainly)
        for variants in (2, 5):
            equal = run_experiments(noise, [1.0] * variants, count)
            slower = run_experiments(noise, [1.0] + [SLOWER] * (variants - 1), count)
            print_row(
                name,
                str(variants),
                f"{find_share(equal, 'different') * 100:.1f} %",
                f"{find_share(plain, 'different') * 100:.0f} %" if variants == 2 else "",
                f"{find_share(slower, 'wrong') * 100:.1f} %",
                f"{find_share(equal + slower, 'missed') * 100:.1f} %",
                f"{find_share(equal, 'settled') * 100:.0f} %",
            )
            rows.append((name, noise, variants, slower))
    print()
    print_row("recording", "runs differ by", "variants", "5 % found", "after rounds",
              "found in 90 %: from")  # fmt: skip
    print_row(*["---"] * 6)
    for name, noise, variants, slower in rows:
        print_row(
            name,
            f"{find_noise(noise) * 100:.1f} %",
            str(variants),
            f"{find_share(slower, 'found') * 100:.0f} %",
            f"{statistics.median(o.rounds for o in slower):.0f}",
            find_visible(noise, count) if variants == 2 else "",
        )


def print_row(*cells: str) -> None:
    print("|", " | ".join(cells), "|")
