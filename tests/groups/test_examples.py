"""The files of examples/groups, planned for a server and run, smaller, on this machine."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from ompbind.cli import main
from ompbind.plan_json import parse_plan
from tests.jobs.slurm import free_ports
from tests.support.commands import OMPBIND, TIMEOUT, environment
from tests.support.needs import REPOSITORY

EXAMPLES = REPOSITORY / "examples"
VLLM = REPOSITORY / "tests" / "support" / "bin"


def shrink(name: str, folder: Path) -> tuple[Path, int]:
    """The file with ranks of one core, which may be shared, and with ports that are free; and the
    port of its front."""
    text = (EXAMPLES / "groups" / name).read_text()
    text = re.sub(r"cores-per-rank = \d+", "cores-per-rank = 1", text)
    text = text.replace('mem = "bind"\n', "").replace("MODEL", "model")
    numbers = sorted(set(re.findall(r"\b80\d\d\b", text)))
    first = free_block(len(numbers))
    for n, number in enumerate(numbers):
        text = text.replace(number, str(first + n))
    path = folder / name
    path.write_text(f"oversubscribe = true\n{text}")
    return path, first


def free_block(count: int) -> int:
    """The first of so many ports in a row that are free now."""
    for first in free_ports(50):
        try:
            with ExitStack() as stack:
                for port in range(first, first + count):
                    stack.enter_context(socket.create_server(("127.0.0.1", port)))
                return first
        except (OSError, OverflowError):
            continue
    raise AssertionError("no ports in a row are free")


@contextmanager
def running(path: Path, **variables: str) -> Iterator[subprocess.Popen[str]]:
    """ompbind with the file, which has ended afterwards."""
    with subprocess.Popen(
        [OMPBIND, "run", "--file", str(path)], env=environment(**variables), cwd=REPOSITORY,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("job.toml", {"worker": ["0-5", "8-13", "16-21", "24-29"], "router": ["6"],
                      "loader": ["7,14"]}),
        ("vllm.toml", {"balancer": ["0"], "server": ["1-15", "16-31"]}),
    ],
)  # fmt: skip
def test_examples_are_planned(
    name: str, expected: Mapping[str, list[str]], capfd: pytest.CaptureFixture[str]
) -> None:
    """What they get of a server with four nodes: no core twice."""
    args = ["--topology", str(EXAMPLES / "server.topo"), "--file", str(EXAMPLES / "groups" / name)]
    assert main(["show", *args, "--format", "json"]) == 0
    plan = parse_plan(capfd.readouterr().out)
    assert {g.name: [str(plan.ranks[r].cpus) for r in g.ranks] for g in plan.groups} == expected


def test_the_job_runs(tmp_path: Path) -> None:
    """The loader asks the router, which passes each request on to a worker; when it has all
    answers, the others are ended, and that is success."""
    path, _ = shrink("job.toml", tmp_path)
    with running(path) as process:
        out, err = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 0, err
    answers = [line for line in out.splitlines() if line.startswith("[loader] ")]
    assert len(answers) == 8
    assert all(re.fullmatch(r"\[loader\] worker [0-3] of 4 on cpus \d+", line) for line in answers)
    assert "Traceback" not in out + err
    assert " ended " not in err


def test_servers_behind_one_port(tmp_path: Path) -> None:
    """The balancer starts when both servers have their model; a request through it is answered by
    one of them; TERM ends the balancer, then the servers."""
    path, port = shrink("vllm.toml", tmp_path)
    with running(path, PATH=f"{VLLM}:{environment()['PATH']}") as process:
        assert process.stderr is not None
        lines: list[str] = []
        while not (lines and lines[-1].startswith("[balancer] balance: http")):
            lines.append(process.stderr.readline())
            assert lines[-1], lines
        body = b'{"model": "model", "prompt": "x", "max_tokens": 1}'
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/v1/completions", body, {"content-type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
            assert b"text_completion" in answer.read()
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=TIMEOUT)
        assert "Traceback" not in err
        assert process.returncode == 0
