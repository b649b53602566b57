"""What people look at, drawn with rich: a module for each thing drawn. No logic, only drawing."""

from __future__ import annotations

import sys
from io import StringIO
from typing import TYPE_CHECKING

from rich.console import Console

if TYPE_CHECKING:
    from rich.console import RenderableType


def make_text(drawing: RenderableType) -> str:
    """The drawing as standard output can take it: with colours for a terminal, without elsewhere
    and under NO_COLOR."""
    console = Console(file=sys.stdout or StringIO(), highlight=False)
    with console.capture() as capture:
        console.print(drawing)
    return capture.get()
