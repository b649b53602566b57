"""Forking ranks: with prepared calls of the C library, and by Python's functions."""

from __future__ import annotations

import errno
import os
import resource
import sys
from ast import literal_eval
from types import SimpleNamespace
from typing import Any, NoReturn

import pytest

from ompbind import errors
from ompbind.cpuset import CpuSet
from ompbind.launch import forks, pipes
from ompbind.launch.forks import Gate
from ompbind.launch.rank import Start
from ompbind.launch.syscalls import Library, signal
from ompbind.plans import Binding, RankPlan
from tests.support.calls import Calls, noting

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="ompbind runs workers on Linux")


def refuse_text(text: str) -> bytes:
    raise UnicodeEncodeError("latin-1", text, 0, 1, "ordinal not in range(256)")


class ExitedError(Exception):
    """In place of os._exit."""


def make_start(number: int = 0, **more: Any) -> Start:
    rank = RankPlan(number, Binding(), (), CpuSet([0]), (), (), ("true",))
    fields: dict[str, Any] = {"path": "/bin/true", "argv": ("true", "x"), "env": {b"A": b"1"}}
    return Start(rank, **(fields | more))


# Writes what a rank can see of how it was executed.
SHOW = """
import os, resource, _signal
print([os.fsencode(w) for w in __import__("sys").argv[1:]], dict(os.environb),
      sorted(map(int, _signal.pthread_sigmask(0, []))),
      sorted(n for n in range(300) if os.path.exists(f"/dev/fd/{n}")), os.read(240, 9),
      resource.getrlimit(7)[0], sep=chr(10))
"""


class Ranks:
    """Processes of this one, and what they wrote."""

    def __init__(self, starts: list[Start], files: tuple[int, int] | None, leases: bool) -> None:
        self.library = Library()
        self.errors, error_writer = os.pipe()
        gate_reader, gate_writer = os.pipe()
        out, out_writer = os.pipe()
        lease = os.open("/proc/sys/kernel/ostype", os.O_RDONLY)
        gate = Gate(
            self.library, os.getpid(), error_writer, gate_reader, frozenset({10, 40}), files
        )
        starts = [start.replace(stdout=out_writer) for start in starts]
        held = [[(lease, 240)] if leases else [] for _ in starts]
        self.pids: list[int] = []
        forks.fork_ranks(starts, held, gate, self.pids)
        os.write(gate_writer, bytes(len(starts)))
        for fd in (error_writer, gate_reader, gate_writer, out_writer, lease):
            os.close(fd)
        self.reports = pipes.receive(self.errors)
        self.written = pipes.read_all(out).decode()
        self.statuses = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in self.pids]


@pytest.mark.parametrize("plainly", [False, True])
def test_ranks_become_what_they_should(plainly: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """With their words, variables, blocked signals and descriptors, and no others: also by
    Python's functions, which are used for other limits of files."""
    files = (600, resource.getrlimit(resource.RLIMIT_NOFILE)[1]) if plainly else None
    if not plainly:
        monkeypatch.setattr(forks, "execute_plainly", lambda *_: os._exit(99))
    soft = files[0] if files else resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    inherited = [n for n in range(300) if os.path.exists(f"/dev/fd/{n}") and os.get_inheritable(n)]
    env = {b"A": b"\xff=", b"B": b"", b"LC_ALL": b"C.UTF-8"}
    argv = ("python", "-ISc", SHOW, "ä\udcff", "")
    ranks = Ranks([make_start(path=sys.executable, argv=argv, env=env)], files, True)
    assert (ranks.statuses, ranks.reports) == ([0], [])
    words, variables, blocked, descriptors, lease, limit = ranks.written.splitlines()
    assert literal_eval(words) == ["ä".encode() + b"\xff", b""]
    assert literal_eval(variables) == env
    assert literal_eval(blocked) == [10, 40]
    assert set(literal_eval(descriptors)) == {0, 1, 2, 240, *inherited}
    assert literal_eval(lease) == b"Linux\n"
    assert int(limit) == soft


def test_a_rank_that_cannot_execute() -> None:
    """Reports why, as Python says it; also what no call can express."""
    starts = [
        make_start(1, path="/nowhere/true"),
        make_start(2, argv=("true", "\0")),
        make_start(3, env={b"": b"x"}),
        make_start(4, env={b"A=B": b"x"}),
        make_start(5, env={b"A": b"x\0"}),
        make_start(6, stdin=1000),
        make_start(7),
    ]
    ranks = Ranks(starts, None, False)
    assert sorted(ranks.reports) == [
        ("1", "command", "No such file or directory"),
        ("2", "command", "ValueError('embedded null byte')"),
        ("3", "command", "ValueError('illegal environment variable name')"),
        ("4", "command", "ValueError('illegal environment variable name')"),
        ("5", "command", "ValueError('embedded null byte')"),
        ("6", "command", "Bad file descriptor"),
    ]
    assert ranks.statuses == [125] * 6 + [0]


def test_a_process_that_cannot_be_forked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Is an error of its rank; those before it are known."""
    library: Any = SimpleNamespace(
        prepare_exec=lambda *_: None, prepare_death=lambda _: [], prepare_mask=None
    )
    gate = Gate(library, 1, 2, 3, frozenset())
    for error, reason in ((OSError(errno.EAGAIN, "later"), "later"), (OSError("odd"), "odd")):
        forked = iter([33])

        def fork(forked: Any = forked, error: OSError = error) -> int:
            for pid in forked:
                return int(pid)
            raise error

        monkeypatch.setattr(os, "fork", fork)
        pids: list[int] = []
        message = f"rank 1: its process cannot be created: {reason}"
        with pytest.raises(errors.CommandError, match=message):
            forks.fork_ranks([make_start(0), make_start(1)], [[], []], gate, pids)
        assert pids == [33]


def test_a_forked_process_becomes_its_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    """And forks none of those after it."""
    forked = [33, 0]
    executed: list[Start] = []

    def execute(child: Any) -> NoReturn:
        executed.append(child[0])
        raise ExitedError

    library: Any = SimpleNamespace(prepare_exec=lambda *_: None)
    gate = Gate(library, 1, 2, 3, frozenset())
    monkeypatch.setattr(forks, "make_executor", lambda _: execute)
    monkeypatch.setattr(os, "fork", lambda: forked.pop(0))
    starts = [make_start(n) for n in range(3)]
    pids: list[int] = []
    with pytest.raises(ExitedError):
        forks.fork_ranks(starts, [[]] * 3, gate, pids)
    assert (pids, executed, forked) == ([33], [starts[1]], [])


def leave(status: int) -> NoReturn:
    raise ExitedError(status)


def test_a_forked_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    """Asks for its signal, waits, and makes the prepared calls up to one that fails; then all of
    them are made plainly."""
    calls: Calls = []
    reader, writer = os.pipe()
    gate_reader, gate_writer = os.pipe()
    os.write(gate_writer, b"xy")
    library: Any = SimpleNamespace(prepare_death=lambda n: [(noting(calls, "die", 0), (n,))])
    gate = Gate(library, os.getppid(), writer, gate_reader, frozenset([10]), (50, 60))
    monkeypatch.setattr(os, "_exit", leave)
    limits = SimpleNamespace(RLIMIT_NOFILE=7, setrlimit=noting(calls, "limit"))
    monkeypatch.setitem(sys.modules, "resource", limits)
    monkeypatch.setattr(os, "dup2", noting(calls, "dup2"))
    mask = SimpleNamespace(SIGKILL=9, SIG_SETMASK=2, pthread_sigmask=noting(calls, "mask"))
    monkeypatch.setattr(forks, "signal", mask)

    def execute(*args: object) -> NoReturn:
        calls.append(("exec", *args))
        raise OSError(errno.EACCES, "x" * 600)

    monkeypatch.setattr(os, "execve", execute)
    start = make_start(3)
    prepared = [(noting(calls, "first", 5), (1, 2)), (noting(calls, "bad", -1), ()),
                (noting(calls, "never"), ())]  # fmt: skip
    with pytest.raises(ExitedError, match="125"):
        forks.make_executor(gate)((start, [(8, 1), (9, 240)], prepared))
    monkeypatch.undo()
    os.close(writer)
    assert pipes.receive(reader) == [("3", "command", "x" * 500)]
    os.close(gate_writer)
    assert os.read(gate_reader, 5) == b"y"
    os.close(gate_reader)
    assert calls == [
        ("die", 9), ("first", 1, 2), ("bad",), ("dup2", 8, 1), ("dup2", 9, 240),
        ("limit", 7, (50, 60)), ("mask", 2, frozenset([10])),
        ("exec", "/bin/true", ("true", "x"), {b"A": b"1"}),
    ]  # fmt: skip


@pytest.mark.parametrize("refused", [True, False])
def test_a_forked_rank_without_its_signal_or_supervisor(
    refused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Does not even wait."""
    reports: Calls = []
    statuses: list[int] = []

    def leave(status: int) -> NoReturn:
        statuses.append(status)
        raise ExitedError

    def die(_: int) -> NoReturn:
        raise OSError(1, "no signal")

    library: Any = SimpleNamespace(
        prepare_death=lambda _: [(lambda: -1 if refused else 0, ())], die_with_parent=die
    )
    monkeypatch.setattr(os, "_exit", leave)
    monkeypatch.setattr(forks, "report_failure", noting(reports, "report"))
    gate = Gate(library, os.getppid() + (not refused), -1, -1, frozenset())
    with pytest.raises(ExitedError):
        forks.make_executor(gate)((make_start(), [], []))
    assert set(statuses) == {125}
    assert reports[0][3] == "no signal" if refused else "ExitedError" in reports[0][3]


def test_there_are_no_calls_that_could_not_do_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """As for limits of files, which only Python's functions set."""
    library: Any = Library()
    gate = Gate(library, 1, 2, 3, frozenset())
    start = make_start(stdin=5)
    _, moves, calls = forks.make_child(start, [(6, 240)], gate)
    assert moves == ((5, 0), (6, 240))
    assert [arguments for _, arguments in calls[:2]] == [(5, 0), (6, 240)]
    assert len(calls) == 4
    assert forks.make_child(start, [], gate.replace(files=(5, 6)))[2] == ()
    monkeypatch.setattr(library, "_prctl", None)
    assert library.prepare_death(signal.SIGKILL) == []


def test_memory_policies_one_after_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is set where it differs, and in the end the original one is there again."""
    calls: Calls = []
    library: Any = SimpleNamespace(memory=noting(calls, "memory", (3, CpuSet([7]))))
    monkeypatch.setattr(
        forks, "set_memory", lambda *args, balancing: calls.append(("set", *args, balancing))
    )
    inheritance = forks.Inheritance(library)
    inheritance.restore()
    assert calls == []
    node = CpuSet([0])
    for mem in ("bind", "bind", "preferred"):
        inheritance.set_memory(mem, node)

    sets = [("set", mem, node, library, False) for mem in ("bind", "preferred")]
    assert calls == [("memory", 1), *sets]
    inheritance.set_memory("none", CpuSet())
    assert calls[3:] == [("memory", 0, 3, CpuSet([7]))]
    inheritance.restore()
    assert len(calls) == 4
    inheritance.set_memory("preferred", node)
    assert calls[4:] == [("memory", 1), sets[1]]


def test_words_that_the_locale_does_not_have(monkeypatch: pytest.MonkeyPatch) -> None:
    """Are no call of the C library: os.execve then says it for the rank."""
    library = Library()
    assert library.prepare_exec("/bin/true", ["true"], {})
    monkeypatch.setattr(os, "fsencode", refuse_text)
    assert library.prepare_exec("/bin/true", ["true", "→"], {}) is None
