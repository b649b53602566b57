"""`run --verify`: verify the ranks of this launch once their threads have started, and later what
they have started since: the workers of a server may come a minute late."""

from __future__ import annotations

import time

from ompbind.cpuset import CpuSet
from ompbind.errors import DeniedError
from ompbind.machine.processes import (
    count_threads,
    find_process,
    is_exiting,
    make_family,
    read_name,
    read_parents,
)
from ompbind.messages import label, one_line
from ompbind.verify import Target, check
from ompbind.verify.expected import expect_plan

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ompbind.machine.roots import LivingRoot
    from ompbind.plans import Plan
    from ompbind.verify.report import Difference, ProcessReport, Report

    # A process: its pid, when it started, and its name: a worker binds itself, and is then renamed.
    Key = tuple[int, int, str]

SECONDS = 5.0  # until the last verification; libraries are usually imported by then
PAUSES = (0.1, 1.0)  # seconds between two verifications, at first and at last


# Differences in how OpenMP's threads are placed: they may be about to bind themselves.
UNSETTLED = ("caught", "crowded", "wandered", "role")
# Seconds until the ranks are looked at again, for processes that are new.
LATER = (5.0, 10.0, 20.0, 40.0, 80.0, 160.0)
SETTLE = 2.0  # seconds that a new process is given to bind itself, or to exit again
MAX_NAMES = 4  # in a message
COST = 10  # at most one part in this of the supervisor's time goes into verifying


class Verifier:
    """Verifies ranks until all is well, or time is up.

    To be called repeatedly, first when all ranks have executed, with the plan, the pids of the
    living ranks, the seconds that each other rank has run, and `say`, which gets a kind ("note",
    "warning") and a text. It returns the seconds until the next call, or None when it is done: when
    every rank has as many threads as planned and nothing differs, after `within` seconds in any
    case, and again when later looks have shown what the ranks started since, and when no rank is
    left. A rank that exits before is judged by what was last seen of it.
    Raises DeniedError if `strict`, for a difference and for a rank that exited before it was seen
    with all its threads.
    """

    def __init__(
        self,
        root: LivingRoot,
        *,
        within: float,
        strict: bool,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.root = root
        self.within = within
        self.strict = strict
        self.clock = clock
        self.end: float | None = None
        self.pause = PAUSES[0]
        self.counts: dict[int, int] = {}
        self.seen: dict[int, list[ProcessReport]] = {}  # by rank: the last that was seen of it
        self.complete: set[int] = set()  # the ranks seen with all threads, and as planned
        self.later: list[float] = [*LATER]
        self.known: set[Key] = set()  # the processes that were reported; empty before that
        self.settling: set[Key] = set()  # the new ones among those last seen
        self.first = 0  # what the plan's first rank is called

    def __call__(
        self,
        plan: Plan,
        pids: Mapping[int, int],
        exits: Mapping[int, float],
        say: Callable[[str, str], None],
    ) -> float | None:
        self.first = plan.ranks[0].number
        if self.known:
            return self.look_again(plan, pids, say) if pids else None
        now = self.clock()
        if self.end is None:
            self.end = now + self.within
        if pids:
            complete = self.find_complete(plan, pids)
            ready = len(complete) == len(pids)
            report = self.verify(plan, pids)
            self.remember(report, complete)
            if now < self.end and not (ready and report.holds):
                cost = self.clock() - now
                wait = min(max(self.pause, COST * cost), max(self.end - now, 0.0))
                self.pause = min(2 * self.pause, PAUSES[1])
                return wait
            ranks = {p.expected.rank for p in report.processes if p.expected and not p.parent}
            if any(rank not in ranks for rank in pids):  # it is exiting
                return PAUSES[0]
            self.announce(report, ready, say)
            self.known = {key_of(p) for p in report.processes}
        self.announce_exits(exits, say)
        return self.later.pop(0) if pids else None

    def look_again(
        self, plan: Plan, pids: Mapping[int, int], say: Callable[[str, str], None]
    ) -> float | None:
        """Verify what ranks have started since the report, if it is there for a while."""
        report = self.verify(plan, pids)
        new = [p for p in report.processes if key_of(p) not in self.known]
        lasting = tuple(p for p in new if key_of(p) in self.settling)
        if new and not self.settling:
            self.settling = {key_of(p) for p in new}
            return SETTLE
        self.settling = set()
        self.known |= {key_of(p) for p in lasting}
        if lasting:
            self.announce_later(report.replace(processes=lasting), say)
        return self.later.pop(0) if self.later else None

    def find_complete(self, plan: Plan, pids: Mapping[int, int]) -> set[int]:
        """Return the ranks that have become their worker and have the threads planned, of which
        none is new since the last call. They may be those of a process that a rank has started."""
        family = make_family(pids.values(), read_parents(self.root))
        counts = {
            pid: max(count_threads(self.root, p) for p in (pid, *family[pid]))
            for pid in pids.values()
        }
        before, self.counts = self.counts, counts
        complete = set()
        for rank, pid in pids.items():
            planned = expect_plan(plan.ranks[rank]).threads or 1
            settled = planned <= counts[pid] == before.get(pid)
            if settled and read_name(self.root, pid) != "numactl":
                complete.add(rank)
        return complete

    def verify(self, plan: Plan, pids: Mapping[int, int]) -> Report:
        targets = []
        for rank, pid in sorted(pids.items()):
            process = find_process(self.root, pid)
            if process is not None and not process.ended:
                targets.append(Target(process, expect_plan(plan.ranks[rank])))
        report = check(self.root, targets)
        # A rank that has exited meanwhile is reported with its status.
        living = (p for p in report.processes if not p.process.ended)
        return report.replace(
            processes=tuple(p for p in living if not is_exiting(self.root, p.process.pid))
        )

    def remember(self, report: Report, complete: set[int]) -> None:
        """Keep what was seen of each rank; numactl, before it becomes the worker, is nothing."""
        seen: dict[int, list[ProcessReport]] = {}
        for process in report.processes:
            if process.expected is not None and process.process.name != "numactl":
                seen.setdefault(process.expected.rank, []).append(process)
        self.seen.update(seen)
        different = {rank for rank in seen if any(p.differences for p in seen[rank])}
        self.complete = (self.complete | (complete & seen.keys())) - different

    def announce(self, report: Report, ready: bool, say: Callable[[str, str], None]) -> None:
        if report.holds:
            late = "" if ready else f"; not all threads had started after {self.within:g} s"
            say("note", f"as planned: {report.summary}{late}")
        for process in report.processes:
            for d in process.differences:
                self.announce_difference(process, d, say)

    def announce_later(self, report: Report, say: Callable[[str, str], None]) -> None:
        names: dict[str, int] = {}
        for process in report.processes:
            name = one_line(process.process.name)
            names[name] = names.get(name, 0) + 1
        texts = [f"{count} {name}" if count > 1 else name for name, count in names.items()]
        if len(texts) > MAX_NAMES:
            texts[MAX_NAMES - 1 :] = ["…"]
        if report.holds:
            say("note", f"as planned: {report.summary}, started since: {', '.join(texts)}")
        for process in report.processes:
            for d in process.differences:
                self.announce_difference(process, d, say)

    def announce_difference(
        self, process: ProcessReport, d: Difference, say: Callable[[str, str], None]
    ) -> None:
        if self.strict:
            raise DeniedError(f"{process.name}: {d.text}", hint=f"{d.remedy} ({d.cause})")
        say("warning", f"{process.name}: {d.text}; likely: {d.cause}")

    def announce_exits(self, exits: Mapping[int, float], say: Callable[[str, str], None]) -> None:
        """Say what is known of the ranks that exited before they could be verified."""
        unseen = {rank: seconds for rank, seconds in exits.items() if rank not in self.seen}
        if unseen:
            text = f"not verified: {self.describe(unseen)}, before anything was seen of "
            text += "it" if len(unseen) == 1 else "them"
            if self.strict:
                raise DeniedError(text, hint="--verify in place of --verify-strict accepts that")
            say("note", text)
        whole: dict[int, float] = {}
        partly: dict[int, float] = {}
        for rank, seconds in sorted(exits.items()):
            differences = [
                (process, d)
                for process in self.seen.get(rank, ())
                for d in process.differences
                if d.kind not in UNSETTLED
            ]
            for process, d in differences:
                self.announce_difference(process, d, say)
            if rank in self.seen and not differences:
                (whole if rank in self.complete else partly)[rank] = seconds
        if whole:
            say(
                "note",
                f"as planned: {self.describe(whole)}, after all threads were verified",
            )
        if partly:
            are = "its mask and memory were" if len(partly) == 1 else "masks and memory were"
            text = f"verified in part: {self.describe(partly)}, before all threads were verified"
            if self.strict:
                hint = "--verify=SECONDS waits less for threads, or --verify alone accepts that"
                raise DeniedError(f"{text}; {are} as planned", hint=hint)
            say("note", f"{text}; {are} as planned")

    def describe(self, exits: Mapping[int, float]) -> str:
        return describe_exits(exits, self.first)


def key_of(report: ProcessReport) -> Key:
    return report.process.pid, report.process.started, report.process.name


def describe_exits(exits: Mapping[int, float], first_rank: int) -> str:
    """Return `rank 0 exited after 2.0 s`, `ranks 0-3 exited after 0.1 to 2.0 s`. `first_rank`:
    what rank 0 is called."""
    first, last = f"{min(exits.values()):.1f}", f"{max(exits.values()):.1f}"
    seconds = last if first == last else f"{first} to {last}"
    return f"{label('rank', CpuSet(first_rank + r for r in exits))} exited after {seconds} s"
