"""`verify --repair`: ranks that were spoiled, and what they are afterwards, by the kernel."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ompbind.cli import main
from ompbind.cpuset import CpuSet
from ompbind.launch.running import Moved
from ompbind.machine.processes import Memory, Process, Thread
from ompbind.machine.roots import DirectoryRoot
from ompbind.rebind import repair
from ompbind.rebind.pages import Migration
from ompbind.verify.expected import Expected
from ompbind.verify.judge import judge
from ompbind.verify.observation import observe
from ompbind.verify.report import Report
from tests.support.commands import environment
from tests.support.needs import need_cpus
from tests.support.observe import mask_of

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="threads are bound on Linux")
ONLINE = CpuSet(range(8))
Starter = Callable[..., int]


@pytest.fixture
def start() -> Iterator[Starter]:
    """Starts workers with these variables, and kills them at last."""
    started: list[subprocess.Popen[str]] = []

    def start_one(*command: str, **variables: str) -> int:
        process = subprocess.Popen(
            command, env=environment(OMPBIND_RANK="0", **variables), text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip
        started.append(process)
        assert process.stdout is not None
        while process.stdout.readline() != "ready\n":
            assert process.poll() is None
        return process.pid

    yield start_one
    for process in started:
        os.killpg(process.pid, 9)
        process.communicate()


def masks(pid: int) -> list[list[int]]:
    return [mask_of(task) for task in sorted(Path("/proc", str(pid), "task").iterdir())]


def verify(capfd: pytest.CaptureFixture[str], *args: object) -> tuple[int, dict[str, Any]]:
    status = main(["verify", *map(str, args), "--format", "json"])
    out, err = capfd.readouterr()
    assert err == ""
    report: dict[str, Any] = json.loads(out)
    return status, report


def test_a_rank_is_bound_again(start: Starter, capfd: pytest.CaptureFixture[str]) -> None:
    """All threads, and a child, that were moved elsewhere: as planned afterwards, and what was done
    is said; another time there is nothing to repair."""
    first, second = need_cpus(2)
    code = (
        "import subprocess, sys, threading\n"
        "threading.Thread(target=threading.Event().wait, daemon=True).start()\n"
        "child = subprocess.Popen(['cat'], stdin=subprocess.PIPE)\n"
        "print('ready', flush=True)\nsys.stdin.read()\n"
    )
    pid = start(sys.executable, "-I", "-S", "-c", code, OMPBIND_CPUS=str(first))
    subprocess.run(["taskset", "-a", "-p", "-c", str(first), str(pid)], capture_output=True)
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        child = int(file.read())
    os.sched_setaffinity(child, {first})
    status, report = verify(capfd, pid, "--repair")
    assert (status, report["repairs"]) == (0, [])
    subprocess.run(["taskset", "-a", "-p", "-c", str(second), str(pid)], capture_output=True)
    os.sched_setaffinity(child, {first, second})
    assert verify(capfd, pid)[0] == 1
    status, report = verify(capfd, pid, "--repair")
    assert status == 0
    assert masks(pid) == [[first]] * 2
    assert masks(child) == [[first]]
    assert [(r["pid"], r["rank"], r["kind"], r["done"]) for r in report["repairs"]] == [
        (pid, 0, "threads", True), (child, 0, "threads", True),
    ]  # fmt: skip
    assert f"from cpu {second} to {first}" in report["repairs"][0]["text"]
    os.sched_setaffinity(pid, {second})
    assert main(["verify", str(pid), "--repair"]) == 0
    assert f"repaired: rank 0, pid {pid}: the main thread: from cpu" in capfd.readouterr().out
    assert main(["verify", str(pid), "--repair"]) == 0
    assert capfd.readouterr().out.startswith("nothing to repair\n")
    assert main(["verify", str(pid), "--repair", "--watch"]) == 125


def test_openmps_threads_get_their_places_again(
    start: Starter, capfd: pytest.CaptureFixture[str], where: Callable[[str], str]
) -> None:
    """One that was widened, and all of a team that were put on one cpu."""
    first, second = need_cpus(2)
    pid = start(
        where("libgomp"), "--wait",
        OMPBIND_CPUS=str(CpuSet([first, second])), OMP_PLACES=f"{{{first}}},{{{second}}}",
        OMP_NUM_THREADS="2", OMP_PROC_BIND="close",
    )  # fmt: skip
    assert verify(capfd, pid)[0] == 0
    for tids in ("-p", "-a -p"):
        for cpus in (f"{first},{second}", str(second)):
            subprocess.run(["taskset", *tids.split(), "-c", cpus, str(pid)], capture_output=True)
            assert verify(capfd, pid)[0] == 1
            assert verify(capfd, pid, "--repair")[0] == 0
            assert masks(pid) == [[first], [second]]


# --- which mask is whose ------------------------------------------------------------------------


def plan(places: str = "", threads: int | None = None, **more: Any) -> Expected:
    cpus = CpuSet(range(4))
    sets = tuple(CpuSet.parse_kernel(p) for p in places.split())
    return Expected(0, cpus, sets, "close" if sets else "", threads, "none", CpuSet()).replace(
        **more
    )


@pytest.mark.parametrize(
    ("masks", "expected", "wanted"),
    [
        ("0-3 0-3", plan(), {}),
        ("5 5", plan(), {0: "0-3", 1: "0-3"}),
        ("0-3 5", plan(), {1: "0-3"}),
        ("0 1 5 3", plan("0 1 2 3"), {2: "2"}),
        ("5 5 5 5", plan("0 1 2 3"), {0: "0", 1: "1", 2: "2", 3: "3"}),
        ("2 2 2 2", plan("0 1 2 3"), {0: "0", 1: "1", 2: "2", 3: "3"}),
        ("5 5 5 5", plan("0-1 2-3", 4), {0: "0-1", 1: "0-1", 2: "2-3", 3: "2-3"}),
        ("0 0-3 2 3", plan("0 1 2 3"), {1: "1"}),
        # More threads than OpenMP has: whose places are empty is not known.
        ("5 5 5 5 5", plan("0 1 2 3"), dict.fromkeys(range(5), "0-3")),
        ("2 2 2 2 2", plan("0 1 2 3"), {}),
        # A role's cpus are nobody's mistake.
        ("0-3 6", plan(roles=(CpuSet([6]),)), {}),
    ],
)
def test_threads_get_their_own_masks(
    masks: str, expected: Expected, wanted: dict[int, str]
) -> None:
    """By the places that are empty, in order; or the rank's cpus."""
    threads = tuple(Thread(9 + n, "w", "S", CpuSet.parse_kernel(m), 0)
                    for n, m in enumerate(masks.split()))  # fmt: skip
    process = Process(9, 1, 7, threads=threads, environ=(), libraries=("libgomp.so.1",))
    report = judge(process, expected, ONLINE)
    result = repair.find_masks(report, observe(process, expected, ONLINE))
    assert {tid - 9: str(cpus) for tid, cpus in result.items()} == wanted


class Kernel(Migration):
    """Pages that are moved, or of which some cannot be."""

    def __init__(self, moved: Moved) -> None:
        super().__init__(DirectoryRoot("/nowhere"))
        self.moved, self.problem = moved, ""

    def move(self, pid: int, nodes: CpuSet) -> Moved:
        assert (pid, nodes) == (9, CpuSet([1]))
        return self.moved


@pytest.mark.parametrize(
    ("moved", "texts"),
    [
        (Moved(8 << 20), [("rank 0, pid 9: 8.0 MiB of its memory: to node 1", True)]),
        (
            Moved(4 << 20, 4 << 20, 16),
            [
                ("rank 0, pid 9: 4.0 MiB of its memory: to node 1", True),
                ("rank 0, pid 9: 4.0 MiB cannot be moved: Device or resource busy", False),
            ],
        ),
    ],
)
def test_pages_are_brought_back(moved: Moved, texts: list[tuple[str, bool]]) -> None:
    """To the nodes of the plan; what cannot be moved is said."""
    memory = Memory("bind:1", (("bind:1", 0, 8 << 20),))
    threads = (Thread(9, "w", "S", CpuSet(range(4)), 0),)
    process = Process(9, 1, 7, threads=threads, environ=(), memory=memory)
    report = judge(process, plan(mem="bind", mems=CpuSet([1])), ONLINE)
    repairs = repair.repair_process(report, ONLINE, Kernel(moved))
    assert [(r.text, r.done) for r in repairs] == texts
    assert {r.kind for r in repairs} == {"memory"}


def test_a_place_that_is_lost_is_nobodys() -> None:
    """Where the cgroup has lost a cpu, no thread can be brought there."""
    threads = tuple(Thread(9 + n, "w", "S", CpuSet([2]), 0) for n in range(2))
    process = Process(9, 1, 7, threads=threads, environ=(), cpuset=CpuSet([0, 1, 2]))
    process = process.replace(libraries=("libgomp.so.1",))
    expected = plan("2 3").replace(cpus=CpuSet([2, 3]))
    report = judge(process, expected, ONLINE)
    assert [d.kind for d in report.differences] == ["cgroup", "crowded"]
    assert repair.find_masks(report, observe(process, expected, ONLINE)) == {}


def test_what_cannot_be_repaired_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread that the kernel lets nobody bind is named once, and looked at no more."""

    def deny(tid: int, cpus: CpuSet) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(repair, "set_mask", deny)
    threads = (Thread(9, "w", "S", CpuSet([5]), 0),)
    process = Process(9, 1, 7, threads=threads, environ=())
    report = Report((judge(process, plan(), ONLINE),), ONLINE)
    result = repair.repair(DirectoryRoot("/nowhere"), report, lambda: report)
    assert result.repairs is not None
    assert [(r.text, r.done) for r in result.repairs] == [
        ("rank 0, pid 9: thread 9 cannot be bound to cpus 0-3: Operation not permitted", False)
    ]
    assert not result.holds
