"""Read the machine's counters around rounds, and frequencies within them, for spoilers to judge."""

from __future__ import annotations

import os

from ompbind.compare.spoilers import Period
from ompbind.cpuset import CpuSet
from ompbind.machine.activity import read_activity, read_frequency
from ompbind.machine.usage import Throttling, read_throttling

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ompbind.machine.roots import Root

SAMPLES = 20  # of the frequencies, in one round
SAMPLED = 16  # cpus at most: reading the frequency of a core may interrupt it


class Watch:
    """Watches the machine while runs are measured that use `cpus`: call `begin` before the first
    round, `sample` now and then while something runs, and `end` after each round. `periods` has
    the rounds so far. Raises TopologyError if the machine's files are damaged."""

    def __init__(self, root: Root, cpus: CpuSet) -> None:
        self.root, self.cpus = root, cpus
        self.periods: list[Period] = []
        self.begin()

    def begin(self) -> None:
        """Begin a round here, and leave out what has happened since the last one ended."""
        self.frequencies: list[float] = []
        self.used = find_used()
        self.before = read_activity(self.root, self.cpus)
        self.throttling = read_throttling(self.root)

    def sample(self) -> None:
        """Read the frequency of the cpus, of some of them where they are many."""
        some = CpuSet(list(self.cpus)[:: -(-len(self.cpus) // SAMPLED) or 1])
        if len(self.frequencies) < SAMPLES and (ghz := read_frequency(self.root, some)):
            self.frequencies.append(ghz)

    def end(self, number: int) -> None:
        """End the round `number`; the next one begins."""
        after = read_activity(self.root, self.cpus)
        throttling = read_throttling(self.root)
        period = Period(
            number,
            self.before,
            after,
            used=find_used() - self.used,
            pid=os.getpid(),
            frequencies=tuple(self.frequencies),
            throttled=find_throttled(self.throttling, throttling),
        )
        self.periods.append(period)
        self.frequencies, self.used, self.before = [], find_used(), after
        self.throttling = throttling


def find_throttled(before: Throttling | None, after: Throttling | None) -> float:
    """Return the seconds of cpu time that quotas kept from a cgroup between two readings; 0 where
    the system does not say."""
    return after.since(before).seconds if before and after else 0.0


def find_used() -> float:
    """Return the seconds of cpu time of this process and of all children that it has waited for."""
    return sum(os.times()[:4])
