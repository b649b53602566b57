"""Ranks below stand-ins of engines' daemons: shells under their names, which start real launches.
What the ranks are is read from `/proc`."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from ompbind.cpuset import CpuSet, union
from tests.engines.test_nesting import mpich, openmpi, slurm, torchrun
from tests.support.commands import OMPBIND, TIMEOUT, environment
from tests.support.confine import need
from tests.support.needs import need_cpus

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="engines are known on Linux only")

# What a rank is: its mask by the kernel, and the variables that say it.
WORKER = (
    "echo $(grep Cpus_allowed_list: /proc/self/status | cut -f 2)"
    " $OMPBIND_ENGINE $OMPBIND_RANK/$OMPBIND_RANKS ${OMP_NUM_THREADS} ${RANK:--}"
)
# A shell that starts each of its arguments, an environment and a command as lines, at once.
DAEMON = "for rank; do env $rank & done; wait"


def daemon(tmp_path: Path, name: str) -> str:
    """A shell whose process has this name."""
    path = tmp_path / name
    if not path.exists():
        path.symlink_to(shutil.which("sh") or "/bin/sh")
    return str(path)


def start(
    names: Sequence[str],
    environs: Sequence[Mapping[str, str]],
    args: str,
    tmp_path: Path,
    before: str = "",
    mask: str = "",
) -> subprocess.CompletedProcess[str]:
    """Ranks with these environments below daemons, the outermost first, which may use `mask`.
    `before`: what stands in front of each ompbind."""
    outer: list[str] = []
    for name in names[:-1]:
        outer += [daemon(tmp_path, name), "-c", '"$@"; exit $?', name]
    script = tmp_path / "worker"
    script.write_text(f"#!/bin/sh\n{WORKER}\n")
    script.chmod(0o755)
    ranks = [
        " ".join([*(f"{k}={v}" for k, v in e.items()), f"{before}{OMPBIND} run {args} -- {script}"])
        for e in environs
    ]
    bound = ["taskset", "-c", mask] if mask else []
    return subprocess.run(
        [*bound, *outer, daemon(tmp_path, names[-1]), "-c", DAEMON, names[-1], *ranks],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )


def test_ranks_of_an_engine_that_does_not_bind(tmp_path: Path) -> None:
    """Each gets its own part of what all have; torchrun's thread is not the user's, a note of the
    first rank says so, and nobody else's variables are touched."""
    need_cpus(2)
    stale = slurm(0, 2)
    environs = [torchrun(r, 2) | stale | {"OMP_NUM_THREADS": "1"} for r in range(2)]
    done = start(["slurmstepd", "pt_elastic"], environs, "--smt all", tmp_path)
    rows = [line.split() for line in sorted(done.stdout.splitlines(), key=lambda w: w.split()[2])]
    assert [row[1:3] for row in rows] == [["torchrun", "0/2"], ["torchrun", "1/2"]]
    masks = [CpuSet.parse_kernel(row[0]) for row in rows]
    assert union(masks) == CpuSet(os.sched_getaffinity(0))
    assert not masks[0] & masks[1]
    assert [row[3] for row in rows] == [str(len(mask)) for mask in masks]
    assert [row[4] for row in rows] == ["0", "1"]
    assert done.stderr == ("ompbind: note: OMP_NUM_THREADS=1 overridden (ompbind show tells why)\n")


def test_the_nearest_daemon_counts(tmp_path: Path) -> None:
    """Below slurmstepd stale variables of mpirun do not count; each refusal says whose it is."""
    cpu = str(need_cpus(2)[0])
    environs = [slurm(r, 2) | openmpi(3, 8) for r in range(2)]
    done = start(["mpirun", "slurmstepd"], environs, "-n 3", tmp_path)
    lines = sorted(done.stderr.splitlines())
    assert done.stdout == ""
    host, problem = os.uname().nodename, "--ranks 3: Slurm has already started 2 ranks"
    assert [line for line in lines if "error" in line] == [
        f"ompbind: error: rank {r} on {host}: {problem} on {host}" for r in range(2)
    ]
    many = start(["slurmstepd"], environs, "", tmp_path, mask=cpu)
    assert many.stderr.count("Slurm has started 2 ranks on cpu") == 2
    assert "srun --overcommit" in many.stderr


def test_a_container_without_visible_ancestors(tmp_path: Path) -> None:
    """In a pid namespace with a /proc of its own the first process sees nobody: the variables are
    enough."""
    need_cpus(2)
    user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    apart = need(["unshare", *user, "--pid", "--fork", "--mount-proc"])
    masks = []
    for rank in range(2):
        env = environment() | mpich(rank, 2) | slurm(0, 2)
        command = [
            *apart,
            OMPBIND,
            "run",
            "--binder",
            "native",
            "--smt",
            "all",
            "--",
            "sh",
            "-c",
            WORKER,
        ]
        done = subprocess.run(
            command, env=env, capture_output=True, text=True, timeout=TIMEOUT, check=False
        )
        assert done.stderr == ""
        row = done.stdout.split()
        assert row[1:3] == ["mpich", f"{rank}/2"]
        masks.append(CpuSet.parse_kernel(row[0]))
    assert not masks[0] & masks[1]
    assert union(masks) == CpuSet(os.sched_getaffinity(0))


def test_within_node_widens_the_mask(tmp_path: Path) -> None:
    """A rank bound to one cpu, below a daemon that may use all, gets its part of all of them, by
    numactl and without; and --verify holds it to that."""
    cpus = need_cpus(2)
    environs = [mpich(r, 2) for r in range(2)]
    for binder in ("native", "auto"):
        args = f"--within node --smt all --verify --binder {binder}"
        done = start(["hydra_pmi_proxy"], environs, args, tmp_path, f"taskset -c {cpus[0]} ")
        rows = [line.split() for line in done.stdout.splitlines()]
        assert union(CpuSet.parse_kernel(row[0]) for row in rows) == CpuSet(os.sched_getaffinity(0))
        assert "warning" not in done.stderr
