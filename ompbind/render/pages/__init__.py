"""Pages for people who were not there: a picture with its tables, in one HTML file."""

from __future__ import annotations

from ompbind.render.pages.comparison import make_comparison_page
from ompbind.render.pages.machine import make_machine_page
from ompbind.render.pages.plan import make_plan_page
from ompbind.render.pages.report import make_report_page

__all__ = ["make_comparison_page", "make_machine_page", "make_plan_page", "make_report_page"]
