"""OMPBIND_OPTIONS: options of a site or a project, which those of the command line override.

Only imported where the variable is set.
"""

from __future__ import annotations

from ompbind.errors import OmpbindError, UsageError
from ompbind.messages import quote
from ompbind.options import make_typed_values, parse_arguments
from ompbind.options.commands import options_of
from ompbind.options.values import split_words
from ompbind.plans import RANK_VARIABLE, Inherited

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ompbind.options import Texts
    from ompbind.options.table import Option
    from ompbind.options.values import Values

NAME = "OMPBIND_OPTIONS"


def launch_rows() -> dict[str, Option]:
    """Return the options of `run` and `show` by key, where both have one that of `run`."""
    return {o.key: o for command in ("show", "run") for o in options_of(command)}


def parse_defaults(text: str) -> Texts:
    """Return what the variable gives, by the key of an option of `run` or `show`. Raises
    UsageError."""
    words = split_words(text, NAME)
    try:
        texts, rest = parse_arguments(words, tuple(launch_rows().values()))
    except OmpbindError as e:
        e.reword(f"{NAME}: {e.message}")
        raise
    if rest or "--" in words:
        problem = quote(rest[0]) if rest else "--"
        raise UsageError(f"{NAME}: {problem} is not an option", hint="it has options only")
    return texts


def read_with_defaults(
    args: Sequence[str], command: str, environ: Mapping[str, str]
) -> tuple[Values, list[str]]:
    """Return what read_arguments does, with the variable's options below those that are typed.
    Raises UsageError, ParseError, PlanError."""
    options = options_of(command)
    typed, rest = parse_arguments(args, options)
    return make_typed_values(with_defaults(typed, environ, options), options, args), rest


def with_defaults(typed: Texts, environ: Mapping[str, str], options: Sequence[Option]) -> Texts:
    """Return what was typed, and of the variable's options those that the command has and that were
    not typed; beside --plan only those that go with a saved plan, in a rank none. Raises
    UsageError."""
    if is_inside(environ):
        return typed
    rows = {o.key: o for o in options}
    of_launches = launch_rows()
    saved = "plan" in typed
    return {
        key: value
        for key, value in parse_defaults(environ[NAME]).items()
        if key not in typed
        and (key in rows and rows[key].names == of_launches[key].names)
        and not (saved and not rows[key].on_saved_plan)
    } | typed


def explain_origin(error: OmpbindError, text: str, args: Sequence[str]) -> OmpbindError:
    """Return an error with where the options come from that it names and nobody has typed."""
    try:
        given = parse_defaults(text)
    except OmpbindError:
        return error  # it names the variable
    rows = launch_rows()
    said = f"{error.message} {error.hint} {error.data.get('option', '')}"
    words = {word.strip("(),:;'").partition("=")[0] for word in said.split()}
    typed = {word.partition("=")[0] for word in args}
    names = [
        rows[key].names[0]
        for key in given
        if words & set(rows[key].names) and not typed & set(rows[key].names)
    ]
    if names:
        comes = "comes" if len(names) == 1 else "come"
        origin = f"{' and '.join(names)} {comes} from {NAME}={quote(text)}"
        error.hint = "; ".join(filter(None, (error.hint, origin)))
    return error


def describe_defaults(args: Sequence[str], environ: Mapping[str, str]) -> tuple[Inherited, ...]:
    """Return what `show` says of the variable: which of its options count. Raises UsageError."""
    text = environ.get(NAME, "")
    if not text:
        return ()
    if is_inside(environ):
        return (Inherited(NAME, text, "overridden", "the launch that this is a rank of had it"),)
    typed = {word.partition("=")[0] for word in args[: find_command(args)]}
    rows = launch_rows()
    passed = [rows[key].names[0] for key in parse_defaults(text) if typed & set(rows[key].names)]
    why = "as if typed before the options of the command line"
    if passed:
        why += f", which has {' and '.join(passed)} itself"
    return (Inherited(NAME, text, "respected", why),)


def find_command(args: Sequence[str]) -> int:
    """Return the position of --, or the number of words where there is none."""
    return list(args).index("--") if "--" in args else len(args)


def is_inside(environ: Mapping[str, str]) -> bool:
    """Whether this is a process of a rank of ompbind, whose launch has had the options."""
    return RANK_VARIABLE in environ
