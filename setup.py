"""Makes the manual page, which pyproject.toml installs; everything else is declared there."""

import sys
from pathlib import Path

from setuptools import setup

ROOT = Path(__file__).parent
sys.path[:0] = [str(ROOT), str(ROOT / "tools")]

from make_man import make_page  # noqa: E402

PAGE = ROOT / "build/man/ompbind.1"
PAGE.parent.mkdir(parents=True, exist_ok=True)
PAGE.write_text(make_page(), encoding="utf-8")

setup()
