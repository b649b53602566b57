"""Every real machine of ../shared/topologies agrees with its trusted answer, field by field."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest

from ompbind.cpuset import CpuSet
from ompbind.machine import read_family
from ompbind.machine.limits import read_allowed
from ompbind.machine.roots import DirectoryRoot
from ompbind.machine.topology import LEVELS, Cpu, Machine, Node, Topology
from ompbind.machine.topology_json import parse_json
from tests.support import shared_trees

Answer = dict[str, Any]

# A cgroup and nothing else: no sys directory. It has its own test below.
WITHOUT_TOPOLOGY = {"test1"}

PARTITIONS = ("core", "package", "die", "cluster", "l2", "l3", "book", "drawer")
MACHINES = [n for n in shared_trees.machine_names() if n not in WITHOUT_TOPOLOGY]


@cache
def machine(name: str) -> Machine:
    return shared_trees.read_tree(name)


def partition(numbers: dict[int, Any]) -> dict[int, frozenset[int]]:
    """Who is in each cpu's group."""
    groups: dict[Any, set[int]] = {}
    for cpu, number in numbers.items():
        groups.setdefault(number, set()).add(cpu)
    return {cpu: frozenset(groups[number]) for cpu, number in numbers.items()}


def check_partition(level: str, m: Machine, said: Answer) -> bool:
    wanted = {c["cpu"]: c[level] for c in said["cpus"] if level in c}
    got = {c.cpu: getattr(c, level) for c in m.topology.cpus if c.cpu in wanted}
    assert None not in got.values()
    assert partition(got) == partition(wanted)
    return bool(wanted)


def check_numbers(m: Machine, said: Answer) -> bool:
    """Group numbers are dense, in the order of each group's lowest cpu."""
    for level in LEVELS:
        if level not in ("node", "kind"):
            first = [getattr(c, level) for c in m.topology.cpus if getattr(c, level) is not None]
            assert list(dict.fromkeys(first)) == list(range(len(set(first))))
    return True


def check_node(m: Machine, said: Answer) -> bool:
    wanted = {c["cpu"]: c["node"] for c in said["cpus"] if "node" in c}
    assert {c.cpu: c.node for c in m.topology.cpus if c.cpu in wanted} == wanted
    return bool(wanted)


def check_nodes(m: Machine, said: Answer) -> bool:
    wanted = {n["node"]: n["cpus"] for n in said["nodes"]}
    assert {n.node: str(n.cpus) for n in m.topology.nodes} == wanted
    assert m.topology.numa is not any(n.get("synthetic") for n in said["nodes"])
    return bool(wanted)


def check_memory(m: Machine, said: Answer) -> bool:
    wanted = {n["node"]: n["memory_bytes"] for n in said["nodes"] if "memory_bytes" in n}
    assert {n.node: n.memory_bytes for n in m.topology.nodes if n.node in wanted} == wanted
    return bool(wanted)


def check_distances(m: Machine, said: Answer) -> bool:
    if "distances" not in said:
        return False
    assert [n.node for n in m.topology.nodes] == said["distance_nodes"]
    assert [list(row) for row in m.topology.distances] == said["distances"]
    return True


def check_online(m: Machine, said: Answer) -> bool:
    assert str(m.topology.online) == said["online_cpus"]
    return True


def check_possible(m: Machine, said: Answer) -> bool:
    if said["possible_cpus"] is None:  # old kernels: known are the cpus with a directory
        assert m.topology.possible == m.topology.online | m.topology.offline
        return False
    assert str(m.topology.possible) == said["possible_cpus"]
    return True


def check_offline(m: Machine, said: Answer) -> bool:
    if said.get("offline_known") is not None:
        assert str(m.topology.offline) == said["offline_known"]
        return True
    assert not m.topology.offline & m.topology.online
    return False


def check_kinds(m: Machine, said: Answer) -> bool:
    wanted = {c["cpu"]: c["cpukind"] for c in said["cpus"] if "cpukind" in c}
    got = {c.cpu: c.kind for c in m.topology.cpus}
    if wanted:
        assert got == wanted
    elif said.get("cpukinds"):  # one kind
        assert set(got.values()) == {None}
    return bool(said.get("cpukinds"))


def check_allowed(m: Machine, said: Answer) -> bool:
    if said.get("allowed_cpus") is None:
        return False
    assert str(m.allowed.cpus) == said["allowed_cpus"]
    return True


def check_allowed_nodes(m: Machine, said: Answer) -> bool:
    if said.get("allowed_nodes") is None:
        return False
    assert str(m.allowed.nodes) == said["allowed_nodes"]
    return True


def check_devices(m: Machine, said: Answer) -> bool:
    if "pci" not in said:
        return False
    online = CpuSet.parse_kernel(said["online_cpus"])
    wanted = {
        d["busid"]: (
            d["kind"],
            None if d["numa_node"] == -1 else d["numa_node"],
            str(CpuSet.parse_kernel(d["local_cpus"]) & online),
        )
        for d in said["pci"]
    }
    # The answers have no old InfiniBand cards, which are of PCI class 0c06.
    devices = [d for d in m.topology.devices if d.pci in wanted or d.names[-1:] != ("qib0",)]
    assert {d.pci: (d.kind, d.node, str(d.cpus)) for d in devices} == wanted
    return True


CHECKS: dict[str, Callable[[Machine, Answer], bool]] = {
    **{
        level: lambda m, said, level=level: check_partition(level, m, said)  # type: ignore[misc]
        for level in PARTITIONS
    },
    "numbers": check_numbers,
    "node": check_node,
    "nodes": check_nodes,
    "memory": check_memory,
    "distances": check_distances,
    "online": check_online,
    "possible": check_possible,
    "offline": check_offline,
    "kinds": check_kinds,
    "allowed cpus": check_allowed,
    "allowed nodes": check_allowed_nodes,
    "devices": check_devices,
}


@pytest.mark.parametrize("name", MACHINES)
def test_agrees(name: str) -> None:
    """What is read of a real machine is what hwloc, lscpu and the kernel's masks say of it, in
    every field."""
    answer = shared_trees.answer(name)
    wrong = []
    for field, check in CHECKS.items():
        try:
            check(machine(name), answer)
        except AssertionError as e:
            wrong.append(f"{field}: {e}")
    assert not wrong, "\n".join(wrong)


def test_there_are_machines() -> None:
    """The machines are there, and each field is judged on one of them at least."""
    shared_trees.need_topologies()
    assert len(MACHINES) >= 59
    for field, check in CHECKS.items():
        assert any(check(machine(name), shared_trees.answer(name)) for name in MACHINES), field


# What a tree's `arch` is called here; others, and trees without cpuinfo, have no family.
FAMILIES = {"x86_64": "x86", "i386": "x86", "ppc64": "power", "ppc64le": "power", "ppc": "",
            "s390x": "s390", "aarch64": "arm", "armv7l": "arm", "riscv64": "riscv",
            "ia64": "", "loongarch64": "", "sparc64": ""}  # fmt: skip


def test_families() -> None:
    """The kind of processor is told from cpuinfo, on every tree that has one."""
    shared_trees.need_topologies()
    judged = 0
    for name in MACHINES:
        arch, root = shared_trees.answer(name).get("arch"), shared_trees.unpacked(name)
        if arch in FAMILIES and (root / "proc/cpuinfo").exists():
            judged += 1
            assert read_family(str(root)) == FAMILIES[arch], name
    assert judged > 20


def test_cpuset_file_system() -> None:
    """The cpuset file system from before cgroups restricts cpus and nodes (hwloc's `test1`)."""
    said = shared_trees.answer("test1")
    root = DirectoryRoot(str(shared_trees.unpacked("test1")))
    nodes = tuple(Node(n, CpuSet(range(4 * n, 4 * n + 4))) for n in range(4))
    allowed = read_allowed(root, Topology(tuple(Cpu(c) for c in range(16)), nodes))
    assert str(allowed.cpus) == said["allowed_cpus"]
    assert str(allowed.nodes) == said["allowed_nodes"]


@pytest.mark.parametrize(("node", "near"), [(4, 1), (6, 1), (8, 0), (9, 2)])
def test_memory_is_nearest_to_its_initiators(node: int, near: int) -> None:
    """The firmware says which cpus reach HBM and CXL best; the distances of this machine are all
    equal. The same from its JSON."""
    shared_trees.need_topologies()
    tiers = machine("fakeheteromemtiers")
    with_cpus = CpuSet([0, 1, 2])
    assert tiers.topology.nearest(node, with_cpus) == near
    assert parse_json(tiers.to_json().encode()).topology.nearest(node, with_cpus) == near
