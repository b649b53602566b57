"""Read what this process was started in: whatever may have restricted it.

Not needed by a launch that has all of the machine.
"""

from __future__ import annotations

from ompbind.machine.limits import parse_status, read_cpuset, read_groups, read_mounts
from ompbind.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ompbind.cpuset import CpuSet
    from ompbind.machine.roots import Root

# What containers leave at the root.
CONTAINER_FILES = (".dockerenv", "run/.containerenv")


class Surroundings(Record):
    """What this process was started in; None where the system does not say."""

    mask: CpuSet | None = None  # its affinity mask
    mems: CpuSet | None = None  # the nodes whose memory it may use
    cpuset: CpuSet | None = None  # its cgroup's cpus
    group: str = ""  # the path of the cgroup whose cpuset it has; "": unknown
    groups: tuple[str, ...] = ()  # the paths of all its cgroups
    files: tuple[str, ...] = ()  # those of CONTAINER_FILES that exist
    policy: str = ""  # its memory policy, as the kernel writes it; "": unknown, or not read
    parent: str = ""  # the name of the process that started it
    parent_mask: CpuSet | None = None


def read_surroundings(root: Root, *, policy: bool = False) -> Surroundings:
    """Return what this process was started in; its memory policy on request, as the kernel walks
    its memory for that. Raises TopologyError."""
    mounts, groups = read_mounts(root), read_groups(root)
    status = root.read("proc/self/status") or ""
    parent = next((line.split()[1] for line in status.splitlines() if line.startswith("PPid:")), "")
    above = (root.read(f"proc/{parent}/status") if parent else None) or ""
    return Surroundings(
        mask=parse_status(status, "Cpus_allowed"),
        mems=parse_status(status, "Mems_allowed"),
        cpuset=read_cpuset(root, mounts, groups, "cpus"),
        group=groups.get("cpuset", groups.get("", "")),
        groups=tuple(dict.fromkeys(groups.values())),
        files=tuple(f for f in CONTAINER_FILES if root.read(f) is not None),
        policy=read_policy(root) if policy else "",
        parent=(root.read(f"proc/{parent}/comm") or "").strip(),
        parent_mask=parse_status(above, "Cpus_allowed"),
    )


def read_policy(root: Root) -> str:
    """Return this process's memory policy as `numa_maps` has it; "" without that file."""
    for line in (root.read("proc/self/numa_maps") or "").splitlines():
        words = line.split(" ")
        if len(words) > 2 and " stack" in line:
            return f"{words[1]} {words[2]}" if words[1] in ("prefer", "weighted") else words[1]
    return ""
