"""A copy of our standard input for every rank."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ompbind.launch.loop import Loop

CHUNK = 1 << 16


class Feed:
    """Reads when no rank has anything left to take: the slowest decides. A rank that takes no more
    drops out; when none is left, nothing is read."""

    def __init__(self, loop: Loop, own: int = 0) -> None:
        self.loop = loop
        self._own = own
        self._ended = False
        self._waiting: dict[int, bytes] = {}  # by descriptor: what the rank has still to take

    def add(self, fd: int) -> None:
        """Feeds another rank, through the pipe `fd`."""
        os.set_blocking(fd, False)
        self._waiting[fd] = b""
        self.loop.watch(self._own, self._read)

    def _read(self) -> None:
        try:
            data = os.read(self._own, CHUNK)
        except BlockingIOError:  # whoever we share it with has made it so
            return
        except OSError:  # closed, or a terminal that is gone
            data = b""
        if not data:
            self._ended = True
            self.loop.unwatch(self._own)
        for fd in list(self._waiting):
            self._write(fd, data)
        if any(self._waiting.values()) or not self._waiting:
            self.loop.unwatch(self._own)

    def _write(self, fd: int, data: bytes) -> None:
        """As much as the rank takes now."""
        try:
            data = data[os.write(fd, data) :] if data else data
        except BlockingIOError:
            pass
        except OSError:  # it has closed its standard input, or ended
            self.drop(fd)
            return
        if data:
            self._waiting[fd] = data
            self.loop.watch(fd, lambda: self._go_on(fd), write=True)
        elif self._ended:
            self.drop(fd)

    def _go_on(self, fd: int) -> None:
        data, self._waiting[fd] = self._waiting[fd], b""
        self.loop.unwatch(fd)
        self._write(fd, data)
        if not self._ended and self._waiting and not any(self._waiting.values()):
            self.loop.watch(self._own, self._read)

    def drop(self, fd: int) -> None:
        """Feeds a rank no more."""
        if fd in self._waiting:
            del self._waiting[fd]
            self.loop.unwatch(fd)
            os.close(fd)

    def close(self) -> None:
        for fd in list(self._waiting):
            self.drop(fd)
        self.loop.unwatch(self._own)
