"""Processes that do tasks: what each one does, and what is asked of them, without forking. What
real ones do is in tests/measuring."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import NoReturn

import pytest

from ompbind.cpuset import CpuSet
from ompbind.launch import crew as crews
from ompbind.launch import pipes
from ompbind.launch.crew import Crew, CrewEnded, Member, MemoryFrom, TaskError, serve
from ompbind.launch.streams import is_open
from ompbind.launch.syscalls import signal
from tests.support.calls import Calls, noting

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are bound on Linux")

CPUS = CpuSet([3])


class ExitedError(Exception):
    """In place of os._exit."""


# --- in a process --------------------------------------------------------------------------------


def test_tasks_are_done_one_after_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """On the process's cpus, which are set once, before its work is prepared; what fails is
    answered, and the next task is done all the same."""
    calls: Calls = []
    errors = {
        "deny": OSError(errno.EPERM, "not permitted"),
        "odd": OSError(),
        "fill": MemoryError(),
    }

    def perform(name: str, numbers: list[float]) -> list[float]:
        calls.append((name, *numbers))
        if name in errors:
            raise errors[name]
        return [2 * n for n in numbers]

    def prepare() -> crews.Perform:
        calls.append(("prepare",))
        return perform

    monkeypatch.setattr(crews, "set_affinity", noting(calls, "bind"))
    requests, ours = os.pipe()
    reader, answers = os.pipe()
    os.write(ours, b"double 1.5 0.1\ndeny 1\nodd\nfill\ndouble 3\n")
    os.close(ours)
    serve(CPUS, prepare, requests, answers)
    os.close(answers)
    assert pipes.receive(reader) == [
        ("done", "3.0", "0.2"), ("failed", "not permitted"), ("failed", "no memory"),
        ("failed", "no memory"), ("done", "6.0"),
    ]  # fmt: skip
    assert calls == [("bind", CPUS), ("prepare",), ("double", 1.5, 0.1), ("deny", 1.0), ("odd",),
                     ("fill",), ("double", 3.0)]  # fmt: skip
    assert not is_open(requests)


def test_a_process_that_cannot_be_bound_does_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each task is answered with why."""
    monkeypatch.setattr(crews, "set_affinity", noting([], "bind", OSError(errno.EINVAL, "took 0")))
    requests, ours = os.pipe()
    reader, answers = os.pipe()
    os.write(ours, b"a\nb\n")
    os.close(ours)
    serve(CPUS, lambda: pytest.fail("was prepared"), requests, answers)
    os.close(answers)
    assert pipes.receive(reader) == [("failed", "took 0")] * 2


def test_the_killer_takes_it_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where memory runs out; a system without such a file has it no other way."""
    monkeypatch.setattr(crews, "OOM_SCORE", str(tmp_path / "score"))
    crews.offer_to_killer()
    assert (tmp_path / "score").read_text() == "1000"
    monkeypatch.setattr(crews, "OOM_SCORE", str(tmp_path / "none" / "score"))
    crews.offer_to_killer()


def test_what_a_forked_process_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """It ends with its parent, and drops the parent's ends of all pipes: they would not end while
    it lives. It never goes on as its parent would, whatever its work raises."""
    calls: Calls = []
    crew = Crew([], lambda: pytest.fail("was prepared"))
    crew.members = [Member(1, *os.pipe())]
    made: list[int] = []

    def make_pipe() -> tuple[int, int]:
        made.extend(os.pipe())
        return made[-2], made[-1]

    def leave(status: int) -> NoReturn:
        calls.append(("leave", status))
        raise ExitedError

    def work(cpus: CpuSet, make: object, requests: int, answers: int) -> None:
        calls.append(("serve", cpus, make, requests, answers))
        calls.append(
            tuple(map(is_open, [*made, crew.members[0].requests, crew.members[0].answers]))
        )
        raise KeyboardInterrupt

    monkeypatch.setattr(crew, "library", SimpleNamespace(die_with_parent=noting(calls, "die")))
    monkeypatch.setattr(crews, "make_pipe", make_pipe)
    monkeypatch.setattr(crews, "restore_signals", noting(calls, "restore"))
    monkeypatch.setattr(crews, "offer_to_killer", noting(calls, "offer"))
    monkeypatch.setattr(crews, "serve", work)
    monkeypatch.setattr(os, "fork", lambda: 0)
    monkeypatch.setattr(os, "_exit", leave)
    with pytest.raises(ExitedError):
        crew.start(CPUS, print)  # type: ignore[arg-type]
    theirs, _, _, ours = made
    assert calls == [
        ("restore",), ("die", signal.SIGKILL), ("offer",), ("serve", CPUS, print, theirs, ours),
        (True, False, False, True, False, False), ("leave", 0),
    ]  # fmt: skip
    os.close(theirs)
    os.close(ours)


# --- in their parent -----------------------------------------------------------------------------


class Made:
    """A crew of so many made-up processes: what they are asked, and what they answer."""

    def __init__(self, count: int) -> None:
        self.crew = Crew([], lambda: pytest.fail("was prepared"))
        requests = [os.pipe() for _ in range(count)]
        answers = [os.pipe() for _ in range(count)]
        self.requests = [reader for reader, _ in requests]
        self.answers = [writer for _, writer in answers]
        self.crew.members = [
            Member(50 + n, writer, reader)
            for n, ((_, writer), (reader, _)) in enumerate(zip(requests, answers, strict=True))
        ]

    def answer(self, *messages: str) -> None:
        """Answer the next task: `done 1`; no word for a process that is not asked."""
        for fd, message in zip(self.answers, messages, strict=True):
            if message:
                pipes.send(fd, *message.split("/"))

    def read_asked(self) -> list[str]:
        """Return what each process was asked; all is closed then."""
        for member in self.crew.members:
            os.close(member.requests)
            os.close(member.answers)
        for fd in self.answers:
            os.close(fd)
        return [pipes.read_all(fd).decode() for fd in self.requests]


def test_the_same_task_for_several() -> None:
    """Each one's answer, in the order in which they were asked; the others are asked nothing."""
    made = Made(3)
    made.answer("done/1.5/2", "", "done/0.25")
    assert made.crew.ask([2, 0], "spin", 0.1, 7) == [[0.25], [1.5, 2.0]]
    made.answer("done", "", "done/4")
    assert made.crew.ask([0, 2], "stop") == [[], [4.0]]
    assert made.read_asked() == ["spin 0.1 7\nstop\n", "", "spin 0.1 7\nstop\n"]


def test_a_task_that_failed() -> None:
    """Is an error, after all have answered: an answer that is left would be the next task's."""
    made = Made(2)
    made.answer("failed/no memory", "done/3")
    with pytest.raises(TaskError, match=r"^no memory$"):
        made.crew.ask([0, 1], "place")
    made.answer("done/1", "done/2")
    assert made.crew.ask([0, 1], "read") == [[1.0], [2.0]]
    made.read_asked()


@pytest.mark.parametrize("asked", [True, False])
def test_a_process_that_has_died(asked: bool) -> None:
    """Is another error, whether it is found out when it is asked or by an answer that never comes;
    the others have answered then."""
    made = Made(2)
    ends = made.answers if asked else made.requests
    os.close(ends[0])
    made.answer("", "done/3")
    with pytest.raises(CrewEnded, match=r"^a process has ended"):
        made.crew.ask([0, 1], "place")
    made.answer("", "done/2")
    assert made.crew.ask([1], "read") == [[2.0]]
    ends[0] = os.open(os.devnull, os.O_RDONLY)
    made.read_asked()


def test_an_answer_that_comes_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Is read to its end; one that was cut is none."""
    parts = [b"12:4:do", b"ne4:1.25", b""]
    with monkeypatch.context() as patch:
        patch.setattr(os, "read", lambda fd, size: parts.pop(0) if fd == 9 else b"")
        answer = crews.read_answer(9)
        parts[:] = [b"12:4:do", b""]
        with pytest.raises(CrewEnded):
            crews.read_answer(9)
    assert answer == ("done", "1.25")


def test_a_process_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """With pipes of which this process keeps its own ends only."""
    crew = Crew([], lambda: pytest.fail("was prepared"))
    monkeypatch.setattr(os, "fork", lambda: 50)
    made = [os.pipe(), os.pipe()]
    ends = iter(made)
    monkeypatch.setattr(crews, "make_pipe", lambda: next(ends))
    member = crew.start(CPUS, print)  # type: ignore[arg-type]
    (theirs, requests), (answers, ours) = made
    assert (member.pid, member.requests, member.answers) == (50, requests, answers)
    assert [is_open(fd) for fd in (theirs, requests, answers, ours)] == [False, True, True, False]
    os.close(requests)
    os.close(answers)


@pytest.mark.parametrize("fails", [False, True])
def test_all_are_ended_and_reaped(fails: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the end of the block, or where not all could be started; also after those that have
    exited, or that the kernel has reaped."""
    calls: Calls = []
    pids = [50, 51, 52]
    members: list[Member] = []
    gone, reaped = ProcessLookupError(), ChildProcessError()

    def start(_: Crew, cpus: CpuSet, make: object) -> Member:
        if len(members) == 3:
            raise OSError(errno.EAGAIN, "no more processes")
        members.append(Member(pids[len(members)], *os.pipe()))
        return members[-1]

    def kill(pid: int, number: int) -> None:
        noting(calls, "kill", gone if pid == 50 else None)(pid, number)

    def wait(pid: int, options: int) -> None:
        noting(calls, "wait", reaped if pid == 51 else None)(pid, options)

    monkeypatch.setattr(Crew, "start", start)
    monkeypatch.setattr(os, "kill", kill)
    monkeypatch.setattr(os, "waitpid", wait)
    if fails:
        with pytest.raises(OSError, match="no more processes"):
            Crew([CPUS] * 4, print)  # type: ignore[arg-type]
    else:
        with Crew([CPUS] * 3, print) as crew:  # type: ignore[arg-type]
            assert crew.members == members
            assert calls == []
        assert crew.members == []
    monkeypatch.undo()
    assert calls == [*(("kill", pid, signal.SIGKILL) for pid in pids),
                     *(("wait", pid, 0) for pid in pids)]  # fmt: skip
    assert not any(is_open(fd) for m in members for fd in (m.requests, m.answers))


def test_memory_from_a_node(monkeypatch: pytest.MonkeyPatch) -> None:
    """Inside the block, of node 0 as well, and as before after it; None changes nothing."""
    calls: Calls = []
    library = SimpleNamespace(memory=noting(calls, "memory"))
    monkeypatch.setattr(crews, "Library", lambda: library)
    monkeypatch.setattr(crews, "set_memory", noting(calls, "set"))
    with MemoryFrom(0):
        assert calls == [("set", "bind", CpuSet([0]), library)]
    assert calls[1:] == [("memory", 0, 0)]
    with MemoryFrom(None):
        pass
    assert len(calls) == 2
