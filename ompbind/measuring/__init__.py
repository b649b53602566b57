"""Measure this machine: the speed of each core, alone and together, and the way from each node's
cores to each node's memory. Without privileges and without a compiler, in seconds.

One process is pinned to each core (`launch.crew`) and does what it is told to (`work`). Everything
is sampled in rounds, each thing once in a round and in random order, as `ompbind compare` does it,
and reported as a median with its interval (`figures`).
"""

from __future__ import annotations

import random

from ompbind.cpuset import CpuSet, union
from ompbind.errors import TopologyError
from ompbind.launch.crew import CrewEnded, TaskError
from ompbind.machine.calibration import make_shape
from ompbind.machine.free_memory import read_cgroup_room, read_machine_room, read_node_memory
from ompbind.machine.measurement import Access, CoreSpeed, Measurement
from ompbind.machine.roots import DirectoryRoot
from ompbind.measuring.figures import count_rounds, make_figures, median
from ompbind.measuring.work import LINE, start_crew
from ompbind.messages import format_size, label
from ompbind.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import TypeVar

    from ompbind.launch.crew import Crew
    from ompbind.machine.measurement import Figure
    from ompbind.machine.roots import Root
    from ompbind.machine.topology import Machine

    Thing = TypeVar("Thing")
    Sample = tuple[float, float, float]  # steps, processor time, time that passed
    Pair = tuple[int, int]  # the numbers of a node with cpus and of one with memory
    MakeCrew = Callable[[Sequence[CpuSet], int], Crew]
    Report = Callable[[str], None]

# Of each node's memory, the blocks that are read by one core, walked through, and read by each.
READ, WALKED, SHARED = range(3)
LINES = (1 << 20, 1 << 22)  # of the ring through memory: 64 MiB, or up to 256 for larger caches
SHARED_BLOCK = 16 << 20  # bytes that each core reads while all do
MEMORY_SHARE = 8  # at most one byte of so many that are available is taken
NODE_SHARE = 2  # and of one node, or it is left out: others may be bound to it
SAMPLE_STEPS = 20_000  # of the loop, before it is known how many a sample takes
BUSY = 0.9  # of its time that a sample has the core, or it was disturbed
TICK = 1e-9  # seconds: no time is shorter


class Procedure(Record):
    """How long things take, in seconds. `budget`: of each of the four parts, as far as the rounds
    that intervals need allow."""

    sample: float = 0.003  # of a core alone
    together: float = 0.03  # of all cores
    reading: float = 0.02  # of all cores of a node
    steps: int = 10_000  # of a walk through memory
    budget: float = 4.0
    lines: tuple[int, int] = LINES


class Room(Record):
    """The memory in bytes that may be taken now. `nodes`: of each node, as far as that is known;
    `whole`: of all together, which the cgroup may limit; None: not known."""

    nodes: Mapping[int, int]
    whole: int | None = None


def measure_machine(
    machine: Machine,
    report: Report,
    procedure: Procedure | None = None,
    make_crew: MakeCrew = start_crew,
    seed: int | None = None,
    root: Root | None = None,
) -> Measurement:
    """Return what was measured of the running machine, which was read with its details. `report` is
    told how far it is; `root`: where free memory is read, None: "/". Raises TopologyError where the
    system binds no process, or denies it."""
    if not machine.can_bind:
        raise TopologyError("this system binds no process to a core: nothing can be measured")
    procedure = procedure or Procedure()
    allowed = machine.allowed.cpus
    cores = machine.topology.groups("core", allowed)
    cores += [CpuSet([cpu]) for cpu in allowed - union(cores)]
    pinned = [CpuSet([core.first]) for core in cores]
    room = read_room(machine, root or DirectoryRoot("/"))
    lines, notes = choose_lines(machine, procedure.lines, room)
    try:
        with make_crew(pinned, lines) as crew:
            chance = random.Random(seed)  # noqa: S311
            bench = Bench(machine, room, cores, crew, report, procedure, chance)
            bench.notes += notes
            speeds = bench.measure_cores()
            accesses = bench.measure_memory(lines * LINE)
    except (TaskError, OSError) as e:
        reason = e.message if isinstance(e, TaskError) else e.strerror
        raise TopologyError(f"the machine cannot be measured: {reason}") from None
    if rest := machine.topology.online - allowed:
        bench.notes.append(f"{label('cpu', rest)} not allowed, and not measured")
    shape = make_shape(machine.topology)
    return Measurement(machine.model, shape, speeds, accesses, tuple(bench.notes))


def read_room(machine: Machine, root: Root) -> Room:
    """Return the memory that may be taken: what is free, or holds files that can be read again. A
    node that does not say has its size."""
    nodes = {}
    for node in machine.topology.nodes:
        state = read_node_memory(root, node.node)
        size = state.available if state else node.memory_bytes
        if size is not None and node.node in list_memories(machine):
            nodes[node.node] = size
    rooms = [sum(nodes.values())] if nodes else []
    if (state := read_machine_room(root)) is not None:
        rooms.append(state.available)
    if (rest := read_cgroup_room(root)) is not None:
        rooms.append(rest)
    return Room(nodes, min(rooms, default=None))


def list_memories(machine: Machine) -> list[int]:
    """Return the nodes that have memory and may be used."""
    if not machine.topology.numa:
        return [node.node for node in machine.topology.nodes]
    return [n.node for n in machine.topology.nodes
            if n.memory_bytes != 0 and n.node in machine.allowed.nodes]  # fmt: skip


def choose_lines(machine: Machine, bounds: tuple[int, int], room: Room) -> tuple[int, list[str]]:
    """Return how many lines the ring has: twice what the largest cache does, within bounds and
    what memory may be taken; with a note where that is less."""
    cache = max((c.bytes for c in machine.caches), default=0)
    lines = bounds[0]
    while lines * LINE < 2 * cache and lines < bounds[1]:
        lines *= 2
    blocks = 2 * max(1, len(machine.topology.nodes)) ** 2
    most = lines * LINE * blocks if room.whole is None else room.whole // MEMORY_SHARE
    while lines * LINE * blocks > most and lines > 1024:
        lines //= 2
    if lines * LINE >= 2 * cache:
        return lines, []
    text = (
        f"memory: {format_size(lines * LINE)} were read, and a cache holds {format_size(cache)}: "
        "the figures are partly the cache's"
    )
    return lines, [text]


class Bench:
    """The measuring of one machine by a crew, a process of which is pinned to each core."""

    def __init__(
        self,
        machine: Machine,
        room: Room,
        cores: Sequence[CpuSet],
        crew: Crew,
        report: Report,
        procedure: Procedure,
        chance: random.Random,
    ) -> None:
        self.machine = machine
        self.room = room
        self.cores = cores
        self.crew = crew
        self.report = report
        self.procedure = procedure
        self.chance = chance
        self.notes: list[str] = []

    # --- cores -----------------------------------------------------------------------------------

    def measure_cores(self) -> tuple[CoreSpeed, ...]:
        """Return the speed of each core."""
        positions = list(range(len(self.cores)))
        alone = self.make_speeds(self.sample_alone(positions), "alone")
        together: Mapping[int, Figure] = {}
        quota = self.machine.allowed.quota
        if quota is not None and quota < len(positions):
            text = f"the cgroup's quota is worth {quota:g} cpus: all cores together not measured"
            self.notes.append(text)
        elif positions[1:]:
            together = self.make_speeds(self.sample_together(positions), "together")
        return tuple(
            CoreSpeed(core, alone[n], together.get(n)) for n, core in enumerate(self.cores)
        )

    def make_speeds(self, rounds: Sequence[Mapping[int, Sample]], name: str) -> dict[int, Figure]:
        """Return each core's speed. Where something else took a part of its time, the core may be
        faster than measured: that shares its caches and power. Its interval is then open."""
        speeds = make_figures(
            [{n: steps / max(used, TICK) / 1e6 for n, (steps, used, _) in samples.items()}
             for samples in rounds]
        )  # fmt: skip
        parts = {n: median(samples[n][1] / max(samples[n][2], TICK) for samples in rounds)
                 for n in speeds}  # fmt: skip
        busy = [n for n, part in parts.items() if part < BUSY]
        if busy:
            cpus = CpuSet(self.cores[n].first for n in busy)
            most = 1 - min(parts[n] for n in busy)
            text = f"cores {name}: other processes took up to {most:.0%} of {label('cpu', cpus)}"
            self.notes.append(text)
        return {n: f.replace(high=None) if n in busy else f for n, f in speeds.items()}

    def sample_alone(self, positions: Sequence[int]) -> list[dict[int, Sample]]:
        """Return for each round what each core did while the others did nothing."""
        seconds = min(self.crew.ask([0], "spin", SAMPLE_STEPS)[0][0] for _ in range(3))
        steps = max(1000, int(SAMPLE_STEPS * self.procedure.sample / max(seconds, TICK)))
        count = count_rounds(len(positions), self.procedure.sample, self.procedure.budget)
        rounds = []
        for number in range(count):
            self.report(f"each core alone, round {number + 1} of {count}")
            samples: dict[int, Sample] = {}
            for position in self.shuffle(positions):
                used, passed = self.crew.ask([position], "spin", steps)[0]
                samples[position] = (steps, used, passed)
            rounds.append(samples)
        return rounds

    def sample_together(self, positions: Sequence[int]) -> list[dict[int, Sample]]:
        """Return for each round what each core did while all did the same."""
        seconds = self.procedure.together
        count = count_rounds(len(positions), seconds / len(positions), self.procedure.budget)
        rounds = []
        for number in range(count):
            self.report(f"all cores together, round {number + 1} of {count}")
            answers = self.crew.ask(positions, "spin_for", seconds)
            rounds.append({n: (steps, used, passed)
                           for n, (steps, used, passed) in zip(positions, answers, strict=True)}
            )  # fmt: skip
        return rounds

    # --- memory ----------------------------------------------------------------------------------

    def measure_memory(self, size: int) -> tuple[Access, ...]:
        """Return the way from each node's cores to each node's memory; () where the system does not
        say which nodes there are, or denies all of them. `size`: of what one core reads, bytes."""
        sources, memories = self.list_sources(), list_memories(self.machine)
        if not sources or not memories:
            self.notes.append("the system does not say which node a cpu is on: memory not measured")
            return ()
        pairs = self.place(sources, memories, size)
        if not pairs:
            return ()
        bandwidth, latency = self.sample_pairs(pairs, sources, size)
        together = self.sample_nodes(pairs, sources)
        disturbed = sum(len(pairs) - len(samples) for samples in together)
        if disturbed:
            self.notes.append(
                f"all cores of a node: {disturbed} of {len(pairs) * len(together)} samples not "
                "counted, as other processes took a part of the cores' time"
            )
        bandwidths, latencies = make_figures(bandwidth), make_figures(latency)
        totals = make_figures(together)
        return tuple(
            Access(*pair, bandwidths[pair], totals.get(pair), latencies.get(pair)) for pair in pairs
        )

    def list_sources(self) -> dict[int, list[int]]:
        """Return the positions of the cores of each node."""
        node_of = {c.cpu: c.node for c in self.machine.topology.cpus}
        sources: dict[int, list[int]] = {}
        for position, core in enumerate(self.cores):
            if (node := node_of[core.first]) is not None:
                sources.setdefault(node, []).append(position)
        return sources

    def place(
        self, sources: Mapping[int, Sequence[int]], memories: Sequence[int], size: int
    ) -> list[Pair]:
        """Have memory placed for each pair that the kernel allows, and whose node has enough; a
        single node needs no policy. Return these pairs."""
        pairs, denied = [], dict[str, list[int]]()
        shared = self.choose_block(sources, memories)
        need = 2 * size * len(sources) + shared * sum(map(len, sources.values()))
        whole = self.room.whole
        for memory in memories:
            rooms = [room for room in (self.room.nodes.get(memory), whole) if room is not None]
            if rooms and need > min(rooms) // NODE_SHARE:
                reason = f"{format_size(NODE_SHARE * need)} must be available, and "
                reason += f"{format_size(min(rooms))} are"
                denied.setdefault(reason, []).append(memory)
                continue
            if whole is not None:
                whole -= need
            self.report(f"taking memory of node {memory}")
            node = memory if memories[1:] else -1
            try:
                for positions in sources.values():
                    self.crew.ask(positions[:1], "place", 3 * memory + READ, node, size, 0)
                    self.crew.ask(positions[:1], "place", 3 * memory + WALKED, node, size, 1)
                    self.crew.ask(positions, "place", 3 * memory + SHARED, node, shared, 0)
            except CrewEnded:
                raise
            except TaskError as e:
                denied.setdefault(e.message, []).append(memory)
                continue
            pairs += [(source, memory) for source in sources]
        for reason, nodes in denied.items():
            text = f"memory of {label('node', CpuSet(nodes))} not measured: {reason}"
            self.notes.append(text)
        return sorted(pairs)

    def choose_block(self, sources: Mapping[int, Sequence[int]], memories: Sequence[int]) -> int:
        """Return how much each core reads while all of its node do: more than the caches hold, and
        no more than a part of the memory."""
        caches = sum(c.bytes for c in self.machine.caches if c.name == "L3")
        count = sum(map(len, sources.values()))
        size = max(SHARED_BLOCK, 2 * caches // count)
        if self.room.whole is not None:
            size = min(size, self.room.whole // MEMORY_SHARE // (count * len(memories)))
        return max(1 << 20, size >> 12 << 12)

    def sample_pairs(
        self, pairs: Sequence[Pair], sources: Mapping[int, Sequence[int]], size: int
    ) -> tuple[list[dict[Pair, float]], list[dict[Pair, float]]]:
        """Return for each round the bandwidth of one core, and the latency."""
        seconds = size / 1e10 + self.procedure.steps * 2e-7
        count = count_rounds(len(pairs), seconds, self.procedure.budget)
        steps = self.procedure.steps
        bandwidths, latencies = [], []
        for number in range(count):
            self.report(f"memory, round {number + 1} of {count}")
            bandwidth, latency = {}, {}
            for pair in self.shuffle(pairs):
                leader = sources[pair[0]][:1]
                used, _ = self.crew.ask(leader, "read", 3 * pair[1] + READ)[0]
                bandwidth[pair] = size / max(used, TICK)
                far, near = self.crew.ask(leader, "walk", 3 * pair[1] + WALKED, steps)[0]
                if far > near:
                    latency[pair] = (far - near) / steps
            bandwidths.append(bandwidth)
            latencies.append(latency)
        return bandwidths, latencies

    def sample_nodes(
        self, pairs: Sequence[Pair], sources: Mapping[int, Sequence[int]]
    ) -> list[dict[Pair, float]]:
        """Return for each round the bandwidth of all cores of a node together."""
        seconds = self.procedure.reading
        count = count_rounds(len(pairs), seconds, self.procedure.budget)
        rounds = []
        for number in range(count):
            self.report(f"memory, all cores of a node, round {number + 1} of {count}")
            samples = {}
            for pair in self.shuffle(pairs):
                block = 3 * pair[1] + SHARED
                answers = self.crew.ask(sources[pair[0]], "read_for", block, seconds)
                if sum(used for _, used, _ in answers) >= BUSY * sum(p for *_, p in answers):
                    samples[pair] = sum(read / max(passed, TICK) for read, _, passed in answers)
            rounds.append(samples)
        return rounds

    def shuffle(self, things: Sequence[Thing]) -> list[Thing]:
        return self.chance.sample(things, len(things))
