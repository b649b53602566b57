"""Findings, drawn."""

from __future__ import annotations

from ompbind.doctor.findings import prevents
from ompbind.messages import counted
from ompbind.render.escape import escape
from ompbind.render.table import Table
from ompbind.render.text import Group, Text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ompbind.doctor.findings import Finding
    from ompbind.render.text import Drawing

STYLES = {"ok": "green", "note": "cyan", "warning": "yellow", "problem": "bold red"}


def draw_findings(findings: list[Finding]) -> Drawing:
    table = Table()
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
