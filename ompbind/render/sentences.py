"""How each rank came to what it has, in plain sentences, from the plan alone."""

from __future__ import annotations

from ompbind.cpuset import CpuSet, union
from ompbind.messages import counted, label, plural

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ompbind.plans import Plan, RankPlan

MEMORY = {
    "bind": "memory comes only from {mems}",
    "preferred": "memory comes from {mems} first, from others when that is full",
    "interleave": "memory is taken page by page from {mems}",
    "local": "memory comes from wherever the thread runs that first writes to it",
    "none": "no memory policy is set",
}
LAID_OUT = {
    "close": "neighbours side by side",
    "spread": "as far apart as can be",
    "master": "all where the first is",
    "primary": "all where the first is",
    "true": "bound as the runtime likes",
}


def explain(plan: Plan) -> list[str]:
    """A sentence or a few for the machine, and for each kind of rank."""
    return [*explain_machine(plan), *explain_budget(plan), *explain_ranks(plan)]


def explain_machine(plan: Plan) -> list[str]:
    """What there was to divide."""
    host = plan.host
    every, left = len(host.cpus), len(host.allowed)
    nodes = counted(len(host.nodes), "node")
    what = "all may be used" if every == left else f"{left} may be used: {host.allowed}"
    told = [f"The machine has {counted(every, 'cpu')} on {nodes}; {what}."]
    for n in plan.narrowed:
        undone = ", which --inherited ignore has reset" if n.action == "widened" else ""
        told.append(f"Its {n.name} was {n.value} before, by {n.why}{undone}.")
    if plan.part:
        told.append(f"This is part {plan.part} of it: cpus {plan.others} are the other parts'.")
    if plan.reserved:
        told.append(f"{count_cpus(plan.reserved)} kept free for other work (--reserve).")
    for role in plan.roles:
        many = label("rank", role.ranks)
        told.append(
            f"{count_cpus(role.cpus)} set aside as {role.name} for {many}, "
            f"who find{'s' * (len(role.ranks) == 1)} them in {role.variable}."
        )
    return told


def count_cpus(cpus: CpuSet) -> str:
    """The start of a sentence about them."""
    return f"Cpus {cpus} are" if len(cpus) > 1 else f"Cpu {cpus} is"


def explain_budget(plan: Plan) -> list[str]:
    """Threads against cpus and the quota."""
    threads = sum(map(threads_of, plan.ranks))
    cpus = len(union(r.cpus for r in plan.ranks))
    ranks = len(plan.ranks)
    over = f" over {ranks} ranks" if ranks > 1 else ""
    text = f"{counted(threads, 'thread')}{over} run on {counted(cpus, 'cpu')}"
    quota = plan.host.quota
    if quota is None:
        return [f"{text}; no quota limits their time."]
    if threads <= max(quota, 1):
        return [f"{text}, within the cgroup's quota of {quota:g} cpus' worth of time."]
    return [f"{text}; the cgroup's quota of {quota:g} cpus' worth of time will hold them up."]


def threads_of(rank: RankPlan) -> int:
    text = dict(rank.env).get("OMP_NUM_THREADS", "").partition(",")[0]
    return int(text) if text.isascii() and text.isdigit() and len(text) < 9 else 0


def explain_ranks(plan: Plan) -> list[str]:
    """A line for each kind of rank: those that differ only in which cpus they have are one."""
    kinds: dict[tuple[str, str], list[RankPlan]] = {}
    for rank in plan.ranks:
        why = rank.why_shared or rank.why
        kinds.setdefault((why, explain_one(rank)), []).append(rank)
    lines = []
    for (why, text), ranks in kinds.items():
        numbers = CpuSet(r.rank for r in ranks)
        who = f"Ranks {numbers}" if ranks[1:] else f"Rank {numbers}"
        shown = [f"cpus {r.cpus}" for r in ranks[:4]] + ["…"] * (len(ranks) > 4)
        whose = f"{', '.join(shown)}" + (" in turn" if ranks[1:] else "")
        if all(r.cpus == ranks[0].cpus for r in ranks):
            whose = shown[0] + (", all of them the same" if ranks[1:] else "")
        reason = why if ranks[1:] else ranks[0].why
        came = f" ({reason})" if reason else ""
        lines.append(f"{who}: {whose}{came}; {text}.")
    if plan.places_why:
        lines.append(f"Why these places: {plan.places_why}.")
    return lines


def explain_one(rank: RankPlan) -> str:
    """All of a rank but the numbers of its cpus."""
    env, places = dict(rank.env), rank.places
    threads = threads_of(rank)
    sizes = sorted({len(p) for p in places})
    size = f"{sizes[0]}" if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]}" if sizes else "0"
    count = counted(threads, "thread")
    cpus = "1 cpu" if sizes == [1] else f"{size} cpus"
    if len(places) == 1:
        text = f"{count} move freely over its {cpus}"
    else:
        bind = env.get("OMP_PROC_BIND", "").partition(",")[0]
        text = f"{count} in {len(places)} places of {cpus} each, {LAID_OUT.get(bind, bind)}"
    nodes = f"on {label('node', rank.nodes)}" if rank.nodes else ""
    memory = MEMORY[rank.mem].format(mems=label("node", rank.mems))
    gpus = f"its {plural('GPU', len(rank.gpus))}: {', '.join(rank.gpus)}" if rank.gpus else ""
    return "; ".join(part for part in (nodes, text, memory, gpus) if part)
