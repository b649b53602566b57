"""Who belongs to a rank, what speaks against binding it, and which pages are moved: by made-up
files of /proc, and a kernel that is made up."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ompbind.cpuset import CpuSet
from ompbind.errors import DeniedError, PlanError, UsageError
from ompbind.launch.running import STEP, Moved, PageMover
from ompbind.machine.processes import Memory, Process, Thread, is_kernel_thread
from ompbind.machine.regions import Region, find_policy, parse_regions, read_regions
from ompbind.planner import make_plan
from ompbind.rebind.conflicts import check_limits, find_places
from ompbind.rebind.families import Families, check_owner, find_named
from ompbind.rebind.pages import Migration, count_outside, find_nodes, find_other_nodes
from ompbind.verify.expected import Expected
from ompbind.verify.judge import judge
from tests.support.machines import MACHINES, make_asked
from tests.support.processes import Processes

ONLINE = CpuSet(range(8))
RANK = {"OMPBIND_RANK": "0", "OMPBIND_CPUS": "0-3"}


@pytest.fixture
def processes(tmp_path: Path) -> Processes:
    return Processes(tmp_path)


# --- families -----------------------------------------------------------------------------------


def make_families(processes: Processes, *pids: int) -> Families:
    return Families(processes.root, find_named(processes.root, pids))


def test_what_a_process_has_started_is_of_its_rank(processes: Processes) -> None:
    """To any depth, but not what was named itself: that is a rank, with all below it."""
    processes.add(10, environ={})
    processes.add(11, 10, {})
    processes.add(12, 11, {})
    processes.add(13, 12, {})
    processes.add(20, environ={})
    assert make_families(processes, 10).look() == [[10, 11, 12, 13]]
    assert make_families(processes, 12, 10, 20).look() == [[12, 13], [10, 11], [20]]


def test_a_process_stays_one_of_the_rank(processes: Processes) -> None:
    """It may lose its parents, and what it starts then is the rank's as well; a later process with
    the number of one that has exited is another's."""
    processes.add(10, environ={})
    processes.add(11, 10, {})
    processes.add(12, 11, {})
    families = make_families(processes, 10)
    assert families.look() == [[10, 11, 12]]
    processes.remove(11)
    processes.add(12, 1, {})
    processes.add(13, 12, {})
    processes.add(11, 1, {}, started=5)
    assert families.look() == [[10, 12, 13]]


def test_other_launches_have_plans_of_their_own(processes: Processes) -> None:
    """A rank of ompbind below a program that is named is not bound with it, nor what the rank
    starts; named itself, it is."""
    processes.add(10, environ={})
    processes.add(11, 10, RANK)
    processes.add(12, 11, RANK)
    processes.add(13, 10, {})
    families = make_families(processes, 10)
    assert families.look() == [[10, 13]]
    assert families.foreign == {11, 12}
    assert make_families(processes, 11).look() == [[11, 12]]


def test_a_launch_stands_for_its_ranks(processes: Processes) -> None:
    """The pid of an ompbind run of several ranks."""
    processes.add(10, environ={}, name="ompbind")
    processes.add(11, 10, {}, name="rank-watcher")
    processes.add(12, 11, {}, name="ompbind")
    processes.add(13, 12, RANK)
    processes.add(14, 12, RANK | {"OMPBIND_RANK": "1"})
    assert [p.pid for p in find_named(processes.root, [10])] == [13, 14]


def test_what_cannot_be_bound_is_refused(
    processes: Processes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Threads of the kernel, and what has exited or belongs to others."""
    processes.add(10, environ=None, name="kthreadd")
    stat = processes.path / "proc/10/stat"
    words = stat.read_text().split()
    words[8] = str(0x00200000 | 0x40)
    stat.write_text(" ".join(words))
    assert is_kernel_thread(processes.root, 10)
    processes.add(11, state="Z", masks=())
    with pytest.raises(UsageError, match=r"^pid 10 \(kthreadd\) is a thread of the kernel"):
        find_named(processes.root, [10])
    with pytest.raises(UsageError, match=r"^pid 11 has exited"):
        find_named(processes.root, [11])
    monkeypatch.setattr("os.geteuid", lambda: 1234)
    process = Process(12, name="w", user=987654)
    with pytest.raises(DeniedError, match=r"^pid 12 \(w\) belongs to user 987654, whose threads"):
        check_owner(processes.root, process)
    check_owner(processes.root, process.replace(user=1234))
    status = processes.path / "proc/self/status"
    status.parent.mkdir()
    status.write_text("Name:\tw\nCapEff:\t0000000000800000\n")
    check_owner(processes.root, process)
    status.write_text("Name:\tw\nCapEff:\t0000000000400000\n")
    with pytest.raises(DeniedError):
        check_owner(processes.root, process)


# --- what speaks against it ---------------------------------------------------------------------


def seen(masks: str, environ: str = "", *, gomp: bool = True, **more: object) -> Process:
    threads = [Thread(9 + n, "w", "S", CpuSet.parse_kernel(m), 0)
               for n, m in enumerate(masks.split())]  # fmt: skip
    pairs = tuple(word.split("=", 1) for word in environ.split())
    libraries = ("libc.so.6", *["libgomp.so.1"] * gomp)
    process = Process(9, name="w", threads=tuple(threads), libraries=libraries)
    return process.replace(environ=tuple((k, v) for k, v in pairs), **more)


@pytest.mark.parametrize(
    ("process", "text"),
    [
        (seen("0-7 0-7"), ""),
        (seen("0-7 0-7", "OMP_NUM_THREADS=4 OMP_PROC_BIND=false OMP_PLACES={0},{1}"), ""),
        (seen("0-7", "OMP_PLACES={0}", gomp=False), ""),
        (seen("0-7", "KMP_AFFINITY=disabled"), ""),
        (seen("0-7 3"), "1 of 2 threads has a place of its own, cpu 3"),
        (seen("0 1 2", gomp=False), "3 of 3 threads have places of their own, cpus 0-2"),
        (seen("0-7", "OMP_PLACES={0},{1}"), "its OpenMP runtime binds threads by OMP_PLACES="),
        (seen("0-7", "OMP_PROC_BIND=close"), "its OpenMP runtime binds threads by OMP_PROC_BIND="),
        (seen("0-7", "GOMP_CPU_AFFINITY=0-3"), "its OpenMP runtime binds threads by GOMP_CPU"),
    ],
)
def test_places_of_threads_are_seen(process: Process, text: str) -> None:
    """By masks that differ, or by what tells a runtime that is loaded to bind threads."""
    found = find_places(process, ONLINE)
    assert found.startswith(text) if text else found == ""


def test_a_cgroup_may_not_allow_a_plan() -> None:
    """Cpus and memory nodes; what it does not restrict is fine."""
    rank = make_plan(MACHINES["server"], make_asked(["--numa-bind-cpus", "0-3"])).ranks[0]
    check_limits(seen("0"), rank, CpuSet([1]))
    check_limits(seen("0", cpuset=CpuSet(range(4)), mems=CpuSet([1])), rank, CpuSet([1]))
    with pytest.raises(PlanError, match=r"rank 0: pid 9 \(w\) may not use cpus 2-3 of the"):
        check_limits(seen("0", cpuset=CpuSet([0, 1])), rank, CpuSet())
    with pytest.raises(PlanError, match="use memory node 1 of the plan: its cgroup allows 0"):
        check_limits(seen("0", mems=CpuSet([0])), rank, CpuSet([1]))


# --- memory -------------------------------------------------------------------------------------

NUMA_MAPS = """\
7f0000000000 default anon=12 dirty=12 N0=8 N1=4 kernelpagesize_kB=4
7f0000100000 bind:0 anon=2 dirty=2 N0=2 kernelpagesize_kB=4
7f0000200000 default file=/dev/shm/x dirty=5 N0=5 kernelpagesize_kB=4
7f0000300000 default heap anon=1 dirty=1 N0=1 kernelpagesize_kB=2048
7ffd00000000 default stack anon=4 dirty=4 N1=4 kernelpagesize_kB=4
garbage
"""
MAPS = """\
7f0000000000-7f000000c000 rw-p 00000000 00:00 0
7f0000100000-7f0000102000 rw-p 00000000 00:00 0
7f0000200000-7f0000205000 rw-s 00000000 00:00 0 /dev/shm/x
7f0000300000-7f0000500000 rw-p 00000000 00:00 0 [heap]
7ffd00000000-7ffd00004000 rw-p 00000000 00:00 0 [stack]
"""


def test_regions_are_read_with_their_ends(processes: Processes) -> None:
    """The policy, the size of pages and their nodes from numa_maps, the end from maps."""
    processes.add(10, environ={})
    (processes.path / "proc/10/numa_maps").write_text(NUMA_MAPS)
    (processes.path / "proc/10/maps").write_text(MAPS)
    regions = read_regions(processes.root, 10)
    assert [(r.end - r.start) // r.page for r in regions] == [12, 2, 5, 1, 4]
    assert [r.count_outside(CpuSet([1])) for r in regions] == [8, 2, 5, 1, 0]
    assert [r.is_file for r in regions] == [False, False, True, False, False]
    assert find_policy(regions) == "default"
    assert find_policy(regions[1:2]) == "bind:0"
    assert find_policy([]) == ""


def test_a_file_that_is_not_text() -> None:
    """Its name is as Python has the names of files, so that it can be compared with them."""
    regions = parse_regions(b"7f00 default file=/a\\040\xff.bin mapped=1 N0=1\n")
    assert [os.fsencode(region.file) for region in regions] == [b"/a \xff.bin"]


@given(st.binary())
def test_garbage_in_numa_maps_is_survived(data: bytes) -> None:
    """Of a kernel to come, or cut."""
    find_policy(list(parse_regions(data)))


def test_memory_elsewhere_is_counted_as_verify_does() -> None:
    """The process's own, under its own policy; the policy's own nodes are noted."""
    memory = Memory("bind:0", (("bind:0", 0, 100), ("bind:0", 1, 20), ("bind:3", 3, 7)), ((0, 9),))
    assert count_outside(memory, CpuSet([1])) == 100
    assert count_outside(memory, CpuSet()) == count_outside(None, CpuSet([1])) == 0
    assert find_other_nodes(memory, CpuSet([1])) == CpuSet([0])
    assert find_other_nodes(memory, CpuSet([0, 1])) == CpuSet()
    assert find_other_nodes(memory.replace(policy="prefer (many):x"), CpuSet([1])) == CpuSet()
    assert find_other_nodes(None, CpuSet([1])) == CpuSet()


def test_pages_go_to_the_nodes_of_the_cpus() -> None:
    """Where the plan has no policy with nodes of its own."""
    machine = MACHINES["server"]
    ranks = [make_plan(machine, make_asked(["--numa-bind-cpus", "0-3", *words])).ranks[0]
             for words in ([], ["--mem", "bind", "--mem-nodes", "1"])]  # fmt: skip
    assert [find_nodes(rank, machine) for rank in ranks] == [CpuSet([0]), CpuSet([1])]


class Kernel(PageMover):
    """Pages by address with their nodes; `stuck` ones cannot be moved, `huge` ones move with their
    first page."""

    def __init__(self, pages: dict[int, int], stuck: Sequence[int] = (), *, huge: int = 1) -> None:
        self.pages, self.stuck, self.huge = pages, stuck, huge
        self.sizes: list[int] = []

    def call(
        self, pid: int, addresses: Sequence[int], nodes: Sequence[int] | None = None
    ) -> list[int]:
        assert pid == 9
        self.sizes.append(len(addresses))
        if nodes is None:
            return [self.pages.get(a, -errno.ENOENT) for a in addresses]
        results = []
        for address, node in zip(addresses, nodes, strict=True):
            if address in self.stuck or address // 4096 % self.huge:
                results.append(-errno.EBUSY)
                continue
            self.pages |= {address + 4096 * n: node for n in range(self.huge)}
            results.append(node)
        return results


def region(count: int, **by_node: int) -> Region:
    pages = tuple((int(name[1:]), pages) for name, pages in by_node.items())
    return Region(0, "default", False, False, 4096, pages, 4096 * count)


def test_pages_are_moved_a_few_at_a_time() -> None:
    """Only those elsewhere, by turns to the nodes; no call has more than STEP."""
    kernel = Kernel({4096 * n: n % 2 for n in range(2 * STEP + 6)})
    moved = kernel.move_region(9, region(2 * STEP + 6, N0=STEP + 3, N1=STEP + 3), CpuSet([1]))
    assert moved == Moved((STEP + 3) * 4096)
    assert set(kernel.pages.values()) == {1}
    assert max(kernel.sizes) == STEP
    kernel = Kernel(dict.fromkeys(range(0, 400 * 4096, 4096), 0))
    assert kernel.move_region(9, region(400, N0=400), CpuSet([2, 5])) == Moved(400 * 4096)
    assert [list(kernel.pages.values()).count(n) for n in (2, 5)] == [200, 200]


def test_memory_that_is_only_reserved_is_not_walked() -> None:
    """Terabytes may be; what is there is counted, and the walk ends with it."""
    kernel = Kernel({4096 * n: 0 for n in range(10)})
    assert kernel.move_region(9, region(1 << 40, N0=10), CpuSet([1])) == Moved(10 * 4096)
    assert len(kernel.sizes) == 3


def test_pages_that_cannot_be_moved_are_counted() -> None:
    """With the reason; pages of a huge one count as moved with its first."""
    kernel = Kernel({4096 * n: 0 for n in range(8)}, stuck=[8192])
    assert kernel.move_region(9, region(8, N0=8), CpuSet([1])) == Moved(7 * 4096, 4096, errno.EBUSY)
    kernel = Kernel({4096 * n: 0 for n in range(1024)}, huge=512)
    assert kernel.move_region(9, region(1024, N0=1024), CpuSet([1])) == Moved(1024 * 4096)


def write_memory(processes: Processes, maps: str) -> None:
    (processes.path / "proc/9/numa_maps").write_text(maps)


@pytest.mark.parametrize(
    ("moved", "after", "result"),
    [
        (Moved(12 * 4096), NUMA_MAPS.replace("N0=8 N1=4", "N1=12"), Moved(12 * 4096)),
        # A huge page took along what another call would have moved.
        (Moved(4096), NUMA_MAPS.replace("N0=8 N1=4", "N1=12"), Moved(8 * 4096)),
        (Moved(0, 8 * 4096, errno.EBUSY), NUMA_MAPS, Moved(0, 8 * 4096, errno.EBUSY)),
    ],
)
def test_what_was_moved_is_what_is_elsewhere_no_more(
    processes: Processes, moved: Moved, after: str, result: Moved
) -> None:
    """Of the regions of the process's own memory, those for which it has no policy of their own;
    what cannot be moved at once is tried again."""
    processes.add(9, environ={})
    write_memory(processes, NUMA_MAPS.replace("heap anon=1 dirty=1 N0=1", "heap"))
    (processes.path / "proc/9/maps").write_text(MAPS)
    starts: list[int] = []

    class Mover(PageMover):
        def __init__(self) -> None:
            pass

        def move_region(self, pid: int, region: Region, nodes: CpuSet) -> Moved:
            assert (pid, nodes) == (9, CpuSet([1]))
            starts.append(region.start)
            write_memory(processes, after.replace("heap anon=1 dirty=1 N0=1", "heap"))
            return moved

    migration = Migration(processes.root)
    migration.mover = Mover()
    assert migration.move(9, CpuSet([1])) == result
    assert starts == [0x7F0000000000] * (2 if moved.left else 1)
    assert migration.move(8, CpuSet([1])) == migration.move(9, CpuSet()) == Moved()


def test_a_rebound_process_keeps_its_policy() -> None:
    """What nobody can change is no difference: its policy; memory on the wrong node is one."""
    expected = Expected(0, CpuSet([1]), (), "", None, "bind", CpuSet([1]), rebound=True)
    size = 8 << 20
    for node, kinds in ((1, []), (0, ["memory"])):
        memory = Memory("default", (("default", node, size),))
        report = judge(seen("1 1", "GOMP_CPU_AFFINITY=0", memory=memory), expected, ONLINE)
        assert [d.kind for d in report.differences] == kinds
    report = judge(seen("1 1", memory=memory), expected.replace(rebound=False), ONLINE)
    assert "policy" in [d.kind for d in report.differences]
