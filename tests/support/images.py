"""The documentation's pictures: each is drawn by the command that its page names."""

from __future__ import annotations

import re
from pathlib import Path

from tests.support.needs import REPOSITORY

DOCS = REPOSITORY / "docs"
IMAGES = DOCS / "images"
PAGES = (DOCS / "README.md", DOCS / "how-to/pictures.md")
COMMAND = re.compile(r"^ompbind ((?:show|topo) .*)--svg ([a-z]+\.svg)(.*)$", re.MULTILINE)


def find_images() -> dict[str, list[str]]:
    """Return by its name how each picture is drawn: ompbind's arguments, with {} for the file."""
    images = {}
    for page in PAGES:
        for before, name, after in COMMAND.findall(page.read_text(encoding="utf-8")):
            images[name] = [*before.split(), "--svg", "{}", *after.split()]
    return images


def arguments_for(image: list[str], file: Path) -> list[str]:
    return [str(file) if word == "{}" else word for word in image]
