"""What a process that a Python program starts runs before the worker: it binds itself and becomes
the worker, with the same pid."""

from __future__ import annotations

import os
import sys

from ompbind import launch
from ompbind.cpuset import CpuSet
from ompbind.launch.binding import try_binding
from ompbind.launch.report import attend
from ompbind.launch.settings import Settings
from ompbind.plans import Binding, Host, Plan, RankPlan

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from collections.abc import Callable, Sequence
else:
    import _signal as signal


def make_words(plan: Plan, rank: RankPlan, argv: Sequence[str], on_denied: str) -> list[str]:
    """A rank's binding and its worker's own command, for `main` in the started process."""
    binding = (str(rank.rank), plan.binder, on_denied, str(rank.cpus), rank.mem, str(rank.mems))
    return [*binding, *argv]


def main(words: Sequence[str]) -> None:
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # as it is for the worker
    sys.exit(attend(words, become))


def become(words: Sequence[str], say: Callable[[str], None]) -> int:
    """Binds this process and becomes the worker. Raises DeniedError, CommandError."""
    number, binder, on_denied, cpu_text, mem, mem_text, *command = words
    binding = Binding(CpuSet.parse_kernel(cpu_text), mem, CpuSet.parse_kernel(mem_text), binder)
    if binder == "numactl":  # before numactl is: who started this must never find it unbound
        try_binding(binding)  # what is refused, launch.run finds out
    rank = RankPlan(int(number), binding, (), CpuSet(), (), (), tuple(command))
    plan = Plan(Host("", binding.cpus, binding.cpus, binding.mems), (rank,))
    return launch.run(plan, dict(os.environ), say, Settings(on_denied=on_denied))
