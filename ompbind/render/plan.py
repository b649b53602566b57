"""A plan, drawn."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from ompbind.colours import colour_of
from ompbind.cpuset import union
from ompbind.messages import counted, label
from ompbind.plans import describe_numbers
from ompbind.render.escape import escape, quote_word
from ompbind.render.server import describe_server, server_table
from ompbind.saved import foreign_variables

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import RenderableType

    from ompbind.cpuset import CpuSet
    from ompbind.plans import Inherited, Plan, RankPlan, Task

RANK_MARKS = "0123456789abcdefghijklmnopqrstuvwxyz"
ROLE_MARKS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def draw_plan(plan: Plan, explanation: Sequence[str] = (), rank: int = 0) -> RenderableType:
    number = plan.ranks[rank].number
    return Group(draw_ranks(plan, explanation), *draw_executed(plan, rank, f"rank {number}"))


def draw_ranks(plan: Plan, explanation: Sequence[str] = ()) -> RenderableType:
    """Draw what the ranks get and why, without what is executed."""
    plan = escape(plan)
    table = server_table(plan.ranks[0], plan.server) if plan.server else rank_table(plan)
    parts: list[RenderableType] = [headline(plan)]
    parts += [Text(line, overflow="fold") for line in describe_engine(plan.task)]
    parts += [Text()] * bool(parts[1:])
    parts += [table, Text()]
    if openmp := plan.omp_text or plan.places_why:
        parts += [Text(openmp), Text()]
    parts += [machine_map(plan), Text()]
    parts += [Text(line, overflow="fold") for line in list_unassigned(plan)]
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
    if not plan.command and not any(r.argv for r in plan.ranks):
        return []
    parts: list[RenderableType] = [Text(f"\nexecuted for {name}", style="bold")]
    parts.append(command_line(plan, rank))
    return parts + [Text(line, overflow="fold") for line in escape(list_oddities(plan, rank))]


def headline(plan: Plan) -> Text:
    host, count = plan.host, len(plan.ranks)
    name = f" on {host.name}" if host.name else ""
    what = describe_server(plan.server) if plan.server else counted(count, "rank")
    text = Text.assemble((f"{what}{name}", "bold"))
    text.append(f": {len(host.allowed)} of {len(host.cpus)} cpus allowed")
    text.append(f", {counted(len(host.nodes), 'NUMA node')}")
    if host.quota is not None:
        text.append(f", quota {host.quota:g} cpus")
    how = {"numactl": "bound by numactl", "native": "bound natively", "none": "not bound"}
    text.append(f"; {how[plan.binder]}\n")
    return text


def rank_table(plan: Plan) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold dim")
    table.add_column("rank", justify="right")
    with_gpus = any(r.gpus for r in plan.ranks)
    names = ("cpus", "OpenMP places", "threads", "node", "memory", *(["gpu"] if with_gpus else []))
    for name in (*names, "why"):
        table.add_column(name, overflow="fold", justify="right" if name == "threads" else "left")
    for r in plan.ranks:
        env = dict(r.env)
        table.add_row(
            Text(str(r.number), style=colour_of(r.number)),
            str(r.cpus),
            Text(places_text(r) or "-"),
            env.get("OMP_NUM_THREADS", "-"),
            str(r.nodes) or "-",
            f"{r.mem} {r.mems}".strip(),
            *([Text(" ".join(map(short_name, r.gpus)) or "-")] if with_gpus else []),
            Text(r.why, style="dim"),
        )
    return table


def short_name(gpu: str) -> str:
    """Return a number as it is, and of a UUID the beginning, which identifies it as well."""
    return gpu if len(gpu) <= 12 else f"{gpu[:12]}…"


def places_text(rank: RankPlan, most: int = 4) -> str:
    """Return places in the kernel's notation of sets: `{0} {1} … {7} (8)`."""
    texts = [f"{{{p}}}" for p in rank.places]
    if len(texts) <= most:
        return " ".join(texts)
    return f"{' '.join(texts[: most - 2])} … {texts[-1]} ({len(texts)})"


def machine_map(plan: Plan) -> RenderableType:
    """Draw every online cpu as one character that says whose it is."""
    owner: dict[int, set[int]] = {}
    numbered = [(r.number, r.cpus) for r in plan.ranks]
    reserved, marked = plan.reserved, ("rank", "reserved")
    if plan.server:
        numbered = [(w.worker, w.cpus) for w in plan.server.workers]
        reserved, marked = plan.server.rest, ("worker", "engine and front end")
    for number, each in numbered:
        for cpu in each:
            owner.setdefault(cpu, set()).add(number)
    role_marks = make_role_marks(plan)
    role_of = {cpu: role.name for role in plan.roles for cpu in role.cpus}
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
                line.append(RANK_MARKS[rank % len(RANK_MARKS)], style=colour_of(rank))
            elif ranks:
                line.append("+", style="bold")
            elif cpu in role_of:
                line.append(role_marks[role_of[cpu]], style="bold")
            elif cpu in reserved:
                line.append("=", style="bold")
            elif cpu in plan.others:
                line.append("/", style="dim")
            else:
                line.append("·" if cpu in allowed else "x", style="dim")
        first, last = row[0], row[-1]
        table.add_row(Text(f"cpus {first}-{last}" if last > first else f"cpu {first}"), line)
    taken = taken_cpus(plan)
    marks = {
        "+": any(len(ranks) > 1 for ranks in owner.values()),
        "=": bool(reserved),
        "/": bool(plan.others),
        "·": bool(allowed - taken),
        "x": bool(plan.host.cpus - allowed),
    }
    beside = "other ranks" if plan.task and not plan.part else "other parts"
    names = {"+": "shared", "=": marked[1], "/": beside, "·": "not used",
             "x": "not allowed"}  # fmt: skip
    legend = [f"digit: {marked[0]}", *(f"{mark} {name}" for name, mark in role_marks.items())]
    legend += [f"{m} {names[m]}" for m, is_used in marks.items() if is_used]
    return Group(table, Text("  ".join(legend), style="dim"))


def make_role_marks(plan: Plan) -> dict[str, str]:
    """Return a letter for each role, its first one that is still free."""
    marks: dict[str, str] = {}
    for name in dict.fromkeys(role.name for role in plan.roles):
        candidates = (*name.upper(), *ROLE_MARKS)
        free = [m for m in candidates if m in ROLE_MARKS and m not in marks.values()]
        marks[name] = free[0] if free else "*"
    return marks


def taken_cpus(plan: Plan) -> CpuSet:
    """Return the cpus that have an owner: a rank, a role, other work, another part."""
    owned = [r.cpus for r in plan.ranks] + [role.cpus for role in plan.roles]
    return union([*owned, plan.reserved, plan.others])


def describe_engine(task: Task) -> list[str]:
    """Return lines on the engine that started this rank, and on those that were passed over."""
    lines = []
    if task:
        lines.append(f"{task.label}: {describe_numbers(task)}")
        lines.append(f"  known by {task.by}")
        lines += [f"  {text}" for text in (task.why, task.note) if text]
    return lines + [f"{name} is passed over: {why}" for name, why in task.passed_over]


def list_unassigned(plan: Plan) -> list[str]:
    """Return a line for each kind of cpus that no rank has."""
    idle = plan.host.allowed - taken_cpus(plan) - plan.unused
    lines = []
    for role in plan.roles:
        lines.append(f"role {role.name}: cpus {role.cpus}, of {label('rank', role.ranks)}")
    if plan.reserved and not plan.server:
        lines.append(f"reserved: cpus {plan.reserved}")
    if plan.part:
        lines.append(f"part {plan.part} of the machine; the other parts: cpus {plan.others}")
    if plan.unused:
        lines.append(f"left over: cpus {plan.unused} (cores without a rank)")
    if idle:
        lines.append(f"idle: cpus {idle} (unused hyperthreads or excluded)")
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


def command_line(plan: Plan, rank: int) -> RenderableType:
    """Draw a rank's environment and arguments as a shell would take them."""
    chosen = plan.ranks[rank]
    words = [f"{k}={quote_word(v)}" for k, v in chosen.env]
    text = " ".join([*words, *map(quote_word, chosen.argv)])
    return Padding(Text(text, overflow="fold"), (0, 0))
