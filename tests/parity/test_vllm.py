"""vLLM: its variables under --from-env vllm, its --numa-bind options, its first strategies.

Expected is what vLLM's documentation and its OMPProcessManager say for such a machine, worked out
by hand. On x86 and s390 it takes the last hardware thread of each core, ompbind the first: there
the cores are compared, elsewhere the cpus. test_vllm_code.py runs vLLM's own code.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from ompbind.cpuset import CpuSet
from ompbind.errors import OmpbindError
from ompbind.machine import read_machine
from tests.parity.plans import cores_of, cpus_of, plan_for
from tests.support.trees import Shape, make_files, write_tree

CPUINFO = {
    "x86": "processor\t: 0\nvendor_id\t: GenuineIntel\ncpu family\t: 6\n",
    "arm": "processor\t: 0\nCPU implementer\t: 0x41\n",
    "power": "processor\t: 0\ncpu\t\t: POWER9, altivec supported\n",
    "s390": "vendor_id       : IBM/S390\n# processors    : 16\n",
    "riscv": "processor\t: 0\nisa\t\t: rv64imafdc\n",
}
TWO_NODES = Shape(packages=2, nodes=2, cores=8, threads=2, l3s=2, numbering="halves")
POWER = Shape(packages=2, nodes=2, cores=4, threads=8, l3s=4)
ARM = Shape(packages=1, nodes=2, cores=8, threads=1)
DRAWERS = Shape(packages=2, nodes=1, cores=8, threads=2, books=2, drawers=2, l3s=2)
SOCKETS = Shape(packages=2, nodes=1, cores=8, threads=2, l3s=2)

BIND, RESERVED = "VLLM_CPU_OMP_THREADS_BIND", "VLLM_CPU_NUM_OF_RESERVED_CPU"
NODES = "CPU_VISIBLE_MEMORY_NODES"

# family, machine, vLLM's variables, its number of ranks, the cpus of each rank there.
CASES = [
    ("x86", TWO_NODES, {}, 2, "8-10 12-14"),
    ("x86", TWO_NODES, {BIND: "auto"}, 2, "8-10 12-14"),
    ("x86", TWO_NODES, {BIND: "auto"}, 1, "8-10"),
    ("x86", TWO_NODES, {RESERVED: "0"}, 2, "8-11 12-15"),
    ("x86", TWO_NODES, {RESERVED: "2"}, 2, "8-10 12-14"),
    ("x86", TWO_NODES, {RESERVED: "3"}, 2, "8-10 12-13"),
    ("x86", TWO_NODES, {RESERVED: "0", NODES: "1"}, 1, "12-15"),
    ("x86", TWO_NODES, {RESERVED: "0", NODES: "1,0"}, 2, "12-15 8-11"),
    ("x86", TWO_NODES, {RESERVED: "0", NODES: "0,7"}, 1, "8-11"),
    ("x86", TWO_NODES, {BIND: "0-3|4-7"}, 2, "0-3 4-7"),
    ("x86", TWO_NODES, {BIND: "0,2|5,6-7", RESERVED: "1"}, 2, "0,2 5-7"),
    ("x86", TWO_NODES, {BIND: "0-3,8-11"}, 1, "0-3,8-11"),
    ("x86", TWO_NODES, {BIND: "nobind"}, 2, "0-15 0-15"),
    ("x86", SOCKETS, {RESERVED: "0"}, 2, "1,3,5,7 9,11,13,15"),
    ("s390", DRAWERS, {RESERVED: "0"}, 2, "1,3,5,7 9,11,13,15"),
    ("s390", TWO_NODES, {RESERVED: "0"}, 2, "8-11 12-15"),
    ("power", POWER, {RESERVED: "0"}, 2, "0-3,8-11 16-19,24-27"),
    ("power", POWER, {RESERVED: "8"}, 2, "0-3 16-19"),
    ("arm", ARM, {}, 2, "0-2 4-6"),
    ("arm", ARM, {RESERVED: "0"}, 2, "0-3 4-7"),
    ("riscv", ARM, {}, 2, "0-2 4-6"),
]


def tree_of(shape: Shape, family: str, place: Path) -> Path:
    return write_tree(make_files(shape) | {"proc/cpuinfo": CPUINFO[family]}, place)


@pytest.mark.parametrize(
    ("family", "shape", "environ", "ranks", "expected"), CASES,
    ids=[f"{c[0]}-{c[3]}-" + ",".join(c[2].values()) for c in CASES],
)  # fmt: skip
def test_ranks_are_where_vllm_puts_them(
    tmp_path: Path,
    family: str,
    shape: Shape,
    environ: Mapping[str, str],
    ranks: int,
    expected: str,
) -> None:
    """Rank by rank, in every form of the variables; with one place, as vLLM writes it."""
    tree = tree_of(shape, family, tmp_path)
    plan = plan_for(tree, f"--from-env vllm -n {ranks} --binder native", environ)
    topology = read_machine(str(tree)).topology
    theirs = [CpuSet.parse_kernel(text) for text in expected.split()]
    if family in ("x86", "s390") and not environ.get(BIND, "auto")[0].isdigit():
        ours = [cores_of(topology, set(rank.cpus)) for rank in plan.ranks]
        assert ours == [cores_of(topology, set(cpus)) for cpus in theirs]
        if environ.get(BIND) != "nobind":
            assert [len(r.cpus) for r in plan.ranks] == list(map(len, theirs))
    else:
        assert [rank.cpus for rank in plan.ranks] == theirs
    for rank in plan.ranks:
        env = dict(rank.env)
        assert rank.places == (rank.cpus,)
        assert env["OMP_NUM_THREADS"] == str(len(rank.cpus))
        assert env["OMP_PROC_BIND"] == ("false" if environ.get(BIND) == "nobind" else "true")
        assert env[BIND] == "nobind", "vLLM in the worker must not bind a second time"
    assert {i.name for i in plan.inherited} == set(environ)


def test_more_ranks_than_nodes_divide_them(tmp_path: Path) -> None:
    """vLLM refuses four ranks on two nodes; here each node is split, no core twice."""
    tree = tree_of(TWO_NODES, "x86", tmp_path)
    plan = plan_for(tree, "--from-env vllm -n 4 --binder native", {RESERVED: "0"})
    assert cpus_of(plan) == ["0-1", "2-3", "4-5", "6-7"]
    plan = plan_for(tree, "--from-env vllm -n 4 --binder native", {RESERVED: "0", NODES: "1"})
    assert cpus_of(plan) == ["4", "5", "6", "7"]


def test_a_reserved_core_is_a_whole_core(tmp_path: Path) -> None:
    """vLLM takes 4 cpus from the ranks' lists on POWER, two halves of a core each; here one whole
    core is free, and no rank shares one with other work."""
    tree = tree_of(POWER, "power", tmp_path)
    plan = plan_for(tree, "--from-env vllm -n 2 --binder native", {RESERVED: "4"})
    assert cpus_of(plan) == ["0-3,8-11", "16-19"]
    assert str(plan.reserved) == "24-31"


def test_options_win_over_the_variables(tmp_path: Path) -> None:
    """What is given is done; the variable is then told to be overridden."""
    tree = tree_of(TWO_NODES, "x86", tmp_path)
    environ = {BIND: "0-3|4-7"}
    plan = plan_for(tree, "--from-env vllm --numa-bind-nodes 1 0 --binder native", environ)
    assert cpus_of(plan) == ["4-7", "0-3"]
    assert [(i.name, i.action) for i in plan.inherited] == [(BIND, "overridden")]
    plan = plan_for(tree, "--from-env vllm -n 2 --smt all --places cores --binder native", {})
    assert plan.ranks[0].cpus == CpuSet.parse_kernel("0-2,8-10")
    assert len(plan.ranks[0].places) == 3


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({BIND: "0-3|x"}, "^VLLM_CPU_OMP_THREADS_BIND, rank 1: 'x' is not a number or a range"),
        ({BIND: "0-3|40"}, "rank 1: cpu 40 does not exist"),
        ({BIND: "0-3|2-5"}, "rank 1: cpu 2 already belongs to rank 0"),
        (
            {BIND: "0-1|2-3|4-5"},
            "the number of ranks is unclear: VLLM_CPU_OMP_THREADS_BIND is for 3, --ranks is for 2",
        ),
        ({NODES: "0;1"}, "is no list of nodes"),
        ({NODES: "5"}, "names no node that is allowed"),
        ({RESERVED: "many"}, "is not a number of cpus"),
        ({RESERVED: "99"}, "VLLM_CPU_NUM_OF_RESERVED_CPU=99 would leave ranks without a core"),
    ],
)
def test_variables_that_cannot_be_followed_are_refused(
    tmp_path: Path, environ: Mapping[str, str], message: str
) -> None:
    """One clear line each, where vLLM asserts, warns, or drops a part in silence."""
    tree = tree_of(TWO_NODES, "x86", tmp_path)
    with pytest.raises(OmpbindError, match=message):
        plan_for(tree, "--from-env vllm -n 2 --binder native", environ)


# vLLM's options (numactl's for each worker), ours; the cpus and the node of each rank.
OPTIONS = [
    ("--numa-bind --numa-bind-nodes 0 1", "0-3,8-11/0 4-7,12-15/1"),
    ("--numa-bind --numa-bind-nodes 0 1 --numa-bind-cpus 0-2 4-6", "0-2/0 4-6/1"),
]


@pytest.mark.parametrize(("options", "expected"), OPTIONS)
def test_the_options_of_the_same_names_do_the_same(
    tmp_path: Path, options: str, expected: str
) -> None:
    """--cpunodebind or --physcpubind, and --membind, as vLLM's numa_utils hands them to numactl."""
    tree = tree_of(TWO_NODES, "x86", tmp_path)
    smt = "" if "cpus" in options else "--smt all"
    plan = plan_for(tree, f"{options} {smt} --binder native")
    assert [f"{r.cpus}/{r.mems}" for r in plan.ranks] == expected.split()
    assert {r.mem for r in plan.ranks} == {"bind"}


# The first OMPProcessManager's strategies (smt, merge, split, reserve), ours, the places by node.
STRATEGIES = [
    ("nodes", "--per numa", "0-3 4-7"),
    ("nodes, smt 2", "--per numa --smt 2", "0-3,8-11 4-7,12-15"),
    ("nodes, reserve 1", "--per numa --reserve 1/rank", "0-2 4-6"),
    ("nodes, split 2", "--per numa -n 4", "0-1 2-3 4-5 6-7"),
    ("all (merge 2)", "-n 1", "0-7"),
    ("all, smt 2", "-n 1 --smt 2", "0-15"),
    ("cores", "--per core", "0 1 2 3 4 5 6 7"),
    ("cores, smt 2", "--per core --smt 2", "0,8 1,9 2,10 3,11 4,12 5,13 6,14 7,15"),
]


@pytest.mark.parametrize(("theirs", "ours", "expected"), STRATEGIES)
def test_the_strategies_have_their_options(
    tmp_path: Path, theirs: str, ours: str, expected: str
) -> None:
    """A mask for each node, for all, for each core, with one thread of a core or more."""
    tree = tree_of(TWO_NODES, "x86", tmp_path)
    plan = plan_for(tree, f"{ours} --places one --binder native")
    assert cpus_of(plan) == expected.split(), theirs
    assert all(rank.places == (rank.cpus,) for rank in plan.ranks)
