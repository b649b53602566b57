"""A plan as a rankfile of Open MPI's mpirun."""

from __future__ import annotations

import shlex

from ompbind.cpuset import label_numbers
from ompbind.exports.export import (
    Export,
    common_variables,
    describe,
    env_words,
    introduce,
    lost_memory,
    lost_variables,
)
from ompbind.messages import one_line

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ompbind.plans import Plan, RankPlan

UNDER_MPIRUN = "mpirun --bind-to none ompbind run -- COMMAND gives each rank all of it"


def make_rankfile(plan: Plan, ranks: Sequence[RankPlan], find: Callable[[str], str]) -> Export:
    """Return a rankfile for Open MPI 4, with the command that takes it in a comment.

    Its numbers are the kernel's with rmaps_rank_file_physical, and hardware threads with
    --use-hwthread-cpus; Open MPI 5 has no such numbers, it counts cores in its own order.
    """
    host = (
        plan.host.name
        if plan.host.name.replace("-", "a").replace(".", "a").isalnum()
        else "localhost"
    )
    text = introduce(plan, ranks, " for Open MPI 4; Open MPI 5 counts cpus otherwise")
    text += f"# {one_line(shlex.join(make_command(ranks)))}\n"
    losses = lost_memory(ranks) + lost_variables(common_variables(ranks)[1])
    head = len(text)
    for rank in ranks:
        if rank.cpus:
            text += f"# {describe(rank)}\nrank {rank.number}={host} slot={rank.cpus}\n"
    if unbound := [rank.number for rank in ranks if not rank.cpus]:
        losses.append(f"{label_numbers('rank', unbound)}, without cpus")
    return Export(text, tuple(losses), UNDER_MPIRUN, head=head)


def make_command(ranks: Sequence[RankPlan]) -> list[str]:
    """Return mpirun with the ranks' commands, one for all or each its own."""
    words = ["mpirun", "--mca", "rmaps_rank_file_physical", "1", "--use-hwthread-cpus"]
    words += ["--rankfile", "FILE"]
    env = dict(ranks[0].env)
    same = [name for name in common_variables(ranks)[0] if not name.startswith("OMPBIND_")]
    given = [word for name in same for word in ("-x", f"{name}={env[name]}")]
    if all(rank.command == ranks[0].command for rank in ranks):
        command = ranks[0].command or ("COMMAND",)
        return [*words, "-np", str(len(ranks)), *given, *env_words(ranks[0], ()), *command]
    for number, rank in enumerate(ranks):
        words += [":"] if number else []
        words += ["-np", "1", *given, *env_words(rank, ()), *rank.command]
    return words
