"""How fast eight ranks' lines come through with a tag in front of each, and what it costs."""

from __future__ import annotations

import os
import resource
import subprocess
import time
from collections.abc import Sequence

from bench.measure import Contender, FailedError, measure, print_table, wait
from bench.startup import find_ompbind, find_open_mpi, is_gnu_parallel

RANKS = 8
LINE = 80  # bytes
SECONDS = 120  # for one run at most

# Writes its part of lines, so many in each write.
WRITER = f"""
import os, sys
left, lines = int(sys.argv[1]), int(sys.argv[2])
block = (b"x" * {LINE - 1} + b"\\n") * lines
while left > 0:
    data = block[:left]
    while data:
        data = data[os.write(1, data):]
    left -= len(block)
"""


def bench(python: str, rounds: int, size: int) -> None:
    """Prints wall and processor time of `size` bytes in large writes, and of a tenth of it a line
    at a time."""
    for what, total, lines in (("writes of 800 lines", size, 800), ("a write for each line",
                                                                     size // 10, 1)):  # fmt: skip
        absent: list[str] = []
        worker = [python, "-c", WRITER, str(total // RANKS // LINE * LINE), str(lines)]
        processor: dict[str, list[float]] = {}
        contenders = [
            through_reader(name, argv, total // RANKS // LINE * LINE * RANKS, processor)
            for name, argv in make_commands(find_ompbind(python), worker, absent)
        ]
        measure(contenders, rounds)
        title = f"output: {total / 1e6:.0f} MB of lines from {RANKS} ranks, {what}"
        print_table(f"{title}, wall time", contenders, contenders[0])
        used = [Contender(c.name, c.once, processor[c.name][-len(c.seconds):], c.failures)
                for c in contenders if processor[c.name]]  # fmt: skip
        print_table(f"{title}, processor time of launcher and ranks", used, used[0])
        if absent:
            print(f"\nnot installed: {', '.join(absent)}")


def make_commands(
    ompbind: list[str], worker: list[str], absent: list[str], ranks: int = RANKS
) -> list[tuple[str, list[str]]]:
    """Every launcher that is installed, the first without tags; others' names go to `absent`."""
    script = f'i=0; while [ $i -lt {ranks} ]; do "$@" & i=$((i+1)); done; wait'
    run = [*ompbind, "run", "-n", str(ranks), "--share", "--binder", "native"]
    commands = [
        ("shell loop, no tags", ["sh", "-c", script, "sh", *worker]),
        ("ompbind run --output tag", [*run, "--output", "tag", "--", *worker]),
    ]
    if mpirun := find_open_mpi():
        root = ["--allow-run-as-root"] if os.geteuid() == 0 else []
        argv = [mpirun, *root, "--oversubscribe", "--tag-output", "-n", str(ranks), *worker]
        commands.append(("mpirun --tag-output (Open MPI)", argv))
    else:
        absent.append("mpirun (Open MPI)")
    if is_gnu_parallel():
        argv = ["parallel", "--will-cite", "--tag", "--line-buffer", "-j", str(ranks), "-N0", "-q"]
        argv += [*worker, ":::", *map(str, range(ranks))]
        commands.append(("parallel --tag --line-buffer", argv))
    else:
        absent.append("parallel (GNU)")
    return commands


def through_reader(
    name: str, argv: Sequence[str], least: int, processor: dict[str, list[float]]
) -> Contender:
    """A launcher whose output a reader counts; what it and its ranks used goes to `processor`."""
    used = processor.setdefault(name, [])

    def once() -> float:
        before = processor_time()
        begin = time.perf_counter()
        ours, theirs = os.pipe()
        with subprocess.Popen(["wc", "-c"], stdin=ours, stdout=subprocess.PIPE) as reader:
            os.close(ours)
            actions = [(os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                       (os.POSIX_SPAWN_DUP2, theirs, 1)]  # fmt: skip
            pid = os.posix_spawnp(
                argv[0], list(argv), os.environ, file_actions=actions, setpgroup=0
            )
            os.close(theirs)
            status = wait(pid, SECONDS)
            used.append(processor_time() - before)
            count = int(reader.communicate()[0])
        seconds = time.perf_counter() - begin
        if status != 0 or count < least:
            raise FailedError(f"exit status {status}, {count} bytes of {least}")
        return seconds

    return Contender(name, once)


def processor_time() -> float:
    """Of all children that have ended and been waited for, and of theirs."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
