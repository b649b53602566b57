"""What a terminal shows of what was written to it: carriage returns, line ends, erasing; colours
and other sequences are passed over."""

from __future__ import annotations

import re

SEQUENCE = re.compile(rb"\x1b\[[0-9;?]*([A-Za-z])")


def read_screen(data: bytes) -> list[bytes]:
    """The lines of an endless screen, without blanks at their ends; the last is the cursor's."""
    lines, column, at = [bytearray()], 0, 0
    while at < len(data):
        line, byte = lines[-1], data[at : at + 1]
        if match := SEQUENCE.match(data, at):
            if match[1] == b"K":
                del line[column:]
            at = match.end()
            continue
        if byte == b"\r":
            column = 0
        elif byte == b"\n":  # of a raw terminal's
            lines.append(bytearray())
            column = 0
        else:
            line[len(line) :] = b" " * (column - len(line))
            line[column : column + 1] = byte
            column += 1
        at += 1
    return [bytes(line).rstrip() for line in lines]
