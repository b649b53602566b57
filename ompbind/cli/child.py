"""The process that `ompbind.run` starts: `ompbind run`, which reports refusals to its starter."""

from __future__ import annotations

import json
import os
import sys

from ompbind.cli.run import start
from ompbind.launch.rank import die_with
from ompbind.launch.trampoline import run_and_report

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


def main(words: Sequence[str]) -> None:
    sys.exit(run_and_report(words, watch))


def watch(words: Sequence[str], _: Callable[[str], None]) -> int:
    """Run a saved plan for as long as another process lives. Raises OmpbindError.

    `words`: that process' number, the descriptor to read the plan from, the values of options of
    `run` as JSON, and the workers' command, if it is not the plan's.
    """
    parent, plan, settings, *command = words
    die_with(int(parent))
    os.set_inheritable(int(plan), False)
    # Whoever made the plan has looked for neighbours, and has what was seen in its warnings.
    # A program's plan is its own, with all variables.
    values = json.loads(settings) | {
        "plan": f"/dev/fd/{plan}",
        "plan_env": True,
        "neighbours": False,
    }
    return start(values, command)
