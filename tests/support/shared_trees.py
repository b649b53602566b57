"""The real machines of `../shared/topologies`: found, unpacked when first wanted, with answers."""

from __future__ import annotations

import json
import os
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from ompbind.machine import read_machine
from ompbind.machine.topology import Machine
from tests.support.shared import locked, once, shared_temporary_folder

PLACE = Path(__file__).parents[2] / "../shared/topologies"


def topologies() -> Path:
    """The directory; OMPBIND_TOPOLOGIES names another one."""
    return Path(os.environ.get("OMPBIND_TOPOLOGIES") or PLACE).resolve()


def machine_names() -> list[str]:
    """Every machine that has an answer and a tree; [] where the directory is absent."""
    names = {p.name.removesuffix(".tar.gz") for p in topologies().glob("machines/*.tar.gz")}
    return sorted(n for n in names if (topologies() / f"machines/{n}.json").exists())


def need_topologies() -> None:
    """Skips the test where the directory is absent; fails it there in continuous integration,
    which must not pass by leaving tests out."""
    if not machine_names():
        reason = f"no machines in {topologies()}; OMPBIND_TOPOLOGIES can name another directory"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)


def answer(name: str) -> dict[str, Any]:
    """A machine's trusted answer, as ../shared/topologies/README.md describes it."""
    need_topologies()
    found: dict[str, Any] = json.loads((topologies() / f"machines/{name}.json").read_text())
    return found


def unpacked(name: str) -> Path:
    """The directory that holds the machine's `sys` and `proc`."""
    need_topologies()
    place = shared_temporary_folder("trees") / name
    with locked(f"tree-{name}"):
        if not place.exists():
            part = place.with_suffix(".part")
            part.mkdir()
            archive = topologies() / f"machines/{name}.tar.gz"
            # tarfile would take several times as long
            subprocess.run(["tar", "-xzf", archive, "-C", part], check=True)
            part.rename(place)
    return place / "fsroot"


@cache
def read_tree(name: str) -> Machine:
    """The machine as ompbind reads it from there, once in a run of the tests."""
    return once(f"machine-{name}", lambda: read_machine(str(unpacked(name))))
