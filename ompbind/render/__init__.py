"""Drawings for people, with rich: a module for each thing drawn, without any logic."""

from __future__ import annotations

import os
import sys
from io import StringIO
from typing import TYPE_CHECKING

from rich.console import Console
from rich.live import Live

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rich.console import RenderableType


UNLIMITED = 100_000  # characters in a line
NARROWEST = 72  # for a table; a terminal that is narrower breaks its lines itself


def draw_live(drawings: Iterable[RenderableType]) -> None:
    """Show one drawing after another, on a terminal each in place of the one before."""
    console = Console(file=sys.stdout or StringIO(), highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        for drawing in drawings:
            console.print(drawing)
        return
    with Live(console=console, auto_refresh=False, vertical_overflow="crop") as live:
        for drawing in drawings:
            live.update(drawing, refresh=True)


def make_text(drawing: RenderableType) -> str:
    """Return the drawing for standard output: with colours on a terminal, without elsewhere and
    under NO_COLOR. Lines have no limit where there is no terminal, unless COLUMNS gives one."""
    width = None
    if not (sys.stdout and sys.stdout.isatty()) and "COLUMNS" not in os.environ:
        width = UNLIMITED
    file = sys.stdout or StringIO()
    console = Console(file=file, width=width, highlight=False, markup=False, emoji=False)
    console.width = max(console.width, NARROWEST)
    with console.capture() as capture:
        console.print(drawing, crop=False)
    text = capture.get()
    if console.is_terminal:
        return text
    return "".join(f"{line.rstrip(' ')}\n" for line in text.splitlines())
