"""Writing ranks' lines to ompbind's standard output and error, each with its rank's tag.

What a rank writes passes unchanged, whatever its bytes: a tag goes before each line, and after each
carriage return, with which progress bars start over. Lines of several ranks are never mixed. An
unfinished line is kept in memory until its end comes, up to LONGEST bytes; after that it is written
as far as it goes. If another rank's line comes before its rest, it is cut there, and the rest gets
the tag `[3]+`. On a terminal `terminal.TerminalSource` shows such lines.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ompbind.launch.loop import Loop

    Pieces = Sequence[bytes | memoryview]

CHUNK = 1 << 16  # bytes read at once: as many as a pipe holds
FULLEST = 17  # chunks that the largest pipe holds, and one more that is not quite full
LONGEST = 1 << 20  # bytes of an unfinished line that are held back
PAUSE = 0.1  # seconds after which an unfinished line is shown on a terminal
SAFE = 4096  # bytes that can be written without blocking once poll says so: PIPE_BUF on Linux


class Sink:
    """Standard output, standard error, or both where they are the same file (`stands_for`). `ansi`:
    it is a terminal that knows escape sequences, as all do but `plain` ones."""

    def __init__(self, loop: Loop, stands_for: tuple[int, ...], *, plain: bool) -> None:
        self.loop = loop
        self.stands_for = stands_for
        self.terminal = os.isatty(stands_for[0])
        self.ansi = self.terminal and not plain
        self.fd, self._write_some = open_again(stands_for[0])
        self.sources: list[Source] = []
        self.shown: list[Source] = []  # those whose unfinished lines are shown soon
        self.unfinished: Source | None = None  # whose line was written last, without its end
        self.error: OSError | None = None  # why nothing can be written any more
        self._done: Callable[[], object] | None = None
        self._pending: list[bytes | memoryview] = []
        self._timer = 0

    def put(self, pieces: Pieces) -> None:
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
                written = self._write_some(self.fd, self._pending[:64])
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

    def show_soon(self, source: Source) -> None:
        """Show a source's unfinished line after a moment."""
        if source not in self.shown:
            self.shown.append(source)
        if not self._timer:
            self._timer = self.loop.after(PAUSE, self._show)

    def _show(self) -> None:
        """Show unfinished lines, and of progress bars the one that has waited longest."""
        self._timer = 0
        waiting, self.shown = [s for s in self.shown if s.fresh and not s.closed], []
        bars = [source for source in waiting if source.is_bar]
        for source in waiting:
            if source not in bars[1:]:
                source.put_held()
        for source in bars[1:]:
            self.show_soon(source)

    def end_line(self) -> None:
        """End or erase a line that was written without its end, for something else to follow."""
        if self.unfinished is not None:
            source, self.unfinished = self.unfinished, None
            source.give_way()

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
    still to come. On a terminal, `fresh`: something was not yet shown; `is_bar`: the unfinished
    line has had a carriage return."""

    def __init__(self, fd: int, tag: bytes, cut_tag: bytes, sink: Sink) -> None:
        self.fd = fd
        self.sink = sink
        self.tag = tag
        self.cut_tag = cut_tag
        self.cut = self.fresh = self.is_bar = False
        self.after_return = tag
        self.closed = False
        self.watcher: Callable[[bytes], None] | None = None  # gets all that is read
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
        if self.watcher is not None:
            self.watcher(data)
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

    def _tag_both(self, data: bytes) -> tuple[bytes, bytes]:
        """Return the tagged lines and the rest of a text with carriage returns; one at its very end
        may be the first half of a line's end."""
        end = max(data.rfind(b"\n"), data.rfind(b"\r", 0, -1)) + 1
        return self._tag_lines(data[:end]), data[end:]

    def _tag_lines(self, lines: bytes) -> bytes:
        """Return whole lines with all tags but the first."""
        last = 2 if lines.endswith(b"\r\n") else 1
        body = lines[:-last].replace(b"\r", b"\r" + self.after_return)
        body = body.replace(b"\r" + self.after_return + b"\n", b"\r\n")
        return body.replace(b"\n", b"\n" + self.tag) + lines[-last:]

    def _put(self, pieces: Pieces) -> None:
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

    def give_way(self) -> None:
        """Cut the unfinished line, for another to be written."""
        self.cut = True
        self.sink.put([b"\n"])

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


def open_again(stream: int) -> tuple[int, Callable[[int, Pieces], int]]:
    """Open a standard stream a second time so that it does not block, since the description that
    other processes share must not change. Return the descriptor, and the function that writes some
    of the bytes to it; it raises BlockingIOError where it would have to wait."""
    import stat

    mode = os.fstat(stream).st_mode
    if stat.S_ISSOCK(mode):
        return stream, send_some
    if not stat.S_ISFIFO(mode) and not (stat.S_ISCHR(mode) and os.isatty(stream)):
        return stream, os.writev  # a file, or a device that never blocks
    flags = os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY
    try:
        return os.open(f"/dev/fd/{stream}", flags), os.writev
    except OSError:  # another user's, as after su; or no /dev/fd
        pass
    try:
        os.tcgetpgrp(stream)  # fails where it is not the terminal that controls this session
        return os.open(os.ctermid(), flags), os.writev
    except OSError:
        return stream, write_some


def send_some(fd: int, pieces: Pieces) -> int:
    """Write to a socket as much as is possible without blocking, at most SAFE bytes, so that a
    message is not too long. Raises OSError."""
    import _socket  # socket itself is slow to import

    duplicate = _socket.socket(fileno=os.dup(fd))
    try:
        return duplicate.send(memoryview(pieces[0])[:SAFE], _socket.MSG_DONTWAIT)
    finally:
        duplicate.close()


def write_some(fd: int, pieces: Pieces) -> int:
    """Write to a pipe or terminal that cannot be opened again as much as it is sure to take. Raises
    OSError."""
    import select

    poll = select.poll()
    poll.register(fd, select.POLLOUT)
    if not poll.poll(0):
        raise BlockingIOError
    return os.write(fd, memoryview(pieces[0])[:SAFE])
