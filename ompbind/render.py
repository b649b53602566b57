"""What people look at: plans and machines drawn with rich. It takes values and prints; no logic."""

from __future__ import annotations

import sys
from io import StringIO
from typing import TYPE_CHECKING

from rich.console import Console, Group
from rich.padding import Padding
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from ompbind.cpuset import CpuSet, union
from ompbind.outline import make_outline

if TYPE_CHECKING:
    from rich.console import RenderableType

    from ompbind.outline import Part
    from ompbind.plan import Plan, RankPlan
    from ompbind.topology import Machine, Topology

# Colours that stay apart on dark and on light terminals; ranks beyond repeat them.
COLOURS = ("cyan", "magenta", "green", "yellow", "blue", "red")
RANK_MARKS = "0123456789abcdefghijklmnopqrstuvwxyz"


def make_text(drawing: RenderableType) -> str:
    """The drawing as standard output can take it: with colours for a terminal, without elsewhere
    and under NO_COLOR."""
    console = Console(file=sys.stdout or StringIO(), highlight=False)
    with console.capture() as capture:
        console.print(drawing)
    return capture.get()


def draw_plan(plan: Plan) -> RenderableType:
    parts: list[RenderableType] = [headline(plan), rank_table(plan), Text()]
    parts += [machine_map(plan), Text()]
    parts += [Text(line, overflow="fold") for line in left_over(plan)]
    if plan.inherited:
        parts += [Text("\nfound in the environment", style="bold"), inherited_table(plan)]
    if plan.warnings:
        parts.append(Text())
    for warning in plan.warnings:
        parts.append(Text.assemble(("warning: ", "bold yellow"), warning))
    if plan.command or any(r.argv for r in plan.ranks):
        parts += [Text("\nexecuted for rank 0", style="bold"), command_line(plan)]
    return Group(*parts)


def headline(plan: Plan) -> Text:
    host, count = plan.host, len(plan.ranks)
    many = "s" if count != 1 else ""
    where = f" on {host.name}" if host.name else ""
    text = Text.assemble((f"{count} rank{many}{where}", "bold"))
    text.append(f": {len(host.allowed)} of {len(host.cpus)} cpus allowed")
    nodes = len(host.nodes)
    text.append(f", {nodes} NUMA node{'s' if nodes != 1 else ''}")
    if host.quota is not None:
        text.append(f", quota {host.quota:g} cpus")
    text.append(f"; bound by {plan.binder}\n" if plan.binder == "numactl" else "; bound natively\n")
    return text


def rank_table(plan: Plan) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold dim")
    table.add_column("rank", justify="right")
    for name in ("cpus", "OpenMP places", "threads", "node", "memory", "why"):
        table.add_column(name, overflow="fold", justify="right" if name == "threads" else "left")
    for r in plan.ranks:
        env = dict(r.env)
        table.add_row(
            Text(str(r.rank), style=colour(r.rank)),
            str(r.cpus),
            Text(places_text(r)),
            env.get("OMP_NUM_THREADS", ""),
            str(r.nodes) or "-",
            f"{r.mem} {r.mems}".strip(),
            Text(r.why, style="dim"),
        )
    return table


def places_text(rank: RankPlan, most: int = 4) -> str:
    """`{0} {1} … {7} (8)`: the places as the kernel writes sets."""
    texts = [f"{{{p}}}" for p in rank.places]
    if len(texts) <= most:
        return " ".join(texts)
    return f"{' '.join(texts[: most - 2])} … {texts[-1]} ({len(texts)})"


def colour(rank: int) -> str:
    return COLOURS[rank % len(COLOURS)]


def machine_map(plan: Plan) -> RenderableType:
    """Every online cpu as one character: whose it is."""
    owner: dict[int, set[int]] = {}
    for r in plan.ranks:
        for cpu in r.cpus:
            owner.setdefault(cpu, set()).add(r.rank)
    cpus, allowed, width = list(plan.host.cpus), plan.host.allowed, 64
    table = Table.grid(padding=(0, 2, 0, 0))
    for start in range(0, len(cpus), width):
        row = cpus[start : start + width]
        line = Text()
        for n, cpu in enumerate(row):
            line.append(" " if n and n % 8 == 0 else "")
            ranks = owner.get(cpu, set())
            if len(ranks) == 1:
                rank = min(ranks)
                line.append(RANK_MARKS[rank % len(RANK_MARKS)], style=colour(rank))
            elif ranks:
                line.append("+", style="bold")
            elif cpu in plan.reserved:
                line.append("=", style="bold")
            else:
                line.append("·" if cpu in allowed else "x", style="dim")
        first, last = row[0], row[-1]
        table.add_row(Text(f"cpus {first}-{last}" if last > first else f"cpu {first}"), line)
    marks = {
        "+": any(len(ranks) > 1 for ranks in owner.values()),
        "=": bool(plan.reserved),
        "·": bool(allowed - union(r.cpus for r in plan.ranks) - plan.reserved),
        "x": bool(plan.host.cpus - allowed),
    }
    names = {"+": "shared", "=": "reserved", "·": "not used", "x": "not allowed"}
    legend = ["digit: rank", *(f"{m} {names[m]}" for m, there in marks.items() if there)]
    return Group(table, Text("  ".join(legend), style="dim"))


def left_over(plan: Plan) -> list[str]:
    """What no rank got, in words."""
    used = union(r.cpus for r in plan.ranks) | plan.reserved
    idle = plan.host.allowed - used - plan.unused
    lines = []
    if plan.reserved:
        lines.append(f"reserved: cpus {plan.reserved}")
    if plan.unused:
        lines.append(f"left over: cpus {plan.unused}, cores that no rank got")
    if idle:
        lines.append(f"idle: cpus {idle}, further hardware threads of cores in use, or excluded")
    return lines or ["nothing is left over"]


def inherited_table(plan: Plan) -> RenderableType:
    table = Table.grid(padding=(0, 2, 0, 0))
    styles = {"removed": "red", "overridden": "yellow", "respected": "green"}
    for i in plan.inherited:
        style = styles.get(i.action, "")
        table.add_row(f"{i.name}={i.value}", Text(i.action, style=style), Text(i.why, style="dim"))
    return table


def command_line(plan: Plan) -> RenderableType:
    """Rank 0's arguments after its environment, as a shell would take them."""
    import shlex

    rank = plan.ranks[0]
    words = [f"{k}={shlex.quote(v)}" for k, v in rank.env]
    text = " ".join([*words, shlex.join(rank.argv)])
    return Padding(Text(text.encode("utf-8", "replace").decode(), overflow="fold"), (0, 0))


# --- a machine -----------------------------------------------------------------------------------


def draw_machine(machine: Machine) -> RenderableType:
    topology = machine.topology
    tree = Tree(machine_headline(machine), guide_style="dim")
    for part in make_outline(machine):
        add_part(tree, part, machine)
    alone = [n for n in topology.nodes if not n.cpus]
    for node in alone[:8]:
        tree.add(Text.assemble((f"node {node.node}", "bold"), f"  {size(node.memory_bytes)}",
                               ("  no cpus", "dim")))  # fmt: skip
    if alone[8:]:
        tree.add(Text(f"and {len(alone) - 8} more nodes without cpus", style="dim"))
    parts: list[RenderableType] = [tree, Text()]
    parts += [Text.assemble((f"{name} ", "bold"), text) for name, text in marks(machine)]
    if 1 < len(topology.nodes) <= 8 and topology.distances:
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
    words = [f"{n} {what}{'s' * (n > 1)}" for n, what in counts if n]
    words += [size(sum(memory))] if memory else []
    name = f"{machine.name}: " if machine.name else ""
    return Text.assemble((name, "bold"), ", ".join(words))


def size(memory: int | None) -> str:
    """Bytes in GiB, or MiB where that is little; "" where it is not known."""
    if memory is None:
        return ""
    return f"{memory / 2**30:.1f} GiB" if memory >= 2**29 else f"{memory / 2**20:.0f} MiB"


def add_part(tree: Tree, part: Part, machine: Machine) -> None:
    """One part with what is in it, and a line for all that follow and look the same."""
    label = Text.assemble(("  ".join(part.names), "bold"))
    if part.memory_bytes is not None:
        label.append(f"  {size(part.memory_bytes) if part.memory_bytes else 'no memory'}")
    label.append(f"  cpus {part.cpus}", style="cyan")
    branch = tree.add(label)
    for inner in part.parts:
        add_part(branch, inner, machine)
    if part.cores:
        branch.add(core_line(part, machine))
    if part.alike:
        what = f"{part.alike} more like {part.names[0]}: cpus {part.alike_cpus}"
        tree.add(Text(what, style="dim", overflow="fold"))


def core_line(part: Part, machine: Machine, most: int = 8) -> Text:
    """`4 cores × 2 threads: 0,16 1,17 …`; what may not be used is struck through."""
    threads = sorted({len(core) for core in part.cores})
    many = f"{len(part.cores)} core{'s' * (len(part.cores) > 1)}"
    each = "-".join(map(str, [threads[0], threads[-1]][: len(threads)]))
    text = Text(f"{many} × {each} thread{'s' * (threads[-1] > 1)}:")
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


def marks(machine: Machine) -> list[tuple[str, str]]:
    """What is out of the ordinary, by name."""
    topology, allowed = machine.topology, machine.allowed
    lines = [
        ("not allowed: cpus", topology.online - allowed.cpus),
        ("not allowed: memory of nodes", topology.node_numbers - allowed.nodes),
        ("offline: cpus", topology.offline),
        ("isolated: cpus", topology.isolated),
        ("without timer ticks (nohz_full): cpus", topology.nohz_full),
    ]
    told = [(name, str(cpus)) for name, cpus in lines if cpus]
    kinds = topology.groups("kind")
    for n, cpus in enumerate(kinds):
        rank = "least" if n == 0 else "most" if n == len(kinds) - 1 else "more"
        told.append((f"kind {n} ({rank} capable): cpus", str(cpus)))
    if allowed.quota is not None:
        told.append(("cgroup quota:", f"{allowed.quota:g} cpus' worth of time"))
    if not machine.can_bind:
        told.append(("this system", "binds no process to cpus or memory"))
    elif not topology.nodes:
        told.append(("NUMA nodes:", "hidden in this container"))
    return told or [("allowed:", "everything")]


def distance_table(topology: Topology) -> Table:
    table = Table(box=None, padding=(0, 1), header_style="dim")
    table.add_column("", style="dim", justify="right")
    for node in topology.nodes:
        table.add_column(str(node.node), justify="right")
    for node, row in zip(topology.nodes, topology.distances, strict=True):
        table.add_row(str(node.node), *map(str, row))
    return table


def device_table(topology: Topology, most: int = 4) -> Table:
    """Devices of one kind near the same cpus share a line."""
    table = Table.grid(padding=(0, 2, 0, 0))
    rows: dict[tuple[str, int | None, CpuSet], list[str]] = {}
    for device in topology.devices:
        rows.setdefault((device.kind, device.node, device.cpus), []).append(device.pci)
    for (kind, node, cpus), found in rows.items():
        more = f" and {len(found) - most} more" if len(found) > most else ""
        where = f"node {node}" if node is not None else "no node"
        table.add_row(kind, where, f"cpus {cpus}", Text(" ".join(found[:most]) + more, style="dim"))
    return table
