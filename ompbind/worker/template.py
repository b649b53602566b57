"""Templates: texts in which {…} is replaced by a rank's values and whole-number arithmetic on them,
as in --port={8000+rank}. Literal braces are doubled. Pure."""

from __future__ import annotations

from ompbind.cpuset import parse_whole
from ompbind.errors import ParseError
from ompbind.messages import quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ompbind.cpuset import CpuSet
    from ompbind.plans import Numbers

    Value = int | str  # texts cannot be computed with

MAX_RESULT = 2**63 - 1
MAX_DEPTH = 50  # of nested parentheses and signs
BRACES = "write literal braces as {{ and }}"
OPERATORS = ("//", "+", "-", "*", "%", "(", ")")


def make_names(numbers: Numbers, cpus: CpuSet, nodes: CpuSet, group: str = "") -> dict[str, Value]:
    """Return the names that a rank's template can use. `group`: that it is in, "" for none."""
    names: dict[str, Value] = {"rank": numbers.rank, "ranks": numbers.size}
    names["local_rank"] = numbers.local_rank
    if group:
        names["group"] = group
    return names | {"cpus": str(cpus), "nodes": str(nodes)}


def fill_arguments(words: Sequence[str], names: Mapping[str, Value]) -> tuple[str, ...]:
    """Fill in the templates in a command's arguments. Raises ParseError, naming the argument."""
    filled = []
    for number, word in enumerate(words):
        try:
            filled.append(fill(word, names))
        except ParseError as e:
            name = f"argument {number}" if number else "the command"
            problem = f"--template: {name}, {quote(word)}: {e.message}"
            raise ParseError(problem, hint=e.hint, **e.data) from None
    return tuple(filled)


def fill(text: str, names: Mapping[str, Value]) -> str:
    """Return the text with every {…} replaced, {{ and }} by single braces. Raises ParseError."""
    if "{" not in text and "}" not in text:
        return text
    done = []
    at = 0
    while at < len(text):
        if text[at : at + 2] in ("{{", "}}"):
            done.append(text[at])
            at += 2
        elif text[at] == "}":
            raise ParseError("unmatched }", hint=BRACES, text=text, part="}")
        elif text[at] == "{":
            end = text.find("}", at)
            if end < 0:
                raise ParseError("unclosed {", hint=BRACES, text=text, part=text[at:])
            done.append(str(Expression(text[at + 1 : end], names).evaluate()))
            at = end + 1
        else:
            ends = [i for i in (text.find("{", at), text.find("}", at)) if i >= 0]
            done.append(text[at : min(ends, default=len(text))])
            at = min(ends, default=len(text))
    return "".join(done)


class Expression:
    """The text between two braces: + - * // % and parentheses as in Python, with results of at most
    63 bits and a sign."""

    def __init__(self, text: str, names: Mapping[str, Value]) -> None:
        self.text = text
        self.names = names
        self.words = self.split(text)
        self.rest = self.words[::-1]  # those not read yet, the next one last
        self.depth = 0

    def evaluate(self) -> Value:
        """Raises ParseError."""
        if len(self.rest) == 1 and isinstance(value := self.names.get(self.rest[0]), str):
            return value
        number = self.sum()
        if self.rest:
            before = self.words[-len(self.rest) - 1]
            raise self.problem(f"unexpected {quote(self.rest[-1])} after {quote(before)}")
        return number

    def split(self, text: str) -> list[str]:
        """Return the words: numbers, names and signs."""
        words = []
        at = 0
        while at < len(text):
            end = at + 1
            if text[at] in " \t":
                pass
            elif is_wordy(text[at]):
                while end < len(text) and is_wordy(text[end]):
                    end += 1
                words.append(text[at:end])
            else:
                sign = next((s for s in OPERATORS if text.startswith(s, at)), None)
                if sign is None:
                    raise self.problem(f"unexpected {quote(text[at])}")
                end = at + len(sign)
                words.append(sign)
            at = end
        return words

    def sum(self) -> int:
        number = self.product()
        while self.rest and self.rest[-1] in ("+", "-"):
            number = self.compute(self.rest.pop(), number, self.product())
        return number

    def product(self) -> int:
        number = self.factor()
        while self.rest and self.rest[-1] in ("*", "//", "%"):
            number = self.compute(self.rest.pop(), number, self.factor())
        return number

    def factor(self) -> int:
        if not self.rest:
            raise self.problem("incomplete expression" if self.text else "empty expression")
        word = self.rest.pop()
        if word in ("+", "-", "("):
            self.depth += 1
            if self.depth > MAX_DEPTH:
                raise self.problem("too many nested parentheses or signs")
            number = self.sum() if word == "(" else self.factor()
            self.depth -= 1
            if word == "(" and (not self.rest or self.rest.pop() != ")"):
                raise self.problem("unclosed (")
            return -number if word == "-" else number
        if is_wordy(word[0]):
            return self.value(word)
        raise self.problem(f"unexpected {quote(word)}")

    def value(self, word: str) -> int:
        """Return the value of a number or a name."""
        if word[0] in "0123456789":
            if (number := parse_whole(word)) is None:
                raise self.problem(f"{quote(word)} is not a whole number of at most 18 digits")
            return number
        value = self.names.get(word)
        if isinstance(value, int):
            return value
        if value is not None:
            raise self.problem(f"{word} is a text, {quote(value)}, not a number")
        raise self.problem(f"unknown name {quote(word)}", f"{', '.join(self.names)}; {BRACES}")

    def compute(self, sign: str, a: int, b: int) -> int:
        if sign in ("//", "%") and b == 0:
            raise self.problem("division by zero", "")
        if sign == "+":
            number = a + b
        elif sign == "-":
            number = a - b
        elif sign == "*":
            number = a * b
        else:
            number = a // b if sign == "//" else a % b
        if not -MAX_RESULT <= number <= MAX_RESULT:
            raise self.problem(f"the result exceeds {MAX_RESULT}", "")
        return number

    def problem(self, problem: str, hint: str | None = None) -> ParseError:
        if hint is None:
            hint = f"use names, numbers, + - * // % and parentheses, as in {{8000+rank}}; {BRACES}"
        part = "{" + self.text + "}"
        return ParseError(f"{quote(part)}: {problem}", hint=hint, text=self.text, part=part)


def is_wordy(char: str) -> bool:
    """Whether a character can be part of a number or a name."""
    return char.isascii() and (char.isalnum() or char == "_")
