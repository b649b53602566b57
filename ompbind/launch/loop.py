"""The supervisor's event loop: descriptors and timers.

It sleeps until something happens. Without a timer there is no timeout, so it never wakes up for
nothing.
"""

from __future__ import annotations

import select
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    Callback = Callable[[], object]


class Loop:
    """Calls back when a descriptor is readable (or writable), and when a time has passed.

    A callback may watch, unwatch, arm and cancel at will; once a descriptor is unwatched, its
    callback is not called any more.
    """

    def __init__(self) -> None:
        self._poll = select.poll()
        self._events = (select.POLLIN, select.POLLOUT)
        self._watched: dict[int, Callback] = {}
        self._timers: dict[int, tuple[float, Callback]] = {}
        self._armed = 0
        self._stopped = False

    def watch(self, fd: int, callback: Callback, *, write: bool = False) -> None:
        """Call back whenever `fd` is readable (with `write`: writable), at its end or has failed.

        A descriptor has one callback: the last that was given.
        """
        self._poll.register(fd, self._events[write])
        self._watched[fd] = callback

    def unwatch(self, fd: int) -> None:
        """Stop watching `fd`, which must still be open; it need not be watched."""
        if self._watched.pop(fd, None):
            self._poll.unregister(fd)

    def after(self, seconds: float, callback: Callback) -> int:
        """Call back once, after `seconds`; return the timer's number, for `cancel`."""
        self._armed += 1
        self._timers[self._armed] = (time.monotonic() + seconds, callback)
        return self._armed

    def cancel(self, timer: int) -> None:
        self._timers.pop(timer, None)

    def stop(self) -> None:
        """Make `run` return after the callback that calls this."""
        self._stopped = True

    def run(self) -> None:
        """Wait and call back until `stop`."""
        self._stopped = False
        while not self._stopped:
            for fd, _ in self._poll.poll(self._timeout()):
                callback = self._watched.get(fd)
                if callback and not self._stopped:
                    callback()
            self._fire()

    def _timeout(self) -> float | None:
        """Return the milliseconds to the next timer, None without timers."""
        if not self._timers:
            return None
        left = min(when for when, _ in self._timers.values()) - time.monotonic()
        return min(max(left, 0.0) * 1000, 2.0e9)  # the most that poll takes

    def _fire(self) -> None:
        """Call back for the timers that are due."""
        if not self._timers:
            return
        now = time.monotonic()
        for timer, (when, callback) in list(self._timers.items()):
            if when <= now and timer in self._timers and not self._stopped:
                del self._timers[timer]
                callback()
