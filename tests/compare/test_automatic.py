"""--vary auto: what may matter on a machine, and the reasons for what is left out."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from ompbind.compare.automatic import make_automatic
from ompbind.compare.metric import Metric
from ompbind.machine import read_machine
from ompbind.machine.topology import Machine
from ompbind.worker.libraries import LIBRARIES, Finder
from tests.support.programs import compile_library
from tests.support.trees import Shape, make_machine

SERVER = Path(__file__).parents[2] / "examples/server.topo"
RATE = Metric("rate: (.*)", "higher", "sum")
PRELOADED = {f"preload={name}" for name in LIBRARIES}


@pytest.fixture(scope="module")
def server() -> Machine:
    """Two packages, four nodes, eight last-level caches, two hardware threads of each core."""
    return read_machine(str(SERVER))


def names_of(
    machine: Machine, metric: Metric, environ: dict[str, str] | None = None, **common: str
) -> tuple[dict[str, Any], dict[str, str]]:
    """The changes of each variant, and the reasons for each that is left out, but for what may be
    installed here."""
    wishes, omitted = make_automatic(machine, dict(common), metric, [], environ or {})
    changes = {w.name: dict(w.changes) for w in wishes if w.name not in PRELOADED}
    return changes, {o.name: o.why for o in omitted if o.name not in PRELOADED}


def test_a_server(server: Machine) -> None:
    """Everything may matter; plans with several ranks only where ranks can be compared with one."""
    wishes, omitted = names_of(server, RATE)
    assert wishes == {
        "whole machine": {},
        "smt=all": {"smt": "all"},
        "places=cores": {"places": "cores"},
        "places=one": {"places": "one"},
        "places=wide": {"places": "wide"},
        "one node": {"numa_bind_nodes": ["0"]},
        "per=numa": {"per": "numa"},
        "per=l3": {"per": "l3"},
        "mem=interleave": {"mem": "interleave"},
    }
    assert omitted == {}
    wishes, omitted = names_of(server, Metric())
    assert set(omitted) == {"per=numa", "per=l3"}
    assert all(why.startswith("each rank would do the whole work") for why in omitted.values())


def test_a_plain_machine() -> None:
    """With one node, one cache and no second hardware thread most of it cannot matter."""
    shape = Shape(packages=1, nodes=1, l3s=1, cores=4, threads=1)
    wishes, omitted = names_of(make_machine(shape), RATE)
    assert list(wishes) == ["whole machine", "places=cores", "places=one", "places=wide"]
    assert omitted == {
        "smt=all": "one hardware thread in each core",
        "one node": "one NUMA node",
        "per=numa": "one NUMA node",
        "per=l3": "1 L3 cache in 1 NUMA node",
        "mem=interleave": "one node with memory",
    }


def test_what_is_given_does_not_vary(server: Machine) -> None:
    """An option that all variants have is left as it is, and one that places ranks leaves no other
    places for them."""
    wishes, omitted = names_of(server, RATE, smt="1", ranks="2", mem="bind")
    assert set(wishes) == {"whole machine", "places=cores", "places=one", "places=wide"}
    assert omitted == {
        "smt=all": "--smt is given", "mem=interleave": "--mem is given",
        **dict.fromkeys(("one node", "per=numa", "per=l3"), "--ranks is given"),
    }  # fmt: skip


def test_preloads(server: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A library that is installed is preloaded before those that are already; one that is preloaded
    anyway, one that is not there and one that would not load are left out."""
    tcmalloc = tmp_path / "libtcmalloc_minimal.so.4"
    for name in ("libjemalloc.so.2", tcmalloc.name):
        shutil.copy(compile_library("libplain.so.1"), tmp_path / name)
    environ = {"LD_LIBRARY_PATH": str(tmp_path), "LD_PRELOAD": str(tcmalloc)}
    wishes, omitted = make_automatic(server, {"env": ["A=1"]}, RATE, ["true"], environ)
    changes = {w.name: dict(w.changes) for w in wishes}
    assert changes["preload=jemalloc"] == {"preload": "jemalloc"}
    assert {o.name: o.why for o in omitted}["preload=tcmalloc"] == "LD_PRELOAD is given"
    _, omitted = make_automatic(server, {"preload": "iomp5"}, RATE, ["true"], environ)
    assert {o.name: o.why for o in omitted}["preload=jemalloc"] == "--preload is given"
    monkeypatch.setattr(Finder, "find", lambda *_: __file__)
    _, omitted = make_automatic(server, {}, RATE, ["true"], {})
    assert {o.name: o.why for o in omitted}["preload=iomp5"] == "is not a shared library"
