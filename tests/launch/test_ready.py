"""By what a program is known to be ready: conditions as texts, and what looks for them."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ompbind.errors import ParseError
from ompbind.launch.loop import Loop
from ompbind.launch.ready import Condition, LineWatch, Probe, is_taken, parse_condition
from tests.support.commands import TIMEOUT


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("8000", ("port", "127.0.0.1", 8000, "")),
        (":8000", ("port", "127.0.0.1", 8000, "")),
        ("n1:80", ("port", "n1", 80, "")),
        ("n1:65535", ("port", "n1", 65535, "")),
        ("[::1]:80", ("port", "::1", 80, "")),
        ("http://n1", ("http", "n1", 80, "/")),
        ("http://n1:8000/v1/models?x=1", ("http", "n1", 8000, "/v1/models?x=1")),
        ("exit", ("exit", "127.0.0.1", 0, "")),
    ],
)
def test_conditions(text: str, expected: tuple[str, str, int, str]) -> None:
    """Ports, hosts with a port, pages and exits."""
    c = parse_condition(text)
    assert (c.kind, c.host, c.port, c.path) == expected
    assert c.text == text
    line = parse_condition("line:^x: y")
    assert (line.kind, line.text, line.pattern) == ("line", "line:^x: y", "^x: y")


@pytest.mark.parametrize(
    "text", ["", "x", "0", "65536", "n1:", "80/x", "https://n1/", "http://", "line:(", "a b:80",
             "http://n1/\n", "ü:80", "http://n1/ü"],
)  # fmt: skip
def test_what_is_no_condition(text: str) -> None:
    """Refused, with what there is."""
    with pytest.raises(ParseError) as e:
        parse_condition(text)
    assert "line:REGEX" in e.value.hint


@given(st.text())
def test_any_text_as_a_condition(text: str) -> None:
    """A condition, or one line of refusal."""
    try:
        assert parse_condition(text).kind in ("port", "http", "line", "exit")
    except ParseError as e:
        assert e.hint


@contextmanager
def serving(*answers: bytes) -> Iterator[int]:
    """A server that gives one connection after another one of these answers; its port."""
    server = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        for answer in answers:
            connection, _ = server.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(answer)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield server.getsockname()[1]
    finally:
        thread.join(TIMEOUT)
        server.close()


def wait_for(condition: Condition) -> bool:
    """Probe until it is ready; False where that takes too long."""
    loop, ready = Loop(), []

    def done() -> None:
        ready.append(True)
        loop.stop()

    loop.after(TIMEOUT, loop.stop)
    Probe(loop, condition, done).start()
    loop.run()
    return bool(ready)


def test_a_page_is_ready_when_it_is_found() -> None:
    """Errors, nonsense and a closed connection are asked again."""
    answers = (b"HTTP/1.1 503 Busy\r\n\r\n", b"nonsense\r\n", b"", b"HTTP/1.1 200 OK\r\n\r\n")
    with serving(*answers) as port:
        assert wait_for(parse_condition(f"http://127.0.0.1:{port}/health"))


def test_a_port_is_ready_when_somebody_listens() -> None:
    """Refused connections are tried again until one is taken."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert is_taken(parse_condition(str(port)))
    assert not is_taken(parse_condition(str(port)))
    assert not is_taken(parse_condition("exit"))
    loop, ready, servers = Loop(), [], []

    def done() -> None:
        ready.append(port)
        loop.stop()

    probe = Probe(loop, parse_condition(str(port)), done)
    probe.start()
    loop.after(0.15, lambda: servers.append(socket.create_server(("127.0.0.1", port))))
    loop.after(TIMEOUT, loop.stop)
    loop.run()
    assert ready == [port]
    servers[0].close()


def test_a_closed_probe_asks_no_more() -> None:
    """Nothing is left of it in the loop."""
    loop = Loop()
    probe = Probe(loop, parse_condition("1"), lambda: pytest.fail("answered"))
    probe.start()
    probe.close()
    loop.after(0.05, loop.stop)
    loop.run()
    assert probe.socket is None


# --- without a network ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "asked"),
    [
        ("8000", ("127.0.0.1", 8000)),
        ("127.1.2.3:80", ("127.1.2.3", 80)),
        ("localhost:80", ("localhost", 80)),
        ("http://[::1]:81/x", ("::1", 81)),
        ("n1:80", None),
        ("http://n1/", None),
        ("line:x", None),
        ("exit", None),
    ],
)
def test_only_this_machine_is_asked_before(
    text: str, asked: tuple[str, int] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For a moment: other machines may take long to answer, and are not of this launch."""
    calls: list[tuple[Any, ...]] = []

    def connect(*args: Any) -> Any:
        calls.append(args)
        return nullcontext()

    monkeypatch.setattr(socket, "create_connection", connect)
    assert is_taken(parse_condition(text)) is bool(asked)
    assert calls == ([(asked, 1.0)] if asked else [])


class Network:
    """In place of the kernel's sockets and the loop: what a probe does with them, and what it
    gets."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.ready = 0
        self.error = 0  # of the connection
        self.fails = ""  # what raises an error
        self.answers: list[bytes] = []
        monkeypatch.setattr(socket, "getaddrinfo", self.look_up)
        monkeypatch.setattr(socket, "socket", self.make)
        self.probe = Probe(cast("Any", self), parse_condition(text), self.done)

    def note(self, name: str, *args: Any) -> None:
        self.calls.append((name, *args))
        if self.fails == name:
            raise OSError(name)

    def look_up(self, host: str, port: int, *, type: int) -> list[Any]:
        self.note("look up", host, port, type)
        return [(2, 1, 6, "", (host, port)), (10, 1, 6, "", None)]

    def make(self, *args: int) -> Network:
        self.note("make", *args)
        return self

    def setblocking(self, blocking: bool) -> None:
        self.note("block", blocking)

    def connect_ex(self, address: object) -> None:
        self.note("connect", address)

    def fileno(self) -> int:
        return 60

    def getsockopt(self, level: int, option: int) -> int:
        assert (level, option) == (socket.SOL_SOCKET, socket.SO_ERROR)
        return self.error

    def send(self, data: bytes) -> None:
        self.note("send", data)

    def recv(self, _: int) -> bytes:
        self.note("receive")
        return self.answers.pop(0)

    def close(self) -> None:
        self.note("close")

    def after(self, seconds: float, call: Callable[[], object]) -> int:
        self.note("after", seconds, call)
        return 7

    def cancel(self, timer: int) -> None:
        self.note("cancel", timer)

    def watch(self, fd: int, call: Callable[[], object], *, write: bool = False) -> None:
        self.note("watch", fd, call, write)

    def unwatch(self, fd: int) -> None:
        self.note("unwatch", fd)

    def done(self) -> None:
        self.ready += 1

    def take(self) -> list[tuple[Any, ...]]:
        """Return what was done since the last time."""
        calls, self.calls = self.calls, []
        return calls

    @property
    def closed(self) -> list[tuple[Any, ...]]:
        return [("cancel", 7), ("unwatch", 60), ("close",)]

    @property
    def again(self) -> list[tuple[Any, ...]]:
        return [*self.closed, ("after", 0.1, self.probe.start)]


def test_a_probe_does_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """It connects without blocking, for some seconds; where that cannot be begun, or is refused, it
    tries again a little later. A port that takes a connection is ready."""
    network = Network(monkeypatch, "n1:80")
    probe = network.probe
    network.fails = "look up"
    probe.start()
    assert network.take()[1:] == [("cancel", 0), ("after", 0.1, probe.start)]  # no timer of others
    network.fails = ""
    probe.start()
    begun = [
        ("look up", "n1", 80, socket.SOCK_STREAM), ("make", 2, 1, 6), ("block", False),
        ("connect", ("n1", 80)), ("after", 5.0, probe.retry),
        ("watch", 60, probe.on_connected, True),
    ]  # fmt: skip
    assert network.take() == begun
    network.error = 111
    probe.on_connected()
    assert network.take() == network.again
    probe.on_connected()  # it was seen before it was closed
    probe.on_answer()
    assert network.take() == []
    for fails in ("look up", "make"):
        network.fails = fails
        probe.start()
        assert network.take()[-2:] == [("cancel", 7), ("after", 0.1, probe.start)]
    network.fails, network.error = "", 0
    probe.start()
    assert network.take() == begun
    assert network.ready == 0
    probe.on_connected()
    assert (network.take(), network.ready) == (network.closed, 1)


@pytest.mark.parametrize(
    ("answers", "ready"),
    [
        ([b"HTTP/1.1 200 OK\r\n"], True),
        ([b"HTTP/1.0 302 Found\r\nx"], True),
        ([b"HTTP/1.1 2", b"00 OK\r\n"], True),
        ([b"HTTP/1.1 204", b""], True),  # all that came
        ([b"HTTP/1.1 404 2\r\n"], False),
        ([b"HTTP/1.1 500\r\n200 200 200\r\n"], False),
        ([b"ICY 200 OK\r\n"], False),
        ([b"HTTP/1.1\r\n"], False),
        ([b""], False),
        ([b"x" * 4095, b"y"], False),  # no page has such a first line
        ([], False),  # an error
    ],
)
def test_a_page_is_asked_for(
    answers: list[bytes], ready: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once somebody listens; what is found is ready, anything else is asked for again."""
    network = Network(monkeypatch, "http://n1:81/health?x")
    probe = network.probe
    for _ in range(2):  # what came the first time is no part of the second answer
        probe.start()
        network.take()
        probe.on_connected()
        request = b"GET /health?x HTTP/1.0\r\nHost: n1\r\n\r\n"
        assert network.take() == [("send", request), ("watch", 60, probe.on_answer, False)]
        network.answers = list(answers)
        for _ in answers[1:]:
            probe.on_answer()
            assert network.take() == [("receive",)]
        network.fails = "" if answers else "receive"
        probe.on_answer()
        assert network.take() == [("receive",), *(network.closed if ready else network.again)]
    assert network.ready == 2 * ready


def test_a_page_that_cannot_be_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the other end is closed already: again."""
    network = Network(monkeypatch, "http://n1/")
    network.probe.start()
    network.take()
    network.fails = "send"
    network.probe.on_connected()
    assert network.take()[1:] == network.again


def test_a_long_line_is_seen_in_its_last_part() -> None:
    """As only so much is kept of a line that has no end."""
    for length, count in ((4094, 1), (4095, 0)):
        seen: list[int] = []
        watch = LineWatch("^a.*b", lambda seen=seen: seen.append(1))  # type: ignore[misc]
        watch.feed(b"a" + b"x" * length)
        watch.feed(b"b")
        assert len(seen) == count


def test_a_line_is_seen_once_and_in_pieces() -> None:
    """A pattern is found in a line that comes in parts, also before the line has its end; not over
    two lines, and reported once."""
    seen: list[int] = []
    watch = LineWatch("start.* done", lambda: seen.append(1))
    for data in (b"start\n done\nsta", b"rtup", b" is d"):
        watch.feed(data)
        assert not seen
    watch.feed(b"one")
    watch.feed(b"\nstart done\n")
    assert seen == [1]
