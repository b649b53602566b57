"""A pool whose two processes are ranks:

    python examples/pool.py

Nothing in here binds anything: the masks and the variables were there before they started.
"""

import os
import sys

import ompbind


def tell():
    # One write, so that the lines of several processes do not mix.
    places, cpus = os.environ["OMP_PLACES"], os.sched_getaffinity(0)
    sys.stdout.write(f"OMP_PLACES={places} on cpus {cpus}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    plan = ompbind.plan(ranks=2)
    context = ompbind.multiprocessing.get_context(plan)
    with context.Pool(initializer=tell) as pool:
        numbers = pool.map(abs, range(-10, 0))
        pool.close()
        pool.join()
    print(sum(numbers), "OMP_PLACES" in os.environ)
