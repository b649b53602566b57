"""A worker that says where it is.

    ompbind run -n 2 -- python examples/worker.py

Nothing in here binds anything: the mask and the variables were there before it started.
"""

import os
import sys


def cpu_list(cpus):
    """The numbers as the kernel writes them: 0-3,8."""
    texts = []
    for cpu in sorted(cpus):
        if texts and cpu == texts[-1][1] + 1:
            texts[-1][1] = cpu
        else:
            texts.append([cpu, cpu])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in texts)


def main():
    rank, ranks = os.environ.get("OMPBIND_RANK", "?"), os.environ.get("OMPBIND_RANKS", "?")
    mask = "unknown"
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        mask = cpu_list(os.sched_getaffinity(0))
    names = ("OMP_NUM_THREADS", "OMP_PLACES", "OMP_PROC_BIND")
    openmp = " ".join(f"{name}={os.environ.get(name, '')}" for name in names)
    # One write, so that the lines of several ranks do not mix.
    sys.stdout.write(f"rank {rank} of {ranks}: cpus {mask} {openmp}\n")


main()
