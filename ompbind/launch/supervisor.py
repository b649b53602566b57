"""The supervisor: the parent of several ranks. It starts all or none, waits for them, passes
signals on to them, and ends what they leave behind."""

from __future__ import annotations

import os
import resource  # for os.wait4, which would load it in the supervisor's process: see run_supervised
import sys
import time

from ompbind.cpuset import CpuSet, union
from ompbind.errors import CommandError, OmpbindError
from ompbind.host import Lease, fill_gaps
from ompbind.launch.binding import Refusal, apply_on_denied
from ompbind.launch.descendants import can_list, end_descendants, send_to_descendants
from ompbind.launch.forks import Gate, Inheritance, fork_ranks
from ompbind.launch.loop import Loop
from ompbind.launch.outcome import Ended, describe_stop, is_due_to, make_line, make_summaries
from ompbind.launch.pipes import make_pipe, parse_messages
from ompbind.launch.rank import cannot_execute, flush
from ompbind.launch.streams import Streams
from ompbind.launch.syscalls import name_signal, restore_signals, send_to, set_affinity, signal
from ompbind.messages import make_message
from ompbind.plans import RECORD_NAME
from ompbind.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ompbind.launch.bill import Meter
    from ompbind.launch.rank import Launch, Start
    from ompbind.launch.role_threads import RoleThreads
    from ompbind.launch.stages import Stages
    from ompbind.launch.syscalls import Library

LINGER = 0.5  # seconds in which what the ranks leave behind may exit by itself
SWEEP = 0.05  # seconds between two rounds of killing
PATIENCE = 5.0  # seconds after which what cannot be killed is left
REPEAT = 0.5  # seconds in which the same signal again is no new request: timeout sends TERM twice


# The requests to end that ranks get as they came; of others they know nothing, and get TERM.
FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# Forwarded, too, but no requests to end; HUP is one when its terminal is closed.
PASSED_ON = ("HUP", "QUIT", "USR1", "USR2", "TSTP", "CONT")
# Timers, limits of batch systems and the like: their default action ends a process.
ENDING = ("INT", "TERM", "ALRM", "VTALRM", "PROF", "XCPU", "IO", "PWR", "STKFLT")


class StoppedError(OmpbindError):
    """A signal came before any rank ran."""

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {name_signal(number)} before any rank ran")
        self.status = 128 + number


class Ladder(Record):
    """The stop ladder: which signal comes next when ranks are to end. `last`: the signal that was
    sent last, 0 before any; `requested`: the signal that ompbind received last, at the monotonic
    time `since`."""

    last: int = 0
    requested: int = 0
    since: float = 0.0

    def request(self, number: int, now: float) -> Ladder:
        """Return the next step after a signal that ompbind received; the same ladder where that
        signal only repeats the last one."""
        if number == self.requested and now - self.since < REPEAT:
            return self
        first = number if number in FORWARDED else signal.SIGTERM
        return self.escalate(first).replace(requested=number, since=now)

    def escalate(self, first: int = signal.SIGTERM) -> Ladder:
        """Return the next step: first `first`, then TERM, then KILL."""
        if self.last == 0:
            return self.replace(last=first)
        ending = self.last in (signal.SIGTERM, signal.SIGKILL)
        return self.replace(last=signal.SIGKILL if ending else signal.SIGTERM)


class Running(Record):
    """A rank that has been forked, at the monotonic time `since`."""

    start: Start
    since: float

    @property
    def rank(self) -> int:
        return self.start.rank.rank

    @property
    def name(self) -> str:
        """What the rank is called."""
        return self.start.rank.name


class Supervisor:
    """Runs one launch in its own process.

    `control`: the pipe from the process that the user started. It writes two bytes for each signal,
    its number and whether the terminal sent it; its end means that that process has exited.
    `sigmask`: the ranks'.
    """

    def __init__(
        self, launch: Launch, library: Library, control: int, sigmask: frozenset[int]
    ) -> None:
        self.launch, self.settings = launch, launch.settings
        ranks = launch.plan.ranks
        self.streams = Streams(launch.settings, len(ranks), launch.environ, ranks[0].number)
        self.stages: Stages | None = None  # the order of groups, where there are several
        self.library, self.control, self.sigmask = library, control, sigmask
        self.group = os.getpgrp()  # the terminal's signals go to this process group
        self.foreground: int | None = None  # the rank in that group: it reads the terminal
        self.loop = Loop()
        self.starts: list[Start] = []
        self.running: dict[int, Running] = {}  # by pid
        self.error_pipe = -1
        self.start_pipe: tuple[int, ...] = ()
        self.files: tuple[int, int] | None = None  # the ranks' limits of open files, if not ours
        self.spare = CpuSet()  # what the launch holds and no rank has: other threads of their cores
        self.holds_all = False  # whether this process keeps the lease on all ranks' cpus
        self.released = False  # whether ranks may execute
        self.executed = False  # whether all have
        self.proved = False  # whether there is nothing left to verify (--verify)
        self.codes: dict[int, int] = {}  # by rank: how it ended, as Ended.code
        self.exits: dict[int, float] = {}  # by rank: seconds from its start to its exit
        self.status = 0  # the first failure's
        self.ladder = Ladder()
        self.timer = 0
        self.reason = ""  # why the ranks are ended
        self.sent: frozenset[int] = frozenset()  # the signals that ranks were sent
        self.stopped: list[Ended] = []  # the ranks that ended while ranks were being ended
        self.oom_kills = 0  # of the ranks' cgroup, before and those that a rank's end was
        self.stops: set[tuple[int, int]] = set()  # reported: the rank's pid and the signal
        self.finishing = False  # whether only output is left to pass on
        self.reported = False
        self.childless = False  # whether no child is left, not even an adopted one
        self.meter: Meter | None = None  # measures the ranks, where that is asked for
        self.role_threads: RoleThreads | None = None  # puts threads on the cpus of their roles
        self.began = time.monotonic()
        self.ending_since = 0.0  # when the processes that the ranks left behind were first seen
        self.killing_since = 0.0

    def run(self) -> int:
        """Return the status of the first rank that failed, or 0.

        Raises OmpbindError; no process is left then.
        """
        try:
            self.leave_group()
            self.set_signals()
            self.watch_children()
            if self.launch.plan.groups:
                from ompbind.launch.stages import Stages

                self.streams.names = [rank.name for rank in self.launch.plan.ranks]
                self.stages = Stages(self)
            self.oom_kills = count_oom_kills()
            self.files = self.streams.prepare(self.wake_pipe)
            self.prepare_meter()
            self.loop.watch(self.control, self.on_control)
            self.starts = self.launch.make_starts()
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

    def leave_group(self) -> None:
        """Move this process out of the terminal's reach, unless it reads the terminal for all."""
        at_terminal = os.isatty(0)
        self.foreground = self.settings.reader if at_terminal else None
        if self.settings.stdin != "all" or not at_terminal:
            os.setpgid(0, 0)
        self.library.adopt()
        self.library.die_with_parent(signal.SIGCONT)  # stopped, it could not see the pipe's end

    def set_signals(self) -> None:
        """Set the dispositions that forked ranks inherit; block what would end this process."""
        flush()
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGPIPE, signal.SIGXFSZ])
        restore_signals()

    def watch_children(self) -> None:
        """Make SIGCHLD wake the loop."""
        self.wake_pipe, writer = make_pipe()
        os.set_blocking(self.wake_pipe, False)
        os.set_blocking(writer, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD])
        self.loop.watch(self.wake_pipe, self.on_child)

    def fork_all(self) -> None:
        """Fork and bind a process for each rank, and let all execute if no binding is denied.

        Where numactl is the binder, the rank's command binds.
        """
        self.error_pipe, writer = make_pipe()
        self.start_pipe = make_pipe()
        gate = Gate(self.library, os.getpid(), writer, self.start_pipe[0], self.sigmask, self.files)
        inheritance = Inheritance(self.library)
        plan = self.launch.plan
        if self.launch.lease is not None:
            self.spare = self.launch.lease.cpus - union(map(plan.held_by, plan.ranks))
        binds = plan.binder == "native"
        refusals: list[Refusal] = []
        for batch in self.streams.connect(self.make_batches()):
            first = batch[0]
            if binds:
                policy = policy_of(first)
                refusals += try_part(first, "memory", inheritance.set_memory, *policy)
            self.fork_batch(batch, self.stages.make_gate(gate, first) if self.stages else gate)
        inheritance.restore()
        for pid, running in self.running.items():
            start, rank = running.start, running.start.rank
            os.setpgid(pid, self.group if rank.rank == self.foreground else pid)
            if binds and rank.cpus:
                refusals += try_part(start, "cpus", set_affinity, rank.cpus, pid)
        os.close(writer)
        os.set_blocking(self.error_pipe, False)
        self.loop.watch(self.error_pipe, self.on_error_pipe)
        if refusals:
            self.start_again(sorted(refusals, key=lambda r: (r.rank, r.part)))
        else:
            self.release()

    def make_batches(self) -> list[list[Start]]:
        """Return the ranks that are forked one right after the other, by turns. They have the same
        memory policy. Of several groups a rank comes alone: while it waits for its turn it would
        keep the others' pipes and leases."""
        size = 1 if self.stages else self.streams.batch
        batches: list[list[Start]] = []
        for start in self.starts:
            batch = batches[-1] if batches else []
            if not batch or len(batch) == size or policy_of(batch[0]) != policy_of(start):
                batches.append(batch := [])
            batch.append(start)
        return batches

    def fork_batch(self, starts: Sequence[Start], gate: Gate) -> None:
        """Fork ranks' processes; each alone will keep a lease on its rank's cpus once it executes.
        Raises CommandError."""
        leases = self.take_leases(starts)
        number = next((lease.find_descriptor() for lease in leases if lease), -1)
        self.holds_all |= self.launch.lease is not None and number < 0
        held = [[(lease.fd, number)] if lease and number >= 0 else [] for lease in leases]
        pids: list[int] = []
        try:
            fork_ranks(starts, held, gate, pids)
        finally:
            now = time.monotonic()
            for pid, start in zip(pids, starts, strict=False):  # fewer, if one cannot be forked
                self.running[pid] = Running(start, now)
            for lease in leases:
                if lease:
                    lease.close()

    def take_leases(self, starts: Sequence[Start]) -> list[Lease | None]:
        """Return a lease on each rank's cpus; None where there is none, or no descriptor is left
        for it: the whole launch's lease then stays open here."""
        if self.launch.lease is None:
            return [None] * len(starts)
        leases = [Lease.open() for _ in starts]
        for start, lease in zip(starts, leases, strict=True):
            cpus = fill_gaps(self.launch.plan.held_by(start.rank), self.spare)
            self.holds_all |= not (lease and lease.hold(cpus))
        return leases

    def on_error_pipe(self) -> None:
        """Raise what a rank reports that cannot execute; the pipe's end: all have executed."""
        try:
            data = os.read(self.error_pipe, 65536)
        except BlockingIOError:
            return
        if not data:
            self.close_error_pipe()
            if self.released:
                self.executed = True
                self.prove()
        for rank, _, reason in parse_messages(data):
            raise cannot_execute(self.starts[int(rank)], reason)

    def close_error_pipe(self) -> None:
        self.loop.unwatch(self.error_pipe)
        os.close(self.error_pipe)
        self.error_pipe = -1

    def close_start_pipe(self) -> None:
        for fd in self.start_pipe:
            os.close(fd)
        self.start_pipe = ()

    def release(self) -> None:
        """Let the ranks execute: all are bound."""
        self.released = True
        self.record_ranks()
        if self.meter:
            ranks = {pid: running.start.rank for pid, running in self.running.items()}
            self.loop.after(self.meter.open(ranks), self.measure)
        if self.settings.announce:
            for line in self.settings.announce(self.launch.plan):
                self.write(f"ompbind: {line}")
        if self.stages:
            self.stages.begin()
        else:
            os.write(self.start_pipe[1], bytes(len(self.starts)))
        self.close_start_pipe()
        if not self.holds_all:
            self.launch.drop_lease()
        self.streams.watch(self.loop)
        if self.launch.plan.names_threads:
            from ompbind.launch.role_threads import RoleThreads
            from ompbind.machine.roots import DirectoryRoot

            self.role_threads = RoleThreads(DirectoryRoot("/"), self.launch.plan.roles, self.say)
            self.place_threads()

    def place_threads(self) -> None:
        """Put threads on the cpus of their roles, by their names, and do so again later."""
        if self.role_threads and self.running:
            pids = {running.rank: pid for pid, running in self.running.items()}
            self.loop.after(self.role_threads.look(pids), self.place_threads)

    def record_ranks(self) -> None:
        """Write down which process is which rank, for `ompbind verify`; the ranks, forked already,
        do not inherit the file."""
        if not hasattr(os, "memfd_create"):
            return
        entries = []
        for pid, running in self.running.items():
            env = running.start.env.items()
            claim = (k + b"=" + v for k, v in env if k.startswith((b"OMP_", b"OMPBIND_")))
            entries.append(b"\0".join((b"%d" % pid, *claim, b"", b"")))
        try:
            fd = os.memfd_create(RECORD_NAME)
            os.write(fd, b"".join(entries))
        except OSError:
            return  # no descriptors or memory left: verify then goes by environments alone
        # Open as long as this process lives.

    def start_again(self, refusals: Sequence[Refusal]) -> None:
        """Start all ranks again without the denied parts. Raises DeniedError."""
        self.kill_ranks()
        for pid in self.running:
            os.waitpid(pid, 0)
        self.running.clear()
        self.close_error_pipe()
        self.close_start_pipe()
        if self.stages:
            self.stages.reset()
        plan = apply_on_denied(
            self.launch.plan,
            refusals,
            self.settings.on_denied,
            lambda text: self.say("warning", text),
        )
        self.launch = self.launch.replace(plan=plan)
        self.starts = self.launch.make_starts()
        self.fork_all()

    def prove(self) -> None:
        """Every rank has executed: verify their placement (--verify), at once, later, and when all
        have exited."""
        if self.settings.prove is None or self.proved or (self.ladder.last and self.running):
            return
        pids = {running.rank: pid for pid, running in self.running.items()}
        try:
            pause = self.settings.prove(self.launch.plan, pids, self.exits, self.say)
        except OmpbindError as e:
            self.proved = True
            self.say("error", e.message, e.hint)
            self.status = self.status or e.status
            if self.running:
                self.reason = "because not all was as planned"
                self.escalate()
            return
        self.proved = pause is None
        if pause is not None:
            self.loop.after(pause, self.prove)

    # --- measuring -------------------------------------------------------------------------------

    def prepare_meter(self) -> None:
        """Load what measures ranks, where that is asked for."""
        if self.settings.verbose or self.settings.report:
            from ompbind.launch.bill import Meter
            from ompbind.machine.roots import DirectoryRoot

            self.meter = Meter(DirectoryRoot("/"), len(self.launch.plan.host.nodes))

    def measure(self) -> None:
        """Read what the ranks have used so far, and do so again later."""
        if self.meter and self.running:
            self.loop.after(self.meter.sample(self.running), self.measure)

    def charge(self, ended: Ended, usage: resource.struct_rusage) -> None:
        """Make the bill of a rank that has exited."""
        if self.meter:
            from ompbind.launch.bill import make_line

            bill = self.meter.close(ended, usage)
            if self.settings.verbose:
                self.write(f"ompbind: {make_line(bill)}")

    def write_report(self) -> None:
        """Write the ranks' bills to the file of --report."""
        if self.meter and self.settings.report:
            seconds = time.monotonic() - self.began
            try:
                self.meter.write(self.settings.report, self.launch.plan, self.status, seconds)
            except OmpbindError as e:
                self.say("error", e.message)

    # --- signals ---------------------------------------------------------------------------------

    def on_control(self) -> None:
        """Handle the signals that the process which the user started has received, or its end."""
        data = os.read(self.control, 512)
        if not data:  # it was killed: so are all
            self.kill_ranks()
            end_descendants()
            os._exit(128 + signal.SIGKILL)
        for number, from_terminal in zip(data[::2], data[1::2], strict=True):
            self.on_signal(number, from_terminal=bool(from_terminal))

    def on_signal(self, number: int, *, from_terminal: bool) -> None:
        """Requests to end, and HUP from a terminal that is closed, begin to end the ranks or
        escalate; others are passed on."""
        ends = number in ending_signals() or (number == signal.SIGHUP and from_terminal)
        if not self.released:
            if ends or number in (signal.SIGHUP, signal.SIGQUIT):
                raise StoppedError(number)
            return
        if not ends:
            self.send(number, from_terminal=from_terminal)
            return
        ladder = self.ladder.request(number, time.monotonic())
        if ladder is self.ladder:
            return
        if self.stages and self.ladder.requested:
            self.stages.hurried = True
        if self.finishing:
            self.give_up()
        else:
            self.reason = self.reason or f"on {name_signal(number)}"
            self.take_step(ladder, from_terminal=from_terminal and ladder.last == number)

    def send(self, number: int, *, from_terminal: bool = False) -> None:
        """Send a signal to each rank; those that a terminal sends to whole groups also to the
        rank's group."""
        self.sent |= {number}
        to_group = (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGTSTP, signal.SIGCONT)
        for pid, running in self.running.items():  # not reaped: the pids are still theirs
            if self.stages and not self.stages.takes(running, number):
                continue
            in_our_group = running.rank == self.foreground
            if not in_our_group:
                send_to(pid, number, group=number in to_group)
            elif not from_terminal:
                send_to(pid, number)

    def escalate(self) -> None:
        """Take the next step of the stop ladder."""
        self.take_step(self.ladder.escalate())

    def take_step(self, ladder: Ladder, *, from_terminal: bool = False) -> None:
        """Send the ranks a step's signal. `from_terminal`: its group has got it."""
        self.ladder = ladder
        self.loop.cancel(self.timer)
        if ladder.last == signal.SIGKILL:
            self.sweep()
            return
        if self.stages:
            self.stages.on_step()
        self.send(ladder.last, from_terminal=from_terminal)
        self.send(signal.SIGCONT)  # stopped, a rank could not end
        if self.ending_since:
            self.end_leftovers()
        else:
            self.timer = self.loop.after(self.settings.grace, self.escalate)

    def kill_ranks(self) -> None:
        for pid, running in self.running.items():
            send_to(pid, signal.SIGKILL)
            if self.released and running.rank != self.foreground:
                send_to(pid, signal.SIGKILL, group=True)

    def sweep(self) -> None:
        """Kill the ranks and all their descendants, again and again until none is left."""
        self.ladder = self.ladder.replace(last=signal.SIGKILL)
        now = time.monotonic()
        self.killing_since = self.killing_since or now
        self.sent |= {int(signal.SIGKILL)}
        self.kill_ranks()
        left = send_to_descendants(signal.SIGKILL)
        if now - self.killing_since > PATIENCE or not (left or self.running):
            if left:
                pids = ", ".join(map(str, left))
                self.say("warning", f"these processes cannot be ended: {pids}")
            elif not self.childless:
                self.warn_of_unlisted()
            self.finish()
        else:
            self.timer = self.loop.after(SWEEP, self.sweep)

    # --- exits -----------------------------------------------------------------------------------

    def on_child(self) -> None:
        """Reap children that have exited: ranks, and their orphans."""
        os.read(self.wake_pipe, 65536)  # what is left, or comes after this, wakes the loop again
        if self.error_pipe >= 0:
            self.on_error_pipe()  # first, as it may say why a rank has exited
        self.childless = False
        while not self.childless:
            try:
                child = self.reap()
            except ChildProcessError:
                self.childless = True
                break
            if child is None:
                break
            pid, status, usage = child
            if os.WIFSTOPPED(status):
                self.on_stop(pid, os.WSTOPSIG(status))
            elif pid in self.running:
                self.on_rank_exit(pid, status, usage)
        if self.released and not self.running:
            if self.executed:
                self.prove()
            self.end_leftovers_later()

    def reap(self) -> tuple[int, int, resource.struct_rusage] | None:
        """Return a child that has exited or stopped, as wait4 does; None if there is none now.
        Raises ChildProcessError.

        Where ranks are measured, what /proc says of it is read before it is gone.
        """
        which = -1
        if self.meter:
            events = os.WEXITED | os.WSTOPPED
            waiting = os.waitid(os.P_ALL, 0, events | os.WNOHANG | os.WNOWAIT)
            if waiting is None:
                return None
            which = waiting.si_pid
            self.meter.read_exit(which)
        child = os.wait4(which, os.WNOHANG | os.WUNTRACED)
        return child if child[0] else None

    def on_stop(self, pid: int, number: int) -> None:
        """Report, once for each signal, a rank that was stopped: ompbind would wait for it without
        a word. TSTP is the user's; of the rank in the terminal's foreground the shell reports."""
        running = self.running.get(pid)
        if running is None or not self.released or self.ladder.last or number == signal.SIGTSTP:
            return
        if running.rank == self.foreground and number in (signal.SIGTTIN, signal.SIGTTOU):
            return
        if (pid, number) not in self.stops:
            self.stops.add((pid, number))
            text, hint = describe_stop(running.rank, running.name, pid, number)
            self.say("note", text, hint)

    def on_rank_exit(self, pid: int, status: int, usage: resource.struct_rusage) -> None:
        """Record how a rank ended, by its wait status; if it failed, end the others."""
        running, code = self.running.pop(pid), os.waitstatus_to_exitcode(status)
        if not self.released:
            end = name_signal(-code) if code < 0 else f"status {code}"
            text = f"rank {running.name} exited before it could be started: {end}"
            raise CommandError(text, found=True)
        if self.stages and self.stages.is_waiting(running) and self.ladder.last:
            return  # it was never executed
        unit = 1 if sys.platform == "darwin" else 1024
        seconds = time.monotonic() - running.since
        remark, hint = "core dumped" if os.WCOREDUMP(status) else "", ""
        if (
            code == -signal.SIGKILL
            and signal.SIGKILL not in self.sent
            and count_oom_kills() > self.oom_kills
        ):
            self.oom_kills += 1
            remark, hint = self.explain_oom(running)
        ended = Ended(running.start, pid, code, seconds, usage.ru_maxrss * unit, remark)
        self.exits[ended.rank] = seconds
        self.codes[ended.rank] = code
        excused = self.stages is not None and self.stages.excuses(running)
        self.status = self.status or (0 if excused else ended.status)
        crashed = code < 0 and not is_due_to(code, self.sent)
        if self.settings.verbose or (code and not self.ladder.last) or crashed:
            self.write(f"ompbind: {make_line(ended)}")
            if hint:
                self.write(f"hint: {hint}")
        self.charge(ended, usage)
        if code and self.ladder.last:
            self.stopped += [] if crashed or excused else [ended]
        elif code and self.settings.on_failure == "stop" and self.running:
            self.reason = f"because rank {ended.name} had failed"
            self.escalate()
        if self.stages:
            self.stages.on_exit(ended)

    def explain_oom(self, running: Running) -> tuple[str, str]:
        """Return what the kernel's OOM killer has probably ended a rank for, and what to do."""
        from ompbind.launch.oom import explain_oom
        from ompbind.machine.roots import DirectoryRoot

        return explain_oom(DirectoryRoot("/"), running.start.rank, self.launch.plan.host.nodes)

    def end_leftovers_later(self) -> None:
        """All ranks have exited: end the processes they left behind, after a moment in which these
        may exit by themselves (not with --leave-children)."""
        if self.childless or self.settings.leave_children:
            self.finish()
        elif not self.ending_since:
            self.ending_since = time.monotonic()
            if self.ladder.last != signal.SIGKILL:
                self.loop.cancel(self.timer)
                self.timer = self.loop.after(LINGER, self.end_leftovers)

    def end_leftovers(self) -> None:
        """Send TERM to what the ranks left behind, and KILL after the time of grace."""
        left = send_to_descendants(signal.SIGTERM, signal.SIGCONT)
        if not left and not can_list():
            self.warn_of_unlisted()
            self.finish()
            return
        if not self.ladder.last and left:
            processes = f"{len(left)} processes" if len(left) > 1 else "a process"
            text = (
                f"ending {processes} that the ranks left behind; --leave-children lets such "
                "processes run on"
            )
            is_setsid = any(os.path.basename(s.rank.command[0]) == "setsid" for s in self.starts)
            hint = "setsid --wait keeps a rank until its program exits" if is_setsid else ""
            self.say("note", text, hint)
        self.ladder = self.ladder.replace(last=signal.SIGTERM)
        self.loop.cancel(self.timer)
        self.timer = self.loop.after(self.settings.grace, self.escalate)

    def warn_of_unlisted(self) -> None:
        """Say that processes were left behind which are not to be found."""
        if not can_list():
            self.say("warning", "the ranks left processes behind that /proc does not list: they "
                                "cannot be ended")  # fmt: skip

    def finish(self) -> None:
        """No process is left; stop once the remaining output has been written."""
        self.loop.cancel(self.timer)
        self.running.clear()
        self.finishing = True
        if self.ladder.last == signal.SIGKILL:  # who asked for that does not wait for readers
            self.timer = self.loop.after(LINGER, self.give_up)
        elif self.ladder.requested:
            self.timer = self.loop.after(self.settings.grace, self.give_up)
        self.streams.finish(self.conclude)

    def conclude(self) -> None:
        """All output is written: report what is left to report, and stop when that is written."""
        self.report()
        self.streams.flush(self.loop.stop)

    def give_up(self) -> None:
        """Stop now, and drop what cannot be written at once."""
        self.report()
        self.loop.stop()

    def report(self) -> None:
        """Report, once, what could not be written and the ranks that were ended."""
        if self.reported:
            return
        self.reported = True
        self.write_report()
        for problem in self.streams.end():
            self.say("error", problem)
        if self.stopped and not self.settings.verbose:
            for line in make_summaries(self.stopped, self.sent, self.reason):
                self.write(f"ompbind: {line}")

    def say(self, kind: str, text: str, hint: str = "") -> None:
        """Write `ompbind: KIND: TEXT` to standard error, between two lines of ranks, and the hint
        below it; with --quiet only errors."""
        if self.settings.quiet and kind != "error":
            return
        self.write(make_message(kind, text, hint))

    def write(self, line: str) -> None:
        """Write a line to standard error. Nothing here ever blocks: this process must hear signals
        and see exits while nobody reads."""
        self.streams.say(self.loop, f"{line}\n")


def count_oom_kills() -> int:
    """Return how many processes of this cgroup the kernel has killed for want of memory."""
    from ompbind.machine.limits import read_oom_kills
    from ompbind.machine.roots import DirectoryRoot

    return read_oom_kills(DirectoryRoot("/"))


def ending_signals() -> set[int]:
    """Return the signals that ask ompbind to end: those of ENDING that this system has, and its
    realtime signals."""
    names = {getattr(signal, f"SIG{name}", 0) for name in ENDING} - {0}
    if hasattr(signal, "SIGRTMIN"):
        names |= set(range(signal.SIGRTMIN, signal.SIGRTMAX + 1))
    return names


def try_part(start: Start, part: str, bind: Callable[..., None], *args: object) -> list[Refusal]:
    """Bind a part of a rank, and return what the kernel denies of it."""
    try:
        bind(*args)
    except OSError as e:
        return [Refusal(start.rank.rank, part, e.strerror or str(e))]
    return []


def policy_of(start: Start) -> tuple[str, CpuSet, bool]:
    """Return a rank's memory policy, for `Inheritance.set_memory`."""
    binding = start.rank.binding
    return binding.mem, binding.mems, binding.balancing
