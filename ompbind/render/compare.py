"""A comparison, drawn: a row for each variant with its figure, its distance to the best, and the
verdict; a box for each where there is room."""

from __future__ import annotations

from statistics import median, quantiles

from ompbind.compare.costs import find_costs
from ompbind.compare.statistics import is_settled
from ompbind.messages import counted, format_size, one_line
from ompbind.render.escape import quote_word
from ompbind.render.table import Table
from ompbind.render.text import Group, Text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ompbind.compare.result import Result
    from ompbind.compare.statistics import Verdict
    from ompbind.render.text import Drawing, Line

BAR = 10  # columns of a bar
BOX = 44  # of a box plot
WIDE = 120  # columns of a terminal that has room for it
STYLES = {"best": "bold green", "worse": "red", "same": "", "open": "yellow"}
EIGHTHS = " ▏▎▍▌▋▊▉"


def draw_result(result: Result) -> Drawing:
    """Draw a comparison, and its ablation below."""
    parts: list[Drawing] = [headline(result), Text()]
    parts.append(ResultTable(result))
    parts += draw_costs(result)
    parts += [Text(line) for line in describe_failures(result)]
    for note in result.notes:
        parts.append(Text.assemble(("note: ", "bold yellow"), note))
    parts.append(Text(describe_ending(result)))
    if result.ablation:
        full = result.ablation.variants[0]
        title = f"{full.name}, less one option at a time: {' '.join(full.options)}"
        parts += [Text(), Text(one_line(title), style="bold"), Text()]
        parts.append(ResultTable(result.ablation))
        for name in full.same:
            parts.append(Text(f"{name}: comes out as the same plan"))
        parts += [Text(line) for line in describe_failures(result.ablation)]
        parts.append(Text(describe_ending(result.ablation)))
    return Group(*parts)


def headline(result: Result) -> Text:
    """Return the command and what is compared."""
    command = " ".join(map(quote_word, result.command))
    text = Text.assemble((command, "bold"), overflow="fold")
    metric = result.metric
    joined = f", {metric.join} over ranks" if metric.join else ""
    text.append(f": {metric.title}, {metric.better} is better{joined}")
    return text


class ResultTable:
    """A row for each variant, the best first, with a box plot where there is room."""

    def __init__(self, result: Result) -> None:
        self.result = result
        self.verdicts = result.judge()
        self.values = {v.name: result.values_of(v.name) for v in self.verdicts}

    def draw(self, width: int) -> list[Line]:
        is_wide = width >= WIDE
        table = Table()
        table.add_column("variant", overflow="fold")
        table.add_column("median", right=True, no_wrap=True)
        everything = [value for values in self.values.values() for value in values]
        low, high = min(everything, default=0), max(everything, default=0)
        scale = (low, high)
        ends = f", {format_figure(low, self.unit)} to {format_figure(high, self.unit)}"
        heading = f"all runs{ends if everything else ''}"
        table.add_column(heading if is_wide else "", no_wrap=True)
        table.add_column("verdict", overflow="fold")
        longest = max((median(v) for v in self.values.values()), default=0)
        for verdict in self.verdicts:
            values = self.values[verdict.name]
            middle = median(values)
            drawing = make_box(values, scale) if is_wide else make_bar(middle, longest)
            style = STYLES[verdict.kind]
            table.add_row(
                Text(verdict.name, style="bold" if verdict.kind == "best" else ""),
                format_figure(middle, self.unit),
                Text(drawing, style=style),
                Text(describe_verdict(verdict, self.result), style=style),
            )
        judged = {v.name for v in self.verdicts}
        for variant in self.result.variants:
            if variant.name not in judged:
                table.add_row(variant.name, "-", "", Text("failed", style="red"))
        return Group(table, Text()).draw(width)

    @property
    def unit(self) -> str:
        return self.result.metric.unit


def draw_costs(result: Result) -> list[Drawing]:
    """Draw what a run of each variant has used, the median of all its runs; nothing where that is
    not known."""
    costs = find_costs(result)
    if not costs:
        return []
    table = Table()
    table.add_column("medians of a run", overflow="fold")
    for cost in costs:
        table.add_column(cost.title, right=True)
    for name in result.ranking():
        figures = [cost.medians.get(name) for cost in costs]
        cells = [
            "-" if figure is None else format_figure(figure, cost.unit)
            for figure, cost in zip(figures, costs, strict=True)
        ]
        table.add_row(Text(name), *cells)
    return [table, Text()]


def make_bar(value: float, longest: float) -> str:
    """Return a bar whose length is the value's share of the longest."""
    eighths = round(BAR * 8 * value / longest) if longest else 0
    return ("█" * (eighths // 8) + EIGHTHS[eighths % 8]).rstrip()


def make_box(values: Sequence[float], scale: tuple[float, float]) -> str:
    """Return a box plot from the least to the greatest value, with the middle half as a box and the
    median in it, on a scale that all variants have."""
    low, high = scale

    def column(value: float) -> int:
        return round((BOX - 1) * (value - low) / (high - low)) if high > low else 0

    quarters = quantiles(values, method="inclusive") if values[1:] else [values[0]] * 3
    first, left, middle, right, last = (
        column(value) for value in (min(values), *quarters, max(values))
    )
    cells = [" "] * BOX
    for place in range(first, last + 1):
        cells[place] = "─"
    cells[first], cells[last] = "├", "┤"
    for place in range(left, right + 1):
        cells[place] = "▒"
    cells[middle] = "┃"
    return "".join(cells)


def describe_verdict(verdict: Verdict, result: Result) -> str:
    """Return `best`, `slower by 12 % (9 to 15)`, or what else the rounds show."""
    if verdict.kind == "best":
        return "best" if is_settled(result.judge()) else "best so far"
    if verdict.ratio is None:
        return "no round has it and the best"
    distances = sorted(
        100 * (ratio - 1) * (1 if result.metric.better == "lower" else -1)
        for ratio in (verdict.low, verdict.high)
        if ratio is not None
    )
    distance = 100 * (verdict.ratio - 1) * (1 if result.metric.better == "lower" else -1)
    rounds = counted(verdict.rounds, "round")
    if not distances:
        return "not settled: too few rounds"
    low, high = distances
    if verdict.kind == "worse":
        worse, _ = words_of(result)
        return f"{worse} by {percent(distance)} % ({percent(low)} to {percent(high)})"
    if verdict.kind == "same":
        margin = max(abs(low), abs(high))
        return f"no difference that {rounds} could show (±{percent(margin)} %)"
    return f"not settled: from {by(low, result)} to {by(high, result)}"


def by(distance: float, result: Result) -> str:
    """Return `12 % slower`, `3 % more` or `1 % faster`; `distance`: from the best, in percent."""
    worse, better = words_of(result)
    return f"{percent(abs(distance))} % {worse if distance >= 0 else better}"


def words_of(result: Result) -> tuple[str, str]:
    """Return what a worse figure is called, and a better one."""
    metric = result.metric
    if not metric.is_printed and metric.name != "peak":
        return "slower", "faster"
    return ("more", "less") if metric.better == "lower" else ("less", "more")


def percent(value: float) -> str:
    """Return a percentage with two digits that count, without zeros behind the point."""
    text = f"{value:.0f}" if abs(value) >= 9.95 else f"{value:.1f}".removesuffix(".0")
    return "0" if text == "-0" else text


def format_figure(value: float, unit: str) -> str:
    """Return a figure with its unit: `1.203 s`, `12.31 ms`, `1.2 GiB`, `7041`."""
    if unit == "B":
        return format_size(round(value))
    if value == 0:
        return "0"
    if unit == "s" and value < 1:
        return f"{value * 1e3:.4g} ms" if value >= 1e-3 else f"{value * 1e6:.4g} µs"
    number = f"{value:.{max(0, 4 - len(str(int(value))))}f}"
    if unit or "." not in number:
        return f"{number} {unit}".rstrip()
    return number.rstrip("0").rstrip(".")


def describe_failures(result: Result) -> list[str]:
    """Return lines about the runs that gave no figure: for each variant the last one."""
    lines = []
    for variant in result.variants:
        if failures := result.failures_of(variant.name):
            last = failures[-1]
            count = sum(run.variant == variant.name for run in result.runs)
            lines.append(f"{variant.name}: {len(failures)} of {counted(count, 'run')} failed: "
                         f"{last.failure}")  # fmt: skip
            lines += [f"    {one_line(line)}" for line in last.tail]
    return lines


def describe_ending(result: Result) -> str:
    """Return how long it was measured and why it ended, and the seed."""
    why = {
        "settled": "every comparison with the best is settled",
        "runs": "no more runs were asked for",
        "time": "the time is used up",
        "failed": "too few variants are left to compare",
        "interrupted": "interrupted",
    }.get(result.ending, "not measured")
    return f"{counted(result.rounds, 'round')}; {why}; seed {result.seed}"
