"""What other people have named, made fit for a terminal: names of processes, threads, hosts and
devices, the texts of saved plans and snapshots, variables."""

from __future__ import annotations

from ompbind.messages import one_line
from ompbind.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeVar

    T = TypeVar("T")

# Characters that a shell reads as they are.
PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_@%+=:,./-")
SHORT = {"\n": r"\n", "\t": r"\t", "\\": r"\\", "'": r"\'"}


def escape(value: T) -> T:
    """Return the value with the control characters escaped in every text in it, however deep in
    records, tuples and lists. All that is drawn of a record goes through this first."""
    changed: object = value
    if isinstance(value, str):
        changed = one_line(value)
    elif isinstance(value, (tuple, list)):
        changed = type(value)(escape(item) for item in value)
    elif isinstance(value, Record):
        fields = vars(value)
        texts = {
            name: escape(field)
            for name, field in fields.items()
            if isinstance(field, (str, tuple, list, Record))  # most are numbers
        }
        different = {name: text for name, text in texts.items() if text != fields[name]}
        changed = value.replace(**different) if different else value
    return changed  # type: ignore[return-value]


def quote_word(text: str) -> str:
    """Return a word as a shell takes it, without control characters: `$'a\\nb'` where there are any
    (POSIX.1-2024; bash, zsh, ksh)."""
    if text and PLAIN.issuperset(text):
        return text
    if text.isprintable():
        quoted = text.replace("'", "'\"'\"'")
        return f"'{quoted}'"
    parts = []
    for c in text:
        if c in SHORT:
            parts.append(SHORT[c])
        elif c.isprintable():
            parts.append(c)
        else:
            data = c.encode("utf-8", "surrogateescape")
            parts.append("".join(f"\\{byte:03o}" for byte in data))
    return f"$'{''.join(parts)}'"
