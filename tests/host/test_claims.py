"""Parts of the machine that launches claim for themselves: --part auto/N."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ompbind import plan as make_plan
from ompbind.cpuset import CpuSet
from ompbind.errors import OmpbindError, PlanError, UsageError
from ompbind.host import claims
from ompbind.host.claims import claim, claim_free, release
from ompbind.options.values import parse_part
from tests.support.commands import OMPBIND, TIMEOUT, environment, ompbind_run
from tests.support.confine import need
from tests.support.needs import need_cpus

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="run binds on Linux only")


@pytest.fixture
def cpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Directories of 8 cpus, that nobody else locks."""
    for cpu in range(8):
        (tmp_path / f"cpu{cpu}").mkdir()
    monkeypatch.setattr(claims, "CPUS", str(tmp_path))
    monkeypatch.setattr(claim, "__defaults__", (str(tmp_path),))
    return str(tmp_path)


def test_a_claim_excludes_all_that_overlap_it(cpus: str) -> None:
    """Until it is released; one that fails leaves nothing locked."""
    held = claim(CpuSet([2, 3, 4]), cpus)
    assert held is not None
    assert claim(CpuSet([0, 1, 2]), cpus) is None
    assert claim(CpuSet([4]), cpus) is None
    beside = claim(CpuSet([0, 1, 5]), cpus)
    assert beside is not None
    release(held)
    again = claim(CpuSet([2, 3]), cpus)
    assert again is not None
    release([*beside, *again])


def test_the_first_free_part(cpus: str) -> None:
    """Is taken, and kept for what is executed; looking at it claims nothing."""
    parts = [CpuSet([0, 1]), CpuSet([2, 3])]
    assert claim_free(parts, keep=False) == 0
    assert claim_free(parts, keep=True) == 0
    kept = [fd for fd in range(3, 256) if path_of(fd).startswith(cpus)]
    assert sorted(path_of(fd)[-4:] for fd in kept) == ["cpu0", "cpu1"]
    assert all(os.get_inheritable(fd) for fd in kept)
    assert claim_free(parts, keep=False) == 1
    mine = claim(parts[1], cpus)
    assert mine is not None
    with pytest.raises(PlanError, match=r"--part auto/2: 2 parts .* all are in use"):
        claim_free(parts, keep=True)
    release([*mine, *kept])
    assert claim_free(parts, keep=False) == 0


def path_of(fd: int) -> str:
    """What a descriptor is of; "" where it is closed."""
    try:
        return os.readlink(f"/proc/self/fd/{fd}")
    except OSError:
        return ""


def test_cpus_without_directories(cpus: str) -> None:
    """Are an error, and leave nothing open."""
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(OmpbindError, match="cannot be claimed here: No such file"):
        claim(CpuSet([0, 9]), cpus)
    assert len(os.listdir("/proc/self/fd")) == before


def test_what_is_asked() -> None:
    """auto/N; not without a number, and not for another machine or from Python."""
    assert parse_part("auto/4", "--part") == (0, 4)
    assert parse_part("1/4", "--part") == (1, 4)
    for text in ("auto", "auto/", "auto/0", "0/4", "5/4", "-1/4", "x/4", "1/x"):
        with pytest.raises(UsageError, match="is not I/N"):
            parse_part(text, "--part")
    with pytest.raises(UsageError, match="only ompbind run can claim"):
        make_plan(part="auto/2")
    done = ompbind_run("show", "--part", "auto/2", "--topology", "examples/server.topo")
    assert done.returncode == 125
    assert "another machine" in done.stderr
    assert "Traceback" not in done.stderr


# Starts two workers, each in a part that is free, tries a third, and one more when one is gone.
DRIVER = r"""
import json, os, subprocess, sys
ompbind, name = sys.argv[1:]
COMMAND = [ompbind, "run", "--part", "auto/2", "--smt", "all"]
WORKER = ["--", sys.executable, "-c",
          "import os; print(os.getpid(), *os.sched_getaffinity(0), flush=True); input()"]
def start(*more):
    process = subprocess.Popen([*COMMAND, *more, *WORKER], stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    line = process.stdout.readline()
    return process, [int(n) for n in line.split()]
first, (pid, *one) = start("--binder", "native")
second, (_, *two) = start("--verify")
shown = subprocess.run([ompbind, "show", "--part", "auto/2"], capture_output=True, text=True)
third, _ = start()
refused = third.communicate()[1]
os.kill(pid, 9)
first.wait()
fourth, (_, *again) = start()
for process in (second, fourth):
    process.communicate("\n")
print(json.dumps({"one": one, "two": two, "again": again, "refused": refused,
                  "shown": shown.stderr, "same": pid == first.pid}))
"""


def test_launches_that_claim_parts() -> None:
    """Never get the same, by numactl, by system calls or supervised; one that is killed frees its
    own. In a network namespace with its own sysfs, so that nobody else's claims are met."""
    need_cpus(2)
    mount = 'mount -t sysfs sysfs /sys && exec "$@"'
    apart = need(["unshare", "--net", "--mount", "sh", "-c", mount, "sh"])
    done = subprocess.run(
        [*apart, sys.executable, "-c", DRIVER, OMPBIND, "x"],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    data = json.loads(done.stdout)
    assert sorted([*data["one"], *data["two"]]) == sorted(os.sched_getaffinity(0))
    assert data["again"] == data["one"]
    assert data["same"]
    for text in (data["refused"], data["shown"]):
        assert text.startswith("ompbind: error: --part auto/2: 2 parts of the machine, and all")
