"""A copy of standard input for every rank: all of it, in order, at the pace of the slowest."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import pytest

from ompbind.launch.loop import Loop
from ompbind.launch.stdin import Feed

SENT = bytes(range(256)) * 4000  # about a megabyte: more than pipes hold


class Fed:
    """Ranks fed from a pipe; `got` is what each has read."""

    def __init__(self, ranks: int) -> None:
        self.loop = Loop()
        self.source, self.writer = os.pipe()
        self.feed = Feed(self.loop, self.source)
        self.readers: list[int] = []
        for _ in range(ranks):
            theirs, ours = os.pipe()
            self.feed.add(ours)
            self.readers.append(theirs)
        self.got = [b""] * ranks

    def read_in_thread(self, rank: int) -> threading.Thread:
        """Reads a rank's input to its end."""

        def read() -> None:
            while data := os.read(self.readers[rank], 1000):
                self.got[rank] += data

        thread = threading.Thread(target=read, daemon=True)
        thread.start()
        return thread

    def write_in_thread(self) -> threading.Thread:
        def write() -> None:
            left = SENT
            with suppress(OSError):
                while left:
                    left = left[os.write(self.writer, left) :]
            os.close(self.writer)

        thread = threading.Thread(target=write, daemon=True)
        thread.start()
        return thread

    def turn_until_ended(self, *threads: threading.Thread) -> None:
        for _ in range(600):
            self.turn(0.05)
            if not any(t.is_alive() for t in threads):
                return
        raise AssertionError("it hangs")

    def turn(self, seconds: float) -> None:
        self.loop.after(seconds, self.loop.stop)
        self.loop.run()


@pytest.fixture
def fed() -> Iterator[Fed]:
    """Three ranks."""
    f = Fed(3)
    yield f
    f.feed.close()
    for fd in (*f.readers, f.source, f.writer):
        with suppress(OSError):
            os.close(fd)


def test_all_get_all(fed: Fed) -> None:
    """Every rank reads the whole, and its end."""
    threads = [fed.read_in_thread(r) for r in range(3)]
    fed.write_in_thread()
    fed.turn_until_ended(*threads)
    assert fed.got == [SENT] * 3


def test_the_slowest_decides(fed: Fed) -> None:
    """While one rank does not read, the others get no more than pipes hold; nothing is lost."""
    threads = [fed.read_in_thread(r) for r in (0, 1)]
    writing = fed.write_in_thread()
    fed.turn(0.5)
    assert writing.is_alive()
    assert len(fed.got[0]) < 4 * 65536
    threads.append(fed.read_in_thread(2))
    fed.turn_until_ended(*threads)
    assert fed.got == [SENT] * 3


def test_a_rank_drops_out(fed: Fed) -> None:
    """A rank that closes its standard input holds nobody up; without any, nothing is read."""
    threads = [fed.read_in_thread(r) for r in (0, 1)]
    os.close(fed.readers.pop())
    fed.write_in_thread()
    fed.turn_until_ended(*threads)
    assert fed.got[:2] == [SENT] * 2


def test_none_is_left(fed: Fed) -> None:
    """When no rank takes any more, the rest of our input stays for others."""
    while fed.readers:
        os.close(fed.readers.pop())
    os.write(fed.writer, b"first")
    fed.turn(0.1)
    os.write(fed.writer, b"second")
    fed.turn(0.1)
    assert os.read(fed.source, 100) == b"second"


def test_an_end_before_the_inputs(fed: Fed) -> None:
    """When ranks are fed no more, each finds its input's end, and nothing more is read."""
    os.write(fed.writer, b"first")
    fed.turn(0.1)
    fed.feed.close()
    os.write(fed.writer, b"second")
    fed.turn(0.1)
    for reader in fed.readers:
        os.set_blocking(reader, False)
        assert os.read(reader, 100) == b"first"
        assert os.read(reader, 100) == b""
    assert os.read(fed.source, 100) == b"second"


def test_a_rank_that_is_dropped_is_not_watched() -> None:
    """As its descriptor is closed, and may soon be another's."""
    unwatched: list[int] = []
    loop: Any = SimpleNamespace(watch=lambda *_: None, unwatch=unwatched.append)
    _, ours = os.pipe()
    feed = Feed(loop)
    feed.add(ours)
    feed.drop(ours)
    feed.drop(ours)
    assert unwatched == [ours]
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(ours)


def test_ranks_are_fed_from_standard_input() -> None:
    """Which is ompbind's."""
    watched: list[int] = []
    loop: Any = SimpleNamespace(watch=lambda fd, _: watched.append(fd))
    _, ours = os.pipe()
    Feed(loop).add(ours)
    assert watched == [0]
    assert not os.get_blocking(ours)


def test_closed_input() -> None:
    """A standard input that is closed is an empty one."""
    loop = Loop()
    source, writer = os.pipe()
    theirs, ours = os.pipe()
    feed = Feed(loop, source)
    os.close(source)
    os.close(writer)
    feed.add(ours)
    loop.after(0.1, loop.stop)
    loop.run()
    assert os.read(theirs, 1) == b""
    os.close(theirs)
