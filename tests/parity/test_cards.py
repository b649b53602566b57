"""bindpcie, rrun and dask-cuda: a network card for each rank with a GPU, by their documentation.

Sources: NVIDIA's mlperf-common, client/bindpcie (`--cpu=node`: the cpus of the GPU's NUMA node;
`--ib=single`: one device near the rank's GPU in UCX_NET_DEVICES); RAPIDS' rrun and dask-cuda
(`--net-devices auto`): the device that shares the longest PCI path with the GPU.
"""

from __future__ import annotations

from pathlib import Path

from ompbind.gpus.visible import make_visible
from ompbind.machine import read_machine
from ompbind.nics import find_cards
from ompbind.planner import make_plan
from tests.support.machines import make_asked

PAGE = Path(__file__).parents[2] / "docs/how-to/coming-from.md"
OURS = "--per gpu --share --nic-env"


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
