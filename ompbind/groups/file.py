"""Groups in a file: TOML whose keys are the names of options.

grace = 30                      # the launch's options; others are for every group without them

[groups.worker]
command = ["./worker", "--port", "{8000+rank}"]
ranks = 4
"""

from __future__ import annotations

import os
import shlex
import sys

from ompbind.errors import OmpbindError, UsageError
from ompbind.groups.request import (
    ALONE,
    GroupRequest,
    Groups,
    check_names,
    is_of_launch,
    make_member,
    options_of_groups,
    read_defaults,
)
from ompbind.inputs import read_input
from ompbind.messages import did_you_mean, quote
from ompbind.options.commands import options_of
from ompbind.options.keywords import make_value
from ompbind.options.table import Option
from ompbind.options.together import check_together
from ompbind.options.values import parse_group

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from ompbind.options.values import Values

MAX_BYTES = 1 << 24  # of a file; what is longer is none


def read_file(values: Values, name: str) -> Groups:
    """Return the groups of the file of --file; options of the command line override those of the
    launch in it. `name`: the command, run or show. Raises UsageError, PlanError."""
    path = values["file"]
    defaults = read_defaults(name, os.environ)
    values = {key: value for key, value in values.items() if key not in defaults}
    for key in values:
        row = next(o for o in options_of(name) if o.key == key)
        if not is_of_launch(row) or key in ALONE[:7]:
            raise UsageError(
                f"{row.names[0]} does not go with --file",
                hint="put it into the file, at the top for every group",
                option=row.names[0],
            )
    try:
        text = read_input(path, MAX_BYTES).decode("utf-8")
    except (OSError, UnicodeDecodeError) as e:
        reason = e.strerror if isinstance(e, OSError) else "not UTF-8 text"
        raise UsageError(f"--file {quote(path)}: {reason}") from None
    reader = GroupFile(path, text, name, defaults)
    groups = reader.read()
    launch = groups.values | {k: v for k, v in values.items() if k != "file"}
    check_together(launch, [o for o in options_of(name) if is_of_launch(o)])
    return groups.replace(values=launch)


def parse_toml(text: str, path: str) -> dict[str, Any]:
    """Return the tables of a TOML text. Raises UsageError."""
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        try:
            import tomli as tomllib
        except ModuleNotFoundError:
            raise UsageError(
                "--file: Python 3.10 cannot read TOML without the package tomli",
                hint="pip install 'ompbind[groups]'",
            ) from None
    try:
        tables: dict[str, Any] = tomllib.loads(text)
    except tomllib.TOMLDecodeError as e:
        raise UsageError(f"--file {quote(path)}: {e}") from None
    except RecursionError:
        raise UsageError(f"--file {quote(path)}: nested too deeply") from None
    return tables


class GroupFile:
    """One file as it is read; errors name it, the line and the group."""

    def __init__(self, path: str, text: str, command: str, defaults: Values) -> None:
        """`defaults`: options of groups that have none of their own."""
        self.path, self.text, self.defaults = path, text, defaults
        everywhere = {o.key: o for name in ("run", "show") for o in options_of(name)}
        self.launch = {key_of(o): o for o in everywhere.values()
                       if is_of_launch(o) and o.key not in (*ALONE, "file")}  # fmt: skip
        self.groups = {key_of(o): o for o in options_of_groups(command) if o.key != "group"}
        self.command = command

    def read(self) -> Groups:
        """Raises UsageError, ParseError, PlanError."""
        tables = parse_toml(self.text, self.path)
        listed = tables.pop("groups", {})
        if not isinstance(listed, dict) or not listed:
            raise self.problem("", "groups", "there are no groups", "[groups.NAME] begins one")
        top: Values = {}
        common: dict[str, object] = {}
        for key, value in tables.items():
            if key in self.launch:
                top |= self.make(self.launch[key], value, "")
            elif key in self.groups and key != "after":
                self.make(self.groups[key], value, "")
                common[key] = value
            else:
                raise self.unknown(key, "", {*self.launch, *self.groups, "groups"})
        taken = {o.key for o in options_of(self.command)}
        launch = {k: v for k, v in top.items() if k in taken}
        members = tuple(self.read_group(name, table, common) for name, table in listed.items())
        check_names(members)
        return Groups(launch, members)

    def read_group(self, name: str, table: object, common: Mapping[str, object]) -> GroupRequest:
        if not isinstance(table, dict):
            raise self.problem("", name, f"groups.{name} is not a table", f"[groups.{name}]")
        try:
            parse_group(name, "groups")
        except OmpbindError as e:
            raise self.problem(name, "", e.message, e.hint) from None
        given = {k: v for k, v in common.items() if k not in table} | table
        command = self.read_command(name, given.pop("command", None))
        values: Values = {}
        for key, value in given.items():
            if key not in self.groups:
                if key in self.launch:
                    hint = "put it at the top, before the first table"
                    raise self.problem(name, key, f"{key} is for the launch as a whole", hint)
                raise self.unknown(key, name, {*self.groups, "command"})
            values |= self.make(self.groups[key], value, name)
        values = {k: v for k, v in self.defaults.items() if k not in values} | values
        try:
            check_together(values, list(self.groups.values()))
        except OmpbindError as e:
            raise self.problem(name, "", e.message, e.hint) from None
        return make_member(name, values, command)

    def read_command(self, name: str, command: object) -> tuple[str, ...]:
        if command is None:
            raise self.problem(name, "", "there is no command", 'command = ["PROGRAM", "ARG"]')
        if isinstance(command, str):
            try:
                listed = ", ".join(f'"{word}"' for word in shlex.split(command))
            except ValueError:
                listed = '"PROGRAM", "ARG"'
            problem = "a command is a list of words: nothing goes to a shell"
            raise self.problem(name, "command", problem, f"command = [{listed}]")
        if not isinstance(command, list) or not command:
            raise self.problem(name, "command", "a command is a list of words", "")
        if not all(isinstance(word, str | int | float) for word in command):
            raise self.problem(name, "command", "a command is a list of words and numbers", "")
        words = [str(word) for word in command]
        if any("\0" in word for word in words):
            raise self.problem(name, "command", "a word has a NUL character", "")
        return tuple(words)

    def make(self, option: Option, value: object, group: str) -> Values:
        """Return the value of an option, by its key. Raises UsageError."""
        key = key_of(option)
        if option.adds and isinstance(value, list):
            value = ",".join(map(str, value))
        try:
            made = make_value(option, value)
        except TypeError:
            raise self.problem(group, key, f"{key}: {value!r} is of the wrong type", "") from None
        except OmpbindError as e:
            message = e.message.removeprefix(option.key).lstrip(":, ")
            raise self.problem(group, key, f"{key}: {message}", e.hint) from None
        return {} if value is False and not option.no else {option.key: made}

    def unknown(self, key: str, group: str, among: set[str]) -> UsageError:
        hint = did_you_mean(key, sorted(among)) or "the keys are the options' names, without --"
        return self.problem(group, key, f"{quote(key)} is not a key here", hint)

    def problem(self, group: str, key: str, problem: str, hint: str) -> UsageError:
        """Return an error at a key of a group, "" for the top."""
        line = find_line(self.text.split("\n"), group, key)
        where = f", line {line}" if line else ""
        who = f"group {group}: " if group else ""
        return UsageError(f"--file {quote(self.path)}{where}: {who}{problem}", hint=hint)


def key_of(option: Option) -> str:
    """Return an option's name as a key of the file."""
    return option.names[0][2:]


def find_line(lines: Sequence[str], group: str, key: str) -> int:
    """Return the number of the line that sets a key of a group, of the top where that is "", from
    1; of the group's table, where there is no such line; 0: neither."""
    table, header = "", 0
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if text.startswith("["):
            table = text.strip("[]").split("]")[0].replace('"', "").replace(" ", "")
            if table in (f"groups.{group}", f"groups.{key}" if not group else ""):
                header = header or number
        name = text.partition("=")[0].strip().strip("\"'")
        inside = table == f"groups.{group}" if group else not table
        if "=" in text and key and inside and name.partition(".")[0] == key:
            return number
    return header
