"""How ompbind speaks: quoting, plurals, sizes, the nearest word."""

from __future__ import annotations

import os
import sys

import pytest

from ompbind.cpuset import CpuSet
from ompbind.messages import (
    counted,
    cut,
    did_you_mean,
    format_size,
    label,
    name_process,
    one_line,
    quote,
    say,
    write_output,
)


def test_quote() -> None:
    """A text is quoted on one line, escaped and cut."""
    assert quote("a\nb\x1b") == r"'a\nb\x1b'"
    assert len(quote("x" * 1000)) == 62


@pytest.mark.parametrize(
    ("count", "noun", "text"),
    [(0, "core", "0 cores"), (1, "core", "1 core"), (2, "process", "2 processes"),
     (1, "process", "1 process")],
)  # fmt: skip
def test_counted(count: int, noun: str, text: str) -> None:
    """One of a thing has no plural ending; none and several have."""
    assert counted(count, noun) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 KiB"), (1023 << 10, "1023 KiB"), (1 << 20, "1.0 MiB"), (100 << 20, "100 MiB"),
     (3 << 29, "1.5 GiB"), (5 << 40, "5.0 TiB"), (5000 << 40, "5000 TiB")],
)  # fmt: skip
def test_format_size(count: int, text: str) -> None:
    """Bytes stand in the largest unit that they fill."""
    assert format_size(count) == text


def test_name_process() -> None:
    """Only what is known of a process stands in brackets, on one line."""
    assert name_process(12, "python") == "pid 12 (python)"
    assert name_process(9, "sh", "ada\n") == r"pid 9 (sh, ada\n)"
    assert name_process(12, "", "ada") == "pid 12 (ada)"
    assert name_process(12, "") == "pid 12"


def test_did_you_mean() -> None:
    """A typing error finds its word; a word that resembles none finds none."""
    assert did_you_mean("shwo", ("run", "show")) == "did you mean show?"
    assert did_you_mean("rnu", ("run", "show")) == "did you mean run?"
    assert did_you_mean("frobnicate", ("run", "show")) == ""


def test_one_line() -> None:
    """Nothing in a text can begin another line, or reach the terminal's controls."""
    assert one_line("plain é") == "plain é"
    assert one_line("a\nb\x1b[31m\udcff") == r"a\nb\x1b[31m\udcff"


def test_label() -> None:
    """A noun before the numbers of what it stands for has its plural when there are several."""
    assert label("cpu", CpuSet([3])) == "cpu 3"
    assert label("node", CpuSet([0, 1, 2])) == "nodes 0-2"


def test_cut() -> None:
    """Long texts end in three dots, in one character."""
    assert cut("a" * 60) == "a" * 60
    assert cut("a" * 61) == "a" * 59 + "…"
    assert cut("abcdef", 3) == "ab…"


@pytest.mark.parametrize(
    ("environ", "on_terminal", "coloured"),
    [
        ({"TERM": "xterm"}, True, True),
        ({"TERM": "xterm"}, False, False),
        ({"TERM": "dumb"}, True, False),
        ({}, True, False),
        ({"TERM": "xterm", "NO_COLOR": "1"}, True, False),
        ({"TERM": "xterm", "NO_COLOR": ""}, True, True),
        ({"FORCE_COLOR": "1"}, False, True),
        ({"FORCE_COLOR": "1", "NO_COLOR": "1"}, True, False),
    ],
)
def test_colours(
    environ: dict[str, str],
    on_terminal: bool,
    coloured: bool,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Errors, warnings, notes and hints have colours on a terminal; nowhere else, unless asked."""
    for name in ("TERM", "NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(os, "isatty", lambda fd: on_terminal and fd == 2)
    say("error", "a\nb", "c")
    say("warning", "w")
    if coloured:
        expected = "ompbind: \x1b[1;31merror:\x1b[0m a\\nb\n\x1b[36mhint:\x1b[0m c\n"
        expected += "ompbind: \x1b[1;33mwarning:\x1b[0m w\n"
    else:
        expected = "ompbind: error: a\\nb\nhint: c\nompbind: warning: w\n"
    assert capfd.readouterr().err == expected


@pytest.mark.parametrize(
    ("encoding", "data"),
    [
        ("utf-8", "gr\u00f6\u00dfe 2 \u00d7 1 \u2026\n".encode() + b"\xff"),
        ("iso8859-1", b"gr\xf6\xdfe 2 \xd7 1 ~\n\xff"),
        ("ascii", b"gr??e 2 x 1 ~\n\xff"),
    ],
)
def test_output_is_in_the_encoding_of_the_locale(
    encoding: str, data: bytes, capfdbinary: pytest.CaptureFixture[bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Arguments come out as the bytes that they were, drawings in characters that there are."""
    monkeypatch.setattr(sys, "getfilesystemencoding", lambda: encoding)
    write_output("gr\u00f6\u00dfe 2 \u00d7 1 \u2026\n\udcff")
    assert capfdbinary.readouterr().out == data
