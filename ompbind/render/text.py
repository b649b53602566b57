"""Styled text, broken to a width: what tables and drawings are made of. Pure.

It does what rich would do, whose import alone takes twice as long as an empty Python's start.

A style is words: `bold`, `dim`, `not dim`, the names of `colours`. Of words that contradict one
another the last one holds. A width is in the cells of a terminal.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Literal, Protocol

    Span = tuple[str, str]  # a text without line breaks, and its style
    Line = list[Span]
    # What becomes of a word that is longer than a line: it goes on in the next one, or is cut
    # there, with `…`; `ignore`: lines are never broken.
    Overflow = Literal["fold", "ellipsis", "ignore"]

    class Drawing(Protocol):
        """Anything that can be drawn."""

        def draw(self, width: int) -> list[Line]:
            """Return its lines, each at most `width` wide."""

    class Cell(Protocol):
        """What can stand in a table."""

        def measure(self) -> int:
            """Return the width at which no line has to be broken."""

        def draw_cell(
            self, width: int, *, right: bool, no_wrap: bool, overflow: Overflow
        ) -> list[Line]:
            """Return its lines in a column that is aligned to the right or not."""


class Group:
    """Drawings one below another."""

    def __init__(self, *parts: Drawing) -> None:
        self.parts = parts

    def draw(self, width: int) -> list[Line]:
        return [line for part in self.parts for line in part.draw(width)]


class Text:
    """A text in one style, or of parts in several; it may have line breaks."""

    def __init__(
        self, text: str = "", style: str = "", *, no_wrap: bool = False, overflow: Overflow = "fold"
    ) -> None:
        self.style = style
        self.no_wrap = no_wrap
        self.overflow = overflow
        self.parts: Line = []
        self.append(text)

    @classmethod
    def assemble(cls, *parts: str | Span, overflow: Overflow = "fold") -> Text:
        """Return a text of parts, each with a style or without."""
        text = cls(overflow=overflow)
        for part in parts:
            text.append(*((part,) if isinstance(part, str) else part))
        return text

    def append(self, text: str, style: str = "") -> Text:
        if text:
            self.parts.append((text, f"{self.style} {style}" if self.style and style else
                               self.style or style))  # fmt: skip
        return self

    @property
    def plain(self) -> str:
        return plain(self.parts)

    def measure(self) -> int:
        return max(map(count_cells, self.plain.splitlines()), default=0)

    def draw(self, width: int) -> list[Line]:
        return self.wrap(width, no_wrap=self.no_wrap, overflow=self.overflow)

    def draw_cell(
        self, width: int, *, right: bool, no_wrap: bool, overflow: Overflow
    ) -> list[Line]:
        lines = self.wrap(width, no_wrap=no_wrap, overflow=overflow)
        if not right:
            return lines
        lines = [strip_end(line) for line in lines]
        return [[(" " * (width - count_cells(plain(line))), ""), *line] for line in lines]

    def wrap(self, width: int, *, no_wrap: bool, overflow: Overflow) -> list[Line]:
        lines: list[Line] = []
        for line in split_lines(self.parts):
            text = plain(line)
            if overflow == "ignore" or count_cells(text) <= width:
                lines.append(line)
                continue
            pieces = [line]
            if not no_wrap:
                ends = find_breaks(text, width, fold=overflow == "fold")
                pieces = [strip_end(piece, width) for piece in cut(line, ends)]
            lines += [crop(piece, width, dots=overflow == "ellipsis") for piece in pieces]
        return lines


def plain(line: Sequence[Span]) -> str:
    return "".join([text for text, _ in line])


def split_lines(parts: Sequence[Span]) -> list[Line]:
    """Return the parts with a new line at each line break."""
    lines: list[Line] = [[]]
    for text, style in parts:
        first, *others = text.split("\n")
        lines[-1].append((first, style))
        lines += [[(other, style)] for other in others]
    return lines


def cut(line: Line, ends: Sequence[int]) -> list[Line]:
    """Return the pieces of a line that end before these characters, and the last one."""
    pieces: list[Line] = [[]]
    bounds, start = list(ends), 0
    for text, style in line:
        begin, end = start, start + len(text)
        while bounds and bounds[0] <= end:
            stop = bounds.pop(0)
            pieces[-1].append((text[begin - start : stop - start], style))
            pieces.append([])
            begin = stop
        pieces[-1].append((text[begin - start :], style))
        start = end
    return pieces


def strip_end(line: Line, width: int = 0) -> Line:
    """Return the line without the blanks at its end, as far as they reach beyond the width."""
    text = plain(line)
    surplus = min(len(text) - len(text.rstrip()), count_cells(text) - width)
    return cut(line, [len(text) - surplus])[0] if surplus > 0 else line


def crop(line: Line, width: int, *, dots: bool = False) -> Line:
    """Return the line cut where it is wider, with `…` at its end if there are to be `dots`."""
    text = plain(line)
    if count_cells(text) <= width:
        return line
    room, end = width - dots, 0
    while count_cells(text[end]) <= room:
        room -= count_cells(text[end])
        end += 1
    kept = cut(line, [end])[0]
    return [*kept, (" " * room + "…" * dots, kept[-1][1])]  # room: for half a character


def find_breaks(text: str, width: int, *, fold: bool) -> list[int]:
    """Return where lines of at most this width end: after words, and if `fold` in those that are
    longer than a line."""
    breaks: list[int] = []
    used = 0
    for start, word in split_words(text):
        cells = count_cells(word.rstrip())
        if cells <= width - used:
            used += count_cells(word)
        elif cells > width and fold:
            pieces = chop(word, width)
            at = start
            for piece in pieces:
                breaks += [at] * bool(at)
                at += len(piece)
            used = count_cells(pieces[-1])
        elif cells > width or (used and start):
            breaks += [start] * bool(start)
            used = count_cells(word)
    return breaks


def split_words(text: str) -> Iterator[tuple[int, str]]:
    """Yield the words, each with the blanks after it and where it begins; the first also with those
    before it."""
    start = 0
    while start < len(text):
        end = start
        while end < len(text) and text[end].isspace():
            end += 1
        if end == len(text):
            return
        while end < len(text) and not text[end].isspace():
            end += 1
        while end < len(text) and text[end].isspace():
            end += 1
        yield start, text[start:end]
        start = end


def chop(word: str, width: int) -> list[str]:
    """Return a word in pieces of at most this width."""
    pieces, room = [""], max(width, 1)
    for c in word:
        cells = count_cells(c)
        if cells > room and pieces[-1]:
            pieces.append("")
            room = max(width, 1)
        pieces[-1] += c
        room -= cells
    return pieces


def count_cells(text: str) -> int:
    """Return how wide a text is: most characters of East Asia and emojis take two cells, those that
    combine with the one before them none."""
    if text.isascii() or all(c < "\u0300" or c in "…─┃├┤█▒" for c in text):
        return len(text)
    from unicodedata import category, east_asian_width

    return sum(
        0 if category(c) in ("Mn", "Me", "Cf") else 2 if east_asian_width(c) in "WF" else 1
        for c in text
    )
