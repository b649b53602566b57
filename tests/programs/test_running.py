"""What a test reads of a program that still runs."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.programs.test_programs import masks_of
from tests.support.running import read


def test_reading_leaves_the_writers_offset() -> None:
    """A log is read whole, and the command that writes it goes on where it was."""
    with tempfile.TemporaryFile() as log:
        os.write(log.fileno(), b"round 1\nround")
        os.lseek(log.fileno(), 8, os.SEEK_SET)
        assert read(log) == "round 1\nround"
        os.write(log.fileno(), b"ROUND")
        assert read(log) == "round 1\nROUND"


@pytest.mark.parametrize("last", [1, 2])
def test_a_process_may_end_while_it_is_looked_at(
    monkeypatch: pytest.MonkeyPatch, last: int
) -> None:
    """A process that ends before the first look, for its children, or before the second, for its
    threads, is left out, as a backend of PostgreSQL."""
    listed = Path.iterdir
    looks = []
    with subprocess.Popen(["sleep", "60"]) as child:

        def iterdir(path: Path) -> Iterator[Path]:
            if path == Path("/proc", str(child.pid), "task"):
                looks.append(path)
                if len(looks) == last:
                    child.kill()
                    child.wait()
            return listed(path)

        monkeypatch.setattr(Path, "iterdir", iterdir)
        assert masks_of(os.getpid())
    assert len(looks) == 2
