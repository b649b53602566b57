"""Kernel and system settings that affect bound processes, and what they mean for a plan.

Sources: the kernel's admin-guide/sysctl, admin-guide/mm/transhuge.rst, admin-guide/pm/cpufreq.rst,
ABI/testing/sysfs-devices-system-cpu.
"""

from __future__ import annotations

from ompbind.cpuset import CpuSet
from ompbind.machine.limits import has_process, read_sysctl
from ompbind.plans import Caution
from ompbind.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ompbind.machine.roots import Root
    from ompbind.plans import Plan

CPUS = "sys/devices/system/cpu"


class Conditions(Record):
    """Settings as the system writes them; None where it does not say. `governors`: the distinct
    ones of the allowed cpus; `irqbalance`: whether that runs."""

    numa_balancing: str | None = None
    zone_reclaim: str | None = None
    huge_pages: str | None = None
    smt: str | None = None
    governors: tuple[str, ...] = ()
    irqbalance: bool = False


def read_conditions(root: Root, cpus: CpuSet) -> Conditions:
    governors = {(root.read(f"{CPUS}/cpu{c}/cpufreq/scaling_governor") or "").strip() for c in cpus}
    smt = root.read(f"{CPUS}/smt/control")
    return Conditions(
        numa_balancing=read_sysctl(root, "kernel/numa_balancing"),
        zone_reclaim=read_sysctl(root, "vm/zone_reclaim_mode"),
        huge_pages=parse_choice(root.read("sys/kernel/mm/transparent_hugepage/enabled")),
        smt=None if smt is None else smt.strip(),
        governors=tuple(sorted(governors - {""})),
        irqbalance=has_process(root, "irqbalance"),
    )


def parse_choice(text: str | None) -> str | None:
    """`madvise` of `always [madvise] never`; None where none is chosen."""
    words = (text or "").split()
    return next((w[1:-1] for w in words if w.startswith("[") and w.endswith("]")), None)


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
