"""Accelerators beside GPUs: which count, in which order, and how a rank is given its own."""

from __future__ import annotations

import pytest

from ompbind.devices.accelerators import VARIABLES, make_visible
from ompbind.devices.files import hide_accelerators
from ompbind.errors import PlanError
from ompbind.machine.devices import NEURON, PCI
from ompbind.machine.topology import Machine
from ompbind.plan_json import parse_plan
from ompbind.planner import make_plan
from ompbind.plans import Plan
from ompbind.saved import foreign_variables
from tests.support.machines import make_asked
from tests.support.trees import Pci, Shape, make_machine

ASCEND, GAUDI, AMAZON = "19e5", "1da3", "1d0f"


def accel(bus: str, node: int = -1, vendor: str = ASCEND, model: str = "d802",
          pci_class: str = "120000", driver: str = "some_driver") -> Pci:  # fmt: skip
    return Pci(f"0000:{bus}:00.0", pci_class, node, None, vendor, model, driver=driver)


def machine_with(*devices: Pci, files: dict[str, str] | None = None) -> Machine:
    """Two nodes of four cores each."""
    return make_machine(Shape(packages=2, nodes=2, cores=8, devices=devices), files)


def numbers(name: str, **by_bus: int) -> dict[str, str]:
    return {f"{PCI}/0000:{bus[1:]}:00.0/{name}": f"{n}\n" for bus, n in by_bus.items()}


def plan_for(machine: Machine, args: str = "--per accel --gpu-env",
             environ: dict[str, str] | None = None) -> Plan:  # fmt: skip
    visible = make_visible(machine.topology.devices, environ or {})
    return make_plan(machine, make_asked(args.split()).replace(visible=visible))


def given(plan: Plan) -> list[str]:
    """Each rank's own device by variable, and its node."""
    names = set(VARIABLES)
    return [
        " ".join([*(f"{k}={v}" for k, v in r.env if k in names), f"node {r.nodes}"])
        for r in plan.ranks
    ]


def test_ascend_in_its_drivers_order() -> None:
    """The driver's numbers, not the addresses, say which device is which."""
    devices = (accel("01", 0), accel("81", 1), accel("c1", 0))
    machine = machine_with(*devices, files=numbers("dev_id", b01=1, b81=2, bc1=0))
    plan = plan_for(machine)
    variable = "ASCEND_RT_VISIBLE_DEVICES"
    assert given(plan) == [f"{variable}=0 node 0", f"{variable}=1 node 0", f"{variable}=2 node 1"]
    assert [r.why.partition(",")[0] for r in plan.ranks] == [
        "accelerator 0000:c1:00.0", "accelerator 0000:01:00.0", "accelerator 0000:81:00.0"
    ]  # fmt: skip
    assert [r.accels for r in plan.ranks] == [("0",), ("1",), ("2",)]
    assert [r.gpus for r in plan.ranks] == [()] * 3
    assert plan.warnings == ()


def test_what_the_environment_leaves() -> None:
    """Ranks go to the devices that the variable names, in its order."""
    machine = machine_with(accel("01", 0), accel("81", 1),
                           files=numbers("dev_id", b01=0, b81=1))  # fmt: skip
    plan = plan_for(machine, environ={"ASCEND_RT_VISIBLE_DEVICES": "1, 0"})
    assert [str(r.nodes) for r in plan.ranks] == ["1", "0"]
    for text, problem in (("2", "names '2'"), ("0,0", "names 0 twice"), ("x", "names 'x'")):
        with pytest.raises(PlanError) as caught:
            plan_for(machine, environ={"ASCEND_RT_VISIBLE_DEVICES": text})
        assert caught.value.message == (
            f"--per accel: ASCEND_RT_VISIBLE_DEVICES {problem}; devices there: 0-1"
        )
        assert "unset ASCEND_RT_VISIBLE_DEVICES" in caught.value.hint


def test_gaudi_by_module() -> None:
    """A rank is given its module; the list of the job's modules stays."""
    machine = machine_with(accel("19", 0, GAUDI, "1020"), accel("b3", 1, GAUDI, "1020"),
                           files=numbers("module_id", b19=5, bb3=2))  # fmt: skip
    plan = plan_for(machine, environ={"HABANA_VISIBLE_MODULES": "5,2"})
    assert given(plan) == ["HLS_MODULE_ID=5 node 0", "HLS_MODULE_ID=2 node 1"]
    assert given(plan_for(machine)) == ["HLS_MODULE_ID=2 node 1", "HLS_MODULE_ID=5 node 0"]
    assert not any("HABANA_VISIBLE_MODULES" in r.unset for r in plan.ranks)


def test_neuron_cores() -> None:
    """A device's cores, of another PCI class, as its runtime counts them; part of them, too."""
    devices = [accel(bus, 0, AMAZON, "7164", "088000") for bus in ("10", "20")]
    machine = machine_with(*devices, files={NEURON: "2\n"})
    assert [d.kind for d in machine.topology.devices] == ["accelerator"] * 2
    variable = "NEURON_RT_VISIBLE_CORES"
    assert [text.split()[0] for text in given(plan_for(machine))] == [
        f"{variable}=0-1", f"{variable}=2-3"
    ]  # fmt: skip
    some = plan_for(machine, environ={variable: "1-2"})
    assert [r.accels for r in some.ranks] == [("1",), ("2",)]
    with pytest.raises(PlanError, match="names 9; devices there: 0-3"):
        plan_for(machine, environ={variable: "0,9"})
    with pytest.raises(PlanError, match="is 'a-b'"):
        plan_for(machine, environ={variable: "a-b"})


def test_logical_neuron_cores() -> None:
    """Trainium2 joins two cores into one, unless the environment says otherwise."""
    machine = machine_with(*(accel(bus, 0, AMAZON, "7364", "088000") for bus in ("10", "20")))
    assert [r.accels for r in plan_for(machine).ranks] == [("0-3",), ("4-7",)]
    single = plan_for(machine, environ={"NEURON_LOGICAL_NC_CONFIG": "1"})
    assert [r.accels for r in single.ranks] == [("0-7",), ("8-15",)]


def test_an_unknown_order_is_said_where_it_matters() -> None:
    """A warning names the tool that knows it; none where all devices are near the same node."""
    far = plan_for(machine_with(accel("01", 0), accel("81", 1)))
    assert any("does not say how the driver counts its Ascend devices" in w for w in far.warnings)
    assert any("npu-smi info" in w for w in far.warnings)
    assert plan_for(machine_with(accel("01", 1), accel("81", 1))).warnings == ()


def test_any_of_class_12() -> None:
    """Others are placed as well, but there is no variable to give them by."""
    machine = machine_with(accel("01", 0, "1eff", "1220"), accel("81", 1, "1eff", "1220"))
    plan = plan_for(machine, "--per accel --numa-bind")
    assert [str(r.mems) for r in plan.ranks] == ["0", "1"]
    with pytest.raises(PlanError, match="no variable is known for accelerators of vendor 1eff"):
        plan_for(machine)


def test_those_of_one_vendor() -> None:
    """Ranks are mapped by a vendor that is known; the others are named."""
    machine = machine_with(accel("01", 0, "1eff"), accel("81", 1))
    plan = plan_for(machine)
    assert given(plan) == ["ASCEND_RT_VISIBLE_DEVICES=0 node 1"]
    assert any(w.endswith("left out: 0000:01:00.0") for w in plan.warnings)


@pytest.mark.parametrize(
    ("device", "problem"),
    [
        (accel("01", driver="vfio-pci"), "0000:01:00.0 is held by the driver vfio-pci"),
        (accel("01", driver=""), "0000:01:00.0 has no driver"),
    ],
)
def test_unusable(device: Pci, problem: str) -> None:
    """Why a device does not count is said."""
    other = Pci("0000:02:00.0", "020000", 0, names=("eth0",), driver="igb", vendor="8086")
    with pytest.raises(PlanError) as caught:
        plan_for(machine_with(device, other))
    assert caught.value.message == f"--per accel: no accelerator was found: {problem}"


def test_amds_are_gpus() -> None:
    """Instinct cards, of class 12 as well, are counted by --per gpu, which the hint says."""
    with pytest.raises(PlanError) as caught:
        plan_for(machine_with(accel("01", 0, "1002", "740f", driver="amdgpu")))
    assert caught.value.hint == "--per gpu counts AMD's Instinct"


def test_what_a_container_was_not_given() -> None:
    """A device whose file is missing is hidden."""
    machine = machine_with(accel("01", 0), accel("81", 1), files=numbers("dev_id", b01=0, b81=1))
    devices = hide_accelerators(machine.topology.devices, lambda path: path == "/dev/davinci1")
    assert [g.device.pci for g in make_visible(devices, {}).gpus] == ["0000:81:00.0"]


def test_json_both_ways() -> None:
    """A plan read back has the same accelerators, given by variables that are no foreign ones."""
    plan = plan_for(machine_with(accel("01", 0), accel("81", 0)))
    again = parse_plan(plan.to_json())
    assert [r.accels for r in again.ranks] == [("0",), ("1",)]
    assert foreign_variables(again.ranks[0]) == {}
