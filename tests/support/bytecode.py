"""Bytecode that the processes of one run share. Where PYTHONDONTWRITEBYTECODE is set, as in many
images of containers, each would compile everything: pytest takes longer to rewrite the tests'
asserts than to collect the tests, and in a guest, whose processor is emulated, all takes thirty
times as long."""

from __future__ import annotations

import compileall
import importlib
import sys
from collections.abc import Sequence

import pytest

from tests.support.needs import REPOSITORY

# What guests and commands load; pytest compiles tests itself.
FOLDERS = ("ompbind", "tests/guest", "tests/support")


def keep_bytecode() -> None:
    """Have what this process compiles written beside the sources, where these may be written to."""
    sys.dont_write_bytecode = False


def compile_modules() -> None:
    """Compile what has changed; a folder that may not be written to stays as it is."""
    for folder in FOLDERS:
        compileall.compile_dir(REPOSITORY / folder, quiet=2)


def rewrite_share(arguments: Sequence[str], share: int, shares: int) -> None:
    """Have pytest rewrite and keep one share of the test files in the folders among its arguments:
    processes that collect all files at once, in the same order, would each rewrite them all."""
    folders = [REPOSITORY / argument for argument in arguments]
    paths = sorted(path for folder in folders for path in folder.rglob("test_*.py"))
    for path in paths[share::shares]:
        try:
            importlib.import_module(".".join(path.relative_to(REPOSITORY).with_suffix("").parts))
        except (Exception, pytest.skip.Exception):
            continue  # as collecting it will tell
