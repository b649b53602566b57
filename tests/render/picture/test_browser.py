"""Pictures in a real browser: nothing cut, nothing written over, text that can be read, in light
and in dark. It is asked for by OMPBIND_TEST_PICTURES, as `make test-pictures` does."""

from __future__ import annotations

import html
import json
import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from ompbind.cpuset import CpuSet
from ompbind.machine.topology import Device, Machine
from ompbind.planner import make_plan
from ompbind.render.owners import Owners, list_owners
from ompbind.render.picture import (
    Picture,
    make_check_picture,
    make_machine_picture,
    make_plan_picture,
    make_svg,
)
from tests.render.picture.test_picture import LARGE, SERVER, ask
from tests.support.machines import MACHINES, make_machine
from tests.support.needs import unavailable
from tests.support.shared_trees import machine_names, read_tree, unpacked
from tests.support.trees import Shape

ASKED = "OMPBIND_TEST_PICTURES"
SCRIPT = Path(__file__).with_name("browser.js")
SCHEMES = {"light": "rgb(255, 255, 255)", "dark": "rgb(20, 23, 27)"}  # of the page


def find_browser() -> str:
    if not os.environ.get(ASKED):
        pytest.skip(f"{ASKED} is not set; make test-pictures sets it")
    path = shutil.which("chromium") or shutil.which("google-chrome")
    return path or unavailable("there is no chromium; tools/setup-system pictures installs it")


def make_pictures() -> dict[str, Picture]:
    """Every machine there is, real and made up, alone and with plans of few and of many ranks."""
    machines = dict(MACHINES)
    for name in machine_names():
        if (unpacked(name) / "sys/devices/system/cpu").is_dir():
            machines[name] = read_tree(name)
    pictures = {}
    for name, machine in machines.items():
        pictures[name] = make_machine_picture(machine)
        cores = {c.core for c in machine.topology.cpus if c.cpu in machine.allowed.cpus}
        for ranks in {1, min(2, len(cores)), min(12, len(cores))}:
            plan = make_plan(machine, ask("-n", str(ranks)))
            pictures[f"{name}, {ranks} ranks"] = make_plan_picture(plan, machine)
    for shape, args in LARGE:
        machine = make_machine(shape)
        plan = make_plan(machine, ask(*args))
        pictures[f"{args} on {shape}"] = make_plan_picture(plan, machine)
    machine = with_devices(make_machine(SERVER))
    options = ("-n", "3", "--reserve", "1", "--exclude", "0", "--role", "kv=1", "--mem", "bind")
    pictures["all looks"] = make_plan_picture(make_plan(machine, ask(*options)), machine)
    owners = Owners(list_owners([(0, CpuSet(range(9)))]), machine.allowed.cpus)
    pictures["a check"] = make_check_picture(machine, owners, "check", CpuSet([2, 9]))
    narrow = make_machine(replace(SERVER, isolated="3-5"), cpus="0-29")
    pictures["isolated"] = make_machine_picture(narrow)
    return pictures


def with_devices(machine: Machine) -> Machine:
    nodes = machine.topology.nodes
    devices = [
        Device("gpu", f"0000:{n}{k}:00.0", n, nodes[n].cpus, "10de", driver="nvidia")
        for n in range(4)
        for k in range(3)
    ]
    return machine.replace(topology=machine.topology.replace(devices=tuple(devices)))


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page with all pictures, and the script that looks at them."""
    find_browser()
    path = tmp_path_factory.mktemp("pictures") / "page.html"
    figures = [
        f'<figure data-name="{html.escape(name)}">{make_svg(picture)}</figure>'
        for name, picture in make_pictures().items()
    ]
    script = SCRIPT.read_text(encoding="utf-8")
    body = f"<body>{''.join(figures)}<script>{script}</script></body>"
    path.write_text(f"<!DOCTYPE html><meta charset='utf-8'>{body}", encoding="utf-8")
    return path


def look(page: Path, scheme: str) -> subprocess.CompletedProcess[str]:
    """Return what the browser prints of the page after the script."""
    command = [
        find_browser(), "--headless=new", "--disable-gpu", "--disable-dev-shm-usage",
        f"--user-data-dir={page.parent / scheme}", "--virtual-time-budget=60000",
        f"--blink-settings=preferredColorScheme={0 if scheme == 'dark' else 1}",
        *(["--no-sandbox"] if os.geteuid() == 0 else []), "--dump-dom", page.as_uri(),
    ]  # fmt: skip
    return subprocess.run(command, capture_output=True, text=True, timeout=600)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_pictures_in_a_browser(scheme: str, page: Path) -> None:
    """As it draws them, all text is inside, at least 8 pixels high, apart and readable."""
    done = look(page, scheme)
    assert "RESULT" in done.stdout, done.stderr[-2000:]
    text = html.unescape(done.stdout.partition("RESULT")[2].rpartition("END")[0])
    result = json.loads(text)
    assert result["page"] == SCHEMES[scheme]
    assert len(result["found"]) > 50
    assert {name: found for name, found in result["found"].items() if found} == {}


def test_it_would_notice(tmp_path: Path) -> None:
    """The script finds what is cut off, too small, written over another text or pale."""
    find_browser()
    machine = make_machine(Shape(cores=2))
    svg = make_svg(make_machine_picture(machine)).replace(
        "</svg>",
        '<text x="-20" y="50" font-size="9">left</text><text x="20" y="60" font-size="9">one</text>'
        '<text x="22" y="62" font-size="9">two</text><text x="60" y="90" font-size="5">tiny</text>'
        '<text style="fill:#eee" x="90" y="90" font-size="9">pale</text></svg>',
    )
    page = tmp_path / "page.html"
    script = SCRIPT.read_text(encoding="utf-8")
    page.write_text(f'<body><figure data-name="bad">{svg}</figure><script>{script}</script></body>')
    done = look(page, "light")
    for problem in ("cut off: ", "overlap: one and two", "too small: tiny", ": pale"):
        assert problem in done.stdout
