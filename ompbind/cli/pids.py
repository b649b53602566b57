"""Command lines of pids and options, in any order: those of `verify` and `rebind`."""

from __future__ import annotations

from ompbind.cpuset import parse_whole
from ompbind.errors import UsageError
from ompbind.messages import quote
from ompbind.options import make_typed_values, parse_arguments
from ompbind.options.commands import options_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ompbind.options.values import Values


def parse_pids(args: Sequence[str], command: str) -> tuple[Values, list[int]]:
    """Return the values of a command's options, and the process numbers. Raises UsageError,
    ParseError, PlanError."""
    words: list[str] = []  # the options, without the pids
    pids = []
    options = options_of(command)
    rest = list(args)
    while rest:
        before = len(rest)
        _, after = parse_arguments(rest, options)
        taken = rest[: before - len(after)]
        words += [word for word in taken if word != "--"]
        if not after:
            break
        pid = parse_whole(after[0])
        if pid is None:
            raise UsageError(f"{quote(after[0])} is not a pid", hint=f"ompbind {command} PID...")
        pids.append(pid)
        rest = after[1:]
    texts, _ = parse_arguments(words, options)
    return make_typed_values(texts, options, args), pids
