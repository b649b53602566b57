"""What a test reads of a program that still runs."""

from __future__ import annotations

import os
import tempfile

from tests.support.running import read


def test_reading_leaves_the_writers_offset() -> None:
    """A log is read whole, and the command that writes it goes on where it was."""
    with tempfile.TemporaryFile() as log:
        os.write(log.fileno(), b"round 1\nround")
        os.lseek(log.fileno(), 8, os.SEEK_SET)
        assert read(log) == "round 1\nround"
        os.write(log.fileno(), b"ROUND")
        assert read(log) == "round 1\nROUND"
