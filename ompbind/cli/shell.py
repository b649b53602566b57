"""A rank of a plan as lines for a shell: its environment, its command."""

from __future__ import annotations

from ompbind.cpuset import parse_whole
from ompbind.errors import UsageError
from ompbind.messages import quote, say

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ompbind.plans import Plan


def find_rank(count: int, text: object, single: str) -> int | None:
    """Return the rank that --rank names of `count`; None: all. `single`: the --format that is for
    one rank, "" for another. Raises UsageError."""
    last = count - 1
    hint = f"ranks: 0-{last}" if last else "the only rank is 0"
    if isinstance(text, str):
        number = parse_whole(text)
        if number is not None and number <= last:
            return number
        raise UsageError(f"--rank {quote(text)}: there is no such rank", hint=hint)
    if single and last:
        raise UsageError(f"--format {single} is for one rank", hint=f"--rank R; {hint}")
    return None if last else 0


def environment_lines(plan: Plan, rank: int) -> str:
    """Return commands for a shell to eval, which set the rank's environment."""
    import shlex

    chosen = plan.ranks[rank]
    unset = [f"unset {' '.join(chosen.unset)}\n"] if chosen.unset else []
    return "".join(unset + [f"export {k}={shlex.quote(v)}\n" for k, v in chosen.env])


def argv_lines(plan: Plan, rank: int | None) -> str:
    """Return exactly what is executed, quoted for a shell, a line for each rank."""
    import shlex

    if plan.binder == "native":
        say(
            "note",
            "ompbind binds without numactl here: pasted, these lines do not bind",
            "--format taskset prints lines that bind the cpus",
        )
    ranks = plan.ranks if rank is None else (plan.ranks[rank],)
    return "".join(shlex.join(r.argv) + "\n" for r in ranks)
