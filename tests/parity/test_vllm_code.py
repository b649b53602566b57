"""vLLM's own code as the judge: its OMPProcessManager on every machine that there is, made up and
real, and its numactl options. Skipped where there is no vLLM (`make test-serving` installs one,
OMPBIND_VLLM names the directory of another).

Each difference must have one of the reasons that docs/reference/servers.md lists.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path

import pytest

from ompbind.cpuset import CpuSet
from ompbind.errors import OmpbindError
from ompbind.machine import read_family, read_machine
from ompbind.machine.priority import read_priority_cpus
from ompbind.machine.topology import Machine
from ompbind.options import make_request, vllm
from ompbind.planner import make_plan
from ompbind.planner.request import Serving
from ompbind.plans import Plan
from tests.parity.plans import cores_of
from tests.parity.vllm_code import VARIABLE, ProcessManager, find_vllm
from tests.support import shared_trees
from tests.support.machines import MACHINES, make_machine
from tests.support.trees import Shape, make_files, write_tree

VISIBLE = "CPU_VISIBLE_MEMORY_NODES"
RESERVED, BIND = "VLLM_CPU_NUM_OF_RESERVED_CPU", "VLLM_CPU_OMP_THREADS_BIND"
HIGHEST = "sys/devices/system/cpu/cpu0/acpi_cppc/highest_perf"
WITHOUT_TOPOLOGY = {"test1"}

# Why a plan is not vLLM's, in the order in which it is asked.
REFUSED = "vLLM refuses more workers than nodes, ompbind divides"
EMPTY = "vLLM leaves a worker without a cpu"
POWER = "POWER: vLLM takes cpus by their number modulo 8"
S390 = "s390: vLLM takes books or sockets for nodes"
NODES = "cpus of several nodes, or of none"
TOO_MUCH = "ompbind refuses to reserve more than there is"
KINDS = "kinds of core: ompbind reserves the least capable"
WHOLE = "ompbind reserves whole cores"
ANOTHER = "ompbind reserves the last core of the tree, vLLM the one with the highest number"
MOST = "ompbind reserves from the worker with the most cores"
REASONS = {REFUSED, EMPTY, POWER, S390, NODES, TOO_MUCH, KINDS, WHOLE, ANOTHER, MOST}

CASES = [
    ({}, 1, False), ({}, 2, False), ({}, 4, False), ({}, 2, True),
    ({RESERVED: "0"}, 1, False), ({RESERVED: "0"}, 2, False), ({RESERVED: "2"}, 2, False),
    ({RESERVED: "3"}, 2, False), ({VISIBLE: "1"}, 1, False), ({VISIBLE: "1,0"}, 2, False),
    ({VISIBLE: "1", "VLLM_CPU_SIM_MULTI_NUMA": "0"}, 1, False),
]  # fmt: skip


@pytest.fixture(scope="module")
def manager() -> ProcessManager:
    package = find_vllm()
    if package is None:
        pytest.skip(f"no vLLM here: make test-serving installs it, {VARIABLE} names a directory")
    return ProcessManager(package)


@cache
def machines() -> dict[str, tuple[Machine, str]]:
    """Each machine, and the family of its processor."""
    every = {name: (machine, "x86") for name, machine in MACHINES.items()}
    for name in shared_trees.machine_names():
        if name not in WITHOUT_TOPOLOGY:
            family = read_family(str(shared_trees.unpacked(name)))
            every[name] = shared_trees.read_tree(name), family or "x86"
    return every


def make_ours(
    machine: Machine, family: str, environ: Mapping[str, str], workers: int, *, kv: bool
) -> Plan:
    """What --from-env vllm -n plans on a machine, for the newest vLLM. Raises OmpbindError."""
    case = vllm.Case(machine, family, environ, "", workers, kv)
    values, names, _ = vllm.with_variables({"ranks": workers}, case)
    request = make_request(values, ("worker",), {}, names)
    return make_plan(machine, request.replace(binder="native"))


def find_reason(
    machine: Machine, family: str, reserved: str | None,
    theirs: tuple[list[list[int]], list[int]] | None, plan: Plan | OmpbindError,
) -> str:  # fmt: skip
    """Return why a plan differs, "" for no reason that is known."""
    topology = machine.topology
    numbers = [cpu for node in topology.nodes for cpu in node.cpus]
    if theirs is None:
        return REFUSED
    lists, _ = theirs
    if not all(lists):
        return EMPTY
    if family in ("power", "s390"):
        return POWER if family == "power" else S390
    if sorted(numbers) != sorted(topology.online):
        return NODES
    if isinstance(plan, OmpbindError):
        return TOO_MUCH if reserved and "without a core" in plan.message else ""
    if len({c.kind for c in topology.cpus}) > 1:
        return KINDS
    if family in ("arm", "riscv") and any(len(core) > 1 for core in topology.groups("core")):
        return WHOLE
    sizes = [len(cpus) for cpus in lists]
    if sizes == [len(rank.cpus) for rank in plan.ranks]:
        return ANOTHER
    return MOST if sum(sizes) == sum(len(rank.cpus) for rank in plan.ranks) else ""


def test_its_process_manager_agrees_or_there_is_a_reason(manager: ProcessManager) -> None:
    """Worker by worker the same cores, and as many cpus; no reason is listed in vain."""
    seen: dict[str, int] = {}
    unexplained = []
    for environ, workers, kv in CASES:
        agreed = 0
        for name, (machine, family) in machines().items():
            try:
                theirs = manager.divide(machine, family, environ, workers, kv_transfer=kv)
            except AssertionError:
                theirs = None
            try:
                ours: Plan | OmpbindError = make_ours(machine, family, environ, workers, kv=kv)
            except OmpbindError as e:
                ours = e
            if isinstance(ours, Plan) and theirs is not None and agree(machine, ours, theirs[0]):
                agreed += 1
                continue
            reason = find_reason(machine, family, environ.get(RESERVED), theirs, ours)
            seen[reason] = seen.get(reason, 0) + 1
            if not reason:
                text = ours if isinstance(ours, OmpbindError) else [str(r.cpus) for r in ours.ranks]
                unexplained.append((name, environ, workers, kv, theirs, text))
        assert agreed >= 3
    assert not unexplained
    assert seen.keys() <= REASONS
    if shared_trees.machine_names():
        assert seen.keys() == REASONS


def agree(machine: Machine, plan: Plan, lists: list[list[int]]) -> bool:
    """Whether each rank has a worker's cores, and as many cpus of them."""
    cores = [cores_of(machine.topology, set(cpus)) for cpus in lists]
    ours = [cores_of(machine.topology, set(rank.cpus)) for rank in plan.ranks]
    return (cores, [*map(len, lists)]) == (ours, [len(rank.cpus) for rank in plan.ranks])


SERVER = make_machine(Shape(packages=2, nodes=4, l3s=8, cores=16, threads=2, numbering="halves"))
CPUS = Serving("vllm", "vLLM", "", BIND)
GPUS = Serving("vllm", "vLLM", "", "", ("--numa-bind", "--numa-bind-nodes"), ("--numa-bind-cpus",))


def serve(serving: Serving, **values: object) -> Plan:
    request = make_request({"serve": "vllm", **values}, ("vllm", "serve", "m"), {})
    return make_plan(SERVER, request.replace(binder="native", serving=serving))


@pytest.mark.parametrize("ranks", [1, 2, 3, 4, 7, 16])
def test_its_process_manager_takes_our_lists(manager: ProcessManager, ranks: int) -> None:
    """What a server is told is what vLLM gives its workers, cpu by cpu."""
    plan = serve(CPUS, ranks=ranks, smt=None)
    assert plan.server is not None
    environ = dict(plan.ranks[0].env)
    lists, reserved = manager.divide(SERVER, "x86", environ, ranks)
    assert [CpuSet(cpus) for cpus in lists] == [w.cpus for w in plan.server.workers]
    assert reserved == []


@pytest.mark.parametrize("ranks", [1, 2, 4, 8])
def test_its_numactl_is_told_by_our_words(manager: ProcessManager, ranks: int) -> None:
    """vLLM starts each GPU worker on the planned cpus, with memory of their node alone."""
    plan = serve(GPUS, ranks=ranks, per="numa", smt=None)
    assert plan.server is not None
    words = list(plan.server.words)
    cpus = words[words.index("--numa-bind-cpus") + 1 :]
    nodes = [int(w) for w in words[words.index("--numa-bind-nodes") + 1 : -ranks - 1]]
    for w in plan.server.workers:
        wanted = f"--physcpubind={w.cpus} --membind={w.mems}"
        assert manager.numactl_of(w.worker, nodes, cpus) == wanted


HALVES = tuple(CpuSet([node]) for node in (0, 0, 1, 1))


# vLLM's own options, what each worker runs under, and the README's equivalent.
@pytest.mark.parametrize(
    ("nodes", "cpus", "values"),
    [
        ([0, 0, 1, 1], None, {"nodes": HALVES, "share": True, "smt": None}),
        ([0, 1], ["0-3", "4-7"], {"cpus": (CpuSet(range(4)), CpuSet(range(4, 8)))}),
    ],
)
def test_its_numa_bind_options_have_equivalents(
    manager: ProcessManager, nodes: list[int], cpus: list[str] | None, values: dict[str, object]
) -> None:
    """`--numa-bind --numa-bind-nodes …`: a whole node for each worker, or its list of cpus."""
    renamed = {f"numa_bind_{k}" if k in ("nodes", "cpus") else k: v for k, v in values.items()}
    plan = serve(GPUS, **renamed)
    assert plan.server is not None
    for w in plan.server.workers:
        theirs = manager.numactl_of(w.worker, nodes, cpus)
        node = SERVER.topology.find_node(nodes[w.worker])
        assert node is not None
        assert theirs.endswith(f"--membind={w.mems}")
        if cpus is None:
            assert theirs.startswith(f"--cpunodebind={node.node} ")
            assert w.cpus == node.cpus
        else:
            assert theirs.startswith(f"--physcpubind={w.cpus} ")


def test_its_priority_cores_are_ours(manager: ProcessManager, tmp_path: Path) -> None:
    """The same cpus of each node, or none, for each model and each setting of the firmware."""
    shape = Shape(packages=2, nodes=4, cores=144, threads=2, l3s=4, numbering="halves")
    files = {"proc/cpuinfo": "", HIGHEST: ""}
    tree = write_tree(make_files(shape) | files, tmp_path)
    topology = read_machine(str(tree)).topology
    for model in ("6776P", "6774P", "6962P", "6972P"):
        for highest in (44, 46, 50):
            text = f"processor\t: 0\nmodel name\t: Intel(R) Xeon(R) {model}\n"
            (tree / "proc/cpuinfo").write_text(text)
            (tree / HIGHEST).write_text(f"{highest}\n")
            theirs = manager.priority_cpus(tree, list(topology.node_numbers))
            assert read_priority_cpus(str(tree), topology) == CpuSet(theirs)
