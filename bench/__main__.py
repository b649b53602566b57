"""python -m bench [--quick] [--python PYTHON] [PART]..."""

from __future__ import annotations

import argparse
import os
import sys

from bench import (
    experiments,
    growth,
    interactive,
    latency,
    output,
    page,
    phases,
    planning,
    quota,
    reading,
    servers,
    spread,
    startup,
    together,
    trap,
)
from bench.load import Load

HEADLINE_ROUNDS = 50
PAGE_ROUNDS = 30
USUAL = ("startup", "planning", "reading", "output")
HEADLINES = {"spread": spread.bench, "servers": servers.bench, "quota": quota.bench,
             "together": together.bench}  # fmt: skip
PARTS = (*USUAL, "interactive", "growth", "latency", "page", "startup-phases", "trap", "compare",
         *HEADLINES)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench", description="What ompbind costs.")
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--quick", action="store_true", help="fewer rounds: under a minute")
    parser.add_argument("--smoke", action="store_true", help="one round of little, as a test")
    parser.add_argument("--python", default=sys.executable, help="whose ompbind to start")
    args = parser.parse_args()
    parts = args.parts or USUAL
    if unknown := set(parts) - set(PARTS):
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    for name in [n for n in os.environ if n.startswith(("OMP_", "KMP_", "GOMP_"))]:
        del os.environ[name]  # they would be told of, and change plans
    rounds: int
    ranks: tuple[int, ...]
    sizes: tuple[int, ...]
    if args.smoke:
        rounds, ranks, sizes, real = 1, (1, 2), (64,), 0
    elif args.quick:
        rounds, ranks, sizes, real = 5, startup.RANKS[:-1], (1024, 4096), 1
    else:
        rounds, ranks, sizes, real = 25, startup.RANKS, (1024, 2048, 4096), 4
    turns = f", medians of {rounds} rounds in which all take turns"
    print(f"{len(os.sched_getaffinity(0))} cpus, Python {sys.version.split()[0]}"
          f"{turns if set(parts) & {*USUAL, 'trap'} else ''}")  # fmt: skip
    if "startup" in parts:
        startup.bench(args.python, rounds, ranks)
    if "startup-phases" in parts:
        phases.bench(args.python, rounds, (1, 2) if args.smoke else phases.RANKS)
    if "planning" in parts:
        planning.bench(args.python, rounds)
        planning.bench_cluster(args.python, max(rounds // 5, 1), 100 if args.smoke else 10_000)
    if "reading" in parts:
        reading.bench(args.python, rounds, sizes, real)
    if "output" in parts:
        few, size = (1, 10**6) if args.smoke else (3, 10**8) if args.quick else (7, 10**9)
        output.bench(args.python, few, size)
    if "interactive" in parts:
        interactive.bench(args.python, rounds)
    if "growth" in parts:
        growth.bench(args.python, max(rounds // 3, 1), small=args.smoke)
    if "latency" in parts:
        counts = (1, 2) if args.smoke else latency.RANKS
        latency.bench(args.python, counts, 100 if args.smoke else latency.LINES)
    if "page" in parts:
        page.bench(args.python, PAGE_ROUNDS if rounds > 5 else rounds, quick=args.quick,
                   small=args.smoke)  # fmt: skip
    if "trap" in parts:
        trap.bench(args.python, rounds, small=args.smoke)
    if "compare" in parts:
        experiments.bench(2 if args.smoke else 100 if args.quick else 1000)
    for name, bench in HEADLINES.items():
        if name in parts:
            load = Load()
            bench(args.python, 1 if args.smoke else 10 if args.quick else HEADLINE_ROUNDS,
                  small=args.smoke)  # fmt: skip
            print(f"\n{name}: meanwhile {load}")


if __name__ == "__main__":
    main()
