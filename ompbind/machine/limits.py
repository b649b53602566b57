"""The reader of `/proc`, and of the cgroup files that it leads to: what this process may use.

Sources: proc(5), cpuset(7), the kernel's cgroup-v1/cpusets.rst, cgroup-v2.rst and sched-bwc.rst.
"""

from __future__ import annotations

from ompbind.cpuset import LIMIT, CpuSet, parse_whole
from ompbind.errors import ParseError, TopologyError
from ompbind.machine.topology import Allowed
from ompbind.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ompbind.machine.roots import Root
    from ompbind.machine.topology import Topology


class Mount(Record):
    """A mounted file system: where, of what type, with what options, and which directory of it."""

    point: str
    fstype: str
    options: tuple[str, ...]
    root: str = "/"


class Surroundings(Record):
    """What this process was started in. `mask`, `mems`: its own (None: not said); `cpuset`,
    `cpuset_mems`: its cgroup's; `groups`: the cgroup's paths, the cpuset's first; `files`: what
    containers leave at the root; `policy`: its memory policy, as the kernel writes it ("" where
    there is none to see); `parent`, `parent_mask`: who started it."""

    mask: CpuSet | None = None
    mems: CpuSet | None = None
    cpuset: CpuSet | None = None
    cpuset_mems: CpuSet | None = None
    groups: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    policy: str = ""
    parent: str = ""
    parent_mask: CpuSet | None = None


def read_allowed(root: Root, topology: Topology) -> Allowed:
    """What this process may use of `topology`: affinity mask ∩ cpuset ∩ online, and the quota.

    The process' own status is the last word (the kernel has applied the cpuset to it already):
    where a cpuset, seen through some container's mounts, shares nothing with it, the status stays.
    Raises TopologyError for a list of cpus or nodes that cannot be parsed: guessing there would
    bind to what is forbidden.
    """
    mounts = read_mounts(root)
    groups = parse_cgroups(root.read("proc/self/cgroup") or "")
    if "cpuset" not in groups and "" not in groups:  # before Linux 2.6.24, and trimmed copies
        groups |= parse_cpuset_path(root.read("proc/self/cpuset") or "")
    status = root.read("proc/self/status") or ""
    cpus, nodes = topology.online, topology.node_numbers
    return Allowed(
        cpus=make_allowed(
            cpus, parse_status(status, "Cpus_allowed"), read_cpuset(root, mounts, groups, "cpus")
        ),
        nodes=make_allowed(
            nodes, parse_status(status, "Mems_allowed"), read_cpuset(root, mounts, groups, "mems")
        ),
        quota=read_quota(root, mounts, groups),
    )


def make_allowed(there: CpuSet, status: CpuSet | None, cpuset: CpuSet | None) -> CpuSet:
    """`there` ∩ status ∩ cpuset; None: not said, which restricts nothing."""
    allowed = there if status is None else there & status
    both = allowed if cpuset is None else allowed & cpuset
    return allowed if not both and status is not None else both


def read_hostname(root: Root) -> str:
    """The host's name, "" where it is not said."""
    return (root.read("proc/sys/kernel/hostname") or "").strip()


def read_emulators(root: Root) -> list[str]:
    """The programs that the kernel hands other machines' binaries to (binfmt_misc), by name."""
    names = root.names("proc/sys/fs/binfmt_misc")
    return [name for name in names if name not in ("register", "status")]


def parse_family(cpuinfo: str) -> str:
    """Return the kind of processor that /proc/cpuinfo describes: "x86", "arm", "power", "s390" or
    "riscv"; "" for any other. Source: the kernel's show_cpuinfo."""
    lines = cpuinfo[:4096].lower().splitlines()
    words = {line.partition(":")[0].strip(): line.partition(":")[2] for line in lines}
    if "cpu implementer" in words:
        return "arm"
    if words.get("isa", "").strip().startswith("rv"):
        return "riscv"
    if "s390" in words.get("vendor_id", ""):
        return "s390"
    if words.get("cpu", "").strip().startswith("power"):
        return "power"
    return "x86" if "cpu family" in words and "vendor_id" in words else ""


def read_stat_cpus(root: Root) -> CpuSet:
    """The online cpus by `/proc/stat`, for where `/sys` is hidden; empty where it is not there."""
    return parse_stat_cpus(root.read("proc/stat") or "")


def parse_stat_cpus(text: str) -> CpuSet:
    """From lines such as `cpu12 1 2 3`; the one without a number is the sum."""
    words = (line.split(None, 1)[0] for line in text.splitlines() if line.startswith("cpu"))
    numbers = (parse_whole(word[3:]) for word in words)
    return CpuSet(n for n in numbers if n is not None and n < LIMIT)


def read_memory_bytes(root: Root) -> int | None:
    """The machine's memory in bytes; None where it is not said."""
    return parse_memory_bytes(root.read("proc/meminfo") or "")


def parse_memory_bytes(text: str) -> int | None:
    """From a `MemTotal:  123 kB` line, also with `Node 0` before it; None when there is none."""
    for line in text.splitlines():
        _, found, rest = line.partition("MemTotal:")
        words = rest.split()
        if found and len(words) == 2 and words[1] == "kB":
            size = parse_whole(words[0])
            return None if size is None else size * 1024
    return None


def read_has_numa(root: Root) -> bool:
    """Whether the kernel was built with NUMA: only then does a process have a `numa_maps`.

    By its name: reading it would walk all of the process' memory.
    """
    return "numa_maps" in root.names("proc/self")


def parse_status(text: str, name: str) -> CpuSet | None:
    """The list of `Cpus_allowed` or `Mems_allowed` in a `/proc/PID/status`; None where it is not
    said. Raises TopologyError."""
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key == f"{name}_list" and value.strip():
            return parse_list(value, f"{name}_list of proc/self/status")
    return None


def parse_list(text: str, where: str) -> CpuSet:
    """A kernel's list. Raises TopologyError that names the file."""
    try:
        return CpuSet.parse_kernel(text)
    except ParseError as e:
        raise TopologyError(f"{where}: {e.message}", hint=e.hint, text=text) from None


def read_mounts(root: Root) -> list[Mount]:
    """The mounted cgroup and cpuset file systems, in the order of mounting."""
    if text := root.read("proc/self/mountinfo"):
        return parse_mountinfo(text)
    return parse_mounts(root.read("proc/self/mounts") or root.read("proc/mounts") or "")


def parse_mountinfo(text: str) -> list[Mount]:
    """From `36 35 98:0 /root /point options… - cgroup source superoptions` lines; others are
    left out. Source: proc_pid_mountinfo(5)."""
    mounts = []
    for line in text.splitlines():
        left, _, right = line.partition(" - ")
        if right.startswith(("cgroup", "cpuset ")):
            a, b = left.split(" "), right.split(" ")
            if len(a) >= 5 and len(b) >= 3:
                options = tuple(b[2].split(","))
                mounts.append(Mount(unescape(a[4]), b[0], options, unescape(a[3])))
    return mounts


def parse_mounts(text: str) -> list[Mount]:
    """From `source point cgroup options 0 0` lines; others are left out. Source: fstab(5)."""
    mounts = []
    for line in text.splitlines():
        words = line.split(" ")
        if len(words) >= 4 and words[2] in ("cgroup", "cgroup2", "cpuset"):
            mounts.append(Mount(unescape(words[1]), words[2], tuple(words[3].split(","))))
    return mounts


def unescape(path: str) -> str:
    """A path as the mount tables write it: blanks and backslashes in octal, `\\040`."""
    if "\\" not in path:
        return path
    for octal, char in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        path = path.replace(octal, char)
    return path


def parse_cgroups(text: str) -> dict[str, str]:
    """This process' cgroup paths by controller, "" for the one of version 2.

    From `4:cpuset,cpu:/path` and `0::/path` lines. Source: cgroups(7).
    """
    paths = {}
    for line in text.splitlines():
        parts = line.split(":", 2)
        if len(parts) == 3:
            for controller in parts[1].split(","):
                paths[controller] = parts[2]
    return paths


def parse_cpuset_path(text: str) -> dict[str, str]:
    """The same from `/proc/self/cpuset`, which does not say the cgroup's version."""
    path = text.strip("\n")
    return {"cpuset": path, "": path} if path.startswith("/") else {}


def read_cpuset(
    root: Root, mounts: list[Mount], groups: dict[str, str], what: str
) -> CpuSet | None:
    """The cpus or mems (`what`) of this process' cpuset; None where nothing restricts them.

    Version 1 before 2: a controller is in one of them only, and where it has a hierarchy of its
    own, the cgroup of version 2 is a bystander. Raises TopologyError.
    """
    for controller in ("cpuset", ""):
        mount = find_mount(mounts, groups, controller)
        # A cgroup of version 2 without the controller has no such files: its parent's hold. In
        # version 1 no process is in a cgroup with an empty set.
        for directory in list_directories(mount, groups, controller):
            for name in cpuset_files(mount, what):
                path = f"{directory}/{name}"
                if (text := root.read(path)) and text.strip():
                    return parse_list(text, path)
    return None


def cpuset_files(mount: Mount | None, what: str) -> tuple[str, str]:
    """Where a cpuset's cpus or mems are written: what it has, before what it asks for."""
    if mount is None or mount.fstype == "cgroup2":
        return f"cpuset.{what}.effective", f"cpuset.{what}"
    if mount.fstype == "cpuset" or "noprefix" in mount.options:
        return f"effective_{what}", what
    return f"cpuset.effective_{what}", f"cpuset.{what}"


def read_quota(root: Root, mounts: list[Mount], groups: dict[str, str]) -> float | None:
    """The smallest quota from this process' cgroup up to the mount's root, in cpus' worth of time.

    None: no quota. A file that cannot be parsed sets none: the quota only advises the number of
    threads, and a wrong small number would do more harm than none.
    """
    quotas = []
    for d in list_directories(find_mount(mounts, groups, ""), groups, ""):
        quotas.append(parse_cpu_max(root.read(f"{d}/cpu.max") or ""))
    for d in list_directories(find_mount(mounts, groups, "cpu"), groups, "cpu"):
        quota = root.read(f"{d}/cpu.cfs_quota_us")
        if quota and not quota.startswith("-"):  # -1: none
            period = root.read(f"{d}/cpu.cfs_period_us") or "100000"
            quotas.append(parse_cpu_max(f"{quota.strip()} {period.strip()}"))
    return min((q for q in quotas if q is not None), default=None)


def parse_cpu_max(text: str) -> float | None:
    """`150000 100000` (microseconds of each period) is 1.5; `max 100000` is None, as is garbage."""
    words = text.split()
    if not 1 <= len(words) <= 2:
        return None
    quota, period = parse_whole(words[0]), parse_whole(words[1]) if words[1:] else 100_000
    return quota / period if quota and period else None


def find_mount(mounts: list[Mount], groups: dict[str, str], controller: str) -> Mount | None:
    """Where this process' cgroup is to be found; `controller` "" is version 2."""
    path = groups.get(controller)
    fitting = [m for m in mounts if holds_controller(m, controller)]
    # A container may see several mounts, only one of them with its own cgroup below.
    below = [m for m in fitting if path is not None and is_below(path, m.root)]
    return next(iter(below or fitting), None)


def list_directories(mount: Mount | None, groups: dict[str, str], controller: str) -> list[str]:
    """The directories, without the leading `/`, of this process' cgroup and of those above it up
    to the mount's root."""
    path = groups.get(controller)
    if mount is None or path is None:
        return []
    inner = path[len(mount.root.rstrip("/")) :] if is_below(path, mount.root) else ""
    parts = [p for p in inner.split("/") if p]
    if ".." in parts:  # the cgroup is outside of this process' namespace: it cannot be seen
        parts = []
    top = mount.point.strip("/")
    return ["/".join([top, *parts[:depth]]) for depth in range(len(parts), -1, -1)]


def holds_controller(mount: Mount, controller: str) -> bool:
    if controller == "":
        return mount.fstype == "cgroup2"
    if mount.fstype == "cpuset":
        return controller == "cpuset"
    return mount.fstype == "cgroup" and controller in mount.options


def is_below(path: str, above: str) -> bool:
    return above in ("/", path) or path.startswith(above.rstrip("/") + "/")


# --- what was there before, and what the kernel is told to do --------------------------------


def read_surroundings(root: Root, *, policy: bool = False) -> Surroundings:
    """What this process was started in; its memory policy on request, as that walks its memory."""

    mounts = read_mounts(root)
    groups = parse_cgroups(root.read("proc/self/cgroup") or "")
    status = root.read("proc/self/status") or ""
    parent = next((line.split()[1] for line in status.splitlines() if line.startswith("PPid:")), "")
    above = (root.read(f"proc/{parent}/status") if parent else None) or ""
    return Surroundings(
        mask=parse_status(status, "Cpus_allowed"),
        mems=parse_status(status, "Mems_allowed"),
        cpuset=read_cpuset(root, mounts, groups, "cpus"),
        cpuset_mems=read_cpuset(root, mounts, groups, "mems"),
        groups=tuple(dict.fromkeys((groups.get("cpuset", groups.get("", "/")), *groups.values()))),
        files=tuple(f for f in CONTAINER_FILES if root.read(f) is not None),
        policy=read_policy(root) if policy else "",
        parent=(root.read(f"proc/{parent}/comm") or "").strip(),
        parent_mask=parse_status(above, "Cpus_allowed"),
    )


CONTAINER_FILES = (".dockerenv", "run/.containerenv")


def read_policy(root: Root) -> str:
    """This thread's memory policy as `numa_maps` writes it; "" where there is no such file."""
    for line in (root.read("proc/self/numa_maps") or "").splitlines():
        words = line.split(" ")
        if len(words) > 2 and " stack" in line:
            return f"{words[1]} {words[2]}" if words[1] in ("prefer", "weighted") else words[1]
    return ""


def read_sysctl(root: Root, name: str) -> str | None:
    """A setting of the kernel, such as `vm/zone_reclaim_mode`; None where it is not there."""
    text = root.read(f"proc/sys/{name}")
    return None if text is None else text.strip()


def has_process(root: Root, name: str) -> bool:
    """Whether a process of this name is to be seen."""
    pids = (pid for pid in root.names("proc") if pid.isdigit())
    return any((root.read(f"proc/{pid}/comm") or "").strip() == name for pid in pids)
