"""run_cpu, ipexrun and likwid-pin: the rows of the page, by their documentation.

Source: `python -m torch.backends.xeon.run_cpu --help` and its module's docstring, likwid-pin(1).
Each instance gets consecutive physical cores, and numactl binds its memory to their nodes.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from ompbind.planner import make_plan
from tests.support.machines import MACHINES, make_asked

PAGE = Path(__file__).parents[2] / "docs/how-to/coming-from.md"

# What stands in the page, and what each rank gets on the server of the worked examples: 16 cores,
# 0-15, four in each of four nodes.
ROWS = [
    ("run_cpu --ninstances 4", "-n 4 --mem bind",
     ["0-3 bind:0", "4-7 bind:1", "8-11 bind:2", "12-15 bind:3"]),
    ("--throughput-mode", "--per numa --mem bind",
     ["0-3 bind:0", "4-7 bind:1", "8-11 bind:2", "12-15 bind:3"]),
    ("--latency-mode", "-n 4 --cores-per-rank 4 --mem bind",
     ["0-3 bind:0", "4-7 bind:1", "8-11 bind:2", "12-15 bind:3"]),
    ("--ncores-per-instance 2 --ninstances 4", "-n 4 --cores-per-rank 2 --mem bind", None),
    ("--node-id 1", "--numa-bind-nodes 1", ["4-7 bind:1"]),
    ("--bind_cores_to_rank", "-n 2 --master-port auto", ["0-7 none", "8-15 none"]),
    ("--num_cpu_threads_per_process 4", "-n 2 --threads 4 --master-port auto",
     ["0-7 none", "8-15 none"]),
    ("likwid-pin -c 0-3", "--numa-bind-cpus 0-3 --places cores", ["0-3 none"]),
]  # fmt: skip


@pytest.mark.parametrize(("theirs", "ours", "bound"), ROWS, ids=[row[0] for row in ROWS])
def test_row(theirs: str, ours: str, bound: list[str] | None) -> None:
    """Each stands in the page, and binds what the documentation says: as many cores for each
    instance, next to one another, memory on their nodes."""
    rows = [line for line in PAGE.read_text().splitlines() if line.startswith("| `")]
    assert any(theirs in row and f"`ompbind run {ours} -- " in row for row in rows)
    words = [word for word in ours.split() if word not in ("--master-port", "auto")]
    ranks = make_plan(MACHINES["server"], make_asked(words)).ranks
    got = [f"{rank.cpus} {dict(rank.env)['OMPBIND_MEM']}" for rank in ranks]
    if bound is None:
        assert [len(rank.cpus) for rank in ranks] == [2, 2, 2, 2]
    else:
        assert got == bound
