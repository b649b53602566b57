"""python -m tests.programs [GROUP]...: make the environments of programs, by default all."""

from __future__ import annotations

import sys

from tests.distributions.archive import PlaceError
from tests.programs.environments import SIZES, set_up_program

if __name__ == "__main__":
    for group in sys.argv[1:] or SIZES:
        try:
            set_up_program(group)
        except PlaceError as e:
            sys.exit(f"tests.programs: {group}: {e}")
