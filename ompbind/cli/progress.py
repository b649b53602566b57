"""How far an experiment, or the reading of files, is, on standard error while it runs."""

from __future__ import annotations

import os
import sys
import time

from ompbind.messages import counted, cut, format_size, label, say

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ompbind.compare.experiment import Progress
    from ompbind.launch.warm import Warmed

BAR = 30  # characters
LONG = 60.0  # seconds at most that an experiment takes without a word about how long


class StatusLine:
    """A line on a terminal that is written over again and again; nothing elsewhere."""

    def __init__(self) -> None:
        self.on_terminal = sys.stderr is not None and sys.stderr.isatty()

    def write(self, text: str) -> None:
        if self.on_terminal:
            columns = os.get_terminal_size(2).columns or 80  # 0: it does not say
            sys.stderr.write(f"\r\x1b[K{cut(text, max(columns - 1, 20))}")
            sys.stderr.flush()

    def clear(self) -> None:
        if self.on_terminal:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()


class ProgressLine(StatusLine):
    """A line on a terminal, written over again and again, that says how far an experiment is; on
    no terminal, one line that says how long it takes, where that is long."""

    def __init__(self) -> None:
        super().__init__()
        self.progress: Progress | None = None
        self.since = 0.0
        self.announced = False

    def show(self, progress: Progress) -> None:
        """Show how far it is, before a run."""
        self.progress, self.since = progress, time.monotonic()
        left = progress.left
        if self.on_terminal:
            self.tick()
        elif left is not None and left > LONG and not self.announced:
            say("note", f"this takes {format_time(left)} at most; Ctrl-C reports what there is")
            self.announced = True

    def tick(self) -> None:
        """Show it again, with the time that has passed."""
        if self.progress:
            self.write(describe(self.progress, time.monotonic() - self.since))


def describe(progress: Progress, seconds: float) -> str:
    """Return how far it is, `seconds` after the last run began."""
    most = f" of {progress.most}" if progress.most else ""
    place = f"round {progress.number}{most}" if progress.number else "warm-up"
    left = "" if progress.left is None else f", {format_time(progress.left - seconds)} left at most"
    count = f"{progress.runs + 1} of {counted(progress.variants, 'variant')}"
    return f"{place}, {count}: {progress.name}, {seconds:.0f} s{left}"


def format_time(seconds: float) -> str:
    """Return `12 s`, `3 min` or `2 h 5 min`."""
    seconds = max(0, round(seconds))
    if seconds < 120:
        return f"{seconds} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


class WarmingBar(StatusLine):
    """A bar on a terminal while files are read into memory, and a note on each when they are."""

    def __init__(self) -> None:
        super().__init__()
        self.started = time.monotonic()

    def show(self, name: str, done: int, total: int) -> None:
        """Draw it, `done` of `total` bytes of all files."""
        filled = BAR * done // max(total, 1)
        speed = format_size(int(done / max(time.monotonic() - self.started, 0.001)))
        share = done * 100 // max(total, 1)
        self.write(f"warming [{'#' * filled:.<{BAR}}] {share:3} % {speed}/s {name}")

    def finish(self, results: Sequence[Warmed]) -> None:
        """Report what has become of each file."""
        self.clear()
        for result in results:
            say("note", describe_warmed(result))


def describe_warmed(result: Warmed) -> str:
    """Return `model.bin: 57.2 MiB in memory, on node 1; 57.2 MiB were elsewhere before`."""
    file, where = result.file, ""
    if file.mems and not result.left:  # what is left elsewhere is warned of
        where = ", on nodes that are not known"
    if where and result.counted and not result.uncounted:
        where = f", {'on' if file.mem == 'preferred' else 'over'} {label('node', file.mems)}"
    moved = f"; {format_size(result.moved)} were elsewhere before" if result.moved else ""
    name = os.path.basename(file.path)
    return f"{name}: {format_size(result.read)} in memory{where}{moved}"
