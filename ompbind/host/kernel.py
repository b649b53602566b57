"""The reader of what the kernel and the system are set to that touches bound processes.

Sources: the kernel's admin-guide/sysctl, admin-guide/mm/transhuge.rst, admin-guide/pm/cpufreq.rst,
ABI/testing/sysfs-devices-system-cpu.
"""

from __future__ import annotations

from ompbind.machine.limits import has_process, read_sysctl
from ompbind.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ompbind.cpuset import CpuSet
    from ompbind.machine.roots import Root

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
