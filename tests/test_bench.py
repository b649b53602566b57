"""What the page of measurements says of figures; the figures themselves are not tested."""

from __future__ import annotations

import math
import os
import sys
from pathlib import Path

import pytest

from bench import page
from bench.growth import Series, print_series
from bench.latency import WRITER, read_delays
from bench.measure import Contender, FailedError


def make_contender(name: str, *seconds: float) -> Contender:
    return Contender(name, lambda: 0.0, list(seconds))


@pytest.mark.parametrize(
    ("value", "row"),
    [
        (1.2, "| one rank | at most 1.35 | 1.20 | met |"),
        (1.36, "| one rank | at most 1.35 | 1.36 | **not met** |"),
        (math.nan, "| one rank | at most 1.35 | not measured | |"),
    ],
)
def test_aims_that_are_not_met_are_said_to_be(value: float, row: str) -> None:
    """And what was not measured is neither."""
    assert page.Aim("one rank", 1.35, value).row() == row


def test_ratios_are_of_the_same_round() -> None:
    """Their median, over the rounds that both have; a program that cannot be run has none."""
    rows = [make_contender("a", 1.0, 2.0, 4.0), make_contender("b", 2.0, math.nan, 12.0),
            make_contender("c", math.nan)]  # fmt: skip
    assert page.find_ratio(rows, "b", "a") == 2.5
    assert math.isnan(page.find_ratio(rows, "c", "a"))
    assert math.isnan(page.find_ratio(rows, "d", "a"))
    assert page.make_table("x", rows).splitlines() == [
        "| x | median | middle half | times a |",
        "| --- | --: | --: | --: |",
        "| a | 2000.0 ms | 1000.0 to 4000.0 ms | 1.00 |",
        "| b | 7000.0 ms | 2000.0 to 12000.0 ms | 2.50 |",
    ]


@pytest.mark.parametrize(
    ("points", "linear"),
    [
        (((0, 0.01), (10, 0.02), (20, 0.03)), True),
        (((0, 0.01), (10, 0.02), (20, 0.028)), True),
        (((0, 0.01), (10, 0.02), (20, 0.04)), False),
        (((0, 0.0100), (10, 0.0101), (20, 0.0105)), True),  # next to nothing
    ],
)
def test_growth_is_linear_or_not(
    points: tuple[tuple[int, float], ...], linear: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """By what one more costs at the beginning and at the end."""
    series = Series("ranks", "ranks", points)
    assert series.is_linear == linear
    print_series(series)
    out = capsys.readouterr().out
    assert "growth: ranks" in out
    assert f"{'#' * 40}\n" in out


def test_delays_of_lines() -> None:
    """From the time in each line to its reading, from when all ranks have written; a launcher
    that writes nothing is reported."""
    script = f"import os; pid = os.fork()\n{WRITER}"
    delays = read_delays([sys.executable, "-I", "-S", "-c", script, "2", "2000"], 2, 20)
    assert len(delays) >= 20
    assert all(delay > 0 for delay in delays)
    with pytest.raises(FailedError, match="only 0 of 1 ranks"):
        read_delays(["true"], 1, 1)


def test_the_page_is_written_between_its_marks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What people wrote around them stays."""
    text = page.PAGE.read_text(encoding="utf-8")
    assert text.index(page.BEGIN) < text.index(page.END)
    copy = tmp_path / "docs/page.md"
    copy.parent.mkdir()
    copy.write_text(f"before\n{page.BEGIN}\nold\n{page.END}\nafter\n", encoding="utf-8")
    monkeypatch.setattr(page, "PAGE", copy)
    page.write_page("new")
    assert copy.read_text(encoding="utf-8") == (
        f"before\n{page.BEGIN}\n\nnew\n\n{page.END}\nafter\n"
    )
    assert os.listdir(tmp_path) == ["docs"]
