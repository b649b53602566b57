"""Who holds which cpus of this machine: launches of ompbind by their ranks' variables and leases,
other programs by their masks, as far as this user may see them.

Only looked at when a user asks (`ompbind ps`): it reads several files of every process.
"""

from __future__ import annotations

import os

from ompbind.cpuset import CpuSet, parse_whole, union
from ompbind.errors import ParseError
from ompbind.host.holders import name_user, read_leases, read_takers
from ompbind.host.neighbours import find_held
from ompbind.machine.processes import (
    parse_environ,
    parse_stat,
    parse_user,
    read_or_reason,
    read_record,
)
from ompbind.plans import (
    CPUS_VARIABLE,
    ENGINE_TASK,
    RANK_VARIABLE,
    RANKS_VARIABLE,
    RECORD_NAME,
    parse_roles,
)
from ompbind.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from ompbind.machine.roots import LivingRoot
    from ompbind.machine.topology import Machine

LAUNCHERS = ("ompbind", "rank-watcher")  # the names of the processes above several ranks


class Member(Record):
    """A rank, or another process that holds cpus."""

    pid: int  # 0: it cannot be seen
    rank: int | None  # None: not known
    cpus: CpuSet
    nodes: CpuSet  # of its cpus


class Launch(Record):
    """Processes that were started together."""

    pid: int  # of the one that the user started; 0: nothing but a lease can be seen
    user: str
    command: tuple[str, ...]
    by: str  # how it is known what it holds: "variables", "lease" or "mask"
    since: float | None  # when it was started, in seconds since 1970; None: not known
    members: tuple[Member, ...]
    cpus: CpuSet  # of all of them

    @property
    def nodes(self) -> CpuSet:
        return union(member.nodes for member in self.members)


class Survey(Record):
    """What is held of a machine, and by whom."""

    machine: Machine
    launches: tuple[Launch, ...]
    held: CpuSet  # all cpus on which there is a lease
    hidden: int = 0  # processes whose variables cannot be read, and which may be ranks of ompbind

    @property
    def free(self) -> tuple[CpuSet, ...]:
        """The allowed cores that nobody holds: no launch of ompbind, nor one with a lease."""
        taken = self.held | union(n.cpus for n in self.launches if n.by != "mask")
        topology, allowed = self.machine.topology, self.machine.allowed.cpus
        cores = topology.groups("core") or [CpuSet([cpu]) for cpu in topology.online]
        return tuple(core & allowed for core in cores if core & allowed and not core & taken)

    @property
    def bound(self) -> CpuSet:
        """The free cpus to which other programs have bound themselves."""
        return union(self.free) & union(n.cpus for n in self.launches if n.by == "mask")


class VisibleProcess(Record):
    """A process, as much of it as matters here."""

    pid: int
    parent: int
    started: int  # in the kernel's ticks since the machine booted
    name: str
    user: int | None
    mask: CpuSet
    command: tuple[str, ...]
    environ: Mapping[str, str] | None  # None: it cannot be read

    @property
    def claim(self) -> tuple[str, str, str] | None:
        """The rank and the cpus that ompbind gave it, and its engine's task; None: not a rank."""
        env = self.environ or {}
        if RANK_VARIABLE not in env or CPUS_VARIABLE not in env:
            return None
        return env[RANK_VARIABLE], env[CPUS_VARIABLE], env.get(ENGINE_TASK, "")


def survey(root: LivingRoot, machine: Machine) -> Survey:
    """Return who holds what of this machine: cpus that it does not have online are left out, which
    anybody can lease or name in variables."""
    online = machine.topology.online
    processes = read_all(root)
    leases = [cpus & online for cpus in read_leases(root)]
    ranks = {
        pid: (number, cpus & online)
        for pid, (number, cpus) in find_ranks(root, processes).items()
        if cpus & online
    }
    launches = make_launches(root, machine, processes, ranks)
    left = subtract(leases, [held for _, held in ranks.values()])
    above = {p for rank in ranks for p in climb(processes, rank)}
    takers = find_other_takers(root, processes, set(ranks) | above, left)
    for pid, cpus in takers.items():
        launches.append(make_launch(root, machine, processes, "lease", pid, {pid: (None, cpus)}))
    if left := left - union(takers.values()):
        nodes = machine.topology.nodes_of(left)
        launches.append(Launch(0, "", (), "lease", None, (Member(0, None, left, nodes),), left))
    known = {*ranks, *above, *takers, os.getpid()}
    launches += find_bound(root, machine, processes, known)
    hidden = sum(p.environ is None for p in processes.values())
    return Survey(machine, tuple(launches), union(leases), hidden)


# --- processes -----------------------------------------------------------------------------------


def read_all(root: LivingRoot) -> dict[int, VisibleProcess]:
    """Return all processes but the kernel's own and zombies, by pid."""
    processes: dict[int, VisibleProcess] = {}
    for name in root.names("proc"):
        if not name.isdigit():
            continue
        path, pid = f"proc/{name}", int(name)
        try:
            stat = parse_stat(root.read_whole(f"{path}/stat"))
            words = root.read_whole(f"{path}/cmdline")
            mask = CpuSet(os.sched_getaffinity(pid))
        except OSError:  # it has exited
            continue
        if not words or stat.state in "ZX":
            continue
        environ, _ = read_or_reason(root, f"{path}/environ")
        status, _ = read_or_reason(root, f"{path}/status")
        processes[pid] = VisibleProcess(
            pid, stat.parent, stat.started, stat.name, parse_user(status or b""), mask,
            tuple(w.decode("utf-8", "surrogateescape") for w in words.rstrip(b"\0").split(b"\0")),
            None if environ is None else dict(parse_environ(environ)),
        )  # fmt: skip
    return processes


def climb(processes: Mapping[int, VisibleProcess], pid: int) -> list[int]:
    """Return the processes of ompbind above a rank, from the supervisor to the one that the user
    started."""
    above: list[int] = []
    process = processes.get(processes[pid].parent)
    while process and process.name in LAUNCHERS:
        above.append(process.pid)
        process = processes.get(process.parent)
    return above


def read_start_time(root: LivingRoot, process: VisibleProcess) -> float | None:
    """Return when a process was started, in seconds since 1970; None where that is not known."""
    for line in (root.read("proc/stat") or "").splitlines():
        if line.startswith("btime "):
            return int(line.split()[1]) + process.started / os.sysconf("SC_CLK_TCK")
    return None


# --- launches of ompbind -------------------------------------------------------------------------


def find_ranks(
    root: LivingRoot, processes: Mapping[int, VisibleProcess]
) -> dict[int, tuple[int | None, CpuSet]]:
    """Return the ranks by pid, each with its number and the cpus that it holds, and those of its
    roles. Their children have the same variables, and do not count, nor do those that a supervisor
    has adopted, by its record; nor does a rank that has moved elsewhere hold what it was given."""
    records: dict[int, dict[int, bytes]] = {}  # of supervisors
    ranks: dict[int, tuple[int | None, CpuSet]] = {}
    for pid, process in processes.items():
        claim = process.claim
        parent = processes.get(process.parent)
        if claim is None or (parent and parent.claim == claim):
            continue
        if parent and parent.name in LAUNCHERS:
            if parent.pid not in records:
                records[parent.pid] = read_record(root, parent.pid, RECORD_NAME)
            if records[parent.pid] and pid not in records[parent.pid]:
                continue
        try:
            cpus = find_held(root, pid, CpuSet.parse_kernel(claim[1]))
        except (ParseError, OSError):  # not ompbind's, or it has exited
            continue
        if cpus:
            roles = parse_roles(process.environ or {})
            ranks[pid] = parse_whole(claim[0]), union([cpus, *roles.values()])
    return ranks


def make_launches(
    root: LivingRoot,
    machine: Machine,
    processes: Mapping[int, VisibleProcess],
    ranks: Mapping[int, tuple[int | None, CpuSet]],
) -> list[Launch]:
    """Return the launches of these ranks: those of one supervisor, or of one engine's job."""
    groups: dict[object, dict[int, tuple[int | None, CpuSet]]] = {}
    for pid, rank in ranks.items():
        claim, above = processes[pid].claim, climb(processes, pid)
        job = claim[2].rpartition("/")[0] if claim else ""
        several = (processes[pid].environ or {}).get(RANKS_VARIABLE, "1") != "1"
        key: object = above[-1] if above and several else job or pid
        groups.setdefault(key, {})[pid] = rank
    launches = []
    for key, members in groups.items():
        pid = key if isinstance(key, int) else min(members)
        launches.append(make_launch(root, machine, processes, "variables", pid, members))
    return launches


def make_launch(
    root: LivingRoot,
    machine: Machine,
    processes: Mapping[int, VisibleProcess],
    by: str,
    pid: int,
    members: Mapping[int, tuple[int | None, CpuSet]],
) -> Launch:
    """Return a launch of members, each by its pid with its number and its cpus."""
    first, head = processes[min(members)], processes[pid]
    ordered = sorted(members.items(), key=lambda m: (m[1][0] is None, m[1][0] or 0, m[0]))
    return Launch(
        pid=pid,
        user="" if first.user is None else name_user(first.user),
        command=first.command,
        by=by,
        since=read_start_time(root, head),
        members=tuple(
            Member(p, number, cpus, machine.topology.nodes_of(cpus))
            for p, (number, cpus) in ordered
        ),
        cpus=union(cpus for _, cpus in members.values()),
    )


# --- what only leases and masks tell -------------------------------------------------------------


def subtract(leases: Iterable[CpuSet], explained: Iterable[CpuSet]) -> CpuSet:
    """Return the cpus that have more leases than launches which explain them."""
    counts: dict[int, int] = {}
    for sets, step in ((leases, 1), (explained, -1)):
        for cpus in sets:
            for cpu in cpus:
                counts[cpu] = counts.get(cpu, 0) + step
    return CpuSet(cpu for cpu, count in counts.items() if count > 0)


def find_other_takers(
    root: LivingRoot, processes: Mapping[int, VisibleProcess], known: set[int], left: CpuSet
) -> dict[int, CpuSet]:
    """Return the processes whose variables cannot be read and that have taken leases on any of the
    cpus that are `left`, by pid: on those to which they, or their children, are bound."""
    takers: dict[int, CpuSet] = {}
    for pid in read_takers(root):
        process = processes.get(pid)
        if process is None or pid in known:
            continue
        cpus = process.mask & left
        if process.name in LAUNCHERS:
            cpus = union(p.mask for p in processes.values() if p.parent == pid) & left
        if cpus:
            takers[pid] = cpus
    return takers


def find_bound(
    root: LivingRoot, machine: Machine, processes: Mapping[int, VisibleProcess], known: set[int]
) -> list[Launch]:
    """Return other programs that are bound to some of the machine's cpus: those whose mask is
    narrower than their parent's, the children of one parent together."""
    online = machine.topology.online
    groups: dict[int, dict[int, tuple[int | None, CpuSet]]] = {}
    for pid, process in processes.items():
        mask = process.mask & online
        parent = processes.get(process.parent)
        if not mask or mask == online or is_below(processes, pid, known):
            continue
        if parent is None or parent.mask != process.mask:
            groups.setdefault(process.parent, {})[pid] = None, mask
    return [
        make_launch(root, machine, processes, "mask", min(members), members)
        for members in groups.values()
    ]


def is_below(processes: Mapping[int, VisibleProcess], pid: int, known: set[int]) -> bool:
    """Whether a process is one of these, or was started by one."""
    while pid in processes:
        if pid in known:
            return True
        pid = processes[pid].parent
    return False
