"""Several ranks: starting them all or none, and waiting for them."""

from __future__ import annotations

import os

from ompbind.errors import CommandError
from ompbind.launch.binding import read_all, try_binding
from ompbind.launch.refusals import Refusal, denied
from ompbind.launch.start import cannot_execute, flush, restore_signals

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from collections.abc import Sequence
    from typing import NoReturn

    from ompbind.launch.start import Start
    from ompbind.plans import Plan
else:
    import _signal as signal  # `signal` itself wraps this in enums, a third of the whole start-up

GRACE = 10.0  # seconds from TERM to KILL for ranks that outlive a failed one


def run_children(plan: Plan, starts: Sequence[Start]) -> int:
    """Starts every rank as a child, waits for all, and returns the first failure's status, or 0.

    Signals are only ever waited for, so nothing interrupts and nothing wakes up for nothing.
    """
    names = ("INT", "TERM", "HUP", "QUIT", "USR1", "USR2")
    passed_on = {getattr(signal, f"SIG{n}") for n in names}
    waited = passed_on | {signal.SIGCHLD, signal.SIGALRM}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, waited)
    # Never called: with the default action, BSD and macOS drop it even while it is blocked.
    signal.signal(signal.SIGCHLD, lambda *_: None)
    children: dict[int, int] = {}  # pid: rank
    try:
        start_all(plan, starts, children, before)
        return wait_for_all(children, waited, passed_on)
    except BaseException:
        end(children)
        raise
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def start_all(
    plan: Plan, starts: Sequence[Start], children: dict[int, int], sigmask: set[int]
) -> None:
    """Forks and executes every rank; `children` gets their pids. Raises what kept one from
    starting; the caller then ends the others."""
    flush()
    ours, theirs = os.pipe()  # closed by exec: when it ends with no word, all are on their way
    for start in starts:
        try:
            pid = os.fork()
        except OSError as e:
            os.close(theirs)
            os.close(ours)
            reason = e.strerror or str(e)
            raise CommandError(
                f"rank {start.rank.rank}: no process can be made for it: {reason}", found=True
            ) from None
        if pid == 0:
            become(plan, start, sigmask, theirs)
        children[pid] = start.rank.rank
    os.close(theirs)
    if lines := read_all(ours).splitlines():
        rank_text, part, reason = lines[0].split("\t", 2)
        start = starts[int(rank_text)]
        if part == "exec":
            raise cannot_execute(start, reason)
        raise denied(start.rank, Refusal(start.rank.rank, part, reason))


def become(plan: Plan, start: Start, sigmask: set[int], report: int) -> NoReturn:
    """In the child: binds and becomes the worker, or reports in a line why not."""
    part, reason = "exec", ""
    try:
        rank = start.rank
        refused = []
        if plan.binder == "native":
            refused = try_binding(rank.cpus, rank.mem, rank.mems)
        if refused:
            part, reason = refused[0]
        else:
            restore_signals()
            redirect(start)
            signal.pthread_sigmask(signal.SIG_SETMASK, sigmask)
            os.execve(start.path, rank.argv, start.env)
    except OSError as e:
        reason = e.strerror or str(e)
    except BaseException as e:
        reason = repr(e)
    finally:
        os.write(report, f"{start.rank.rank}\t{part}\t{reason}\n".encode("utf-8", "replace"))
        os._exit(125)


def redirect(start: Start) -> None:
    """Makes the rank's own descriptors this process' standard ones."""
    for fd, own in enumerate((start.stdin, start.stdout, start.stderr)):
        if own is not None:
            os.dup2(own, fd)  # exec closes `own`, as every descriptor that Python made


def wait_for_all(children: dict[int, int], waited: set[int], passed_on: set[int]) -> int:
    """Waits for every child, passing signals on; a failure ends the others."""
    first_failure = 0
    while children:
        number, from_terminal = wait_signal(waited)
        if number == signal.SIGALRM:
            send(children, signal.SIGKILL)
        elif number != signal.SIGCHLD:
            if not from_terminal:  # the terminal has sent it to the whole foreground group
                send(children, number)
        else:
            for status in reap(children):
                if status and not first_failure:
                    first_failure = status
                    send(children, signal.SIGTERM)
                    signal.setitimer(signal.ITIMER_REAL, GRACE)
    signal.setitimer(signal.ITIMER_REAL, 0)
    return first_failure


def wait_signal(waited: set[int]) -> tuple[int, bool]:
    """The next signal, and whether the terminal sent it."""
    if hasattr(signal, "sigwaitinfo"):
        info = signal.sigwaitinfo(waited)
        return info.si_signo, info.si_code > 0 and info.si_signo != signal.SIGCHLD
    number = signal.sigwait(waited)
    return number, number in (signal.SIGINT, signal.SIGQUIT) and os.isatty(0)


def reap(children: dict[int, int]) -> list[int]:
    """Takes away those that have ended: their statuses, 128+N for a signal N."""
    statuses = []
    for pid in list(children):
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            del children[pid]
            code = os.waitstatus_to_exitcode(status)
            statuses.append(code if code >= 0 else 128 - code)
    return statuses


def send(children: dict[int, int], number: int) -> None:
    for pid in children:
        os.kill(pid, number)  # not reaped yet, so the number is still this child's


def end(children: dict[int, int]) -> None:
    """After a start that failed: nothing stays behind."""
    send(children, signal.SIGKILL)
    for pid in children:
        os.waitpid(pid, 0)
    children.clear()
