"""Ranks' lines on a terminal, where an unfinished one is shown after a moment, as it may be a
question, and progress bars of several ranks take turns in one line.

A line becomes a progress bar with its first carriage return, before its states or after them. Only
the last state counts. Where another line is to be written, a bar is erased, and comes back with its
next state, or at its end.
"""

from __future__ import annotations

from ompbind.launch.output import CHUNK, LONGEST, Source

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ompbind.launch.output import Sink

ERASE = b"\x1b[K"  # to the end of the line, where another line's longer text may stand


class TerminalSource(Source):
    """A rank's stream that is shown on a terminal."""

    def __init__(self, fd: int, tag: bytes, cut_tag: bytes, sink: Sink) -> None:
        super().__init__(fd, tag, cut_tag, sink)
        self.after_return = (ERASE if sink.ansi else b"") + tag
        self._shown = b""  # of the unfinished line, what stands on the terminal
        self._replaces = False  # whether what is held replaces that

    def end(self) -> None:
        """Write what is held back, as a line that stays, and close."""
        super().end()
        self.is_bar = False

    def put_held(self) -> None:
        """Write an unfinished line as far as it goes."""
        if not self._held:
            return
        text = bytes(self._held)
        if self.sink.unfinished is self and self._starts_over():
            self._put([b"\r", self.after_return, text])
            self._shown = text
        else:
            self._put([text])
            self._shown = (self._shown + text)[-CHUNK:]
        self.sink.unfinished = self
        self._held.clear()
        self.fresh = self._replaces = False

    def give_way(self) -> None:
        """Let another line be written: erase a bar, which is held again; cut any other line."""
        if self.is_bar and self.sink.ansi:
            if not (self._held.strip(b"\r") and self._starts_over()):
                self._held[:0] = self._shown
            self.sink.put([b"\r", ERASE])
        else:
            super().give_way()
        self._shown, self._replaces = b"", False

    def _take(self, data: bytes) -> None:
        if b"\n" in data or b"\r" in data or self._held.endswith(b"\r"):
            data = b"".join((self._held, data))
            self._held.clear()
            end = data.rfind(b"\n") + 1
            if end:
                self._put_lines(data[:end])
            data = data[end:]
            at = data.rfind(b"\r", 0, -1)  # one at the very end may be the first half of \r\n
            if at >= 0:
                self._replaces, self.cut, data = True, False, data[at + 1 :]
            self.is_bar = self.is_bar or at >= 0 or data.endswith(b"\r")
        if data:
            self._held += data
            self.fresh = True
            if len(self._held) >= LONGEST:
                self.put_held()
            else:
                self.sink.show_soon(self)

    def _put_lines(self, lines: bytes) -> None:
        pieces = [self._tag_lines(lines)]
        if self.sink.unfinished is self and lines[:1] != b"\n" and self._starts_over():
            pieces = [b"\r", self.after_return, *pieces]
        self._put(pieces)
        self.sink.unfinished = None
        self.fresh = self.is_bar = self._replaces = False
        self._shown = b""

    def _starts_over(self) -> bool:
        """Whether what comes next stands in the place of what is shown."""
        return self._replaces or self._shown.endswith(b"\r")
