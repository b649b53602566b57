"""Cores that may run faster than the others although the kernel calls them equal: Intel's Priority
Core Turbo (PCT) on some Xeon 6.

The kernel shows no membership without root. Source: vLLM's numa_utils, which goes by the model, by
the highest performance that the firmware names when PCT is on, and by the cpus' numbers: the first
two of each group are priority cores.
"""

from __future__ import annotations

from ompbind.cpuset import CpuSet, parse_whole
from ompbind.machine import linux_root
from ompbind.machine.cpus import CPUS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ompbind.machine.topology import Topology

# By model: the firmware's highest performance with PCT, and the cpus of a group.
MODELS = {"6776P": (46, 16), "6774P": (46, 16), "6962P": (44, 18)}


def read_priority_cpus(path: str | None, topology: Topology) -> CpuSet:
    """Return the online cpus of priority cores, of this machine or of that whose files `path` has;
    empty where PCT is off or not known. Raises TopologyError."""
    root = linux_root(path)
    if root is None:
        return CpuSet()
    lines = (root.read("proc/cpuinfo") or "").splitlines()
    name = next((line for line in lines if line.lower().startswith("model name")), "")
    for model, (highest, group) in MODELS.items():
        if model in name:
            text = root.read(f"{CPUS}/cpu0/acpi_cppc/highest_perf") or ""
            if parse_whole(text.strip()) != highest:
                return CpuSet()
            return CpuSet(cpu for cpu in topology.online if cpu % group in (0, 1))
    return CpuSet()
