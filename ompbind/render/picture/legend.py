"""What stands around a picture's machine: its title, the meaning of its looks, and its table."""

from __future__ import annotations

from ompbind.record import Record
from ompbind.render.picture.drawing import hatch, mark, rank_look
from ompbind.render.picture.shapes import Box, Lines, Words, measure, shorten

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ompbind.render.picture.drawing import Look
    from ompbind.render.picture.shapes import Shape
    from ompbind.render.words import Rows

TITLE_SIZE, SUBTITLE_SIZE, KEY_SIZE, TABLE_SIZE = 15, 10.5, 10, 10.5
KEY_WIDTH, KEY_HEIGHT = 16, 12
LINE = 16
COLUMN_GAP = 16
NARROWEST = 60  # to which a column may be cut


class Piece(Record):
    """Shapes with the room they take, their upper left corner at 0, 0."""

    width: float
    height: float
    shapes: tuple[Shape, ...]


def draw_title(heading: Sequence[str], room: float) -> Piece:
    """Draw a title and details below it; nothing where there is no heading."""
    if not heading:
        return Piece(0, 0, ())
    title, *details = heading
    words = [
        Words(0, TITLE_SIZE, shorten(title, TITLE_SIZE, room, bold=True), TITLE_SIZE, "text bold")
    ]
    y = TITLE_SIZE + 4.0
    for line in break_texts(details, SUBTITLE_SIZE, room):
        y += LINE - 2
        words.append(Words(0, y - 1, line, SUBTITLE_SIZE, "text soft"))
    return Piece(max(w.width for w in words), y + 2, tuple(words))


def break_texts(texts: Sequence[str], size: float, room: float) -> list[str]:
    """Return lines of texts, several on one where they fit, each cut where it is too long."""
    lines: list[str] = []
    for text in filter(None, texts):
        joined = f"{lines[-1]}  ·  {text}" if lines else text
        if lines and measure(joined, size) <= room:
            lines[-1] = joined
        else:
            lines.append(shorten(text, size, room))
    return lines


def draw_keys(keys: Sequence[tuple[Look, str]], room: float) -> Piece:
    """Draw what each look means, side by side."""
    shapes: list[Shape] = []
    x = y = 0.0
    for look, name in keys:
        text = shorten(name, KEY_SIZE, room - KEY_WIDTH - 6)
        width = KEY_WIDTH + 6 + measure(text, KEY_SIZE)
        if x and x + width > room:
            x, y = 0, y + LINE
        box = Box(x, y + 2, KEY_WIDTH, KEY_HEIGHT, f"cpu {look.look}", "", 2)
        shapes.append(box)
        if look.hatched:
            shapes.append(hatch(box))
        if look.marked:
            shapes.append(mark(box))
        shapes.append(Words(x + KEY_WIDTH + 6, y + 12, text, KEY_SIZE, "text"))
        x += width + COLUMN_GAP
    return Piece(min(room, x), y + LINE if keys else 0, tuple(shapes))


def draw_table(rows: Rows, right: Sequence[str], room: float) -> Piece:
    """Draw a table, cells too long for it cut, with the whole text under the pointer."""
    columns = len(rows.columns)
    longest = [
        max(measure(cell, TABLE_SIZE) for cell in (name, *(row.cells[n] for row in rows.rows)))
        for n, name in enumerate(rows.columns)
    ]
    swatch = KEY_WIDTH + 6 if any(row.rank is not None for row in rows.rows) else 0
    widths = cut_columns(longest, room - swatch - COLUMN_GAP * (columns - 1))
    lefts = [swatch + sum(widths[:n]) + COLUMN_GAP * n for n in range(columns)]
    shapes: list[Shape] = []

    def write(text: str, n: int, baseline: float, look: str) -> None:
        shown = shorten(text, TABLE_SIZE, widths[n])
        if shown != text:
            shapes.append(Box(lefts[n], baseline - 11, widths[n], LINE - 2, "hover", text))
        if rows.columns[n] in right:
            x = lefts[n] + widths[n]
            shapes.append(Words(x, baseline, shown, TABLE_SIZE, look, "end"))
        else:
            shapes.append(Words(lefts[n], baseline, shown, TABLE_SIZE, look))

    for n, name in enumerate(rows.columns):
        write(name, n, 11, "text soft")
    width = lefts[-1] + widths[-1]
    shapes.append(Lines((((0, LINE - 0.5), (width, LINE - 0.5)),), "rule"))
    y = float(LINE + 3)
    for row in rows.rows:
        if row.rank is not None:
            shapes.append(Box(0, y + 1, KEY_WIDTH, KEY_HEIGHT, f"cpu {rank_look(row.rank)}", "", 2))
        for n, cell in enumerate(row.cells):
            write(cell, n, y + 11, "text soft" if rows.columns[n] == "why" else "text")
        y += LINE
    if rows.note:
        shapes.append(Words(0, y + 11, shorten(rows.note, KEY_SIZE, room), KEY_SIZE, "text soft"))
        y += LINE
    return Piece(width, y, tuple(shapes))


def cut_columns(longest: Sequence[float], room: float) -> list[float]:
    """Return the widths of columns that fit the room, the widest ones cut."""
    widths = list(longest)
    while sum(widths) > room and max(widths) > NARROWEST:
        widest = max(widths)
        n = widths.index(widest)
        others = max((w for i, w in enumerate(widths) if i != n), default=0)
        cut = max(NARROWEST, others - 1, widest - (sum(widths) - room))
        widths[n] = min(cut, widest - 1)
    return widths


def draw_lines(texts: Sequence[str], room: float) -> Piece:
    """Draw a line for each text."""
    words = tuple(
        Words(0, n * LINE + 12, shorten(text, KEY_SIZE, room), KEY_SIZE, "text soft")
        for n, text in enumerate(texts)
    )
    width = max((w.width for w in words), default=0)
    return Piece(width, len(texts) * LINE, words)
