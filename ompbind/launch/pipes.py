"""Pipes between ompbind's own processes, and the messages that go through them.

A message is a tuple of texts. Each text, and the message itself, is preceded by its length, so any
text comes through as it is. Messages of up to PIPE_BUF bytes are written at once: several processes
may then share a pipe.
"""

from __future__ import annotations

import os

from ompbind import errors

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

LONGEST = 3000  # characters of a text in an error: message and hint fit into any pipe


# --- descriptors ---------------------------------------------------------------------------------


def make_pipe() -> tuple[int, int]:
    """Return the ends for reading and for writing of a new pipe, which exec closes.

    They are never 0, 1 or 2: if ompbind was started with one of those closed, so are the ranks.
    """
    reader, writer = os.pipe()
    return move_up(reader), move_up(writer)


def move_up(fd: int) -> int:
    """Return a descriptor above 2 for the same file; `fd` is closed if it is a lower one."""
    low: list[int] = []
    while fd < 3:
        low.append(fd)
        fd = os.dup(fd)
    for number in low:
        os.close(number)
    return fd


def read_all(fd: int) -> bytes:
    """Read to the end, and close."""
    data = b""
    while more := os.read(fd, 65536):
        data += more
    os.close(fd)
    return data


# --- messages ------------------------------------------------------------------------------------


def send(fd: int, *texts: str) -> None:
    """Write a message. Raises OSError."""
    data = frame(b"".join(frame(text.encode("utf-8", "surrogatepass")) for text in texts))
    while data:
        data = data[os.write(fd, data) :]


def frame(data: bytes) -> bytes:
    return b"%d:%s" % (len(data), data)


def parse_messages(data: bytes) -> list[tuple[str, ...]]:
    """Return the messages in what was read; one that was not written to its end is left out."""
    return [
        tuple(text.decode("utf-8", "surrogatepass") for text in split_frames(message))
        for message in split_frames(data)
    ]


def split_frames(data: bytes) -> list[bytes]:
    frames = []
    while data:
        digits, colon, rest = data.partition(b":")
        if not colon or len(rest) < int(digits):
            break
        frames.append(rest[: int(digits)])
        data = rest[int(digits) :]
    return frames


def receive(fd: int) -> list[tuple[str, ...]]:
    """Return all messages that are written to a pipe until its end, and close it."""
    return parse_messages(read_all(fd))


def send_error(fd: int, error: errors.OmpbindError) -> None:
    """Write an error as a message: "error", its class, status, message and hint, then its data as
    pairs of name and value. Raises OSError."""
    pairs = [text for item in error.data.items() for text in (item[0], mark_type(item[1]))]
    texts = (type(error).__name__, str(error.status), error.message[:LONGEST], error.hint[:LONGEST])
    send(fd, "error", *texts, *pairs)


def parse_error(message: Sequence[str]) -> errors.OmpbindError:
    """Return the error of a message of `send_error`. A class that `errors` does not have becomes
    OmpbindError."""
    _, name, status, text, hint, *pairs = message
    data = dict(zip(pairs[::2], map(parse_marked, pairs[1::2]), strict=True))
    kind = getattr(errors, name, errors.OmpbindError)
    error: errors.OmpbindError = kind.__new__(kind)
    errors.OmpbindError.__init__(error, text, hint=hint, **data)  # a subclass takes more
    error.status = int(status)
    return error


def mark_type(value: object) -> str:
    """Return a text from which `parse_marked` makes None, a number, or the value as a text."""
    if value is None:
        return "none"
    if isinstance(value, int):
        return f"int {int(value)}"
    return f"str {str(value)[:LONGEST]}"


def parse_marked(text: str) -> object:
    kind, _, value = text.partition(" ")
    if kind == "none":
        return None
    return int(value) if kind == "int" else value
