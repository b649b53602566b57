"""Measured launches: figures, files, time limits, and that nothing is left when interrupted."""

from __future__ import annotations

import errno
import json
import os
import select
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NoReturn

import pytest

from ompbind import launch
from ompbind.compare.variants import make_grid, make_variants
from ompbind.errors import CommandError
from ompbind.launch import trial as trials
from ompbind.launch.rank import Settings
from ompbind.launch.trial import (
    MESSAGES,
    Interruption,
    Launched,
    Trial,
    catch_signals,
    run_trial,
    wait_for_any,
)
from ompbind.plans import Plan
from tests.support.calls import Calls, noting

if TYPE_CHECKING:
    from ompbind.options import Texts

PLAN: Any = "plan"
ENVIRON = {"A": "1"}
open_pipe = os.pipe  # the system's, where a test puts another in its place

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="ranks are bound on Linux")


def make_plans(command: list[str], ranks: int = 1) -> list[Plan]:
    """The unbound plan and the bound one."""
    common: Texts = {"ranks": str(ranks), "oversubscribe": True} if ranks > 1 else {}
    environ = {"PATH": os.environ["PATH"], "OMPBIND_NEIGHBOURS": "no"}
    variants, _ = make_variants(make_grid([]), common, command, environ)
    return [v.plan for v in variants]


def run(plan: Plan, folder: Path, **settings: float) -> Trial:
    environ = {"PATH": os.environ["PATH"], "KEPT": "yes"}
    return run_trial(plan, environ, str(folder), **settings)  # type: ignore[arg-type]


def shell(script: str) -> list[str]:
    return ["sh", "-c", script]


def test_bound_and_unbound(tmp_path: Path) -> None:
    """Ranks get the environment and an empty input, a bound one its mask and variables, an unbound
    one neither; their output is in files and what they used is measured."""
    script = 'grep -h Cpus_allowed_list /proc/self/status; echo "$KEPT $OMP_NUM_THREADS"; cat'
    unbound, bound = make_plans([*shell(script)])
    for plan, name in ((unbound, "unbound"), (bound, "bound")):
        folder = tmp_path / name
        folder.mkdir()
        trial = run(plan, folder)
        assert (trial.status, trial.timed_out) == (0, False)
        assert [rank["elapsed_seconds"] > 0 for rank in trial.ranks] == [True]
        assert trial.ranks[0]["peak_memory_bytes"] > 100_000
        mask, variables = (folder / "rank-0.out").read_text().splitlines()
        if plan is bound:
            assert mask.split()[1] == str(bound.ranks[0].cpus)
            assert variables == f"yes {dict(bound.ranks[0].env)['OMP_NUM_THREADS']}"
        else:
            assert variables == f"yes {os.environ.get('OMP_NUM_THREADS', '')}".rstrip() + (
                " " if "OMP_NUM_THREADS" not in os.environ else ""
            )


def test_failures(tmp_path: Path) -> None:
    """The status is the first failure's; what ranks and ompbind wrote is in files."""
    _, plan = make_plans(shell("echo oops >&2; exit 3"), ranks=2)
    trial = run(plan, tmp_path)
    assert trial.status == 3
    assert (tmp_path / "rank-0.err").read_text() in ("oops\n", "")
    assert "with status 3" in (tmp_path / MESSAGES).read_text()


def test_refusals(tmp_path: Path) -> None:
    """A command that cannot be executed is a failed run with ompbind's own words."""
    script = tmp_path / "script"
    script.write_text("#!/nowhere/at/all\n")
    script.chmod(0o755)
    _, plan = make_plans(["true"])
    rank = plan.ranks[0].replace(command=(str(script),))
    trial = run(plan.replace(ranks=(rank,)), tmp_path)
    assert trial.status == 126
    assert "cannot be executed" in (tmp_path / MESSAGES).read_text()


def is_alive(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False


def test_time_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes longer is ended, with all that it has started."""
    started, pid = tmp_path / "started", tmp_path / "pid"
    script = f"sleep 1000 & echo $! > {pid}; touch {started}; sleep 1000"
    unbound, _ = make_plans(shell(script))
    # No time passes until the ranks run, on however busy a machine.
    clock = SimpleNamespace(monotonic=lambda: 100.0 * started.exists())
    monkeypatch.setattr(trials, "time", clock)
    trial = run_trial(unbound, dict(os.environ), str(tmp_path), timeout=99.0, tick=lambda: None)
    assert trial.timed_out
    assert trial.status == 128 + signal.SIGTERM
    assert not is_alive(int(pid.read_text()))


def test_interruptions(tmp_path: Path) -> None:
    """An exception, as from Ctrl-C, ends the ranks and all that they have started, and goes on."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    script = f"trap '' HUP; sleep 1000 & echo $! $$ > {tmp_path}/pids; echo > {fifo}; sleep 1000"
    _, plan = make_plans(shell(script))
    handlers = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)

    def tick() -> None:
        if os.read(reader, 1):  # the ranks run
            os.kill(os.getpid(), signal.SIGTERM)

    try:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # as in the background of a script
        catch_signals()
        with pytest.raises(Interruption) as e:
            run_trial(plan, dict(os.environ), str(tmp_path), tick=tick)
        assert e.value.number == signal.SIGTERM
    finally:
        os.close(reader)
        for number, handler in zip((2, 15, 1), handlers, strict=True):
            signal.signal(number, handler)
    for pid in (tmp_path / "pids").read_text().split():
        assert not is_alive(int(pid))


# --- in this process -----------------------------------------------------------------------------


class ExitedError(Exception):
    """In place of os._exit."""


class Clock:
    """Time that passes while something is waited for: `ends` says after how many seconds which
    launch has ended; `late`: so many seconds each wait takes longer than it should."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, ends: dict[int, float], late: float = 0.0
    ) -> None:
        self.ends, self.late, self.now = ends, late, 100.0
        self.waits: list[float | None] = []
        self.watched: list[int] = []
        monkeypatch.setattr(trials, "time", SimpleNamespace(monotonic=lambda: self.now))
        monkeypatch.setattr(trials, "select", SimpleNamespace(poll=lambda: self, POLLIN=1))

    def register(self, fd: int, events: int) -> None:
        assert events == 1
        self.watched.append(fd)

    def poll(self, milliseconds: float | None) -> list[tuple[int, int]]:
        self.waits.append(milliseconds)
        assert len(self.waits) < 20, "waits for ever"
        first = min(self.ends.values(), default=float("inf"))
        self.now = min(self.now + (milliseconds or 0) / 1000 + self.late, max(self.now, first))
        if milliseconds is None:
            self.now = first
        return [(fd, 16) for fd, end in self.ends.items() if end <= self.now]


@pytest.mark.parametrize(
    ("ends", "timeout", "ticks", "waits", "result"),
    [
        ({5: 107.0}, None, False, [None], 5),
        ({5: 107.0}, 3.0, False, [3000], None),
        ({5: 101.0}, 3.0, False, [3000], 5),
        ({6: 100.0}, 0, False, [0], 6),
        ({}, 0, False, [0], None),
        ({5: 103.0, 6: 101.0}, None, False, [None], 6),
        ({6: 101.0, 5: 101.0}, None, False, [None], 5),
        ({5: 101.5}, None, True, [250, 500, 500, 500], 5),
        ({}, 1.0, True, [250, 500, 250], None),
        ({}, 0.25, True, [250], None),
    ],
)
def test_launches_are_waited_for(
    ends: dict[int, float],
    timeout: float | None,
    ticks: bool,
    waits: list[float | None],
    result: int | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The first of them that has ended, or none in the time given; meanwhile something is called
    twice a second, at the beginning sooner."""
    clock = Clock(monkeypatch, ends)
    launches: Any = [SimpleNamespace(reader=5), SimpleNamespace(reader=6)]
    called: list[float] = []
    ended = wait_for_any(launches, timeout, (lambda: called.append(clock.now)) if ticks else None)
    assert ended is (None if result is None else launches[result - 5])
    assert clock.waits == waits
    assert clock.watched == [5, 6]
    assert len(called) == (len(waits) - 1 if ticks else 0)


def test_waiting_ends_though_the_time_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a wait took longer than it should, the next one takes none."""
    clock = Clock(monkeypatch, {}, late=1.0)
    launches: Any = [SimpleNamespace(reader=5)]
    assert wait_for_any(launches, 1.0, lambda: None) is None
    assert clock.waits == [250, 0]


class Impatient:
    """Whether something has come, without waiting for it: in these tests it has, or comes soon."""

    def __init__(self) -> None:
        self.poller = select.poll()
        self.register = self.poller.register
        self.rounds = 0

    def poll(self, milliseconds: float | None) -> list[tuple[int, int]]:
        ready = self.poller.poll(0)
        self.rounds += 1
        assert ready or (milliseconds is not None and self.rounds < 20), "waits for ever"
        return ready


class Child:
    """A launch's process, as its parent sees it, which has the pid 50: what is done to it, and how
    it ends."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, status: int = 0) -> None:
        self.calls: Calls = []
        self.ends = open_pipe()
        self.held = os.dup(self.ends[1])  # as the process does until it ends
        self.status = status
        monkeypatch.setattr(os, "pipe", lambda: self.ends)
        monkeypatch.setattr(os, "fork", lambda: 50)
        selecting = SimpleNamespace(poll=Impatient, POLLIN=select.POLLIN)
        monkeypatch.setattr(trials, "select", selecting)
        monkeypatch.setattr(trials, "flush", noting(self.calls, "flush"))
        monkeypatch.setattr(os, "kill", self.kill)
        monkeypatch.setattr(os, "waitpid", self.wait)

    def kill(self, pid: int, number: int) -> None:
        self.calls.append(("kill", pid, number))
        self.end()

    def wait(self, pid: int, options: int) -> tuple[int, int]:
        assert self.held < 0
        self.calls.append(("wait", pid, options))
        return pid, self.status

    def end(self) -> None:
        os.close(self.held)
        self.held = -1


def test_a_launch_that_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Has the status of its process, and what its ranks have used; nothing is done to it."""
    child = Child(monkeypatch, 3 << 8)
    (tmp_path / "report.json").write_text(json.dumps({"ranks": [{"rank": 0}]}))
    with Launched(PLAN, ENVIRON, str(tmp_path)) as launched:
        assert not launched.has_ended()
        child.end()
        assert launched.has_ended()
        trial = launched.collect()
    assert trial == Trial(3, False, ({"rank": 0},))
    assert trial is launched.trial
    assert child.calls == [("flush",), ("wait", 50, 0)]
    for fd in child.ends:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fd)


@pytest.mark.parametrize(("number", "status"), [(9, 137), (15, 143)])
def test_a_launch_is_stopped(
    number: int, status: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a signal, and has the status that a shell gives to its end; it may have started no rank.
    One that has ended gets no signal: its pid may be another's by now."""
    child = Child(monkeypatch, number)
    with Launched(PLAN, ENVIRON, str(tmp_path)) as launched:
        assert launched.stop(None, number) == Trial(status)
    assert child.calls[1:] == [("kill", 50, number), ("wait", 50, 0)]
    child = Child(monkeypatch)
    with Launched(PLAN, ENVIRON, str(tmp_path)) as launched:
        child.end()
        assert launched.stop() == Trial(0)
    assert child.calls[1:] == [("wait", 50, 0)]
    child = Child(monkeypatch)
    with Launched(PLAN, ENVIRON, str(tmp_path)) as launched:
        launched.stop()
    assert child.calls[1] == ("kill", 50, signal.SIGINT)


def test_a_stopped_launch_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It ends its ranks first, and meanwhile something is called."""
    child = Child(monkeypatch)
    monkeypatch.setattr(os, "kill", noting(child.calls, "kill"))
    with Launched(PLAN, ENVIRON, str(tmp_path)) as launched:
        assert launched.stop(child.end).status == 0


@pytest.mark.parametrize("gone", [ChildProcessError(), ProcessLookupError(), None])
def test_a_launch_that_is_left_is_ended(
    gone: BaseException | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By whatever leaves the block; each further interruption asks once more, as its ladder has
    more steps."""
    child = Child(monkeypatch)
    results = [KeyboardInterrupt(), gone]

    def wait(pid: int, options: int) -> tuple[int, int]:
        child.calls.append(("wait", pid, options))
        if error := results.pop(0):
            raise error
        return pid, 0

    monkeypatch.setattr(os, "kill", noting(child.calls, "kill"))
    monkeypatch.setattr(os, "waitpid", wait)
    with pytest.raises(ZeroDivisionError), Launched(PLAN, ENVIRON, str(tmp_path)):
        raise ZeroDivisionError
    child.end()
    assert child.calls[1:] == [("kill", 50, signal.SIGINT), ("wait", 50, 0)] * 2
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(child.ends[0])


def test_no_process_for_a_launch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is left of it."""
    child = Child(monkeypatch)
    monkeypatch.setattr(os, "fork", noting(child.calls, "fork", OSError(errno.EAGAIN, "full")))
    with pytest.raises(OSError, match="full"):
        Launched(PLAN, ENVIRON, str(tmp_path))
    child.end()
    for fd in child.ends:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fd)


@pytest.mark.parametrize("given", [{}, {"grace": 3.0, "on_denied": "degrade"}])
def test_how_a_trials_ranks_are_run(
    given: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Watched, with no input, their output and report in files."""
    folder = str(tmp_path)
    settings = Settings(watched=True, output_dir=folder, stdin="none",
                        report=f"{folder}/report.json", on_denied="error", grace=10.0)  # fmt: skip
    become = ("become", PLAN, ENVIRON, settings.replace(**given), f"{folder}/messages")
    for start in (run_trial, Launched):
        child = Child(monkeypatch)
        monkeypatch.setattr(os, "fork", lambda: 0)
        monkeypatch.setattr(trials, "become_launch", noting(child.calls, "become", ExitedError()))
        with pytest.raises(ExitedError):
            start(PLAN, ENVIRON, folder, **given)
        assert child.calls == [("flush",), become]
        os.close(child.ends[0])
        child.end()


def test_a_trial_that_takes_too_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Is ended by TERM, and says so."""
    child = Child(monkeypatch, 15)
    assert run_trial(PLAN, ENVIRON, str(tmp_path), timeout=0) == Trial(143, True)
    assert child.calls[1] == ("kill", 50, signal.SIGTERM)
    child = Child(monkeypatch)
    child.end()
    assert run_trial(PLAN, ENVIRON, str(tmp_path), timeout=0) == Trial(0)


class Becoming:
    """What a child does to become a launch, all of it noted and not done."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: Calls = []
        self.ignored: list[int] = []
        self.parents = [7, 7]
        fake = SimpleNamespace(
            SIGHUP=1, SIGTERM=15, SIG_DFL=0, SIG_IGN=1, signal=noting(self.calls, "signal"),
            getsignal=lambda number: int(number in self.ignored),
        )  # fmt: skip
        library = SimpleNamespace(die_with_parent=noting(self.calls, "die"))
        monkeypatch.setattr(trials, "signal", fake)
        monkeypatch.setattr(trials, "Library", lambda: library)
        monkeypatch.setattr(trials, "flush", noting(self.calls, "flush"))
        monkeypatch.setattr(trials, "say", noting(self.calls, "say"))
        monkeypatch.setattr(sys, "stderr", sys.stderr)
        monkeypatch.setattr(os, "getppid", lambda: self.parents.pop(0))
        for name, result in (("setpgid", None), ("open", 60), ("dup2", None), ("fdopen", "stream")):
            monkeypatch.setattr(os, name, noting(self.calls, name, result))
        monkeypatch.setattr(os, "_exit", self.leave)

    def leave(self, status: int) -> NoReturn:
        self.calls.append(("leave", status, sys.stderr))
        raise ExitedError

    def become(self, monkeypatch: pytest.MonkeyPatch, run: Callable[..., int]) -> Calls:
        monkeypatch.setattr(launch, "run", run)
        settings: Any = "settings"
        with monkeypatch.context() as patch:
            patch.setattr(os, "fstat", None)
            with pytest.raises(ExitedError):
                trials.become_launch(PLAN, ENVIRON, settings, "/x/messages")
        return self.calls


BEGUN: Calls = [
    *(("signal", number, 0) for number in (2, 15, 1)),
    ("setpgid", 0, 0), ("die", 15),
    ("open", "/x/messages", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), ("dup2", 60, 2),
    ("fdopen", 2, "w", ("closefd", False), ("encoding", "utf-8"), ("errors", "backslashreplace")),
]  # fmt: skip


def test_a_child_becomes_a_launch(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a process group of its own, ended with its parent; what ompbind says is in a file, and
    the status is the launch's."""
    becoming = Becoming(monkeypatch)

    def run(plan: Any, environ: Any, say: Callable[[str], None], settings: Any) -> int:
        becoming.calls.append(("run", plan, environ, settings))
        say("odd")
        return 3

    assert becoming.become(monkeypatch, run) == [
        *BEGUN, ("run", PLAN, ENVIRON, "settings"), ("say", "warning", "odd"), ("flush",),
        ("leave", 3, "stream"),
    ]  # fmt: skip


def test_hangups_that_are_ignored_stay_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """As nohup wants it; an interruption that is ignored does not, as a script's background has."""
    becoming = Becoming(monkeypatch)
    becoming.ignored = [1, 2, 15]
    assert becoming.become(monkeypatch, lambda *_: 0)[:3] == [*BEGUN[:2], BEGUN[3]]


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (CommandError("no such", found=False), 127, ("no such", "")),
        (OSError(errno.EMFILE, "too many"), 125, ("the system refused: [Errno 24] too many",)),
        (RuntimeError("a bug"), 125, None),
    ],
)
def test_a_launch_that_cannot_be(
    error: Exception, status: int, said: tuple[str, ...] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Says why, and has the error's status; the child never goes on as its parent would."""
    becoming = Becoming(monkeypatch)
    calls = becoming.become(monkeypatch, noting([], "run", error))
    words = [("say", "error", *said)] if said else []
    assert calls == [*BEGUN, *words, ("flush",), ("leave", status, "stream")]


def test_a_launch_whose_parent_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Does not begin."""
    becoming = Becoming(monkeypatch)
    becoming.parents = [7, 1]
    stream = sys.stderr
    calls = becoming.become(monkeypatch, lambda *_: pytest.fail("was run"))
    assert calls[:6] == [*BEGUN[:5], ("leave", 125, stream)]


def test_interruptions_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of those that are not ignored."""
    handlers: dict[int, Any] = {}
    fake = SimpleNamespace(
        SIG_IGN=1, getsignal=lambda number: int(number == 1), signal=handlers.__setitem__
    )
    monkeypatch.setattr(trials, "signal", fake)
    catch_signals()
    assert sorted(handlers) == [2, 15]
    for number, handler in handlers.items():
        with pytest.raises(Interruption) as caught:
            handler(number, None)
        assert caught.value.number == number
