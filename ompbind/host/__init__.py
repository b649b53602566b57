"""What surrounds a launch, here and now; first the workers of other launches of ompbind that hold
cores of a plan, known by the variables in their environment.
"""

from __future__ import annotations

import os

from ompbind.cpuset import CpuSet, union
from ompbind.errors import ParseError, TopologyError
from ompbind.messages import counted, label, one_line
from ompbind.plans import CPUS_VARIABLE, ENGINE_TASK, RANK_VARIABLE, Caution
from ompbind.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from ompbind.machine.roots import LivingRoot

# Environments to read, of processes with narrow masks and of the newest first: 7 us each, less than
# a millisecond in all.
MAX_PROCESSES = 128


class Neighbour(Record):
    """A worker of another launch."""

    pid: int
    name: str
    cpus: CpuSet  # of each core that it holds, the plan's lowest cpu
    cores: CpuSet  # all hardware threads of these cores


def find_neighbours(
    root: LivingRoot,
    cpus: CpuSet,
    environ: Mapping[str, str],
    job: str = "",
    most: int = MAX_PROCESSES,
) -> list[Neighbour]:
    """Return the workers of other launches that hold a hardware thread of the cores of `cpus`, by
    pid.

    A process with the same rank and cpus in its environment as in `environ`, our own, belongs to
    the launch that this process is part of, and so does one of the same engine's `job`: its ranks
    share cpus only where the plan says so. Other users' environments cannot be read.
    """
    this_launch = (environ.get(RANK_VARIABLE, ""), environ.get(CPUS_VARIABLE, ""))
    held: dict[int, CpuSet] = {}
    for pid in list_candidates(root, cpus)[:most]:
        try:
            data = root.read_whole(f"proc/{pid}/environ")
            claim = parse_claim(data)
            if claim is None or claim == this_launch or is_of_job(data, job):
                continue
            if claimed := find_held(root, pid, CpuSet.parse_kernel(claim[1])):
                held[pid] = claimed
        except (ParseError, OSError):  # another user's, or it has exited
            continue
    if not held:
        return []
    from ompbind.machine.cpus import read_cores  # needed only where other launches run
    from ompbind.machine.processes import read_parent

    try:
        cores = read_cores(root, cpus)
    except TopologyError:
        cores = [CpuSet([cpu]) for cpu in cpus]
    neighbours: list[Neighbour] = []
    holders: set[int] = set()
    for pid in sorted(held):  # a worker before its children, which do not count
        shared = [core for core in cores if core & held[pid]]
        if not shared:
            continue
        holders.add(pid)
        if read_parent(root, pid) not in holders:
            name = (root.read(f"proc/{pid}/comm") or "").strip()
            lowest = CpuSet((core & cpus).first for core in shared)
            neighbours.append(Neighbour(pid, name, lowest, union(shared)))
    return neighbours


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
    cores = union(n.cores for n in neighbours)
    cpus = union(n.cpus for n in neighbours)
    who = [f"pid {n.pid} ({one_line(n.name)})" for n in neighbours[:most]]
    if neighbours[most:]:
        who.append(f"{len(neighbours) - most} more")
    hint = "--part 1/2 and --part 2/2 divide the machine; --no-neighbours omits this check"
    if allowed - cores:
        hint = f"--exclude {cores} avoids them; {hint}"
    text = f"another launch of ompbind holds {counted(len(cpus), 'core')} of this plan"
    return Caution("neighbours", f"{text}, {label('cpu', cpus)}: {', '.join(who)}", hint)
