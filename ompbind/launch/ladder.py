"""The stop ladder: which signal comes next when ranks are to end."""

from __future__ import annotations

from ompbind.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
else:
    import _signal as signal  # `signal` itself wraps this in enums, a third of the whole start-up


class Ladder(Record):
    """`last`: the signal that was sent last, 0 before any."""

    last: int = 0

    def climb(self, asked: int = 0) -> Ladder:
        """The next step. First what is asked for, TERM when nothing is; then TERM; then KILL."""
        if self.last == 0:
            return Ladder(asked or signal.SIGTERM)
        if self.last in (signal.SIGTERM, signal.SIGKILL):
            return Ladder(signal.SIGKILL)
        return Ladder(signal.SIGTERM)
