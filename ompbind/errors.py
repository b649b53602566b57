"""Errors, each with its data, a hint and the exit status that the command line documents."""

from __future__ import annotations


class OmpbindError(Exception):
    """The base class: a message of one line, a hint (or ""), and the data they are made from.

    `status` is the exit status of the command line.
    """

    status = 125

    def __init__(self, message: str, *, hint: str = "", **data: object) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.data = data

    def reword(self, message: str) -> None:
        """Give the error another message."""
        self.message = message
        self.args = (message,)


class UsageError(OmpbindError):
    """The command line is wrong: an unknown option, a missing value, no command."""


class ParseError(OmpbindError, ValueError):
    """A text cannot be parsed. data: text, part, problem."""


class TopologyError(OmpbindError):
    """A machine's description cannot be read, or is not enough to plan on."""


class PlanError(OmpbindError):
    """The request cannot be met on this machine. data: rank (where there is one), wanted,
    available."""


class DeniedError(OmpbindError):
    """The system denies a binding. data: rank, part ("cpus", "memory" or "numactl")."""


class CommandError(OmpbindError):
    """The worker's command cannot be executed (126) or is not found (127)."""

    def __init__(self, message: str, *, found: bool, hint: str = "", **data: object) -> None:
        super().__init__(message, hint=hint, **data)
        self.status = 126 if found else 127


def system_error(error: OSError | MemoryError) -> OmpbindError:
    """Return what to say where there are no descriptors, no processes or no memory left."""
    too_many_files = isinstance(error, OSError) and error.errno in (23, 24)  # ENFILE, EMFILE
    hint = "raise the limit of open files with ulimit -n" if too_many_files else ""
    return OmpbindError(f"the system refused: {error or 'no memory is left'}", hint=hint)
