"""python -m tests.jobs [GROUP]...: make the environments of engines, by default all."""

from __future__ import annotations

import sys

from tests.jobs.environments import SIZES, set_up

if __name__ == "__main__":
    for group in sys.argv[1:] or SIZES:
        set_up(group, SIZES[group])
