"""Drawings on standard output: how wide it is, whether it shows colours, and their codes."""

from __future__ import annotations

import os
import sys

from ompbind.colours import COLOURS
from ompbind.cpuset import parse_whole
from ompbind.messages import write_output

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from ompbind.render.text import Drawing, Line

UNLIMITED = 100_000  # characters in a line
NARROWEST = 72  # for a table; a terminal that is narrower breaks its lines itself
USUAL = (80, 25)  # columns and lines, where nobody says
ATTRIBUTES = {"bold": 1, "dim": 2}


def make_text(drawing: Drawing, width: int = 0) -> str:
    """Return the drawing for standard output: with colours on a terminal, without elsewhere and
    under NO_COLOR. Without `width` lines have no limit where there is no terminal, unless COLUMNS
    gives one."""
    lines = drawing.draw(width or find_width())
    if shows_styles():
        painter = Painter()
        return "".join(f"{painter.paint(line)}\n" for line in lines)
    text = "".join([span[0] for line in lines for span in (*line, ("\n", ""))])
    if is_terminal():
        return text
    return "".join([f"{line.rstrip(' ')}\n" for line in text.splitlines()])


def draw_live(drawings: Iterable[Drawing]) -> None:
    """Show one drawing after another, on a terminal each in place of the one before."""
    if not shows_styles():
        for drawing in drawings:
            write_output(make_text(drawing))
        return
    back, text = "", ""
    write_output("\x1b[?25l")  # hide the cursor
    try:
        for drawing in drawings:
            columns, rows = find_size()  # a line that the terminal breaks would not be taken back
            text = make_text(drawing, columns)
            lines = text.splitlines()[:rows]
            write_output(back + "\n".join(lines))
            back = "\r\x1b[2K" + "\x1b[1A\x1b[2K" * (len(lines) - 1)
    finally:
        write_output(f"{back}{text}\x1b[?25h")


def is_terminal() -> bool:
    """Whether standard output is a terminal, or the environment says that it is as good as one."""
    environ = os.environ
    if environ.get("TTY_COMPATIBLE") in ("0", "1"):
        return environ["TTY_COMPATIBLE"] == "1"
    if "FORCE_COLOR" in environ:
        return environ["FORCE_COLOR"] != ""
    return has_terminal()


def has_terminal() -> bool:
    return sys.stdout is not None and sys.stdout.isatty()


def is_dumb() -> bool:
    return os.environ.get("TERM", "").lower() in ("dumb", "unknown")


def shows_styles() -> bool:
    """Whether there is a terminal that understands the codes of styles."""
    if os.name == "nt" and not {"TERM", "WT_SESSION", "ANSICON"} & set(os.environ):
        return False  # an old console
    return is_terminal() and not is_dumb()


def find_width() -> int:
    """Return the columns that a drawing may use."""
    if not has_terminal() and "COLUMNS" not in os.environ:
        return UNLIMITED
    return max(find_size()[0], NARROWEST)


def find_size() -> tuple[int, int]:
    """Return columns and lines of the terminal."""
    if is_terminal() and is_dumb():
        return USUAL
    columns = lines = 0
    for stream in (0, 1, 2):
        try:
            columns, lines = os.get_terminal_size(stream)
        except (OSError, ValueError, AttributeError):  # not a terminal
            continue
        break
    given = [os.environ.get(name, "") for name in ("COLUMNS", "LINES")]
    columns, lines = (
        size if (number := parse_whole(text)) is None else number
        for text, size in zip(given, (columns, lines), strict=True)
    )
    return columns or USUAL[0], lines or USUAL[1]


class Painter:
    """Writes styles as a terminal's codes; without colours under NO_COLOR."""

    def __init__(self) -> None:
        self.colours = {} if os.environ.get("NO_COLOR") else COLOURS
        self.codes: dict[str, str] = {"": ""}

    def paint(self, line: Line) -> str:
        """Return a line with the codes of its styles, neighbours of one style together."""
        texts, codes = [""], [""]
        for text, style in line:
            code = self.find_code(style)
            if code == codes[-1]:
                texts[-1] += text
            elif text:
                texts.append(text)
                codes.append(code)
        return "".join([
            f"\x1b[{code}m{text}\x1b[0m" if code and text else text
            for text, code in zip(texts, codes, strict=True)
        ])  # fmt: skip

    def find_code(self, style: str) -> str:
        """Return the numbers of a style, divided by `;`."""
        if style not in self.codes:
            self.codes[style] = self.make_code(style)
        return self.codes[style]

    def make_code(self, style: str) -> str:
        attributes: set[int] = set()
        colour, wanted = "", True
        for word in style.split():
            if word in ATTRIBUTES:
                (attributes.add if wanted else attributes.discard)(ATTRIBUTES[word])
            elif word in COLOURS:
                colour = str(self.colours.get(word, ""))
            wanted = word != "not"
        return ";".join([*map(str, sorted(attributes)), *([colour] if colour else [])])
