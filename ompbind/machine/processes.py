"""The reader of other processes under `/proc`: their threads, environment and memory, as the kernel
tells them to whoever may look.

Sources: proc_pid_stat(5), proc_pid_status(5), numa(7) for numa_maps, the kernel's mpol_to_str().
"""

from __future__ import annotations

import errno

from ompbind.cpuset import CpuSet, parse_whole
from ompbind.errors import OmpbindError, ParseError
from ompbind.machine.limits import parse_cgroups, read_cpuset, read_mounts
from ompbind.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from ompbind.machine.roots import LivingRoot

GONE = (errno.ENOENT, errno.ESRCH)  # the process, or the thread, has ended


class Thread(Record):
    """One thread: `cpus` where the kernel lets it run, also cpus that are offline; `last` the cpu
    it last ran on; `state` the kernel's letter for it."""

    tid: int
    name: str
    state: str
    cpus: CpuSet
    last: int | None


class Memory(Record):
    """What `numa_maps` says. `policy`: the main thread's, as the kernel writes it; `own`: bytes of
    the process' own memory by policy and node; `files`: by node, of what it may share."""

    policy: str
    own: tuple[tuple[str, int, int], ...] = ()
    files: tuple[tuple[int, int], ...] = ()


class Process(Record):
    """A process as it was when it was read; without threads it has ended."""

    pid: int
    parent: int = 0
    started: int = 0  # in the kernel's ticks; tells it from a later process with the same number
    name: str = ""
    user: int | None = None  # the effective one
    threads: tuple[Thread, ...] = ()
    environ: tuple[tuple[str, str], ...] | None = None  # None: it could not be read
    memory: Memory | None = None  # None: it could not be read
    cpuset: CpuSet | None = None  # its cgroup's cpus
    mems: CpuSet | None = None  # the nodes whose memory it may use
    libraries: tuple[str, ...] = ()  # the file names of the shared libraries that it has loaded
    unseen: tuple[tuple[str, str], ...] = ()  # what could not be read, and why

    @property
    def ended(self) -> bool:
        return not self.threads


def read_process(root: LivingRoot, pid: int) -> Process | None:
    """What there is to see of a process; None when there is none. It may end meanwhile."""
    path = f"proc/{pid}"
    try:
        stat = parse_stat(root.read_whole(f"{path}/stat"))
    except OSError:
        return None
    threads = tuple(read_threads(root, path))
    process = Process(pid, stat.parent, stat.started, stat.name, threads=threads)
    if process.ended:
        return process
    unseen: list[tuple[str, str]] = []
    # A main thread that has ended has neither environment nor memory, while others go on.
    living = f"{path}/task/{threads[0].tid}"
    status = read_or_note(root, f"{living}/status", "status", []) or b""
    environ = read_or_note(root, f"{living}/environ", "environment", unseen)
    numa_maps = read_or_note(root, f"{living}/numa_maps", "memory", unseen)
    files = numa_maps
    if numa_maps is None:  # no NUMA in this kernel: the libraries are told there as well
        files = read_or_note(root, f"{living}/maps", "memory", [])
    return process.replace(
        user=parse_user(status),
        environ=None if environ is None else parse_environ(environ),
        memory=None if numa_maps is None else parse_numa_maps(numa_maps),
        cpuset=read_cpuset_of(root, pid),
        mems=parse_list_of(status, b"Mems_allowed_list"),
        libraries=parse_libraries(files or b""),
        unseen=tuple(unseen),
    )


class Found(Record):
    """A process, as much of it as tells who it is."""

    pid: int
    started: int
    name: str
    ended: bool
    environ: tuple[tuple[str, str], ...] | None


def find_process(root: LivingRoot, pid: int) -> Found | None:
    """Who a process is; None when there is none."""
    path = f"proc/{pid}"
    try:
        stat = parse_stat(root.read_whole(f"{path}/stat"))
    except OSError:
        return None
    living = pid
    if stat.state in "ZX":  # its main thread has ended, and the others perhaps not
        living = next((t.tid for t in read_threads(root, path)), 0)
    environ = read_or_note(root, f"{path}/task/{living}/environ", "environment", [])
    environ = b"" if not living else environ
    return Found(pid, stat.started, stat.name, not living,
                 None if environ is None else parse_environ(environ))  # fmt: skip


def read_environ(root: LivingRoot, pid: int) -> tuple[tuple[str, str], ...] | None:
    """A process' environment; None when it has ended or may not be read."""
    try:
        return parse_environ(root.read_whole(f"proc/{pid}/environ"))
    except OSError:
        return None


def read_or_note(
    root: LivingRoot, path: str, what: str, unseen: list[tuple[str, str]]
) -> bytes | None:
    """A file's bytes; where it may not be read, None and a note of that in `unseen`."""
    try:
        return root.read_whole(path)
    except OSError as e:
        if e.errno not in GONE:
            unseen.append((what, e.strerror or str(e)))
        return None


# --- threads -------------------------------------------------------------------------------------


def read_threads(root: LivingRoot, path: str) -> list[Thread]:
    """The living threads, by number: the main thread first, as it is the oldest."""
    threads = []
    masks: dict[bytes, CpuSet] = {}  # most threads of thousands have one of few masks
    for tid in sorted(int(name) for name in root.names(f"{path}/task") if name.isdigit()):
        try:
            stat = parse_stat(root.read_whole(f"{path}/task/{tid}/stat"))
            status = root.read_whole(f"{path}/task/{tid}/status")
        except OSError:  # it has ended since
            continue
        if stat.state not in "ZX":
            threads.append(Thread(tid, stat.name, stat.state, parse_mask(status, masks), stat.last))
    pid = path.rpartition("/")[2]
    return sorted(threads, key=lambda t: str(t.tid) != pid)


def count_threads(root: LivingRoot, pid: int) -> int:
    """How many threads a process has; 0 when it has ended."""
    return len(root.names(f"proc/{pid}/task"))


def read_name(root: LivingRoot, pid: int) -> str:
    """A process' name; "" when it has ended."""
    try:
        return parse_stat(root.read_whole(f"proc/{pid}/stat")).name
    except OSError:
        return ""


class Stat(Record):
    """The fields of a `stat` that are wanted here."""

    name: str
    state: str
    parent: int
    started: int
    last: int | None


def parse_stat(data: bytes) -> Stat:
    """From `7 (a name) S 1 …`: fields 2, 3, 4, 22 and 39; the name may hold anything."""
    name = data[data.find(b"(") + 1 : data.rfind(b")")].decode("utf-8", "replace")
    fields = data[data.rfind(b")") + 2 :].split()
    if len(fields) < 37:  # a hostile or cut copy
        return Stat(name, "?", 0, 0, None)
    return Stat(name, fields[0].decode("ascii", "replace"), number(fields[1]), number(fields[19]),
                number(fields[36]))  # fmt: skip


def number(field: bytes) -> int:
    return parse_whole(field.decode("ascii", "replace")) or 0


def parse_mask(status: bytes, masks: dict[bytes, CpuSet]) -> CpuSet:
    """`Cpus_allowed_list` of a status; `masks` remembers what was parsed."""
    text = text_of(status, b"Cpus_allowed_list")
    if text not in masks:
        masks[text] = parse_list_of(status, b"Cpus_allowed_list") or CpuSet()
    return masks[text]


def parse_list_of(status: bytes, name: bytes) -> CpuSet | None:
    """A list of cpus or nodes in a status; None where it is not said, or garbage."""
    try:
        return CpuSet.parse_kernel(text_of(status, name).decode("ascii", "replace")) or None
    except ParseError:
        return None


def text_of(status: bytes, name: bytes) -> bytes:
    """What stands after `name:` in a status."""
    _, found, rest = status.partition(b"\n" + name + b":")
    return rest[: rest.find(b"\n")] if found else b""


def parse_user(status: bytes) -> int | None:
    """The effective user of a status."""
    words = text_of(status, b"Uid").split()
    return parse_whole(words[1].decode("ascii", "replace")) if words[1:] else None


def read_parents(root: LivingRoot) -> dict[int, int]:
    """The parent of every process that is to be seen."""
    parents = {}
    for name in root.names("proc"):
        if name.isdigit():
            try:
                parents[int(name)] = parse_stat(root.read_whole(f"proc/{name}/stat")).parent
            except OSError:  # it has ended since
                continue
    return parents


# --- environment, cgroup, memory ----------------------------------------------------------------


def read_parent(root: LivingRoot, pid: int) -> int | None:
    """A process' parent; None when there is no such process (any more)."""
    try:
        return parse_stat(root.read_whole(f"proc/{pid}/stat")).parent
    except OSError:
        return None


def parse_environ(data: bytes) -> tuple[tuple[str, str], ...]:
    """The variables as they were when its program started."""
    pairs = (word.decode("utf-8", "surrogateescape") for word in data.split(b"\0") if word)
    return tuple((name, value) for name, equals, value in (p.partition("=") for p in pairs)
                 if equals)  # fmt: skip


def read_cpuset_of(root: LivingRoot, pid: int) -> CpuSet | None:
    """The cpus of a process' cgroup; None where nothing restricts them, or it is out of sight."""
    groups = parse_cgroups(root.read(f"proc/{pid}/cgroup") or "")
    try:
        return read_cpuset(root, read_mounts(root), groups, "cpus")
    except OmpbindError:
        return None


def parse_numa_maps(data: bytes) -> Memory:
    """From lines such as `7f00 bind:0 anon=3 dirty=3 N0=3 kernelpagesize_kB=4`.

    Pages count as the process' own where no file is behind them; a policy of two words
    ("prefer (many):0-1") is one.
    """
    own: dict[tuple[str, int], int] = {}
    files: dict[int, int] = {}
    sizes: dict[str, int] = {}
    main = ""
    for line in data.splitlines():
        words = line.decode("utf-8", "replace").split(" ")
        if len(words) < 2:
            continue
        policy, rest = words[1], 2
        if policy in ("prefer", "weighted") and words[2:]:
            policy, rest = f"{policy} {words[2]}", 3
        pages, is_file, size = [], False, 4
        for word in words[rest:]:
            name, _, value = word.partition("=")
            if name == "stack":
                main = policy
            elif name == "file":
                is_file = True
            elif name == "kernelpagesize_kB":
                size = parse_whole(value) or 0
            elif name[:1] == "N" and (node := parse_whole(name[1:])) is not None:
                pages.append((node, parse_whole(value) or 0))
        sizes.setdefault(policy, 0)
        for node, count in pages:
            amount = count * size * 1024
            sizes[policy] += amount
            if is_file:
                files[node] = files.get(node, 0) + amount
            else:
                own[policy, node] = own.get((policy, node), 0) + amount
    main = main or max(sizes, key=lambda p: sizes[p], default="")
    return Memory(main, tuple((*key, size) for key, size in sorted(own.items())),
                  tuple(sorted(files.items())))  # fmt: skip


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
    """For each of `pids` its descendants, parents before their children."""
    children: dict[int, list[int]] = {}
    for pid, parent in parents.items():
        children.setdefault(parent, []).append(pid)
    family: dict[int, list[int]] = {}
    for pid in pids:
        found = sorted(children.get(pid, []))
        for one in found:  # grows while it is walked
            found += sorted(children.get(one, []))
        family[pid] = found
    return family
