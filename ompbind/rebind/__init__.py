"""Bind programs that run already: every thread of a process and of its descendants to the cpus of a
rank, and their pages to its nodes.

All is checked first, and nothing changed if anything speaks against it. Then threads are bound,
again and again until no thread is new; pages are moved; threads that came meanwhile are bound; and
all is read back.
"""

from __future__ import annotations

import errno
import os

from ompbind.cpuset import CpuSet, union
from ompbind.errors import DeniedError, PlanError
from ompbind.launch.running import Moved, set_mask
from ompbind.machine.cpus import read_online
from ompbind.machine.processes import is_fixed, list_tasks, read_process
from ompbind.messages import counted, label
from ompbind.rebind.conflicts import (
    FORCE,
    check_limits,
    find_conflict,
    find_held,
    read_leases_of,
)
from ompbind.rebind.families import Families, check_owner, describe
from ompbind.rebind.pages import Migration, count_outside, explain, find_nodes, find_other_nodes
from ompbind.rebind.result import Change, Result
from ompbind.verify import add_huge_pages
from ompbind.verify.expected import Expected
from ompbind.verify.judge import judge
from ompbind.verify.report import ProcessReport, Report

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ompbind.machine.processes import Process, ProcessId
    from ompbind.machine.roots import LivingRoot
    from ompbind.machine.topology import Machine
    from ompbind.plans import Plan, RankPlan

MAX_PASSES = 100  # over all threads: a program that binds them itself would never be done


class Rebinding:
    """A plan for processes that run already, one for each rank, and how far it is carried out."""

    def __init__(
        self,
        root: LivingRoot,
        machine: Machine,
        plan: Plan,
        named: Sequence[ProcessId],
        *,
        moves: bool = True,
        force: bool = False,
    ) -> None:
        """Check everything; nothing is changed. `moves`: whether pages are moved; `force`: whether
        threads with places of their own, and cores that other launches hold, are taken all the
        same. Raises OmpbindError."""
        self.root, self.machine, self.plan, self.named = root, machine, plan, named
        self.force = force
        self.online = read_online(root)
        self.nodes = [find_nodes(r, machine) if moves else CpuSet() for r in plan.ranks]
        self.families = Families(root, named)
        self.notes: list[str] = []
        self.masks: dict[int, CpuSet] = {}  # before, of the threads that were bound, by tid
        self.fixed: set[int] = set()  # threads that the kernel lets nobody bind
        self.rebound: dict[int, set[int]] = {}  # which these are, by pid
        self.moved: dict[int, Moved] = {}  # by pid
        self.changes: dict[int, Change] = {}  # by pid
        for rank, pids in zip(plan.ranks, self.families.look(), strict=True):
            for pid in pids:
                process = self.read(pid)
                if process is not None and not process.ended:
                    self.check(process, rank)
                    self.changes[pid] = self.make_change(process, rank)
        self.check_leases()
        self.report_foreign()

    def read(self, pid: int) -> Process | None:
        """Return what can be read of a process, without threads that nobody can bind."""
        process = read_process(self.root, pid)
        threads = tuple(t for t in process.threads if not t.fixed) if process else ()
        return process.replace(threads=threads) if process and threads else process

    # --- checks -----------------------------------------------------------------------------------

    def check(self, process: Process, rank: RankPlan) -> None:
        """Refuse a process that cannot be bound so. Raises PlanError, DeniedError."""
        nodes = self.nodes[rank.rank]
        check_owner(self.root, process)
        check_limits(process, rank, nodes)
        conflict = find_conflict(process, rank.cpus, self.online)
        if conflict and not self.force:
            raise PlanError(f"{describe(process)}: {conflict}", hint=FORCE, available=rank.cpus)
        if conflict:
            text = "what OpenMP starts or binds from now on may leave the plan"
            self.notes.append(f"{describe(process)}: {conflict}; {text}")
        if others := find_other_nodes(process.memory, nodes):
            policy = process.memory.policy if process.memory else ""
            self.notes.append(
                f"{describe(process)} has the memory policy {policy}, which only the program can "
                f"change: it goes on allocating on {label('node', others)}"
            )

    def make_change(self, process: Process, rank: RankPlan) -> Change:
        """Return what is to be changed of a process."""
        masks = [thread.cpus & self.online for thread in process.threads]
        leader = self.named[rank.rank].pid
        return Change(
            pid=process.pid,
            rank=rank.rank,
            parent=0 if process.pid == leader else leader,
            name=process.name,
            threads=len(masks),
            before=union(masks),
            rebound=sum(mask != rank.cpus for mask in masks),
            outside=count_outside(process.memory, self.nodes[rank.rank]),
        )

    def check_leases(self) -> None:
        """Refuse cores that other launches of ompbind hold, and note the leases that the named
        processes keep. Raises PlanError."""
        leases = read_leases_of(self.root, self.named)
        cpus = union(rank.cpus for rank in self.plan.ranks)
        held = find_held(self.root, self.machine, cpus, list(leases.values()))
        if held and not self.force:
            verb = "are" if len(held) > 1 else "is"
            raise PlanError(
                f"{label('cpu', held)} of this plan's cores {verb} held by other launches",
                hint="ompbind ps shows them; --force rebinds all the same",
                wanted=cpus,
                available=cpus - held,
            )
        for pid, lease in leases.items():
            self.notes.append(
                f"pid {pid} is a rank of ompbind's: it holds {label('cpu', lease)} until it exits, "
                "whatever it is bound to, and ompbind verify compares it with its launch's plan"
            )

    def report_foreign(self) -> None:
        """Note the processes that are left out as they belong to other launches."""
        if foreign := sorted(self.families.foreign):
            more = f" and {len(foreign) - 1} more belong" if foreign[1:] else " belongs"
            self.notes.append(f"pid {foreign[0]}{more} to a launch of ompbind below, with a plan "
                              "of its own: left alone")  # fmt: skip

    # --- what is done -----------------------------------------------------------------------------

    def carry_out(self) -> Result:
        """Bind the threads, move the pages, and read all back. Raises DeniedError where the kernel
        denies the masks, which are then as before."""
        try:
            self.bind_threads()
        except OSError as e:
            self.restore()
            text = f"the kernel denies sched_setaffinity: {e.strerror or e}"
            raise DeniedError(text, hint="all threads are bound as before", part="cpus") from None
        except KeyboardInterrupt:
            self.restore()
            raise
        self.move_pages()
        try:
            self.bind_threads()
        except OSError as e:
            self.notes.append(f"a thread that has started since cannot be bound: {e.strerror or e}")
        if count := len(self.fixed):
            text = f"{counted(count, 'thread')} of the kernel's (io_uring), which nobody can bind"
            self.notes.append(f"{text}: left {'where it is' if count == 1 else 'where they are'}")
        return self.make_result(self.verify())

    def bind_threads(self) -> None:
        """Bind every thread, until a pass over all of them finds none that is bound otherwise.
        Raises OSError."""
        for _ in range(MAX_PASSES):
            if not self.pass_over():
                return
        self.notes.append(f"after {MAX_PASSES} passes over all threads some were bound otherwise "
                          "again: the program binds them itself")  # fmt: skip

    def pass_over(self) -> int:
        """Bind each thread that is bound otherwise; return how many there were. Raises OSError."""
        count = 0
        for rank, pids in zip(self.plan.ranks, self.families.look(), strict=True):
            for pid in pids:
                bound = [tid for tid in list_tasks(self.root, pid) if self.bind(tid, rank.cpus)]
                self.rebound.setdefault(pid, set()).update(bound)
                count += len(bound)
        return count

    def bind(self, tid: int, cpus: CpuSet) -> bool:
        """Bind a thread; return whether it was bound otherwise. Raises OSError."""
        if tid in self.fixed:
            return False
        try:
            before = CpuSet(os.sched_getaffinity(tid))
            if before == cpus:
                return False
            self.masks.setdefault(tid, before)
            set_mask(tid, cpus)
        except ProcessLookupError:
            return False
        except OSError as e:
            if e.errno != errno.EINVAL or not is_fixed(self.root, tid):
                raise
            self.fixed.add(tid)
            del self.masks[tid]
            return False
        return True

    def restore(self) -> None:
        """Bind the threads as they were, as far as that is allowed."""
        for tid, cpus in self.masks.items():
            try:
                set_mask(tid, cpus)
            except OSError:
                continue  # it has exited, or its cpuset has changed

    def move_pages(self) -> None:
        """Move the pages of each process that has any on other nodes."""
        migration = Migration(self.root)
        for rank, pids in zip(self.plan.ranks, self.families.look(), strict=True):
            nodes = self.nodes[rank.rank]
            for pid in pids if nodes else ():
                self.moved[pid] = migration.move(pid, nodes)
        if migration.problem and any(c.outside for c in self.changes.values()):
            self.notes.append(f"pages cannot be moved here: {migration.problem}")

    def verify(self) -> Report:
        """Compare the processes, as they are now, with the plan."""
        reports: list[ProcessReport] = []
        for rank, pids in zip(self.plan.ranks, self.families.look(), strict=True):
            expected = expect_rebound(rank, self.nodes[rank.rank])
            leader: ProcessReport | None = None
            for pid in pids:
                process = self.read(pid)
                if process is not None and not (process.ended and leader):
                    reports.append(judge(process, expected, self.online, leader))
                    leader = leader or reports[-1]
        return add_huge_pages(self.root, Report(tuple(reports), self.online))

    # --- the result -------------------------------------------------------------------------------

    def make_result(self, report: Report | None = None) -> Result:
        """Return what was changed; without a `report` of how all is now, what would be."""
        changes = self.changes
        if report is not None:
            changes = {pid: self.complete(change) for pid, change in changes.items()}
            for process in report.processes:
                pid, expected = process.process.pid, process.expected
                if pid not in changes and self.rebound.get(pid) and expected:
                    new = self.make_change(process.process, self.plan.ranks[expected.rank])
                    changes[pid] = self.complete(new)
        values = tuple(sorted(changes.values(), key=lambda c: (c.rank, c.parent, c.pid)))
        return Result(self.plan, tuple(self.nodes), values, tuple(self.notes), report)

    def complete(self, change: Change) -> Change:
        """Return a change with what was done of it."""
        tids, moved = self.rebound.get(change.pid, set()), self.moved.get(change.pid, Moved())
        masks = [change.before, *(self.masks[tid] for tid in tids)]
        return change.replace(
            before=union(masks if tids else masks[:1]),
            threads=max(change.threads, len(tids)),
            rebound=len(tids),
            moved=moved.moved,
            left=moved.left,
            reason=explain(moved),
        )


def expect_rebound(rank: RankPlan, nodes: CpuSet) -> Expected:
    """Return what is expected of a process that was bound while it ran."""
    mem = "none" if not nodes else rank.mem if rank.mems else "bind"
    return Expected(
        rank.rank, rank.cpus, (), "", None, mem, nodes, number=rank.number, rebound=True
    )
