"""Read what this process may use, from `/proc` and the cgroup files that it leads to, and what the
processes above it may, which had a say in it.

Sources: proc(5), cpuset(7), the kernel's cgroup-v1/cpusets.rst, cgroup-v2.rst and sched-bwc.rst.
"""

from __future__ import annotations

from ompbind.cpuset import LIMIT, CpuSet, parse_whole
from ompbind.errors import ParseError, TopologyError
from ompbind.machine.topology import Allowed
from ompbind.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from ompbind.machine.roots import LivingRoot, Root
    from ompbind.machine.topology import Topology

MOST_ANCESTORS = 64  # a loop of pids, as a copied tree could have one, must end


class Mount(Record):
    """A mounted file system."""

    point: str
    fstype: str
    options: tuple[str, ...]
    root: str = "/"  # the directory of the file system that is mounted


class Ancestor(Record):
    """This process or one above it."""

    pid: int
    name: str  # at most 15 characters, as the kernel keeps it
    parent: int
    cpus: CpuSet | None  # its affinity mask; None: it cannot be read


def read_allowed(root: Root, topology: Topology) -> Allowed:
    """Return what this process may use of `topology`.

    The process's status decides, as the kernel has already applied the cpuset to it: a cpuset that
    has nothing in common with it, as seen through some container's mounts, is ignored. Raises
    TopologyError for a list of cpus or nodes that cannot be parsed: a guess could bind to what is
    forbidden.
    """
    mounts, groups = read_mounts(root), read_groups(root)
    status = root.read("proc/self/status") or ""
    cpus, nodes = topology.online, topology.node_numbers
    cpuset = read_cpuset(root, mounts, groups, "cpus")
    return Allowed(
        cpus=make_allowed(cpus, parse_status(status, "Cpus_allowed"), cpuset),
        nodes=make_allowed(
            nodes, parse_status(status, "Mems_allowed"), read_cpuset(root, mounts, groups, "mems")
        ),
        quota=read_quota(root, mounts, groups),
        cpuset=cpuset,
    )


def make_allowed(present: CpuSet, status: CpuSet | None, cpuset: CpuSet | None) -> CpuSet:
    """Return `present` ∩ status ∩ cpuset; None stands for no restriction."""
    allowed = present if status is None else present & status
    both = allowed if cpuset is None else allowed & cpuset
    return allowed if not both and status is not None else both


def read_hostname(root: Root) -> str:
    """Return the host's name; "" if unknown."""
    return (root.read("proc/sys/kernel/hostname") or "").strip()


def read_emulators(root: Root) -> list[str]:
    """Return the names of the emulators registered for other machines' binaries (binfmt_misc)."""
    names = root.names("proc/sys/fs/binfmt_misc")
    return [name for name in names if name not in ("register", "status")]


def read_stat_cpus(root: Root) -> CpuSet:
    """Return the online cpus by `/proc/stat`, for use where `/sys` is hidden; empty without it."""
    return parse_stat_cpus(root.read("proc/stat") or "")


def parse_stat_cpus(text: str) -> CpuSet:
    """Parse lines such as `cpu12 1 2 3`; the one without a number is the sum."""
    words = (line.split(None, 1)[0] for line in text.splitlines() if line.startswith("cpu"))
    numbers = (parse_whole(word[3:]) for word in words)
    return CpuSet(n for n in numbers if n is not None and n < LIMIT)


def read_memory_bytes(root: Root) -> int | None:
    """Return the machine's memory in bytes; None if unknown."""
    return parse_memory_bytes(root.read("proc/meminfo") or "")


def parse_memory_bytes(text: str) -> int | None:
    """Parse a `MemTotal:  123 kB` line, also with `Node 0` before it; None without one."""
    for line in text.splitlines():
        _, label, rest = line.partition("MemTotal:")
        words = rest.split()
        if label and len(words) == 2 and words[1] == "kB":
            size = parse_whole(words[0])
            return None if size is None else size * 1024
    return None


def read_has_numa(root: Root) -> bool:
    """Whether the kernel was built with NUMA: only then does a process have a `numa_maps`.

    Only its name is looked up: reading it would walk all of the process's memory.
    """
    return "numa_maps" in root.names("proc/self")


def parse_status(text: str, name: str) -> CpuSet | None:
    """Return the list of `Cpus_allowed` or `Mems_allowed` in a `/proc/PID/status`; None if absent.
    Raises TopologyError."""
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key == f"{name}_list" and value.strip():
            return parse_list(value, f"{name}_list of proc/self/status")
    return None


def parse_list(text: str, path: str) -> CpuSet:
    """Parse a kernel's list. Raises TopologyError, which names `path`."""
    try:
        return CpuSet.parse_kernel(text)
    except ParseError as e:
        raise TopologyError(f"{path}: {e.message}", hint=e.hint, text=text) from None


def read_mounts(root: Root) -> list[Mount]:
    """Return the mounted cgroup and cpuset file systems, in the order of mounting."""
    if text := root.read("proc/self/mountinfo"):
        return parse_mountinfo(text)
    return parse_mounts(root.read("proc/self/mounts") or root.read("proc/mounts") or "")


def parse_mountinfo(text: str) -> list[Mount]:
    """Parse `36 35 98:0 /root /point options… - cgroup source superoptions` lines; others are
    skipped. Source: proc_pid_mountinfo(5)."""
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
    """Parse `source point cgroup options 0 0` lines; others are skipped. Source: fstab(5)."""
    mounts = []
    for line in text.splitlines():
        words = line.split(" ")
        if len(words) >= 4 and words[2] in ("cgroup", "cgroup2", "cpuset"):
            mounts.append(Mount(unescape(words[1]), words[2], tuple(words[3].split(","))))
    return mounts


def parse_counters(text: str) -> dict[str, int]:
    """Return the numbers in lines of a cgroup's file such as `nr_throttled 12`; others are
    skipped."""
    pairs = (line.partition(" ") for line in text.splitlines())
    numbers = ((key, parse_whole(value)) for key, _, value in pairs)
    return {key: number for key, number in numbers if number is not None}


def unescape(path: str) -> str:
    """Decode a path in which the kernel has written blanks and backslashes in octal, `\\040`."""
    first, *parts = path.split("\\")
    done = [first]
    for part in parts:
        digits = part[:3]
        plain = len(digits) == 3 and not digits.strip("01234567")
        done.append(chr(int(digits, 8) & 127) + part[3:] if plain else f"\\{part}")
    return "".join(done)


def parse_cgroups(text: str) -> dict[str, str]:
    """Return this process's cgroup paths by controller, "" for the one of version 2.

    From `4:cpuset,cpu:/path` and `0::/path` lines. Source: cgroups(7).
    """
    paths = {}
    for line in text.splitlines():
        parts = line.split(":", 2)
        if len(parts) == 3:
            for controller in parts[1].split(","):
                paths[controller] = parts[2]
    return paths


def read_groups(root: Root) -> dict[str, str]:
    """Return this process's cgroup paths by controller, "" for the one of version 2."""
    groups = parse_cgroups(root.read("proc/self/cgroup") or "")
    if "cpuset" not in groups and "" not in groups:  # before Linux 2.6.24, and trimmed copies
        groups |= parse_cpuset_path(root.read("proc/self/cpuset") or "")
    return groups


def parse_cpuset_path(text: str) -> dict[str, str]:
    """Parse the same from `/proc/self/cpuset`, which does not say which version the cgroup is."""
    path = text.strip("\n")
    return {"cpuset": path, "": path} if path.startswith("/") else {}


def read_cpuset(
    root: Root, mounts: list[Mount], groups: dict[str, str], kind: str
) -> CpuSet | None:
    """Return the "cpus" or "mems" (`kind`) of this process's cpuset; None if unrestricted.

    Version 1 comes first: a controller belongs to one version only, and where it has a hierarchy of
    version 1, the cgroup of version 2 says nothing about it. Raises TopologyError.
    """
    for controller in ("cpuset", ""):
        mount = find_mount(mounts, groups, controller)
        # A cgroup of version 2 without the controller has no such files, and its parent's apply. In
        # version 1 no process is in a cgroup with an empty set.
        for directory in list_directories(mount, groups, controller):
            for name in cpuset_files(mount, kind):
                path = f"{directory}/{name}"
                if (text := root.read(path)) and text.strip():
                    return parse_list(text, path)
    return None


def cpuset_files(mount: Mount | None, kind: str) -> tuple[str, str]:
    """Return the files with a cpuset's cpus or mems: the effective ones before the configured."""
    if mount is None or mount.fstype == "cgroup2":
        return f"cpuset.{kind}.effective", f"cpuset.{kind}"
    if mount.fstype == "cpuset" or "noprefix" in mount.options:
        return f"effective_{kind}", kind
    return f"cpuset.effective_{kind}", f"cpuset.{kind}"


def read_quota(root: Root, mounts: list[Mount], groups: dict[str, str]) -> float | None:
    """Return the smallest quota from this process's cgroup up to the mount's root, in cpus' worth
    of time; None if unlimited.

    A file that cannot be parsed is ignored: the quota only limits the default number of threads,
    and a number that is wrong and small would do more harm than none.
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


def read_oom_kills(root: Root) -> int:
    """Return how many processes of this process's cgroup, or where that does not say, of the
    machine, the kernel has killed for want of memory; 0 where nothing says. Sources: the kernel's
    cgroup-v2.rst and cgroup-v1/memory.rst, proc_vmstat(5)."""
    names = {"": "memory.events", "memory": "memory.oom_control"}
    for controller, directories in read_directories(root, *names).items():
        for directory in directories[:1]:
            for line in (root.read(f"{directory}/{names[controller]}") or "").splitlines():
                key, _, number = line.partition(" ")
                if key == "oom_kill":
                    return parse_whole(number) or 0
    _, _, after = (root.read("proc/vmstat") or "").partition("\noom_kill ")
    return parse_whole(after.partition("\n")[0]) or 0


def parse_cpu_max(text: str) -> float | None:
    """Return 1.5 for `150000 100000` (microseconds of each period); None for `max` and garbage."""
    words = text.split()
    if not 1 <= len(words) <= 2:
        return None
    quota, period = parse_whole(words[0]), parse_whole(words[1]) if words[1:] else 100_000
    return quota / period if quota and period else None


def find_mount(mounts: list[Mount], groups: dict[str, str], controller: str) -> Mount | None:
    """Return the mount that shows this process's cgroup; `controller` "" is version 2."""
    path = groups.get(controller)
    candidates = [m for m in mounts if has_controller(m, controller)]
    # A container may see several mounts, but only one of them with its cgroup below.
    above = [m for m in candidates if path is not None and is_below(path, m.root)]
    return next(iter(above or candidates), None)


def read_directories(root: Root, *controllers: str) -> dict[str, list[str]]:
    """Return for each controller the directories of this process's cgroup and of those above it."""
    mounts, groups = read_mounts(root), read_groups(root)
    return {c: list_directories(find_mount(mounts, groups, c), groups, c) for c in controllers}


def list_directories(mount: Mount | None, groups: dict[str, str], controller: str) -> list[str]:
    """Return the directories, without the leading `/`, of this process's cgroup and of those above
    it up to the mount's root."""
    path = groups.get(controller)
    if mount is None or path is None:
        return []
    inner = path[len(mount.root.rstrip("/")) :] if is_below(path, mount.root) else ""
    parts = [p for p in inner.split("/") if p]
    if ".." in parts:  # the cgroup is outside this process's namespace and cannot be seen
        parts = []
    top = mount.point.strip("/")
    return ["/".join([top, *parts[:depth]]) for depth in range(len(parts), -1, -1)]


def has_controller(mount: Mount, controller: str) -> bool:
    if controller == "":
        return mount.fstype == "cgroup2"
    if mount.fstype == "cpuset":
        return controller == "cpuset"
    return mount.fstype == "cgroup" and controller in mount.options


def is_below(path: str, above: str) -> bool:
    return above in ("/", path) or path.startswith(above.rstrip("/") + "/")


# --- the processes above -------------------------------------------------------------------------


def find_ancestors(root: LivingRoot, pid: int, most: int = MOST_ANCESTORS) -> Iterator[Ancestor]:
    """Yield the process `pid` and those above it, up to the first that cannot be read.

    In a pid namespace of its own a process may see none; under hidepid those of its user only.
    """
    for _ in range(most):
        if not pid:
            return
        ancestor = read_status(root, str(pid))
        if not ancestor.pid:
            return
        yield ancestor
        pid = ancestor.parent


def read_status(root: LivingRoot, process: str) -> Ancestor:
    """Return a process; pid 0 where its status cannot be read. Source: proc_pid_status(5)."""
    text = root.read(f"proc/{process}/status") or ""
    pid, parent = parse_whole(find_value(text, "Pid")), parse_whole(find_value(text, "PPid"))
    mask = parse_mask(find_value(text, "Cpus_allowed_list"))
    return Ancestor(pid or 0, find_value(text, "Name"), parent or 0, mask)


def find_value(text: str, key: str) -> str:
    """Return the value of a line `key:\tvalue`; "" where there is none. Half of what it takes to
    look at each of the sixty lines, under every rank of an engine."""
    _, _, rest = ("\n" + text).partition(f"\n{key}:")
    return rest.partition("\n")[0].strip()


def parse_mask(text: str) -> CpuSet | None:
    """Return a list of cpus; None where it is empty or garbage, as where it cannot be read."""
    try:
        return CpuSet.parse_kernel(text) or None
    except ParseError:
        return None


def read_variables(root: LivingRoot, pid: int) -> dict[str, str] | None:
    """Return the environment with which a process was started; None if it may not be read."""
    try:
        data = root.read_whole(f"proc/{pid}/environ")
    except OSError:  # another user's, or it has exited
        return None
    pairs = (entry.partition(b"=") for entry in data.split(b"\0") if entry)
    return {k.decode("utf-8", "replace"): v.decode("utf-8", "replace") for k, _, v in pairs}


# --- kernel settings -----------------------------------------------------------------------------


def read_sysctl(root: Root, name: str) -> str | None:
    """Return a kernel setting such as `vm/zone_reclaim_mode`; None if it does not exist."""
    text = root.read(f"proc/sys/{name}")
    return None if text is None else text.strip()
