"""A launch that is measured: carried out in a child of this process, to its end, with the ranks'
output in files. Whatever interrupts this process ends the ranks as well.
"""

from __future__ import annotations

import os
import select
import sys
import time

from ompbind import launch
from ompbind.errors import OmpbindError
from ompbind.launch.rank import Settings, flush
from ompbind.launch.syscalls import Library, signal
from ompbind.messages import say
from ompbind.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any, NoReturn

    from ompbind.plans import Plan

REPORT = "report.json"
MESSAGES = "messages"  # the file of what ompbind itself said
REQUESTS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # to end
TICK = 0.5  # seconds at most between two calls of `tick`


class Trial(Record):
    """A launch that has ended. `status`: of the first rank that failed, as a shell has it, else 0;
    `timed_out`: it was ended for taking too long; `ranks`: what each rank has used, as --report has
    it, () where none was started."""

    status: int
    timed_out: bool = False
    ranks: tuple[Mapping[str, Any], ...] = ()


def run_trial(
    plan: Plan,
    environ: Mapping[str, str],
    directory: str,
    *,
    grace: float = 10.0,
    on_denied: str = "error",
    timeout: float | None = None,
    tick: Callable[[], object] | None = None,
) -> Trial:
    """Start every rank as planned, and wait until all have ended and nothing of theirs is left.

    Each rank's output is in `directory` then, as --output-dir has it, and what ompbind said in
    MESSAGES; their standard input is empty. `timeout`: seconds after which they are ended; `tick`
    is called now and then, at least every TICK seconds. An exception, as KeyboardInterrupt, ends
    the ranks before it goes on. Raises OSError where there is no process or descriptor left.
    """
    settings = Settings(on_denied=on_denied, watched=True, grace=grace, output_dir=directory,
                        stdin="none", report=os.path.join(directory, REPORT))  # fmt: skip
    flush()
    reader, writer = os.pipe()  # all processes of the launch but the ranks hold `writer`
    try:
        pid = os.fork()
        if pid == 0:
            become_launch(plan, environ, settings, os.path.join(directory, MESSAGES))
    finally:
        os.close(writer)
    try:
        timed_out = not wait_for_end(reader, timeout, tick)
        if timed_out:
            os.kill(pid, signal.SIGTERM)
        _, status = os.waitpid(pid, 0)
    except BaseException:
        end(pid)
        raise
    finally:
        os.close(reader)
    code = os.waitstatus_to_exitcode(status)
    return Trial(
        status=code if code >= 0 else 128 - code,
        timed_out=timed_out,
        ranks=read_ranks(settings.report),
    )


def read_ranks(path: str) -> tuple[Mapping[str, Any], ...]:
    """Return the ranks of a launch's report; () where it has written none, as nothing started."""
    import json

    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return tuple(json.load(file)["ranks"])
    except FileNotFoundError:
        return ()


def wait_for_end(reader: int, timeout: float | None, tick: Callable[[], object] | None) -> bool:
    """Wait until nobody holds the other end of a pipe; return whether that was in time."""
    poll = select.poll()
    poll.register(reader, select.POLLIN)
    pause = TICK / 2
    ends = None if timeout is None else time.monotonic() + timeout
    while True:
        left = None if ends is None else ends - time.monotonic()
        if left is not None and left <= 0:
            return False
        if tick is not None:
            left = pause if left is None else min(left, pause)
            pause = min(2 * pause, TICK)
        if poll.poll(None if left is None else left * 1000):
            return True
        if tick is not None:
            tick()


def end(pid: int) -> None:
    """End a launch and wait for it; each further interruption is the next step of its ladder."""
    while True:
        try:
            os.kill(pid, signal.SIGINT)
            os.waitpid(pid, 0)
        except ChildProcessError:
            return  # it has been waited for
        except KeyboardInterrupt:
            continue
        return


def become_launch(
    plan: Plan, environ: Mapping[str, str], settings: Settings, messages: str
) -> NoReturn:
    """In the child: carry out the launch and exit with its status.

    It leads a process group of its own, so that a terminal's signals come through the parent, once.
    """
    status = 125
    try:
        for number in REQUESTS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, signal.SIG_DFL)
        os.setpgid(0, 0)
        parent = os.getppid()
        Library().die_with_parent(signal.SIGTERM)
        if os.getppid() != parent:
            os._exit(125)
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        os.dup2(os.open(messages, flags, 0o600), 2)
        sys.stderr = os.fdopen(2, "w", encoding="utf-8", errors="backslashreplace", closefd=False)
        status = launch.run(plan, environ, lambda text: say("warning", text), settings)
    except OmpbindError as e:
        status = e.status
        say("error", e.message, e.hint)
    except OSError as e:
        say("error", f"the system refused: {e}")
    finally:
        flush()
        os._exit(status)


# --- what interrupts -----------------------------------------------------------------------------


class Interruption(KeyboardInterrupt):
    """A signal asks this process to end."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


def catch_signals() -> None:
    """Let INT, TERM and HUP raise Interruption in this process, unless they are ignored."""

    def interrupt(number: int, _frame: object) -> NoReturn:
        raise Interruption(number)

    for number in REQUESTS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, interrupt)
