"""By what it is known that a program is ready: a port, a page, a line that it writes, its exit.

A condition is a text: `8000`, `HOST:8000`, `http://HOST:8000/health`, `line:REGEX` or `exit`.
"""

from __future__ import annotations

import os

from ompbind.cpuset import parse_whole
from ompbind.errors import ParseError
from ompbind.messages import quote
from ompbind.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from ompbind.launch.loop import Loop

HINT = "a port as 8000, HOST:PORT, http://HOST:PORT/PATH, line:REGEX, or exit"
PAUSE = 0.1  # seconds from one attempt to the next
PATIENCE = 5.0  # seconds after which an attempt has failed


class Condition(Record):
    """`kind`: "port", "http", "line" or "exit"; `text`: as it was written; `host`, `port`, `path`:
    where to ask; `pattern`: of a line."""

    kind: str
    text: str
    host: str = "127.0.0.1"
    port: int = 0
    path: str = ""
    pattern: str = ""


def parse_condition(text: str) -> Condition:
    """Return the condition in a text. Raises ParseError."""
    if text == "exit":
        return Condition("exit", text)
    if text.startswith("line:"):
        import re

        pattern = text.removeprefix("line:")
        try:
            re.compile(pattern)
        except re.error as e:
            raise ParseError(f"{quote(text)}: {e}", hint=HINT, text=text) from None
        return Condition("line", text, pattern=pattern)
    page = text.startswith("http://")
    where, slash, path = text.removeprefix("http://").partition("/")
    host, colon, digits = where.rpartition(":")
    if page and not colon:
        host, digits = where, "80"
    port = parse_whole(digits)
    if port is None or not 0 < port < 65536 or (slash and not page) or (page and not host):
        raise ParseError(f"{quote(text)} is not a condition", hint=HINT, text=text)
    if any(c <= " " or not c.isascii() for c in text):
        raise ParseError(f"{quote(text)}: not an address", hint=HINT, text=text)
    host = host.strip("[]") or "127.0.0.1"
    return Condition("http" if page else "port", text, host, port, f"/{path}" if page else "")


def is_taken(condition: Condition) -> bool:
    """Whether somebody listens at a condition's port of this machine already."""
    import socket

    if condition.kind not in ("port", "http"):
        return False
    if not condition.host.startswith("127.") and condition.host not in ("localhost", "::1"):
        return False
    try:
        with socket.create_connection((condition.host, condition.port), 1.0):
            return True
    except OSError:
        return False


class Probe:
    """Asks a port or a page again and again, never blocking, and calls `done` once it answers."""

    def __init__(self, loop: Loop, condition: Condition, done: Callable[[], object]) -> None:
        self.loop, self.condition, self.done = loop, condition, done
        self.socket: socket.socket | None = None
        self.timer = 0
        self.answer = b""

    def start(self) -> None:
        """Try once, and again after a pause until it is ready or `close` is called."""
        import socket

        self.answer = b""
        try:
            family, kind, protocol, _, address = socket.getaddrinfo(
                self.condition.host, self.condition.port, type=socket.SOCK_STREAM
            )[0]
            self.socket = socket.socket(family, kind, protocol)
            self.socket.setblocking(False)
            self.socket.connect_ex(address)
        except OSError:
            self.retry()
            return
        self.timer = self.loop.after(PATIENCE, self.retry)
        self.loop.watch(self.socket.fileno(), self.on_connected, write=True)

    def on_connected(self) -> None:
        """The connection is there or refused."""
        import socket

        if self.socket is None:
            return
        if self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self.retry()
        elif self.condition.kind == "port":
            self.finish()
        else:
            host = self.condition.host
            request = f"GET {self.condition.path} HTTP/1.0\r\nHost: {host}\r\n\r\n"
            try:
                self.socket.send(request.encode("ascii"))
            except OSError:
                self.retry()
                return
            self.loop.watch(self.socket.fileno(), self.on_answer)

    def on_answer(self) -> None:
        """Part of the answer is there: a page that is found (2xx, 3xx) is ready."""
        if self.socket is None:
            return
        try:
            data = self.socket.recv(4096)
        except OSError:
            data = b""
        self.answer += data
        line = self.answer.split(b"\r\n", 1)[0].split()
        if data and b"\r\n" not in self.answer and len(self.answer) < 4096:
            return
        if len(line) > 1 and line[0].startswith(b"HTTP/") and line[1][:1] in (b"2", b"3"):
            self.finish()
        else:
            self.retry()

    def finish(self) -> None:
        self.close()
        self.done()

    def retry(self) -> None:
        self.close()
        self.timer = self.loop.after(PAUSE, self.start)

    def close(self) -> None:
        """Ask no more."""
        self.loop.cancel(self.timer)
        if self.socket is not None:
            self.loop.unwatch(self.socket.fileno())
            self.socket.close()
            self.socket = None


class LineWatch:
    """Looks for a pattern in what a rank writes, and calls `done` once at the first line of it."""

    def __init__(self, pattern: str, done: Callable[[], object]) -> None:
        import re

        self.pattern, self.done = re.compile(os.fsencode(pattern)), done
        self.rest = b""
        self.found = False

    def feed(self, data: bytes) -> None:
        """Take what was written. A line counts as far as it is there: a prompt has no end."""
        if self.found:
            return
        *lines, self.rest = (self.rest + data).split(b"\n")
        self.rest = self.rest[-4096:]
        if any(self.pattern.search(line) for line in (*lines, self.rest)):
            self.found = True
            self.done()
