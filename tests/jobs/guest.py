"""Engines on a machine of 16 cpus, where the masks that they give to their ranks differ:

    python -m tests.jobs.guest OMPBIND ENVIRONMENTS

runs in the guest and prints each job's ranks as one JSON object. It judges nothing; test_masks.py
does, outside.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.guest.machine import Machine
from tests.jobs.ranks import run_job
from tests.jobs.slurm import running_slurm

# Two packages of four cores of two threads; cpus 0 and 1 are one core.
MACHINE = Machine(packages=2, nodes=1, cores=4, threads=2)
# On a host with no other address getaddrinfo(3) does not find the loopback's.
ADDRESS = "10.9.8.7"

JOBS = {
    "srun": "srun -n 4",
    "srun none": "srun -n 2 -c 4 --cpu-bind=none",
    "srun sockets": "srun -n 4 -c 4 --cpu-bind=sockets",
    "srun cores": "srun -n 4 --exclusive --cpu-bind=cores",
    "openmpi": "mpirun.openmpi --mca oob_tcp_if_include lo -n 4",
    "openmpi none": "mpirun.openmpi --mca oob_tcp_if_include lo -n 4 --bind-to none",
    "openmpi socket": "mpirun.openmpi --mca oob_tcp_if_include lo -n 4 --bind-to socket",
    "openmpi5": "{environments}/openmpi5/bin/mpirun -n 4",
    "mpich": "mpiexec.mpich -n 4",
    "mpich socket": "mpiexec.mpich -bind-to socket -n 4",
    "intelmpi": "{environments}/intelmpi/bin/mpiexec -n 4",
}


def prepare() -> None:
    """Give the loopback an address of the network, and cgroups the folder that slurmd wants."""
    subprocess.run(["ip", "address", "add", f"{ADDRESS}/32", "dev", "lo"], check=True)
    Path("/sys/fs/cgroup/system.slice").mkdir(exist_ok=True)


def main(environments: str) -> None:
    prepare()
    results = {}
    cgroup = "CgroupPlugin=cgroup/v2\nIgnoreSystemd=yes\n"
    with tempfile.TemporaryDirectory() as name, running_slurm(1, ADDRESS, cgroup) as slurm:
        for number, (job, text) in enumerate(JOBS.items()):
            engine = text.format(environments=environments).split()
            done = run_job(engine, ["--rank-env"], Path(name, str(number)), slurm.environ, None)
            results[job] = {
                "status": done.status,
                "err": done.err,
                "ranks": [(str(r.cpus), dict(r.environ)) for r in done.ranks],
            }
    json.dump(results, sys.stdout)


if __name__ == "__main__":
    main(*sys.argv[1:])
