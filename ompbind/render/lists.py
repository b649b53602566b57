"""Lists of cpus as people read them: with strides where that is shorter, broken after commas."""

from __future__ import annotations

from ompbind.cpuset import CpuSet
from ompbind.render.text import count_cells

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ompbind.render.text import Line, Overflow

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
    """Words that stay whole, broken between any two where a line is full."""

    def __init__(self, words: Sequence[str], style: str = "") -> None:
        self.words = words
        self.style = style

    def measure(self) -> int:
        return max(
            count_cells("".join(self.words).rstrip()),
            max((count_cells(word.rstrip()) for word in self.words), default=0),
        )

    def draw(self, width: int) -> list[Line]:
        return [[(line, self.style)] for line in break_words(self.words, width)]

    def draw_cell(
        self, width: int, *, right: bool, no_wrap: bool, overflow: Overflow
    ) -> list[Line]:
        return self.draw(width)


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
