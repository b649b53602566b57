"""The table of engines, and what other modules say about engines without loading it."""

from __future__ import annotations

import subprocess
import sys

import pytest

from ompbind.engines import ENGINES, Engine, names
from ompbind.errors import UsageError
from ompbind.options import ENGINE_MARKERS, is_under_engine, read_arguments
from ompbind.options.commands import OPTIONS
from tests.support.commands import environment
from tests.support.needs import REPOSITORY

LABELS = [e.label for e in ENGINES]


@pytest.mark.parametrize("engine", ENGINES, ids=LABELS)
def test_a_rank_has_a_marker(engine: Engine) -> None:
    """What is looked for before the table is loaded is in each of the engine's ranks."""
    assert set(engine.needs) & set(ENGINE_MARKERS)
    assert is_under_engine({}, dict.fromkeys(engine.needs, "0"))
    assert not is_under_engine({"topology": "x"}, dict.fromkeys(engine.needs, "0"))


def test_markers_are_of_engines() -> None:
    """No marker is left of an engine that is gone."""
    assert set(ENGINE_MARKERS) <= {name for engine in ENGINES for name in engine.needs}
    assert not is_under_engine({}, {"SLURM_JOB_ID": "1", "RANK": "0"})


@pytest.mark.parametrize("engine", ENGINES, ids=LABELS)
def test_a_row_is_complete(engine: Engine) -> None:
    """It says who starts ranks, by names as the kernel cuts them, and what leaves masks alone; each
    rank has its number in a variable that it needs."""
    assert engine.daemons
    assert all(len(name) <= 15 for name in engine.daemons)
    assert engine.unbind
    assert engine.crowd
    assert set(engine.rank) & set(engine.needs)


def test_the_option_offers_every_engine() -> None:
    """--engine takes each name of the table, and offers them all."""
    option = next(o for o in OPTIONS if o.key == "engine")
    assert set(option.suggest) == {*names(), "none"}
    assert all(name in option.help for name in names())
    for name in option.suggest:
        assert read_arguments(["--engine", name], "run")[0] == {"engine": name}
    with pytest.raises(UsageError, match="not an engine"):
        read_arguments(["--engine", "pbs"], "run")


@pytest.mark.skipif(sys.platform != "linux", reason="engines are looked for on Linux only")
def test_engines_are_loaded_only_where_there_may_be_one() -> None:
    """By what Python says it imported: nothing of them without an engine's variable."""
    code = (
        "import os, sys\n"
        "from ompbind.cli import main\n"
        "def leave(*_):\n"
        "    print([m for m in sys.modules if 'engines' in m], flush=True)\n"
        "    os._exit(0)\n"
        "os.execve = leave\n"
        "main(['run', '--binder', 'native', '--', 'true'])\n"
    )
    rank = {"PMI_RANK": "0", "PMI_SIZE": "2", "MPI_LOCALRANKID": "0", "MPI_LOCALNRANKS": "1"}
    for extra, loaded in (({}, False), (rank, True)):
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=environment() | extra,
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert ("ompbind.engines" in done.stdout) is loaded, done.stderr
