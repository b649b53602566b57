"""Sets of cpu or node numbers, and their notations: the kernel's list and mask, a user's list."""

from __future__ import annotations

from ompbind.errors import ParseError
from ompbind.messages import plural, quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

# Far above Linux's 8,192 cpus and 1,024 nodes, yet a hostile number takes 8 KiB at most.
LIMIT = 1 << 16


class CpuSet:
    """A frozen set of numbers from 0 to LIMIT - 1, iterated in ascending order."""

    __slots__ = ("_mask",)
    _mask: int

    def __init__(self, numbers: Iterable[int] = ()) -> None:
        mask = 0
        for n in numbers:
            if not 0 <= n < LIMIT:
                raise ParseError(f"{n} is not a number from 0 to {LIMIT - 1}", text=str(n))
            mask |= 1 << n
        object.__setattr__(self, "_mask", mask)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError("CpuSet is frozen")

    def __reduce__(self) -> tuple[object, ...]:
        return CpuSet.from_mask, (self._mask,)

    @classmethod
    def from_mask(cls, mask: int) -> CpuSet:
        """Return the set of the bits that are 1 in `mask`. Raises ParseError."""
        if mask < 0 or mask.bit_length() > LIMIT:
            raise ParseError(f"a mask has bits from 0 to {LIMIT - 1} only", text="")
        self = cls.__new__(cls)
        object.__setattr__(self, "_mask", mask)
        return self

    @classmethod
    def parse_kernel(cls, text: str) -> CpuSet:
        """Parse the kernel's list format, `0-3,8`; blank text is the empty set.

        Raises ParseError for anything else. Source: the kernel's bitmap_print_to_pagebuf().
        """
        text = text.strip(" \t\r\n\0")
        return cls._parse(text, text.split(",")) if text else cls()

    @classmethod
    def parse_user(cls, text: str) -> CpuSet:
        """Parse what a user typed: `0-3,8`, blanks around commas, `0-6:2` for every second number.

        Raises ParseError, also for an empty text.
        """
        if not text.strip():
            raise ParseError(
                "an empty list", hint="write numbers and ranges, as in 0-3,8", text=text, part=text
            )
        return cls._parse(text, [part.strip() for part in text.split(",")])

    @classmethod
    def _parse(cls, text: str, parts: list[str]) -> CpuSet:
        mask = 0
        for part in parts:
            first, last, step = parse_range(part, text)
            if step == 1:
                mask |= ((1 << (last - first + 1)) - 1) << first
            else:
                for n in range(first, last + 1, step):
                    mask |= 1 << n
        return cls.from_mask(mask)

    @classmethod
    def parse_mask(cls, text: str) -> CpuSet:
        """Parse the kernel's mask format, hexadecimal words of 32 bits: `ff,00000001`.

        Blank text is the empty set. Raises ParseError. Source: bitmap_print_to_pagebuf().
        """
        text = text.strip(" \t\r\n\0")
        commas = text.count(",")
        if (
            text[-9::-9] == "," * commas
        ):  # as the kernel writes it: only the first word may be short
            digits, first = text.replace(",", ""), len(text) - 9 * commas
        else:
            words = text.split(",")
            digits, first = "".join(w.zfill(8) for w in words), min(map(len, words))
        # All digits at once: one by one, wide masks would take most of a launch. int() alone would
        # accept a sign, blanks, "_", "0x" and other scripts' digits.
        plain = digits.isascii() and digits.isalnum() and digits[1:2] not in ("x", "X")
        if text and not (plain and first > 0 and len(digits) <= 8 * (commas + 1)):
            raise ParseError(f"{quote(text)} is not a mask", text=text)
        try:
            mask = int(digits or "0", 16)
        except ValueError:
            raise ParseError(f"{quote(text)} is not a mask", text=text) from None
        return cls.from_mask(mask)

    @property
    def mask(self) -> int:
        return self._mask

    @property
    def first(self) -> int:
        """Return the lowest number. Raises IndexError for the empty set."""
        if not self._mask:
            raise IndexError("the empty set has no first number")
        return (self._mask & -self._mask).bit_length() - 1

    def __iter__(self) -> Iterator[int]:
        mask = self._mask
        # From the first word that has any: most sets are a few neighbours among thousands.
        offset = ((mask & -mask).bit_length() - 1) & -64 if mask else 0
        mask >>= offset
        while mask:  # word by word: to shift the whole number each time would be quadratic
            word = mask & 0xFFFFFFFFFFFFFFFF
            while word:
                low = word & -word
                yield offset + low.bit_length() - 1
                word ^= low
            mask >>= 64
            offset += 64

    def __len__(self) -> int:
        return self._mask.bit_count()

    def __bool__(self) -> bool:
        return self._mask != 0

    def __contains__(self, number: object) -> bool:
        return isinstance(number, int) and number >= 0 and self._mask >> number & 1 == 1

    def __or__(self, other: CpuSet) -> CpuSet:
        return CpuSet.from_mask(self._mask | other._mask)

    def __and__(self, other: CpuSet) -> CpuSet:
        return CpuSet.from_mask(self._mask & other._mask)

    def __sub__(self, other: CpuSet) -> CpuSet:
        return CpuSet.from_mask(self._mask & ~other._mask)

    def __le__(self, other: CpuSet) -> bool:
        return self._mask & ~other._mask == 0

    def __eq__(self, other: object) -> bool:
        return isinstance(other, CpuSet) and other._mask == self._mask

    def __hash__(self) -> int:
        return hash(self._mask)

    def runs(self) -> list[tuple[int, int]]:
        """Return the runs of adjacent numbers, ascending: the first of each and how many."""
        runs: list[tuple[int, int]] = []
        mask = self._mask
        # From the first word that has any: most sets are a few neighbours among thousands.
        offset = ((mask & -mask).bit_length() - 1) & -64 if mask else 0
        mask >>= offset
        while mask:
            skip = (mask & -mask).bit_length() - 1
            mask >>= skip
            count = (~mask & mask + 1).bit_length() - 1  # the number of adjacent ones
            mask >>= count
            runs.append((offset + skip, count))
            offset += skip + count
        return runs

    def __str__(self) -> str:
        """Return the kernel's list format: sorted, ranges joined; "" for the empty set."""
        runs = self.runs()
        return ",".join(str(n) if k == 1 else f"{n}-{n + k - 1}" for n, k in runs)

    def __repr__(self) -> str:
        return f"CpuSet({str(self)!r})"


def union(sets: Iterable[CpuSet]) -> CpuSet:
    mask = 0
    for s in sets:
        mask |= s.mask
    return CpuSet.from_mask(mask)


def label_numbers(noun: str, numbers: Collection[int]) -> str:
    """Return a noun and numbers of any size, as a job's ranks are: `rank 3`, `ranks 0-3,70000`."""
    parts: list[list[int]] = []
    for n in sorted(numbers):
        if parts and n == parts[-1][1] + 1:
            parts[-1][1] = n
        else:
            parts.append([n, n])
    text = ",".join(str(a) if a == b else f"{a}-{b}" for a, b in parts)
    return f"{plural(noun, len(numbers))} {text}"


def parse_range(part: str, text: str = "") -> tuple[int, int, int]:
    """Return first, last and step of `7`, `0-3` or `0-6:2`, a part of the list `text`.

    Raises ParseError.
    """
    text = text or part
    span, colon, stride = part.partition(":")
    low, dash, high = span.partition("-")
    context = "" if text == part else f" in {quote(text)}"
    for digits in (low, high) if dash else (low,):
        _check_digits(digits, part, text, context)
    first, last, step = int(low), int(high if dash else low), 1
    if colon:
        _check_digits(stride, part, text, context)
        step = int(stride)
        if not dash or step < 1:
            raise ParseError(
                f"{quote(part)}{context} is not a range with a step",
                hint="a step is at least 1 and follows a range, as in 0-6:2",
                text=text,
                part=part,
            )
    if first > last:
        raise ParseError(
            f"{quote(part)}{context} is a descending range",
            hint=f"write {last}-{first}",
            text=text,
            part=part,
        )
    return first, last, step


def _check_digits(digits: str, part: str, text: str, context: str) -> None:
    hint = "write numbers and ranges, as in 0-3,8"
    if not digits or not digits.isascii() or not digits.isdigit():
        subject = "an empty part" if not part else quote(part)
        problem = f"{subject}{context} is not a number or a range"
        raise ParseError(problem, hint=hint, text=text, part=part)
    if len(digits.lstrip("0")) > 5 or int(digits) >= LIMIT:
        problem = f"{quote(part)}{context} is too large: the highest number is {LIMIT - 1}"
        raise ParseError(problem, hint=hint, text=text, part=part)


def parse_whole(text: str) -> int | None:
    """Parse a number as the kernel writes it, of up to 18 digits; None for anything else."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 18 else None
