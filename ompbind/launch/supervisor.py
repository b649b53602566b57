"""The supervisor: the parent of several ranks. It starts all or none, waits for them, passes
signals on to them, and ends what is left of them."""

from __future__ import annotations

import os
import sys
import time

from ompbind.errors import CommandError, OmpbindError
from ompbind.launch.descendants import end_descendants, send_to_descendants
from ompbind.launch.ladder import Ladder
from ompbind.launch.loop import Loop
from ompbind.launch.outcome import Ended, make_line, make_summary, name_signal
from ompbind.launch.pipes import make_pipe
from ompbind.launch.rank import (
    Gate,
    Inheritance,
    become,
    cannot_execute,
    flush,
    restore_signals,
)
from ompbind.launch.refusals import Refusal, settle
from ompbind.launch.syscalls import set_affinity
from ompbind.messages import write_line

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from collections.abc import Callable, Sequence

    from ompbind.launch.rank import Start
    from ompbind.launch.settings import Settings
    from ompbind.launch.streams import Streams
    from ompbind.launch.syscalls import Library
    from ompbind.plans import Plan, RankPlan
else:
    import _signal as signal  # `signal` itself wraps this in enums, a third of the whole start-up

LINGER = 0.5  # seconds that what the ranks leave behind has to end by itself
SWEEP = 0.05  # seconds between two rounds of killing
PATIENCE = 5.0  # seconds after which what cannot be killed is left


class StoppedError(OmpbindError):
    """A signal came before any rank ran."""

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {name_signal(number)} before any rank ran")
        self.status = 128 + number


class Supervisor:
    """`control`: where signals are told, two bytes each: the number, and whether the terminal sent
    it; its end: the process that the user started has gone. `sigmask`: the ranks' own;
    `foreground`: the rank in the process `group` that the terminal's signals go to."""

    def __init__(
        self,
        plan: Plan,
        make_starts: Callable[[Plan], list[Start]],
        settings: Settings,
        say: Callable[[str], None],
        streams: Streams,
        library: Library,
        *,
        control: int,
        sigmask: frozenset[int],
        group: int,
        foreground: int | None,
    ) -> None:
        self.plan, self.make_starts, self.settings, self.say = plan, make_starts, settings, say
        self.streams, self.library, self.sigmask = streams, library, sigmask
        self.control, self.group, self.foreground = control, group, foreground
        self.loop = Loop()
        self.starts: list[Start] = []
        self.running: dict[int, tuple[int, float]] = {}  # by pid: the rank, and when it was forked
        self.report = -1
        self.go: tuple[int, ...] = ()
        self.released = False  # whether ranks may execute
        self.status = 0  # the first failure's
        self.ladder = Ladder()
        self.timer = 0
        self.reason = ""  # for which ranks are ended
        self.stopped: list[Ended] = []  # ranks that ended after that
        self.finishing = False  # whether only output is left to pass on
        self.alone = False  # whether not a single child is left
        self.ending = 0.0  # when what the ranks left behind was first seen to
        self.sweeping = 0.0  # when killing began

    def run(self) -> int:
        """The status of the first rank that failed, or 0. Raises OmpbindError, nothing is left."""
        try:
            self.set_signals()
            self.watch_children()
            self.loop.watch(self.control, self.hear)
            self.starts = self.make_starts(self.plan)
            self.fork_all()
            self.loop.run()
        except BaseException:
            self.kill_ranks()
            end_descendants()
            raise
        finally:
            self.streams.close()
        return self.status

    # --- starting --------------------------------------------------------------------------------

    def watch_children(self) -> None:
        """Has SIGCHLD wake the loop."""
        self.wake, theirs = make_pipe()
        os.set_blocking(self.wake, False)
        os.set_blocking(theirs, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(theirs, warn_on_full_buffer=False)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD])
        self.loop.watch(self.wake, self.reap)

    def set_signals(self) -> None:
        """As the ranks are to have them, which are forked from here; what would end this process
        is blocked."""
        flush()
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGPIPE, signal.SIGXFSZ])
        restore_signals()

    def fork_all(self) -> None:
        """Makes a process for each rank and binds it, where its command does not; when nothing is
        refused, lets all execute."""
        self.report, report = make_pipe()
        self.go = make_pipe()
        gate = Gate(self.library, os.getpid(), report, self.go[0], self.sigmask)
        inheritance = Inheritance(self.library, [start.env for start in self.starts])
        binds = self.plan.binder == "native"
        refused: list[Refusal] = []
        pids = []
        for start in self.streams.connect(self.starts):
            rank = start.rank
            inheritance.next_environment()
            if binds:
                refused += try_part(rank, "memory", inheritance.set_memory, rank.mem, rank.mems)
            pids.append(self.fork(start, gate))
        inheritance.restore()
        for pid, start in zip(pids, self.starts, strict=True):  # not above: what is touched between
            rank = start.rank  # two forks has to be copied
            os.setpgid(pid, self.group if rank.rank == self.foreground else pid)
            if binds and rank.cpus:
                refused += try_part(rank, "cpus", set_affinity, rank.cpus, pid)
        os.close(report)
        os.set_blocking(self.report, False)
        self.loop.watch(self.report, self.hear_reports)
        if refused:
            self.start_again(sorted(refused, key=lambda r: (r.rank, r.part)))
        else:
            self.release()

    def fork(self, start: Start, gate: Gate) -> int:
        """A rank's process. Raises CommandError."""
        try:
            pid = os.fork()
        except OSError as e:
            reason = e.strerror or str(e)
            text = f"rank {start.rank.rank}: no process can be made for it: {reason}"
            raise CommandError(text, found=True) from None
        if pid == 0:
            become(start, gate)
        self.running[pid] = (start.rank.rank, time.monotonic())
        return pid

    def hear_reports(self) -> None:
        """Ranks say why they cannot execute; the end means that all have executed."""
        try:
            data = os.read(self.report, 65536)
        except BlockingIOError:
            return
        if not data:
            self.close_report()
            if self.released:
                self.prove()
        elif line := data.partition(b"\n")[0]:  # each is written at once
            rank, reason = line.decode("utf-8", "replace").split("\t", 1)
            raise cannot_execute(self.starts[int(rank)], reason)

    def close_report(self) -> None:
        self.loop.unwatch(self.report)
        os.close(self.report)
        self.report = -1

    def close_gate(self) -> None:
        for fd in self.go:
            os.close(fd)
        self.go = ()

    def release(self) -> None:
        """All are bound: lets them execute."""
        self.released = True
        os.write(self.go[1], bytes(len(self.starts)))
        self.close_gate()
        self.streams.watch(self.loop)

    def start_again(self, refused: Sequence[Refusal]) -> None:
        """Without what was refused. Raises DeniedError."""
        self.kill_ranks()
        for pid in self.running:
            os.waitpid(pid, 0)
        self.running.clear()
        self.close_report()
        self.close_gate()
        self.plan = settle(self.plan, refused, self.settings.on_denied, self.say)
        self.starts = self.make_starts(self.plan)
        self.fork_all()

    def prove(self) -> None:
        """All have executed: lets be looked whether they are where they should be."""
        living = {rank: pid for pid, (rank, _) in self.running.items()}
        if self.settings.prove is None or self.ladder.last or not living:
            return
        try:
            pause = self.settings.prove(self.plan, living)
        except OmpbindError as e:
            self.tell(f"error: {e.message}\nhint: {e.hint}")
            self.status, self.reason = self.status or e.status, "as not all was as planned"
            self.climb()
            return
        if pause is not None:
            self.loop.after(pause, self.prove)

    # --- signals ---------------------------------------------------------------------------------

    def hear(self) -> None:
        """Signals that the process that the user started has got, or its end."""
        data = os.read(self.control, 512)
        if not data:  # it was killed: so are all
            self.kill_ranks()
            end_descendants()
            os._exit(128 + signal.SIGKILL)
        for number, from_terminal in zip(data[::2], data[1::2], strict=True):
            self.take(number, from_terminal=bool(from_terminal))

    def take(self, number: int, *, from_terminal: bool) -> None:
        """INT and TERM, and a terminal that is closed, begin to end the ranks, or go a step
        further; others are passed on."""
        ends = (signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if from_terminal else []))
        if not self.released:
            if number in (*ends, signal.SIGHUP, signal.SIGQUIT):
                raise StoppedError(number)
            return
        if number in ends and self.finishing:
            self.done()
        elif number in ends:
            self.reason = self.reason or f"on {name_signal(number)}"
            self.climb(number, from_terminal=from_terminal)
        else:
            self.send(number, from_terminal=from_terminal)

    def send(self, number: int, *, from_terminal: bool = False) -> None:
        """To each rank; what a terminal sends to whole groups also to the rank's own processes."""
        whole = (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGTSTP, signal.SIGCONT)
        for pid, (rank, _) in self.running.items():  # not reaped: the numbers are still theirs
            if rank != self.foreground:
                send_to(pid, number, group=number in whole)
            elif not from_terminal:
                send_to(pid, number)
            if number == signal.SIGTERM:  # stopped, it could not end
                send_to(pid, signal.SIGCONT, group=rank != self.foreground)

    def climb(self, asked: int = 0, *, from_terminal: bool = False) -> None:
        """Takes the next step towards the end of all ranks."""
        self.ladder = self.ladder.climb(asked)
        self.loop.cancel(self.timer)
        if self.ladder.last == signal.SIGKILL:
            self.sweep()
        else:
            self.send(self.ladder.last, from_terminal=from_terminal and self.ladder.last == asked)
            if self.ending:
                self.end_leftovers()
            else:
                self.timer = self.loop.after(self.settings.grace, self.climb)

    def kill_ranks(self) -> None:
        for pid, (rank, _) in self.running.items():
            send_to(pid, signal.SIGKILL)
            if self.released and rank != self.foreground:
                send_to(pid, signal.SIGKILL, group=True)

    def sweep(self) -> None:
        """Kills the ranks and all that descends from them, again and again until none is left."""
        self.ladder = Ladder(signal.SIGKILL)
        now = time.monotonic()
        self.sweeping = self.sweeping or now
        self.kill_ranks()
        left = send_to_descendants(signal.SIGKILL)
        if now - self.sweeping > PATIENCE or not (left or self.running):
            if left:
                told = ", ".join(map(str, left))
                self.tell(f"warning: these processes cannot be ended: {told}")
            self.finish()
        else:
            self.timer = self.loop.after(SWEEP, self.sweep)

    # --- ends ------------------------------------------------------------------------------------

    def reap(self) -> None:
        """Takes away what has ended: ranks, and what was left without a parent."""
        while len(os.read(self.wake, 4096)) == 4096:
            pass
        if self.report >= 0:
            self.hear_reports()  # first, as it may say why a rank has ended
        self.alone = False
        while not self.alone:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                self.alone = True
                break
            if pid == 0:
                break
            if pid in self.running:
                self.note(pid, os.waitstatus_to_exitcode(status), usage.ru_maxrss)
        if self.released and not self.running:
            self.wind_up()

    def note(self, pid: int, code: int, memory: int) -> None:
        """A rank has ended; when it has failed, the others are ended too."""
        rank, begun = self.running.pop(pid)
        if not self.released:
            end = name_signal(-code) if code < 0 else f"status {code}"
            raise CommandError(f"rank {rank} ended before it could be started: {end}", found=True)
        unit = 1 if sys.platform == "darwin" else 1024
        ended = Ended(rank, pid, code, time.monotonic() - begun, memory * unit)
        self.status = self.status or ended.status
        if self.settings.verbose or (code and not self.ladder.last):
            self.tell(make_line(ended))
        if code and self.ladder.last:
            self.stopped.append(ended)
        elif code and self.settings.on_failure == "stop" and self.running:
            self.reason = f"as rank {rank} had failed"
            self.climb()

    def wind_up(self) -> None:
        """No rank is left: ends what they have left behind, unless that may stay."""
        if self.alone or self.settings.leave_children:
            self.finish()
        elif not self.ending:
            self.ending = time.monotonic()
            if self.ladder.last != signal.SIGKILL:
                self.loop.cancel(self.timer)
                self.timer = self.loop.after(LINGER, self.end_leftovers)

    def end_leftovers(self) -> None:
        """TERM, and after the time of grace KILL, for what ranks have left behind."""
        left = send_to_descendants(signal.SIGTERM, signal.SIGCONT)
        if not self.ladder.last and left:
            told = f"{len(left)} processes" if len(left) > 1 else "a process"
            hint = "--leave-children lets such go on"
            self.tell(f"note: ending {told} that the ranks left behind; {hint}")
        self.ladder = Ladder(signal.SIGTERM)
        self.loop.cancel(self.timer)
        self.timer = self.loop.after(self.settings.grace, self.climb)

    def finish(self) -> None:
        """Nothing runs any more: when what was written has been passed on, this is over."""
        self.loop.cancel(self.timer)
        self.running.clear()
        self.finishing = True
        if self.ladder.last == signal.SIGKILL:  # whoever asked for that does not wait for readers
            self.timer = self.loop.after(LINGER, self.done)
        self.streams.finish(self.done)

    def done(self) -> None:
        self.loop.cancel(self.timer)
        for trouble in self.streams.end():
            write_line(f"ompbind: error: {trouble}")
        if self.stopped and not self.settings.verbose:
            write_line(f"ompbind: {make_summary(self.stopped, self.reason)}")
        self.loop.stop()

    def tell(self, text: str) -> None:
        """A message between two lines of ranks."""
        if not self.streams.say(f"ompbind: {text}\n"):
            write_line(f"ompbind: {text}")


def send_to(pid: int, number: int, *, group: bool = False) -> None:
    """To a child that has not been reaped, or to its whole process group."""
    try:
        if group:
            os.killpg(pid, number)
        else:
            os.kill(pid, number)
    except OSError:
        pass  # it has another user's rights now, or its group is no more


def try_part(rank: RankPlan, part: str, act: Callable[..., None], *args: object) -> list[Refusal]:
    """What the kernel refuses of it."""
    try:
        act(*args)
    except OSError as e:
        return [Refusal(rank.rank, part, e.strerror or str(e))]
    return []
