"""Pipes of the launcher's own, out of the ranks' way."""

from __future__ import annotations

import os


def make_pipe() -> tuple[int, int]:
    """Its ends for reading and writing, closed by exec; never 0, 1 or 2, which whoever started us
    may have left closed, and the ranks are to find so."""
    low: list[int] = []
    ends = [out_of_the_way(fd, low) for fd in os.pipe()]
    for fd in low:
        os.close(fd)
    return ends[0], ends[1]


def out_of_the_way(fd: int, low: list[int]) -> int:
    """`fd` or a copy of it above 2; those that are not go to `low`."""
    while fd < 3:
        low.append(fd)
        fd = os.dup(fd)
    return fd


def move_up(fd: int) -> int:
    """The same file under a descriptor above 2; `fd` itself is closed if it is not."""
    low: list[int] = []
    moved = out_of_the_way(fd, low)
    for number in low:
        os.close(number)
    return moved


def read_all(fd: int) -> bytes:
    """Reads to the end and closes."""
    data = b""
    while more := os.read(fd, 65536):
        data += more
    os.close(fd)
    return data
