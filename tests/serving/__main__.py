"""python -m tests.serving [measure [ROUNDS [SIZE]]]: make the environment of real servers; then
measure what binding changes about their speed."""

from __future__ import annotations

import sys

from tests.serving.environment import set_up

if __name__ == "__main__":
    set_up()
    if sys.argv[1:2] == ["measure"]:
        from tests.serving.measure import main

        main()
