"""Compare running processes with their plan: from pids to a report."""

from __future__ import annotations

from ompbind.errors import UsageError
from ompbind.machine.cpus import read_online
from ompbind.machine.processes import (
    Process,
    find_process,
    read_huge_pages_of,
    read_process,
)
from ompbind.messages import name_process
from ompbind.record import Record
from ompbind.verify.expected import expect_environ, expect_plan
from ompbind.verify.judge import judge
from ompbind.verify.lineage import Lineage, expect_member, is_same
from ompbind.verify.report import ProcessReport, Report

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ompbind.cpuset import CpuSet
    from ompbind.machine.processes import ProcessId
    from ompbind.machine.roots import LivingRoot
    from ompbind.plans import Plan
    from ompbind.verify.expected import Expected


class Target(Record):
    """A process to verify, as it was when it was named."""

    process: ProcessId
    expected: Expected | None = None  # None: as its launch says at each verification
    claim: tuple[tuple[str, str], ...] = ()  # its rank's variables, where only its children say


def find_targets(root: LivingRoot, pids: Sequence[int], plan: Plan | None) -> tuple[Target, ...]:
    """Return the processes that `pids` stand for: a process of a rank for itself, any other for the
    ranks that it has started. With a plan, a process is of the rank that its launch names, else of
    the one at its position. Raises UsageError."""
    targets: list[Target] = []
    lineage = Lineage(root)
    for pid in dict.fromkeys(pids):
        process = find_process(root, pid)
        if process is None:
            raise UsageError(f"no process has the pid {pid}", hint="give pids of running workers")
        members = [process]
        if not process.ended and lineage.find_claim(pid) is None:
            ranks = [rank for p in lineage.list_workers(pid) if (rank := find_process(root, p))]
            ranks.sort(key=lambda p: rank_of(lineage, p.pid) or 0)
            if process.overwritten and plan is None and ranks:
                claim = lineage.guess_claim(pid)
                if claim and is_inside(root, pid, expect_environ(claim)):
                    targets.append(Target(process, claim=tuple(claim.items())))
                else:  # around the launch, or a rank: who knows
                    targets += [Target(process), *map(Target, ranks)]
                continue
            members = ranks or members
        for member in members:
            targets.append(make_target(lineage, member, plan, len(targets)))
    return tuple(targets)


def rank_of(lineage: Lineage, pid: int) -> int | None:
    expected = expect_environ(lineage.find_claim(pid) or {})
    return None if expected is None else expected.rank


def is_inside(root: LivingRoot, pid: int, expected: Expected | None) -> bool:
    """Whether all threads of a process are confined to a rank's cpus."""
    process, online = read_process(root, pid), read_online(root)
    if process is None or expected is None:
        return False
    return all(thread.cpus & online <= expected.cpus for thread in process.threads)


def make_target(lineage: Lineage, process: ProcessId, plan: Plan | None, position: int) -> Target:
    """Raises UsageError for a process that nothing can be compared with."""
    rank = rank_of(lineage, process.pid)
    if plan is None:
        if process.environ is not None and rank is None and not process.ended:
            raise make_refusal(process)
        return Target(process)
    if rank is None or rank >= len(plan.ranks):
        rank = position
    if rank >= len(plan.ranks):
        raise UsageError(
            f"--plan has {len(plan.ranks)} ranks; pid {process.pid} would be rank {rank}",
            hint="give one pid for each rank, in the order of ranks",
            pid=process.pid,
        )
    return Target(process, expect_plan(plan.ranks[rank]))


def make_refusal(process: ProcessId) -> UsageError:
    """Return the error for a process that is of no launch of ompbind, as far as can be known."""
    who = name_process(process.pid, process.name)
    hint = "--plan FILE gives the plan to compare it with"
    if process.overwritten:
        text = f"{who} has written over its environment, and nothing else says which rank it is"
        hint += "; under ompbind run --supervise it is known by its launch"
        hint += "; --env SPT_NOENV=1 keeps setproctitle from doing that"
    else:
        text = f"{who} is not a worker of ompbind, nor has it started one"
    return UsageError(text, hint=hint, pid=process.pid)


def check(root: LivingRoot, targets: Sequence[Target]) -> Report:
    """Verify every target, and the processes that it has started, as they are now."""
    online = read_online(root)
    lineage = Lineage(root)
    reports: list[ProcessReport] = []
    ranks: list[int] = []
    for target in targets:
        before = target.process
        process = read_process(root, before.pid)
        if process is None or process.started != before.started:  # the number was reused
            process = Process(before.pid, name=before.name)
        if target.claim:
            lineage.claims[before.pid] = dict(target.claim)
        if process.ended:
            environ = dict(target.claim or before.environ or ())
            expected = target.expected or expect_environ(environ)
            reports.append(judge(process, expected, online))
            continue
        ranks.append(before.pid)
        reports += check_family(lineage, target, process, online)
    strays = lineage.list_strays(ranks)
    seen = {r.process.pid for r in reports}
    reports += [
        r for pid in strays if pid not in seen if (r := check_stray(lineage, pid, reports, online))
    ]
    return Report(tuple(reports), online)


def add_huge_pages(root: LivingRoot, report: Report) -> Report:
    """Return a report that also says what processes have in huge pages: for those who read it, as
    nothing is judged by them."""
    processes = [
        r if r.process.ended else
        r.replace(process=r.process.replace(huge_pages=read_huge_pages_of(root, r.process.pid)))
        for r in report.processes
    ]  # fmt: skip
    return report.replace(processes=tuple(processes))


def check_family(
    lineage: Lineage, target: Target, process: Process, online: CpuSet
) -> list[ProcessReport]:
    """Return the reports on a process and on those of its descendants that are of its rank."""
    claim = lineage.find_claim(process.pid)
    parent = None
    rank = lineage.find_rank(process.pid)
    if rank != process.pid and (leader := read_process(lineage.root, rank)):
        parent = judge(leader, expect_process(leader, claim), online)
    expected = target.expected or expect_process(process, claim)
    reports = [judge(process, expected, online, parent)]
    for pid in lineage.family_of(process.pid):
        if not is_same(lineage.find_claim(pid), claim):
            continue  # of another launch
        child = read_process(lineage.root, pid)
        if child is not None and not child.ended:
            expected = target.expected or expect_process(child, claim)
            reports.append(judge(child, expected, online, parent or reports[0]))
    return reports


def expect_process(process: Process, claim: dict[str, str] | None) -> Expected | None:
    """Return what is expected of a process that belongs to a rank; None if nothing says which."""
    if claim is None:
        return None
    readable = process.environ is not None and not process.overwritten
    return expect_member(claim, dict(process.environ or ()) if readable else None)


def check_stray(
    lineage: Lineage, pid: int, reports: Sequence[ProcessReport], online: CpuSet
) -> ProcessReport | None:
    """Return the report on a process in the launch's own cgroup that has lost its parents: by its
    own claim, or that of the only rank; None if it says of itself that it belongs to no launch."""
    process = read_process(lineage.root, pid)
    claim = lineage.find_claim(pid)
    if process is None or process.ended:
        return None
    if claim is None and process.environ is not None and not process.overwritten:
        return None
    ranks = [r for r in reports if not r.parent and r.expected]
    leader = next((r for r in ranks if is_same(claim, lineage.find_claim(r.process.pid))), None)
    if claim is None and len(ranks) == 1:
        leader, claim = ranks[0], lineage.find_claim(ranks[0].process.pid)
    return judge(process, expect_process(process, claim), online, leader)
