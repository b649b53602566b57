"""The options of a launch, from texts to Settings."""

from __future__ import annotations

from ompbind.cpuset import parse_whole
from ompbind.errors import UsageError
from ompbind.launch import Settings
from ompbind.messages import quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ompbind.options.parse import Values

LONGEST = 1e9  # seconds: what a timer of the system surely takes


# Given, these make a single rank a child that is watched over; it else replaces this process.
WATCHED = ("grace", "leave_children", "verbose", "verify", "verify_strict")


def make_settings(values: Values) -> Settings:
    """From the parsed arguments. Raises UsageError."""
    asked: dict[str, object] = {}
    check_output(values)
    for key in ("on_denied", "on_failure", "leave_children", "output", "output_dir", "overwrite",
                "verbose"):  # fmt: skip
        if key in values:
            asked[key] = values[key]
    if "grace" in values:
        asked["grace"] = parse_seconds(str(values["grace"]), "--grace")
    if "stdin" in values:
        asked["stdin"] = parse_stdin(str(values["stdin"]))
    return Settings(
        watched=any(key in values for key in WATCHED) or values.get("output") == "tag",
        may_switch="plan" not in values and values.get("binder", "auto") == "auto",
        **asked,  # type: ignore[arg-type]  # each was converted above
    )


def check_output(values: Values) -> None:
    """Raises UsageError for options of output that contradict each other."""
    mode, directory = values.get("output"), values.get("output_dir")
    if mode == "files" and not directory:
        raise UsageError("--output files: where to?", hint="--output-dir DIR names the directory")
    if directory is not None and mode not in (None, "files"):
        problem = f"--output {mode} and --output-dir both say where output goes"
        raise UsageError(problem, hint="leave one of them out")
    if directory == "":
        raise UsageError("--output-dir: an empty name", hint="--output-dir DIR")
    if "overwrite" in values and directory is None:
        raise UsageError("--overwrite has no effect without --output-dir", hint="leave it out")


def parse_stdin(text: str) -> str:
    """A rank's number, `all` or `none`. Raises UsageError."""
    number = parse_whole(text)
    if text in ("all", "none") or number is not None:
        return text if number is None else str(number)
    raise UsageError(
        f"--stdin: {quote(text)} is neither a rank's number nor all nor none",
        hint="--stdin 0 is the default",
        option="--stdin",
    )


def parse_seconds(text: str, option: str) -> float:
    """A number of seconds, 0 or more: 10, 0.5. Raises UsageError."""
    whole, point, part = text.partition(".")
    good = all(t.isascii() and t.isdigit() for t in (whole + part,))
    if not good or len(text) > 20 or (point and not part) or float(text) > LONGEST:
        raise UsageError(
            f"{option}: {quote(text)} is not a number of seconds",
            hint="a number such as 10 or 0.5",
            option=option,
        )
    return float(text)
