"""The page of a plan: its picture, its table, and what explains them."""

from __future__ import annotations

from ompbind.render.pages.html import (
    make_page,
    write_details,
    write_figure,
    write_heading,
    write_paragraph,
    write_table,
)
from ompbind.render.picture import make_plan_picture
from ompbind.render.rows import (
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
from ompbind.render.words import Row, Rows

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ompbind.machine.topology import Machine
    from ompbind.plans import Inherited, Plan

MAX_COMMANDS = 256  # of ranks


def make_plan_page(plan: Plan, machine: Machine | None, explanation: Sequence[str] = ()) -> str:
    """Return the page; `machine`: the one that the plan is for, None if its shape is unknown."""
    title, details = describe_plan(plan)
    parts = [write_paragraph(details, "soft")]
    parts += [write_paragraph(line) for line in describe_engine(plan.task)]
    if plan.groups:
        parts += [write_paragraph(line) for line in describe_groups(plan)]
    for caution in plan.cautions:
        hint = f" ({caution.hint})" if caution.hint else ""
        parts.append(write_paragraph(f"warning: {caution.text}{hint}", "bad"))
    parts.append(write_figure(make_plan_picture(plan, machine, legend=False)))
    parts.append(write_table(make_rows(plan)))
    lines = [
        *describe_programs(plan),
        *describe_sharing(plan, machine),
        *list_unassigned(plan, machine),
    ]
    parts += [write_paragraph(line) for line in lines]
    if explanation:
        parts.append(write_heading("explanation"))
        parts += [write_paragraph(sentence) for sentence in explanation]
    for heading, inherited in (
        ("inherited environment", plan.inherited),
        ("inherited restrictions", plan.narrowed),
    ):
        if inherited:
            parts += [write_heading(heading), write_table(make_inherited_rows(inherited))]
    return make_page(title, parts + write_commands(plan))


def make_inherited_rows(inherited: Sequence[Inherited]) -> Rows:
    rows = tuple(Row((i.name, i.value, i.action, i.why)) for i in inherited)
    return Rows(("name", "value", "what became of it", "why"), rows)


def write_commands(plan: Plan) -> list[str]:
    """Return what is executed for each rank; nothing where there is no command."""
    if not plan.command and not any(r.command for r in plan.ranks):
        return []
    parts = [write_heading("executed")]
    if plan.binder == "native":
        parts.append(write_paragraph("ompbind binds each rank: pasted, a line does not", "soft"))
    for r in plan.ranks[:MAX_COMMANDS]:
        parts.append(write_details(f"rank {r.number}", [command_text(plan, r.rank)]))
    if plan.ranks[MAX_COMMANDS:]:
        parts.append(write_paragraph("ompbind show --rank R shows the others", "soft"))
    parts += [write_paragraph(line) for line in list_oddities(plan, 0)]
    return parts
