"""Machines with several nodes, and those of other architectures: a real kernel in QEMU, where the
kernel's own word on threads and pages is compared with the plan, and the plan with what each case
expects.

One boot for all cases of a machine (tests/guest/cases/); the largest takes a minute or two, as the
processor is emulated.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest

from tests.guest.architectures import ARCHITECTURES
from tests.guest.boots import wait_for_boot
from tests.guest.cases import BOOTS, CHOSEN
from tests.guest.cases.case import BINDERS, RUNTIMES, Case
from tests.guest.devicetree import CACHE_SIZES
from tests.guest.guest import why_no_boots
from tests.guest.machine import Machine
from tests.support.needs import unavailable
from tests.support.observe import Rank, expand, expected_threads, policy_text
from tests.support.shared import shared_folder

Seen = Callable[[str], dict[str, Any]]


def make_pairs(field: str) -> list[Any]:
    """What to call a test with: each boot, and each name in a table of its."""
    return [
        pytest.param(boot, name, id=name if boot in name else f"{boot}-{name}")
        for boot in BOOTS
        for name in getattr(BOOTS[boot], field) or ()
    ]


@pytest.fixture(scope="session")
def booted() -> Seen:
    """What a machine's one boot brought; conftest.py has started them all."""

    def wait(name: str) -> dict[str, Any]:
        if name not in BOOTS:
            pytest.skip(f"guests of {' and '.join(CHOSEN)} were asked for")
        if reason := why_no_boots(ARCHITECTURES[BOOTS[name].architecture]):
            unavailable(reason)
        return wait_for_boot(shared_folder("guest"), name)

    return wait


@pytest.fixture(params=[(boot, case) for boot in BOOTS for case in BOOTS[boot].cases],
                ids=" ".join)  # fmt: skip
def chosen(request: pytest.FixtureRequest, booted: Seen) -> tuple[Case, dict[str, Any]]:
    """A case, and what was seen of it."""
    boot, name = request.param
    seen = booted(boot)
    if name not in seen["cases"]:
        unavailable("there is no clang; `tools/setup-system test` installs it")
    more = {"page": seen["page"], "boot": boot}
    return BOOTS[boot].cases[name], seen["cases"][name] | more


@pytest.fixture
def case(chosen: tuple[Case, dict[str, Any]]) -> Case:
    return chosen[0]


@pytest.fixture
def plan(chosen: tuple[Case, dict[str, Any]]) -> dict[str, Any]:
    printed = chosen[1]["show"]
    assert printed.startswith("{"), printed
    parsed: dict[str, Any] = json.loads(printed)
    return parsed


@pytest.fixture(params=BINDERS)
def ranks(request: pytest.FixtureRequest, chosen: tuple[Case, dict[str, Any]]) -> list[Rank]:
    """The ranks of a case as they were seen; they ran, they ended, and they belong together."""
    if request.param not in BOOTS[chosen[1]["boot"]].binders:
        pytest.skip("numactl itself needs a kernel with NUMA")
    run = chosen[1][request.param]
    assert "error" not in run, run["error"]
    assert run["status"] == 0, run["err"]
    found = [Rank(**rank) for rank in run["ranks"]]
    assert [rank.rank for rank in found] == [str(n) for n in range(len(found))]
    if len(found) == 1:
        assert found[0].pid == run["pid"]
    else:
        assert len({rank.parent for rank in found}) == 1
    return found


def test_plan_is_the_expected_one(case: Case, plan: dict[str, Any]) -> None:
    """`show` gives every rank the cpus, places and memory nodes that the case's author expects."""
    got = [
        (expand(r["cpus"]), [expand(p) for p in r["places"]], r["mem"], r["mems"])
        for r in plan["ranks"]
    ]
    expected = [
        (expand(r.cpus), [expand(p) for p in r.places.split()], r.mem, r.mems) for r in case.ranks
    ]
    assert got == expected, case.why


def test_every_thread_is_in_its_place(case: Case, plan: dict[str, Any], ranks: list[Rank]) -> None:
    """Each OpenMP thread has the mask that the plan and the case give it, and no other exists."""
    for planned, expected, rank in zip(plan["ranks"], case.ranks, ranks, strict=True):
        assert planned["env"].items() <= rank.env.items()
        assert sorted(rank.tasks) == sorted(rank.threads)
        if expected.threads:
            assert rank.threads == [expand(cpus) for cpus in expected.threads.split()]
        assert rank.threads == expected_threads(planned)


def test_pages_are_on_their_nodes(
    chosen: tuple[Case, dict[str, Any]], plan: dict[str, Any], ranks: list[Rank]
) -> None:
    """Touched memory has the planned policy, and its pages lie where that puts them."""
    case, seen = chosen
    if not has_nodes(seen["boot"]):
        assert [(rank.policy, rank.pages) for rank in ranks] == [("", {})] * len(ranks)
        return
    for planned, expected, rank in zip(plan["ranks"], case.ranks, ranks, strict=True):
        balancing = planned.get("mem_balancing", False)
        assert rank.policy in policy_text(planned["mem"], planned["mems"], balancing=balancing)
        total = sum(rank.pages.values())
        assert total >= (case.touch << 20) // seen["page"]
        if expected.pages is not None:
            shares = {node: pages / total for node, pages in rank.pages.items()}
            assert shares == pytest.approx(expected.pages, abs=0.05), case.why


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize(("boot", "name"), make_pairs("matrix"))
def test_every_way_to_place_and_bind(booted: Seen, boot: str, name: str, runtime: str) -> None:
    """On nodes, caches and hardware threads every runtime does what --places and --proc-bind say,
    and has nothing to complain of."""
    seen = booted(boot)["matrix"][name]
    planned, run = json.loads(seen["show"]), seen.get(runtime)
    if run is None:
        unavailable(f"there is no {runtime}: `tools/setup-system test`, `pip install --group dev`")
    assert "error" not in run, run["error"]
    assert (run["status"], run["err"]) == (0, "")
    for rank, found in zip(planned["ranks"], map(make_rank, run["ranks"]), strict=True):
        assert found.threads == expected_threads(rank)
        assert sorted(found.tasks) == sorted(found.threads)


def make_rank(fields: dict[str, Any]) -> Rank:
    return Rank(**fields)


@pytest.mark.parametrize("binder", BINDERS)
@pytest.mark.parametrize(("boot", "shown"), make_pairs("shown"))
def test_numactl_shows_the_binding(booted: Seen, boot: str, shown: str, binder: str) -> None:
    """`numactl --show`, run as the worker, reports the policy, the cpus and the nodes."""
    text = booted(boot)["shown"][f"{shown} {binder}"]
    told = {k: v.strip() for k, v in re.findall(r"^([\w ]+):(.*)$", text, re.M)}
    _, expected = BOOTS[boot].shown[shown]
    assert {key: told.get(key) for key in expected} == expected, text


@pytest.mark.parametrize(("boot", "name"), make_pairs("spoiled"))
def test_spoiled_workers_are_found(booted: Seen, boot: str, name: str) -> None:
    """Memory moved to another node, a cpu that went offline, a cpuset that shrank: verify says what
    has become of a rank that was as planned before."""
    spoiling, result = BOOTS[boot].spoiled[name], booted(boot)["spoiled"][name]
    assert "error" not in result, result["error"]
    assert result["before"]["holds"], result["before"]
    assert not result["after"]["holds"]
    found = result["after"]["processes"][0]["differences"]
    assert tuple(d["kind"] for d in found) == spoiling.kinds
    said = " ".join(f"{d['text']} {d['cause']} {d['remedy']}" for d in found)
    assert re.search(spoiling.words, said), said


@pytest.mark.parametrize(
    ("boot", "name"),
    [(boot, n) for boot in BOOTS for n, s in BOOTS[boot].spoiled.items() if s.kinds == ("memory",)],
)
def test_pages_that_were_moved_are_brought_back(booted: Seen, boot: str, name: str) -> None:
    """By verify --repair, to the node of the plan."""
    report = booted(boot)["spoiled"][name]["repaired"]
    assert report["holds"], report
    (repair,) = report["repairs"]
    assert (repair["kind"], repair["done"]) == ("memory", True)
    (node,) = report["processes"][0]["memory"]["bytes"]
    assert node == report["processes"][0]["planned"]["mems"]
    assert re.search(rf": 3\d\.\d MiB of its memory: to node {node}$", repair["text"])


def test_a_lost_cpu_is_not_brought_back(booted: Seen) -> None:
    """By verify --repair: the rank is still not as planned."""
    assert not booted("four nodes")["spoiled"]["cpu offline"]["repaired"]["holds"]


@pytest.mark.parametrize("name", [name for name in BOOTS if BOOTS[name].rebound])
def test_a_program_that_runs_goes_to_another_node(booted: Seen, name: str) -> None:
    """With all its threads and pages, as the kernel shows them; a dry run says how much it is, and
    changes nothing."""
    rebinding, rebound = BOOTS[name].rebound, booted(name)["rebound"]
    assert rebinding is not None
    before, dry, done = rebound["before"], rebound["dry run"], rebound["done"]
    assert before["masks"] == [expand(rebinding.first)] * 2
    assert set(before["pages"]) == {str(rebinding.old_node)}
    assert (dry["status"], dry["seen"]) == (0, before), dry["err"]
    (process,) = dry["result"]["ranks"][0]["processes"]
    assert process["rebound"] == 2
    assert process["bytes_outside"] >= 32 << 20
    assert (done["status"], done["err"]) == (0, "")
    assert done["seen"]["masks"] == [expand(rebinding.cpus)] * 2
    assert set(done["seen"]["pages"]) == {str(rebinding.new_node)}
    assert sum(done["seen"]["pages"].values()) == sum(before["pages"].values())
    (process,) = done["result"]["ranks"][0]["processes"]
    assert process["bytes_moved"] >= 32 << 20
    assert process["bytes_left"] == 0


@pytest.mark.parametrize(("boot", "name"), make_pairs("refused"))
def test_what_cannot_be_is_refused(booted: Seen, boot: str, name: str) -> None:
    """With an error that names what is missing, and a hint that names what there is."""
    refusal = BOOTS[boot].refused[name]
    status, out, err = booted(boot)["refused"][name]
    assert (status, out) == (125, ""), refusal.why
    error, *hint = err.splitlines()
    assert error.startswith("ompbind: error: ")
    assert refusal.error in error
    assert refusal.hint in "".join(hint)


@pytest.mark.parametrize(("boot", "name"), make_pairs("stopped"))
def test_a_signal_ends_all_of_a_launch(booted: Seen, boot: str, name: str) -> None:
    """TERM, INT and KILL leave nothing of two ranks with a child each; the status says which."""
    seen = booted(boot)["stopped"][name]
    assert (seen["status"], seen["left"]) == (BOOTS[boot].stopped[name], 0)
    assert seen["processes"] >= 4


@pytest.mark.parametrize("name", BOOTS)
def test_the_guest_is_the_machine_that_is_meant(booted: Seen, name: str) -> None:
    """The kernel is the architecture's, with pages of its size, and has as many cpus."""
    seen, architecture = booted(name), ARCHITECTURES[BOOTS[name].architecture]
    assert (seen["kernel"], seen["page"]) == (architecture.machine, architecture.page)
    assert seen["order"] == architecture.order
    assert len(seen["files"]["topology/core_cpus_list"]) == (
        BOOTS[name].machine.cpus - len(BOOTS[name].machine.offline)
    )


@pytest.mark.parametrize(
    "name", [n for n in BOOTS if ARCHITECTURES[BOOTS[n].architecture].device_tree]
)
def test_a_device_tree_gives_clusters_caches_and_kinds(booted: Seen, name: str) -> None:
    """The kernel shows what the device tree says, and `topo` has the same groups."""
    seen, machine = booted(name), BOOTS[name].machine
    topo = json.loads(seen["topo"])
    cpus = topo["cpus"]
    for level, (file, count) in {
        "core": ("topology/core_cpus_list", machine.threads),
        "cluster": ("topology/cluster_cpus_list", machine.cores * machine.threads),
        "l2": ("cache/index2/shared_cpu_list", machine.cores * machine.threads),
        "l3": ("cache/index3/shared_cpu_list", machine.nodes * machine.cpus_of_node),
        "package": ("topology/package_cpus_list", machine.nodes * machine.cpus_of_node),
    }.items():
        groups = [[*range(n, n + count)] for n in range(0, machine.cpus, count)]
        assert sorted(map(expand, set(seen["files"][file].values()))) == groups, file
        assert group((cpu["cpu"], cpu[level]) for cpu in cpus) == groups, level
        if level in ("l2", "l3"):
            caches = [c for c in topo["caches"] if c["name"] == level.upper()]
            assert sorted(expand(cache["cpus"]) for cache in caches) == groups
            assert {cache["bytes"] for cache in caches} == {CACHE_SIZES[int(level[1])]}
    if machine.capacities:
        capacities = [capacity_of(machine, cpu) for cpu in range(machine.cpus)]
        told = [int(seen["files"]["cpu_capacity"][str(cpu)]) for cpu in range(machine.cpus)]
        assert told == capacities
        assert [cpu["capacity"] for cpu in cpus] == capacities
        order = sorted(set(capacities))
        assert [cpu["kind"] for cpu in cpus] == [order.index(c) for c in capacities]


def capacity_of(machine: Machine, cpu: int) -> int:
    """What the case's author gave to the cpu's cluster."""
    cluster = cpu // (machine.cores * machine.threads)
    return machine.capacities[cluster % len(machine.capacities)]


def test_memory_is_measured_on_the_node_it_is_said_to_be_on(booted: Seen) -> None:
    """Each block that a process reads has its pages on the node asked for, as the kernel shows
    them; every pair of nodes has its figures."""
    seen = booted("four nodes")["measured"]
    assert {node for _, node, _ in seen["placed"]} == {0, 1, 2, 3}
    assert all(grown == [node] for _, node, grown in seen["placed"]), seen["placed"]
    memory = seen["measured"]["memory"]
    assert [(a["node"], a["memory"]) for a in memory] == [(2, node) for node in range(4)]
    assert all(a["bandwidth"]["value"] > 0 for a in memory)
    assert [core["cpus"] for core in seen["measured"]["cores"]] == ["4"]


@pytest.mark.parametrize("name", BOOTS)
def test_topology_agrees_with_lscpu(booted: Seen, name: str) -> None:
    """`topo` groups cpus into cores, packages, nodes and caches exactly as lscpu does."""
    seen = booted(name)
    topo = json.loads(seen["topo"])
    header, *rows = [
        line for line in seen["lscpu"].splitlines() if not re.match(r"# [^C]|#$", line)
    ]
    columns = header.removeprefix("# ").lower().split(",")
    lscpu = [dict(zip(columns, row.split(","), strict=True)) for row in rows]
    pairs = {"core": "core", "package": "socket", "node": "node", "l2": "l2", "l3": "l3"}
    for ours, theirs in pairs.items():
        if theirs not in columns or (ours == "node" and not has_nodes(name)):
            assert {cpu[ours] for cpu in topo["cpus"]} == {0 if ours == "node" else None}
            continue
        by_us = group((cpu["cpu"], cpu[ours]) for cpu in topo["cpus"])
        by_lscpu = group((int(row["cpu"]), row[theirs]) for row in lscpu)
        assert by_us == by_lscpu, ours
    nodes = {int(row["cpu"]): int(row["node"] or 0) for row in lscpu}
    assert {cpu["cpu"]: cpu["node"] for cpu in topo["cpus"]} == nodes


def has_nodes(name: str) -> bool:
    """Whether the kernel of a boot knows NUMA."""
    return ARCHITECTURES[BOOTS[name].architecture].numa


@pytest.mark.parametrize("name", [name for name in BOOTS if has_nodes(name)])
def test_topology_agrees_with_numactl(booted: Seen, name: str) -> None:
    """`topo` has the cpus, the memory and the distances of nodes as `numactl --hardware` does."""
    seen, machine = booted(name), BOOTS[name].machine
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
    nodes = range(machine.all_nodes)
    assert (
        topo["distances"] == distances == [[machine.distance(a, b) for b in nodes] for a in nodes]
    )


REFUSED = {
    "cpu offline": ("rank 0: cpu 1 is offline", "allowed cpus: 0,2-7"),
    "node without cpus": ("rank 0: node 4 has no cpus", "the nearest is 1"),
    "more than there is": (
        "rank 0 needs 3.0 GiB (--mem-need) of node 3, which has ",
        "nodes 0-1,4 have ",
    ),
    "a newer kernel's policy": (
        "rank 0: this kernel is too old for memory: weighted-interleave 0-1: Linux 6.9 has it",
        "--mem interleave takes as much of each node",
    ),
    "no driver": ("0000:42:01.0 has no driver", "topo shows the devices"),
}


@pytest.mark.parametrize("script", REFUSED)
def test_what_such_a_machine_cannot_do_is_refused(booted: Seen, script: str) -> None:
    """An error and a hint, a line each, that name what is there."""
    error, hint = booted("uneven")["scripts"][script].splitlines()
    message, told = REFUSED[script]
    assert error.startswith("ompbind: error: ")
    assert message in error
    assert hint.startswith("hint: ")
    assert told in hint


def test_huge_pages_are_on_the_ranks_node(booted: Seen) -> None:
    """A rank has reserved pages of the node to which its memory is bound; where that has none, it
    is not started."""
    error, hint, *maps = booted("uneven")["scripts"]["huge pages"].splitlines()
    assert error == (
        "ompbind: error: --huge-pages 2M: rank 0: no page of 2 MiB is free on node 3, to which its "
        "memory is bound"
    )
    assert hint.startswith("hint: node 1 has 32; as root: ")
    assert maps
    assert all(" bind:1 " in ln and ln.endswith(" kernelpagesize_kB=2048") for ln in maps)
    assert any(" N1=" in ln for ln in maps)


def test_a_cpu_that_went_offline_between_plan_and_launch(booted: Seen) -> None:
    """The saved plan runs while its cpus are there; then it is refused, nothing started."""
    lines = booted("uneven")["scripts"]["between plan and launch"].splitlines()
    assert lines[0] == "started"
    assert lines[1].startswith("ompbind: error: rank 0: cpus 7 of the plan may not be used here")
    assert lines[-1] == "status 125"
    assert "started" not in lines[1:]


def test_devices_are_on_their_nodes(booted: Seen) -> None:
    """A display and a network card, each behind a host bridge of a node."""
    devices = json.loads(booted("uneven")["topo"])["devices"]
    found = {(d["kind"], d["pci"], d["node"], d["cpus"]) for d in devices}
    assert found == {("gpu", "0000:42:01.0", 3, "6-7"), ("nic", "0000:62:01.0", 1, "2-3")}


def group(pairs: Any) -> list[list[int]]:
    """Cpus that share a number, whatever the number is."""
    groups: dict[Any, list[int]] = {}
    for cpu, number in pairs:
        groups.setdefault(number, []).append(cpu)
    return sorted(groups.values())


def test_files_are_put_on_the_ranks_nodes(booted: Seen) -> None:
    """--warm moves a file's pages from another node to the rank's, or over the ranks' nodes; not
    those that somebody maps, which is said."""
    lines = booted("four nodes")["scripts"]["warm files"].splitlines()
    before, after, mapped, spread = (json.loads(line) for line in lines if line[:1] == "{")
    total = sum(before.values())
    assert before == {"0": total}
    assert total > 10 << 8  # 10 MiB in pages of 4 KiB
    assert after == {"2": total}
    assert mapped == {"2": total}
    assert sorted(spread) == ["0", "1"]
    assert sum(spread.values()) == total
    assert spread["0"] / total == pytest.approx(0.5, abs=0.05)
    said = "\n".join(lines)
    assert re.search(r"note: qemu-system-x86_64: [\d.]+ MiB in memory, on node 2; [\d.]+ MiB were "
                     r"elsewhere before", said)  # fmt: skip
    assert re.search(r"warning: --warm '\S+': planned for node 3, but [\d.]+ MiB on node 2 stay "
                     r"there: pid \d+ \(python\S*\) has it mapped", said)  # fmt: skip
