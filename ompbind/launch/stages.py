"""The order in which groups of ranks are started and ended.

All ranks are forked and bound at once, so that nothing is executed where a binding is denied. Then
each group waits at a pipe of its own until the groups before it are ready. They are ended in the
other order: a group is asked to end when those after it have exited.
"""

from __future__ import annotations

import os
import time

from ompbind.errors import OmpbindError, UsageError
from ompbind.launch.pipes import make_pipe
from ompbind.launch.ready import LineWatch, Probe, is_taken, parse_condition
from ompbind.launch.syscalls import send_to, signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Protocol

    from ompbind.launch.forks import Gate
    from ompbind.launch.loop import Loop
    from ompbind.launch.outcome import Ended
    from ompbind.launch.rank import Launch, Settings, Start
    from ompbind.launch.streams import Streams
    from ompbind.plans import Group

    class Running(Protocol):
        """A rank that has been forked."""

        @property
        def start(self) -> Start: ...
        def replace(self, **changes: Any) -> Any: ...

    class Supervisor(Protocol):
        """What is needed of the supervisor, which this module must not import."""

        launch: Launch
        settings: Settings
        streams: Streams
        loop: Loop
        running: dict[int, Any]
        codes: dict[int, int]
        ladder: Any
        timer: int
        status: int
        reason: str

        def say(self, kind: str, text: str, hint: str = "") -> None: ...
        def send(self, number: int) -> None: ...
        def escalate(self) -> None: ...


REMINDER = 30.0  # seconds after which it is reported what is waited for; then twice as many


class Stages:
    """The groups of one launch: which wait, which are ready, which are asked to end."""

    def __init__(self, supervisor: Supervisor) -> None:
        """Raises UsageError for a condition that could not be seen."""
        self.supervisor = supervisor
        self.groups = {group.name: group for group in supervisor.launch.plan.groups}
        self.waiting = set(self.groups)  # not executed yet
        self.pipes: dict[str, tuple[int, int]] = {}  # at which their ranks wait
        # What has not come yet of the conditions of each group: a condition, and for a line its
        # rank.
        self.missing = {name: self.list_conditions(group) for name, group in self.groups.items()}
        self.probes: dict[str, list[Probe]] = {}
        self.aimed: set[str] = set()  # the groups that the last step of the stop ladder is for
        self.asked: set[str] = set()  # those that were asked to end
        self.first = 0  # the signal of the first step
        self.hurried = False  # whether all are ended at once
        self.complete = False  # whether only groups in the background were left
        self.pause = REMINDER

    def list_conditions(self, group: Group) -> set[tuple[str, int]]:
        conditions: set[tuple[str, int]] = set()
        for text in group.ready:
            if parse_condition(text).kind == "line":
                if not self.supervisor.streams.tagged:
                    raise UsageError(
                        f"group {group.name}: --ready {text}: ompbind does not see what is written",
                        hint="leave --output and --output-dir out",
                    )
                conditions |= {(text, rank) for rank in group.ranks}
            else:
                conditions.add((text, -1))
        return conditions

    # --- starting ---------------------------------------------------------------------------------

    def make_gate(self, gate: Gate, start: Start) -> Gate:
        """Return the gate at which a rank waits."""
        name = start.rank.group
        if name not in self.pipes:
            self.pipes[name] = make_pipe()
        return gate.replace(start_pipe=self.pipes[name][0])

    def reset(self) -> None:
        """Close the pipes: all ranks are forked again."""
        for fd in (fd for pair in self.pipes.values() for fd in pair):
            os.close(fd)
        self.pipes = {}

    def begin(self) -> None:
        """Let the groups execute that wait for none. Raises OmpbindError where somebody else
        listens at a port: whose answer it is could not be known."""
        for group in self.groups.values():
            for text in group.ready:
                if is_taken(parse_condition(text)):
                    raise OmpbindError(
                        f"group {group.name}: --ready {text}: somebody listens there already",
                        hint="end that program, or take another port",
                    )
        for name, group in self.groups.items():
            for text, rank in self.missing[name]:
                if rank >= 0:
                    self.watch_lines(group, text, rank)
        self.release()
        if self.waiting:
            self.supervisor.loop.after(self.pause, self.remind)

    def release(self) -> None:
        """Let each waiting group execute whose groups before it are ready."""
        changed = True
        while changed:
            changed = False
            for name, group in self.groups.items():
                if name in self.waiting and all(self.is_ready(other) for other in group.after):
                    self.let_go(group)
                    changed = True

    def is_ready(self, name: str) -> bool:
        return name not in self.waiting and not self.missing[name]

    def let_go(self, group: Group) -> None:
        self.waiting.remove(group.name)
        reader, writer = self.pipes.pop(group.name)
        os.write(writer, bytes(len(group.ranks)))
        os.close(reader)
        os.close(writer)
        now = time.monotonic()
        for pid, running in self.supervisor.running.items():
            if running.start.rank.group == group.name:
                self.supervisor.running[pid] = running.replace(since=now)
        for text, _ in sorted(self.missing[group.name]):
            condition = parse_condition(text)
            if condition.kind in ("port", "http"):
                probe = Probe(self.supervisor.loop, condition, self.make_done(group.name, text, -1))
                self.probes.setdefault(group.name, []).append(probe)
                probe.start()

    def make_done(self, name: str, text: str, rank: int) -> Callable[[], None]:
        return lambda: self.on_condition(name, text, rank)

    def watch_lines(self, group: Group, text: str, rank: int) -> None:
        pattern = parse_condition(text).pattern
        done = self.make_done(group.name, text, rank)
        self.supervisor.streams.watchers[rank] = lambda: LineWatch(pattern, done).feed

    def on_condition(self, name: str, text: str, rank: int) -> None:
        """A condition of a group has come."""
        missing = self.missing[name]
        missing.discard((text, rank))
        if not missing and not self.supervisor.ladder.last:
            if self.supervisor.settings.verbose:
                self.supervisor.say("note", f"group {name} is ready")
            self.release()

    def remind(self) -> None:
        """Report what is waited for: a condition may be wrong."""
        if self.waiting and not self.supervisor.ladder.last:
            for name, missing in self.missing.items():
                if missing and name not in self.waiting:
                    texts = ", ".join(sorted({text for text, _ in missing}))
                    self.supervisor.say("note", f"waiting for group {name} to be ready: {texts}")
            self.pause *= 2
            self.supervisor.loop.after(self.pause, self.remind)

    # --- ending -----------------------------------------------------------------------------------

    def is_waiting(self, running: Running) -> bool:
        """Whether a rank has not been executed yet."""
        return running.start.rank.group in self.waiting

    def takes(self, running: Running, number: int) -> bool:
        """Whether a rank gets a signal: not before it is executed, and where ranks are being ended
        only in its turn."""
        if self.is_waiting(running):
            return False
        stopping = self.supervisor.ladder.last and number != signal.SIGCONT
        return not stopping or running.start.rank.group in self.aimed

    def on_step(self) -> None:
        """A step of the stop ladder: it is for all groups that may end now."""
        self.first = self.first or self.supervisor.ladder.last
        for probes in self.probes.values():
            for probe in probes:
                probe.close()
        for pid, running in self.supervisor.running.items():
            if self.is_waiting(running):
                send_to(pid, signal.SIGKILL)
        self.aimed = self.find_last()
        self.asked |= self.aimed

    def find_last(self) -> set[str]:
        """Return the groups with living ranks that no such group has been started after."""
        living = {r.start.rank.group for r in self.supervisor.running.values()} - self.waiting
        if self.hurried:
            return living
        return {
            name for name in living
            if not any(name in self.before(other) for other in living if other != name)
        }  # fmt: skip

    def before(self, name: str) -> set[str]:
        """Return the groups that a group was started after, and those before them."""
        found: set[str] = set()
        rest = [*self.groups[name].after]
        while rest:
            other = rest.pop()
            if other not in found:
                found.add(other)
                rest += self.groups[other].after
        return found

    def excuses(self, running: Running) -> bool:
        """Whether it is no failure how a rank has ended: the others had exited."""
        return self.complete and self.groups[running.start.rank.group].background

    def on_exit(self, ended: Ended) -> None:
        """A rank has exited, and the supervisor has done what that alone asks for."""
        supervisor, name = self.supervisor, ended.start.rank.group
        if name in self.waiting:
            return
        living = {r.start.rank.group for r in supervisor.running.values()}
        if supervisor.ladder.last:
            self.end_next()
            return
        if name not in living and self.missing[name]:
            self.on_end_of(name, ended)
        if living and all(self.groups[n].background for n in living):
            self.complete = True
            supervisor.reason = "because the other groups had exited"
            supervisor.escalate()

    def on_end_of(self, name: str, ended: Ended) -> None:
        """All ranks of a group have exited before it was ready, or that is what was waited for."""
        codes = [self.supervisor.codes.get(rank, 0) for rank in self.groups[name].ranks]
        if self.missing[name] == {("exit", -1)} and not any(codes):
            self.on_condition(name, "exit", -1)
            return
        waiters = [n for n in self.waiting if name in self.before(n)]
        if waiters:
            text = (
                f"group {sorted(waiters)[0]} cannot be started: group {name} has exited, and was "
            )
            supervisor = self.supervisor
            supervisor.say("error", f"{text}not ready ({', '.join(self.groups[name].ready)})")
            supervisor.status = supervisor.status or 125
            supervisor.reason = f"because group {name} had exited"
            supervisor.escalate()

    def end_next(self) -> None:
        """Ask the groups to end whose turn it is now: those after them have exited."""
        supervisor = self.supervisor
        if supervisor.ladder.last == signal.SIGKILL:
            return
        more = self.find_last() - self.asked
        if more:
            self.aimed = more
            self.asked |= more
            supervisor.ladder = supervisor.ladder.replace(last=self.first)
            supervisor.loop.cancel(supervisor.timer)
            supervisor.send(self.first)
            supervisor.send(signal.SIGCONT)
            supervisor.timer = supervisor.loop.after(supervisor.settings.grace, supervisor.escalate)
