"""Whether a server is ready now, by one of the conditions that groups have as well: a port that
takes connections, a page, or what it writes."""

from __future__ import annotations

import re
import socket
from typing import TYPE_CHECKING

from ompbind.errors import ParseError, UsageError
from ompbind.launch.ready import Condition, parse_condition
from ompbind.messages import quote

if TYPE_CHECKING:
    from collections.abc import Sequence

PATIENCE = 2.0  # seconds for one attempt: a server that is busy with loading may not answer
HINT = "a port as 8000, HOST:PORT, http://HOST:PORT/PATH, or a regular expression"


def parse_ready(text: str) -> Condition:
    """Return the condition in a value of --ready; what is no other one is a pattern of a line.
    Raises UsageError."""
    try:
        condition = parse_condition(text)
    except ParseError as e:
        if not text or text.isdigit() or "://" in text or text.startswith("line:"):
            raise UsageError(f"--ready: {e.message}", hint=HINT, option="--ready") from None
        condition = parse_line(text)
    if condition.kind == "exit":
        raise UsageError("--ready exit: a server that has exited cannot be loaded", hint=HINT)
    return condition


def parse_line(text: str) -> Condition:
    """Return the condition that a line matches this pattern. Raises UsageError."""
    try:
        re.compile(text)
    except re.error as e:
        raise UsageError(
            f"--ready: {quote(text)} is not a regular expression: {e}", hint=HINT, option="--ready"
        ) from None
    return Condition("line", text, pattern=text)


def describe(condition: Condition) -> str:
    """Return what a condition is called in messages."""
    if condition.kind == "line":
        return f"a line that matches {quote(condition.pattern)}"
    return f"port {condition.text}" if condition.text.isdigit() else condition.text


def find_problem(condition: Condition, outputs: Sequence[str]) -> str:
    """Return why a server is not ready yet, "" if it is. `outputs`: what each rank has written so
    far."""
    if condition.kind == "line":
        pattern = re.compile(condition.pattern, re.MULTILINE)
        missing = [n for n, text in enumerate(outputs) if not pattern.search(text)]
        return f"rank {missing[0]} has not written it" if missing else ""
    try:
        if condition.kind == "port":
            socket.create_connection((condition.host, condition.port), PATIENCE).close()
            return ""
        status = ask(condition)
    except OSError as e:
        return "no answer" if isinstance(e, TimeoutError) else e.strerror or str(e)
    return "" if 200 <= status < 400 else f"status {status}"


def ask(condition: Condition) -> int:
    """Return the status with which a page answers. Raises OSError."""
    from http.client import HTTPConnection, HTTPException

    connection = HTTPConnection(condition.host, condition.port, timeout=PATIENCE)
    try:
        connection.request("GET", condition.path)
        return connection.getresponse().status
    except HTTPException as e:  # what answers does not speak HTTP
        raise OSError(f"{type(e).__name__} {e}".strip()) from None
    finally:
        connection.close()
