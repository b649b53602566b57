"""How ranks are started, watched and ended: the options of `run` that are not the plan's."""

from __future__ import annotations

from ompbind.cpuset import shown
from ompbind.errors import UsageError
from ompbind.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ompbind.arguments import Values
    from ompbind.plans import Plan

    Prove = Callable[[Plan, Mapping[int, int]], float | None]  # pids by rank

LONGEST = 1e9  # seconds: what a timer of the system surely takes


# Given, these make a single rank a child that is watched over; it else replaces this process.
WATCHED = ("grace", "leave_children", "verbose", "verify", "verify_strict")


class Settings(Record):
    """`watched`: also a single rank is. `may_switch`: a numactl that does not work here is no
    refusal, the same system calls are made without it. `grace`: seconds from each step of the stop
    ladder to the next. `output` and `stdin`: what --output and --stdin say, "" the default.
    `prove`: is called with the plan and the pids of the ranks that live when all have executed, and
    again after the seconds that it returns; what it raises ends them all."""

    on_denied: str = "error"
    watched: bool = False
    may_switch: bool = False
    grace: float = 10.0
    on_failure: str = "stop"
    leave_children: bool = False
    output: str = ""
    stdin: str = ""
    verbose: bool = False
    prove: Prove | None = None


def make_settings(values: Values) -> Settings:
    """From the parsed arguments. Raises UsageError."""
    asked: dict[str, object] = {}
    for key in ("on_denied", "on_failure", "leave_children", "verbose"):
        if key in values:
            asked[key] = values[key]
    if "grace" in values:
        asked["grace"] = parse_seconds(str(values["grace"]), "--grace")
    return Settings(
        watched=any(key in values for key in WATCHED),
        may_switch="plan" not in values and values.get("binder", "auto") == "auto",
        **asked,  # type: ignore[arg-type]  # each was converted above
    )


def parse_seconds(text: str, option: str) -> float:
    """A number of seconds, 0 or more: 10, 0.5. Raises UsageError."""
    whole, point, part = text.partition(".")
    good = all(t.isascii() and t.isdigit() for t in (whole + part,))
    if not good or len(text) > 20 or (point and not part) or float(text) > LONGEST:
        raise UsageError(
            f"{option}: {shown(text)} is not a number of seconds",
            hint="a number such as 10 or 0.5",
            option=option,
        )
    return float(text)
