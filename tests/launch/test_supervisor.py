"""Each step of the supervisor by itself: with no processes, and a loop that only notes."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any, NoReturn

import pytest

from ompbind import errors, launch
from ompbind.cpuset import CpuSet
from ompbind.launch import pipes, portable, supervisor, trampoline
from ompbind.launch.outcome import Ended
from ompbind.launch.rank import Launch, Settings, Start
from ompbind.launch.supervisor import Ladder, Running, StoppedError, Supervisor
from ompbind.plans import Binding, RankPlan

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="ompbind runs workers on Linux")

INT, TERM, KILL, CONT, HUP, QUIT, USR1 = 2, 15, 9, 18, 1, 3, 10
Calls = list[tuple[Any, ...]]


class ExitedError(Exception):
    """In place of os._exit."""


def usage(memory: int) -> Any:
    """What the kernel returns with an exit; `memory`: the peak in KiB."""
    return SimpleNamespace(ru_maxrss=memory)


def make_start(number: int) -> Start:
    binding = Binding(CpuSet([number]), "bind", CpuSet([0]))
    rank = RankPlan(number, binding, (), CpuSet([0]), (), (), ("true",))
    return Start(rank, "/bin/true", ("true",), {})


class Stage:
    """A supervisor of ranks with the pids 10, 11...; `calls` is what it did."""

    def __init__(self, patch: pytest.MonkeyPatch, ranks: int = 2, **settings: Any) -> None:
        self.calls: Calls = []
        self.now = 100.0
        self.left: list[int] = []  # descendants
        self.timers: list[tuple[float, Callable[[], object]]] = []
        starts = [make_start(n) for n in range(ranks)]
        plan: Any = SimpleNamespace(
            ranks=[s.rank for s in starts], binder="native", groups=(), names_threads=False
        )
        nothing: Any = None
        asked = Settings(**({"output": "inherit"} | settings))
        self.s = Supervisor(Launch(plan, {}, {}, asked), nothing, 5, frozenset())
        self.s.starts = starts
        self.s.running = {10 + n: Running(start, 90.0) for n, start in enumerate(starts)}
        self.s.released = self.s.executed = True
        note = self.note
        fake: Any = SimpleNamespace(
            after=self.after, cancel=note("cancel"), stop=note("stop"), unwatch=note("unwatch"),
            watch=note("watch"),
        )  # fmt: skip
        self.s.loop = fake
        streams: Any = SimpleNamespace(
            finish=note("finish"), flush=note("flush"), end=lambda: ["bad"], watch=note("carry"),
            say=lambda _, text: self.calls.append(("say", text)),
        )  # fmt: skip
        self.s.streams = streams
        patch.setattr(supervisor, "time", SimpleNamespace(monotonic=lambda: self.now))
        patch.setattr(supervisor, "send_to", self.send)
        patch.setattr(supervisor, "send_to_descendants", self.send_to_descendants)
        patch.setattr(supervisor, "end_descendants", note("end descendants"))
        patch.setattr(supervisor, "count_oom_kills", lambda: 0)

    def note(self, name: str) -> Callable[..., None]:
        return lambda *args: self.calls.append((name, *args))

    def after(self, seconds: float, call: Callable[[], object]) -> int:
        self.timers.append((seconds, call))
        return 70 + len(self.timers)

    def send(self, pid: int, number: int, *, group: bool = False) -> None:
        self.calls.append(("send", pid, number, group))

    def send_to_descendants(self, *numbers: int) -> list[int]:
        self.calls.append(("descendants", *numbers))
        return self.left

    def take(self, name: str) -> Calls:
        """Return what was called by this name, and forget all."""
        calls = [call[1:] for call in self.calls if call[0] == name]
        self.calls.clear()
        return calls


Make = Callable[..., Stage]


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Make:
    return lambda *args, **settings: Stage(monkeypatch, *args, **settings)


# --- signals -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "group"), [(INT, True), (QUIT, True), (HUP, True), (20, True), (CONT, True),
                          (TERM, False), (USR1, False)],
)  # fmt: skip
def test_a_signal_for_all_ranks(number: int, group: bool, stage: Make) -> None:
    """To the groups what a terminal sends to groups; the terminal's own group has it already."""
    t = stage()
    t.s.send(number)
    assert t.take("send") == [(10, number, group), (11, number, group)]
    assert t.s.sent == {number}
    t.s.foreground = 1
    t.s.send(number, from_terminal=True)
    assert t.take("send") == [(10, number, group)]
    t.s.send(number)
    assert t.take("send") == [(10, number, group), (11, number, False)]


@pytest.mark.parametrize(
    ("number", "terminal", "stopped"),
    [(INT, False, True), (TERM, False, True), (HUP, False, True), (HUP, True, True),
     (QUIT, False, True), (14, False, True), (USR1, False, False), (CONT, False, False)],
)  # fmt: skip
def test_a_signal_before_ranks_run(number: int, terminal: bool, stopped: bool, stage: Make) -> None:
    """Ends the start, or is dropped."""
    t = stage()
    t.s.released = False
    if stopped:
        with pytest.raises(StoppedError) as caught:
            t.s.on_signal(number, from_terminal=terminal)
        assert caught.value.status == 128 + number
    else:
        t.s.on_signal(number, from_terminal=terminal)
    assert t.calls == []


def test_a_request_to_end(stage: Make) -> None:
    """Goes to the ranks, which are woken for it, and KILL follows after the time of grace."""
    t = stage(grace=3.0)
    t.s.timer = 60
    t.s.on_signal(INT, from_terminal=False)
    assert ("cancel", 60) in t.calls
    sends = [(10, INT, True), (11, INT, True), (10, CONT, True), (11, CONT, True)]
    assert t.take("send") == sends
    assert t.s.reason == "on signal 2 (INT)"
    assert [seconds for seconds, _ in t.timers] == [3.0]
    assert t.s.timer == 71
    t.s.on_signal(INT, from_terminal=False)  # at once: the same request
    assert t.calls == []
    t.now += 1
    t.s.on_signal(INT, from_terminal=False)
    assert t.take("send")[0] == (10, TERM, False)
    assert t.s.reason == "on signal 2 (INT)"
    assert t.timers[1][0] == 3.0
    t.left = [10]
    t.timers[1][1]()  # the time of grace is over
    assert t.take("descendants") == [(KILL,)]
    assert t.s.ladder.last == KILL


def test_what_the_terminal_has_sent(stage: Make) -> None:
    """Is not sent again to its group, but TERM in its place is; a hangup ends, then."""
    t = stage(output="inherit")
    t.s.foreground = 0
    t.s.on_signal(HUP, from_terminal=True)
    assert t.take("send") == [(11, HUP, True), (10, CONT, False), (11, CONT, True)]
    t.now += 1
    t.s.on_signal(INT, from_terminal=True)
    assert t.take("send")[:2] == [(10, TERM, False), (11, TERM, False)]
    t = stage()
    t.s.foreground = 0
    t.s.on_signal(HUP, from_terminal=False)
    assert t.take("send") == [(10, HUP, False), (11, HUP, True)]
    assert t.s.ladder == Ladder()
    t.s.on_signal(QUIT, from_terminal=True)
    assert t.take("send") == [(11, QUIT, True)]


def test_a_request_when_only_output_is_left(stage: Make) -> None:
    """Drops what cannot be written at once."""
    t = stage()
    t.s.finishing = True
    t.s.on_signal(TERM, from_terminal=False)
    assert t.calls == [("say", "ompbind: error: bad\n"), ("stop",)]


def test_signals_come_in_pairs(stage: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a number and whether the terminal sent it; at the pipe's end all are killed."""
    t = stage()
    seen: Calls = []
    monkeypatch.setattr(
        t.s, "on_signal", lambda n, *, from_terminal: seen.append((n, from_terminal))
    )
    reader, writer = os.pipe()
    t.s.control = reader
    os.write(writer, bytes([INT, 1, TERM, 0]))
    t.s.on_control()
    assert seen == [(INT, True), (TERM, False)]
    os.close(writer)

    def leave(status: int) -> NoReturn:
        raise ExitedError(status)

    monkeypatch.setattr(os, "_exit", leave)
    with pytest.raises(ExitedError, match="137"):
        t.s.on_control()
    os.close(reader)
    assert t.calls[-1] == ("end descendants",)
    assert ("send", 10, KILL, False) in t.calls


def test_ranks_are_killed_with_their_groups(stage: Make) -> None:
    """Not the terminal's group, and no group before it is the rank's."""
    t = stage()
    t.s.foreground = 1
    t.s.kill_ranks()
    assert t.take("send") == [(10, KILL, False), (10, KILL, True), (11, KILL, False)]
    t.s.released = False
    t.s.kill_ranks()
    assert t.take("send") == [(10, KILL, False), (11, KILL, False)]


def test_killing_goes_on_until_none_is_left(stage: Make) -> None:
    """Or for so many seconds; who remains is named."""
    t = stage()
    t.left = [10, 30]
    t.s.sweep()
    assert t.s.ladder.last == KILL
    assert KILL in t.s.sent
    assert t.timers[-1] == (supervisor.SWEEP, t.s.sweep)
    t.s.running.clear()
    t.now += supervisor.PATIENCE
    t.s.sweep()
    assert len(t.timers) == 2
    assert t.take("say") == []
    t.now += 0.1
    t.s.sweep()
    warning = "ompbind: warning: these processes cannot be ended: 10, 30\n"
    assert t.take("say") == [(warning,)]
    assert t.s.finishing
    t = stage()
    t.s.sweep()
    assert not t.s.finishing  # a rank is still to be reaped
    t.s.running.clear()
    t.s.sweep()
    assert t.s.finishing
    assert t.take("say") == []


# --- exits ---------------------------------------------------------------------------------------


def test_a_rank_that_fails_ends_the_others(stage: Make) -> None:
    """Its status is the first failure's, and it alone is reported at once."""
    t = stage(3)
    t.s.on_rank_exit(11, 3 << 8, usage(2048))
    line = "ompbind: rank 1 (pid 11) ended with status 3 after 10.0 s, peak memory 2.0 MiB\n"
    assert [text for (text,) in [c[1:] for c in t.calls if c[0] == "say"]] == [line]
    assert [c for c in t.take("send") if c[1] == TERM] == [(10, TERM, False), (12, TERM, False)]
    assert (t.s.status, t.s.reason) == (3, "because rank 1 had failed")
    assert t.s.exits == {1: 10.0}
    t.s.on_rank_exit(10, TERM, usage(1))
    assert t.take("say") == []
    assert [e.code for e in t.s.stopped] == [-TERM]
    t.s.on_rank_exit(12, 11, usage(1))  # SEGV is nobody's signal
    assert t.take("say")[0][0].startswith(
        "ompbind: rank 2 (pid 12) ended by signal 11 (SEGV) after"
    )
    assert len(t.s.stopped) == 1
    assert (t.s.status, t.s.running) == (3, {})


@pytest.mark.parametrize(
    ("settings", "status", "said", "sent"),
    [({}, 0, 0, 0), ({"verbose": True}, 0, 1, 0), ({}, 1 << 8, 1, 2),
     ({"on_failure": "continue"}, 1 << 8, 1, 0), ({}, 0x80 | 6, 1, 2)],
)  # fmt: skip
def test_a_rank_that_exits(
    settings: dict[str, Any], status: int, said: int, sent: int, stage: Make
) -> None:
    """Is reported if it failed, or if all is; it ends the others unless they are to go on."""
    t = stage(**settings)
    t.s.on_rank_exit(10, status, usage(1))
    lines = [text for _, text in [c for c in t.calls if c[0] == "say"]]
    assert len(lines) == said
    assert len(t.take("send")) == sent
    assert any("(core dumped)" in line for line in lines) is bool(status & 0x80)
    t.s.on_rank_exit(11, 1 << 8, usage(1))
    assert t.take("send") == []  # nobody is left


@pytest.mark.parametrize(
    ("sent", "kills", "status", "named"),
    [([], 1, KILL, True), ([], 0, KILL, False), ([KILL], 1, KILL, False), ([], 1, TERM, False)],
)
def test_whom_the_kernel_killed(
    sent: Sequence[int],
    kills: int,
    status: int,
    named: bool,
    stage: Make,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By the number of kills of its cgroup, each of which is one rank's."""
    t = stage()
    t.s.sent = frozenset(sent)
    monkeypatch.setattr(supervisor, "count_oom_kills", lambda: kills)
    monkeypatch.setattr(t.s, "explain_oom", lambda _: ("the OOM killer", "give it more"))
    t.s.on_rank_exit(10, status, usage(1))
    t.s.on_rank_exit(11, status, usage(1))
    lines = [text for (text,) in t.take("say")]
    remarks = [line for line in lines if "(the OOM killer) after" in line]
    assert remarks == lines[: int(named)]
    assert lines.count("hint: give it more\n") == int(named)


@pytest.mark.parametrize(("status", "text"), [(KILL, "signal 9 (KILL)"), (5 << 8, "status 5")])
def test_a_rank_that_exits_before_it_starts(status: int, text: str, stage: Make) -> None:
    """Is an error: nothing was started."""
    t = stage()
    t.s.released = False
    with pytest.raises(errors.CommandError, match="rank 1 exited before it could be") as caught:
        t.s.on_rank_exit(11, status, usage(1))
    assert caught.value.message.endswith(f": {text}")
    assert caught.value.status == 126


def test_leftovers_have_a_moment(stage: Make) -> None:
    """Once; who is being killed gets none, and none are ended where they may stay."""
    t = stage()
    t.s.timer = 60
    t.s.end_leftovers_later()
    assert t.take("cancel") == [(60,)]
    assert t.timers == [(supervisor.LINGER, t.s.end_leftovers)]
    assert (t.s.timer, t.s.ending_since) == (71, 100.0)
    t.s.end_leftovers_later()
    assert (len(t.timers), t.s.finishing) == (1, False)
    t = stage()
    t.s.ladder = Ladder(last=KILL)
    t.s.end_leftovers_later()
    assert (t.timers, t.s.finishing) == ([], False)
    t = stage()
    t.s.childless = True
    t.s.end_leftovers_later()
    assert t.s.finishing
    t = stage(leave_children=True)
    t.s.end_leftovers_later()
    assert t.s.finishing


@pytest.mark.parametrize("listed", [True, False])
def test_leftovers_that_cannot_be_listed(
    listed: bool, stage: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Are said to be there, and not waited for."""
    monkeypatch.setattr(supervisor, "can_list", lambda: listed)
    t = stage(grace=4.0)
    t.left = []
    t.s.end_leftovers()
    said = t.take("say")
    assert [line.partition(" that /proc")[0] for (line,) in said] == [
        "ompbind: warning: the ranks left processes behind"
    ] * (not listed)
    assert t.s.finishing is not listed


@pytest.mark.parametrize(
    ("left", "last", "text"),
    [([30], 0, "ending a process that"), ([30, 31], 0, "ending 2 processes that"), ([], 0, ""),
     ([30], INT, "")],
)  # fmt: skip
def test_leftovers_are_ended(left: list[int], last: int, text: str, stage: Make) -> None:
    """By TERM, and KILL after the time of grace; a note says so, unless all are ended anyway."""
    t = stage(grace=4.0)
    t.left = left
    t.s.ladder = Ladder(last=last)
    t.s.timer = 60
    t.s.end_leftovers()
    assert ("descendants", TERM, CONT) in t.calls
    assert ("cancel", 60) in t.calls
    said = t.take("say")
    assert len(said) == bool(text)
    assert all(text in line and line.startswith("ompbind: note: ") for (line,) in said)
    assert t.s.ladder.last == TERM
    assert t.timers == [(4.0, t.s.escalate)]
    assert t.s.timer == 71


def test_a_request_while_leftovers_have_a_moment(stage: Make) -> None:
    """Ends them at once."""
    t = stage()
    t.s.running.clear()
    t.s.end_leftovers_later()
    t.s.on_signal(TERM, from_terminal=False)
    assert t.take("descendants") == [(TERM, CONT)]
    assert len(t.timers) == 2


@pytest.mark.parametrize(
    ("ladder", "wait"),
    [(Ladder(), None), (Ladder(last=KILL), supervisor.LINGER),
     (Ladder(last=TERM, requested=TERM), 7.0), (Ladder(last=TERM), None)],
)  # fmt: skip
def test_how_long_output_is_waited_for(ladder: Ladder, wait: float | None, stage: Make) -> None:
    """As long as its reader takes, unless somebody asked for an end."""
    t = stage(grace=7.0)
    t.s.ladder, t.s.timer = ladder, 60
    t.s.finish()
    assert t.calls == [("cancel", 60), ("finish", t.s.conclude)]
    assert t.timers == ([] if wait is None else [(wait, t.s.give_up)])
    assert (t.s.running, t.s.finishing) == ({}, True)
    assert t.s.timer == (60 if wait is None else 71)
    t.calls.clear()
    t.s.conclude()
    assert t.calls == [("say", "ompbind: error: bad\n"), ("flush", t.s.loop.stop)]
    t.calls.clear()
    t.s.give_up()
    assert t.calls == [("stop",)]  # reported once


@pytest.mark.parametrize("verbose", [True, False])
def test_who_was_ended_is_reported(verbose: bool, stage: Make) -> None:
    """In one line, unless each one was reported already."""
    t = stage(verbose=verbose)
    t.s.stopped = [Ended(make_start(1), 11, -TERM, 1.0, 1)]
    t.s.sent, t.s.reason = frozenset([TERM]), "on signal 15 (TERM)"
    t.s.report()
    text = "ompbind: rank 1 was ended on signal 15 (TERM): by signal 15 (TERM)\n"
    assert t.take("say")[1:] == ([] if verbose else [(text,)])


def test_quiet(stage: Make) -> None:
    """Leaves out notes and warnings with their hints, and no error."""
    for quiet, lines in ((True, 1), (False, 3)):
        t = stage(quiet=quiet)
        for kind in ("note", "warning", "error"):
            t.s.say(kind, "text", "what to do")
        assert len(t.take("say")) == lines


def test_the_lines_at_the_start(stage: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Come before any rank executes, and are made of the plan as it is bound."""
    t = stage(announce=lambda plan: [f"{len(plan.ranks)} ranks"])
    t.s.start_pipe = os.pipe()
    monkeypatch.setattr(t.s, "record_ranks", t.note("record"))
    monkeypatch.setattr(t.s, "close_start_pipe", t.note("release"))
    t.s.release()
    os.close(t.s.start_pipe[1])
    os.close(t.s.start_pipe[0])
    assert [call[0] for call in t.calls] == ["record", "say", "release", "carry"]
    assert t.take("say") == [("ompbind: 2 ranks\n",)]


def test_a_measured_child_is_read_before_it_is_gone(
    stage: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the one that was read is reaped, not another one that has exited meanwhile."""
    t = stage()
    exited = [SimpleNamespace(si_pid=11), None]
    meter: Any = SimpleNamespace(read_exit=t.note("read"))

    def wait4(*args: int) -> tuple[int, int, Any]:
        t.calls.append(("wait", *args))
        return args[0], 0, usage(1)

    monkeypatch.setattr(os, "wait4", wait4)
    monkeypatch.setattr(os, "waitid", lambda *_: exited.pop(0))
    t.s.meter = meter
    assert t.s.reap() == (11, 0, usage(1))
    assert t.s.reap() is None
    assert t.calls == [("read", 11), ("wait", 11, os.WNOHANG | os.WUNTRACED)]


def test_children_that_have_exited(stage: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """All are reaped, ranks and others; a rank that was stopped has not exited."""
    t = stage()
    children = [(40, 0), (10, 5 << 8), (11, 0x137F), (0, 0)]
    asked: Calls = []

    def wait4(*args: int) -> tuple[int, int, Any]:
        asked.append(args)
        if not children:
            raise ChildProcessError
        return (*children.pop(0), usage(4))

    monkeypatch.setattr(os, "wait4", wait4)
    monkeypatch.setattr(t.s, "on_rank_exit", t.note("exit"))
    monkeypatch.setattr(t.s, "on_stop", t.note("stop"))
    monkeypatch.setattr(t.s, "on_error_pipe", t.note("error pipe"))
    monkeypatch.setattr(t.s, "prove", t.note("prove"))
    monkeypatch.setattr(t.s, "end_leftovers_later", t.note("leftovers"))
    t.s.wake_pipe, writer = os.pipe()
    os.set_blocking(t.s.wake_pipe, False)

    def wake() -> Calls:
        os.write(writer, b"x")
        t.calls.clear()
        t.s.on_child()
        return t.calls

    assert wake() == [("exit", 10, 5 << 8, usage(4)), ("stop", 11, 19)]
    assert set(asked) == {(-1, os.WNOHANG | os.WUNTRACED)}
    assert not t.s.childless
    t.s.error_pipe = 0
    assert wake() == [("error pipe",)]
    assert t.s.childless
    t.s.error_pipe = -1
    t.s.running.clear()
    assert wake() == [("prove",), ("leftovers",)]
    t.s.executed = False
    assert wake() == [("leftovers",)]
    t.s.released = False
    assert wake() == []
    children.append((0, 0))
    assert wake() == []
    assert not t.s.childless
    for fd in (writer, t.s.wake_pipe):
        os.close(fd)


@pytest.mark.parametrize("count", [1, 4095, 4096, 4097, 65536])
def test_any_number_of_exits_at_once(
    count: int, stage: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of them is a byte in the pipe that wakes the loop."""
    t = stage()
    monkeypatch.setattr(os, "wait4", lambda *_: (0, 0, None))
    t.s.wake_pipe, writer = os.pipe()
    os.set_blocking(t.s.wake_pipe, False)
    os.write(writer, bytes(count))
    t.s.on_child()
    with pytest.raises(BlockingIOError):
        os.read(t.s.wake_pipe, 1)
    for fd in (writer, t.s.wake_pipe):
        os.close(fd)


@pytest.mark.parametrize(
    ("pid", "number", "said"),
    [(10, 19, True), (10, 21, False), (10, 22, False), (10, 20, False), (11, 19, True),
     (11, 21, True), (11, 22, True), (11, 20, False), (40, 19, False)],
)  # fmt: skip
def test_a_rank_that_is_stopped(pid: int, number: int, said: bool, stage: Make) -> None:
    """Is reported once, unless the user or the shell knows; rank 0 is the terminal's."""
    t = stage()
    t.s.foreground = 0
    t.s.on_stop(pid, number)
    t.s.on_stop(pid, number)
    lines = [line for (text,) in t.take("say") for line in text.splitlines()]
    assert [line.partition(": ")[0] for line in lines] == ["ompbind", "hint"] * said
    t.s.on_stop(pid, 5)
    assert len(t.take("say")) == (pid != 40)
    for ended in (True, False):
        t = stage()
        if ended:
            t.s.ladder = Ladder(last=TERM)
        else:
            t.s.released = False
        t.s.on_stop(pid, number)
        assert t.calls == []


def test_a_rank_that_fails_while_all_are_ended(stage: Make) -> None:
    """By its status: it is in the line about all, and not one of its own."""
    t = stage()
    t.s.ladder, t.s.sent = Ladder(last=TERM), frozenset([TERM])
    t.s.on_rank_exit(10, 1 << 8, usage(1))
    assert t.calls == []
    assert [e.code for e in t.s.stopped] == [1]
    t.s.on_rank_exit(11, 0, usage(1))
    assert t.calls == []
    assert len(t.s.stopped) == 1


# --- starting ------------------------------------------------------------------------------------


def test_before_ranks_are_started() -> None:
    """Nothing runs, nothing was sent, nothing is reported."""
    plan: Any = SimpleNamespace(
        ranks=[make_start(0).rank], binder="native", groups=(), names_threads=False
    )
    nothing: Any = None
    s = Supervisor(Launch(plan, {}, {}, Settings()), nothing, 5, frozenset())
    flags = (s.released, s.executed, s.proved, s.finishing, s.reported, s.childless)
    assert flags == (False,) * 6
    numbers = (s.status, s.timer, s.oom_kills, s.ending_since, s.killing_since)
    assert numbers == (0,) * 5
    assert s.ladder == Ladder()
    assert s.error_pipe < 0
    assert not any((s.starts, s.running, s.start_pipe, s.files, s.exits, s.reason, s.sent, s.stops))
    assert s.group == os.getpgrp()


@pytest.mark.parametrize("fails", [True, False])
def test_a_launch(fails: bool, stage: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """From its start to its end, after which no process is left and no stream open."""
    t = stage()
    t.s.released = False
    t.s.running.clear()
    t.s.status = 4
    for name in ("leave_group", "set_signals", "fork_all", "on_control"):
        monkeypatch.setattr(t.s, name, t.note(name))

    def watch_children() -> None:
        t.s.wake_pipe = 40

    def prepare(used: int) -> tuple[int, int]:
        t.calls.append(("room", used))
        return 5, 6

    def run() -> None:
        t.calls.append(("run",))
        t.s.running[10] = Running(make_start(0), 0.0)
        if fails:
            raise KeyboardInterrupt

    monkeypatch.setattr(t.s, "watch_children", watch_children)
    monkeypatch.setattr(supervisor, "count_oom_kills", lambda: 3)
    starts = [make_start(0)]
    monkeypatch.setattr(Launch, "make_starts", lambda _: starts)
    streams: Any = SimpleNamespace(prepare=prepare, close=t.note("close"))
    t.s.streams = streams
    loop: Any = SimpleNamespace(run=run, watch=t.note("watch"))
    t.s.loop = loop
    if fails:
        with pytest.raises(KeyboardInterrupt):
            t.s.run()
    else:
        assert t.s.run() == 4
    ends = [("send", 10, KILL, False), ("end descendants",)] if fails else []
    assert t.calls == [
        ("leave_group",), ("set_signals",), ("room", 40), ("watch", 5, t.s.on_control),
        ("fork_all",), ("run",), *ends, ("close",),
    ]  # fmt: skip
    assert (t.s.oom_kills, t.s.files) == (3, (5, 6))
    assert t.s.starts == starts


@pytest.mark.parametrize("binder", ["native", "numactl"])
@pytest.mark.parametrize("denied", [True, False])
def test_all_ranks_are_forked(
    binder: str, denied: bool, stage: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of one memory policy together, then bound; released if nothing was denied."""
    t = stage(4)
    t.s.running.clear()
    t.s.foreground, t.s.group, t.s.files = 1, 9, (5, 6)
    t.s.starts[2] = make_start(2).replace(
        rank=make_start(2).rank.replace(binding=Binding(binder=binder))
    )
    plan: Any = SimpleNamespace(binder=binder)
    t.s.launch = t.s.launch.replace(plan=plan)
    gates: list[Any] = []

    def connect(batches: Sequence[Sequence[Start]]) -> Any:
        t.calls.append(("connect", *([s.rank.rank for s in batch] for batch in batches)))
        for batch in batches:
            yield [start.replace(stdin=7) for start in batch]

    def fork(starts: Sequence[Start], gate: Any) -> None:
        gates.append(gate)
        for start in starts:
            t.calls.append(("fork", start.rank.rank, start.stdin))
            t.s.running[30 + start.rank.rank] = Running(start, 1.0)

    def refuse(*args: object) -> None:
        t.calls.append(("bind", *args))
        if denied:
            raise OSError(1, "no")

    inheritance = SimpleNamespace(set_memory=refuse, restore=t.note("restore"))
    monkeypatch.setattr(supervisor, "Inheritance", lambda _: inheritance)
    monkeypatch.setattr(supervisor, "set_affinity", refuse)
    monkeypatch.setattr(t.s, "fork_batch", fork)
    monkeypatch.setattr(t.s, "release", t.note("release"))
    monkeypatch.setattr(t.s, "start_again", t.note("again"))
    monkeypatch.setattr(os, "setpgid", t.note("group"))
    monkeypatch.setattr(t.s, "streams", SimpleNamespace(connect=connect, batch=5))
    t.s.fork_all()
    native = binder == "native"
    node, none = CpuSet([0]), CpuSet()
    bind, nothing = ("bind", "bind", node, False), ("bind", "none", none, False)
    expected: Calls = [("connect", [0, 1], [2], [3])]
    for policy, ranks in ((bind, (0, 1)), (nothing, (2,)), (bind, (3,))):
        expected += [*[policy] * native, *(("fork", n, 7) for n in ranks)]
    expected.append(("restore",))
    for n in range(4):
        cpus = [("bind", CpuSet([n]), 30 + n)] * (native and n != 2)
        expected += [("group", 30 + n, 9 if n == 1 else 30 + n), *cpus]
    assert t.calls[: len(expected)] == expected
    watch, last = t.calls[len(expected) :]
    assert watch == ("watch", t.s.error_pipe, t.s.on_error_pipe)
    if denied and native:
        assert [last[0], *((r.rank, r.part) for r in last[1])] == [
            "again", (0, "cpus"), (0, "memory"), (1, "cpus"), (2, "memory"), (3, "cpus"),
            (3, "memory"),
        ]  # fmt: skip
    else:
        assert last == ("release",)
    assert not os.get_blocking(t.s.error_pipe)
    assert os.read(t.s.error_pipe, 1) == b""  # only ranks have the other end
    (gate,) = set(gates)
    assert (gate.supervisor, gate.start_pipe) == (os.getpid(), t.s.start_pipe[0])
    assert (gate.sigmask, gate.files) == (frozenset(), (5, 6))
    for fd in (t.s.error_pipe, *t.s.start_pipe):
        os.close(fd)


@pytest.mark.parametrize(("batch", "groups", "sizes"), [(2, False, [2, 2, 1]), (9, False, [5]),
                                                        (9, True, [1] * 5)])  # fmt: skip
def test_ranks_are_forked_by_turns(
    batch: int, groups: bool, sizes: list[int], stage: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many at once as there are descriptors for; of groups one, as it may wait for long."""
    t = stage(5)
    t.s.starts = [make_start(0).replace(path=str(n)) for n in range(5)]
    monkeypatch.setattr(t.s, "streams", SimpleNamespace(batch=batch))
    stages: Any = object()
    t.s.stages = stages if groups else None
    batches = t.s.make_batches()
    assert [len(b) for b in batches] == sizes
    assert [start for b in batches for start in b] == t.s.starts


@pytest.mark.parametrize(
    ("tty", "stdin", "foreground", "leaves"),
    [(True, "", 0, True), (False, "", None, True), (True, "all", None, False),
     (False, "all", None, True), (True, "1", 1, True), (True, "none", None, True)],
)  # fmt: skip
def test_who_is_in_the_terminals_group(
    tty: bool,
    stdin: str,
    foreground: int | None,
    leaves: bool,
    stage: Make,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The rank that reads it; the supervisor only where it reads for all."""
    t = stage(stdin=stdin)
    library: Any = SimpleNamespace(adopt=t.note("adopt"), die_with_parent=t.note("die"))
    t.s.library = library
    monkeypatch.setattr(os, "isatty", lambda fd: tty and fd == 0)
    monkeypatch.setattr(os, "setpgid", t.note("group"))
    t.s.leave_group()
    assert t.s.foreground == foreground
    assert t.calls == ([("group", 0, 0)] if leaves else []) + [("adopt",), ("die", CONT)]


def test_ranks_are_released_together(stage: Make) -> None:
    """Each takes a byte from one pipe."""
    t = stage(3)
    t.s.released = False
    reader, writer = os.pipe()
    kept = os.dup(reader)
    t.s.start_pipe = (reader, writer)
    t.s.release()
    assert t.s.released
    assert os.read(kept, 10) == bytes(3)
    assert os.read(kept, 10) == b""
    os.close(kept)
    assert not t.s.start_pipe
    assert t.calls == [("carry", t.s.loop)]
    for fd in (reader, writer):
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fd)


@pytest.mark.parametrize("released", [True, False])
def test_the_end_of_the_error_pipe(
    released: bool, stage: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Means that all have executed; before it, nothing or why one cannot."""
    t = stage()
    t.s.released, t.s.executed = released, False
    monkeypatch.setattr(t.s, "prove", t.note("prove"))
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    t.s.error_pipe = reader
    t.s.on_error_pipe()
    assert t.calls == []
    pipes.send(writer, "1", "command", "no right")
    with pytest.raises(errors.CommandError, match="rank 1: 'true' cannot be executed: no right"):
        t.s.on_error_pipe()
    os.close(writer)
    t.s.on_error_pipe()
    assert t.calls == [("unwatch", reader)] + ([("prove",)] if released else [])
    assert (t.s.executed, t.s.error_pipe) == (released, -1)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(reader)


@pytest.mark.parametrize(
    ("opened", "held", "number", "kept", "holds_all"),
    [((7, 8), True, 240, [[(7, 240)], [(8, 240)]], False),
     ((7, None), True, 3, [[(7, 3)], []], True),
     ((None, None), True, 240, [[], []], True), ((7, 8), True, -1, [[], []], True),
     ((7, 8), False, 240, [[(7, 240)], [(8, 240)]], True), ((), True, 240, [[], []], False)],
)  # fmt: skip
@pytest.mark.parametrize("fails", [True, False])
def test_forked_ranks_hold_leases(
    opened: tuple[int | None, ...],
    held: bool,
    number: int,
    kept: list[Any],
    holds_all: bool,
    fails: bool,
    stage: Make,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each its own; where one cannot, the launch's is kept. Those that were forked are known
    whatever became of the others."""
    t = stage(2)
    starts = list(t.s.starts)
    t.s.running.clear()
    leases = [
        None if fd is None else SimpleNamespace(
            fd=fd, hold=lambda cpus: t.calls.append(("hold", *cpus)) or held,  # type: ignore[func-returns-value]
            find_descriptor=lambda: number, close=t.note("close"),
        ) for fd in opened
    ]  # fmt: skip
    plan: Any = SimpleNamespace(held_by=lambda rank: CpuSet([rank.rank, rank.rank + 4]))
    lease: Any = object() if opened else None
    t.s.launch = t.s.launch.replace(plan=plan, lease=lease)
    monkeypatch.setattr(supervisor, "Lease", SimpleNamespace(open=iter(leases).__next__))

    def fork(starts: Sequence[Start], moves: Any, gate: Any, pids: list[int]) -> None:
        t.calls.append(("fork", moves, gate))
        pids.append(33)
        if fails:
            raise errors.CommandError("no process", found=True)
        pids.append(34)

    monkeypatch.setattr(supervisor, "fork_ranks", fork)
    gate: Any = "gate"
    if fails:
        with pytest.raises(errors.CommandError):
            t.s.fork_batch(starts, gate)
    else:
        t.s.fork_batch(starts, gate)
    holds = [("hold", n, n + 4) for n, fd in enumerate(opened) if fd is not None]
    assert t.calls == [*holds, ("fork", kept, "gate"), *[("close",)] * len(holds)]
    assert t.s.holds_all is holds_all
    running = {33: Running(starts[0], 100.0), 34: Running(starts[1], 100.0)}
    assert t.s.running == ({33: running[33]} if fails else running)


@pytest.mark.parametrize("pause", [None, 0.5])
def test_ranks_are_verified(pause: float | None, stage: Make) -> None:
    """Until there is nothing left to verify, and not while they are ended."""
    calls: Calls = []

    def prove(*args: Any) -> float | None:
        calls.append((args[1].copy(), args[2].copy()))
        return pause

    t = stage(prove=prove)
    t.s.exits = {5: 1.0}
    t.s.prove()
    assert calls == [({0: 10, 1: 11}, {5: 1.0})]
    assert t.timers == ([] if pause is None else [(0.5, t.s.prove)])
    t.s.prove()
    assert len(calls) == (1 if pause is None else 2)
    t = stage(prove=prove)
    calls.clear()
    t.s.ladder = Ladder(last=TERM)
    t.s.prove()
    assert calls == []
    t.s.running.clear()
    t.s.prove()
    assert len(calls) == 1
    stage().s.prove()


@pytest.mark.parametrize("ranks", [2, 0])
@pytest.mark.parametrize("status", [0, 7])
def test_ranks_that_are_not_as_planned(ranks: int, status: int, stage: Make) -> None:
    """Are ended; their own failure comes first."""

    def prove(*_: object) -> NoReturn:
        raise errors.DeniedError("wrong", hint="do")

    t = stage(prove=prove)
    t.s.status = status
    if not ranks:
        t.s.running.clear()
    t.s.prove()
    assert t.s.proved
    assert t.s.status == (status or 125)
    assert len([c for c in t.calls if c[0] == "send" and c[2] == TERM]) == ranks
    assert t.take("say") == [("ompbind: error: wrong\nhint: do\n",)]
    assert t.s.reason == ("because not all was as planned" if ranks else "")


def test_a_start_without_what_was_denied(stage: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """All are killed and reaped, and forked again by the plan without it."""
    t = stage(on_denied="degrade")
    t.s.released = False
    reaped: Calls = []
    monkeypatch.setattr(os, "waitpid", lambda *args: reaped.append(args))
    monkeypatch.setattr(t.s, "fork_all", t.note("fork all"))
    monkeypatch.setattr(Launch, "make_starts", lambda launch: [launch.plan])

    def apply(plan: Any, refusals: Any, on_denied: str, say: Callable[[str], None]) -> str:
        assert (plan, refusals, on_denied) == (old, ["refusal"], "degrade")
        say("left out")
        return "new plan"

    monkeypatch.setattr(supervisor, "apply_on_denied", apply)
    old = t.s.launch.plan
    t.s.error_pipe, t.s.start_pipe = os.pipe()[0], os.pipe()
    refusals: Any = ["refusal"]
    t.s.start_again(refusals)
    assert reaped == [(10, 0), (11, 0)]
    assert (t.s.running, t.s.error_pipe, len(t.s.start_pipe)) == ({}, -1, 0)
    assert t.s.starts == ["new plan"] == [t.s.launch.plan]
    assert [c for c in t.calls if c[0] == "say"] == [("say", "ompbind: warning: left out\n")]
    assert t.calls[-1] == ("fork all",)
    assert t.take("send") == [(10, KILL, False), (11, KILL, False)]


# --- the trampoline ------------------------------------------------------------------------------


@pytest.mark.parametrize(("binder", "balancing"), [("native", True), ("numactl", False)])
def test_a_binding_as_words(binder: str, balancing: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the process that binds itself makes of them is the same."""
    binding = Binding(CpuSet([1, 2]), "bind", CpuSet([0]), binder, balancing)
    rank = RankPlan(3, binding, (), CpuSet(), (), (), ())
    words = trampoline.make_words(rank, ["a", "b"], "degrade")
    flag = "balancing" if balancing else ""
    assert words == ["3", binder, "degrade", "1-2", "bind", "0", flag, "a", "b"]
    ran: list[Any] = []
    tried: Calls = []
    monkeypatch.setattr(launch, "run", lambda *args: ran.extend(args) or 7)  # type: ignore[func-returns-value]
    monkeypatch.setattr(trampoline, "try_binding", lambda *args: tried.append(args))
    assert trampoline.become_worker(words, print) == 7
    plan, environ, say, settings = ran
    assert plan.ranks == (rank.replace(command=("a", "b")),)
    assert (environ, say, settings) == (dict(os.environ), print, Settings(on_denied="degrade"))
    assert tried == ([(3, binding)] if binder == "numactl" else [])


@pytest.mark.parametrize("handled", [True, False])
def test_an_interrupt_before_the_worker_is_there(
    handled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ends it as it would the worker: Python's handler goes, an ignored signal stays ignored."""
    handler, calls = object(), Calls()

    def set_signal(*args: object) -> None:
        calls.append(("signal", *args))

    def run(*args: object) -> int:
        calls.append(args)
        return 5

    fake = SimpleNamespace(
        SIGINT=2, SIG_DFL=0, default_int_handler=handler, signal=set_signal,
        getsignal=lambda number: handler if handled and number == 2 else 1,
    )  # fmt: skip
    monkeypatch.setattr(trampoline, "signal", fake)
    monkeypatch.setattr(trampoline, "run_and_report", run)
    with pytest.raises(SystemExit) as caught:
        trampoline.main(["a"])
    assert caught.value.code == 5
    assert calls == [("signal", 2, 0)] * handled + [(["a"], trampoline.become_worker)]


@pytest.mark.parametrize(
    ("raised", "status", "messages"),
    [
        (None, 3, [("warning", "odd"), ("status", "3")]),
        (KeyboardInterrupt(), 130, [("warning", "odd"), ("status", "130")]),
        (errors.CommandError("no", found=False), 127, [("warning", "odd"), "no"]),
        (ValueError("x"), 125,
         [("warning", "odd"), "the process could not be started: ValueError('x')"]),
    ],
)  # fmt: skip
@pytest.mark.parametrize("ctype", ["", "=", "=C"])
def test_what_a_started_process_reports(
    raised: BaseException | None,
    status: int,
    messages: list[Any],
    ctype: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """That it began, warnings, and how it ended; in the locale that the worker is to have."""
    monkeypatch.setenv("LC_CTYPE", "old")
    reader, writer = os.pipe()
    os.set_inheritable(writer, True)

    def act(words: Sequence[str], say: Callable[[str], None]) -> int:
        assert words == ["a", "b"]
        assert os.environ.get("LC_CTYPE") == (ctype[1:] if ctype else None)
        assert not os.get_inheritable(writer)
        say("odd")
        if raised:
            raise raised
        return 3

    assert trampoline.run_and_report([str(writer), ctype, "a", "b"], act) == status
    os.close(writer)
    first, *rest = pipes.receive(reader)
    assert first == ("begun",)
    assert [pipes.parse_error(m).message if m[0] == "error" else m for m in rest] == messages


# --- where there is no fork ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("statuses", "first", "result", "ended"),
    [([0, 0], None, 0, []), ([3, 0], 0, 3, [1]), ([1, -15], 0, 1, [1]), ([0, -9], 1, 137, [0])],
)
def test_ranks_without_fork(
    statuses: list[int],
    first: int | None,
    result: int,
    ended: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """All are waited for, and the first failure ends those that still run."""
    import threading

    started: list[Any] = []
    daemons: list[bool] = []  # others would keep an interrupted ompbind from exiting

    class Worker:
        def __init__(self, argv: Any, executable: str, env: dict[str, str]) -> None:
            assert (argv, executable, env) == (("true",), "/bin/true", {"A": "\udcff"})
            self.number, self.ends = len(started), threading.Event()
            self.terminated = False
            if first in (None, self.number):
                self.ends.set()
            started.append(self)

        def wait(self) -> int:
            daemons.append(threading.current_thread().daemon)
            assert self.ends.wait(30)
            return statuses[self.number]

        def poll(self) -> int | None:
            return statuses[self.number] if self.ends.is_set() else None

        def terminate(self) -> None:
            self.terminated = True
            self.ends.set()

    monkeypatch.setattr(subprocess, "Popen", Worker)
    starts = [make_start(n).replace(env={b"A": b"\xff"}) for n in range(2)]
    assert portable.run_portably(starts) == result
    assert all(daemons)
    assert [worker.number for worker in started if worker.terminated] == ended


def test_a_rank_without_fork_that_cannot_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ends those that were."""
    calls: Calls = []

    class Worker:
        def __init__(self, *_: object, **__: object) -> None:
            calls.append(("start",))
            if len(calls) > 1:
                raise OSError(errno.EACCES, "no right")

        def wait(self) -> int:
            return 0

        def poll(self) -> None:
            return None

        def terminate(self) -> None:
            calls.append(("terminate",))

    monkeypatch.setattr(subprocess, "Popen", Worker)
    with pytest.raises(errors.CommandError, match="rank 1: 'true' cannot be executed: no right"):
        portable.run_portably([make_start(0), make_start(1)])
    assert calls == [("start",), ("start",), ("terminate",)]
