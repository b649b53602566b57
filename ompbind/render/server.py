"""A server and its workers, drawn as rows, and explained in sentences."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from ompbind.colours import colour_of
from ompbind.messages import counted
from ompbind.render.lists import list_pieces, short_list

if TYPE_CHECKING:
    from ompbind.plans import RankPlan, Server


def describe_server(server: Server) -> str:
    """Return `1 vLLM 0.32.0 server with 2 workers`."""
    name = f"{server.name} {server.version}".strip()
    return f"1 {name} server with {counted(len(server.workers), 'worker')}"


def server_table(rank: RankPlan, server: Server) -> Table:
    """Draw which process gets what: the server's own, what it keeps beside its workers, and each
    worker."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold dim")
    with_gpus = any(w.gpus for w in server.workers)
    for name in ("process", "cpus", "node", "memory", *(["gpu"] if with_gpus else []), "why"):
        table.add_column(name, overflow="fold")
    none = [Text("-")] if with_gpus else []
    policy = f"{rank.mem} {rank.mems}".strip()
    table.add_row("server", list_pieces(short_list(rank.cpus)), short_list(rank.nodes) or "-",
                  policy, *none,
                  Text("all that it starts stays here", style="dim"))  # fmt: skip
    for w in server.workers:
        table.add_row(
            Text(f"worker {w.worker}", style=colour_of(w.worker)),
            list_pieces(short_list(w.cpus)),
            short_list(w.nodes) or "-",
            f"{w.mem} {w.mems}".strip(),
            *([Text(" ".join(w.gpus) or "-")] if with_gpus else []),
            Text(w.why, style="dim"),
        )
    if server.rest:
        table.add_row("the rest", list_pieces(short_list(server.rest)), "-", policy, *none,
                      Text("left to its engine and its front end", style="dim"))  # fmt: skip
    return table
