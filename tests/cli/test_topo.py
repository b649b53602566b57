"""`ompbind topo`: the drawing that fits a screen, the contract's JSON, the command line."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest
from hypothesis import given

from ompbind.cli import main
from ompbind.cli.topo import topo
from ompbind.cpuset import CpuSet
from ompbind.errors import UsageError
from ompbind.machine import read_machine
from ompbind.machine.saving import save_machine
from ompbind.machine.topology import LEVELS, Allowed, Cache, Machine
from ompbind.machine.topology_json import parse_json
from ompbind.render import make_text
from ompbind.render.machine import TopologyMap, draw_machine
from ompbind.render.map import Fold
from tests.support.shared_trees import machine_names, need_topologies, read_tree, unpacked
from tests.support.trees import Kind, Shape, make_files, make_topology, shapes, write_tree


def machine_of(shape: Shape, allowed: str | None = None, mems: str | None = None) -> Machine:
    topology = make_topology(shape)
    cpus = topology.online if allowed is None else CpuSet.parse_kernel(allowed)
    nodes = topology.node_numbers if mems is None else CpuSet.parse_kernel(mems)
    return Machine(topology, Allowed(cpus, nodes), "made-up")


def drawn(machine: Machine, monkeypatch: pytest.MonkeyPatch, columns: int = 100) -> str:
    monkeypatch.setenv("COLUMNS", str(columns))
    return make_text(draw_machine(machine))


BIG = Shape(packages=2, nodes=8, l3s=32, cores=256, threads=2, numbering="halves")


def cells_of(text: str) -> list[int]:
    """Return the numbers in the rows of a map, which are above the first empty line after it."""
    body = text.partition("\n\n")[2].partition("distances between nodes")[0]
    body = re.sub(r"\S+ .iB( each)?, no cpus", "", body)
    rows = [line for line in body.splitlines() if re.fullmatch(r"[ \dxi]+", line)]
    return [int(word.rstrip("xi")) for row in rows for word in row.split()]


def test_512_cpus_fit_a_screen(monkeypatch: pytest.MonkeyPatch) -> None:
    """What repeats is named: 2 packages, 8 nodes, 32 caches and 256 cores in 24 lines."""
    machine = machine_of(BIG)  # its nodes are of different sizes, real ones nearly alike
    nodes = [n.replace(memory_bytes=(64 << 30) - (n.node << 20)) for n in machine.topology.nodes]
    distances: tuple[tuple[int, ...], ...] = ()
    topology = machine.topology.replace(nodes=tuple(nodes), distances=distances)
    text = drawn(machine.replace(topology=topology), monkeypatch, 80)
    lines = text.splitlines()
    assert len(lines) <= 24
    assert all(len(line) <= 80 for line in lines)
    assert lines[0].startswith("made-up: 2 packages, 8 NUMA nodes, 256 cores, 512 cpus")
    assert sorted(cells_of(text)) == [*range(32), *range(256, 288)]
    assert lines[2:7] == [
        "package 0",
        "node 0  64.0 GiB",
        "L3 0                             L3 1",
        "  0   1   2   3   4   5   6   7    8   9  10  11  12  13  14  15",
        "256 257 258 259 260 261 262 263  264 265 266 267 268 269 270 271",
    ]
    assert "7 more like node 0: nodes 1-3, cpus 32-127,288-383; " in text
    assert "package 1: nodes 4-7, cpus 128-255,384-511" in text.replace("\n  ", " ")


def test_two_cpus_are_drawn_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """The smallest machine is a few lines."""
    text = drawn(machine_of(Shape(cores=2)), monkeypatch)
    assert text.splitlines()[2:] == ["package 0  L3 0", "0 1", "", "allowed: everything"]


SERVER = Shape(packages=2, nodes=4, l3s=8, cores=32, threads=2, numbering="halves")


def test_a_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """Packages and nodes are blocks, a column is a core, a row one hardware thread of each, and
    what divides a node is named, with its size where there is room."""
    machine = machine_of(SERVER)
    nodes = tuple(n.replace(memory_bytes=64 << 30) for n in machine.topology.nodes)
    caches = tuple(Cache("L3", 32 << 20, cpus) for cpus in machine.topology.groups("l3"))
    machine = machine.replace(topology=machine.topology.replace(nodes=nodes), caches=caches)
    text = drawn(machine.replace(model="A processor"), monkeypatch, 80)
    assert text.startswith(
        """\
made-up: 2 packages, 4 NUMA nodes, 32 cores, 64 cpus, 256 GiB
processor: A processor
caches: L3 32.0 MiB × 8

package 0
node 0  64.0 GiB           node 1  64.0 GiB
L3 0         L3 1          L3 2         L3 3
 0  1  2  3   4  5  6  7    8  9 10 11  12 13 14 15
32 33 34 35  36 37 38 39   40 41 42 43  44 45 46 47

package 1
"""
    )


def test_kinds_of_core_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """As --kind reads them, above their cores."""
    shape = Shape(kinds=(Kind(4, 2, capacity=1024), Kind(4, 1, capacity=500)))
    text = drawn(machine_of(shape), monkeypatch, 80)
    lines = text.splitlines()[3:6]
    assert lines == ["performance  efficiency", " 0  2  4  6   8  9 10 11", " 1  3  5  7"]
    assert "performance cores (kind 1): cpus 0-7" in text
    assert "efficiency cores (kind 0): cpus 8-11" in text


def test_unlike_nodes_are_not_folded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another size of memory or of a cache, a cpu that is not allowed, a memory of their own."""
    machine = machine_of(BIG)
    topology = machine.topology
    nodes = [n.replace(memory_bytes=64 << 30) for n in topology.nodes]
    caches = [Cache("L3", 32 << 20, cpus) for cpus in topology.groups("l3")]
    plain = machine.replace(topology=topology.replace(nodes=tuple(nodes)), caches=tuple(caches))
    assert "7 more like node 0" in drawn(plain, monkeypatch)
    nodes[2] = nodes[2].replace(memory_bytes=16 << 30)
    caches[20] = caches[20].replace(bytes=96 << 20)
    unlike = plain.replace(
        topology=topology.replace(nodes=tuple(nodes)),
        caches=tuple(caches),
        allowed=Allowed(machine.allowed.cpus - CpuSet([255]), machine.allowed.nodes),
    )
    drawn_map = TopologyMap(unlike)
    lines = drawn_map.lay_out(drawn_map.make_blocks(5)[0], 100)
    assert [line.text for line in lines if isinstance(line, Fold)] == [
        "1 more like node 0: node 1, cpus 32-63,288-319",
        "1 more like node 3: package 1: node 4, cpus 128-159,384-415",
    ]
    text = drawn(unlike, monkeypatch)
    assert "node 2  16.0 GiB" in text
    assert "L3 32.0 MiB × 31 and 96.0 MiB × 1" in text
    assert "x not allowed" in text


def test_memory_stands_where_it_belongs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A node without cpus at the node nearest to it, or in its package; or below the map."""
    machine = machine_of(Shape(packages=2, nodes=4, cores=16, memory_only=(4, 5, 6)))
    topology = machine.topology
    near = {4: CpuSet([1]), 5: CpuSet([2, 3]), 6: CpuSet()}
    nodes = tuple(
        n.replace(memory_bytes=16 << 30, initiators=near.get(n.node, CpuSet()))
        for n in topology.nodes
    )
    machine = machine.replace(topology=topology.replace(nodes=nodes, distances=()))
    text = drawn(machine, monkeypatch, 80)
    assert (
        """\
node 0  16.0 GiB   node 1  16.0 GiB
 0  1  2  3         4  5  6  7
                   + node 4  16.0 GiB, no cpus

package 1
node 2  16.0 GiB   node 3  16.0 GiB   node 5
 8  9 10 11        12 13 14 15        16.0 GiB, no cpus
node 6  16.0 GiB, no cpus
"""
        in text
    )


def test_the_memory_of_gpus_is_near_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where all distances are equal, as the driver says of each GPU; from a snapshot, too."""
    need_topologies()
    machine = read_tree("nvidiagpunumanodes")
    save_machine(str(tmp_path / "x.topo"), str(unpacked("nvidiagpunumanodes")), with_name=False)
    for same in (machine, read_machine(str(tmp_path / "x.topo"))):
        lines = drawn(same, monkeypatch, 80).splitlines()
        assert "+ nodes 253-255  15.0 GiB each, no cpus" in lines
        assert "+ nodes 250-252  15.0 GiB each, no cpus" in lines
    gpus = [d for d in parse_json(machine.to_json().encode()).topology.devices if d.kind == "gpu"]
    assert [d.memory_node for d in gpus] == [255, 254, 253, 252, 251, 250]


def test_more_cores_than_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a machine whose numbers would take more than a screen there is a sign for each cpu."""
    shape = Shape(cores=256, threads=8)
    text = drawn(machine_of(shape, allowed="0-1999"), monkeypatch, 80)
    assert len(text.splitlines()) < 60
    assert "o usable cpu  x not allowed" in text
    assert text.count("o") > 2000 - len(text.splitlines())


@pytest.mark.parametrize("name", machine_names() or ["none"])
def test_every_real_machine_fits_a_screen(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No real machine takes more than 48 lines of 80 characters, and each cpu of the machine is
    there once: by its number, or in what is folded."""
    need_topologies()
    tree = unpacked(name)
    if not (tree / "sys/devices/system/cpu").is_dir():
        pytest.skip("the tree holds cgroup files only")
    machine = read_tree(name)
    text = drawn(machine, monkeypatch, 80)
    lines = text.splitlines()
    assert len(lines) <= 48
    assert all(len(line) <= 80 for line in lines)
    if " more like " not in text and "usable cpu" not in text:
        assert sorted(cells_of(text))[: len(machine.topology.cpus)] == list(machine.topology.online)


def test_what_is_out_of_the_ordinary_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not allowed, offline, isolated, kinds of core, nodes without cpus or memory, the quota."""
    shape = Shape(
        kinds=(Kind(2, 2, capacity=1024), Kind(4, 1, capacity=500)),
        nodes=2,
        memory_only=(4,),
        without_memory=(1,),
        isolated="3",
        nohz_full="3",
        offline="7",
    )
    machine = machine_of(shape, allowed="0-4", mems="0")
    machine = machine.replace(allowed=machine.allowed.replace(quota=1.5))
    text = drawn(machine, monkeypatch)
    for words in (
        "not allowed: cpus 5-6",
        "not allowed: memory of nodes 1,4",
        "offline: cpus 7",
        "isolated: cpus 3",
        "(nohz_full): cpus 3",
        "efficiency cores (kind 0): cpus 4-6",
        "performance cores (kind 1): cpus 0-3",
        "cgroup quota: 1.5 cpus",
        "no memory",
        "node 4",
        "no cpus",
    ):
        assert words in text


@given(shapes())
def test_a_map_accounts_for_every_cpu_once(shape: Shape) -> None:
    """Each is in one block, drawn or folded, numbered or not, whatever the width."""
    machine = machine_of(shape)
    drawn_map = TopologyMap(machine)
    for width, cell in ((80, 4), (40, 1)):
        lines = drawn_map.lay_out(drawn_map.make_blocks(cell)[0], width)
        blocks = [b for line in lines for b in (line.blocks if isinstance(line, Fold) else line)]
        cpus = [cpu for block in blocks for core in block.cores for cpu in core]
        assert sorted(cpus) == list(machine.topology.online)


def test_json_is_the_contract_s(tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    """Every field of the contract is there, of its type, null where it is not said."""
    shape = Shape(packages=2, nodes=2, cores=4, threads=2, numbering="halves", offline="7")
    tree = write_tree(make_files(shape), tmp_path)
    assert main(["topo", "--topology", str(tree), "--format", "json"]) == 0
    data = json.loads(capfdbinary.readouterr().out)
    assert data["schema"] == 1
    assert [c["cpu"] for c in data["cpus"]] == [0, 1, 2, 3, 4, 5, 6]
    assert set(LEVELS) <= set(data["cpus"][0])
    assert data["cpus"][0] == {
        "cpu": 0, "core": 0, "package": 0, "die": None, "cluster": None, "l2": 0, "l3": 0,
        "node": 0, "book": None, "drawer": None, "kind": None,
        "capacity": None,
    }  # fmt: skip
    assert [(n["node"], n["cpus"]) for n in data["nodes"]] == [(0, "0-1,4-5"), (1, "2-3,6")]
    assert data["distances"][0][0] == 10
    assert data["devices"] == []
    assert data["allowed"]["cpus"] == "0-6"
    assert data["offline"] == "7"
    assert b"hostname" not in json.dumps(data).encode()


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["extra"], "topo takes no 'extra'"),
        (["--format", "env"], "'env' is not one of table, json"),
        (["--topology", "/nowhere/at/all"], "/nowhere/at/all: No such file or directory"),
        (["--topology", "."], ".: has no sys directory"),
        (["--save"], "--save needs a value"),
        (["--ranks", "2"], "'--ranks' is not an option"),
    ],
)
def test_refusals(args: list[str], message: str, ompbind: str, tmp_path: Path) -> None:
    """Each is the contract's line, 125, and nothing is printed."""
    done = subprocess.run(
        [ompbind, "topo", *args], capture_output=True, text=True, timeout=30, cwd=tmp_path
    )
    assert (done.returncode, done.stdout) == (125, "")
    assert message in done.stderr.splitlines()[0]
    assert done.stderr.startswith("ompbind: error: ")


def test_no_colour_where_none_is_wanted(ompbind: str) -> None:
    """In a pipe there are no escape sequences, only the drawing."""
    done = subprocess.run([ompbind, "topo"], capture_output=True, text=True, timeout=30)
    assert done.returncode == 0
    assert "\x1b" not in done.stdout
    assert "cores" in done.stdout or "core," in done.stdout


def test_parts_that_interleave_are_listed_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """The cpus of packages that alternate in number say nothing of each together."""
    shape = Shape(packages=8, nodes=8, cores=256, numbering="round-robin")
    machine = machine_of(shape)
    nodes = tuple(n.replace(memory_bytes=64 << 30) for n in machine.topology.nodes)
    machine = machine.replace(topology=machine.topology.replace(nodes=nodes))
    text = " ".join(drawn(machine, monkeypatch, 80).split())
    for node in range(1, 8):
        assert f"node {node}, cpus {node}-{248 + node}:8" in text


def test_gpus_have_the_names_that_near_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that workers may see, counted as they count them."""
    text = drawn(read_machine("examples/gpus.topo"), monkeypatch, 120)
    for name, address in (("gpu0", "18:00.0"), ("gpu1", "2a:00.0"), ("gpu2", "ab:00.0")):
        assert f"{name} 0000:{address}" in text
    assert "gpu0 0000:01:00.0" not in text  # a management controller's display
    assert "  NVIDIA 10de:2330\n" in text


def test_dies_of_several_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are named above their nodes, over which their name may reach."""
    machine = machine_of(Shape(packages=1, nodes=4, dies=2, l3s=2, cores=8))
    machine = machine.replace(topology=machine.topology.replace(distances=()))
    lines = drawn(machine, monkeypatch, 80).splitlines()[2:5]
    assert [line.split("   ")[0] for line in lines] == [
        "package 0  die 0  L3 0", "node 0  1.0 GiB", "0 1"]  # fmt: skip
    assert lines[0].index("package 0  die 1  L3 1") == lines[1].index("node 2")


@pytest.mark.parametrize(
    ("name", "hint"), [("x.svg", "--svg x.svg"), ("x.json", "--format json > x.json")]
)
def test_a_snapshot_is_no_picture(name: str, hint: str, tmp_path: Path) -> None:
    """--save does not put a snapshot into a file that is named as something else."""
    with pytest.raises(UsageError, match="is a snapshot, not a picture") as caught:
        topo(["--save", name])
    assert caught.value.hint == hint
    assert not (tmp_path / name).exists()
