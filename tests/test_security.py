"""What SECURITY.md promises: each line has a test; here are those that no other file has."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.commands import TIMEOUT, environment, ompbind_run

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
MODEL = TEXT[TEXT.index("## Threat model") : TEXT.index("## What is not promised")]
ROWS = [
    [cell.strip() for cell in line.strip("| ").split(" | ")]
    for line in MODEL.splitlines()
    if line.startswith("| ") and not line.startswith(("| Attacker", "| ---"))
]
MODULES = ("ompbind", "json", "os", "re", "signal", "ctypes", "typer", "rich", "sitecustomize",
           "usercustomize", "numactl")  # fmt: skip


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[1][:40])
def test_each_promise_names_tests_that_exist(row: list[str]) -> None:
    """An attacker, a promise, the tests that hold it, and what is not promised."""
    attacker, promise, tests, _ = row
    assert attacker
    assert promise.endswith(".")
    names = re.findall(r"`([\w/]+)::(\w+)`", tests)
    assert names
    assert re.sub(r"`[\w/]+::\w+`", "", tests).strip(" ,") == "", "nothing else in this column"
    for file, name in names:
        tree = ast.parse((ROOT / "tests" / f"{file}.py").read_text(encoding="utf-8"))
        assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_every_attacker_is_in_the_model() -> None:
    """The kinds of attacker are those that the text before the table lists."""
    before = MODEL[: MODEL.index("| Attacker")]
    listed = re.findall(r"^- \*\*(.+?)\*\*", before, re.MULTILINE)
    assert listed == list(dict.fromkeys(row[0] for row in ROWS))


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """A directory of programs and modules of well-known names, which leave a file `executed`."""
    folder = tmp_path / "hostile"
    folder.mkdir()
    for name in MODULES:
        (folder / f"{name}.py").write_text(f"open({str(folder / 'executed')!r}, 'w')\n")
    for name in ("numactl", "true", "python3", "sh", "env"):
        (folder / name).write_text(f"#!/bin/sh\necho {name} >'{folder}/executed'\n")
        (folder / name).chmod(0o755)
    return folder


def test_the_trap_works(hostile: Path) -> None:
    """Who searches the working directory for modules or programs is caught."""
    for command in ([sys.executable, "-c", "import typer"], ["./numactl"]):
        subprocess.run(command, cwd=hostile, timeout=TIMEOUT, check=False)
        assert (hostile / "executed").exists()
        (hostile / "executed").unlink()


@pytest.mark.parametrize(
    "words",
    [
        "run -- true",
        "run -n 1 --verify --output tag -- true",
        "run --binder native -- true",
        "show -- true",
        "show --format json -- python3 -c pass",
        "topo",
        "doctor -- true",
        "--version",
    ],
)
def test_the_working_directory_is_not_searched(words: str, hostile: Path) -> None:
    """Neither for programs nor for Python's modules."""
    done = ompbind_run(*words.split(), cwd=hostile)
    assert done.returncode == 0, done.stderr
    assert not (hostile / "executed").exists()


def test_a_python_program_does_not_search_it_either(hostile: Path, tmp_path: Path) -> None:
    """`run`, which starts a Python, and ranks."""
    script = tmp_path / "script.py"
    script.write_text(
        "import ompbind\nplan = ompbind.plan(command=['true'])\n"
        "assert plan.popen(0).wait() == 0\nassert ompbind.run(plan) == 0\n"
    )
    command = [sys.executable, str(script)]
    done = subprocess.run(command, cwd=hostile, env=environment(), timeout=TIMEOUT, check=False)
    assert done.returncode == 0
    assert not (hostile / "executed").exists()


def test_the_native_binder_executes_nothing_but_the_worker(hostile: Path) -> None:
    """Whatever programs PATH has first."""
    env = environment(PATH=f"{hostile}{os.pathsep}{os.environ['PATH']}")
    done = ompbind_run("run", "--binder", "native", "--", "/bin/true", env=env)
    assert done.returncode == 0, done.stderr
    assert not (hostile / "executed").exists()
