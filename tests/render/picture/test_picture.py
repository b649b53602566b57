"""Pictures of machines and plans: complete, readable, and safe to open."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from ompbind.cli import main
from ompbind.cpuset import CpuSet
from ompbind.devices.visible import make_visible
from ompbind.machine.topology import Device, Machine
from ompbind.planner import make_plan
from ompbind.planner.request import Request
from ompbind.render.picture import make_machine_picture, make_plan_picture, make_svg
from ompbind.render.picture.shapes import Box, Lines, Picture, Words, measure, shorten
from tests.render.picture.geometry import SVG, check_picture
from tests.support.machines import MACHINES, make_asked, make_machine
from tests.support.shared_trees import machine_names, need_topologies, read_tree, unpacked
from tests.support.trees import Shape

SERVER = Shape(packages=2, nodes=4, l3s=8, cores=32, threads=2, numbering="halves")
LARGE: list[tuple[Shape, tuple[str, ...]]] = [
    (Shape(packages=4, nodes=8, l3s=16, cores=256, threads=2), ("--per", "l3")),
    (Shape(packages=2, nodes=2, l3s=64, cores=512, numbering="halves"), ("--per", "core")),
    (Shape(cores=2), ("-n", "2")),
    (replace(SERVER, threads=8), ("-n", "40", "--oversubscribe")),
    (SERVER, ("--numa-bind-cpus", *["0-3", "2-5", "8,10,12,14,40,42"], "--share")),
]
EVIL = "</text><script>alert(1)</script>&\"'\x1b[31m\x00\udcff\u202e]]>"


def ask(*args: str) -> Request:
    """Return the request of a program in Python, which is one place."""
    return make_asked(args, ()).replace(places="one")


def texts_of(picture: Picture) -> list[str]:
    return [s.text for s in picture.shapes if isinstance(s, Words)]


def looks_of(picture: Picture) -> dict[int, str]:
    """Return the looks of the cpus' cells."""
    return {s.cpu: s.look for s in picture.shapes if isinstance(s, Box) and s.cpu is not None}


@pytest.mark.parametrize("name", machine_names() or ["none"])
def test_every_real_machine(name: str) -> None:
    """Alone and with two ranks: each cpu is there once, nothing is cut, nothing overlaps."""
    need_topologies()
    if not (unpacked(name) / "sys/devices/system/cpu").is_dir():
        pytest.skip("the tree holds cgroup files only")
    machine = read_tree(name)
    online = machine.topology.online
    cores = len({c.core for c in machine.topology.cpus if c.cpu in machine.allowed.cpus})
    plan = make_plan(machine, ask("-n", str(min(2, cores))))
    check_picture(make_machine_picture(machine), online)
    check_picture(make_plan_picture(plan, machine), online)


@pytest.mark.parametrize("name", MACHINES)
def test_every_made_up_machine(name: str) -> None:
    """Those that hide their nodes, caches or cores as well."""
    machine = MACHINES[name]
    check_picture(make_machine_picture(machine), machine.topology.online)
    plan = make_plan(machine, ask("-n", "1"))
    for known in (machine, None):
        check_picture(make_plan_picture(plan, known), machine.topology.online)


@pytest.mark.parametrize(("shape", "args"), LARGE)
def test_many_cpus_many_ranks(shape: Shape, args: tuple[str, ...]) -> None:
    """From 2 to 512 cpus, and up to as many ranks, all is readable."""
    machine = make_machine(shape)
    check_picture(
        make_plan_picture(make_plan(machine, ask(*args)), machine), machine.topology.online
    )


def test_each_cpu_has_its_owners_look() -> None:
    """Ranks have a colour each; what is reserved, excluded or not allowed looks otherwise."""
    machine = make_machine(SERVER, cpus="0-29,32-61")
    args = ("-n", "3", "--reserve", "1", "--exclude", "0", "--role", "kv=1")
    plan = make_plan(machine, ask(*args))
    picture = make_plan_picture(plan, machine)
    looks = looks_of(picture)
    for r in plan.ranks:
        assert {looks[cpu] for cpu in r.cpus} == {f"cpu rank{r.rank}"}
    assert {looks[cpu] for cpu in (30, 31, 62, 63)} == {"cpu denied"}
    assert {looks[cpu] for cpu in plan.excluded} == {"cpu idle"}
    assert {looks[cpu] for cpu in (*plan.reserved, *plan.roles[0].cpus)} == {"cpu set-aside"}
    hatched = sum(isinstance(s, Lines) and s.look == "hatch" for s in picture.shapes)
    assert hatched == len(plan.excluded | plan.reserved) + 2  # and in the key
    texts = texts_of(picture)
    for text in ("rank 0", "rank 2", "package 1", "node 3", "role kv", "reserved", "not allowed"):
        assert text in texts


def test_the_table_is_the_legend() -> None:
    """A row for each rank with its colour; many that are alike are one."""
    machine = make_machine(SERVER)
    texts = texts_of(make_plan_picture(make_plan(machine, ask("--per", "numa", "--mem", "bind")),
                                       machine))  # fmt: skip
    for n in range(4):
        assert f"bind {n}" in texts
        assert f"{8 * n}-{8 * n + 7}" in texts
    texts = texts_of(make_plan_picture(make_plan(machine, ask("--per", "core")), machine))
    assert "0-31" in texts
    assert "1 each" in texts


def test_memory_shows_whose_it_is() -> None:
    """Ranks that are bound to a node are on its memory, which is where the node is; a node without
    cpus stands by the nearest one."""
    machine = MACHINES["expander"]
    plan = make_plan(machine, ask("--per", "numa", "--mem", "bind"))
    picture = make_plan_picture(plan, machine)
    assert {"memory 1.0 GiB", "memory 2.0 GiB", "node 2", "no cpus"} <= set(texts_of(picture))
    boxes = [s for s in picture.shapes if isinstance(s, Box)]
    inner = next(b for b in boxes if b.look == "block memory")
    package = next(b for b in boxes if b.title.startswith("package 1"))
    assert package.x < inner.x < inner.x + inner.width < package.x + package.width
    assert package.y < inner.y < inner.y + inner.height < package.y + package.height


def test_memory_shows_its_kind() -> None:
    """HBM and CXL are called so, as in topo's text."""
    machine = MACHINES["expander"]
    nodes = tuple(n.replace(kind="" if n.cpus else "hbm") for n in machine.topology.nodes)
    machine = machine.replace(topology=machine.topology.replace(nodes=nodes))
    texts = set(texts_of(make_machine_picture(machine)))
    assert {"memory 1.0 GiB", "3.0 GiB HBM"} <= texts


def test_a_gpu_is_linked_to_its_rank() -> None:
    """It has the rank's colour, and a line leads to one of the rank's cores; a display is no GPU
    to compute with."""
    machine = make_machine(SERVER)
    devices = [
        Device("gpu", f"0000:{n}b:00.0", n, machine.topology.nodes[n].cpus, "10de", "2330",
               driver="nvidia") for n in range(4)
    ]  # fmt: skip
    devices.append(Device("gpu", "0000:99:00.0", None, machine.topology.online, "102b"))
    devices.append(Device("nic", "0000:9a:00.0", 1, CpuSet(range(8, 16)), names=("eth0",)))
    machine = machine.replace(topology=machine.topology.replace(devices=tuple(devices)))
    visible = make_visible(devices, {})
    plan = make_plan(machine, ask("--per", "gpu").replace(visible=visible))
    picture = make_plan_picture(plan, machine)
    check_picture(picture, machine.topology.online)
    links = [s for s in picture.shapes if isinstance(s, Lines) and s.look.startswith("link")]
    assert [s.look for s in links] == [f"link rank{n}" for n in range(4)]
    boxes = [s for s in picture.shapes if isinstance(s, Box)]
    for r, line in zip(plan.ranks, links, strict=True):
        (x, y), *_, (left, top) = line.paths[0]
        chip = next(b for b in boxes if b.x < x < b.x + b.width and b.y == y)
        assert chip.look == f"chip taken rank{r.rank}"
        ends = {b.cpu for b in boxes if b.x == left and 0 < b.y - top < 5}
        assert ends & set(r.cpus)
    assert {"gpu3 rank 3", "eth0", "Matrox display"} <= set(texts_of(picture))


def test_names_are_hostile_input(tmp_path: Path) -> None:
    """A host's, a device's or a reason's text is content of the XML, whatever is in it."""
    machine = make_machine(SERVER)
    device = Device("nic", EVIL, 1, CpuSet([8]), EVIL, EVIL, (EVIL,), EVIL)
    machine = machine.replace(name=EVIL, topology=machine.topology.replace(devices=(device,)))
    plan = make_plan(machine, ask("-n", "2"))
    ranks = tuple(r.replace(why=EVIL, gpus=(EVIL,)) for r in plan.ranks)
    plan = plan.replace(ranks=ranks, command=(EVIL,), host=plan.host.replace(name=EVIL))
    for picture in (make_plan_picture(plan, machine), make_machine_picture(machine)):
        root = check_picture(picture, machine.topology.online)
        assert "<script>" in root.attrib["aria-label"]
        written = "".join(root.itertext())
        assert "</text><script>" in written
        assert "\x1b" not in written
        (tmp_path / "picture.svg").write_text(make_svg(picture))  # it can be encoded


def test_nothing_from_outside() -> None:
    """No script, no reference, no id that another picture on the page may have."""
    machine = make_machine(SERVER)
    text = make_svg(make_plan_picture(make_plan(machine, ask("-n", "2")), machine))
    root = ElementTree.fromstring(text)
    for element in root.iter():
        assert not {"id", "href", "onload", "style"} & set(element.attrib)
    assert "url(" not in text
    assert "@import" not in text
    style = next(root.iter(f"{SVG}style")).text or ""
    assert "prefers-color-scheme: dark" in style
    rules = [line for line in style.splitlines() if line.endswith("}") and line != "}"]
    assert all(line.startswith(".ompbind ") for line in rules)


def test_a_text_is_cut_where_there_is_no_room() -> None:
    """By a sign of its own, and never wider than the room."""
    assert shorten("node 0", 10, 100) == "node 0"
    cut = shorten("a very long reason", 10, 50)
    assert cut.endswith("…")
    assert measure(cut, 10) <= 50
    assert shorten("x", 10, 1) == ""


def test_show_and_topo_write_pictures(
    tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    """Into a file or to standard output; what cannot be written is one line."""
    file = tmp_path / "picture.svg"
    assert main(["show", "-n", "1", "--svg", str(file), "--", "./worker"]) == 0
    assert capfdbinary.readouterr().out == b""
    assert ElementTree.parse(file).getroot().tag == f"{SVG}svg"
    assert "./worker" in file.read_text()
    assert main(["topo", "--svg", "-"]) == 0
    assert capfdbinary.readouterr().out.startswith(b"<svg ")
    assert main(["topo", "--svg", "/no/picture.svg"]) == 125
    assert b"--svg '/no/picture.svg': No such file or directory" in capfdbinary.readouterr().err


def test_a_machine_without_its_shape() -> None:
    """Another machine's plan: its cpus are known and no more."""
    machine: Machine = make_machine(Shape(packages=2, cores=24, offline="10-11"))
    plan = make_plan(machine, ask("-n", "2"))
    picture = make_plan_picture(plan, None)
    check_picture(picture, machine.topology.online)
    assert {"rank 0", "rank 1"} <= set(texts_of(picture))
