"""Signals: their names, the dispositions a worker starts with, and sending them to children.

`signal` is the C module: Python's own wraps it in enums, which takes a third of the whole start-up.
Every module of this package takes it from here.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
else:
    import _signal as signal

__all__ = ["name_signal", "restore_signals", "send_to", "signal"]


def name_signal(number: int) -> str:
    """Return a signal's number and name: `signal 9 (KILL)`."""
    names = [n for n in dir(signal) if n.startswith("SIG") and n[3:4].isalpha()]
    for name in sorted(names):
        if getattr(signal, name) == number and name not in ("SIGCLD", "SIGPOLL", "SIGIOT"):
            return f"signal {number} ({name[3:]})"
    return f"signal {number}"


def restore_signals() -> None:
    """Undo what Python changed at its start: it ignores PIPE and XFSZ, and handles INT."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    for name in ("SIGPIPE", "SIGXFSZ"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_DFL)


def send_to(pid: int, number: int, *, group: bool = False) -> None:
    """Send a signal to a child that has not been reaped, or to its whole process group."""
    try:
        if group:
            os.killpg(pid, number)
        else:
            os.kill(pid, number)
    except OSError:
        pass  # it runs as another user now, or its group is gone
