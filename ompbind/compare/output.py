"""What the ranks of a run have written, in the files of its directory."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ompbind.launch.trial import MESSAGES
from ompbind.messages import one_line

if TYPE_CHECKING:
    from ompbind.plans import Plan

LINES = 5  # of a failed run's output
MOST = 64 << 20  # bytes of a rank's output that are searched for a figure


def find_tail(plan: Plan, directory: str) -> tuple[str, ...]:
    """Return the last lines that a failed run wrote: ranks' errors, else their output, else what
    ompbind said."""
    ranks = [paths_of(directory, rank.number) for rank in plan.ranks]
    for paths in (
        [err for _, err in ranks],
        [out for out, _ in ranks],
        [os.path.join(directory, MESSAGES)],
    ):
        texts = (read_end(path, 4096) for path in paths)
        lines = [one_line(line) for text in texts for line in text.splitlines() if line.strip()]
        if lines:
            return tuple(line[:300] for line in lines[-LINES:])
    return ()


def paths_of(directory: str, rank: int) -> tuple[str, str]:
    """Return the files of a rank's standard output and error."""
    start = os.path.join(directory, f"rank-{rank}")
    return f"{start}.out", f"{start}.err"


def read_end(path: str, most: int) -> str:
    """Return the last `most` bytes of a file as text; "" where it does not exist."""
    try:
        with open(path, "rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - most))
            return file.read().decode("utf-8", "replace")
    except FileNotFoundError:
        return ""
