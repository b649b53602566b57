"""What was narrowed before ompbind: told by whom, planned inside, refused, or widened again."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping

import pytest

from ompbind.cpuset import CpuSet
from ompbind.errors import PlanError
from ompbind.host.restrictions import find_restrictions, mark_reset, refuse_restrictions
from ompbind.machine.surroundings import Surroundings, read_surroundings
from ompbind.machine.topology import Allowed, Cpu, Machine, Node, Topology
from ompbind.options import make_request
from ompbind.planner import make_plan
from ompbind.planner.memory import keep_allowed
from ompbind.saved import keep_memory
from tests.support.needs import unavailable
from tests.support.trees import MemoryRoot

TWO_NODES = Topology(
    cpus=tuple(Cpu(n, core=n, package=n // 4, node=n // 4) for n in range(8)),
    nodes=(Node(0, CpuSet(range(4)), 1 << 30), Node(1, CpuSet(range(4, 8)), 1 << 30)),
)
ALL, HALF = CpuSet(range(8)), CpuSet(range(4))
CHILD = 'import os; os.write(1, f"{sorted(os.sched_getaffinity(0))}\\n".encode())'


def who(
    found: Surroundings, environ: Mapping[str, str] | None = None, topology: Topology = TWO_NODES
) -> dict[str, tuple[str, str]]:
    told = find_restrictions(found, topology, environ or {})
    return {n.name: (n.value, n.why) for n in told}


def test_nothing_narrowed() -> None:
    """A whole machine has nothing to tell; possible cpus that are not online do not count."""
    whole = Surroundings(mask=CpuSet(range(64)), mems=CpuSet([0, 1]), policy="default")
    assert find_restrictions(whole, TWO_NODES, {}) == ()
    assert find_restrictions(Surroundings(), TWO_NODES, {}) == ()


@pytest.mark.parametrize(
    ("group", "files", "environ", "expected"),
    [
        ("/docker/0123abc", (), {}, "docker: cgroup /docker/0123abc"),
        ("/system.slice/docker-12.scope", (), {}, "docker"),
        ("/kubepods.slice/kubepods-burstable.slice/x", (), {}, "kubernetes"),
        ("/machine.slice/libpod-9.scope", (), {}, "podman"),
        ("/slurm/uid_0/job_7/step_0", (), {}, "Slurm: cgroup"),
        ("/system.slice/slurmstepd.scope/job_7", (), {}, "Slurm: cgroup"),
        ("/system.slice/web.service", (), {}, "systemd: cgroup /system.slice/web.service"),
        ("/", (".dockerenv",), {}, "docker (--cpuset-cpus"),
        ("/", ("run/.containerenv",), {}, "podman"),
        ("/", (), {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, "kubernetes"),
        ("/", (), {"SLURM_JOB_ID": "7"}, "Slurm: job 7"),
        ("/mine", (), {}, "cgroup /mine"),
        ("/mine", (".dockerenv",), {}, "cgroup /mine"),  # made inside of a container
        ("", (), {}, "a cgroup above"),
    ],
)
def test_who_made_the_cpuset(
    group: str, files: tuple[str, ...], environ: dict[str, str], expected: str
) -> None:
    """By the cgroup's path, by what containers leave at the root, by the environment."""
    found = Surroundings(mask=HALF, cpuset=HALF, group=group, files=files)
    told = who(found, environ)
    assert told["cpuset"][0] == "0-3"
    assert told["cpuset"][1].startswith(expected)
    assert "affinity mask" not in told  # it is all that the cpuset leaves


@pytest.mark.parametrize(
    ("found", "environ", "expected"),
    [
        (Surroundings(mask=HALF, parent="bash", parent_mask=ALL), {}, "the command that started"),
        (
            Surroundings(mask=HALF, parent="bash", parent_mask=HALF),
            {},
            "bash or whoever started",
        ),
        (
            Surroundings(mask=HALF, parent="systemd", parent_mask=HALF, groups=("/a/x.service",)),
            {},
            "systemd or whoever started it (systemd's CPUAffinity= of x.service?)",
        ),
        (
            Surroundings(mask=HALF),
            {"SLURM_STEP_ID": "0", "SLURM_CPU_BIND": "quiet,mask_cpu:0xF"},
            "Slurm (SLURM_CPU_BIND=quiet,mask_cpu:0xF)",
        ),
        (
            Surroundings(mask=HALF, parent="sh", parent_mask=HALF),
            {"SLURM_STEP_ID": "0", "SLURM_CPU_BIND": "none"},
            "sh or whoever started it",
        ),
        (Surroundings(mask=HALF), {"OMPI_COMM_WORLD_RANK": "0"}, "Open MPI"),
        (Surroundings(mask=HALF), {"PMI_RANK": "0"}, "MPICH"),
        (Surroundings(mask=HALF), {"OMPBIND_CPUS": "0-3", "OMPBIND_RANK": "2"}, "ompbind: this"),
    ],
)
def test_who_narrowed_the_mask(found: Surroundings, environ: dict[str, str], expected: str) -> None:
    """By the launchers' variables, else by the mask of the parent."""
    told = who(found, environ)
    assert told["affinity mask"][0] == "0-3"
    assert told["affinity mask"][1].startswith(expected)


def test_isolated_cpus_are_in_no_mask() -> None:
    """What is left out is just what the kernel was told to isolate."""
    topology = TWO_NODES.replace(isolated=CpuSet([6, 7]))
    told = who(Surroundings(mask=CpuSet(range(6))), topology=topology)
    assert told["affinity mask"][1].startswith("the kernel")


def test_memory_that_was_narrowed() -> None:
    """Nodes by the cgroup, a policy by whoever started it."""
    found = Surroundings(mems=CpuSet([0]), policy="bind:0", group="/docker/1")
    assert who(found) == {
        "memory nodes": ("0", "docker: cgroup /docker/1"),
        "memory policy": ("bind:0", "the command that started it, as numactl does"),
    }
    slurm = who(found, {"SLURM_MEM_BIND": "local"})
    assert slurm["memory policy"][1] == "Slurm (SLURM_MEM_BIND=local)"


def test_refused_and_widened() -> None:
    """A cpuset can be neither refused nor widened: only the mask and the policy can."""
    only_cpuset = find_restrictions(Surroundings(mask=HALF, cpuset=HALF), TWO_NODES, {})
    refuse_restrictions(only_cpuset)
    assert [n.action for n in mark_reset(only_cpuset)] == ["respected"]
    both = find_restrictions(Surroundings(mask=HALF), TWO_NODES, {})
    assert [n.action for n in mark_reset(both)] == ["widened"]
    with pytest.raises(PlanError, match="affinity mask is restricted to 0-3"):
        refuse_restrictions(both)


def test_read_from_files() -> None:
    """Mask, cpuset, parent and policy as the kernel writes them."""
    root = MemoryRoot(
        {
            "proc/self/status": "Name:\tx\nPPid:\t7\nCpus_allowed_list:\t0-3\n"
            "Mems_allowed_list:\t0\n",
            "proc/7/status": "Cpus_allowed_list:\t0-7\n",
            "proc/7/comm": "slurmstepd\n",
            "proc/self/cgroup": "0::/job_7\n",
            "proc/self/mountinfo": "30 20 0:1 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n",
            "sys/fs/cgroup/job_7/cpuset.cpus.effective": "0-5\n",
            "proc/self/numa_maps": "00400000 default file=/x N0=1\n"
            "7ffc0000 bind:0-1 stack anon=3 N0=3\n",
            ".dockerenv": "",
        }
    )
    found = read_surroundings(root, policy=True)
    assert (found.mask, found.cpuset) == (CpuSet(range(4)), CpuSet(range(6)))
    assert (found.parent, found.parent_mask) == ("slurmstepd", CpuSet(range(8)))
    assert (found.group, found.groups) == ("/job_7", ("/job_7",))
    assert found.files == (".dockerenv",)
    assert found.policy == "bind:0-1"


def test_the_cpusets_own_cgroup_is_blamed() -> None:
    """Under version 1 a process is in a cgroup of each controller: systemd's session did not make
    the cpuset. Copies without proc/self/cgroup have the path in proc/self/cpuset."""
    files = {
        "proc/self/cgroup": "7:cpuset:/jjh\n2:cpu:/\n1:name=systemd:/user.slice/session-6.scope\n",
        "proc/self/mountinfo": "30 20 0:1 / /dev/cpuset rw - cgroup cgroup rw,cpuset\n",
        "dev/cpuset/jjh/cpuset.cpus": "0-3\n",
        "dev/cpuset/jjh/cpuset.mems": "0\n",
    }
    for cgroup in (files.pop("proc/self/cgroup"), None):
        more = {"proc/self/cpuset": "/jjh\n"} if cgroup is None else {"proc/self/cgroup": cgroup}
        found = read_surroundings(MemoryRoot(files | more))
        assert found.cpuset == HALF
        assert who(found)["cpuset"] == ("0-3", "cgroup /jjh")


def test_the_files_may_not_say_who_narrowed_the_mask() -> None:
    """A snapshot has no parent: nobody is blamed."""
    told = who(Surroundings(mask=HALF))
    assert told["affinity mask"] == ("0-3", "an unknown process (its files were not read)")


@pytest.mark.parametrize(
    ("allowed", "kept", "said"),
    [
        ([0, 1], [0, 1], ""),
        ([0], [0], "memory of node 1 is not allowed (cgroup cpuset): its memory is on node 0"),
        ([], [], "rank 3: memory of nodes 0-1 is not allowed (cgroup cpuset): none is bound"),
    ],
)
def test_the_ladder_keeps_valid_nodes(allowed: list[int], kept: list[int], said: str) -> None:
    """With --on-denied degrade what may be had of several nodes is kept, the rest is told."""
    machine = Machine(TWO_NODES, Allowed(ALL, CpuSet(allowed)))
    nodes, cautions = keep_allowed(machine, 3, CpuSet([0, 1]))
    assert nodes == CpuSet(kept)
    assert said in "".join(caution.text for caution in cautions)
    assert bool(said) == bool(cautions)


@pytest.mark.parametrize(
    ("allowed", "mem", "mems", "bound"),
    [
        ([0, 1], "bind", "0-1", ("--physcpubind=0-7", "--membind=0-1")),
        ([1], "bind", "1", ("--physcpubind=0-7", "--membind=1")),
        ([], "none", "", ("--physcpubind=0-7",)),
    ],
)
def test_a_saved_plan_keeps_valid_nodes(
    allowed: list[int], mem: str, mems: str, bound: tuple[str, ...]
) -> None:
    """The same ladder, where the machine allows less than the one that the plan was made on."""
    machine = Machine(TWO_NODES, Allowed(ALL, CpuSet([0, 1])))
    request = make_request({"mem": "bind"}, ["true"]).replace(binder="numactl")
    plan = keep_memory(make_plan(machine, request), CpuSet(allowed))
    rank = plan.ranks[0]
    assert (rank.mem, str(rank.mems)) == (mem, mems)
    assert rank.argv == ("numactl", *bound, "true")
    assert dict(rank.env)["OMPBIND_MEM"] == f"{mem}:{mems}".rstrip(":")
    assert len(plan.warnings) == (allowed != [0, 1])


# --- here ----------------------------------------------------------------------------------------


def narrowed_run(ompbind: str, *args: str) -> subprocess.CompletedProcess[str]:
    if sys.platform != "linux" or not shutil.which("taskset"):
        unavailable("there is no taskset")
    if len(os.sched_getaffinity(0)) < 2:
        unavailable("one cpu cannot be narrowed")
    first = str(min(os.sched_getaffinity(0)))
    command = ["taskset", "-c", first, ompbind, *args]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_a_mask_of_taskset_is_told(ompbind: str) -> None:
    """In the table and in the JSON; nothing of the plan goes beyond."""
    done = narrowed_run(ompbind, "show", "--format", "json", "--", "true")
    narrowed = {n["name"]: n for n in json.loads(done.stdout)["narrowed"]}
    assert narrowed["affinity mask"]["action"] == "respected"
    assert "as taskset" in narrowed["affinity mask"]["why"]
    assert "affinity mask=" in narrowed_run(ompbind, "show", "--", "true").stdout


def test_a_narrowed_mask_refused(ompbind: str) -> None:
    """--inherited error starts nothing."""
    done = narrowed_run(ompbind, "run", "--inherited", "error", "--", "echo", "started")
    assert (done.returncode, done.stdout) == (125, "")
    assert "error: --inherited error: the affinity mask is restricted to" in done.stderr
    assert "hint: --inherited intersect" in done.stderr


@pytest.mark.parametrize("binder", ["native", "auto"])
@pytest.mark.parametrize("ranks", [1, 2])
def test_a_narrowed_mask_widened(ompbind: str, binder: str, ranks: int) -> None:
    """--inherited ignore uses the whole cpuset, seen by the workers themselves."""
    whole = sorted(os.sched_getaffinity(0))
    done = narrowed_run(
        ompbind, "run", "--inherited", "ignore", "--binder", binder, "-n", str(ranks),
        "--", sys.executable, "-c", CHILD,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = [line[line.rindex("[") :] for line in done.stdout.splitlines()]  # after the rank
    seen = [cpu for line in lines for cpu in json.loads(line)]
    assert sorted(seen) == whole[: len(seen)]
    assert len(seen) >= 2
