"""hwloc's XML: published topologies against their answers, exports of the real trees, bad input."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ompbind.cpuset import CpuSet
from ompbind.devices.nics import find_cards
from ompbind.errors import TopologyError
from ompbind.machine import read_machine
from ompbind.machine.hwloc import parse_bitmap, parse_xml
from ompbind.planner import make_plan
from ompbind.render.inventory import describe_caches
from tests.support.machines import make_asked
from tests.support.shared_trees import (
    machine_names,
    need_topologies,
    read_tree,
    topologies,
    unpacked,
)

PUBLISHED = sorted(p.stem for p in topologies().glob("mpibind/*.xml"))

# A version 2 export in miniature: two packages, one core with two threads, a node of memory alone.
SMALL = """<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE topology SYSTEM "hwloc2.dtd">
<topology version="2.0">
 <object type="Machine" cpuset="0x0000000f" complete_cpuset="0x0000001f" allowed_cpuset="0x00000007"
         nodeset="0x00000007" allowed_nodeset="0x00000003">
  <info name="HostName" value="small"/>
  <object type="Package" os_index="0" cpuset="0x00000003">
   <object type="NUMANode" os_index="0" cpuset="0x00000003" local_memory="1024"/>
   <object type="NUMANode" os_index="2" cpuset="0x00000003" local_memory="4096" subtype="HBM"/>
   <object type="L3Cache" cpuset="0x00000003">
    <object type="Core" os_index="7" cpuset="0x00000003">
     <object type="PU" os_index="0" cpuset="0x00000001"/>
     <object type="PU" os_index="1" cpuset="0x00000002"/>
    </object>
   </object>
   <object type="Bridge"><object type="PCIDev" pci_busid="0000:3b:00.0"
     pci_type="0302 [10de:1db1] [10de:1249] a1"/></object>
  </object>
  <object type="Package" os_index="1" cpuset="0x0000000c">
   <object type="NUMANode" os_index="1" cpuset="0x0000000c"/>
   <object type="L3Cache" cpuset="0x0000000c">
    <object type="Core" os_index="7" cpuset="0x00000004"><object type="PU" os_index="2"/></object>
    <object type="Core" os_index="8" cpuset="0x00000008"><object type="PU" os_index="3"/></object>
   </object>
  </object>
 </object>
 <distances2 type="NUMANode" nbobjs="3" kind="5" name="NUMALatency" indexing="os">
  <indexes length="6">2 0 1 </indexes><u64values length="27">10 17 28 17 10 21 28 21 10</u64values>
 </distances2>
 <cpukind cpuset="0x0000000c"/><cpukind cpuset="0x00000003"/>
</topology>"""


def test_small_export_is_read_whole() -> None:
    """Every kind of thing in a small export arrives, nodes reordered by number."""
    machine = parse_xml(SMALL.encode())
    topology = machine.topology
    assert machine.name == "small"
    assert [(c.cpu, c.core, c.package, c.l3, c.node, c.kind) for c in topology.cpus] == [
        (0, 0, 0, 0, 0, 1),
        (1, 0, 0, 0, 0, 1),
        (2, 1, 1, 1, 1, 0),
        (3, 2, 1, 1, 1, 0),
    ]
    nodes = [(n.node, str(n.cpus), n.memory_bytes, n.kind) for n in topology.nodes]
    assert nodes == [(0, "0-1", 1024, ""), (1, "2-3", 0, ""), (2, "", 4096, "hbm")]
    assert topology.distances == ((10, 21, 17), (21, 10, 28), (17, 28, 10))
    assert str(topology.possible) == "0-4"
    assert (str(machine.allowed.cpus), str(machine.allowed.nodes)) == ("0-2", "0-1")
    gpu = topology.devices[0]
    assert (gpu.kind, gpu.pci, gpu.node, str(gpu.cpus)) == ("gpu", "0000:3b:00.0", 0, "0-1")
    assert gpu.vendor == "10de"


@pytest.mark.parametrize("name", PUBLISHED or ["none"])
def test_published_topology_agrees_with_its_answer(name: str) -> None:
    """Supercomputers' exports, of versions 1 and 2, agree with what was told of them in short."""
    need_topologies()
    answer = json.loads((topologies() / f"mpibind/{name}.topology.json").read_text())
    machine = read_machine(str(topologies() / f"mpibind/{name}.xml"))
    topology = machine.topology
    assert str(topology.online) == answer["online_cpus"]
    assert machine.allowed.cpus == CpuSet.parse_kernel(answer["allowed_cpus"]) & topology.online
    for level in ("core", "package", "l3", "l2"):
        told = {c["cpu"]: c[level] for c in answer["cpus"] if level in c}
        ours = {c.cpu: getattr(c, level) for c in topology.cpus if c.cpu in told}
        assert partition(ours) == partition(told), level
    for node in answer["nodes"]:
        found = topology.find_node(node["node"])
        assert found is not None
        assert found.memory_bytes == node["memory_bytes"]
        assert found.cpus <= CpuSet.parse_kernel(node["local_cpus"])
    for cpu in topology.cpus:
        told_nodes = next(c["nodes"] for c in answer["cpus"] if c["cpu"] == cpu.cpu)
        assert cpu.node == min(told_nodes)
    wanted = {p["busid"] for p in answer["pci"] if p["class"][:4] in ("0x03", "0x02", "0x12")}
    assert wanted <= {d.pci for d in topology.devices}


@pytest.mark.parametrize("name", machine_names() or ["none"])
def test_hwloc_s_own_export_of_a_tree_plans_the_same(name: str) -> None:
    """lstopo reads a real tree and writes XML; that XML gives the same cores, packages and nodes
    as our own reading of the tree."""
    need_topologies()
    lstopo = shutil.which("lstopo-no-graphics")
    if lstopo is None:
        if os.environ.get("CI"):
            pytest.fail("lstopo-no-graphics is not installed")
        pytest.skip("lstopo-no-graphics (package hwloc-nox) is not installed")
    tree = unpacked(name)
    if not (tree / "sys/devices/system/cpu").is_dir():
        pytest.skip("the tree holds cgroup files only")
    done = subprocess.run(
        [lstopo, "--input", tree, "--input-format", "fsroot", "--of", "xml", "--disallowed", "-"],
        capture_output=True,
        timeout=60,
        check=False,
        env={**os.environ, "HWLOC_HIDE_ERRORS": "2", "HWLOC_KEEP_NVIDIA_GPU_NUMA_NODES": "1"},
    )
    if done.returncode != 0:
        pytest.skip(f"lstopo cannot read this tree: {done.stderr.decode()[:200]}")
    exported, ours = parse_xml(done.stdout).topology, read_tree(name).topology
    assert exported.online == ours.online
    # hwloc leaves out levels that tell nothing new, and merges what lies wrong: what it does say of
    # cores must be what we say, and each of its packages and nodes must be one of ours.
    cores = {c.cpu: c.core for c in exported.cpus if c.core is not None}
    if len(cores) == len(exported.cpus) and len(ours.groups("core")) == len(set(cores.values())):
        assert partition(cores) == partition({c.cpu: c.core for c in ours.cpus})
    if len(exported.groups("package")) == len(ours.groups("package")):
        assert exported.groups("package") == ours.groups("package")
    if exported.groups("kind"):
        assert exported.groups("kind") == ours.groups("kind")
        assert all(c.capacity for c in exported.cpus)


def described(kinds: str) -> str:
    """The small export with other kinds of core."""
    head, _, _ = SMALL.partition(" <cpukind")
    return f"{head}{kinds}</topology>"


def kind(cpus: int, **said: object) -> str:
    infos = "".join(f'<info name="{name}" value="{value}"/>' for name, value in said.items())
    return f'<cpukind cpuset="{cpus:#x}">{infos}</cpukind>'


@pytest.mark.parametrize(
    ("kinds", "expected"),
    [
        # cpus 0-1 are core 0; as on a GB10, where hwloc has five kinds and Linux's scheduler two
        (
            kind(3, FrequencyMaxMHz=2808, LinuxCapacity=718)
            + kind(4, FrequencyMaxMHz=3900, LinuxCapacity=997)
            + kind(8, FrequencyMaxMHz=3900, LinuxCapacity=1024),
            [(0, 737), (0, 737), (1, 1024), (1, 1024)],
        ),
        # no capacities: by frequency
        (
            kind(12, FrequencyMaxMHz=3900, FrequencyBaseMHz=1400)
            + kind(3, FrequencyMaxMHz=5000, FrequencyBaseMHz=1900),
            [(1, 1024), (1, 1024), (0, 798), (0, 798)],
        ),
        # one core boosts a little higher: one kind
        (kind(7, FrequencyMaxMHz=3500) + kind(8, FrequencyMaxMHz=3600), [(None, None)] * 4),
        # the type of core comes before the frequency
        (
            kind(3, FrequencyMaxMHz=5000, CoreType="IntelAtom")
            + kind(12, FrequencyMaxMHz=4900, CoreType="IntelCore"),
            [(0, None), (0, None), (1, None), (1, None)],
        ),
        # a number that one kind lacks compares nothing
        (
            kind(3, LinuxCapacity=500, FrequencyMaxMHz=2000) + kind(12, FrequencyMaxMHz=4000),
            [(0, 512), (0, 512), (1, 1024), (1, 1024)],
        ),
        # nothing is said of them: as hwloc has put them in order
        (kind(12) + kind(3), [(1, None), (1, None), (0, None), (0, None)]),
        # not of all cpus
        (kind(1, LinuxCapacity=5) + kind(2, LinuxCapacity=9), [(None, None)] * 4),
        (kind(15, LinuxCapacity=5), [(None, None)] * 4),
    ],
)
def test_kinds_of_core(kinds: str, expected: list[tuple[int | None, int | None]]) -> None:
    """They are put together and weighed as those of a machine's own files are."""
    cpus = parse_xml(described(kinds).encode()).topology.cpus
    assert [(c.kind, c.capacity) for c in cpus] == expected


CARDS = """\
<object type="Bridge"><object type="PCIDev" pci_busid="0000:18:00.0" pci_type="0207 [15b3:1021]">
 <object type="OSDev" name="ib0" osdev_type="2"><info name="Port1State" value="1"/></object>
 <object type="OSDev" name="mlx5_0" osdev_type="3">
  <info name="NodeGUID" value="0"/><info name="Port1State" value="1"/>
  <info name="Port2State" value="4"/><info name="PortXState" value="4"/></object></object>
<object type="PCIDev" pci_busid="0000:19:00.0" pci_type="0207 [15b3:1021]">
 <object type="OSDev" name="mlx5_1" osdev_type="3"/></object>
<object type="PCIDev" pci_busid="0000:1a:00.0" pci_type="0880 [1d0f:7364]"/></object>
"""


def test_ports_of_cards_and_what_is_of_no_class() -> None:
    """Each port with its state, as the files of a machine have it; AWS's accelerators by model."""
    text = SMALL.replace('<object type="Bridge">', CARDS + '<object type="Bridge">', 1)
    first, second, neuron, _ = parse_xml(text.encode()).topology.devices
    assert [(p.name, p.kind, p.up) for p in first.ports] == [
        ("ib0", "net", None), ("mlx5_0:1", "rdma", False), ("mlx5_0:2", "rdma", True)
    ]  # fmt: skip
    assert [(p.name, p.up) for p in second.ports] == [("mlx5_1:1", None)]
    assert (neuron.kind, neuron.vendor, neuron.model) == ("accelerator", "1d0f", "7364")
    assert [card.name for card in find_cards([first, second]).cards] == ["mlx5_0:2", "mlx5_1:1"]


def test_a_cache_in_front_of_memory_is_no_cache_of_cpus() -> None:
    """Knights Landing's, which is as large as the machine, hwloc writes as an L3."""
    second = '<object type="L3Cache" cpuset="0x0000000c"'
    text = SMALL.replace(second, f'{second} subtype="MemorySideCache"')
    assert [c.l3 for c in parse_xml(SMALL.encode()).topology.cpus] == [0, 0, 1, 1]
    assert [c.l3 for c in parse_xml(text.encode()).topology.cpus] == [0, 0, None, None]


def test_memory_that_an_export_leaves_out_is_unknown() -> None:
    """A node without memory beside others that have some has none; where no node has any, its size
    is not known, and policies can be planned."""
    text = re.sub(' local_memory="[0-9]+"', "", SMALL)
    machine = parse_xml(text.encode())
    assert [n.memory_bytes for n in machine.topology.nodes] == [None, None, None]
    machine = machine.replace(allowed=machine.allowed.replace(nodes=CpuSet([0, 1])))
    plan = make_plan(machine, make_asked(["--per", "numa", "--numa-bind"]))
    assert [str(r.mems) for r in plan.ranks] == ["0", "1"]


@pytest.mark.parametrize(
    ("name", "model", "caches"),
    [
        ("eas-tioga", "AMD EPYC 7A53 64-Core Processor",
         "L3 32.0 MiB × 8, L2 512 KiB × 64, L1d 32 KiB × 64, L1i 32 KiB × 64"),
        ("knl-quad-flat-hwloc1", "Intel(R) Xeon Phi(TM) CPU 7250 @ 1.40GHz",
         "L2 1.0 MiB × 34, L1d 32 KiB × 68, L1i 32 KiB × 68"),
    ],
)  # fmt: skip
def test_models_and_caches_of_exports(name: str, model: str, caches: str) -> None:
    """Of version 2 and 1: what hwloc says of each package, and of every cache."""
    need_topologies()
    machine = parse_xml((topologies() / f"mpibind/{name}.xml").read_bytes())
    assert (machine.model, describe_caches(machine)) == (model, caches)


def test_models_of_arm_are_those_of_its_parts() -> None:
    """hwloc's own model is the kernel's name of the architecture there; each package once."""
    infos = """<info name="CPUModel" value="ARMv8 Processor rev 1"/>
      <info name="CPUImplementer" value="0x41"/><info name="CPUPart" value="0xd0c"/>"""
    xml = SMALL.replace('cpuset="0x00000003">\n', f'cpuset="0x00000003">{infos}\n', 1)
    xml = xml.replace('cpuset="0x0000000c">\n', f'cpuset="0x0000000c">{infos}\n', 1)
    assert parse_xml(xml.encode()).model == "Neoverse-N1"
    assert parse_xml(SMALL.encode()).model == ""


def test_an_unknown_encoding_is_not_believed() -> None:
    """A file that claims an encoding which does not exist is read as hwloc writes them (found by
    fuzzing: a LookupError)."""
    claimed = SMALL.replace("UTF-8", "UTV-8").encode()
    assert parse_xml(claimed).topology == parse_xml(SMALL.encode()).topology


def partition(groups: Mapping[int, int | None]) -> set[frozenset[int]]:
    """The groups as sets of cpus, cpus of no group left out."""
    sets: dict[int, set[int]] = {}
    for cpu, number in groups.items():
        if number is not None:
            sets.setdefault(number, set()).add(cpu)
    return {frozenset(s) for s in sets.values()}


@pytest.mark.parametrize(
    ("text", "cpus"),
    [
        ("0x0000ffff", "0-15"),
        ("0x00000001,0x00000000", "32"),
        ("0x1,,0x1", "0,64"),
        ("", ""),
        ("0x0", ""),
        ("0xf...f,0x00000003", "0-1"),
    ],
)
def test_bitmap(text: str, cpus: str) -> None:
    """hwloc's notation of sets, empty words and the infinite prefix included."""
    assert str(parse_bitmap(text)) == cpus


ENTITIES = '<!DOCTYPE t [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;">]><topology>&b;</topology>'


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (SMALL[:700], "not well-formed"),
        ("<svg/>", "not hwloc's"),
        ("<topology version='2.0'/>", "no cpu"),
        (ENTITIES, "entities"),
        ("<topology>" + "<object>" * 1000, "deeper"),
        ("<topology>" + "<a/>" * (1 << 20) + "</topology>", "larger"),
        (SMALL.replace('os_index="3"', 'os_index="99999999999999999999"'), "99999999999999999999"),
        (SMALL.replace('os_index="3"', 'os_index="-1"'), "-1"),
        (SMALL.replace("0x0000000c", "0xzz"), "not a mask"),
        (SMALL.replace("0x0000000c", "0x1," * 5000), "longer"),
    ],
)
def test_bad_xml_is_refused_in_one_line(text: str, problem: str) -> None:
    """Truncated, foreign, deep, large, self-expanding or absurd XML is refused with its reason."""
    with pytest.raises(TopologyError, match=problem) as caught:
        parse_xml(text.encode())
    assert "\n" not in caught.value.message


@given(st.integers(0, len(SMALL) - 1), st.binary(max_size=6))
def test_damaged_xml_never_does_worse_than_refuse(place: int, junk: bytes) -> None:
    """Any bytes written over any place either still make a machine, or are refused."""
    data = SMALL.encode()
    data = data[:place] + junk + data[place + len(junk) :]
    try:
        machine = parse_xml(data)
    except TopologyError as e:
        assert "\n" not in e.message
    else:
        assert machine.topology.online
