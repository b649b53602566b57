"""Network cards: which of a machine's ranks may use, and what they are called in variables."""

from __future__ import annotations

import json

import pytest

from ompbind.cli import main
from ompbind.cpuset import CpuSet
from ompbind.devices.nics import VARIABLES, find_cards
from ompbind.machine.ports import parse_gigabits
from ompbind.machine.topology import Device, Port
from ompbind.render.inventory import device_remark

MELLANOX, INTEL, AMAZON, CRAY = "15b3", "8086", "1d0f", "17db"
CARDS = "examples/cards.topo"


def nic(bus: str, *ports: Port, vendor: str = MELLANOX, driver: str = "mlx5_core",
        virtual: bool = False) -> Device:  # fmt: skip
    pci = f"0000:{bus}:00.0"
    return Device("nic", pci, 0, CpuSet([0]), vendor, driver=driver, virtual=virtual, ports=ports)


def rdma(name: str, up: bool | None = True, rate: int = 100_000) -> Port:
    return Port(f"{name}:1", "rdma", up, rate)


def net(name: str, up: bool | None = True, rate: int = 0) -> Port:
    return Port(name, "net", up, rate)


def names(*devices: Device) -> list[str]:
    return [card.name for card in find_cards(devices).cards]


def variables(*devices: Device) -> dict[str, str]:
    return dict(find_cards(devices).cards[0].variables)


def test_rdma_goes_before_ethernet() -> None:
    """A card for RDMA is used, not the management network; its own interface is not another."""
    assert names(nic("01", net("eth0")), nic("18", rdma("mlx5_0"), net("ib0"))) == ["mlx5_0:1"]
    assert names(nic("01", net("eth0"), driver="igb"), nic("02", net("eth1"))) == ["eth0", "eth1"]


def test_only_cards_with_a_link() -> None:
    """A port that is down is passed over, one of unknown state is not; what is left out is said."""
    down = nic("18", rdma("mlx5_0", up=False))
    assert names(down, nic("19", rdma("mlx5_1"))) == ["mlx5_1:1"]
    assert names(down, nic("1a", rdma("mlx5_2", up=None))) == ["mlx5_2:1"]
    assert names(down, nic("01", net("eth0"))) == ["eth0"]
    cards = find_cards([down, nic("1b", driver=""), nic("1c", driver="vfio-pci")])
    assert cards.problem == (
        "no network card to use was found: 0000:18:00.0 has no link, 0000:1b:00.0 has no driver, "
        "0000:1c:00.0 has no interface here"
    )


def test_only_the_fastest() -> None:
    """Slower cards, as those for storage often are, are left out and named."""
    cards = find_cards([nic("18", rdma("mlx5_0", rate=400_000)), nic("19", rdma("mlx5_1"))])
    assert [card.name for card in cards.cards] == ["mlx5_0:1"]
    assert cards.left_out == ("mlx5_1:1 (100,000 Mbit/s; others have 400,000)",)


def test_virtual_functions_only_where_nothing_else_is() -> None:
    """The functions for guests are not used on their host, but in a container that has but one."""
    virtual = nic("18", net("eth9"), virtual=True)
    assert names(nic("17", net("eth0")), virtual) == ["eth0"]
    assert names(nic("17"), virtual) == ["eth9"]


def test_a_bond_is_one_card() -> None:
    """Interfaces of one bond have its name, once; two ports of one device are two."""
    assert names(nic("01", net("bond0")), nic("02", net("bond0"))) == ["bond0"]
    two = nic("18", Port("mlx4_0:1", "rdma", True), Port("mlx4_0:2", "rdma", True))
    assert names(two) == ["mlx4_0:1", "mlx4_0:2"]


def test_variables_of_each_kind() -> None:
    """Each kind of card is named in the variables of the libraries that reach it."""
    assert variables(nic("18", rdma("mlx5_0"), net("ib0"))) == {
        "UCX_NET_DEVICES": "mlx5_0:1",
        "NCCL_IB_HCA": "=mlx5_0:1",
        "FI_VERBS_DEVICE_NAME": "mlx5_0",
        "FI_VERBS_IFACE": "ib0",
    }
    assert variables(nic("01", net("eth0"), vendor=INTEL, driver="ice")) == {
        "UCX_NET_DEVICES": "eth0",
        "FI_TCP_IFACE": "eth0",
    }
    assert variables(nic("01", rdma("rdmap1"), vendor=AMAZON, driver="efa")) == {
        "UCX_NET_DEVICES": "rdmap1:1",
        "FI_EFA_IFACE": "rdmap1",
    }
    slingshot = nic("c1", Port("cxi0", "cxi"), net("hsn0"), vendor=CRAY, driver="cxi_ss1")
    assert variables(slingshot) == {"FI_CXI_DEVICE_NAME": "cxi0"}
    irdma = variables(nic("01", rdma("irdma0"), vendor=INTEL, driver="ice"))
    assert irdma["PSM3_NIC"] == "irdma0"
    assert "PSM3_NIC" not in variables(nic("01", rdma("hfi1_0"), vendor=INTEL, driver="hfi1"))


def test_a_prefix_that_fits_several_is_not_set() -> None:
    """libfabric takes a prefix: mlx5_1 would also be mlx5_10."""
    cards = find_cards([nic("18", rdma("mlx5_1")), nic("19", rdma("mlx5_10"))]).cards
    assert "FI_VERBS_DEVICE_NAME" not in dict(cards[0].variables)
    assert dict(cards[1].variables)["FI_VERBS_DEVICE_NAME"] == "mlx5_10"


def test_every_variable_is_known_of_saved_plans() -> None:
    """What may be set is in the list of those that a saved plan may have."""
    devices = [
        nic("18", rdma("mlx5_0"), net("ib0")), nic("19", rdma("e0"), driver="efa"),
        nic("1a", rdma("irdma0"), vendor=INTEL, driver="ice"), nic("1b", Port("cxi0", "cxi")),
    ]  # fmt: skip
    found = {*find_cards(devices).variables, *find_cards([nic("01", net("eth0"))]).variables}
    found |= set(find_cards(devices[:1]).variables)
    assert set(VARIABLES) == found | {"FI_CXI_DEVICE_NAME"} | {"FI_EFA_IFACE"}


@pytest.mark.parametrize(
    ("text", "rate"), [("2.5", 2500), ("400", 400_000), ("", 0), ("x", 0), ("1.x", 0)]
)
def test_rates(text: str, rate: int) -> None:
    """The kernel's rate is in Gbit/s, with a fraction for the oldest cards."""
    assert parse_gigabits(text) == rate


# --- from the command line -----------------------------------------------------------------------


def show(capfd: pytest.CaptureFixture[str], *args: str) -> dict:  # type: ignore[type-arg]
    assert main(["show", "--topology", CARDS, "--format", "json", *args, "--", "true"]) == 0
    text = capfd.readouterr().out
    plan: dict = json.loads(text)  # type: ignore[type-arg]
    return plan


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*VARIABLES, "CUDA_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)


def test_a_rank_for_each_card(capfd: pytest.CaptureFixture[str]) -> None:
    """--per nic puts a rank near each card, by default without any variable."""
    plan = show(capfd, "--per", "nic", "--numa-bind")
    assert [r["nics"] for r in plan["ranks"]] == [[f"mlx5_{n}:1"] for n in range(4)]
    assert [r["nodes"] for r in plan["ranks"]] == [r["mems"] for r in plan["ranks"]]
    assert [r["nodes"] for r in plan["ranks"]] == ["1", "1", "3", "3"]
    assert plan["ranks"][3]["why"] == "network card mlx5_3:1, node 3, part 2 of 2"
    assert not set(VARIABLES) & set(plan["ranks"][0]["env"])


def test_cards_of_gpus(capfd: pytest.CaptureFixture[str]) -> None:
    """A rank with a GPU gets the card below the same PCI switch, whichever GPU that is."""
    plan = show(capfd, "--per", "gpu", "--nic-env")
    assert [r["env"]["UCX_NET_DEVICES"] for r in plan["ranks"]] == [f"mlx5_{n}:1" for n in range(4)]
    assert plan["ranks"][0]["nics_why"] == "below the same PCI bridge as its GPU"


def test_a_variable_that_is_set_stays(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not overridden, which is reported, and the others are set."""
    monkeypatch.setenv("NCCL_IB_HCA", "mlx5_7")
    plan = show(capfd, "-n", "4", "--nic-env")
    assert all("NCCL_IB_HCA" not in r["env"] and r["env"]["UCX_NET_DEVICES"] for r in plan["ranks"])
    assert plan["inherited"] == [
        {"name": "NCCL_IB_HCA", "value": "mlx5_7", "action": "respected",
         "why": "set already: --nic-env leaves it alone"}
    ]  # fmt: skip


def test_a_saved_plan_keeps_its_cards(capfd: pytest.CaptureFixture[str]) -> None:
    """A plan read back has the same cards, which are no foreign variables."""
    from ompbind.plan_json import parse_plan
    from ompbind.saved import foreign_variables

    assert main(["show", "--topology", CARDS, "--format", "json", "-n", "4", "--nic-env"]) == 0
    text = capfd.readouterr().out
    plan = parse_plan(text)
    assert plan.to_dict()["ranks"] == json.loads(text)["ranks"]
    assert [r.nics for r in plan.ranks] == [
        ("mlx5_0:1",),
        ("mlx5_1:1",),
        ("mlx5_2:1",),
        ("mlx5_3:1",),
    ]
    assert foreign_variables(plan.ranks[0]) == {}


@pytest.mark.parametrize("option", [["--per", "nic"], ["--nic-env"]])
def test_without_a_card(option: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    """It is refused in one line, with what could help."""
    assert main(["show", "--topology", "examples/server.topo", *option, "--", "true"]) == 125
    error = capfd.readouterr().err
    assert f"error: {' '.join(option)}: no network card to use was found" in error
    assert "hint: ompbind topo shows the devices" in error


def test_machine_and_its_json_have_the_ports(capfd: pytest.CaptureFixture[str]) -> None:
    """topo's JSON has ports and bridges, and a machine read from it gives the same plan."""
    assert main(["topo", "--topology", CARDS, "--format", "json"]) == 0
    device = json.loads(capfd.readouterr().out)["devices"][2]
    assert device["bridges"] == ["pci0000:17", "0000:17:01.0"]
    assert device["ports"][0] == {"name": "mlx5_0:1", "kind": "rdma", "up": True, "rate": 400_000}


def test_a_card_without_a_link_is_marked() -> None:
    """topo says why a card is not used."""
    assert device_remark(nic("18", rdma("mlx5_0", up=False))) == "has no link"
    assert device_remark(nic("18", rdma("mlx5_0", up=False), net("ib0"))) == ""


def test_show_has_a_column(capfd: pytest.CaptureFixture[str]) -> None:
    """The table names each rank's card, and --explain says why."""
    args = ["show", "--topology", CARDS, "-n", "2", "--nic-env", "--explain", "--", "true"]
    assert main(args) == 0
    text = " ".join(capfd.readouterr().out.split())
    assert "memory nic why" in text
    assert "its network card: mlx5_0:1 (near its cpus, one of 2)" in text
