"""Timing in turns: each round runs every contender once, so that all meet the same machine."""

from __future__ import annotations

import math
import os
import random
import signal
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

TIMEOUT = 20.0  # seconds for one run of a program; Open MPI's mpirun sometimes hangs
WARM_UP = 1  # rounds that do not count, unless one round is all


class FailedError(Exception):
    """A run that cannot be timed: it ended badly or not at all."""


@dataclass
class Contender:
    """Something to time: `once` does it and gives back the seconds it took.

    `failures` are the rounds that could not be timed, in words.
    """

    name: str
    once: Callable[[], float]
    seconds: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)


def measure(contenders: Sequence[Contender], rounds: int) -> None:
    """Fills in `seconds`; in each round all contenders take their turn, in a random order."""
    order = random.Random(1)  # noqa: S311
    warm_up = WARM_UP if rounds > 1 else 0
    for n in range(warm_up + rounds):
        for contender in order.sample(contenders, len(contenders)):
            if len(contender.failures) > 2:  # it won't do; do not wait for more of it
                continue
            try:
                seconds = contender.once()
            except FailedError as e:
                contender.failures.append(str(e))
                seconds = float("nan")
            if n >= warm_up:
                contender.seconds.append(seconds)


def program(name: str, argv: Sequence[str], env: Mapping[str, str] | None = None) -> Contender:
    """A program from its start to its end, output thrown away."""
    environ = dict(os.environ if env is None else env)

    def once() -> float:
        null = [(os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_RDWR, 0) for fd in (0, 1, 2)]
        begin = time.perf_counter()
        pid = os.posix_spawnp(argv[0], list(argv), environ, file_actions=null, setpgroup=0)
        status = wait(pid)
        seconds = time.perf_counter() - begin
        if status != 0:
            raise FailedError("timed out" if status == -signal.SIGKILL else f"exit status {status}")
        return seconds

    return Contender(name, once)


def wait(pid: int, timeout: float = TIMEOUT) -> int:
    """The exit status of a child that leads its process group; killed after `timeout` seconds."""

    def kill(*_: object) -> None:
        os.killpg(pid, signal.SIGKILL)

    before = signal.signal(signal.SIGALRM, kill)
    signal.setitimer(signal.ITIMER_REAL, timeout)
    try:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def function(name: str, call: Callable[[], object]) -> Contender:
    """A call inside this process."""

    def once() -> float:
        begin = time.perf_counter()
        call()
        return time.perf_counter() - begin

    return Contender(name, once)


def print_table(title: str, contenders: Sequence[Contender], base: Contender) -> None:
    """Median, best and the median of the ratios to `base` in the same round."""
    print(f"\n{title}")
    width = max(len(c.name) for c in contenders)
    print(f"  {'':{width}}  {'median':>9}  {'best':>9}  {'ratio':>6}   (to {base.name})")
    for c in contenders:
        timed = [s for s in c.seconds if not math.isnan(s)]
        if not timed:
            print(f"  {c.name:{width}}  {c.failures[-1] if c.failures else 'not timed'}")
            continue
        pairs = zip(c.seconds, base.seconds)  # noqa: B905  # a contender that gave up has fewer
        ratios = [r for s, b in pairs if not math.isnan(r := s / b)]
        ratio = f"{statistics.median(ratios):6.2f}" if ratios else f"{'-':>6}"
        note = f"   {len(c.failures)} failed: {c.failures[-1]}" if c.failures else ""
        print(f"  {c.name:{width}}  {milliseconds(statistics.median(timed))}  "
              f"{milliseconds(min(timed))}  {ratio}{note}")  # fmt: skip


def milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:6.1f} ms"
