"""Slurm's srun: --cpu-bind, --distribution, --cpus-per-task.

The table was recorded from Slurm 22.05.8 (task/affinity, cons_tres with CR_Core, a cpu being a
hardware thread), run in a virtual machine of the shape below, each task printing its
Cpus_allowed_list; the two rows of map_cpu and mask_cpu are by srun's manual page.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from ompbind.cpuset import union
from tests.parity.plans import cpus_of, plan_for
from tests.support.trees import Shape, make_files, write_tree

SHAPE = Shape(packages=2, nodes=4, cores=8, threads=2, l3s=4, numbering="pairs")
CORES = "0-1 2-3 4-5 6-7 8-9 10-11 12-13 14-15"

# srun's options, ours (besides --smt all), the cpus of each rank.
CASES = [
    ("-n 2 -c 4 --cpu-bind=cores -m block:block", "-n 2 --part 1/2 --cores-per-rank 2", "0-3 4-7"),
    ("-n 4 -c 4 --cpu-bind=cores -m block:block", "-n 4 --cores-per-rank 2", "0-3 4-7 8-11 12-15"),
    ("-n 4 -c 4 --cpu-bind=cores -m block:cyclic",
     "--per package -n 4 --distribution cyclic --cores-per-rank 2", "0-3 8-11 4-7 12-15"),
    ("-n 2 -c 8 --cpu-bind=cores", "--per package", "0-7 8-15"),
    ("-n 8 -c 2 --hint=nomultithread --cpu-bind=cores -m block:block", "--per core", CORES),
    ("-n 2 -c 2 --cpu-bind=mask_cpu:0xff,0xff00", "--numa-bind-cpus 0-7 8-15", "0-7 8-15"),
    ("-n 4 -c 4 --cpu-bind=map_cpu:0,4,8,12", "--numa-bind-cpus 0 4 8 12", "0 4 8 12"),
]  # fmt: skip


@pytest.mark.parametrize(("theirs", "ours", "expected"), CASES, ids=[c[0] for c in CASES])
def test_ranks_are_where_srun_puts_them(
    tmp_path: Path, theirs: str, ours: str, expected: str
) -> None:
    """The same cpus, rank by rank, for each distribution over the sockets."""
    write_tree(make_files(SHAPE), tmp_path)
    smt = "" if "--numa-bind-cpus" in ours else "--smt all"
    assert cpus_of(plan_for(tmp_path, f"{ours} {smt} --binder native")) == expected.split()


# srun's options, what it gave, ours.
WORSE = [
    ("-n 4 --cpu-bind=cores", "0-1 8-9 8-9 0-1", "-n 4"),
    ("-n 8 --cpu-bind=cores -m block:block", "0-1 2-3 4-5 6-7 0-1 2-3 4-5 6-7", "-n 8"),
    ("-n 8 --cpu-bind=cores -m block:cyclic", "0-1 8-9 2-3 10-11 8-9 0-1 10-11 2-3",
     "--per package -n 8 --distribution cyclic"),
    ("-n 4 --exclusive --cpu-bind=sockets", "0-3 0-3 0-3 0-3", "--per package -n 4"),
    ("-n 4 -c 4 --cpu-bind=cores -m block:fcyclic", "0-1,8-9 2-3,10-11 4-5,12-13 6-7,14-15",
     "-n 4"),
]  # fmt: skip


@pytest.mark.parametrize(("theirs", "given", "ours"), WORSE, ids=[c[0] for c in WORSE])
def test_no_core_is_shared_and_no_node_crossed_where_slurm_does(
    tmp_path: Path, theirs: str, given: str, ours: str
) -> None:
    """Where a cpu is a hardware thread, Slurm counts one for each task: two tasks share a core, or
    all sit in one half of the machine, and fcyclic spreads a task over both packages. Ours gives
    every rank cores of its own inside one node."""
    write_tree(make_files(SHAPE), tmp_path)
    plan = plan_for(tmp_path, f"{ours} --smt all --binder native")
    assert cpus_of(plan) != given.split()
    sets = [rank.cpus for rank in plan.ranks]
    assert sum(map(len, sets)) == len(union(sets)) == 16
    assert all(len(rank.nodes) == 1 for rank in plan.ranks)
