"""`ompbind topo`: the drawing that fits a screen, the contract's JSON, the command line."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from hypothesis import given

from ompbind.cli import main
from ompbind.cli.topo import topo
from ompbind.cpuset import CpuSet
from ompbind.errors import UsageError
from ompbind.machine import read_machine
from ompbind.machine.topology import LEVELS, Allowed, Machine
from ompbind.render import make_text
from ompbind.render.machine import draw_machine
from ompbind.render.outline import Part, make_outline
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


def test_512_cpus_fit_a_screen(monkeypatch: pytest.MonkeyPatch) -> None:
    """What repeats is told once: 2 packages, 8 nodes, 32 caches and 256 cores in 24 lines."""
    machine = machine_of(BIG)  # its nodes are of different sizes, real ones nearly alike
    nodes = [n.replace(memory_bytes=(64 << 30) - (n.node << 20)) for n in machine.topology.nodes]
    machine = machine.replace(topology=machine.topology.replace(nodes=tuple(nodes)))
    text = drawn(machine, monkeypatch)
    lines = text.splitlines()
    assert len(lines) <= 24
    assert all(len(line) <= 100 for line in lines)
    assert lines[0].startswith("made-up: 2 packages, 8 NUMA nodes, 256 cores, 512 cpus")
    assert "8 cores × 2 threads:  0,256  1,257  2,258  3,259  4,260  5,261  6,262  7,263" in text
    assert "1 more like package 0: cpus 128-255,384-511" in text
    assert "3 more like node 0: cpus 32-127,288-383" in text


def test_two_cpus_are_drawn_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """The smallest machine is a few lines."""
    text = drawn(machine_of(Shape(cores=2)), monkeypatch)
    assert "2 cores × 1 thread:  0  1" in text
    assert len(text.splitlines()) <= 6


@pytest.mark.parametrize("name", machine_names() or ["none"])
def test_every_real_machine_fits_a_screen(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No real machine takes more than 60 lines, and no line more than the terminal has."""
    need_topologies()
    tree = unpacked(name)
    if not (tree / "sys/devices/system/cpu").is_dir():
        pytest.skip("the tree holds cgroup files only")
    lines = drawn(read_tree(name), monkeypatch, 120).splitlines()
    assert len(lines) <= 60
    assert all(len(line) <= 120 for line in lines)


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
        "kind 0, efficiency: cpus 4-6",
        "kind 1, performance: cpus 0-3",
        "cgroup quota: 1.5 cpus",
        "no memory",
        "node 4",
        "no cpus",
    ):
        assert words in text


def cpus_of(parts: tuple[Part, ...]) -> list[int]:
    """All cpus that an outline accounts for, drawn or folded."""
    return [cpu for part in parts for cpu in (*part.cpus, *part.similar_cpus)]


@given(shapes())
def test_an_outline_accounts_for_every_cpu_once(shape: Shape) -> None:
    """At the top and within each part, every cpu is drawn or folded, once."""
    machine = machine_of(shape)

    def check(parts: tuple[Part, ...], cpus: CpuSet) -> None:
        assert sorted(cpus_of(parts)) == list(cpus)
        for part in parts:
            if part.parts:
                check(part.parts, part.cpus)
            else:
                assert sorted(c for core in part.cores for c in core) == list(part.cpus)

    outline = make_outline(machine)
    check(outline, machine.topology.online)


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
    """The cpus of two packages that alternate in number say nothing of either together."""
    shape = Shape(packages=4, nodes=4, cores=40, numbering="round-robin")
    machine = machine_of(shape)
    nodes = tuple(n.replace(memory_bytes=64 << 30) for n in machine.topology.nodes)
    machine = machine.replace(topology=machine.topology.replace(nodes=nodes))
    text = drawn(machine, monkeypatch, 140)
    for package in (1, 2, 3):
        assert f"package {package} cpus {package}-{36 + package}:4" in text


def test_gpus_have_the_names_that_near_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that workers may see, counted as they count them."""
    text = drawn(read_machine("examples/gpus.topo"), monkeypatch, 120)
    for name, address in (("gpu0", "18:00.0"), ("gpu1", "2a:00.0"), ("gpu2", "ab:00.0")):
        assert f"{name} 0000:{address}" in text
    assert "gpu0 0000:01:00.0" not in text  # a management controller's display


@pytest.mark.parametrize(
    ("name", "hint"), [("x.svg", "--svg x.svg"), ("x.json", "--format json > x.json")]
)
def test_a_snapshot_is_no_picture(name: str, hint: str, tmp_path: Path) -> None:
    """--save does not put a snapshot into a file that is named as something else."""
    with pytest.raises(UsageError, match="is a snapshot, not a picture") as caught:
        topo(["--save", name])
    assert caught.value.hint == hint
    assert not (tmp_path / name).exists()
