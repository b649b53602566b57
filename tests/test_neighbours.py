"""Other launches on the machine that hold cpus of a plan."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from subprocess import CompletedProcess

import pytest

from ompbind.cpuset import CpuSet
from ompbind.host.neighbours import Neighbour, find_neighbours, make_warning, parse_claim
from ompbind.machine.roots import DirectoryRoot
from tests.support.confine import among_no_others

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="run binds on Linux only")
Done = CompletedProcess[str]
WORKER = "print(input('here\\n'))"


@contextmanager
def started(ompbind: str, under: Sequence[str] = ()) -> Iterator[subprocess.Popen[str]]:
    """A launch of one rank, bound to the first cpu."""
    first = str(min(os.sched_getaffinity(0)))
    command = [ompbind, "run", "--numa-bind-cpus", first, "--", sys.executable, "-uc", WORKER]
    process = subprocess.Popen(
        [*under, *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "here\n"
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.fixture
def worker(ompbind: str) -> Iterator[subprocess.Popen[str]]:
    """A rank of another launch, bound to the first cpu."""
    with started(ompbind) as process:
        yield process


@pytest.fixture
def apart() -> Iterator[list[str]]:
    """What starts commands that see no other launches than each other."""
    with among_no_others() as enter:
        yield enter


def run(ompbind: str, *args: str, under: Sequence[str] = (), look: str = "yes") -> Done:
    env = os.environ | {"OMPBIND_NEIGHBOURS": look}
    command = [*under, ompbind, *args, "--", "true"]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)


def test_found_by_its_worker(worker: subprocess.Popen[str]) -> None:
    """By pid, cpus and rank; not where our own environment has the same claim."""
    root, first = DirectoryRoot("/"), CpuSet([min(os.sched_getaffinity(0))])
    found = [n for n in find_neighbours(root, first, {}, 9999) if n.pid == worker.pid]
    assert [(n.rank, n.cpus) for n in found] == [("0", first)]
    claim = {"OMPBIND_RANK": "0", "OMPBIND_CPUS": str(first)}
    inside = find_neighbours(root, first, claim, 9999)
    assert worker.pid not in [n.pid for n in inside]
    others = CpuSet(os.sched_getaffinity(0)) - first
    assert worker.pid not in [n.pid for n in find_neighbours(root, others, {}, 9999)]


def test_run_and_show_warn(ompbind: str, apart: list[str]) -> None:
    """Both name it and the remedy, and run starts all the same; either can be told not to look."""
    assert run(ompbind, "run", under=apart).stderr == ""
    with started(ompbind, apart):
        done = run(ompbind, "run", under=apart)
        assert done.returncode == 0
        assert "warning: another launch of ompbind holds cpus" in done.stderr
        assert f" of this plan: pid {pid_of_worker(apart)} (" in done.stderr
        assert "--part 1/2" in done.stderr
        assert "another launch" in run(ompbind, "show", under=apart).stdout
        assert run(ompbind, "run", "--no-neighbours", under=apart).stderr == ""
        assert run(ompbind, "run", under=apart, look="no").stderr == ""
        assert (
            "another launch" in run(ompbind, "run", "--neighbours", under=apart, look="no").stderr
        )


def pid_of_worker(under: Sequence[str]) -> str:
    """The number that the only process with a rank has there."""
    names = "grep -l OMPBIND_RANK /proc/[0-9]*/environ"
    done = subprocess.run([*under, "sh", "-c", names], capture_output=True, text=True, check=True)
    (path,) = done.stdout.split()
    return path.split("/")[2]


@pytest.mark.parametrize(
    ("data", "claim"),
    [
        (b"", None),
        (b"A=1\0OMPBIND_RANK=3\0OMPBIND_CPUS=0-1,4\0", ("3", "0-1,4")),
        (b"OMPBIND_CPUS=0\0OMPBIND_RANK=0", ("0", "0")),
        (b"X_OMPBIND_CPUS=0\0OMPBIND_RANK=0\0", None),
        (b"OMPBIND_RANK=0\0", None),
    ],
)
def test_claims(data: bytes, claim: tuple[str, str] | None) -> None:
    """Both variables, whole names only."""
    assert parse_claim(data) == claim


def test_many_are_summed_up() -> None:
    """Three are named, all their cpus are."""
    found = [Neighbour(100 + n, "sh", str(n), CpuSet([n])) for n in range(5)]
    told = make_warning(found)
    assert "holds cpus 0-4 of this plan: pid 100 (sh, rank 0, cpus 0)" in told
    assert "2 more" in told
    assert "pid 103" not in told
    assert make_warning([]) == ""
