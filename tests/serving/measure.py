"""What binding changes about vLLM's speed here: the same requests to servers started in different
ways, side by side on the same cpus, one request after another, in rounds.

    python -m tests.serving measure [ROUNDS [SIZE]]

The times of a round are divided by those of the server without ompbind in that round, so that what
else the machine does cancels out; the medians of these ratios are printed, with the quartiles. On a
busy machine a wall time says nothing by itself.
"""

from __future__ import annotations

import contextlib
import statistics
import sys
import time

from tests.serving.running import SECONDS, command_of, variables_of
from tests.support.commands import OMPBIND
from tests.support.running import Running, free_ports, talk

# What starts each server, and its variables; the first one is what the others are compared with.
WAYS: dict[str, tuple[list[str], dict[str, str]]] = {
    "vLLM alone": ([], {}),
    "ompbind run": (["run"], {}),
    "ompbind run --serve vllm": (["run", "--serve", "vllm"], {}),
    "ompbind run --omp all": (["run", "--omp", "all"], {}),
    "ompbind run --reserve 1": (["run", "--reserve", "1"], {}),
}
TOKENS = 32


def measure(rounds: int, size: str) -> None:
    """Start all servers, ask each in turn, and print the ratios."""
    first = free_ports(len(WAYS))
    ports = dict(zip(WAYS, range(first, first + len(WAYS)), strict=True))
    times: dict[str, list[float]] = {way: [] for way in WAYS}
    with contextlib.ExitStack() as stack:
        for way, (options, variables) in WAYS.items():
            command = command_of("vllm", "--port", str(ports[way]), size=size)
            if options:
                command = [OMPBIND, *options, "--no-neighbours", "--", *command]
            server = Running(command, variables_of("vllm", **variables), SECONDS["vllm"])
            stack.callback(server.end)
            server.wait_until_ready(ports[way])  # one after another: starting is heavy
        for number in range(-2, rounds):  # two rounds to warm up
            order = [*WAYS][number % len(WAYS) :] + [*WAYS][: number % len(WAYS)]
            for way in order:
                seconds = ask_for(ports[way])
                if number >= 0:
                    times[way].append(seconds)
    base = times[next(iter(WAYS))]
    print(f"{size} model, {TOKENS} tokens a request, {rounds} rounds; time against vLLM alone")
    for way, values in times.items():
        ratios = [value / alone for value, alone in zip(values, base, strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        each = statistics.median(values) / TOKENS * 1000
        print(f"{way:26} {middle:5.2f}  ({low:.2f} to {high:.2f})  {each:6.1f} ms a token")


def ask_for(port: int) -> float:
    """Return the seconds that a completion takes."""
    body = {"model": "tiny", "prompt": "One, two,", "max_tokens": TOKENS, "temperature": 0,
            "ignore_eos": True}  # fmt: skip
    began = time.perf_counter()
    status, _, text = talk(port, "/v1/completions", body)
    assert status == 200, text
    return time.perf_counter() - began


def main() -> None:
    rounds, size = [*sys.argv[2:], *("15", "tiny")[len(sys.argv) - 2 :]]
    measure(int(rounds), size)
