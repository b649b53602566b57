"""The JSON of `ompbind topo` as a description of a machine."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ompbind.cli import main
from ompbind.errors import TopologyError
from ompbind.machine import read_machine
from ompbind.machine.topology import Allowed, Machine
from ompbind.machine.topology_json import parse_json
from tests.support.shared_trees import machine_names, need_topologies, read_tree
from tests.support.trees import Shape, make_topology, shapes

# With devices, kinds of core, distances, offline cpus, books, nodes without cpus or memory.
KINDS = (
    "20em64t-hybrid-1p6c2t+2ca4co1t",
    "fakeheteromemtiers",
    "nvidiagpunumanodes",
    "s390-lpar",
    "fakememinitiators-1np2c+1npp+gi",
)
SMALL: dict[str, Any] = json.loads(read_machine("numa:2 core:2 pu:2").to_json())


@pytest.mark.parametrize("name", [n for n in machine_names() if n in KINDS] or ["none"])
def test_a_real_machine_travels_unchanged(name: str) -> None:
    """The JSON of a machine that was read from its JSON is the same, byte for byte."""
    need_topologies()
    text = read_tree(name).to_json()
    assert parse_json(text.encode()).to_json() == text


@settings(max_examples=25)
@given(shapes())
def test_any_machine_travels_unchanged(shape: Shape) -> None:
    """So does any other."""
    topology = make_topology(shape)
    machine = Machine(topology, Allowed(topology.online, topology.node_numbers, 1.5))
    assert parse_json(machine.to_json().encode()).to_json() == machine.to_json()


def test_plans_from_it(tmp_path: Any, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    """--topology takes the file, and the plan is that of the machine."""
    file = tmp_path / "machine.json"
    assert main(["topo", "--topology", "examples/server.topo", "--format", "json"]) == 0
    file.write_bytes(capfdbinary.readouterr().out)
    plans = []
    for path in (str(file), "examples/server.topo"):
        assert main(["show", "--topology", path, "-n", "3", "--format", "json", "--", "a"]) == 0
        plan = json.loads(capfdbinary.readouterr().out)
        plans.append([plan["ranks"], plan["host"]])
    assert plans[0] == plans[1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": 2}, "the JSON has a newer format"),
        ({"cpus": []}, "the machine's JSON is damaged: cpus must be there, each once, in "
         "ascending order"),
        ({"cpus": SMALL["cpus"] * 2}, "the machine's JSON is damaged: cpus must be there, each "
         "once, in ascending order"),
        ({"cpus": [{"cpu": -1}]}, "the machine's JSON is damaged: cpu '-1' is out of range"),
        ({"cpus": [{"cpu": 0, "core": "x"}]}, "the machine's JSON is damaged: core 'x' is out of "
         "range"),
        ({"cpus": 3}, "the machine's JSON is damaged: cpus is not a list of objects"),
        ({"cpus": [3]}, "the machine's JSON is damaged: cpus is not a list of objects"),
        ({"cpus": [{}]}, "the machine's JSON is damaged: 'cpu' is missing"),
        ({"nodes": SMALL["nodes"][:1] * 2}, "the machine's JSON is damaged: nodes must be there "
         "once each, in ascending order"),
        ({"nodes": [{"node": 0, "cpus": 3, "memory_bytes": None}]}, "the machine's JSON is "
         "damaged: cpus is not a list of numbers in a text"),
        ({"nodes": [{"node": 0, "cpus": "3-1", "memory_bytes": None}]}, "the machine's JSON is "
         "damaged: '3-1' is a descending range"),
        ({"distances": [[10]]}, "the machine's JSON is damaged: distances must be a number for "
         "each pair of nodes"),
        ({"distances": 3}, "the machine's JSON is damaged: TypeError 'int' object is not "
         "iterable"),
        ({"allowed": {"cpus": "0", "nodes": "0", "quota": -1}}, "the machine's JSON is damaged: "
         "quota '-1' is not a number of cpus"),
        ({"devices": [{"kind": 3, "pci": "", "vendor": "", "model": "", "names": [], "node": None,
          "driver": None, "cpus": "", "hidden": False}]}, "the machine's JSON is damaged: a device "
         "has a value that is no text"),
    ],
)  # fmt: skip
def test_damaged(change: dict[str, Any], message: str) -> None:
    """Damaged JSON is refused with what is wrong."""
    with pytest.raises(TopologyError, match=f"^{re.escape(message)}$"):
        parse_json(json.dumps(SMALL | change).encode())


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("{", "the machine's JSON is damaged: Expecting property name", "ompbind topo --format"),
        ("[" * 2_000_000, "the machine's JSON is damaged: more lists and objects", "ompbind topo"),
        ("[" * 900_000, "the machine's JSON is damaged: ", "ompbind topo --format json writes it"),
        ("[]", "this JSON is not a machine's", "ompbind topo --format json writes it"),
        ('{"schema": 1, "ranks": []}', "this JSON is not a machine's", "--plan takes a plan"),
    ],
)
def test_no_machine(text: str, message: str, hint: str) -> None:
    """Other JSON is refused; that of a plan with where it belongs."""
    with pytest.raises(TopologyError) as caught:
        parse_json(text.encode())
    assert caught.value.message.startswith(message)
    assert caught.value.hint.startswith(hint)


@given(st.data())
def test_any_damage(data: st.DataObject) -> None:
    """Whatever a value is replaced by, the result is a machine or a refusal of one line."""
    content = json.loads(json.dumps(SMALL))
    where = content
    while isinstance(where, dict | list) and where:
        keys = list(where) if isinstance(where, dict) else list(range(len(where)))
        key = data.draw(st.sampled_from(keys))
        if not isinstance(where[key], dict | list) or data.draw(st.booleans()):
            break
        where = where[key]
    values: st.SearchStrategy[Any] = (
        st.none() | st.booleans() | st.integers() | st.text(max_size=3) | st.just([]) | st.just({})
    )
    if isinstance(where, dict | list) and where:
        where[key] = data.draw(values)
    try:
        parse_json(json.dumps(content).encode()).to_json()
    except TopologyError as e:
        assert "\n" not in e.message
