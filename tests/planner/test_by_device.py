"""Ranks by GPU: near their GPUs on every machine, and each odd case said in plain words."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ompbind.cpuset import CpuSet, union
from ompbind.devices import find_visible
from ompbind.devices.nvml import read_nvml
from ompbind.devices.visible import Visible, make_visible
from ompbind.errors import PlanError
from ompbind.machine import read_machine
from ompbind.machine.cpus import read_topology
from ompbind.machine.topology import Allowed, Device, Machine, Port
from ompbind.planner import make_plan
from ompbind.plans import Plan
from tests.support.machines import make_asked
from tests.support.needs import unavailable
from tests.support.shared_trees import need_topologies, read_tree, topologies
from tests.support.trees import (
    MemoryRoot,
    Pci,
    Shape,
    make_files,
    make_links,
    make_machine,
    shapes,
    write_tree,
)

NVIDIA, AMD, INTEL = "10de", "1002", "8086"
BUSES = ("1b", "3d", "4e", "5f", "9d", "bd", "cd", "dd")


def gpu(
    bus: str, node: int = -1, cpus: str | None = None, vendor: str = NVIDIA, **more: Any
) -> Pci:
    return Pci(f"0000:{bus}:00.0", "030200", node, cpus, vendor, **more)


def information(bus: str, minor: int, uuid: str) -> dict[str, str]:
    """What NVIDIA's driver writes about a GPU."""
    return {
        f"proc/driver/nvidia/gpus/0000:{bus}:00.0/information": (
            f"Model: \t\t NVIDIA H100\nIRQ:   \t\t 95\nGPU UUID: \t {uuid}\n"
            f"Bus Location: \t 0000:{bus}:00.0\nDevice Minor: \t {minor}\n"
        )
    }


# Two packages, four nodes, eight caches, 32 cores of two threads; two GPUs near each node.
NEAR = ("0-7,32-39", "8-15,40-47", "16-23,48-55", "24-31,56-63")
SERVER = Shape(
    packages=2, nodes=4, l3s=8, cores=32, threads=2, numbering="halves",
    devices=(
        *(gpu(bus, n // 2, NEAR[n // 2], model="2330", driver="nvidia")
          for n, bus in enumerate(BUSES)),
        Pci("0000:18:00.0", "020700", 0, NEAR[0], "15b3", "1021", ("ib0",), "mlx5_core"),
        Pci("0000:c0:00.0", "020000", 3, NEAR[3], "15b3", "101d", ("eth0", "eth1"), "mlx5_core"),
        Pci("0000:02:00.0", "030000", 0, NEAR[0], "1a03", "2000", (), "ast"),
    ),
)  # fmt: skip


def allow(machine: Machine, cpus: str = "", nodes: str = "") -> Machine:
    """The machine of which only these may be used."""
    old = machine.allowed
    return machine.replace(
        allowed=Allowed(
            CpuSet.parse_user(cpus) if cpus else old.cpus,
            CpuSet.parse_user(nodes) if nodes else old.nodes,
        )
    )


def plan_for(
    machine: Machine, args: str | Sequence[str], environ: Mapping[str, str] | None = None
) -> Plan:
    request = make_asked(args.split() if isinstance(args, str) else args)
    visible = make_visible(machine.topology.devices, environ or {})
    return make_plan(machine, request.replace(visible=visible))


def refusal(
    machine: Machine, args: str, environ: Mapping[str, str] | None = None
) -> tuple[str, str]:
    with pytest.raises(PlanError) as caught:
        plan_for(machine, args, environ)
    return caught.value.message, caught.value.hint


def cpus(plan: Plan) -> list[str]:
    return [str(r.cpus) for r in plan.ranks]


# --- near their GPUs -----------------------------------------------------------------------------


def test_a_rank_for_each_gpu() -> None:
    """The GPUs of a node share its cores evenly, inside caches."""
    plan = plan_for(make_machine(SERVER), "--per gpu")
    assert cpus(plan) == ["0-3", "4-7", "8-11", "12-15", "16-19", "20-23", "24-27", "28-31"]
    assert [r.gpus for r in plan.ranks] == [(str(n),) for n in range(8)]
    assert plan.ranks[3].why == "GPU 0000:5f:00.0, node 1, part 2 of 2"
    assert plan.warnings == ()
    assert all("CUDA_VISIBLE_DEVICES" not in dict(r.env) for r in plan.ranks)


def test_shared() -> None:
    """--share gives the ranks of one node all of it."""
    plan = plan_for(make_machine(SERVER), "--per gpu --share --numa-bind --smt all")
    assert cpus(plan) == [near for near in NEAR for _ in range(2)]
    assert [str(r.mems) for r in plan.ranks] == list("00112233")


def test_more_ranks_than_gpus() -> None:
    """Ranks go to GPUs in blocks; a warning names the remedy for those that do not know theirs."""
    plan = plan_for(make_machine(SERVER), "--per gpu -n 16")
    assert [r.gpus[0] for r in plan.ranks] == [str(r // 2) for r in range(16)]
    assert cpus(plan)[:3] == ["0-1", "2-3", "4-5"]
    assert any("16 ranks share 8 GPUs" in w and "--gpu-env" in w for w in plan.warnings)
    cyclic = plan_for(make_machine(SERVER), "--per gpu -n 16 --distribution cyclic --gpu-env")
    assert [r.gpus[0] for r in cyclic.ranks] == [str(r % 8) for r in range(16)]
    assert cyclic.warnings == ()


def test_fewer_ranks_than_gpus() -> None:
    """The first GPUs get a rank; that others get none is said."""
    plan = plan_for(make_machine(SERVER), "--per gpu -n 3")
    assert cpus(plan) == ["0-3", "4-7", "8-15"]
    assert "3 of 8 visible GPUs get a rank, the last ones none" in plan.warnings


def test_the_environments_order() -> None:
    """Rank r has the r-th GPU that the environment names, by the text it has there."""
    environ = {"CUDA_VISIBLE_DEVICES": "6,0,1"}
    plan = plan_for(make_machine(SERVER), "--per gpu --numa-bind --gpu-env", environ)
    assert cpus(plan) == ["24-31", "0-3", "4-7"]
    assert [str(r.mems) for r in plan.ranks] == ["3", "0", "0"]
    assert [dict(r.env)["CUDA_VISIBLE_DEVICES"] for r in plan.ranks] == ["6", "0", "1"]


def test_more_ranks_than_cores_near_a_gpu() -> None:
    """As on any node: which rank, how many cores there are, what to do."""
    message, hint = refusal(make_machine(SERVER), "--per gpu -n 40")
    assert message == "rank 8: node 0 has 8 usable cores for 10 ranks"
    assert "--oversubscribe" in hint


def test_memory_of_a_rank_that_spans_nodes() -> None:
    """It is on all of them, where --numa-bind does not want the GPU's alone."""
    machine = make_machine(SERVER)
    environ = {"CUDA_VISIBLE_DEVICES": "2"}
    plan = plan_for(machine, "--per gpu --gpu-domain package --mem bind", environ)
    assert (cpus(plan), str(plan.ranks[0].mems)) == (["0-15"], "0-1")


@dataclass
class Case:
    machine: Machine
    args: list[str]


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Any machine, some GPUs near any of its nodes, or nobody knows which."""
    shape = draw(shapes(most_cores=16))
    bare = make_machine(shape)
    numbers = [*bare.topology.node_numbers, -1, -1, 99]
    devices = []
    for bus in BUSES[: draw(st.integers(1, 6))]:
        node = draw(st.sampled_from(numbers))
        description = bare.topology.find_node(node)
        near = str(description.cpus) if description and description.cpus else None
        devices.append(gpu(bus, node, near if draw(st.booleans()) else None))
    machine = make_machine(replace(shape, devices=tuple(devices)))
    online = sorted(machine.topology.online)
    if draw(st.booleans()):
        machine = allow(machine, str(CpuSet(draw(st.sets(st.sampled_from(online), min_size=1)))))
    args = ["--per", "gpu"]
    if draw(st.booleans()):
        args += ["-n", str(draw(st.integers(1, 12)))]
    args += draw(st.sampled_from([[], [], ["--share"], ["--numa-bind"], ["--gpu-env"]]))
    args += draw(st.sampled_from([[], [], ["--smt", "all"], ["--distribution", "cyclic"]]))
    return Case(machine, args)


def plan_or_none(case: Case) -> Plan | None:
    try:
        return plan_for(case.machine, case.args)
    except PlanError as e:
        assert e.message.isprintable()
        assert e.hint.isprintable()
        return None


@given(cases())
def test_on_any_machine(case: Case) -> None:
    """Only allowed cpus; no cpu two ranks'; each rank one visible GPU, the GPUs in balanced blocks
    or rounds; who is near a node with usable cores is on it."""
    plan = plan_or_none(case)
    if plan is None:
        return
    machine, count = case.machine, len(plan.ranks)
    gpus = machine.topology.devices
    names = [r.gpus for r in plan.ranks]
    assert all(len(n) == 1 for n in names)
    used = min(count, len(gpus))
    assert {int(n[0]) for n in names} == set(range(used))
    sizes = [names.count((str(n),)) for n in range(used)]
    assert max(sizes) - min(sizes) <= 1
    if "cyclic" not in case.args:
        assert [int(n[0]) for n in names] == sorted(int(n[0]) for n in names)
    assert all(r.cpus and r.cpus <= machine.allowed.cpus for r in plan.ranks)
    if "--share" not in case.args:
        assert sum(len(r.cpus) for r in plan.ranks) == len(union(r.cpus for r in plan.ranks))
    for rank in plan.ranks:
        own = machine.topology.find_node(gpus[int(rank.gpus[0])].node or 0)
        first = machine.topology.nodes_of(machine.allowed.cpus)
        known = gpus[int(rank.gpus[0])].node is not None and own is not None
        if known and own is not None and own.node in first and "--numa-bind" not in case.args:
            assert rank.nodes == CpuSet([own.node])


@given(cases())
def test_ranks_of_a_node_are_even(case: Case) -> None:
    """Of the ranks on one node none has two cores more than another, where cores are equal."""
    if any(c.kind is not None for c in case.machine.topology.cpus):
        return
    plan = plan_or_none(case)
    if plan is None or not all(len(r.nodes) == 1 for r in plan.ranks):
        return
    by_node: dict[CpuSet, list[int]] = {}
    for rank in plan.ranks:
        by_node.setdefault(rank.nodes, []).append(len(rank.places))
    if not any("divided evenly" in w for w in plan.warnings):
        assert all(max(sizes) - min(sizes) <= 1 for sizes in by_node.values())


# --- odd places ----------------------------------------------------------------------------------


def test_a_node_without_cpus() -> None:
    """A GPU on a node of memory alone is near the node with cpus that is nearest by distance."""
    shape = Shape(
        nodes=2, cores=8, memory_only=(2, 8), devices=(gpu("1b", 8, ""), gpu("3d", 2, ""))
    )
    plan = plan_for(make_machine(shape), "--per gpu --numa-bind")
    assert cpus(plan) == ["4-5", "6-7"]  # distances of trees.py grow with the numbers' difference
    assert plan.ranks[0].why.endswith("(nearest to its node 8, which has no cpus)")
    assert plan.warnings == ()


def test_cpus_tell_more_than_distances() -> None:
    """Where such a GPU says which cpus are near, these decide, as on POWER9 where all of the GPUs'
    nodes are equally far."""
    shape = Shape(nodes=2, cores=8, memory_only=(8,), devices=(gpu("1b", 8, "0-3"),))
    assert cpus(plan_for(make_machine(shape), "--per gpu")) == ["0-3"]
    every = replace(shape, devices=(gpu("1b", 8),))
    assert cpus(plan_for(make_machine(every), "--per gpu")) == ["4-7"], "all cpus tell nothing"


def test_gpus_of_a_node_in_the_order_of_their_cores() -> None:
    """One that none of them is near comes first."""
    shape = Shape(
        nodes=2, cores=4, memory_only=(8,), devices=(gpu("1b", 8, ""), gpu("3d", 1, "2-3"))
    )
    assert cpus(plan_for(make_machine(shape), "--per gpu")) == ["2", "3"]


@pytest.mark.parametrize("args", ["--per gpu", "--per gpu --gpu-domain package", "--near 1b:00.0"])
def test_a_node_of_one_core(args: str) -> None:
    """Is as good as any."""
    shape = Shape(packages=2, nodes=2, cores=2, devices=(gpu("1b", 1, "1"),))
    assert cpus(plan_for(make_machine(shape), args)) == ["1"]


def test_nodes_that_are_hidden() -> None:
    """Ranks have the whole machine, whatever they are near; memory cannot be bound."""
    shape = Shape(packages=2, cores=4, node_dir="hidden", devices=(gpu("1b", -1, "2-3"),))
    machine = make_machine(shape)
    for domain in ("numa", "package"):
        plan = plan_for(machine, f"--per gpu --gpu-domain {domain}")
        assert (cpus(plan), plan.ranks[0].why) == (["0-3"], "GPU 0000:1b:00.0, the machine")
    message, _ = refusal(machine, "--per gpu --numa-bind")
    assert message.startswith("rank 0: its cpus (0-3) are on no known node")


def test_a_kernel_without_numa() -> None:
    """Nothing says which memory is allowed, and nothing needs to."""
    machine = make_machine(Shape(cores=4, node_dir="none", devices=(gpu("1b"),)))
    machine = machine.replace(allowed=machine.allowed.replace(nodes=CpuSet()))
    assert cpus(plan_for(machine, "--numa-bind --gpu-env")) == ["0-3"]


def test_a_node_that_is_not_allowed() -> None:
    """The nearest node that is allowed, with a warning."""
    machine = allow(make_machine(SERVER), "0-7,16-23", "0,2")
    plan = plan_for(machine, "--per gpu --numa-bind", {"CUDA_VISIBLE_DEVICES": "2,4"})
    assert cpus(plan) == ["0-7", "16-23"]
    assert plan.warnings == (
        "GPU 0000:4e:00.0 is near node 1, whose cpus may not be used; the nearest is node 0",
    )


def test_memory_that_is_not_allowed() -> None:
    """With --numa-bind a node counts only where its memory may be used too."""
    machine = allow(make_machine(SERVER), nodes="0,2-3")
    plan = plan_for(machine, "--per gpu --numa-bind", {"CUDA_VISIBLE_DEVICES": "2"})
    assert (cpus(plan), str(plan.ranks[0].mems)) == (["0-7"], "0")
    assert "the nearest is node 0" in plan.warnings[0]
    assert cpus(plan_for(machine, "--per gpu", {"CUDA_VISIBLE_DEVICES": "2"})) == ["8-15"]


def test_no_node_is_known() -> None:
    """-1 is not node 0: the machine is divided as without GPUs, and that is said."""
    shape = Shape(packages=2, nodes=2, cores=8, devices=(gpu("1b"), gpu("3d")))
    plan = plan_for(make_machine(shape), "--per gpu")
    assert cpus(plan) == ["0-3", "4-7"]
    assert "does not say which node its GPUs are near" in plan.warnings[0]
    assert plan.cautions[0].kind == "gpu"
    assert plan.ranks[1].why == "GPU 0000:3d:00.0, 1/2 of the machine, package 1, node 1"
    one = replace(shape, devices=(gpu("1b"),))
    assert cpus(plan_for(make_machine(one), "--per gpu")) == ["0-7"]
    assert cpus(plan_for(make_machine(shape), "--per gpu --cores-per-rank 2")) == ["0-1", "4-5"]
    assert cpus(plan_for(make_machine(shape), "--per gpu --cores-per-rank 3,2")) == ["0-2", "4-5"]
    bound = plan_for(make_machine(shape), "--per gpu --numa-bind")
    assert [str(r.mems) for r in bound.ranks] == ["0", "1"]
    message, hint = refusal(make_machine(one), "--per gpu --numa-bind")
    assert "the node of GPU 0000:1b:00.0 is not known" in message
    assert "--numa-bind-nodes" in hint


def test_one_node_needs_no_telling() -> None:
    """On a machine of one node, or a kernel without NUMA, -1 leaves nothing open."""
    for node_dir in ("there", "none"):
        shape = Shape(cores=8, node_dir=node_dir, devices=(gpu("1b"), gpu("3d")))
        plan = plan_for(make_machine(shape), "--per gpu")
        assert (cpus(plan), plan.warnings) == (["0-3", "4-7"], ())


def test_one_of_several_is_unknown() -> None:
    """It goes to the node with fewest ranks for its cores."""
    shape = Shape(nodes=2, cores=8, devices=(gpu("1b", 0, "0-3"), gpu("3d"), gpu("4e", 0, "0-3")))
    plan = plan_for(make_machine(shape), "--per gpu")
    assert cpus(plan) == ["0-1", "4-7", "2-3"]
    assert plan.warnings == (
        "the NUMA node of GPU 0000:3d:00.0 is not known; using the least loaded node 1",
    )


@pytest.mark.parametrize(
    ("known", "allowed", "wanted"),
    [
        ((2,), "0,4-11", "0"),  # of two without a rank the first, however small
        ((0, 1, 1), "0,4-7", "4-7"),  # two ranks of four cores rather than one of one
    ],
)
def test_the_least_loaded_node(known: tuple[int, ...], allowed: str, wanted: str) -> None:
    """By ranks for each core that may be used."""
    devices = tuple(gpu(bus, node) for bus, node in zip(BUSES, (*known, -1), strict=False))
    machine = allow(make_machine(Shape(nodes=3, cores=12, devices=devices)), allowed)
    assert cpus(plan_for(machine, "--per gpu --share"))[-1] == wanted


def test_cores_of_no_known_node() -> None:
    """A GPU of unknown node goes to a node that is known."""
    shape = Shape(nodes=2, cores=12, devices=(gpu("1b", 0), gpu("3d", 1), gpu("4e")))
    machine = make_machine(shape)
    known = (0, 1, 6, 7)
    lost = tuple(c if c.cpu in known else c.replace(node=None) for c in machine.topology.cpus)
    topology = machine.topology.replace(cpus=lost)
    plan = plan_for(machine.replace(topology=topology), "--per gpu --share")
    assert cpus(plan) == ["0-1", "6-7", "0-1"]


def test_cpus_tell_the_node() -> None:
    """Without a node number, cpus that are one node's tell it."""
    shape = Shape(nodes=2, cores=8, devices=(gpu("1b", -1, "4-7"),))
    assert cpus(plan_for(make_machine(shape), "--per gpu")) == ["4-7"]


def test_a_bridge_tells_the_node() -> None:
    """A device that says -1 itself is where a bridge above it is."""
    shape = Shape(nodes=2, cores=8, devices=(gpu("3b"),))
    root = "sys/devices/pci0000:3a"
    files = {
        f"{root}/0000:3a:01.0/numa_node": "1\n", f"{root}/0000:3a:01.0/local_cpus": "f0\n",
        f"{root}/0000:3a:01.0/0000:3b:00.0/numa_node": "-1\n",
    }  # fmt: skip
    link = {"sys/bus/pci/devices/0000:3b:00.0": f"{root}/0000:3a:01.0/0000:3b:00.0"}
    device = read_topology(MemoryRoot(make_files(shape) | files, link)).devices[0]
    assert (device.node, str(device.cpus)) == (1, "4-7")


# --- --numa-bind ---------------------------------------------------------------------------------


def swapped(count: int = 2) -> Machine:
    """A machine whose first GPU is near its second node."""
    shape = Shape(
        nodes=2, cores=8, devices=(gpu("1b", 1, "4-7"), gpu("3d", 0, "0-3"), gpu("4e", 1, "4-7"))
    )
    return make_machine(replace(shape, devices=shape.devices[:count]))


def test_numa_bind_with_a_rank_for_each_gpu() -> None:
    """As many ranks as visible GPUs: each is on its GPU's node, and why says so."""
    plan = plan_for(swapped(), "--numa-bind -n 2")
    assert [str(r.mems) for r in plan.ranks] == ["1", "0"]
    assert plan.ranks[0].why == "GPU 0000:1b:00.0, node 1"
    assert [r.gpus for r in plan.ranks] == [("0",), ("1",)]


@pytest.mark.parametrize(
    ("args", "environ", "wanted"),
    [
        ("--numa-bind -n 4", {}, "0011"),  # another number of ranks: they are not for the GPUs
        ("--numa-bind -n 2", {"CUDA_VISIBLE_DEVICES": ""}, "01"),  # GPUs hidden on purpose
        ("--per numa --numa-bind", {}, "01"),  # said otherwise
        ("--numa-bind-nodes 0 1", {}, "01"),
        ("--numa-bind-nodes 0", {"CUDA_VISIBLE_DEVICES": "0"}, "0"),
        ("--numa-bind", {}, "0"),  # one rank, GPUs on both nodes
        ("--numa-bind", {"CUDA_VISIBLE_DEVICES": "0"}, "1"),  # one rank and its GPU
    ],
)
def test_numa_bind_leaves_others_alone(args: str, environ: dict[str, str], wanted: str) -> None:
    """Whoever does not start a rank for each GPU gets the nodes in order, without a word about
    GPUs."""
    plan = plan_for(swapped(), args, environ)
    assert [str(r.mems) for r in plan.ranks] == list(wanted)
    assert [c.kind for c in plan.cautions if c.kind != "idle"] == []


def test_numa_bind_with_one_rank_for_gpus_of_one_node() -> None:
    """A process that uses several GPUs is on their node, when they share one."""
    plan = plan_for(swapped(3), "--numa-bind --gpu-env", {"CUDA_VISIBLE_DEVICES": "2,0"})
    assert (str(plan.ranks[0].mems), plan.ranks[0].gpus) == ("1", ("2", "0"))
    assert dict(plan.ranks[0].env)["CUDA_VISIBLE_DEVICES"] == "2,0"
    assert plan.ranks[0].why == "GPUs 0000:4e:00.0 0000:1b:00.0, node 1"
    assert plan.warnings == (), "neither that a GPU has no rank nor that a node is idle"
    three = make_machine(Shape(cores=4, devices=tuple(gpu(b, 0) for b in BUSES[:3])))
    why = plan_for(three, "--numa-bind").ranks[0].why
    assert why == "GPUs 0000:1b:00.0 0000:3d:00.0 and 1 more, node 0"
    message, _ = refusal(swapped(3), "--numa-bind --gpu-env")
    assert "near several nodes" in message


def test_numa_bind_falls_back_aloud() -> None:
    """What speaks against the GPUs' nodes is said, and the nodes are taken in order."""
    crowded = Shape(nodes=2, cores=4, devices=tuple(gpu(b, 0, "0-1") for b in BUSES[:4]))
    plan = plan_for(make_machine(crowded), "--numa-bind -n 4")
    assert [str(r.mems) for r in plan.ranks] == list("0011")
    assert "node 0 is near 4 ranks' GPUs and has 2 cores" in plan.warnings[0]
    for more in ("--share", "--oversubscribe"):
        plan = plan_for(make_machine(crowded), f"--numa-bind -n 4 {more}")
        assert [str(r.mems) for r in plan.ranks] == list("0000"), more
    full = Shape(nodes=2, cores=2, devices=(gpu("1b", 1), gpu("3d", 0)))
    plan = plan_for(make_machine(full), "--numa-bind -n 2")
    assert ([str(r.mems) for r in plan.ranks], plan.warnings) == (["1", "0"], ())
    unknown = Shape(nodes=2, cores=4, devices=(gpu("1b"), gpu("3d")))
    plan = plan_for(make_machine(unknown), "--numa-bind -n 2")
    assert [str(r.mems) for r in plan.ranks] == ["0", "1"]
    assert "--numa-bind takes the nodes in order" in plan.warnings[0]
    plan = plan_for(swapped(), "--numa-bind -n 2", {"CUDA_VISIBLE_DEVICES": "0,7"})
    assert "CUDA_VISIBLE_DEVICES names '7'; devices there: 0-1" in plan.warnings[0]


def test_an_environment_that_names_what_is_not_there() -> None:
    """Whoever asks for GPUs is refused, one rank goes by none, and others do not hear of it."""
    environ = {"CUDA_VISIBLE_DEVICES": "0,7"}
    message = "--per gpu: CUDA_VISIBLE_DEVICES names '7'; devices there: 0-1"
    assert refusal(swapped(), "--per gpu", environ)[0] == message
    plan = plan_for(swapped(), "--numa-bind", environ)
    assert (str(plan.ranks[0].mems), plan.ranks[0].gpus) == ("0", ())
    assert plan_for(swapped(), "-n 2", environ).warnings == ()


def test_a_node_whose_memory_is_denied() -> None:
    """A rank that is mapped by its GPU leaves it out as any other, and that is said."""
    plan = plan_for(allow(swapped(1), nodes="1"), "--numa-bind")
    assert plan.ranks[0].gpus == ("0",)
    assert "--numa-bind leaves out node 0, whose memory is not allowed" in plan.warnings[0]


def test_ranks_that_have_no_gpu_to_be_given() -> None:
    """One rank that nothing binds to nodes; none was looked up; there are none."""
    message = "--gpu-env gives each rank its GPU, and no rank has one"
    assert refusal(swapped(1), "--gpu-env") == (message, "--per gpu gives each rank one")
    with pytest.raises(PlanError) as caught:
        make_plan(swapped(1), make_asked(["--numa-bind", "--gpu-env"]))
    assert caught.value.message == message
    assert refusal(make_machine(Shape()), "--gpu-env -n 2")[0].startswith(f"{message}: ")


# --- --near --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("eth1", "24-31"), ("ib0", "0-7"), ("0000:c0:00.0", "24-31"),
        ("C0:00.0", "24-31"), ("gpu4", "16-23"), ("0000:dd:00.0", "24-31"), ("02:00.0", "0-7"),
    ],
)  # fmt: skip
def test_near(name: str, wanted: str) -> None:
    """By an interface, a port, an address, a GPU as workers count it."""
    plan = plan_for(make_machine(SERVER), ["--near", name])
    assert cpus(plan) == [wanted]
    assert plan.ranks[0].why == f"every allowed core, near {name}"
    assert plan.warnings == ()
    halves = plan_for(make_machine(SERVER), ["--near", name, "-n", "2"])
    assert str(union(r.cpus for r in halves.ranks)) == wanted
    assert [len(r.cpus) for r in halves.ranks] == [4, 4]


def test_near_a_gpu_as_the_environment_counts() -> None:
    """gpu0 is the first visible one."""
    environ = {"CUDA_VISIBLE_DEVICES": "7,0"}
    assert cpus(plan_for(make_machine(SERVER), "--near gpu0", environ)) == ["24-31"]
    message, hint = refusal(make_machine(SERVER), "--near gpu2", environ)
    assert (message, hint[:12]) == ("--near gpu2: there are 2 visible GPUs", "gpu0 to gpu1")


def test_near_with_what_else_says_where() -> None:
    """It goes with ways to divide, not with places that are named."""
    machine = make_machine(SERVER)
    plan = plan_for(machine, "--near eth0 --per l3 --numa-bind")
    assert (cpus(plan), str(plan.ranks[0].mems)) == (["24-27", "28-31"], "3")
    assert "both say where ranks go" in refusal(machine, "--near eth0 --numa-bind-nodes 0")[0]
    assert "both say where ranks go" in refusal(machine, "--near eth0 --numa-bind-cpus 0-3")[0]
    message = refusal(machine, "--near eth0 --per gpu")[0]
    assert message == "--near and --per gpu both say where ranks go"
    plan = plan_for(machine, "--near eth0 --numa-bind -n 8")
    assert [str(r.mems) for r in plan.ranks] == ["3"] * 8


def test_near_what_is_not_there() -> None:
    """The message names the devices that exist."""
    message, hint = refusal(make_machine(SERVER), "--near eth9")
    assert message == "--near 'eth9': there is no such device"
    assert hint.startswith("devices: 0000:02:00.0") or "eth0" in hint
    card = Pci("0000:01:00.0", "020000", names=("eth0",))
    few = make_machine(Shape(devices=(gpu("1b"), card)))
    for name in ("eth9", "gpu²"):
        message, hint = refusal(few, f"--near {name}")
        assert message.endswith("there is no such device")
        assert hint == "devices: eth0 0000:1b:00.0"
    assert "shows no network card" in refusal(make_machine(Shape()), "--near eth0")[1]


def test_near_a_port() -> None:
    """As --per nic names it, also of a bond; one that does not exist is refused with those that
    do; where a machine does not say which ports a card has, any will do."""
    ports = (Port("mlx5_1:1", "rdma"), Port("mlx5_1:2", "rdma"), Port("bond0", "net"))
    card = Device("nic", "0000:c0:00.0", 3, CpuSet([24]), names=("mlx5_1", "eth0"), ports=ports)
    topology = make_machine(Shape(packages=2, nodes=4, cores=32)).topology
    machine = make_machine(Shape(packages=2, nodes=4, cores=32)).replace(
        topology=topology.replace(devices=(card,))
    )
    for name in ("mlx5_1", "mlx5_1:2", "eth0", "bond0"):
        assert cpus(plan_for(machine, ["--near", name])) == ["24-31"]
    for name in ("mlx5_1:7", "mlx5_1:", "eth0:1"):
        message, hint = refusal(machine, f"--near {name}")
        assert message == f"--near '{name}': {name.partition(':')[0]} has no such port"
        assert hint == "ports of this card: mlx5_1:1 mlx5_1:2 bond0"
    silent = topology.replace(devices=(card.replace(ports=()),))
    assert cpus(plan_for(machine.replace(topology=silent), "--near mlx5_1:7")) == ["24-31"]


def test_near_a_card_of_unknown_place() -> None:
    """An error on several nodes, where ranks would be anywhere; nothing on one."""
    card = Pci("0000:01:00.0", "020000", names=("eth0",))
    message, _ = refusal(make_machine(Shape(nodes=2, cores=8, devices=(card,))), "--near eth0")
    assert "does not say which node 0000:01:00.0 is near" in message
    assert cpus(plan_for(make_machine(Shape(cores=4, devices=(card,))), "--near eth0")) == ["0-3"]
    anywhere = make_machine(Shape(nodes=2, cores=8, devices=(gpu("1b", -1, "0-7"),)))
    assert "does not say which node" in refusal(anywhere, "--near 1b:00.0")[0]
    assert cpus(plan_for(anywhere, "--near 1b:00.0 --exclude 4-7")) == ["0-3"]
    nowhere = make_machine(Shape(nodes=2, cores=8, devices=(gpu("1b", -1, ""),)))
    assert "does not say which node" in refusal(nowhere, "--near 1b:00.0")[0]
    some = make_machine(Shape(nodes=2, cores=8, devices=(gpu("1b", -1, "2-5"),)))
    assert cpus(plan_for(some, "--near 1b:00.0")) == ["2-5"], "cores of two nodes, not all"
    hidden = make_machine(Shape(cores=4, node_dir="hidden", devices=(card,)))
    assert cpus(plan_for(hidden, "--near eth0")) == ["0-3"]


def test_near_a_card_whose_node_is_not_allowed() -> None:
    """The nearest node that is, with a warning."""
    plan = plan_for(allow(make_machine(SERVER), "0-15"), "--near eth0")
    assert cpus(plan) == ["8-15"]
    assert "the nearest is node 1" in plan.warnings[0]


# --- which GPUs are visible ----------------------------------------------------------------------


def visible_of(shape: Shape, files: dict[str, str] | None = None, **environ: str) -> Visible:
    return make_visible(make_machine(shape, files).topology.devices, environ)


def addresses(visible: Visible) -> list[str]:
    return [g.device.pci[5:7] for g in visible.gpus]


@pytest.mark.parametrize(
    ("devices", "reason"),
    [
        ((), "no GPU to compute with was found"),
        ((gpu("02", vendor="1a03"),), "0000:02:00.0 is a display of vendor 1a03"),
        ((Pci("0000:00:02.0", "030000", vendor=INTEL),), "is the package's own display"),
        ((gpu("1b", driver=""), gpu("3d", vendor="1a03", driver="ast")), "1b:00.0 has no driver"),
        ((gpu("1b", driver="vfio-pci"),), "is held by the driver vfio-pci"),
        ((gpu("1b", driver="nouveau"),), "is held by the driver nouveau"),
        ((Pci("0000:1b:00.0", "068000"),), "no GPU to compute with was found"),  # an NVSwitch
        ((Pci("0000:1b:00.0", "120000", vendor="1da3"),), "no GPU to compute with was found"),
    ],
)
def test_no_gpu(devices: tuple[Pci, ...], reason: str) -> None:
    """Nothing to compute with: each device that might have been it is explained."""
    message, hint = refusal(make_machine(Shape(devices=devices)), "--per gpu")
    assert message.startswith("--per gpu: ")
    assert reason in message
    assert hint


def test_a_virtual_function_is_for_a_guest() -> None:
    """SR-IOV functions of a GPU that is here are left out."""
    shape = Shape(devices=(gpu("1b"), gpu("1c")))
    link = {"sys/bus/pci/devices/0000:1c:00.0/physfn": "sys/bus/pci/devices/0000:1b:00.0"}
    devices = read_topology(MemoryRoot(make_files(shape), link)).devices
    assert addresses(make_visible(devices, {})) == ["1b"]


def test_hidden_by_a_container() -> None:
    """sysfs shows all GPUs, the driver's directory those given to the container: CUDA's numbers are
    of these."""
    files = information("3d", 5, "GPU-aaaa") | information("9d", 3, "GPU-bbbb")
    visible = visible_of(SERVER, files)
    assert addresses(visible) == ["3d", "9d"]
    assert visible.warnings == ()
    assert addresses(visible_of(SERVER, files, CUDA_VISIBLE_DEVICES="1")) == ["9d"]
    assert addresses(visible_of(SERVER, files, CUDA_VISIBLE_DEVICES="GPU-b")) == ["9d"]
    files = information("77", 0, "GPU-of-another")
    none = visible_of(SERVER, files, NVIDIA_VISIBLE_DEVICES="void")
    assert "0000:1b:00.0 is hidden from this process, 0000:3d:00.0" in none.problem
    assert none.hint == "this container was given NVIDIA_VISIBLE_DEVICES=void"


def test_uuids_are_needed() -> None:
    """UUIDs in the list and none known: who knows them, and how to ask."""
    visible = visible_of(SERVER, CUDA_VISIBLE_DEVICES="GPU-aaaa")
    assert "that of 0000:1b:00.0 is not known" in visible.problem
    assert "ompbind[nvidia]" in visible.hint
    asleep = information("1b", 0, "GPU-????????-????-????")
    shape = Shape(devices=(gpu("1b"),))
    assert visible_of(shape, asleep, CUDA_VISIBLE_DEVICES="GPU-aaaa").problem


def test_divided_gpus_need_nvml() -> None:
    """A GPU with MIG instances cannot be used whole, and files do not tell the parts' names."""
    mig = "proc/driver/nvidia/capabilities/gpu0/mig/gi{}/ci0/access"
    files = information("1b", 0, "GPU-aaaa") | {mig.format(n): "x" for n in (1, 2)}
    shape = Shape(devices=(gpu("1b"),))
    assert make_machine(shape, files).topology.devices[0].parts == 2
    assert "is divided (MIG)" in visible_of(shape, files).problem
    assert "names MIG parts" in visible_of(shape, files, CUDA_VISIBLE_DEVICES="MIG-1").problem


def test_several_models() -> None:
    """CUDA puts the fastest first, which nobody else knows: said, and settled where it may be."""
    devices = (gpu("1b", model="20b0"), gpu("3d", model="2330"))
    visible = visible_of(Shape(devices=devices))
    assert "CUDA puts the fastest first" in visible.warnings[0]
    assert visible.env == (("CUDA_DEVICE_ORDER", "PCI_BUS_ID"),)
    given_list = visible_of(Shape(devices=devices), CUDA_VISIBLE_DEVICES="1")
    assert (len(given_list.warnings), given_list.env) == (1, ())  # it would mean others then
    ordered = visible_of(Shape(devices=devices), CUDA_DEVICE_ORDER="PCI_BUS_ID")
    assert (ordered.warnings, ordered.env) == ((), ())
    plan = plan_for(make_machine(Shape(devices=devices)), "--per gpu --gpu-env")
    assert dict(plan.ranks[1].env)["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"


def test_several_vendors() -> None:
    """NVIDIA's before AMD's, as processors have a GPU of the latter's in them; that is said."""
    visible = visible_of(Shape(devices=(gpu("0a", vendor=AMD), gpu("1b"))))
    assert addresses(visible) == ["1b"]
    assert "those of AMD are left out" in visible.warnings[0]


def test_long_domains_in_order() -> None:
    """Domains of more than four digits come last, not as text sorts them."""
    devices = (Pci("10000:01:00.0", "030200"), Pci("0002:01:00.0", "030200"), gpu("ff"))
    addresses_in_order = [g.device.pci for g in visible_of(Shape(devices=devices)).gpus]
    assert addresses_in_order == ["0000:ff:00.0", "0002:01:00.0", "10000:01:00.0"]


# --- AMD, Intel ----------------------------------------------------------------------------------


def kfd(*gpus: tuple[str, int]) -> dict[str, str]:
    """KFD nodes: a cpu, then GPUs by bus and unique number. "": its properties may not be read."""
    nodes = "sys/class/kfd/kfd/topology/nodes"
    files = {f"{nodes}/0/properties": "cpu_cores_count 64\nsimd_count 0\nlocation_id 0\n"}
    for n, (bus, unique) in enumerate(gpus, 1):
        files[f"{nodes}/{n}/gpu_id"] = "1\n"
        if bus:
            files[f"{nodes}/{n}/properties"] = (
                f"cpu_cores_count 0\nsimd_count 880\nlocation_id {int(bus, 16) << 8}\n"
                f"domain 0\nunique_id {unique}\n"
            )
    return files


MI = Shape(
    nodes=2, cores=8,
    devices=(
        Pci("0000:c1:00.0", "038000", 1, "4-7", AMD), Pci("0000:c6:00.0", "120000", 1, "4-7", AMD),
        Pci("0000:d1:00.0", "038000", 0, "0-3", AMD), Pci("0000:d6:00.0", "038000", 0, "0-3", AMD),
    ),
)  # fmt: skip


def test_amd_order() -> None:
    """ROCm's order is the KFD's; without it that of addresses."""
    assert addresses(visible_of(MI)) == ["c1", "c6", "d1", "d6"]
    files = kfd(("d1", 1), ("d6", 2), ("c1", 3), ("c6", 4))
    assert addresses(visible_of(MI, files)) == ["d1", "d6", "c1", "c6"]
    assert cpus(plan_for(make_machine(MI, files), "--per gpu")) == ["0-1", "2-3", "4-5", "6-7"]


def test_amd_lists_compose() -> None:
    """HIP's numbers are of what ROCr leaves; a rank gets ROCr's text, and only that."""
    files = kfd(("c1", 0xAB), ("c6", 0xCD), ("d1", 0), ("d6", 0xEF))
    environ = {
        "ROCR_VISIBLE_DEVICES": "3,GPU-00000000000000CD,0", "HIP_VISIBLE_DEVICES": "2,1",
        "GPU_DEVICE_ORDINAL": "0",
    }  # fmt: skip
    plan = plan_for(make_machine(MI, files), "--per gpu --gpu-env", environ)
    assert [r.gpus for r in plan.ranks] == [("0",), ("GPU-00000000000000CD",)]
    assert dict(plan.ranks[1].env)["ROCR_VISIBLE_DEVICES"] == "GPU-00000000000000CD"
    assert {"HIP_VISIBLE_DEVICES", "GPU_DEVICE_ORDINAL"} <= set(plan.ranks[0].unset)
    assert "CUDA_VISIBLE_DEVICES" not in plan.ranks[0].unset
    assert addresses(visible_of(MI, files, CUDA_VISIBLE_DEVICES="1")) == ["c6"]
    assert visible_of(MI, files, ROCR_VISIBLE_DEVICES="").problem.endswith("hides all 4 GPUs")
    wrong = visible_of(MI, files, ROCR_VISIBLE_DEVICES="1,2", HIP_VISIBLE_DEVICES="2")
    assert wrong.problem == "HIP_VISIBLE_DEVICES names '2'; devices there: 0-1"


def test_amd_hidden_and_divided() -> None:
    """A node that may not be read is hidden; partitions of a GPU count as GPUs."""
    visible = visible_of(MI, kfd(("c1", 1), ("", 2), ("d1", 3), ("", 4)))
    assert addresses(visible) == ["c1", "d1"]
    files = kfd(("c1", 1), ("c1", 1), ("c6", 2), ("d1", 3), ("d6", 4))
    assert addresses(visible_of(MI, files)) == ["c1", "c1", "c6", "d1", "d6"]
    assert cpus(plan_for(make_machine(MI, files), "--per gpu"))[:3] == ["4-5", "6", "7"]


PVC = Shape(
    nodes=2, cores=8,
    devices=(
        Pci("0000:00:02.0", "030000", -1, None, INTEL),
        Pci("0000:3a:00.0", "038000", 0, "0-3", INTEL),
        Pci("0000:9a:00.0", "038000", 1, "4-7", INTEL),
        Pci("0000:00:0b.0", "120000", -1, None, INTEL),
    ),
)  # fmt: skip
TILES = {f"sys/bus/pci/devices/0000:{bus}:00.0/tile{n}/gt0/x": "" for bus in ("3a", "9a")
         for n in (0, 1)}  # fmt: skip


def test_intel_tiles() -> None:
    """A tile is a device, unless GPUs are wished whole; the processor's own display is none."""
    plan = plan_for(make_machine(PVC, TILES), "--per gpu --gpu-env")
    assert cpus(plan) == ["0-1", "2-3", "4-5", "6-7"]
    assert [dict(r.env)["ZE_AFFINITY_MASK"] for r in plan.ranks] == ["0", "1", "2", "3"]
    whole = {"ZE_FLAT_DEVICE_HIERARCHY": "COMPOSITE"}
    assert cpus(plan_for(make_machine(PVC, TILES), "--per gpu", whole)) == ["0-3", "4-7"]
    masked = plan_for(make_machine(PVC, TILES), "--per gpu", whole | {"ZE_AFFINITY_MASK": "1.1,0"})
    assert [r.gpus for r in masked.ranks] == [("0",), ("1.1",)]
    assert addresses(visible_of(PVC)) == ["3a", "9a"]


# --- NVML ----------------------------------------------------------------------------------------


class FakeNvml:
    """Stands for the module pynvml: the functions that are used, with its names and signatures.

    `gpus` are bus, UUID, and the UUIDs of MIG devices (None: MIG is off); a GPU without UUID has
    fallen off the bus."""

    class NVMLError(Exception):
        pass

    def __init__(
        self, *gpus: tuple[str, str, tuple[str, ...] | None], broken: bool = False
    ) -> None:
        self.gpus, self.broken, self.open = gpus, broken, 0

    def nvmlInit(self) -> None:
        if self.broken:
            raise self.NVMLError("Driver/library version mismatch")
        self.open += 1

    def nvmlShutdown(self) -> None:
        self.open -= 1

    def nvmlDeviceGetCount(self) -> int:
        return len(self.gpus)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> Any:
        if not self.gpus[index][1]:
            raise self.NVMLError("GPU is lost")
        return self.gpus[index]

    def nvmlDeviceGetUUID(self, handle: Any) -> str:
        return str(handle[1])

    def nvmlDeviceGetPciInfo(self, handle: Any) -> Any:
        class Info:
            busId = f"00000000:{handle[0].upper()}:00.0"
            pciDeviceId = 0x233010DE

        return Info()

    def nvmlDeviceGetMigMode(self, device: Any) -> list[int]:
        if device[0] == "dd":
            raise self.NVMLError("Not Supported")
        return [int(device[2] is not None)] * 2

    def nvmlDeviceGetMaxMigDeviceCount(self, device: Any) -> int:
        return 7

    def nvmlDeviceGetMigDeviceHandleByIndex(self, device: Any, index: int) -> Any:
        if index % 2 or index // 2 >= len(device[2]):  # numbers have gaps
            raise self.NVMLError("Not Found")
        return ("", device[2][index // 2])


FAKE = FakeNvml(
    *((bus, f"GPU-{bus}00-1111", None) for bus in BUSES[:6]), ("cd", "GPU-cd", ("MIG-a1", "MIG-b2"))
)


def find(shape: Shape, library: Any, **environ: str) -> Visible:
    devices = make_machine(shape).topology.devices
    return find_visible(devices, environ, library=library, may_use=lambda _: True)


def test_nvml_tells_uuids_and_parts() -> None:
    """With NVML all that CUDA_VISIBLE_DEVICES may hold is known; what NVML lacks is hidden."""
    visible = find(SERVER, FAKE, CUDA_VISIBLE_DEVICES="GPU-9d,GPU-1b00-1111")
    assert addresses(visible) == ["9d", "1b"]
    assert [g.name for g in visible.gpus] == ["GPU-9d", "GPU-1b00-1111"]
    assert addresses(find(SERVER, FAKE, CUDA_VISIBLE_DEVICES="MIG-b2,MIG-a")) == ["cd", "cd"]
    everything = find(SERVER, FAKE)
    assert [g.name for g in everything.gpus][:3] == ["MIG-a1", "MIG-b2", "GPU-1b00-1111"]
    assert "dd" not in addresses(everything)
    assert FAKE.open == 0


def test_parts_want_ranks_of_their_own() -> None:
    """A process sees one MIG device only, so ranks that see the same list would share the first."""
    environ = {"CUDA_VISIBLE_DEVICES": "MIG-a1,MIG-b2"}
    machine = make_machine(SERVER)
    visible = find(SERVER, FAKE, **environ)
    request = make_asked(["--per", "gpu"]).replace(visible=visible)
    plan = make_plan(machine, request)
    assert cpus(plan) == ["24-27", "28-31"]
    assert plan.warnings == (
        "a process sees one MIG device, the first: --gpu-env gives each its own",
    )
    alone = find(SERVER, FAKE, CUDA_VISIBLE_DEVICES="MIG-a1")
    assert make_plan(machine, request.replace(visible=alone)).warnings == ()
    mixed = request.replace(visible=find(SERVER, FAKE))  # beside GPUs that are not divided
    assert "a process sees one MIG device" in make_plan(machine, mixed).warnings[-1]
    own = make_plan(machine, request.replace(gpu_env=True))
    assert own.warnings == ()
    assert [dict(r.env)["CUDA_VISIBLE_DEVICES"] for r in own.ranks] == ["MIG-a1", "MIG-b2"]


def test_nvml_with_lost_gpus() -> None:
    """A GPU that fell off the bus is named in a warning and left out."""
    visible = find(SERVER, FakeNvml(("1b", "GPU-1", None), ("3d", "", None), ("dd", "GPU-3", None)))
    assert addresses(visible) == ["1b", "dd"]
    assert "NVML: GPU 1 cannot be used: GPU is lost" in visible.warnings


def test_nvml_that_does_not_work() -> None:
    """Then the kernel's files tell what they can."""
    visible = find(SERVER, FakeNvml(broken=True))
    assert len(visible.gpus) == 8
    assert "Driver/library version mismatch" in visible.warnings[0]


def test_nvml_is_not_asked_for_nothing() -> None:
    """Without an NVIDIA GPU the library is not even looked at."""
    assert not find(Shape(devices=(gpu("02", vendor="1a03"),)), FakeNvml(broken=True)).warnings
    assert len(find(MI, FakeNvml(broken=True)).gpus) == 4


def test_the_fake_is_shaped_as_the_library() -> None:
    """Each function that is asked exists in nvidia-ml-py with the same parameters."""
    try:
        import pynvml
    except ImportError:
        unavailable("nvidia-ml-py is not installed: pip install 'ompbind[nvidia]'")
    import inspect

    names = [n for n in vars(FakeNvml) if n.startswith("nvml")]
    assert len(names) == 9
    for name in names:
        theirs = list(inspect.signature(getattr(pynvml, name)).parameters)
        ours = list(inspect.signature(getattr(FakeNvml, name)).parameters)
        assert ours == ["self", *theirs], name
    assert issubclass(pynvml.NVMLError, Exception)
    assert {"busId", "pciDeviceId"} <= {f[0] for f in pynvml.nvmlPciInfo_t._fields_}


def test_the_library_without_a_driver() -> None:
    """nvidia-ml-py itself, where there is no driver: a warning, and nothing more."""
    try:
        import pynvml
    except ImportError:
        unavailable("nvidia-ml-py is not installed: pip install 'ompbind[nvidia]'")
    if os.path.exists("/dev/nvidiactl"):
        pytest.skip("there is a driver here; the test of a machine with a GPU asks it")
    gpus, warnings = read_nvml(pynvml)
    assert gpus is None
    assert "NVML Shared Library Not Found" in warnings[0]


@pytest.mark.parametrize(
    ("files", "wanted", "said"),
    [
        ({}, ["1b", "3d"], "/dev/nvidiactl does not exist"),
        ({"ctl": True, "0": True, "1": True}, ["1b", "3d"], ""),
        ({"ctl": True, "1": True}, ["3d"], ""),
        ({"ctl": True, "0": True, "1": False}, ["1b"], ""),
        ({"ctl": True}, [], "1b:00.0 is hidden from this process"),
    ],
)
def test_device_files(files: dict[str, bool], wanted: list[str], said: str) -> None:
    """Without NVML, a device file that is missing or refused (a cgroup's list) hides its GPU."""
    shape = Shape(devices=(gpu("1b"), gpu("3d")))
    driver = information("1b", 0, "GPU-a") | information("3d", 1, "GPU-b")
    devices = make_machine(shape, driver).topology.devices
    library = FakeNvml(broken=True)
    visible = find_visible(
        devices, {}, library=library, may_use=lambda p: files.get(p.removeprefix("/dev/nvidia"))
    )
    assert addresses(visible) == wanted
    assert said in "; ".join([*visible.warnings[1:], visible.problem])


DRM = {f"sys/bus/pci/devices/{d.pci}/drm/renderD{128 + n}/dev": "226:128\n"
       for n, d in enumerate((*MI.devices, *PVC.devices))}  # fmt: skip


@pytest.mark.parametrize(
    ("shape", "refused", "wanted", "said"),
    [
        (MI, [], ["c1", "c6", "d1", "d6"], ""),
        (MI, ["/dev/kfd"], [], "/dev/kfd is missing or may not be used (groups video and render)"),
        (MI, ["/dev/dri/renderD129"], ["c1", "d1", "d6"], "/dev/dri is missing"),
        (PVC, ["/dev/dri/renderD133"], ["9a", "9a"], "/dev/dri is missing"),
        (PVC, ["/dev/kfd"], ["3a", "3a", "9a", "9a"], ""),
    ],
)
def test_device_files_of_others(
    shape: Shape, refused: list[str], wanted: list[str], said: str
) -> None:
    """A GPU whose file may not be used is hidden, all of AMD's without the compute driver's; the
    groups that may are named."""
    devices = make_machine(shape, DRM | TILES).topology.devices
    visible = find_visible(devices, {}, may_use=lambda path: path not in refused)
    assert addresses(visible) == wanted
    assert said in "; ".join(visible.warnings)
    assert bool(said) == bool(visible.warnings)


# --- real machines -------------------------------------------------------------------------------

POWER9 = "nvidiagpunumanodes"


def test_power9() -> None:
    """POWER9 with GPUs' memory as nodes 250-255: no numa_node files, no vendors, sparse numbers;
    NVIDIA's driver tells whose they are, their cpus tell the nodes."""
    machine = read_tree(POWER9)
    whole = machine.replace(allowed=Allowed(machine.topology.online, machine.topology.node_numbers))
    plan = plan_for(whole, "--per gpu --numa-bind")
    assert [str(r.mems) for r in plan.ranks] == ["0", "0", "0", "8", "8", "8"]
    assert str(union(r.cpus for r in plan.ranks)) == "0,4,8,12,88,92,96,100"
    assert sorted(len(r.cpus) for r in plan.ranks) == [1, 1, 1, 1, 2, 2]
    partly = plan_for(machine, "--per gpu", {"CUDA_VISIBLE_DEVICES": "5"})
    assert "is near node 8, whose cpus may not be used; the nearest is node 0" in partly.warnings[0]


@pytest.mark.parametrize(
    ("name", "device", "wanted"),
    [
        ("32em64t-2n8c+dax+nvme+mic+dimms", "mlx4_0", "8-15"),
        ("32em64t-2n8c+dax+nvme+mic+dimms", "eth1", "0-7"),
        ("32em64t-2n8c+dax+nvme+mic+dimms", "mic0", "8-15"),
        ("32intel64-2p8co2t+8ve", "enp96s0f1", "0-7"),
    ],
)
def test_near_on_real_machines(name: str, device: str, wanted: str) -> None:
    """Cards by the names that people know them by."""
    machine = read_tree(name)
    whole = machine.replace(allowed=Allowed(machine.topology.online, machine.topology.node_numbers))
    assert cpus(plan_for(whole, ["--near", device])) == [wanted]


RUNTIMES = {"CUDA": "cuda", "NVML": "nvml", "RSMI": "rsmi"}


@pytest.mark.parametrize("name", ["coral-lassen", "cts1-pascal", "g4dnmetal", "eas-tioga"])
def test_order_on_supercomputers(name: str) -> None:
    """Our order is that in which CUDA, NVML or ROCm's own library counted the GPUs when the machine
    was recorded; each rank's cpus are near its GPU as recorded, caches included."""
    need_topologies()
    place = topologies() / "mpibind"
    said = json.loads((place / f"{name}.topology.json").read_text())
    counted: dict[str, dict[int, str]] = {}
    near = {}
    for device in said["pci"]:
        near[device["busid"]] = CpuSet.parse_kernel(device["cpus"])
        for own in device["osdevs"]:
            if prefix := RUNTIMES.get(own["backend"] or ""):
                number = int(own["name"].removeprefix(prefix))
                counted.setdefault(prefix, {})[number] = device["busid"]
    machine = read_machine(str(place / f"{name}.xml"))
    plan = plan_for(machine, "--per gpu")
    ours = [g.device.pci for g in make_visible(machine.topology.devices, {}).gpus]
    assert len(ours) == len(plan.ranks) >= 2
    for numbers in counted.values():
        assert ours == [numbers[n] for n in sorted(numbers)]
    assert counted or name == "coral-lassen"
    for pci, rank in zip(ours, plan.ranks, strict=True):
        assert rank.cpus <= near[pci]
    backwards = ",".join(str(n) for n in reversed(range(len(ours))))
    variable = "ROCR_VISIBLE_DEVICES" if "rsmi" in counted else "CUDA_VISIBLE_DEVICES"
    again = plan_for(machine, "--per gpu", {variable: backwards})
    for pci, rank in zip(reversed(ours), again.ranks, strict=True):
        assert rank.cpus <= near[pci]


def test_names_in_hwlocs_xml() -> None:
    """Cards have their names from there, too."""
    need_topologies()
    machine = read_machine(str(topologies() / "mpibind/coral-lassen.xml"))
    plan = plan_for(machine, "--near mlx5_2")
    card = next(d for d in machine.topology.devices if "mlx5_2" in d.names)
    assert plan.ranks[0].nodes == CpuSet([card.node or 0])


def test_real_cards_of_unknown_place() -> None:
    """A real machine of two nodes whose cards all say -1, and whose only display is its BMC's."""
    machine = read_tree("40intel64-2g2n4c+pcilocality")
    assert "does not say which node" in refusal(machine, "--near eth0")[0]
    assert "0000:09:03.0 is a display of vendor 102b" in refusal(machine, "--per gpu")[0]


# --- the command ---------------------------------------------------------------------------------


def run(
    ompbind: str, *args: str, environ: Mapping[str, str] | None = None, **more: Any
) -> subprocess.CompletedProcess[str]:
    kept = {k: v for k, v in os.environ.items() if "VISIBLE_DEVICES" not in k}
    return subprocess.run(
        [ompbind, *args], env=kept | dict(environ or {}), capture_output=True, text=True,
        timeout=60, check=False, **more,
    )  # fmt: skip


@pytest.fixture
def server(tmp_path: Path) -> str:
    return str(write_tree(make_files(SERVER), tmp_path / "server", make_links(SERVER)))


def test_show(ompbind: str, server: str) -> None:
    """The table has a column of GPUs where there are any; the JSON their texts."""
    table = run(ompbind, "show", "--topology", server, "--per", "gpu").stdout
    assert " gpu " in table.splitlines()[2]
    assert " gpu " not in run(ompbind, "show", "--topology", server).stdout.splitlines()[2]
    done = run(ompbind, "show", "--topology", server, "--per", "gpu", "--gpu-env", "--format",
               "json", environ={"CUDA_VISIBLE_DEVICES": "3,1"})  # fmt: skip
    plan = json.loads(done.stdout)
    assert [r["gpus"] for r in plan["ranks"]] == [["3"], ["1"]]
    judged = {i["name"]: i["action"] for i in plan["inherited"]}
    assert judged["CUDA_VISIBLE_DEVICES"] == "overridden"


def test_topo(ompbind: str, server: str) -> None:
    """The devices' names, and what keeps workers from a GPU."""
    text = " ".join(
        run(ompbind, "topo", "--topology", server).stdout.split()
    )  # lines may be folded

    assert "eth0 eth1" in text
    assert "is a display of vendor 1a03" in text
    devices = json.loads(run(ompbind, "topo", "--topology", server, "--format", "json").stdout)
    card = next(d for d in devices["devices"] if d["pci"] == "0000:c0:00.0")
    assert (card["names"], card["driver"], card["model"]) == (["eth0", "eth1"], "mlx5_core", "101d")


def test_saved_and_read_again(ompbind: str, tmp_path: Path) -> None:
    """A saved machine has its GPUs, with drivers, and with the host's name their UUIDs."""
    files = make_files(SERVER) | information("1b", 0, "GPU-aaaa") | information("cd", 1, "GPU-bbbb")
    tree, saved = write_tree(files, tmp_path / "tree", make_links(SERVER)), str(tmp_path / "saved")
    save = ("topo", "--topology", str(tree), "--save", saved)
    assert run(ompbind, *save).returncode == 0
    plain = read_machine(saved)
    assert plain.to_json() == read_machine(str(tree)).to_json()
    assert [d.minor for d in plain.topology.devices if d.minor is not None] == [0, 1]
    assert not any(d.uuid for d in plain.topology.devices)
    assert b"GPU-aaaa" not in gzip.decompress(Path(saved).read_bytes())
    assert run(ompbind, *save, "--with-name").returncode == 0
    done = [
        run(ompbind, "show", "--topology", path, "--per", "gpu", "--format", "json",
            environ={"CUDA_VISIBLE_DEVICES": "GPU-bb"}).stdout
        for path in (str(tree), saved)
    ]  # fmt: skip
    assert done[0] == done[1]
    assert json.loads(done[1])["ranks"][0]["cpus"] == "24-31"


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--gpu-env"], "--gpu-env gives each rank its GPU, and no rank has one"),
        (["--near", "gpu8"], "--near gpu8: there are 8 visible GPUs"),
        (["--per", "gpu", "--numa-bind-nodes", "0"], "--per gpu and a list of nodes"),
    ],
)
def test_refusals_are_one_line(ompbind: str, server: str, args: list[str], message: str) -> None:
    """An error, a hint, 125."""
    done = run(ompbind, "show", "--topology", server, *args)
    lines = done.stderr.splitlines()
    assert (done.returncode, done.stdout, len(lines)) == (125, "", 2)
    assert lines[0].startswith(f"ompbind: error: {message}")
    assert lines[1].startswith("hint: ")


WORKER = (
    "import os, json; e = os.environ; print(json.dumps([e['LOCAL_RANK'],"
    " e['CUDA_VISIBLE_DEVICES'], sorted(os.sched_getaffinity(0))]))"
)


def test_workers_on_a_machine_with_gpus(ompbind: str, tmp_path: Path) -> None:
    """In a mount namespace whose PCI bus has two GPUs, and with a library in pynvml's place that
    knows their UUIDs: real workers, each on its cpus with its GPU in its environment."""
    allowed = sorted(os.sched_getaffinity(0))
    if len(allowed) < 2:
        unavailable("two cpus are needed")
    shape = Shape(
        first_cpu=0, cores=max(allowed) + 1,
        devices=(gpu("1b", driver="nvidia"), gpu("3d", driver="nvidia")),
    )  # fmt: skip
    bus = {p: t for p, t in make_files(shape).items() if p.startswith("sys/bus/pci/")}
    tree = write_tree(bus, tmp_path / "bus", make_links(shape))
    for device in ("0000:1b:00.0", "0000:3d:00.0"):  # for the quick look at drivers
        (tree / "sys/bus/pci/drivers/nvidia" / device).mkdir()
    source = Path(__file__).read_text()
    fake = source[source.index("class FakeNvml") : source.index("FAKE = FakeNvml")]
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib/pynvml.py").write_text(
        f"from __future__ import annotations\n{fake}\n"
        "lib = FakeNvml(('1b', 'GPU-aaaa-1', None), ('3d', 'GPU-bbbb-2', None))\n"
        "NVMLError = lib.NVMLError\n"
        "globals().update({n: getattr(lib, n) for n in dir(lib) if n.startswith('nvml')})\n"
    )
    script = f'mount --bind "{tree}/sys/bus/pci" /sys/bus/pci && exec "$@"'
    enter = ["unshare", "-m"] if os.geteuid() == 0 else ["unshare", "-rm"]
    try:
        works = subprocess.run([*enter, "sh", "-c", script, "sh", "true"], capture_output=True)
    except FileNotFoundError:
        unavailable("there is no unshare")
    if works.returncode != 0:
        unavailable(f"no mount namespace here: {works.stderr.decode().strip()}")
    kept = {k: v for k, v in os.environ.items() if "VISIBLE_DEVICES" not in k}
    environ = kept | {"PYTHONPATH": str(tmp_path / "lib"), "CUDA_VISIBLE_DEVICES": "GPU-b,GPU-aaaa"}
    for asked in (["--per", "gpu"], ["--numa-bind", "-n", "2", "--mem", "none"]):
        done = subprocess.run(
            [*enter, "sh", "-c", script, "sh", ompbind, "run", *asked, "--gpu-env",
             "--output", "inherit", "--binder", "native", "--", sys.executable, "-c", WORKER],
            env=environ, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        reports = sorted(json.loads(line) for line in done.stdout.splitlines())
        assert [t[:2] for t in reports] == [["0", "GPU-b"], ["1", "GPU-aaaa"]]
        assert not set(reports[0][2]) & set(reports[1][2])
        assert sorted(reports[0][2] + reports[1][2]) == allowed


def test_a_launch_without_gpus_looks_at_none(ompbind: str, tmp_path: Path) -> None:
    """Nothing about devices is imported, and no PCI device is read, unless it is asked for."""
    code = "import sys; from ompbind.cli import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-S", "-X", "importtime", "-c", code, "run"]
    about = {"ompbind.planner.by_device", "ompbind.devices.visible", "ompbind.devices.nvml",
             "ompbind.devices.files",
             "ompbind.machine.devices", "pynvml",
             "ompbind.devices.variables"}  # fmt: skip

    def imported(*args: str) -> set[str]:
        done = subprocess.run(
            [*command, *args, "--binder", "native", "--mem", "none", "--", "true"],
            cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        lines = [ln for ln in done.stderr.splitlines() if ln.startswith("import time:")]
        return {ln.rpartition("|")[2].strip() for ln in lines} & about

    assert imported() == set()
    assert imported("-n", "2") == set()
    if not any(Path("/sys/bus/pci/drivers").glob("*/0000:*/drm")):
        assert imported("--numa-bind") == {"ompbind.machine.devices"}
    assert "ompbind.devices.visible" in imported("--per", "gpu")


def test_near_a_card_of_this_machine(ompbind: str) -> None:
    """A real worker next to a real card is on the card's cpus, as the kernel's files tell them."""
    topology = json.loads(run(ompbind, "topo", "--format", "json").stdout)
    cards = [d for d in topology["devices"] if d["names"] and d["kind"] == "nic"]
    if not cards:
        unavailable("this machine has no network card on a PCI bus")
    if cards[0]["node"] is None and len(topology["nodes"]) > 1:
        pytest.skip("the card of this machine is of unknown place")
    name = cards[0]["names"][0]
    local = Path(f"/sys/bus/pci/devices/{cards[0]['pci']}/local_cpulist").read_text()
    code = "import os; print(*os.sched_getaffinity(0))"
    done = run(ompbind, "run", "--near", name, "--smt", "all", "--", sys.executable, "-c", code)
    wanted = CpuSet.parse_kernel(local) & CpuSet(os.sched_getaffinity(0))
    assert CpuSet(map(int, done.stdout.split())) == wanted


HOSTILE = st.text("0123456789abcdefx:.,-_ GPU\n\t?", max_size=24)


@given(
    texts=st.fixed_dictionaries(
        {f"sys/bus/pci/devices/{pci}/{name}": HOSTILE
         for pci in ("0000:1b:00.0", "0000:c1:00.0", "x:y")
         for name in ("numa_node", "local_cpus", "device", "tile0/x", "tile1/x")}
        | {"proc/driver/nvidia/gpus/0000:1b:00.0/information": HOSTILE.map(
            lambda t: f"GPU UUID: {t}\nDevice Minor: {t}\n{t}")}
        | {f"sys/class/kfd/kfd/topology/nodes/{n}/properties": HOSTILE.map(
            lambda t: f"simd_count 1\nlocation_id {t}\ndomain {t}\nunique_id {t}\n")
            for n in (1, 2)}
    ),
    kind=st.sampled_from(["030200", "038000", "120000", "020000"]),
    vendor=st.sampled_from([NVIDIA, AMD, INTEL, "1a03"]),
)  # fmt: skip
def test_damaged_files(texts: dict[str, str], kind: str, vendor: str) -> None:
    """Whatever stands in devices' files, they only advise: a plan, or one line that refuses."""
    for pci in ("0000:1b:00.0", "0000:c1:00.0", "x:y"):
        texts[f"sys/bus/pci/devices/{pci}/class"] = f"0x{kind}\n"
        texts[f"sys/bus/pci/devices/{pci}/vendor"] = f"0x{vendor}\n"
    machine = make_machine(Shape(nodes=2, cores=4), texts)
    for args in ("--per gpu --gpu-env", "--numa-bind -n 3", "--near gpu0", "--near 1b:00.0"):
        try:
            assert plan_for(machine, args).ranks
        except PlanError as e:
            assert e.message.isprintable()
