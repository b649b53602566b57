"""Texts and tables: broken to a width as people read them, and styled on terminals."""

from __future__ import annotations

import io
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ompbind.render import draw_live, make_text
from ompbind.render.lists import list_pieces
from ompbind.render.table import Table
from ompbind.render.terminal import USUAL, find_size
from ompbind.render.text import Group, Text, count_cells, plain


class Terminal(io.StringIO):
    """Stands in for standard output that is a terminal."""

    connected = True

    def isatty(self) -> bool:
        return self.connected


def connect(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Make standard output a terminal. Not a fixture: after those, pytest sets its own again."""
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    stream = Terminal()
    monkeypatch.setattr(sys, "stdout", stream)
    return stream


def draw(drawing: Text | Table | Group, width: int) -> list[str]:
    return [plain(line).rstrip() for line in drawing.draw(width)]


@pytest.mark.parametrize(
    ("text", "width", "lines"),
    [
        ("", 10, [""]),
        ("one two", 7, ["one two"]),
        ("one two", 6, ["one", "two"]),
        ("one  two three", 8, ["one  two", "three"]),
        ("a\n\nb\n", 10, ["a", "", "b", ""]),
        ("abcdefgh", 3, ["abc", "def", "gh"]),
        ("x abcdefg y", 4, ["x", "abcd", "efg", "y"]),
        ("  indented text", 10, ["  indented", "text"]),
        ("trailing   ", 8, ["trailing"]),
        ("漢字漢字", 5, ["漢字", "漢字"]),
    ],
)
def test_a_text_is_broken_after_words(text: str, width: int, lines: list[str]) -> None:
    """And in a word only where that is longer than a line."""
    assert draw(Text(text), width) == lines


@pytest.mark.parametrize(
    ("overflow", "no_wrap", "lines"),
    [
        ("fold", False, ["ab", "cdefg", "h ij"]),
        ("ellipsis", False, ["ab", "cdef…", "ij"]),
        ("ellipsis", True, ["ab c…"]),
        ("fold", True, ["ab cd"]),
        ("ignore", False, ["ab cdefgh ij"]),
    ],
)
def test_what_becomes_of_long_words(overflow: str, no_wrap: bool, lines: list[str]) -> None:
    """They go on in the next line, or are cut with dots, or the line is never broken."""
    text = Text("ab cdefgh ij", no_wrap=no_wrap, overflow=overflow)  # type: ignore[arg-type]
    assert draw(text, 5) == lines


def test_dots_stand_at_the_end_of_the_room() -> None:
    """Also where half a character of two cells would have had room before them."""
    (line,) = Text("a漢字漢字", no_wrap=True, overflow="ellipsis").draw(5)
    assert plain(line) == "a漢 …"


@given(st.text("ab 漢,-\n", max_size=60), st.integers(2, 30))
def test_lines_are_no_wider_and_nothing_is_lost(text: str, width: int) -> None:
    """Of a text that is folded, all characters but blanks come out, in order."""
    lines = [plain(line) for line in Text.assemble(text[:7], (text[7:], "bold")).draw(width)]
    assert all(count_cells(line) <= width for line in lines)
    assert "".join("".join(lines).split()) == "".join(text.split())


def test_parts_keep_their_styles() -> None:
    """Wherever the line is broken; the text's style holds under those of its parts."""
    text = Text("one ", style="dim").append("two three", "not dim cyan")
    assert text.draw(7) == [
        [("one ", "dim"), ("two", "dim not dim cyan")],
        [("three", "dim not dim cyan")],
    ]


def make_table() -> Table:
    table = Table()
    table.add_column("n", right=True, no_wrap=True)
    table.add_column("words")
    table.add_column("more words", overflow="fold")
    table.add_row("1", "one two three", "abcdefghijklmnop")
    table.add_row("100", Text("four"), list_pieces("0-3,8-11,16-19"))
    return table


def test_columns_are_as_wide_as_what_is_in_them() -> None:
    """Blanks between them; numbers stand on the right."""
    assert draw(make_table(), 80) == [
        "  n  words          more words",
        "  1  one two three  abcdefghijklmnop",
        "100  four           0-3,8-11,16-19",
    ]


def test_the_widest_columns_are_narrowed() -> None:
    """Until they have room; a heading of several lines ends where the others do, and a list is
    broken after a comma."""
    assert draw(make_table(), 24) == [
        "              more",
        "  n  words    words",
        "  1  one two  abcdefgh",
        "     three    ijklmnop",
        "100  four     0-3,",
        "              8-11,",
        "              16-19",
    ]


def test_a_table_without_a_heading() -> None:
    """Its columns need not be named; there are no blanks at its edges."""
    table = Table(heading=None, edge=False)
    table.add_row("a", "b")
    table.add_row("long", "longer")
    assert [plain(line) for line in table.draw(80)] == ["a     b     ", "long  longer"]
    table = Table(heading="dim", before=1, after=1)
    table.add_column("", style="dim")
    table.add_column("0", right=True)
    table.add_row("0", "10")
    assert [plain(line) for line in table.draw(80)] == ["     0 ", " 0  10 "]


@pytest.mark.parametrize(
    ("environ", "text"),
    [
        ({}, "\x1b[1;33mwarning: \x1b[0mtext \x1b[36mrank\x1b[0m\n"),
        ({"NO_COLOR": "1"}, "\x1b[1mwarning: \x1b[0mtext rank\n"),
        ({"TERM": "dumb"}, "warning: text rank\n"),
        ({"TTY_COMPATIBLE": "0"}, "warning: text rank\n"),
    ],
)
def test_styles_on_a_terminal(
    environ: dict[str, str], text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its codes; NO_COLOR takes the colours, and no terminal or a dumb one all."""
    connect(monkeypatch)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    drawing = Text.assemble(("warning: ", "bold yellow"), "text ", ("ra", "dim not dim cyan"),
                            ("nk", "cyan"))  # fmt: skip
    assert make_text(drawing) == text


def test_colours_can_be_forced(monkeypatch: pytest.MonkeyPatch) -> None:
    """FORCE_COLOR wants them anywhere."""
    connect(monkeypatch).connected = False
    assert make_text(Text("a", style="red")) == "a\n"
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert make_text(Text("a", style="red")) == "\x1b[31ma\x1b[0m\n"


def test_a_width_that_is_no_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """Is passed over, also where int() would not take it."""
    monkeypatch.setenv("LINES", "9" * 5000)
    monkeypatch.setenv("COLUMNS", "²")
    assert find_size() == USUAL


def test_one_drawing_after_another(
    capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a terminal each in the place of the one before, as far as it has lines, the last one
    whole; elsewhere below it."""
    terminal = connect(monkeypatch)
    monkeypatch.setenv("LINES", "2")
    monkeypatch.setenv("COLUMNS", "4")
    draw_live(iter([Text("a b c"), Text("d")]))
    assert b"a b \nc\r" in capfdbinary.readouterr().out  # as many lines as are taken back
    draw_live(iter([Text("a\nb\nc"), Text("d")]))
    out = capfdbinary.readouterr().out.decode()
    back = "\r\x1b[2K\x1b[1A\x1b[2K"
    assert out == f"\x1b[?25la\nb{back}d\r\x1b[2Kd\n\x1b[?25h"
    terminal.connected = False
    draw_live(iter([Text("a"), Text("d")]))
    assert capfdbinary.readouterr().out == b"a\nd\n"
