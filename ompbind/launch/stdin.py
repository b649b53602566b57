"""Copying ompbind's standard input to every rank."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ompbind.launch.loop import Loop

CHUNK = 1 << 16


class Feed:
    """Copies what it reads to every rank. It reads on when every rank has taken all, so the slowest
    sets the pace. A rank that closes its end drops out; when none is left, nothing is read."""

    def __init__(self, loop: Loop, source: int = 0) -> None:
        self.loop = loop
        self._source = source
        self._ended = False
        self._pending: dict[int, bytes] = {}  # by descriptor: what the rank has still to take

    def add(self, fd: int) -> None:
        """Feed another rank through the pipe `fd`."""
        os.set_blocking(fd, False)
        self._pending[fd] = b""
        self.loop.watch(self._source, self._read)

    def _read(self) -> None:
        try:
            data = os.read(self._source, CHUNK)
        except BlockingIOError:  # a process that shares it has made it non-blocking
            return
        except OSError:  # closed, or its terminal has gone
            data = b""
        if not data:
            self._ended = True
            self.loop.unwatch(self._source)
        for fd in list(self._pending):
            self._write(fd, data)
        if any(self._pending.values()) or not self._pending:
            self.loop.unwatch(self._source)

    def _write(self, fd: int, data: bytes) -> None:
        """Write as much as the rank takes now."""
        try:
            data = data[os.write(fd, data) :] if data else data
        except BlockingIOError:
            pass
        except OSError:  # it has closed its standard input, or exited
            self.drop(fd)
            return
        if data:
            self._pending[fd] = data
            self.loop.watch(fd, lambda: self._resume(fd), write=True)
        elif self._ended:
            self.drop(fd)

    def _resume(self, fd: int) -> None:
        data, self._pending[fd] = self._pending[fd], b""
        self.loop.unwatch(fd)
        self._write(fd, data)
        if not self._ended and self._pending and not any(self._pending.values()):
            self.loop.watch(self._source, self._read)

    def drop(self, fd: int) -> None:
        """Stop feeding a rank."""
        if fd in self._pending:
            del self._pending[fd]
            self.loop.unwatch(fd)
            os.close(fd)

    def close(self) -> None:
        for fd in list(self._pending):
            self.drop(fd)
        self.loop.unwatch(self._source)
