"""Parts of launch by themselves: the event loop, and the end of all descendants."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from ompbind.launch.loop import Loop
from tests.support.commands import TIMEOUT


@pytest.mark.parametrize(
    ("seconds", "least", "most"), [(2.0, 1990.0, 2000.0), (-1.0, 0.0, 0.0), (1e9, 2.0e9, 2.0e9)]
)
def test_the_loop_waits_until_the_next_timer(seconds: float, least: float, most: float) -> None:
    """In milliseconds, and no longer than poll can."""
    loop = Loop()
    assert loop._timeout() is None
    loop.after(1e9, lambda: None)
    timer = loop.after(seconds, lambda: None)
    wait = loop._timeout()
    assert wait is not None
    assert least <= wait <= most
    loop.cancel(timer)
    wait = loop._timeout()
    assert wait == 2.0e9


def test_the_loop_waits_for_the_first_timer(monkeypatch: pytest.MonkeyPatch) -> None:
    """To the millisecond."""
    loop = Loop()
    monkeypatch.setattr(time, "monotonic", lambda: 100.0)
    loop.after(3.0, lambda: None)
    loop.after(2.0, lambda: None)
    assert loop._timeout() == 2000.0


def test_a_timer_is_due_at_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not only after it, which would wake the loop twice."""
    loop, calls = Loop(), list[str]()
    monkeypatch.setattr(time, "monotonic", lambda: 100.0)
    loop.after(0.0, lambda: calls.append("due"))
    loop.after(0.001, lambda: calls.append("later"))
    loop._fire()
    assert calls == ["due"]


def test_nothing_is_called_back_after_a_stop() -> None:
    """Of what was ready, or due, at the same time."""
    loop = Loop()
    calls: list[str] = []
    pipes = [os.pipe() for _ in range(2)]

    def stop(reason: str) -> None:
        calls.append(reason)
        loop.stop()

    for reader, writer in pipes:
        os.write(writer, b"x")
        loop.watch(reader, lambda: stop("read"))
        loop.after(0.0, lambda: stop("timer"))
    loop.run()
    assert calls == ["read"]
    for reader, _ in pipes:
        loop.unwatch(reader)
    loop.run()
    assert calls == ["read", "timer"]
    loop.run()
    assert calls == ["read", "timer", "timer"]
    for fd in (fd for pair in pipes for fd in pair):
        os.close(fd)


def test_what_is_unwatched_wakes_nobody() -> None:
    """However much there is to read."""
    loop = Loop()
    reader, writer = os.pipe()
    loop.watch(reader, lambda: None)
    os.write(writer, b"x")
    assert len(loop._poll.poll(0)) == 1
    loop.unwatch(reader)
    assert loop._poll.poll(0) == []
    os.close(reader)
    os.close(writer)


def test_timers_fire_once_and_in_time() -> None:
    """The due ones; not what was cancelled, and nothing after `stop`."""
    loop, calls = Loop(), list[str]()

    def first() -> None:
        calls.append("first")
        loop.cancel(cancelled)

    def last() -> None:
        calls.append("last")
        loop.stop()

    loop.after(0.0, first)
    cancelled = loop.after(0.0, lambda: calls.append("cancelled"))
    loop.after(0.05, last)
    loop.after(0.05, lambda: calls.append("after the stop"))
    started = time.monotonic()
    loop.run()
    assert calls == ["first", "last"]
    assert 0.05 <= time.monotonic() - started < 5


def test_an_unwatched_descriptor_is_not_called_back() -> None:
    """Even where it was ready with the one that unwatched it; ends and room to write are events."""
    loop, calls = Loop(), list[str]()
    (a, a_end), (b, b_end), (c, d) = os.pipe(), os.pipe(), os.pipe()
    try:
        for fd in (a_end, b_end):
            os.write(fd, b"x")

        def read(fd: int, name: str, other: int) -> None:
            calls.append(name)
            loop.unwatch(fd)
            loop.unwatch(other)

        def room() -> None:
            calls.append("room")
            loop.stop()

        loop.watch(a, lambda: read(a, "one", b))
        loop.watch(b, lambda: read(b, "one", a))
        loop.watch(d, room, write=True)
        loop.unwatch(c)  # it need not be watched
        loop.after(60.0, loop.stop)
        loop.run()
        assert sorted(calls) == ["one", "room"]
    finally:
        for fd in (a, a_end, b, b_end, c, d):
            os.close(fd)


END = """
import subprocess
from ompbind.launch.descendants import end_descendants
spared = subprocess.Popen(["sleep", "100"])
other = subprocess.Popen(["sh", "-c", "trap '' TERM; exec sleep 100"])
print(end_descendants(without=[spared.pid]), spared.poll())
print(end_descendants())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="descendants are read from Linux' /proc")
def test_all_descendants_are_ended() -> None:
    """And waited for, until none is left; but not those that are spared."""
    done = subprocess.run(
        [sys.executable, "-c", END], capture_output=True, text=True, timeout=TIMEOUT
    )
    assert (done.stdout, done.stderr) == ("[] None\n[]\n", "")
