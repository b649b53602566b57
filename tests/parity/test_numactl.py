"""numactl, taskset and hwloc-bind: the rows of the page, by their manuals.

Source: numactl(8), taskset(1), hwloc-bind(1). They bind to all hardware threads of what is named;
the rows that name nodes use one thread of each core, as the page says, but for hwloc-bind's.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from ompbind.planner import make_plan
from tests.support.machines import MACHINES, make_asked

PAGE = Path(__file__).parents[2] / "docs/how-to/coming-from.md"

# What stands in the page, and what is bound on the server of the worked examples: node 0 has cpus
# 0-3 and their siblings 16-19, node 1 has 4-7 and 20-23.
ROWS = [
    ("--cpunodebind=0 --membind=0", "--numa-bind-nodes 0", "0-3 bind:0"),
    ("--physcpubind=0-3 prog", "--numa-bind-cpus 0-3", "0-3 none"),
    ("--physcpubind=0-3 --membind=1", "--numa-bind-cpus 0-3 --numa-bind-nodes 1", "0-3 bind:1"),
    ("--preferred=1", "--numa-bind-nodes 1 --mem preferred", "4-7 preferred:1"),
    ("--cpunodebind=0,1 --membind=0,1", "--numa-bind-nodes 0+1", "0-7 bind:0-1"),
    ("--interleave=all", "--mem interleave --mem-nodes all", "0-15 interleave:0-3"),
    ("--preferred-many=0,1", "--mem preferred --mem-nodes 0,1", "0-15 preferred:0-1"),
    (
        "--weighted-interleave=0,1",
        "--mem weighted-interleave --mem-nodes 0,1",
        "0-15 weighted-interleave:0-1",
    ),
    (
        "--balancing --membind=0,1",
        "--mem bind --mem-nodes 0,1 --mem-balancing",
        "0-15 bind=balancing:0-1",
    ),
    ("--localalloc", "--mem local", "0-15 local"),
    ("hwloc-bind node:1", "--numa-bind-nodes 1 --mem none --smt all", "4-7,20-23 none"),
    ("--membind node:1 --cpubind node:1", "--numa-bind-nodes 1 --smt all", "4-7,20-23 bind:1"),
]


@pytest.mark.parametrize(("theirs", "ours", "bound"), ROWS)
def test_row(theirs: str, ours: str, bound: str) -> None:
    """Each stands in the page, and binds what the manuals say."""
    rows = [line for line in PAGE.read_text().splitlines() if line.startswith("| `")]
    assert any(theirs in row and f"`ompbind run {ours} -- prog`" in row for row in rows)
    (rank,) = make_plan(MACHINES["server"], make_asked(ours.split())).ranks
    assert f"{rank.cpus} {dict(rank.env)['OMPBIND_MEM']}" == bound


def test_every_row_is_here() -> None:
    """Those of the section about these tools."""
    section = PAGE.read_text().split("\n## ")[1]
    others = (
        "--hbm node:1",
        "mlc --latency_matrix",
        "vmtouch -t model",
    )  # the next, and no binders
    assert all(section.count(row) == 1 for row in others)
    assert section.count("\n| `") == len(ROWS) + len(others)


def test_the_nearest_hbm() -> None:
    """On a machine whose node 2 has some, its cpus on node 1: the row of hwloc-bind's --hbm."""
    machine = MACHINES["expander"]
    nodes = tuple(n.replace(kind="dram" if n.cpus else "hbm") for n in machine.topology.nodes)
    machine = machine.replace(topology=machine.topology.replace(nodes=nodes))
    ours = "--numa-bind-nodes 1 --mem-kind hbm --smt all"
    assert f"`ompbind run {ours} -- prog`" in PAGE.read_text()
    (rank,) = make_plan(machine, make_asked(ours.split())).ranks
    assert (str(rank.cpus), rank.binding.write_memory()) == ("4-7", "bind:2")


def test_all_is_each_node_with_memory_that_is_allowed() -> None:
    """Nodes without cpus, too, whose memory is in no policy otherwise."""
    for machine, nodes in (("expander", "0-2"), ("hungry", "0,2"), ("container", "0-1")):
        request = make_asked(["--mem", "interleave", "--mem-nodes", "all"])
        (rank,) = make_plan(MACHINES[machine], request).ranks
        assert str(rank.mems) == nodes
