"""The colours of ranks, the same in `show` and in front of the lines that they write."""

from __future__ import annotations

# Names and terminal codes of colours that differ clearly on dark and light backgrounds. With more
# ranks they repeat.
COLOURS = {"cyan": 36, "magenta": 35, "green": 32, "yellow": 33, "blue": 34, "red": 31}


def colour_of(rank: int) -> str:
    return tuple(COLOURS)[rank % len(COLOURS)]


def coloured(text: str, rank: int) -> str:
    """Return the text in the rank's colour, by escape sequences."""
    return f"\x1b[{COLOURS[colour_of(rank)]}m{text}\x1b[0m"
