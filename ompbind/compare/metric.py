"""What is measured of a run: a figure of the system's, or one that the program prints."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from ompbind.errors import UsageError
from ompbind.messages import did_you_mean, quote
from ompbind.record import Record

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Literal

# The system's figures: their unit, and what they are called.
SYSTEM = {
    "wall": ("s", "wall time"),
    "user": ("s", "user time"),
    "system": ("s", "system time"),
    "cpu": ("s", "user and system time"),
    "peak": ("B", "peak memory"),
}
JOINS = ("sum", "mean", "max", "min")


class Metric(Record):
    """A figure by which variants are compared. `name`: one of SYSTEM, or the program's pattern;
    `better`: "lower" or "higher"; `join`: how the figures of several ranks become one, "" for the
    system's."""

    name: str = "wall"
    better: Literal["lower", "higher"] = "lower"
    join: str = ""

    @property
    def is_printed(self) -> bool:
        """Whether the program prints it."""
        return self.name not in SYSTEM

    @property
    def unit(self) -> str:
        return "" if self.is_printed else SYSTEM[self.name][0]

    @property
    def title(self) -> str:
        """What it is called: `wall time`, or the text before the pattern's group."""
        if not self.is_printed:
            return SYSTEM[self.name][1]
        before = re.sub(r"\\[a-zA-Z]|[^\w/%. -]+", " ", self.name.partition("(")[0])
        return " ".join(before.split()).strip(" .-") or "figure"


def make_metric(text: str, better: Literal["lower", "higher"] | None, join: str | None) -> Metric:
    """Return the metric of --metric, --better and --join. Raises UsageError."""
    if text in SYSTEM:
        for name, value in (("--better", better), ("--join", join)):
            if value:
                hint = f"leave {name} out"
                raise UsageError(f"{name} is for the program's figure, not for {text}", hint=hint)
        return Metric(text)
    try:
        groups = re.compile(text).groups
    except re.error as e:
        raise UsageError(f"--metric {quote(text)} is not a regular expression: {e}") from None
    if groups != 1:
        hint = did_you_mean(text, SYSTEM) if text.isalpha() else ""
        raise UsageError(
            f"--metric {quote(text)}: {groups or 'no'} groups, where one says what the number is",
            hint=hint or "--metric 'tok/s: ([0-9.]+)', or wall, user, system, cpu, peak",
        )
    if better is None:
        raise UsageError(
            f"--metric {quote(text)}: is a higher or a lower figure better?",
            hint="--better higher, or --better lower",
        )
    return Metric(text, better, join or ("sum" if better == "higher" else "max"))


def find_figure(pattern: str, text: str) -> float | None:
    """Return the number in the last match of a pattern; None without a match. Raises ValueError
    with the text of what is no number."""
    figure = None
    for match in re.finditer(pattern, text, re.MULTILINE):
        figure = match[1]
    if figure is None:
        return None
    try:
        number = float(figure.replace(",", ""))
    except ValueError:
        raise ValueError(figure) from None
    if not 0 < number < float("inf"):
        raise ValueError(figure)
    return number


def join_figures(metric: Metric, outputs: Sequence[Sequence[str]]) -> float:
    """Return the figure of a run from what each rank wrote, its standard output and error: the
    first of these that has it counts, and ranks that print none do not. Raises ValueError with the
    reason where there is no figure."""
    figures: list[float] = []
    for texts in outputs:
        for text in texts:
            try:
                figure = find_figure(metric.name, text)
            except ValueError as e:
                raise ValueError(f"{quote(str(e))} is not a number above 0") from None
            if figure is not None:
                figures.append(figure)
                break
    if not figures:
        raise ValueError("its output does not match --metric")
    if metric.join == "max":
        return max(figures)
    if metric.join == "min":
        return min(figures)
    return sum(figures) / (len(figures) if metric.join == "mean" else 1)
