"""What kind of memory a node has, and its weight."""

from __future__ import annotations

import pytest

from ompbind.cpuset import CpuSet
from ompbind.machine import linux_root, read_machine
from ompbind.machine.memories import WEIGHTS, add_memory_facts, is_knights_landing
from ompbind.machine.topology import Allowed, Machine, Node, Topology
from ompbind.machine.topology_json import parse_json
from ompbind.render.inventory import make_node_rows
from tests.support.shared_trees import need_topologies, unpacked
from tests.support.trees import MemoryRoot

ACCESS = "sys/devices/system/node/node{}/access{}/initiators/read_{}"
TIER = "sys/devices/virtual/memory_tiering/memory_tier{}/nodelist"


def read_facts(files: dict[str, str], links: dict[str, str] | None = None) -> tuple[Node, ...]:
    """The nodes of a machine: 0 and 1 with cpus, 2 and 3 without, 4 without memory."""
    nodes = tuple(Node(n, CpuSet([n] if n < 2 else []), 0 if n == 4 else 1 << 30) for n in range(5))
    machine = Machine(Topology((), nodes), Allowed(CpuSet(), CpuSet(range(5))))
    return add_memory_facts(MemoryRoot(files, links), machine).topology.nodes


def kinds(files: dict[str, str], links: dict[str, str] | None = None) -> list[str]:
    return [node.kind for node in read_facts(files, links)]


def speeds(*bandwidths: int, latency: tuple[int, ...] = (), access: int = 1) -> dict[str, str]:
    files = {ACCESS.format(n, access, "bandwidth"): f"{b}\n" for n, b in enumerate(bandwidths)}
    return files | {ACCESS.format(n, access, "latency"): f"{ns}\n" for n, ns in enumerate(latency)}


@pytest.mark.parametrize(
    ("files", "wanted"),
    [
        ({}, "dram dram - - -"),
        (speeds(1000, 1000, 1499, 667), "dram dram dram dram -"),
        (speeds(1000, 1000, 1500, 666), "dram dram hbm cxl -"),
        (speeds(1000, 1000, 4000, 500, access=0), "dram dram hbm cxl -"),
        (speeds(1000, 4000, 4000, 1000), "dram hbm hbm dram -"),
        (speeds(1000, 1000, 900, 900, latency=(100, 100, 149, 150)), "dram dram dram cxl -"),
        (speeds(1000, 1000, 900, 900, latency=(0, 0, 10, 20)), "dram dram dram dram -"),
        (speeds(4000, 4000), "dram dram - - -"),
        ({TIER.format(4): "0-3\n"}, "dram dram - - -"),
        ({TIER.format(4): "0-1\n", TIER.format(2): "2\n", TIER.format(22): "3\n"},
         "dram dram hbm cxl -"),
        (speeds(1000, 1000, 900, 900) | {TIER.format(4): "0-2\n", TIER.format(5): "3\n"},
         "dram dram dram cxl -"),
        ({"proc/cpuinfo": "cpu family\t: 6\nmodel\t\t: 87\n"}, "dram dram hbm hbm -"),
        ({"proc/cpuinfo": "model name\t: Intel(R) Xeon Phi(TM) CPU 7210\n"},
         "dram dram hbm hbm -"),
    ],
)  # fmt: skip
def test_kinds(files: dict[str, str], wanted: str) -> None:
    """By the processor, the firmware's table, then the kernel's tiers; else nodes with cpus are
    DRAM, and of others nothing is known."""
    assert kinds(files) == ["" if word == "-" else word for word in wanted.split()]


def test_memory_of_cxl_and_of_persistent_modules() -> None:
    """The node of a device that was made from a region of either; not of other devices."""
    dax = "sys/bus/dax/devices"
    files = {f"{dax}/dax{n}.0/target_node": f"{n}\n" for n in (1, 2, 3)}
    links = {
        f"{dax}/dax1.0": "sys/devices/platform/hmem.0/dax1.0",
        f"{dax}/dax2.0": "sys/devices/platform/ACPI0017:00/root0/decoder0.0/region0/dax2.0",
        f"{dax}/dax3.0": "sys/devices/LNXSYSTM:00/ACPI0012:00/ndbus0/region1/dax3.0",
    }
    assert kinds(files, links) == ["dram", "dram", "cxl", "cxl", ""]


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        # Its author's words: package 0 has DRAM, HBM and NVM, package 1 as well, package 2 HBM.
        ("fakeheteromemtiers", "dram dram hbm hbm cxl cxl cxl"),
        ("64intel64-fakeKNL-SNC4-hybrid", "dram dram dram dram hbm hbm hbm hbm"),
        ("nvidiagpunumanodes", "dram dram" + " -" * 6),
    ],
)
def test_kinds_of_real_machines(name: str, wanted: str) -> None:
    """The same from their files, from their JSON, and nothing for a GPU's memory."""
    need_topologies()
    path = str(unpacked(name))
    root = linux_root(path)
    assert root is not None
    machine = add_memory_facts(root, read_machine(path))
    found = [node.kind or "-" for node in machine.topology.nodes]
    assert found == wanted.split()
    again = parse_json(machine.to_json().encode())
    assert [node.kind or "-" for node in again.topology.nodes] == found
    shown = [row.cells[1].rpartition(" ")[2] for row in make_node_rows(machine).rows]
    assert [word == "HBM" for word in shown] == [kind == "hbm" for kind in found]


def test_weights() -> None:
    """Those of the kernel, from 1 to 255; what is none is unknown."""
    texts = ("5\n", "1\n", "0\n", "garbage")
    files = {f"{WEIGHTS}/node{n}": text for n, text in enumerate(texts)}
    assert [node.weight for node in read_facts(files)] == [5, 1, None, None, None]


def test_other_processors_are_no_xeon_phi() -> None:
    """Of another family, or with another model."""
    assert not is_knights_landing("cpu family\t: 15\nmodel\t: 87\n")
    assert not is_knights_landing("cpu family\t: 6\nmodel\t: 85\nmodel name\t: Xeon\n")
    assert not is_knights_landing("")
