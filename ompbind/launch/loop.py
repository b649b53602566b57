"""The event loop of the process that watches over ranks: descriptors and timers.

It sleeps until something happens: without a timer there is no timeout, so nothing ever wakes up
for nothing.
"""

from __future__ import annotations

import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    Callback = Callable[[], object]


class Loop:
    """Calls back when a descriptor can be read (or written), and when a time has passed.

    A callback may watch, unwatch, arm and cancel as it likes; one for a descriptor that has been
    unwatched meanwhile is not called any more.
    """

    def __init__(self) -> None:
        import select

        self._poll = select.poll()
        self._events = (select.POLLIN, select.POLLOUT)
        self._watched: dict[int, Callback] = {}
        self._timers: dict[int, tuple[float, Callback]] = {}
        self._armed = 0
        self._stopped = False

    def watch(self, fd: int, callback: Callback, *, write: bool = False) -> None:
        """Calls back whenever `fd` can be read (with `write`: written), has ended or has failed.

        One callback for each descriptor: the last that was asked for.
        """
        self._poll.register(fd, self._events[write])
        self._watched[fd] = callback

    def unwatch(self, fd: int) -> None:
        """Forgets `fd`, which must still be open, if it is watched."""
        if self._watched.pop(fd, None):
            self._poll.unregister(fd)

    def after(self, seconds: float, callback: Callback) -> int:
        """Calls back once, later; the timer's number, for `cancel`."""
        self._armed += 1
        self._timers[self._armed] = (time.monotonic() + seconds, callback)
        return self._armed

    def cancel(self, timer: int) -> None:
        self._timers.pop(timer, None)

    def stop(self) -> None:
        """Makes `run` return after the callback that says so."""
        self._stopped = True

    def run(self) -> None:
        """Waits and calls back until `stop`."""
        self._stopped = False
        while not self._stopped:
            for fd, _ in self._poll.poll(self._timeout()):
                callback = self._watched.get(fd)
                if callback and not self._stopped:
                    callback()
            self._ring()

    def _timeout(self) -> float | None:
        """Milliseconds to the next timer; None: there is none."""
        if not self._timers:
            return None
        left = min(when for when, _ in self._timers.values()) - time.monotonic()
        return min(max(left, 0.0) * 1000, 2.0e9)  # what poll takes

    def _ring(self) -> None:
        """Calls back for the timers whose time has come."""
        if not self._timers:
            return
        now = time.monotonic()
        for timer, (when, callback) in list(self._timers.items()):
            if when <= now and timer in self._timers and not self._stopped:
                del self._timers[timer]
                callback()
