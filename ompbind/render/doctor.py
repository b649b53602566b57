"""Findings, drawn."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group
from rich.table import Table
from rich.text import Text

from ompbind.doctor.findings import prevents
from ompbind.messages import counted
from ompbind.render.escape import escape

if TYPE_CHECKING:
    from rich.console import RenderableType

    from ompbind.doctor.findings import Finding

STYLES = {"ok": "green", "note": "cyan", "warning": "yellow", "problem": "bold red"}


def draw_findings(findings: list[Finding]) -> RenderableType:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold dim")
    for name in ("status", "about", "result", "remedy"):
        table.add_column(name, overflow="fold")
    for f in escape(findings):
        table.add_row(Text(f.status, style=STYLES[f.status]), f.about, Text(f.text), Text(f.remedy))
    counts = {s: sum(f.status == s for f in findings) for s in STYLES}
    others = ", ".join(counted(n, status) for status, n in counts.items() if n and status != "ok")
    if prevents(findings):
        last = Text.assemble(("something prevents binding", "bold red"), f": {others}")
    else:
        last = Text.assemble(("binding works here", "bold green"), f": {others}" if others else "")
    return Group(table, Text(), last)
