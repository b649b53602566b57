"""Groups as they run: the order of their start and end, their names, and what fails."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

import ompbind
from ompbind.cli import main
from ompbind.cpuset import CpuSet
from ompbind.launch import stages
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
    code = f"taskset -cp 0,1 $$ >{tmp_path}/set; cat {tmp_path}/made; sleep 0.5"
    words += ["--after", "make", "--group", "use", "--", "sh", "-c", code]
    assert main(["show", "--format", "json", *words]) == 0
    (tmp_path / "plan").write_text(capfd.readouterr().out)
    done = ompbind_run("run", "--plan", str(tmp_path / "plan"), "--verify")
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
def killed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The pids of made-up processes that would have been killed: others may have them here."""
    pids: list[int] = []
    monkeypatch.setattr(stages, "send_to", lambda pid, number: pids.append(pid))
    return pids


class Fake:
    """A supervisor of groups, each of one or more ranks with pids from 10; `calls` is what was
    asked of it."""

    def __init__(self, *groups: Group, tagged: bool = True) -> None:
        names = [group.name for group in groups for _ in group.ranks]
        self.calls: list[tuple[object, ...]] = []
        self.timers: list[tuple[float, Callable[[], object]]] = []
        self.launch = SimpleNamespace(plan=SimpleNamespace(groups=groups))
        self.settings = SimpleNamespace(verbose=False, grace=7.0)
        self.streams = SimpleNamespace(tagged=tagged, watchers={})
        self.loop = SimpleNamespace(after=self.after, cancel=lambda timer: None)
        self.running = {10 + n: self.make_rank(n, name) for n, name in enumerate(names)}
        self.codes: dict[int, int] = {}
        self.ladder = Ladder()
        self.timer = self.status = 0
        self.reason = ""
        self.stages: Any = Stages(cast("Any", self))
        for name in dict.fromkeys(names):
            self.stages.pipes[name] = os.pipe()

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


def test_what_was_ready_is_said_with_verbose() -> None:
    """One note for each group."""
    fake = Fake(group("a", 0, ready=("exit",)), group("b", 1, "a"))
    fake.settings.verbose = True
    fake.stages.begin()
    fake.exit(10)
    assert fake.calls == [("note", "group a is ready")]


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
