"""Ray actors and tasks that are bound before their Python starts:

    python examples/jobs/ray_actors.py [PARTS]

Ray starts a worker by the `py_executable` of its runtime environment; ompbind goes in front of it.
Ray does not tell a worker which of its node's actors it is, so each one is given its part of the
machine by name: two actors in one part would share its cores. Ray pastes the text into a shell's
command line, so quote what needs it. A plan that is refused looks like an actor that never starts:
try `ompbind show --part 1/2` on the node first.
"""

import os
import shlex
import sys

import ray


def bound(part, parts):
    """The runtime environment of a worker in one of so many parts of its node."""
    words = ["ompbind", "run", "--part", f"{part}/{parts}", "--", sys.executable]
    return {"py_executable": shlex.join(words)}


@ray.remote
class Actor:
    def tell(self):
        return sorted(os.sched_getaffinity(0)), os.environ["OMP_NUM_THREADS"]


@ray.remote
def task():
    return sorted(os.sched_getaffinity(0)), os.environ["OMP_NUM_THREADS"]


if __name__ == "__main__":
    parts = int(sys.argv[1]) if sys.argv[1:] else 2
    ray.init(include_dashboard=False, log_to_driver=False, num_cpus=parts + 1)
    actors = [Actor.options(runtime_env=bound(n, parts)).remote() for n in range(1, parts + 1)]
    for n, (cpus, threads) in enumerate(ray.get([actor.tell.remote() for actor in actors]), 1):
        print(f"actor {n} of {parts}: cpus {cpus}, {threads} threads", flush=True)
    for actor in actors:
        ray.kill(actor)
    cpus, threads = ray.get(task.options(runtime_env=bound(1, parts)).remote())
    print(f"task in part 1: cpus {cpus}, {threads} threads", flush=True)
    ray.shutdown()
