"""Ranks of engines that Debian has: Slurm with four nodes on this machine, Open MPI 4 and MPICH.

Each job says where its ranks are and what they were given; nothing is asked of ompbind itself.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from itertools import count
from pathlib import Path

import pytest

from ompbind.cpuset import union
from tests.jobs.ranks import Job, Rank, read_ranks, run_job
from tests.jobs.slurm import Slurm
from tests.support.commands import OMPBIND, environment
from tests.support.needs import need_cpus, unavailable


def run(
    tmp_path: Path,
    slurm: Slurm,
    engine: str,
    *options: str,
    expect: int | None = 0,
    environ: Mapping[str, str] | None = None,
) -> Job:
    """Run a probe under `ENGINE ompbind run OPTIONS` on the cluster."""
    folder = next(f for f in (tmp_path / f"job{n}" for n in count()) if not f.exists())
    words = engine.split()
    if shutil.which(words[0]) is None:
        unavailable(f"there is no {words[0]}; tools/setup-system test installs it")
    return run_job(words, options, folder, slurm.environ | dict(environ or {}), expect)


def by_node(ranks: Sequence[Rank]) -> list[list[Rank]]:
    """The ranks of each of Slurm's nodes; one list elsewhere."""
    nodes: dict[str, list[Rank]] = {}
    for rank in ranks:
        nodes.setdefault(rank.environ.get("SLURMD_NODENAME", ""), []).append(rank)
    return list(nodes.values())


def assert_apart(ranks: Sequence[Rank], count: int) -> None:
    """So many ranks: those of a node share no cpu, and none has more threads than cpus."""
    assert len(ranks) == count
    for node in by_node(ranks):
        assert sum(len(r.cpus) for r in node) == len(union(r.cpus for r in node)), ranks
    for rank in ranks:
        assert rank.environ["OMPBIND_CPUS"] == str(rank.cpus)
        assert 1 <= rank.number("OMP_NUM_THREADS") <= len(rank.cpus)


SHARED = (
    "srun -n2",
    "srun -n2 --cpu-bind=none",
    "srun -n2 --cpu-bind=sockets",
    "srun -N2 -n4 --ntasks-per-node=2 --cpu-bind=none",
    "mpirun.openmpi -n 2",
    "mpirun.openmpi -n 2 --bind-to none",
    "mpiexec.mpich -n 2",
    "mpiexec.mpich -n 2 -bind-to core",
    "salloc -N1 -n2 mpiexec.mpich -n 2 -launcher fork",
    "salloc -N1 -n2 mpirun.openmpi -n 2 --bind-to none --mca plm isolated --mca ras ^slurm",
)


@pytest.mark.parametrize("engine", SHARED)
def test_local_ranks_share_no_cpu(engine: str, slurm: Slurm, tmp_path: Path) -> None:
    """Whether the engine binds or not, each rank of a node has cores of its own, and its number in
    the job is the engine's."""
    need_cpus(2)
    job = run(tmp_path, slurm, engine, "--rank-env")
    ranks = 4 if "-n4" in engine else 2
    assert_apart(job.ranks, ranks)
    assert job.values("RANK") == [str(n) for n in range(ranks)]
    assert set(job.values("WORLD_SIZE")) == {str(ranks)}
    assert job.values("LOCAL_RANK") == sorted(["0", "1"] * (ranks // 2))
    assert set(job.values("LOCAL_WORLD_SIZE")) == {"2"}


def test_variables_are_left_alone(slurm: Slurm, tmp_path: Path) -> None:
    """Without --rank-env no RANK is made up; the process is the one that Slurm started."""
    job = run(tmp_path, slurm, "srun -n2")
    assert job.values("RANK") == ["", ""]
    assert job.values("SLURM_PROCID") == ["0", "1"]
    for rank in job.ranks:
        assert rank.pid == rank.number("SLURM_TASK_PID")


def test_variables_passed_on_are_not_the_engine_s(slurm: Slurm, tmp_path: Path) -> None:
    """srun passes on what a torchrun or mpirun has left in the environment."""
    stale = {
        "RANK": "5", "LOCAL_RANK": "1", "WORLD_SIZE": "6", "LOCAL_WORLD_SIZE": "2",
        "GROUP_RANK": "2", "TORCHELASTIC_RUN_ID": "x", "OMPI_COMM_WORLD_RANK": "3",
        "OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_LOCAL_RANK": "3",
        "OMPI_COMM_WORLD_LOCAL_SIZE": "4",
    }  # fmt: skip
    job = run(tmp_path, slurm, "srun -n2 --cpu-bind=none", "--rank-env", environ=stale)
    assert_apart(job.ranks, 2)
    assert job.values("RANK") == ["0", "1"]
    assert job.values("WORLD_SIZE") == ["2", "2"]


def test_one_ompbind_on_each_node(slurm: Slurm, tmp_path: Path) -> None:
    """-n starts ranks on each node; they are numbered over the job, and meet on its first host."""
    need_cpus(2)
    options = ("-n", "2", "--master-port", "29500")
    job = run(tmp_path, slurm, "srun -N2 -n2 -c2", *options)
    assert_apart(job.ranks, 4)
    assert job.values("RANK") == ["0", "1", "2", "3"]
    assert set(job.values("WORLD_SIZE")) == {"4"}
    assert job.values("LOCAL_RANK") == ["0", "0", "1", "1"]
    assert len(set(job.values("MASTER_ADDR"))) == 1
    for rank in job.ranks:
        first = rank.environ["SLURM_STEP_NODELIST"].replace("[", "").partition("-")[0]
        assert rank.environ["MASTER_ADDR"] == first.partition(",")[0]
        assert rank.number("RANK") // 2 == rank.number("SLURM_NODEID")


def test_a_batch_script_is_no_rank(slurm: Slurm, tmp_path: Path) -> None:
    """sbatch's script has variables like those of rank 0 of 2, and gets all that is allocated."""
    script = tmp_path / "script"
    folder = tmp_path / "ranks"
    folder.mkdir()
    probe = Path(__file__).with_name("probe.sh")
    script.write_text(f"#!/bin/sh\nexec {OMPBIND} run -- sh {probe} {folder}\n")
    slurm.submit("-N1", "-n2", str(script), env=environment(), folder=tmp_path)
    (rank,) = read_ranks(folder)
    assert rank.environ["SLURM_PROCID"] == "0"
    assert len(rank.cpus) == 2
    assert "RANK" not in rank.environ


def test_output_files_by_rank(slurm: Slurm, tmp_path: Path) -> None:
    """Each rank of the job has files of its own."""
    run(tmp_path, slurm, "srun -n2", "--output-dir", str(tmp_path / "out"))
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["rank-0.err", "rank-0.out", "rank-1.err", "rank-1.out"]


@pytest.mark.parametrize(
    ("engine", "options", "message"),
    [
        ("srun -N1 -n2", ["-n", "2"], "already"),
        ("mpiexec.mpich -n 2", ["-n", "2"], "already"),
        ("srun -N1 -n2", ["--master-port", "auto"], "--master-port auto"),
        ("srun -N1 -n2", ["--engine", "openmpi"], "--engine openmpi"),
        ("srun -N1 -n2 --cpu-bind=none", ["--numa-bind-cpus", "0"], "--numa-bind-cpus"),
    ],
)
def test_refused(
    engine: str, options: Sequence[str], message: str, slurm: Slurm, tmp_path: Path
) -> None:
    """Nothing is started, and every rank says which one it is."""
    job = run(tmp_path, slurm, engine, *options, expect=None)
    assert job.ranks == ()
    assert job.status != 0
    errors = [ln for ln in job.err.splitlines() if ln.startswith("ompbind: error: ")]
    assert errors
    assert all(message in ln for ln in errors)
    assert not any("Traceback" in ln for ln in job.err.splitlines())


def test_engine_none(slurm: Slurm, tmp_path: Path) -> None:
    """--engine none plans as if nobody had started other ranks."""
    job = run(tmp_path, slurm, "srun -N1 -n2 --cpu-bind=none", "--engine", "none")
    first, second = job.ranks
    assert first.cpus == second.cpus


def test_snapshots_of_all_hosts(slurm: Slurm, tmp_path: Path) -> None:
    """srun collects a snapshot of each host under its name; all are of one kind, as they are one
    machine, and the plan of the job is that of the ranks that Slurm then starts."""
    need_cpus(2)
    hosts, folder = "n[0-3]", tmp_path / "snapshots"
    folder.mkdir()
    collect = ["srun", f"--nodelist={hosts}", "--ntasks-per-node=1"]
    slurm.run(*collect, OMPBIND, "topo", "--save", f"{folder}/%N")
    assert sorted(path.name for path in folder.iterdir()) == ["n0", "n1", "n2", "n3"]
    show = ["show", "--hosts", hosts, "--topology", str(folder), "-n", "2", "--format", "json"]
    plan = json.loads(slurm.run(OMPBIND, *show).stdout)
    (group,) = plan["groups"]
    assert (group["hosts"], group["differences"]) == (hosts, [])
    job = run(tmp_path, slurm, f"srun --nodelist={hosts} -n4 -c2 --cpu-bind=none", "-n", "2")
    planned = [
        (host["host"], host["first_rank"] + rank["rank"], rank["cpus"])
        for host in plan["hosts"]
        for rank in plan["groups"][host["group"]]["plan"]["ranks"]
    ]
    started = [(r.environ["SLURMD_NODENAME"], r.number("RANK"), str(r.cpus)) for r in job.ranks]
    assert sorted(started) == planned
