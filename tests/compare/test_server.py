"""Runs with something before, beside and after the command, and of servers under a load."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from ompbind.compare.measure import carry_out
from ompbind.compare.output import find_tail
from ompbind.compare.procedure import Conditions, Outcome, Procedure, make_alone, make_procedure
from ompbind.compare.readiness import describe, find_problem, parse_ready
from ompbind.cpuset import CpuSet
from ompbind.errors import UsageError
from ompbind.launch.ready import Condition
from ompbind.launch.trial import Interruption, catch_signals
from ompbind.plans import Host, Plan
from tests.support.recorder import state, wait_for

# An address for this process alone: tests run beside each other. All of 127/8 is this machine.
PID = os.getpid()
ADDRESS = f"127.{64 + (PID >> 16) % 64}.{PID >> 8 & 255}.{PID & 255 or 1}"
PORT = 4711
READY = f"{ADDRESS}:{PORT}"

linux = pytest.mark.skipif(sys.platform != "linux", reason="ranks are bound on Linux")

# A server: it answers what it is asked with 42, or does what its argument says. It notes its pid,
# that of a child, if it has one, and the signals that it gets.
SERVER = f"""
import os, signal, socket, sys, time
mode, notes = sys.argv[1:]
def note(text):
    with open(notes, "a") as file:
        file.write(text + "\\n")
def hear(number, _):
    note(f"signal {{number}}")
    if mode != "deaf":
        os._exit(0)
child = os.fork() if mode in ("family", "deaf") else os.getpid()
if child == 0:
    signal.signal(2, signal.SIG_IGN)
    if mode == "deaf":
        signal.signal(15, signal.SIG_IGN)
    os.setsid()
    while True:
        signal.pause()
note(f"{{os.getpid()}} {{child}}")
for number in (2, 15):
    signal.signal(number, hear)
if mode == "dies":
    print("no model", file=sys.stderr)
    os._exit(3)
if mode == "never":
    signal.pause()
time.sleep(0.05)
with socket.create_server(("{ADDRESS}", {PORT})) as listener:
    print("listening", flush=True)
    while True:
        connection, _ = listener.accept()
        if connection.recv(1) and mode == "dies loaded":
            os._exit(4)
        connection.sendall(b"42")
        connection.close()
"""
LOAD = f"""
import signal, socket, sys
with socket.create_connection(("{ADDRESS}", {PORT})) as server:
    server.sendall(b"?")
    if "stay" in sys.argv:
        signal.pause()
    print("rate:", server.recv(9).decode())
"""


def python(*args: str) -> list[str]:
    return [sys.executable, "-I", "-S", *args]


class Place:
    """A directory with the server, and what runs it."""

    def __init__(self, path: Path) -> None:
        self.path, self.notes = path, path / "notes"
        (path / "server.py").write_text(SERVER)
        (path / "load.py").write_text(LOAD)
        (path / "output").mkdir()
        none = CpuSet()
        self.plan = Plan(Host("n7", CpuSet([0]), none, none), ())

    def command(self, mode: str = "good") -> list[str]:
        return python(str(self.path / "server.py"), mode, str(self.notes))

    @property
    def load(self) -> str:
        return " ".join(python(str(self.path / "load.py")))

    def run(self, command: list[str], procedure: Procedure, **conditions: Any) -> Outcome:
        plan = make_alone(self.plan, tuple(command))
        environ = {"PATH": os.environ["PATH"]}
        return carry_out(
            plan, procedure, Conditions(environ, **conditions), str(self.path / "output")
        )

    def serve(self, mode: str = "good", **more: Any) -> Outcome:
        conditions = {k: more.pop(k) for k in ("grace", "timeout", "tick") if k in more}
        procedure = {"ready": (READY,), "load": self.load} | more
        return self.run(self.command(mode), make_procedure(**procedure), **conditions)

    @property
    def pids(self) -> list[int]:
        """The server's and its child's; none if it was ended before it had noted them."""
        lines = self.notes.read_text().splitlines() if self.notes.exists() else [""]
        return [int(word) for word in lines[0].split()]

    def assert_nothing_is_left(self) -> None:
        for pid in self.pids:
            wait_for(lambda pid=pid: has_ended(pid))  # type: ignore[misc]


def has_ended(pid: int) -> bool:
    """Whether a process is no more, or dead. One that was killed dies when it gets a cpu."""
    return state(pid) in ("", "Z", "X")


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


# --- servers -------------------------------------------------------------------------------------


@linux
def test_a_server_is_loaded_and_ended(place: Place) -> None:
    """When all signs say that it is ready; what the load writes and its time count, and INT ends
    the server. What belongs before and after is done."""
    setup, cleanup = f"mkdir {place.path}/made", f"rmdir {place.path}/made"
    outcome = place.serve("family", ready=("^listening$", READY), setup=setup, cleanup=cleanup)
    assert outcome.failure == ""
    assert outcome.trial is not None
    assert (outcome.trial.status, outcome.plan.command[-1]) == (0, str(place.path / "load.py"))
    assert Path(outcome.directory, "rank-0.out").read_text() == "rate: 42\n"
    assert place.notes.read_text().splitlines()[1:] == ["signal 2"]
    assert not (place.path / "made").exists()
    place.assert_nothing_is_left()


FAILURES: dict[str, tuple[str, dict[str, Any], str, str]] = {
    "dies": ("dies", {}, "the server ended with status 3 before it was ready", "no model"),
    "never ready": ("never", {"within": 0.2},
                    f"the server was not ready within 0.2 s: {READY}: Connection refused", ""),
    "never says so": ("never", {"within": 0.2, "ready": ("^up$",)},
                      "the server was not ready within 0.2 s: a line that matches '^up$': rank 0 "
                      "has not written it", ""),
    "dies under load": ("dies loaded", {"load": "stay"},
                        "the server ended with status 4 while it was loaded", ""),
    "a load that fails": ("good", {"load": "sh -c 'echo broken >&2; exit 5'"},
                          "--load ended with status 5", "broken"),
    "a load that hangs": ("good", {"load": "sleep 1000", "timeout": 0.3},
                          "--load took longer than 0.3 s", ""),
    "cleanup": ("good", {"cleanup": "ls /no/such"}, "--cleanup ended with status 2", "/no/such"),
}  # fmt: skip


@linux
@pytest.mark.parametrize("case", FAILURES)
def test_servers_that_fail(case: str, place: Place) -> None:
    """Are failed runs with their reason and last lines, and nothing is left of them."""
    mode, more, failure, tail = FAILURES[case]
    if more.get("load") == "stay":
        more = {"load": f"{place.load} stay"}
    outcome = place.serve(mode, **more)
    assert outcome.failure == failure
    lines = find_tail(outcome.plan, outcome.directory)
    assert any(tail in line for line in lines) or not tail
    place.assert_nothing_is_left()


@linux
def test_a_server_that_ignores_requests_to_end(place: Place) -> None:
    """Is killed after the time of grace, with its child in another session."""
    outcome = place.serve("deaf", grace=0.1)
    assert outcome.failure == ""
    assert place.notes.read_text().splitlines()[1:] == ["signal 2", "signal 15"]
    place.assert_nothing_is_left()


@linux
def test_an_address_that_is_taken(place: Place) -> None:
    """Is seen before: the load would measure something else."""
    with socket.create_server((ADDRESS, PORT)):
        outcome = place.serve(cleanup=f"touch {place.path}/cleaned")
    text = f"{READY} answers before the server is started"
    assert (outcome.failure, outcome.trial) == (text, None)
    assert (place.path / "cleaned").exists()
    assert not place.notes.exists()


@linux
def test_an_interruption_under_load(place: Place) -> None:
    """Ends load and server, and is passed on after the cleanup."""
    handlers = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    pid = place.path / "pid"
    sent: list[int] = []

    def tick() -> None:  # also called while load and server end: a second TERM would break that off
        if not sent and pid.exists() and pid.read_text().endswith("\n"):
            sent.append(signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGTERM)

    try:
        catch_signals()
        with pytest.raises(Interruption) as e:
            place.serve(load=f"sh -c 'echo $$ > {pid}; exec sleep 1000'",
                        cleanup=f"touch {place.path}/cleaned", tick=tick)  # fmt: skip
        assert e.value.number == signal.SIGTERM
    finally:
        for number, handler in zip((2, 15, 1), handlers, strict=True):
            signal.signal(number, handler)
    assert (place.path / "cleaned").exists()
    place.assert_nothing_is_left()
    wait_for(lambda: has_ended(int(pid.read_text())))


# --- other commands ------------------------------------------------------------------------------


@linux
def test_setup_and_cleanup(place: Place) -> None:
    """Surround each run; without the setup, neither it nor the ranks can be measured, and the
    cleanup is done all the same."""
    log = place.path / "log"
    procedure = make_procedure(setup=f"sh -c 'echo setup >> {log}'",
                               cleanup=f"sh -c 'echo cleanup >> {log}'")  # fmt: skip
    outcome = place.run(["sh", "-c", f"echo run >> {log}"], procedure)
    assert (outcome.failure, log.read_text()) == ("", "setup\nrun\ncleanup\n")
    for folder in ("setup", "cleanup"):
        for file in (place.path / "output" / folder).iterdir():
            file.unlink()
        (place.path / "output" / folder).rmdir()
    outcome = place.run(["false"], procedure.replace(setup=("sh", "-c", "echo no; exit 7")))
    assert (outcome.failure, outcome.trial) == ("--setup ended with status 7", None)
    assert find_tail(outcome.plan, outcome.directory) == ("no",)
    assert log.read_text().endswith("cleanup\ncleanup\n")


@pytest.mark.parametrize(
    ("text", "words"),
    [("wrk -c 4 'a b' http://x", ["wrk", "-c", "4", "a b", "http://x"]), ("a; b", ["a;", "b"]),
     ("a $HOME", ["a", "$HOME"])],
)  # fmt: skip
def test_commands_are_argument_lists(text: str, words: list[str]) -> None:
    """Quoted as for a shell, which is not there."""
    assert list(make_procedure(load=text).load) == words


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"load": "a 'b"}, "--load \"a 'b\": no closing quotation"),
        ({"setup": " "}, "--setup: an empty command"),
        ({"ready": ("0",)}, "--ready: '0' is not a condition"),
        ({"ready": ("65536",)}, "--ready: '65536' is not a condition"),
        ({"ready": ("",)}, "--ready: '' is not a condition"),
        ({"ready": ("ftp://x/",)}, "--ready: 'ftp://x/' is not a condition"),
        ({"ready": ("http://",)}, "--ready: 'http://' is not a condition"),
        ({"ready": ("exit",)}, "--ready exit: a server that has exited cannot be loaded"),
        ({"ready": ("a(",)}, "--ready: 'a(' is not a regular expression: missing ), unterminated "
         "subpattern at position 1"),
        ({"ready": ("line:a(",)}, "--ready: 'line:a(': missing ), unterminated subpattern at "
         "position 1"),
    ],
)  # fmt: skip
def test_what_is_refused(options: dict[str, Any], message: str) -> None:
    """Before anything is started, with its option and value."""
    with pytest.raises(UsageError) as e:
        make_procedure(**options)
    assert e.value.message == message


# --- signs ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "condition", "name"),
    [
        ("8000", Condition("port", "8000", port=8000), "port 8000"),
        ("n1:80", Condition("port", "n1:80", "n1", 80), "n1:80"),
        ("http://n1:80/x?y=1", Condition("http", "http://n1:80/x?y=1", "n1", 80, "/x?y=1"),
         "http://n1:80/x?y=1"),
        ("line:^up", Condition("line", "line:^up", pattern="^up"), "a line that matches '^up'"),
        ("startup complete|up: .*", Condition("line", "startup complete|up: .*",
                                              pattern="startup complete|up: .*"),
         "a line that matches 'startup complete|up: .*'"),
    ],
)  # fmt: skip
def test_signs(text: str, condition: Condition, name: str) -> None:
    """Are those of groups, and all else is a pattern."""
    assert parse_ready(text) == condition
    assert describe(condition) == name


def test_what_every_rank_must_write() -> None:
    """Or else the first that has not is named."""
    ready = parse_ready("^up")
    assert find_problem(ready, ["x\nup 1\n", "x\nup 2\n"]) == ""
    assert find_problem(ready, ["up", "not up", ""]) == "rank 1 has not written it"


def answer(listener: socket.socket, text: bytes) -> None:
    """Answer one request."""
    connection, _ = listener.accept()
    with connection:
        connection.recv(4096)
        connection.sendall(text)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", ""),
        (b"HTTP/1.1 302 Found\r\n\r\n", ""),
        (b"HTTP/1.1 503 Service Unavailable\r\n\r\n", "status 503"),
        (b"SSH-2.0-OpenSSH\r\n", "BadStatusLine SSH-2.0-OpenSSH"),
        (b"", "RemoteDisconnected Remote end closed connection without response"),
    ],
)
def test_urls(text: bytes, problem: str) -> None:
    """Must answer without an error."""
    with socket.create_server((ADDRESS, 0)) as listener:
        port = listener.getsockname()[1]
        thread = threading.Thread(target=answer, args=(listener, text))
        thread.start()
        assert find_problem(parse_ready(f"http://{ADDRESS}:{port}/health"), []) == problem
        thread.join()


def test_nobody_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the system's words, or after a time."""
    with socket.create_server((ADDRESS, 0)) as listener:
        port = listener.getsockname()[1]
        page = parse_ready(f"http://{ADDRESS}:{port}/")
        monkeypatch.setattr("ompbind.compare.readiness.PATIENCE", 0.05)
        assert find_problem(page, []) == "no answer"
        assert find_problem(parse_ready(f"{ADDRESS}:{port}"), []) == ""
    assert find_problem(page, []) == "Connection refused"
