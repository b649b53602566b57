"""The warning of cores that --numa-bind and the like leave idle, and what it advises instead."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ompbind.cpuset import CpuSet, union
from ompbind.errors import PlanError
from ompbind.machine.topology import Machine
from ompbind.planner import make_plan
from ompbind.planner.idle import names_a_part
from ompbind.planner.request import Pool, Request, Serving
from ompbind.plans import Caution, Plan, World
from tests.support.machines import MACHINES, make_asked, make_machine
from tests.support.requests import cores_of, machines
from tests.support.trees import Shape


def idle_share(machine: Machine, plan: Plan) -> float:
    """The share of the allowed cores of which no rank has a cpu, counted from the topology."""
    cores = cores_of(machine.topology, machine.allowed.cpus)
    taken = union(r.cpus for r in plan.ranks)
    return sum(not core & taken for core in cores) / len(cores)


def find_warning(plan: Plan) -> Caution | None:
    return next((c for c in plan.cautions if c.kind == "idle"), None)


def list_commands(hint: str) -> list[list[str]]:
    """The options of each piece of advice: its words before the verb."""
    commands = []
    for piece in filter(None, hint.split("; ")):
        words = piece.split()
        end = next(n for n, word in enumerate(words) if word in ("divides", "gives", "starts"))
        commands.append(words[:end])
    return commands


OPTIONS = st.sampled_from([["--numa-bind"], ["--per", "numa"], ["--per", "package"]])


@given(machines(), OPTIONS, st.none() | st.integers(1, 8))
@settings(max_examples=50)
def test_the_advice_uses_the_machine(machine: Machine, options: list[str], n: int | None) -> None:
    """A warning is there where more than a quarter is idle, and not elsewhere; what it advises
    leaves less idle, and does not warn again."""
    args = [*options, *(["-n", str(n)] if n else [])]
    try:
        plan = make_plan(machine, make_asked(args))
    except PlanError:
        return
    warning = find_warning(plan)
    denied = any("leaves out" in text for text in plan.warnings)
    assert (warning is not None) == (idle_share(machine, plan) > 0.25 and not denied)
    if warning is None:
        return
    for words in list_commands(warning.hint):
        advised = make_plan(machine, make_asked(words))
        assert idle_share(machine, advised) <= 0.25
        assert find_warning(advised) is None


@pytest.mark.parametrize(
    ("args", "text", "hint"),
    [
        ("--numa-bind -n 2",
         "--numa-bind puts 2 ranks on 2 of 4 nodes: 8 of 16 cores are idle",
         "-n 2 --mem bind divides all nodes among the ranks; "
         "-n 4 --numa-bind starts a rank on each node"),
        ("--numa-bind", "--numa-bind puts 1 rank on 1 of 4 nodes: 12 of 16 cores are idle",
         "--mem bind gives the rank all nodes; -n 4 --numa-bind starts a rank on each node"),
        ("--numa-bind -n 2 --mem interleave",
         "--numa-bind puts 2 ranks on 2 of 4 nodes: 8 of 16 cores are idle",
         "-n 2 --mem interleave divides all nodes among the ranks; "
         "-n 4 --numa-bind starts a rank on each node"),
        ("--per numa -n 2", "--per numa puts 2 ranks on 2 of 4 nodes: 8 of 16 cores are idle",
         "-n 2 divides all nodes among the ranks; "
         "-n 4 --per numa starts a rank on each node"),
        ("--per package -n 1",
         "--per package puts 1 rank on 1 of 2 packages: 8 of 16 cores are idle",
         "-n 1 gives the rank all packages; "
         "-n 2 --per package starts a rank on each package"),
    ],
)  # fmt: skip
def test_few_ranks_on_many_nodes(args: str, text: str, hint: str) -> None:
    """It says what is idle and why, and both ways out."""
    warning = find_warning(make_plan(MACHINES["server"], make_asked(args.split())))
    assert warning == Caution("idle", text, hint)


def test_advice_to_ranks_that_an_engine_starts() -> None:
    """Their number is not ompbind's to name."""
    request = make_asked(["--numa-bind", "-n", "2"]).replace(world=World(0, 2, 0, 2))
    warning = find_warning(make_plan(MACHINES["server"], request))
    assert warning is not None
    assert warning.hint == "--mem bind divides all nodes among the ranks"


@pytest.mark.parametrize(
    "args",
    [
        "-n 2", "--numa-bind -n 3", "--numa-bind -n 4", "--per numa", "--per l3 -n 2",
        "--per core -n 2", "--numa-bind-nodes 0 1", "--numa-bind-cpus 0-3",
        "--numa-bind -n 2 --cores-per-rank 2", "--numa-bind -n 2 --threads 2",
        "--numa-bind -n 1 --part 1/2", "--numa-bind -n 2 --reserve 1",
        "--numa-bind -n 2 --role kv=1", "--numa-bind -n 2 --distribution spread",
        "--numa-bind -n 2 --mem-nodes 0 1", "--numa-bind -n 2 --exclude 8-15",
        "--numa-bind -n 2 --exclude-cpus 12", "-n 9 --balance equal --leave-over",
    ],
)  # fmt: skip
def test_who_says_which_part_is_not_warned(args: str) -> None:
    """Nor who leaves a quarter idle, or nothing."""
    assert find_warning(make_plan(MACHINES["server"], make_asked(args.split()))) is None


@pytest.mark.parametrize(
    "said",
    [
        {"per": "gpu"}, {"nodes": (CpuSet([0]),)}, {"mem_nodes": (CpuSet([0]), CpuSet([1]))},
        {"cpus": (CpuSet([0]),)}, {"place_list": (CpuSet([0]),)}, {"cores_per_rank": (1,)},
        {"threads": "2"}, {"distribution": "cyclic"}, {"part": (1, 2)}, {"free": Pool("", 4)},
        {"only": CpuSet([0])}, {"reserve": Pool("", 1)}, {"roles": (Pool("kv", 1),)},
        {"exclude": CpuSet([0])}, {"exclude_cpus": CpuSet([0])}, {"kind": "fastest"},
        {"near": "eth0"}, {"group": "prefill"}, {"serving": Serving("vllm", "vLLM")},
        {"per": "numa", "world": World(0, 2, 0, 2)},
    ],
    ids="-".join,
)  # fmt: skip
def test_each_way_to_name_a_part(said: dict[str, Any]) -> None:
    """By itself; how many ranks there are, and where their memory is, names none."""
    request = Request(ranks=2, numa_bind=True, mem_nodes=(CpuSet([0]),), world=World(0, 2, 0, 2))
    assert not names_a_part(request)
    assert not names_a_part(request.replace(per="package", numa_bind=False, world=None))
    assert names_a_part(request.replace(**said))


def test_no_advice_that_would_not_do() -> None:
    """Where memory cannot be bound otherwise without a warning, the warning stands alone."""
    warning = find_warning(make_plan(MACHINES["hungry"], make_asked(["--numa-bind"])))
    assert warning == Caution(
        "idle", "--numa-bind puts 1 rank on 1 of 3 nodes: 4 of 6 cores are idle", ""
    )


@pytest.mark.parametrize(
    "args",
    [
        "--numa-bind",  # the core of node 1 cannot have a rank, nor can two be on another node's
        "--numa-bind --oversubscribe",  # two can, but the core of node 1 stays idle
    ],
)
def test_no_advice_where_memory_is_denied(args: str) -> None:
    """What cannot be planned is not advised, nor what would leave as much idle."""
    machine = make_machine(Shape(nodes=3, cores=3), nodes="0,2")
    warning = find_warning(make_plan(machine, make_asked(args.split())))
    assert warning == Caution(
        "idle", "--numa-bind puts 1 rank on 1 of 3 nodes: 2 of 3 cores are idle", ""
    )


def test_no_advice_that_leaves_a_node_without_a_rank() -> None:
    """With a rank for each node, two would be on node 1, and the denied one would have none."""
    machine = make_machine(Shape(nodes=4, cores=8), nodes="1-3")
    warning = find_warning(make_plan(machine, make_asked(["--numa-bind"])))
    assert warning is not None
    assert "-n 4" not in warning.hint


def test_a_third_is_worth_a_warning() -> None:
    """A quarter is not."""
    warning = find_warning(make_plan(MACHINES["lopsided"], make_asked(["--numa-bind"])))
    assert warning == Caution(
        "idle",
        "--numa-bind puts 1 rank on 1 of 2 nodes: 2 of 6 cores are idle",
        "--mem bind gives the rank all nodes; -n 2 --numa-bind starts a rank on each node",
    )
    quarter = make_machine(Shape(nodes=2, cores=8), "0-3,5")  # four of the first node's, and one
    assert find_warning(make_plan(quarter, make_asked(["--numa-bind"]))) is None
