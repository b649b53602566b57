"""A plan, drawn."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from ompbind.colours import colour_of
from ompbind.cpuset import CpuSet, label_numbers, union
from ompbind.messages import counted, label
from ompbind.plans import describe_numbers
from ompbind.render.escape import escape, quote_word
from ompbind.render.lists import list_pieces, short_list
from ompbind.render.map import (
    BETWEEN,
    Block,
    Fold,
    block_width,
    drop_threads,
    fold_blocks,
    label_width,
    lay_out,
    make_blocks,
    make_plain_blocks,
    row_label,
)
from ompbind.render.server import describe_server, server_table
from ompbind.saved import foreign_variables

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rich.console import Console, ConsoleOptions, RenderableType, RenderResult

    from ompbind.machine.topology import Machine
    from ompbind.plans import Inherited, Plan, RankPlan, Task

RANK_MARKS = "0123456789abcdefghijklmnopqrstuvwxyz"
ROLE_MARKS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
MARKS = {  # of cpus that are no single rank's, with their style
    "shared": ("+", "bold"),
    "reserved": ("=", "bold"),
    "other parts": ("/", "dim"),
    "excluded": ("-", "dim"),
    "not used": ("·", "dim"),
    "not allowed": ("x", "dim"),
}
MAX_LINES = 12  # of the map; a longer one is drawn without threads that nothing uses
MAP_WIDTH = 100  # also where a line has no limit


def draw_plan(
    plan: Plan,
    explanation: Sequence[str] = (),
    rank: int | None = None,
    machine: Machine | None = None,
) -> RenderableType:
    """Draw the plan; `rank`: only this rank's row, and what is executed for it; `machine`: the one
    that the plan is for, where it can be read."""
    name = f"rank {plan.ranks[rank or 0].number}"
    drawn = draw_ranks(plan, explanation, rank, machine)
    return Group(drawn, *draw_executed(plan, rank or 0, name))


def draw_ranks(
    plan: Plan,
    explanation: Sequence[str] = (),
    rank: int | None = None,
    machine: Machine | None = None,
) -> RenderableType:
    """Draw what the ranks get and why, without what is executed."""
    plan = escape(plan)
    table = server_table(plan.ranks[0], plan.server) if plan.server else rank_table(plan, rank)
    parts: list[RenderableType] = [headline(plan)]
    parts += [Text(line, overflow="fold") for line in describe_engine(plan.task)]
    parts += [Text()] * bool(parts[1:])
    parts += [table, Text()]
    if openmp := plan.omp_text or plan.places_why:
        parts += [Text(openmp), Text()]
    parts += [MachineMap(plan, machine), Text()]
    parts += [list_pieces(line) for line in list_unassigned(plan, machine)]
    if plan.inherited:
        title = Text("\ninherited environment", style="bold")
        parts += [title, inherited_table(plan.inherited)]
    if plan.narrowed:
        title = Text("\ninherited restrictions", style="bold")
        parts += [title, inherited_table(plan.narrowed)]
    if explanation:
        parts.append(Text("\nexplanation", style="bold"))
        parts += [Text(sentence) for sentence in escape(explanation)]
    if plan.cautions:
        parts.append(Text())
    for caution in plan.cautions:
        parts.append(Text.assemble(("warning: ", "bold yellow"), caution.text))
        if caution.hint:
            parts.append(Text.assemble(("hint: ", "bold"), caution.hint))
    return Group(*parts)


def draw_executed(plan: Plan, rank: int, name: str) -> list[RenderableType]:
    """Draw what is executed for a rank, called `name`; nothing where there is no command."""
    if not plan.command and not any(r.command for r in plan.ranks):
        return []
    unbound = "; ompbind binds it: pasted, this line does not" * (plan.binder == "native")
    title = Text.assemble((f"\nexecuted for {name}", "bold"), (unbound, "dim"))
    oddities = [Text(line) for line in escape(list_oddities(plan, rank))]
    return [title, command_line(plan, rank), *oddities]


def headline(plan: Plan) -> Text:
    host, count = plan.host, len(plan.ranks)
    name = f" on {host.name}" if host.name else ""
    subject = describe_server(plan.server) if plan.server else counted(count, "rank")
    text = Text.assemble((f"{subject}{name}", "bold"))
    text.append(f": {len(host.allowed)} of {len(host.cpus)} cpus allowed")
    text.append(f", {counted(len(host.nodes), 'NUMA node')}")
    if host.quota is not None:
        text.append(f", quota {host.quota:g} cpus")
    how = {"numactl": "bound by numactl", "native": "bound natively", "none": "not bound"}
    text.append(f"; {how[plan.binder]}\n")
    return text


def rank_table(plan: Plan, rank: int | None = None) -> RenderableType:
    """Draw a row for each rank, or one for many that are alike; `rank`: only its own."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold dim")
    table.add_column("rank", justify="right", no_wrap=True)
    with_gpus = any(r.gpus for r in plan.ranks)
    names = ("cpus", "places", "threads", "node", "memory", *(["gpu"] if with_gpus else []))
    for name in (*names, "why"):
        table.add_column(name, justify="right" if name == "threads" else "left")
    chosen = plan.ranks if rank is None else (plan.ranks[rank],)
    folded = False
    for ranks in fold_ranks(chosen):
        r = ranks[0]
        threads = dict(r.env).get("OMP_NUM_THREADS", "-")
        if len(ranks) == 1:
            gpus = [Text(" ".join(map(short_name, r.gpus)) or "-")] if with_gpus else []
            table.add_row(
                Text(str(r.number), style=colour_of(r.number)),
                list_pieces(short_list(r.cpus)),
                list_pieces(places_text(r) or "-"),
                threads,
                list_pieces(short_list(r.nodes) or "-"),
                list_pieces(f"{r.mem} {short_list(r.mems)}".strip()),
                *gpus,
                Text(r.why, style="dim"),
            )
            continue
        folded, last = True, ranks[-1]
        places = "one each" if is_one_place(r) else f"{len(r.places)} each" if r.places else "-"
        table.add_row(
            f"{r.number}-{last.number}",
            f"{len(r.cpus)} each",
            places,
            threads,
            describe_nodes([x.nodes for x in ranks]),
            f"{r.mem} {describe_nodes([x.mems for x in ranks])}" if r.mems else r.mem,
            *(["-"] if with_gpus else []),
            Text(r.why if r.why == last.why else f"{r.why} … {last.why}", style="dim"),
        )
    if folded:
        return Group(table, Text("ranks alike are one line; --rank R shows rank R", style="dim"))
    return table


def fold_ranks(ranks: Sequence[RankPlan], most: int = 16) -> list[tuple[RankPlan, ...]]:
    """Return the ranks, where there are many those of one kind that follow each other together."""
    if len(ranks) <= most:
        return [(r,) for r in ranks]
    runs: list[tuple[RankPlan, ...]] = []
    for r in ranks:
        if runs and kind_of(runs[-1][0]) == kind_of(r):
            runs[-1] += (r,)
        else:
            runs.append((r,))
    return [part for run in runs for part in ([run] if len(run) > 3 else [(r,) for r in run])]


def kind_of(rank: RankPlan) -> tuple[object, ...]:
    """Return what a row tells of a rank but for the numbers of cpus and nodes."""
    threads = dict(rank.env).get("OMP_NUM_THREADS", "")
    places = [len(place) for place in rank.places]
    nodes = len(rank.nodes), len(rank.mems)
    return (len(rank.cpus), places, threads, rank.mem, nodes, bool(rank.gpus) and rank.rank)


def describe_nodes(sets: Sequence[CpuSet]) -> str:
    """Return the nodes of ranks that are alike: `0` of all, `r` rank's own number, else how many
    each has."""
    if all(nodes == sets[0] for nodes in sets):
        return short_list(sets[0]) or "-"
    return f"{len(sets[0])} each" if len(sets[0]) > 1 else f"of {short_list(union(sets))}"


def is_one_place(rank: RankPlan) -> bool:
    return rank.places == (rank.cpus,)


def short_name(gpu: str) -> str:
    """Return a number as it is, and of a UUID the beginning, which identifies it as well."""
    return gpu if len(gpu) <= 12 else f"{gpu[:12]}…"


def places_text(rank: RankPlan, most: int = 4) -> str:
    """Return places as sets, `{0} {1} … {7} (8)`; `one`: a single place of all the rank's cpus."""
    if is_one_place(rank):
        return "one"
    texts = [f"{{{short_list(p)}}}" for p in rank.places]
    if len(texts) <= most:
        return " ".join(texts)
    return f"{' '.join(texts[: most - 2])} … {texts[-1]} ({len(texts)})"


class MachineMap:
    """Every online cpu as one character that says whose it is, in the machine's shape. Implements
    rich's console protocol: its width is the console's, at most MAP_WIDTH."""

    def __init__(self, plan: Plan, machine: Machine | None) -> None:
        self.plan = plan
        self.machine = machine
        numbered = [(r.number, r.cpus) for r in plan.ranks]
        self.reserved = plan.reserved
        self.names = {"rank": "rank"}  # of kinds, where they are called otherwise in the legend
        if plan.server:
            numbered = [(w.worker, w.cpus) for w in plan.server.workers]
            self.reserved = plan.server.rest
            self.names = {"rank": "worker", "reserved": "engine and front end"}
        if plan.task and not plan.part:
            self.names["other parts"] = "other ranks"
        self.owners: dict[int, set[int]] = {}
        for number, cpus in numbered:
            for cpu in cpus:
                self.owners.setdefault(cpu, set()).add(number)
        self.role_marks = make_role_marks(plan)
        self.role_of = {cpu: role.name for role in plan.roles for cpu in role.cpus}

    def owner(self, cpu: int) -> tuple[str, int]:
        """Return whose a cpu is: a kind, a word, and the rank's number where it is a rank's."""
        ranks = self.owners.get(cpu, ())
        if len(ranks) == 1:
            return "rank", min(ranks)
        if ranks:
            return "shared", 0
        if cpu in self.role_of:
            return self.role_of[cpu], -1
        for kind, cpus in (
            ("reserved", self.reserved),
            ("other parts", self.plan.others),
            ("excluded", self.plan.excluded),
        ):
            if cpu in cpus:
                return kind, 0
        return ("not used" if cpu in self.plan.host.allowed else "not allowed"), 0

    def mark(self, cpu: int) -> tuple[str, str]:
        """Return a cpu's character and its style."""
        kind, rank = self.owner(cpu)
        if kind == "rank":
            return RANK_MARKS[rank % len(RANK_MARKS)], colour_of(rank)
        if rank < 0:
            return self.role_marks[kind], "bold"
        return MARKS[kind]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width = min(options.max_width, MAP_WIDTH)
        if self.machine is not None and self.machine.topology.online == self.plan.host.cpus:
            blocks = make_blocks(self.machine, width)
        else:
            blocks = make_plain_blocks(self.plan.host.cpus, width)
        lines = lay_out(fold_blocks(blocks, self.owner), width)
        drawn = sum(3 + len(line[0].rows) for line in lines if isinstance(line, list))
        fewer = drop_threads(blocks, self.owner) if drawn > MAX_LINES else blocks
        if fewer != blocks:
            lines = lay_out(fold_blocks(fewer, self.owner), width)
        outer = ""
        for n, line in enumerate(lines):
            if isinstance(line, Fold):
                yield Padding(list_pieces(line.text, "dim"), (0, 0, 0, 2))
                continue
            if n and line[0].outer not in (outer, ""):
                yield Text()
            yield from self.draw_line(line, outer)
            outer = line[-1].outer or outer
        yield self.legend()
        if fewer != blocks:
            yield Text("hardware threads that are unused on every core are not drawn", style="dim")

    def draw_line(self, blocks: Sequence[Block], outer: str) -> Iterator[Text]:
        """Draw blocks side by side, the first of them below one in `outer`."""
        many = max(map(max, self.owners.values()), default=0) >= len(RANK_MARKS)
        columns: list[list[Text]] = []
        for block in blocks:
            outer_title = block.outer if block.outer != outer else ""
            outer = block.outer
            titles = [Text(outer_title, style="bold"), Text(block.inner, style="bold")]
            labels = label_width(block)
            rows = [self.draw_row(row, block.gaps, labels) for row in block.rows]
            notes = []
            if many and (text := self.rank_numbers(block)):
                notes.append(text)
            if block.devices:
                notes.append(" ".join(block.devices))
            below = [Text(" " * (labels + 1) + note, style="dim") for note in notes]
            columns.append([*titles, *rows, *below])
        for n in range(max(map(len, columns))):
            line = Text(no_wrap=True)
            for block, column in zip(blocks, columns, strict=True):
                cell = column[n].copy() if n < len(column) else Text()
                cell.pad_right(max(0, block_width(block) + BETWEEN - cell.cell_len))
                line.append_text(cell)
            line.rstrip()
            if line.plain or n > 1:
                yield line

    def draw_row(self, row: Sequence[int | None], gaps: frozenset[int], labels: int) -> Text:
        text = Text(row_label(row).rjust(labels) + " ", style="dim")
        for n, cpu in enumerate(row):
            text.append(" " if n in gaps else "")
            mark, style = self.mark(cpu) if cpu is not None else (" ", "")
            text.append(mark, style="not dim " + style)
        return text

    def rank_numbers(self, block: Block) -> str:
        """Return the ranks of a block, where there are more ranks than signs."""
        ranks = {rank for cpu in block.cpus for rank in self.owners.get(cpu, ())}
        return label_numbers(self.names["rank"], ranks) if ranks else ""

    def legend(self) -> Text:
        kinds = {self.owner(cpu) for cpu in self.plan.host.cpus}
        names = []
        if any(kind == "rank" for kind, _ in kinds):
            names.append(f"digit: {self.names['rank']}")
        names += [f"{mark} {name}" for name, mark in self.role_marks.items()]
        for kind, (mark, _) in MARKS.items():
            if (kind, 0) in kinds:
                names.append(f"{mark} {self.names.get(kind, kind)}")
        return Text("  ".join(names), style="dim")


def make_role_marks(plan: Plan) -> dict[str, str]:
    """Return a letter for each role, its first one that is still free."""
    marks: dict[str, str] = {}
    for name in dict.fromkeys(role.name for role in plan.roles):
        candidates = (*name.upper(), *ROLE_MARKS)
        free = [m for m in candidates if m in ROLE_MARKS and m not in marks.values()]
        marks[name] = free[0] if free else "*"
    return marks


def describe_engine(task: Task) -> list[str]:
    """Return lines on the engine that started this rank, and on those that were passed over."""
    lines = []
    if task:
        lines.append(f"{task.label}: {describe_numbers(task)}")
        lines.append(f"  known by {task.by}")
        lines += [f"  {text}" for text in (task.why, task.note) if text]
    return lines + [f"{name} is passed over: {why}" for name, why in task.passed_over]


def list_unassigned(plan: Plan, machine: Machine | None = None) -> list[str]:
    """Return a line for each kind of cpus that no rank has."""
    idle, lines = plan.idle, []
    for role in plan.roles:
        cpus = short_list(role.cpus)
        lines.append(f"role {role.name}: cpus {cpus}, of {label('rank', role.ranks)}")
    if plan.reserved and not plan.server:
        lines.append(f"reserved: cpus {short_list(plan.reserved)}")
    if plan.part:
        others = short_list(plan.others)
        lines.append(f"part {plan.part} of the machine; the other parts: cpus {others}")
    if plan.unused:
        lines.append(f"left over: cpus {short_list(plan.unused)} (cores without a rank)")
    if plan.excluded:
        lines.append(f"excluded: cpus {short_list(plan.excluded)}")
    if machine is not None:
        threads = union(c for c in machine.topology.groups("core") if c & plan.taken) & idle
        if threads:
            count = counted(len(threads), "further hardware thread")
            lines.append(f"idle: {count} of cores in use")
        idle -= threads
    if idle:
        lines.append(f"not used: cpus {short_list(idle)}")
    if machine is not None and machine.topology.offline:
        lines.append(f"offline: cpus {short_list(machine.topology.offline)}")
    return lines or ["every allowed cpu is in use"]


def inherited_table(inherited: Sequence[Inherited]) -> RenderableType:
    table = Table.grid(padding=(0, 2, 0, 0))
    styles = {"removed": "red", "overridden": "yellow", "respected": "green", "widened": "yellow"}
    for i in inherited:
        style = styles.get(i.action, "")
        table.add_row(f"{i.name}={i.value}", Text(i.action, style=style), Text(i.why, style="dim"))
    return table


def list_oddities(plan: Plan, rank: int, most: int = 8) -> list[str]:
    """Return a line for each other rank that executes another program than this one, or has other
    variables that no planner writes: a saved plan is a program."""
    shown = plan.ranks[rank]
    lines = []
    for r in plan.ranks:
        if r.command[:1] != shown.command[:1]:
            program = r.command[0] if r.command else "nothing"
            lines.append(f"rank {r.rank} executes another program: {program}")
        env, other = foreign_variables(r), foreign_variables(shown)
        for name in sorted(env.keys() | other.keys()):
            if env.get(name) != other.get(name):
                value = f"{name}={env[name]}" if name in env else f"no {name}"
                lines.append(f"rank {r.rank} has {value}")
    more = (
        [f"and {len(lines) - most} more differences: --rank R shows them"] if lines[most:] else []
    )
    return lines[:most] + more


def command_line(plan: Plan, rank: int) -> Text:
    """Return what a rank executes as a line for a shell, never broken: `env` sets and removes its
    variables."""
    chosen = plan.ranks[rank]
    unset = [word for name in chosen.unset for word in ("-u", name)]
    words = ["env", *unset, *(f"{k}={quote_word(v)}" for k, v in chosen.env)]
    text = " ".join([*words, *map(quote_word, chosen.argv)])
    return Text(text, no_wrap=True, overflow="ignore")
