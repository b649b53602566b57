"""Standard input in place of a file: it can be read twice, and workers get none of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from ompbind.cli.topo import topo
from ompbind.compare.result import read_result
from ompbind.errors import UsageError
from ompbind.groups.file import read_file
from ompbind.inputs import read_input
from ompbind.machine import read_machine
from tests.support.commands import OMPBIND, TIMEOUT, environment

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="ompbind runs workers on Linux")

SERVER = "examples/server.topo"


def piped(stdin: bytes, *args: str) -> tuple[int, bytes, str]:
    """The status and both outputs of an ompbind that is given this on a pipe."""
    done = subprocess.run(
        [OMPBIND, *args], input=stdin, capture_output=True, timeout=TIMEOUT, env=environment(),
        check=False,
    )  # fmt: skip
    return done.returncode, done.stdout, os.fsdecode(done.stderr)


def test_a_machine_on_a_pipe() -> None:
    """A snapshot comes out of --save - and goes into --topology -, where the table reads it more
    than once; its name in errors is standard input."""
    _, snapshot, _ = piped(b"", "topo", "--topology", SERVER, "--save", "-")
    plan = ("-n", "2", "--", "a")
    shown = piped(snapshot, "show", "--topology", "-", *plan)
    assert shown == piped(b"", "show", "--topology", SERVER, *plan)
    assert (shown[0], shown[2]) == (0, "")
    status, out, message = piped(b"nothing", "topo", "--topology", "-")
    assert (status, out) == (125, b"")
    assert message.startswith("ompbind: error: standard input: it does not describe a machine\n")
    assert piped(b"", "topo", "--topology", "-")[2].startswith(
        "ompbind: error: standard input: the file is empty\n"
    )


def test_a_file_as_standard_input(tmp_path: Path) -> None:
    """What is redirected from a file is read from its beginning, as often as is needed."""
    with open(SERVER, "rb") as file:
        done = subprocess.run(
            [OMPBIND, "show", "--topology", "-", "-n", "2", "--format", "json", "--", "a"],
            stdin=file, capture_output=True, timeout=TIMEOUT, env=environment(), check=True,
        )  # fmt: skip
    assert json.loads(done.stdout)["host"]["cpus"] == "0-63"


def test_a_plan_on_a_pipe() -> None:
    """`show | run --plan -` runs the plan, and its workers read nothing of it; with variables on
    standard input it is the same."""
    cpus = str(read_machine().allowed.cpus.first)
    status, plan, _ = piped(b"", "show", "--numa-bind-cpus", cpus, "--format", "json", "--", "cat")
    assert status == 0
    assert piped(plan, "run", "--plan", "-") == (0, b"", "")
    script = 'cat; echo "$A on $OMPBIND_CPUS"'
    args = ("run", "--numa-bind-cpus", cpus, "--env-file", "-", "--", "sh", "-c", script)
    assert piped(b"A=b\n", *args) == (0, f"b on {cpus}\n".encode(), "")


def test_hosts_on_a_pipe() -> None:
    """The list of --hosts - is read line by line."""
    args = ("show", "--hosts", "-", "--topology", "core:4 pu:1", "-n", "2", "--format", "json")
    status, out, message = piped(b"n[1-3]\nm7\n", *args)
    assert (status, message) == (0, "")
    assert out == piped(b"", "show", "--hosts", "n[1-3],m7", *args[3:])[1]
    assert b"n[1-3]" in out


def test_closed_standard_input() -> None:
    """Without a standard input there is nothing to read: one line says so."""
    script = f"exec {OMPBIND} topo --topology - <&-"
    done = subprocess.run(["sh", "-c", script], capture_output=True, timeout=TIMEOUT, check=False)
    assert done.returncode == 125
    assert done.stderr.startswith(b"ompbind: error: standard input: Bad file descriptor\n")


def test_a_pipe_whose_writer_is_slow() -> None:
    """Is read to its end, as `--plan <(ompbind show ...)` needs; without a writer there is none."""
    text = b"x" * (1 << 20)  # many times what a pipe holds: the writer is always behind
    end, begin = os.pipe()

    def write() -> None:
        os.write(begin, text)
        os.close(begin)

    writer = threading.Thread(target=write, daemon=True)
    writer.start()
    data = read_input(f"/dev/fd/{end}", len(text) + 1)
    assert len(data) == len(text)
    writer.join()
    assert read_input(f"/dev/fd/{end}", 1) == b""
    os.close(end)


def test_files_without_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Are read as far as such a file may go."""
    with pytest.raises(UsageError, match=r"^--file '/dev/zero': Invalid statement"):
        read_file({"file": "/dev/zero"}, "show")
    monkeypatch.setattr("ompbind.compare.result.MAX_BYTES", 1 << 16)
    with pytest.raises(UsageError, match=r"^--resume '/dev/zero': not JSON"):
        read_result("/dev/zero")


def test_no_snapshot_to_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """A snapshot is not text, and not written to a terminal."""
    monkeypatch.setattr(os, "isatty", lambda fd: fd == 1)
    with pytest.raises(UsageError, match="standard output is a terminal") as caught:
        topo(["--save", "-"])
    assert caught.value.hint.startswith("ompbind topo --save - > FILE")
