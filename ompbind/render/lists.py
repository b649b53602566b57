"""Lists of cpus as people read them: with strides where that is shorter, broken after commas."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.measure import Measurement
from rich.segment import Segment

from ompbind.cpuset import CpuSet

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console, ConsoleOptions, RenderResult

MAX_STEPS = 8  # strides that are tried from each number


def short_list(cpus: CpuSet) -> str:
    """Return the shorter of the kernel's list and one with strides, `0-30:2`, as --exclude and the
    like read it."""
    plain = str(cpus)
    if plain.count(",") < 2:
        return plain
    strided = ",".join(make_strides(cpus))
    return strided if len(strided) < len(plain) else plain


def make_strides(cpus: CpuSet) -> list[str]:
    """Return the set as ranges, each the longest that begins at the lowest number left over."""
    left, parts = list(cpus), []
    while left:
        remaining = set(left)
        first, best, step = left[0], 1, 1
        for after in left[1 : 1 + MAX_STEPS]:
            length = 1
            while first + length * (after - first) in remaining:
                length += 1
            if length > best:
                best, step = length, after - first
        if best == 2 and step > 1:
            best = 1
        last = first + (best - 1) * step
        taken = set(range(first, last + 1, step))
        left = [n for n in left if n not in taken]
        tail = f":{step}" if step > 1 and best > 1 else ""
        parts.append(f"{first}-{last}{tail}" if best > 1 else str(first))
    return parts


class Pieces:
    """Words that stay whole, broken between any two where a line is full. Implements rich's console
    protocol."""

    def __init__(self, words: Sequence[str], style: str = "") -> None:
        self.words = words
        self.style = style

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        longest = max((len(word.rstrip()) for word in self.words), default=0)
        return Measurement(longest, max(longest, len("".join(self.words).rstrip())))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        style = console.get_style(self.style) if self.style else None
        for n, line in enumerate(break_words(self.words, options.max_width)):
            if n:
                yield Segment.line()
            yield Segment(line, style)
        yield Segment.line()


def break_words(words: Sequence[str], width: int) -> list[str]:
    """Return lines of at most `width` characters if the words allow."""
    lines = [""]
    for word in words:
        if lines[-1] and len(lines[-1]) + len(word.rstrip()) > width:
            lines.append("")
        lines[-1] += word
    return [line.rstrip() for line in lines]


def list_pieces(text: str, style: str = "") -> Pieces:
    """Return a text that is broken after commas and blanks."""
    words = [""]
    for c in text:
        words[-1] += c
        if c in ", ":
            words.append("")
    return Pieces([word for word in words if word], style)
