"""Some of the faults of `make test-faults` (tests/faults.py), spread over all commands: a system
call fails, and ompbind does what it was asked or refuses in the words of the contract."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from ompbind.cpuset import CpuSet
from tests import faults
from tests.support.needs import unavailable
from tests.support.shared import once

COUNT = 120


@pytest.fixture(scope="module")
def results() -> list[faults.Result]:
    if reason := faults.why_not():
        unavailable(reason)
    return once("faults", lambda: list(faults.try_all(faults.usable(), COUNT, os.cpu_count() or 1)))


def test_every_fault_is_survived(results: list[faults.Result]) -> None:
    """No traceback, no wrong status, nothing half-bound, nothing left behind."""
    bad = [f"{r.fault}: {r.problem}\n{r.err}" for r in results if r.problem]
    assert not bad, "\n".join(bad)


def test_the_faults_are_really_made(results: list[faults.Result]) -> None:
    """Nearly each named call was reached and failed, and ompbind notices many of them."""
    assert len(results) == COUNT
    ends = [r.end for r in results]
    assert ends.count("not reached") < COUNT / 10
    assert ends.count("refused") > COUNT / 10


def test_what_is_wrong_is_found() -> None:
    """The judge itself: each kind of bad end is called one."""
    place = faults.Place(Path(), Path(), 1, {"show json": [], "run native": [
        (CpuSet([0]), "bind:0")]})  # fmt: skip
    good = faults.Outcome(0, "{}", "", {}, [], {}, False)
    error = "ompbind: error: no\n"

    def judge(name: str = "show json", **changes: Any) -> str:
        return faults.judge(name, place, good._replace(**changes))

    assert judge() == ""
    assert judge(status=125, err=error) == ""
    assert judge(status=None) == "it hung"
    assert judge(left=["(sh)"]) == "left behind: (sh)"
    assert judge(status=1, err="Traceback (most recent call last):") == "a traceback"
    assert judge(status=125, err="Killed\n") == "not in ompbind's words: Killed"
    assert judge(status=-11) == "status -11"
    assert judge(status=1) == "status 1"
    assert judge(err=error) == "status 0 with an error"
    assert judge(status=125, err=error * 2) == "status 125 with 2 errors"
    assert judge(out="{") == "status 0, but no JSON"
    assert judge("run native") == "status 0, but ranks [] ran"
    bound = "Cpus_allowed_list:\t0\n7ff bind:0 stack\n"
    assert judge("run native", reports={0: bound}) == ""
    wide = bound.replace("\t0", "\t0-1")
    assert "rank 0 ran though it was on cpus" in judge("run native", reports={0: wide})
    other = bound.replace("bind:0", "default")
    assert "with the policy default" in judge("run native", reports={0: other})
