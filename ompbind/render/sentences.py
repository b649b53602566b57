"""Sentences that explain a plan: why each rank has what it has."""

from __future__ import annotations

import os

from ompbind.cpuset import CpuSet, label_numbers, union
from ompbind.messages import counted, format_size, label, plural
from ompbind.openmp.thread_pools import describe_pools
from ompbind.render.sharing import explain_sharing
from ompbind.worker.libraries import name_allocator
from ompbind.worker.runtimes import family_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ompbind.machine.topology import Machine
    from ompbind.plans import Plan, RankPlan, Server

MEMORY = {
    "bind": "memory comes from {mems} only",
    "preferred": "memory comes from {mems} first, from others when {full} full",
    "interleave": "memory is interleaved page by page over {mems}",
    "weighted-interleave": "memory is interleaved over {mems} by the kernel's weights",
    "local": "memory comes from the node of the thread that first writes to it",
    "none": "no memory policy is set",
}
HUGE_PAGES = {
    "thp": "Allocators ask for transparent huge pages, which the kernel gives where it can.",
    "2M": "Allocators take reserved huge pages of 2 MiB, and others when these run out.",
}
DISTRIBUTION = {  # of threads, by OMP_PROC_BIND
    "close": "next to each other",
    "spread": "as far apart as possible",
    "master": "all in the place of the first",
    "primary": "all in the place of the first",
    "true": "bound as the runtime chooses",
}


def explain(plan: Plan, machine: Machine | None = None) -> list[str]:
    """Return sentences on the machine, its threads, each kind of rank, and what ranks share, where
    the machine is known that the plan is for."""
    each = explain_server(plan, plan.server) if plan.server else explain_ranks(plan)
    pools = [f"Other thread pools: {describe_pools(plan.pools)}."] if plan.pools else []
    huge = [HUGE_PAGES[plan.huge_pages]] if plan.huge_pages else []
    more = [*pools, *huge, *explain_preloads(plan), *explain_files(plan)]
    more += explain_sharing(plan, machine)
    return [*explain_machine(plan), *explain_budget(plan), *each, *more]


def explain_machine(plan: Plan) -> list[str]:
    """Return sentences on what there was to divide."""
    host = plan.host
    online, allowed = len(host.cpus), len(host.allowed)
    nodes = counted(len(host.nodes), "node")
    usable = "all are allowed" if online == allowed else f"{allowed} are allowed: {host.allowed}"
    sentences = [f"The machine has {counted(online, 'cpu')} on {nodes}; {usable}."]
    for n in plan.narrowed:
        reset = "; --inherited ignore resets it" if n.action == "widened" else ""
        sentences.append(f"Its {n.name} was restricted to {n.value} by {n.why}{reset}.")
    if plan.part:
        sentences.append(f"This is part {plan.part}: cpus {plan.others} belong to other parts.")
    if plan.reserved:
        others = "its engine and front end" if plan.server else "other work (--reserve)"
        sentences.append(f"{count_cpus(plan.reserved)} kept free for {others}.")
    for role in plan.roles:
        sentences.append(
            f"{count_cpus(role.cpus)} set aside as {role.name} for {label('rank', role.ranks)}, "
            f"in {' and '.join(name for name, _ in role.environment())}."
        )
    return sentences


def count_cpus(cpus: CpuSet) -> str:
    """Return the start of a sentence: `Cpus 0-3 are`, `Cpu 0 is`."""
    return f"Cpus {cpus} are" if len(cpus) > 1 else f"Cpu {cpus} is"


def explain_budget(plan: Plan) -> list[str]:
    """Return a sentence that compares the threads with the cpus and the quota."""
    threads = sum(map(threads_of, plan.ranks))
    cpus = len(union(r.cpus for r in plan.ranks))
    ranks = len(plan.ranks)
    if plan.omp == "off":
        limit = "no quota limits their time"
        if plan.host.quota is not None:
            limit = f"the cgroup's quota is worth {plan.host.quota:g} cpus' time"
        return [f"The threads of {counted(ranks, 'rank')} have {counted(cpus, 'cpu')}; {limit}."]
    of_ranks = f" of {ranks} ranks" if ranks > 1 else ""
    who = f"{counted(threads, 'thread')}{of_ranks}"
    text = f"{who} {verb(threads, 'run')} on {counted(cpus, 'cpu')}"
    quota = plan.host.quota
    if quota is None:
        return [f"{text}; no quota limits their time."]
    if threads <= max(quota, 1):
        return [f"{text}, within the cgroup's quota of {quota:g} cpus' worth of time."]
    return [f"{text}; the cgroup's quota of {quota:g} cpus' worth of time throttles them."]


def verb(count: int, word: str) -> str:
    """Return a verb for so many: `1 thread runs`, `2 threads run`."""
    return f"{word}s" if count == 1 else word


def threads_of(rank: RankPlan) -> int:
    text = dict(rank.env).get("OMP_NUM_THREADS", "").partition(",")[0]
    return int(text) if text.isascii() and text.isdigit() and len(text) < 9 else 0


def explain_ranks(plan: Plan) -> list[str]:
    """Return a line for each kind of rank; ranks of one kind differ only in their cpus."""
    kinds: dict[tuple[str, str], list[RankPlan]] = {}
    for rank in plan.ranks:
        why = rank.why_shared or rank.why
        kinds.setdefault((why, explain_one(rank)), []).append(rank)
    lines = []
    for (why, text), ranks in kinds.items():
        who = label_numbers("rank", [r.number for r in ranks]).capitalize()
        shown = [label("cpu", r.cpus) for r in ranks[:4]] + ["…"] * (len(ranks) > 4)
        cpus = ", ".join(shown) + (" respectively" if ranks[1:] else "")
        if all(r.cpus == ranks[0].cpus for r in ranks):
            cpus = shown[0] + (" each" if ranks[1:] else "")
        reason = why if ranks[1:] else ranks[0].why
        because = f" ({reason})" if reason else ""
        lines.append(f"{who}: {cpus}{because}; {text}.")
    if plan.omp_text:
        lines.append(f"{plan.omp_text}.")
    elif plan.places_why:
        lines.append(f"OpenMP places: {plan.places_why}.")
    return lines


def explain_files(plan: Plan) -> list[str]:
    """Return a sentence for each file that is read into memory before."""
    places = {
        "preferred": "onto {mems}, and from elsewhere dropped and read again",
        "interleave": "page by page over {mems}, and from elsewhere dropped and read again",
    }
    return [
        f"{f.path} ({format_size(f.bytes)}) is read into memory before the ranks start"
        f"{', ' * bool(f.mems)}{places.get(f.mem, '').format(mems=label('node', f.mems))}."
        for f in plan.warm
    ]


def explain_preloads(plan: Plan) -> list[str]:
    """Return a sentence for each library that ranks preload."""
    lines = []
    for path in dict.fromkeys(path for rank in plan.ranks for path in rank.preloads):
        file, who = os.path.basename(path), ""
        ranks = [r.number for r in plan.ranks if path in r.preloads]
        if len(ranks) < len(plan.ranks):
            who = f" by {label_numbers('rank', ranks)}"
        effect = ""
        if name := name_allocator(file):
            effect = f": {name} takes the place of the C library's allocator"
        elif name := family_of(file):
            effect = f": {name} is the first OpenMP runtime that programs find"
        lines.append(f"{path} is loaded before all other libraries{who}{effect}.")
    return lines


def explain_server(plan: Plan, server: Server) -> list[str]:
    """Return sentences on which process of a server gets what, and how it is told."""
    rank, name = plan.ranks[0], f"{server.name} {server.version}".strip()
    memory = explain_policy(rank.mem, rank.mems)
    cpus = label("cpu", rank.cpus)
    lines = [f"One {name} server: {cpus}, for itself and all that it starts; {memory}."]
    for w in server.workers:
        nodes = f"; on {label('node', w.nodes)}" if w.nodes else ""
        gpus = f"; its {plural('GPU', len(w.gpus))}: {', '.join(w.gpus)}" if w.gpus else ""
        bound = explain_policy(w.mem, w.mems)
        because = f" ({w.why})" if w.why else ""
        lines.append(f"Worker {w.worker}: {label('cpu', w.cpus)}{because}{nodes}{gpus}; {bound}.")
    if server.rest:
        lines.append(
            f"Its engine and its front end run on any of the server's cpus; "
            f"{label('cpu', server.rest)} no worker has."
        )
    how = f"in {server.variable}" if server.variable else f"by {' '.join(server.words)}"
    lines.append(f"{server.name} gets its workers' cpus {how}, and binds them itself.")
    lines.append(f"{plan.omp_text}.")
    return lines


def explain_policy(mem: str, mems: CpuSet, why: str = "") -> str:
    """Return what a memory policy does; `why`: the reason for its nodes, "" for none."""
    nodes = label("node", mems) + (f" ({why})" if why else "")
    return MEMORY[mem].format(mems=nodes, full="these are" if len(mems) > 1 else "that is")


def explain_memory(rank: RankPlan) -> str:
    """Return where a rank's memory comes from."""
    text = explain_policy(rank.mem, rank.mems, rank.mem_why)
    if rank.weights:
        pages = [f"{counted(weight, 'page')} of node {node}" for node, weight in rank.weights]
        text += f" ({', then '.join(pages)})"
    if rank.binding.balancing:
        text += ", and the kernel migrates pages among them to the threads that use them"
    if rank.need:
        text += f"; it needs {format_size(rank.need)}, which must be there before anything starts"
    return text


def explain_one(rank: RankPlan) -> str:
    """Return everything about a rank but the numbers of its cpus."""
    env, places = dict(rank.env), rank.places
    threads = threads_of(rank)
    sizes = sorted({len(p) for p in places})
    size = f"{sizes[0]}" if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]}" if sizes else "0"
    count = counted(threads, "thread")
    cpus = "1 cpu" if sizes == [1] else f"{size} cpus"
    if not places:
        text = f"{count} bound as the program itself decides" if threads else ""
        text = text or "threads as many, and bound, as the program itself decides"
    elif len(places) == 1:
        text = f"{count} {verb(threads, 'move')} freely over its {cpus}"
    else:
        bind = env.get("OMP_PROC_BIND", "").partition(",")[0]
        text = f"{count} in {len(places)} places of {cpus} each, {DISTRIBUTION.get(bind, bind)}"
    nodes = f"on {label('node', rank.nodes)}" if rank.nodes else ""
    memory = explain_memory(rank)
    devices = [f"its {plural(noun, len(names))}: {', '.join(names)}"
               for _, noun, names in rank.devices]  # fmt: skip
    if rank.nics_why:
        devices[-1] += f" ({rank.nics_why})"
    return "; ".join(part for part in (nodes, text, memory, *devices) if part)
