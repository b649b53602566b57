"""Metrics: what may be asked for, and figures taken from what ranks print."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ompbind.compare.metric import Metric, find_figure, join_figures, make_metric
from ompbind.errors import UsageError


def test_the_systems_figures() -> None:
    """Times and memory: less is better, and there is nothing to join."""
    metric = make_metric("cpu", None, None)
    assert (metric.better, metric.join, metric.unit, metric.is_printed) == ("lower", "", "s", False)
    assert metric.title == "user and system time"
    assert make_metric("peak", None, None).unit == "B"


def test_the_programs_figure() -> None:
    """Figures that are to be high are summed over ranks, others joined by the greatest."""
    metric = make_metric(r"tok/s: +([0-9.]+)", "higher", None)
    assert (metric.join, metric.title, metric.unit) == ("sum", "tok/s", "")
    assert make_metric("ms: (.*)", "lower", None).join == "max"
    assert make_metric("ms: (.*)", "lower", "mean").join == "mean"


@pytest.mark.parametrize(
    ("text", "better", "join", "message", "hint"),
    [
        ("wal", None, None, "--metric 'wal': no groups, where one says what the number is",
         "did you mean wall?"),
        ("(a)(b)", "higher", None, "--metric '(a)(b)': 2 groups, where one says what the number is",
         "--metric 'tok/s: ([0-9.]+)', or wall, user, system, cpu, peak"),
        ("(", "higher", None, None, ""),
        ("x (.*)", None, None, "--metric 'x (.*)': is a higher or a lower figure better?",
         "--better higher, or --better lower"),
        ("wall", "higher", None, "--better is for the program's figure, not for wall",
         "leave --better out"),
        ("peak", None, "sum", "--join is for the program's figure, not for peak",
         "leave --join out"),
    ],
)  # fmt: skip
def test_wrong_metrics_are_refused(
    text: str, better: str | None, join: str | None, message: str | None, hint: str
) -> None:
    """Each with what to write in its place."""
    with pytest.raises(UsageError) as e:
        make_metric(text, better, join)  # type: ignore[arg-type]
    assert message is None or e.value.message == message
    assert e.value.hint == hint


@pytest.mark.parametrize(
    ("text", "figure"),
    [
        ("rate: 5\n", 5.0),
        ("rate: 5\nrate: 7.5\n", 7.5),
        ("rate: 1,234.5", 1234.5),
        ("rate: 1e3\n", 1000.0),
        ("speed: 5", None),
        ("", None),
    ],
)
def test_the_last_match_counts(text: str, figure: float | None) -> None:
    """Programs print how far they are; the last line is the result."""
    assert find_figure(r"^rate: (\S+)", text) == figure


@pytest.mark.parametrize("word", ["fast", "nan", "inf", "0", "-3"])
def test_what_is_no_figure_fails_the_run(word: str) -> None:
    """Only numbers above 0 have ratios."""
    metric = Metric("rate: (.*)", "higher", "sum")
    with pytest.raises(ValueError, match=f"^'{word}' is not a number above 0$"):
        join_figures(metric, [[f"rate: {word}", ""]])


@pytest.mark.parametrize(("join", "value"), [("sum", 9), ("mean", 3), ("max", 4), ("min", 2)])
def test_ranks_are_joined(join: str, value: float) -> None:
    """Ranks that print none are left out; standard error counts where standard output has none."""
    metric = Metric("rate: (.*)", "higher", join)
    outputs = [["rate: 2", "rate: 99"], ["", "rate: 3"], ["nothing", ""], ["rate: 4", ""]]
    assert join_figures(metric, outputs) == value


def test_no_match_fails_the_run() -> None:
    """Where no rank prints it there is no figure."""
    with pytest.raises(ValueError, match="does not match --metric"):
        join_figures(Metric("rate: (.*)", "higher", "sum"), [["hello", ""]])


@given(st.text(max_size=30))
def test_any_pattern_is_read_or_refused(text: str) -> None:
    """Whatever is typed is a metric with a title, or refused in one line."""
    try:
        metric = make_metric(text, "higher", None)
    except UsageError as e:
        assert "\n" not in e.message
        return
    assert metric.title
