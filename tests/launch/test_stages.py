"""Groups as they run: the order of their start and end, their names, and what fails."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar, cast

import pytest

import ompbind
from ompbind.cli import main
from ompbind.cpuset import CpuSet
from ompbind.errors import OmpbindError, UsageError
from ompbind.launch import stages
from ompbind.launch.ready import Condition
from ompbind.launch.stages import Stages
from ompbind.launch.supervisor import Ladder, Running
from ompbind.plans import Group
from tests.support.commands import OMPBIND, TIMEOUT, environment, ompbind_run
from tests.support.needs import need_cpus

ONE = ("--cores-per-rank", "1", "--oversubscribe")
# Writes its name to the file $0 when it is asked to end.
PATIENT = "trap 'echo $OMPBIND_GROUP >>$0; exit 0' TERM; echo up; while :; do sleep 0.02; done"


def lines_of(text: str) -> list[str]:
    return text.splitlines()


def test_a_group_starts_when_the_one_before_is_ready(tmp_path: Path) -> None:
    """The client runs only after the server's line, each on its own cores with its name on each
    line; the server in the background ends with the client, and that is no failure."""
    _, second = need_cpus(2)
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    server = f'echo starting; read -r word <{gate}; echo "serving $word"; exec sleep 100'
    client = "echo $OMPBIND_GROUP $RANK; taskset -cp $$ | sed 's/.*: //'"
    process = subprocess.Popen(
        [OMPBIND, "run", *ONE, "--ready", "line:^serving", "--background", "--group", "server",
         "--", "sh", "-c", server, ":::", "--cores-per-rank", "1", "--after", "server",
         "--group", "client", "--", "sh", "-c", client],
        env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "[server] starting\n"
    gate.write_text("now\n")
    out, err = process.communicate(timeout=TIMEOUT)
    assert lines_of(out) == ["[server] serving now", "[client] client", f"[client] {second}"]
    assert (process.returncode, err) == (0, "")


def start_groups(tmp_path: Path, code: str, *groups: tuple[str, ...]) -> subprocess.Popen[str]:
    """Start groups of one program, by their options, and wait until all ranks are up."""
    command = [OMPBIND, "run", "-n", "2"]
    for number, options in enumerate(groups):
        command += [":::"] * bool(number)
        command += [*ONE, *options, "--", "sh", "-c", code, str(tmp_path / "ended")]
    process = subprocess.Popen(
        command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    for _ in range(len(groups) + 1):  # two ranks of the first group
        assert process.stdout.readline().endswith("up\n")
    return process


def test_groups_end_in_the_other_order(tmp_path: Path) -> None:
    """TERM reaches the group that was started last, and each other one when those after it have
    exited."""
    orders = (("--group", "a"), ("--group", "b", "--after", "a"), ("--group", "c", "--after", "b"))
    process = start_groups(tmp_path, PATIENT, *orders)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=TIMEOUT)
    assert (tmp_path / "ended").read_text() == "c\nb\na\na\n"
    assert process.returncode == 0


def test_a_second_request_ends_all(tmp_path: Path) -> None:
    """Who asks twice does not wait for the order: all get the next signal."""
    orders = (("--group", "a"), ("--group", "b", "--after", "a"))
    process = start_groups(tmp_path, f"trap '' INT; {PATIENT}", *orders)
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=TIMEOUT)
    assert sorted((tmp_path / "ended").read_text().split()) == ["a", "a", "b"]


def test_a_group_may_wait_for_an_end(tmp_path: Path) -> None:
    """With `exit` the one after it starts when all its ranks have exited with 0; files are named
    after groups."""
    out = tmp_path / "out"
    args = ["run", "--output-dir", str(out), *ONE, "-n", "2", "--ready", "exit", "--group", "make"]
    args += ["--", "sh", "-c", f"echo x >>{tmp_path}/made", ":::", *ONE, "--after", "make"]
    done = ompbind_run(*args, "--group", "use", "--", "cat", f"{tmp_path}/made")
    assert done.returncode == 0, done.stderr
    assert (out / "use.out").read_text() == "x\nx\n"
    assert sorted(p.name for p in out.iterdir()) == [
        "make-0.err", "make-0.out", "make-1.err", "make-1.out", "use.err", "use.out"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("options", "word", "status", "message"),
    [
        ((), "exit 3", 3, "ompbind: rank make (pid "),
        (("--on-failure", "keep"), "exit 3", 3, "group use cannot be started: group make"),
        ((), "exit 0", 125, "group use cannot be started: group make has exited, and was not ready "
                            "(line:never)"),
    ],
)  # fmt: skip
def test_what_a_group_waits_for_may_never_come(
    options: tuple[str, ...], word: str, status: int, message: str, tmp_path: Path
) -> None:
    """The group before it has ended unready: the one after it is never executed, and nothing is
    said of it as a rank that ended."""
    args = [
        "run",
        *options,
        *ONE,
        "--ready",
        "line:never",
        "--group",
        "make",
        "--",
        "sh",
        "-c",
        word,
    ]
    args += [":::", *ONE, "--after", "make", "--group", "use", "--", "touch", f"{tmp_path}/ran"]
    done = ompbind_run(*args)
    assert done.returncode == status
    assert message in done.stderr
    assert "rank use" not in done.stderr
    assert not (tmp_path / "ran").exists()


def test_a_signal_while_a_group_waits(tmp_path: Path) -> None:
    """What was not executed yet never is, and is not reported as a rank that ended."""
    word = "trap '' USR2; echo up; exec sleep 100"
    process = subprocess.Popen(
        [OMPBIND, "run", *ONE, "--ready", "line:never", "--group", "a", "--", "sh", "-c", word,
         ":::", *ONE, "--after", "a", "--group", "b", "--", "touch", f"{tmp_path}/ran"],
        env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "[a] up\n"
    process.send_signal(signal.SIGUSR2)  # of no meaning to ompbind; a rank that waits survives it
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 128 + signal.SIGTERM
    assert "rank b" not in err
    assert not (tmp_path / "ran").exists()


def test_a_failure_ends_the_others(tmp_path: Path) -> None:
    """The first failure's status, and each rank by its group's name."""
    args = ["run", *ONE, "--group", "server", "--", "sleep", "100", ":::", *ONE, "-n", "2"]
    word = '[ "$RANK" = 0 ] || exit 5; exec sleep 100'
    done = ompbind_run(*args, "--group", "client", "--after", "server", "--", "sh", "-c", word)
    assert done.returncode == 5
    assert "ompbind: rank client.1 (pid " in done.stderr
    assert "2 ranks were ended because rank client.1 had failed" in done.stderr


def test_a_port_that_somebody_has(tmp_path: Path) -> None:
    """Refused before anything is executed: nobody could tell whose answer it is. So is a line that
    ompbind would not see."""
    rest = ["--", "touch", f"{tmp_path}/ran", ":::", *ONE, "--", "true"]
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        done = ompbind_run("run", *ONE, "--ready", str(port), *rest)
    assert done.returncode == 125
    assert f"group touch: --ready {port}: somebody listens there already" in done.stderr
    done = ompbind_run("run", "--output", "inherit", *ONE, "--ready", "line:x", *rest)
    assert done.returncode == 125
    assert "ompbind does not see what is written" in done.stderr
    assert not (tmp_path / "ran").exists()


def test_a_command_that_cannot_be_executed(tmp_path: Path) -> None:
    """One of the groups: found out before any is started."""
    bad = tmp_path / "bad"
    bad.write_text("x")
    bad.chmod(0o755)
    done = ompbind_run("run", *ONE, "--", "touch", f"{tmp_path}/ran", ":::", *ONE, "--", "no-such")
    assert done.returncode == 127
    assert not (tmp_path / "ran").exists()


def test_a_saved_plan_of_groups(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """It runs in its order, --verify judges the ranks of all groups, and a difference has the
    group's name."""
    need_cpus(2)
    words = ["--cores-per-rank", "1", "--ready", "exit", "--group", "make", "--"]
    words += ["sh", "-c", f"sleep 0.3; echo x >{tmp_path}/made", ":::", "--cores-per-rank", "1"]
    code = f"taskset -cp 0,1 $$ >{tmp_path}/set; cat {tmp_path}/made; sleep 2"
    words += ["--after", "make", "--group", "use", "--", "sh", "-c", code]
    assert main(["show", "--format", "json", *words]) == 0
    (tmp_path / "plan").write_text(capfd.readouterr().out)
    done = ompbind_run("run", "--plan", str(tmp_path / "plan"), "--verify=0.5")
    assert (done.returncode, done.stdout) == (0, "[use] x\n"), done.stderr
    assert "rank 1 (use), pid " in done.stderr
    assert "rank 0 (make)" not in done.stderr
    done = ompbind_run("run", "--plan", str(tmp_path / "plan"), "--", "true")
    assert "the plan has groups with commands of their own" in done.stderr
    (tmp_path / "made").unlink()
    with ompbind.Plan.load(tmp_path / "plan").popen(0) as worker:  # its group's command
        assert worker.wait(TIMEOUT) == 0
    assert (tmp_path / "made").exists()


# --- in this process -----------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def killed(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The pids of made-up processes that would have been killed: others may have them here. At the
    end of a test, the pipes of what it made up are closed."""
    pids: list[int] = []
    monkeypatch.setattr(stages, "send_to", lambda pid, number: pids.append(pid))
    yield pids
    for fake in Fake.made:
        fake.close()
    Fake.made.clear()


class Fake:
    """A supervisor of groups, each of one or more ranks with pids from 10; `calls` is what was
    asked of it."""

    made: ClassVar[list[Fake]] = []

    def __init__(self, *groups: Group, tagged: bool = True) -> None:
        names = [group.name for group in groups for _ in group.ranks]
        self.calls: list[tuple[object, ...]] = []
        self.timers: list[tuple[float, Callable[[], object]]] = []
        self.launch = SimpleNamespace(plan=SimpleNamespace(groups=groups))
        self.settings = SimpleNamespace(verbose=False, grace=7.0)
        self.streams = SimpleNamespace(tagged=tagged, watchers={})
        self.cancelled: list[int] = []
        self.loop = SimpleNamespace(after=self.after, cancel=self.cancelled.append)
        self.running = {10 + n: self.make_rank(n, name) for n, name in enumerate(names)}
        self.codes: dict[int, int] = {}
        self.ladder = Ladder()
        self.timer = self.status = 0
        self.reason = ""
        self.stages: Any = Stages(cast("Any", self))
        for name in dict.fromkeys(names):
            self.stages.pipes[name] = os.pipe()
        # What the ranks of each group, which wait there, hold of its pipe.
        self.gates = {name: os.dup(pipe[0]) for name, pipe in self.stages.pipes.items()}
        self.made.append(self)

    def close(self) -> None:
        """Close what is left of the pipes."""
        self.stages.reset()
        for fd in self.gates.values():
            os.close(fd)

    def make_rank(self, rank: int, group: str) -> Any:
        start: Any = SimpleNamespace(rank=SimpleNamespace(rank=rank, group=group))
        return Running(start, 0.0)

    def after(self, seconds: float, call: Callable[[], object]) -> int:
        self.timers.append((seconds, call))
        return len(self.timers)

    def say(self, kind: str, text: str, hint: str = "") -> None:
        self.calls.append((kind, text))

    def send(self, number: int) -> None:
        taken = [pid for pid, r in self.running.items() if self.stages.takes(r, number)]
        self.calls.append(("send", number, *taken))

    def escalate(self) -> None:
        self.ladder = self.ladder.escalate()
        self.stages.on_step()
        self.send(self.ladder.last)

    def exit(self, pid: int, code: int = 0) -> None:
        running = self.running.pop(pid)
        self.codes[running.rank] = code
        self.stages.on_exit(SimpleNamespace(start=running.start))


def group(name: str, first: int, *after: str, ranks: int = 1, **more: Any) -> Group:
    return Group(name, CpuSet(range(first, first + ranks)), after=after, **more)


def test_all_that_wait_for_nobody_begin() -> None:
    """Groups without a condition let those after them go at once, in whatever order they stand."""
    fake = Fake(group("c", 0, "b"), group("a", 1), group("b", 2, "a"))
    fake.stages.begin()
    assert fake.stages.waiting == set()
    assert fake.timers == []
    assert all(r.since > 0 for r in fake.running.values())


def test_a_group_that_may_begin_is_let_go() -> None:
    """A byte for each of its ranks, and nobody else holds an end of its pipe; those of the others
    still wait."""
    fake = Fake(group("a", 0, ranks=3, ready=("exit",)), group("b", 3, "a"))
    ends = fake.stages.pipes["a"]
    fake.stages.begin()
    assert [r.since > 0 for r in fake.running.values()] == [True, True, True, False]
    for fd in ends:
        with pytest.raises(OSError, match="descriptor"):
            os.fstat(fd)
    os.set_blocking(fake.gates["b"], False)
    assert os.read(fake.gates["a"], 99) == bytes(3)
    with pytest.raises(BlockingIOError):
        os.read(fake.gates["b"], 99)


def test_ranks_wait_at_the_pipe_of_their_group() -> None:
    """At its end for reading, all of them."""
    fake = Fake(group("a", 0, ranks=2), group("b", 2))
    fake.stages.reset()
    gate: Any = SimpleNamespace(replace=lambda **changes: changes)
    gates = [fake.stages.make_gate(gate, running.start) for running in fake.running.values()]
    assert gates[0] == gates[1] == {"start_pipe": fake.stages.pipes["a"][0]}
    assert gates[2] == {"start_pipe": fake.stages.pipes["b"][0]}
    fake.stages.reset()


def test_conditions_that_nobody_could_see(monkeypatch: pytest.MonkeyPatch) -> None:
    """A line where ranks write elsewhere, and a port at which somebody listens already: refused
    before any group begins."""
    with pytest.raises(UsageError, match="group a: --ready line:x: ompbind does not see"):
        Fake(group("a", 0, ready=("exit", "line:x")), tagged=False)
    monkeypatch.setattr(stages, "is_taken", lambda condition: condition.port == 8000)
    fake = Fake(group("a", 0, ready=("8001",)), group("b", 1, ready=("exit", "8000")), tagged=False)
    with pytest.raises(OmpbindError, match="group b: --ready 8000: somebody listens there"):
        fake.stages.begin()
    assert fake.stages.waiting == {"a", "b"}


class FakeProbe:
    """In place of what asks a port or a page."""

    made: ClassVar[list[FakeProbe]] = []

    def __init__(self, loop: object, condition: Condition, done: Callable[[], object]) -> None:
        self.text, self.done = condition.text, done
        self.calls: list[str] = []
        self.made.append(self)

    def start(self) -> None:
        self.calls.append("start")

    def close(self) -> None:
        self.calls.append("close")


def test_ports_and_pages_are_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """When the group begins, and no more when ranks are ended; the group is ready when both have
    answered."""
    monkeypatch.setattr(stages, "Probe", FakeProbe)
    monkeypatch.setattr(stages, "is_taken", lambda _: False)
    FakeProbe.made.clear()
    page = "http://127.0.0.1:8001/health"
    both = ("8000", page)
    fake = Fake(group("a", 0, ready=both), group("b", 1, "a", ready=both), group("c", 2))
    fake.stages.begin()
    probes = {probe.text: probe for probe in FakeProbe.made}
    assert sorted(probes) == sorted(both)
    assert [probe.calls for probe in FakeProbe.made] == [["start"]] * 2
    probes[page].done()
    assert fake.stages.waiting == {"b"}
    probes["8000"].done()
    assert fake.stages.waiting == set()
    assert [probe.calls for probe in FakeProbe.made] == [["start"]] * 4
    fake.escalate()
    assert [probe.calls for probe in FakeProbe.made] == [["start", "close"]] * 4


def test_a_group_is_ready_when_all_its_ranks_are() -> None:
    """A line is looked for in each rank, and each other condition once."""
    fake = Fake(group("a", 0, ranks=2, ready=("line:x", "exit")), group("b", 2, "a"))
    fake.stages.begin()
    assert fake.stages.waiting == {"b"}
    assert sorted(fake.streams.watchers) == [0, 1]
    feeds = [fake.streams.watchers[rank]() for rank in (0, 1)]
    feeds[0](b"x\n")
    fake.stages.on_condition("a", "exit", -1)
    assert fake.stages.waiting == {"b"}
    feeds[1](b"x\n")
    assert fake.stages.waiting == set()


def test_a_reminder_says_what_is_missing() -> None:
    """After half a minute, then after a minute more, and no more when nothing waits."""
    fake = Fake(group("a", 0, ready=("exit",)), group("b", 1, "a"), group("c", 2, "b"))
    fake.stages.begin()
    assert [seconds for seconds, _ in fake.timers] == [30.0]
    fake.timers[0][1]()
    assert fake.calls == [("note", "waiting for group a to be ready: exit")]
    assert [seconds for seconds, _ in fake.timers] == [30.0, 60.0]
    fake.exit(10)
    fake.timers[1][1]()
    assert len(fake.calls) == 1
    assert len(fake.timers) == 2


def test_a_reminder_is_of_those_that_have_begun() -> None:
    """With all that they miss; not of those that are ready, or wait themselves. Where ranks are
    being ended there is none."""
    lines = tuple(f"line:{letter}" for letter in "edacb")
    fake = Fake(
        group("a", 0), group("b", 1, "a", ready=lines), group("c", 2, "b", ready=("exit",)),
        group("d", 3, "c"),
    )  # fmt: skip
    fake.stages.begin()
    fake.timers[0][1]()
    text = "waiting for group b to be ready: line:a, line:b, line:c, line:d, line:e"
    assert fake.calls == [("note", text)]
    fake.ladder = fake.ladder.escalate()
    fake.timers[1][1]()
    assert (len(fake.calls), len(fake.timers)) == (1, 2)


def test_what_was_ready_is_said_with_verbose() -> None:
    """One note for each group."""
    fake = Fake(group("a", 0, ready=("exit",)), group("b", 1, "a"))
    fake.settings.verbose = True
    fake.stages.begin()
    fake.exit(10)
    assert fake.calls == [("note", "group a is ready")]
    fake = Fake(group("a", 0, ready=("line:x", "exit")), group("b", 1, "a"))
    fake.settings.verbose = True
    fake.stages.begin()
    fake.stages.on_condition("a", "exit", -1)
    assert fake.calls == []
    fake.ladder = fake.ladder.escalate()
    fake.stages.on_condition("a", "line:x", 0)  # too late: ranks are being ended
    assert (fake.calls, fake.stages.waiting) == ([], {"b"})


def test_the_order_of_an_end() -> None:
    """Each group in its turn, once, with the first signal; a second request is for all."""
    groups = (group("a", 0), group("b", 1, "a"), group("c", 2, "a"), group("d", 3, "b"))
    fake = Fake(*groups)
    fake.stages.begin()
    assert fake.stages.before("d") == {"a", "b"}
    fake.escalate()
    assert fake.calls == [("send", 15, 12, 13)]
    fake.exit(12)
    assert len(fake.calls) == 1
    fake.exit(13)
    assert fake.calls[1:] == [("send", 15, 11), ("send", 18, 10, 11)]
    assert fake.timers[-1][0] == 7.0
    fake.stages.hurried = True
    fake.escalate()
    assert fake.calls[-1] == ("send", 9, 10, 11)
    fake.exit(11)
    assert fake.calls[-1] == ("send", 9, 10, 11)


def test_each_group_begins_with_the_first_signal() -> None:
    """However far the one after it has come on the stop ladder; each is asked once, however many
    ranks it has, with a time of its own, and after KILL nobody is asked any more."""
    fake = Fake(group("a", 0, ranks=2), group("b", 2, "a", ranks=2), group("c", 4, "b"))
    fake.stages.begin()
    fake.ladder = fake.ladder.escalate(2)
    fake.stages.on_step()
    fake.escalate()
    fake.calls.clear()
    fake.timer = 77
    fake.exit(14)
    assert fake.calls == [("send", 2, 12, 13), ("send", 18, 10, 11, 12, 13)]
    assert (fake.ladder.last, fake.cancelled, len(fake.timers)) == (2, [77], 1)
    fake.exit(12)
    assert len(fake.calls) == 2
    fake.ladder = fake.ladder.replace(last=9)
    fake.exit(13)
    assert (len(fake.calls), fake.ladder.last) == (2, 9)


def test_ranks_that_were_never_executed(killed: list[int]) -> None:
    """Are killed at the first step, they alone; what one of them waits for is no matter of its own
    end."""
    groups = (
        group("a", 0, ready=("exit",)), group("b", 1, "a", ready=("exit",)), group("c", 2, "b")
    )  # fmt: skip
    fake = Fake(*groups)
    fake.stages.begin()
    fake.escalate()
    assert killed == [11, 12]
    assert fake.calls == [("send", 15, 10)]
    fake = Fake(*groups)
    fake.stages.begin()
    fake.exit(11, -9)
    assert fake.calls == []


def test_a_signal_is_for_those_that_run() -> None:
    """A rank that waits gets none, whatever it is; without an end all others do."""
    fake = Fake(group("a", 0, ready=("exit",)), group("b", 1, "a"))
    fake.stages.begin()
    fake.send(10)
    fake.send(18)
    assert fake.calls == [("send", 10, 10), ("send", 18, 10)]
    assert fake.stages.is_waiting(fake.running[11])


def test_the_background_ends_last() -> None:
    """Groups in the background are ended when no other runs or waits; how they end is excused
    then, and not before."""
    fake = Fake(
        group("a", 0, background=True), group("b", 1, "a", ready=("exit",)), group("c", 2, "b")
    )
    fake.stages.begin()
    assert not fake.stages.excuses(fake.running[10])
    fake.exit(11)
    assert fake.calls == []
    fake.exit(12)
    assert fake.reason == "because the other groups had exited"
    assert fake.calls == [("send", 15, 10)]
    assert fake.stages.excuses(fake.running[10])


def test_the_background_is_not_ended_while_others_wait_for_it() -> None:
    """Nor when nothing lives any more."""
    fake = Fake(
        group("a", 0, background=True, ready=("line:x",)), group("b", 1, "a"), group("c", 2)
    )
    fake.stages.begin()
    fake.exit(12)
    assert fake.calls == []
    fake = Fake(group("a", 0))
    fake.stages.begin()
    fake.exit(10)
    assert (fake.calls, fake.reason) == ([], "")


def test_the_background_does_not_wait_for_itself(killed: list[int]) -> None:
    """A group in the background that waits for another one keeps neither alive."""
    fake = Fake(
        group("a", 0, background=True, ready=("line:x",)),
        group("b", 1, "a", background=True),
        group("c", 2),
    )
    fake.stages.begin()
    fake.exit(12)
    assert fake.reason == "because the other groups had exited"
    assert (killed, fake.calls) == ([11], [("send", 15, 10)])


@pytest.mark.parametrize(
    ("groups", "error"),
    [
        # Ready, and gone: those after it have been executed, or wait for others.
        ([group("a", 0), group("b", 1, "a", ready=("exit",)), group("c", 2, "b")], ""),
        (
            [group("a", 0, ready=("line:x",)), group("b", 1, ready=("exit",)), group("c", 2, "b")],
            "",
        ),
        # Its end alone is not what was asked for.
        ([group("a", 0, ready=("line:x", "exit")), group("b", 1, "a")], "line:x, exit"),
    ],
)
def test_a_group_that_has_exited(groups: list[Group], error: str) -> None:
    """Is missed by those that wait for it, if it was not ready; the status of what failed before
    stays."""
    fake = Fake(*groups)
    fake.stages.begin()
    fake.status = 3
    fake.exit(10)
    text = f"group b cannot be started: group a has exited, and was not ready ({error})"
    assert fake.calls == ([("error", text), ("send", 15)] if error else [])
    assert fake.status == 3


def test_those_that_wait_for_what_has_gone(killed: list[int]) -> None:
    """An error that names both, and the end of what runs; nobody waits, nothing is said."""
    fake = Fake(group("a", 0, ranks=2, ready=("exit",)), group("b", 2, "a"), group("c", 3, "b"))
    fake.stages.begin()
    fake.exit(10, 3)
    assert fake.calls == []
    fake.exit(11)
    text = "group b cannot be started: group a has exited, and was not ready (exit)"
    assert fake.calls[0] == ("error", text)
    assert (fake.status, fake.reason) == (125, "because group a had exited")
    assert killed == [12, 13]
    fake = Fake(group("a", 0, ready=("line:x",)), group("b", 1))
    fake.stages.begin()
    fake.exit(10)
    assert fake.calls == []


def test_pipes_are_closed_for_another_attempt() -> None:
    """A binding that is denied: all ranks are forked again."""
    fake = Fake(group("a", 0))
    ends = fake.stages.pipes["a"]
    fake.stages.reset()
    assert fake.stages.pipes == {}
    for fd in ends:
        with pytest.raises(OSError, match="descriptor"):
            os.fstat(fd)
