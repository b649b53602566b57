"""What a started process tells the one that started it, through a pipe that its exec closes.

A line "begun" when it runs; then a line for each warning; then one for its end, unless it has
become another program.
"""

from __future__ import annotations

import os

from ompbind import errors
from ompbind.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Act = Callable[[Sequence[str], Callable[[str], None]], int]

BEGUN = "begun"


class Told(Record):
    """What a started process has said: whether it ran at all, warnings, the error or the status
    with which it ended; neither, if it became another program."""

    begun: bool
    warnings: tuple[str, ...] = ()
    error: errors.OmpbindError | None = None
    status: int | None = None


def attend(words: Sequence[str], act: Act) -> int:
    """In the started process: acts on all but its first two words, tells what goes wrong, and
    returns the exit status. The first word is the pipe's descriptor, the second LC_CTYPE as the
    worker is to have it: Python sets one of its own where the locale is C."""
    fd, ctype, *rest = int(words[0]), *words[1:]
    os.set_inheritable(fd, False)
    if ctype:
        os.environ["LC_CTYPE"] = ctype.removeprefix("=")
    else:
        os.environ.pop("LC_CTYPE", None)
    tell(fd, BEGUN)
    try:
        status = act(rest, lambda text: tell_more(fd, {"warning": text}))
        told: dict[str, object] = {}
    except errors.OmpbindError as e:
        kind, status = type(e).__name__, e.status
        told = {"kind": kind, "message": e.message, "hint": e.hint, "data": e.data}
    except KeyboardInterrupt:
        status, told = 130, {}
    except BaseException as e:
        status = 125
        told = {"kind": "OmpbindError", "message": f"the process could not be started: {e!r}"}
    tell_more(fd, told | {"status": status})
    return status


def tell_more(fd: int, what: object) -> None:
    import json

    tell(fd, json.dumps(what, default=str))


def tell(fd: int, line: str) -> None:
    data = f"{line}\n".encode()
    while data:
        data = data[os.write(fd, data) :]


def parse_told(text: str) -> Told:
    """What a process wrote by the time the pipe was closed."""
    first, *lines = text.splitlines() or [""]
    if not lines:
        return Told(first == BEGUN)
    import json

    all_told = [json.loads(line) for line in lines]
    warnings = tuple(t["warning"] for t in all_told if "warning" in t)
    last = all_told[-1]
    error = make_error(**last) if "kind" in last else None
    return Told(True, warnings, error, last.get("status"))


def make_error(
    kind: str, message: str, status: int, hint: str = "", data: dict[str, object] | None = None
) -> errors.OmpbindError:
    """The error that was raised there."""
    if kind == "CommandError":
        return errors.CommandError(message, found=status == 126, hint=hint, **data or {})
    error: errors.OmpbindError = getattr(errors, kind)(message, hint=hint, **data or {})
    return error
