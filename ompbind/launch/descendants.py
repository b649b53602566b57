"""Ending what descends from this process, and nothing else."""

from __future__ import annotations

import os
import time

from ompbind.machine.processes import make_family, read_parent, read_parents
from ompbind.machine.roots import DirectoryRoot

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from collections.abc import Collection
else:
    import _signal as signal  # `signal` itself wraps this in enums, a third of the whole start-up

PAUSE = 0.02  # seconds between two rounds of killing


def list_descendants(without: Collection[int] = ()) -> dict[int, int]:
    """The parent of each process that descends from this one, neither those in `without` nor what
    descends from them; {} where the system does not tell."""
    parents = read_parents(DirectoryRoot("/"))
    own = os.getpid()
    families = make_family([own, *without], parents)
    others = {pid for root in without for pid in (root, *families[root])}
    return {pid: parents[pid] for pid in families[own] if pid not in others}


def send_to_descendants(*numbers: int, without: Collection[int] = ()) -> list[int]:
    """Sends signals to each of them, and says who they are."""
    listed = list_descendants(without)
    for pid, parent in listed.items():
        send_to_descendant(pid, parent, numbers)
    return list(listed)


def send_to_descendant(pid: int, parent: int, numbers: Collection[int]) -> None:
    """Only while it still is the child of the parent that it was listed with, or has lost that one
    to us: meanwhile its number could have become somebody else's."""
    try:
        fd = os.pidfd_open(pid)
    except OSError:
        return  # it has gone
    try:
        if read_parent(DirectoryRoot("/"), pid) in (parent, os.getpid()):
            for number in numbers:
                signal.pidfd_send_signal(fd, number)
    except OSError:
        pass  # it has gone meanwhile, or belongs to another user
    finally:
        os.close(fd)


def end_descendants(without: Collection[int] = (), patience: float = 5.0) -> list[int]:
    """Kills all of them and waits until they are gone; who is still there when that takes longer
    than `patience` seconds: another user's, or stuck in the kernel."""
    end = time.monotonic() + patience
    while True:
        left = send_to_descendants(signal.SIGKILL, without=without)
        reap()
        if not left or time.monotonic() > end:
            return left
        time.sleep(PAUSE)


def reap() -> None:
    """Takes away children that have ended."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass
