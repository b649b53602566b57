"""What the process that `ompbind.run` starts does: it is `ompbind run`, and tells its refusals to
who started it."""

from __future__ import annotations

import os
import sys

from ompbind.cli.run import run
from ompbind.launch.rank import die_with
from ompbind.launch.trampoline import run_and_report

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


def main(words: Sequence[str]) -> None:
    sys.exit(run_and_report(words, watch))


def watch(words: Sequence[str], _: Callable[[str], None]) -> int:
    """Runs the plan that can be read from the descriptor named second, as long as the process named
    first lives. Raises OmpbindError."""
    parent, plan, *rest = words
    die_with(int(parent))
    os.set_inheritable(int(plan), False)
    return run(["--plan", f"/dev/fd/{plan}", *rest])
