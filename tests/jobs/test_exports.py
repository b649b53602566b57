"""`show --format srun` and `rankfile`, carried out by Slurm and Open MPI: each rank is where the
plan has it, by /proc."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

import ompbind
from ompbind.exports import make_export
from ompbind.plans import Plan
from tests.jobs.ranks import AS_ROOT, PROBE, Rank, read_ranks
from tests.jobs.slurm import Slurm
from tests.support.commands import TIMEOUT, environment
from tests.support.needs import need_cpus, need_numactl, unavailable


def make_text(form: str, plan: Plan) -> str:
    return make_export(form, plan, None, lambda name: name)[0]


def by_number(folder: Path, variable: str) -> list[Rank]:
    """The ranks in the order of an engine's numbers."""
    return sorted(read_ranks(folder), key=lambda rank: rank.number(variable))


def assert_planned(ranks: list[Rank], plan: Plan) -> None:
    """The cpus of the plan, and the variables that all its ranks share."""
    assert [rank.cpus for rank in ranks] == [rank.cpus for rank in plan.ranks]
    for rank in ranks:
        assert rank.environ["OMP_NUM_THREADS"] == "1"
        assert rank.environ["ODD"] == "a 'b' \"$c\" {d}"
        assert "GOMP_CPU_AFFINITY" not in rank.environ


def test_srun_carries_out_the_plan(
    slurm: Slurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The masks go to the tasks in order, the other way round than Slurm would bind them, and their
    memory is bound; the line holds for each of two nodes."""
    first, second = need_cpus(2)
    need_numactl()
    monkeypatch.setenv("GOMP_CPU_AFFINITY", "0")
    shown = f"numactl --show >{tmp_path}/$SLURM_PROCID.shown; exec {shlex.join(PROBE)} {tmp_path}"
    plan = ompbind.plan(
        numa_bind_cpus=[str(second), str(first)], mem="bind", command=["sh", "-c", shown],
        env={"ODD": "a 'b' \"$c\" {{d}}"},
    )  # fmt: skip
    words = shlex.split(make_text("srun", plan))
    slurm.run("srun", "-N2", *words[1:])
    ranks = by_number(tmp_path, "SLURM_PROCID")
    assert_planned(ranks[:2], plan)
    assert_planned(ranks[2:], plan)
    for number in range(4):
        text = (tmp_path / f"{number}.shown").read_text()
        assert "policy: bind\n" in text
        assert f"membind: {' '.join(map(str, plan.ranks[number % 2].mems))} \n" in text


def run_mpirun(*words: str, folder: Path) -> subprocess.CompletedProcess[str]:
    if shutil.which("mpirun.openmpi") is None:
        unavailable("there is no mpirun.openmpi; tools/setup-system test installs it")
    return subprocess.run(
        ["mpirun.openmpi", *words], env=environment(**AS_ROOT, GOMP_CPU_AFFINITY="0"), cwd=folder,
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=TIMEOUT,
    )  # fmt: skip


def test_mpirun_carries_out_the_plan(tmp_path: Path) -> None:
    """The command in the rankfile's comment, with that file, puts each rank on its cpus."""
    first, second = need_cpus(2)
    plan = ompbind.plan(
        numa_bind_cpus=[str(second), str(first)], command=[*PROBE, str(tmp_path)],
        env={"ODD": "a 'b' \"$c\" {{d}}"},
    )  # fmt: skip
    text = make_text("rankfile", plan)
    (tmp_path / "FILE").write_text(text)
    line = next(ln for ln in text.splitlines() if ln.startswith("# mpirun "))
    done = run_mpirun(*shlex.split(line)[2:], folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert_planned(by_number(tmp_path, "OMPI_COMM_WORLD_RANK"), plan)


def test_mpirun_counts_as_the_kernel_does(tmp_path: Path) -> None:
    """On a machine whose threads are numbered by halves, Open MPI would set the very cpus of the
    plan: it says so of those that this machine does not have."""
    if shutil.which("lstopo-no-graphics") is None:
        unavailable("there is no lstopo-no-graphics; tools/setup-system test installs it")
    cpus = "1500-1501,1756-1757"
    subprocess.run(
        ["lstopo-no-graphics", "-i", "pack:4 numa:1 core:256 pu:2(indexes=core*pu)", "--of", "xml",
         "--force", "machine.xml"],
        cwd=tmp_path, check=True, capture_output=True, timeout=TIMEOUT,
    )  # fmt: skip
    if max(os.sched_getaffinity(0)) >= 1500:
        pytest.skip("this machine has those cpus")
    plan = ompbind.plan(topology=tmp_path / "machine.xml", numa_bind_cpus=[cpus], command=["true"])
    text = make_text("rankfile", plan)
    (tmp_path / "FILE").write_text(text)
    line = next(ln for ln in text.splitlines() if ln.startswith("# mpirun "))
    words = ("--mca", "hwloc_base_topo_file", "machine.xml", *shlex.split(line)[2:])
    done = run_mpirun(*words, folder=tmp_path)
    assert f'for bitmap "{cpus}"' in done.stderr
