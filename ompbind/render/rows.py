"""What a plan's ranks get, as rows of words: the table of `show`, and pictures' legend. Pure."""

from __future__ import annotations

import os

from ompbind.cpuset import label_numbers, union
from ompbind.messages import counted, format_size, label
from ompbind.plans import DEVICES, describe_numbers, describe_policy
from ompbind.render.escape import quote_word
from ompbind.render.lists import short_list
from ompbind.render.words import Row, Rows
from ompbind.saved import foreign_variables
from ompbind.worker.libraries import name_allocator
from ompbind.worker.runtimes import family_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ompbind.cpuset import CpuSet
    from ompbind.machine.topology import Machine
    from ompbind.plans import Plan, RankPlan, Role, Server, Task

RIGHT = ("rank", "threads")  # columns of numbers
MANY_ROLES = 4  # of one name; more are one line
MANY_RANKS = 16  # more are folded where they are alike
FOLDED = "ranks alike are one line; --rank R shows rank R"


def make_rows(plan: Plan, rank: int | None = None) -> Rows:
    """Return a row for each rank, or one for many that are alike, or those of the plan's server;
    `rank`: only its own."""
    if plan.server:
        return make_server_rows(plan.ranks[0], plan.server)
    kinds = [short for field, short, _ in DEVICES if any(getattr(r, field) for r in plan.ranks)]
    columns = ("rank", *["group"] * bool(plan.groups), "cpus", "places", "threads", "node",
               "memory", *kinds, "why")  # fmt: skip
    chosen = plan.ranks if rank is None else (plan.ranks[rank],)
    runs = fold_ranks(chosen)
    rows = tuple(
        make_row(ranks[0], kinds) if len(ranks) == 1 else make_folded_row(ranks, kinds)
        for ranks in runs
    )
    return Rows(columns, rows, FOLDED if any(len(ranks) > 1 for ranks in runs) else "")


def make_row(r: RankPlan, kinds: Sequence[str]) -> Row:
    """Return the row of a rank. `kinds`: of devices, those that have a column."""
    devices = {short: " ".join(map(short_name, names)) for short, _, names in r.devices}
    cells = (
        str(r.number),
        *([r.group] if r.group else []),
        short_list(r.cpus),
        places_text(r) or "-",
        threads_text(r),
        short_list(r.nodes) or "-",
        memory_text(r, short_list(r.mems)),
        *(devices.get(kind, "-") for kind in kinds),
        r.why,
    )
    return Row(cells, r.number)


def memory_text(rank: RankPlan, nodes: str) -> str:
    """Return a rank's memory policy: `bind 0-1, balanced`, `weighted-interleave 0,2 by 5:1`."""
    text = f"{rank.mem} {nodes}".strip()
    if rank.weights:
        text += f" by {':'.join(str(weight) for _, weight in rank.weights)}"
    text += ", balanced" if rank.binding.balancing else ""
    return f"{text}, needs {format_size(rank.need)}" if rank.need else text


def make_folded_row(ranks: Sequence[RankPlan], kinds: Sequence[str]) -> Row:
    """Return the row of several ranks that are alike."""
    r, last = ranks[0], ranks[-1]
    places = "one each" if is_one_place(r) else f"{len(r.places)} each" if r.places else "-"
    cells = (
        f"{r.number}-{last.number}",
        *([r.group] if r.group else []),
        f"{len(r.cpus)} each",
        places,
        threads_text(r),
        describe_nodes([x.nodes for x in ranks]),
        memory_text(r, describe_nodes([x.mems for x in ranks]) if r.mems else ""),
        *["-"] * len(kinds),
        r.why if r.why == last.why else f"{r.why} … {last.why}",
    )
    return Row(cells)


def make_server_rows(rank: RankPlan, server: Server) -> Rows:
    """Return which process gets what: the server's own, each worker, and what is kept beside the
    workers."""
    with_gpus = any(w.gpus for w in server.workers)
    none = ["-"] if with_gpus else []
    policy = describe_policy(rank.mem, rank.mems)
    rows = [
        Row(("server", short_list(rank.cpus), short_list(rank.nodes) or "-", policy, *none,
             "all that it starts stays here"))
    ]  # fmt: skip
    for w in server.workers:
        gpus = [" ".join(w.gpus) or "-"] if with_gpus else []
        cells = (f"worker {w.worker}", short_list(w.cpus), short_list(w.nodes) or "-",
                 describe_policy(w.mem, w.mems), *gpus, w.why)  # fmt: skip
        rows.append(Row(cells, w.worker))
    if server.rest:
        rows.append(Row(("the rest", short_list(server.rest), "-", policy, *none,
                         "left to its engine and its front end")))  # fmt: skip
    columns = ("process", "cpus", "node", "memory", *["gpu"] * with_gpus, "why")
    return Rows(columns, tuple(rows))


def fold_ranks(ranks: Sequence[RankPlan], most: int = MANY_RANKS) -> list[tuple[RankPlan, ...]]:
    """Return the ranks, where there are many those of one kind that follow each other together."""
    if len(ranks) <= most:
        return [(r,) for r in ranks]
    runs: list[tuple[RankPlan, ...]] = []
    for r in ranks:
        if runs and kind_of(runs[-1][0]) == kind_of(r):
            runs[-1] += (r,)
        else:
            runs.append((r,))
    return [part for run in runs for part in ([run] if len(run) > 3 else [(r,) for r in run])]


def kind_of(rank: RankPlan) -> tuple[object, ...]:
    """Return what a row tells of a rank but for the numbers of cpus and nodes."""
    places = [len(place) for place in rank.places]
    nodes = len(rank.nodes), len(rank.mems)
    return (
        rank.group, len(rank.cpus), places, threads_text(rank), rank.mem, nodes,
        rank.binding.balancing, rank.weights, rank.need,
        bool(rank.devices) and rank.rank,
    )  # fmt: skip


def threads_text(rank: RankPlan) -> str:
    return dict(rank.env).get("OMP_NUM_THREADS", "-")


def describe_nodes(sets: Sequence[CpuSet]) -> str:
    """Return the nodes of ranks that are alike: `0` of all, `of 0-3` for one each, else how many
    each has."""
    if all(nodes == sets[0] for nodes in sets):
        return short_list(sets[0]) or "-"
    return f"{len(sets[0])} each" if len(sets[0]) > 1 else f"of {short_list(union(sets))}"


def is_one_place(rank: RankPlan) -> bool:
    return rank.places == (rank.cpus,)


def short_name(device: str) -> str:
    """Return a name as it is, and of a UUID the beginning, which identifies it as well."""
    return device if len(device) <= 16 else f"{device[:12]}…"


def places_text(rank: RankPlan, most: int = 4) -> str:
    """Return places as sets, `{0} {1} … {7} (8)`; `one`: a single place of all the rank's cpus."""
    if is_one_place(rank):
        return "one"
    texts = [f"{{{short_list(p)}}}" for p in rank.places]
    if len(texts) <= most:
        return " ".join(texts)
    return f"{' '.join(texts[: most - 2])} … {texts[-1]} ({len(texts)})"


def describe_engine(task: Task) -> list[str]:
    """Return lines on the engine that started this rank, and on those that were passed over."""
    lines = []
    if task:
        lines.append(f"{task.label}: {describe_numbers(task)}")
        lines.append(f"  known by {task.by}")
        lines += [f"  {text}" for text in (task.why, task.note) if text]
    return lines + [f"{name} is passed over: {why}" for name, why in task.passed_over]


def describe_groups(plan: Plan) -> list[str]:
    """Return a line for each group that waits for others, or that others wait for."""
    lines = []
    for group in plan.groups:
        parts = [f"started after {', '.join(group.after)}"] if group.after else []
        parts += [f"ready: {', '.join(group.ready)}"] if group.ready else []
        parts += ["ended when the other groups have exited"] if group.background else []
        if parts:
            lines.append(f"{group.name}: {'; '.join(parts)}")
    return lines or ["all groups are started at once"]


def describe_programs(plan: Plan) -> list[str]:
    """Return lines on what ranks' programs have beside their binding: OpenMP's places, threads of
    other pools, huge pages, libraries and files."""
    lines = [plan.omp_text or plan.places_why, *describe_thread_pools(plan)]
    lines += [*describe_huge_pages(plan), *describe_preloads(plan), *describe_files(plan)]
    return [line for line in lines if line]


def describe_thread_pools(plan: Plan) -> list[str]:
    """Return a line on thread pools beside OpenMP's, if the plan gives them threads."""
    if not plan.pools:
        return []
    parts = ["as many threads each"]
    for how, text in (("kept", "kept as you set them"), ("unreached", "out of reach")):
        names = [pool.name for pool in plan.pools if pool.how == how]
        parts += [f"{text}: {', '.join(names)}"] if names else []
    return [f"other thread pools: {'; '.join(parts)}"]


HUGE_PAGES = {"thp": "transparent", "2M": "reserved, of 2 MiB"}


def describe_huge_pages(plan: Plan) -> list[str]:
    """Return a line on the huge pages that ranks' allocators take, if they do."""
    return [f"huge pages: {HUGE_PAGES[plan.huge_pages]}"] if plan.huge_pages else []


def describe_preloads(plan: Plan) -> list[str]:
    """Return a line for the libraries that ranks preload, or one for all ranks that preload the
    same."""
    ranks: dict[tuple[str, ...], list[int]] = {}
    for r in plan.ranks:
        ranks.setdefault(r.preloads, []).append(r.number)
    lines = []
    for preloads, numbers in ranks.items():
        who = f"{label_numbers('rank', numbers)}: " if len(ranks) > 1 else ""
        if preloads:
            lines.append(f"{who}preloaded: {', '.join(map(name_preload, preloads))}")
    return lines


def describe_files(plan: Plan) -> list[str]:
    """Return a line for each file: `warm: /m/model.bin, 14.2 GiB on node 1`."""
    lines = []
    for file in plan.warm:
        target = {
            "preferred": f" on {label('node', file.mems)}",
            "interleave": f" interleaved over {label('node', file.mems)}",
        }.get(file.mem, " in memory")
        lines.append(f"warm: {file.path}, {format_size(file.bytes)}{target}")
    return lines


def name_preload(path: str) -> str:
    """Return a library's path, with the name of the allocator or OpenMP runtime that it is."""
    file = os.path.basename(path)
    name = name_allocator(file) or family_of(file)
    return f"{name} ({path})" if name else path


def list_unassigned(plan: Plan, machine: Machine | None = None) -> list[str]:
    """Return a line for each kind of cpus that no rank has."""
    idle, lines = plan.idle, list_roles(plan.roles)
    if plan.reserved and not plan.server:
        lines.append(f"reserved: cpus {short_list(plan.reserved)}")
    if plan.part:
        others = short_list(plan.others)
        lines.append(f"part {plan.part} of the machine; the other parts: cpus {others}")
    if plan.unused:
        lines.append(f"left over: cpus {short_list(plan.unused)} (cores without a rank)")
    if plan.excluded:
        lines.append(f"excluded: cpus {short_list(plan.excluded)}")
    if machine is not None:
        threads = union(c for c in machine.topology.groups("core") if c & plan.taken) & idle
        if threads:
            count = counted(len(threads), "further hardware thread")
            lines.append(f"idle: {count} of cores in use")
        idle -= threads
    if idle:
        lines.append(f"not used: cpus {short_list(idle)}")
    if machine is not None and machine.topology.offline:
        lines.append(f"offline: cpus {short_list(machine.topology.offline)}")
    return lines or ["every allowed cpu is in use"]


def list_roles(roles: Sequence[Role]) -> list[str]:
    """Return a line for each role, or one for many of the same name."""
    by_name: dict[str, list[Role]] = {}
    for role in roles:
        by_name.setdefault(role.name, []).append(role)
    lines = []
    for name, alike in by_name.items():
        groups = [[role] for role in alike] if len(alike) <= MANY_ROLES else [alike]
        for group in groups:
            cpus = short_list(union(role.cpus for role in group))
            ranks = label("rank", union(role.ranks for role in group))
            whose = f"each of {ranks} has some" if group[1:] else f"of {ranks}"
            threads = ", ".join(group[0].threads)
            whose += f", for threads called {threads}" if threads else ""
            lines.append(f"role {name}: cpus {cpus}, {whose}")
    return lines


def describe_plan(plan: Plan) -> tuple[str, str]:
    """Return whom the plan is for, `4 ranks on n0`, and what of the machine may be used."""
    host = plan.host
    subject = describe_server(plan.server) if plan.server else counted(len(plan.ranks), "rank")
    text = f"{len(host.allowed)} of {len(host.cpus)} cpus allowed"
    text += f", {counted(len(host.nodes), 'NUMA node')}"
    if host.quota is not None:
        text += f", quota {host.quota:g} cpus"
    how = {"numactl": "bound by numactl", "native": "bound natively", "none": "not bound"}
    return subject + (f" on {host.name}" if host.name else ""), f"{text}; {how[plan.binder]}"


def describe_server(server: Server) -> str:
    """Return `1 vLLM 0.32.0 server with 2 workers`."""
    name = f"{server.name} {server.version}".strip()
    return f"1 {name} server with {counted(len(server.workers), 'worker')}"


def list_oddities(plan: Plan, rank: int, most: int = 8) -> list[str]:
    """Return a line for each other rank of its group that executes another program than this one,
    or has other variables that no planner writes: a saved plan is a program."""
    shown = plan.ranks[rank]
    lines = []
    for r in plan.ranks:
        if r.group != shown.group:
            continue
        if r.command[:1] != shown.command[:1]:
            program = r.command[0] if r.command else "nothing"
            lines.append(f"rank {r.rank} executes another program: {program}")
        env, other = foreign_variables(r), foreign_variables(shown)
        for name in sorted(env.keys() | other.keys()):
            if env.get(name) != other.get(name):
                value = f"{name}={env[name]}" if name in env else f"no {name}"
                lines.append(f"rank {r.rank} has {value}")
    more = (
        [f"and {len(lines) - most} more differences: --rank R shows them"] if lines[most:] else []
    )
    return lines[:most] + more


def command_text(plan: Plan, rank: int) -> str:
    """Return what a rank executes as a line for a shell: `env` sets and removes its variables."""
    chosen = plan.ranks[rank]
    unset = [word for name in chosen.unset for word in ("-u", name)]
    words = ["env", *unset, *(f"{k}={quote_word(v)}" for k, v in chosen.env)]
    return " ".join([*words, *map(quote_word, chosen.argv)])
