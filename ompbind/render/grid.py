"""The lines of a machine's map, drawn: what `show` and `topo` have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.padding import Padding
from rich.text import Text

from ompbind.render.lists import list_pieces
from ompbind.render.map import (
    BETWEEN,
    Fold,
    column_widths,
    fit_headings,
    label_width,
    row_label,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from rich.console import RenderableType

    from ompbind.render.blocks import Block

    Mark = Callable[[int], tuple[str, str]]

MAP_WIDTH = 100  # of a map, also where a line has no limit


def draw_lines(lines: Sequence[list[Block] | Fold], mark: Mark) -> Iterator[RenderableType]:
    """Draw the lines of a map. `mark` returns what a cpu's cell has, and its style."""
    outer = ""
    for n, line in enumerate(lines):
        if isinstance(line, Fold):
            yield Padding(list_pieces(line.text, "dim"), (0, 0, 0, 2))
            continue
        if n and line[0].outer not in (outer, ""):
            yield Text()
        yield from draw_line(line, outer, mark)
        outer = line[-1].outer or outer


def draw_line(blocks: Sequence[Block], outer: str, mark: Mark) -> Iterator[Text]:
    """Draw blocks side by side, the first of them below one in `outer`."""
    headings = [fit_headings(block) for block in blocks]
    most = max(map(len, headings))
    columns: list[list[Text]] = []
    for block, above in zip(blocks, headings, strict=True):
        outer_title = block.outer if block.outer != outer else ""
        outer = block.outer
        titles = [Text(outer_title, style="bold"), Text(block.inner, style="bold")]
        names = [Text()] * (most - len(above)) + [draw_heading(line) for line in above]
        rows = [draw_row(block, row, mark) for row in block.rows]
        indent = " " * label_width(block)
        notes = [Text(indent + note, style="dim") for note in block.notes]
        columns.append([*titles, *names, *rows, *notes])
    widths = column_widths(blocks)
    for n in range(max(map(len, columns))):
        line = Text(no_wrap=True)
        start = 0
        for width, column in zip(widths, columns, strict=True):
            # The name of a package may reach over several of its blocks.
            line.pad_right(max(0, start - line.cell_len))
            line.append_text(column[n] if n < len(column) else Text())
            start += width + BETWEEN
        line.rstrip()
        if line.plain or n > 1:
            yield line


def draw_heading(names: Sequence[tuple[int, str]]) -> Text:
    text = ""
    for column, name in names:
        text = text.ljust(column) + name
    return Text(text, style="dim")


def draw_row(block: Block, row: Sequence[int | None], mark: Mark) -> Text:
    labels = label_width(block)
    text = Text(row_label(row).rjust(labels - 1) + " " if labels else "", style="dim")
    for n, cpu in enumerate(row):
        text.append(" " if n in block.gaps else "")
        sign, style = mark(cpu) if cpu is not None else ("", "")
        blank = block.cell > 1 and n == 0  # the first cell has none before it
        text.append(" " * (block.cell - blank - len(sign)))
        text.append(sign, style=f"not dim {style}" if "dim" not in style else style)
    return text
