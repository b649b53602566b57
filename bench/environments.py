"""The environments of what is measured beside ompbind or under it: made from dependency groups of
pyproject.toml and kept in the user's cache, as those of the engines are."""

from __future__ import annotations

import subprocess
import sys

from tests.jobs.environments import SIZES as ENGINES
from tests.jobs.environments import is_set_up, program, set_up

# By group, with their sizes in MB.
SIZES = {"frameworks": ENGINES["frameworks"], "benchexec": 10, "torchrun": ENGINES["torchrun"]}


def find_program(group: str, name: str, *, make: bool) -> str:
    """Return a program of an environment, which is made first on request; "" where it has not been
    made, or cannot be."""
    if make:
        try:
            set_up(group, SIZES[group])
        except subprocess.CalledProcessError as e:
            print(f"{group}: {e}", file=sys.stderr)
    return str(program(group, name)) if is_set_up(group) else ""
