"""Two servers at once on one machine, as two programs that compute all the time: unbound, each
bound as if it were alone, and each on a part of the machine."""

from __future__ import annotations

import shutil

from bench.figures import compiled, print_spread, run_at_once, take_turns
from bench.startup import find_ompbind


def bench(python: str, rounds: int, *, small: bool = False) -> None:
    """Print a table of the seconds that each server takes for its requests."""
    if not shutil.which("gcc"):
        print("\nservers: gcc is not installed")
        return
    run = [*find_ompbind(python), "run"]
    with compiled("loops.c") as program:
        worker = [program, "1" if small else "1000"]
        parts = [[*run, "--part", f"{n}/2", "--", *worker] for n in (1, 2)]
        results = take_turns(
            {
                "unbound": run_at_once([worker, worker]),
                "ompbind run, twice": run_at_once([[*run, "--", *worker]] * 2),
                "ompbind run --part 1/2 and 2/2": run_at_once(parts),
            },
            rounds,
        )
    print_spread("servers: two at once, 1,000 parallel loops each", "s", results, "lower")
