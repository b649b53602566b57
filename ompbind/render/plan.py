"""A plan, drawn."""

from __future__ import annotations

from ompbind.colours import colour_of
from ompbind.cpuset import label_numbers
from ompbind.render.blocks import make_blocks, make_plain_blocks
from ompbind.render.escape import escape
from ompbind.render.grid import MAP_WIDTH, draw_lines
from ompbind.render.lists import list_pieces
from ompbind.render.map import MAX_BLOCKS, count_lines, drop_threads, fold_blocks, lay_out
from ompbind.render.owners import make_owners
from ompbind.render.rows import (
    RIGHT,
    command_text,
    describe_engine,
    describe_groups,
    describe_plan,
    describe_programs,
    list_oddities,
    list_unassigned,
    make_rows,
)
from ompbind.render.sharing import describe_sharing
from ompbind.render.table import Table
from ompbind.render.text import Group, Text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ompbind.cpuset import CpuSet
    from ompbind.machine.topology import Machine
    from ompbind.plans import Caution, Inherited, Plan
    from ompbind.render.blocks import Block
    from ompbind.render.map import Fold
    from ompbind.render.owners import Owners
    from ompbind.render.text import Drawing, Line

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


def draw_plan(
    plan: Plan,
    explanation: Sequence[str] = (),
    rank: int | None = None,
    machine: Machine | None = None,
) -> Drawing:
    """Draw the plan; `rank`: only this rank's row, and what is executed for it; `machine`: the one
    that the plan is for, where it can be read."""
    shown = [rank or 0]
    if plan.groups:  # each has another command
        others = (g.ranks.first for g in plan.groups if rank is None or rank not in g.ranks)
        shown = [*([] if rank is None else [rank]), *others]
    drawn = draw_ranks(plan, explanation, rank, machine)
    executed = [draw_executed(plan, n, f"rank {plan.ranks[n].name}") for n in shown]
    return Group(drawn, *(part for parts in executed for part in parts))


def draw_ranks(
    plan: Plan,
    explanation: Sequence[str] = (),
    rank: int | None = None,
    machine: Machine | None = None,
) -> Drawing:
    """Draw what the ranks get and why, without what is executed."""
    plan = escape(plan)
    parts: list[Drawing] = [headline(plan)]
    parts += [Text(line, overflow="fold") for line in describe_engine(plan.task)]
    parts += [Text()] * bool(parts[1:])
    parts += [rank_table(plan, rank), Text()]
    if plan.groups:
        parts += [*(Text(line, overflow="fold") for line in describe_groups(plan)), Text()]
    if about := describe_programs(plan):
        parts += [*(Text(line, overflow="fold") for line in about), Text()]
    parts += [PlanMap(plan.host.cpus, machine, make_owners(plan), make_role_marks(plan)), Text()]
    lines = [*describe_sharing(plan, machine), *list_unassigned(plan, machine)]
    parts += [list_pieces(line) for line in lines]
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
    return Group(*parts, *(draw_caution(caution) for caution in plan.cautions))


def draw_caution(caution: Caution) -> Drawing:
    """Draw a warning, with its hint below."""
    warning = Text.assemble(("warning: ", "bold yellow"), caution.text)
    hint = [Text.assemble(("hint: ", "bold"), caution.hint)] if caution.hint else []
    return Group(warning, *hint)


def draw_executed(plan: Plan, rank: int, name: str) -> list[Drawing]:
    """Draw what is executed for a rank, called `name`; nothing where there is no command."""
    if not plan.command and not any(r.command for r in plan.ranks):
        return []
    unbound = "; ompbind binds it: pasted, this line does not" * (plan.binder == "native")
    title = Text.assemble((f"\nexecuted for {name}", "bold"), (unbound, "dim"))
    oddities = [Text(line) for line in escape(list_oddities(plan, rank))]
    return [title, command_line(plan, rank), *oddities]


def headline(plan: Plan) -> Text:
    subject, details = describe_plan(plan)
    return Text.assemble((subject, "bold"), f": {details}\n")


def rank_table(plan: Plan, rank: int | None = None) -> Drawing:
    """Draw a row for each rank, or one for many that are alike; `rank`: only its own."""
    rows = make_rows(plan, rank)
    table = Table()
    for name in rows.columns:
        right = name in RIGHT
        table.add_column(name, right=right, no_wrap=name == "rank")
    for row in rows.rows:
        style = "" if row.rank is None else colour_of(row.rank)
        first, *cells, why = row.cells
        drawn = [cell if name in RIGHT else list_pieces(cell)
                 for name, cell in zip(rows.columns[1:], cells, strict=False)]  # fmt: skip
        table.add_row(Text(first, style=style), *drawn, Text(why, style="dim"))
    return Group(table, Text(rows.note, style="dim")) if rows.note else table


class PlanMap:
    """Every online cpu as one character that says whose it is, in the machine's shape, blocks
    side by side as far as MAP_WIDTH has room."""

    def __init__(
        self,
        cpus: CpuSet,
        machine: Machine | None,
        owners: Owners,
        role_marks: Mapping[str, str],
    ) -> None:
        """`cpus`: those that are online; `machine`: None, or another than theirs, where it is not
        known; `role_marks`: the character of each role."""
        self.cpus = cpus
        self.machine = machine
        self.owners = owners
        self.owner = self.owners.owner
        self.role_marks = role_marks
        # Where signs repeat, each block has the numbers of its ranks.
        self.many = max(map(max, owners.ranks.values()), default=0) >= len(RANK_MARKS)

    def mark(self, cpu: int) -> tuple[str, str]:
        """Return a cpu's character and its style."""
        kind, rank = self.owner(cpu)
        if kind == "rank":
            return RANK_MARKS[rank % len(RANK_MARKS)], colour_of(rank)
        if rank < 0:
            return self.role_marks[kind], "bold"
        return MARKS[kind]

    def draw(self, width: int) -> list[Line]:
        room = min(width, MAP_WIDTH)
        whole = make_plain_blocks(self.cpus) if self.machine is None else make_blocks(self.machine)
        if self.many:
            whole = [self.add_ranks(block) for block in whole]
        lines, fewer = self.lay_out(whole, room), whole
        if count_lines(lines) > MAX_LINES:
            fewer = drop_threads(whole, self.owner)
            lines = self.lay_out(fewer, room)
        drawn = draw_lines(lines, width, self.mark) + self.legend().draw(width)
        if fewer != whole:
            note = Text("hardware threads that are unused on every core are not drawn", style="dim")
            drawn += note.draw(width)
        return drawn

    def lay_out(self, blocks: Sequence[Block], width: int) -> list[list[Block] | Fold]:
        if len(blocks) > MAX_BLOCKS:
            return lay_out(fold_blocks(blocks, self.owner), width)
        return lay_out(blocks, width)

    def add_ranks(self, block: Block) -> Block:
        """Return the block with the numbers of its ranks below it."""
        ranks = {rank for cpu in block.cpus for rank in self.owners.ranks.get(cpu, ())}
        if not ranks:
            return block
        return block.replace(notes=(label_numbers(self.owners.name("rank"), ranks), *block.notes))

    def legend(self) -> Text:
        kinds = {self.owner(cpu) for cpu in self.cpus}
        names = []
        if any(kind == "rank" for kind, _ in kinds):
            names.append(f"digit: {self.owners.name('rank')}")
        names += [f"{mark} {name}" for name, mark in self.role_marks.items()]
        for kind, (mark, _) in MARKS.items():
            if (kind, 0) in kinds:
                names.append(f"{mark} {self.owners.name(kind)}")
        return Text("  ".join(names), style="dim")


def make_role_marks(plan: Plan) -> dict[str, str]:
    """Return a letter for each role, its first one that is still free."""
    marks: dict[str, str] = {}
    for name in dict.fromkeys(role.name for role in plan.roles):
        candidates = (*name.upper(), *ROLE_MARKS)
        free = [m for m in candidates if m in ROLE_MARKS and m not in marks.values()]
        marks[name] = free[0] if free else "*"
    return marks


def inherited_table(inherited: Sequence[Inherited]) -> Drawing:
    table = Table(heading=None, edge=False)
    styles = {"removed": "red", "overridden": "yellow", "respected": "green", "widened": "yellow"}
    for i in inherited:
        style = styles.get(i.action, "")
        table.add_row(f"{i.name}={i.value}", Text(i.action, style=style), Text(i.why, style="dim"))
    return table


def command_line(plan: Plan, rank: int) -> Text:
    """Draw what a rank executes as one line, never broken."""
    return Text(command_text(plan, rank), no_wrap=True, overflow="ignore")
