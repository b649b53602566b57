"""Nobody is left behind, whatever ends ompbind, and whenever; how ranks are ended, and what is said
of it."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import select
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from ompbind.launch.supervisor import REPEAT
from tests.support.commands import OMPBIND, TIMEOUT, environment, ompbind_run
from tests.support.confine import denying, in_cgroup, mounting, need
from tests.support.needs import need_cpus, unavailable
from tests.support.recorder import (
    Starter,
    alive,
    all_children,
    children,
    name_of,
    record,
    recorder,
    state,
    supervisor_of,
    switches,
    wait_for,
    wait_for_pids,
    wait_until_asleep,
    watcher_of,
)

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="subreapers are Linux's")

MARK = "OMPBIND_TEST_MARK"

# A worker with a child and a daemon (forked twice, a session of its own), each of which notes its
# pid; `stubborn`: none cares for HUP, INT or TERM; `stopped`: the worker and its child stop;
# `another user`: all have become one.
CLAN = r"""
import os, signal, sys
notes = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
def note():
    os.write(notes, b"%d " % os.getpid())
def live():
    note()
    if "stopped" in sys.argv:
        os.kill(os.getpid(), signal.SIGSTOP)
    while True:
        signal.pause()
if "another user" in sys.argv:
    os.setuid(54321)
if "stubborn" in sys.argv:
    for number in (1, 2, 15):
        signal.signal(number, signal.SIG_IGN)
if os.fork() == 0:
    live()
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        live()
    os._exit(0)
os.wait()
if "leave" in sys.argv:
    note()
    os._exit(0)
live()
"""

# Runs ompbind with the N-th call of a function of os held until the end, and that told in a file;
# in the first process that makes it, or each, where it is execve.
HOLD = r"""
import os, sys, time
name, count, told = sys.argv[1], int(sys.argv[2]), sys.argv[3]
real = getattr(os, name)
made = [0]
def held(*args):
    made[0] += 1
    if made[0] == count and (name == "execve" or not os.path.exists(told)):
        with open(told, "w") as file:
            file.write(str(os.getpid()))
        while True:
            time.sleep(60)
    return real(*args)
setattr(os, name, held)
from ompbind.cli import main
from ompbind.launch.syscalls import Library
if name == "execve":  # ranks call the C library's
    prepare = Library.prepare_exec
    Library.prepare_exec = lambda *args: (held, prepare(*args)[1])
sys.exit(main(sys.argv[4:]))
"""


class Family:
    """The processes of a test: all have a variable in their environment by which they are found."""

    def __init__(self) -> None:
        self.mark = str(uuid.uuid4())
        self.begun: list[subprocess.Popen[bytes]] = []

    def begin(
        self, *args: str, under: Sequence[str] = (OMPBIND,), stdin: int = subprocess.DEVNULL
    ) -> subprocess.Popen[bytes]:
        """Starts ompbind (or what is put in its place) in a session of its own."""
        process = subprocess.Popen(
            [*under, *args],
            env=environment(**{MARK: self.mark}),
            stdin=stdin,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        self.begun.append(process)
        return process

    def living(self) -> list[int]:
        found = []
        for directory in Path("/proc").iterdir():
            if directory.name.isdigit():
                try:
                    if f"{MARK}={self.mark}\0".encode() in (directory / "environ").read_bytes():
                        found.append(int(directory.name))
                except OSError:
                    continue
        return found

    def end(self) -> None:
        for pid in self.living():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for process in self.begun:
            process.communicate(timeout=TIMEOUT)


@pytest.fixture
def family() -> Iterator[Family]:
    """At the end all that still live are killed."""
    made = Family()
    yield made
    made.end()


def clan(tmp_path: Path, *words: str) -> list[str]:
    script = tmp_path / "clan.py"
    script.write_text(CLAN)
    return [sys.executable, "-I", "-S", str(script), str(tmp_path / "pids"), *words]


def noted(tmp_path: Path) -> list[int]:
    path = tmp_path / "pids"
    return [int(n) for n in path.read_text().split()] if path.exists() else []


def kill(process: subprocess.Popen[bytes], *victims: str) -> None:
    """Kill some of a launch's processes at once, and see that ompbind ends as it should: by the
    signal, or with its status."""
    front, watcher, supervisor = process.pid, watcher_of(process.pid), supervisor_of(process.pid)
    pids = {"front": front, "watcher": watcher, "supervisor": supervisor}
    for victim in victims:
        os.kill(pids[victim], signal.SIGKILL)
    assert process.wait(TIMEOUT) == (-9 if "front" in victims else 137)


def errors(process: subprocess.Popen[bytes]) -> list[str]:
    """What ompbind has said, after its end."""
    assert process.stderr is not None
    return process.stderr.read().decode().splitlines()


def without_stops(lines: list[str]) -> list[str]:
    """What ompbind has said except of ranks that were stopped."""
    return [
        line
        for line in lines
        if not re.fullmatch(r"ompbind: note: rank \d is stopped by signal 19 \(STOP\)", line)
        and not re.fullmatch(r"hint: kill -CONT \d+ lets it go on", line)
    ]


# --- whatever ends ompbind ------------------------------------------------------------------------


Victims = tuple[str, ...]
ONE: list[Victims] = [("front",), ("supervisor",), ("watcher",)]
TWO: list[Victims] = [("front", "supervisor"), ("front", "watcher"), ("watcher", "supervisor")]


@pytest.mark.parametrize("words", [[], ["stubborn", "stopped"]])
@pytest.mark.parametrize("victims", ONE + TWO, ids="+".join)
def test_killed_while_ranks_run(
    victims: Victims, words: list[str], tmp_path: Path, family: Family
) -> None:
    """Whichever of ompbind's three processes are killed, one or two at once, no rank, child or
    daemon of one survives."""
    process = family.begin("run", "-n", "2", "--share", "--", *clan(tmp_path, *words))
    wait_for(lambda: len(noted(tmp_path)) == 6)
    kill(process, *victims)
    wait_for(lambda: not family.living())
    if "front" not in victims:
        name = "watcher" if "watcher" in victims else "supervisor"
        (line,) = without_stops(errors(process))
        assert line == (
            f"ompbind: error: the {name} was killed by signal 9 (KILL): all ranks were ended"
        )


@pytest.mark.parametrize("words", [["stubborn"], ["stubborn", "another user"]])
def test_killed_by_name(words: list[str], tmp_path: Path, family: Family) -> None:
    """As by pkill -9 ompbind, or -f: the watcher is called otherwise, and nothing stays, also of
    ranks that have become another user, whom the kernel does not kill then."""
    if "another user" in words and os.geteuid() != 0:
        unavailable("to become another user needs root")
    process = family.begin("run", "-n", "2", "--share", "--", *clan(tmp_path, *words))
    wait_for(lambda: len(noted(tmp_path)) == 6)
    everyone = [process.pid, *all_children(process.pid)]
    watcher = watcher_of(process.pid)
    wait_for(lambda: name_of(watcher) != "ompbind")
    assert b"ompbind" not in Path(f"/proc/{watcher}/cmdline").read_bytes()
    named = [pid for pid in everyone if name_of(pid) == "ompbind"]
    assert named == [process.pid, supervisor_of(process.pid)]
    for pid in named:
        os.kill(pid, signal.SIGKILL)
    assert process.wait(TIMEOUT) == -9
    wait_for(lambda: not any(map(alive, everyone)))
    assert not family.living()


@pytest.mark.parametrize("victims", [*ONE, ("front", "supervisor")], ids="+".join)
def test_killed_during_the_time_of_grace(victims: Victims, tmp_path: Path, family: Family) -> None:
    """Also when TERM has been passed on and is ignored."""
    args = ["run", "-n", "2", "--share", "--grace", "60", "--", *recorder(tmp_path, "stubborn")]
    process = family.begin(*args)
    wait_for_pids(tmp_path, 2)
    process.terminate()
    wait_for(lambda: all(record(tmp_path, r)[2:] == ["15"] for r in (0, 1)))
    kill(process, *victims)
    wait_for(lambda: not family.living())


@pytest.mark.parametrize("victims", [*ONE, ("front", "supervisor")], ids="+".join)
def test_killed_while_ending_what_is_left(victims: Victims, tmp_path: Path, family: Family) -> None:
    """Also when the ranks have gone and their children are being ended."""
    words = clan(tmp_path, "stubborn", "leave")
    process = family.begin("run", "-n", "2", "--share", "--grace", "60", "--", *words)
    assert process.stderr is not None
    assert b"left behind" in process.stderr.readline()
    kill(process, *victims)
    wait_for(lambda: not family.living())


# What is held: the fork of the watcher, the supervisor, the first, second, last of three ranks;
# when all are forked, when they are let go; in each rank just before it executes.
CALLS = [("fork", 1), ("fork", 2), ("fork", 3), ("fork", 4), ("fork", 5), ("set_blocking", 3),
         ("write", 1), ("execve", 1)]  # fmt: skip
PHASES = [
    *(("front", *call) for call in CALLS),
    *(("watcher", *call) for call in CALLS[1::3]),
    *(("supervisor", *call) for call in CALLS[2:]),
]


@pytest.mark.parametrize(("victim", "name", "count"), PHASES)
def test_killed_while_starting(
    victim: str, name: str, count: int, tmp_path: Path, family: Family
) -> None:
    """Killed between any two steps of a start, nothing stays, and nothing has run that stays."""
    told = tmp_path / "held"
    under = [sys.executable, "-c", HOLD, name, str(count), str(told)]
    args = ["run", "-n", "3", "--share", "--binder", "native", "--", *clan(tmp_path, "stubborn")]
    process = family.begin(*args, under=under)
    wait_for(lambda: told.exists() and told.read_text())
    find = {"watcher": watcher_of, "supervisor": supervisor_of}.get(victim, int)
    os.kill(find(process.pid), signal.SIGKILL)
    if victim == "front" and name != "execve" and count + (name != "fork") > 1:
        # The test itself holds the watcher or supervisor: without it, it would see by itself.
        os.kill(int(told.read_text()), signal.SIGKILL)
    assert process.wait(TIMEOUT) == (-9 if victim == "front" else 137)
    wait_for(lambda: not family.living())


def test_killed_at_any_time(tmp_path: Path, family: Family) -> None:
    """At moments of the start spread over all of it."""
    for n in range(12):
        process = family.begin("run", "-n", "8", "--share", "--", *clan(tmp_path, "stubborn"))
        time.sleep(0.01 * n)
        process.kill()
        process.wait(TIMEOUT)
        wait_for(lambda: not family.living())


def test_the_whole_group_is_killed(tmp_path: Path, family: Family) -> None:
    """As by timeout -s KILL: the supervisor is not in the group, and ends all."""
    process = family.begin("run", "-n", "2", "--share", "--", *clan(tmp_path, "stubborn"))
    wait_for(lambda: len(noted(tmp_path)) == 6)
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait(TIMEOUT) == -9
    wait_for(lambda: not family.living())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_asked_to_end(number: int, tmp_path: Path, family: Family) -> None:
    """Stubborn or stopped, with children and daemons: after the time of grace all have gone."""
    args = ["--grace", "0.2", "--", *clan(tmp_path, "stubborn", "stopped")]
    process = family.begin("run", "-n", "2", "--share", *args)
    wait_for(lambda: len(noted(tmp_path)) == 6)
    process.send_signal(number)
    assert process.wait(TIMEOUT) == 137
    assert not family.living()
    (line,) = without_stops(errors(process))
    name = {15: "TERM", 2: "INT"}[number]
    assert line == (
        f"ompbind: 2 ranks were ended on signal {number} ({name}): 2 by signal 9 (KILL)"
    )


def test_stopped_ranks_can_end_by_themselves(tmp_path: Path, family: Family) -> None:
    """TERM comes with CONT: a stopped rank gets it at once, not only KILL in the end."""
    args = ["run", "-n", "2", "--share", "--grace", "60", "--", *clan(tmp_path, "stopped")]
    process = family.begin(*args)
    wait_for(lambda: len(noted(tmp_path)) == 6)
    process.terminate()
    assert process.wait(TIMEOUT) == 143
    assert not family.living()


def test_what_ranks_leave_behind_is_ended(tmp_path: Path, family: Family) -> None:
    """A rank's child and daemon do not outlive it, though it has ended well; that is said."""
    process = family.begin("run", "-n", "2", "--share", "--", *clan(tmp_path, "leave"))
    assert process.wait(TIMEOUT) == 0
    assert not family.living()
    said = "ending 4 processes that the ranks left behind; "
    said += "--leave-children lets such processes run on"
    assert errors(process) == [f"ompbind: note: {said}"]


# A Python that was built on old kernel headers.
WITHOUT_PIDFD = """
import os, _signal, sys
del os.pidfd_open, _signal.pidfd_send_signal
from ompbind.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture(params=["no function", "ENOSYS", "EPERM", "EPERM for signals"])
def without_pidfd(request: pytest.FixtureRequest) -> list[str]:
    """How ompbind is started where processes have no descriptors: in Python, or in the kernel."""
    if request.param == "no function":
        return [sys.executable, "-c", WITHOUT_PIDFD]
    calls = "pidfd_send_signal" if "signals" in request.param else "pidfd_open,pidfd_send_signal"
    return [*denying(request.param.split()[0], calls), OMPBIND]


def test_left_behind_without_pidfd(
    without_pidfd: list[str], tmp_path: Path, family: Family
) -> None:
    """A rank's child and daemon are ended all the same, and the status is the ranks'."""
    args = ["run", "-n", "2", "--share", "--", *clan(tmp_path, "leave")]
    process = family.begin(*args, under=without_pidfd)
    assert process.wait(TIMEOUT) == 0
    assert not family.living()
    (line,) = errors(process)
    assert line.startswith("ompbind: note: ending 4 processes that the ranks left behind")


def test_stubborn_without_pidfd(without_pidfd: list[str], tmp_path: Path, family: Family) -> None:
    """After the time of grace all are killed, daemons too."""
    args = ["run", "-n", "2", "--share", "--grace", "0.2", "--", *clan(tmp_path, "stubborn")]
    process = family.begin(*args, under=without_pidfd)
    wait_for(lambda: len(noted(tmp_path)) == 6)
    process.terminate()
    assert process.wait(TIMEOUT) == 137
    assert not family.living()


@pytest.mark.parametrize("victims", [*ONE, ("front", "supervisor")], ids="+".join)
def test_killed_without_pidfd(
    victims: Victims, without_pidfd: list[str], tmp_path: Path, family: Family
) -> None:
    """Whichever of the processes are killed, another one ends all."""
    args = ["run", "-n", "2", "--share", "--", *clan(tmp_path)]
    process = family.begin(*args, under=without_pidfd)
    wait_for(lambda: len(noted(tmp_path)) == 6)
    kill(process, *victims)
    wait_for(lambda: not family.living())


IN_NAMESPACE = """
"$@"; status=$?
for pid in $(cat "$0"); do kill -0 "$pid" 2>/dev/null && echo alive; done
exit $status
"""


def test_left_behind_in_a_pid_namespace(tmp_path: Path) -> None:
    """Where /proc is still that of the outer one, its numbers are not taken for those in here."""
    inside = need(["unshare", "--pid", "--fork", "sh", "-c", IN_NAMESPACE, str(tmp_path / "pids")])
    code = f"sleep 300 & echo $! >> {tmp_path}/pids"
    done = ompbind_run("run", "-n", "2", "--share", "--", "sh", "-c", code, under=inside)
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr.startswith("ompbind: note: ending 2 processes that the ranks left behind")
    assert done.stderr.count("\n") == 1


def test_left_behind_without_proc(tmp_path: Path, family: Family) -> None:
    """Nothing can be found there, which is said at once; a rank is still killed in the end."""
    inside = mounting("mount -t tmpfs none /proc")
    args = ["-n", "2", "--share", "--binder", "native", "--", *clan(tmp_path, "leave")]
    process = family.begin("run", *args, under=[*inside, OMPBIND])
    assert process.wait(TIMEOUT) == 0
    assert errors(process) == [
        "ompbind: warning: the ranks left processes behind that /proc does not list: they cannot "
        "be ended"
    ]


def test_a_program_that_setsid_forks(tmp_path: Path) -> None:
    """A rank leads its process group, so setsid returns at once: that is said."""
    done = ompbind_run("run", "-n", "2", "--share", "--", "setsid", "sleep", "300")
    assert done.returncode == 0
    note, hint = done.stderr.splitlines()
    assert note.startswith("ompbind: note: ending 2 processes that the ranks left behind")
    assert hint == "hint: setsid --wait keeps a rank until its program exits"


def test_children_may_be_left_behind(tmp_path: Path, family: Family) -> None:
    """With --leave-children they go on, and ompbind ends at once."""
    args = ["--leave-children", "--", *clan(tmp_path, "leave", "stubborn")]
    process = family.begin("run", "-n", "2", "--share", *args)
    assert process.wait(TIMEOUT) == 0
    wait_for(lambda: len(family.living()) == 4)


@pytest.mark.parametrize("args", [[], ["--output", "inherit"], ["--output-dir", "logs"]])
def test_children_left_behind_can_write(args: list[str], tmp_path: Path, family: Family) -> None:
    """What --leave-children lets go on writes on to where its rank wrote, and is not killed."""
    code = f"while ! test -e {tmp_path}/go; do sleep 0.05; done; echo later"
    code = f"( {code}; touch {tmp_path}/wrote.$OMPBIND_RANK ) &"
    with (tmp_path / "output").open("wb") as output:
        done = subprocess.run(
            [
                OMPBIND,
                "run",
                "-n",
                "2",
                "--share",
                "--leave-children",
                *args,
                "--",
                "sh",
                "-c",
                code,
            ],
            env=environment(**{MARK: family.mark}),
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
            stdout=output,
            timeout=TIMEOUT,
        )
    assert done.returncode == 0
    (tmp_path / "go").touch()
    wait_for(lambda: len(list(tmp_path.glob("wrote.*"))) == 2, 10)
    files = sorted((tmp_path / "logs").glob("*.out")) or [tmp_path / "output"]
    assert "".join(file.read_text() for file in files) == "later\nlater\n"


@pytest.mark.parametrize("count", ["1", "2"])
def test_children_left_behind_cannot_be_tagged(count: str, tmp_path: Path) -> None:
    """Tags would need ompbind after its exit: refused, with what to do instead."""
    args = ["run", "-n", count, "--share", "--leave-children", "--output", "tag"]
    done = ompbind_run(*args, "--", "touch", str(tmp_path / "ran"))
    assert done.returncode == 125
    error, hint = done.stderr.splitlines()
    assert error.startswith("ompbind: error: --output tag and --leave-children: nobody passes on ")
    assert hint.startswith("hint: use --output inherit, the default with --leave-children, or ")
    assert not (tmp_path / "ran").exists()


def test_other_children_are_left_alone(tmp_path: Path, family: Family) -> None:
    """A process that whoever has become ompbind had started before is none of its own."""
    script = f'sleep 300 & echo $! > {tmp_path}/other; exec "$0" "$@"'
    args = ["run", "-n", "2", "--share", "--", *clan(tmp_path)]
    process = family.begin(*args, under=["sh", "-c", script, OMPBIND])
    wait_for(lambda: len(noted(tmp_path)) == 6)
    other = int((tmp_path / "other").read_text())
    watcher = next(p for p in children(process.pid) if p != other)
    os.kill(watcher, signal.SIGKILL)
    assert process.wait(TIMEOUT) == 137
    wait_for(lambda: family.living() == [other])


def test_a_single_rank_that_is_watched(tmp_path: Path, family: Family) -> None:
    """With --grace it is a child like any other."""
    process = family.begin("run", "--grace", "0.2", "--", *clan(tmp_path, "stubborn"))
    wait_for(lambda: len(noted(tmp_path)) == 3)
    assert process.pid not in noted(tmp_path)
    process.terminate()
    assert process.wait(TIMEOUT) == 137
    assert not family.living()


# --- the stop ladder ------------------------------------------------------------------------------


def test_int_then_term_then_kill(tmp_path: Path, start: Starter) -> None:
    """INT is passed on, TERM follows after the time of grace, KILL after another one."""
    args = ["-n", "2", "--share", "--grace", "0.3", "--", *recorder(tmp_path, "stubborn")]
    process = start("run", *args)
    wait_for_pids(tmp_path, 2)
    process.send_signal(signal.SIGINT)
    assert process.wait(TIMEOUT) == 137
    assert [record(tmp_path, r)[2:] for r in (0, 1)] == [["2", "15"]] * 2


def test_a_second_int_goes_a_step_further_at_once(tmp_path: Path, start: Starter) -> None:
    """Without waiting for the time of grace: TERM, with a third one KILL."""
    args = ["-n", "2", "--share", "--grace", "600", "--", *recorder(tmp_path, "stubborn")]
    process = start("run", *args)
    wait_for_pids(tmp_path, 2)
    for sent in (["2"], ["2", "15"]):
        process.send_signal(signal.SIGINT)
        wait_for(lambda: all(record(tmp_path, r)[2:] == sent for r in (0, 1)))  # noqa: B023
        time.sleep(REPEAT)
    process.send_signal(signal.SIGINT)
    assert process.wait(TIMEOUT) == 137


# A worker that takes a moment to clean up on TERM and does not know other signals.
CLEANER = """trap 'sleep 0.3; echo cleaned; exit 0' TERM; echo > {}/up.$OMPBIND_RANK
while :; do sleep 0.05; done"""


def start_cleaners(tmp_path: Path, family: Family, *under: str) -> subprocess.Popen[bytes]:
    """Starts two workers that clean up on TERM, and returns when both are ready for it."""
    worker = ["sh", "-c", CLEANER.format(tmp_path)]
    args = ["run", "-n", "2", "--share", "--output-dir", f"{tmp_path}/logs", "--", *worker]
    process = family.begin(*args, under=[*under, OMPBIND])
    wait_for(lambda: all((tmp_path / f"up.{rank}").exists() for rank in (0, 1)))
    return process


@pytest.mark.parametrize("pause", [0, 0.005, 0.05])
def test_the_same_signal_twice_at_once(pause: float, tmp_path: Path, family: Family) -> None:
    """TERM to ompbind and then to its group, as timeout sends it, is one request: ranks keep their
    grace."""
    process = start_cleaners(tmp_path, family)
    process.terminate()
    time.sleep(pause)
    os.killpg(process.pid, signal.SIGTERM)
    assert process.wait(TIMEOUT) == 0
    logs = [(tmp_path / "logs" / f"rank-{rank}.out").read_text() for rank in (0, 1)]
    assert logs == ["cleaned\n"] * 2
    assert errors(process) == []


def test_a_repeated_signal_drops_no_output(family: Family) -> None:
    """TERM twice at once: what ranks wrote on the first one is written, also when all have exited
    before the second."""
    code = "trap 'seq 9000; exit 0' TERM; echo up >&2; while :; do sleep 0.05; done"
    process = subprocess.Popen(
        [OMPBIND, "run", "-n", "2", "--share", "--", "sh", "-c", code],
        env=environment(**{MARK: family.mark}),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    with process:
        assert process.stdout is not None
        assert process.stderr is not None
        for _ in range(2):
            assert process.stderr.readline().endswith(b"up\n")
        supervisor = supervisor_of(process.pid)
        ranks = children(supervisor)
        process.terminate()
        wait_for(lambda: not any(alive(pid) for pid in ranks))
        process.terminate()
        assert process.stdout.read().count(b"\n") == 18000
        assert process.wait(TIMEOUT) == 0


@pytest.mark.parametrize(
    "number",
    [signal.SIGALRM, signal.SIGVTALRM, signal.SIGPROF, signal.SIGXCPU, signal.SIGIO, signal.SIGPWR,
     signal.SIGRTMIN, signal.SIGRTMIN + 6, signal.SIGRTMAX],
)  # fmt: skip
def test_other_signals_end_the_ranks_with_grace(
    number: int, tmp_path: Path, family: Family
) -> None:
    """A timer's, a batch system's or a realtime signal asks the ranks to end by TERM, as TERM to
    ompbind does."""
    process = start_cleaners(tmp_path, family)
    process.send_signal(number)
    assert process.wait(TIMEOUT) == 0
    logs = [(tmp_path / "logs" / f"rank-{rank}.out").read_text() for rank in (0, 1)]
    assert logs == ["cleaned\n"] * 2


def test_a_signal_that_is_not_tried_again(tmp_path: Path, start: Starter) -> None:
    """XCPU, then KILL after the time of grace: stubborn ranks get TERM only once."""
    args = ["-n", "2", "--share", "--grace", "0.3", "--", *recorder(tmp_path, "stubborn")]
    process = start("run", *args)
    wait_for_pids(tmp_path, 2)
    process.send_signal(signal.SIGXCPU)
    assert process.wait(TIMEOUT) == 137
    assert [record(tmp_path, r)[2:] for r in (0, 1)] == [["15"]] * 2


def test_an_interrupt_wakes_stopped_ranks(tmp_path: Path, start: Starter) -> None:
    """INT comes with CONT, as TERM does: a stopped rank gets it at once."""
    args = ["-n", "2", "--share", "--grace", "600", "--", *recorder(tmp_path)]
    process = start("run", *args)
    pids = wait_for_pids(tmp_path, 2)
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    wait_for(lambda: all(state(pid) == "T" for pid in pids))
    process.send_signal(signal.SIGINT)
    wait_for(lambda: all(record(tmp_path, r)[2:] == ["2"] for r in (0, 1)))


def test_a_reader_that_does_not_read_is_not_awaited(family: Family) -> None:
    """After TERM and the time of grace, ompbind exits although nobody reads what ranks wrote."""
    process = subprocess.Popen(
        [OMPBIND, "run", "-n", "2", "--share", "--grace", "0.5", "--", "yes"],
        env=environment(**{MARK: family.mark}),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    with process:
        wait_for(lambda: len(family.living()) == 5)
        wait_until_asleep(family.living())  # all pipes are full
        process.terminate()
        assert process.wait(20) == 143


def test_a_failure_may_leave_the_others(tmp_path: Path) -> None:
    """With --on-failure keep they go on to their end; the status is still the first failure's."""
    need_cpus(2)
    code = 'if [ "$OMPBIND_RANK" = 1 ]; then exit 3; fi; sleep 0.3; echo "$OMPBIND_RANK"'
    args = ["--on-failure", "keep", "--output", "inherit", "--", "sh", "-c", code]
    done = ompbind_run("run", "-n", "2", *args)
    assert (done.returncode, done.stdout) == (3, "0\n")


def test_stop_and_continue_pass_through(tmp_path: Path, family: Family) -> None:
    """TSTP stops every rank and ompbind itself, CONT lets all go on."""
    code = f"echo $$ >> {tmp_path}/pids; exec sleep 300"
    process = family.begin("run", "-n", "2", "--share", "--", "sh", "-c", code)
    wait_for(lambda: len(noted(tmp_path)) == 2)
    everyone = [process.pid, *noted(tmp_path)]
    process.send_signal(signal.SIGTSTP)
    wait_for(lambda: all(state(p) == "T" for p in everyone))
    process.send_signal(signal.SIGCONT)
    wait_for(lambda: not any(state(p) == "T" for p in everyone))
    process.terminate()
    assert process.wait(TIMEOUT) == 143


def test_grace_that_is_no_time() -> None:
    """What is not a number of seconds is refused."""
    for text in ("", "x", "-1", "1e3", "1.", ".", "9" * 30):
        done = ompbind_run("run", f"--grace={text}", "--", "true")
        assert done.returncode == 125
        assert "is not a number of seconds" in done.stderr
        assert done.stderr.count("\n") == 2


# --- what is said ---------------------------------------------------------------------------------

LINE = r"ompbind: rank {rank} \(pid \d+\) ended {how} after \d+\.\d s, peak memory [\d.]+ [KMG]iB\n"


def test_a_rank_that_fails_is_told_of() -> None:
    """Its number, pid, status, time and memory, in a line; those that end well are not."""
    code = '[ "$OMPBIND_RANK" = 0 ] || exit 3'
    done = ompbind_run("run", "-n", "2", "--share", "--on-failure", "keep", "--", "sh", "-c", code)
    assert re.fullmatch(LINE.format(rank=1, how="with status 3"), done.stderr)


def test_a_signal_is_told_of_by_name() -> None:
    """Of a rank that one has ended; those ended because of it are told apart, in one line."""
    code = '[ "$OMPBIND_RANK" = 5 ] || exec sleep 60; kill -SEGV $$'
    done = ompbind_run("run", "-n", "8", "--share", "--", "sh", "-c", code)
    assert done.returncode == 139
    first, second = done.stderr.splitlines(keepends=True)
    assert re.fullmatch(LINE.format(rank=5, how=r"by signal 11 \(SEGV\)"), first)
    summary = "7 ranks were ended because rank 5 had failed: 7 by signal 15 (TERM)"
    assert second == f"ompbind: {summary}\n"


def test_a_rank_that_crashed_is_not_blamed_on_another() -> None:
    """A signal, or a status, that ompbind did not send is the rank's own, also while the others are
    being ended; 128 and a signal that was sent is not."""
    code = """
        trap '' TERM; test $OMPBIND_RANK = 0 && { sleep 0.3; exit 3; }
        crash() { ulimit -c 0; kill -SEGV $$; }
        end() { case $OMPBIND_RANK in 1) crash;; 2) exit 2;; 3) exit 143; esac; }
        trap end TERM
        while :; do sleep 0.05; done
    """
    done = ompbind_run("run", "-n", "4", "--share", "--", "sh", "-c", code)
    assert done.returncode == 3
    lines = done.stderr.splitlines(keepends=True)
    assert re.fullmatch(LINE.format(rank=0, how="with status 3"), lines[0])
    assert re.fullmatch(LINE.format(rank=1, how=r"by signal 11 \(SEGV\)"), lines[1])
    assert lines[2:] == [
        "ompbind: rank 3 was ended because rank 0 had failed: with status 143\n",
        "ompbind: rank 2 exited meanwhile: with status 2\n",
    ]


def test_a_core_dump_is_named(tmp_path: Path) -> None:
    """As the kernel reports it with the signal; the file's name is the system's affair."""
    code = "ulimit -c unlimited && kill -ABRT $$"
    done = ompbind_run("run", "-v", "--", "sh", "-c", code, cwd=tmp_path)
    assert done.returncode == 134
    if "core dumped" not in done.stderr:
        unavailable("no core dumps are made here")
    assert re.search(
        r"\nompbind: rank 0 .* by signal 6 \(ABRT\) \(core dumped\) after", done.stderr
    )


def test_the_oom_killer_is_named() -> None:
    """A rank killed for want of memory, by the count of its cgroup, which was at its limit."""
    code = "import os, time; os.environ['OMPBIND_RANK'] == '0' and bytearray(256 << 20)"
    with in_cgroup("memory", {"memory.max": str(96 << 20)}) as inside:
        args = ["-n", "2", "--share", "--", sys.executable, "-c", code]
        done = ompbind_run("run", *args, under=inside)
    assert done.returncode == 137
    why = "probably the kernel's OOM killer: its cgroup has been at its limit of memory"
    assert re.match(rf"ompbind: rank 0 .* by signal 9 .KILL. .{why}. after", done.stderr)


def test_verbose_tells_of_each() -> None:
    """With -v also of those that ended well, and of a single one: what it is bound to, how it
    ended, and what it has used."""
    for count in (1, 2):
        done = ompbind_run("run", "-v", "-n", str(count), "--share", "--", "true")
        assert done.returncode == 0
        lines = done.stderr.splitlines(keepends=True)
        assert len(lines) == 3 * count
        starts = [line.partition(": cpu")[0] for line in lines[:count]]
        assert starts == [f"ompbind: rank {rank}" for rank in range(count)]
        for rank in range(count):
            pattern = LINE.format(rank=rank, how="with status 0")
            (at,) = [n for n, line in enumerate(lines) if re.fullmatch(pattern, line)]
            assert lines[at + 1].startswith(f"ompbind: rank {rank} used 0.")


def test_peak_memory_is_the_kernels() -> None:
    """A rank that fills 100 MiB has had at least so much."""
    code = "x = bytearray(100 << 20); x[::4096] = bytes(len(x[::4096]))"
    done = ompbind_run("run", "-v", "--", sys.executable, "-I", "-S", "-c", code)
    found = re.search(r"peak memory (\d+) MiB", done.stderr)
    assert found
    assert 100 <= int(found[1]) < 200


# --- all or nothing -------------------------------------------------------------------------------


# Becomes another user, who may not read what is imported here, with room for nine processes.
OTHER_USER = """
import os, resource, sys
import ctypes, fcntl, gc, select
import ompbind.launch.descendants, ompbind.launch.parent, ompbind.resolve, ompbind.machine.cpus
from ompbind.cli import main
resource.setrlimit(resource.RLIMIT_NPROC, (9, 9))
os.setgid(54321)
os.setuid(54321)
sys.executable = "/bin/sleep"  # Python's own may be out of reach
sys.exit(main(sys.argv[1:]))
"""


def test_a_full_process_table() -> None:
    """A rank for which no process can be made ends the whole start: one line, nothing left."""
    if os.geteuid() != 0:
        unavailable("another user's limits need root")
    args = ["run", "-n", "30", "--share", "--binder", "native", "--", "/bin/sleep", "60"]
    done = subprocess.run(
        [sys.executable, "-c", OTHER_USER, *args],
        env=environment(), capture_output=True, text=True, timeout=TIMEOUT,
    )  # fmt: skip
    assert done.returncode == 126
    assert re.fullmatch(
        r"ompbind: error: rank \d+: its process cannot be created: "
        r"Resource temporarily unavailable\n",
        done.stderr,
    )
    assert not [p for p in Path("/proc").iterdir() if p.name.isdigit() and is_of(p, 54321)]


def is_of(process: Path, user: int) -> bool:
    try:
        return process.stat().st_uid == user
    except OSError:
        return False


def test_an_environment_that_is_too_large(tmp_path: Path, family: Family) -> None:
    """E2BIG at exec: one line, and those that may have begun are gone."""
    (tmp_path / "env").write_text(f"LARGE={'x' * 200_000}\n")
    args = ["run", "-n", "4", "--share", "--env-file", str(tmp_path / "env")]
    process = family.begin(*args, "--", *clan(tmp_path, "stubborn"))
    assert process.wait(TIMEOUT) == 126
    assert not family.living()
    (line,) = errors(process)
    assert line.startswith("ompbind: error: rank ")
    assert line.endswith("cannot be executed: Argument list too long")


THOUSAND = """
import os, sys
from ompbind.launch import Settings, run
from ompbind.cpuset import CpuSet
from ompbind.plans import Binding, Host, Plan, RankPlan
none = CpuSet()
ranks = tuple(RankPlan(r, Binding(), (), none, (), (), ("true",)) for r in range(5))
plan = Plan(Host("", none, none, none), ranks)
run(plan, dict(os.environ), print, Settings(watched=True))
before = sorted(os.listdir("/proc/self/fd"))
for n in range(200):
    assert run(plan, dict(os.environ), print, Settings(watched=True)) == 0
assert sorted(os.listdir("/proc/self/fd")) == before
try:
    print(os.waitpid(-1, os.WNOHANG))
except ChildProcessError:
    print("none left")
"""


def test_a_thousand_starts() -> None:
    """Two hundred times five ranks: no descriptor is lost, no zombie kept, no status lost."""
    done = subprocess.run([sys.executable, "-c", THOUSAND], env=environment(), capture_output=True,
                          text=True, timeout=120)  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "none left\n", "")


def test_nothing_wakes_up_for_nothing(tmp_path: Path, start: Starter) -> None:
    """While the ranks just run, neither of ompbind's processes runs at all."""
    process = start("run", "-n", "4", "--share", "--", *recorder(tmp_path))
    wait_for_pids(tmp_path, 4)
    everyone = [process.pid, watcher_of(process.pid), supervisor_of(process.pid)]
    wait_until_asleep(everyone)
    before = [switches(p) for p in everyone]
    time.sleep(1)
    assert [switches(p) for p in everyone] == before


# --- at a terminal --------------------------------------------------------------------------------


class Terminal:
    """A terminal with a shell that has job control."""

    def __init__(self, mark: str) -> None:
        bash = shutil.which("bash")
        if bash is None:
            unavailable("there is no bash, whose job control is used")
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            env = environment(**{MARK: mark, "PS1": "", "TERM": "dumb", "HISTFILE": ""})
            os.execve(bash, ["bash", "--norc", "--noprofile", "-i"], env)
        self.seen = ""

    def type(self, text: str) -> None:
        os.write(self.fd, text.encode())

    def wait_for(self, pattern: str) -> None:
        """Reads until that has been printed; what came with it is there for the next."""
        end = time.monotonic() + 20
        while not (match := re.search(pattern, self.seen)):
            assert time.monotonic() < end, self.seen
            if select.select([self.fd], [], [], 0.1)[0]:
                self.seen += os.read(self.fd, 4096).decode()
        self.seen = self.seen[match.end() :]

    def close(self) -> None:
        os.close(self.fd)
        os.waitpid(self.pid, 0)


@pytest.fixture
def terminal(family: Family) -> Iterator[Terminal]:
    made = Terminal(family.mark)
    yield made
    with contextlib.suppress(OSError):
        os.kill(made.pid, signal.SIGKILL)
        made.close()


def typed(*words: str) -> str:
    import shlex

    return shlex.join([OMPBIND, *words]) + "; echo ended $?\n"


def test_rank_0_reads_the_terminal(tmp_path: Path, terminal: Terminal) -> None:
    """What is typed reaches it, though others run in the background."""
    code = 'if [ "$OMPBIND_RANK" = 0 ]; then read x; echo "got <$x>"; fi'
    terminal.type(typed("run", "-n", "2", "--share", "--", "sh", "-c", f"echo on; {code}"))
    terminal.wait_for(r"on\s[^$]*on\s")
    terminal.type("hello\n")
    terminal.wait_for("got <hello>")
    terminal.wait_for("ended 0")


def test_stopped_and_continued_by_the_shell(
    tmp_path: Path, family: Family, terminal: Terminal
) -> None:
    """Ctrl-Z stops all ranks and gives the shell back, fg lets all go on."""
    terminal.type(typed("run", "-n", "2", "--share", "--", *recorder(tmp_path)))
    pids = wait_for_pids(tmp_path, 2)
    terminal.type("\x1a")
    terminal.wait_for("Stopped")
    wait_for(lambda: all(state(p) == "T" for p in pids))
    terminal.type("fg\n")
    wait_for(lambda: all(state(p) == "S" for p in pids))
    terminal.type("\x03")
    wait_for(lambda: all(record(tmp_path, r)[2:] == ["2"] for r in (0, 1)))
    time.sleep(REPEAT)
    terminal.type("\x03")
    wait_for(lambda: not any(alive(p) for p in pids))


def test_a_rank_in_the_background_reads_the_terminal(terminal: Terminal) -> None:
    """It is stopped by the kernel, which is reported with what to do; Ctrl-C ends it."""
    code = '[ "$OMPBIND_RANK" = 1 ] || exec sleep 300; read x < /dev/tty'
    terminal.type(typed("run", "-n", "2", "--share", "--", "sh", "-c", code))
    note = r"ompbind: note: rank 1 is stopped by signal 21 \(TTIN\): it reads the terminal [^\n]*"
    terminal.wait_for(note + r"\s+hint: --stdin 1 lets it read")
    terminal.type("\x03")
    terminal.wait_for("ended 130")


def test_a_rank_that_is_stopped(tmp_path: Path, family: Family) -> None:
    """It is reported once, however often it is stopped, and the rank can go on."""
    process = family.begin("run", "-n", "2", "--share", "--", *recorder(tmp_path))
    pid, _ = wait_for_pids(tmp_path, 2)
    assert process.stderr is not None
    for number in (signal.SIGSTOP, signal.SIGCONT) * 2:
        os.kill(pid, number)
        wait_for(lambda: (state(pid) == "T") == (number == signal.SIGSTOP))  # noqa: B023
    assert process.stderr.readline() == b"ompbind: note: rank 0 is stopped by signal 19 (STOP)\n"
    assert process.stderr.readline() == b"hint: kill -CONT %d lets it go on\n" % pid
    process.terminate()
    assert process.wait(TIMEOUT) == 0
    assert errors(process) == []


def test_a_terminal_that_is_closed(tmp_path: Path, family: Family, terminal: Terminal) -> None:
    """HUP, TERM and in the end KILL: nothing outlives it, stubborn as it may be."""
    words = ["run", "-n", "2", "--share", "--grace", "0.2", "--", *clan(tmp_path, "stubborn")]
    terminal.type(typed(*words))
    wait_for(lambda: len(noted(tmp_path)) == 6)
    terminal.close()
    wait_for(lambda: not family.living())
