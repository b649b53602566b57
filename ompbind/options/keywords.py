"""The options as keywords of the Python API: their values, and errors that name keywords."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping

from ompbind.cpuset import CpuSet
from ompbind.errors import OmpbindError
from ompbind.options import check_text
from ompbind.options.table import LAUNCH
from ompbind.options.together import check_together
from ompbind.options.values import (
    parse_cpu_lists,
    parse_cpus,
    parse_mem_nodes,
    parse_preload,
    parse_sizes,
    text_of,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ompbind.options.table import Option
    from ompbind.options.values import Given, Pair, Values


def options_for(function: str) -> tuple[Option, ...]:
    """Return the options that a function of the API takes as keywords."""
    return tuple(o for o in LAUNCH if function in o.keyword_of)


def make_values(function: str, keywords: Mapping[str, object]) -> Values:
    """Return the values of options from a function's keywords, checked one by one and together; a
    keyword that is None is not given.

    Raises UsageError, ParseError, PlanError; TypeError for a value of a wrong type.
    """
    options = options_for(function)
    values: Values = {}
    for option in options:
        value = keywords.get(option.key)
        if value is not None and (value is not False or option.no):
            values[option.key] = make_value(option, value)
    check_together(values, options)
    return values


def make_value(option: Option, value: object) -> object:
    """Return the value of an option. Raises UsageError, ParseError, TypeError."""
    key = option.key
    if option.kind == "flag":
        if not isinstance(value, bool):
            raise wrong_type(key, value)
        return value
    # A list of texts or numbers is what the command line has with commas.
    joined = (option.adds and option.parse is None) or option.parse in (parse_sizes, parse_preload)
    plain: object
    if option.kind == "optional" and value is True:
        plain = ""
    elif option.parse is parse_mem_nodes and is_set(value):
        plain = [make_item(option, value)]  # for all ranks
    elif option.kind == "list" or option.many:
        plain = [make_item(option, item) for item in make_items(key, value)]
    elif joined and not isinstance(value, str | int | os.PathLike):
        plain = ",".join(text_of(item, key) for item in make_list(key, value))
    else:
        plain = make_item(option, value)
    if option.parse is not None:
        return option.parse(plain, key)
    return check_text(option, text_of(plain, key), key)


def is_set(value: object) -> bool:
    """Whether a value is a set of numbers, and not a list of such sets."""
    if isinstance(value, str | bytes | int) or not isinstance(value, Collection):
        return False
    return bool(value) and all(isinstance(n, int) for n in value)


def make_items(key: str, value: object) -> list[object]:
    """Return the values of a list: those given, the single one, or pairs of names and values."""
    if isinstance(value, Mapping):
        return list(value.items())
    single = isinstance(value, str | int | os.PathLike)
    return [value] if single else make_list(key, value)


def make_item(option: Option, value: object) -> Given | Pair:
    """Return one value as the option's parser takes it. Raises TypeError."""
    if isinstance(value, str | os.PathLike):
        return os.fsdecode(value)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value
    if isinstance(value, tuple) and option.many and len(value) == 2:
        return str(value[0]), make_item(option, value[1])  # type: ignore[return-value]
    if option.parse not in (parse_cpus, parse_cpu_lists, parse_mem_nodes):
        raise wrong_type(option.key, value)
    numbers = make_list(option.key, value)
    if not all(isinstance(n, int) and not isinstance(n, bool) for n in numbers):
        raise wrong_type(option.key, value)
    return CpuSet(numbers)  # type: ignore[arg-type]  # all are numbers


def make_list(key: str, value: object) -> list[object]:
    if isinstance(value, bytes) or not isinstance(value, Iterable):
        raise wrong_type(key, value)
    return list(value)


def wrong_type(key: str, value: object) -> TypeError:
    return TypeError(f"{key}: {value!r} is of the wrong type")


# --- errors --------------------------------------------------------------------------------------


def in_keywords(error: OmpbindError) -> OmpbindError:
    """Return an error as a Python program knows its options: `per="gpu"` for `--per gpu`."""
    error.reword(name_keywords(error.message))
    error.hint = name_keywords(error.hint, flag="=True")
    if isinstance(name := error.data.get("option"), str):
        error.data["option"] = name_keywords(name)
    return error


def name_keywords(text: str, flag: str = "") -> str:
    """Replace the options in a message by keywords, with `flag` behind those of flags. What stands
    after `ompbind` is a command line and stays, up to the next `;` or `:`."""
    from ompbind.options.commands import OPTIONS

    names = {name: option for option in OPTIONS for name in option.names}
    words: list[str] = []
    command = False
    rest = text.split(" ")
    while rest:
        word = rest.pop(0)
        command = (command or word == "ompbind") and word[-1:] not in (";", ":")
        before, core, after = strip_marks(word)
        switched_off = core.startswith("--no-") and f"--{core[5:]}" in names
        option = names.get(f"--{core[5:]}" if switched_off else core)
        if option is None or command:
            words.append(word)
        elif option.kind == "flag":
            words.append(f"{before}{option.key}{'=False' if switched_off else flag}{after}")
        elif not after and rest and is_value(option, strip_marks(rest[0])[1]):
            _, value, after = strip_marks(rest.pop(0))
            value = value if value.isupper() or value.isdigit() else f'"{value}"'
            words.append(f"{before}{option.key}={value}{after}")
        else:
            words.append(f"{before}{option.key}{after}")
    return " ".join(words)


def strip_marks(word: str) -> tuple[str, str, str]:
    """Return what stands before a word, as a bracket does, the word, and what follows it."""
    left = word.lstrip("(`'")
    core = left.rstrip(")`',;:.")
    return word[: len(word) - len(left)], core, left[len(core) :]


def is_value(option: Option, word: str) -> bool:
    """Whether a word is a value of the option and not the sentence's next word."""
    plain = word[:1].isdigit() or (word.isupper() and word.isalpha()) or ".py:" in word
    return plain or word in option.choices
