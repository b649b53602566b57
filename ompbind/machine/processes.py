"""Read other processes under `/proc`: their threads, environment and memory, as far as the kernel
lets this user.

Sources: proc_pid_stat(5), proc_pid_status(5), numa(7) for numa_maps, the kernel's mpol_to_str().
"""

from __future__ import annotations

import errno
import os

from ompbind.cpuset import CpuSet, parse_whole
from ompbind.errors import OmpbindError, ParseError
from ompbind.machine.limits import parse_cgroups, read_cpuset, read_mounts
from ompbind.machine.regions import find_policy, parse_regions
from ompbind.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from ompbind.machine.roots import LivingRoot

KERNEL_THREAD = 0x00200000  # PF_KTHREAD
FIXED = 0x04000000  # PF_NO_SETAFFINITY
NO_SUCH_PROCESS = (errno.ENOENT, errno.ESRCH)  # nor thread


class Thread(Record):
    """One thread."""

    tid: int
    name: str
    state: str  # the kernel's letter
    cpus: CpuSet  # where the kernel lets it run; also cpus that are offline
    last: int | None  # the cpu it last ran on
    fixed: bool = False  # whether the kernel lets nobody bind it, as some of its io_uring workers


class Memory(Record):
    """The memory of a process as `numa_maps` shows it, in bytes."""

    policy: str  # the main thread's, as the kernel writes it
    private: tuple[tuple[str, int, int], ...] = ()  # (policy, node, bytes) of pages of no file
    files: tuple[tuple[int, int], ...] = ()  # (node, bytes) of pages of files, often shared
    mapped: tuple[tuple[str, int, int], ...] = ()  # (file, node, bytes) of those with a name


class HugePages(Record):
    """The memory of a process in huge pages, in bytes: transparent ones, and reserved ones."""

    transparent: int = 0
    reserved: int = 0


class Process(Record):
    """A process as it was when it was read; without threads it has ended."""

    pid: int
    parent: int = 0
    started: int = 0  # in the kernel's ticks; tells it from a later process with the same number
    name: str = ""
    user: int | None = None  # the effective one
    threads: tuple[Thread, ...] = ()
    environ: tuple[tuple[str, str], ...] | None = None  # None: it could not be read
    overwritten: bool = False  # whether the program has written over its environment
    memory: Memory | None = None  # None: it could not be read
    cpuset: CpuSet | None = None  # its cgroup's cpus
    mems: CpuSet | None = None  # the nodes whose memory it may use
    libraries: tuple[str, ...] = ()  # the file names of the shared libraries that it has loaded
    huge_pages: HugePages | None = None  # None: not read, or unknown
    unreadable: tuple[tuple[str, str], ...] = ()  # the part that could not be read, and why

    @property
    def ended(self) -> bool:
        return not self.threads


def read_process(root: LivingRoot, pid: int) -> Process | None:
    """Return what can be read of a process, which may exit meanwhile; None if there is none."""
    path = f"proc/{pid}"
    try:
        stat = parse_stat(root.read_whole(f"{path}/stat"))
    except OSError:
        return None
    threads = tuple(read_threads(root, path))
    process = Process(pid, stat.parent, stat.started, stat.name, threads=threads)
    if process.ended:
        return process
    # A main thread that has exited has neither environment nor memory, while others go on.
    living = f"{path}/task/{threads[0].tid}"
    status, _ = read_or_reason(root, f"{living}/status")
    environ, no_environ = read_or_reason(root, f"{living}/environ")
    numa_maps, no_memory = read_or_reason(root, f"{living}/numa_maps")
    maps = numa_maps
    if numa_maps is None:  # a kernel without NUMA: maps names the libraries as well
        maps, _ = read_or_reason(root, f"{living}/maps")
    overwritten = is_overwritten(environ or b"")
    if overwritten:
        no_environ = "overwritten by the program"
    unreadable = (("environment", no_environ), ("memory", no_memory))
    return process.replace(
        user=parse_user(status or b""),
        environ=None if environ is None else parse_environ(environ),
        overwritten=overwritten,
        memory=None if numa_maps is None else parse_numa_maps(numa_maps),
        cpuset=read_cpuset_of(root, pid),
        mems=parse_status_list(status or b"", b"Mems_allowed_list"),
        libraries=parse_libraries(maps or b""),
        unreadable=tuple((part, reason) for part, reason in unreadable if reason),
    )


def read_huge_pages_of(root: LivingRoot, pid: int) -> HugePages | None:
    """Return what a process has in huge pages; None if that cannot be read. The kernel walks all of
    its memory for it, and holds up whoever maps some meanwhile."""
    rollup, _ = read_or_reason(root, f"proc/{pid}/smaps_rollup")  # threads have none of their own
    return None if rollup is None else parse_huge_pages(rollup)


def read_argument_place(root: LivingRoot) -> tuple[int, int]:
    """Return the addresses at which this process's command line begins and ends in its memory;
    (0, 0) where the kernel does not say."""
    try:
        data = root.read_whole("proc/self/stat")  # by number, a foreign /proc has another process
    except OSError:
        return 0, 0
    fields = data[data.rfind(b")") + 2 :].split()
    return (number(fields[45]), number(fields[46])) if len(fields) > 46 else (0, 0)


class ProcessId(Record):
    """A process, as much of it as identifies it."""

    pid: int
    started: int  # in the kernel's ticks; tells it from a later process with the same number
    name: str
    ended: bool
    environ: tuple[tuple[str, str], ...] | None  # None: it could not be read
    overwritten: bool = False  # whether the program has written over its environment


def find_process(root: LivingRoot, pid: int) -> ProcessId | None:
    """Return what identifies a process; None if there is none."""
    path = f"proc/{pid}"
    try:
        stat = parse_stat(root.read_whole(f"{path}/stat"))
    except OSError:
        return None
    living = pid
    if stat.state in "ZX":  # its main thread has exited; others may go on
        living = next((t.tid for t in read_threads(root, path)), 0)
    if not living:
        return ProcessId(pid, stat.started, stat.name, ended=True, environ=())
    environ, _ = read_or_reason(root, f"{path}/task/{living}/environ")
    return ProcessId(pid, stat.started, stat.name, ended=False,
                     environ=None if environ is None else parse_environ(environ),
                     overwritten=is_overwritten(environ or b""))  # fmt: skip


def read_environ(root: LivingRoot, pid: int) -> tuple[tuple[str, str], ...] | None:
    """Return a process's environment; None if it has exited or may not be read."""
    try:
        return parse_environ(root.read_whole(f"proc/{pid}/environ"))
    except OSError:
        return None


def read_or_reason(root: LivingRoot, path: str) -> tuple[bytes | None, str]:
    """Return a file's bytes and ""; if it cannot be read, None and why, "" for one that is gone."""
    try:
        return root.read_whole(path), ""
    except OSError as e:
        return None, "" if e.errno in NO_SUCH_PROCESS else e.strerror or str(e)


# --- threads -------------------------------------------------------------------------------------


def read_threads(root: LivingRoot, path: str) -> list[Thread]:
    """Return the living threads by number, the main thread first, as it is the oldest."""
    threads = []
    masks: dict[bytes, CpuSet] = {}  # thousands of threads share a few masks
    for tid in sorted(int(name) for name in root.names(f"{path}/task") if name.isdigit()):
        try:
            stat = parse_stat(root.read_whole(f"{path}/task/{tid}/stat"))
            status = root.read_whole(f"{path}/task/{tid}/status")
        except OSError:  # it has exited since
            continue
        if stat.state not in "ZX":
            mask, fixed = parse_mask(status, masks), bool(stat.flags & FIXED)
            threads.append(Thread(tid, stat.name, stat.state, mask, stat.last, fixed))
    pid = path.rpartition("/")[2]
    return sorted(threads, key=lambda t: str(t.tid) != pid)


def list_tasks(root: LivingRoot, pid: int) -> list[int]:
    """Return the numbers of a process's threads, the main thread's first; [] if it has exited."""
    tids = sorted(int(name) for name in root.names(f"proc/{pid}/task") if name.isdigit())
    return sorted(tids, key=lambda tid: tid != pid)


def read_task_name(root: LivingRoot, pid: int, tid: int) -> str | None:
    """Return the name of a process's thread; None if it cannot be read: it has exited, say."""
    try:
        return root.read_whole(f"proc/{pid}/task/{tid}/comm").decode("utf-8", "replace")[:-1]
    except OSError:
        return None


def count_threads(root: LivingRoot, pid: int) -> int:
    """Return the number of threads of a process; 0 if it has exited."""
    return len(root.names(f"proc/{pid}/task"))


def is_exiting(root: LivingRoot, pid: int) -> bool:
    """Whether a process has given up its memory, and with it its environment and policy, although
    it is not yet a zombie."""
    try:
        return root.read_whole(f"proc/{pid}/statm").startswith(b"0 ")
    except OSError as e:
        return e.errno in NO_SUCH_PROCESS and not count_threads(root, pid)


def read_name(root: LivingRoot, pid: int) -> str:
    """Return a process's name; "" if it has exited."""
    try:
        return parse_stat(root.read_whole(f"proc/{pid}/stat")).name
    except OSError:
        return ""


class Stat(Record):
    """Fields of a `stat` file."""

    name: str
    state: str
    parent: int
    started: int
    last: int | None
    flags: int = 0


def parse_stat(data: bytes) -> Stat:
    """Parse `7 (a name) S 1 …`: fields 2, 3, 4, 9, 22 and 39; the name may contain anything."""
    name = data[data.find(b"(") + 1 : data.rfind(b")")].decode("utf-8", "replace")
    fields = data[data.rfind(b")") + 2 :].split()
    if len(fields) < 37:  # a hostile or truncated copy
        return Stat(name, "?", 0, 0, None)
    return Stat(name, fields[0].decode("ascii", "replace"), number(fields[1]), number(fields[19]),
                number(fields[36]), number(fields[6]))  # fmt: skip


def number(field: bytes) -> int:
    return parse_whole(field.decode("ascii", "replace")) or 0


def parse_mask(status: bytes, masks: dict[bytes, CpuSet]) -> CpuSet:
    """Return `Cpus_allowed_list` of a status; `masks` caches what was parsed."""
    text = status_field(status, b"Cpus_allowed_list")
    if text not in masks:
        masks[text] = parse_status_list(status, b"Cpus_allowed_list") or CpuSet()
    return masks[text]


def parse_status_list(status: bytes, name: bytes) -> CpuSet | None:
    """Return a list of cpus or nodes in a status; None where it is absent or garbage."""
    try:
        return CpuSet.parse_kernel(status_field(status, name).decode("ascii", "replace")) or None
    except ParseError:
        return None


def status_field(status: bytes, name: bytes) -> bytes:
    """Return the text after `name:` in a status."""
    _, colon, rest = status.partition(b"\n" + name + b":")
    return rest[: rest.find(b"\n")] if colon else b""


def parse_user(status: bytes) -> int | None:
    """Return the effective user in a status."""
    words = status_field(status, b"Uid").split()
    return parse_whole(words[1].decode("ascii", "replace")) if words[1:] else None


# --- numbers, flags, privileges, parents ---------------------------------------------------------


def read_numbers(root: LivingRoot, pid: int | str) -> tuple[int, ...]:
    """Return the numbers of a process, or of this one ("self"): in the pid namespace of this /proc
    first, then in each inner one that it is in; () if /proc does not show it."""
    try:
        words = status_field(root.read_whole(f"proc/{pid}/status"), b"NSpid").split()
        return tuple(map(number, words)) or (os.getpid() if pid == "self" else int(pid),)
    except OSError:
        return ()


def is_kernel_thread(root: LivingRoot, pid: int) -> bool:
    """Whether it is a thread of the kernel's, by the flags in field 9 of its `stat`."""
    try:
        return bool(parse_stat(root.read_whole(f"proc/{pid}/stat")).flags & KERNEL_THREAD)
    except OSError:
        return False


def is_fixed(root: LivingRoot, tid: int) -> bool:
    """Whether the kernel lets nobody bind a thread that it has made itself."""
    try:
        return bool(parse_stat(root.read_whole(f"proc/{tid}/stat")).flags & FIXED)
    except OSError:
        return False


def read_privileges(root: LivingRoot) -> int:
    """Return this process's effective capabilities, as the kernel's bits; 0 where they are not
    shown."""
    try:
        text = status_field(root.read_whole("proc/self/status"), b"CapEff")
        return int(text.strip() or b"0", 16)
    except (OSError, ValueError):
        return 0


def read_parents(root: LivingRoot) -> dict[int, int]:
    """Return the parent of every visible process."""
    parents = {}
    for name in root.names("proc"):
        if name.isdigit():
            try:
                parents[int(name)] = parse_stat(root.read_whole(f"proc/{name}/stat")).parent
            except OSError:  # it has exited since
                continue
    return parents


def read_parent(root: LivingRoot, pid: int) -> int | None:
    """Return a process's parent; None if there is no such process (any more)."""
    try:
        return parse_stat(root.read_whole(f"proc/{pid}/stat")).parent
    except OSError:
        return None


def read_start(root: LivingRoot, pid: int) -> int:
    """Return when a process was started, in the kernel's ticks; 0 if it has exited."""
    try:
        return parse_stat(root.read_whole(f"proc/{pid}/stat")).started
    except OSError:
        return 0


def find_this(root: LivingRoot) -> int | None:
    """Return this process's pid; None where the processes of `root` are saved or made up."""
    pid = os.getpid()
    return pid if root.resolve("proc/self") == f"proc/{pid}" else None


# --- environment, cgroup, memory, libraries ------------------------------------------------------


def parse_environ(data: bytes) -> tuple[tuple[str, str], ...]:
    """Parse the variables, as they were when the program started."""
    pairs = (word.decode("utf-8", "surrogateescape") for word in data.split(b"\0") if word)
    return tuple((name, value) for name, equals, value in (p.partition("=") for p in pairs)
                 if equals)  # fmt: skip


def is_overwritten(data: bytes) -> bool:
    """Whether an environment is no longer that with which the program started: setproctitle and the
    like write a name over arguments and environment, and zeros over the rest of them. Variables
    that the program has set since may remain at its end."""
    return data.startswith(b"\0") or b"\0\0" in data or any(
        b"=" not in word for word in data.split(b"\0") if word
    )  # fmt: skip


def read_record(root: LivingRoot, pid: int, name: str) -> dict[int, bytes]:
    """Return what a process has written into a file in memory with this name: for each number, an
    environment. {} if it has none, or may not be read."""
    for fd in root.names(f"proc/{pid}/fd"):
        target = root.resolve(f"proc/{pid}/fd/{fd}") or ""
        if not target.endswith(f"/memfd:{name} (deleted)"):
            continue
        try:
            data = root.read_whole(f"proc/{pid}/fd/{fd}")
        except OSError:
            return {}
        entries = (entry.partition(b"\0") for entry in data.split(b"\0\0") if entry)
        return {number(pid): environ for pid, _, environ in entries}
    return {}


def read_groups(root: LivingRoot, pid: int) -> dict[str, str]:
    """Return the cgroups of a process by controllers, "" for those of version 2."""
    return parse_cgroups(root.read(f"proc/{pid}/cgroup") or "")


def read_cpuset_of(root: LivingRoot, pid: int) -> CpuSet | None:
    """Return the cpus of a process's cgroup; None where nothing is known to restrict them."""
    try:
        return read_cpuset(root, read_mounts(root), read_groups(root, pid), "cpus")
    except OmpbindError:
        return None


def parse_numa_maps(data: bytes) -> Memory:
    """Sum up the regions of numa_maps; pages without a file are private."""
    private: dict[tuple[str, int], int] = {}
    files: dict[int, int] = {}
    mapped: dict[tuple[str, int], int] = {}
    regions = list(parse_regions(data))
    for region in regions:
        for node, count in region.pages:
            size = count * region.page
            if region.is_file:
                files[node] = files.get(node, 0) + size
                if region.file:
                    mapped[region.file, node] = mapped.get((region.file, node), 0) + size
            else:
                private[region.policy, node] = private.get((region.policy, node), 0) + size
    by_node = tuple((*key, size) for key, size in sorted(private.items()))
    by_file = tuple((*key, size) for key, size in sorted(mapped.items()))
    return Memory(find_policy(regions), by_node, tuple(sorted(files.items())), by_file)


def parse_huge_pages(data: bytes) -> HugePages:
    """Parse a `smaps_rollup`: `AnonHugePages:  2048 kB` and the like. Source: proc_pid_smaps(5)."""
    sizes = {
        name: number(words[0]) * 1024
        for name, _, rest in (line.partition(b":") for line in data.splitlines()[1:])
        if (words := rest.split())
    }
    transparent = (b"AnonHugePages", b"ShmemPmdMapped", b"FilePmdMapped")
    reserved = (b"Private_Hugetlb", b"Shared_Hugetlb")
    return HugePages(*(sum(sizes.get(n, 0) for n in names) for names in (transparent, reserved)))


def parse_libraries(maps: bytes) -> tuple[str, ...]:
    """Return the distinct file names of the shared libraries in `maps` or `numa_maps`, sorted."""
    names: set[bytes] = set()
    for line in maps.splitlines():
        if b".so" in line:
            name = line[line.rfind(b"/") + 1 :].partition(b" ")[0]
            if b".so" in name:  # else only a directory is called so
                names.add(name)
    return tuple(sorted(name.decode("utf-8", "replace") for name in names))


def make_family(pids: Iterable[int], parents: dict[int, int]) -> dict[int, list[int]]:
    """Return for each of `pids` its descendants, parents before their children."""
    children: dict[int, list[int]] = {}
    for pid, parent in parents.items():
        children.setdefault(parent, []).append(pid)
    family: dict[int, list[int]] = {}
    for pid in pids:
        descendants = sorted(children.get(pid, []))
        for child in descendants:  # grows while it is walked
            descendants += sorted(children.get(child, []))
        family[pid] = descendants
    return family
