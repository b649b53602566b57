"""The process that the user started, when ranks are supervised, and the watcher. The former passes
signals on to the supervisor, and exits with its status.

There are three processes, each the parent of the next, so that whichever are killed, one that is
left ends all others: this one, the watcher, and the supervisor, the parent of the ranks. The
watcher has another name and process group: what kills all processes called ompbind spares it.
"""

from __future__ import annotations

import os

from ompbind.errors import OmpbindError, system_error
from ompbind.launch import descendants
from ompbind.launch.descendants import end_descendants
from ompbind.launch.pipes import make_pipe, parse_error, receive, send_error
from ompbind.launch.rank import flush
from ompbind.launch.streams import is_tagged
from ompbind.launch.supervisor import PASSED_ON, Supervisor, ending_signals
from ompbind.launch.syscalls import Library, name_signal, signal
from ompbind.machine.processes import read_argument_place
from ompbind.machine.roots import DirectoryRoot

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from ompbind.launch.rank import Launch

WATCHER = "rank-watcher"  # another name than this program's, which people kill by name


def run_supervised(launch: Launch) -> int:
    """Start every rank, wait for all, and return the first failure's status, or 0.

    Raises what kept them from starting; no process of theirs is left then.
    """
    numbers = ending_signals() | {getattr(signal, f"SIG{name}") for name in PASSED_ON}
    numbers = {n for n in numbers if signal.getsignal(n) is not signal.SIG_IGN}  # as by nohup
    awaited = numbers | {signal.SIGCHLD}
    flush()
    sigmask = signal.pthread_sigmask(signal.SIG_BLOCK, awaited | {signal.SIGTTOU})
    # Never called: with the default action, BSD and macOS drop it even while it is blocked.
    signal.signal(signal.SIGCHLD, lambda *_: None)
    try:
        # What the supervisor needs is loaded here: in a forked process that copies ten times as
        # many pages.
        if is_tagged(launch.settings, len(launch.plan.ranks)):
            from ompbind.launch import output  # noqa: F401
        library = Library()
        library.adopt()
        not_ours = list_children()
        control_reader, control = make_pipe()
        result, result_writer = make_pipe()
        pid = os.fork()
        if pid == 0:
            os.close(control)
            os.close(result)
            become_watcher(launch, library, control_reader, result_writer, frozenset(sigmask))
        launch.drop_lease()
        os.close(control_reader)
        os.close(result_writer)
        status = wait_for(pid, control, awaited)
        os.close(control)
        if status < 0:
            os.close(result)
            raise make_killed("watcher", -status, end_descendants(not_ours))
        for message in receive(result):
            raise parse_error(message)
        return status
    finally:
        drop_pending(awaited)
        signal.pthread_sigmask(signal.SIG_SETMASK, sigmask)


def drop_pending(awaited: set[int]) -> None:
    """Take the signals that came too late to be passed on. Another thread of this process may take
    one before, so this does not wait for it, where the system can do without."""
    while pending := signal.sigpending() & awaited:
        if hasattr(signal, "sigtimedwait"):
            signal.sigtimedwait(pending, 0)
        else:
            signal.sigwait(pending)


def list_children() -> list[int]:
    """Return the children that this process already had, from the program that became ompbind."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return []
    return descendants.list_children()


# --- the watcher's process ------------------------------------------------------------------------


def become_watcher(
    launch: Launch, library: Library, control: int, result: int, sigmask: frozenset[int]
) -> NoReturn:
    """In the child: fork the supervisor and exit with its status. If it is killed, end all its
    descendants, which this process adopts."""
    status, error = 125, None
    try:
        library.die_with_parent(signal.SIGCONT)  # for the supervisor, which may be stopped
        library.adopt()
        parent = os.getppid()
        pid = os.fork()
        if pid == 0:
            become_supervisor(launch, library, control, result, sigmask)
        launch.drop_lease()
        os.close(control)
        os.setpgid(0, 0)
        place = read_argument_place(DirectoryRoot("/"))
        library.rename(WATCHER, f"{WATCHER}: ends the ranks of {parent} if that is killed", place)
        status = watch(pid)
        if status < 0:
            error = make_killed("supervisor", -status, end_descendants())
    except BaseException as e:
        error = make_unexpected(e)
        end_descendants()
    finally:
        exit_child(result, status, error)


def watch(pid: int) -> int:
    """Wait for the supervisor, and let it go on whenever this process is told to; return its status
    as `wait_for` does."""
    awaited = {signal.SIGCHLD, signal.SIGCONT}
    signal.pthread_sigmask(signal.SIG_BLOCK, awaited)
    while (status := reap(pid)) is None:
        if signal.sigwait(awaited) == signal.SIGCONT:
            os.kill(pid, signal.SIGCONT)
    return os.waitstatus_to_exitcode(status)


# --- the supervisor's process ---------------------------------------------------------------------


def become_supervisor(
    launch: Launch, library: Library, control: int, result: int, sigmask: frozenset[int]
) -> NoReturn:
    """In the child: supervise the ranks, and exit with their status or report to `result` what kept
    them from starting."""
    status, error = 125, None
    try:
        import gc

        gc.disable()  # it would make the ranks' processes copy pages that they share with this one
        status = Supervisor(launch, library, control, sigmask).run()
    except BaseException as e:
        error = make_unexpected(e)
    finally:
        exit_child(result, status, error)


def make_unexpected(e: BaseException) -> OmpbindError:
    """Return an exception as an error that can be reported."""
    if isinstance(e, OmpbindError):
        return e
    if isinstance(e, OSError):  # no descriptors, no memory left
        return system_error(e)
    return OmpbindError(f"internal error: {e!r}")


def exit_child(result: int, status: int, error: OmpbindError | None) -> NoReturn:
    """End this process, with the error's status if there is one, and report that to `result`."""
    try:
        flush()
        if error:
            status = error.status
            send_error(result, error)
    finally:
        os._exit(status)


# --- this process ---------------------------------------------------------------------------------


def wait_for(pid: int, control: int, awaited: set[int]) -> int:
    """Pass each signal on to the supervisor until the watcher `pid` exits; return its status, or
    minus the signal that killed it.

    Signals are only ever waited for: nothing is interrupted, and nothing wakes up for nothing.
    """
    at_terminal = has_terminal()
    while True:
        number, from_terminal = wait_signal(awaited)
        if number == signal.SIGCHLD:
            status = reap(pid)
            if status is not None:
                return os.waitstatus_to_exitcode(status)
            continue
        if number == signal.SIGHUP and at_terminal and not has_terminal():
            from_terminal = True  # a shell has passed it on
        stops = number == signal.SIGTSTP
        if stops and from_terminal and not is_job():
            continue  # the kernel stops no process that no shell could continue
        try:
            os.write(control, bytes((number, from_terminal)))
        except OSError:
            continue  # it is exiting
        if stops:
            os.kill(os.getpid(), signal.SIGSTOP)
        elif number != signal.SIGCONT:
            os.kill(pid, signal.SIGCONT)  # stopped, the supervisor would not pass it on


def wait_signal(awaited: set[int]) -> tuple[int, bool]:
    """Return the next signal, and whether the terminal sent it."""
    if hasattr(signal, "sigwaitinfo"):
        info = signal.sigwaitinfo(awaited)
        return info.si_signo, info.si_code > 0 and info.si_signo != signal.SIGCHLD
    number = signal.sigwait(awaited)
    terminals = (signal.SIGINT, signal.SIGQUIT, signal.SIGTSTP)
    return number, number in terminals and os.isatty(0)


def has_terminal() -> bool:
    """Whether this process's session has a terminal that still exists."""
    try:
        os.close(os.open(os.ctermid(), os.O_RDONLY | os.O_NOCTTY))
    except OSError:
        return False
    return True


def is_job() -> bool:
    """Whether there is a shell that can continue this process's group."""
    parent = os.getppid()
    try:
        return os.getsid(parent) == os.getsid(0) and os.getpgid(parent) != os.getpgrp()
    except OSError:
        return False


def reap(pid: int) -> int | None:
    """Reap children that have exited; return the wait status of `pid` if it is among them."""
    result = None
    try:
        while True:
            child, status = os.waitpid(-1, os.WNOHANG)
            if child == pid:
                result = status
            if child in (0, pid):
                return result
    except ChildProcessError:
        return result


def make_killed(name: str, number: int, left: list[int]) -> OmpbindError:
    """Return the error for one of these processes that a signal killed; `left`: who could not be
    ended."""
    message = f"the {name} was killed by {name_signal(number)}: all ranks were ended"
    if left:
        message += f"; these processes cannot be ended: {', '.join(map(str, left))}"
    error = OmpbindError(message)
    error.status = 128 + number
    return error
