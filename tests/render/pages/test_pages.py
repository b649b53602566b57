"""Pages: one whole file that shows all there is, and executes nothing."""

from __future__ import annotations

import os
from pathlib import Path
from xml.etree import ElementTree

import pytest

from ompbind.cli import main
from ompbind.cpuset import CpuSet
from ompbind.machine.processes import Memory, Process, Thread
from ompbind.machine.topology import Device
from ompbind.planner import make_plan
from ompbind.plans import Caution, Inherited, ThreadPool
from ompbind.render.pages import make_machine_page, make_plan_page, make_report_page
from ompbind.verify.expected import make_expected
from ompbind.verify.report import Difference, ProcessReport, Report
from tests.render.picture.test_picture import EVIL, SERVER, ask
from tests.support.machines import make_machine

MACHINE = make_machine(SERVER)
SVG = "{http://www.w3.org/2000/svg}"


def check_page(text: str) -> ElementTree.Element:
    """Fail for a page that is not well-formed or brings more than text; return it, parsed."""
    text.encode()
    root = ElementTree.fromstring(text.removeprefix("<!DOCTYPE html>\n"))
    for element in root.iter():
        assert element.tag.removeprefix(SVG) not in ("script", "img", "link", "a", "iframe")
        assert not any(name.startswith("on") or name in ("id", "src", "href")
                       for name in element.attrib)  # fmt: skip
    assert "default-src 'none'" in text
    return root


def words_of(root: ElementTree.Element) -> str:
    return " ".join(" ".join(root.itertext()).split())


def test_a_plan_s_page() -> None:
    """The picture, every rank's row and command, what was inherited, warnings and explanations."""
    plan = make_plan(MACHINE, ask("-n", "3", "--mem", "bind"))
    plan = plan.replace(
        command=("./worker",),
        ranks=tuple(
            r.replace(command=("./worker",), env=(*r.env, ("LD_PRELOAD", "/x/libjemalloc.so.2")))
            for r in plan.ranks
        ),
        huge_pages="thp",
        pools=(ThreadPool("Numba", "kept", "NUMBA_NUM_THREADS"),),
        cautions=(Caution("memory", "something is slow", "do it otherwise"),),
        inherited=(Inherited("OMP_PLACES", "cores", "removed", "the plan has places"),),
    )
    root = check_page(make_plan_page(plan, MACHINE, ["A sentence."]))
    text = words_of(root)
    assert len(root.findall(f".//{SVG}svg")) == 1
    for words in ("3 ranks", "24-31", "bind 0", "warning: something is slow (do it otherwise)",
                  "OMP_PLACES cores removed", "A sentence.", "OMPBIND_RANK=2",
                  "idle: ", "preloaded: jemalloc (/x/libjemalloc.so.2)", "you set them: Numba",
                  "huge pages: transparent"):  # fmt: skip
        assert words in text
    assert len(root.findall(".//details")) == 3
    assert len(root.findall(".//td/span")) == 3


def test_a_machine_s_page() -> None:
    """Nodes, distances, devices and what is unusual."""
    device = Device("nic", "0000:01:00.0", 1, CpuSet(range(8, 16)), names=("eth0",))
    machine = MACHINE.replace(topology=MACHINE.topology.replace(devices=(device,)))
    machine = machine.replace(allowed=machine.allowed.replace(cpus=CpuSet(range(60))))
    text = words_of(check_page(make_machine_page(machine)))
    for words in ("2 packages, 4 NUMA nodes, 32 cores, 64 cpus", "not allowed: cpus 60-63",
                  "1 2.0 GiB 8-15,40-47 yes", "0000:01:00.0 eth0", "10 21 22 23"):  # fmt: skip
        assert words in text


def make_report(masks: list[str], differences: tuple[Difference, ...] = ()) -> Report:
    """Return the report of a rank that was planned on cpus 0-3, whose threads have these masks."""
    threads = tuple(
        Thread(100 + n, "worker", "R", CpuSet.parse_kernel(mask), n) for n, mask in enumerate(masks)
    )
    process = Process(100, 1, 5, "worker", threads=threads,
                      memory=Memory("bind:0", (("bind:0", 1, 4 << 20),)))  # fmt: skip
    env = {"OMP_NUM_THREADS": "4"}
    expected = make_expected(0, CpuSet(range(4)), env, "bind", CpuSet([0]))
    unknown = (None,) * len(masks)
    report = ProcessReport(process, expected, 0, unknown, (True,) * len(masks), differences)
    return Report((report,), MACHINE.topology.online)


def looks_of(svg: ElementTree.Element) -> dict[int, str]:
    return {
        int(e.attrib["data-cpu"]): e.attrib["class"] for e in svg.iter() if "data-cpu" in e.attrib
    }


def place(element: ElementTree.Element, shift: float = 0) -> tuple[float, ...]:
    return tuple(round(float(element.attrib[name]) + shift, 1) for name in ("x", "y"))


def test_a_report_s_page() -> None:
    """The plan beside what is; cpus that a rank should not have, or has not, are marked, and the
    threads that it is about."""
    difference = Difference("mask", "thread 101 may run on 9", "taskset", "restart it", (101,))
    root = check_page(make_report_page(make_report(["0-2", "9"], (difference,)), MACHINE))
    planned, real = root.findall(f".//{SVG}svg")
    assert {cpu for cpu, look in looks_of(planned).items() if "rank0" in look} == {0, 1, 2, 3}
    assert {cpu for cpu, look in looks_of(real).items() if "rank0" in look} == {0, 1, 2, 9}
    cells = {place(e): int(e.attrib["data-cpu"]) for e in real.iter() if "data-cpu" in e.attrib}
    marks = [e for e in real.iter() if e.get("class") == "wrong"]
    marked = {cells.get(place(mark, -0.5)) for mark in marks}
    assert {3, 9} == marked - {None}
    text = words_of(root)
    for words in ("not as planned", "1 difference in 1 process, 2 threads", "likely: taskset",
                  "cpus 0-3 0-2,9", "OpenMP threads 4 2",
                  "memory bind 0 bind:0; node 1 4.0 MiB"):  # fmt: skip
        assert words in text
    assert len(root.findall(".//tr[@class='wrong']")) == 1


def test_a_report_without_differences() -> None:
    """It says so; nothing is marked."""
    root = check_page(make_report_page(make_report(["0-3"] * 4), MACHINE))
    assert "as planned" in words_of(root)
    assert not [e for e in root.iter() if e.get("class") == "wrong"]


def test_names_are_hostile_input() -> None:
    """Whatever a host, a thread or a variable is called is text on the page."""
    machine = MACHINE.replace(name=EVIL)
    plan = make_plan(machine, ask("-n", "2"))
    ranks = tuple(r.replace(why=EVIL, command=(EVIL,), env=(("A", EVIL),)) for r in plan.ranks)
    plan = plan.replace(
        ranks=ranks, command=(EVIL,), host=plan.host.replace(name=EVIL),
        inherited=(Inherited(EVIL, EVIL, EVIL, EVIL),), cautions=(Caution(EVIL, EVIL, EVIL),),
    )  # fmt: skip
    difference = Difference(EVIL, EVIL, EVIL, EVIL)
    report = make_report(["0-3"], (difference,))
    process = report.processes[0].process
    threads = tuple(t.replace(name=EVIL) for t in process.threads)
    named = report.processes[0].replace(process=process.replace(name=EVIL, threads=threads))
    for text in (
        make_plan_page(plan, machine, [EVIL]),
        make_machine_page(machine),
        make_report_page(report.replace(processes=(named,)), machine),
    ):
        root = check_page(text)
        assert "<script>alert(1)</script>" in words_of(root)
        assert all(c.isprintable() or c == "\n" for c in text)


def test_commands_write_pages(tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    """show and topo of this machine; verify of this process, with a plan that it is not by."""
    file, saved = tmp_path / "page.html", tmp_path / "plan.json"
    assert main(["show", "-n", "1", "--explain", "--html", str(file), "--", "./worker"]) == 0
    assert "explanation" in words_of(check_page(file.read_text()))
    assert main(["topo", "--html", "-"]) == 0
    check_page(capfdbinary.readouterr().out.decode())
    assert main(["show", "-n", "1", "--threads", "7", "--format", "json"]) == 0
    saved.write_bytes(capfdbinary.readouterr().out)
    verify = ["verify", "--plan", str(saved), "--html", str(file), str(os.getpid())]
    assert main(verify) == 1
    assert "not as planned" in words_of(check_page(file.read_text()))
