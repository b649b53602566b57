"""Compare running processes with their plan: from pids to a report."""

from __future__ import annotations

from ompbind.errors import UsageError
from ompbind.machine.cpus import read_online
from ompbind.machine.processes import (
    Process,
    find_process,
    make_family,
    read_environ,
    read_parents,
    read_process,
)
from ompbind.messages import quote
from ompbind.plans import CPUS_VARIABLE, RANK_VARIABLE
from ompbind.record import Record
from ompbind.verify.expected import expect_environ, expect_plan
from ompbind.verify.judge import judge
from ompbind.verify.report import ProcessReport, Report

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ompbind.machine.processes import ProcessId
    from ompbind.machine.roots import LivingRoot
    from ompbind.plans import Plan
    from ompbind.verify.expected import Expected


class Target(Record):
    """A process to verify, as it was when it was named."""

    process: ProcessId
    expected: Expected | None = None  # None: as its own environment says at each verification


def find_targets(root: LivingRoot, pids: Sequence[int], plan: Plan | None) -> tuple[Target, ...]:
    """Return the workers that `pids` stand for: a worker for itself, any other process for the
    workers that it has started. With a plan, a worker is the rank that its environment names, else
    the one at its position. Raises UsageError."""
    targets: list[Target] = []
    parents = read_parents(root)
    for pid in dict.fromkeys(pids):
        process = find_process(root, pid)
        if process is None:
            raise UsageError(f"no process has the pid {pid}", hint="give pids of running workers")
        workers = [process]
        if process.environ is not None and not is_worker(process):
            workers = find_workers(root, pid, parents) or workers
        for worker in workers:
            targets.append(make_target(worker, plan, len(targets)))
    return tuple(targets)


def is_worker(process: ProcessId) -> bool:
    return RANK_VARIABLE in dict(process.environ or ())


def find_workers(root: LivingRoot, pid: int, parents: dict[int, int]) -> list[ProcessId]:
    """Return the workers among a process's descendants, but not what workers have started."""
    workers: list[ProcessId] = []
    inside: set[int] = set()
    for child in make_family([pid], parents)[pid]:
        if parents[child] in inside:
            inside.add(child)
        elif (worker := find_process(root, child)) and is_worker(worker):
            inside.add(child)
            workers.append(worker)
    return sorted(workers, key=lambda w: rank_of(w) or 0)


def rank_of(process: ProcessId) -> int | None:
    expected = expect_environ(dict(process.environ or ()))
    return None if expected is None else expected.rank


def make_target(process: ProcessId, plan: Plan | None, position: int) -> Target:
    """Raises UsageError for a process that nothing can be compared with."""
    if plan is None:
        if process.environ is not None and rank_of(process) is None and not process.ended:
            raise UsageError(
                f"pid {process.pid} ({quote(process.name)[1:-1]}) is not a worker of ompbind, nor "
                "has it started one",
                hint="--plan FILE gives the plan to compare it with",
                pid=process.pid,
            )
        return Target(process)
    rank = rank_of(process)
    if rank is None or rank >= len(plan.ranks):
        rank = position
    if rank >= len(plan.ranks):
        raise UsageError(
            f"--plan has {len(plan.ranks)} ranks; pid {process.pid} would be rank {rank}",
            hint="give one pid for each rank, in the order of ranks",
            pid=process.pid,
        )
    return Target(process, expect_plan(plan.ranks[rank]))


def check(root: LivingRoot, targets: Sequence[Target]) -> Report:
    """Verify every target, and the processes that it has started, as they are now."""
    online = read_online(root)
    family = make_family([t.process.pid for t in targets], read_parents(root))
    reports: list[ProcessReport] = []
    for target in targets:
        before = target.process
        process = read_process(root, before.pid)
        if process is None or process.started != before.started:  # the number was reused
            process = Process(before.pid, name=before.name, environ=before.environ)
        expected = target.expected or expect_environ(dict(process.environ or ()))
        report = judge(process, expected, online)
        reports.append(report)
        for pid in family[before.pid] if not process.ended else ():
            if (child := child_of(root, pid, process)) is not None:
                inherited = target.expected or expect_environ(dict(child.environ or ()))
                reports.append(judge(child, inherited, online, report))
    return Report(tuple(reports), online)


def child_of(root: LivingRoot, pid: int, rank: Process) -> Process | None:
    """Return a process that a rank has started; None if it belongs to another launch, has exited or
    may not be read."""
    environ, inherited = dict(read_environ(root, pid) or ()), dict(rank.environ or ())
    names = (RANK_VARIABLE, CPUS_VARIABLE)
    if not environ or any(environ.get(name) != inherited.get(name) for name in names):
        return None
    process = read_process(root, pid)
    return None if process is None or process.ended else process
