"""The little YAML that exports need: texts in double quotes, maps and lists in indented lines."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    Value = str | Sequence["Value"] | Mapping[str, "Value"]

SHORT = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t"}


def write_map(values: Mapping[str, Value], indent: int = 0) -> str:
    """Return a map as lines. Its keys are plain words; lists and maps that are empty are left
    out."""
    return "".join(write_item(" " * indent + f"{k}:", v, indent) for k, v in values.items())


def write_item(head: str, value: Value, indent: int) -> str:
    if isinstance(value, str):
        return f"{head} {quote(value)}\n"
    if not value:
        return ""
    if not isinstance(value, list | tuple):
        return f"{head}\n{write_map(value, indent + 2)}"  # type: ignore[arg-type]
    text = f"{head}\n"
    for item in value:
        if isinstance(item, str):
            text += f"{' ' * indent}  - {quote(item)}\n"
        else:
            text += f"{' ' * indent}  - {write_map(item, indent + 4).lstrip()}"
    return text


def quote(text: str) -> str:
    """Return a scalar that every reader of YAML takes for this text, whatever is in it."""
    return '"' + "".join(SHORT.get(c) or (c if c.isprintable() else escape(c)) for c in text) + '"'


def escape(c: str) -> str:
    number = ord(c)
    return f"\\x{number:02x}" if number < 256 else f"\\U{number:08x}"
