"""What ranks share, in words."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path

import pytest

from ompbind.cli.show import show
from ompbind.cpuset import CpuSet
from ompbind.machine import read_machine
from ompbind.plan_json import parse_plan
from ompbind.planner import make_plan
from ompbind.plans import Server, ServerWorker
from ompbind.render.sharing import describe_sharing, explain_sharing
from tests.support.machines import MACHINES, make_asked


@pytest.mark.parametrize(
    ("name", "args", "expected"),
    [
        ("server", "-n 4", "ranks 0-1 and 2-3 share a package each"),
        ("server", "-n 3 --share", "all ranks share cpus 0-15"),
        ("server", "-n 4 --per package --share",
         "ranks 0-1 and 2-3 share the same cpus"),
        ("server", "-n 4 --mem interleave --mem-nodes all",
         "all ranks share the memory of 4 nodes; 0-1 and 2-3 a package each"),
        ("server", "--numa-bind-cpus 0 16 1 2",
         "ranks 0-1 share a core; 0-2 an L3; all share a node's memory"),
        ("server", "--numa-bind-cpus 0 2 1 3 16",
         "ranks 0,4 share a core; 0+2+4 and 1+3 an L3 each; all share a node's memory"),
        ("desktop", "-n 2", "all ranks share the machine's memory"),
        ("lopsided", "-n 3", "ranks 0-1 share a package's memory; all share an L3"),
    ],
)  # fmt: skip
def test_what_ranks_share_in_a_line(name: str, args: str, expected: str) -> None:
    """The smallest parts first, each set of ranks once."""
    machine = MACHINES[name]
    plan = make_plan(machine, make_asked(args.split()))
    assert describe_sharing(plan, machine) == [expected]


def test_a_rank_alone_shares_nothing() -> None:
    """Nor do some ranks, of which only the explanation says so; of an unknown machine nothing is
    said."""
    machine = MACHINES["server"]
    assert describe_sharing(make_plan(machine, make_asked([])), machine) == []
    assert describe_sharing(make_plan(machine, make_asked(["-n", "2"])), None) == []
    assert explain_sharing(make_plan(machine, make_asked([])), machine) == []
    for name, text in (("server", "core, L2, L3, memory or package"), ("mute", "cpu")):
        plan = make_plan(MACHINES[name], make_asked(["-n", "2"]))
        assert describe_sharing(plan, MACHINES[name]) == []
        assert explain_sharing(plan, MACHINES[name]) == [f"The ranks share no {text}."]


def test_many_ranks_read_in_two_lines() -> None:
    """128 ranks, each one hardware thread, on four levels; an explanation has a sentence each."""
    machine = read_machine("package:2 numa:4 l3:2 core:4 pu:2")
    pairs = [f"{c + t}" for t in (0, 1) for c in range(0, 128, 2)]
    plan = make_plan(machine, make_asked(["--numa-bind-cpus", *pairs, "--mem", "bind"]))
    (line,) = describe_sharing(plan, machine)
    assert len(textwrap.wrap(line, 100)) == 2
    assert line == (
        "ranks 0+64 … 63+127 share a core each; 0-3+64-67 … 60-63+124-127 an L3 each; "
        "0-7+64-71 … 56-63+120-127 a node's memory each; "
        "0-31+64-95 and 32-63+96-127 a package each"
    )
    sentences = explain_sharing(plan, machine)
    assert len(sentences) == 4
    assert sentences[-1] == "Ranks 0-31+64-95 and 32-63+96-127 share a package each (packages 0-1)."


def test_workers_of_a_server_are_called_so() -> None:
    """The server is one rank; what its workers share is said."""
    machine = MACHINES["server"]
    plan = make_plan(machine, make_asked([]))
    workers = tuple(
        ServerWorker(n, CpuSet([2 * n, 2 * n + 1]), CpuSet([0]), "bind", CpuSet([0]))
        for n in range(2)
    )
    plan = plan.replace(server=Server("vllm", "vLLM", "", workers, CpuSet()))
    assert describe_sharing(plan, machine) == ["all workers share a node's memory"]
    assert explain_sharing(plan, machine) == ["All workers share a node's memory (node 0)."]


def test_show_says_what_ranks_share(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """In the table, in the JSON and in the explanation; a plan saved with it is read."""
    words = ["--topology", "package:2 numa:1 core:2 pu:1", "-n", "4"]
    show([*words, "--explain", "--", "a"])
    drawn = capfd.readouterr().out
    assert "\nranks 0-1 and 2-3 share a package's memory each\n" in drawn
    assert "\nRanks 0-1 and 2-3 share a package's memory each (nodes 0-1).\n" in drawn
    show([*words, "--format", "json", "--", "a"])
    saved = tmp_path / "plan.json"
    saved.write_text(capfd.readouterr().out)
    assert json.loads(saved.read_text())["sharing"] == [
        {"level": "memory", "numbers": "0", "ranks": "0-1"},
        {"level": "memory", "numbers": "1", "ranks": "2-3"},
    ]
    assert parse_plan(saved.read_text()).ranks[3].rank == 3
