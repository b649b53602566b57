"""`ompbind show`: the plan that `run` would execute, as a table, JSON, environment or arguments."""

from __future__ import annotations

import os
import shlex

from ompbind.cli.run import list_fixes, wants_list
from ompbind.cpuset import parse_whole
from ompbind.errors import UsageError
from ompbind.messages import quote, say, write_output
from ompbind.options import make_plan_options, read_arguments

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ompbind.plans import Plan


def show(args: Sequence[str]) -> int:
    """Carry out `ompbind show`; return the exit status. Raises OmpbindError."""
    from ompbind.resolve import resolve_plan

    values, command = read_arguments(args, "show")
    if wants_list(values):
        return list_fixes()
    environ = dict(os.environ)
    plan = resolve_plan(make_plan_options(values, command, environ), environ)
    form = values.get("format", "table")
    rank = find_rank(plan, values.get("rank"), one_needed=form == "env")
    sentences: list[str] = []
    if "explain" in values:
        from ompbind.render.sentences import explain

        sentences = explain(plan)
    if form == "json":
        write_output(plan.to_json(sentences))
    elif form == "env":
        write_output(environment_lines(plan, rank or 0))
    elif form == "argv":
        write_output(argv_lines(plan, rank))
    else:
        from ompbind.render import make_text
        from ompbind.render.plan import draw_plan

        write_output(make_text(draw_plan(plan, sentences, rank or 0)))
        return 0
    for caution in plan.cautions if form != "json" else ():
        say("warning", caution.text, caution.hint)
    return 0


def find_rank(plan: Plan, text: object, *, one_needed: bool) -> int | None:
    """Return the rank that --rank names; None: all. Raises UsageError."""
    last = len(plan.ranks) - 1
    hint = f"ranks: 0-{last}" if last else "the only rank is 0"
    if isinstance(text, str):
        number = parse_whole(text)
        if number is not None and number <= last:
            return number
        raise UsageError(f"--rank {quote(text)}: there is no such rank", hint=hint)
    if one_needed and last:
        raise UsageError("--format env is for one rank", hint=f"--rank R; {hint}")
    return None if last else 0


def environment_lines(plan: Plan, rank: int) -> str:
    """Return commands for a shell to eval, which set the rank's environment."""
    chosen = plan.ranks[rank]
    unset = [f"unset {' '.join(chosen.unset)}\n"] if chosen.unset else []
    return "".join(unset + [f"export {k}={shlex.quote(v)}\n" for k, v in chosen.env])


def argv_lines(plan: Plan, rank: int | None) -> str:
    """Return exactly what is executed, quoted for a shell, a line for each rank."""
    if plan.binder == "native":
        say(
            "note",
            "ompbind binds without numactl here: pasted, these lines do not bind",
        )
    ranks = plan.ranks if rank is None else (plan.ranks[rank],)
    return "".join(shlex.join(r.argv) + "\n" for r in ranks)
