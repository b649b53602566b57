"""python -m tests.distributions: make the places where the wheel is tried."""

from __future__ import annotations

import sys

from tests.distributions.archive import PlaceError
from tests.distributions.places import set_up

if __name__ == "__main__":
    try:
        set_up()
    except PlaceError as e:
        sys.exit(f"tests.distributions: {e}")
