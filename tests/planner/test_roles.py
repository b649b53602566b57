"""Roles, parts and crowds as workers meet them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ompbind.cpuset import CpuSet
from ompbind.machine import read_machine
from ompbind.verify.expected import expect_environ
from tests.support.needs import unavailable

WORKER = """
import os, threading
role = {int(os.environ["OMPBIND_ROLE_KV"])}
main = os.sched_getaffinity(0)
def other():
    os.sched_setaffinity(0, role)
    print("thread", *os.sched_getaffinity(0), flush=True)
thread = threading.Thread(target=other)
thread.start()
thread.join()
assert os.sched_getaffinity(0) == main
print("main", *sorted(main), "role", *role)
"""


def two_cores() -> list[CpuSet]:
    """The cores that may be used here, of which there must be two."""
    topology = read_machine(None, ["core"], devices=False).topology
    cores = topology.groups("core", CpuSet(os.sched_getaffinity(0)))
    if len(cores) < 2:
        unavailable("two cores are needed")
    return cores


@pytest.mark.skipif(sys.platform != "linux", reason="binding is Linux's")
@pytest.mark.parametrize("binder", ["native", "auto"])
def test_a_worker_binds_a_thread_to_its_role(
    ompbind: str, plain_environ: dict[str, str], binder: str
) -> None:
    """The role's cpu is none of the process's, and yet a thread of it can go there."""
    cores = two_cores()
    command = [ompbind, "run", "--role", "kv=1", "--binder", binder, "--places", "one", "--"]
    done = subprocess.run(
        [*command, sys.executable, "-c", WORKER],
        env=plain_environ, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    thread, main = done.stdout.splitlines()
    role = thread.removeprefix("thread ")
    used = [core.first for core in cores if core.first != int(role)]
    assert main == f"main {' '.join(map(str, used))} role {role}"


def test_what_is_expected_of_a_worker_has_its_roles() -> None:
    """From its environment: its own cpus and each role's; a value of somebody else's is no role."""
    environ = {"OMPBIND_RANK": "0", "OMPBIND_CPUS": "0-1", "OMP_PLACES": "{0},{1}",
               "OMPBIND_ROLE_KV": "2-3", "OMPBIND_ROLE_X": "mine"}  # fmt: skip
    expected = expect_environ(environ)
    assert expected is not None
    assert expected.cpus == CpuSet([0, 1])
    assert expected.roles == (CpuSet([2, 3]),)


SAY = "import os; print(*sorted(os.sched_getaffinity(0)))"


@pytest.mark.skipif(sys.platform != "linux", reason="binding is Linux's")
def test_two_launches_that_take_their_parts(ompbind: str, plain_environ: dict[str, str]) -> None:
    """Started apart and at work at once, they do not meet, and use all cores together."""
    cores = two_cores()
    wait = f"import sys; {SAY}; sys.stdout.flush(); sys.stdin.read()"
    launches = [
        subprocess.Popen(
            [ompbind, "run", "--part", f"{part}/2", *more, "--places", "one", "--",
             sys.executable, "-c", wait],
            env=plain_environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for part, more in ((1, []), (2, ["-n", "1", "--smt", "all"]))
    ]  # fmt: skip
    cpus_of_rank = []
    for launch in launches:
        assert launch.stdout is not None
        cpus_of_rank.append(CpuSet(int(cpu) for cpu in launch.stdout.readline().split()))
    for launch in launches:
        launch.communicate(timeout=60)
        assert launch.returncode == 0
    assert cpus_of_rank[0]
    assert cpus_of_rank[1]
    assert not cpus_of_rank[0] & cpus_of_rank[1]
    assert sum(bool(core & (cpus_of_rank[0] | cpus_of_rank[1])) for core in cores) == len(cores)


@pytest.mark.skipif(sys.platform != "linux", reason="binding is Linux's")
def test_more_ranks_than_cores_run(ompbind: str, plain_environ: dict[str, str]) -> None:
    """Each on one core, after a warning."""
    cores = two_cores()
    command = [ompbind, "run", "-n", str(len(cores) + 1), "--oversubscribe", "--output", "inherit"]
    done = subprocess.run(
        [*command, "--", sys.executable, "-c", SAY],
        env=plain_environ, capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    wanted = [str(core.first) for core in (cores[0], *cores)]
    assert sorted(done.stdout.split()) == sorted(wanted)
    assert done.stderr == (
        "ompbind: warning: more ranks than cores: 2 ranks share 1 core and will wait for each "
        "other\n"
    )


@pytest.mark.skipif(sys.platform != "linux", reason="binding is Linux's")
def test_a_saved_plan_keeps_its_roles(
    ompbind: str, plain_environ: dict[str, str], tmp_path: Path
) -> None:
    """Its workers find them; a role's cpus that may not be used refuse it."""
    two_cores()
    place = tmp_path / "plan.json"

    def run(*args: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [ompbind, *args], env=plain_environ, capture_output=True, text=True, timeout=60
        )

    say = ("--", sys.executable, "-c", "import os; print(os.environ['OMPBIND_ROLE_KV'])")
    saved = run("show", "--role", "kv=1", "--format", "json", *say).stdout
    place.write_text(saved)
    plan = json.loads(saved)
    done = run("run", "--plan", str(place))
    assert (done.returncode, done.stdout.strip()) == (0, plan["roles"][0]["cpus"])
    plan["roles"][0]["cpus"] = plan["ranks"][0]["env"]["OMPBIND_ROLE_KV"] = "60000"
    place.write_text(json.dumps(plan))
    done = run("run", "--plan", str(place))
    assert done.returncode == 125
    assert done.stderr.startswith(
        "ompbind: error: cpus 60000 of the plan's role kv may not be used here\n"
        "hint: allowed cpus: "
    )
