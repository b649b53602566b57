"""Other launches of ompbind on this machine that hold cpus of a plan, told by what their workers
carry in their environment."""

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

# Environments that `run` reads at most, the processes with narrow masks and the newest first: about
# 7 us each, so less than a millisecond.
MOST = 128


class Neighbour(Record):
    """A worker of another launch: what it runs, its rank there, and the cpus that it holds."""

    pid: int
    name: str
    rank: str
    cpus: CpuSet


def find_neighbours(
    root: LivingRoot, cpus: CpuSet, environ: Mapping[str, str], most: int = MOST
) -> list[Neighbour]:
    """Workers of other launches that are bound to any of `cpus`, by pid.

    A process with the claim in our own environment `environ` belongs to the launch that we run
    inside of. Other users' environments may not be read.
    """
    ours, count = set(cpus), os.cpu_count() or 1
    narrow: list[int] = []
    others: list[int] = []
    for pid in sorted((int(n) for n in root.names("proc") if n.isdigit()), reverse=True):
        try:
            mask = os.sched_getaffinity(pid)  # a tenth of what reading a file takes
        except OSError:  # it has ended
            continue
        if not mask.isdisjoint(ours):
            (narrow if len(mask) < count else others).append(pid)
    own = (environ.get(RANK_VARIABLE, ""), environ.get(CPUS_VARIABLE, ""))
    found: list[Neighbour] = []
    holders: set[int] = set()
    for pid in sorted([*narrow, *others][:most]):  # a worker before its children, told once
        try:
            data = root.read_whole(f"proc/{pid}/environ")
        except OSError:  # another user's, or it has ended
            continue
        if (claim := parse_claim(data)) is None or claim == own:
            continue
        try:
            held = CpuSet.parse_kernel(claim[1]) & CpuSet(os.sched_getaffinity(pid)) & cpus
        except (ParseError, OSError):
            continue
        if not held:
            continue
        holders.add(pid)
        from ompbind.machine.processes import read_parent  # where there are neighbours only

        if read_parent(root, pid) not in holders:
            name = (root.read(f"proc/{pid}/comm") or "").strip()
            found.append(Neighbour(pid, name, claim[0], held))
    return found


def parse_claim(data: bytes) -> tuple[str, str] | None:
    """Rank and cpus in an environment; None where ompbind did not start the process."""
    if CPUS_VARIABLE.encode() not in data:
        return None
    values = []
    for name in (RANK_VARIABLE, CPUS_VARIABLE):
        _, found, rest = (b"\0" + data).partition(b"\0" + name.encode() + b"=")
        if not found:
            return None
        values.append(rest.partition(b"\0")[0].decode("utf-8", "replace"))
    return values[0], values[1]


def make_warning(found: list[Neighbour], most: int = 3) -> str:
    """What is held by whom, and what to do about it; "" without neighbours."""
    if not found:
        return ""
    mask = 0
    for n in found:
        mask |= n.cpus.mask
    held = CpuSet.from_mask(mask)
    who = [f"pid {n.pid} ({n.name}, rank {n.rank}, cpus {n.cpus})" for n in found[:most]]
    if found[most:]:
        who.append(f"{len(found) - most} more")
    return (
        f"another launch of ompbind holds cpus {held} of this plan: {', '.join(who)}; "
        f"--exclude {held} leaves them to it, --part 1/2 and --part 2/2 divide the machine between "
        "two launches, --no-neighbours says nothing"
    )
