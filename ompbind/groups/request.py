"""What is asked of a launch with groups, as values."""

from __future__ import annotations

from ompbind.errors import UsageError
from ompbind.messages import did_you_mean, quote
from ompbind.options import make_values
from ompbind.options.commands import options_of
from ompbind.options.table import ELSEWHERE, ENGINES, OUTPUT, RUNNING
from ompbind.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ompbind.options.table import Option
    from ompbind.options.values import Values

# Of one command with all of the machine: they do not go with groups.
ALONE = ("plan", "plan_env", "hosts", "from_env", "serve", "part", "rank", "engine", "within")


class GroupRequest(Record):
    """One group: its options, its command, and how it stands to others. `ready`: by what it is
    known that it is, with templates."""

    name: str
    values: Values
    command: tuple[str, ...]
    after: tuple[str, ...] = ()
    ready: str = ""
    background: bool = False


def make_member(name: str, values: Values, command: Sequence[str]) -> GroupRequest:
    """Return a group by its options."""
    relations = ("after", "ready", "background")
    own = {k: v for k, v in values.items() if k not in ("group", *relations)}
    given = {k: values[k] for k in relations if k in values}
    return GroupRequest(name, own, tuple(command), **given)


class Groups(Record):
    """All groups, in the order of their ranks, and the options of the launch as a whole."""

    values: Values
    members: tuple[GroupRequest, ...]


def is_of_launch(option: Option) -> bool:
    """Whether an option is for a launch as a whole, not for one of its groups."""
    whole = ("settings.", "plan.", "request.binder")
    fields = [f for f in option.fields if f not in ("plan.fixes", "plan.fix_children")]
    in_panel = option.panel in (RUNNING, ENGINES, OUTPUT, ELSEWHERE)
    return in_panel or any(f.startswith(whole) for f in fields) or option.key == "file"


def options_of_groups(command: str) -> tuple[Option, ...]:
    """Return the options of `run` or `show` that each group has for itself."""
    options = options_of(command)
    return tuple(o for o in options if not is_of_launch(o) and o.key not in ALONE)


def read_defaults(command: str, environ: Mapping[str, str]) -> Values:
    """Return the options of OMPBIND_OPTIONS that each group of `run` or `show` has for itself.
    Raises UsageError, ParseError, PlanError."""
    if not environ.get("OMPBIND_OPTIONS"):
        return {}
    from ompbind.options.defaults import with_defaults

    options = options_of_groups(command)
    return make_values(with_defaults({}, environ, options), options)


def check_alone(values: Values) -> None:
    """Refuse options that are for one command. Raises UsageError."""
    for key in ALONE:
        if key in values and not (key == "rank" and isinstance(values[key], str)):
            name = "--" + key.replace("_", "-")
            raise UsageError(f"{name} is for one command, and there are groups", option=name)


def check_names(members: Sequence[GroupRequest]) -> None:
    """Refuse groups of one name, and orders of start that cannot be. Raises UsageError."""
    names = [member.name for member in members]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"two groups are called {name}", hint="--group NAME names them")
    for member in members:
        for other in member.after:
            if other not in names:
                hint = did_you_mean(other, names) or f"groups: {', '.join(names)}"
                raise UsageError(
                    f"group {member.name}: after {quote(other)}: there is no such group", hint=hint
                )
    started: set[str] = set()
    while rest := [m for m in members if m.name not in started]:
        able = [m.name for m in rest if started.issuperset(m.after)]
        if not able:
            circle = ", ".join(f"{m.name} after {' and '.join(m.after)}" for m in rest)
            raise UsageError(f"no group can start first: {circle}")
        started.update(able)
