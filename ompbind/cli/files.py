"""Files that commands write, `-` standing for standard output."""

from __future__ import annotations

from ompbind.errors import OmpbindError
from ompbind.messages import quote, write_output


def write_file(option: str, file: str, text: str) -> None:
    """Write the text to the file that an option names. Raises OmpbindError."""
    if file == "-":
        write_output(text)
        return
    try:
        with open(file, "w", encoding="utf-8", errors="surrogateescape", newline="\n") as out:
            out.write(text)
    except OSError as e:
        raise OmpbindError(f"{option} {quote(file)}: {e.strerror}") from None
