"""How far the figures of one and the same program spread, from run to run, with and without
binding: memory bandwidth and the cost of a barrier."""

from __future__ import annotations

import shutil

from bench.figures import compiled, make_run, print_spread, take_turns
from bench.startup import find_ompbind


def bench(python: str, rounds: int, *, small: bool = False) -> None:
    """Print a table for each program. `rounds`: runs of each kind."""
    if not shutil.which("gcc"):
        print("\nspread: gcc is not installed")
        return
    for title, unit, better, source, arguments in (
        ("spread: the triad of STREAM, three arrays of 32 MiB", "GB/s", "higher", "triad.c",
         ["256", "1"] if small else ["32768", "20"]),
        ("spread: a barrier of all threads, as EPCC measures it", "µs", "lower", "barrier.c",
         ["2"] if small else ["20000"]),
    ):  # fmt: skip
        with compiled(source) as program:
            worker = [program, *arguments]
            run = [*find_ompbind(python), "run"]
            results = take_turns(
                {
                    "unbound": make_run(worker),
                    "ompbind run": make_run([*run, "--", *worker]),
                    "ompbind run --places one": make_run([*run, "--places", "one", "--", *worker]),
                },
                rounds,
            )
        print_spread(title, unit, results, "higher" if better == "higher" else "lower")
