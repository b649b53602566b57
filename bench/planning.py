"""How long the planner takes on large machines: values to values, nothing read."""

from __future__ import annotations

from functools import partial

from bench.measure import function, measure, print_table, program
from ompbind.machine.topology import Allowed, Machine
from ompbind.options import make_request, read_arguments
from ompbind.planner import make_plan
from tests.support.trees import Shape, make_topology

# 4,096 cpus, 64 nodes.
LARGE = Shape(packages=16, nodes=64, l3s=256, cores=2048, threads=2, numbering="halves")

REQUESTS = (
    "",
    "-n 256",
    "-n 200",
    "-n 256 --smt all --reserve 64",
    "--per l3 --places l3",
    "--per numa -n 256 --numa-bind",
    "--numa-bind-nodes " + " ".join(str(rank // 4) for rank in range(256)),
    "--numa-bind-cpus " + " ".join(f"{8 * rank}-{8 * rank + 7}" for rank in range(256)),
    "-n 256 --share --places one",
)


def bench(python: str, rounds: int) -> None:
    """Prints a table: a request to a plan, and that plan to JSON."""
    topology = make_topology(LARGE)
    machine = Machine(topology, Allowed(topology.online, topology.node_numbers), "large")
    base = program("python -c pass", [python, "-c", "pass"])
    contenders = [base]
    for text in REQUESTS:
        values, _ = read_arguments(text.split(), "show")
        request = make_request(values, ["worker"], {}).replace(binder="numactl")
        name = text if len(text) < 40 else f"{text[:26]}… ({len(text.split()) - 1} values)"
        contenders.append(function(name or "(no option)", partial(make_plan, machine, request)))
    plan = make_plan(machine, request)
    contenders.append(function("a plan of 256 ranks to JSON", plan.to_json))
    measure(contenders, max(rounds // 3, 1))  # they differ little from run to run
    print_table("planning: 4,096 cpus, 64 nodes, 256 ranks", contenders, base)
