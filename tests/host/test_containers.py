"""Inside the restrictions that containers, batch systems and careful administrators make: ompbind
works there, or says in the contract's line what it cannot have."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest

from tests.support.confine import as_nobody, in_cgroup, mounting, need

Run = Callable[..., subprocess.CompletedProcess[str]]

STATUS = "/proc/self/status"
TIMEOUT = 60

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="these restrictions are Linux's")


@pytest.fixture
def run(ompbind: str, plain_environ: Mapping[str, str]) -> Run:
    """Runs ompbind with these arguments under a prefix."""

    def start(under: Sequence[str], *args: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*under, ompbind, *args], env=plain_environ, capture_output=True, text=True,
            timeout=TIMEOUT,
        )  # fmt: skip

    return start


@pytest.fixture
def cpus() -> list[int]:
    found = sorted(os.sched_getaffinity(0))
    if len(found) < 2:
        pytest.skip("this takes two cpus")
    return found


def allowed(done: subprocess.CompletedProcess[str]) -> list[str]:
    """The cpus of each worker, which printed its status."""
    lines = [line for line in done.stdout.splitlines() if "Cpus_allowed_list" in line]
    return [line.split()[-1] for line in lines]


def refusal(done: subprocess.CompletedProcess[str]) -> str:
    """The one line of an error, its hint checked; nothing was started."""
    assert done.returncode == 125, done
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    error, *rest = [
        line for line in done.stderr.splitlines() if not line.startswith("ompbind: warning")
    ]
    assert error.startswith("ompbind: error: ")
    assert all(line.startswith("hint: ") for line in rest)
    assert len(rest) <= 1
    return error


@pytest.mark.parametrize("binder", ["native", "numactl"])
def test_a_cpuset_is_kept_to(run: Run, cpus: list[int], binder: str) -> None:
    """Workers are bound inside the cgroup's cpus; a cpu outside is refused, naming those inside."""
    own, other = cpus[1], cpus[0]
    with in_cgroup("cpuset", {"cpuset.cpus": str(own)}) as under:
        options = ["--binder", binder]
        done = run(under, "run", *options, "--", "grep", "Cpus_allowed_list", STATUS)
        assert (done.returncode, allowed(done)) == (0, [str(own)]), done.stderr
        asked = ["--numa-bind-cpus", str(other)]
        said = refusal(run(under, "run", *options, *asked, "--", "true"))
        assert f"rank 0: cpu {other} is not allowed" in said
        said = refusal(run(under, "run", *options, "-n", "2", "--", "true"))
        assert "rank 1" in said


def test_a_quota_limits_threads(run: Run, cpus: list[int]) -> None:
    """A worker that may use the time of one cpu and a half has one thread, on all its cpus."""
    with in_cgroup("cpu", {"cpu.max": "150000 100000"}) as under:
        done = run(under, "run", "--", "sh", "-c", f"echo $OMP_NUM_THREADS; grep _list {STATUS}")
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines()[0] == "1"
        assert "quota" in done.stderr


@pytest.mark.parametrize("limit", ["16M", "24M"])
def test_little_memory_is_enough(run: Run, limit: str) -> None:
    """Two ranks start where 16 MiB are left for all of them together."""
    with in_cgroup("memory", {"memory.max": limit}) as under:
        done = run(under, "run", "-n", "2", "--share", "--", "echo", "ok")
        assert (done.returncode, done.stdout.count("ok")) == (0, 2), done.stderr


@pytest.mark.parametrize("binder", ["native", "numactl"])
def test_without_privileges(run: Run, cpus: list[int], binder: str) -> None:
    """A user without any capability binds its own workers, to cpus and to memory."""
    lists = [str(cpus[0]), str(cpus[1])]
    done = run(
        as_nobody(), "run", "--binder", binder, "--numa-bind-cpus", *lists, "--mem", "bind",
        "--", "grep", "Cpus_allowed_list", STATUS,
    )  # fmt: skip
    assert (done.returncode, sorted(allowed(done))) == (0, sorted(lists)), done.stderr


def test_without_cap_sys_nice(run: Run) -> None:
    """What containers take away is not needed: numactl, as the worker, shows the policy."""
    under = need(["setpriv", "--bounding-set=-sys_nice", "--inh-caps=-sys_nice"])
    done = run(under, "run", "--numa-bind", "--", "numactl", "--show")
    assert done.returncode == 0, done.stderr
    assert "policy: bind" in done.stdout


def test_no_sys(run: Run, cpus: list[int]) -> None:
    """Without /sys the cpus are known, each taken for a core: ranks are bound, and that is said."""
    under = mounting("mount -t tmpfs none /sys")
    done = run(under, "run", "-n", "2", "--", "grep", "Cpus_allowed_list", STATUS)
    assert done.returncode == 0, done.stderr
    assert len(set(allowed(done))) == 2
    assert "does not say which cpus share a core" in done.stderr
    said = refusal(run(under, "run", "--numa-bind", "--", "true"))
    assert "no node" in said


def test_hidden_nodes(run: Run, cpus: list[int]) -> None:
    """Where a container masks the node directory, cpus are bound; a node is refused."""
    under = mounting("mount -t tmpfs none /sys/devices/system/node")
    done = run(under, "run", "-n", "2", "--", "grep", "Cpus_allowed_list", STATUS)
    assert (done.returncode, len(set(allowed(done)))) == (0, 2), done.stderr
    said = refusal(run(under, "run", "--numa-bind-nodes", "0", "--", "true"))
    assert "rank 0: node 0 does not exist" in said


def test_no_proc(run: Run) -> None:
    """Without /proc the system calls still tell what is allowed, and workers are bound."""
    under = mounting("mount -t tmpfs none /proc")
    done = run(under, "run", "-n", "2", "--", "taskset", "-c", "0", "echo", "ok")
    if "failed to" not in done.stderr:  # taskset needs no /proc to set a mask
        assert (done.returncode, done.stdout.count("ok")) == (0, 2), done.stderr
    assert "Traceback" not in done.stderr


def test_a_read_only_file_system(run: Run, tmp_path: Path) -> None:
    """Running writes nothing; saving says that it cannot."""
    under = mounting("mount -o remount,bind,ro /", f"cd {tmp_path}")
    done = run(under, "run", "-n", "2", "--", "echo", "ok")
    assert (done.returncode, done.stdout.count("ok")) == (0, 2), done.stderr
    said = refusal(run(under, "topo", "--save", "/server.topo"))
    assert said == "ompbind: error: --save /server.topo: Read-only file system"


def test_a_full_file_system(run: Run) -> None:
    """A file that cannot be written whole is an error, not a short file that looks like one."""
    under = mounting(
        "mount -t tmpfs -o size=16k none /mnt", "head -c 15000 /dev/zero >/mnt/much || true",
        "(head -c 99999 /dev/zero >>/mnt/much) 2>/dev/null || true",
    )  # fmt: skip
    said = refusal(run(under, "topo", "--save", "/mnt/server.topo"))
    assert said == "ompbind: error: --save /mnt/server.topo: No space left on device"
    said = refusal(run([*under, "sh", "-c", 'exec "$@" >/mnt/plan', "sh"], "show", "-n", "1"))
    assert said == "ompbind: error: standard output cannot be written: No space left on device"


@pytest.mark.parametrize("bytes_", [18_000_000, 24_000_000, 40_000_000])
def test_little_address_space(run: Run, bytes_: int) -> None:
    """Where memory cannot be had, it runs or says so; Python itself needs some to begin."""
    done = run(["prlimit", f"--as={bytes_}"], "run", "-n", "2", "--share", "--", "echo", "ok")
    if done.returncode == 0:
        assert done.stdout.count("ok") == 2
    elif done.returncode == 125:
        assert refusal(done)
    else:  # Python ended before any line of ours
        assert "Fatal Python error" in done.stderr or "MemoryError" in done.stderr
        assert done.stdout == ""
