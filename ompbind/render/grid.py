"""The lines of a machine's map, drawn: what `show` and `topo` have in common."""

from __future__ import annotations

from ompbind.render.lists import list_pieces
from ompbind.render.map import (
    BETWEEN,
    Fold,
    column_widths,
    fit_headings,
    label_width,
    row_label,
)
from ompbind.render.text import count_cells, crop, plain, strip_end

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from ompbind.render.blocks import Block
    from ompbind.render.text import Line

    Mark = Callable[[int], tuple[str, str]]

MAP_WIDTH = 100  # of a map, also where a line has no limit
INDENT = "  "  # of what stands for several blocks


def draw_lines(lines: Sequence[list[Block] | Fold], width: int, mark: Mark) -> list[Line]:
    """Draw the lines of a map. `mark` returns what a cpu's cell has, and its style."""
    drawn: list[Line] = []
    outer = ""
    for n, line in enumerate(lines):
        if isinstance(line, Fold):
            pieces = list_pieces(line.text, "dim").draw(width - len(INDENT))
            drawn += [[(INDENT, ""), *piece] for piece in pieces]
            continue
        if n and line[0].outer not in (outer, ""):
            drawn.append([])
        drawn += [crop(row, width) for row in draw_blocks(line, outer, mark)]
        outer = line[-1].outer or outer
    return drawn


def draw_blocks(blocks: Sequence[Block], outer: str, mark: Mark) -> Iterator[Line]:
    """Draw blocks side by side, the first of them below one in `outer`."""
    labels = [label_width(block) for block in blocks]
    headings = [fit_headings(b, width) for b, width in zip(blocks, labels, strict=True)]
    most = max(map(len, headings))
    columns: list[list[Line]] = []
    for block, above, width in zip(blocks, headings, labels, strict=True):
        outer_title = block.outer if block.outer != outer else ""
        outer = block.outer
        titles: list[Line] = [[(outer_title, "bold")], [(block.inner, "bold")]]
        names: list[Line] = [[]] * (most - len(above)) + [draw_heading(line) for line in above]
        rows = [draw_row(block, row, width, mark) for row in block.rows]
        indent = " " * width
        notes: list[Line] = [[(indent + note, "dim")] for note in block.notes]
        columns.append([*titles, *names, *rows, *notes])
    widths = column_widths(blocks)
    for n in range(max(map(len, columns))):
        line: Line = []
        start = used = 0
        for width, column in zip(widths, columns, strict=True):
            # The name of a package may reach over several of its blocks.
            line.append((" " * (start - used), ""))
            line += column[n] if n < len(column) else []
            used = count_cells(plain(line))
            start += width + BETWEEN
        line = strip_end(line)
        if n > 1 or plain(line):
            yield line


def draw_heading(names: Sequence[tuple[int, str]]) -> Line:
    text = ""
    for column, name in names:
        text = text.ljust(column) + name
    return [(text, "dim")]


def draw_row(block: Block, row: Sequence[int | None], labels: int, mark: Mark) -> Line:
    """Draw a row behind its label; `labels`: the width of those of the block."""
    line: Line = [(row_label(row).rjust(labels - 1) + " " if labels else "", "dim")]
    for n, cpu in enumerate(row):
        sign, style = mark(cpu) if cpu is not None else ("", "")
        blank = block.cell > 1 and n == 0  # the first cell has none before it
        gap = block.cell - blank - len(sign) + (n in block.gaps)
        line.append((" " * gap + sign, style))
    return line
