"""Tables of words, before they are drawn or become a part of a page."""

from __future__ import annotations

from ompbind.record import Record


class Row(Record):
    """The cells of a rank, a worker, or several that are alike."""

    cells: tuple[str, ...]
    rank: int | None = None  # the number whose colour it has


class Rows(Record):
    """A table of words."""

    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    note: str = ""  # what its reader has to know
