"""python -m tests.programs [GROUP]...: make the environments of programs, by default all."""

from __future__ import annotations

import sys

from tests.programs.environments import SIZES, set_up_program

if __name__ == "__main__":
    for group in sys.argv[1:] or SIZES:
        set_up_program(group)
