"""Drawings for people: a module for each thing drawn, without any logic."""

from __future__ import annotations

from ompbind.render.terminal import draw_live, make_text

__all__ = ("draw_live", "make_text")
