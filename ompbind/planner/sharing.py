"""What the ranks of a plan share: cores, caches, memory. From the plan and the topology; pure."""

from __future__ import annotations

from ompbind.cpuset import CpuSet
from ompbind.machine.topology import LEVELS
from ompbind.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ompbind.machine.topology import Machine, Topology
    from ompbind.plans import Plan

CPU, MEMORY = "cpu", "memory"  # beside the levels of the topology
# Of levels with as many groups, which are the same ones on most machines, the first one here is
# named. A node stands for its memory.
NAMED = (CPU, "core", "l3", "node", "package", "l2", "cluster", "die", "book", "drawer")


class Holder(Record):
    """What a rank, or a server's worker, has: its cpus and the nodes of its memory."""

    number: int
    cpus: CpuSet
    nodes: CpuSet


class Sharing(Record):
    """Ranks that share parts of the machine. `level`: "cpu", "memory" or a level of the topology;
    `numbers`: the parts' numbers at that level, of memory its nodes'; `ranks`: two or more, by
    position in the plan, or a server's workers."""

    level: str
    numbers: CpuSet
    ranks: CpuSet


def find_sharing(plan: Plan, topology: Topology) -> list[Sharing]:
    """Return what ranks share, the smallest parts of the machine first.

    Ranks that share several parts are named with the smallest only: those of one L3 are on one node
    as well. So the first entry that has two ranks says the deepest level at which they meet.
    """
    holders = list_holders(plan)
    sharing: list[Sharing] = []
    said: set[int] = set()
    for level in order_levels(topology):
        numbers_by_ranks: dict[int, int] = {}
        for number, ranks in find_users(level, holders, topology).items():
            if ranks & (ranks - 1):
                numbers_by_ranks[ranks] = numbers_by_ranks.get(ranks, 0) | 1 << number
        name = MEMORY if level == "node" else level
        sharing += [
            Sharing(name, CpuSet.from_mask(numbers), CpuSet.from_mask(ranks))
            for ranks, numbers in numbers_by_ranks.items()
            if ranks not in said
        ]
        said |= numbers_by_ranks.keys()
    return sharing


def list_sharing(plan: Plan, machine: Machine | None) -> list[dict[str, str]] | None:
    """Return what ranks share as the JSON has it; None where the plan's machine is not known."""
    if machine is None:
        return None
    return [
        {"level": entry.level, "numbers": str(entry.numbers), "ranks": str(entry.ranks)}
        for entry in find_sharing(plan, machine.topology)
    ]


def list_holders(plan: Plan) -> list[Holder]:
    """Return what each rank has, or each worker of the plan's server. Where no policy names nodes,
    memory comes from those of the cpus."""
    if plan.server is not None:
        return [Holder(w.worker, w.cpus, w.mems or w.nodes) for w in plan.server.workers]
    return [Holder(r.rank, r.cpus, r.mems or r.nodes) for r in plan.ranks]


def order_levels(topology: Topology) -> list[str]:
    """Return the levels that the machine names, finest first."""
    sizes: dict[str, int] = {
        level: len(topology.groups(level)) for level in LEVELS if level != "kind"
    }
    sizes[CPU] = len(topology.cpus)
    known = [level for level in NAMED if sizes[level]]
    return sorted(known, key=lambda level: (-sizes[level], NAMED.index(level)))


def find_users(level: str, holders: Sequence[Holder], topology: Topology) -> dict[int, int]:
    """Return the ranks that have something of each part at a level, as a mask by the part's number;
    in the order of the lowest rank."""
    group_of: dict[int, int] = {}
    if level in LEVELS:
        group_of = {c.cpu: number for c in topology.cpus
                    if (number := getattr(c, level)) is not None}  # fmt: skip
    parts_of: dict[CpuSet, list[int]] = {}  # many ranks may have the same thousand cpus
    users: dict[int, int] = {}
    for holder in holders:
        mine = holder.nodes if level == "node" else holder.cpus
        if mine not in parts_of:
            if level in ("node", CPU):
                parts_of[mine] = list(mine)
            else:
                parts_of[mine] = sorted({group_of[cpu] for cpu in mine if cpu in group_of})
        for number in parts_of[mine]:
            users[number] = users.get(number, 0) | 1 << holder.number
    return users
