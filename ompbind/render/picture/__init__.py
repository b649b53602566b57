"""Pictures of machines and plans, as vector graphics for pages, papers and slides. Pure."""

from __future__ import annotations

from ompbind.render.picture.shapes import Picture
from ompbind.render.picture.subjects import (
    make_check_picture,
    make_machine_picture,
    make_plan_picture,
)
from ompbind.render.picture.svg import make_svg

__all__ = [
    "Picture",
    "make_check_picture",
    "make_machine_picture",
    "make_plan_picture",
    "make_svg",
]
