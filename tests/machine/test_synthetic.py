"""hwloc's synthetic notation: the machine that hwloc itself makes of each line, or a refusal."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ompbind.errors import TopologyError
from ompbind.machine import read_machine
from ompbind.machine.hwloc import parse_xml
from ompbind.machine.synthetic import parse_synthetic
from ompbind.machine.topology import Machine

LINES = """
4
2 4
2 3 4
2 2 2 2
2 2 2 2 2
2 2 2 2 2 2 2 2
2 1 2 1 2 1 1 2 2 2
package:2 node:2 l3:4 core:8 pu:2
pack:2 [numa(memory=4GB)] core:2 pu:2
socket:2[numa] [numa(memory=1MiB)] core:2 1
[numa] pack:2 [numa] core:2 pu:1
[numa(indexes=0,2,1)] pack:2 [numa] core:1 pu:1
pack:2 [numa] die:2 [numa] core:1 [numa] pu:2
pack:2 numa:2(indexes=2,0,1,3) core:2 pu:1(indexes=pack:core)
numa:4(indexes=4,2,7,1) pu:2
Package:2 L2Cache:2 L1dCache:1 L1i:1 Core:1 PU:2
pack:2 l3:1(size=32MB) l2:2 l1:1 core:1 pu:2
pack:2 l3u:2 l2d:1 pu:2
pack:2 l3i:2 group:1 group3:2 pu:2
(memory=8GB) pack:2 pu:2
core:2 pack:2 die:1 pu:2
pack:2 core:4 pu:2(indexes=8*2:1*8)
pack:2 core:4 pu:2(indexes=2*8:1*2)
pack:2 numa:2 core:4 pu:2(indexes=numa:core)
pack:2 core:2 pu:2(indexes=0,4,1,5,2,6,3,80)
pu:1
""".strip().splitlines()

REFUSED = [
    ("pack:2 core:2", "'pack:2 core:2' does not end with the hardware threads of a core, as in "
     "pu:2"),
    ("pack:2 tile:2 pu:2", "'tile' is not a level: package, numa, die, l3, l2, core, pu, group"),
    ("pack:2 core:0 pu:2", "'core:0': a machine has from 1 to 65535 of these"),
    ("pack:1000 core:1000 pu:2", "'core:1000': a machine has from 1 to 65535 of these"),
    ("pu:99999999999999999999999", "'pu:99999999999999999999999': a machine has from 1 to 65535 "
     "of these"),
    ("pack:2 numa:2 [numa] pu:1", "'pack:2 numa:2 [numa] pu:1' has nodes as a level and in []"),
    ("numa:2 core:2 numa:1 pu:1", "'numa:2 core:2 numa:1 pu:1' has two levels of numa"),
    ("pack:2 [core] pu:1", "'[core]': only nodes can stand in []"),
    ("pack:2 2 pu:1", "'pack:2 2 pu:1' has levels with a name and without one"),
    ("pack:2 (memory=2) pu:1", "'(memory=2) pu:1' is not a level"),
    ("pack:2 l3:2(memory=1GB) pu:1 x", "'x' is not a level"),
    ("numa:2(memory=big) pu:1", "'big' is not a size, as in 16GB"),
    ("numa:2(speed=1) pu:1", "'speed=1' is not an attribute: indexes=, memory=, size="),
    ("numa:2(indexes=0,0) pu:1", "indexes='0,0' does not number 2 objects, each differently"),
    ("core:2 pu:2(indexes=0,4,1)", "indexes='0,4,1' does not number 4 objects, each differently"),
    ("core:2 pu:2(indexes=3*2)", "indexes='3*2' does not number 4 objects, each differently"),
    ("core:2 pu:2(indexes=0*2)", "indexes='0*2': '0*2' is not a loop, as in 2*4"),
    ("core:2 pu:2(indexes=pack)", "indexes='pack': name levels above this one, each once"),
    ("core:2 pu:2(indexes=core:pu)", "indexes='core:pu': name levels above this one, each once"),
    ("(memory=1GB", "'(memory=1GB': a ( without )"),
    ("pack:2,core:2", "'pack:2,core:2' is not a level"),
]  # fmt: skip


def without_sizes(machine: Machine) -> dict[str, Any]:
    """The machine's JSON without the sizes of nodes and caches: hwloc makes up 1 GiB, and sizes of
    all caches, where none is said."""
    content: dict[str, Any] = json.loads(machine.to_json())
    del content["caches"]
    for node in content["nodes"]:
        node["memory_bytes"] = None
    return content


def read_with_hwloc(line: str) -> Machine:
    """What hwloc makes of a line."""
    lstopo = shutil.which("lstopo-no-graphics")
    if lstopo is None:
        if os.environ.get("CI"):
            pytest.fail("lstopo-no-graphics is not installed")
        pytest.skip("lstopo-no-graphics (package hwloc-nox) is not installed")
    command = [lstopo, "--input", line, "--input-format", "synthetic", "--of", "xml", "-"]
    done = subprocess.run(command, capture_output=True, timeout=60, check=True)
    return parse_xml(done.stdout)


def make_lines(seed: int, count: int) -> Iterator[str]:
    """Lines of all kinds of levels, with nodes attached and numbers mixed up."""
    rng = random.Random(seed)
    for _ in range(count):
        words, width = [], 1
        kinds = [k for k in ("group", "package", "numa", "die", "l3", "l2", "l1", "core")
                 if rng.random() < 0.5]  # fmt: skip
        attached = "numa" not in kinds and rng.random() < 0.6
        for kind in kinds:
            arity = rng.choice((1, 1, 2, 2, 3))
            width *= arity
            numbers = ",".join(map(str, rng.sample(range(2 * width), width)))
            words.append(f"{kind}:{arity}" + f"(indexes={numbers})" * (kind == "numa"))
            words += ["[numa(memory=1GB)]"] * (attached and rng.random() < 0.4)
        threads = rng.choice((1, 2, 4))
        above = rng.sample(kinds, min(len(kinds), rng.randint(0, 3)))
        numbers = ":".join(above)
        if not above:
            numbers = ",".join(map(str, rng.sample(range(width * threads), width * threads)))
        yield " ".join([*words, f"pu:{threads}(indexes={numbers})"])


@pytest.mark.parametrize("line", [*LINES, *make_lines(1, 25)])
def test_as_hwloc_reads_it(line: str) -> None:
    """Each cpu has the core, caches, package and node, and each node the cpus, of hwloc's."""
    assert without_sizes(parse_synthetic(line)) == without_sizes(read_with_hwloc(line))


def test_sizes() -> None:
    """memory= is the size of each node, in decimal or binary units; without it none is known."""
    for text, size in (("4GB", 4 * 10**9), ("4GiB", 4 << 30), ("512kB", 512_000), ("77", 77)):
        line = f"pack:2 [numa(memory={text})] pu:2"
        sizes = [n.memory_bytes for n in parse_synthetic(line).topology.nodes]
        assert sizes == [size, size]
        if text == "4GiB":
            assert sizes == [n.memory_bytes for n in read_with_hwloc(line).topology.nodes]
    assert [n.memory_bytes for n in parse_synthetic("numa:2 pu:2").topology.nodes] == [None, None]


@pytest.mark.parametrize(("line", "message"), REFUSED, ids=[line for line, _ in REFUSED])
def test_refused(line: str, message: str) -> None:
    """What is no machine is refused with what is wrong and how to write one."""
    with pytest.raises(TopologyError) as caught:
        read_machine(line)
    assert caught.value.message == f"{line}: {message}"
    assert caught.value.hint == "hwloc's notation is as in 'package:2 numa:2 l3:4 core:8 pu:2'"


@pytest.mark.parametrize("name", ["no-such-file", "no/such:2", "./pack:2", "nothing.topo", ""])
def test_names_of_files(name: str) -> None:
    """What cannot be a line is the name of a file."""
    with pytest.raises(TopologyError, match="No such file"):
        read_machine(name)


@given(st.text("package:23 []()numaluidexs=,*cor", max_size=40))
def test_any_text(line: str) -> None:
    """Any text is a machine or refused in one line."""
    try:
        machine = parse_synthetic(line)
    except TopologyError as e:
        assert "\n" not in e.message
    else:
        assert json.loads(machine.to_json())["cpus"]
