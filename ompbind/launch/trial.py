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
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any, NoReturn

    from typing_extensions import Self

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
    with Launched(plan, environ, directory, grace=grace, on_denied=on_denied) as launched:
        if wait_for_any([launched], timeout, tick):
            return launched.collect()
        return launched.stop(tick, signal.SIGTERM).replace(timed_out=True)


class Launched:
    """A launch that has been started, as `run_trial` has it. As a context manager it is ended, if
    it still runs, and leaves nothing."""

    def __init__(
        self,
        plan: Plan,
        environ: Mapping[str, str],
        directory: str,
        *,
        grace: float = 10.0,
        on_denied: str = "error",
    ) -> None:
        """Start every rank. Raises OSError."""
        self.plan, self.directory = plan, directory
        settings = Settings(
            on_denied=on_denied,
            watched=True,
            grace=grace,
            output_dir=directory,
            stdin="none",
            report=os.path.join(directory, REPORT),
        )
        flush()
        self.reader, writer = os.pipe()  # all processes of the launch but the ranks hold `writer`
        self.trial: Trial | None = None  # once it has ended
        try:
            self.pid = os.fork()
            if self.pid == 0:
                become_launch(plan, environ, settings, os.path.join(directory, MESSAGES))
        except OSError:
            os.close(self.reader)
            raise
        finally:
            os.close(writer)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            if self.trial is None:
                end(self.pid)
        finally:
            os.close(self.reader)

    def has_ended(self) -> bool:
        return wait_for_any([self], 0) is not None

    def stop(self, tick: Callable[[], object] | None = None, number: int = signal.SIGINT) -> Trial:
        """Begin to end it with this signal, unless it has ended, and wait until it has."""
        if not self.has_ended():
            os.kill(self.pid, number)
            wait_for_any([self], None, tick)
        return self.collect()

    def collect(self) -> Trial:
        """Return what has become of it. It must have ended, or be about to."""
        _, status = os.waitpid(self.pid, 0)
        code = os.waitstatus_to_exitcode(status)
        self.trial = Trial(
            status=code if code >= 0 else 128 - code,
            ranks=read_ranks(os.path.join(self.directory, REPORT)),
        )
        return self.trial


def read_ranks(path: str) -> tuple[Mapping[str, Any], ...]:
    """Return the ranks of a launch's report; () where it has written none, as nothing started."""
    import json

    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return tuple(json.load(file)["ranks"])
    except FileNotFoundError:
        return ()


def wait_for_any(
    launches: Sequence[Launched],
    timeout: float | None = None,
    tick: Callable[[], object] | None = None,
) -> Launched | None:
    """Wait until one of these launches has ended, and return the first that has; None where none
    has after `timeout` seconds."""
    poll = select.poll()
    for launched in launches:
        poll.register(launched.reader, select.POLLIN)  # its end: nobody holds the other one
    pause = TICK / 2
    ends = None if timeout is None else time.monotonic() + timeout
    while True:
        left = None if ends is None else max(0.0, ends - time.monotonic())
        wait = left
        if tick is not None:
            wait = pause if left is None else min(left, pause)
            pause = min(2 * pause, TICK)
        ready = {fd for fd, _ in poll.poll(None if wait is None else wait * 1000)}
        if ready:
            return next(launched for launched in launches if launched.reader in ready)
        if left is not None and wait == left:
            return None
        if tick is not None:
            tick()


def end(pid: int) -> None:
    """End a launch and wait for it; each further interruption is the next step of its ladder."""
    while True:
        try:
            os.kill(pid, signal.SIGINT)
            os.waitpid(pid, 0)
        except (ChildProcessError, ProcessLookupError):
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
            # INT ends it, also where a script has started ompbind in the background.
            if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
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
