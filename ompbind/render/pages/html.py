"""Pages as HTML: one file, no script, nothing from outside. Every text is content, never markup."""

from __future__ import annotations

from xml.sax.saxutils import escape

from ompbind.messages import one_line
from ompbind.render.picture.looks import DARK, FONT, LIGHT, RANKS
from ompbind.render.picture.svg import make_svg
from ompbind.render.rows import RIGHT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from ompbind.render.picture import Picture
    from ompbind.render.words import Rows

# Nothing is loaded or executed, whatever a text may contain.
POLICY = "default-src 'none'; style-src 'unsafe-inline'"
RULES = """\
:root {{ color-scheme: light dark }}
body {{ margin: 2rem auto; padding: 0 1.5rem; max-width: 75rem; background: {page}; color: {text};
  font: 15px/1.5 {font} }}
h1 {{ font-size: 1.5rem; margin: 0 }}
h2 {{ font-size: 1.1rem; margin: 2rem 0 0.5rem }}
p {{ margin: 0.4rem 0 }}
.soft, th {{ color: {soft} }}
.good {{ color: {good}; font-weight: 600 }}
.bad {{ color: {alarm}; font-weight: 600 }}
figure {{ margin: 1rem 0 0 -18px; overflow-x: auto }}
figcaption {{ margin-left: 18px }}
.pair {{ display: flex; flex-wrap: wrap; gap: 1rem }}
.scroll {{ overflow-x: auto; margin: 0.5rem 0 1rem }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums }}
th, td {{ text-align: left; vertical-align: top; padding: 0.2rem 1.25rem 0.2rem 0 }}
th {{ font-weight: 400; border-bottom: 1px solid {edge}; white-space: nowrap }}
tr.wrong td {{ color: {alarm} }}
.right {{ text-align: right }}
.swatch {{ display: inline-block; width: 1rem; height: 0.75rem; margin-right: 0.5rem;
  border: 1px solid {edge}; border-radius: 2px; vertical-align: -1px }}
pre {{ background: {bar}; padding: 0.75rem; border-radius: 4px; white-space: pre-wrap;
  overflow-wrap: anywhere; font: 13px/1.45 ui-monospace, 'DejaVu Sans Mono', monospace }}
summary {{ cursor: pointer }}
"""
GOOD = ("#2b7a35", "#86d48f")  # in light, in dark


def make_page(title: str, parts: Iterable[str], rules: str = "") -> str:
    """Return a page with a title; `parts`: HTML that the functions below return; `rules`: what its
    style sheet has besides."""
    name = write(title)
    return "\n".join(
        [
            "<!DOCTYPE html>",
            '<html lang="en">',
            "<head>",
            '<meta charset="utf-8"/>',
            f'<meta http-equiv="Content-Security-Policy" content="{POLICY}"/>',
            '<meta name="viewport" content="width=device-width"/>',
            f"<title>{name}</title>",
            f"<style>\n{make_style()}{rules}</style>",
            "</head>",
            "<body>",
            f"<h1>{name}</h1>",
            *filter(None, parts),
            "</body>",
            "</html>",
            "",
        ]
    )


def make_style() -> str:
    dark = make_rules(DARK, 1)
    return f"{make_rules(LIGHT, 0)}@media (prefers-color-scheme: dark) {{\n{dark}}}\n"


def make_rules(colours: dict[str, str], dark: int) -> str:
    rules = RULES.format(font=FONT, good=GOOD[dark], **colours)
    for n, rank in enumerate(RANKS):
        fill, strong = rank[2 * dark : 2 * dark + 2]
        rules += f".swatch.rank{n} {{ background: {fill}; border-color: {strong} }}\n"
    return rules


def write(text: str) -> str:
    """Return a text as HTML's content, control characters escaped."""
    return escape(one_line(text), {'"': "&quot;"})


def write_heading(text: str) -> str:
    return f"<h2>{write(text)}</h2>"


def write_paragraph(text: str, look: str = "") -> str:
    """Return a paragraph, "" of an empty text. `look`: "soft", "good" or "bad"."""
    if not text:
        return ""
    return f'<p class="{look}">{write(text)}</p>' if look else f"<p>{write(text)}</p>"


def write_figure(picture: Picture, caption: str = "", *, style: bool = True) -> str:
    """Return a picture; `style`: whether it is the page's first one."""
    text = f"<figcaption>{write(caption)}</figcaption>" if caption else ""
    return f"<figure>{text}\n{make_svg(picture, style=style)}</figure>"


def write_side_by_side(parts: Sequence[str]) -> str:
    return '<div class="pair">\n' + "\n".join(parts) + "\n</div>"


def write_table(rows: Rows, right: Collection[str] = RIGHT, wrong: Collection[int] = ()) -> str:
    """Return a table, "" without rows. `right`: columns of numbers; `wrong`: the positions of rows
    that are marked."""
    if not rows.rows:
        return ""
    looks = [' class="right"' if name in right else "" for name in rows.columns]
    heads = "".join(
        f"<th{look}>{write(name)}</th>" for name, look in zip(rows.columns, looks, strict=True)
    )
    lines = [f'<div class="scroll"><table>\n<tr>{heads}</tr>']
    for n, row in enumerate(rows.rows):
        cells = [
            f"<td{look}>{write(cell)}</td>" for cell, look in zip(row.cells, looks, strict=True)
        ]
        if row.rank is not None:
            swatch = f'<span class="swatch rank{row.rank % len(RANKS)}"></span>'
            cells[0] = f"<td{looks[0]}>{swatch}{write(row.cells[0])}</td>"
        look = ' class="wrong"' if n in wrong else ""
        lines.append(f"<tr{look}>{''.join(cells)}</tr>")
    lines.append("</table></div>")
    return "\n".join([*lines, write_paragraph(rows.note, "soft")])


def write_details(summary: str, code: Sequence[str]) -> str:
    """Return lines of code that are shown on demand."""
    text = "\n".join(map(write, code))
    return f"<details><summary>{write(summary)}</summary><pre>{text}</pre></details>"
