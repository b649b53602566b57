"""Groups as they run: the order of their start and end, their names, and what fails."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from ompbind.cli import main
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
