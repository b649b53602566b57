"""How ranks ended, and the messages about it."""

from __future__ import annotations

from ompbind.launch.syscalls import name_signal
from ompbind.messages import format_size
from ompbind.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ompbind.launch.rank import Start


class Ended(Record):
    """A rank that has ended. `code`: its exit status, or minus the signal that killed it;
    `seconds`: from its start; `memory`: its peak resident memory in bytes."""

    start: Start
    pid: int
    code: int
    seconds: float
    memory: int

    @property
    def rank(self) -> int:
        return self.start.rank.rank

    @property
    def status(self) -> int:
        """The status as a shell reports it: 128+N for a signal N."""
        return self.code if self.code >= 0 else 128 - self.code


def make_line(ended: Ended) -> str:
    """Return `rank 3 (pid 1234) ended by signal 9 (KILL) after 12.3 s, peak memory 1.2 GiB`."""
    return (
        f"rank {ended.rank} (pid {ended.pid}) ended {describe_code(ended.code)} after "
        f"{ended.seconds:.1f} s, peak memory {format_size(ended.memory)}"
    )


def make_summary(stopped: Sequence[Ended], reason: str) -> str:
    """Return one line for all ranks that were ended: `3 ranks were ended because rank 1 had
    failed: 2 by signal 15 (TERM), 1 with status 0`."""
    counts: dict[int, int] = {}
    for ended in stopped:
        counts[ended.code] = counts.get(ended.code, 0) + 1
    if len(stopped) == 1:
        return f"rank {stopped[0].rank} was ended {reason}: {describe_code(stopped[0].code)}"
    codes = ", ".join(f"{n} {describe_code(code)}" for code, n in sorted(counts.items()))
    return f"{len(stopped)} ranks were ended {reason}: {codes}"


def describe_code(code: int) -> str:
    return f"with status {code}" if code >= 0 else f"by {name_signal(-code)}"
