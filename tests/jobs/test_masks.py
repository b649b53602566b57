"""Engines on a machine of 16 cpus, two packages of four cores of two threads, in QEMU: what each
rank gets where the engine gives it a mask of its own, one for all, or one for some. `make
test-engines` runs it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.guest import guest
from tests.guest.packages import GuestError
from tests.jobs.environments import cache_folder, need_environment
from tests.jobs.guest import JOBS, MACHINE
from tests.support.commands import OMPBIND
from tests.support.needs import REPOSITORY, unavailable
from tests.support.shared import once

TIMEOUT = 1200  # seconds; emulated, and beside whatever else runs

# Each rank's cpus, in the order of the ranks.
EXPECTED = {
    # A task on each thread: cpus 0 and 8 first, then their siblings. Slurm has bound them so; there
    # is a warning.
    "srun": "0 8 1 9",
    # One mask for both tasks, half of the machine, is divided by cores, one thread of each.
    "srun none": "0,2 4,6",
    # Tasks 0 and 2 share a package, 1 and 3 the other: Slurm says so.
    "srun sockets": "0,2 8,10 4,6 12,14",
    # Tasks 0 and 2 share one core, 1 and 3 another: a thread each, with a warning.
    "srun cores": "0 2 1 3",
    # Open MPI 4 binds four ranks to packages, as nobody has asked for: the machine is divided.
    "openmpi": "0,2 4,6 8,10 12,14",
    "openmpi none": "0,2 4,6 8,10 12,14",
    # Asked for, and it is not known who shares: all of the mask, half of the threads.
    "openmpi socket": "0,2,4,6 8,10,12,14 0,2,4,6 8,10,12,14",
    # Open MPI 5 has bound each rank to a core.
    "openmpi5": "0 2 4 6",
    "mpich": "0,2 4,6 8,10 12,14",
    "mpich socket": "0,2,4,6 8,10,12,14 0,2,4,6 8,10,12,14",
    # Intel MPI has bound each rank to a quarter.
    "intelmpi": "0,2 4,6 8,10 12,14",
}
WARNED = {
    "srun": "srun -c 2",
    "srun cores": "srun -c 2",
    "openmpi socket": "mpirun --bind-to none",
    "mpich socket": "mpiexec -bind-to none",
}


def run_guest() -> dict[str, Any]:
    """Boot the machine and run all jobs there."""
    if reason := guest.why_not():
        unavailable(reason)
    env = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LC_ALL": "C"}
    command = [sys.executable, "-m", "tests.jobs.guest", str(cache_folder())]
    try:
        outcome = guest.run(MACHINE, command, env=env, cwd=REPOSITORY, timeout=TIMEOUT)
    except GuestError as e:
        pytest.fail(str(e))
    assert outcome.status == 0, outcome.err
    results: dict[str, Any] = json.loads(outcome.out)
    return results


@pytest.mark.parametrize("job", JOBS)
def test_masks(job: str) -> None:
    """Each rank of the job is where it is to be, with no more threads than its share of cores."""
    for group in ("openmpi5", "intelmpi"):
        need_environment(group)
    assert Path(OMPBIND).exists()
    result = once("engines-in-guest", run_guest)[job]
    assert result["status"] == 0, result["err"]
    ranks = sorted(result["ranks"], key=lambda rank: int(rank[1]["RANK"]))
    assert [cpus for cpus, _ in ranks] == EXPECTED[job].split()
    threads = 2 if "," in EXPECTED[job] else 1
    assert {env["OMP_NUM_THREADS"] for _, env in ranks} == {str(threads)}
    assert {env["WORLD_SIZE"] for _, env in ranks} == {str(len(ranks))}
    warned = [ln for ln in result["err"].splitlines() if ln.startswith("hint: ")]
    assert bool(warned) is (job in WARNED), result["err"]
    assert WARNED.get(job, "") in "".join(warned)
