"""What an engine's ranks are under ompbind, as /proc has it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ompbind.cpuset import CpuSet
from tests.support.commands import OMPBIND, TIMEOUT, environment

PROBE = ("sh", str(Path(__file__).with_name("probe.sh")))

# Open MPI refuses root, who runs the tests in containers.
AS_ROOT = {
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "PRTE_ALLOW_RUN_AS_ROOT": "1",
    "PRTE_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
}


@dataclass(frozen=True)
class Rank:
    """One worker: its number as a process, the cpus that it may use, and its environment."""

    pid: int
    cpus: CpuSet
    environ: Mapping[str, str]

    def number(self, name: str) -> int:
        return int(self.environ.get(name, -1))


@dataclass(frozen=True)
class Job:
    """A job that has ended: its exit status, what was written, and its ranks, by their cpus."""

    status: int
    out: str
    err: str
    ranks: tuple[Rank, ...]

    @property
    def cpus(self) -> list[str]:
        return [str(rank.cpus) for rank in self.ranks]

    def values(self, name: str) -> list[str]:
        """Return the values of a variable, sorted; "" where a rank does not have it."""
        return sorted(rank.environ.get(name, "") for rank in self.ranks)


def run_job(
    engine: Sequence[str],
    options: Sequence[str],
    folder: Path,
    environ: Mapping[str, str] | None = None,
    expect: int | None = 0,
) -> Job:
    """Run `ENGINE ompbind run OPTIONS -- PROBE` and return what its ranks were. `folder`: an empty
    one, or one to make."""
    folder.mkdir(exist_ok=True)
    command = [*engine, OMPBIND, "run", *options, "--", *PROBE, str(folder)]
    done = subprocess.run(
        command,
        env=environment(**AS_ROOT, **(environ or {})),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )
    assert expect is None or done.returncode == expect, (command, done.stdout, done.stderr)
    return Job(done.returncode, done.stdout, done.stderr, read_ranks(folder))


def read_ranks(folder: Path) -> tuple[Rank, ...]:
    """Return the ranks whose probes wrote there."""
    ranks = []
    for path in sorted(folder.glob("*.environ")):
        lines = path.with_suffix(".status").read_text().splitlines()
        cpus = next(ln.split()[1] for ln in lines if ln.startswith("Cpus_allowed_list:"))
        pairs = [os.fsdecode(p).partition("=") for p in path.read_bytes().split(b"\0") if p]
        environ = {name: value for name, _, value in pairs}
        ranks.append(Rank(int(path.stem), CpuSet.parse_kernel(cpus), environ))
    return tuple(sorted(ranks, key=lambda r: (str(r.cpus), r.number("RANK"))))
