"""What else the machine does while something is measured."""

from __future__ import annotations

import os
import time

from ompbind.cpuset import CpuSet
from ompbind.machine import living_root
from ompbind.machine.activity import read_activity


class Load:
    """Counts the cpu time of other processes from when it is made."""

    def __init__(self) -> None:
        self.cpus = CpuSet(os.sched_getaffinity(0))
        self.begun, self.before = time.monotonic(), self.read()

    def read(self) -> float:
        """Return the seconds of cpu time that others than this process and its children used."""
        return read_activity(living_root(), self.cpus).busy - sum(os.times()[:4])

    def __str__(self) -> str:
        """`other work used 0.02 of 2 cpus`: the mean until now."""
        others = max(self.read() - self.before, 0) / (time.monotonic() - self.begun)
        return f"other work used {others:.2f} of {len(self.cpus)} cpus"
