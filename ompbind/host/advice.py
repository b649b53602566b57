"""What is likely to make a plan slow, each with its remedy; pure. What the planner's parts warn of
themselves (quota, crowded cpus, shared cores, far GPUs and memory) is not told again."""

from __future__ import annotations

from ompbind.cpuset import CpuSet
from ompbind.plans import Caution

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ompbind.plans import Plan


def advise(plan: Plan, numa_balancing: str) -> list[Caution]:
    """`numa_balancing`: kernel.numa_balancing, "" where that is not known."""
    if numa_balancing in ("", "0") or len(plan.host.nodes) < 2:
        return []
    # A rank on one node has its pages there already; a policy keeps them where they are.
    loose = CpuSet(r.rank for r in plan.ranks if r.mem in ("none", "local") and len(r.nodes) > 1)
    if not loose:
        return []
    who = f"ranks {loose}" if len(loose) > 1 else f"rank {loose}"
    text = (
        f"{who}: on several nodes without a memory policy, where the kernel's NUMA balancing "
        "(kernel.numa_balancing) moves pages while they run: --mem interleave, a rank for each "
        "node (--per numa --numa-bind), or sysctl kernel.numa_balancing=0"
    )
    return [Caution("numa-balancing", text)]
