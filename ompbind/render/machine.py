"""A machine, drawn."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from ompbind.gpus.visible import why_not
from ompbind.messages import counted, format_size, plural
from ompbind.render.escape import escape
from ompbind.render.lists import list_pieces, short_list
from ompbind.render.map import number_gpus
from ompbind.render.outline import make_outline

if TYPE_CHECKING:
    from rich.console import RenderableType

    from ompbind.cpuset import CpuSet
    from ompbind.machine.topology import Device, Machine, Topology
    from ompbind.render.outline import Part

MAX_NODES = 8  # without cpus, and in the table of distances


def draw_machine(machine: Machine) -> RenderableType:
    machine = escape(machine)
    topology = machine.topology
    tree = Tree(machine_headline(machine), guide_style="dim")
    for part in make_outline(machine):
        add_part(tree, part, machine)
    without_cpus = [n for n in topology.nodes if not n.cpus]
    for node in without_cpus[:MAX_NODES]:
        size = "" if node.memory_bytes is None else f"  {memory_size(node.memory_bytes)}"
        tree.add(Text.assemble((f"node {node.node}", "bold"), size, ("  no cpus", "dim")))
    if without_cpus[MAX_NODES:]:
        more = f"and {counted(len(without_cpus) - MAX_NODES, 'more node')} without cpus"
        tree.add(Text(more, style="dim"))
    parts: list[RenderableType] = [tree, Text()]
    parts += [Text.assemble((f"{name} ", "bold"), text) for name, text in list_exceptions(machine)]
    if 1 < len(topology.nodes) <= MAX_NODES and topology.distances:
        parts += [Text("\ndistances between nodes", style="bold"), distance_table(topology)]
    if topology.devices:
        parts += [Text("\ndevices", style="bold"), device_table(topology)]
    return Group(*parts)


def machine_headline(machine: Machine) -> Text:
    topology = machine.topology
    memory = [n.memory_bytes for n in topology.nodes if n.memory_bytes is not None]
    counts = [
        (len(topology.groups("package")), "package"),
        (len(topology.nodes) if topology.numa else 0, "NUMA node"),
        (len(topology.groups("core")), "core"),
        (len(topology.cpus), "cpu"),
    ]
    words = [counted(count, noun) for count, noun in counts if count]
    words += [format_size(sum(memory))] if memory else []
    name = f"{machine.name}: " if machine.name else ""
    return Text.assemble((name, "bold"), ", ".join(words))


def memory_size(count: int) -> str:
    return format_size(count) if count else "no memory"


def add_part(tree: Tree, part: Part, machine: Machine) -> None:
    """Add a part with its parts, and a line for all following parts that look the same."""
    label = Text.assemble(("  ".join(part.names), "bold"))
    if part.memory_bytes is not None:
        label.append(f"  {memory_size(part.memory_bytes)}")
    label.append(f"  cpus {short_list(part.cpus)}", style="cyan")
    branch = tree.add(label)
    for inner in part.parts:
        add_part(branch, inner, machine)
    if part.cores:
        branch.add(core_line(part, machine))
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


def list_exceptions(machine: Machine) -> list[tuple[str, str]]:
    """Return what is unusual, by name."""
    topology, allowed = machine.topology, machine.allowed
    lines = [
        ("not allowed: cpus", topology.online - allowed.cpus),
        ("not allowed: memory of nodes", topology.node_numbers - allowed.nodes),
        ("offline: cpus", topology.offline),
        ("isolated: cpus", topology.isolated),
        ("without timer ticks (nohz_full): cpus", topology.nohz_full),
    ]
    exceptions = [(name, short_list(cpus)) for name, cpus in lines if cpus]
    kinds = topology.groups("kind")
    for n, cpus in enumerate(kinds):
        rank = "least" if n == 0 else "most" if n == len(kinds) - 1 else "more"
        exceptions.append((f"kind {n} ({rank} capable): cpus", short_list(cpus)))
    if allowed.quota is not None:
        exceptions.append(("cgroup quota:", f"{allowed.quota:g} cpus' worth of time"))
    if not machine.can_bind:
        exceptions.append(("this system", "cannot bind processes to cpus or memory"))
    elif not topology.nodes:
        exceptions.append(("NUMA nodes:", "hidden in this container"))
    return exceptions or [("allowed:", "everything")]


def distance_table(topology: Topology) -> Table:
    table = Table(box=None, padding=(0, 1), header_style="dim")
    table.add_column("", style="dim", justify="right")
    for node in topology.nodes:
        table.add_column(str(node.node), justify="right")
    for node, row in zip(topology.nodes, topology.distances, strict=True):
        table.add_row(str(node.node), *map(str, row))
    return table


def device_table(topology: Topology, most: int = 4) -> Table:
    """Draw devices of one kind near the same cpus on one line, but those with names separately;
    GPUs by the names that --near reads as well."""
    table = Table.grid(padding=(0, 2, 0, 0))
    rows: dict[tuple[str, int | None, CpuSet, str], list[Device]] = {}
    for device in topology.devices:
        key = (device.kind, device.node, device.cpus, device_remark(device))
        rows.setdefault(key, []).append(device)
    numbers = number_gpus(topology)
    for (kind, node, cpus, remark), devices in rows.items():
        names = [f"{numbers.get(d.pci, '')} {d.pci}".strip() for d in devices[:most]]
        more = f" and {len(devices) - most} more" if len(devices) > most else ""
        place = f"node {node}" if node is not None else "no node"
        named = Text("  ".join(names) + more, style="dim")
        table.add_row(kind, place, list_pieces(f"cpus {short_list(cpus)}"), named, Text(remark))
    return table


def device_remark(device: Device) -> str:
    """Return the names of a device, and what keeps workers from using it."""
    remarks = [" ".join(device.names)] if device.names else []
    if device.kind == "gpu" and (reason := why_not(device)):
        remarks.append(reason)
    elif device.driver == "":
        remarks.append("has no driver")
    return ", ".join(remarks)
