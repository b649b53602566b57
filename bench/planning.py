"""How long the planner takes on large machines, values to values, and for whole clusters."""

from __future__ import annotations

import resource
import tempfile
from functools import partial
from pathlib import Path

from bench.measure import Contender, function, measure, print_table, program
from bench.startup import find_ompbind
from ompbind.machine.saving import save_machine
from ompbind.machine.topology import Allowed, Machine
from ompbind.options import make_request, read_arguments
from ompbind.planner import make_plan
from tests.support.trees import Shape, make_files, make_topology, write_tree

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


# A host of a cluster: 256 cpus, 8 nodes.
SERVER = Shape(packages=2, nodes=8, l3s=16, cores=128, threads=2, numbering="halves")


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


def bench_cluster(python: str, rounds: int, hosts: int) -> None:
    """Prints a table: whole processes that plan for so many hosts, 8 ranks on each, from one
    snapshot and from a snapshot of each host, all different files; and the most memory."""
    with tempfile.TemporaryDirectory(prefix="ompbind-bench-") as name:
        directory = Path(name)
        kind = str(directory / "kind.topo")
        tree = write_tree(make_files(SERVER), directory / "tree")
        save_machine(kind, str(tree), with_name=False)
        folder = directory / "snapshots"
        folder.mkdir()
        data = Path(kind).read_bytes()
        for n in range(hosts):  # the time of writing, of which readers take no notice
            stamped = data[:4] + n.to_bytes(4, "little") + data[8:]
            (folder / f"n{n:05d}").write_bytes(stamped)
        base = program("python -c pass", [python, "-c", "pass"])
        ask = [*find_ompbind(python), "show", "--hosts", f"n[{0:05d}-{hosts - 1:05d}]", "-n", "8"]
        contenders: list[Contender] = [base]
        for title, place in (("one snapshot", kind), ("a snapshot of each", str(folder))):
            for form in ("table", "json"):
                argv = [*ask, "--topology", place, "--format", form]
                contenders.append(program(f"{title}, {form}", argv))
        measure(contenders, rounds)
        print_table(
            f"planning: {hosts:,} hosts with 8 ranks each, whole processes", contenders, base
        )
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss >> 10
        print(f"  most memory of a process so far: {peak} MiB")
