"""`ompbind rebind`, called in this process: programs that run, seen from outside."""

from __future__ import annotations

import errno
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
from ompbind.errors import DeniedError, PlanError
from ompbind.host import Lease
from ompbind.launch import running, syscalls
from ompbind.machine import living_root, read_machine
from ompbind.machine.processes import find_process, read_process
from ompbind.machine.regions import read_regions
from ompbind.machine.roots import DirectoryRoot
from ompbind.planner import make_plan
from ompbind.rebind import Rebinding
from tests.support.commands import environment
from tests.support.leases import make_cpus
from tests.support.machines import make_asked
from tests.support.needs import need_cpus
from tests.support.observe import mask_of

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="threads are bound on Linux")

# A program with threads and a child that has some as well; each says so when they are all there.
HEAD = """
import os, subprocess, sys, threading
def start(count, act=lambda: stay.wait()):
    for _ in range(count):
        threading.Thread(target=act, daemon=True).start()
stay = threading.Event()
"""
TAIL = "\nprint('ready', flush=True)\nsys.stdin.read()\n"
FAMILY = """
start(3)
child = subprocess.Popen(["sh", "-c", "sleep 1000 & echo; read x"],
                         stdin=subprocess.PIPE, stdout=subprocess.PIPE)
child.stdout.readline()
"""
# Threads and processes that live for a moment, and make others: there is always a new one.
RESTLESS = """
def go_on(n):
    while True:
        thread = threading.Thread(target=os.getpid)
        thread.start()
        thread.join()
        if n == 0:
            subprocess.run(["true"])
for n in range(3):
    threading.Thread(target=go_on, args=(n,), daemon=True).start()
"""
Starter = Callable[..., int]


@pytest.fixture(autouse=True)
def leases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Leases of launches elsewhere on this machine are no business of these tests."""
    for name in [n for n in os.environ if n.startswith(("OMP", "KMP_", "GOMP_"))]:
        monkeypatch.delenv(name)
    return make_cpus(tmp_path, monkeypatch)


@pytest.fixture
def start() -> Iterator[Starter]:
    """Starts programs, each in a session of its own, and kills all of them at last."""
    started: list[subprocess.Popen[str]] = []

    def start_one(code: str = FAMILY, **more: Any) -> int:
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", HEAD + code + TAIL],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True,
            **{"env": environment(), **more},
        )  # fmt: skip
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        return process.pid

    yield start_one
    for process in started:
        os.killpg(process.pid, 9)
        process.communicate()


def rebind(capfd: pytest.CaptureFixture[str], *args: object) -> tuple[int, dict[str, Any], str]:
    """Its status, what it prints as JSON, and what it says."""
    status = main(["rebind", *map(str, args), "--format", "json"])
    out, err = capfd.readouterr()
    return status, json.loads(out or "{}"), err


def masks(pid: int) -> list[list[int]]:
    """Where the threads of a process may run, by the kernel."""
    return [mask_of(task) for task in sorted(Path("/proc", str(pid), "task").iterdir())]


def children(pid: int) -> list[int]:
    return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def family(pid: int) -> list[int]:
    return [pid, *(p for child in children(pid) for p in family(child))]


def test_every_thread_of_a_family_is_bound(
    start: Starter, capfd: pytest.CaptureFixture[str]
) -> None:
    """A dry run changes nothing and says what would be; then each thread of the program and of what
    it has started is bound, which is read back; once more, nothing is left to do."""
    first, second = need_cpus(2)
    pid = start()
    before = {p: masks(p) for p in family(pid)}
    assert [len(before[p]) for p in before] == [4, 1, 1]
    args = (pid, "--numa-bind-cpus", second)
    status, planned, err = rebind(capfd, *args, "--dry-run")
    assert (status, err, planned["dry_run"], planned["holds"]) == (0, "", True, None)
    assert {p: masks(p) for p in family(pid)} == before
    assert [p["rebound"] for p in planned["ranks"][0]["processes"]] == [4, 1, 1]
    status, done, _ = rebind(capfd, *args)
    assert (status, done["dry_run"], done["holds"]) == (0, False, True)
    assert {p: masks(p) for p in family(pid)} == {p: [[second]] * len(m) for p, m in before.items()}
    shown = subprocess.run(["taskset", "-a", "-c", "-p", str(pid)], capture_output=True, text=True)
    assert [line.split()[-1] for line in shown.stdout.splitlines()] == [str(second)] * 4
    processes = done["ranks"][0]["processes"]
    assert [(p["pid"], p["threads"], p["rebound"]) for p in processes] == [
        (p, len(m), len(m)) for p, m in before.items()
    ]
    assert first in CpuSet.parse_kernel(processes[0]["cpus_before"])
    assert [p["pid"] for p in done["verify"]["processes"]] == list(before)
    _, again, _ = rebind(capfd, *args)
    assert [p["rebound"] for p in again["ranks"][0]["processes"]] == [0, 0, 0]


def test_the_table_says_what_was_done(start: Starter, capfd: pytest.CaptureFixture[str]) -> None:
    """A dry run shows the plan and a row for each process; else the rows, and the verification."""
    (cpu,) = need_cpus(1)
    pid = start("start(1)")
    assert main(["rebind", str(pid), "--numa-bind-cpus", str(cpu), "--dry-run"]) == 0
    out = capfd.readouterr().out
    assert out.startswith("1 rank")
    assert "would be rebound" in out
    assert f"{pid}  python" in out
    assert main(["rebind", str(pid), "--numa-bind-cpus", str(cpu)]) == 0
    out = capfd.readouterr().out
    assert "to cpus" in out.splitlines()[0]
    assert "as planned: 1 process, 2 threads" in out


def test_each_process_is_a_rank(start: Starter, capfd: pytest.CaptureFixture[str]) -> None:
    """In the order in which they are named, also one below another; pids may follow a list."""
    first, second = need_cpus(2)
    pid = start()
    (child,) = children(pid)
    status, done, _ = rebind(capfd, "--numa-bind-cpus", second, first, "--", child, pid)
    assert status == 0
    assert [r["pid"] for r in done["ranks"]] == [child, pid]
    assert masks(pid) == [[first]] * 4
    assert [masks(p) for p in family(child)] == [[[second]]] * 2


def test_threads_that_start_meanwhile_are_caught(
    start: Starter, capfd: pytest.CaptureFixture[str]
) -> None:
    """Threads and processes that come and go: whatever is there afterwards is bound."""
    (cpu,) = need_cpus(1)
    pid = start(RESTLESS)
    status, done, _ = rebind(capfd, pid, "--numa-bind-cpus", cpu)
    assert status == 0
    assert done["ranks"][0]["processes"][0]["rebound"] >= 4
    for _ in range(20):
        assert {tuple(m) for m in seen_masks(pid)} == {(cpu,)}


def seen_masks(pid: int) -> list[list[int]]:
    """The masks of the threads that are still there when they are looked at."""
    result = []
    for task in Path("/proc", str(pid), "task").iterdir():
        try:
            result.append(mask_of(task))
        except (OSError, AssertionError):
            continue
    return result


def test_threads_with_places_are_left_to_openmp(
    start: Starter, capfd: pytest.CaptureFixture[str]
) -> None:
    """A thread with a mask of its own is refused and nothing is changed, unless it is forced; what
    is bound so already is no conflict."""
    first, second = need_cpus(2)
    pid = start(
        "done = threading.Event()\n"
        f"def narrow():\n    os.sched_setaffinity(0, {{{first}}})\n"
        "    done.set()\n    stay.wait()\n"
        "start(1, narrow)\ndone.wait()"
    )
    before = masks(pid)
    status, _, err = rebind(capfd, pid, "--numa-bind-cpus", second)
    assert status == 125
    assert f"1 of 2 threads has a place of its own, cpu {first}" in err
    assert "hint: --force" in err
    assert masks(pid) == before
    status, _, err = rebind(capfd, pid, "--numa-bind-cpus", second, "--force")
    assert (status, masks(pid)) == (0, [[second]] * 2)
    assert "what OpenMP starts or binds from now on may leave the plan" in err


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ("", "no pid to rebind"),
        ("12x", "'12x' is not a pid"),
        ("4194399", "no process has the pid 4194399"),
        ("{own}", "is this ompbind itself"),
        ("{pid} {pid}", "is named twice"),
        ("{pid} --numa-bind-cpus 0 1", "the plan has 2 ranks, and 1 process is named"),
        ("{pid} --threads 4", "'--threads' is not an option"),
        ("{pid} --numa-bind-cpus 60000", "60000"),
        ("{pid} --part auto/2", "--part auto/N"),
        ("{pid} --plan /nowhere", "--plan '/nowhere'"),
    ],
)
def test_bad_input_is_refused(
    args: str, message: str, start: Starter, capfd: pytest.CaptureFixture[str]
) -> None:
    """One line that names it, and perhaps a hint; nothing is changed."""
    pid = start("") if "{pid}" in args else 0
    before = masks(pid) if pid else []
    status = main(["rebind", *args.format(own=os.getpid(), pid=pid).split()])
    out, err = capfd.readouterr()
    assert (status, out) == (125, "")
    assert message in err
    assert len([ln for ln in err.splitlines() if not ln.startswith("hint: ")]) == 1
    assert (masks(pid) if pid else []) == before


def make_rebinding(pid: int, cpus: str, *, force: bool = False) -> Rebinding:
    root, machine = living_root(), read_machine(devices=False)
    process = find_process(root, pid)
    assert process is not None
    request = make_asked(["--numa-bind-cpus", cpus, "--mem", "none"])
    return Rebinding(root, machine, make_plan(machine, request), [process], force=force)


def test_masks_are_restored_where_the_kernel_denies_some(
    start: Starter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half done is not done."""
    first, second = need_cpus(2)
    pid = start("start(2)")
    before = masks(pid)
    bind = syscalls.set_affinity

    def deny_last(cpus: CpuSet, tid: int) -> None:
        if cpus == CpuSet([second]) and sum(m == [second] for m in masks(pid)) == 2:
            raise PermissionError(1, "Operation not permitted")
        bind(cpus, tid)

    monkeypatch.setattr(running, "set_affinity", deny_last)
    with pytest.raises(DeniedError, match="denies sched_setaffinity: Operation not permitted"):
        make_rebinding(pid, str(second)).carry_out()
    assert masks(pid) == before
    assert first in before[0]


def test_threads_that_nobody_can_bind_are_left(
    start: Starter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the workers that io_uring makes on some kernels: they are no threads with places of their
    own, and the others are bound all the same."""
    first, second = need_cpus(2)
    pid = start("start(2)")
    fixed = max(map(int, os.listdir(f"/proc/{pid}/task")))
    os.sched_setaffinity(fixed, [first])
    bind, read = os.sched_setaffinity, DirectoryRoot.read_whole

    def deny_one(tid: int, cpus: CpuSet) -> None:
        if tid == fixed:
            raise OSError(errno.EINVAL, "Invalid argument")
        bind(tid, cpus)

    def read_flags(root: DirectoryRoot, path: str) -> bytes:
        data = read(root, path)
        if path.endswith(f"/{fixed}/stat"):
            head, end, rest = data.rpartition(b") ")
            fields = rest.split(b" ")
            fields[6] = b"%d" % (0x04000000 | int(fields[6]))
            data = head + end + b" ".join(fields)
        return data

    monkeypatch.setattr(os, "sched_setaffinity", deny_one)
    with pytest.raises(PlanError, match="1 of 3 threads has a place of its own"):
        make_rebinding(pid, str(second))
    monkeypatch.setattr(DirectoryRoot, "read_whole", read_flags)
    rebinding = make_rebinding(pid, str(second))
    assert [(c.threads, c.rebound) for c in rebinding.make_result().changes] == [(2, 2)]
    result = rebinding.carry_out()
    assert result.report is not None
    assert result.report.holds
    assert sorted(masks(pid)) == sorted([[first], [second], [second]])
    text = "1 thread of the kernel's (io_uring), which nobody can bind: left where it is"
    assert result.notes == (text,)


def test_an_interrupted_rebinding_leaves_masks_as_they_were(
    start: Starter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C while threads are bound."""
    _, second = need_cpus(2)
    pid = start("start(2)")
    before = masks(pid)
    bind = syscalls.set_affinity

    def interrupt(cpus: CpuSet, tid: int) -> None:
        bind(cpus, tid)
        if cpus == CpuSet([second]) and sum(m == [second] for m in masks(pid)) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(running, "set_affinity", interrupt)
    rebinding = make_rebinding(pid, str(second))
    with pytest.raises(KeyboardInterrupt):
        rebinding.carry_out()
    assert masks(pid) == before


def test_cores_that_others_hold_are_refused(
    start: Starter, capfd: pytest.CaptureFixture[str]
) -> None:
    """A lease of another launch is respected, unless --force takes the core; a rank that is rebound
    keeps its own, which is said."""
    first, second = need_cpus(2)
    lease = Lease.open()
    assert lease is not None
    assert lease.hold(CpuSet([first]))
    descriptor = lease.make_inheritable()
    claim = environment(OMPBIND_RANK="0", OMPBIND_CPUS=str(first))
    rank = start("start(1)", env=claim, pass_fds=[descriptor])
    os.close(descriptor)
    lease.close()
    other = start("")
    status, _, err = rebind(capfd, other, "--numa-bind-cpus", first)
    assert (status, masks(other)) == (125, masks(start("")))
    assert "of this plan's cores is held by other launches\nhint: ompbind ps" in err
    status, _, _ = rebind(capfd, other, "--numa-bind-cpus", first, "--force")
    assert (status, masks(other)) == (0, [[first]])
    if descriptor == 240:  # under another number nobody knows that it is the rank's own
        status, done, err = rebind(capfd, rank, "--numa-bind-cpus", f"{first},{second}")
        assert (status, masks(rank)) == (0, [sorted([first, second])] * 2)
        assert f"pid {rank} is a rank of ompbind's: it holds cpu {first} until it exits" in err
        assert done["notes"]


def test_a_saved_plan_is_carried_out(
    start: Starter, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """That of `show --format json`, a rank for each pid; verify finds the same afterwards."""
    first, second = need_cpus(2)
    pids = [start(""), start("")]
    words = ["--numa-bind-cpus", str(second), str(first), "--omp", "off"]
    assert main(["show", *words, "--format", "json"]) == 0
    file = tmp_path / "plan.json"
    file.write_text(capfd.readouterr().out)
    status, _, err = rebind(capfd, *pids, "--plan", file)
    assert (status, err) == (0, "")
    assert [masks(p) for p in pids] == [[[second]], [[first]]]
    assert main(["verify", "--plan", str(file), *map(str, pids)]) == 0


def test_a_process_that_exits_meanwhile_is_a_difference(start: Starter) -> None:
    """All that is left is to say so."""
    (cpu,) = need_cpus(1)
    pid = start("")
    rebinding = make_rebinding(pid, str(cpu))
    os.kill(pid, 9)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    result = rebinding.carry_out()
    assert not result.holds


def test_pages_are_located_and_stay_where_they_belong(start: Starter) -> None:
    """The kernel's own word on pages of another process, and no page is moved that is in place."""
    pid = start("data = bytearray(b'x' * (8 << 20))")
    root = living_root()
    process = read_process(root, pid)
    if process is None or process.memory is None:
        pytest.skip("this kernel has no NUMA")
    large = max(
        read_regions(root, pid), key=lambda r: 0 if r.is_file else sum(c for _, c in r.pages)
    )
    nodes = CpuSet(node for node, _ in large.pages)
    mover = running.PageMover()
    places = mover.call(pid, range(large.start, large.end, large.page))
    assert sum(node in nodes for node in places) >= (8 << 20) // large.page
    assert mover.move_region(pid, large, nodes) == running.Moved()
