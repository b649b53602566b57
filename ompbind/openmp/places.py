"""Lists of places as the OpenMP standard writes them (5.2, 21.1.6): `{0,1},{2:2}`, `{0:4}:2:4`,
`{0}:8,!{3}`. Abstract names such as `cores` are not lists."""

from __future__ import annotations

from ompbind.cpuset import LIMIT, CpuSet, parse_whole
from ompbind.errors import ParseError
from ompbind.messages import quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    Item = Callable[[], int]

# More than Linux can have cpus.
MAX_PLACES = 1 << 13


def parse_places(text: str, *, overlapping: bool = False) -> tuple[CpuSet, ...]:
    """Return the places in their order. Raises ParseError, naming the part that is wrong.

    An exclusion takes away what stands before it, a number from its place or a whole place from the
    list, as in libgomp (for LLVM's runtime `!{1}` is the place of all the others). Unless
    `overlapping`, no cpu may be in two places: runtimes differ in what they make of that.
    """
    scanner = Scanner(text)
    places = scanner.list_of(scanner.place, last="")
    seen = 0
    for mask in places:
        if mask & seen and not overlapping:
            cpu = CpuSet.from_mask(mask & seen).first
            raise scanner.wrong(f"cpu {cpu} is in two places")
        seen |= mask
    return tuple(map(CpuSet.from_mask, places))


class Scanner:
    """Reads a list from the left. A place is a mask here."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0

    def wrong(self, problem: str) -> ParseError:
        return ParseError(
            f"{quote(self.text)}: {problem}",
            hint="a list of places is written as in {0,1},{2,3} or {0:2}:4:2",
            text=self.text,
            part=self.text[self.at : self.at + 20],
        )

    def expected(self, symbol: str) -> ParseError:
        rest = self.text[self.at :].strip()
        return self.wrong(
            f"{symbol} expected " + (f"at {quote(rest, 20)}" if rest else "at the end")
        )

    def skip_blanks(self) -> None:
        while self.at < len(self.text) and self.text[self.at] in " \t\n":
            self.at += 1

    def next_is(self, symbol: str) -> bool:
        """Return whether `symbol` comes next, and read it if so. "": the end."""
        self.skip_blanks()
        if not self.text.startswith(symbol or "\0", self.at):
            return not symbol and self.at == len(self.text)
        self.at += len(symbol)
        return True

    def number(self, *, signed: bool = False) -> int:
        minus = signed and self.next_is("-")
        self.skip_blanks()
        end = self.at
        while self.text[end : end + 1].isdigit():
            end += 1
        number = parse_whole(self.text[self.at : end])
        if number is None:
            raise self.expected("a number")
        if number >= LIMIT:
            raise self.wrong(f"{number} is too large: the highest number is {LIMIT - 1}")
        self.at = end
        return -number if minus else number

    def list_of(self, item: Item, last: str) -> list[int]:
        """Read items with commas between, up to `last`: `a`, `a:len`, `a:len:stride` or `!a`."""
        masks: list[int] = []
        while True:
            start = self.at
            if self.next_is("!"):
                mask = item()
                if mask not in masks:
                    part = self.text[start : self.at].strip()
                    raise self.wrong(f"{quote(part, 20)} excludes nothing before it")
                masks = [m for m in masks if m != mask]
            else:
                masks += self.repeat(item())
            if len(masks) > MAX_PLACES:
                raise self.wrong(f"more than {MAX_PLACES} places or cpus of a place")
            if self.next_is(last):
                break
            if not self.next_is(","):
                raise self.expected(f"a comma or {last or 'the end'}")
        if not masks:
            raise self.wrong("nothing is left")
        return masks

    def repeat(self, mask: int) -> list[int]:
        """Read a length and a stride, and return the interval that they make of a mask."""
        start = self.at
        length = self.number() if self.next_is(":") else 1
        if length < 1 or length > MAX_PLACES:
            raise self.wrong(f"a length of {length} is not from 1 to {MAX_PLACES}")
        stride = self.number(signed=True) if self.at > start and self.next_is(":") else 1
        last = (length - 1) * stride
        lowest = (mask & -mask).bit_length() - 1
        if lowest + min(last, 0) < 0 or mask.bit_length() + max(last, 0) > LIMIT:
            part = quote(self.text[start : self.at], 20)
            raise self.wrong(f"{part} leads to numbers that are not from 0 to {LIMIT - 1}")
        moves = [n * stride for n in range(length)]
        return [mask << move if move >= 0 else mask >> -move for move in moves]

    def place(self) -> int:
        """Read `{...}`, or a number alone."""
        if not self.next_is("{"):
            return self.cpu()
        place = 0
        for mask in self.list_of(self.cpu, last="}"):
            place |= mask
        return place

    def cpu(self) -> int:
        return 1 << self.number()
