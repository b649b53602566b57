"""What runs in a process that a Python program starts, before the worker does: it binds itself and
becomes the worker, with the same pid. What it reports goes through a pipe that exec closes."""

from __future__ import annotations

import os
import sys

from ompbind import launch
from ompbind.cpuset import CpuSet
from ompbind.errors import OmpbindError
from ompbind.launch.binding import try_binding
from ompbind.launch.pipes import send, send_error
from ompbind.launch.syscalls import signal
from ompbind.plans import Binding, Host, Plan, RankPlan

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Act = Callable[[Sequence[str], Callable[[str], None]], int]


def make_words(rank: RankPlan, command: Sequence[str], on_denied: str) -> list[str]:
    """Return a rank's binding and its worker's command as words for `main`."""
    binding = rank.binding
    texts = (str(binding.cpus), binding.mem, str(binding.mems), "balancing" * binding.balancing)
    return [str(rank.rank), binding.binder, on_denied, *texts, *command]


def main(words: Sequence[str]) -> None:
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # as it is for the worker
    sys.exit(run_and_report(words, become_worker))


def become_worker(words: Sequence[str], say: Callable[[str], None]) -> int:
    """Bind this process and become the worker. Raises DeniedError, CommandError."""
    number, binder, on_denied, cpus, mem, nodes, balancing, *command = words
    mems = CpuSet.parse_kernel(nodes)
    binding = Binding(CpuSet.parse_kernel(cpus), mem, mems, binder, bool(balancing))
    if binder == "numactl":  # before numactl does: the process that starts this never sees it free
        try_binding(int(number), binding)  # launch.run reports what is denied
    rank = RankPlan(int(number), binding, (), CpuSet(), (), (), tuple(command))
    plan = Plan(Host("", binding.cpus, binding.cpus, binding.mems), (rank,))
    return launch.run(plan, dict(os.environ), say, launch.Settings(on_denied=on_denied))


def run_and_report(words: Sequence[str], act: Act) -> int:
    """Call `act` with all but the first two words, and return the exit status.

    The first word is the descriptor to which "begun", warnings, an error and the status are
    reported. The second is LC_CTYPE as the worker should have it, since Python sets one of its own
    where the locale is C: "" for unset, else = and the value.
    """
    fd, ctype, *rest = int(words[0]), *words[1:]
    os.set_inheritable(fd, False)
    if ctype:
        os.environ["LC_CTYPE"] = ctype.removeprefix("=")
    else:
        os.environ.pop("LC_CTYPE", None)
    send(fd, "begun")
    try:
        status = act(rest, lambda text: send(fd, "warning", text))
    except OmpbindError as e:
        send_error(fd, e)
        return e.status
    except KeyboardInterrupt:
        status = 130
    except BaseException as e:
        send_error(fd, OmpbindError(f"the process could not be started: {e!r}"))
        return 125
    send(fd, "status", str(status))
    return status
