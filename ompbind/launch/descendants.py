"""Ending the descendants of this process, and nothing else.

They are numbered here as /proc numbers them, which may be that of an outer pid namespace (`unshare
--pid` without --mount-proc): signals go to the number that a process has in this one.
"""

from __future__ import annotations

import errno
import os
import time

from ompbind.launch.syscalls import signal
from ompbind.machine.processes import make_family, read_numbers, read_parent, read_parents
from ompbind.machine.roots import DirectoryRoot

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection

PAUSE = 0.02  # seconds between two rounds of killing


def can_list() -> bool:
    """Whether the system lists the processes of this one's namespace."""
    return bool(read_numbers(DirectoryRoot("/"), "self"))


def list_descendants(without: Collection[int] = ()) -> dict[int, int]:
    """Return the parent of each descendant of this process, except the processes `without` and
    their descendants; {} where the system does not list processes."""
    ours = read_numbers(DirectoryRoot("/"), "self")
    if not ours:
        return {}
    parents = read_parents(DirectoryRoot("/"))
    families = make_family([ours[0], *without], parents)
    excepted = {pid for root in without for pid in (root, *families[root])}
    return {pid: parents[pid] for pid in families[ours[0]] if pid not in excepted}


def list_children() -> list[int]:
    """Return the children of this process."""
    ours = read_numbers(DirectoryRoot("/"), "self")
    return [pid for pid, parent in list_descendants().items() if parent == ours[0]]


def send_to_descendants(*numbers: int, without: Collection[int] = ()) -> list[int]:
    """Send signals to each descendant, and return their pids."""
    ours = read_numbers(DirectoryRoot("/"), "self")
    descendants = list_descendants(without)
    for pid, parent in descendants.items():
        send_to_descendant(pid, parent, numbers, ours)
    return list(descendants)


def send_to_descendant(
    pid: int, parent: int, signals: Collection[int], ours: tuple[int, ...]
) -> None:
    """Send signals to a process if it is still the child of `parent`, or of this process, which
    adopts it when `parent` exits: its pid may belong to an unrelated process by now. `ours`: the
    numbers of this process.

    A descriptor of the process, opened before that is checked, keeps the signals from a process
    that gets the pid after it. Pythons built on old kernel headers (conda's, uv's) cannot open one,
    nor can old kernels and some containers; then that moment is left open.
    """
    number = find_number(pid, ours)
    if not number:
        return  # it has exited since
    fd = open_process(number)
    try:
        is_ours = read_parent(DirectoryRoot("/"), pid) in (parent, ours[0])
        if is_ours and find_number(pid, ours) == number:
            for signal_number in signals:
                send_through(fd, number, signal_number)
    except OSError:
        pass  # it has exited since, or belongs to another user
    finally:
        if fd is not None:
            os.close(fd)


def find_number(pid: int, ours: tuple[int, ...]) -> int:
    """Return the number that a process has in the pid namespace of this one, whose numbers are
    `ours`; 0 if it has exited."""
    if ours[0] == ours[-1]:  # as nearly always: /proc is of this namespace
        return pid
    return (*read_numbers(DirectoryRoot("/"), pid), *[0] * len(ours))[len(ours) - 1]


def open_process(pid: int) -> int | None:
    """Return a descriptor of a process, None where there are none."""
    if not hasattr(os, "pidfd_open") or not hasattr(signal, "pidfd_send_signal"):
        return None
    try:
        return os.pidfd_open(pid)
    except OSError:
        return None


def send_through(fd: int | None, pid: int, number: int) -> None:
    """Send a signal to a process through its descriptor, or to its pid. Raises OSError."""
    if fd is not None:
        try:
            signal.pidfd_send_signal(fd, number)
            return
        except PermissionError:
            pass  # another user's process, or a container that denies the call
        except OSError as e:
            if e.errno != errno.ENOSYS:
                raise
    os.kill(pid, number)


def end_descendants(without: Collection[int] = (), patience: float = 5.0) -> list[int]:
    """Kill all descendants and wait until they are gone. Return those that remain after `patience`
    seconds: another user's, or stuck in the kernel."""
    end = time.monotonic() + patience
    while True:
        left = send_to_descendants(signal.SIGKILL, without=without)
        reap()
        if not left or time.monotonic() > end:
            return left
        time.sleep(PAUSE)


def reap() -> None:
    """Reap children that have exited."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass
