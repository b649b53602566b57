"""How soon a line that a rank writes comes out of its launcher, with a tag in front of it."""

from __future__ import annotations

import os
import signal
import statistics
import time
from collections.abc import Sequence
from contextlib import suppress

from bench.measure import FailedError, wait
from bench.output import make_commands
from bench.startup import find_ompbind

RANKS = (1, 8, 256)
RATE = 500  # lines a second, of all ranks together
LINES = 2000  # that are measured
SECONDS = 60.0  # until they must have come

# Writes the time now and then: the launcher sleeps in between, as with most programs.
WRITER = """
import os, random, sys, time
mean = int(sys.argv[1]) / int(sys.argv[2])
while True:
    os.write(1, b"%d %d\\n" % (os.getpid(), time.monotonic_ns()))
    time.sleep(random.uniform(0, 2 * mean))
"""


def bench(
    python: str, ranks: Sequence[int] = RANKS, lines: int = LINES, *, alone: bool = False
) -> dict[int, dict[str, tuple[float, float]]]:
    """Print a table for each number of ranks, and return the median and the 99th of 100 in seconds
    of each launcher that is installed; if `alone` only of ompbind, and without any."""
    results: dict[int, dict[str, tuple[float, float]]] = {}
    for count in ranks:
        worker = [python, "-I", "-S", "-c", WRITER, str(count), str(RATE)]
        absent: list[str] = []
        print(f"\nlatency: {count} ranks that write {RATE} lines a second, {lines} lines")
        print(f"  {'':34}  {'median':>9}  {'99 of 100':>9}")
        results[count] = {}
        for name, argv in make_commands(find_ompbind(python), worker, absent, count)[: 2 if alone
                                        else None]:  # fmt: skip
            try:
                delays = sorted(read_delays(argv, count, lines))
            except FailedError as e:
                print(f"  {name:34}  {e}")
                continue
            median, most = statistics.median(delays), delays[len(delays) * 99 // 100]
            results[count][name] = (median, most)
            print(f"  {name:34}  {median * 1e3:6.2f} ms  {most * 1e3:6.2f} ms")
        if absent:
            print(f"\nnot installed: {', '.join(absent)}")
    return results


def read_delays(argv: Sequence[str], ranks: int, count: int) -> list[float]:
    """Return the seconds from the writing of lines to their reading, from when all ranks write.
    Raises FailedError."""
    pipe, theirs = os.pipe()
    actions = [(os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
               (os.POSIX_SPAWN_DUP2, theirs, 1),
               (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0)]  # fmt: skip
    # A group of its own, but not a session: the kernel would schedule that apart from this process.
    launcher = os.posix_spawnp(
        argv[0], list(argv), os.environ, file_actions=actions, setpgroup=0
    )  # fmt: skip
    os.close(theirs)
    delays: list[float] = []
    writers: set[bytes] = set()
    rest, end = b"", time.monotonic() + SECONDS
    try:
        while len(delays) < count:
            data = os.read(pipe, 1 << 16)
            now = time.monotonic_ns()
            if not data or time.monotonic() > end:
                raise FailedError(f"only {len(writers)} of {ranks} ranks wrote")
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                writer, stamp = line.split()[-2:]
                if len(writers) == ranks:
                    delays.append((now - int(stamp)) / 1e9)
                writers.add(writer.rpartition(b">")[2])  # mpirun's tag ends so, without a blank
        return delays
    finally:
        os.killpg(launcher, signal.SIGTERM)
        end_group(launcher)
        os.close(pipe)


def end_group(leader: int) -> None:
    """Wait for a launcher that has been asked to exit, and kill what it leaves behind."""
    wait(leader, 10)  # then it is killed with all that it has started
    with suppress(ProcessLookupError):  # nobody is left
        os.killpg(leader, signal.SIGKILL)
