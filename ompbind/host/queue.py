"""Taking cpus that nobody else holds: one launch at a time, and those that wait in turn.

Two locks make it fair, on directories above that of the cpus. The *door* is locked for the moment
in which a launch looks which cpus are free and takes some, so that no two take the same. The *line*
is locked by the first of those that wait, until it has what it asked for; the others wait for this
lock, and the kernel hands it on in the order in which they came. So nobody is overtaken, a large
request neither, and no more than one process looks again and again, 20 times a second: no event
says that a lease ended. Whoever is killed leaves door and line by that.

A launch that does not wait goes through the door alone, unless somebody waits for cpus.
"""

from __future__ import annotations

import fcntl
import os
import time

from ompbind import host
from ompbind.errors import OmpbindError, PlanError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    from ompbind.cpuset import CpuSet
    from ompbind.host import Lease

PAUSE = 0.05  # seconds between two looks of the first in line
PATIENCE = 10.0  # seconds to wait for the door, which is locked for milliseconds
WAITING = 1 << 40  # the byte that the first in line locks beside its cpus: far above any cpu


class OutOfTimeError(Exception):
    """The time to wait is over."""


def take(
    lease: Lease,
    choose: Callable[[], CpuSet],
    subject: str,
    *,
    wait: float | None = None,
    in_turn: bool = True,
    looks_again: bool = True,
    on_wait: Callable[[], None] = lambda: None,
) -> CpuSet:
    """Hold what `choose` returns by `lease`, and return it. `subject`: what errors are about.

    `choose` looks for cpus that nobody else holds; it raises PlanError where there are none.
    `wait`: the seconds for which it is asked again then, before that is raised; None: it is not.
    `in_turn`: without `wait`, do not go ahead of those who wait. `looks_again`: others who hold
    these cpus after they were taken, having come through no door, are not this launch itself.
    `on_wait` is called before waiting begins. Raises OmpbindError.
    """
    if wait is not None:
        return take_in_turn(lease, choose, subject, wait, looks_again, on_wait)
    door = lock_door(PATIENCE)
    try:
        if in_turn and is_awaited(lease):
            text = f"{subject}: other launches wait for free cpus, and come first"
            raise PlanError(text, hint="--wait waits in turn; ompbind ps shows who holds what")
        return try_once(lease, choose, looks_again)
    finally:
        os.close(door)


def take_in_turn(
    lease: Lease,
    choose: Callable[[], CpuSet],
    subject: str,
    wait: float,
    looks_again: bool,
    on_wait: Callable[[], None],
) -> CpuSet:
    """Wait in line, and take what `choose` returns as soon as it does. Raises OmpbindError."""
    reason = PlanError(f"{subject}: others have waited longer for free cpus")
    line = open_directory(os.path.dirname(os.path.dirname(host.CPUS)))
    is_first = waited = False
    try:
        is_first = try_lock(line)
        with Alarm(wait):
            if not is_first:
                waited = True
                on_wait()
                fcntl.flock(line, fcntl.LOCK_EX)
                is_first = True
            while True:
                door = lock_door(None)
                try:
                    cpus = try_once(lease, choose, looks_again)
                    mark_waiting(lease, waiting=False)
                    return cpus
                except PlanError:
                    mark_waiting(lease, waiting=True)
                finally:
                    os.close(door)
                if not waited:
                    waited = True
                    on_wait()
                time.sleep(PAUSE)
    except OutOfTimeError:
        if is_first:  # a last look, however little time there was
            door = lock_door(PATIENCE)
            try:
                return try_once(lease, choose, looks_again)
            except PlanError as e:
                reason = e
            finally:
                mark_waiting(lease, waiting=False)
                os.close(door)
        text = f"{reason.message}; the time of --wait={wait:g} is over"
        raise PlanError(text, hint="", **reason.data) from None
    finally:
        os.close(line)


def try_once(lease: Lease, choose: Callable[[], CpuSet], looks_again: bool) -> CpuSet:
    """Take what `choose` returns; the door is locked. Raises OmpbindError."""
    while True:
        cpus = choose()
        if not lease.hold(cpus):
            raise OmpbindError("cpus cannot be held: the kernel has no locks left")
        # Launches that want nothing for themselves alone lock no door, but hold before they look.
        # So of two that come together at least one sees the other: here, or there as a warning.
        if not looks_again or not lease.find_others(cpus):
            return cpus
        lease.give_up(cpus)


def mark_waiting(lease: Lease, *, waiting: bool) -> None:
    """Lock the byte by which others see that somebody waits, or unlock it."""
    kind = fcntl.F_RDLCK if waiting else fcntl.F_UNLCK
    fcntl.fcntl(lease.fd, fcntl.F_OFD_SETLK, host.make_lock(kind, WAITING, 1))


def is_awaited(lease: Lease) -> bool:
    """Whether somebody else waits for cpus, as the first in line."""
    question = host.make_lock(fcntl.F_WRLCK, WAITING, 1)
    answer = fcntl.fcntl(lease.fd, fcntl.F_OFD_GETLK, question)
    return host.parse_lock(answer)[0] != fcntl.F_UNLCK


def lock_door(patience: float | None) -> int:
    """Lock the door, and return the descriptor that keeps it locked. `patience`: the seconds after
    which to give up, None for never. Raises OmpbindError."""
    directory = os.path.dirname(host.CPUS)
    fd = open_directory(directory)
    try:
        if not try_lock(fd):
            with Alarm(patience):
                fcntl.flock(fd, fcntl.LOCK_EX)
        return fd
    except OutOfTimeError:
        os.close(fd)
        if patience is None:  # the time of whoever called this is over
            raise
        raise OmpbindError(
            f"another process has locked {directory} for {patience:g} s: no cpus can be taken",
            hint="/proc/locks has its pid",
        ) from None
    except BaseException:
        os.close(fd)
        raise


def open_directory(path: str) -> int:
    """Return a descriptor of a directory. Raises OmpbindError."""
    try:
        return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as e:
        raise OmpbindError(f"cpus cannot be taken here: {path}: {e.strerror}") from None


def try_lock(fd: int) -> bool:
    """Lock a file if nobody else has; return whether it is locked now."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except BlockingIOError:
        return False


class Alarm:
    """Raises OutOfTimeError in this block after some seconds, whatever it waits for; not for None
    or an infinite number."""

    def __init__(self, seconds: float | None) -> None:
        self.seconds = float("inf") if seconds is None else seconds

    def __enter__(self) -> None:
        if self.seconds == float("inf"):
            return
        import signal

        self.before = signal.signal(signal.SIGALRM, self.ring)
        self.mask = signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGALRM])
        signal.setitimer(signal.ITIMER_REAL, max(self.seconds, 0.001))

    def __exit__(self, *_: object) -> None:
        if self.seconds == float("inf"):
            return
        import signal

        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, self.before)
        signal.pthread_sigmask(signal.SIG_SETMASK, self.mask)

    def ring(self, number: int, frame: FrameType | None) -> None:
        raise OutOfTimeError
