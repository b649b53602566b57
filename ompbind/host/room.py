"""Whether the memory that ranks are said to need (--mem-need) is there: free, or holding files that
can be read again.

What ranks are bound to must be on their nodes; any other policy takes memory of other nodes when
its own are full. Of another machine only the sizes of its nodes are known.
"""

from __future__ import annotations

from ompbind.cpuset import CpuSet, label_numbers, union
from ompbind.errors import PlanError
from ompbind.machine.free_memory import (
    NodeMemory,
    read_cgroup_room,
    read_machine_room,
    read_node_memory,
)
from ompbind.messages import format_size, label, plural
from ompbind.plans import Caution
from ompbind.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from ompbind.machine.roots import Root
    from ompbind.machine.topology import Machine
    from ompbind.plans import Plan


ACCOUNTING = "memory_hugetlb_accounting"  # an option with which cgroups are mounted


class Demand(Record):
    """What a rank, or a server's worker, needs."""

    name: str
    number: int
    need: int  # bytes
    mem: str  # its memory policy
    mems: CpuSet


class Room(Record):
    """The memory that may be taken."""

    nodes: Mapping[int, NodeMemory]
    whole: NodeMemory | None = None  # the machine's, where it says nothing of its nodes
    cgroup: int | None = None  # bytes that the cgroup lets this process take; None: all
    is_now: bool = True  # what is free at this moment, and not the size of another machine


def check_room(plan: Plan, machine: Machine, root: Root | None) -> Plan:
    """Return the plan, with a warning for ranks whose preferred nodes do not have what they need.
    `root`: where this machine's memory is read; None: the plan is for another one, of which only
    the size is known. Raises PlanError where there is less than the ranks need together."""
    demands = list_demands(plan)
    room = read_room(machine, root)
    if plan.huge_pages == "2M" and root is not None:
        room = add_reserved(room, root)
    check_nodes(demands, room)
    check_total(demands, room)
    cautions = warn_of_overflow(demands, room)
    return plan.warn(*cautions) if cautions else plan


def list_demands(plan: Plan) -> list[Demand]:
    """Return what each rank needs; of a server's one rank each worker an equal part."""
    if plan.server:
        need = -(-plan.ranks[0].need // len(plan.server.workers))
        workers = plan.server.workers
        return [Demand(str(w.worker), w.worker, need, w.mem, w.mems) for w in workers]
    return [Demand(r.name, r.number, r.need, r.mem, r.mems) for r in plan.ranks if r.need]


def read_room(machine: Machine, root: Root | None) -> Room:
    """Return the memory that may be taken of this machine, or without `root` what a machine has."""
    allowed = machine.allowed.nodes
    if root is None:
        sizes = {n.node: n.memory_bytes for n in machine.topology.nodes}
        known = {n: NodeMemory(s, s) for n, s in sizes.items() if s is not None and n in allowed}
        return Room(known, is_now=False)
    states = {node: read_node_memory(root, node) for node in allowed}
    known = {node: state for node, state in states.items() if state is not None}
    return Room(known, read_machine_room(root), read_cgroup_room(root))


def add_reserved(room: Room, root: Root) -> Room:
    """Return the memory that may be taken with the huge pages that are reserved and free: the
    kernel counts these as used, and a cgroup's limit of memory holds for them only where cgroups
    are mounted so. Source: the kernel's cgroup-v2.rst (memory_hugetlb_accounting)."""
    from ompbind.host.huge_pages import BYTES, read_huge_pages

    pages = read_huge_pages(root)
    # Pages on demand are made of memory that is free, and counted there.
    free = max((pages.reserved or 0) - pages.on_demand, 0)
    counts = dict(pages.by_node)
    nodes = {
        node: state.replace(available=state.available + min(counts.get(node, 0), free) * BYTES)
        for node, state in room.nodes.items()
    }
    whole, cgroup = room.whole, room.cgroup
    if whole is not None:
        whole = whole.replace(available=whole.available + free * BYTES)
    if cgroup is not None and ACCOUNTING not in (root.read("proc/self/mounts") or ""):
        cgroup += free * BYTES
    return room.replace(nodes=nodes, whole=whole, cgroup=cgroup)


def check_nodes(demands: Sequence[Demand], room: Room) -> None:
    """Refuse ranks that are bound to nodes with less than they need together. Raises PlanError."""
    bound = [demand for demand in demands if demand.mem == "bind"]
    for nodes in list_node_sets({demand.mems for demand in bound}):
        inside = [demand for demand in bound if demand.mems <= nodes]
        state = add_up(room, nodes)
        if state is None or sum(d.need for d in inside) <= state.available:
            continue
        others = CpuSet(room.nodes) - nodes
        elsewhere = add_up(room, others)
        hint = "fewer ranks, or less for each"
        if others and elsewhere and elsewhere.available:
            have = "has" if len(others) == 1 else "have"
            hint = f"{label('node', others)} {have} {format_size(elsewhere.available)}; "
            hint += "--mem preferred takes memory of other nodes when these are full"
        raise too_little(inside, label("node", nodes), len(nodes), state, room, hint)


def check_total(demands: Sequence[Demand], room: Room) -> None:
    """Refuse ranks that need more together than there is. Raises PlanError."""
    total = sum(demand.need for demand in demands)
    hint = "fewer ranks, or less for each"
    if room.cgroup is not None and total > room.cgroup:
        raise PlanError(
            f"{name_ranks(demands)} {format_size(total)} (--mem-need), and the cgroup's limit "
            f"leaves {format_size(room.cgroup)}",
            hint=hint,
            wanted=total,
            available=room.cgroup,
        )
    state = add_up(room, CpuSet(room.nodes)) if room.nodes else room.whole
    if state is not None and total > state.available:
        raise too_little(demands, "all nodes that are allowed", 2, state, room, hint)


def warn_of_overflow(demands: Sequence[Demand], room: Room) -> list[Caution]:
    """Return a warning for ranks whose nodes do not have what they need, but may get it from
    others."""
    cautions = []
    soft = [d for d in demands if d.mem not in ("bind", "local", "none")]
    for nodes in dict.fromkeys(d.mems for d in soft):
        inside = [d for d in soft if d.mems == nodes]
        total, state = sum(d.need for d in inside), add_up(room, nodes)
        if state is not None and total > state.available:
            text = (
                f"{name_ranks(inside)} {format_size(total)} (--mem-need), more than "
                f"{label('node', nodes)} {describe(state, len(nodes), room)}: the rest comes from "
                "other nodes"
            )
            cautions.append(Caution("memory", text))
    return cautions


def list_node_sets(sets: set[CpuSet]) -> list[CpuSet]:
    """Return these sets, and of those that overlap each other the unions."""
    joined: list[CpuSet] = []
    for nodes in sorted(sets, key=str):
        near = [other for other in joined if other & nodes]
        joined = [other for other in joined if not other & nodes]
        joined.append(union([nodes, *near]))
    return sorted({*sets, *joined}, key=lambda nodes: (len(nodes), str(nodes)))


def add_up(room: Room, nodes: Iterable[int]) -> NodeMemory | None:
    """Return the memory of several nodes; None where one of them is unknown."""
    states = [room.nodes.get(node) for node in nodes]
    known = [state for state in states if state is not None]
    if not known or len(known) < len(states):
        return None
    return NodeMemory(sum(s.total for s in known), sum(s.available for s in known))


def too_little(
    demands: Sequence[Demand], nodes: str, count: int, state: NodeMemory, room: Room, hint: str
) -> PlanError:
    total = sum(demand.need for demand in demands)
    return PlanError(
        f"{name_ranks(demands)} {format_size(total)} (--mem-need) of {nodes}, which "
        f"{describe(state, count, room)}",
        hint=hint,
        rank=demands[0].number,
        wanted=total,
        available=state.available,
    )


def describe(state: NodeMemory, count: int, room: Room) -> str:
    """Return how much memory nodes have: `has 61.2 GiB free or reclaimable, of 64.0 GiB`."""
    have = "has" if count == 1 else "have"
    if not room.is_now:
        return f"{have} {format_size(state.total)} in all"
    free = format_size(state.available)
    return f"{have} {free} free or reclaimable, of {format_size(state.total)}"


def name_ranks(demands: Sequence[Demand]) -> str:
    """Return who needs: `rank 0 needs`, `ranks 0-3 need`."""
    verb = "needs" if len(demands) == 1 else "need"
    if all(d.name == str(d.number) for d in demands):
        return f"{label_numbers('rank', [d.number for d in demands])} {verb}"
    return f"{plural('rank', len(demands))} {', '.join(d.name for d in demands)} {verb}"
