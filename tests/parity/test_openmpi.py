"""Open MPI's --map-by and --bind-to.

The table was recorded from Open MPI 4.1.4, run in a virtual machine of the shape below, each rank
printing its Cpus_allowed_list. Where this machine has mpirun it is run here too, as the judge.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.parity.plans import cpus_of, plan_for
from tests.support.needs import unavailable
from tests.support.trees import Shape, make_files, write_tree

SHAPE = Shape(packages=2, nodes=4, cores=8, threads=2, l3s=4, numbering="pairs")
CORES = "0-1 2-3 4-5 6-7 8-9 10-11 12-13 14-15"
NODES = "0-3 4-7 8-11 12-15"

# mpirun's options, ours (besides --smt all), the cpus of each rank.
CASES = [
    ("-n 1", "--per core -n 1", "0-1"),
    ("-n 2", "--per core -n 2", "0-1 2-3"),
    ("-n 4", "--per numa", NODES),
    ("-n 2 --map-by socket --bind-to socket", "--per package", "0-7 8-15"),
    ("-n 4 --map-by socket --bind-to socket", "--per package -n 4 --share --distribution cyclic",
     "0-7 8-15 0-7 8-15"),
    ("-n 4 --map-by numa --bind-to numa", "--per numa", NODES),
    ("-n 8 --map-by numa --bind-to numa", "--per numa -n 8 --share --distribution cyclic",
     f"{NODES} {NODES}"),
    ("-n 4 --map-by ppr:1:numa --bind-to numa", "--per numa", NODES),
    ("-n 8 --map-by ppr:2:numa --bind-to core", "--per numa -n 8", CORES),
    ("-n 4 --map-by socket --bind-to core",
     "--per package -n 4 --distribution cyclic --cores-per-rank 1", "0-1 8-9 2-3 10-11"),
    ("-n 8 --map-by core --bind-to core", "--per core", CORES),
    ("-n 4 --map-by core --bind-to core", "--per core -n 4", "0-1 2-3 4-5 6-7"),
    ("-n 4 --map-by numa:PE=2 --bind-to core", "--per numa --cores-per-rank 2", NODES),
    ("-n 2 --map-by socket:PE=4 --bind-to core", "--per package --cores-per-rank 4", "0-7 8-15"),
    ("-n 4 --map-by slot:PE=2 --bind-to core", "-n 4 --cores-per-rank 2", NODES),
    ("-n 4 --map-by l3cache --bind-to l3cache", "--per l3", NODES),
    ("-n 8 --rank-by core --map-by numa --bind-to core", "--per numa -n 8", CORES),
    ("-n 2 --bind-to none", "-n 2 --share", "0-15 0-15"),
    ("-n 16 --map-by hwthread --bind-to hwthread",
     "--numa-bind-cpus 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15", " ".join(map(str, range(16)))),
]  # fmt: skip


@pytest.mark.parametrize(("theirs", "ours", "expected"), CASES, ids=[c[0] for c in CASES])
def test_ranks_are_where_mpirun_puts_them(
    tmp_path: Path, theirs: str, ours: str, expected: str
) -> None:
    """Every mapping and binding has options that give the very same cpus, rank by rank."""
    write_tree(make_files(SHAPE), tmp_path)
    smt = "" if "--numa-bind-cpus" in ours else "--smt all"
    assert cpus_of(plan_for(tmp_path, f"{ours} {smt} --binder native")) == expected.split()


def test_named_cpus_are_the_cpus_named(tmp_path: Path) -> None:
    """mpirun 4.1 took `--cpu-list 0,4,8,12 --bind-to cpulist:ordered` for 0, 1, 8 and 9 here: it
    counts otherwise than the kernel does. Here a number is the kernel's."""
    write_tree(make_files(SHAPE), tmp_path)
    plan = plan_for(tmp_path, "--numa-bind-cpus 0 4 8 12 --binder native")
    assert cpus_of(plan) == ["0", "4", "8", "12"]


@pytest.mark.parametrize(
    ("theirs", "ours"), [("--map-by core --bind-to core", "--per core"),
                         ("--map-by socket --bind-to socket", "--per package --share"),
                         ("--bind-to none", "--share")],
)  # fmt: skip
def test_mpirun_here_reports_what_is_planned_here(
    theirs: str, ours: str, ompbind: str, plain_environ: Mapping[str, str]
) -> None:
    """As many ranks as both allow, by --report-bindings and by taskset from within the workers."""
    mpirun = shutil.which("mpirun.openmpi") or shutil.which("mpirun")
    if mpirun is None:
        unavailable("there is no mpirun; `tools/setup-system test` installs it")
    count = min(2, len(os.sched_getaffinity(0)))
    env = {**plain_environ, "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    told = ["sh", "-c", "echo rank ${OMPI_COMM_WORLD_RANK:-$OMPBIND_RANK} $(taskset -cp $$)"]
    options = ["-n", str(count), "--report-bindings", *theirs.split()]
    judged = subprocess.run(
        [mpirun, *options, *told], env=env, capture_output=True, text=True, timeout=60
    )
    assert judged.returncode == 0, judged.stderr
    planned = subprocess.run(
        [ompbind, "run", "-n", str(count), "--smt", "all", *ours.split(), "--", *told],
        env=plain_environ, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert planned.returncode == 0, planned.stderr
    assert masks(planned.stdout) == masks(judged.stdout)
    assert len(masks(judged.stdout)) == count
    bound = re.findall(r"rank (\d+) bound to", judged.stderr)
    assert len(bound) == (count if "--bind-to core" in theirs else 0)  # else: all processors


def masks(text: str) -> dict[int, str]:
    """What the workers printed: taskset's list by rank."""
    found = re.findall(r"rank (\d+) pid \d+'s current affinity list: (\S+)", text)
    return {int(rank): cpus for rank, cpus in found}
