"""The map of a plan: each cpu once, under its owner's sign, in the machine's shape."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace

import pytest

from ompbind.cpuset import CpuSet
from ompbind.machine.topology import Machine
from ompbind.planner import make_plan
from ompbind.planner.request import Request
from ompbind.plans import Plan
from ompbind.render import make_text
from ompbind.render.plan import RANK_MARKS, draw_plan
from tests.support.machines import make_asked, make_machine
from tests.support.shared_trees import machine_names, need_topologies, read_tree, unpacked
from tests.support.trees import Shape

# A row of a block: a label of cpus, and their signs.
ROW = re.compile(
    r"(?:^|   ) *([0-9,:\-…]+) ([0-9a-z·=/x+\-A-Z]+(?: [0-9a-z·=/x+\-A-Z]+)*)(?=   |$)"
)


def drawn(plan: Plan, machine: Machine | None, monkeypatch: pytest.MonkeyPatch, width: int) -> str:
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    return make_text(draw_plan(plan, (), None, machine))


def ask(*args: str) -> Request:
    """Return the request of a program in Python, which is one place."""
    return make_asked(args, ()).replace(places="one")


def rows_of(text: str) -> list[tuple[str, str]]:
    """Return label and signs of each row of a map."""
    begin = next(n for n, line in enumerate(text.splitlines()) if line.startswith("rank "))
    lines = text.splitlines()[begin:]
    rest = lines[lines.index("") :]
    lines = rest[: next(n for n, line in enumerate(rest) if line.startswith("digit: "))]
    found = [match for line in lines for match in ROW.finditer(line)]
    return [(match[1], match[2].replace(" ", "")) for match in found]


@pytest.mark.parametrize("name", machine_names() or ["none"])
def test_two_ranks_on_every_real_machine(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """80 columns and 25 lines are enough, and each sign stands for one cpu of its owner."""
    need_topologies()
    if not (unpacked(name) / "sys/devices/system/cpu").is_dir():
        pytest.skip("the tree holds cgroup files only")
    machine = read_tree(name)
    cores = len({c.core for c in machine.topology.cpus if c.cpu in machine.allowed.cpus})
    plan = make_plan(machine, ask("-n", str(min(2, cores))))
    text = drawn(plan, machine, monkeypatch, 80)
    lines = text.splitlines()
    assert len(lines) <= 25
    assert all(len(line) <= 80 for line in lines)
    rows = rows_of(text)
    for label, signs in rows:
        if "…" not in label:
            assert len(CpuSet.parse_user(label)) == len(signs)
    if " more like " in text:
        return
    counts = Counter("".join(signs for _, signs in rows))
    for r in plan.ranks:
        assert counts[RANK_MARKS[r.rank]] == len(r.cpus)
    if "are not drawn" not in text:
        assert sum(counts.values()) == len(plan.host.cpus)
        assert counts["x"] == len(plan.host.cpus - plan.host.allowed)


SERVER = Shape(packages=2, nodes=4, l3s=8, cores=32, threads=2, numbering="halves")


def test_a_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """Packages and nodes side by side, a column for each core, a row for each hardware thread."""
    machine = make_machine(SERVER)
    plan = make_plan(machine, ask("-n", "4", "--reserve", "1", "--exclude", "0"))
    text = drawn(plan, machine, monkeypatch, 80)
    assert (
        """
package 0                           package 1
node 0            node 1            node 2            node 3
  0-7 -000 0000    8-15 1111 1111   16-23 2222 2222   24-31 3333 333=
32-39 -··· ····   40-47 ···· ····   48-55 ···· ····   56-63 ···· ···=
digit: rank  = reserved  - excluded  · not used
"""
        in text
    )
    assert "excluded: cpus 0,32\nidle: 30 further hardware threads of cores in use\n" in text


def test_each_cpu_is_under_its_label(monkeypatch: pytest.MonkeyPatch) -> None:
    """The n-th sign of a row is the n-th cpu of its label."""
    for numbering in ("halves", "pairs", "round-robin"):
        machine = make_machine(replace(SERVER, numbering=numbering))
        plan = make_plan(machine, ask("-n", "7"))
        owner = {cpu: RANK_MARKS[r.rank] for r in plan.ranks for cpu in r.cpus}
        drawn_cpus = set()
        for label, signs in rows_of(drawn(plan, machine, monkeypatch, 80)):
            for cpu, sign in zip(CpuSet.parse_user(label), signs, strict=True):
                assert sign == owner.get(cpu, "·")
                drawn_cpus.add(cpu)
        assert drawn_cpus == set(machine.topology.online)


def test_many_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ranks that are alike are one row; where signs repeat, a block has its ranks' numbers."""
    machine = make_machine(Shape(packages=2, nodes=8, cores=128, threads=1))
    plan = make_plan(machine, ask("--per", "core"))
    text = drawn(plan, machine, monkeypatch, 80)
    assert "0-127  1 each  one each " in text
    assert all(f"ranks {n}-{n + 15}" in text for n in range(0, 128, 16))
    plan = make_plan(machine, ask("--per", "numa", "--numa-bind"))
    text = drawn(plan, machine, monkeypatch, 80)
    assert " each  " not in text  # eight ranks are not many
    folded = drawn(make_plan(machine, ask("-n", "16")), machine, monkeypatch, 80)
    assert folded.count(" one ") == 16


def test_one_rank_of_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """`--rank` shows its row only."""
    machine = make_machine(SERVER)
    plan = make_plan(machine, ask("--per", "core"))
    monkeypatch.setenv("COLUMNS", "80")
    text = make_text(draw_plan(plan, (), 5, machine))
    rows = [line for line in text.splitlines() if line.endswith(tuple(f"core {n}" for n in "0567"))]
    assert [line.split()[:2] for line in rows] == [["5", "5"]]


def test_roles_of_many_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A line for each of a few, one for all of many."""
    machine = make_machine(SERVER)
    plan = make_plan(machine, ask("-n", "4", "--role", "kv=1/rank"))
    assert "role kv: cpus 23, of rank 2\n" in drawn(plan, machine, monkeypatch, 80)
    plan = make_plan(machine, ask("-n", "8", "--role", "kv=1/rank", "--role", "io=2"))
    text = drawn(plan, machine, monkeypatch, 80)
    assert [line for line in text.splitlines() if line.startswith("role ")] == [
        "role kv: cpus 3-31:4, each of ranks 0-7 has some",
        "role io: cpus 26,30, of ranks 0-7",
    ]


def test_another_machines_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of which only cpus are known: a row for each range, named at each gap."""
    machine = make_machine(Shape(packages=1, nodes=1, cores=24, offline="10-11"))
    plan = make_plan(machine, ask("-n", "2"))
    rows = rows_of(drawn(plan, None, monkeypatch, 80))
    assert [label for label, _ in rows] == ["0-9", "12-23"]
    assert [len(signs) for _, signs in rows] == [10, 12]


def test_a_block_wider_than_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is cut between caches, each piece with a label of its own."""
    machine = make_machine(Shape(packages=1, nodes=1, l3s=16, cores=128))
    text = drawn(make_plan(machine, ask("-n", "2")), machine, monkeypatch, 80)
    rows = rows_of(text)
    assert len(rows) > 1
    assert all(len(signs) % 8 == 0 for _, signs in rows)
    assert sum(len(signs) for _, signs in rows) == 128


def test_without_a_terminal_lines_are_whole() -> None:
    """Nothing is wrapped or padded with blanks for a pipe."""
    machine = make_machine(SERVER)
    plan = make_plan(machine, ask("-n", "2"))
    plan = plan.replace(ranks=tuple(r.replace(command=("./w", "x" * 300)) for r in plan.ranks))
    text = make_text(draw_plan(plan, (), None, machine))
    assert all(line == line.rstrip() for line in text.splitlines())
    assert text.splitlines()[-1].startswith("env -u ")
    assert text.splitlines()[-1].endswith(f"./w {'x' * 300}")
