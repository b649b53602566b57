"""`run --verify`: looking at one's own ranks once their threads are there."""

from __future__ import annotations

import time

from ompbind.errors import DeniedError
from ompbind.machine.processes import (
    count_threads,
    find_process,
    make_family,
    read_name,
    read_parents,
)
from ompbind.verify import Target, check
from ompbind.verify.expected import expect_plan
from ompbind.verify.report import count_looked_at

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ompbind.machine.roots import LivingRoot
    from ompbind.plans import Plan
    from ompbind.verify.report import Report

SECONDS = 5.0  # until the last look: libraries have been imported by then
PAUSES = (0.1, 1.0)  # from look to look, at first and at last


class Prover:
    """Called again and again with the plan and the pids of the ranks that live: returns the seconds
    after which it wants to be called next, None when it is done.

    It is done when every rank has as many threads as planned and all holds, and after `within`
    seconds in any case. `say` gets a kind ("note", "warning") and a text. Raises DeniedError for a
    difference if `strict`.
    """

    def __init__(
        self,
        root: LivingRoot,
        say: Callable[[str, str], None],
        *,
        within: float,
        strict: bool,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.root = root
        self.say = say
        self.within = within
        self.strict = strict
        self.clock = clock
        self.end: float | None = None
        self.pause = PAUSES[0]
        self.before: dict[int, int] = {}

    def __call__(self, plan: Plan, pids: Mapping[int, int]) -> float | None:
        now = self.clock()
        if self.end is None:
            self.end = now + self.within
        if not pids:
            return None
        ready = self.threads_are_there(plan, pids)
        if now < self.end:
            wait = min(self.pause, self.end - now)
            self.pause = min(2 * self.pause, PAUSES[1])
            if not ready:
                return wait
        report = self.look(plan, pids)
        if now < self.end and not report.holds:  # threads may be about to bind themselves
            return wait
        self.tell(report, ready)
        return None

    def threads_are_there(self, plan: Plan, pids: Mapping[int, int]) -> bool:
        """Whether each rank has become its worker, with the threads planned and no more to come;
        they may be those of a process that it has started."""
        family = make_family(pids.values(), read_parents(self.root))
        counts = {
            pid: max(count_threads(self.root, one) for one in (pid, *family[pid]))
            for pid in pids.values()
        }
        settled, self.before = counts == self.before, counts
        for rank, pid in pids.items():
            planned = expect_plan(plan.ranks[rank]).threads or 1
            if counts[pid] < planned or read_name(self.root, pid) == "numactl":
                return False
        return settled

    def look(self, plan: Plan, pids: Mapping[int, int]) -> Report:
        targets = []
        for rank, pid in sorted(pids.items()):
            process = find_process(self.root, pid)
            if process is not None and not process.ended:
                targets.append(Target(process, expect_plan(plan.ranks[rank])))
        report = check(self.root, targets)
        # One that has ended meanwhile tells by its own status.
        return report.replace(processes=tuple(p for p in report.processes if not p.seen.ended))

    def tell(self, report: Report, ready: bool) -> None:
        if not report.processes:
            return
        if report.holds:
            yet = "" if ready else f"; after {self.within:g} s not all threads were there yet"
            self.say("note", f"as planned: {count_looked_at(report)}{yet}")
        for checked in report.processes:
            for d in checked.differences:
                if self.strict:
                    raise DeniedError(f"{checked.name}: {d.text}", hint=f"{d.remedy} ({d.cause})")
                self.say("warning", f"{checked.name}: {d.text}; likely: {d.cause}")
