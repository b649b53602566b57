"""The processes that are to be ranks, and what they have started, which changes while they run."""

from __future__ import annotations

import os

from ompbind.errors import DeniedError, UsageError
from ompbind.host.holders import name_user
from ompbind.host.launches import LAUNCHERS
from ompbind.machine.processes import (
    find_process,
    is_kernel_thread,
    read_privileges,
    read_start,
)
from ompbind.messages import name_process
from ompbind.verify.lineage import Lineage, is_same

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ompbind.machine.processes import Process, ProcessId
    from ompbind.machine.roots import LivingRoot

CAP_SYS_NICE = 23


def find_named(root: LivingRoot, pids: Sequence[int]) -> list[ProcessId]:
    """Return the processes that are to be ranks, in order; an ompbind run stands for its ranks.
    Raises UsageError."""
    lineage = Lineage(root)
    named: list[ProcessId] = []
    for pid in pids:
        process = find_process(root, pid)
        if process is None or process.ended:
            problem = (
                f"no process has the pid {pid}" if process is None else f"pid {pid} has exited"
            )
            raise UsageError(problem, hint="give pids of running processes", pid=pid)
        who = describe(process)
        if pid == os.getpid():
            raise UsageError(f"{who} is this ompbind itself", hint="give pids of other processes")
        if is_kernel_thread(root, pid):
            raise UsageError(f"{who} is a thread of the kernel", hint="give pids of programs")
        ranks = lineage.list_workers(pid) if process.name in LAUNCHERS else []
        members = [m for rank in ranks if (m := find_process(root, rank))] or [process]
        for member in members:
            if any(member.pid == other.pid for other in named):
                raise UsageError(f"{describe(member)} is named twice", hint="give each pid once")
            named.append(member)
    return named


def describe(process: ProcessId | Process) -> str:
    """Return `pid 12 (python)`."""
    return name_process(process.pid, process.name)


def check_owner(root: LivingRoot, process: Process) -> None:
    """Refuse a process whose threads this user may not bind. Raises DeniedError."""
    if process.user is None or process.user == os.geteuid():
        return
    if read_privileges(root) >> CAP_SYS_NICE & 1:
        return
    raise DeniedError(
        f"{describe(process)} belongs to user {name_user(process.user)}, whose threads only they "
        "and root may bind",
        hint="run ompbind rebind as that user or as root",
        part="cpus",
    )


class Families:
    """Which processes are of which rank: each of the one that was named, itself or the nearest of
    its ancestors. Once seen, a process stays one of them when it loses its parents. What belongs to
    another launch of ompbind than the named process does not count: that has a plan of its own."""

    def __init__(self, root: LivingRoot, named: Sequence[ProcessId]) -> None:
        self.root, self.named = root, named
        self.ranks: dict[int, int] = {}  # by pid
        self.started: dict[int, int] = {}  # in the kernel's ticks, by pid
        self.foreign: set[int] = set()  # the processes of other launches
        lineage = Lineage(root)
        self.claims = [lineage.find_claim(process.pid) for process in named]
        for rank, process in enumerate(named):
            self.ranks[process.pid], self.started[process.pid] = rank, process.started

    def look(self) -> list[list[int]]:
        """Return the processes of each rank that are alive now, the named one first."""
        lineage = Lineage(self.root)
        for pid, started in list(self.started.items()):
            if pid not in lineage.parents or read_start(self.root, pid) != started:
                del self.ranks[pid], self.started[pid]  # it has exited
        for pid in list(self.ranks):
            for child in lineage.family_of(pid):
                if child not in self.ranks and child not in self.foreign:
                    self.add(lineage, child, pid)
        members: list[list[int]] = [[] for _ in self.named]
        for pid, rank in self.ranks.items():
            members[rank].append(pid)
        return members

    def add(self, lineage: Lineage, pid: int, ancestor: int) -> None:
        """Add a process to the rank of the nearest ancestor that has one, as `ancestor` has."""
        known = (self.ranks[p] for p in lineage.list_ancestors(pid) if p in self.ranks)
        rank = next(known, self.ranks[ancestor])
        if not is_same(lineage.find_claim(pid), self.claims[rank]):
            self.foreign.add(pid)
        elif started := read_start(self.root, pid):  # else it has exited
            self.ranks[pid], self.started[pid] = rank, started
