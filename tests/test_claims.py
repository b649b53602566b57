"""Cpus that launches take for themselves: --free, --part auto/N, --exclusive and --wait."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from ompbind import host
from ompbind import plan as make_plan
from ompbind.claims import choose_part
from ompbind.cpuset import CpuSet, union
from ompbind.errors import OmpbindError, PlanError, UsageError
from ompbind.groups import find_groups
from ompbind.groups.plan import plan_groups
from ompbind.host import Lease
from ompbind.options import make_plan_options, read_arguments
from ompbind.options.values import parse_part
from ompbind.plans import Plan
from ompbind.resolve import resolve_plan
from tests.support.commands import OMPBIND, TIMEOUT, environment, ompbind_run
from tests.support.confine import among_no_others
from tests.support.leases import make_cpus
from tests.support.needs import need_cpus

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="run binds on Linux only")

# Writes what it sees as JSON. Every worker tells its pid and cpus, and stays until it reads a line.
DRIVER = r"""
import json, os, subprocess, sys
ompbind, jobs = sys.argv[1], []
WORKER = ["--", sys.executable, "-c",
          "import os; print(os.getpid(), *os.sched_getaffinity(0), flush=True); input()"]
def start(*args, **env):
    process = subprocess.Popen([ompbind, "run", *args, *WORKER], stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                               env={**os.environ, **env})
    jobs.append(process)
    return process
def told(process):
    line = process.stdout.readline()
    assert line, process.stderr.read()
    pid, *cpus = line.split()
    return int(pid), ",".join(cpus)
def refused(command, *args, **env):
    done = subprocess.run([ompbind, command, *args, "--", "true"], capture_output=True, text=True,
                          env={**os.environ, **env})
    return done.returncode, done.stderr
def end(process):
    process.communicate("\n")
    return process.returncode
out = {}
first = start("--free", "1", "--binder", "native")
pid, one = told(first)
second = start("--free", "1", "--verify", "--smt", "all")
_, two = told(second)
out["free"] = sorted([one, two])
out["refused"] = [refused(c, "--free", "1") for c in ("run", "show")]
out["exclusive"] = refused("run", "--exclusive", "--numa-bind-cpus", one), pid
out["exclusive over"] = refused("run", "--exclusive", "--wait=0.1")
out["part"] = refused("run", "--part", "auto/2")
out["plain"] = refused("run", "--numa-bind-cpus", one, OMPBIND_NEIGHBOURS="")
out["quiet"] = refused("run", "--numa-bind-cpus", one, "--no-neighbours", OMPBIND_NEIGHBOURS="")
out["over"] = refused("run", "--free", "1", "--wait=0.1")
waiting = start("--free", "1", "--wait")
out["note"] = waiting.stderr.readline()
out["behind"] = refused("run", "--free", "1")
os.kill(pid, 9)
out["waited"] = told(waiting)[1] == one
out["ends"] = [first.wait(), end(waiting), end(second)]
out["parts"] = sorted([told(start("--part", "auto/2"))[1], told(start("--part", "auto/2"))[1]])
out["none left"] = refused("run", "--part", "auto/2")[1]
for process in jobs:
    if process.returncode is None:
        end(process)
# Inside another launch: by its descriptor, and where that was closed by its variables.
inner = [ompbind, "run", "--free", "2", "--exclusive", "--", "sh", "-c", "echo in"]
code = "import subprocess, sys; print(subprocess.run(sys.argv[1:]).returncode, flush=True)"
for name, closing in (("inside", []), ("closed", [sys.executable, "-c", code])):
    outer = [ompbind, "run", "--omp", "off", "--"]
    done = subprocess.run([*outer, *closing, *inner], capture_output=True, text=True)
    out[name] = done.stdout.split(), done.stderr
# Ranks of one engine that share cpus by their plan are no others.
def mpi(rank):
    names = {"RANK": rank, "SIZE": 2, "LOCAL_RANK": rank, "LOCAL_SIZE": 2}
    env = {f"OMPI_COMM_WORLD_{name}": str(value) for name, value in names.items()}
    return env | {"PMIX_NAMESPACE": "job7", "OMPBIND_NEIGHBOURS": ""}
share = ("--per", "package", "--share")
rank0 = start(*share, "--exclusive", **mpi(0))
told(rank0)
out["sibling"] = refused("run", *share, "--exclusive", **mpi(1))
out["sibling warned"] = refused("run", *share, **mpi(1))
out["stranger"] = refused("run", *share, "--exclusive")
end(rank0)
print(json.dumps(out))
"""


def test_launches_that_take_cpus() -> None:
    """Never get the same, by numactl, by system calls or supervised; one that is killed frees its
    own for who waits."""
    cpus = need_cpus(2)
    command = ["taskset", "-c", f"{cpus[0]},{cpus[1]}", sys.executable, "-c", DRIVER, OMPBIND]
    with among_no_others() as apart:
        done = subprocess.run(
            [*apart, *command],
            env=environment(),
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    out = json.loads(done.stdout)
    both = [str(cpu) for cpu in cpus[:2]]
    label = f"cpus {CpuSet(cpus[:2])}"
    assert out["free"] == out["parts"] == both
    none = f"ompbind: error: --free 1: 0 of 2 cores are free; others hold {label}"
    hint = "hint: --wait waits for cores in turn; ompbind ps shows who holds what"
    for status, text in out["refused"]:
        assert (status, text.splitlines()) == (125, [none, hint])
    (status, text), pid = out["exclusive"]
    error, hint = text.splitlines()
    assert status == 125
    start = "another launch of ompbind holds 1 core of this plan, cpu "
    assert error.startswith(f"ompbind: error: --exclusive: {start}")
    assert f"pid {pid} (python" in error
    assert hint.endswith("; --wait waits for them")
    error, hint = out["exclusive over"][1].splitlines()[-2:]
    assert error.endswith("; the time of --wait=0.1 is over")
    assert "--wait" not in hint
    all_used = "ompbind: error: --part auto/2: 2 parts of the machine, and all are in use\n"
    assert out["part"][1].startswith(all_used)
    assert out["none left"].startswith(all_used)
    assert out["plain"][0] == 0
    assert out["plain"][1].startswith(f"ompbind: warning: {start}")
    assert out["quiet"] == [0, ""]
    assert out["over"][1].splitlines()[1] == f"{none}; the time of --wait=0.1 is over"
    assert out["note"] == "ompbind: note: --free 1: waiting for cores that nobody holds\n"
    assert out["behind"][1].splitlines()[0] == (
        "ompbind: error: --free 1: other launches wait for free cpus, and come first"
    )
    assert out["waited"]
    assert out["ends"] == [-9, 0, 0]
    assert out["inside"] == [["in"], ""]
    assert out["closed"] == [["in", "0"], ""]
    assert out["sibling"] == out["sibling warned"] == [0, ""]
    assert out["stranger"][0] == 125


def plan_groups_of(words: str, lease: Lease | None) -> list[str]:
    """Each group's cpus, of a command line with several."""
    values, command = read_arguments(words.split(), "run")
    groups = find_groups(values, command, "run")
    assert groups is not None
    plan = plan_groups(groups, {}, is_run=True, lease=lease)
    return [str(union(plan.ranks[r].cpus for r in g.ranks)) for g in plan.groups]


def test_groups_take_cores_of_their_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """One lease holds those of all; the whole plan is exclusive; and two launches do not wait for
    each other's groups for ever."""
    first, second, *_ = need_cpus(2)
    make_cpus(tmp_path, monkeypatch)
    lease, other = Lease.open(), Lease.open()
    assert lease is not None
    assert other is not None
    free = "-n 1 --free 1 -- a ::: -n 1 --free 1 -- b"
    assert plan_groups_of(free, lease) == [str(first), str(second)]
    assert CpuSet([first, second]) <= other.find_others(CpuSet(range(4096)))
    with pytest.raises(PlanError, match=r"^group b?a?.*: --free 1: "):
        plan_groups_of(free, other)
    one = "--cores-per-rank 1 -n 1"
    with pytest.raises(PlanError, match=r"^--exclusive: "):
        plan_groups_of(f"--exclusive {one} -- a ::: {one} -- b", other)
    lease.close()
    assert len(plan_groups_of(f"--exclusive {one} -- a ::: {one} -- b", other)) == 2
    with pytest.raises(UsageError, match="--wait waits for the cores of one group"):
        plan_groups_of(f"--wait {free}", other)
    other.close()


def test_the_first_free_part() -> None:
    """Is one of which nobody holds a thread."""
    parts = [CpuSet([0, 1]), CpuSet([2, 3])]
    assert choose_part(parts, CpuSet()) == parts[0]
    assert choose_part(parts, CpuSet([1, 7])) == parts[1]
    with pytest.raises(PlanError, match=r"--part auto/2: 2 parts .* all are in use"):
        choose_part(parts, CpuSet([1, 2]))


def test_what_is_asked() -> None:
    """auto/N; not without a number, and not for another machine or from Python."""
    assert parse_part("auto/4", "--part") == (0, 4)
    assert parse_part("1/4", "--part") == (1, 4)
    for text in ("auto", "auto/", "auto/0", "0/4", "5/4", "-1/4", "x/4", "1/x"):
        with pytest.raises(UsageError, match="is not I/N"):
            parse_part(text, "--part")
    with pytest.raises(UsageError, match="only ompbind run can claim"):
        make_plan(part="auto/2")
    done = ompbind_run("show", "--part", "auto/2", "--topology", "examples/server.topo")
    assert done.returncode == 125
    assert "another machine" in done.stderr
    assert "Traceback" not in done.stderr


def resolve(words: list[str]) -> Plan:
    values, command = read_arguments([*words, "--", "true"], "run")
    return resolve_plan(make_plan_options(values, command, {}), {}, is_run=True)


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ("--free 0", "--free: '0' is not a whole number from 1"),
        ("--free 2/core", "--free: '2/core' is neither N nor N/rank"),
        ("--free 2 --part auto/2", "--free and --part both say which cores to use"),
        ("--free 2 --numa-bind-cpus 0", "--free and --numa-bind-cpus both say which cores to use"),
        ("--wait", "--wait is for cores that nobody else may hold, and none are asked for"),
        ("--wait=-1 --free 1", "--wait: '-1' is not a number of seconds"),
        ("--wait=1 --part 1/2", "--wait is for cores that nobody else may hold, and part 1/2 may"),
        ("--free 70000", "--free: '70000' is not a whole number from 1 to 65535"),
    ],
)
def test_what_is_refused(words: str, problem: str) -> None:
    """In one line, before anything is looked at."""
    with pytest.raises(OmpbindError) as caught:
        resolve(words.split())
    assert caught.value.message.startswith(problem)


@pytest.mark.parametrize("words", ["--free 65535", "-n 9 --free 7281/rank"])
def test_nobody_waits_for_more_cores_than_there_are(words: str) -> None:
    """That would never end, and the first in line keeps out all who come later."""
    with pytest.raises(PlanError, match=rf"^{words[words.index('--free') :]}: ") as caught:
        resolve([*words.split(), "--wait"])
    assert caught.value.hint.startswith("at most ")


def test_where_cpus_cannot_be_held(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What asks for them is refused; all other launches run."""
    monkeypatch.setattr(host, "CPUS", str(tmp_path / "none"))
    for words in (["--free", "1"], ["--exclusive"], ["--part", "auto/1"]):
        with pytest.raises(OmpbindError, match="cpus cannot be held here") as caught:
            resolve(words)
        assert caught.value.hint
    assert resolve([]).ranks
