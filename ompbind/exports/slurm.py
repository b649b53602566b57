"""A plan as the options of Slurm's srun."""

from __future__ import annotations

import shlex

from ompbind.errors import UsageError
from ompbind.exports.export import (
    Export,
    common_variables,
    env_words,
    lost_balancing,
    lost_memory,
    lost_variables,
)
from ompbind.plans import RANK_VARIABLE, RANKS_VARIABLE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ompbind.cpuset import CpuSet
    from ompbind.plans import Plan, RankPlan

UNDER_SRUN = "srun --cpu-bind=none ompbind run -- COMMAND gives each rank all of it"
# Of one node here, of the whole job under srun.
NUMBERS = (RANK_VARIABLE, RANKS_VARIABLE, "RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE")


def make_srun(plan: Plan, ranks: Sequence[RankPlan], find: Callable[[str], str]) -> Export:
    """Return one srun command, whose masks hold on each node of a job. Raises UsageError.

    A mask is of the kernel's cpu numbers, in hexadecimal; srun gives them to the tasks of a node in
    order (srun(1), --cpu-bind).
    """
    command = ranks[0].command
    if any(rank.command != command or rank.unset != ranks[0].unset for rank in ranks):
        raise UsageError(
            "--format srun: the ranks have different commands, and srun starts one",
            hint="--format sh takes several; or fill in $SLURM_LOCALID instead of {rank}",
        )
    masks = ",".join(make_mask(rank.cpus) for rank in ranks)
    words = ["srun", f"--ntasks-per-node={len(ranks)}", f"--cpu-bind=mask_cpu:{masks}"]
    memory, losses = bind_memory(ranks)
    same, different = common_variables(ranks)
    same = [name for name in same if name not in NUMBERS]
    losses += lost_variables([name for name in different if name not in NUMBERS])
    if "RANK" in dict(ranks[0].env):
        losses.append("RANK and the like, in whose place Slurm sets SLURM_PROCID")
    line = shlex.join([*words, *memory, *(env_words(ranks[0], same) if command else ()), *command])
    return Export(f"{line}\n", tuple(losses), UNDER_SRUN, comment=False)


def make_mask(cpus: CpuSet) -> str:
    return hex(sum(1 << cpu for cpu in cpus))


def bind_memory(ranks: Sequence[RankPlan]) -> tuple[list[str], list[str]]:
    """Return srun's option for the memory of all ranks, and what it does not express: it has one
    policy for all, prefers one node, does not interleave and does not balance."""
    policies = {rank.mem for rank in ranks}
    if policies == {"none"}:
        return [], []
    if policies == {"local"}:
        return ["--mem-bind=local"], []
    masks = ",".join(make_mask(rank.mems) for rank in ranks)
    if policies == {"bind"}:
        return [f"--mem-bind=mask_mem:{masks}"], lost_balancing(ranks)
    if policies == {"preferred"} and all(len(rank.mems) == 1 for rank in ranks):
        return [f"--mem-bind=prefer,mask_mem:{masks}"], []
    return [], lost_memory(ranks)
