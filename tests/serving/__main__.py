"""python -m tests.serving: make the environment of real servers."""

from __future__ import annotations

from tests.serving.environment import set_up

if __name__ == "__main__":
    set_up()
