"""Host names in the notation of Slurm, Flux and pdsh: `n[001-010,17]`, both ways.

The order of a list is kept: ranks are numbered by it. Source: srun(1) --nodelist and scontrol(1)
show hostnames.
"""

from __future__ import annotations

from ompbind.errors import ParseError
from ompbind.messages import quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    Ranges = list[tuple[int, int, int]]  # of a pair of brackets: first, last, width of the digits

# More hosts than any machine has, so that a mistyped range does not fill the memory.
LIMIT = 1 << 17
LONGEST_NAME = 253  # of a name in DNS
MOST_DIGITS = 18
EXAMPLE = "write names and ranges, as in n[001-010,17],login1"


def parse_hostlist(text: str) -> tuple[str, ...]:
    """Return the hosts of a list in its order, with repetitions.

    `n[08-10]` is n08, n09, n10; `r[1-2]n[1-2]` is r1n1, r1n2, r2n1, r2n2. Raises ParseError, also
    for an empty text and for more than LIMIT hosts.
    """
    hosts: list[str] = []
    for part in _split(text):
        pieces = _parse_part(part, text)
        count = 1
        for ranges in pieces:
            count *= sum(last - first + 1 for first, last, _ in ranges)
        if len(hosts) + count > LIMIT:
            raise ParseError(
                f"{quote(part)} names too many hosts: a list has at most {LIMIT}", text=text
            )
        hosts += _expand(part, pieces)
    return tuple(hosts)


def first_host(text: str) -> str:
    """Return the first host of a list without expanding it. Raises ParseError."""
    part = next(iter(_split(text)))
    return next(_expand(part, _parse_part(part, text)))


def format_hostlist(hosts: Iterable[str]) -> str:
    """Return hosts in the notation that parse_hostlist() reads, in their order.

    Neighbours that differ in their last number only share a pair of brackets.
    """
    parts: list[str] = []
    ranges: list[tuple[str, int, int]] = []  # digits of the first number, its value, the last value
    around = ("", "")

    def close() -> None:
        if not ranges:
            return
        words = [
            digits if first == last else f"{digits}-{str(last).zfill(len(digits))}"
            for digits, first, last in ranges
        ]
        single = len(words) == 1 and ranges[0][1] == ranges[0][2]
        inner = words[0] if single else f"[{','.join(words)}]"
        parts.append(f"{around[0]}{inner}{around[1]}")
        ranges.clear()

    for host in hosts:
        prefix, digits, suffix = _last_number(host)
        if not digits:
            close()
            parts.append(host)
            continue
        number = int(digits)
        if around != (prefix, suffix):
            close()
            around = (prefix, suffix)
        if ranges and digits == str(ranges[-1][2] + 1).zfill(len(ranges[-1][0])):
            ranges[-1] = (*ranges[-1][:2], number)
        else:
            ranges.append((digits, number, number))
    close()
    return ",".join(parts)


def _split(text: str) -> Iterator[str]:
    """Yield what stands between the commas that are outside brackets."""
    start = depth = 0
    for n, c in enumerate(text):
        if c == "[":
            depth += 1
        elif c == "]":
            depth -= 1
        elif c == "," and depth == 0:
            yield text[start:n].strip()
            start = n + 1
        if depth not in (0, 1):
            raise ParseError(f"{quote(text)}: the brackets do not match", hint=EXAMPLE, text=text)
    if depth:
        raise ParseError(f"{quote(text)}: a bracket is not closed", hint=EXAMPLE, text=text)
    yield text[start:].strip()


def _parse_part(part: str, text: str) -> list[Ranges]:
    """Return the ranges of each pair of brackets in `part`. Raises ParseError."""
    if not part:
        problem = f"an empty name in {quote(text)}" if text.strip() else "an empty list of hosts"
        raise ParseError(problem, hint=EXAMPLE, text=text)
    pieces: list[Ranges] = []
    literal, bracket, rest = part.partition("[")  # literal: the name, 0 for each pair of brackets
    while bracket:
        inner, _, rest = rest.partition("]")
        pieces.append([_parse_numbers(word, part) for word in inner.split(",")])
        head, bracket, rest = rest.partition("[")
        literal += f"0{head}"
    bad = next((c for c in literal if not (c.isascii() and (c.isalnum() or c in "._-"))), "")
    if bad:
        problem = f"{quote(part)} is not the name of a host: it contains {quote(bad)}"
        raise ParseError(problem, hint=EXAMPLE, text=text)
    if not (literal[0].isalnum() or literal[0] == "_"):
        problem = f"{quote(part)} is not the name of a host: it begins with {quote(literal[0])}"
        raise ParseError(problem, hint=EXAMPLE, text=text)
    if len(literal) + MOST_DIGITS * len(pieces) > LONGEST_NAME:
        raise ParseError(f"{quote(part)} is too long for the name of a host", text=text)
    return pieces


def _parse_numbers(word: str, part: str) -> tuple[int, int, int]:
    """Return first and last number of `7` or `001-010`, and the width to which they are padded."""
    low, dash, high = word.partition("-")
    for digits in (low, high) if dash else (low,):
        if not (digits.isascii() and digits.isdigit() and len(digits) <= MOST_DIGITS):
            shown = quote(word) if word else "an empty range"
            problem = f"{shown} in {quote(part)} is not a number or a range of numbers"
            raise ParseError(problem, hint=EXAMPLE, text=part)
    first, last = int(low), int(high if dash else low)
    if first > last:
        problem = f"{quote(word)} in {quote(part)} is a descending range"
        raise ParseError(problem, hint=f"write {high}-{low}", text=part)
    if dash and high[0] == "0" and len(high) != len(low):
        problem = f"{quote(word)} in {quote(part)}: the ends are padded differently"
        hint = f"write {low.zfill(len(high))}-{high}"
        raise ParseError(problem, hint=hint, text=part)
    return first, last, len(low)


def _expand(part: str, pieces: list[Ranges]) -> Iterator[str]:
    """Yield the names that `part` stands for; the last pair of brackets varies fastest."""
    if not pieces:
        yield part
        return
    head, _, rest = part.partition("[")
    tail = rest.partition("]")[2]
    for first, last, width in pieces[0]:
        for number in range(first, last + 1):
            start = head + str(number).zfill(width)
            for ending in _expand(tail, pieces[1:]):
                yield start + ending


def _last_number(host: str) -> tuple[str, str, str]:
    """Return what stands before the last number of a name, the number's digits, and the rest."""
    end = len(host)
    while end and host[end - 1] not in "0123456789":
        end -= 1
    start = end
    while start and end - start < MOST_DIGITS and host[start - 1] in "0123456789":
        start -= 1
    return host[:start], host[start:end], host[end:]
