"""Workers under `ompbind run` are where `ompbind show` said: what the kernel says about each of
their threads, read from outside, against the plan printed for the same options.

On two cores, whatever the machine has: all runs start with a mask of two cpus. Machines with
several nodes are in test_guest.py.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from itertools import product
from typing import Any, NamedTuple

import pytest

from tests.conftest import unavailable
from tests.observe import Launch, Rank, expand, expected_threads, launch, policy_text

BINDERS = ("native", "numactl")
RUNTIMES = ("libgomp", "libomp")

OPTIONS = (
    "",
    "-n 2",
    "--per core",
    "--places threads",
    "--places one",
    "-n 2 --places one",
    "--places one --threads 4",
    "--threads 1",
    "--threads 4",
    "-n 2 --threads 2",
    "--proc-bind spread",
    "--proc-bind spread --threads 1",
    "--proc-bind primary",
    "--proc-bind primary --threads 4",
    "--proc-bind true",
    "--proc-bind false",
    "-n 2 --proc-bind false --threads 2",
    "--reserve 1",
)


class Desk(NamedTuple):
    """Two cpus of two cores, and their node ("" where the machine has none or they differ)."""

    cpus: list[int]
    node: str


class Runner(NamedTuple):
    """`show` and `run` with the same options, from the same mask and environment."""

    ompbind: str
    desk: Desk
    environ: dict[str, str]

    def command(self, name: str, options: str) -> list[str]:
        mask = ",".join(map(str, self.desk.cpus))
        return ["taskset", "-c", mask, self.ompbind, name, *options.split()]

    def show(self, options: str, **more: str) -> dict[str, Any]:
        command = [*self.command("show", options), "--format", "json"]
        env = self.environ | more
        done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=60)
        assert done.returncode == 0, done.stderr
        plan: dict[str, Any] = json.loads(done.stdout)
        return plan

    def run(self, options: str, worker: list[str], ranks: int, **more: str) -> Launch:
        command = [*self.command("run", options), "--", *worker]
        return launch(command, ranks=ranks, env=self.environ | more)


@pytest.fixture(scope="session")
def desk() -> Desk:
    done = subprocess.run(
        ["lscpu", "-p=cpu,core,node"], capture_output=True, text=True, check=True, timeout=60
    )
    rows = [line.split(",") for line in done.stdout.splitlines() if not line.startswith("#")]
    allowed = os.sched_getaffinity(0)
    cores = {core: (int(cpu), node) for cpu, core, node in reversed(rows) if int(cpu) in allowed}
    if len(cores) < 2:
        pytest.skip("these tests need two cores")
    first, second = sorted(cores.values())[:2]
    return Desk([first[0], second[0]], first[1] if first[1] == second[1] else "")


@pytest.fixture(scope="session")
def runner(ompbind: str, desk: Desk, plain_environ: dict[str, str]) -> Runner:
    return Runner(ompbind, desk, plain_environ)


@pytest.fixture(params=BINDERS)
def binder(request: pytest.FixtureRequest, runner: Runner) -> str:
    name: str = request.param
    if name == "numactl":
        try:
            subprocess.run(["numactl", "--show"], capture_output=True, timeout=60)
        except FileNotFoundError:
            unavailable("there is no numactl; `tools/setup-system test` installs it")
    return name


def check_identity(plan: dict[str, Any], done: Launch) -> None:
    """One rank is the launcher's own process, several are its children, none is left unstarted."""
    assert [rank.rank for rank in done.ranks] == [str(rank["rank"]) for rank in plan["ranks"]]
    if len(done.ranks) == 1:
        assert done.ranks[0].pid == done.pid
    else:
        assert {rank.parent for rank in done.ranks} == {done.pid}
    assert done.status == 0


def check_environment(planned: dict[str, Any], rank: Rank) -> None:
    assert planned["env"].items() <= rank.env.items()
    assert not set(planned["unset"]) & set(rank.env)


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("options", OPTIONS, ids=lambda text: text or "no options")
def test_every_openmp_thread_is_where_show_said(
    runner: Runner, where: Callable[[str], str], options: str, binder: str, runtime: str
) -> None:
    """Each thread of a C program has the mask of its place in the plan, and none has another."""
    options = f"{options} --binder {binder}"
    plan = runner.show(options)
    done = runner.run(options, [where(runtime), "--wait"], len(plan["ranks"]))
    check_identity(plan, done)
    for planned, rank in zip(plan["ranks"], done.ranks, strict=True):
        check_environment(planned, rank)
        assert rank.command == [where(runtime), "--wait"]
        assert rank.threads == expected_threads(planned)
        assert sorted(rank.tasks) == sorted(rank.threads)


def test_the_plans_are_these(runner: Runner) -> None:
    """What the test above compares with is itself right: two cores, one or two ranks."""
    first, second = map(str, runner.desk.cpus)
    both = runner.show("")["ranks"]
    assert [(rank["places"], rank["env"]["OMP_NUM_THREADS"]) for rank in both] == [
        ([first, second], "2")
    ]
    apart = runner.show("-n 2")["ranks"]
    assert [(rank["cpus"], rank["places"]) for rank in apart] == [
        (first, [first]),
        (second, [second]),
    ]
    [whole] = runner.show("--places one")["ranks"]
    assert [expand(place) for place in whole["places"]] == [runner.desk.cpus]


@pytest.mark.parametrize("options", ["", "-n 2", "--mem none"])
def test_taskset_agrees(
    runner: Runner, where: Callable[[str], str], options: str, binder: str
) -> None:
    """A tool that knows nothing of this project reads the same mask for a rank's first thread."""
    options = f"{options} --binder {binder}"
    plan = runner.show(options)
    worker = [
        "sh",
        "-c",
        'echo "rank $OMPBIND_RANK pid $$ said $(taskset -cp $$)"; echo ready; cat',
    ]
    done = subprocess.run(
        [*runner.command("run", options), "--", *worker],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, env=runner.environ, timeout=60,
    )  # fmt: skip
    said = dict(re.findall(r"^rank (\d+) .*: (\S+)$", done.stdout, re.M))
    assert {rank: expand(cpus) for rank, cpus in said.items()} == {
        str(rank["rank"]): expand(rank["cpus"]) for rank in plan["ranks"]
    }


@pytest.mark.parametrize("mem", ["bind", "preferred", "interleave", "local", "none"])
@pytest.mark.parametrize("ranks", [1, 2])
def test_memory_policy_is_the_planned_one(
    runner: Runner, where: Callable[[str], str], mem: str, ranks: int, binder: str
) -> None:
    """Memory that the worker touches has the policy that the plan says, as the kernel tells it."""
    node = runner.desk.node
    if not node or not os.path.exists("/proc/self/numa_maps"):
        pytest.skip("these two cpus have no node in common")
    options = f"--numa-bind-nodes {' '.join([node] * ranks)} --mem {mem} --binder {binder}"
    plan = runner.show(options)
    done = runner.run(options, [where("libgomp"), "--wait", "--touch", "4"], ranks)
    check_identity(plan, done)
    for planned, rank in zip(plan["ranks"], done.ranks, strict=True):
        assert (planned["mem"], planned["mems"]) == (mem, "" if mem in ("local", "none") else node)
        assert rank.policy in policy_text(mem, planned["mems"])
        assert set(rank.pages) == {node}


def test_numactl_shows_the_binding(runner: Runner, binder: str) -> None:
    """`numactl --show`, run as the worker, reports the plan's cpus and memory nodes."""
    node = runner.desk.node
    if not node:
        pytest.skip("these two cpus have no node in common")
    done = subprocess.run(
        [*runner.command("run", f"--numa-bind-nodes {node} --binder {binder}"),
         "--", "numactl", "--show"],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, env=runner.environ, timeout=60,
    )  # fmt: skip
    told = dict(line.split(":", 1) for line in done.stdout.splitlines())
    assert told["policy"].strip() == "bind"
    assert [int(cpu) for cpu in told["physcpubind"].split()] == runner.desk.cpus
    assert told["membind"].split() == [node]


HOSTILE = {
    "GOMP_CPU_AFFINITY": "{second}",
    "KMP_AFFINITY": "disabled",
    "KMP_HW_SUBSET": "1c,1t",
    "OMP_PLACES": "{{{second}}}",
    "OMP_PROC_BIND": "false",
    "OMP_NUM_THREADS": "none",
}


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("variable", [*HOSTILE, "all of them"])
def test_an_inherited_environment_does_not_defeat_the_plan(
    runner: Runner, where: Callable[[str], str], variable: str, binder: str, runtime: str
) -> None:
    """Threads sit where they would without a variable that a runtime prefers to its places."""
    options = f"--proc-bind close --binder {binder}"
    names = HOSTILE if variable == "all of them" else [variable]
    inherited = {name: HOSTILE[name].format(second=runner.desk.cpus[1]) for name in names}
    plan = runner.show(options, **inherited)
    assert plan["ranks"] == runner.show(options)["ranks"]
    done = runner.run(options, [where(runtime), "--wait"], 1, **inherited)
    check_environment(plan["ranks"][0], done.ranks[0])
    assert done.ranks[0].threads == [[cpu] for cpu in runner.desk.cpus]


NUMPY_WORKER = """
import os, sys
import numpy
from threading import Thread

square = numpy.ones((512, 512))
for _ in range(4):
    square @ square
helper = Thread(target=sys.stdin.read)
helper.start()
print("rank", os.environ["OMPBIND_RANK"], "pid", os.getpid())
print("ready", flush=True)
helper.join()
"""


@pytest.mark.parametrize(
    "options", [" ".join(pair).strip() for pair in product(("", "-n 2"), ("", "--places one"))]
)
def test_a_numpy_worker_stays_on_its_cpus(runner: Runner, options: str, binder: str) -> None:
    """All threads of a Python process, NumPy's own among them, have the plan's cpus and no more,
    and its environment was complete when it started."""
    pytest.importorskip("numpy")
    options = f"{options} --binder {binder}"
    plan = runner.show(options)
    worker = [sys.executable, "-c", NUMPY_WORKER]
    done = runner.run(options, worker, len(plan["ranks"]))
    check_identity(plan, done)
    for planned, rank in zip(plan["ranks"], done.ranks, strict=True):
        check_environment(planned, rank)
        assert rank.command == worker
        assert len(rank.tasks) >= 1 + int(planned["env"]["OMP_NUM_THREADS"])
        assert {tuple(task) for task in rank.tasks} == {tuple(expand(planned["cpus"]))}
