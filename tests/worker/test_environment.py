"""What --env, --env-file and --master-port give to the workers, and what they refuse."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ompbind.cli import main
from ompbind.errors import UsageError
from ompbind.worker.environment import EnvVar, find_port, parse_line
from tests.support.needs import unavailable

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(ompbind: str, plain_environ: dict[str, str]) -> Run:
    """Runs ompbind with some variables, nothing on standard input."""

    def call(*args: str, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [ompbind, *args],
            env=plain_environ | env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
        )

    return call


def told(run: Run, *args: str, **env: str) -> list[dict[str, str]]:
    """Each rank's environment in the plan."""
    done = run("show", *args, "--format", "json", "--", "true", **env)
    assert done.returncode == 0, done.stderr
    return [rank["env"] for rank in json.loads(done.stdout)["ranks"]]


def got(run: Run, tmp_path: Path, *args: str, count: int = 1, **env: str) -> list[dict[str, str]]:
    """Each rank's environment as its program sees it."""
    write = (
        "import json, os; r = os.environ['OMPBIND_RANK']; "
        f"json.dump(dict(os.environ), open(os.path.join({str(tmp_path)!r}, r), 'w'))"
    )
    done = run("run", *args, "--", sys.executable, "-c", write, **env)
    assert done.returncode == 0, done.stderr
    return [json.loads((tmp_path / str(rank)).read_text()) for rank in range(count)]


def test_variables(run: Run, tmp_path: Path) -> None:
    """Every worker gets what --env says, filled for its rank, and the plan shows it."""
    args = ["-n", "2", "--share", "--env", "PORT={8000+rank}", "--env=EMPTY=", "--env", "A=b=c d"]
    args += ["--env", 'JSON={{"rank": {rank}}}', "--env", "CPUS={cpus}"]
    shown, seen = told(run, *args), got(run, tmp_path, *args, count=2)
    for rank in (0, 1):
        expected = {"PORT": str(8000 + rank), "EMPTY": "", "A": "b=c d"}
        expected["JSON"] = json.dumps({"rank": rank})
        assert shown[rank].items() >= expected.items()
        assert seen[rank].items() >= shown[rank].items()
        assert shown[rank]["CPUS"]


def test_it_wins_over_what_is_inherited(run: Run, tmp_path: Path) -> None:
    """--env wins over --env-file, that over ompbind's own environment; a later one over an
    earlier one."""
    file = tmp_path / "variables"
    file.write_text("A=file\nB=file\nC=file\nC=later\n")
    args = ["--env", "A=first", "--env-file", str(file), "--env", "A=second"]
    seen = got(run, tmp_path, *args, A="here", B="here", D="here")[0]
    assert [seen[name] for name in "ABCD"] == ["second", "file", "later", "here"]


def test_name_alone(run: Run) -> None:
    """A name alone takes its value from here into the plan, as it is; one that is not set here is
    refused."""
    assert told(run, "--env", "A", A="{here}")[0]["A"] == "{here}"
    done = run("show", "--env", "NOWHERE")
    assert done.returncode == 125
    assert done.stderr == (
        "ompbind: error: --env NOWHERE: ompbind's environment has no such variable to pass on\n"
        "hint: --env NOWHERE=VALUE sets it\n"
    )


@pytest.mark.parametrize(
    ("args", "error", "hint"),
    [
        (["--env", "OMP_PLACES={{0}}"], "--env OMP_PLACES: the plan sets it itself",
         "use --places"),
        (["--env", "OMP_NUM_THREADS"], "--env OMP_NUM_THREADS: the plan sets it itself",
         "use --threads"),
        (["--env", "KMP_AFFINITY=none"],
         "--env KMP_AFFINITY: the plan removes it: a runtime would obey it instead of the plan",
         "leave it out"),
        (["-n", "2", "--share", "--env", "RANK=7"], "--env RANK: the plan sets it itself",
         "use --no-rank-env"),
        (["--env", "OMPBIND_RANK=1"], "--env OMPBIND_RANK: the plan sets it itself",
         "leave it out"),
        (["--env", "OMPBIND_FIX=x"], "--env OMPBIND_FIX: such names are reserved for ompbind",
         "use --fix"),
        (["--master-addr", "h", "--env", "MASTER_ADDR=x"],
         "--env MASTER_ADDR: --master-port sets it", "leave one of them out"),
        (["--fix", "auto", "--env", "PYTHONPATH=/x"],
         "--env PYTHONPATH: --fix sets it, in front of the value in ompbind's environment",
         "PYTHONPATH=... ompbind run ... reaches the workers"),
        (["--env", "A.B=1"], "--env: 'A.B' is not a variable name",
         "write NAME=VALUE, the name in letters, digits and underscores"),
        (["--env", "=1"], "--env: '' is not a variable name",
         "write NAME=VALUE, the name in letters, digits and underscores"),
        (["--env", 'A={"b": 1}'], "--env A: '{\"b\": 1}': unexpected '\"'",
         "use names, numbers, + - * // % and parentheses, as in {8000+rank}; "
         "write literal braces as {{ and }}"),
        (["--env-file", "/nowhere/file"], "--env-file '/nowhere/file': No such file or directory",
         None),
        (["--master-port", "70000"], "--master-port: '70000' is not a port from 1 to 65535",
         "auto takes one that is free"),
        (["--master-addr", ""], "--master-addr: an empty address", "127.0.0.1 is this machine"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("command", ["show", "run"])
def test_refused(run: Run, command: str, args: list[str], error: str, hint: str | None) -> None:
    """What would defeat the plan, and what is none, is one line and a hint; nothing starts."""
    done = run(command, *args, "--", sys.executable, "-c", "print('started')", OMP_NUM_THREADS="1")
    assert done.returncode == 125
    said = [line for line in done.stderr.splitlines() if "note:" not in line]
    assert said == [f"ompbind: error: {error}", *([f"hint: {hint}"] if hint else [])]
    assert done.stdout == ""


def test_a_fix_can_be_switched_off(run: Run) -> None:
    """OMPBIND_FIX_OFF is the user's own."""
    assert told(run, "--env", "OMPBIND_FIX_OFF=all")[0]["OMPBIND_FIX_OFF"] == "all"


def test_saved_plan(run: Run, tmp_path: Path) -> None:
    """With --plan-env a saved plan keeps its variables and takes more; what it sets stays."""
    saved = run("show", "--env", "A={rank}", "--format", "json", "--", "true").stdout
    (tmp_path / "plan").write_text(saved)
    plan = ["--plan", str(tmp_path / "plan")]
    assert (
        told(run, *plan, "--plan-env", "--env", "B={rank+1}")[0].items()
        >= {"A": "0", "B": "1"}.items()
    )
    done = run("show", *plan, "--env", "A=2")
    assert "--env A: the plan sets it itself" in done.stderr


# --- files ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "name", "value"),
    [
        ("A=b", "A", "b"),
        ("A=", "A", ""),
        ("  export A = b c  \r", "A", "b c"),
        ("A=b # no comment", "A", "b # no comment"),
        ("A=it's", "A", "it's"),
        ("A=' b '", "A", " b "),
        ("A=''", "A", ""),
        (r"A='b\n'", "A", r"b\n"),
        (r'A="b\n\t\"\\\x"', "A", 'b\n\t"\\\\x'),
        ('A="b # c"', "A", "b # c"),
        ("A={rank} $B", "A", "{rank} $B"),
        ('JSON={"a": "b"}', "JSON", '{"a": "b"}'),
        ("A=\udcff", "A", "\udcff"),
    ],
)
def test_lines(line: str, name: str, value: str) -> None:
    """A line's value is taken as it is, but for blanks around it and quotes that hold it."""
    assert parse_line(line, "here") == EnvVar(name, value, f"here, {name}")


@pytest.mark.parametrize("line", ["", "  ", "# A=b", "  ; A=b"])
def test_comments(line: str) -> None:
    """Blank lines and comments say nothing."""
    assert parse_line(line, "here") is None


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("A", "here: A has no value"),
        ("two words", "here: 'two words' is not a variable name"),
        ("1A=b", "here: '1A' is not a variable name"),
        ("=b", "here: '' is not a variable name"),
        ("A='b", "here: the value of A does not end with its opening quote"),
        ("A=\"", "here: the value of A does not end with its opening quote"),
        ('A="b" c', "here: the value of A does not end with its opening quote"),
        ('A="b\\"', "here: the value of A does not end with its opening quote"),
        ("A=b\0c", "here: the value of A has a NUL character"),
    ],
)  # fmt: skip
def test_bad_lines(line: str, problem: str) -> None:
    """What is no variable is refused with its place."""
    with pytest.raises(UsageError) as caught:
        parse_line(line, "here")
    assert caught.value.message == problem


@given(st.text(st.characters(exclude_characters="\0\n\r\t", exclude_categories=["Cs"])))
def test_quoted(value: str) -> None:
    """Any value on one line can be written in double quotes."""
    text = value.replace("\\", "\\\\").replace('"', '\\"')
    asked = parse_line(f'A="{text}"', "here")
    assert asked is not None
    assert asked.value == value


def test_file_and_line_are_named(run: Run, tmp_path: Path) -> None:
    """An error in a file names the file and the line; so does a variable that cannot be set."""
    file = tmp_path / "variables"
    file.write_text("# first\n\nA=b\nbad line\n")
    done = run("show", "--env-file", str(file))
    error = f"ompbind: error: --env-file '{file}', line 4: 'bad line' is not a variable name\n"
    assert done.stderr == f"{error}hint: write NAME=VALUE\n"
    file.write_text("OMP_PROC_BIND=false\n")
    done = run("show", "--env-file", str(file))
    error = f"--env-file '{file}', line 1, OMP_PROC_BIND: the plan sets it itself"
    assert done.stderr == f"ompbind: error: {error}\nhint: use --proc-bind\n"


# --- torch.distributed ---------------------------------------------------------------------------


def test_master(run: Run) -> None:
    """--master-port sets what torch.distributed reads, for a single rank too; --no-rank-env leaves
    the rank's part out."""
    rank = told(run, "--master-port", "29500")[0]
    expected = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500", "RANK": "0", "LOCAL_RANK": "0"}
    assert rank.items() >= (expected | {"WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1"}).items()
    rank = told(run, "--master-addr", "node7", "--no-rank-env")[0]
    assert rank["MASTER_ADDR"] == "node7"
    assert rank.keys().isdisjoint({"RANK", "WORLD_SIZE"})


def test_free_port(run: Run) -> None:
    """auto takes one free port for all ranks."""
    ranks = told(run, "-n", "2", "--share", "--master-port", "auto")
    assert ranks[0]["MASTER_PORT"] == ranks[1]["MASTER_PORT"]
    assert 0 < int(ranks[0]["MASTER_PORT"]) < 65536
    assert len({find_port() for _ in range(20)}) > 1


ALL_REDUCE = """
import os, sys
import torch
import torch.distributed as dist
dist.init_process_group("gloo")
mine = torch.tensor([10.0 ** dist.get_rank()])
dist.all_reduce(mine)
dist.destroy_process_group()
with open(os.path.join(sys.argv[1], os.environ["RANK"]), "w") as file:
    file.write(str(mine.item()))
"""


def test_all_reduce(run: Run, tmp_path: Path) -> None:
    """Two ranks find each other through MASTER_ADDR and MASTER_PORT and add up."""
    if importlib.util.find_spec("torch") is None:
        unavailable("there is no torch; pip install --group torch")
    (tmp_path / "reduce.py").write_text(ALL_REDUCE)
    args = ["-n", "2", "--share", "--master-port", "auto"]
    done = run("run", *args, "--", sys.executable, str(tmp_path / "reduce.py"), str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert [(tmp_path / rank).read_text() for rank in "01"] == ["11.0", "11.0"]


@pytest.mark.parametrize(
    ("value", "missing"),
    [
        ("/nowhere/libx.so", "/nowhere/libx.so"),
        ("libc.so.6:/nowhere/liby.so", "/nowhere/liby.so"),
        ("libnosuch.so /usr/$LIB/libx.so", ""),
    ],
)
def test_a_preload_that_is_missing(
    value: str, missing: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """A file that is named for LD_PRELOAD and does not exist is warned of: ld.so goes on."""
    args = ["--env", f"LD_PRELOAD={value}", "--format", "argv", "--", "true"]
    assert main(["show", *args]) == 0
    err = capfd.readouterr().err
    text = f"ompbind: warning: LD_PRELOAD: '{missing}' does not exist, and will not be preloaded"
    assert (text in err) == bool(missing)
    assert ("LD_PRELOAD" in err) == bool(missing)
    assert main(["show", "--topology", "core:2 pu:1", *args]) == 0
    assert "LD_PRELOAD" not in capfd.readouterr().err
