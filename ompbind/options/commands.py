"""All options, and those of each command; a launch is read with the table of launches alone."""

from __future__ import annotations

from ompbind.options.comparison import COMPARISON
from ompbind.options.reports import REPORTS
from ompbind.options.table import LAUNCH, Option

OPTIONS = (*LAUNCH, *REPORTS, *COMPARISON)


def options_of(command: str) -> tuple[Option, ...]:
    """Return the options that a command takes, in the order of its help."""
    return tuple(o for o in OPTIONS if command in o.commands)
