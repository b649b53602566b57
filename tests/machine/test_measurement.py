"""A measurement: saved and read again, refused for another machine, and what plans make of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import ompbind.measuring
from ompbind.cli.show import show
from ompbind.cli.topo import topo
from ompbind.cpuset import CpuSet
from ompbind.errors import OmpbindError, PlanError, TopologyError
from ompbind.machine import read_machine
from ompbind.machine.calibration import apply_measurement, make_shape, use_measurement
from ompbind.machine.measurement import (
    Access,
    CoreSpeed,
    Figure,
    Measurement,
    make_measurement,
    parse_measurement,
    to_dict,
)
from ompbind.machine.topology import Machine
from ompbind.planner import make_plan
from tests.support.machines import MACHINES, make_asked, make_machine
from tests.support.trees import Shape


def figure(value: float, spread: float = 0.01) -> Figure:
    return Figure(value, value * (1 - spread), value * (1 + spread))


def measurement_of(
    machine: Machine, speeds: list[float], latencies: dict[tuple[int, int], float] | None = None
) -> Measurement:
    """Figures of each core in order, and of pairs of nodes, with narrow intervals."""
    cores = machine.topology.groups("core")
    assert len(cores) == len(speeds)
    return Measurement(
        "",
        make_shape(machine.topology),
        tuple(CoreSpeed(core, figure(s)) for core, s in zip(cores, speeds, strict=True)),
        tuple(
            Access(*pair, figure(1e10), None, figure(seconds))
            for pair, seconds in (latencies or {}).items()
        ),
        ("noted",),
    )


DESKTOP = MACHINES["desktop"]  # 6 cores in 2 caches
PRIORITY = measurement_of(DESKTOP, [20, 20, 15, 15, 15, 15])
EQUAL = measurement_of(DESKTOP, [15, 15.1, 15, 15, 15, 15])


def test_json_both_ways() -> None:
    """Everything comes back, and a list of the fastest cores is beside it."""
    data = json.loads(json.dumps(to_dict(PRIORITY)))
    assert make_measurement(data) == PRIORITY
    assert data["fastest"] == ["0-1", "2-5"]
    assert data["cores"][0] == {"cpus": "0", "alone": {"value": 20, "low": 19.8, "high": 20.2},
                                "together": None}  # fmt: skip


FIGURE = {"value": 1, "low": None, "high": None}
NOTHING: tuple[object, ...] = ("", 0, [], False)


@pytest.mark.parametrize(
    "change",
    [
        {"cores": []},
        {"cores": None},
        {"cores": [{"cpus": "0"}]},
        {"cores": [{"cpus": "x", "alone": None, "together": None}]},
        {"cores": [{"cpus": "0", "alone": {"value": -1, "low": None, "high": None},
                    "together": None}]},
        {"cores": [{"cpus": "0", "alone": {"value": True, "low": None, "high": None},
                    "together": None}]},
        *({"cores": [{"cpus": "0", "alone": FIGURE, "together": nothing}]}
          for nothing in NOTHING),
        {"memory": [{"node": 0, "memory": 0, "bandwidth": FIGURE, "together": 0,
                     "latency": None}]},
        {"memory": [{"node": 0, "memory": 0, "bandwidth": FIGURE, "together": None,
                     "latency": ""}]},
        {"memory": [{"node": "0"}]},
        {"memory": [{"node": -1, "memory": 0, "bandwidth": {}, "together": None, "latency": None}]},
        {"notes": [3]},
        {"shape": None},
        {"model": 1},
    ],
)  # fmt: skip
def test_damaged_figures_are_refused(change: dict[str, object]) -> None:
    """In one line, whatever is wrong with them."""
    with pytest.raises(TopologyError, match="the measurement is damaged: ") as e:
        parse_measurement(json.dumps(to_dict(PRIORITY) | change))
    assert e.value.message.isprintable()
    with pytest.raises(TopologyError, match="the measurement is damaged: "):
        parse_measurement("{")


def test_another_machine_s_figures_are_refused() -> None:
    """By its processor's name, or by its cpus, caches and nodes."""
    other = PRIORITY.replace(model="Xeon")
    with pytest.raises(TopologyError, match="another machine: 'Xeon', and this is 'EPYC'"):
        use_measurement(DESKTOP.replace(model="EPYC", measured=other), None, "x.topo")
    for machine in (MACHINES["hybrid"], make_machine(Shape(cores=6, l3s=3))):
        with pytest.raises(TopologyError, match=r"^x.topo: measured on another machine, or on"):
            use_measurement(machine.replace(model="EPYC", measured=PRIORITY), None, "x.topo")
    same = DESKTOP.replace(model="Xeon", measured=other)
    assert use_measurement(same, None, "").measured == other


def test_the_fastest_cores() -> None:
    """--kind fastest takes them; it needs figures that tell them, or that tell they are alike."""
    machine = apply_measurement(DESKTOP, PRIORITY)
    plan = make_plan(machine, make_asked(["-n", "2", "--kind", "fastest"]))
    assert [str(r.cpus) for r in plan.ranks] == ["0", "1"]
    machine = apply_measurement(DESKTOP, EQUAL)
    plan = make_plan(machine, make_asked(["-n", "2", "--kind", "fastest"]))
    assert [str(r.cpus) for r in plan.ranks] == ["0-2", "3-5"]
    unsure = EQUAL.replace(cores=tuple(c.replace(alone=figure(15, 0.2)) for c in EQUAL.cores))
    for measured, text in ((unsure, "could not tell which"), (None, "were not measured")):
        with pytest.raises(PlanError, match=text) as e:
            make_plan(DESKTOP.replace(measured=measured), make_asked(["--kind", "fastest"]))
        assert "ompbind topo --measure" in e.value.hint


def test_the_fastest_of_what_is_allowed() -> None:
    """The next fastest, where the fastest may not be used."""
    machine = apply_measurement(DESKTOP, PRIORITY)
    machine = machine.replace(allowed=machine.allowed.replace(cpus=CpuSet([2, 3])))
    plan = make_plan(machine, make_asked(["--kind", "fastest"]))
    assert str(plan.ranks[0].cpus) == "2-3"


def test_measured_speeds_are_weights() -> None:
    """Ranks get the same number of each kind, also where the firmware says that all are alike."""
    machine = apply_measurement(DESKTOP, PRIORITY)
    assert [c.capacity for c in machine.topology.cpus] == [1024, 1024, 768, 768, 768, 768]
    plan = make_plan(machine, make_asked(["-n", "2"]))
    assert [len(r.cpus & CpuSet([0, 1])) for r in plan.ranks] == [1, 1]
    assert apply_measurement(DESKTOP, EQUAL).topology == DESKTOP.topology


def test_cores_that_were_not_measured_count_as_the_slowest() -> None:
    """They were not allowed then."""
    some = PRIORITY.replace(cores=PRIORITY.cores[:4])
    machine = apply_measurement(DESKTOP, some)
    assert [c.capacity for c in machine.topology.cpus] == [1024, 1024, 768, 768, 768, 768]


def test_near_is_what_was_measured() -> None:
    """The nearest node is the one with the least latency, also of a node without cpus; nodes that
    figures do not tell apart are equally near."""
    machine = make_machine(Shape(nodes=2, packages=2, cores=4, memory_only=(2,)))
    assert machine.topology.nearest(2, CpuSet([0, 1])) == 1
    latencies = {(0, 0): 1e-7, (0, 1): 2e-7, (0, 2): 3e-7,
                 (1, 0): 2e-7, (1, 1): 1e-7, (1, 2): 4e-7}  # fmt: skip
    topology = apply_measurement(machine, measurement_of(machine, [1] * 4, latencies)).topology
    assert topology.distances == ((10, 20, 30), (20, 10, 40), (30, 40, 10))
    assert topology.nodes[2].initiators == CpuSet([0])
    assert topology.nearest(2, CpuSet([0, 1])) == 0
    latencies |= {(0, 2): 3.01e-7, (1, 2): 3e-7}
    topology = apply_measurement(machine, measurement_of(machine, [1] * 4, latencies)).topology
    assert topology.distances[2] == (30, 30, 10)
    alike = dict.fromkeys(latencies, 1e-7)
    told = apply_measurement(machine, measurement_of(machine, [1] * 4, alike)).topology
    assert told.distances == machine.topology.distances


def test_topo_measures_saves_and_plans_use_it(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """`topo --measure` draws the figures, writes them as JSON and into a snapshot; plans read them
    from either, by --measured or with the machine, and say when they are another machine's."""
    here = read_machine(details=True)
    count = len(here.topology.groups("core", here.allowed.cpus))
    made = measurement_of(here, [20.0] + [15.0] * (len(here.topology.groups("core")) - 1))
    made = made.replace(model=here.model)
    monkeypatch.setattr(ompbind.measuring, "measure_machine", lambda *_: made)
    assert topo(["--measure"]) == 0
    drawn = capfd.readouterr().out
    assert "\nmeasured: cores, in million steps of a loop per second\n" in drawn
    assert "\nnote: noted\n" in drawn
    page = tmp_path / "machine.html"
    assert topo(["--measure", "--html", str(page)]) == 0
    assert "million steps of a loop" in page.read_text()
    with pytest.raises(OmpbindError, match="a picture has no figures"):
        topo(["--measure", "--svg", str(page)])
    capfd.readouterr()
    assert topo(["--measure", "--format", "json"]) == 0
    exported = tmp_path / "machine.json"
    exported.write_text(capfd.readouterr().out)
    saved = tmp_path / "machine.topo"
    assert topo(["--measure", "--save", str(saved)]) == 0
    again = tmp_path / "again.topo"
    assert topo(["--topology", str(saved), "--save", str(again)]) == 0
    for path in (exported, saved, again):
        assert read_machine(str(path)).measured == made
        if count > 1 and path is not again:
            for words in (["--topology", str(path)], ["--measured", str(path)]):
                capfd.readouterr()
                assert show(["--kind", "fastest", *words, "--format", "json"]) == 0
                (rank,) = json.loads(capfd.readouterr().out)["ranks"]
                assert CpuSet.parse_kernel(rank["cpus"]) <= made.cores[0].cpus
    plain = tmp_path / "plain.topo"
    assert topo(["--save", str(plain)]) == 0
    with pytest.raises(TopologyError, match="nothing was measured when this was saved"):
        show(["--measured", str(plain)])
    other = ["--topology", "package:2 core:64 pu:2", "--measured", str(saved)]
    with pytest.raises(TopologyError, match=f"--measured {saved}: measured on another machine"):
        show(other)
    with pytest.raises(OmpbindError, match="--measure measures this machine"):
        topo(["--measure", "--topology", str(saved)])
