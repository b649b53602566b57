"""Ranks of engines that Debian has: Slurm with four nodes on this machine, Open MPI 4 and MPICH.

Each job says where its ranks are and what they were given; nothing is asked of ompbind itself.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from tests.jobs.ranks import Job, read_ranks, run_job
from tests.jobs.slurm import Slurm, running_slurm
from tests.support.commands import OMPBIND
from tests.support.needs import unavailable


@pytest.fixture(scope="module")
def slurm() -> Iterator[Slurm]:
    """A cluster of four nodes, each of which is this machine."""
    with running_slurm(4) as cluster:
        yield cluster


def run(
    tmp_path: Path, slurm: Slurm, engine: str, *options: str, expect: int | None = 0, **env: str
) -> Job:
    """Run a probe under `ENGINE ompbind run OPTIONS` on the cluster."""
    folder = next(f for f in (tmp_path / f"job{n}" for n in count()) if not f.exists())
    words = engine.split()
    if shutil.which(words[0]) is None:
        unavailable(f"there is no {words[0]}; tools/setup-system test installs it")
    return run_job(words, options, folder, slurm.environ | env, expect)


def test_variables_are_left_alone(slurm: Slurm, tmp_path: Path) -> None:
    """Without --rank-env no RANK is made up; the process is the one that Slurm started."""
    job = run(tmp_path, slurm, "srun -n2")
    assert job.values("RANK") == ["", ""]
    assert job.values("SLURM_PROCID") == ["0", "1"]
    for rank in job.ranks:
        assert rank.pid == rank.number("SLURM_TASK_PID")


def test_a_batch_script_is_no_rank(slurm: Slurm, tmp_path: Path) -> None:
    """sbatch's script has variables like those of rank 0 of 2, and gets all that is allocated."""
    script = tmp_path / "script"
    folder = tmp_path / "ranks"
    folder.mkdir()
    probe = Path(__file__).with_name("probe.sh")
    script.write_text(f"#!/bin/sh\nexec {OMPBIND} run -- sh {probe} {folder}\n")
    output = tmp_path / "output"
    slurm.run("sbatch", "--wait", "-N1", "-n2", f"--output={output}", str(script))
    (rank,) = read_ranks(folder)
    assert rank.environ["SLURM_PROCID"] == "0"
    assert len(rank.cpus) == 2
    assert "RANK" not in rank.environ
