"""Leases on cpus: what a launch holds, for how long, and what others see of it."""

from __future__ import annotations

import ast
import os
import resource
import select
import signal
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ompbind import host
from ompbind.cpuset import CpuSet, union
from ompbind.host import DESCRIPTOR, Lease, fill_gaps, find_leased, find_threads
from ompbind.host.holders import parse_held, read_lease, read_leases, read_takers
from ompbind.machine import read_machine
from ompbind.machine.roots import DirectoryRoot
from tests.support.commands import BINDERS, ompbind_run
from tests.support.leases import fork, make_cpus
from tests.support.needs import need_binder, need_cpus
from tests.support.trees import Shape, make_machine

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="leases are Linux's")
ROOT = DirectoryRoot("/")


@pytest.fixture
def cpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A directory of cpus that nobody else holds."""
    return make_cpus(tmp_path, monkeypatch)


def open_lease(text: str = "") -> Lease:
    lease = Lease.open()
    assert lease is not None
    assert lease.hold(CpuSet.parse_kernel(text))
    return lease


def test_others_see_what_is_held(cpus: str) -> None:
    """Whatever the order of the leases, and without those that they have themselves; of several
    that overlap, all; until the last one is closed."""
    first, second, third = open_lease("2-4,9"), open_lease("0,4-5"), open_lease("4")
    every = CpuSet(range(64))
    assert str(first.find_others(every)) == "0,4-5"
    assert str(second.find_others(every)) == "2-4,9"
    assert str(third.find_others(every)) == "0,2-5,9"
    assert str(open_lease().find_others(CpuSet([0, 1, 3, 10]))) == "0,3"
    third.close()
    second.close()
    assert not first.find_others(every)
    first.give_up(CpuSet([3]))
    assert str(open_lease().find_others(every)) == "2,4,9"


@given(st.lists(st.sets(st.integers(0, 40), max_size=12), max_size=5), st.sets(st.integers(0, 40)))
def test_any_sets(held: list[set[int]], asked: set[int]) -> None:
    """What is seen is the union of what others hold, of what is asked about."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(host, "CPUS", os.path.dirname(__file__))
        leases = [open_lease(str(CpuSet(s))) for s in held]
        mine = open_lease("0-40")
        assert mine.find_others(CpuSet(asked)) == CpuSet(asked & set().union(*held))
        for lease in [*leases, mine]:
            lease.close()


def test_a_lease_is_inherited_and_ends_with_the_last_process(cpus: str) -> None:
    """It outlives the process that took it, and is given up by the one that inherited it when that
    is killed: both without a word to anybody."""
    ready, tell = os.pipe()

    def become_two() -> None:
        lease = open_lease("1-3")
        assert lease.find_descriptor() == DESCRIPTOR
        assert lease.make_inheritable() == DESCRIPTOR
        lease.close()
        child = os.fork()
        if child == 0:
            os.execv("/bin/sleep", ["sleep", "1000"])
        os.write(tell, b"%d\n" % child)

    first = fork(become_two)
    child = int(os.read(ready, 20))
    assert os.waitpid(first, 0)[1] == 0
    watching = open_lease()
    assert str(watching.find_others(CpuSet(range(8)))) == "1-3"
    gone = os.pidfd_open(child)
    os.kill(child, signal.SIGKILL)
    select.select([gone], [], [])
    os.close(gone)
    assert not watching.find_others(CpuSet(range(8)))


def test_a_rank_finds_the_lease_of_its_launch(cpus: str) -> None:
    """Through the descriptor that it has inherited its own launch is nobody else."""
    assert Lease.find_inherited() is None
    lease = open_lease("0-3")
    descriptor = lease.make_inheritable()
    inherited = Lease.find_inherited()
    assert inherited is not None
    assert not inherited.find_others(CpuSet(range(8)))
    open_lease("2")
    assert str(inherited.find_others(CpuSet(range(8)))) == "2"
    os.close(descriptor)
    unrelated = os.open("/", os.O_RDONLY)
    os.dup2(unrelated, DESCRIPTOR)
    assert Lease.find_inherited() is None
    os.close(unrelated)
    os.close(DESCRIPTOR)


def test_with_a_thread_the_whole_core_is_held(cpus: str) -> None:
    """A plan on the other thread of a core meets the lease on the first."""
    machine = make_machine(Shape(cores=4, threads=2, numbering="halves"))
    open_lease("1,7")
    for asked, met in (("5", "1"), ("3", "7"), ("0,4,2,6", ""), ("0-7", "1,7")):
        assert str(find_leased(CpuSet.parse_kernel(asked), machine, None)) == met


def test_gaps_are_filled() -> None:
    """With the other threads of the cores, as far as no other rank has one in between."""
    spare = CpuSet.parse_kernel("1,3,5,7,9")
    for cpus, filled in (("0,2,4", "0-4"), ("0,6", "0,6"), ("0,2,6,8", "0-2,6-8"), ("", ""),
                         ("4", "4"), ("8,10", "8-10"), ("0,4,8", "0,4,8")):  # fmt: skip
        assert str(fill_gaps(CpuSet.parse_kernel(cpus), spare)) == filled


def test_where_there_are_no_leases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the directory, or without descriptors, there is none, and nothing stays open."""
    monkeypatch.setattr(host, "CPUS", str(tmp_path / "none"))
    assert Lease.open() is None
    assert not find_leased(CpuSet([0]), make_machine(Shape()), None)
    make_cpus(tmp_path, monkeypatch)

    def lack() -> None:
        lease = open_lease("1")
        resource.setrlimit(resource.RLIMIT_NOFILE, (200, 200))
        while (descriptor := lease.make_inheritable()) >= 0:
            assert descriptor < 200
        assert Lease.open() is None
        assert lease.find_descriptor() == -1

    assert os.waitpid(fork(lack), 0)[1] == 0


def test_the_kernel_says_who_has_leases(cpus: str) -> None:
    """By pid for all, with the cpus of a process whose descriptors may be read."""
    ready, tell = os.pipe()
    stay, go = os.pipe()

    def hold() -> None:
        os.close(go)
        open_lease("1,4-6").make_inheritable()
        os.write(tell, b".")
        os.read(stay, 1)

    pid = fork(hold)
    os.read(ready, 1)
    assert read_takers(ROOT) == [pid]
    assert sorted(map(str, read_leases(ROOT))) == ["1", "4-6"]
    assert str(read_lease(ROOT, pid)) == "1,4-6"
    assert read_lease(ROOT, os.getpid()) is None
    os.close(go)
    assert os.waitpid(pid, 0)[1] == 0
    assert read_takers(ROOT) == read_leases(ROOT) == []


@pytest.mark.parametrize(
    ("line", "lock"),
    [
        ("1: FLOCK  ADVISORY  READ 8686 00:16:3562 0 EOF", ("FLOCK", 8686, "")),
        ("2: OFDLCK ADVISORY  READ -1 00:16:3562 3 7", ("OFDLCK", 0, "3-7")),
        ("2: OFDLCK ADVISORY  READ -1 00:16:3562 1099511627776 1099511627776", ("OFDLCK", 0, "")),
        ("lock:\t2: OFDLCK ADVISORY  READ -1 00:16:3562 0 0", ("OFDLCK", 0, "0")),
        ("2: -> FLOCK  ADVISORY  READ 8 00:16:3562 0 EOF", None),
        ("3: FLOCK  ADVISORY  READ 30798 fe:00:3562 0 EOF", None),
        ("3: OFDLCK ADVISORY  READ -1 00:16:3562 7 3", ("OFDLCK", 0, "")),
        ("", None),
    ],
)
def test_lines_about_locks(line: str, lock: tuple[str, int, str] | None) -> None:
    """Of /proc/locks and of a descriptor's; what is waited for is not held."""
    locks = [(kind, pid, str(cpus)) for kind, pid, cpus in parse_held(line, "00:16:3562")]
    assert locks == ([lock] if lock else [])


# What a worker has open, what it holds, and what holds more than its cpus.
TELL = """
import os
number = os.environ["OMPBIND_RANK"]
fds = [fd for fd in sorted(map(int, os.listdir("/proc/self/fd")))
       if os.path.exists(f"/proc/self/fd/{fd}")]
locks = [ln.split()[-2:] for ln in open("/proc/self/fdinfo/240") if "OFDLCK" in ln]
pid, above = os.getppid(), []
while pid > 1 and len(above) < 3:
    above += [os.path.exists(f"/proc/{pid}/fd/240") for _ in "."]
    pid = int(open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()[1])
print(number, fds, locks, above, flush=True)
input()
"""


@pytest.mark.parametrize("binder", BINDERS)
def test_ranks_hold_their_cpus(binder: str) -> None:
    """Each its own, by one descriptor; the processes above them hold none."""
    need_binder(binder)
    first, second = need_cpus(2)
    code = ["--", sys.executable, "-I", "-S", "-c", TELL]
    lists = ["--numa-bind-cpus", str(first), str(second)]
    done = ompbind_run("run", "--binder", binder, "--stdin", "all", *lists, *code, stdin="\n\n")
    lines = sorted(done.stdout.splitlines())
    none = [False] * 3
    assert done.stderr == ""
    assert lines == [f"[{n}] {n} [0, 1, 2, 240] {[[str(c), str(c)]]} {none}"
                     for n, c in enumerate((first, second))]  # fmt: skip
    done = ompbind_run("run", "--binder", binder, lists[0], f"{first},{second}", *code, stdin="\n")
    runs = find_threads(CpuSet([first, second]), read_machine()).runs()  # whole cores
    locks = [[str(a), str(a + n - 1)] for a, n in runs]
    assert done.stdout.startswith(f"0 [0, 1, 2, 240] {locks} ")


def test_a_rank_has_what_its_roles_have_too() -> None:
    """Its threads will be there."""
    first, second = need_cpus(2)
    code = ["--", sys.executable, "-I", "-S", "-c", TELL]
    cpus = str(CpuSet([first, second]))
    done = ompbind_run("run", "--inherited", "ignore", "--role", "io=1", *code, stdin="\n")
    assert done.returncode == 0, done.stderr
    runs = ast.literal_eval(done.stdout.partition("240] ")[2].partition("]] ")[0] + "]]")
    held = union(CpuSet(range(int(start), int(end) + 1)) for start, end in runs)
    assert CpuSet.parse_kernel(cpus) <= held
