"""What an engine says that it has bound its ranks to, in variables of its own. Pure.

Sources: srun(1), --cpu-bind; I_MPI_PIN_MAPPING as recorded from Intel MPI 2021.19 (its manual does
not have it).
"""

from __future__ import annotations

from ompbind.cpuset import parse_whole
from ompbind.errors import PlanError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping, Sequence

    from ompbind.cpuset import CpuSet
    from ompbind.engines import Engine
    from ompbind.plans import Task

LONGEST_MASK = 4096  # digits of one of Slurm's masks


def read_masks(
    engine: Engine, environ: Mapping[str, str], task: Task, mask: CpuSet
) -> list[Hashable]:
    """Return of each local rank what the engine says that it bound it to, equal for equal masks; []
    where it does not say, or where this process's mask is another since.

    Raises PlanError for masks that overlap in part.
    """
    if task.local_ranks is None or task.local_rank is None or not engine.masks:
        return []
    texts = [environ.get(name, "") for name in engine.masks]
    if engine.name == "slurm":
        return read_slurm(texts[0], texts[1], task.local_ranks, task.local_rank, mask)
    return read_intel(texts[0], task.local_ranks, task.local_rank, mask)


def read_slurm(kind: str, text: str, count: int, rank: int, mask: CpuSet) -> list[Hashable]:
    """Return the masks of SLURM_CPU_BIND_LIST. Tasks beyond its end begin again at its start.

    The numbers are Slurm's, which need not be the kernel's: only which tasks have equal ones
    counts, and how many cpus they have.
    """
    values = [value for word in text.split(",") for value in repeat(word)]
    if kind.startswith("mask_cpu"):
        masks = [parse_hexadecimal(value) for value in values]
        known = [m for m in masks if m]
        if not known or len(known) != len(masks):
            return []
        of_tasks = [known[r % len(known)] for r in range(count)]
        if of_tasks[rank].bit_count() != len(mask):
            return []  # bound again since, by a command in front of ompbind
        distinct = list(dict.fromkeys(of_tasks))
        for n, one in enumerate(distinct):
            if one & sum_of(distinct[n + 1 :]):
                raise PlanError(
                    f"Slurm has bound tasks to masks that overlap in part: {text}",
                    hint="--within node plans over all of the node's cpus; "
                    "srun --cpu-bind=none leaves binding to ompbind",
                )
        return list(of_tasks)
    if kind.startswith(("map_cpu", "map_ldom", "mask_ldom")) and values and all(values):
        if kind.startswith("map_cpu") and len(mask) != 1:
            return []
        return [values[r % len(values)] for r in range(count)]
    return []


def sum_of(masks: Sequence[int]) -> int:
    """Return the union of masks."""
    union = 0
    for mask in masks:
        union |= mask
    return union


def repeat(word: str) -> list[str]:
    """Return the value of `0x3` once, of `0x3*2` twice."""
    value, times, number = word.partition("*")
    count = parse_whole(number) if times else 1
    return [value] * min(count or 0, 1 << 16)


def parse_hexadecimal(text: str) -> int:
    """Return the number of `0x3` or `3`; 0 for anything else."""
    digits = text.lower().removeprefix("0x")
    plain = digits.isascii() and digits.isalnum() and len(digits) <= LONGEST_MASK
    if not plain or digits.strip("0123456789abcdef"):
        return 0
    return int(digits, 16)


def read_intel(text: str, count: int, rank: int, mask: CpuSet) -> list[Hashable]:
    """Return the first cpu of each rank's domain, by `4:0 0,1 4,2 8,3 12`: the number of ranks,
    then each with that cpu."""
    number, _, rest = text.partition(":")
    pairs = [word.split(" ") for word in rest.split(",")]
    first: dict[int, int] = {}
    for pair in pairs:
        numbers = [parse_whole(word) for word in pair]
        if len(numbers) != 2 or None in numbers:
            return []
        first[numbers[0] or 0] = numbers[1] or 0
    if parse_whole(number) != count or sorted(first) != list(range(count)):
        return []
    return [first[r] for r in range(count)] if first[rank] == mask.first else []
