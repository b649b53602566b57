"""Several commands in one launch: groups of ranks that share a machine, disjoint by construction.

A group is asked for as a launch of one command is, in a part of the command line or a table of a
file; planned on what the groups before it have left; and joined with the others to one plan.
"""

from __future__ import annotations

from ompbind.errors import UsageError
from ompbind.groups.line import find_colon, split_line
from ompbind.options.table import GROUP_OPTIONS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ompbind.groups.request import Groups
    from ompbind.options.values import Values

MARKS = (":::", ":")


def find_groups(values: Values, command: Sequence[str], name: str) -> Groups | None:
    """Return the groups that a command line asks for; None where it has one command. `name`: the
    command, run or show. Raises OmpbindError."""
    if "file" in values:
        from ompbind.groups.file import read_file

        if command:
            raise UsageError(
                "--file names the commands, and there is one after --",
                hint="leave the command out, or name all of them in one line, divided by :::",
            )
        return read_file(values, name)
    groups = split_line(values, command, name)
    if groups is None:
        if key := next((key for key in GROUP_OPTIONS if key in values), None):
            raise UsageError(
                f"--{key} is for one of several commands, and there is one",
                hint="-- COMMAND ::: [OPTIONS] -- COMMAND, or --file",
            )
        find_colon(command)
    return groups
