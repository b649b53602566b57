"""Files that are named on the command line: read whole, with `-` for standard input."""

from __future__ import annotations

import os

STANDARD_INPUT = "standard input"  # as messages call it
STEP = 1 << 18


def is_standard_input(path: str) -> bool:
    return path == "-"


def read_input(path: str, most: int) -> bytes:
    """Return the first `most` bytes of a file, or of standard input. Raises OSError.

    A FIFO without a writer does not block; one with a writer, as bash's <(...) makes it, is read to
    its end. Standard input can be read again: what comes from a pipe
    is kept in a file that takes its place. Either is left at its end, so that a worker reads none
    of it.
    """
    if is_standard_input(path):
        return read_standard_input(most)
    fd = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    with open(fd, "rb") as file:
        if hasattr(os, "O_NONBLOCK"):  # opening must not wait for a writer, reading must
            os.set_blocking(fd, True)
        return file.read(most)


def read_standard_input(most: int) -> bytes:
    """Return the first `most` bytes of standard input, from its beginning. Raises OSError."""
    try:
        os.lseek(0, 0, os.SEEK_SET)
    except OSError:  # a pipe or a terminal
        keep_standard_input(most)
        os.lseek(0, 0, os.SEEK_SET)
    parts: list[bytes] = []
    size = 0
    while size < most and (part := os.read(0, min(STEP, most - size))):
        parts.append(part)
        size += len(part)
    os.lseek(0, 0, os.SEEK_END)
    return b"".join(parts)


def keep_standard_input(most: int) -> None:
    """Put a file with the first `most` bytes of standard input in its place. Raises OSError."""
    import tempfile

    size = 0
    with tempfile.TemporaryFile(buffering=0) as file:
        while size < most and (part := os.read(0, STEP)):
            file.write(part)
            size += len(part)
        os.dup2(file.fileno(), 0)
