"""Whose cpus a rank's affinity mask holds: its own, those of all ranks on the node, or of some.

Pure. Every local rank must come to the same answer by itself, or ranks would overlap: what only
one of them sees, such as which cpus its own mask has, may not decide between two ways to plan.

Sources: srun(1), --cpu-bind; I_MPI_PIN_MAPPING as recorded from Intel MPI 2021.19 (its manual does
not have it); mpirun(1) of Open MPI 4.1, which binds to cores up to two ranks, else to sockets.
"""

from __future__ import annotations

from ompbind.cpuset import CpuSet, parse_whole
from ompbind.errors import PlanError
from ompbind.messages import counted, label
from ompbind.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping, Sequence

    from ompbind.engines.table import Engine
    from ompbind.plans import Task

OWN, ALL, SOME = "own", "all", "some"
WHOLE_CORES = "srun -c 2 or --hint=nomultithread gives each task a whole core"
LONGEST_MASK = 4096  # digits of one of Slurm's masks


class Sharing(Record):
    """Which cpus to plan, and for which of the local ranks.

    `kind`: OWN, ALL or SOME; `members`: the local ranks among which `cpus` are divided, this one
    with them, () where they are not known; `crowd`: how many they are; `cpus`: those to plan;
    `widened`: whether these are more than the rank's mask; `why`: in a few words; `note`, `caution`
    and `hint`: what the user may not expect.
    """

    kind: str
    cpus: CpuSet
    members: tuple[int, ...] = ()
    crowd: int = 1
    widened: bool = False
    why: str = ""
    note: str = ""
    caution: str = ""
    hint: str = ""


def find_sharing(
    task: Task,
    engine: Engine,
    environ: Mapping[str, str],
    mask: CpuSet,
    around: CpuSet,
    groups: Sequence[Sequence[CpuSet]],
    within: str = "",
) -> Sharing:
    """Return which cpus this rank shares with which others on its node.

    `mask`: what this process may use; `around`: what the engine's own process may, or where that
    cannot be seen, what the cpuset holds; `groups`: of each level at which engines bind (packages,
    nodes, caches, cores), the cpus of each thing; `within`: "task" to stay within the mask, "node"
    to plan over `around`, "" to decide. Raises PlanError where the masks of ranks overlap in part,
    and where the local rank is needed and not known.
    """
    count = task.local_ranks
    if count == 1:
        return Sharing(OWN, mask, (task.local_rank or 0,), why="the only rank on this node")
    around = around if mask <= around or around <= mask else around | mask
    if within == "node" and mask != around:
        why = "--within node"
        return Sharing(ALL, around, need_members(task), count or 1, widened=True, why=why)
    masks = read_masks(engine, environ, task, mask)
    if masks:
        return by_masks(task, engine, mask, masks, groups[-1] if groups else ())
    if around <= mask:
        why = f"{engine.label} has not bound its ranks"
        return Sharing(ALL, mask, need_members(task), count or 1, why=why)
    crowd = count_crowd(count, mask, around, groups)
    if crowd == 1:
        return Sharing(
            OWN, mask, (task.local_rank or 0,), why=f"{engine.label} has bound this rank"
        )
    text = (
        f"{engine.label} has bound ranks to {counted(len(mask), 'cpu')} each, so that "
        f"{counted(count or 1, 'rank')} share {label('cpu', around)}"
    )
    if not within and is_default(engine, environ):
        note = f"{text}: its default; planning over all of them (--within task keeps its masks)"
        why = f"{engine.label} binds several ranks to the same cpus by default"
        return Sharing(ALL, around, need_members(task), count or 1, True, why, note)
    why = f"{engine.label} has bound {crowd} ranks to these cpus"
    if within:
        return Sharing(SOME, mask, (), crowd, why=why)
    caution = f"{text}: which of them share these cpus is not known, so each may use all of them"
    hint = f"{engine.unbind} leaves binding to ompbind, as does --within node; --within task as now"
    return Sharing(SOME, mask, (), crowd, why=why, caution=caution, hint=hint)


def need_members(task: Task) -> tuple[int, ...]:
    """Return all local ranks. Raises PlanError where their number, or this one's, is not known."""
    if task.local_ranks is None or task.local_rank is None:
        missing = "local rank" if task.local_rank is None else "number of ranks on this node"
        variable = {"prrte": "PMIX_RANK", "flux": "FLUX_TASK_LOCAL_ID"}.get(task.engine, "NAME")
        raise PlanError(
            f"{task.label} does not say the {missing}, and its ranks share their cpus",
            hint=f"--rank env:{variable} --ranks N says both by hand, or let it bind its ranks",
        )
    return tuple(range(task.local_ranks))


def by_masks(
    task: Task,
    engine: Engine,
    mask: CpuSet,
    masks: Sequence[Hashable],
    cores: Sequence[CpuSet],
) -> Sharing:
    """Return the sharing by the engine's own word. `masks`: of each local rank what it is bound
    to."""
    rank = task.local_rank or 0
    members = tuple(r for r, other in enumerate(masks) if other == masks[rank])
    if len(members) == 1:
        why = f"{engine.label} has bound this rank"
        sharing = Sharing(OWN, mask, members, why=why)
        beside = [r for r, other in enumerate(masks) if r != rank and is_beside(other, mask, cores)]
        if masks[rank] == mask.mask and beside:
            others = label("local rank", CpuSet(beside))
            text = f"local rank {rank} has hardware threads of a core that {others} uses, too"
            return sharing.replace(caution=text, hint=WHOLE_CORES)
        return sharing
    kind = ALL if len(members) == len(masks) else SOME
    why = f"{engine.label} has bound {'all' if kind == ALL else len(members)} ranks to these cpus"
    return Sharing(kind, mask, members, len(members), why=why)


def is_beside(other: Hashable, mask: CpuSet, cores: Sequence[CpuSet]) -> bool:
    """Whether another rank's mask, by the kernel's numbers, has cpus of a core of this mask."""
    if not isinstance(other, int):
        return False
    theirs = CpuSet.from_mask(other)
    return any(core & mask and core & theirs for core in cores)


def count_crowd(
    count: int | None, mask: CpuSet, around: CpuSet, groups: Sequence[Sequence[CpuSet]]
) -> int:
    """Return how many ranks at the least have a mask such as this one: more than one where `count`
    masks of its size do not fit into `around`, or the ranks are more than the things of which it is
    one. Without `count` nothing is known, and each has its own."""
    if count is None:
        return 1
    for things in groups:
        usable = [thing & around for thing in things if thing & around]
        if mask in usable and len(usable) > 1:
            # Ranks on a smaller package must decide as those on a larger one.
            return -(-count // len(usable))
    different = max(len(around) // len(mask), 1)
    return -(-count // different)


def is_default(engine: Engine, environ: Mapping[str, str]) -> bool:
    """Whether the engine has bound by its default, and not because the user asked for that."""
    asked = any(name in environ for name in engine.asked)
    return bool(engine.bound) and all(name in environ for name in engine.bound) and not asked


# --- the engine's word ---------------------------------------------------------------------------


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
