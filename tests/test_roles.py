"""Roles as a worker meets them: cpus beside its own, to which it may bind a thread."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from ompbind.cpuset import CpuSet
from ompbind.expected import expect_environ
from ompbind.machine import read_machine
from tests.conftest import unavailable

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


@pytest.mark.skipif(sys.platform != "linux", reason="binding is Linux's")
@pytest.mark.parametrize("binder", ["native", "auto"])
def test_a_worker_binds_a_thread_to_its_role(
    ompbind: str, plain_environ: dict[str, str], binder: str
) -> None:
    """The role's cpu is none of the process's, and yet a thread of it can go there."""
    cores = read_machine(None, ("core",), devices=False).topology.groups(
        "core", CpuSet(os.sched_getaffinity(0))
    )
    if len(cores) < 2:
        unavailable("a rank and a role need two cores")
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
