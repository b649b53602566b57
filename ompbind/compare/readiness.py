"""Whether a server is ready, by a port that it opens, a URL that it answers, or what it writes."""

from __future__ import annotations

import re
import socket
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from ompbind.errors import UsageError
from ompbind.messages import quote
from ompbind.record import Record

if TYPE_CHECKING:
    from collections.abc import Sequence

PATIENCE = 2.0  # seconds for one attempt: a server that is busy with loading may not answer
SCHEMES = {"http": 80, "https": 443, "tcp": None}  # and their ports


class Ready(Record):
    """One sign that a server is ready, as --ready has it in `text`: a pattern that each rank's
    output must match, or where `scheme` is not "", an address that must take a connection, and for
    http and https answer a GET of `path` with a status below 400."""

    text: str
    scheme: str = ""
    host: str = ""
    port: int = 0
    path: str = ""

    @property
    def name(self) -> str:
        """What it is called in messages."""
        if not self.scheme:
            return f"output that matches {quote(self.text)}"
        return f"port {self.port}" if self.text.isdigit() else self.text

    def find_problem(self, outputs: Sequence[str]) -> str:
        """Return why a server is not ready yet, "" if it is. `outputs`: what each rank has
        written so far."""
        if not self.scheme:
            missing = [n for n, text in enumerate(outputs) if not self.matches(text)]
            return f"rank {missing[0]} has not written it" if missing else ""
        try:
            if self.scheme == "tcp":
                socket.create_connection((self.host, self.port), PATIENCE).close()
                return ""
            status = self.ask()
        except OSError as e:
            return "no answer" if isinstance(e, TimeoutError) else e.strerror or str(e)
        return "" if status < 400 else f"status {status}"

    def matches(self, text: str) -> bool:
        return re.search(self.text, text, re.MULTILINE) is not None

    def ask(self) -> int:
        """Return the status with which the URL answers. Raises OSError."""
        from http.client import HTTPConnection, HTTPException, HTTPSConnection

        kind = HTTPSConnection if self.scheme == "https" else HTTPConnection
        connection = kind(self.host, self.port, timeout=PATIENCE)
        try:
            connection.request("GET", self.path)
            return connection.getresponse().status
        except HTTPException as e:  # what answers does not speak HTTP
            raise OSError(f"{type(e).__name__} {e}".strip()) from None
        finally:
            connection.close()

    def is_taken(self) -> bool:
        """Whether something listens there, before the server has been started."""
        if not self.scheme:
            return False
        try:
            socket.create_connection((self.host, self.port), PATIENCE).close()
        except OSError:
            return False
        return True


def parse_ready(text: str) -> Ready:
    """Return what --ready says. Raises UsageError."""
    name = "--ready"
    if text.isascii() and text.isdigit():
        if not 0 < int(text) < 65536:
            raise UsageError(f"{name} {text} is not a port", hint="1 to 65535", option=name)
        return Ready(text, "tcp", "127.0.0.1", int(text))
    if re.match(r"[a-z]+://", text):
        return parse_url(text, name)
    try:
        re.compile(text)
    except re.error as e:
        raise UsageError(
            f"{name} {quote(text)} is not a regular expression: {e}", option=name
        ) from None
    if not text:
        raise UsageError(
            f"{name}: nothing to wait for", hint=f"{name} PORT, URL or REGEX", option=name
        )
    return Ready(text)


def parse_url(text: str, name: str) -> Ready:
    """Return what a URL says. Raises UsageError."""
    try:
        parts = urlsplit(text)
        port = parts.port or SCHEMES.get(parts.scheme)
    except ValueError as e:
        raise UsageError(f"{name} {quote(text)}: {e}", option=name) from None
    if parts.scheme not in SCHEMES or not parts.hostname or not port:
        raise UsageError(
            f"{name} {quote(text)} is not a URL that can be asked",
            hint="http://HOST:PORT/PATH, https://HOST/PATH or tcp://HOST:PORT",
            option=name,
        )
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Ready(text, parts.scheme, parts.hostname, port, path)
