"""`ompbind compare`, called in this process: what it prints, refuses, saves and goes on with."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ompbind.cli import main
from ompbind.compare.experiment import Run
from ompbind.compare.result import parse_result, to_json
from ompbind.compare.statistics import fewest_rounds
from ompbind.compare.variants import Variant
from ompbind.cpuset import CpuSet
from ompbind.host import Lease
from tests.support.commands import ompbind_run
from tests.support.needs import REPOSITORY, unavailable

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="ranks are bound on Linux")

QUICK = ["--warmup", "0", "--seed", "1"]
RATE = ["--metric", r"rate: (\S+)", "--better", "higher"]


@pytest.fixture(autouse=True)
def keep_handlers(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The command sets handlers of signals; a launch of ompbind's around the tests is no other."""
    for name in [n for n in os.environ if n.startswith(("OMP", "KMP_", "GOMP_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("OMPBIND_NEIGHBOURS", "no")
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    handlers = [signal.getsignal(n) for n in numbers]
    yield
    for number, handler in zip(numbers, handlers, strict=True):
        signal.signal(number, handler)


def compare(capfd: pytest.CaptureFixture[str], *args: str) -> tuple[int, str, str]:
    """Its status and what it writes."""
    status = main(["compare", *args])
    out, err = capfd.readouterr()
    return status, out, err


def test_a_program_that_is_better_with_one_placement(capfd: pytest.CaptureFixture[str]) -> None:
    """A program that runs at half its rate with one thread is better with two: the best is seen as
    soon as the statistics allow, and by how much the other is worse."""
    args = [*QUICK, "--vary", "threads=1,2", "--no-unbound", "--format", "json", *RATE]
    status, out, _ = compare(capfd, *args, "--", "sh", "-c", "echo rate: $OMP_NUM_THREADS")
    result = json.loads(out)
    verdicts = {v["name"]: v["verdict"] for v in result["variants"]}
    assert status == 0
    assert [(v["kind"], round(v["ratio"], 9)) for v in verdicts.values()] == [
        ("worse", 0.5), ("best", 1.0),
    ]  # fmt: skip
    assert (result["ending"], result["rounds"]) == ("settled", fewest_rounds(2))


def test_a_program_that_is_not(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """A program that does not look at its binding is the same with any, and the table says within
    which margin; the file of --save binds as the best variant."""
    saved = tmp_path / "best.json"
    args = [*QUICK, "--vary", "places=one", "--no-unbound", "--variant", "x: --threads 3", *RATE]
    status, out, _ = compare(capfd, *args, "--save", str(saved), "--", "echo", "rate: 3")
    assert status == 0
    assert sum(line.endswith("  best") for line in out.splitlines()) == 1
    assert any("no difference that" in line and "(±0 %)" in line for line in out.splitlines())
    assert "every comparison with the best is settled; seed 1" in out
    plan = json.loads(saved.read_text())
    assert plan["ranks"][0]["cpus"]
    report = "import os; print(sorted(os.sched_getaffinity(0)))"
    done = ompbind_run("run", "--plan", str(saved), "--", sys.executable, "-c", report)
    assert done.stdout.strip() == str(sorted(os.sched_getaffinity(0)))


def test_a_program_with_more_threads_than_it_has_cpus(
    capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """A program whose threads wait for each other is better with one on one cpu than with eight of
    them: what it prints of itself is compared, and it is seen whatever else runs."""
    if shutil.which("gcc") is None:
        unavailable("gcc is not installed")
    program = tmp_path / "barrier"
    source = REPOSITORY / "bench/barrier.c"
    subprocess.run(["gcc", "-O2", "-fopenmp", "-o", program, source], check=True)
    cpu = str(min(os.sched_getaffinity(0)))
    args = [*QUICK, "--no-unbound", "--numa-bind-cpus", cpu, "--vary", "threads=1,8"]
    args += ["--metric", r"(\S+) with its work", "--better", "lower", "--format", "json"]
    status, out, _ = compare(capfd, *args, "--", str(program), "100")
    kinds = {v["name"]: v["verdict"]["kind"] for v in json.loads(out)["variants"]}
    assert (status, kinds) == (0, {"threads=1": "best", "threads=8": "worse"})


def test_failed_runs_are_outcomes(capfd: pytest.CaptureFixture[str]) -> None:
    """A variant that fails has its status and last lines in the table, and no figure."""
    script = '[ "$OMP_NUM_THREADS" != 3 ] || { echo no luck >&2; exit 9; }'
    args = [*QUICK, "--runs", "2", "--vary", "threads=1,3"]
    status, out, _ = compare(capfd, *args, "--", "sh", "-c", script)
    assert status == 0
    assert "threads=3: 1 of 1 run failed: ended with status 9\n    no luck\n" in out
    status, out, _ = compare(capfd, *args, "--", "false")
    assert status == 1
    assert "too few variants are left to compare" in out


def test_it_goes_on_with_an_earlier_result(
    capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """--resume has the command, the variants and the runs of the file, and adds to them."""
    path = tmp_path / "result.json"
    args = [*QUICK, "--runs", "2", "--format", "json", *RATE, "--", "echo", "rate: 3"]
    _, out, _ = compare(capfd, *args)
    path.write_text(out)
    again = ["--resume", str(path), "--runs", "3", "--warmup", "0", "--format", "csv"]
    status, out, err = compare(capfd, *again)
    assert status == 0
    assert err == "ompbind: note: 3 runs of each variant can settle nothing; 8 are the fewest\n"
    assert [line.split(",")[1] for line in out.splitlines()] == ["round", *"112233"]
    status, _, err = compare(capfd, *again, "--", "echo", "rate: 4")
    assert status == 125
    assert "the comparison is of 'echo rate: 3'" in err
    status, _, err = compare(capfd, *again, "-n", "2")
    assert "--resume goes on with what the file has: leave --ranks out" in err


def test_ablation(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """--ablate compares the best with itself less one option at a time, and so with those of
    OMPBIND_OPTIONS, which all plans have."""

    def measure(variant: Variant, number: int, *_: object, **__: object) -> Run:
        return Run(variant.name, number, 9.0 if "--threads" in variant.options else 3.0)

    monkeypatch.setattr("ompbind.cli.compare.measure", measure)
    monkeypatch.setenv("OMPBIND_OPTIONS", "--threads 4")
    args = [*QUICK, "--ablate", "--format", "json", *RATE, "--proc-bind", "false"]
    status, out, _ = compare(capfd, *args, "--", "true")
    ablation = json.loads(out)["ablation"]
    verdicts = {v["name"]: v["verdict"]["kind"] for v in ablation["variants"]}
    assert status == 0
    assert verdicts.pop("without --threads 4") == "worse"
    assert set(verdicts) == {"bound", "without --proc-bind false"}
    assert sorted(verdicts.values()) == ["best", "same"]


def test_a_server_under_load(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """The load's figure is compared, and all that belongs to a run is in the result, so that it can
    be gone on with."""
    server = "echo up; sleep 1000"
    around = ["--ready", "^up", "--load", "echo rate: 3", "--setup", f"mkdir {tmp_path}/x",
              "--cleanup", f"rmdir {tmp_path}/x", "--ready-timeout", "5m"]  # fmt: skip
    args = [*QUICK, *RATE, "--runs", "1", "--format", "json"]
    status, out, _ = compare(capfd, *args, *around, "--", "sh", "-c", server)
    result = json.loads(out)
    assert (status, [run["value"] for run in result["runs"]]) == (0, [3.0, 3.0])
    assert result["procedure"] == {
        "setup": ["mkdir", f"{tmp_path}/x"],
        "ready": ["^up"],
        "ready_timeout": 300.0,
        "load": ["echo", "rate:", "3"],
        "cleanup": ["rmdir", f"{tmp_path}/x"],
    }
    assert to_json(parse_result(out)) == out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--ready", "80"], "--ready is for a server under a load"),
        (["--load", "x"], "--load needs to know when the server is ready"),
        (["--ready-timeout", "9"], "--ready-timeout has no effect without --ready"),
        (["--setup", "no-such-command"], "not found in PATH: 'no-such-command'"),
        (["--ready", "0", "--load", "true"], "--ready: '0' is not a condition"),
    ],
)
def test_what_a_server_needs(
    options: list[str], message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """Is refused before anything is started."""
    status, out, err = compare(capfd, *options, "--", "true")
    assert (status in (125, 127), out) == (True, "")
    assert message in err


def test_cores_are_held(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Between runs, too, the cpus of the plans are held, and --exclusive refuses others'."""
    mine = CpuSet(os.sched_getaffinity(0))
    lease = Lease.open()
    if lease is None:
        pytest.skip("no leases here")
    held: list[CpuSet] = []

    def measure(variant: Variant, number: int, *_: object) -> Run:
        held.append(lease.find_others(mine))
        return Run(variant.name, number, 1.0)

    monkeypatch.setattr("ompbind.cli.compare.measure", measure)
    args = [*QUICK, "--runs", "1", "--smt", "all"]
    assert compare(capfd, *args, "--", "true")[0] == 0
    assert held == [mine, mine]
    lease.hold(mine)
    status, _, err = compare(capfd, *args, "--exclusive", "--", "true")
    lease.close()
    assert status == 125
    assert err.startswith("ompbind: error: ")
    assert "--exclusive" in err


def test_auto(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """--vary auto measures the whole machine and says why it leaves the others out; plans by hand
    go with it; the page of --html has all of them."""
    page = tmp_path / "page.html"
    args = [*QUICK, "--runs", "1", "--vary", "auto", "--variant", "x: --threads 9"]
    args += ["--format", "csv", "--html", str(page), "--smt", "1"]
    status, out, err = compare(capfd, *args, "--", "true")
    names = {line.split(",")[0] for line in out.splitlines()[1:]}
    assert status == 0
    assert names >= {"unbound", "whole machine", "x"}
    assert all(f"{name}</h3>" in page.read_text() for name in names)
    assert "note: left out smt=all: --smt is given\n" in err


@pytest.mark.parametrize(
    ("args", "message", "hint"),
    [
        ([], "no command to run", "ompbind compare [OPTIONS] -- COMMAND"),
        (["--no-unbound", "--", "true"], "there is nothing to compare bound with",
         "--vary smt=1,all, or leave --no-unbound out"),
        (["--better", "lower", "--", "true"], "--better is about the program's figure",
         "--metric 'tok/s: ([0-9.]+)' takes it from the output"),
        (["--vary", "auto", "--vary", "smt=1", "--", "true"],
         "--vary auto chooses what to vary, and another --vary is given",
         "leave one of them out; --variant adds plans to those of auto"),
        (["--time", "soon", "--", "true"], "--time: 'soon' is not a number of seconds",
         "a number such as 10 or 0.5, or 10m or 2h"),
        (["--save", "/nowhere/x", "--", "true"],
         "--save '/nowhere/x': there is no directory '/nowhere'", ""),
        (["--numa-bind-nodes", "999", "--", "true"], None, None),
        (["--topology", "x", "--", "true"], None, None),
    ],
)  # fmt: skip
def test_refusals(
    capfd: pytest.CaptureFixture[str], args: list[str], message: str | None, hint: str | None
) -> None:
    """Bad input is an error of one line and a hint, with status 125, and nothing is started."""
    status, out, err = compare(capfd, *args)
    lines = err.splitlines()
    assert (status, out) == (125, "")
    assert lines[0].startswith("ompbind: error: ")
    assert len(lines) <= 2
    if message is not None:
        assert lines == [f"ompbind: error: {message}", *([f"hint: {hint}"] if hint else [])]


def test_command_that_is_not_there(capfd: pytest.CaptureFixture[str]) -> None:
    """It is refused before anything is measured, as run does."""
    status, _, err = compare(capfd, "--", "no-such-command")
    assert (status, err) == (127, "ompbind: error: command not found in PATH: 'no-such-command'\n")


def test_interrupted(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """After a signal it reports what it has, exits as that signal's status has it, and nothing is
    left running."""
    script = (
        f"n=$(cat {tmp_path}/n 2>/dev/null || echo 0); echo $((n + 1)) > {tmp_path}/n; "
        f'[ "$n" -lt 4 ] || {{ echo $$ > {tmp_path}/pid; kill -INT {os.getpid()}; sleep 1000; }}'
    )
    status, out, _ = compare(capfd, *QUICK, "--", "sh", "-c", script)
    assert status == 130
    assert "2 rounds; interrupted; seed 1" in out
    assert not Path(f"/proc/{(tmp_path / 'pid').read_text().strip()}").exists()
