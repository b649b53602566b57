"""Which colour is whose: the same in `show` and before ranks' lines."""

from __future__ import annotations

# Names and the terminal's numbers of colours that stay apart on dark and on light terminals; ranks
# beyond repeat them.
COLOURS = {"cyan": 36, "magenta": 35, "green": 32, "yellow": 33, "blue": 34, "red": 31}


def colour_of(rank: int) -> str:
    return tuple(COLOURS)[rank % len(COLOURS)]


def coloured(text: str, rank: int) -> str:
    """The text with the escape sequences of the rank's colour."""
    return f"\x1b[{COLOURS[colour_of(rank)]}m{text}\x1b[0m"
