"""What binding running processes has changed, or would change, drawn."""

from __future__ import annotations

from ompbind.colours import colour_of
from ompbind.messages import format_size
from ompbind.render.escape import escape
from ompbind.render.lists import list_pieces, short_list
from ompbind.render.plan import draw_ranks
from ompbind.render.report import draw_report
from ompbind.render.table import Table
from ompbind.render.text import Group, Text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ompbind.machine.topology import Machine
    from ompbind.rebind.result import Change, Result
    from ompbind.render.text import Drawing

RIGHT = ("rank", "pid", "threads", "rebound", "elsewhere", "moved", "left")


def draw_result(result: Result, machine: Machine) -> Drawing:
    """Draw the processes; before anything is done with the plan, else with their verification."""
    result = escape(result)
    if result.report is None:
        title = Text("\nwould be rebound", style="bold")
        return Group(draw_ranks(result.plan, machine=machine), title, change_table(result))
    return Group(change_table(result), Text(), draw_report(result.report))


def change_table(result: Result) -> Table:
    """Return a row for each process."""
    table = Table()
    columns = ["rank", "pid", "name", "threads", "rebound", "from cpus", "to cpus"]
    columns += ["elsewhere", "to nodes"] if any(result.nodes) else []
    columns += ["moved", "left"] if any(result.nodes) and result.report else []
    for name in columns:
        table.add_column(name, right=name in RIGHT)
    for change in result.changes:
        cells = make_cells(change, result)
        rank = Text(str(change.rank), style=colour_of(change.rank))
        table.add_row(rank, *(list_pieces(cells[name]) for name in columns[1:]))
    return table


def make_cells(change: Change, result: Result) -> dict[str, str]:
    """Return a process's cells by column."""
    return {
        "pid": str(change.pid),
        "name": change.name,
        "threads": str(change.threads),
        "rebound": str(change.rebound),
        "from cpus": short_list(change.before),
        "to cpus": short_list(result.plan.ranks[change.rank].cpus),
        "elsewhere": format_size(change.outside) if change.outside else "-",
        "to nodes": str(result.nodes[change.rank]) or "-",
        "moved": format_size(change.moved) if change.moved else "-",
        "left": f"{format_size(change.left)} ({change.reason})" if change.left else "-",
    }
