"""How ranks ended, and the messages about it."""

from __future__ import annotations

from ompbind.launch.syscalls import name_signal, signal
from ompbind.messages import format_size
from ompbind.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ompbind.launch.rank import Start


class Ended(Record):
    """A rank that has ended. `code`: its exit status, or minus the signal that killed it;
    `seconds`: from its start; `memory`: its peak resident memory in bytes; `remark`: what else the
    kernel says about the signal."""

    start: Start
    pid: int
    code: int
    seconds: float
    memory: int
    remark: str = ""

    @property
    def rank(self) -> int:
        return self.start.rank.rank

    @property
    def name(self) -> str:
        """What the rank is called."""
        return self.start.rank.name

    @property
    def status(self) -> int:
        """The status as a shell reports it: 128+N for a signal N."""
        return self.code if self.code >= 0 else 128 - self.code


def make_line(ended: Ended) -> str:
    """Return `rank 3 (pid 1234) ended by signal 9 (KILL) after 12.3 s, peak memory 1.2 GiB`."""
    remark = f" ({ended.remark})" if ended.remark else ""
    return (
        f"rank {ended.name} (pid {ended.pid}) ended {describe_code(ended.code)}{remark} after "
        f"{ended.seconds:.1f} s, peak memory {format_size(ended.memory)}"
    )


def is_due_to(code: int, sent: frozenset[int]) -> bool:
    """Whether a rank probably ended because of one of the signals that it was sent: killed by it,
    or with the status that shells give for it. A failure of the rank's own may come at any time."""
    number = -code if code < 0 else code - 128
    return code == 0 or number in sent


def make_summaries(stopped: Sequence[Ended], sent: frozenset[int], reason: str) -> list[str]:
    """Return a line for all ranks that were ended, `3 ranks were ended because rank 1 had failed: 2
    by signal 15 (TERM), 1 with status 143`, and one for those that failed themselves meanwhile, `2
    ranks exited meanwhile: 2 with status 1`."""
    ended = [e for e in stopped if is_due_to(e.code, sent)]
    failed = [e for e in stopped if not is_due_to(e.code, sent)]
    lines = [make_summary(ended, f"was ended {reason}", f"were ended {reason}")] if ended else []
    return lines + (
        [make_summary(failed, "exited meanwhile", "exited meanwhile")] if failed else []
    )


def make_summary(ranks: Sequence[Ended], of_one: str, of_several: str) -> str:
    """Return one line for several ranks, with the number of each outcome."""
    if len(ranks) == 1:
        return f"rank {ranks[0].name} {of_one}: {describe_code(ranks[0].code)}"
    counts: dict[int, int] = {}
    for ended in ranks:
        counts[ended.code] = counts.get(ended.code, 0) + 1
    codes = ", ".join(f"{n} {describe_code(code)}" for code, n in sorted(counts.items()))
    return f"{len(ranks)} ranks {of_several}: {codes}"


def describe_stop(rank: int, name: str, pid: int, number: int) -> tuple[str, str]:
    """Return a message about a rank that a signal has stopped, and what to do about it."""
    text = f"rank {name} is stopped by {name_signal(number)}"
    if number == signal.SIGTTIN:
        return f"{text}: it reads the terminal in the background", f"--stdin {rank} lets it read"
    if number == signal.SIGTTOU:
        text += ": it writes to the terminal, or sets it, in the background"
        return text, f"--stdin {rank} gives it the terminal; stty -tostop lets all ranks write"
    return text, f"kill -CONT {pid} lets it go on"


def describe_code(code: int) -> str:
    return f"with status {code}" if code >= 0 else f"by {name_signal(-code)}"
