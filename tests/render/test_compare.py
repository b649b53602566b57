"""A comparison as it is drawn: rows, bars, boxes, verdicts, failures, and nothing of others' words
that a terminal would obey."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ompbind.compare.experiment import Run
from ompbind.compare.metric import Metric
from ompbind.compare.result import Result
from ompbind.compare.statistics import Verdict
from ompbind.compare.variants import make_grid, make_variants
from ompbind.render import make_text
from ompbind.render.compare import (
    BAR,
    BOX,
    describe_verdict,
    draw_result,
    format_figure,
    make_bar,
    make_box,
    percent,
)

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="plans are for Linux")

Draw = Callable[[Result, int], list[str]]
Figures = Mapping[str, Sequence[float | None]]
Kind = Literal["best", "worse", "same", "open"]
RATE = Metric("tok/s: (.*)", "higher", "sum")


def make_result(metric: Metric, figures: Figures) -> Result:
    """The figures of each variant, round by round; None for a failed run."""
    wishes = [w.replace(name=name) for name in figures for w in make_grid([])]
    environ = {"OMPBIND_NEIGHBOURS": "no"}
    plan = make_variants(wishes[:1], {}, ["true"], environ, unbound=False)[0][0]
    runs = [
        Run(name, number, value, failure="" if value else "ended with status 3",
            tail=() if value else ("oops\x1b[31m",))
        for name, values in figures.items() for number, value in enumerate(values, 1)
    ]  # fmt: skip
    variants = tuple(plan.replace(name=name) for name in figures)
    return Result(("./a b", "c"), metric, variants, (), 7, tuple(runs), "runs", ("a note",))


@pytest.fixture
def draw(monkeypatch: pytest.MonkeyPatch) -> Draw:
    """What is drawn of a result at a width, line by line."""

    def draw(result: Result, columns: int) -> list[str]:
        monkeypatch.setenv("COLUMNS", str(columns))
        return make_text(draw_result(result)).splitlines()

    return draw


def test_narrow(draw: Draw) -> None:
    """At 80 columns: a bar for each variant, the best first, its verdict, the notes, the seed."""
    figures: Figures = {"slow": [2.0] * 20, "fast": [1.0] * 20, "like it": [1.0] * 20}
    assert draw(make_result(Metric(), figures), 80) == [
        "'./a b' c: wall time, lower is better",
        "",
        "variant   median              verdict",
        "fast     1.000 s  █████       best",
        "like it  1.000 s  █████       no difference that 20 rounds could show (±0 %)",
        "slow     2.000 s  ██████████  slower by 100 % (100 to 100)",
        "",
        "note: a note",
        "20 rounds; no more runs were asked for; seed 7",
    ]


def test_wide(draw: Draw) -> None:
    """From 120 columns on there is a box plot for each variant, all on one scale, which its heading
    has."""
    figures: Figures = {"low": [100.0, 110.0, 120.0, 130.0, 200.0], "high": [400.0] * 5}
    heading, high, low = draw(make_result(RATE, figures), 160)[2:5]
    assert "all runs, 100 to 400" in heading
    assert high.split() == ["high", "400", "┃", "best", "so", "far"]
    assert high.index("┃") - low.index("├") == BOX - 1
    assert "├▒▒┃▒─────────┤" in low


def test_failures(draw: Draw) -> None:
    """A variant without a figure has a row that says so; below are the number of its failed runs
    and the last lines of one, escaped."""
    figures: Figures = {"good": [1.0] * 3, "bad": [None], "both": [1.0, None, 1.0]}
    lines = draw(make_result(Metric(), figures), 80)
    assert "bad            -              failed" in lines
    start = lines.index("bad: 1 of 1 run failed: ended with status 3")
    assert lines[start + 1] == r"    oops\x1b[31m"
    assert lines[start + 2] == "both: 1 of 3 runs failed: ended with status 3"


def test_nothing_measured(draw: Draw) -> None:
    """Without any figure there is a table all the same."""
    lines = draw(make_result(Metric(), {"bad": [None]}), 160)
    assert lines[3].split() == ["bad", "-", "failed"]


def test_ablation(draw: Draw) -> None:
    """It has a table of its own, with the options of which one is left out at a time, and those
    that change nothing."""
    whole = make_result(RATE, {"x": [1.0]})
    full = whole.variants[0].replace(options=("--smt", "all"), same=("without --smt all",))
    lines = draw(whole.replace(ablation=whole.replace(variants=(full,))), 80)
    assert "x, less one option at a time: --smt all" in lines
    assert "without --smt all: comes out as the same plan" in lines


@pytest.mark.parametrize(
    ("metric", "kind", "interval", "text"),
    [
        (Metric(), "best", (1.0, 1.0, 1.0), "best"),
        (Metric(), "worse", (1.12, 1.09, 1.154), "slower by 12 % (9 to 15)"),
        (Metric("peak"), "worse", (1.12, 1.09, 1.154), "more by 12 % (9 to 15)"),
        (RATE, "worse", (0.9, 0.88, 0.95), "less by 10 % (5 to 12)"),
        (Metric(), "same", (1.0, 0.99, 1.012),
         "no difference that 20 rounds could show (±1.2 %)"),
        (Metric(), "open", (1.1, 0.95, 1.2), "not settled: from 5 % faster to 20 % slower"),
        (RATE, "open", (0.9, 0.8, 1.1), "not settled: from 10 % more to 20 % less"),
        (Metric(), "open", (1.1, None, None), "not settled: too few rounds"),
        (Metric(), "open", (None, None, None), "no round has it and the best"),
    ],
)  # fmt: skip
def test_verdicts_in_words(
    metric: Metric, kind: Kind, interval: tuple[float | None, ...], text: str
) -> None:
    """Each says how far the variant is from the best, in the words of its metric."""
    ratio, low, high = interval
    verdict = Verdict("x", kind, ratio, low, high, 20)
    assert describe_verdict(verdict, make_result(metric, {"x": [1.0]})) == text


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (1.2034, "s", "1.203 s"), (0.012345, "s", "12.35 ms"), (0.00001, "s", "10 µs"),
        (123.456, "s", "123.5 s"), (7041.4, "", "7041"), (70.414, "", "70.41"),
        (1288490188.8, "B", "1.2 GiB"),
    ],
)  # fmt: skip
def test_figures(value: float, unit: str, text: str) -> None:
    """Figures have three or four digits that count, and their unit."""
    assert format_figure(value, unit) == text


@given(st.lists(st.floats(1e-6, 1e9), min_size=1, max_size=9))
def test_drawings_keep_their_width(values: list[float]) -> None:
    """A box plot is as wide as its scale and has its median; a bar is never longer than BAR."""
    box = make_box(values, (min(values), max(values)))
    assert len(box) == BOX
    assert box.count("┃") == 1
    assert all(len(make_bar(value, max(values))) <= BAR for value in values)


@pytest.mark.parametrize(
    ("value", "text"), [(12.4, "12"), (-3.45, "-3.5"), (2.0, "2"), (0.04, "0"), (-0.04, "0")]
)
def test_percentages(value: float, text: str) -> None:
    """Two digits count at most; there is no minus zero."""
    assert percent(value) == text
