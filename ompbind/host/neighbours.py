"""Workers of other launches of ompbind that hold cpus of a plan, by the variables in their
environment."""

from __future__ import annotations

import os

from ompbind.cpuset import CpuSet
from ompbind.errors import ParseError
from ompbind.plans import CPUS_VARIABLE, RANK_VARIABLE
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
    rank: str  # in its launch
    cpus: CpuSet  # those of the plan that it holds


def find_neighbours(
    root: LivingRoot, cpus: CpuSet, environ: Mapping[str, str], most: int = MAX_PROCESSES
) -> list[Neighbour]:
    """Return the workers of other launches that are bound to any of `cpus`, by pid.

    A process with the same rank and cpus in its environment as in `environ`, our own, belongs to
    the launch that this process is part of. Other users' environments cannot be read.
    """
    wanted, count = set(cpus), os.cpu_count() or 1
    narrow: list[int] = []
    others: list[int] = []
    for pid in sorted((int(n) for n in root.names("proc") if n.isdigit()), reverse=True):
        try:
            mask = os.sched_getaffinity(pid)  # a tenth of the time to read a file
        except OSError:  # it has exited
            continue
        if not mask.isdisjoint(wanted):
            (narrow if len(mask) < count else others).append(pid)
    this_launch = (environ.get(RANK_VARIABLE, ""), environ.get(CPUS_VARIABLE, ""))
    neighbours: list[Neighbour] = []
    holders: set[int] = set()
    for pid in sorted(
        [*narrow, *others][:most]
    ):  # a worker before its children, which do not count
        try:
            data = root.read_whole(f"proc/{pid}/environ")
        except OSError:  # another user's, or it has exited
            continue
        if (claim := parse_claim(data)) is None or claim == this_launch:
            continue
        try:
            held = CpuSet.parse_kernel(claim[1]) & CpuSet(os.sched_getaffinity(pid)) & cpus
        except (ParseError, OSError):
            continue
        if not held:
            continue
        holders.add(pid)
        from ompbind.machine.processes import read_parent  # needed only if there are neighbours

        if read_parent(root, pid) not in holders:
            name = (root.read(f"proc/{pid}/comm") or "").strip()
            neighbours.append(Neighbour(pid, name, claim[0], held))
    return neighbours


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


def make_warning(neighbours: list[Neighbour], most: int = 3) -> str:
    """Return a warning that says which cpus are held by whom, and what to do; "" without any."""
    if not neighbours:
        return ""
    mask = 0
    for n in neighbours:
        mask |= n.cpus.mask
    held = CpuSet.from_mask(mask)
    who = [f"pid {n.pid} ({n.name}, rank {n.rank}, cpus {n.cpus})" for n in neighbours[:most]]
    if neighbours[most:]:
        who.append(f"{len(neighbours) - most} more")
    return (
        f"another launch of ompbind holds cpus {held} of this plan: {', '.join(who)}; "
        f"--exclude {held} avoids them, --part 1/2 and --part 2/2 divide the machine between two "
        "launches, --no-neighbours omits this check"
    )
