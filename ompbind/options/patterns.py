"""Patterns for the names of threads, as --role takes them; only loaded where there are any."""

from __future__ import annotations

import os

from ompbind.errors import UsageError
from ompbind.messages import quote

NAME_BYTES = 15  # of the name of a thread; the kernel cuts longer ones


def parse_patterns(text: str, name: str) -> tuple[str, ...]:
    """Return the patterns of `pt_data*,nccl*`. `name`: what they were given for, for messages.
    Raises UsageError."""
    patterns = tuple(dict.fromkeys(part.strip() for part in text.split(",")))
    for pattern in patterns:
        if not pattern or not pattern.isprintable():
            raise UsageError(
                f"{name}: {quote(text)} is not a list of names of threads",
                hint="write patterns as in io=2:pt_data*,nccl*; cat /proc/PID/task/*/comm shows "
                "the names",
                text=text,
            )
        fixed = pattern.partition("[")[0].replace("*", "").replace("?", "x")
        if len(os.fsencode(fixed)) > NAME_BYTES:
            raise UsageError(
                f"{name}: no thread is called {quote(pattern)}",
                hint=f"names have {NAME_BYTES} bytes at most, what is longer the kernel cuts: "
                f"{fixed[:NAME_BYTES]}",
                text=text,
            )
    return patterns
