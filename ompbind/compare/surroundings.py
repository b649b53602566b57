"""What else the machine does while runs are measured: read at both ends of each round, and judged
by `spoilers` when the experiment has ended."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from ompbind.compare.spoilers import Period, find_spoilers
from ompbind.cpuset import CpuSet
from ompbind.errors import TopologyError
from ompbind.machine.activity import read_activity, read_frequency

if TYPE_CHECKING:
    from ompbind.compare.spoilers import Spoiler
    from ompbind.machine.activity import Activity
    from ompbind.machine.roots import Root

EARLY = 0.2  # seconds after which a run's cores have their frequency
SAMPLED = 4  # cpus whose frequency is read: each reading interrupts a core


class Surroundings:
    """Reads the counters of a machine round by round. `root`: None where there are none."""

    def __init__(self, root: Root | None, cpus: CpuSet) -> None:
        """`cpus`: those that runs are to have."""
        self.root, self.cpus = root, cpus
        self.periods: list[Period] = []
        self.before: Activity | None = None
        self.used = 0.0
        self.frequencies: list[float] = []
        self.run_began = 0.0
        self.sampled = False

    def begin(self) -> None:
        """Take a reading before a round."""
        self.before, self.used, self.frequencies = self.read(), count_used(), []

    def end(self, number: int) -> None:
        """Take a reading after a round, which makes a period."""
        after = self.read()
        if self.before and after:
            self.periods.append(
                Period(
                    round=number,
                    before=self.before,
                    after=after,
                    used=count_used() - self.used,
                    pid=os.getpid(),
                    frequencies=tuple(self.frequencies),
                )
            )

    def begin_run(self) -> None:
        """Note that a run begins."""
        self.run_began, self.sampled = time.monotonic(), False

    def sample(self) -> None:
        """Read the frequency of cores, once in a run that has gone on for long enough."""
        if self.root and not self.sampled and time.monotonic() - self.run_began > EARLY:
            self.sampled = True
            if frequency := read_frequency(self.root, CpuSet(sorted(self.cpus)[:SAMPLED])):
                self.frequencies.append(frequency)

    def find_spoilers(self) -> list[Spoiler]:
        """Return what spoilt the rounds so far."""
        return find_spoilers(self.periods, self.cpus) if self.periods else []

    def read(self) -> Activity | None:
        if self.root is None:
            return None
        try:
            return read_activity(self.root, self.cpus)
        except TopologyError:  # a container hides it
            return None


def count_used() -> float:
    """Return the cpu time in seconds that this process has used, with all that it has waited for,
    which are the runs."""
    return sum(os.times()[:4])
