"""The pages of programs: each has the commands that `make test-programs` runs."""

from __future__ import annotations

import pytest

from tests.programs.pages import FOLDER, find_launches, read_commands, read_files
from tests.programs.table import PROGRAMS, Program

# Whose commands other tests run: tests/serving.
ELSEWHERE: set[str] = set()


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda p: p.name)
def test_page_has_the_commands(program: Program) -> None:
    """A page shows its program's files, how they are prepared, and a launch of one rank and of
    two."""
    assert sorted(find_launches(program.page, program.command.split())) == [1, 2]
    commands = [" ".join(words) for words in read_commands(program.page)]
    assert set(program.prepare) <= set(commands)
    for name, text in read_files(program.page).items():
        if name.endswith(".py"):
            compile(text, name, "exec")


def test_each_page_has_a_program() -> None:
    """Each page of docs/how-to/with/ is tried, and no command on one is another's."""
    pages = {program.page for program in PROGRAMS}
    assert {path.stem for path in FOLDER.glob("*.md")} == pages | ELSEWHERE
    for page in pages:
        started = [p.command.split() for p in PROGRAMS if p.page == page]
        launched = [w for w in read_commands(page) if w[:2] == ["ompbind", "run"]]
        tried = [words for program in started for words in find_launches(page, program).values()]
        assert [words for words in launched if words not in tried] == []
