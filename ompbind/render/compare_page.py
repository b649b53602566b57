"""A comparison as a page: one HTML file without script and without references to anything outside,
with every measurement, the plan of each variant and the machine, fit to be sent to a colleague."""

from __future__ import annotations

from html import escape
from statistics import median, quantiles
from typing import TYPE_CHECKING

from ompbind.compare.costs import find_costs
from ompbind.messages import counted, one_line
from ompbind.render.compare import (
    describe_ending,
    describe_failures,
    describe_verdict,
    format_figure,
)
from ompbind.render.escape import quote_word
from ompbind.render.picture import make_machine_picture, make_plan_picture, make_svg
from ompbind.render.rows import describe_plan

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ompbind.compare.result import Result
    from ompbind.compare.statistics import Verdict
    from ompbind.machine.topology import Machine

WIDTH, HEIGHT = 420, 30  # of a variant's box plot, in pixels
CHART_WIDTH, CHART_HEIGHT, LEFT, BELOW = 900, 260, 70, 28  # of the chart by round
COLOURS = 8  # after which they repeat

STYLE = """
:root { color-scheme: light dark; --text: #1c1e21; --page: #fff; --line: #d4d7dc; --dim: #5c6370;
  --good: #1a7f37; --bad: #b3261e; --c0: #0969da; --c1: #bc4c00; --c2: #1a7f37; --c3: #8250df;
  --c4: #bf3989; --c5: #4d2d00; --c6: #1b7c83; --c7: #6e7781 }
@media (prefers-color-scheme: dark) { :root { --text: #e6e8eb; --page: #16181c; --line: #3b4048;
  --dim: #9aa2ae; --good: #57c46f; --bad: #ff8a80; --c0: #6cb2ff; --c1: #ffa657; --c2: #7ee787;
  --c3: #d2a8ff; --c4: #ff9bce; --c5: #e3c79a; --c6: #76e3ea; --c7: #aab2bd } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--text); background: var(--page);
  max-width: 1080px; margin: 2rem auto; padding: 0 1rem }
h1 { font: 600 1.4rem/1.3 ui-monospace, monospace; overflow-wrap: anywhere }
h2 { font-size: 1.15rem; margin-top: 2.2rem } h3 { font-size: 1rem; margin-bottom: .2rem }
code, pre { font: .9em ui-monospace, monospace; overflow-wrap: anywhere; white-space: pre-wrap }
table { border-collapse: collapse } .wide { overflow-x: auto }
th, td { text-align: left; padding: .25rem .9rem .25rem 0; border-bottom: 1px solid var(--line);
  vertical-align: middle } th { color: var(--dim); font-weight: 500 }
.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap }
.dim { color: var(--dim) } .best { color: var(--good); font-weight: 600 }
.worse { color: var(--bad) } .summary { font-size: 1.15rem }
summary { cursor: pointer; color: var(--dim) } svg.plot { display: block }
.axis { stroke: var(--line) } .label { fill: var(--dim); font-size: 12px }
.v0 { --colour: var(--c0) } .v1 { --colour: var(--c1) } .v2 { --colour: var(--c2) }
.v3 { --colour: var(--c3) } .v4 { --colour: var(--c4) } .v5 { --colour: var(--c5) }
.v6 { --colour: var(--c6) } .v7 { --colour: var(--c7) }
.dot { fill: var(--colour); fill-opacity: .55 } .trace { stroke: var(--colour); fill: none }
.box { stroke: var(--colour); fill: var(--colour); fill-opacity: .15 }
.key { background: var(--colour); display: inline-block; width: .7em; height: .7em;
  border-radius: 50%; margin-right: .45em }
"""


def make_page(result: Result, machine: Machine | None, version: str) -> str:
    """Return the page. `machine`: the one that it was measured on, where it can be read; `version`:
    of ompbind."""
    name = text(" ".join(map(quote_word, result.command)))
    body = [
        f"<h1>{name}</h1>",
        f'<p class="dim">{text(describe_metric(result))}</p>',
        *(f'<p class="summary">{line}</p>' for line in summarize(result)),
        *draw_verdicts(result, "Verdicts"),
        *draw_rounds(result),
        *draw_costs(result),
        *draw_remarks(result),
    ]
    if result.ablation:
        title = f"{result.ablation.variants[0].name}, less one option at a time"
        body += draw_verdicts(result.ablation, title)
        body += draw_remarks(result.ablation)
    body += draw_plans(result, machine)
    body += draw_machine(result, machine)
    body += draw_method(result, version)
    body += draw_runs(result)
    return "\n".join(
        [
            "<!DOCTYPE html>",
            '<html lang="en">',
            '<head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{name}: ompbind compare</title>",
            f"<style>{STYLE}</style></head>",
            "<body>",
            *body,
            "</body></html>",
            "",
        ]
    )


def text(words: str) -> str:
    """Return a text as HTML, whatever is in it."""
    return escape(one_line(words))


def colour(result: Result, name: str) -> str:
    """Return the class that gives a variant its colour."""
    names = [variant.name for variant in result.variants]
    return f"v{names.index(name) % COLOURS}"


def describe_metric(result: Result) -> str:
    metric = result.metric
    joined = f", {metric.join} over ranks" if metric.join else ""
    return f"{metric.title}, {metric.better} is better{joined}"


def summarize(result: Result) -> list[str]:
    """Return the verdicts in a sentence."""
    verdicts = result.judge()
    if not verdicts:
        return ["No run gave a figure."]
    best, *others = verdicts
    words = [f"<b>{text(best.name)}</b> is {text(describe_verdict(best, result))}"]
    words += [f"{text(v.name)}: {text(describe_verdict(v, result))}" for v in others[:3]]
    return ["; ".join(words) + ("; ..." if others[3:] else ".")]


# --- tables --------------------------------------------------------------------------------------


def make_table(heads: Sequence[str], rows: Iterable[Sequence[str]], numbers: int = 0) -> list[str]:
    """Return a table of cells that are HTML; the last `numbers` columns are numbers."""
    first = len(heads) - numbers

    def cell(tag: str, place: int, content: str) -> str:
        kind = ' class="number"' if place >= first else ""
        return f"<{tag}{kind}>{content}</{tag}>"

    lines = ['<div class="wide"><table>']
    lines.append("<tr>" + "".join(cell("th", n, h) for n, h in enumerate(heads)) + "</tr>")
    for row in rows:
        lines.append("<tr>" + "".join(cell("td", n, c) for n, c in enumerate(row)) + "</tr>")
    return [*lines, "</table></div>"]


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
            rows.append([text(variant.name), "-", "", '<span class="worse">failed</span>'])
    return [f"<h2>{text(title)}</h2>", *make_table(heads, rows)]


def make_row(
    verdict: Verdict, result: Result, values: Sequence[float], everything: Sequence[float]
) -> list[str]:
    look = colour(result, verdict.name)
    return [
        f'<span class="key {look}"></span>{text(verdict.name)}',
        f'<span class="number">{format_figure(median(values), result.metric.unit)}</span>',
        make_box(values, (min(everything), max(everything)), look, result.metric.unit),
        f'<span class="{verdict.kind}">{text(describe_verdict(verdict, result))}</span>',
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
        "<h2>Round by round</h2>",
        f'<div class="wide"><svg class="plot" width="{CHART_WIDTH}" height="{CHART_HEIGHT}" '
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
            f'<circle class="dot {look}" cx="{x}" cy="{y}" r="3"><title>{text(variant.name)}: '
            f"{format_figure(value, unit)}</title></circle>"
            for x, y, value in points
        ]
    return [*lines, "</svg></div>"]


def draw_costs(result: Result) -> list[str]:
    """Draw what a run of each variant has used."""
    costs = find_costs(result)
    if not costs:
        return []
    rows = []
    for name in result.ranking():
        figures = [cost.medians.get(name) for cost in costs]
        cells = [
            "-" if figure is None else format_figure(figure, cost.unit)
            for figure, cost in zip(figures, costs, strict=True)
        ]
        rows.append([f'<span class="key {colour(result, name)}"></span>{text(name)}', *cells])
    heads = ["medians of a run", *(text(cost.title) for cost in costs)]
    return ["<h2>What a run used</h2>", *make_table(heads, rows, numbers=len(costs))]


def draw_remarks(result: Result) -> list[str]:
    """Draw notes, failures and what was left out or is the same."""
    lines = [f"<p><b>Note:</b> {text(note)}</p>" for note in result.notes]
    if failures := describe_failures(result):
        lines += ["<pre>", *(escape(line) for line in failures), "</pre>"]
    for variant in result.variants:
        if variant.same:
            same = text(", ".join(variant.same))
            lines.append(f'<p class="dim">{same}: the same plan as {text(variant.name)}</p>')
    for omitted in result.omitted:
        lines.append(f'<p class="dim">Left out {text(omitted.name)}: {text(omitted.why)}</p>')
    return lines


# --- plans, the machine, the method --------------------------------------------------------------


def draw_plans(result: Result, machine: Machine | None) -> list[str]:
    """Draw the picture of each plan, below the command that starts it so."""
    lines = ["<h2>Plans</h2>"]
    styled = False
    for variant in result.variants:
        look = colour(result, variant.name)
        words = ["ompbind", "run", *variant.options, "--"] if variant.is_bound else []
        command = " ".join(map(quote_word, [*words, *result.command]))
        lines.append(f'<h3><span class="key {look}"></span>{text(variant.name)}</h3>')
        lines.append(f"<p><code>{text(command)}</code></p>")
        if variant.is_bound:
            picture = make_plan_picture(variant.plan, machine)
            lines.append(f'<div class="wide">{make_svg(picture, style=not styled)}</div>')
            styled = True
    return lines


def draw_machine(result: Result, machine: Machine | None) -> list[str]:
    title, details = describe_plan(result.variants[0].plan)
    lines = ["<h2>Machine</h2>"]
    if machine is None:
        return [*lines, f"<p>{text(title)}: {text(details)}</p>"]
    return [*lines, f'<div class="wide">{make_svg(make_machine_picture(machine))}</div>']


def draw_method(result: Result, version: str) -> list[str]:
    """Explain how it was measured, and what the verdicts mean."""
    asked = " ".join(map(quote_word, ("ompbind", "compare", *result.arguments)))
    return [
        "<h2>How it was measured</h2>",
        f"<p><code>{text(asked)}</code></p>",
        f"<p>{text(describe_ending(result))}; ompbind {text(version)}.</p>",
        "<p>Every variant ran once in each round, in random order, so that a drift of the machine "
        "hits all alike; figures of the same round are compared with each other. A variant is "
        "worse when the interval of its median ratio to the best, which holds for all variants "
        "together and at every look, excludes no difference; where the interval is narrow enough, "
        "no difference that matters is there; in between nothing is settled.</p>",
    ]


def draw_runs(result: Result) -> list[str]:
    """Draw a row for every run, warm-ups included."""
    heads = ["variant", "round", "figure", "wall", "user", "system", "peak", "status"]
    rows = []
    for run in result.runs:
        value = "-" if run.value is None else format_figure(run.value, result.metric.unit)
        rows.append([
            text(run.variant), str(run.round or "warm-up"), value,
            *(format_figure(seconds, "s") for seconds in (run.wall, run.user, run.system)),
            format_figure(run.peak, "B"), text(run.failure) or str(run.status),
        ])  # fmt: skip
    table = make_table(heads, rows, numbers=7)
    summary = f"<summary>{counted(len(rows), 'run')}</summary>"
    return ["<h2>Every run</h2>", "<details>", summary, *table, "</details>"]
