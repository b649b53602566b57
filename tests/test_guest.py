"""A machine with four nodes and hardware threads: a real kernel in QEMU, where the kernel's own
word on threads and pages is compared with the plan, and the plan with what each case expects.

One boot for all cases (tests/guest/cases.py); it takes a minute or two, as the processor is
emulated.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Callable
from typing import Any

import pytest

from tests.conftest import REPOSITORY, unavailable
from tests.guest import guest
from tests.guest.cases import BINDERS, CASES, ENVIRONMENT, MACHINE, SHOWN
from tests.observe import Rank, expand, expected_threads, policy_text

TIMEOUT = 540
PAGES_IN_MIB = 256


@pytest.fixture(scope="module")
def seen(ompbind: str, where: Callable[[str], str]) -> dict[str, Any]:
    """What the one boot brought."""
    if reason := guest.why_not():
        unavailable(reason)
    if not shutil.which("numactl"):
        unavailable("there is no numactl; `tools/setup-system test` installs it")
    programs = [where("libgomp")]
    if shutil.which("clang"):
        programs.append(where("libomp"))
    outcome = guest.run(
        MACHINE,
        [sys.executable, "-m", "tests.guest.cases", ompbind, *programs],
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C", **ENVIRONMENT},
        cwd=REPOSITORY,
        timeout=TIMEOUT,
    )
    assert outcome.status == 0, outcome.err
    result: dict[str, Any] = json.loads(outcome.out)
    return result


@pytest.fixture(params=CASES)
def name(request: pytest.FixtureRequest, seen: dict[str, Any]) -> str:
    case: str = request.param
    if case not in seen["cases"]:
        unavailable("there is no clang; `tools/setup-system test` installs it")
    return case


@pytest.fixture
def plan(name: str, seen: dict[str, Any]) -> dict[str, Any]:
    printed = seen["cases"][name]["show"]
    assert printed.startswith("{"), printed
    parsed: dict[str, Any] = json.loads(printed)
    return parsed


@pytest.fixture(params=BINDERS)
def ranks(request: pytest.FixtureRequest, name: str, seen: dict[str, Any]) -> list[Rank]:
    """The ranks of a case as they were seen; they ran, they ended, and they belong together."""
    run = seen["cases"][name][request.param]
    assert "error" not in run, run["error"]
    assert run["status"] == 0, run["err"]
    found = [Rank(**rank) for rank in run["ranks"]]
    assert [rank.rank for rank in found] == [str(n) for n in range(len(found))]
    if len(found) == 1:
        assert found[0].pid == run["pid"]
    else:
        assert {rank.parent for rank in found} == {run["pid"]}
    return found


def test_plan_is_the_expected_one(name: str, plan: dict[str, Any]) -> None:
    """`show` gives every rank the cpus, places and memory nodes that the case's author expects."""
    case = CASES[name]
    got = [
        (expand(r["cpus"]), [expand(p) for p in r["places"]], r["mem"], r["mems"])
        for r in plan["ranks"]
    ]
    expected = [
        (expand(r.cpus), [expand(p) for p in r.places.split()], r.mem, r.mems) for r in case.ranks
    ]
    assert got == expected, case.why


def test_every_thread_is_in_its_place(name: str, plan: dict[str, Any], ranks: list[Rank]) -> None:
    """Each OpenMP thread has the mask that the plan and the case give it, and no other exists."""
    for planned, expected, rank in zip(plan["ranks"], CASES[name].ranks, ranks, strict=True):
        assert planned["env"].items() <= rank.env.items()
        assert sorted(rank.tasks) == sorted(rank.threads)
        if expected.threads:
            assert rank.threads == [expand(cpus) for cpus in expected.threads.split()]
        assert rank.threads == expected_threads(planned)


def test_pages_are_on_their_nodes(name: str, plan: dict[str, Any], ranks: list[Rank]) -> None:
    """Touched memory has the planned policy, and its pages lie where that puts them."""
    case = CASES[name]
    for planned, expected, rank in zip(plan["ranks"], case.ranks, ranks, strict=True):
        assert rank.policy in policy_text(planned["mem"], planned["mems"])
        total = sum(rank.pages.values())
        assert total >= case.touch * PAGES_IN_MIB
        if expected.pages is not None:
            shares = {node: pages / total for node, pages in rank.pages.items()}
            assert shares == pytest.approx(expected.pages, abs=0.05), case.why


@pytest.mark.parametrize("binder", BINDERS)
@pytest.mark.parametrize("shown", SHOWN)
def test_numactl_shows_the_binding(seen: dict[str, Any], shown: str, binder: str) -> None:
    """`numactl --show`, run as the worker, reports the policy, the cpus and the nodes."""
    text = seen["shown"][f"{shown} {binder}"]
    told = {k: v.strip() for k, v in re.findall(r"^([\w ]+):(.*)$", text, re.M)}
    _, expected = SHOWN[shown]
    assert {key: told.get(key) for key in expected} == expected, text


@pytest.mark.parametrize(
    ("name", "kinds", "words"),
    [
        ("pages moved", ["memory"], r"on node 1, planned is bind 2 .*migratepages \d+ 1 2 brings"),
        ("cpu offline", ["offline"], r"cpu 7 of the plan is offline, and 1 thread bound to noth"),
        ("cgroup shrunk", ["cgroup", "crowded"], r"has lost cpu 3 of the plan: its cpuset is 2"),
    ],
)
def test_spoiled_workers_are_found(
    seen: dict[str, Any], name: str, kinds: list[str], words: str
) -> None:
    """Memory moved to another node, a cpu that went offline, a cpuset that shrank: verify says what
    has become of a rank that was as planned before."""
    result = seen["spoiled"][name]
    assert "error" not in result, result["error"]
    assert result["before"]["holds"], result["before"]
    assert not result["after"]["holds"]
    found = result["after"]["processes"][0]["differences"]
    assert [d["kind"] for d in found] == kinds
    said = " ".join(f"{d['text']} {d['cause']} {d['remedy']}" for d in found)
    assert re.search(words, said), said


def test_topology_agrees_with_lscpu(seen: dict[str, Any]) -> None:
    """`topo` groups cpus into cores, packages, nodes and caches exactly as lscpu does."""
    topo = json.loads(seen["topo"])
    header, *rows = [
        line for line in seen["lscpu"].splitlines() if not re.match(r"# [^C]|#$", line)
    ]
    columns = header.removeprefix("# ").lower().split(",")
    lscpu = [dict(zip(columns, row.split(","), strict=True)) for row in rows]
    pairs = {"core": "core", "package": "socket", "node": "node", "l2": "l2", "l3": "l3"}
    for ours, theirs in pairs.items():
        by_us = group((cpu["cpu"], cpu[ours]) for cpu in topo["cpus"])
        by_lscpu = group((int(row["cpu"]), row[theirs]) for row in lscpu)
        assert by_us == by_lscpu, ours
    nodes = {int(row["cpu"]): int(row["node"]) for row in lscpu}
    assert {cpu["cpu"]: cpu["node"] for cpu in topo["cpus"]} == nodes


def test_topology_agrees_with_numactl(seen: dict[str, Any]) -> None:
    """`topo` has the cpus, the memory and the distances of nodes as `numactl --hardware` does."""
    topo = json.loads(seen["topo"])
    text = seen["numactl"]
    cpus = {
        int(n): list(map(int, cpus.split()))
        for n, cpus in re.findall(r"node (\d+) cpus:(.*)", text)
    }
    assert {node["node"]: expand(node["cpus"]) for node in topo["nodes"]} == cpus
    sizes = {int(n): int(size) for n, size in re.findall(r"node (\d+) size: (\d+) MB", text)}
    assert {node["node"]: node["memory_bytes"] >> 20 for node in topo["nodes"]} == sizes
    table = text[text.index("node distances:") :]
    distances = [list(map(int, row.split())) for row in re.findall(r"^ *\d+: (.*)$", table, re.M)]
    assert topo["distances"] == distances == [list(row) for row in MACHINE.distances]


def group(pairs: Any) -> list[list[int]]:
    """Cpus that share a number, whatever the number is."""
    groups: dict[Any, list[int]] = {}
    for cpu, number in pairs:
        groups.setdefault(number, []).append(cpu)
    return sorted(groups.values())
