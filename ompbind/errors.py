"""What can go wrong, each with its data, a hint and the exit status of the contract."""

from __future__ import annotations


class OmpbindError(Exception):
    """The base: a message of one line, a hint (or ""), and the data it was made from.

    `status` is the exit status of the command line.
    """

    status = 125

    def __init__(self, message: str, *, hint: str = "", **data: object) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.data = data


class UsageError(OmpbindError):
    """The command line itself is off: an unknown option, a missing value, no command."""


class ParseError(OmpbindError, ValueError):
    """A text is not what it should be. data: text, part, problem."""


class TopologyError(OmpbindError):
    """A machine's description cannot be read, or says nothing to plan on."""


class PlanError(OmpbindError):
    """What was asked cannot be had on this machine. data: rank (where one is at fault), wanted,
    available."""


class DeniedError(OmpbindError):
    """The system refuses a binding. data: rank, part ("cpus" or "memory"), errno."""


class CommandError(OmpbindError):
    """The worker's command cannot be executed (126) or is not found (127)."""

    def __init__(self, message: str, *, found: bool, hint: str = "", **data: object) -> None:
        super().__init__(message, hint=hint, **data)
        self.status = 126 if found else 127
