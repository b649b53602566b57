"""bindpcie, rrun and dask-cuda: a network card for each rank with a GPU, by their documentation.

Sources: NVIDIA's mlperf-common, client/bindpcie (`--cpu=node`: the cpus of the GPU's NUMA node;
`--ib=single`: one device near the rank's GPU in UCX_NET_DEVICES); RAPIDS' rrun and dask-cuda
(`--net-devices auto`): the device that shares the longest PCI path with the GPU.
"""

from __future__ import annotations

from pathlib import Path

from ompbind.devices import accelerators
from ompbind.devices.nics import find_cards
from ompbind.devices.visible import make_visible
from ompbind.machine import read_machine
from ompbind.machine.devices import PCI
from ompbind.planner import make_plan
from tests.support.machines import make_asked
from tests.support.trees import Pci, Shape, make_machine

PAGE = Path(__file__).parents[2] / "docs/how-to/coming-from.md"
OURS = "--per gpu --share --nic-env"


def test_wrappers_for_accelerators() -> None:
    """The row stands in the page; each rank has the cpus and memory of its device's node, and sees
    that device alone, which is what `numactl -N n -m n` around its process does."""
    ours = "--per accel --numa-bind --gpu-env"
    assert f"`ompbind run {ours} -- prog`" in PAGE.read_text()
    pcis = tuple(
        Pci(f"0000:{bus}:00.0", "120000", node, None, "19e5", "d802", driver="devdrv")
        for bus, node in (("81", 1), ("c1", 0))
    )
    machine = make_machine(
        Shape(packages=2, nodes=2, cores=8, devices=pcis),
        {f"{PCI}/0000:c1:00.0/dev_id": "0\n", f"{PCI}/0000:81:00.0/dev_id": "1\n"},
    )
    visible = accelerators.make_visible(machine.topology.devices, {})
    ranks = make_plan(machine, make_asked(ours.split()).replace(visible=visible)).ranks
    got = [(str(r.cpus), str(r.mems), dict(r.env)["ASCEND_RT_VISIBLE_DEVICES"]) for r in ranks]
    assert got == [("0-3", "0", "0"), ("4-7", "1", "1")]


def test_a_card_for_each_gpu() -> None:
    """The row stands in the page; each rank has its GPU's node and the card of its PCI switch."""
    rows = [line for line in PAGE.read_text().splitlines() if "`bindpcie --cpu=node --ib=s" in line]
    assert f"`ompbind run {OURS} -- prog`" in rows[0]
    machine = read_machine("examples/cards.topo")
    devices = machine.topology.devices
    visible = make_visible(devices, {})
    request = make_asked(OURS.split()).replace(visible=visible, cards=find_cards(devices))
    ranks = make_plan(machine, request).ranks
    for rank, gpu in zip(ranks, visible.gpus, strict=True):
        (card,) = (d for d in devices if d.kind == "nic" and d.bridges == gpu.device.bridges)
        assert dict(rank.env)["UCX_NET_DEVICES"] == card.ports[0].name
        assert rank.cpus <= gpu.device.cpus
        assert len(rank.cpus) == 8  # the node's cores
