"""The names of files that options write, and refusals before anything starts."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from ompbind.cli.output_file import find_problem, find_report
from ompbind.cpuset import CpuSet
from ompbind.errors import UsageError
from ompbind.options import read_arguments
from ompbind.plans import Binding, Host, Numbers, Plan, RankPlan, Task
from tests.support.commands import error, ompbind_run


def make_plan(number: int = 0, **task: Any) -> Plan:
    """A plan of one rank, which is `number` in its job."""
    none = CpuSet()
    rank = RankPlan(0, Binding(), (), none, (), (), ("w",), numbers=Numbers(number, 8))
    return Plan(Host("n7", none, none, none), (rank,), task=Task(**task))


SLURM = {"engine": "slurm", "label": "Slurm", "ranks": 8, "local_ranks": 4, "nodes": 2}


@pytest.mark.parametrize(
    ("file", "task", "name"),
    [
        ("x", {}, "x"),
        ("%N-%r.json", {}, "n001-3.json"),
        ("%r", SLURM, "3"),
        ("%N", SLURM | {"local_ranks": 1}, "n001"),
        ("x", SLURM | {"ranks": 1, "local_ranks": 1, "nodes": 1}, "x"),
        ("x", {"engine": "hand", "ranks": 8}, "x"),  # who gives each rank's number names its file
        ("x", SLURM, None),
        ("%N", SLURM, None),
        ("x", SLURM | {"local_ranks": 1}, None),
        ("x", SLURM | {"ranks": None, "local_ranks": None, "nodes": None}, None),
    ],
)
def test_each_rank_of_a_job_has_its_file(
    file: str, task: dict[str, Any], name: str | None, tmp_path: Path
) -> None:
    """A name that several would write is refused, with one that would do."""
    plan, path = make_plan(3, **task), str(tmp_path / file)
    environ = {"SLURMD_NODENAME": "n001"}
    if name is not None:
        assert find_report(path, plan, environ) == str(tmp_path / name)
        return
    with pytest.raises(UsageError, match="of Slurm would write this file") as caught:
        find_report(path, plan, environ)
    assert find_report(caught.value.hint.split()[1], plan, environ).endswith(".3")


def test_what_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Is known before: a directory, no directory, no permission."""
    monkeypatch.chdir(tmp_path)
    assert find_problem("new") == ""
    assert find_problem("/dev/null") == ""
    assert find_problem(f"{tmp_path}/") == find_problem("..") == "Is a directory"
    assert find_problem("a/b") == "there is no directory 'a'"
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert find_problem("new") == find_problem("/dev/null") == "Permission denied"


def test_standard_output_is_the_ranks() -> None:
    """And no name of a file is no file."""
    with pytest.raises(UsageError, match=r"^--report -: standard output belongs to the ranks$"):
        read_arguments(["--report", "-"], "run")
    with pytest.raises(UsageError, match=r"^--report: an empty name$"):
        read_arguments(["--report="], "run")


def test_a_refused_report_starts_nothing(tmp_path: Path) -> None:
    """In one line."""
    done = ompbind_run("run", "--report", f"{tmp_path}/no/x", "--", "touch", f"{tmp_path}/ran")
    text = f"--report '{tmp_path}/no/x': there is no directory '{tmp_path}/no'"
    assert (done.returncode, done.stderr) == (125, error(text))
    assert list(tmp_path.iterdir()) == []
