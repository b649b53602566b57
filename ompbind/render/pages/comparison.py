"""The page of a comparison: the verdicts, every measurement, the plan of each variant, the machine,
and the commands that repeat it."""

from __future__ import annotations

from statistics import median, quantiles
from typing import TYPE_CHECKING

from ompbind.compare.costs import find_costs
from ompbind.messages import counted
from ompbind.render.compare import (
    describe_ending,
    describe_failures,
    describe_verdict,
    format_figure,
)
from ompbind.render.escape import quote_word
from ompbind.render.pages.html import (
    make_page,
    write,
    write_figure,
    write_heading,
    write_paragraph,
    write_table,
)
from ompbind.render.picture import make_machine_picture, make_plan_picture
from ompbind.render.rows import describe_plan
from ompbind.render.words import Row, Rows

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ompbind.compare.result import Result
    from ompbind.compare.statistics import Verdict
    from ompbind.machine.topology import Machine

WIDTH, HEIGHT = 420, 30  # of a variant's box plot, in pixels
CHART_WIDTH, CHART_HEIGHT, LEFT, BELOW = 900, 260, 70, 28  # of the chart by round
COLOURS = 8  # after which they repeat

RULES = """
:root { --v0: #0969da; --v1: #bc4c00; --v2: #1a7f37; --v3: #8250df; --v4: #bf3989; --v5: #4d2d00;
  --v6: #1b7c83; --v7: #6e7781; --axis: #d4d7dc; --label: #5c6370 }
@media (prefers-color-scheme: dark) { :root { --v0: #6cb2ff; --v1: #ffa657; --v2: #7ee787;
  --v3: #d2a8ff; --v4: #ff9bce; --v5: #e3c79a; --v6: #76e3ea; --v7: #aab2bd; --axis: #3b4048;
  --label: #9aa2ae } }
h1, h3 { overflow-wrap: anywhere }
h3 { font-size: 1rem; margin: 1.5rem 0 0 }
td { vertical-align: middle }
.plot { display: block }
.axis { stroke: var(--axis) }
.label { fill: var(--label); font-size: 12px }
.v0 { --colour: var(--v0) } .v1 { --colour: var(--v1) } .v2 { --colour: var(--v2) }
.v3 { --colour: var(--v3) } .v4 { --colour: var(--v4) } .v5 { --colour: var(--v5) }
.v6 { --colour: var(--v6) } .v7 { --colour: var(--v7) }
.dot { fill: var(--colour); fill-opacity: 0.55 }
.trace { stroke: var(--colour); fill: none }
.box { stroke: var(--colour); fill: var(--colour); fill-opacity: 0.15 }
.key { background: var(--colour); display: inline-block; width: 0.7em; height: 0.7em;
  border-radius: 50%; margin-right: 0.45em }
"""
LOOKS = {"best": "good", "worse": "bad", "same": "", "open": "soft"}  # of verdicts


def make_comparison_page(result: Result, machine: Machine | None, version: str) -> str:
    """Return the page. `machine`: the one that it was measured on, where it can be read; `version`:
    of ompbind."""
    parts = [
        write_paragraph(describe_metric(result), "soft"),
        write_paragraph(summarize(result)),
        *draw_verdicts(result, "verdicts"),
        *draw_rounds(result),
        *draw_costs(result),
        *write_remarks(result),
    ]
    if result.ablation:
        title = f"{result.ablation.variants[0].name}, less one option at a time"
        parts += draw_verdicts(result.ablation, title)
        parts += write_remarks(result.ablation)
    parts += draw_plans(result, machine)
    parts += draw_machine(result, machine)
    parts += write_method(result, version)
    parts += write_runs(result)
    title = " ".join(map(quote_word, result.command))
    return make_page(title, parts, RULES)


def colour(result: Result, name: str) -> str:
    """Return the class that gives a variant its colour."""
    names = [variant.name for variant in result.variants]
    return f"v{names.index(name) % COLOURS}"


def describe_metric(result: Result) -> str:
    metric = result.metric
    joined = f", {metric.join} over ranks" if metric.join else ""
    return f"{metric.title}, {metric.better} is better{joined}"


def summarize(result: Result) -> str:
    """Return the verdicts in a sentence."""
    verdicts = result.judge()
    if not verdicts:
        return "No run gave a figure."
    best, *others = verdicts
    words = [f"{best.name} is {describe_verdict(best, result)}"]
    words += [f"{v.name}: {describe_verdict(v, result)}" for v in others[:3]]
    return "; ".join(words) + ("; ..." if others[3:] else ".")


# --- tables --------------------------------------------------------------------------------------


def draw_table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table; `rows`: cells that are HTML."""
    lines = ['<div class="scroll"><table>']
    lines.append("<tr>" + "".join(f"<th>{write(head)}</th>" for head in heads) + "</tr>")
    lines += ["<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows]
    return "\n".join([*lines, "</table></div>"])


def draw_verdicts(result: Result, title: str) -> list[str]:
    """Draw a row for each variant, the best first, with a box plot of all its runs."""
    verdicts = result.judge()
    values = {v.name: result.values_of(v.name) for v in verdicts}
    everything = [value for figures in values.values() for value in figures]
    unit = result.metric.unit
    heads = ["variant", "median", "all runs", "verdict"]
    if everything:
        low, high = min(everything), max(everything)
        heads[2] += f", {format_figure(low, unit)} to {format_figure(high, unit)}"
    rows = [make_row(v, result, values[v.name], everything) for v in verdicts]
    for variant in result.variants:
        if variant.name not in values:
            rows.append([write(variant.name), "-", "", '<span class="bad">failed</span>'])
    return [write_heading(title), draw_table(heads, rows)]


def make_row(
    verdict: Verdict, result: Result, values: Sequence[float], everything: Sequence[float]
) -> list[str]:
    look = colour(result, verdict.name)
    return [
        f'<span class="key {look}"></span>{write(verdict.name)}',
        format_figure(median(values), result.metric.unit),
        make_box(values, (min(everything), max(everything)), look, result.metric.unit),
        f'<span class="{LOOKS[verdict.kind]}">{write(describe_verdict(verdict, result))}</span>',
    ]


def make_box(values: Sequence[float], scale: tuple[float, float], look: str, unit: str) -> str:
    """Draw a box plot with a dot for each run, on a scale that all variants have."""
    low, high = scale

    def place(value: float) -> float:
        share = (value - low) / (high - low) if high > low else 0.5
        return round(6 + share * (WIDTH - 12), 1)

    quarters = quantiles(values, n=4, method="inclusive") if values[1:] else [values[0]] * 3
    left, middle, right = map(place, quarters)
    half = HEIGHT / 2
    label = f"{counted(len(values), 'run')}, median {format_figure(median(values), unit)}"
    lines = [
        f'<svg class="plot {look}" width="{WIDTH}" height="{HEIGHT}" role="img" '
        f'aria-label="{label}">',
        f'<line class="trace" x1="{place(min(values))}" x2="{place(max(values))}" y1="{half}" '
        f'y2="{half}"/>',
        f'<rect class="box" x="{left}" y="5" width="{max(right - left, 1):.1f}" '
        f'height="{HEIGHT - 10}"/>',
        f'<line class="trace" stroke-width="2.5" x1="{middle}" x2="{middle}" y1="3" '
        f'y2="{HEIGHT - 3}"/>',
    ]
    for number, value in enumerate(values):
        y = half + (number * 5 % 13 - 6)  # so that equal ones do not hide one another
        lines.append(
            f'<circle class="dot" cx="{place(value)}" cy="{y}" r="2.6">'
            f"<title>{format_figure(value, unit)}</title></circle>"
        )
    return "".join([*lines, "</svg>"])


def draw_rounds(result: Result) -> list[str]:
    """Draw the figure of every variant round by round, where a drift, or passing load, shows."""
    runs = [run for run in result.runs if run.round and run.value is not None]
    if result.rounds < 2 or not runs:
        return []
    figures = [run.value for run in runs if run.value is not None]
    low, high = min(figures), max(figures)
    unit = result.metric.unit

    def across(number: int) -> float:
        return round(LEFT + (number - 1) / (result.rounds - 1) * (CHART_WIDTH - LEFT - 10), 1)

    def down(value: float) -> float:
        share = (value - low) / (high - low) if high > low else 0.5
        return round(10 + (1 - share) * (CHART_HEIGHT - BELOW - 20), 1)

    bottom = CHART_HEIGHT - BELOW
    lines = [
        write_heading("round by round"),
        f'<div class="scroll"><svg class="plot" width="{CHART_WIDTH}" height="{CHART_HEIGHT}" '
        'role="img" aria-label="the figure of each variant in each round">',
        f'<line class="axis" x1="{LEFT - 6}" x2="{CHART_WIDTH}" y1="{bottom}" y2="{bottom}"/>',
    ]
    for value in dict.fromkeys((low, high)):
        lines.append(
            f'<text class="label" x="{LEFT - 12}" y="{down(value) + 4}" text-anchor="end">'
            f"{format_figure(value, unit)}</text>"
        )
    for number, anchor in ((1, "start"), (result.rounds, "end")):
        lines.append(
            f'<text class="label" x="{across(number)}" y="{CHART_HEIGHT - 8}" '
            f'text-anchor="{anchor}">round {number}</text>'
        )
    for variant in result.variants:
        points = [
            (across(run.round), down(run.value), run.value)
            for run in runs
            if run.variant == variant.name and run.value is not None
        ]
        look = colour(result, variant.name)
        path = " ".join(f"{x},{y}" for x, y, _ in points)
        lines.append(f'<polyline class="trace {look}" stroke-opacity=".5" points="{path}"/>')
        lines += [
            f'<circle class="dot {look}" cx="{x}" cy="{y}" r="3"><title>{write(variant.name)}: '
            f"{format_figure(value, unit)}</title></circle>"
            for x, y, value in points
        ]
    return [*lines, "</svg></div>"]


def draw_costs(result: Result) -> list[str]:
    """Draw what a run of each variant has used."""
    costs = find_costs(result)
    if not costs:
        return []
    titles = tuple(cost.title for cost in costs)
    rows = []
    for name in result.ranking():
        figures = [cost.medians.get(name) for cost in costs]
        cells = (
            "-" if figure is None else format_figure(figure, cost.unit)
            for figure, cost in zip(figures, costs, strict=True)
        )
        rows.append(Row((name, *cells)))
    table = Rows(("medians of a run", *titles), tuple(rows))
    return [write_heading("what a run used"), write_table(table, titles)]


def write_remarks(result: Result) -> list[str]:
    """Write notes, failures and what was left out or is the same."""
    parts = [write_paragraph(f"note: {note}") for note in result.notes]
    if failures := describe_failures(result):
        parts.append("<pre>" + "\n".join(map(write, failures)) + "</pre>")
    for variant in result.variants:
        if variant.same:
            text = f"{', '.join(variant.same)}: the same plan as {variant.name}"
            parts.append(write_paragraph(text, "soft"))
    for omitted in result.omitted:
        parts.append(write_paragraph(f"left out {omitted.name}: {omitted.why}", "soft"))
    return parts


# --- plans, the machine, the method --------------------------------------------------------------


def draw_plans(result: Result, machine: Machine | None) -> list[str]:
    """Draw the picture of each plan, below the command that starts it so."""
    parts = [write_heading("plans")]
    styled = False
    for variant in result.variants:
        look = colour(result, variant.name)
        words = ["ompbind", "run", *variant.options, "--"] if variant.is_bound else []
        parts.append(f'<h3><span class="key {look}"></span>{write(variant.name)}</h3>')
        parts.append(write_command([*words, *result.command]))
        if variant.is_bound:
            picture = make_plan_picture(variant.plan, machine)
            parts.append(write_figure(picture, style=not styled))
            styled = True
    return parts


def draw_machine(result: Result, machine: Machine | None) -> list[str]:
    parts = [write_heading("machine")]
    if machine is None:
        return [*parts, write_paragraph(": ".join(describe_plan(result.variants[0].plan)))]
    return [*parts, write_figure(make_machine_picture(machine))]


def write_command(words: Iterable[str]) -> str:
    return f"<p><code>{write(' '.join(map(quote_word, words)))}</code></p>"


def write_method(result: Result, version: str) -> list[str]:
    """Explain how it was measured, and what the verdicts mean."""
    return [
        write_heading("how it was measured"),
        write_command(("ompbind", "compare", *result.arguments)),
        write_paragraph(f"{describe_ending(result)}; ompbind {version}."),
        write_paragraph(
            "Every variant ran once in each round, in random order, so that a drift of the machine "
            "hits all alike; figures of the same round are compared with each other. A variant is "
            "worse when the interval of its median ratio to the best, which holds for all variants "
            "together and at every look, excludes no difference; where the interval is narrow "
            "enough, there is no difference that matters; in between nothing is settled."
        ),
    ]


def write_runs(result: Result) -> list[str]:
    """Write a row for every run, warm-ups included."""
    figures = ("round", "figure", "wall", "user", "system", "peak", "status")
    rows = []
    for run in result.runs:
        value = "-" if run.value is None else format_figure(run.value, result.metric.unit)
        times = (format_figure(seconds, "s") for seconds in (run.wall, run.user, run.system))
        peak, end = format_figure(run.peak, "B"), run.failure or str(run.status)
        rows.append(Row((run.variant, str(run.round or "warm-up"), value, *times, peak, end)))
    table = write_table(Rows(("variant", *figures), tuple(rows)), figures)
    summary = f"<summary>{counted(len(rows), 'run')}</summary>"
    return [write_heading("every run"), f"<details>{summary}{table}</details>"]
