"""The process that the user started, when ranks are supervised: it forks the supervisor, passes
signals on to it, and exits with its status.

There are two processes so that whichever is killed, the other ends all that is left: the supervisor
is the parent of the ranks, and this process that of the supervisor.
"""

from __future__ import annotations

import os

from ompbind.errors import OmpbindError, system_error
from ompbind.launch.descendants import end_descendants
from ompbind.launch.pipes import make_pipe, parse_error, receive, send_error
from ompbind.launch.rank import flush
from ompbind.launch.supervisor import PASSED_ON, Supervisor, ending_signals
from ompbind.launch.syscalls import Library, name_signal, signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from ompbind.launch.rank import Launch


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
        library = Library()
        library.adopt()
        not_ours = list_children()
        control_reader, control = make_pipe()
        result, result_writer = make_pipe()
        pid = os.fork()
        if pid == 0:
            os.close(control)
            os.close(result)
            become_supervisor(launch, library, control_reader, result_writer, frozenset(sigmask))
        os.close(control_reader)
        os.close(result_writer)
        status = wait_for(pid, control, awaited)
        os.close(control)
        if status < 0:
            os.close(result)
            raise supervisor_killed(-status, end_descendants(not_ours))
        for message in receive(result):
            raise parse_error(message)
        return status
    finally:
        while pending := signal.sigpending() & awaited:  # too late to be passed on
            signal.sigwait(pending)
        signal.pthread_sigmask(signal.SIG_SETMASK, sigmask)


def list_children() -> list[int]:
    """Return the children that this process already had, from the program that became ompbind."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return []
    from ompbind.launch.descendants import list_descendants

    this = os.getpid()
    return [pid for pid, parent in list_descendants().items() if parent == this]


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
    except OmpbindError as e:
        status, error = e.status, e
    except OSError as e:  # no descriptors, no memory left
        error = system_error(e)
    except BaseException as e:
        error = OmpbindError(f"internal error: {e!r}")
    finally:
        flush()
        if error:
            send_error(result, error)
        os._exit(status)


# --- this process ---------------------------------------------------------------------------------


def wait_for(pid: int, control: int, awaited: set[int]) -> int:
    """Pass each signal on to the supervisor until it exits; return its status, or minus the signal
    that killed it.

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
            os.kill(pid, signal.SIGCONT)  # stopped, it would not pass it on


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


def supervisor_killed(number: int, left: list[int]) -> OmpbindError:
    """Return the error for a supervisor that a signal killed; `left`: who could not be ended."""
    message = f"the supervisor was killed by {name_signal(number)}: all ranks were ended"
    if left:
        message += f"; these processes cannot be ended: {', '.join(map(str, left))}"
    error = OmpbindError(message)
    error.status = 128 + number
    return error
