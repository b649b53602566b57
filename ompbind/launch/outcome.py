"""What is said about how ranks ended."""

from __future__ import annotations

from ompbind.messages import format_size
from ompbind.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from collections.abc import Sequence
else:
    import _signal as signal  # `signal` itself wraps this in enums, a third of the whole start-up


class Ended(Record):
    """A rank that has ended. `code`: its exit status, or minus the signal that ended it; `seconds`
    from its start; `memory`: the most that was resident, in bytes."""

    rank: int
    pid: int
    code: int
    seconds: float
    memory: int

    @property
    def status(self) -> int:
        """As a shell says it: 128+N for a signal N."""
        return self.code if self.code >= 0 else 128 - self.code


def make_line(ended: Ended) -> str:
    """`rank 3 (pid 1234) ended by signal 9 (KILL) after 12.3 s, peak memory 1.2 GiB`."""
    return (
        f"rank {ended.rank} (pid {ended.pid}) ended {make_end(ended.code)} after "
        f"{ended.seconds:.1f} s, peak memory {format_size(ended.memory)}"
    )


def make_summary(stopped: Sequence[Ended], reason: str) -> str:
    """One line for all ranks that were ended: `3 ranks were ended after rank 1 failed: 2 by signal
    15 (TERM), 1 with status 0`."""
    ends: dict[int, int] = {}
    for ended in stopped:
        ends[ended.code] = ends.get(ended.code, 0) + 1
    told = ", ".join(f"{count} {make_end(code)}" for code, count in sorted(ends.items()))
    if len(stopped) == 1:
        return f"rank {stopped[0].rank} was ended {reason}: {make_end(stopped[0].code)}"
    return f"{len(stopped)} ranks were ended {reason}: {told}"


def make_end(code: int) -> str:
    return f"with status {code}" if code >= 0 else f"by {name_signal(-code)}"


def name_signal(number: int) -> str:
    """`signal 9 (KILL)`."""
    names = [n for n in dir(signal) if n.startswith("SIG") and n[3:4].isalpha()]
    for name in sorted(names):
        if getattr(signal, name) == number and name not in ("SIGCLD", "SIGPOLL", "SIGIOT"):
            return f"signal {number} ({name[3:]})"
    return f"signal {number}"
