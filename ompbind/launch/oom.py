"""What the kernel's OOM killer probably killed a rank for: its cgroup's limit, the nodes that its
memory is bound to, or the whole machine.

Only loaded when a rank was killed so. The state is that after its end, when its memory is free.
"""

from __future__ import annotations

from ompbind.cpuset import CpuSet
from ompbind.machine.free_memory import is_at_memory_limit, read_node_memory
from ompbind.messages import format_size, label

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ompbind.machine.roots import Root
    from ompbind.plans import RankPlan

KILLER = "probably the kernel's OOM killer"


def explain_oom(root: Root, rank: RankPlan, nodes: CpuSet) -> tuple[str, str]:
    """Return a remark on the signal that ended a rank, and a hint, "" without one. `nodes`: those
    of the machine that memory may be taken from."""
    if is_at_memory_limit(root):
        return f"{KILLER}: its cgroup has been at its limit of memory", ""
    others = nodes - rank.mems
    if rank.mem != "bind" or not others:
        return KILLER, ""
    remark = f"{KILLER}: no memory left on {label('node', rank.mems)}, to which it is bound"
    states = {node: read_node_memory(root, node) for node in nodes}
    known = {node: state for node, state in states.items() if state}
    sizes = [
        f"{format_size(state.available)} of {format_size(state.total)} free on node {node} now"
        for node, state in known.items()
        if node in rank.mems
    ]
    free = sum(state.available for node, state in known.items() if node in others)
    advice = "--mem preferred takes memory of other nodes when these are full"
    if free:
        sizes.append(f"{format_size(free)} on {label('node', others)}")
    return remark, "; ".join([", ".join(sizes), advice] if sizes else [advice])
