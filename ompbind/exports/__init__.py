"""A plan in the words of other tools: srun's options, a systemd unit, a script without ompbind.

Each function here is given a plan, the ranks to write and what a program's name stands for on this
machine, and returns a text with what it could not express. Nothing is read and nothing is started.
"""

from __future__ import annotations

from ompbind.exports.containers import make_compose, make_docker
from ompbind.exports.export import lost_order, lost_threads
from ompbind.exports.kubernetes import make_pods
from ompbind.exports.mpirun import make_rankfile
from ompbind.exports.script import make_script, make_taskset
from ompbind.exports.slurm import make_srun
from ompbind.exports.systemd import make_unit
from ompbind.messages import one_line

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ompbind.exports.export import Export
    from ompbind.plans import Plan, RankPlan

    Make = Callable[[Plan, Sequence[RankPlan], Callable[[str], str]], Export]

# By the value of --format; the option's row has the same names.
FORMATS: dict[str, Make] = {
    "srun": make_srun,
    "rankfile": make_rankfile,
    "systemd": make_unit,
    "docker": make_docker,
    "compose": make_compose,
    "k8s": make_pods,
    "taskset": make_taskset,
    "sh": make_script,
}
SINGLE = ("systemd",)  # formats for one rank


def make_export(
    form: str, plan: Plan, rank: int | None, find: Callable[[str], str]
) -> tuple[str, str, str]:
    """Return a plan in one of FORMATS, the warning of what that leaves out, "" for nothing, and its
    hint. `rank`: the only rank to write, None for all; `find`: returns the file that a command's
    name stands for. Raises UsageError."""
    ranks = plan.ranks if rank is None else (plan.ranks[rank],)
    export = FORMATS[form](plan, ranks, find)
    text = export.text
    losses = (*export.losses, *lost_order(plan, ranks), *lost_threads(plan, ranks))
    if not losses:
        return text, "", ""
    hint = export.hint if export.losses else "ompbind run has all of it"
    if export.comment:
        lines = [f"# not in here: {one_line(loss)}\n" for loss in losses]
        first, rest = text[: export.head], text[export.head :]
        text = "".join([first, *lines, rest])
    return text, f"--format {form} leaves out {'; '.join(losses)}", hint
