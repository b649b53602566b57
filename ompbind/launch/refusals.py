"""What the kernel, or numactl, refuses of a binding, and what is done about it."""

from __future__ import annotations

from ompbind.errors import DeniedError
from ompbind.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ompbind.plans import Plan, RankPlan

# What a part of a binding is called in messages.
PARTS = {"cpus": "sched_setaffinity", "memory": "set_mempolicy"}


class Refusal(Record):
    """The kernel, or numactl, refuses a part of a rank's binding: "cpus", "memory", "numactl"."""

    rank: int
    part: str
    reason: str


def settle(
    plan: Plan, refusals: Sequence[Refusal], on_denied: str, say: Callable[[str], None]
) -> Plan:
    """The plan to execute: itself, or under "degrade" without what was refused.

    Raises DeniedError.
    """
    if not refusals:
        return plan
    ranks = {r.rank: r for r in plan.ranks}
    if on_denied != "degrade":
        raise denied(ranks[refusals[0].rank], refusals[0])
    parts = {r.part for r in refusals}
    for part in sorted(parts):
        worst = next(r for r in refusals if r.part == part)
        say(f"{denied(ranks[worst.rank], worst).message}; {left_out(part)}")
    return drop_parts(plan, parts)


def left_out(part: str) -> str:
    """What --on-denied degrade does about a refused part."""
    return {
        "cpus": "going on with cpus unbound",
        "memory": "going on with memory unbound",
        "numactl": "going on with the same system calls without numactl",
    }[part]


def drop_parts(plan: Plan, parts: set[str]) -> Plan:
    """Return the plan without the refused parts of its bindings."""
    return plan.replace(ranks=tuple(r.rebind(r.binding.without(parts)) for r in plan.ranks))


def denied(rank: RankPlan, refusal: Refusal) -> DeniedError:
    if refusal.part == "numactl":
        message = f"numactl cannot bind as planned: {refusal.reason}"
        hint = "--binder native uses the same system calls without numactl"
    else:
        what = f"cpus {rank.cpus}" if refusal.part == "cpus" else f"memory: {rank.mem} {rank.mems}"
        call = PARTS[refusal.part]
        message = f"rank {rank.rank}: the kernel refuses to bind {what.strip()} ({call}: "
        message += f"{refusal.reason})"
        hint = "--on-denied degrade goes on without"
        if refusal.part == "memory":
            hint += ", --mem none does not ask; in a container allow set_mempolicy (CAP_SYS_NICE)"
    return DeniedError(message, hint=hint, rank=rank.rank, part=refusal.part)
