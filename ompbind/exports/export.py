"""What an export is, and what all formats say of ranks: their variables, commands and losses."""

from __future__ import annotations

from ompbind.cpuset import label_numbers
from ompbind.errors import UsageError
from ompbind.messages import counted, label, one_line, quote
from ompbind.plans import CPUS_VARIABLE, MEMORY_VARIABLE, describe_policy
from ompbind.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from ompbind.plans import Plan, RankPlan

WITH_ALL = "--format sh writes a script that has all of it"
# Variables by which ompbind and its verify know a rank again; no program needs them.
BOOKKEEPING = (CPUS_VARIABLE, MEMORY_VARIABLE)


class Export(Record):
    """A plan as text. `losses`: what of it the format does not express, a phrase each; `hint`: what
    has it; `comment`: whether the losses go into the text as comments, too, after its first `head`
    characters."""

    text: str
    losses: tuple[str, ...] = ()
    hint: str = WITH_ALL
    comment: bool = True
    head: int = 0


def describe(rank: RankPlan) -> str:
    """Return what a rank gets, on one line, for a comment."""
    parts = [label("cpu", rank.cpus)] if rank.cpus else []
    parts += [label("node", rank.nodes)] if rank.nodes else []
    policy = describe_policy(rank.mem, rank.mems, balancing=rank.binding.balancing)
    parts += [f"memory {policy}"] if rank.mem != "none" else []
    return one_line(f"rank {rank.name}: {', '.join(parts) or 'not bound'}")


def title(rank: RankPlan) -> str:
    """Return a name for a rank as services and pods have it: `rank-3`, in groups `worker-3`."""
    return rank.name.replace(".", "-") if rank.group else f"rank-{rank.name}"


def introduce(plan: Plan, ranks: Sequence[RankPlan], more: str = "") -> str:
    """Return the first comment of a text."""
    where = f" on {plan.host.name}" if plan.host.name else ""
    return one_line(f"# {counted(len(ranks), 'rank')}{where}, planned by ompbind{more}") + "\n"


def require_command(form: str, ranks: Sequence[RankPlan]) -> None:
    """Refuse ranks that have no command. Raises UsageError."""
    if not all(rank.command for rank in ranks):
        raise UsageError(f"--format {form} needs a command", hint="put it after --")


def require_text(form: str, ranks: Sequence[RankPlan]) -> None:
    """Refuse commands and variables that are not UTF-8, where a format takes nothing else. Raises
    UsageError."""
    for rank in ranks:
        for word in (*rank.command, *(value for _, value in rank.env)):
            if any("\ud800" <= c <= "\udfff" for c in word):
                raise UsageError(
                    f"--format {form}: rank {rank.number}: {quote(word)} is not UTF-8 text",
                    hint="--format sh takes any bytes",
                )


def env_words(rank: RankPlan, names: Collection[str] | None = None) -> list[str]:
    """Return the words in front of a rank's command by which env sets and removes its variables;
    `names`: only these are set. Nothing where there is nothing to do."""
    unset = [word for name in rank.unset for word in ("-u", name)]
    pairs = [f"{k}={v}" for k, v in rank.env if names is None or k in names]
    return ["env", *unset, *pairs] if unset or pairs else []


def common_variables(ranks: Sequence[RankPlan]) -> tuple[list[str], list[str]]:
    """Return the names of the variables that are the same for all ranks, and of those that are not:
    a command for all ranks can set the former only."""
    envs = [dict(rank.env) for rank in ranks]
    names = list(dict.fromkeys(name for env in envs for name in env if name not in BOOKKEEPING))
    same = [name for name in names if all(env.get(name) == envs[0].get(name) for env in envs)]
    return same, [name for name in names if name not in same]


def lost_variables(names: Sequence[str]) -> list[str]:
    """Return the loss of variables that differ by rank."""
    return [f"variables that differ by rank ({', '.join(names)})"] if names else []


def lost_memory(ranks: Sequence[RankPlan], kept: Collection[str] = ()) -> list[str]:
    """Return the loss of memory policies but those that are `kept`."""
    losses = []
    for policy in dict.fromkeys(r.mem for r in ranks):
        if policy not in ("none", *kept):
            numbers = [r.number for r in ranks if r.mem == policy]
            losses.append(f"memory policy {policy} of {label_numbers('rank', numbers)}")
    return losses + lost_balancing([r for r in ranks if r.mem in kept])


def lost_balancing(ranks: Sequence[RankPlan]) -> list[str]:
    """Return the loss of balancing among a rank's nodes, which only numactl's option has."""
    numbers = [r.number for r in ranks if r.binding.balancing]
    return [f"NUMA balancing of {label_numbers('rank', numbers)}"] if numbers else []


def lost_order(plan: Plan, ranks: Sequence[RankPlan]) -> list[str]:
    """Return the loss of the order in which groups are started and ended."""
    ordered = any(group.after or group.background for group in plan.groups)
    return ["the order in which groups start and end"] if ordered and ranks[1:] else []


def lost_devices(ranks: Sequence[RankPlan]) -> list[str]:
    """Return the loss of devices, in a format in which these have to be given to a process."""
    numbers: dict[str, list[int]] = {}
    for rank in ranks:
        for _, noun, _ in rank.devices:
            numbers.setdefault(noun, []).append(rank.number)
    return [f"the {noun}s of {label_numbers('rank', n)}" for noun, n in numbers.items()]


def lost_threads(plan: Plan, ranks: Sequence[RankPlan]) -> list[str]:
    """Return the loss of threads that a supervisor would bind."""
    roles = {role.name for role in plan.roles for rank in ranks
             if role.threads and rank.rank in role.ranks}  # fmt: skip
    return [f"the threads of role {name}, which ompbind run binds" for name in sorted(roles)]
