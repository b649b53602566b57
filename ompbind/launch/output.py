"""Writing ranks' lines to ompbind's standard output and error, each with its rank's tag.

What a rank writes passes unchanged, whatever its bytes: a tag goes before each line, and after each
carriage return, with which progress bars start over. Lines of several ranks are never mixed. An
unfinished line is kept in memory until its end comes, up to LONGEST bytes, and on a terminal only
for a moment, as it may be a question; after that it is written as far as it goes. If another rank's
line comes before its rest, it is cut there, and the rest gets the tag `[3]+`.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ompbind.launch.loop import Loop

CHUNK = 1 << 16  # bytes read at once: as many as a pipe holds
FULLEST = 17  # chunks that the largest pipe holds, and one more that is not quite full
LONGEST = 1 << 20  # bytes of an unfinished line that are held back
PAUSE = 0.1  # seconds after which an unfinished line is shown on a terminal
SAFE = 4096  # bytes that can be written without blocking once poll says so: PIPE_BUF on Linux
ERASE = b"\x1b[K"  # to the end of the line, where another line's longer text may stand


class Sink:
    """Standard output, standard error, or both where they are the same file (`stands_for`). `ansi`:
    it is a terminal that knows escape sequences, as all do but `plain` ones."""

    def __init__(self, loop: Loop, stands_for: tuple[int, ...], *, plain: bool) -> None:
        self.loop = loop
        self.stands_for = stands_for
        self.terminal = os.isatty(stands_for[0])
        self.ansi = self.terminal and not plain
        self.fd, self._most = open_again(stands_for[0])
        self.sources: list[Source] = []
        self.unfinished: Source | None = None  # whose line was written last, without its end
        self.error: OSError | None = None  # why nothing can be written any more
        self._done: Callable[[], object] | None = None
        self._pending: list[bytes | memoryview] = []
        self._timer = 0

    def put(self, pieces: Sequence[bytes | memoryview]) -> None:
        """Write, or keep what cannot be written now; until it is written, nothing is read."""
        if self.error:
            return
        waiting = bool(self._pending)
        self._pending += pieces
        if waiting:
            return
        self._write()
        if self._pending:
            for source in self.sources:
                self.loop.unwatch(source.fd)
            self.loop.watch(self.fd, self._resume, write=True)

    def _resume(self) -> None:
        self._write()
        if not self._pending:
            self.loop.unwatch(self.fd)
            if self._done:
                self._drain()
            else:
                for source in self.sources:
                    self.loop.watch(source.fd, source.read)

    def _write(self) -> None:
        """Write as much as can be written now."""
        try:
            while self._pending:
                pieces = self._pending[:64]
                if self._most:
                    if not is_writable(self.fd):
                        return
                    pieces = [memoryview(self._pending[0])[: self._most]]
                written = os.writev(self.fd, pieces)
                self._pending = drop_bytes(self._pending, written)
        except BlockingIOError:
            pass
        except OSError as e:
            self._fail(e)

    def _fail(self, error: OSError) -> None:
        """Nobody reads any more: close the ranks' pipes, as if they wrote there themselves."""
        self.error = error
        self._pending = []
        self.loop.unwatch(self.fd)
        for source in list(self.sources):
            source.close()

    def finish(self, done: Callable[[], object]) -> None:
        """Take only what is in the pipes now, and call `done` when all is written."""
        self._done = done
        if not self._pending:
            self._drain()

    def _drain(self) -> None:
        for source in list(self.sources):
            for _ in range(FULLEST):
                if self._pending or not source.read():
                    break
            if self._pending:
                return  # _resume continues when that is written
            source.end()
        if not self._pending and self._done:
            done, self._done = self._done, None
            done()

    def watch_unfinished(self) -> None:
        """Show an unfinished line soon, if this is a terminal."""
        if self.terminal and not self._timer:
            self._timer = self.loop.after(PAUSE, self._show_unfinished)

    def _show_unfinished(self) -> None:
        self._timer = 0
        for source in list(self.sources):
            source.put_held()

    def end_line(self) -> None:
        """Cut a line that was written without its end, for something else to follow."""
        if self.unfinished is not None:
            self.unfinished.cut = True
            self.unfinished = None
            self.put([b"\n"])

    def close(self) -> None:
        """Close, dropping what was not read or not written."""
        for source in list(self.sources):
            source.close()
        self.loop.cancel(self._timer)
        self.loop.unwatch(self.fd)
        if self.fd not in self.stands_for:
            os.close(self.fd)


class Source:
    """A rank's stream, read through the pipe `fd`. `cut`: its last line was cut, and the rest is
    still to come."""

    def __init__(self, fd: int, tag: bytes, cut_tag: bytes, sink: Sink) -> None:
        self.fd = fd
        self.sink = sink
        self.tag = tag
        self.cut_tag = cut_tag
        self.cut = False
        self.after_return = (ERASE if sink.ansi else b"") + tag
        self.closed = False
        self._held = bytearray()  # an unfinished line
        os.set_blocking(fd, False)
        sink.sources.append(self)
        sink.loop.watch(fd, self.read)

    def read(self) -> bool:
        """Take what the rank has written; return whether there may be more."""
        if self.closed:
            return False
        try:
            data = os.read(self.fd, CHUNK)
        except BlockingIOError:
            return False
        if not data:
            self.end()
            return False
        self._take(data)
        return True

    def _take(self, data: bytes) -> None:
        if self._held.endswith(b"\r"):  # perhaps the first half of \r\n
            data = b"".join((self._held, data))
            self._held.clear()
        lines: bytes | memoryview
        if b"\r" in data:
            lines, tail = self._tag_both(data)
        elif (end := data.rfind(b"\n")) >= 0:
            tail = data[end + 1 :]
            tagged = data.replace(b"\n", b"\n" + self.tag)
            lines = memoryview(tagged)[: len(tagged) - len(tail) - len(self.tag)]
        else:
            lines, tail = b"", data
        if lines:
            self._put([bytes(self._held), lines] if self._held else [lines])
            self._held.clear()
            self.sink.unfinished = None
        if tail:
            self._held += tail
            if len(self._held) >= LONGEST:
                self.put_held()
            else:
                self.sink.watch_unfinished()

    def _tag_both(self, data: bytes) -> tuple[bytes, bytes]:
        """Return the tagged lines and the rest of a text with carriage returns; one at its very end
        may be the first half of a line's end."""
        end = max(data.rfind(b"\n"), data.rfind(b"\r", 0, -1)) + 1
        lines, tail = data[:end], data[end:]
        last = 2 if lines.endswith(b"\r\n") else 1
        body = lines[:-last].replace(b"\r", b"\r" + self.after_return)
        body = body.replace(b"\r" + self.after_return + b"\n", b"\r\n")
        return body.replace(b"\n", b"\n" + self.tag) + lines[-last:], tail

    def _put(self, pieces: Sequence[bytes | memoryview]) -> None:
        """Write after the tag, or after what was already written of this line."""
        if self.sink.unfinished is self:
            self.sink.put(pieces)
            return
        self.sink.end_line()
        self.sink.put([self.cut_tag if self.cut else self.tag, *pieces])
        self.cut = False

    def put_held(self) -> None:
        """Write an unfinished line as far as it goes."""
        if self._held:
            self._put([bytes(self._held)])
            self.sink.unfinished = self
            self._held.clear()

    def end(self) -> None:
        """Write what is held back, and close: nothing more will come."""
        if not self.closed:
            self.put_held()
            self.close()

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self.sink.sources.remove(self)
            self.sink.loop.unwatch(self.fd)
            os.close(self.fd)


def drop_bytes(pieces: list[bytes | memoryview], count: int) -> list[bytes | memoryview]:
    """Return `pieces` without their first `count` bytes."""
    for n, piece in enumerate(pieces):
        if count < len(piece):
            return [memoryview(piece)[count:], *pieces[n + 1 :]]
        count -= len(piece)
    return []


def is_writable(fd: int) -> bool:
    """Whether up to SAFE bytes can be written without blocking."""
    import select

    poll = select.poll()
    poll.register(fd, select.POLLOUT)
    return bool(poll.poll(0))


def open_again(stream: int) -> tuple[int, int]:
    """Open a standard stream a second time so that it does not block, since the description that
    other processes share must not change. Return the descriptor and 0; where that is impossible,
    the stream itself and how many bytes may be written at once (0: any, it never blocks)."""
    import stat

    mode = os.fstat(stream).st_mode
    if stat.S_ISFIFO(mode) or (stat.S_ISCHR(mode) and os.isatty(stream)):
        flags = os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY
        try:
            return os.open(f"/dev/fd/{stream}", flags), 0
        except OSError:  # another user's, or no /dev/fd
            return stream, SAFE
    return stream, SAFE if stat.S_ISSOCK(mode) else 0
