"""Hints for commands that do not exist."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ompbind.errors import CommandError
from ompbind.worker import require_program

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("sh -c 'exit 3'", "leave out the quotes around the whole command: sh -c 'exit 3'"),
        ("no-such -c", ""),
        ("-n", "options of ompbind stand before --, and the command begins after it"),
        ("\u2013n", "type - for '\u2013', which a text processor makes of it"),
        ("\u2014", "type - for '\u2014', which a text processor makes of it"),
        ("FLAG=1", "--env FLAG=1 sets a variable for the workers"),
        ("4=1", ""),
        ("PATH=x ls", "--env PATH=x sets a variable for the workers"),
        ("solver", "write ./solver: this directory is not in PATH"),
        ("./no-such", ""),
        (" ", ""),
        ("", ""),
    ],
)
def test_hints(name: str, hint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was probably meant is said: a command in quotes, an option or a variable in its place, a
    program that only this directory has."""
    for folder, program in (("bin", "sh"), (".", "solver")):
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / program).write_text("#!/bin/sh\n")
        (tmp_path / folder / program).chmod(0o755)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CommandError) as e:
        require_program(name, {"PATH": str(tmp_path / "bin")})
    assert (e.value.status, e.value.hint) == (127, hint)
