"""What a pinned process does to measure its core and its way to memory, without a compiler.

Speed is that of Python's own loop: it is whole numbers, branches and loads from the first two
caches, as most programs are, and what it takes is the core's alone. It is counted in the thread's
processor time, so that another process on the core makes a sample rarer, not slower. Bandwidth is
that of the C library's memchr, which reads and does nothing else. Latency is that of a walk through
memory in an order that no core foresees, each step at the number that the one before read; what
Python takes for a step is measured in the same way inside the first cache, and taken off.
"""

from __future__ import annotations

import mmap
import time
from array import array
from itertools import repeat

from ompbind.launch.crew import Crew, MemoryFrom

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ompbind.cpuset import CpuSet

LINE = 64  # bytes of a cache line, or of half of one
STRIDE = LINE // 4  # of numbers of four bytes
SMALL = 256  # lines that any first cache holds
CHUNK = 2000  # steps of the loop between two looks at the clock


def make_ring(lines: int) -> array[int]:
    """Return for each line, of a power of two, the next one of a walk through all of them: the
    steps of a congruential generator, whose order has no stride. As positions of numbers."""
    ring = array("I", bytes(4 * lines))
    line, mask = 0, lines - 1
    for _ in repeat(None, lines):
        after = (line * 1664525 + 1013904223) & mask
        ring[line] = after * STRIDE
        line = after
    return ring


def spin(steps: int) -> int:
    """Run the loop whose speed is measured."""
    x = 1
    for _ in repeat(None, steps):
        x = (x * 69069 + 1) & 0xFFFFFFFF
    return x


class Block:
    """Memory that this process has touched, all of it under the policy of that moment."""

    def __init__(self, size: int) -> None:
        import ctypes

        self.size = size
        self.memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self.address = ctypes.addressof(ctypes.c_char.from_buffer(self.memory))
        ctypes.memset(self.address, 1, size)
        self.find = ctypes.CDLL(None).memchr
        self.find.argtypes = (ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t)
        self.find.restype = ctypes.c_void_p
        self.numbers = memoryview(self.memory).cast("I")
        self.at = 0

    def read(self) -> None:
        """Read all of it: without a ring, no byte is 0."""
        self.find(self.address, 0, self.size)

    def lay(self, ring: array[int]) -> None:
        """Write the ring into it, a number to a line."""
        self.numbers[: len(ring) * STRIDE : STRIDE] = memoryview(ring)
        self.at = 0

    def walk(self, steps: int) -> None:
        """Take these steps of the ring, from where the last ones ended."""
        numbers, at = self.numbers, self.at
        for _ in repeat(None, steps):
            at = numbers[at]
        self.at = at


class Worker:
    """One pinned process's tasks by name. Each takes and returns numbers; times are in seconds."""

    def __init__(self, ring: array[int]) -> None:
        self.ring = ring
        self.blocks: dict[int, Block] = {}
        self.small: Block | None = None

    def perform(self, name: str, numbers: list[float]) -> list[float]:
        """Return what the named task returns. Raises OSError."""
        tasks: dict[str, Callable[..., list[float]]] = {
            "spin": self.spin, "spin_for": self.spin_for, "place": self.place,
            "read": self.read, "read_for": self.read_for, "walk": self.walk,
        }  # fmt: skip
        return tasks[name](*numbers)

    def spin(self, steps: float) -> list[float]:
        """Run so many steps; return the processor's time and the time that passed."""
        return self.measure(lambda: spin(int(steps)))

    def spin_for(self, seconds: float) -> list[float]:
        """Run for so long, and a little at the least; return the steps and both times."""
        count, passed = 0, 0.0
        start, used = time.perf_counter(), time.thread_time()
        while not count or passed < seconds:
            spin(CHUNK)
            count += CHUNK
            passed = time.perf_counter() - start
        return [count, time.thread_time() - used, passed]

    def place(self, number: float, node: float, size: float, with_ring: float) -> list[float]:
        """Make block `number` on a node (-1: under no policy), with the ring in it or without."""
        with MemoryFrom(int(node) if node >= 0 else None):
            block = self.blocks[int(number)] = Block(int(size))
            if with_ring:
                block.lay(self.ring)
        return []

    def read(self, number: float) -> list[float]:
        """Read block `number` once; return the processor's time and the time that passed."""
        return self.measure(self.blocks[int(number)].read)

    def read_for(self, number: float, seconds: float) -> list[float]:
        """Read block `number` for so long, and once at the least; return the bytes and both
        times."""
        block, count, passed = self.blocks[int(number)], 0, 0.0
        start, used = time.perf_counter(), time.thread_time()
        while not count or passed < seconds:
            block.read()
            count += block.size
            passed = time.perf_counter() - start
        return [count, time.thread_time() - used, passed]

    def walk(self, number: float, steps: float) -> list[float]:
        """Walk through block `number` and through a small one; return both processor times."""
        if self.small is None:
            self.small = Block(max(SMALL * LINE, mmap.PAGESIZE))
            self.small.lay(make_ring(SMALL))
            self.small.walk(SMALL)
        small, block = self.small, self.blocks[int(number)]
        near = self.measure(lambda: small.walk(int(steps)))
        far = self.measure(lambda: block.walk(int(steps)))
        return [far[0], near[0]]

    def measure(self, task: Callable[[], object]) -> list[float]:
        start, used = time.perf_counter(), time.thread_time()
        task()
        return [time.thread_time() - used, time.perf_counter() - start]


def start_crew(cpus: Sequence[CpuSet], lines: int) -> Crew:
    """Start a process for each of these sets of cpus, all with one ring of so many lines, a power
    of two."""
    ring = make_ring(lines)
    return Crew(cpus, lambda: Worker(ring).perform)
