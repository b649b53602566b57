"""How ompbind speaks: quoting, plurals, sizes, the nearest word, and lines to its two outputs.

What is said goes to standard error, data to standard output. Every launch imports this module.
"""

from __future__ import annotations

import os
import sys

from ompbind.errors import OmpbindError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sized


# By what a line begins with; bright ones are readable on dark and light backgrounds.
COLOURS = {"error:": "1;31", "warning:": "1;33", "note:": "1", "hint:": "36"}
# What stands for characters of drawings and sentences that a locale lacks: as wide as they are.
SUBSTITUTES = {"×": "x", "·": ".", "…": "~", "–": "-", "—": "-", "─": "-", "→": ">", "←": "<",
               "≥": ">", "≤": "<", "±": "~", "∩": "&", "µ": "u", "┃": "|", "├": "|", "┤": "|",
               **dict.fromkeys("▏▎▍▌▋▊▉█▒", "#")}  # fmt: skip


def quote(text: str, most: int = 60) -> str:
    """Return `text` quoted for a message: on one line, unprintable characters escaped, cut after
    `most` characters."""
    return repr(cut(text, most))


def cut(text: str, most: int = 60) -> str:
    """Return `text` with no more than `most` characters."""
    return text if len(text) <= most else text[: most - 1] + "…"


def plural(noun: str, count: float) -> str:
    """Return `noun` as it is for one, else with its plural ending: `0 cores`, `2 processes`."""
    if count == 1:
        return noun
    return f"{noun}es" if noun.endswith(("s", "x", "ch", "sh")) else f"{noun}s"


def counted(count: int, noun: str) -> str:
    """Return a number and its noun: `1 core`, `2 cores`."""
    return f"{count} {plural(noun, count)}"


def label(noun: str, numbers: Sized) -> str:
    """Return a noun and the numbers of what it stands for: `cpu 3`, `cpus 0-3`."""
    return f"{plural(noun, len(numbers))} {numbers}"


def format_size(count: int) -> str:
    """Return a number of bytes in the largest unit that it fills: `512 KiB`, `1.2 GiB`."""
    size, units = count / 1024, ["KiB", "MiB", "GiB", "TiB"]
    while size >= 1024 and len(units) > 1:
        size /= 1024
        units.pop(0)
    digits = 0 if size >= 100 or units[0] == "KiB" else 1
    return f"{size:.{digits}f} {units[0]}"


def name_process(pid: int, name: str, user: str = "") -> str:
    """Return `pid 12 (python)`, or `pid 12 (python, ada)`, without what is not known."""
    known = ", ".join(one_line(text) for text in (name, user) if text)
    return f"pid {pid} ({known})" if known else f"pid {pid}"


def did_you_mean(word: str, among: Iterable[str]) -> str:
    """Return the hint that names the most similar of these words, "" where none is similar.

    Leading dashes and upper case do not count: they would make all options similar.
    """
    import difflib

    by_letters = {other.lstrip("-").lower(): other for other in among}
    plain = word.lstrip("-").lower()
    near = difflib.get_close_matches(plain, by_letters, 1, cutoff=0.75)
    near = near or [other for other in by_letters if sorted(other) == sorted(plain)]
    return f"did you mean {by_letters[near[0]]}?" if near else ""


def say(kind: str, text: str, hint: str = "") -> None:
    """Write a message to standard error."""
    write_line(make_message(kind, text, hint))  # at once: another rank may write to the same place


def make_message(kind: str, text: str, hint: str = "") -> str:
    """Return `ompbind: KIND: TEXT`, and the hint on a line below it, for standard error: with
    colours where that is a terminal. Each is one line, whatever is in the text."""
    error, tip = f"{kind}:", "hint:"
    if shows_colours(2):
        error, tip = (f"\x1b[{COLOURS[word]}m{word}\x1b[0m" for word in (error, tip))
    return f"ompbind: {error} {one_line(text)}" + f"\n{tip} {one_line(hint)}" * bool(hint)


def shows_colours(stream: int) -> bool:
    """Whether a stream is a terminal that shows colours, and nobody wants none; FORCE_COLOR wants
    them anywhere, NO_COLOR nowhere (https://no-color.org, https://force-color.org)."""
    environ = os.environ
    if environ.get("NO_COLOR"):
        return False
    if environ.get("FORCE_COLOR"):
        return True
    return environ.get("TERM", "dumb") != "dumb" and os.isatty(stream)


def write_line(line: str) -> None:
    """Write a line to standard error, if anybody is there."""
    try:
        if sys.stderr is not None:  # None: closed by whoever started us
            sys.stderr.write(f"{line}\n")
            sys.stderr.flush()
    except OSError:
        pass  # nobody reads it


def one_line(text: str) -> str:
    """Return `text` with line breaks, control characters and undecodable bytes escaped."""
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text
    )


def write_output(text: str) -> None:
    """Write data to standard output in the locale's encoding; arguments come out as they came in.

    Raises OmpbindError when it cannot be written, BrokenPipeError when nobody reads it any more.
    """
    write_bytes(encode(text, sys.getfilesystemencoding()))


def encode(text: str, encoding: str) -> bytes:
    """Return `text` in an encoding, with substitutes for characters that it lacks. Bytes that
    Python could not decode are as they were."""
    try:
        return text.encode(encoding, "surrogateescape")
    except UnicodeEncodeError:
        return b"".join(encode_one(c, encoding) for c in text)


def encode_one(character: str, encoding: str) -> bytes:
    try:
        return character.encode(encoding, "surrogateescape")
    except UnicodeEncodeError:
        return SUBSTITUTES.get(character, "?").encode(encoding)


def write_bytes(data: bytes) -> None:
    """Write data to standard output. Raises as write_output does."""
    try:
        while data:
            data = data[os.write(1, data) :]
    except BrokenPipeError:
        raise
    except OSError as e:
        raise OmpbindError(f"standard output cannot be written: {e.strerror}") from None
