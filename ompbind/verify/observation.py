"""What was observed of a process, ready to be compared with its plan, and how messages name its
threads. Pure.

The kernel's lists of allowed cpus also name cpus that could be plugged in one day, so everything is
compared among the cpus that are online.
"""

from __future__ import annotations

from ompbind.cpuset import CpuSet
from ompbind.messages import plural
from ompbind.record import Record
from ompbind.worker.runtimes import select_runtimes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ompbind.machine.processes import Process, Thread
    from ompbind.verify.expected import Expected
    from ompbind.verify.report import Difference


class Observation(Record):
    """A process and its plan; masks and places are cut down to the cpus that are online."""

    process: Process
    expected: Expected
    cpus: CpuSet  # the rank's
    available: CpuSet  # those of them that its cgroup leaves it
    places: tuple[CpuSet, ...]  # () where threads cannot be told apart by them
    masks: tuple[CpuSet, ...]  # of each thread
    bound: tuple[int | None, ...]  # for each thread the number of its place, or None
    lost: tuple[Difference, ...]  # cpus of the plan that the process can no longer have
    runtimes: tuple[str, ...]  # the files of the OpenMP runtimes that it has loaded

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def team(self) -> int:
        """The number of OpenMP threads planned."""
        return self.expected.threads or len(self.places)

    @property
    def bindable(self) -> tuple[bool, ...]:
        """For each thread whether its mask can be set at all."""
        return tuple(not t.fixed for t in self.process.threads)

    @property
    def loss(self) -> str:
        """The sentences about lost cpus, as part of a cause; "" where none are lost."""
        return " ".join(d.text for d in self.lost)

    def threads(self, selected: Iterable[bool]) -> tuple[Thread, ...]:
        return tuple(t for t, yes in zip(self.process.threads, selected, strict=True) if yes)


def observe(
    process: Process, expected: Expected, online: CpuSet, lost: tuple[Difference, ...] = ()
) -> Observation:
    """Return a process beside its plan. `lost`: cpus that it can no longer have."""
    cpus = expected.cpus & online
    available = cpus if process.cpuset is None else cpus & process.cpuset
    places = tuple(place & online for place in expected.places)
    if all(place == cpus for place in places):  # no thread can be told by a place that all share
        places = ()
    masks = tuple(t.cpus & online for t in process.threads)
    numbers = {place: n for n, place in reversed([*enumerate(places)]) if place}
    # A place with all of the rank's cpus among smaller ones (--places wide) is the main thread's.
    # What the kernel lets nobody bind has its mask from whoever made it, and is not OpenMP's.
    bound = tuple(
        None if t.fixed or (mask == cpus and t.tid != process.pid) else numbers.get(mask)
        for t, mask in zip(process.threads, masks, strict=True)
    )
    runtimes = select_runtimes(process.libraries)
    return Observation(process, expected, cpus, available or cpus, places, masks, bound, lost,
                       runtimes)  # fmt: skip


def group_by_mask(
    observation: Observation, selected: Sequence[bool]
) -> list[tuple[CpuSet, tuple[Thread, ...]]]:
    """Return the selected threads, those with the same mask together."""
    groups: dict[CpuSet, list[Thread]] = {}
    process = observation.process
    for thread, mask, yes in zip(process.threads, observation.masks, selected, strict=True):
        if yes:
            groups.setdefault(mask, []).append(thread)
    return [(mask, tuple(threads)) for mask, threads in groups.items()]


def name_threads(observation: Observation, threads: Sequence[Thread], most: int = 4) -> str:
    """Return `the main thread and threads 12, 13`; of more than `most` the first and a count."""
    parts = []
    others = [t for t in threads if t.tid != observation.pid]
    if len(others) < len(threads):
        parts.append("the main thread")
    if others:
        listed = others if len(others) <= most else others[: most - 1]
        more = f" and {len(others) - len(listed)} more" if len(others) > len(listed) else ""
        tids = ", ".join(str(t.tid) for t in listed)
        parts.append(f"{plural('thread', len(others))} {tids}{more}")
    return " and ".join(parts)


def thread_ids(threads: Iterable[Thread]) -> tuple[int, ...]:
    return tuple(t.tid for t in threads)
