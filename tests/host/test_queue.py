"""Taking cpus that nobody else holds: many launches at once, in turn, and killed."""

from __future__ import annotations

import fcntl
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from ompbind import host
from ompbind.cpuset import CpuSet
from ompbind.errors import OmpbindError, PlanError
from ompbind.host import Lease, find_leased, queue
from ompbind.machine.topology import Machine
from ompbind.planner.free import choose_free
from ompbind.planner.request import Pool, Request
from tests.support.leases import count_waiting, end_holder, fork, fork_holder, make_cpus
from tests.support.trees import Shape, make_machine

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="leases are Linux's")


@pytest.fixture
def cpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A directory of cpus that nobody else holds."""
    return make_cpus(tmp_path, monkeypatch)


@pytest.fixture(scope="module")
def machine() -> Machine:
    """2 packages of 2 nodes with 2 caches of 8 cores each."""
    return make_machine(Shape(packages=2, nodes=4, l3s=8, cores=64))


def take(
    machine: Machine,
    count: int,
    wait: float | None,
    lease: Lease | None = None,
    say: Callable[[], None] = lambda: None,
) -> CpuSet:
    """Hold so many free cores until this process exits; `say` is called when they are chosen."""
    lease = lease or Lease.open()
    assert lease is not None
    lease.make_inheritable()  # stays open with the process

    def look() -> CpuSet:
        held = find_leased(machine.topology.online, machine, lease)
        chosen = choose_free(machine, Request(free=Pool("", count)), held)
        say()
        return chosen

    return queue.take(lease, look, "x", wait=wait)


def choose_first(lease: Lease, count: int) -> CpuSet:
    """The first so many cpus of 64 that nobody holds."""
    every = CpuSet(range(64))
    free = list(every - lease.find_others(every))
    if len(free) < count:
        raise PlanError("too few")
    return CpuSet(free[:count])


def lock_line() -> int:
    """Be the first of those who wait, until the descriptor is closed."""
    line = queue.open_directory(os.path.dirname(os.path.dirname(host.CPUS)))
    fcntl.flock(line, fcntl.LOCK_EX)
    return line


class Log:
    """A file to which processes append what they do, each line in one write."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def write(self, *words: object) -> None:
        os.write(self.fd, f"{' '.join(map(str, words))}\n".encode())

    def lines(self) -> list[list[str]]:
        return [line.split() for line in self.path.read_text().splitlines()]


def judge(lines: list[list[str]], machine: Machine) -> int:
    """Read who took and dropped what, and when: nobody two at a time. Returns how many cpus were
    held at most. A taking is written after it, a dropping before it."""
    held: dict[str, set[int]] = {}
    most = 0
    for verb, pid, *numbers in lines:
        if verb == "drops":
            del held[pid]
            continue
        cpus = set(map(int, numbers))
        assert cpus
        assert cpus <= set(machine.topology.online)
        for other in held.values():
            assert not cpus & other
        held[pid] = cpus
        most = max(most, sum(map(len, held.values())))
    return most


def test_two_hundred_at_once(cpus: str, machine: Machine, tmp_path: Path) -> None:
    """None overlaps, none waits for ever, and all get what they asked for; also when some are
    killed while they hold cores, and some while they wait."""
    log = Log(tmp_path / "log")
    choose = random.Random(1)
    counts = [choose.choice((1, 1, 2, 4, 8, 16)) for _ in range(200)]
    barrier, start = os.pipe()

    def launch(count: int, killed: str) -> None:
        os.close(start)
        os.read(barrier, 1)
        if killed == "waiting":
            lease = Lease.open()
            assert lease is not None
            queue.mark_waiting(lease, waiting=True)
            lock_line()
            os.kill(os.getpid(), signal.SIGKILL)
        lease = Lease.open()
        assert lease is not None
        taken = queue.take(lease, partial(choose_first, lease, count), "x", wait=float("inf"))
        assert len(taken) == count
        log.write("takes", os.getpid(), *taken)
        time.sleep(0.01)  # so that others meet it; nothing depends on how long
        log.write("drops", os.getpid())
        if killed == "holding":
            os.kill(os.getpid(), signal.SIGKILL)

    deaths = {3: "holding", 40: "holding", 77: "waiting", 120: "holding", 160: "waiting"}
    pids = [fork(partial(launch, n, deaths.get(i, ""))) for i, n in enumerate(counts)]
    os.close(barrier)
    os.close(start)  # now
    statuses = [os.waitpid(pid, 0)[1] for pid in pids]
    assert [s for i, s in enumerate(statuses) if i not in deaths] == [0] * 195
    assert all(statuses[i] == signal.SIGKILL for i in deaths)
    assert len(log.lines()) == 2 * 198
    assert judge(log.lines(), machine) >= 16  # several at a time
    lease = Lease.open()
    assert lease is not None
    assert not lease.find_others(machine.topology.online)


def test_at_once_without_waiting(cpus: str, machine: Machine, tmp_path: Path) -> None:
    """As many get cores as there are cores, and the others are refused."""
    log = Log(tmp_path / "log")
    barrier, start = os.pipe()
    stay, end = os.pipe()

    def launch() -> None:
        os.close(start)
        os.close(end)
        os.read(barrier, 1)
        try:
            log.write("takes", os.getpid(), *take(machine, 4, None))
        except PlanError as e:
            assert e.message.startswith("--free 4: 0 of 64 cores are free; others hold cpus 0-63")
            log.write("refused", os.getpid())
        os.read(stay, 1)

    pids = [fork(launch) for _ in range(24)]
    os.close(barrier)
    os.close(start)
    while len(log.lines()) < 24:
        time.sleep(0.01)
    os.close(end)
    assert {os.waitpid(pid, 0)[1] for pid in pids} == {0}
    takes = [line for line in log.lines() if line[0] == "takes"]
    assert len(takes) == 16
    assert judge(takes, machine) == 64


def wait_for(condition: Callable[[], bool]) -> None:
    while not condition():
        time.sleep(0.005)


def test_nobody_is_overtaken(cpus: str, machine: Machine, tmp_path: Path) -> None:
    """Those who wait get cores in the order in which they came: a large request before the small
    ones behind it, although there were cores for these; and before one that does not wait."""
    log = Log(tmp_path / "log")
    line = os.path.dirname(os.path.dirname(host.CPUS))
    holder = fork_holder(lambda: take(machine, 8, None))

    def launch(name: str, count: int) -> None:
        take(machine, count, float("inf"), say=lambda: log.write(name))

    pids = [fork(partial(launch, "large", 60))]
    watching = Lease.open()
    assert watching is not None
    wait_for(lambda: queue.is_awaited(watching))
    for waiting, count in enumerate((1, 2, 1, 56, 3), 1):
        pids.append(fork(partial(launch, f"small{waiting}", count)))
        wait_for(lambda n=waiting: count_waiting(line) == n)  # type: ignore[misc]
    with pytest.raises(PlanError, match="wait for free cpus, and come first"):
        queue.take(watching, lambda: CpuSet([60]), "x")
    watching.close()
    assert log.lines() == []
    end_holder(*holder)
    assert {os.waitpid(pid, 0)[1] for pid in pids} == {0}
    names = ["large", "small1", "small2", "small3", "small4", "small5"]
    assert log.lines() == [[name] for name in names]


def test_the_time_to_wait_ends(cpus: str, machine: Machine) -> None:
    """With the reason why there was nothing, for the first in line and for those behind it; the
    alarm of whoever called is put back."""
    holder = fork_holder(lambda: take(machine, 63, None))
    lease = Lease.open()
    assert lease is not None

    def look() -> CpuSet:
        held = find_leased(machine.topology.online, machine, lease)
        return choose_free(machine, Request(free=Pool("", 2)), held)

    before = signal.signal(signal.SIGALRM, ring)
    try:
        reason = "--free 2: 1 of 64 cores is free; others hold cpus 0-62; the time of --wait=0.1 is"
        with pytest.raises(PlanError, match=reason):
            queue.take(lease, look, "x", wait=0.1)
        line = lock_line()
        with pytest.raises(PlanError, match=r"others have waited longer .*; .*=0 is over"):
            queue.take(lease, look, "x", wait=0.0)
        os.close(line)
        assert queue.take(lease, lambda: CpuSet([63]), "x", wait=5.0) == CpuSet([63])
        assert signal.getsignal(signal.SIGALRM) is ring
        assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
    finally:
        signal.signal(signal.SIGALRM, before)
        lease.close()
        end_holder(*holder)


def ring(*_: object) -> None:
    raise AssertionError("nobody set an alarm")


def test_a_locked_door(cpus: str, machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """One who never opens it again keeps nobody for long who does not wait: an error names it."""
    monkeypatch.setattr(queue, "PATIENCE", 0.05)
    door = queue.lock_door(None)
    with pytest.raises(OmpbindError, match=r"another process has locked .*/system for 0.05 s"):
        take(machine, 1, None)
    os.close(door)
    os.rename(os.path.dirname(host.CPUS), f"{os.path.dirname(host.CPUS)}-gone")
    with pytest.raises(OmpbindError, match=r"cpus cannot be taken here: .* No such"):
        take(machine, 1, None, Lease(os.open("/", os.O_RDONLY)))


def test_a_launch_that_asks_nobody(cpus: str, machine: Machine) -> None:
    """One that holds its cpus through no door, at the moment in which they are taken: others are
    taken in their place."""
    others = Lease.open()
    mine = Lease.open()
    assert others is not None
    assert mine is not None
    asked: list[CpuSet] = []

    def look() -> CpuSet:
        held = find_leased(machine.topology.online, machine, mine)
        if not asked:
            others.hold(CpuSet([1]))
        asked.append(held)
        return choose_free(machine, Request(free=Pool("", 2)), held)

    assert str(queue.take(mine, look, "x")) == "0,2"
    assert str(asked[1]) == "1"
    assert str(others.find_others(machine.topology.online)) == "0,2"
    mine.close()
    others.close()
