"""The reader of /sys on made-up machines: every level, every way a tree can be awkward."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ompbind.cpuset import CpuSet
from ompbind.errors import TopologyError
from ompbind.machine import read_machine
from ompbind.machine.cpus import make_steps, read_topology
from ompbind.machine.devices import is_pci_address
from ompbind.machine.roots import DirectoryRoot
from ompbind.machine.topology import LEVELS, Topology
from tests.support.trees import (
    CPUS,
    NODES,
    Kind,
    MemoryRoot,
    Pci,
    Shape,
    make_files,
    make_topology,
    mask_text,
    shapes,
    write_tree,
)

if TYPE_CHECKING:
    from ompbind.machine.topology import Level


def read(shape: Shape) -> Topology:
    """The topology of a made-up machine, as it is read."""
    return read_with(shape, {})


def read_with(shape: Shape, changes: dict[str, str | None]) -> Topology:
    """The same with files changed; None takes one away."""
    files = {**make_files(shape), **changes}
    return read_topology(MemoryRoot({p: t for p, t in files.items() if t is not None}))


def groups(topology: Topology, level: Level) -> list[str]:
    return [str(cpus) for cpus in topology.groups(level)]


@settings(max_examples=150)
@given(shapes())
def test_any_machine(shape: Shape) -> None:
    """Whatever a machine is made of, what is read is what it is made of."""
    assert read(shape) == make_topology(shape)


@settings(max_examples=60)
@given(shapes(), st.sets(st.sampled_from(LEVELS)))
def test_levels(shape: Shape, levels: set[Level]) -> None:
    """Levels not asked for are None and cost no reading; those asked for are as ever."""
    root = MemoryRoot(make_files(shape))
    everything = read_topology(root)
    count, root.reads = len(root.reads), []
    some = read_topology(root, levels)
    assert len(root.reads) <= count
    for cpu, full in zip(some.cpus, everything.cpus, strict=True):
        assert cpu.cpu == full.cpu
        for level in LEVELS:
            assert getattr(cpu, level) == (getattr(full, level) if level in levels else None)


def test_only_what_is_asked_is_read() -> None:
    """Asking for cores reads nothing of caches, frequencies, packages and devices."""
    root = MemoryRoot(
        make_files(Shape(cores=8, threads=2, devices=(Pci("0000:01:00.0", "030200"),)))
    )
    read_topology(root, ["core"], devices=False)
    assert not [p for p in root.reads if "cache" in p or "cpufreq" in p or "package" in p]
    assert not [p for p in root.reads if "/pci" in p]


def test_one_read_for_each_group() -> None:
    """Who shares a thing is read once, whatever the number of cpus in it."""
    root = MemoryRoot(make_files(Shape(packages=2, cores=64, threads=4, l3s=2)))
    read_topology(root, ("package", "l3"), devices=False)
    masks = [p for p in root.reads if "package_cpus" in p or "shared_cpu_map" in p]
    assert len(masks) <= 5  # two packages, two caches, and finding out that there are packages


def test_directory(tmp_path: Path) -> None:
    """A tree on disk is read like one in memory; it may lie in `fsroot`."""
    shape = Shape(packages=2, nodes=2, l3s=4, cores=8, threads=2)
    write_tree(make_files(shape), tmp_path / "machine/fsroot")
    assert read_machine(str(tmp_path / "machine")).topology == make_topology(shape)
    assert read_machine(str(tmp_path / "machine/fsroot")).topology == make_topology(shape)


def test_nul_bytes(tmp_path: Path) -> None:
    """NUL bytes after the text, as copies of sysfs have them, are no part of it."""
    shape = Shape(cores=4, threads=2)
    padded = {path: text + "\0" * (4096 - len(text)) for path, text in make_files(shape).items()}
    write_tree(padded, tmp_path)
    assert read_topology(DirectoryRoot(str(tmp_path))) == make_topology(shape)


def test_live_machine() -> None:
    """The machine that runs the tests is read, and what it allows is online."""
    machine = read_machine()
    assert machine.topology.cpus
    assert machine.allowed.cpus
    assert machine.allowed.cpus <= machine.topology.online


# How machines number their cpus


def test_power_smt8_with_holes() -> None:
    """POWER with eight threads a core keeps its numbers when it runs with fewer: sparse cpus."""
    off = CpuSet(c for c in range(32) if c % 8 >= 2)
    topology = read(Shape(cores=4, threads=8, offline=str(off)))
    assert groups(topology, "core") == ["0-1", "8-9", "16-17", "24-25"]
    assert topology.offline == off


def test_power_smt4_uneven() -> None:
    """SMT4 with single threads and a whole core switched off: each core has what is left of it."""
    topology = read(Shape(cores=4, threads=4, offline="0,5-7,8-11"))
    assert groups(topology, "core") == ["1-3", "4", "12-15"]
    assert [c.core for c in topology.cpus] == [0, 0, 0, 1, 2, 2, 2, 2]


@pytest.mark.parametrize(
    ("numbering", "cores"),
    [
        ("pairs", ["0-1", "2-3", "4-5", "6-7"]),
        ("halves", ["0,4", "1,5", "2,6", "3,7"]),
        ("round-robin", ["0,4", "1,5", "2,6", "3,7"]),
    ],
)
def test_sibling_numbering(numbering: str, cores: list[str]) -> None:
    """Siblings may be neighbours or half the machine apart; packages blocks or in turns."""
    topology = read(Shape(packages=2, cores=4, threads=2, numbering=numbering))
    assert groups(topology, "core") == cores
    packages = {"pairs": "0-3", "halves": "0-1,4-5", "round-robin": "0,2,4,6"}
    assert groups(topology, "package")[0] == packages[numbering]


def test_sparse_numbers() -> None:
    """Cpu and node numbers have gaps; groups do not."""
    shape = Shape(nodes=3, cores=6, cpu_step=5, first_cpu=7, node_numbers=(1, 8, 250))
    topology = read(shape)
    assert [c.node for c in topology.cpus] == [1, 1, 8, 8, 250, 250]
    assert [c.core for c in topology.cpus] == [0, 1, 2, 3, 4, 5]
    assert [n.node for n in topology.nodes] == [1, 8, 250]


def test_cpu0_offline() -> None:
    """Cpu 0 can be offline; groups are numbered from the lowest that is online."""
    topology = read(Shape(packages=2, cores=4, offline="0-1"))
    assert [(c.cpu, c.core, c.package) for c in topology.cpus] == [(2, 0, 0), (3, 1, 0)]


def test_smt_switched_off() -> None:
    """SMT switched off at run time leaves single cpus, and their siblings offline."""
    topology = read(Shape(cores=4, threads=2, numbering="halves", offline="4-7"))
    assert groups(topology, "core") == ["0", "1", "2", "3"]
    assert str(topology.offline) == "4-7"


def test_never_plugged_in_is_not_offline() -> None:
    """Possible cpus that the machine has no directory for are not offline, they are not there."""
    topology = read(Shape(cores=4, spare=60, offline="3"))
    assert str(topology.possible) == "0-63"
    assert str(topology.offline) == "3"


def test_core_numbers_of_minus_one() -> None:
    """core_id and physical_package_id of -1 do not matter where there are masks."""
    topology = read(Shape(packages=2, cores=4, threads=2, core_numbers=False))
    assert groups(topology, "core") == ["0-1", "2-3", "4-5", "6-7"]
    assert groups(topology, "package") == ["0-3", "4-7"]


def test_core_numbers_repeat() -> None:
    """Core numbers start again in each package; two cores of one number stay two."""
    shape = Shape(packages=2, cores=4)
    again: dict[str, str | None] = {
        f"{CPUS}/cpu{c}/topology/core_id": f"{c % 2}\n" for c in range(4)
    }
    assert groups(read_with(shape, again), "core") == ["0", "1", "2", "3"]


def test_numbers_where_there_are_no_masks() -> None:
    """Without any mask, package and core numbers together say the cores."""
    files = make_files(Shape(packages=2, cores=4, threads=2))
    for c in range(8):
        files[f"{CPUS}/cpu{c}/topology/core_id"] = f"{c // 2 % 2}\n"
    left = {p: t for p, t in files.items() if "_cpus" not in p and "_siblings" not in p}
    topology = read_topology(MemoryRoot(left))
    assert groups(topology, "core") == ["0-1", "2-3", "4-5", "6-7"]
    assert groups(topology, "package") == ["0-3", "4-7"]
    left = {p: "-1\n" if p.endswith("core_id") else t for p, t in left.items()}
    assert read_topology(MemoryRoot(left)).groups("core") == []


def test_mask_before_list() -> None:
    """Where a mask and the list beside it contradict, the mask holds."""
    lists: dict[str, str | None] = {}
    for cpu in range(4):
        lists[f"{CPUS}/cpu{cpu}/cache/index3/shared_cpu_list"] = "0\n"
        lists[f"{CPUS}/cpu{cpu}/topology/core_cpus_list"] = "0-3\n"
    topology = read_with(Shape(cores=4), lists)
    assert groups(topology, "l3") == ["0-3"]
    assert groups(topology, "core") == ["0", "1", "2", "3"]


def test_list_without_mask() -> None:
    """A tree that has kept only the lists is read by them."""
    files = {
        p: t
        for p, t in make_files(Shape(packages=2, nodes=2, cores=4, threads=2)).items()
        if not p.endswith(("_cpus", "_siblings", "cpumap"))
    }
    topology = read_topology(MemoryRoot(files))
    assert groups(topology, "core") == ["0-1", "2-3", "4-5", "6-7"]
    assert groups(topology, "node") == ["0-3", "4-7"]


def test_masks_that_are_not_mutual() -> None:
    """A group is what its lowest cpu says; who is in one already cannot be in a second."""
    shape = Shape(cores=4)
    masks: dict[str, str | None] = {}
    for cpu, mask in enumerate(("3", "2", "6", "8")):  # 0 claims 1; 2 claims 1 as well
        masks[f"{CPUS}/cpu{cpu}/topology/core_cpus"] = mask
    assert groups(read_with(shape, masks), "core") == ["0-1", "2", "3"]


def test_mask_without_its_own_cpu() -> None:
    """A mask that leaves out the cpu it belongs to, or is empty, says nothing."""
    shape = Shape(cores=4, l3s=1)
    masks: dict[str, str | None] = {
        f"{CPUS}/cpu{c}/cache/index3/shared_cpu_map": m for c, m in enumerate(("0", "1", "c", "c"))
    }
    assert [c.l3 for c in read_with(shape, masks).cpus] == [None, None, 0, 0]


# Nodes


def test_memory_without_cpus() -> None:
    """CXL, HBM and GPU memory are nodes without cpus, with a size and distances."""
    topology = read(Shape(nodes=2, cores=4, node_numbers=(0, 8), memory_only=(9, 252, 255)))
    assert [(n.node, str(n.cpus)) for n in topology.nodes] == [
        (0, "0-1"), (8, "2-3"), (9, ""), (252, ""), (255, ""),
    ]  # fmt: skip
    assert all(n.memory_bytes for n in topology.nodes)
    assert len(topology.distances) == 5
    assert topology.nodes_of(CpuSet(range(4))) == CpuSet((0, 8))


def test_cpus_without_memory() -> None:
    """A node without memory has 0 bytes, which is not the same as not being said."""
    shape = Shape(nodes=2, cores=4, without_memory=(1,))
    assert [n.memory_bytes for n in read(shape).nodes] == [1 << 30, 0]
    unsaid = read_with(shape, {f"{NODES}/node1/meminfo": None})
    assert [n.memory_bytes for n in unsaid.nodes] == [1 << 30, None]


def test_cpus_on_no_node() -> None:
    """A cpu that is in no node's map, as when its node is offline, has none."""
    shape = Shape(nodes=2, cores=4)
    topology = read_with(shape, {f"{NODES}/online": "1\n"})
    assert [c.node for c in topology.cpus] == [None, None, 1, 1]
    assert [n.node for n in topology.nodes] == [1]


def test_node_map_with_offline_cpus() -> None:
    """Old kernels' node maps hold offline cpus; a node's cpus are the online ones."""
    shape = Shape(nodes=2, cores=4, offline="1")
    topology = read_with(shape, {f"{NODES}/node0/cpumap": "3\n"})
    assert str(topology.nodes[0].cpus) == "0"


def test_node_listed_but_gone() -> None:
    """A node that is listed as online but has no directory any more is left out."""
    files = make_files(Shape(nodes=2, cores=4))
    left = {p: t for p, t in files.items() if "node1/" not in p}
    topology = read_topology(MemoryRoot(left))
    assert [n.node for n in topology.nodes] == [0]
    assert topology.distances == ()  # a row for two, and one row


def test_overlapping_nodes() -> None:
    """Cpus listed in several nodes stay in each one's cpus, and count as the lowest one's."""
    shape = Shape(nodes=2, cores=4)
    topology = read_with(shape, {f"{NODES}/node1/cpumap": "f\n"})
    assert [str(n.cpus) for n in topology.nodes] == ["0-1", "0-3"]
    assert [c.node for c in topology.cpus] == [0, 0, 1, 1]


def test_sub_numa_clustering() -> None:
    """With SNC or NPS a package has several nodes, and its L3 may span them."""
    topology = read(Shape(packages=2, nodes=8, l3s=2, cores=16))
    assert [len(g) for g in topology.groups("node")] == [2] * 8
    assert groups(topology, "l3") == groups(topology, "package") == ["0-7", "8-15"]


def test_several_l3_in_a_node() -> None:
    """One node can have several L3s, as on EPYC with NPS1."""
    topology = read(Shape(packages=1, nodes=1, l3s=4, cores=16, threads=2, numbering="halves"))
    assert groups(topology, "node") == ["0-31"]
    assert groups(topology, "l3") == ["0-3,16-19", "4-7,20-23", "8-11,24-27", "12-15,28-31"]


def test_kernel_without_numa() -> None:
    """Without CONFIG_NUMA, node 0 stands for the machine, with all its memory."""
    topology = read(Shape(cores=4, node_dir="none"))
    assert not topology.numa
    assert [(n.node, str(n.cpus), n.memory_bytes) for n in topology.nodes] == [(0, "0-3", 8 << 30)]
    assert {c.node for c in topology.cpus} == {0}


def test_hidden_node_directory() -> None:
    """A container can hide the nodes of a kernel that has them: none are known, none made up."""
    topology = read(Shape(cores=4, node_dir="hidden"))
    assert topology.numa
    assert topology.nodes == ()
    assert {c.node for c in topology.cpus} == {None}


def test_numa_maps_is_not_read() -> None:
    """Whether there are NUMA maps is seen by name: reading them walks all of a process' memory."""
    root = MemoryRoot(make_files(Shape(node_dir="hidden")))
    read_topology(root)
    assert "proc/self/numa_maps" not in root.reads


@pytest.mark.parametrize("row", ["10\n", "10 x\n", "", "10 -1\n", "10 21 30\n", "10 ２1\n"])
def test_bad_distances(row: str) -> None:
    """Distances that are no square of numbers are not said: half of them could mislead."""
    assert read_with(Shape(nodes=2), {f"{NODES}/node1/distance": row}).distances == ()


# Caches, dies, clusters, books


def test_asymmetric_caches() -> None:
    """Cpus without a cache of a level have none, and those with it may have it at another index."""
    shape = Shape(cores=4)
    files = make_files(shape)
    files = {p: t for p, t in files.items() if "cpu0/cache/index2" not in p}
    for name in ("level", "type", "shared_cpu_map"):
        files[f"{CPUS}/cpu3/cache/index7/{name}"] = files.pop(f"{CPUS}/cpu3/cache/index2/{name}")
    assert [c.l2 for c in read_topology(MemoryRoot(files)).cpus] == [None, 0, 1, 2]


def test_split_l2() -> None:
    """Of an L2 that is split, as on Itanium, the instruction part is not the one meant."""
    shape = Shape(cores=2, l2s=1)
    files = make_files(shape)
    for c in range(2):
        files[f"{CPUS}/cpu{c}/cache/index1/level"] = "2\n"  # instruction cache, one for each core
    assert groups(read_topology(MemoryRoot(files)), "l2") == ["0-1"]


def test_no_caches() -> None:
    """Machines without cache directories have no cache groups."""
    topology = read(Shape(cores=4, l2s=None, l3s=None))
    assert {(c.l2, c.l3) for c in topology.cpus} == {(None, None)}


def test_books_and_drawers() -> None:
    """s390 has books and drawers above its packages."""
    topology = read(Shape(packages=8, books=4, drawers=2, cores=16))
    assert groups(topology, "drawer") == ["0-7", "8-15"]
    assert groups(topology, "book") == ["0-3", "4-7", "8-11", "12-15"]


@pytest.mark.parametrize(
    ("level", "number"), [("die", "-1"), ("cluster", "-1"), ("cluster", "65535")]
)
def test_unsaid_levels(level: Level, number: str) -> None:
    """A die or cluster number of -1 means that the machine does not say, whatever the mask."""
    shape = Shape(cores=4, dies=2, clusters=2)
    unsaid: dict[str, str | None] = {
        f"{CPUS}/cpu{c}/topology/{level}_id": f"{number}\n" for c in range(4)
    }
    assert read(shape).groups(level)
    assert read_with(shape, unsaid).groups(level) == []


# Kinds of core


def kinds(*kinds: Kind) -> list[int | None]:
    return [c.kind for c in read(Shape(kinds=kinds)).cpus]


def test_kinds_by_capacity() -> None:
    """Arm's big cores are told from little ones by the kernel's capacity, least capable first."""
    assert kinds(Kind(1, capacity=1024), Kind(2, capacity=446)) == [1, 0, 0]


def test_kinds_by_performance_counters() -> None:
    """Intel's P, E and low-power cores have performance counters of their own."""
    p, e, low = (Kind(1, pmu=f"cpu_{name}") for name in ("core", "atom", "lowpower"))
    assert kinds(p, e) == [1, 0]
    assert kinds(p, e, low) == [2, 1, 0]


def test_kinds_by_frequency() -> None:
    """Without either, base and highest frequency tell."""
    big, little = (
        Kind(2, 2, base=1_900_000, peak=5_000_000),
        Kind(2, peak=3_900_000, base=1_400_000),
    )
    assert kinds(big, little) == [1, 1, 1, 1, 0, 0]
    assert kinds(Kind(1, peak=2_000_000), Kind(1, peak=3_000_000)) == [0, 1]


def test_turbo_is_no_kind() -> None:
    """Some cores of a chip boost a little higher, or are rated a little more: still one kind."""
    assert (
        kinds(Kind(2, base=3_000_000, peak=5_000_000), Kind(2, base=3_000_000, peak=5_200_000))
        == [None] * 4
    )
    assert kinds(Kind(1, capacity=997), Kind(1, capacity=1024)) == [None] * 2
    assert kinds(Kind(1, capacity=718), Kind(1, capacity=731), Kind(1, capacity=1024)) == [0, 0, 1]


def test_kinds_need_every_cpu() -> None:
    """A frequency that only some cpus say compares nothing."""
    assert kinds(Kind(2, peak=3_000_000), Kind(2)) == [None] * 4


def test_kinds_of_what_is_online() -> None:
    """With all little cores offline there is one kind."""
    shape = Shape(kinds=(Kind(2, capacity=1024), Kind(2, capacity=446)), offline="2-3")
    assert [c.kind for c in read(shape).cpus] == [None] * 2


def test_steps_start_at_the_lowest() -> None:
    """A tenth is counted from the lowest of a step, so that a ramp does not melt into one."""
    assert make_steps({0: 100, 1: 109, 2: 118, 3: 127}) == {0: 100, 1: 100, 2: 118, 3: 118}


# Devices


def test_devices() -> None:
    """GPUs, network cards, accelerators and co-processors, each near its own node and cpus."""
    devices = (
        Pci("0000:3b:00.0", "030200", 0, "0-1"),
        Pci("10000:05:00.0", "020000", 1, "2-3", "15b3"),
        Pci("0000:80:00.0", "120000", -1),
        Pci("0000:81:00.0", "0b4000", 1, "2-3"),
        Pci("0000:09:00.0", "030000", -1, vendor="1a03"),
    )
    shape = Shape(nodes=2, cores=4, devices=devices)
    files = make_files(shape) | {
        "sys/bus/pci/devices/0000:00:1f.0/class": "0x060100\n",  # a bridge
        "sys/bus/pci/devices/0000:00:1e.0/class": "0x03\n",
        "sys/bus/pci/devices/0000:00:1d.0/vendor": "0x8086\n",
    }
    topology = read_topology(MemoryRoot(files))
    assert topology.devices == make_topology(shape).devices
    assert [(d.kind, d.node) for d in topology.devices] == [
        ("gpu", None), ("gpu", 0), ("accelerator", None), ("coprocessor", 1), ("nic", 1),
    ]  # fmt: skip
    assert topology.devices[0].vendor == "1a03"


@pytest.mark.parametrize("text", [None, "zz", "-"])
def test_device_without_local_cpus(text: str | None) -> None:
    """A device that does not say its cpus is near its node's, without a node near all."""
    shape = Shape(
        nodes=2, cores=4, devices=(Pci("0000:01:00.0", "030200", 1), Pci("0000:02:00.0", "030200"))
    )
    path = "sys/bus/pci/devices/0000:0{}:00.0/local_cpus"
    topology = read_with(shape, {path.format(1): text, path.format(2): text})
    assert [str(d.cpus) for d in topology.devices] == ["2-3", "0-3"]


def test_devices_by_class() -> None:
    """Where the bus is hidden, `sys/class` leads to the same devices, each once."""
    files = make_files(Shape(nodes=2, cores=4))
    for entry in ("net/eth0", "infiniband/mlx5_0"):
        files[f"sys/class/{entry}/device/class"] = "0x020700\n"
        files[f"sys/class/{entry}/device/numa_node"] = "1\n"
        files[f"sys/class/{entry}/device/local_cpus"] = "c\n"
    files["sys/class/net/lo/address"] = "00\n"
    links = {
        "sys/class/net/eth0/device": "sys/devices/pci0000:00/0000:3b:00.0",
        "sys/class/infiniband/mlx5_0/device": "sys/devices/pci0000:00/0000:3b:00.0",
        "sys/class/net/veth/device": "sys/devices/virtio1",
    }
    topology = read_topology(MemoryRoot(files, links))
    assert [(d.kind, d.pci, d.node, str(d.cpus)) for d in topology.devices] == [
        ("nic", "0000:3b:00.0", 1, "2-3")
    ]


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        ("0000:3b:00.0", True), ("10000:05:00.7", True), ("virtio1", False), ("0000:3b:00", False),
        ("0000.3b:00:0", False), ("0000:3B:00.0", False), (":3b:00.0", False), ("", False),
    ],
)  # fmt: skip
def test_pci_address(text: str, is_one: bool) -> None:
    """A PCI address is told from names of other buses."""
    assert is_pci_address(text) is is_one


# Isolation


def test_isolated_and_nohz_full() -> None:
    """What isolcpus= and nohz_full= keep free of other work is said, and stays online."""
    topology = read(Shape(cores=8, isolated="2-3", nohz_full="3"))
    assert (str(topology.isolated), str(topology.nohz_full)) == ("2-3", "3")
    assert str(topology.online) == "0-7"


def test_nohz_full_null() -> None:
    """Kernels that support nohz_full but were not asked for it write (null)."""
    assert read(Shape(nohz_full="")).nohz_full == CpuSet()


# Cpus and files that come and go


class FaultyRoot(MemoryRoot):
    """Calls `fault(self, path)` before each reading, which may change the files."""

    def __init__(self, files: dict[str, str], fault: Callable[[FaultyRoot, str], None]) -> None:
        super().__init__(files)
        self.fault = fault

    def read(self, path: str) -> str | None:
        self.fault(self, path)
        return super().read(path)

    def become(self, shape: Shape) -> None:
        files = MemoryRoot(make_files(shape))
        self.files, self._directories = files.files, files._directories


def test_cpu_unplugged_while_reading() -> None:
    """When a cpu goes offline in between, everything is read again as it is now."""
    before, after = Shape(cores=4, threads=2), Shape(cores=4, threads=2, offline="3")

    def unplug(root: FaultyRoot, path: str) -> None:
        if path.endswith("cpu2/topology/core_cpus"):
            root.become(after)

    assert read_topology(FaultyRoot(make_files(before), unplug)) == make_topology(after)


def test_cpu_plugged_in_while_reading() -> None:
    """When a cpu comes online in between, it is in what is read."""
    before, after = Shape(cores=4, threads=2, offline="3"), Shape(cores=4, threads=2)

    def plug(root: FaultyRoot, path: str) -> None:
        if path.endswith("cpu2/topology/core_cpus"):
            root.become(after)

    assert read_topology(FaultyRoot(make_files(before), plug)) == make_topology(after)


def test_cpus_that_never_settle() -> None:
    """A machine whose cpus come and go all the time is read with those that stay, in three goes."""
    shapes = [Shape(cores=4, offline="3"), Shape(cores=4, offline="2")]
    turns = []

    def toggle(root: FaultyRoot, path: str) -> None:
        if path == f"{CPUS}/online":
            turns.append(path)
            root.become(shapes[len(turns) % 2])

    topology = read_topology(FaultyRoot(make_files(shapes[0]), toggle))
    assert len(turns) == 4
    assert str(topology.online) == "0-1"


@pytest.mark.parametrize(
    "level", ["core", "package", "die", "cluster", "l2", "l3", "book", "drawer"]
)
def test_vanished_directory(level: Level) -> None:
    """A cpu whose files vanish while it counts as online has no groups; the others keep theirs."""
    shape = Shape(cores=4, dies=4, clusters=4, packages=4, l3s=4, books=4, drawers=4)
    files = {p: t for p, t in make_files(shape).items() if "cpu1/" not in p}
    numbers = [getattr(c, level) for c in read_topology(MemoryRoot(files)).cpus]
    assert numbers == [0, None, 1, 2]


def test_first_cpus_vanish() -> None:
    """That the lowest cpus' files are gone does not hide a level from the others."""
    files = {p: t for p, t in make_files(Shape(cores=4)).items() if "cpu0/t" not in p}
    assert groups(read_topology(MemoryRoot(files)), "core") == ["1", "2", "3"]


@settings(max_examples=150)
@given(shapes(most_cores=6), st.data())
def test_any_file_may_be_missing(shape: Shape, data: st.DataObject) -> None:
    """Whichever files are missing or unreadable, a topology of the online cpus comes out."""
    files = make_files(shape)
    gone = data.draw(st.sets(st.sampled_from(sorted(files)), max_size=20))
    left = {p: t for p, t in files.items() if p not in gone}
    try:
        topology = read_topology(MemoryRoot(left))
    except TopologyError:
        assert not any(p.startswith(CPUS) for p in left) or "online" in "".join(gone)
        return
    if f"{CPUS}/online" in left:
        assert topology.online == CpuSet.parse_kernel(left[f"{CPUS}/online"])


def test_unreadable_file(tmp_path: Path) -> None:
    """What cannot be opened as a file, here a directory in its place, counts as not said."""
    write_tree(make_files(Shape(cores=4, l3s=1)), tmp_path)
    for c in range(4):
        path = tmp_path / f"{CPUS}/cpu{c}/cache/index3/shared_cpu_map"
        path.unlink()
        path.mkdir()
        (path.parent / "shared_cpu_list").unlink()
    assert read_topology(DirectoryRoot(str(tmp_path))).groups("l3") == []


# Garbage


@pytest.mark.parametrize(
    "path",
    [
        f"{CPUS}/online",
        f"{CPUS}/cpu1/topology/core_cpus",
        f"{CPUS}/cpu0/topology/package_cpus",
        f"{NODES}/online",
        f"{NODES}/node1/cpumap",
    ],
)
@pytest.mark.parametrize("text", ["zz", "0-", "5-3", "-1", "0x3", "99999999999999999999,", "٣"])
def test_garbage_that_a_plan_stands_on(path: str, text: str) -> None:
    """Garbage about cpus, cores, packages or nodes is an error that names the file: guessing
    would put two ranks on one core, or on memory far away."""
    with pytest.raises(TopologyError, match=path):
        read_with(Shape(nodes=2, cores=4), {path: text})


@pytest.mark.parametrize(
    ("path", "level"),
    [
        (f"{CPUS}/cpu{{}}/topology/die_cpus", "die"),
        (f"{CPUS}/cpu{{}}/topology/cluster_cpus", "cluster"),
        (f"{CPUS}/cpu{{}}/topology/book_siblings", "book"),
        (f"{CPUS}/cpu{{}}/cache/index2/shared_cpu_map", "l2"),
        (f"{CPUS}/cpu{{}}/cache/index3/shared_cpu_map", "l3"),
        (f"{CPUS}/cpu{{}}/cache/index3/level", "l3"),
    ],
)
def test_garbage_that_is_left_out(path: str, level: Level) -> None:
    """Garbage about dies, clusters, books and caches is not said: plans do without them."""
    shape = Shape(cores=4, dies=2, clusters=2, books=2)
    changes: dict[str, str | None] = {path.format(c): "zz\n" for c in range(4)}
    assert read_with(shape, changes).groups(level) == []


@pytest.mark.parametrize("name", ["isolated", "nohz_full", "possible"])
def test_garbage_that_only_informs(name: str) -> None:
    """Garbage in what a plan only shows is left out, and possible is then what is known."""
    topology = read_with(Shape(cores=4), {f"{CPUS}/{name}": "zz"})
    assert topology.isolated | topology.nohz_full == CpuSet()
    assert str(topology.possible) == "0-3"


def test_garbage_in_memory_and_frequency() -> None:
    """Garbage in a node's size and in frequencies is not said, and never 0."""
    shape = Shape(kinds=(Kind(2, peak=3_000_000), Kind(2, peak=1_000_000)))
    changes = {
        f"{NODES}/node0/meminfo": "Node 0 MemTotal: ٣ kB\n",
        f"{CPUS}/cpu0/cpufreq/cpuinfo_max_freq": "<unsupported>\n",
    }
    topology = read_with(shape, dict(changes))
    assert topology.nodes[0].memory_bytes is None
    assert {c.kind for c in topology.cpus} == {None}


@settings(max_examples=300)
@given(shapes(most_cores=4), st.data())
def test_any_garbage_anywhere(shape: Shape, data: st.DataObject) -> None:
    """Whatever a file holds, the answer is a topology or a TopologyError, never another error."""
    files = make_files(shape)
    path = data.draw(st.sampled_from(sorted(files)))
    files[path] = data.draw(st.text(max_size=30) | st.sampled_from(["9" * 30, "0-99999999", "\0"]))
    with suppress(TopologyError):
        assert read_topology(MemoryRoot(files)).cpus


# Where /sys is poor


def test_online_by_directories() -> None:
    """Before Linux 2.6.30 each cpu's own file says whether it is online."""
    topology = read(Shape(cores=4, offline="2", old=True))
    assert (str(topology.online), str(topology.offline)) == ("0-1,3", "2")
    assert str(topology.possible) == "0-3"


def test_online_by_proc_stat() -> None:
    """Where /sys is hidden, /proc/stat says which cpus are online, and nothing what they share."""
    files = {p: t for p, t in make_files(Shape(cores=4)).items() if p.startswith("proc/")}
    topology = read_topology(MemoryRoot(files))
    assert str(topology.online) == "0-3"
    assert {(c.core, c.package, c.l3) for c in topology.cpus} == {(None, None, None)}


@pytest.mark.parametrize("files", [{}, {f"{CPUS}/online": ""}, {f"{CPUS}/online": "\n"}])
def test_no_cpus(files: dict[str, str]) -> None:
    """A machine that does not say a single cpu is an error, never one with cpu 0."""
    with pytest.raises(TopologyError, match="no online cpus") as caught:
        read_topology(MemoryRoot(files))
    assert caught.value.hint


def test_no_such_root(tmp_path: Path) -> None:
    """A path that is missing, or without a sys directory, is one line that names it and a hint."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "bare/sys").mkdir(parents=True)
    for name in ("nowhere", "empty", "bare"):
        with pytest.raises(TopologyError, match=name) as caught:
            read_machine(str(tmp_path / name))
        assert caught.value.hint
        assert "\n" not in caught.value.message


@pytest.mark.parametrize("code", [errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EACCES])
def test_our_own_lack_is_no_absence(code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without descriptors or memory nothing is read as absent: the plan would be another one. What
    is forbidden is absent, as in a container that hides it."""

    def refuse(*_: object, **__: object) -> int:
        raise OSError(code, os.strerror(code))

    root = DirectoryRoot("/")
    monkeypatch.setattr("os.open", refuse)
    monkeypatch.setattr("os.listdir", refuse)
    monkeypatch.setattr("os.readlink", refuse)
    for look in (root.read, root.names, root.resolve):
        if code == errno.EACCES:
            assert not look("sys/devices/system/cpu/online")
        else:
            with pytest.raises(OSError, match=os.strerror(code)):
                look("sys/devices/system/cpu/online")


# Size


def test_4096_cpus() -> None:
    """4,096 cpus are read right, with one read a core."""
    shape = Shape(packages=8, nodes=64, l3s=256, cores=2048, threads=2, numbering="halves")
    root = MemoryRoot(make_files(shape))
    assert read_topology(root, ["core"], devices=False).cpus
    assert sum("topology" in p for p in root.reads) <= 2048 + 8
    assert read_topology(root) == make_topology(shape)


# Masks


@given(st.sets(st.integers(0, 300)), st.integers(301, 320))
def test_mask_as_the_kernel_writes_it(cpus: set[int], bits: int) -> None:
    """Masks of any length are read."""
    text = mask_text(cpus, bits)
    assert CpuSet.parse_mask(text) == CpuSet(cpus)
