"""Several ranks, seen from the process that the user started: it forks the supervisor, tells it the
signals that come, and ends with its status.

Two processes, so that whichever is killed, the other one ends all that is left: the supervisor is
the parent of the ranks, and this one that of the supervisor.
"""

from __future__ import annotations

import os

from ompbind.errors import CommandError, DeniedError, OmpbindError
from ompbind.launch.descendants import end_descendants
from ompbind.launch.outcome import name_signal
from ompbind.launch.pipes import make_pipe, read_all
from ompbind.launch.rank import flush
from ompbind.launch.supervisor import Supervisor
from ompbind.launch.syscalls import Library

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from collections.abc import Callable
    from typing import NoReturn

    from ompbind.launch.rank import Start
    from ompbind.launch.settings import Settings
    from ompbind.launch.streams import Streams
    from ompbind.plans import Plan
else:
    import _signal as signal  # `signal` itself wraps this in enums, a third of the whole start-up

TOLD = ("INT", "TERM", "HUP", "QUIT", "USR1", "USR2", "TSTP", "CONT")


def run_supervised(
    plan: Plan,
    make_starts: Callable[[Plan], list[Start]],
    settings: Settings,
    say: Callable[[str], None],
    streams: Streams,
) -> int:
    """Starts every rank, waits for all, and returns the first failure's status, or 0.

    Raises what kept them from starting; nothing is then left of them.
    """
    told = {getattr(signal, f"SIG{n}") for n in TOLD}
    told = {n for n in told if signal.getsignal(n) is not signal.SIG_IGN}  # as by nohup
    waited = told | {signal.SIGCHLD}
    flush()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, waited | {signal.SIGTTOU})
    # Never called: with the default action, BSD and macOS drop it even while it is blocked.
    signal.signal(signal.SIGCHLD, lambda *_: None)
    try:
        library = Library()
        library.adopt()
        others = list_children()
        theirs, control = make_pipe()
        result, own = make_pipe()
        pid = os.fork()
        if pid == 0:
            os.close(control)
            os.close(result)
            become_supervisor(plan, make_starts, settings, say, streams, library, theirs,
                              own, frozenset(before))  # fmt: skip
        os.close(theirs)
        os.close(own)
        status = wait_for(pid, control, waited)
        os.close(control)
        if status < 0:
            os.close(result)
            raise lost(-status, end_descendants(others))
        text = read_all(result).decode("utf-8", "surrogateescape")
        if text:
            raise parse_error(text)
        return status
    finally:
        while pending := signal.sigpending() & waited:  # too late to be told
            signal.sigwait(pending)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def list_children() -> list[int]:
    """Children that this process already had, from the program that has become ompbind."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return []
    from ompbind.launch.descendants import list_descendants

    own = os.getpid()
    return [pid for pid, parent in list_descendants().items() if parent == own]


# --- the supervisor's process ---------------------------------------------------------------------


def become_supervisor(
    plan: Plan,
    make_starts: Callable[[Plan], list[Start]],
    settings: Settings,
    say: Callable[[str], None],
    streams: Streams,
    library: Library,
    control: int,
    result: int,
    sigmask: frozenset[int],
) -> NoReturn:
    """In the child: watches over the ranks, and ends with their status or says what kept them from
    starting."""
    status, text = 125, ""
    try:
        import gc

        gc.disable()  # it would only make the ranks' processes copy what they share with this one
        group = os.getpgrp()
        at_terminal = os.isatty(0)
        if settings.stdin != "all" or not at_terminal:  # who reads a terminal stays in its group
            os.setpgid(0, 0)
        library.adopt()
        library.die_with_parent(signal.SIGCONT)  # stopped, it could not see its end
        foreground = settings.reader if at_terminal else None
        status = Supervisor(
            plan, make_starts, settings, say, streams, library,
            control=control, sigmask=sigmask, group=group, foreground=foreground,
        ).run()  # fmt: skip
    except OmpbindError as e:
        status, text = e.status, make_error_text(e)
    except OSError as e:  # no descriptors, no memory left
        text = make_error_text(OmpbindError(f"the system refuses: {e}"))
    except BaseException as e:
        text = make_error_text(OmpbindError(f"a fault of ompbind's own: {e!r}"))
    finally:
        flush()
        if text:
            os.write(result, text.encode("utf-8", "surrogateescape")[:60000])
        os._exit(status)


def make_error_text(error: OmpbindError) -> str:
    """An error, for the other process: its kind, status, data, message and hint."""
    rank, part = error.data.get("rank", ""), error.data.get("part", "")
    return "\0".join(
        (type(error).__name__, str(error.status), str(rank), str(part), error.message, error.hint)
    )


def parse_error(text: str) -> OmpbindError:
    kind, status, rank, part, message, hint = text.split("\0")
    error: OmpbindError
    if kind == "DeniedError":
        error = DeniedError(message, hint=hint, rank=int(rank), part=part)
    elif kind == "CommandError":
        error = CommandError(message, found=status == "126", hint=hint)
    else:
        error = OmpbindError(message, hint=hint)
        error.status = int(status)
    return error


# --- this process ---------------------------------------------------------------------------------


def wait_for(pid: int, control: int, waited: set[int]) -> int:
    """Tells the supervisor each signal until it ends: its status, minus the signal that ended it.

    Signals are only ever waited for, so nothing interrupts and nothing wakes up for nothing.
    """
    at_terminal = has_terminal()
    while True:
        number, from_terminal = wait_signal(waited)
        if number == signal.SIGCHLD:
            status = reap(pid)
            if status is not None:
                return os.waitstatus_to_exitcode(status)
            continue
        if number == signal.SIGHUP and at_terminal and not has_terminal():
            from_terminal = True  # a shell has passed it on
        stops = number == signal.SIGTSTP
        if stops and from_terminal and not is_job():
            continue  # the kernel stops nobody whom no shell could continue
        try:
            os.write(control, bytes((number, from_terminal)))
        except OSError:
            continue  # it is just ending
        if stops:
            os.kill(os.getpid(), signal.SIGSTOP)
        elif number != signal.SIGCONT:
            os.kill(pid, signal.SIGCONT)  # stopped, it would not pass it on


def wait_signal(waited: set[int]) -> tuple[int, bool]:
    """The next signal, and whether the terminal sent it."""
    if hasattr(signal, "sigwaitinfo"):
        info = signal.sigwaitinfo(waited)
        return info.si_signo, info.si_code > 0 and info.si_signo != signal.SIGCHLD
    number = signal.sigwait(waited)
    terminals = (signal.SIGINT, signal.SIGQUIT, signal.SIGTSTP)
    return number, number in terminals and os.isatty(0)


def has_terminal() -> bool:
    """Whether this process' session has a terminal that is still there."""
    try:
        os.close(os.open(os.ctermid(), os.O_RDONLY | os.O_NOCTTY))
    except OSError:
        return False
    return True


def is_job() -> bool:
    """Whether a shell is there that can continue this process' group."""
    parent = os.getppid()
    try:
        return os.getsid(parent) == os.getsid(0) and os.getpgid(parent) != os.getpgrp()
    except OSError:
        return False


def reap(pid: int) -> int | None:
    """Takes away children that have ended, and says how `pid` has, if it has."""
    found = None
    try:
        while True:
            ended, status = os.waitpid(-1, os.WNOHANG)
            if ended == pid:
                found = status
            if ended in (0, pid):
                return found
    except ChildProcessError:
        return found


def lost(number: int, left: list[int]) -> OmpbindError:
    """The supervisor was killed."""
    what = f"the supervising process was ended by {name_signal(number)}: so were all ranks"
    if left:
        what += f"; these processes cannot be ended: {', '.join(map(str, left))}"
    error = OmpbindError(what)
    error.status = 128 + number
    return error
