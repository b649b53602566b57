"""The command line's own small parser: arguments to texts by option, strictly."""

from __future__ import annotations

from ompbind.errors import UsageError
from ompbind.messages import quote
from ompbind.options.values import FENCE_HINT, is_word

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ompbind.options.table import Option

    Texts = dict[str, "str | bool | list[str]"]


def parse_arguments(args: Sequence[str], options: Sequence[Option]) -> tuple[Texts, list[str]]:
    """What was given by option key (a text; a bool for a flag; a list of texts for a list option),
    and the worker's command: all after `--`, or from the first argument that is no option's.

    A list option takes every value up to the next option or `--`. A repeated list option adds to
    itself, as does a value option with `adds` or `many`; any other takes its last value. Raises
    UsageError.
    """
    by_name = {name: o for o in options for name in o.names}
    by_name |= {f"--no-{o.names[0][2:]}": o for o in options if o.no}
    values: Texts = {}
    swallowed = False  # whether the last option was a list that took words for its values
    rest = list(args)
    while rest:
        word = rest.pop(0)
        if word == "--":
            return values, rest
        if not looks_like_option(word):
            return values, [word, *rest]
        name, value = split_word(word, by_name)
        option = by_name.get(name)
        if option is None:
            raise unknown_option(name, options, FENCE_HINT if swallowed else "")
        swallowed = False
        if option.kind == "flag":
            if value is not None:
                raise UsageError(f"{name} takes no value, got {quote(value)}", option=name)
            values[option.key] = name in option.names
        elif option.kind == "optional":
            values[option.key] = value or ""
        elif option.kind == "value":
            if value is None and (not rest or rest[0] == "--"):
                raise UsageError(f"{name} needs a value", hint=hint_of(option), option=name)
            text = check_choice(option, rest.pop(0) if value is None else value, option.names[0])
            before = values.get(option.key)
            if option.many:
                values[option.key] = [*(before if isinstance(before, list) else ()), text]
            else:
                adds = option.adds and isinstance(before, str)
                values[option.key] = f"{before},{text}" if adds else text
        else:
            texts = [] if value is None else [value]
            while value is None and rest and not looks_like_option(rest[0]) and rest[0] != "--":
                texts.append(rest.pop(0))
            if not texts:
                raise UsageError(
                    f"{name} needs at least one value", hint=hint_of(option), option=name
                )
            swallowed = any(map(is_word, texts))
            earlier = values.get(option.key)
            values[option.key] = (earlier if isinstance(earlier, list) else []) + texts
    return values, []


def looks_like_option(word: str) -> bool:
    """-n and --ranks do; -1 is a (bad) number, and a lone - is a word."""
    return word.startswith("-") and word != "-" and not word[1:2].isdigit()


def split_word(word: str, by_name: dict[str, Option]) -> tuple[str, str | None]:
    """Return the option's name and the value in the same word: `--ranks=4` and `-n4` have one,
    `--ranks` and `-n` do not."""
    if word.startswith("--"):
        name, equals, value = word.partition("=")
        return name, value if equals else None
    name, value = word[:2], word[2:]
    if not value or name not in by_name:
        return name, None
    return (word, None) if value[0].isalpha() else (name, value.removeprefix("="))  # mpirun's -np


def check_choice(option: Option, value: str, name: str) -> str:
    """Return a value that is one of the option's choices, if it has any. Raises UsageError."""
    if option.choices and value not in option.choices:
        from ompbind.options.foreign import hint_for_value

        raise UsageError(
            f"{name}: {quote(value)} is not one of {', '.join(option.choices)}",
            hint=hint_for_value(option, value),
            option=name,
        )
    return value


def hint_of(option: Option) -> str:
    return f"{option.names[0]} {option.value}"


def unknown_option(name: str, options: Sequence[Option], hint: str) -> UsageError:
    if not hint:
        from ompbind.options.foreign import hint_for_option

        hint = hint_for_option(name, options)
    return UsageError(f"{quote(name)} is not an option", hint=hint, option=name)
