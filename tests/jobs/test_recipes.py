"""The recipes of examples/jobs: those that run here are run, others are checked by the tool that
reads them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.jobs.ranks import AS_ROOT, PROBE, read_ranks
from tests.jobs.slurm import Slurm
from tests.jobs.test_quick import assert_apart
from tests.support.commands import OMPBIND, TIMEOUT, environment
from tests.support.needs import REPOSITORY, need_cpus, unavailable

JOBS = REPOSITORY / "examples/jobs"


def recipe_environment(*folders: Path, **more: str) -> dict[str, str]:
    """An environment in which a recipe finds this ompbind, and the programs in these folders."""
    places = [*map(str, folders), str(Path(OMPBIND).parent), os.environ["PATH"]]
    return environment(PATH=os.pathsep.join(places), **AS_ROOT, **more)


def test_hybrid(slurm: Slurm, tmp_path: Path) -> None:
    """MPI and OpenMP under srun: the log has the plan, and all ranks of a node are apart."""
    need_cpus(2)
    folder = tmp_path / "ranks"
    folder.mkdir()
    recipe = str(JOBS / "hybrid.sbatch")
    words = ("--nodes=2", "--ntasks-per-node=2", recipe, *PROBE, str(folder))
    text = slurm.submit(*words, env=recipe_environment(), folder=tmp_path)
    assert text.startswith("4 ranks on 2 hosts")
    assert_apart(read_ranks(folder), 4)


def test_one_per_node(slurm: Slurm, tmp_path: Path) -> None:
    """One ompbind on each node starts its ranks, which are numbered over the job."""
    need_cpus(2)
    folder = tmp_path / "ranks"
    folder.mkdir()
    program = tmp_path / "train.py"
    program.write_text(f"import os, sys\nos.execvp('sh', {[*PROBE]!r} + sys.argv[1:])\n")
    python = tmp_path / "python"
    python.symlink_to(sys.executable)
    words = ("--nodes=2", str(JOBS / "one-per-node.sbatch"), "2", str(program), str(folder))
    slurm.submit(*words, env=recipe_environment(tmp_path), folder=tmp_path)
    ranks = read_ranks(folder)
    assert_apart(ranks, 4)
    assert sorted(r.number("RANK") for r in ranks) == [0, 1, 2, 3]
    assert {r.number("WORLD_SIZE") for r in ranks} == {4}
    assert len({r.environ["MASTER_ADDR"] for r in ranks}) == 1


@pytest.mark.parametrize("launcher", ["mpirun.openmpi", "mpiexec.mpich"])
def test_mpirun(launcher: str, tmp_path: Path) -> None:
    """The script tells any launcher not to bind; ompbind divides the machine."""
    need_cpus(2)
    if shutil.which(launcher) is None:
        unavailable(f"there is no {launcher}; tools/setup-system test installs it")
    run_script(launcher, tmp_path)


def run_script(launcher: str, tmp_path: Path) -> None:
    """Run examples/jobs/mpirun.sh with a launcher, two ranks, and judge them."""
    folder = tmp_path / "ranks"
    folder.mkdir()
    done = subprocess.run(
        [str(JOBS / "mpirun.sh"), "2", *PROBE, str(folder)],
        env=recipe_environment(MPIRUN=launcher),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )
    assert done.returncode == 0, done.stderr
    assert_apart(read_ranks(folder), 2)


def test_unit(tmp_path: Path) -> None:
    """systemd accepts the unit: its own verifier finds nothing, and finds a misspelt key."""
    if shutil.which("systemd-analyze") is None:
        unavailable("there is no systemd-analyze")
    text = (JOBS / "ompbind@.service").read_text()
    text = text.replace("/usr/local/bin/ompbind", OMPBIND)
    text = text.replace("/usr/local/bin/server", str(shutil.which("true")))
    assert "/usr/local" not in text
    unit = tmp_path / "ompbind@1.service"
    for wrong in (False, True):
        unit.write_text(text.replace("Restart=", "Restarts=") if wrong else text)
        done = subprocess.run(
            ["systemd-analyze", "verify", str(unit)],
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
        )
        problems = [ln for ln in done.stderr.splitlines() if unit.name in ln]
        assert bool(problems) is wrong, done.stderr


def test_kubelet_reserves_what_it_must() -> None:
    """The memory manager's reservation is what the kubelet demands: the sum of kubeReserved,
    systemReserved and the hard eviction threshold."""
    text = (JOBS / "kubelet.yaml").read_text()
    sizes = [int(size) for size in re.findall(r"memory(?:\.available)?: (\d+)Mi", text)]
    reserved, *parts = sizes
    assert reserved == sum(parts) > 0
