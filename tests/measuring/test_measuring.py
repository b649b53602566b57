"""What is measured of a machine: with figures that are given, so that no test depends on time, and
once with real processes, which are looked at from outside."""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ompbind.cpuset import CpuSet
from ompbind.errors import TopologyError
from ompbind.launch.crew import Crew, CrewEnded, TaskError
from ompbind.machine import read_machine
from ompbind.machine.measurement import Measurement, find_fastest, find_spread, group_figures
from ompbind.machine.topology import Cache, Machine
from ompbind.measuring import Procedure, choose_lines, measure_machine, read_room
from ompbind.measuring.figures import count_rounds, make_figures
from ompbind.measuring.work import SMALL, STRIDE, Block, Worker, make_ring, start_crew
from ompbind.render.measurement import describe_cores, make_access_rows
from tests.support.machines import MACHINES, make_machine
from tests.support.trees import MemoryRoot, Shape, cgroup2_files

Rates = Callable[[int], float]


class FakeCrew(Crew):
    """Processes that answer at once with what a machine of these speeds would take, give or take
    the jitter."""

    def __init__(
        self,
        alone: Rates,
        together: Rates | None = None,
        latency: Callable[[int, int], float] = lambda node, memory: 1e-7,
        *,
        node_of: Rates = lambda position: 0,
        jitter: float = 0.01,
        share: Rates = lambda position: 1.0,
        denied: Sequence[int] = (),
        drift: float = 0.0,
    ) -> None:
        """Steps in a second of each position; `share`: of its time that a process has its core;
        `drift`: by how much everything becomes slower with each task."""
        self.alone, self.together = alone, together or alone
        self.latency, self.node_of, self.share = latency, node_of, share
        self.jitter, self.denied, self.drift = jitter, denied, drift
        self.chance, self.tasks = Random(7), 0
        self.nodes: dict[tuple[int, float], float] = {}

    def __call__(self, cpus: Sequence[CpuSet], lines: int) -> FakeCrew:
        self.cpus, self.lines = cpus, lines
        return self

    def end(self) -> None:
        self.cpus = ()

    def ask(self, positions: Sequence[int], name: str, *numbers: float) -> list[list[float]]:
        self.tasks += 1
        return [self.answer(position, name, *numbers) for position in positions]

    def vary(self, seconds: float) -> float:
        slower = 1 + self.tasks * self.drift
        return seconds * slower * (1 + self.jitter * self.chance.uniform(-1, 1))

    def answer(self, position: int, name: str, *numbers: float) -> list[float]:
        share = self.share(position)
        if name == "spin":
            used = self.vary(numbers[0] / self.alone(position))
            return [used, used / share]
        if name == "spin_for":
            used = numbers[0] * share
            return [self.together(position) * self.vary(used), used, numbers[0]]
        if name == "place":
            if numbers[1] in self.denied:
                raise TaskError("Operation not permitted")
            self.nodes[position, numbers[0]] = numbers[0] // 3
            return []
        memory = self.nodes[position, numbers[0]]
        seconds = self.latency(int(self.node_of(position)), int(memory))
        if name == "read":
            return [self.vary(self.lines * 64 * seconds / 1e3), 1.0]
        if name == "read_for":
            used = numbers[1] * share
            return [1e3 / seconds * used, used, numbers[1]]
        assert name == "walk"
        near = numbers[1] * 2e-8
        return [near + self.vary(numbers[1] * seconds), near]


def measured(machine: Machine, crew: FakeCrew, files: dict[str, str] | None = None) -> Measurement:
    root = MemoryRoot(files or {})
    return measure_machine(machine, lambda _: None, make_crew=crew, seed=1, root=root)


HYBRID = MACHINES["hybrid"]  # 4 cores of two threads, 8 of one
TWO_NODES = make_machine(Shape(nodes=2, packages=2, cores=8, memory_only=(2,)))


def test_faster_cores_are_told_apart() -> None:
    """By what they do, with both hardware threads; the fastest first, whatever drifts meanwhile."""
    crew = FakeCrew(lambda n: 2e7 if n < 4 else 1.5e7, drift=0.001, jitter=0.02)
    measurement = measured(HYBRID, crew)
    assert [str(cpus) for cpus in find_fastest(measurement)] == ["0-7", "8-15"]
    lines = describe_cores(measurement)
    assert lines[0].startswith("cpus 0-7: ")
    assert lines[0].endswith(" (fastest)")
    assert len(lines) == 2


def test_cores_that_are_faster_only_when_all_are_busy() -> None:
    """Priority cores keep their frequency then: that decides."""
    crew = FakeCrew(lambda n: 2e7, lambda n: 2e7 if n in (0, 1) else 1.6e7)
    assert [str(c) for c in find_fastest(measured(HYBRID, crew))] == ["0-3", "4-15"]
    crew = FakeCrew(lambda n: 2e7 if n == 5 else 1.6e7, lambda n: 1.6e7)
    assert str(find_fastest(measured(HYBRID, crew))[0]) == "9"


def test_cores_that_are_alike() -> None:
    """Said with how far apart they may be."""
    measurement = measured(HYBRID, FakeCrew(lambda n: 2e7))
    assert [str(cpus) for cpus in find_fastest(measurement)] == ["0-15"]
    assert find_spread(measurement, CpuSet(range(16))) < 1.05
    assert describe_cores(measurement)[1].startswith("the 12 cores are equally fast, within ")
    assert measurement.notes == ()


def test_noise_tells_nothing_apart() -> None:
    """Cores whose intervals overlap are not called faster, and it is said that nobody could."""
    crew = FakeCrew(lambda n: 2e7 if n < 4 else 1.8e7, jitter=0.5)
    measurement = measured(HYBRID, crew)
    assert len(find_fastest(measurement)) == 1
    assert "could not tell which of the 12 cores are faster" in describe_cores(measurement)[1]


def test_a_core_that_others_use_may_be_faster_than_it_was() -> None:
    """It is never called slower; one that was faster all the same is."""
    crew = FakeCrew(lambda n: 2e7 if n < 4 else 1.5e7, share=lambda n: 1.0 if n < 4 else 0.6)
    measurement = measured(HYBRID, crew)
    assert len(find_fastest(measurement)) == 1
    assert measurement.notes[0] == "cores alone: other processes took up to 40% of cpus 8-15"
    assert "while nothing else runs" in describe_cores(measurement)[1]
    crew = FakeCrew(lambda n: 2e7 if n < 4 else 1.5e7, share=lambda n: 0.6 if n < 4 else 1.0)
    assert str(find_fastest(measured(HYBRID, crew))[0]) == "0-7"


def test_memory_node_by_node() -> None:
    """Each node's cores with each node's memory, also that of a node without cpus."""

    def latency(node: int, memory: int) -> float:
        return {(0, 0): 1e-7, (1, 1): 1e-7, (0, 2): 4e-7, (1, 2): 3e-7}.get((node, memory), 2e-7)

    crew = FakeCrew(lambda n: 2e7, latency=latency, node_of=lambda n: n // 4)
    measurement = measured(TWO_NODES, crew)
    got = {(a.node, a.memory): a for a in measurement.accesses}
    assert sorted(got) == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]
    for pair, access in got.items():
        assert access.latency is not None
        assert access.together is not None
        assert access.latency.value == pytest.approx(latency(*pair), rel=0.03)
        assert access.bandwidth.value == pytest.approx(1e3 / latency(*pair), rel=0.03)
        assert access.together.value == pytest.approx(4e3 / latency(*pair), rel=0.03)
    rows = make_access_rows(measurement).rows
    assert [row.cells[:2] for row in rows][2] == ("0", "2")
    assert crew.cpus == ()  # ended


def test_what_cannot_be_measured_is_said() -> None:
    """Memory that the kernel denies, cores under a quota, cpus that are not allowed, caches larger
    than what is read, samples that others disturbed."""
    machine = TWO_NODES.replace(
        allowed=TWO_NODES.allowed.replace(cpus=CpuSet(range(4)), quota=2.0),
        caches=(Cache("L3", 1 << 30, CpuSet(range(4))),),
    )
    crew = FakeCrew(lambda n: 2e7, denied=(2,), share=lambda n: 0.5)
    measurement = measured(machine, crew)
    assert all(core.together is None for core in measurement.cores)
    assert {a.memory for a in measurement.accesses} == {0, 1}
    assert all(a.together is None for a in measurement.accesses)
    notes = "\n".join(measurement.notes)
    assert "memory of node 2 not measured: Operation not permitted" in notes
    assert "the cgroup's quota is worth 2 cpus: all cores together not measured" in notes
    assert "cpus 4-7 not allowed, and not measured" in notes
    assert "a cache holds 1.0 GiB: the figures are partly the cache's" in notes
    assert "as other processes took a part of the cores' time" in notes
    hidden = MACHINES["hidden"]
    assert "memory not measured" in measured(hidden, FakeCrew(lambda n: 2e7)).notes[0]


def test_a_machine_that_cannot_be_measured_is_refused() -> None:
    """One whose system binds nothing, and one that denies the processes."""
    with pytest.raises(TopologyError, match="binds no process to a core"):
        measured(HYBRID.replace(can_bind=False), FakeCrew(lambda n: 2e7))

    class Dead(FakeCrew):
        def ask(self, positions: Sequence[int], name: str, *numbers: float) -> list[list[float]]:
            raise TaskError("a process has ended")

    with pytest.raises(TopologyError, match="cannot be measured: a process has"):
        measured(HYBRID, Dead(lambda n: 2e7))

    class Dying(FakeCrew):
        def answer(self, position: int, name: str, *numbers: float) -> list[float]:
            if name == "place":
                raise CrewEnded("a process has ended")
            return super().answer(position, name, *numbers)

    with pytest.raises(TopologyError, match="cannot be measured: a process has"):
        measured(TWO_NODES, Dying(lambda n: 2e7))


@pytest.mark.skipif(sys.platform != "linux", reason="forks")
@pytest.mark.parametrize("dies", [0, 1])
def test_answers_of_a_crew_that_lost_a_process_are_not_mixed_up(dies: int) -> None:
    """What the others still answer is read before the death is reported."""
    cpus = CpuSet([min(os.sched_getaffinity(0))])

    def perform(name: str, numbers: list[float]) -> list[float]:
        return [*numbers, len(name)]

    with Crew([cpus] * 3, lambda: perform) as crew:
        assert crew.ask([0, 1, 2], "add", 5) == [[5, 3]] * 3
        os.kill(crew.members[dies].pid, 9)
        for _ in range(2):
            with pytest.raises(CrewEnded, match="a process has ended"):
                crew.ask([0, 1, 2], "multiply", 1)
        assert crew.ask([2, 1 - dies], "add", 5) == [[5, 3]] * 2


@pytest.mark.skipif(sys.platform != "linux", reason="forks")
@pytest.mark.parametrize("dies", [False, True])
def test_a_crew_ends_where_sigchld_is_ignored(dies: bool) -> None:
    """The kernel has reaped its processes then; what they did is not lost."""
    cpus = CpuSet([min(os.sched_getaffinity(0))])
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        with Crew([cpus] * 2, lambda: lambda _, numbers: numbers) as crew:
            assert crew.ask([0, 1], "return", 5) == [[5]] * 2
            pids = [member.pid for member in crew.members]
            if dies:
                os.kill(pids[0], signal.SIGKILL)
                with pytest.raises(ChildProcessError):
                    os.waitpid(pids[0], 0)  # returns when it is gone
        for pid in pids:
            with pytest.raises(ProcessLookupError):
                os.kill(pid, 0)
    finally:
        signal.signal(signal.SIGCHLD, before)


@given(st.lists(st.floats(0.5, 2), min_size=20, max_size=20), st.floats(1.2, 3))
def test_a_drift_hides_no_difference(drift: list[float], ratio: float) -> None:
    """Whatever happens to all of them, one that is always faster is told apart, by that ratio."""
    rounds = [{"slow": level, "fast": level * ratio, "like": level} for level in drift]
    figures = make_figures(rounds)
    assert group_figures(figures)[0] == ["fast"]
    assert set(group_figures(figures)[1]) == {"slow", "like"}
    assert figures["fast"].value / figures["slow"].value == pytest.approx(ratio)


def test_rounds_are_enough_for_intervals() -> None:
    """Of as many things as there are; within the budget, or as few as will do."""
    for things in (1, 2, 16, 128, 1024):
        for seconds in (1e-6, 1.0):
            count = count_rounds(things, seconds, 4.0)
            rounds = [dict.fromkeys(range(things), 1.0)] * count
            assert all(f.low is not None for f in make_figures(rounds).values())
    assert count_rounds(2, 1.0, 4.0) < count_rounds(2, 1e-6, 4.0) <= 2 * count_rounds(2, 1.0, 4.0)
    assert make_figures([{"a": 1.0}])["a"].low is None
    single = make_figures([{"a": 1.0 + n / 100} for n in range(20)])["a"]
    assert single.low is not None
    assert 1.0 <= single.low < single.value < 1.19  # of one thing the spread is not lost


def test_memory_is_not_exhausted() -> None:
    """The ring is twice the largest cache, unless that is more than an eighth of the memory."""
    machine = TWO_NODES.replace(caches=(Cache("L3", 48 << 20, CpuSet(range(4))),))
    nodes = tuple(n.replace(memory_bytes=1 << 36) for n in machine.topology.nodes)
    large = machine.replace(topology=machine.topology.replace(nodes=nodes))
    room = read_room(large, MemoryRoot({}))
    assert choose_lines(large, (1 << 20, 1 << 22), room) == (1 << 21, [])
    nodes = tuple(n.replace(memory_bytes=256 << 20) for n in machine.topology.nodes)
    small = machine.replace(topology=machine.topology.replace(nodes=nodes))
    lines, notes = choose_lines(small, (1 << 20, 1 << 22), read_room(small, MemoryRoot({})))
    assert lines * 64 * 2 * 9 <= (3 * 256 << 20) // 8
    assert "partly the cache's" in notes[0]


def make_meminfo(node: int, free: int) -> dict[str, str]:
    """A node of 64 GiB of which so many MiB are free."""
    path = f"sys/devices/system/node/node{node}/meminfo"
    return {path: f"Node {node} MemTotal: {64 << 20} kB\nNode {node} MemFree: {free << 10} kB\n"}


class CountingCrew(FakeCrew):
    """It counts the bytes that are placed."""

    placed = 0

    def answer(self, position: int, name: str, *numbers: float) -> list[float]:
        if name == "place":
            self.placed += int(numbers[2])
        return super().answer(position, name, *numbers)


@pytest.mark.parametrize("limited", [True, False])
def test_only_memory_that_is_available_is_taken(limited: bool) -> None:
    """A small part of what the cgroup's limit leaves and of what is free, whatever is in all."""
    files: dict[str, str] = {}
    for node in range(3):
        files |= make_meminfo(node, 63 << 10 if limited else 256)
    if limited:
        files |= cgroup2_files("/a") | {
            "sys/fs/cgroup/a/memory.max": f"{1 << 30}\n",
            "sys/fs/cgroup/a/memory.current": f"{256 << 20}\n",
        }
    crew = CountingCrew(lambda n: 2e7)
    measurement = measured(TWO_NODES, crew, files)
    assert len(measurement.accesses) == 6
    assert 0 < crew.placed <= 2 * (768 << 20) // 8


def test_a_node_with_too_little_memory_left_is_left_out() -> None:
    """Taking its last would end those who are bound to it; it is said."""
    files = make_meminfo(0, 8 << 10) | make_meminfo(1, 8 << 10) | make_meminfo(2, 100)
    measurement = measured(TWO_NODES, FakeCrew(lambda n: 2e7), files)
    assert {a.memory for a in measurement.accesses} == {0, 1}
    [note] = measurement.notes
    assert re.fullmatch(
        r"memory of node 2 not measured: \S+ MiB must be available, and 100 MiB are", note
    )
    files = make_meminfo(0, 0) | make_meminfo(1, 0) | make_meminfo(2, 0)
    assert measured(TWO_NODES, FakeCrew(lambda n: 2e7), files).accesses == ()


def test_a_ring_goes_through_every_line() -> None:
    """Once, and back to where it began."""
    ring = make_ring(SMALL)
    seen, at = [], 0
    for _ in range(SMALL):
        seen.append(at)
        at = ring[at // STRIDE]
    assert at == 0
    assert sorted(seen) == [n * STRIDE for n in range(SMALL)]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_processes_measure_and_leave_nothing_behind() -> None:
    """Each is pinned to its core; all figures are there; none of them lives on, also after an
    error."""
    machine = read_machine(details=True, devices=False)
    pids: list[int] = []

    class Watched(Crew):
        def __enter__(self) -> Crew:
            for member, cpus in zip(self.members, self.given, strict=True):
                self.ask([self.members.index(member)], "spin", 10)
                status = Path(f"/proc/{member.pid}/status").read_text()
                assert f"\nCpus_allowed_list:\t{cpus}\n" in status
                assert Path(f"/proc/{member.pid}/oom_score_adj").read_text() == "1000\n"
                pids.append(member.pid)
            return self

        def __init__(self, cpus: Sequence[CpuSet], lines: int) -> None:
            self.given = cpus
            ring = make_ring(lines)
            super().__init__(cpus, lambda: Worker(ring).perform)

    quick = Procedure(sample=1e-4, together=1e-3, reading=1e-3, steps=100, budget=0.0,
                      lines=(1024, 1024))  # fmt: skip
    said: list[str] = []
    result = measure_machine(machine, said.append, quick, Watched)
    assert {cpu for core in result.cores for cpu in core.cpus} == set(machine.allowed.cpus)
    assert all(core.alone.value > 0.1 for core in result.cores)
    assert said[0].startswith("each core alone, round 1 of ")
    assert len(pids) == len(result.cores)

    def fail(text: str) -> None:
        raise RuntimeError(text)

    with pytest.raises(RuntimeError, match="round 1"):
        measure_machine(machine, fail, quick, Watched)
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    with start_crew([CpuSet([machine.allowed.cpus.first])], 1024) as crew:
        with pytest.raises(TaskError, match=r".+"):
            crew.ask([0], "place", 0, 1023, 4096, 0)  # no machine has so many nodes
        os.kill(crew.members[0].pid, 9)
        with pytest.raises(TaskError, match="has ended"):
            crew.ask([0], "spin", 1)


def test_a_worker_s_tasks() -> None:
    """What each returns, in this process: times are positive, bytes are whole blocks."""
    worker = Worker(make_ring(1024))
    worker.perform("place", [0, -1, 1 << 16, 1])
    worker.perform("place", [1, -1, 1 << 16, 0])
    assert all(t >= 0 for t in worker.perform("spin", [100]))
    for task in ("spin_for 0", "read_for 1 0"):  # the time is over before it begins
        name, *numbers = task.split()
        count, *_ = worker.perform(name, list(map(float, numbers)))
        assert count > 0
    steps, used, passed = worker.perform("spin_for", [1e-4])
    assert steps >= 2000
    assert passed >= 1e-4
    assert used >= 0
    count, _, passed = worker.perform("read_for", [1, 1e-4])
    assert count % (1 << 16) == 0
    assert count > 0
    assert len(worker.perform("walk", [0, 50])) == 2
    assert worker.blocks[0].at == walk(make_ring(1024), 50)
    assert len(worker.perform("read", [1])) == 2


def walk(ring: Sequence[int], steps: int) -> int:
    at = 0
    for _ in range(steps):
        at = ring[at // STRIDE]
    return at


def test_a_block_is_read_to_its_end() -> None:
    """No byte of it is 0 before a ring is laid into it."""
    block = Block(1 << 16)
    assert block.find(block.address, 0, block.size) is None
    assert block.find(block.address, 1, block.size) == block.address
