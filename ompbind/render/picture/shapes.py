"""What a picture is made of, in pixels from its upper left corner, and how wide words are. Pure."""

from __future__ import annotations

from ompbind.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeAlias

ELLIPSIS = "…"
# Widths of DejaVu Sans in thousandths of its size, by the characters that have them. It is the
# widest of the usual fonts: in another one words take less room.
WIDTHS = {
    275: "'",
    295: "ijlIJ",
    320: " ,.·",
    340: "/:;\\|",
    395: "-()[]ft",
    460: '!r"',
    530: "*_`sz?",
    580: "ckLF",
    615: "vxyPTYoae",
    636: "0123456789bdghnpqu$S{}Eµ",
    700: "ABCKRVXZ",
    787: "DGHNOQU&",
    840: "w#+<=>^~×→≥",
    1000: "mMW%@…",
}
WIDTH_OF = {c: width for width, characters in WIDTHS.items() for c in characters}
WIDEST = 1050  # of any other character
BOLD = 1.15  # how much wider bold words are


class Box(Record):
    """A rectangle. `look`: its class in the style sheet; `title`: shown under the pointer; `cpu`:
    the hardware thread that it stands for."""

    x: float
    y: float
    width: float
    height: float
    look: str
    title: str = ""
    radius: float = 0
    cpu: int | None = None


class Words(Record):
    """A line of text. `x`, `y`: of its baseline's start, middle or end, which `anchor` says."""

    x: float
    y: float
    text: str
    size: float
    look: str = "text"
    anchor: str = "start"

    @property
    def bold(self) -> bool:
        return "bold" in self.look.split()

    @property
    def width(self) -> float:
        return measure(self.text, self.size, bold=self.bold)

    @property
    def left(self) -> float:
        return self.x - {"start": 0, "middle": 0.5, "end": 1}[self.anchor] * self.width


class Lines(Record):
    """Straight lines through points; each of `paths` is drawn without lifting the pen."""

    paths: tuple[tuple[tuple[float, float], ...], ...]
    look: str


if TYPE_CHECKING:
    Shape: TypeAlias = Box | Words | Lines


class Picture(Record):
    """Shapes, the later ones above the earlier ones. `name`: what it shows, for those who cannot
    see it."""

    width: float
    height: float
    name: str
    shapes: tuple[Shape, ...]


def measure(text: str, size: float, *, bold: bool = False) -> float:
    """Return how wide a text is at most, in pixels."""
    width = sum(WIDTH_OF.get(c, WIDEST) for c in text) / 1000 * size
    return width * BOLD if bold else width


def shorten(text: str, size: float, room: float, *, bold: bool = False) -> str:
    """Return the text, its end replaced by an ellipsis where it is wider than the room; "" where
    not even that has room."""
    if measure(text, size, bold=bold) <= room:
        return text
    while text and measure(text + ELLIPSIS, size, bold=bold) > room:
        text = text[:-1]
    return text.rstrip() + ELLIPSIS if text else ""
