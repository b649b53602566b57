"""What the pages in docs/how-to/with/ say: files, and commands, which are those that the tests run.

A file stands in a code block behind a comment with its name; a command is a line of an `sh` block.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from tests.support.needs import REPOSITORY

FOLDER = REPOSITORY / "docs" / "how-to" / "with"
FILE = re.compile(r"<!-- ([\w.]+) -->\n```\w+\n(.*?)```", re.DOTALL)
BLOCK = re.compile(r"^```sh\n(.*?)^```", re.DOTALL | re.MULTILINE)


def read_files(page: str) -> dict[str, str]:
    """Return the files that a page shows, by their names."""
    return dict(FILE.findall(read_page(page)))


def read_commands(page: str) -> list[list[str]]:
    """Return the commands of a page as words, in their order."""
    text = "".join(BLOCK.findall(read_page(page))).replace("\\\n", " ")
    return [words for line in text.splitlines() if (words := shlex.split(line, comments=True))]


def read_page(page: str) -> str:
    return Path(FOLDER, f"{page}.md").read_text(encoding="utf-8")


def find_launches(page: str, program: list[str]) -> dict[int, list[str]]:
    """Return the page's commands that start this program with ompbind, by the number of ranks. A
    template in it counts as the number that rank 0 has there."""
    launches = {}
    for words in read_commands(page):
        if words[:2] == ["ompbind", "run"] and fill(words[words.index("--") + 1 :]) == program:
            ranks = int(words[words.index("-n") + 1]) if "-n" in words else 1
            launches[ranks] = words
    return launches


def fill(words: list[str], rank: int = 0) -> list[str]:
    """Return a command with its templates `{8001+rank}` and `{rank}` filled in for a rank."""

    def value(match: re.Match[str]) -> str:
        return str(int(match[1] or 0) + rank)

    return [re.sub(r"\{(?:(\d+)\+)?rank\}", value, word) for word in words]
