"""A machine, drawn."""

from __future__ import annotations

from ompbind.render.blocks import attach_memory, make_blocks
from ompbind.render.escape import escape
from ompbind.render.grid import MAP_WIDTH, draw_lines
from ompbind.render.inventory import (
    describe_caches,
    describe_machine,
    list_exceptions,
    make_device_rows,
    make_distance_rows,
    name_kind,
)
from ompbind.render.lists import Pieces, list_pieces
from ompbind.render.map import count_lines, fold_blocks, lay_out
from ompbind.render.table import Table
from ompbind.render.text import Group, Text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ompbind.machine.measurement import Measurement
    from ompbind.machine.topology import Machine, Topology
    from ompbind.render.blocks import Block
    from ompbind.render.map import Fold
    from ompbind.render.text import Drawing, Line

MAX_NODES = 8  # without cpus, and in the table of distances
# Of the map: a longer one is folded, and one that is longer still has signs for cpus.
MAX_LINES, MAX_FOLDED = 24, 40
# Of cpus that are not simply usable: what follows their number, the sign, and the style.
SIGNS = {"not allowed": ("x", "x", "dim"), "isolated": ("i", "i", "magenta")}
KINDS = {"performance": ("", "P", "cyan"), "efficiency": ("", "E", "green"),
         "": ("", "o", "cyan")}  # fmt: skip


def draw_machine(machine: Machine) -> Drawing:
    machine = escape(machine)
    topology = machine.topology
    parts: list[Drawing] = [machine_headline(machine)]
    known = [("processor:", machine.model), ("caches:", describe_caches(machine))]
    parts += [Text.assemble((f"{name} ", "bold"), text) for name, text in known if text]
    parts += [Text(), TopologyMap(machine), Text()]
    parts += [Text.assemble((f"{name} ", "bold"), text) for name, text in list_exceptions(machine)]
    if 1 < len(topology.nodes) <= MAX_NODES and topology.distances:
        parts += [Text("\ndistances between nodes", style="bold"), distance_table(topology)]
    if topology.devices:
        parts += [Text("\ndevices", style="bold"), device_table(topology)]
    if machine.measured is not None:
        parts += draw_measured(machine.measured)
    return Group(*parts)


def draw_measured(measurement: Measurement) -> list[Drawing]:
    """Draw what was measured, and what could not be told."""
    from ompbind.render.measurement import CORES, READING, describe_cores, make_access_rows

    parts: list[Drawing] = [Text(f"\n{CORES}", style="bold")]
    parts += [list_pieces(line) for line in describe_cores(measurement)]
    if measurement.accesses:
        rows = make_access_rows(measurement)
        table = Table()
        for name in rows.columns:
            table.add_column(name, right=True)
        for row in rows.rows:
            table.add_row(*row.cells)
        parts += [Text(f"\n{READING}", style="bold"), table]
        parts += [Text(rows.note, style="dim")] * bool(rows.note)
    return parts + [list_pieces(f"note: {note}", "dim") for note in measurement.notes]


def machine_headline(machine: Machine) -> Text:
    name = f"{machine.name}: " if machine.name else ""
    return Text.assemble((name, "bold"), describe_machine(machine))


class TopologyMap:
    """Every online cpu in the machine's shape, blocks side by side as far as MAP_WIDTH has room; by
    its number where there is room for that, else by a sign."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.names = [name_kind(n, len(kinds)) for kinds in [machine.topology.groups("kind")]
                      for n in range(len(kinds))]  # fmt: skip
        self.kinds = {c.cpu: c.kind for c in machine.topology.cpus if c.kind is not None}

    def owner(self, cpu: int) -> tuple[str, int]:
        """Return what a cpu is, and 0."""
        if cpu not in self.machine.allowed.cpus:
            return "not allowed", 0
        if cpu in self.machine.topology.isolated:
            return "isolated", 0
        kind = self.kinds.get(cpu)
        return "" if kind is None else self.names[kind], 0

    def look(self, cpu: int) -> tuple[str, str, str]:
        name = self.owner(cpu)[0]
        return SIGNS.get(name) or KINDS[name]

    def draw(self, width: int) -> list[Line]:
        room = min(width, MAP_WIDTH)
        online = self.machine.topology.online
        seen = dict.fromkeys(self.owner(cpu)[0] for cpu in online)
        special = [name for name in SIGNS if name in seen]
        digits = len(str(max(online, default=0)))
        blocks, rest = self.make_blocks(1 + digits + bool(special))
        lines = self.lay_out(blocks, room)
        numbered = count_lines(lines) <= MAX_FOLDED

        def number(cpu: int) -> tuple[str, str]:
            suffix, _, style = self.look(cpu)
            return f"{cpu}{suffix or ' ' * bool(special)}", style

        def sign(cpu: int) -> tuple[str, str]:
            return self.look(cpu)[1:]

        if not numbered:
            lines = self.lay_out([block.replace(cell=1) for block in blocks], room)
        parts = [Text(text) for text in rest[:MAX_NODES]]
        if rest[MAX_NODES:]:
            parts.append(Text(f"and {len(rest) - MAX_NODES} more like these", style="dim"))
        words = [f"{SIGNS[name][0]} {name}" for name in special]
        if not numbered:
            words = [f"{KINDS[name][1]} {name or 'usable'} cpu" for name in KINDS if name in seen]
            words += [f"{SIGNS[name][1]} {name}" for name in special]
        if words:
            parts.append(Text("  ".join(words), style="dim"))
        return draw_lines(lines, width, number if numbered else sign) + Group(*parts).draw(width)

    def make_blocks(self, cell: int) -> tuple[list[Block], list[str]]:
        """Return the blocks with cells of this width, and what belongs to none."""
        blocks = make_blocks(self.machine, cell=cell, details=True)
        return attach_memory(blocks, self.machine.topology)

    def lay_out(self, blocks: Sequence[Block], width: int) -> list[list[Block] | Fold]:
        lines = lay_out(blocks, width)
        if count_lines(lines) > MAX_LINES:
            lines = lay_out(fold_blocks(blocks, self.owner, least=2), width)
        return lines


def distance_table(topology: Topology) -> Table:
    table = Table(heading="dim", before=1, after=1)
    rows = make_distance_rows(topology)
    for name in rows.columns:
        table.add_column(name, style="" if name else "dim", right=True)
    for row in rows.rows:
        table.add_row(*row.cells)
    return table


def device_table(topology: Topology) -> Table:
    table = Table(heading=None, edge=False)
    for row in make_device_rows(topology).rows:
        kind, place, cpus, names, remark = row.cells
        near = list_pieces(f"cpus {cpus}")
        addresses = Pieces([f"{name}  " for name in names.split("  ")], "dim")
        table.add_row(kind, place, near, addresses, Text(remark))
    return table
