"""The surroundings of an experiment: a period for each round, and what spoilt it."""

from __future__ import annotations

import os
from pathlib import Path

from ompbind.compare.surroundings import Surroundings, count_used
from ompbind.cpuset import CpuSet
from ompbind.machine.roots import DirectoryRoot

TICKS = os.sysconf("SC_CLK_TCK")


def write_machine(root: Path, seconds: int, busy: int) -> None:
    """Two cpus that have been up for so long, and of that busy for so long."""
    (root / "proc").mkdir(exist_ok=True)
    cpus = "".join(f"cpu{n} {busy * TICKS} 0 0 {seconds * TICKS} 0 0 0 0 0 0\n" for n in (0, 1))
    (root / "proc/stat").write_text(cpus)
    (root / "proc/uptime").write_text(f"{seconds}.00 0.00\n")


def test_load_is_seen(tmp_path: Path) -> None:
    """What the cpus did between the readings, less what the runs used, is others' load."""
    surroundings = Surroundings(DirectoryRoot(str(tmp_path)), CpuSet([0, 1]))
    write_machine(tmp_path, 1000, 50)
    surroundings.begin()
    write_machine(tmp_path, 1010, 60)
    surroundings.end(1)
    spoilers = surroundings.find_spoilers()
    assert [s.kind for s in spoilers] == ["load"]
    assert spoilers[0].text.startswith("other processes used 2.0 of 2 cpus")


def test_frequency_is_read_once_in_a_run(tmp_path: Path) -> None:
    """Short runs have none; of long ones one reading counts, in their round."""
    folder = tmp_path / "sys/devices/system/cpu/cpu0/cpufreq"
    folder.mkdir(parents=True)
    (folder / "scaling_cur_freq").write_text("2500000\n")
    surroundings = Surroundings(DirectoryRoot(str(tmp_path)), CpuSet([0]))
    write_machine(tmp_path, 1, 0)
    surroundings.begin()
    surroundings.begin_run()
    surroundings.sample()
    assert surroundings.frequencies == []
    surroundings.run_began -= 60
    surroundings.sample()
    surroundings.sample()
    surroundings.end(1)
    assert surroundings.periods[0].frequencies == (2.5,)


def test_without_a_machine_nothing_is_seen() -> None:
    """Where there is nothing to read nothing is reported."""
    surroundings = Surroundings(None, CpuSet([0]))
    surroundings.begin()
    surroundings.sample()
    surroundings.end(1)
    assert surroundings.find_spoilers() == []


def test_runs_count_as_used() -> None:
    """What a child has used is counted once it has been waited for."""
    before = count_used()
    pid = os.fork()
    if pid == 0:
        while sum(os.times()[:2]) < 0.05:
            pass
        os._exit(0)
    os.waitpid(pid, 0)
    assert count_used() - before >= 0.04
