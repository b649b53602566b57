"""Other launches on the machine that hold cpus of a plan."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from ompbind.cpuset import CpuSet
from ompbind.host import Lease
from ompbind.host.neighbours import (
    Neighbour,
    describe,
    find_neighbours,
    make_warning,
    parse_claim,
)
from ompbind.machine.roots import DirectoryRoot
from ompbind.options import PlanOptions, make_request
from ompbind.planner.request import Request
from ompbind.resolve import resolve_plan
from tests.support.confine import among_no_others
from tests.support.leases import end_holder, fork_holder, make_cpus
from tests.support.needs import need_cpus

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


class ProcessesRoot(DirectoryRoot):
    """This machine with only these processes, and cores as in `cores`, where it is given."""

    def __init__(self, *pids: int, cores: Mapping[int, str] | None = None) -> None:
        super().__init__("/")
        self.pids, self.cores = pids, cores

    def names(self, path: str) -> list[str]:
        return [str(pid) for pid in self.pids] if path == "proc" else super().names(path)

    def read(self, path: str) -> str | None:
        if self.cores is None or not path.startswith("sys/"):
            return super().read(path)
        cpu = path.split("/")[4].removeprefix("cpu")
        return self.cores.get(int(cpu)) if path.endswith("core_cpus_list") else None


@contextmanager
def claiming(cpus: str, code: str = "") -> Iterator[int]:
    """A process that claims cpus and runs some code; its pid."""
    process = subprocess.Popen(
        [sys.executable, "-uc", f"import os, threading\n{code}\n{WORKER}"],
        env=os.environ | {"OMPBIND_RANK": "0", "OMPBIND_CPUS": cpus},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "here\n"
        yield process.pid
    finally:
        process.kill()
        process.communicate()


def two_cpus() -> tuple[int, int]:
    need_cpus(2)
    first, second, *_ = sorted(os.sched_getaffinity(0))
    return first, second


def alone(*cpus: int) -> dict[int, str]:
    """Cpus without siblings."""
    return {cpu: str(cpu) for cpu in cpus}


def test_found_by_its_worker(worker: subprocess.Popen[str]) -> None:
    """By pid and cpus; not where our own environment has the same claim."""
    root, first = ProcessesRoot(worker.pid), CpuSet([min(os.sched_getaffinity(0))])
    assert [(n.pid, n.cpus) for n in find_neighbours(root, first, {})] == [(worker.pid, first)]
    claim = {"OMPBIND_RANK": "0", "OMPBIND_CPUS": str(first)}
    assert find_neighbours(root, first, claim) == []


def test_who_has_a_lease(
    worker: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Is looked for among all processes; by the kernel's list of locks where no variables say it,
    and not to be seen where that does not name a process either. Our own launch is no other."""
    root, first = ProcessesRoot(worker.pid), CpuSet([min(os.sched_getaffinity(0))])
    nobody = ProcessesRoot()
    claim = {"OMPBIND_RANK": "0", "OMPBIND_CPUS": str(first)}
    make_cpus(tmp_path, monkeypatch)
    assert find_neighbours(root, first, {}, most=0) == []
    assert [n.pid for n in find_neighbours(root, first, {}, most=0, leased=first)] == [worker.pid]
    assert find_neighbours(root, first, claim, leased=first) == []
    (unseen,) = find_neighbours(nobody, first, {}, leased=first)
    assert (unseen.pid, unseen.cpus) == (0, first)
    assert "cpu" in (text := describe([unseen]))
    assert text.endswith(": a process that cannot be seen from here")
    lease = Lease.open()
    assert lease is not None
    pid, go = fork_holder(lambda: lease.hold(first))
    lease.close()
    found = [n.pid for n in find_neighbours(nobody, first, {}, leased=first)]
    end_holder(pid, go)
    assert found == [pid]
    other = unseen.replace(pid=9, name="sh", user="ada\n")
    assert describe([other]).endswith(": pid 9 (sh, ada\\n)")


def test_a_launch_holds_what_it_claims() -> None:
    """All of it, although OpenMP has bound its main thread to the first place."""
    first, second = two_cpus()
    bind = f"os.sched_setaffinity(0, [{first}])"
    with claiming(f"{first},{second}", bind) as pid:
        root = ProcessesRoot(pid, cores=alone(first, second))
        for cpus in ([first], [second], [first, second]):
            (neighbour,) = find_neighbours(root, CpuSet(cpus), {})
            assert neighbour.cpus == neighbour.cores == CpuSet(cpus)


def test_one_that_was_moved_holds_the_cpus_of_all_its_threads() -> None:
    """Where its main thread may no longer run on any cpu of its claim, the claim is void."""
    first, second = two_cpus()
    start = (
        f"os.sched_setaffinity(0, [{second}]); stop = threading.Event(); "
        "threading.Thread(target=stop.wait, daemon=True).start(); "
        f"os.sched_setaffinity(0, [{first}])"
    )
    root_of = partial(ProcessesRoot, cores=alone(first, second, 4000))
    with claiming("4000", start) as pid:
        assert find_neighbours(root_of(pid), CpuSet([4000]), {}) == []
        (neighbour,) = find_neighbours(root_of(pid), CpuSet([first, second]), {})
        assert neighbour.cpus == CpuSet([first, second])
    with claiming(str(second), f"os.sched_setaffinity(0, [{first}])") as pid:
        assert find_neighbours(root_of(pid), CpuSet([second]), {}) == []


def test_with_a_cpu_the_whole_core_is_held() -> None:
    """A plan on siblings of it is warned; siblings are only in what is to be excluded."""
    first = min(os.sched_getaffinity(0))
    siblings = CpuSet([first, 4000])
    cores = {first: str(siblings), 4000: str(siblings), 4001: "4001"}
    with claiming(str(first)) as pid:
        root = ProcessesRoot(pid, cores=cores)
        (neighbour,) = find_neighbours(root, CpuSet([4000, 4001]), {})
        assert (neighbour.cpus, neighbour.cores) == (CpuSet([4000]), siblings)
        (neighbour,) = find_neighbours(root, CpuSet([first, 4000, 4001]), {})
        assert (neighbour.cpus, neighbour.cores) == (CpuSet([first]), siblings)
        assert find_neighbours(root, CpuSet([4001]), {}) == []


@pytest.mark.parametrize("claim", ["", "x", "0-", "-1", "0-9999999999", "9" * 5000])
def test_claims_that_are_none(claim: str) -> None:
    """Any process can claim anything: what is no list of cpus is passed over."""
    with claiming(claim) as pid:
        assert find_neighbours(ProcessesRoot(pid), CpuSet(os.sched_getaffinity(0)), {}) == []


def test_run_and_show_warn(ompbind: str, apart: list[str]) -> None:
    """Both name it and the remedy, and run starts all the same; either can be told not to look."""
    assert run(ompbind, "run", under=apart).stderr == ""
    with started(ompbind, apart):
        done = run(ompbind, "run", under=apart)
        assert done.returncode == 0
        warning, hint = done.stderr.splitlines()
        start = "ompbind: warning: another launch of ompbind holds 1 core of this plan, "
        cpu = f"cpu {min(os.sched_getaffinity(0))}: pid {pid_of_worker(apart)} ("
        assert warning.startswith(start + cpu)
        assert hint.startswith("hint: --")
        shown = run(ompbind, "show", under=apart).stdout
        assert "another launch" in shown
        assert "\nhint: --" in shown
        assert run(ompbind, "run", "--no-neighbours", under=apart).stderr == ""
        for no in ("no", "No", "0", "FALSE", "off"):
            assert run(ompbind, "run", under=apart, look=no).stderr == ""
        assert (
            "another launch" in run(ompbind, "run", "--neighbours", under=apart, look="no").stderr
        )
        assert "another launch" in run(ompbind, "run", under=apart, look="1").stderr


PYTHON = """
import ompbind, sys, warnings
for _ in range(3):
    plan = ompbind.plan()
assert "another launch" in plan.warnings[-1]
assert ompbind.plan(neighbours=False).warnings == plan.warnings[:-1]
for _ in range(3):
    assert ompbind.run(plan, ["true"]) == 0
plan.save(sys.argv[1])
assert ompbind.Plan.load(sys.argv[1]).warnings == plan.warnings
"""


def test_python_is_warned_once_where_it_plans(
    apart: list[str], ompbind: str, tmp_path: Path
) -> None:
    """`plan` and `Plan.load` warn, the first time on each line; `run` does not again."""
    script = [*apart, sys.executable, "-c", PYTHON, str(tmp_path / "plan.json")]
    env = os.environ | {"OMPBIND_NEIGHBOURS": "yes"}
    with started(ompbind, apart):
        done = subprocess.run(script, env=env, capture_output=True, text=True, check=False)
    lines = [line for line in done.stderr.splitlines() if "another launch" in line]
    assert (done.returncode, len(lines)) == (0, 2), done.stderr
    assert all(line.startswith("<string>:") and "RuntimeWarning" in line for line in lines)


def test_a_saved_warning_is_of_its_time(apart: list[str], ompbind: str, tmp_path: Path) -> None:
    """A saved plan's launch is warned of those that run now."""
    path = tmp_path / "plan.json"
    with started(ompbind, apart):
        path.write_text(run(ompbind, "show", "--format", "json", under=apart).stdout)
    assert "neighbours" in path.read_text()
    assert run(ompbind, "run", "--plan", str(path), look="no").stderr == ""


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
    """Three are named, all their cores are; the hint excludes siblings as well."""
    found = [Neighbour(100 + n, "sh", CpuSet([n]), CpuSet([n, n + 64])) for n in range(5)]
    caution = make_warning(found, CpuSet(range(128)))
    assert caution is not None
    assert caution.text == (
        "another launch of ompbind holds 5 cores of this plan, cpus 0-4: "
        "pid 100 (sh), pid 101 (sh), pid 102 (sh), 2 more"
    )
    assert caution.hint == (
        "--exclude 0-4,64-68 avoids them, --free N takes cores that nobody holds; "
        "--no-neighbours omits this check"
    )
    assert make_warning([], CpuSet([0])) is None


def test_nothing_is_excluded_that_leaves_nothing() -> None:
    """Where all that may be used is held, --exclude is no remedy; names are of one line."""
    found = [Neighbour(7, "a\033[2J\nb", CpuSet([0]), CpuSet([0, 1]))]
    caution = make_warning(found, CpuSet([0, 1]))
    assert caution is not None
    assert caution.hint.startswith("--part 1/2")
    assert "pid 7 (a\\x1b[2J\\nb)" in caution.text


def test_show_names_no_neighbours_of_another_machines_plan(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Saved for a host of another name, it is shown as it was saved; run, it would be run here."""
    cpu = min(os.sched_getaffinity(0))
    neighbours = [Neighbour(4711, "other", CpuSet([cpu]), CpuSet([cpu]))]
    monkeypatch.setattr("ompbind.host.neighbours.find_neighbours", lambda *_, **__: neighbours)
    here = resolve_plan(PlanOptions(make_request({"numa_bind_cpus": (CpuSet([cpu]),)})), {})
    for name, is_run, count in ((here.host.name, False, 1), ("else", False, 0), ("else", True, 1)):
        plan = here.replace(host=here.host.replace(name=name))
        (tmp_path / "plan.json").write_text(plan.to_json())
        options = PlanOptions(Request(), saved=str(tmp_path / "plan.json"), neighbours=True)
        again = resolve_plan(options, {}, is_run=is_run)
        assert [c.kind for c in again.cautions].count("neighbours") == count
