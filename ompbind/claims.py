"""What a rank tells in its environment of what it holds, so that others can find it."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ompbind.cpuset import CpuSet

RANK, CPUS, MEMORY = "OMPBIND_RANK", "OMPBIND_CPUS", "OMPBIND_MEM"


def make_claim(cpus: CpuSet, mem: str, mems: CpuSet) -> tuple[tuple[str, str], ...]:
    """The variables: `0-3` and `bind:0`, `local`, `none`. No cpus: it is bound to none."""
    return (CPUS, str(cpus)), (MEMORY, f"{mem}:{mems}" if mems else mem)
