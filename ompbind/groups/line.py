"""Groups in one line: `-n 4 -- ./worker ::: -n 1 -- ./router`."""

from __future__ import annotations

import os

from ompbind.errors import UsageError
from ompbind.groups.request import (
    Groups,
    check_alone,
    check_names,
    is_of_launch,
    make_member,
    read_defaults,
)
from ompbind.options import make_values, parse_arguments
from ompbind.options.commands import options_of
from ompbind.options.together import check_together
from ompbind.plans import is_group_name
from ompbind.worker import is_python

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ompbind.options.values import Values

MARK = ":::"  # GNU parallel has it, too: it divides groups only before options and a --
# Programs that take `a : -n 1 b` themselves.
LAUNCHERS = ("mpirun", "mpiexec", "orterun", "prterun", "prun", "aprun", "srun", "jsrun")


def split_line(values: Values, command: Sequence[str], name: str) -> Groups | None:
    """Return the groups of a line, of which the first one's options are read already; None where
    there is one command. Raises UsageError, ParseError, PlanError."""
    segments: list[list[str]] = [[]]
    for number, word in enumerate(command):
        if word == MARK and begins_group(command[number + 1 :]):
            segments.append([])
        else:
            segments[-1].append(word)
    if not segments[1:]:
        return None
    check_alone(values)
    options = options_of(name)
    rows = {o.key: o for o in options}
    launch = {key: value for key, value in values.items() if is_of_launch(rows[key])}
    first = {key: value for key, value in values.items() if key not in launch}
    parts = [(first, segments[0])]
    defaults = read_defaults(name, os.environ)
    for segment in segments[1:]:
        texts, words = parse_arguments(segment, options)
        for key in texts:
            if is_of_launch(rows[key]):
                option = rows[key].names[0]
                raise UsageError(
                    f"{option} is for the launch as a whole",
                    hint=f"put {option} before the first command",
                    option=option,
                )
        later = make_values(texts, options)
        check_alone(later)
        together = {k: v for k, v in defaults.items() if k not in later} | later
        check_together(together, options)
        parts.append((together, words))
    taken: set[str] = set()
    members = []
    for number, (given, words) in enumerate(parts):
        if not words:
            raise UsageError(f"group {number + 1} has no command", hint="::: [OPTIONS] -- COMMAND")
        title = given.get("group") or make_name(words, taken)
        taken.add(title)
        members.append(make_member(title, given, words))
    check_names(members)
    return Groups(launch, tuple(members))


def begins_group(words: Sequence[str]) -> bool:
    """Whether what follows a mark is a group: options, if any, `--` and a command."""
    rest = words[: words.index(MARK)] if MARK in words else words
    return words[:1] != [] and words[0].startswith("-") and "--" in rest


def make_name(command: Sequence[str], taken: set[str]) -> str:
    """Return a name for a group: that of its program, of Python's script; with a number where it
    is taken."""
    word = command[0]
    if is_python(word):
        word = next((w for w in command[1:] if not w.startswith("-")), word)
    stem = os.path.basename(word).partition(".")[0]
    stem = "".join(c if c.isascii() and (c.isalnum() or c in "-_") else "-" for c in stem)[:30]
    name = stem if is_group_name(stem) else "group"
    number = 2
    while name in taken:
        name = f"{stem if is_group_name(stem) else 'group'}-{number}"
        number += 1
    return name


def find_colon(command: Sequence[str]) -> None:
    """Refuse mpirun's way to write several commands, `a : -n 1 b`, where it is clearly meant: it
    would run `a` with the other words. Raises UsageError."""
    names = {name for option in options_of("run") for name in option.names} | {"-np"}
    program = os.path.basename(command[0]) if command else ""
    if program.partition(".")[0].partition("-")[0] in LAUNCHERS:
        return
    for word, following in zip(command, command[1:], strict=False):
        if word == ":" and following.partition("=")[0] in names:
            raise UsageError(
                f"': {following}' would be arguments of {program}: ompbind divides commands by :::",
                hint="-n 4 -- ./a ::: -n 1 -- ./b",
            )
