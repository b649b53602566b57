"""`run --verify`: verify the ranks of this launch once their threads have started."""

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

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ompbind.machine.roots import LivingRoot
    from ompbind.plans import Plan
    from ompbind.verify.report import Report

SECONDS = 5.0  # until the last verification; libraries are usually imported by then
PAUSES = (0.1, 1.0)  # seconds between two verifications, at first and at last


class Verifier:
    """Verifies ranks until all is well, or time is up.

    To be called repeatedly with the plan, the pids of the living ranks and `say`, which gets a kind
    ("note", "warning") and a text; returns the seconds until the next call, or None when it is
    done: when every rank has as many threads as planned and nothing differs, and after `within`
    seconds in any case. Raises DeniedError for a difference if `strict`.
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

    def __call__(
        self, plan: Plan, pids: Mapping[int, int], say: Callable[[str, str], None]
    ) -> float | None:
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
        report = self.verify(plan, pids)
        if now < self.end and not report.holds:  # threads may be about to bind themselves
            return wait
        self.announce(report, ready, say)
        return None

    def threads_are_there(self, plan: Plan, pids: Mapping[int, int]) -> bool:
        """Whether each rank has become its worker and has the threads planned, and no thread is new
        since the last call. They may be those of a process that it has started."""
        family = make_family(pids.values(), read_parents(self.root))
        counts = {
            pid: max(count_threads(self.root, p) for p in (pid, *family[pid]))
            for pid in pids.values()
        }
        settled, self.counts = counts == self.counts, counts
        for rank, pid in pids.items():
            planned = expect_plan(plan.ranks[rank]).threads or 1
            if counts[pid] < planned or read_name(self.root, pid) == "numactl":
                return False
        return settled

    def verify(self, plan: Plan, pids: Mapping[int, int]) -> Report:
        targets = []
        for rank, pid in sorted(pids.items()):
            process = find_process(self.root, pid)
            if process is not None and not process.ended:
                targets.append(Target(process, expect_plan(plan.ranks[rank])))
        report = check(self.root, targets)
        # A rank that has exited meanwhile is reported with its status.
        return report.replace(processes=tuple(p for p in report.processes if not p.process.ended))

    def announce(self, report: Report, ready: bool, say: Callable[[str, str], None]) -> None:
        if not report.processes:
            return
        if report.holds:
            late = "" if ready else f"; not all threads had started after {self.within:g} s"
            say("note", f"as planned: {report.summary}{late}")
        for process in report.processes:
            for d in process.differences:
                if self.strict:
                    raise DeniedError(f"{process.name}: {d.text}", hint=f"{d.remedy} ({d.cause})")
                say("warning", f"{process.name}: {d.text}; likely: {d.cause}")
