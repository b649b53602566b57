"""Whose cpus a container of Kubernetes has, and what doctor says about pools."""

from __future__ import annotations

import pytest

from ompbind.cpuset import CpuSet
from ompbind.doctor.findings import NOTE, OK, WARNING, Facts, judge_pool, judge_pool_processes
from ompbind.doctor.pools import EXCLUSIVE, SHARED, find_pool
from ompbind.host.kernel import KernelSettings
from ompbind.machine.surroundings import Surroundings
from tests.support.machines import MACHINES

ONLINE = CpuSet(range(16))
POD = "/kubepods.slice/kubepods-pod12.slice/cri-1.scope"
BURSTABLE = "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod12.slice/cri-1.scope"
INSIDE = {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}


@pytest.mark.parametrize(
    ("groups", "environ", "cpuset", "quota", "pool"),
    [
        ((POD,), {}, "2-5", 4.0, EXCLUSIVE),
        ((POD,), {}, "2-5", None, EXCLUSIVE),
        ((POD,), {}, "2-5", 2.5, SHARED),  # Guaranteed, but not whole cpus
        ((POD,), {}, None, 4.0, SHARED),  # no static policy
        ((BURSTABLE,), {}, "4-15", None, SHARED),  # the rest beside exclusive containers
        (("/",), INSIDE, "2-5", 4.0, EXCLUSIVE),  # a cgroup namespace hides the class
        (("/",), INSIDE, None, 2.0, SHARED),
        (("/docker/1",), {}, "2-5", None, ""),
        (("/",), {}, None, None, ""),
    ],
)
def test_whose_cpus_a_container_has(
    groups: tuple[str, ...],
    environ: dict[str, str],
    cpuset: str | None,
    quota: float | None,
    pool: str,
) -> None:
    """By its class, its cpuset and its quota."""
    cpus = None if cpuset is None else CpuSet.parse_kernel(cpuset)
    assert find_pool(Surroundings(groups=groups, cpuset=cpus), ONLINE, quota, environ) == pool


def test_what_is_said_of_pools() -> None:
    """A shared pool is warned of, with what would help; packages with pools of processes are
    named with their fix."""
    facts = Facts(machine=MACHINES["server"], settings=KernelSettings())
    assert judge_pool(facts) == []
    (shared,) = judge_pool(facts.replace(pool=SHARED))
    assert shared.status == WARNING
    assert "static CPU manager" in shared.remedy
    assert [f.status for f in judge_pool(facts.replace(pool=EXCLUSIVE))] == [OK]
    assert judge_pool_processes(facts) == []
    (pool,) = judge_pool_processes(facts.replace(packages=("numpy", "joblib")))
    assert (pool.status, "joblib-threads" in pool.remedy) == (NOTE, True)
