"""Other launches of ompbind that hold cores of a plan: who they are.

A lease (`ompbind.host`) says which cpus are held; the kernel's list of locks, masks and the
variables in workers' environments say by whom. Reading them grows with the number of processes, so
a launch does it only where a lease of others is in its way, or where it was asked to.
"""

from __future__ import annotations

import os

from ompbind.cpuset import CpuSet, union
from ompbind.errors import ParseError, TopologyError
from ompbind.messages import counted, label, name_process
from ompbind.plans import CPUS_VARIABLE, ENGINE_TASK, RANK_VARIABLE, Caution
from ompbind.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ompbind.machine.roots import LivingRoot

# Environments to read, of processes with narrow masks and of the newest first: 7 us each, less than
# a millisecond in all.
MAX_PROCESSES = 128
NONE = CpuSet()


class Neighbour(Record):
    """A worker of another launch, or what holds a lease. `pid`: 0 for one that cannot be seen."""

    pid: int
    name: str
    cpus: CpuSet  # of each core that it holds, the plan's lowest cpu
    cores: CpuSet  # all hardware threads of these cores
    user: str = ""  # where it is another one than ours


def find_neighbours(
    root: LivingRoot,
    cpus: CpuSet,
    environ: Mapping[str, str],
    job: str = "",
    most: int = MAX_PROCESSES,
    *,
    leased: CpuSet = NONE,
) -> list[Neighbour]:
    """Return the workers of other launches that hold a hardware thread of the cores of `cpus`, by
    pid, and whoever else has a lease on `leased`, the cpus that leases of others hold.

    The launches that this process is part of are not others: those of its ancestors, those with the
    same rank and cpus in their environment as in `environ`, our own, and those of the same engine's
    `job`, whose ranks share cpus only where the plan says so. Of other users' processes only names
    and masks can be read.
    """
    from ompbind.machine.limits import find_ancestors

    ancestors = {a.pid for a in find_ancestors(root, os.getpid())}
    this_launch = (environ.get(RANK_VARIABLE, ""), environ.get(CPUS_VARIABLE, ""))
    held: dict[int, CpuSet] = {}
    ours = CpuSet()
    for number, pid in enumerate(list_candidates(root, cpus)):
        if number >= most and leased <= union([ours, *held.values()]):
            break  # no lease is left that nobody explains
        try:
            data = root.read_whole(f"proc/{pid}/environ")
            claim = parse_claim(data)
            if claim is None:
                continue
            claimed = find_held(root, pid, CpuSet.parse_kernel(claim[1]))
        except (ParseError, OSError):  # another user's, or it has exited
            continue
        if claim == this_launch or pid in ancestors or is_of_job(data, job):
            ours |= claimed
        elif claimed:
            held[pid] = claimed
    if not held and not leased - ours:
        return []
    from ompbind.machine.cpus import read_cores  # needed only where other launches run

    try:
        cores = read_cores(root, cpus)
    except TopologyError:
        cores = [CpuSet([cpu]) for cpu in cpus]
    neighbours = make_neighbours(root, cpus, cores, held)
    left = leased - ours - union(n.cores for n in neighbours)
    if left:
        takers = find_takers(root, left, ancestors | {os.getpid(), *held})
        neighbours += make_neighbours(root, cpus, cores, takers)
        if left := left - union(takers.values()):
            neighbours += make_neighbours(root, cpus, cores, {0: left})
    return neighbours


def make_neighbours(
    root: LivingRoot, cpus: CpuSet, cores: Sequence[CpuSet], held: Mapping[int, CpuSet]
) -> list[Neighbour]:
    """Return those who hold any of `cores`, the cores of `cpus`, by pid, without their children."""
    from ompbind.machine.processes import read_parent

    neighbours: list[Neighbour] = []
    holders: set[int] = set()
    for pid in sorted(held):  # a worker before its children, which do not count
        shared = [core for core in cores if core & held[pid]]
        if not shared:
            continue
        holders.add(pid)
        if not pid or read_parent(root, pid) not in holders:
            name = (root.read(f"proc/{pid}/comm") or "").strip() if pid else ""
            lowest = CpuSet((core & cpus).first for core in shared)
            user = find_user(root, pid)
            neighbours.append(Neighbour(pid, name, lowest, union(shared), user))
    return neighbours


def find_takers(root: LivingRoot, leased: CpuSet, passed_over: set[int]) -> dict[int, CpuSet]:
    """Return the processes that have taken leases, by pid, and which of these cpus they may run on.

    Another process may hold what they took: those that they started.
    """
    from ompbind.host.holders import read_takers

    takers: dict[int, CpuSet] = {}
    for pid in read_takers(root):
        if pid not in passed_over and (cpus := read_masks(root, pid) & leased):
            takers[pid] = cpus
    return takers


def find_user(root: LivingRoot, pid: int) -> str:
    """Return the name of a process's user; "" where it is this process's, or not known."""
    from ompbind.host.holders import name_user, read_user

    user = read_user(root, pid) if pid else None
    return "" if user is None or user == os.geteuid() else name_user(user)


def list_candidates(root: LivingRoot, cpus: CpuSet) -> list[int]:
    """Return the processes in the order in which it pays to look at them: those whose main thread
    is bound to some of `cpus`, those that are not bound, those whose main thread is elsewhere while
    others may not be, and the kernel's own threads; the newest of each first."""
    wanted, count = set(cpus), os.cpu_count() or 1
    classes: list[list[int]] = [[], [], [], []]
    for pid in sorted((int(n) for n in root.names("proc") if n.isdigit()), reverse=True):
        try:
            mask = os.sched_getaffinity(pid)  # a tenth of the time to read a file
            of_kernel = os.getpgid(pid) == 0  # or its group's leader is in an outer pid namespace
        except OSError:  # it has exited
            continue
        apart = mask.isdisjoint(wanted)
        classes[3 if of_kernel else 2 if apart else 1 if len(mask) >= count else 0].append(pid)
    return [pid for pids in classes for pid in pids]


def find_held(root: LivingRoot, pid: int, claimed: CpuSet) -> CpuSet:
    """Return the cpus that a process holds: those it claims, since its main thread may be bound to
    one of them only, or where that has been moved elsewhere, those of all of its threads. Raises
    OSError.
    """
    if not claimed or not os.sched_getaffinity(pid).isdisjoint(claimed):
        return claimed
    return read_masks(root, pid)


def read_masks(root: LivingRoot, pid: int) -> CpuSet:
    """Return the cpus on which any thread of a process may run."""
    masks: set[int] = set()
    for name in root.names(f"proc/{pid}/task"):
        try:
            masks |= os.sched_getaffinity(int(name))
        except OSError:  # it has exited
            continue
    return CpuSet(masks)


def is_of_job(data: bytes, job: str) -> bool:
    """Whether an environment is that of a rank of an engine's job, "" for none."""
    start = f"{ENGINE_TASK}={job}/".encode("utf-8", "surrogateescape")
    return bool(job) and b"\0" + start in b"\0" + data


def parse_claim(data: bytes) -> tuple[str, str] | None:
    """Return rank and cpus in an environment; None if ompbind did not start the process."""
    if CPUS_VARIABLE.encode() not in data:
        return None
    values = []
    for name in (RANK_VARIABLE, CPUS_VARIABLE):
        _, separator, rest = (b"\0" + data).partition(b"\0" + name.encode() + b"=")
        if not separator:
            return None
        values.append(rest.partition(b"\0")[0].decode("utf-8", "replace"))
    return values[0], values[1]


def make_warning(neighbours: list[Neighbour], allowed: CpuSet, most: int = 3) -> Caution | None:
    """Return a warning that says which cores are held by whom, and what to do; None without any.
    `allowed`: the cpus that a plan may use here, of which --exclude must leave some."""
    if not neighbours:
        return None
    hint = f"{make_hint(neighbours, allowed)}; --no-neighbours omits this check"
    return Caution("neighbours", describe(neighbours, most), hint)


def make_hint(neighbours: Sequence[Neighbour], allowed: CpuSet) -> str:
    """Return how a launch can keep out of the way of these."""
    cores = union(n.cores for n in neighbours)
    if allowed - cores:
        return f"--exclude {cores} avoids them, --free N takes cores that nobody holds"
    return "--part 1/2 and --part 2/2 divide the machine"


def describe(neighbours: Sequence[Neighbour], most: int = 3) -> str:
    """Return what these hold, and who they are: pid, name and, where it is not ours, user; `most`
    are named."""
    cpus = union(n.cpus for n in neighbours)
    text = f"another launch of ompbind holds {counted(len(cpus), 'core')} of this plan"
    texts = [
        name_process(n.pid, n.name, n.user) if n.pid else "a process that cannot be seen from here"
        for n in neighbours[:most]
    ]
    if neighbours[most:]:
        texts.append(f"{len(neighbours) - most} more")
    return f"{text}, {label('cpu', cpus)}: {', '.join(texts)}"
