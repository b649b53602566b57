"""What was probably meant by a command that does not exist; only loaded for the error."""

from __future__ import annotations

import os

from ompbind.messages import quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

DASHES = "\u2010\u2011\u2012\u2013\u2014\u2212"  # what text processors make of -


def hint_for_missing(name: str, is_program: Callable[[str], bool]) -> str:
    """Return the hint for a command that was not found; "" where nothing explains it. `is_program`:
    whether a command would be."""
    first = " ".join(name.split(maxsplit=1)[:1])
    if first != name and is_program(first):
        return f"leave out the quotes around the whole command: {name}"
    if name[:1] in tuple(DASHES):
        return f"type - for {quote(name[0])}, which a text processor makes of it"
    if name.startswith("-"):
        return "options of ompbind stand before --, and the command begins after it"
    variable, equals, _ = name.partition("=")
    if equals and variable.isidentifier():
        return f"--env {first} sets a variable for the workers"
    if name and os.sep not in name and is_program(f"./{name}"):
        return f"write ./{name}: this directory is not in PATH"
    return ""
