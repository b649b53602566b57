"""An MPI program that adds up the ranks' numbers, and says where each of them may run."""

import os

from mpi4py import MPI

world = MPI.COMM_WORLD
total = world.allreduce(world.rank + 1)
cpus = world.gather(sorted(os.sched_getaffinity(0)))
if world.rank == 0:
    print(total, world.size, cpus)
