"""Tables without lines: columns as wide as what is in them, narrowed from the widest on where there
is no room. Pure."""

from __future__ import annotations

from ompbind.record import Record
from ompbind.render.text import Text, count_cells, crop, plain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ompbind.render.text import Cell, Line, Overflow

HEADING = "bold dim"


class Column(Record):
    """A column of a table."""

    name: str = ""
    right: bool = False  # aligned to the right
    no_wrap: bool = False  # never broken, and narrowed last
    overflow: Overflow = "ellipsis"
    style: str = ""


class Table:
    """Rows of cells. `heading`: the style of the columns' names, None: they are not shown;
    `before`, `after`: blanks around each cell, of which the edges of the table have none unless
    there is `edge`."""

    def __init__(
        self, *, heading: str | None = HEADING, before: int = 0, after: int = 2, edge: bool = True
    ) -> None:
        self.heading = heading
        self.before, self.after, self.edge = before, after, edge
        self.columns: list[Column] = []
        self.rows: list[list[Cell]] = []

    def add_column(
        self, name: str, *, right: bool = False, no_wrap: bool = False,
        overflow: Overflow = "ellipsis", style: str = "",
    ) -> None:  # fmt: skip
        self.columns.append(Column(name, right, no_wrap, overflow, style))

    def add_row(self, *cells: str | Cell) -> None:
        """Add a row; columns that it needs and nobody has added have no name."""
        self.columns += [Column()] * (len(cells) - len(self.columns))
        self.rows.append([Text(cell) if isinstance(cell, str) else cell for cell in cells])

    def draw(self, width: int) -> list[Line]:
        widths = self.find_widths(width)
        lines: list[Line] = []
        if self.heading is not None:
            cells = [Text(column.name, style=self.heading) for column in self.columns]
            lines += self.draw_row(cells, widths, heading=True)
        for row in self.rows:
            lines += self.draw_row(row, widths)
        return lines

    def padding(self, number: int) -> tuple[int, int]:
        """Return the blanks before and after the cells of a column."""
        first, last = number == 0, number == len(self.columns) - 1
        return (self.before if self.edge or not first else 0,
                self.after if self.edge or not last else 0)  # fmt: skip

    def find_widths(self, most: int) -> list[int]:
        """Return the widths of all columns, with the blanks around their cells."""
        widths = []
        for number, column in enumerate(self.columns):
            cells = [row[number].measure() for row in self.rows if number < len(row)]
            if self.heading is not None:
                cells.append(count_cells(column.name))
            widths.append(min(max(cells, default=0) + sum(self.padding(number)), most) or 1)
        narrow(widths, [not column.no_wrap for column in self.columns], most)
        if (excess := sum(widths) - most) > 0:
            reduce(widths, list(range(len(widths))), excess, excess)
        return widths

    def draw_row(
        self, row: Sequence[Cell], widths: Sequence[int], *, heading: bool = False
    ) -> list[Line]:
        """Return the lines of a row; a heading's cells end, all others begin in the same one."""
        drawn: list[list[Line]] = []
        for number, (column, width) in enumerate(zip(self.columns, widths, strict=True)):
            before, after = self.padding(number)
            room = max(width - before - after, 0)
            lines: list[Line] = [[]]
            if number < len(row) and room:
                lines = row[number].draw_cell(
                    room, right=column.right, no_wrap=column.no_wrap, overflow=column.overflow
                )
            style = "" if heading else column.style
            drawn.append([
                [(" " * before, style), *(pad([(text, f"{style} {s}") for text, s in line], room)),
                 (" " * min(after, width), style)]
                for line in lines
            ])  # fmt: skip
        height = max(map(len, drawn), default=0)
        for lines, width in zip(drawn, widths, strict=True):
            empty: list[Line] = [[(" " * width, "")]] * (height - len(lines))
            lines[:] = [*empty, *lines] if heading else [*lines, *empty]
        return [[span for lines in drawn for span in lines[n]] for n in range(height)]


def pad(line: Line, width: int) -> Line:
    """Return the line, exactly this wide."""
    line = crop(line, width)
    return [*line, (" " * (width - count_cells(plain(line))), line[-1][1] if line else "")]


def narrow(widths: list[int], may_shrink: Sequence[bool], most: int) -> None:
    """Make the widest of the columns that may shrink as narrow as the next ones, again and again,
    until all have room or these are equally wide."""
    shrinking = [n for n, may in enumerate(may_shrink) if may]
    while shrinking and (excess := sum(widths) - most) > 0:
        greatest = max(widths[n] for n in shrinking)
        widest = [n for n in shrinking if widths[n] == greatest]
        others = max((widths[n] for n in shrinking if n not in widest), default=0)
        if greatest == others:
            break
        reduce(widths, widest, excess, min(excess, greatest - others))


def reduce(widths: list[int], columns: Sequence[int], excess: int, most: int) -> None:
    """Take the excess from these columns evenly, from none more than `most` or than it has."""
    for done, number in enumerate(columns):
        share = min(most, widths[number], round(excess / (len(columns) - done)))
        widths[number] -= share
        excess -= share
