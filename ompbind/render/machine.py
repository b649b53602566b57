"""A machine, drawn."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from ompbind.messages import counted, plural
from ompbind.render.escape import escape
from ompbind.render.inventory import (
    describe_caches,
    describe_machine,
    list_exceptions,
    make_device_rows,
    make_distance_rows,
    memory_size,
)
from ompbind.render.lists import list_pieces, short_list
from ompbind.render.outline import list_loose, make_outline, make_tree

if TYPE_CHECKING:
    from rich.console import RenderableType

    from ompbind.cpuset import CpuSet
    from ompbind.machine.topology import Machine, Node, Topology
    from ompbind.render.outline import Part

MAX_NODES = 8  # without cpus, and in the table of distances


def draw_machine(machine: Machine) -> RenderableType:
    machine = escape(machine)
    topology = machine.topology
    tree = Tree(machine_headline(machine), guide_style="dim")
    for part in make_outline(machine):
        add_part(tree, part, machine)
    without_cpus = list_loose(topology, make_tree(machine))
    for node in without_cpus[:MAX_NODES]:
        tree.add(memory_label(node))
    if without_cpus[MAX_NODES:]:
        more = f"and {counted(len(without_cpus) - MAX_NODES, 'more node')} without cpus"
        tree.add(Text(more, style="dim"))
    parts: list[RenderableType] = [tree, Text()]
    known = [("processor:", machine.model), ("caches:", describe_caches(machine))]
    parts += [Text.assemble((f"{name} ", "bold"), text) for name, text in known if text]
    parts += [Text.assemble((f"{name} ", "bold"), text) for name, text in list_exceptions(machine)]
    if 1 < len(topology.nodes) <= MAX_NODES and topology.distances:
        parts += [Text("\ndistances between nodes", style="bold"), distance_table(topology)]
    if topology.devices:
        parts += [Text("\ndevices", style="bold"), device_table(topology)]
    return Group(*parts)


def machine_headline(machine: Machine) -> Text:
    name = f"{machine.name}: " if machine.name else ""
    return Text.assemble((name, "bold"), describe_machine(machine))


def memory_label(node: Node) -> Text:
    """Draw a node without cpus."""
    size = "" if node.memory_bytes is None else f"  {memory_size(node.memory_bytes)}"
    return Text.assemble((f"node {node.node}", "bold"), size, ("  no cpus", "dim"))


def add_part(tree: Tree, part: Part, machine: Machine) -> None:
    """Add a part with its parts, and a line for all following parts that look the same."""
    label = Text.assemble(("  ".join(part.sized_names), "bold"))
    if part.memory_bytes is not None:
        label.append(f"  {memory_size(part.memory_bytes)}")
    label.append(f"  cpus {short_list(part.cpus)}", style="cyan")
    branch = tree.add(label)
    for inner in part.parts:
        add_part(branch, inner, machine)
    if part.cores:
        branch.add(core_line(part, machine))
    for node in part.memory_nodes:
        branch.add(memory_label(node))
    if part.similar_parts:
        count = len(part.similar_parts)
        tree.add(list_pieces(f"{count} more like {part.names[0]}: {list_similar(part)}", "dim"))


def list_similar(part: Part, most: int = 8) -> str:
    """Return the cpus of the parts that are not drawn: together where that is a range for each
    hardware thread, which they divide in order; else of each."""
    parts, whole = part.similar_parts, part.similar_cpus
    if len(parts) == 1 or str(whole).count(",") < count_threads(part):
        return f"cpus {short_list(whole)}"
    texts = [f"{name} cpus {short_list(cpus)}" for name, cpus in parts]
    if len(texts) > most:
        texts = [*texts[: most - 2], "…", texts[-1]]
    return "; ".join(texts)


def count_threads(part: Part) -> int:
    """Return the number of hardware threads of a part's first core."""
    return count_threads(part.parts[0]) if part.parts else max(map(len, part.cores), default=1)


def core_line(part: Part, machine: Machine, most: int = 8) -> Text:
    """Draw `4 cores × 2 threads: 0,16 1,17 …`; cpus that are not allowed are struck through."""
    threads = sorted({len(core) for core in part.cores})
    cores = counted(len(part.cores), "core")
    each = "-".join(map(str, [threads[0], threads[-1]][: len(threads)]))
    text = Text(f"{cores} × {each} {plural('thread', threads[-1])}:")
    kinds = {c.kind for c in machine.topology.cpus if c.cpu in part.cpus and c.kind is not None}
    if len(kinds) == 1:
        text.append(f" (kind {min(kinds)})", style="dim")
    shown = part.cores if len(part.cores) <= most else part.cores[: most - 2]
    for core in shown:
        add_core(text, core, machine)
    if shown != part.cores:
        text.append(" …", style="dim")
        add_core(text, part.cores[-1], machine)
    return text


def add_core(text: Text, core: CpuSet, machine: Machine) -> None:
    text.append("  ")
    for n, cpu in enumerate(core):
        text.append("," if n else "")
        allowed = cpu in machine.allowed.cpus
        text.append(str(cpu), style="cyan" if allowed else "dim strike")


def distance_table(topology: Topology) -> Table:
    table = Table(box=None, padding=(0, 1), header_style="dim")
    rows = make_distance_rows(topology)
    for name in rows.columns:
        table.add_column(name, style="" if name else "dim", justify="right")
    for row in rows.rows:
        table.add_row(*row.cells)
    return table


def device_table(topology: Topology) -> Table:
    table = Table.grid(padding=(0, 2, 0, 0))
    for row in make_device_rows(topology).rows:
        kind, place, cpus, names, remark = row.cells
        near = list_pieces(f"cpus {cpus}")
        table.add_row(kind, place, near, Text(names, style="dim"), Text(remark))
    return table
