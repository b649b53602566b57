"""By what a program is known to be ready: conditions as texts, and what looks for them."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

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


@pytest.mark.parametrize(
    "text", ["", "x", "0", "65536", "n1:", "80/x", "https://n1/", "http://", "line:(", "a b:80",
             "http://n1/\n"],
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
