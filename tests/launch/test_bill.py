"""The bill of a rank: from made-up figures, and beside what a worker says of itself."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ompbind.cpuset import CpuSet
from ompbind.errors import OmpbindError
from ompbind.launch import bill as bills
from ompbind.launch.bill import Meter, make_line, write_report
from ompbind.launch.outcome import Ended
from ompbind.launch.rank import Start
from ompbind.machine.roots import DirectoryRoot
from ompbind.machine.usage import Throttling
from ompbind.plans import Binding, RankPlan
from tests.support.commands import ompbind_run
from tests.support.confine import in_cgroup
from tests.support.processes import Processes, write_files

MIB = 1 << 20
linux = pytest.mark.skipif(sys.platform != "linux", reason="the kernel's figures are Linux's")


class Made:
    """A made-up machine with rank 3 as process 10, which is being measured."""

    def __init__(self, path: Path, nodes: int = 1, **binding: Any) -> None:
        self.path, self.processes = path, Processes(path)
        self.write({"proc/self/status": f"Name:\tx\nNSpid:\t{os.getpid()}\n"})
        self.rank = RankPlan(3, Binding(CpuSet([0]), **binding), (), CpuSet([0]), (), (), ("w",))
        self.meter = Meter(DirectoryRoot(str(path)), nodes)
        self.processes.add(10)
        assert self.meter.open({10: self.rank}) == bills.FIRST

    def write(self, files: dict[str, str]) -> None:
        write_files(self.path, files)

    def use(self, pid: int, tid: int, ran: int, waited: int, migrations: int = 0) -> None:
        """Write a thread's figures, its times in milliseconds."""
        folder = f"proc/{pid}/task/{tid}"
        self.write({f"{folder}/schedstat": f"{ran * 10**6} {waited * 10**6} 1\n",
                    f"{folder}/sched": f"se.nr_migrations : {migrations}\n"})  # fmt: skip

    def close(
        self, *, user: float = 1.0, system: float = 0.0, code: int = 0, pid: int = 10
    ) -> bills.Bill:
        ended = Ended(Start(self.rank, "w", ("w",), {}), pid, code, 2.1234567, MIB, "dumped")
        usage: Any = SimpleNamespace(ru_utime=user, ru_stime=system, ru_nvcsw=5, ru_nivcsw=7,
                                     ru_majflt=1)  # fmt: skip
        return self.meter.close(ended, usage)


@pytest.fixture
def supervisor(monkeypatch: pytest.MonkeyPatch) -> int:
    """The pid of this process, made up: in a container it may really be that of a made-up one."""
    monkeypatch.setattr(os, "getpid", lambda: 4242)
    return 4242


def test_threads_and_children_are_summed(tmp_path: Path) -> None:
    """Each with the last figures that were seen of it; the first thread's are read at its exit."""
    made = Made(tmp_path)
    made.processes.add(10, masks=("0", "0"))
    made.processes.add(20, parent=10)
    made.processes.add(30, parent=1)
    for pid, tid in ((10, 10), (10, 11), (20, 20), (30, 30)):
        made.use(pid, tid, 100, 10, 1)
    made.meter.sample([10])
    made.use(10, 10, 300, 50, 2)
    made.use(10, 11, 900, 90, 9)
    made.meter.read_exit(10)
    made.meter.read_exit(99)  # an orphan, and nobody's rank
    bill = made.close()
    assert (bill.waited, bill.migrations) == (0.07, 4)
    assert bill.observed == 0.5  # 0.3 + 0.1 + 0.1 of the second that it ran
    assert (bill.voluntary, bill.involuntary, bill.faults) == (5, 7, 1)


def test_a_thread_whose_number_is_used_again(tmp_path: Path) -> None:
    """Both count."""
    made = Made(tmp_path)
    made.use(10, 10, 500, 40)
    made.meter.sample([10])
    made.use(10, 10, 100, 20)
    made.meter.sample([10])
    made.use(10, 10, 200, 30)
    for _ in range(2):  # the second time it has only waited
        made.meter.sample([10])
    bill = made.close()
    assert (bill.waited, bill.observed) == (0.07, 0.7)


def test_an_orphan_stays_its_ranks(tmp_path: Path, supervisor: int) -> None:
    """A process that has lost its parent is the supervisor's child, and was seen before."""
    made = Made(tmp_path)
    made.processes.add(20, parent=10)
    made.use(20, 20, 100, 10)
    made.meter.sample([10])
    made.processes.add(20, parent=supervisor)
    made.processes.add(21, parent=supervisor)
    made.use(20, 20, 200, 30)
    made.use(21, 21, 200, 99)
    made.meter.sample([10])
    assert made.close().waited == 0.03


@pytest.mark.usefixtures("supervisor")
def test_a_process_whose_number_is_used_again(tmp_path: Path) -> None:
    """Is nobody's, if its parent is neither the rank nor the supervisor."""
    made = Made(tmp_path)
    made.processes.add(20, parent=10)
    made.use(10, 10, 0, 5)
    made.use(20, 20, 100, 10)
    made.meter.sample([10, 99])
    made.processes.add(20, parent=1)
    made.use(20, 20, 900, 990)
    made.meter.sample([10])
    assert made.close().waited == 0.015


def test_a_kernel_that_does_not_say(tmp_path: Path) -> None:
    """Leaves these figures out, and no zero stands for them."""
    made = Made(tmp_path)
    made.meter.sample([10])
    made.meter.read_exit(10)
    bill = made.close()
    assert (bill.waited, bill.observed, bill.migrations) == (None, None, None)
    assert (bill.misplaced, bill.throttling) == (None, None)
    assert make_line(bill) == (
        "rank 3 used 1.00 s of cpu time (1.00 user, 0.00 system); 7 involuntary switches"
    )


def test_processes_of_another_namespace(tmp_path: Path) -> None:
    """Have other numbers than here: none of them is read."""
    made = Made(tmp_path)
    made.write({"proc/self/status": f"Name:\tx\nNSpid:\t4\t{os.getpid()}\n"})
    made.meter = Meter(DirectoryRoot(str(tmp_path)), 1)
    made.meter.open({10: made.rank})
    made.use(10, 10, 100, 10)
    made.meter.sample([10])
    made.meter.read_exit(10)
    bill = made.close()
    assert (bill.waited, bill.swap) == (None, None)


MAPS = "7f00 {policy} anon=9 N0={a} N1={b} kernelpagesize_kB=4\n7f01 {policy} stack anon=1 N0=1\n"


def test_pages_on_other_nodes(tmp_path: Path) -> None:
    """Are private ones that the policy would put elsewhere, of the whole family, as seen last;
    a process that is exiting has none, and does not count."""
    made = Made(tmp_path, nodes=2, mem="bind", mems=CpuSet([0]))
    made.processes.add(20, parent=10)
    maps = MAPS.format(policy="bind:0", a=100, b=3)
    made.write({"proc/10/numa_maps": maps, "proc/20/numa_maps": maps,
                "proc/20/status": "A: 1\nVmSwap:\t 8 kB\n"})  # fmt: skip
    made.meter.sample([10])
    made.write({"proc/10/numa_maps": "", "proc/20/numa_maps": "", "proc/20/status": "A: 1\n"})
    made.meter.memory_due = 0.0
    made.meter.sample([10])
    bill = made.close()
    assert (bill.misplaced, bill.swap) == (2 * 3 * 4096, 8192)
    assert make_line(bill).endswith("24 KiB on other nodes than planned; 8 KiB swapped out")
    made.write({"proc/10/numa_maps": MAPS.format(policy="bind:0", a=100, b=1)})
    made.meter.memory_due = 0.0
    made.meter.sample([10])
    assert made.close().misplaced == 4096


@pytest.mark.parametrize(("nodes", "mem"), [(1, "bind"), (2, "none"), (2, "local")])
def test_pages_that_no_policy_places(nodes: int, mem: str, tmp_path: Path) -> None:
    """Are nowhere wrong; with one node, none is even looked at."""
    mems = CpuSet([0]) if mem == "bind" else CpuSet()
    made = Made(tmp_path, nodes=nodes, mem=mem, mems=mems)
    made.write({"proc/10/numa_maps": MAPS.format(policy="default", a=1, b=9)})
    made.meter.sample([10])
    assert made.close().misplaced is None


def test_looking_at_pages_takes_little(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the kernel walks all of them each time: where that takes long, threads are read meanwhile,
    and pages later."""
    now, clock, looks = [100.0], [0.0], list[float]()
    monkeypatch.setattr(bills, "time", SimpleNamespace(monotonic=lambda: now[0],
                                                       process_time=lambda: clock[0]))  # fmt: skip
    made = Made(tmp_path, nodes=2, mem="bind", mems=CpuSet([0]))

    def look(_: object) -> int:
        looks.append(now[0] - 100)
        clock[0] += 0.1
        return 7

    monkeypatch.setattr(made.meter, "measure_pages", look)
    pauses = []
    while now[0] < 220:
        pauses.append(made.meter.sample([10]))
        now[0] += pauses[-1]
    assert max(pauses) == bills.LAST
    assert looks[1] < 0.1
    early = [at for at in looks if at <= 40]
    assert all(1.5 * a <= b < 1.5 * a + 0.3 for a, b in zip(early[1:], early[2:], strict=False))
    late = [at for at in looks if at > 60]
    assert all(20 <= b - a < 20.3 for a, b in zip(late, late[1:], strict=False))
    assert len(late) >= 3
    assert made.close().misplaced == 7


def test_measuring_takes_little(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The time between two readings grows to a quarter of a second, and beyond that with what a
    reading costs."""
    now, clock = [100.0], [0.0]
    monkeypatch.setattr(bills, "time", SimpleNamespace(monotonic=lambda: now[0],
                                                       process_time=lambda: clock[0]))  # fmt: skip
    made = Made(tmp_path)
    pauses = [made.meter.sample([10]) for _ in range(14)]
    assert pauses[0] == bills.FIRST
    assert pauses == sorted(pauses)
    assert pauses[-1] == bills.LAST
    assert all(b < 1.5 * a for a, b in zip(pauses, pauses[1:], strict=False))

    def read_slowly(_: list[int]) -> None:
        clock[0] += 0.03

    monkeypatch.setattr(made.meter, "read_all", read_slowly)
    for after, pause in ((0.1, bills.LAST), (4.0, 2.0), (12.0, 6.0), (100.0, 6.0)):
        now[0] = 100 + after
        assert made.meter.sample([10]) == pytest.approx(pause)


def test_throttling_counts_from_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the launch, not of the cgroup."""
    readings = [Throttling(5.0, 50), Throttling(7.5, 60)]
    monkeypatch.setattr(bills, "read_throttling", lambda _: readings.pop(0))
    made = Made(tmp_path)
    bill = made.close()
    assert bill.throttling == Throttling(2.5, 10)
    assert make_line(bill).endswith("; its cgroup was throttled for 2.50 s")
    assert bill.to_dict()["cgroup_throttled_periods"] == 10


@pytest.mark.parametrize(
    ("before", "after", "counted"),
    [
        (Throttling(5.0, 50), None, None),
        (None, Throttling(5.0, 50), None),
        (Throttling(5.0, 50), Throttling(5.0, 50), Throttling(0.0, 0)),
    ],
)
def test_a_cgroup_that_is_not_throttled(
    before: Throttling | None,
    after: Throttling | None,
    counted: Throttling | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Is not in the line; where the kernel does not say, it is not in the report either."""
    readings = [before, after]
    monkeypatch.setattr(bills, "read_throttling", lambda _: readings.pop(0))
    bill = Made(tmp_path).close()
    assert bill.throttling == counted
    assert "throttled" not in make_line(bill)


def test_the_line_says_what_was_seen(tmp_path: Path) -> None:
    """Where most of the threads were not, or not to their end."""
    made = Made(tmp_path)
    made.use(10, 10, 960, 1500, 1)
    made.meter.sample([10])
    text = "rank 3 used {} s of cpu time ({} user, 0.00 system), waited 1.50 s for a cpu"
    tail = "; 7 involuntary switches; 1 migration"
    assert make_line(made.close()) == text.format("1.00", "1.00") + tail
    seen = " (seen: threads with 48% of that time)"
    assert make_line(made.close(user=2.0)) == text.format("2.00", "2.00") + seen + tail
    line = text.format("2.00", "1.75").replace("0.00 system", "0.25 system")
    assert make_line(made.close(user=1.75, system=0.25)) == line + seen + tail
    assert made.close(user=0.0).observed is None
    assert make_line(made.close(user=0.0)) == text.format("0.00", "0.00") + tail
    assert made.close(user=0.5).observed == 1.0
    assert made.close(user=7.0).observed == 0.137
    made.use(10, 10, 1900, 1500, 1)
    made.meter.sample([10])
    assert make_line(made.close(user=2.0)) == text.format("2.00", "2.00") + tail  # just enough


def test_a_kernel_that_counts_no_migrations_of_some(tmp_path: Path) -> None:
    """As of threads that have exited meanwhile: the others' are counted."""
    made = Made(tmp_path)
    made.processes.add(10, masks=("0", "0"))
    made.use(10, 10, 100, 10, 3)
    made.use(10, 11, 100, 10)
    (tmp_path / "proc/10/task/11/sched").unlink()
    made.meter.sample([10])
    assert made.close().migrations == 3


def test_a_rank_that_was_not_measured(tmp_path: Path) -> None:
    """Has what the kernel returned with its exit."""
    bill = Made(tmp_path).close(pid=11)
    assert (bill.user, bill.faults) == (1.0, 1)
    assert (bill.waited, bill.migrations, bill.swap, bill.misplaced) == (None,) * 4


def test_the_object_of_a_rank(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Has all figures by these names, seconds to the microsecond; a signal is the shell's status
    and its number."""
    readings = [Throttling(1.0, 1), Throttling(1.1234567, 3)] * 3
    monkeypatch.setattr(bills, "read_throttling", lambda _: readings.pop(0))
    made = Made(tmp_path, nodes=2, mem="bind", mems=CpuSet([1]))
    made.processes.add(20, parent=10)
    made.use(10, 10, 250, 30, 2)
    made.write({"proc/10/numa_maps": MAPS.format(policy="bind:1", a=2, b=3),
                "proc/10/status": "A: 1\nVmSwap:\t 8 kB\n"})  # fmt: skip
    made.meter.sample([10])
    entry = made.close(user=0.75, system=0.25).to_dict()
    assert entry == {
        "rank": 3, "global_rank": 3, "name": "3", "pid": 10, "cpus": "0", "nodes": "0",
        "mem": "bind", "mems": "1", "status": 0, "signal": None, "remark": "dumped",
        "elapsed_seconds": 2.123457, "user_seconds": 0.75, "system_seconds": 0.25,
        "wait_seconds": 0.03, "wait_observed": 0.25, "voluntary_switches": 5,
        "involuntary_switches": 7, "migrations": 2, "major_faults": 1,
        "peak_memory_bytes": MIB, "swap_bytes": 8192, "misplaced_bytes": 3 * 4096,
        "cgroup_throttled_seconds": 0.123457, "cgroup_throttled_periods": 2,
    }  # fmt: skip
    made.meter.throttling = None
    for code, status, signal in ((-9, 137, 9), (3, 3, None)):
        entry = made.close(code=code).to_dict()
        assert (entry["status"], entry["signal"]) == (status, signal)
        assert (entry["cgroup_throttled_seconds"], entry["cgroup_throttled_periods"]) == (None,) * 2


def test_the_report_of_a_launch(tmp_path: Path) -> None:
    """Has its ranks in their order, in whatever order they ended, and its groups."""
    made = Made(tmp_path)
    other = made.close()
    made.rank = made.rank.replace(rank=1, group="a")
    made.close(code=3)
    host = SimpleNamespace(name="n1")
    group = SimpleNamespace(name="a", ranks=CpuSet([1, 3]), command=("w", "x"))
    plan: Any = SimpleNamespace(host=host, command=("w", "y"), groups=[group])
    made.meter.write(str(tmp_path / "report"), plan, 3, 4.1234567)
    text = (tmp_path / "report").read_text()
    report = json.loads(text)
    assert [rank["status"] for rank in report["ranks"]] == [3, 0]
    assert report.pop("ranks")[1] == other.to_dict()
    assert report == {
        "schema": 1, "host": "n1", "command": ["w", "y"],
        "groups": [{"name": "a", "ranks": "1,3", "command": ["w", "x"]}],
        "status": 3, "elapsed_seconds": 4.123457,
    }  # fmt: skip
    assert text.startswith('{\n "schema": 1,\n')
    assert text.endswith("}\n")


def test_a_report_is_whole_or_not_there(tmp_path: Path) -> None:
    """It takes the place of an older one; where it cannot be written, nothing is left."""
    path = tmp_path / "report.json"
    path.write_text("old and longer than the new one")
    write_report(str(path), "new")
    assert path.read_text() == "new"
    gone = tmp_path / "gone" / "x"
    with pytest.raises(OmpbindError, match="gone/x' cannot be written: No such file"):
        write_report(str(gone), "new")
    link = tmp_path / f"x.{os.getpid()}.part"
    link.symlink_to(path)
    with pytest.raises(OmpbindError, match="cannot be written: File exists"):
        write_report(str(tmp_path / "x"), "bad")
    assert path.read_text() == "new"
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    try:
        write_report(str(fifo), "to a reader")
        assert os.read(reader, 100) == b"to a reader"
    finally:
        os.close(reader)
    assert fifo.is_fifo()


def test_a_report_takes_the_place_of_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who reads that still reads all of it. It is as readable as any file that is made; where it
    cannot take the place, nothing is left of it."""
    path, old = tmp_path / "report", tmp_path / "old"
    path.write_text("old")
    os.link(path, old)
    write_report(str(path), "new")
    assert (path.read_text(), old.read_text()) == ("new", "old")
    assert path.stat().st_mode == old.stat().st_mode

    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(OmpbindError, match="cannot be written: Operation not permitted"):
        write_report(str(path), "newer")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["old", "report"]
    assert path.read_text() == "new"


# A worker on one cpu beside a child that needs 0.1 s of it: so long the worker, which never sleeps,
# must wait. It fills 48 MiB, and writes what it knows of itself before it exits.
WORKER = r"""
import json, os, resource, sys, time
pid = os.fork()
if pid == 0:
    while time.process_time() < 0.1:
        pass
    os._exit(0)
memory = bytearray(b"x") * (48 << 20)
while os.waitpid(pid, os.WNOHANG)[0] == 0:
    pass
ran, waited = open("/proc/self/schedstat").read().split()[:2]
both = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
with open(sys.argv[1] + os.environ["OMPBIND_RANK"], "w") as file:
    json.dump({
        "cpu": sum(u.ru_utime + u.ru_stime for u in both), "waited": int(waited) / 1e9,
        "involuntary": sum(u.ru_nivcsw for u in both), "peak": both[0].ru_maxrss * 1024,
    }, file)
sys.exit(3 * int(os.environ["OMPBIND_RANK"]))
"""


@linux
def test_what_a_worker_knows_of_itself_is_in_its_bill(tmp_path: Path) -> None:
    """Cpu time, waiting, switches and memory of two ranks on one cpu; -v has the same figures, and
    a rank's failure leaves the report whole."""
    report = tmp_path / "report"
    script = tmp_path / "worker.py"
    script.write_text(WORKER)
    done = ompbind_run(
        "run", "-v", "--report", f"{report}-%r", "--numa-bind-cpus", "0", "0", "--share",
        "--on-failure", "keep", "--no-neighbours", "--", sys.executable, "-I", "-S", str(script),
        str(tmp_path / "self-"),
    )  # fmt: skip
    assert done.returncode == 3, done.stderr
    whole = json.loads(Path(f"{report}-0").read_text())
    assert (whole["schema"], whole["status"], len(whole["ranks"])) == (1, 3, 2)
    assert whole["command"][-1] == str(tmp_path / "self-")
    for number, bill in enumerate(whole["ranks"]):
        own = json.loads((tmp_path / f"self-{number}").read_text())
        assert (bill["rank"], bill["status"], bill["cpus"]) == (number, 3 * number, "0")
        used = bill["user_seconds"] + bill["system_seconds"]
        # What is not in the worker's own figures is its exit, which frees its memory.
        assert own["cpu"] - 0.001 <= used <= own["cpu"] + 0.2
        assert bill["involuntary_switches"] >= own["involuntary"]
        assert bill["wait_seconds"] >= own["waited"] >= 0.05
        assert 0 < bill["wait_observed"] <= 1
        assert own["peak"] <= bill["peak_memory_bytes"] < own["peak"] + MIB
        assert own["peak"] >= 48 * MIB
        assert bill["elapsed_seconds"] >= used
        line = f"rank {number} used {used:.2f} s of cpu time ("
        assert sum(f"ompbind: {line}" in text for text in done.stderr.splitlines()) == 1
    starts = [f"ompbind: rank {n}: cpu 0 node 0 mem " for n in (0, 1)]
    assert [line[: len(starts[0])] for line in done.stderr.splitlines()[:2]] == starts


# A worker that takes nearly all cpu time from its cgroup, waits until that was throttled twice, and
# prints what the cgroup says of it.
THROTTLED = r"""
import os, sys
folder = sys.argv[1]
def limit(microseconds):
    one = os.path.exists(folder + "/cpu.cfs_quota_us")
    with open(folder + ("/cpu.cfs_quota_us" if one else "/cpu.max"), "w") as file:
        file.write(str(microseconds))
def throttled():
    lines = open(folder + "/cpu.stat").read().splitlines()
    return int(dict(line.split() for line in lines)["nr_throttled"])
before = throttled()
limit(1000)
while throttled() < before + 2:
    pass
limit(20000)
print(throttled() - before)
"""


@linux
def test_throttling_of_its_cgroup_is_in_a_bill(tmp_path: Path) -> None:
    """As the cgroup itself counts it."""
    script, report = tmp_path / "worker.py", tmp_path / "report"
    script.write_text(THROTTLED)
    with in_cgroup("cpu", {"cpu.max": "20000 20000"}) as under:
        done = ompbind_run(
            "run", "--report", str(report), "--", sys.executable, "-I", "-S", str(script),
            under[-1], under=under,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (bill,) = json.loads(report.read_text())["ranks"]
    assert bill["cgroup_throttled_periods"] >= int(done.stdout) >= 2
    assert bill["cgroup_throttled_seconds"] > 0
