"""Why a plan is as it is, in sentences, and what is likely to make one slow."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest

from ompbind.cpuset import CpuSet
from ompbind.host.kernel import advise
from ompbind.machine.topology import Allowed, Cpu, Machine, Node, Topology
from ompbind.options import make_request
from ompbind.options.keywords import make_values
from ompbind.plan_json import parse_plan
from ompbind.planner import make_plan
from ompbind.plans import Inherited, Plan
from ompbind.render.rows import make_rows
from ompbind.render.sentences import explain
from tests.support.machines import MACHINES, make_asked

TOPOLOGY = Topology(
    cpus=tuple(Cpu(n, core=n, package=n // 4, node=n // 4, l3=n // 4) for n in range(8)),
    nodes=(Node(0, CpuSet(range(4)), 1 << 30), Node(1, CpuSet(range(4, 8)), 1 << 30)),
)
MACHINE = Machine(TOPOLOGY, Allowed(CpuSet(range(8)), CpuSet([0, 1])))


def planned(machine: Machine = MACHINE, **values: object) -> Plan:
    request = make_request(make_values("plan", values)).replace(binder="native")
    return make_plan(machine, request)


def test_equal_ranks_are_told_together() -> None:
    """Two on a node in one sentence, another node's in another."""
    plan = planned(numa_bind_nodes=["0", "0", "1", "1"])
    told = explain(plan)
    assert told[0] == "The machine has 8 cpus on 2 nodes; all are allowed."
    assert told[1] == "8 threads of 4 ranks run on 8 cpus; no quota limits their time."
    assert told[2] == (
        "Ranks 0-1: cpus 0-1, cpus 2-3 respectively (node 0); on node 0; 2 threads in 2 places of "
        "1 cpu each, next to each other; memory comes from node 0 only."
    )
    assert told[3].startswith(
        "Ranks 2-3: cpus 4-5, cpus 6-7 respectively (node 1); on node 1; 2 threads"
    )


def test_what_was_there_to_divide() -> None:
    """What was narrowed and by whom, parts, reserved cores and roles."""
    machine = MACHINE.replace(allowed=Allowed(CpuSet(range(6)), CpuSet([0, 1])))
    plan = planned(machine, reserve="1", role=["kv=1"])
    narrowed = (Inherited("affinity mask", "0-5", "widened", "Slurm"),)
    told = " ".join(explain(plan.replace(narrowed=narrowed)))
    assert "; 6 are allowed: 0-5." in told
    assert "Its affinity mask was restricted to 0-5 by Slurm; --inherited ignore resets it." in told
    assert f"Cpu {plan.reserved} is kept free" in told
    assert f"Cpu {plan.roles[0].cpus} is set aside as kv for rank 0, in" in told
    assert "This is part 1/2: cpus 4-7" in " ".join(explain(planned(part="1/2")))


@pytest.mark.parametrize(
    ("quota", "threads", "said"),
    [
        (None, None, "8 threads run on 8 cpus; no quota limits their time."),
        (None, "1", "1 thread runs on 8 cpus; no quota limits their time."),
        (3.5, None, "3 threads run on 8 cpus, within the cgroup's quota of 3.5 cpus' worth"),
        (3.0, "6", "6 threads run on 8 cpus; the cgroup's quota of 3 cpus' worth of time"),
    ],
)
def test_one_budget_of_threads(quota: float | None, threads: str | None, said: str) -> None:
    """Cpus, threads and the quota together, as planned."""
    machine = MACHINE.replace(allowed=MACHINE.allowed.replace(quota=quota))
    values = {"threads": threads} if threads else {}
    assert explain(planned(machine, **values))[1].startswith(said)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"mem": "interleave"}, "page by page over nodes 0-1"),
        ({"mem": "local"}, "memory comes from the node of the thread"),
        ({"places": "one"}, "8 threads move freely over its 8 cpus"),
        ({"proc_bind": "spread"}, "as far apart as possible"),
        ({"ranks": "2", "share": True}, "Ranks 0-1: cpus 0-7 each"),
    ],
)
def test_each_choice_has_words(values: dict[str, Any], words: str) -> None:
    """Memory, places, threads, sharing."""
    assert words in " ".join(explain(planned(**values)))


def test_kinds_weights_balance_and_needs() -> None:
    """What is special about a rank's memory is told, in sentences, in the table and in the JSON."""
    machine = MACHINES["expander"]
    nodes = tuple(n.replace(kind="dram" if n.cpus else "hbm", weight=5 if n.cpus else 1)
                  for n in machine.topology.nodes)  # fmt: skip
    machine = machine.replace(topology=machine.topology.replace(nodes=nodes))
    found = []
    for words in (
        "--numa-bind-nodes 1 --mem-kind hbm",
        "--mem preferred",
        "--mem weighted-interleave --mem-nodes 0,2",
        "--mem bind --mem-balancing --mem-need 1.5G",
    ):
        plan = make_plan(machine, make_asked(words.split()))
        assert parse_plan(plan.to_json()) == plan
        cell = make_rows(plan).rows[0].cells[5]
        found.append((cell, "memory " + explain(plan)[2].partition("; memory ")[2]))
    assert found == [
        ("bind 2", "memory comes from node 2 (the nearest HBM) only."),
        ("preferred 0-1",
         "memory comes from nodes 0-1 first, from others when these are full."),
        ("weighted-interleave 0,2 by 5:1",
         "memory is interleaved over nodes 0,2 by the kernel's weights (5 pages of node 0, then 1 "
         "page of node 2)."),
        ("bind 0-1, balanced, needs 1.5 GiB",
         "memory comes from nodes 0-1 only, and the kernel migrates pages among them to the "
         "threads that use them; it needs 1.5 GiB, which must be there before anything starts."),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("values", "balancing", "ranks"),
    [
        ({}, "1", "rank 0"),
        ({}, "2", "rank 0"),
        ({}, "0", ""),
        ({}, "", ""),
        ({"mem": "interleave"}, "1", ""),  # a policy keeps pages where they are
        ({"ranks": "2"}, "1", ""),  # each on one node
        ({"ranks": "2", "share": True}, "1", "ranks 0-1"),
    ],
)
def test_balancing_at_work(values: dict[str, Any], balancing: str, ranks: str) -> None:
    """Only ranks on several nodes without a policy have their pages moved."""
    cautions = advise(planned(**values), balancing)
    assert bool(cautions) == bool(ranks)
    if cautions:
        assert cautions[0].text.startswith(f"{ranks}: on several nodes without a memory policy")
        assert "sysctl kernel.numa_balancing=0" in cautions[0].text


@pytest.mark.parametrize(("setting", "warned"), [("0", True), ("1", False), ("", False)])
def test_balancing_that_the_kernel_does_not_do(setting: str, warned: bool) -> None:
    """--mem-balancing only permits what kernel.numa_balancing switches on."""
    plan = planned(mem="bind", mem_balancing=True)
    texts = [caution.text for caution in advise(plan, setting)]
    assert texts == ["--mem-balancing has no effect: kernel.numa_balancing is 0, so no pages are "
                     "migrated"] * warned  # fmt: skip
    assert advise(planned(mem="bind"), "0") == []


def test_slow_plans_name_a_remedy() -> None:
    """Far memory, crowded cpus."""
    far = planned(numa_bind_nodes=["1"], numa_bind_cpus=["0-3"])
    assert "name its cpus' node" in " ".join(far.warnings)
    crowded = planned(threads="9")
    assert "--threads 8 gives each its own" in " ".join(crowded.warnings)


def test_show_explains(ompbind: str, plain_environ: dict[str, str]) -> None:
    """In the table and in the JSON; not where only lines for a shell are printed."""

    def show(*args: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [ompbind, "show", "--explain", *args, "--", "true"],
            env=plain_environ,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    assert "The machine has" in show().stdout
    data = json.loads(show("--format", "json").stdout)
    assert data["explanation"][0].startswith("The machine has")
    refused = show("--format", "env")
    assert (refused.returncode, refused.stdout) == (125, "")
    assert "--explain does not go with --format env" in refused.stderr
