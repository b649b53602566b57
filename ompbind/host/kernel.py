"""Kernel and system settings that affect bound processes, and what they mean for a plan.

Sources: the kernel's admin-guide/sysctl, admin-guide/mm/transhuge.rst, admin-guide/pm/cpufreq.rst,
ABI/testing/sysfs-devices-system-cpu.
"""

from __future__ import annotations

from ompbind.cpuset import CpuSet
from ompbind.machine.cpus import CPUS
from ompbind.machine.limits import read_sysctl
from ompbind.messages import label
from ompbind.plans import Caution
from ompbind.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ompbind.machine.roots import Root
    from ompbind.plans import Plan

TRANSPARENT_HUGE_PAGES = "sys/kernel/mm/transparent_hugepage/enabled"


class KernelSettings(Record):
    """Settings as the system writes them; None where it does not say."""

    numa_balancing: str | None = None
    zone_reclaim: str | None = None
    huge_pages: str | None = None
    smt: str | None = None
    governors: tuple[str, ...] = ()  # the distinct ones of the allowed cpus
    irqbalance: bool = False  # whether it runs


def read_settings(root: Root, cpus: CpuSet) -> KernelSettings:
    """Read the settings; the governors are those of `cpus`."""
    governors = {(root.read(f"{CPUS}/cpu{c}/cpufreq/scaling_governor") or "").strip() for c in cpus}
    smt = root.read(f"{CPUS}/smt/control")
    return KernelSettings(
        numa_balancing=read_sysctl(root, "kernel/numa_balancing"),
        zone_reclaim=read_sysctl(root, "vm/zone_reclaim_mode"),
        huge_pages=parse_choice(root.read(TRANSPARENT_HUGE_PAGES)),
        smt=None if smt is None else smt.strip(),
        governors=tuple(sorted(governors - {""})),
        irqbalance=has_process(root, "irqbalance"),
    )


def has_process(root: Root, name: str) -> bool:
    """Whether a process of this name is visible."""
    pids = (pid for pid in root.names("proc") if pid.isdigit())
    return any((root.read(f"proc/{pid}/comm") or "").strip() == name for pid in pids)


def parse_choice(text: str | None) -> str | None:
    """Return `madvise` of `always [madvise] never`; None if no word is in brackets."""
    words = (text or "").split()
    return next((w[1:-1] for w in words if w.startswith("[") and w.endswith("]")), None)


def advise(plan: Plan, numa_balancing: str) -> list[Caution]:
    """Return the warnings for a plan under these settings, beside those of the planner.

    `numa_balancing`: kernel.numa_balancing; "" if unknown.
    """
    if len(plan.host.nodes) < 2:
        return []
    if numa_balancing in ("", "0"):
        return warn_of_balancing(plan) if numa_balancing else []
    # A rank on one node has its pages there anyway, and a policy keeps them where they are.
    spread = (r for r in plan.ranks if len(r.nodes) > 1)
    migrating = CpuSet(r.rank for r in spread if r.mem in ("none", "local"))
    if not migrating:
        return []
    text = (
        f"{label('rank', migrating)}: on several nodes without a memory policy, where the kernel's "
        "NUMA balancing (kernel.numa_balancing) migrates pages at run time; use --mem interleave, "
        "a rank for each node (--per numa --numa-bind), or sysctl kernel.numa_balancing=0"
    )
    return [Caution("numa-balancing", text)]


def warn_of_balancing(plan: Plan) -> list[Caution]:
    """Return a warning for ranks whose pages are to be balanced where the kernel balances none."""
    if not any(r.binding.balancing for r in plan.ranks):
        return []
    text = "--mem-balancing has no effect: kernel.numa_balancing is 0, so no pages are migrated"
    return [Caution("numa-balancing", text, "sysctl kernel.numa_balancing=1, as root")]
