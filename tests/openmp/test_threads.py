"""Workers under `ompbind run` are where `ompbind show` said: what the kernel says about each of
their threads, read from outside, against the plan printed for the same options (by a fork: `run` is
the process that is tested).

On two cores, whatever the machine has: all runs start with a mask of two cpus. Machines with
several nodes are in test_guest.py.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from itertools import product
from typing import Any, NamedTuple

import pytest

from tests.support.forks import Server
from tests.support.needs import require_intel, unavailable
from tests.support.observe import Launch, Rank, expand, expected_threads, launch, policy_text

BINDERS = ("native", "numactl")
RUNTIMES = ("libgomp", "libomp", "libiomp5", "torch")
PLACES = ("", "threads", "cores", "l3", "numa", "one", "wide")
PROC_BINDS = ("close", "spread", "primary", "true", "false")

OPTIONS = (
    "-n 2",
    "--per core",
    "-n 2 --places one",
    "--places one --threads 4",
    "--places wide --threads 4",
    "--threads 1",
    "--threads 4",
    "-n 2 --threads 2",
    "--proc-bind spread --threads 1",
    "--proc-bind primary --threads 4",
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
    forks: Server

    def command(self, name: str, options: str) -> list[str]:
        mask = ",".join(map(str, self.desk.cpus))
        return ["taskset", "-c", mask, self.ompbind, name, *options.split()]

    def show(self, options: str, worker: Sequence[str] = (), **more: str) -> dict[str, Any]:
        status, out, err = self.show_json([*options.split(), "--", *worker], **more)
        assert status == 0, err
        plan: dict[str, Any] = json.loads(out)
        return plan

    def show_json(self, words: Sequence[str], **more: str) -> tuple[int, str, str]:
        """The status of `show`, and what it printed on both streams."""
        command = [self.ompbind, "show", "--format", "json", *words]
        cpus = ",".join(map(str, self.desk.cpus))
        return self.forks.run(command, env=self.environ | more, cpus=cpus)

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
def runner(ompbind: str, desk: Desk, plain_environ: dict[str, str], forks: Server) -> Runner:
    return Runner(ompbind, desk, plain_environ, forks)


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
    """One rank is the launcher's own process, several are its supervisor's children, none is left
    unstarted."""
    assert [rank.rank for rank in done.ranks] == [str(rank["rank"]) for rank in plan["ranks"]]
    if len(done.ranks) == 1:
        assert done.ranks[0].pid == done.pid
    else:
        assert {rank.launcher for rank in done.ranks} == {done.pid}
    assert done.status == 0


def check_environment(planned: dict[str, Any], rank: Rank) -> None:
    assert planned["env"].items() <= rank.env.items()
    assert not set(planned["unset"]) & set(rank.env)


def check_threads(runner: Runner, options: str, worker: list[str], **more: str) -> Launch:
    """Runs a C program; each thread has the mask of its place in the plan, and none has another."""
    plan = runner.show(options, worker, **more)
    done = runner.run(options, worker, len(plan["ranks"]), **more)
    check_identity(plan, done)
    for planned, rank in zip(plan["ranks"], done.ranks, strict=True):
        check_environment(planned, rank)
        assert rank.command == worker
        assert rank.threads == expected_threads(planned)
        assert sorted(rank.tasks) == sorted(rank.threads)
    return done


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("options", OPTIONS)
def test_every_openmp_thread_is_where_show_said(
    runner: Runner, where: Callable[[str], str], options: str, runtime: str
) -> None:
    """Each thread has the mask of its place, however many ranks and threads; a runtime has nothing
    to complain of."""
    done = check_threads(runner, f"{options} --binder native", [where(runtime), "--wait"])
    messages = [
        line for line in done.err.splitlines() if not line.startswith("ompbind: warning: rank")
    ]
    assert messages == []


@pytest.mark.parametrize("options", OPTIONS)
def test_numactl_changes_nothing(
    runner: Runner, where: Callable[[str], str], options: str, binder: str
) -> None:
    """The threads are in the same places whoever binds their process."""
    check_threads(runner, f"{options} --binder {binder}", [where("libgomp"), "--wait"])


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("proc_bind", PROC_BINDS)
@pytest.mark.parametrize("places", PLACES)
def test_every_way_to_place_and_bind(
    runner: Runner, where: Callable[[str], str], places: str, proc_bind: str, runtime: str
) -> None:
    """Every --places with every --proc-bind does what it says with every runtime, in silence."""
    options = f"--places {places} " if places else ""
    options += f"--proc-bind {proc_bind}"
    if places in ("l3", "numa"):
        _, _, err = runner.show_json(options.split())
        if "the machine does not say" in err:
            pytest.skip(err.strip())
    done = check_threads(runner, options, [where(runtime), "--wait"])
    assert done.err == ""


def test_the_plans_are_these(runner: Runner, where: Callable[[str], str]) -> None:
    """What the tests above compare with is itself right: two cores, one or two ranks."""
    first, second = map(str, runner.desk.cpus)
    both = runner.show("", [where("libgomp")])["ranks"]
    assert [(rank["places"], rank["env"]["OMP_NUM_THREADS"]) for rank in both] == [
        ([first, second], "2")
    ]
    [wide] = runner.show("--places wide")["ranks"]
    assert [expand(place) for place in wide["places"]] == [runner.desk.cpus, [int(second)]]
    [free] = runner.show("--places cores --proc-bind false")["ranks"]
    assert [expand(place) for place in free["places"]] == [runner.desk.cpus]
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
        [*runner.command("run", options), "--output", "inherit", "--", *worker],
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
    shown = dict(line.split(":", 1) for line in done.stdout.splitlines())
    assert shown["policy"].strip() == "bind"
    assert [int(cpu) for cpu in shown["physcpubind"].split()] == runner.desk.cpus
    assert shown["membind"].split() == [node]


# What turns threads away from the plan, or some of them, with one runtime or another.
HOSTILE = {
    "GOMP_CPU_AFFINITY": "{second}",
    "KMP_AFFINITY": "disabled",
    "KMP_HIDDEN_HELPER_AFFINITY": "none",
    "KMP_HW_SUBSET": "1c,1t",
    "KMP_PLACE_THREADS": "1c,1t",
    "OMP_PLACES": "{{{second}}}",
    "OMP_PROC_BIND": "false",
    "OMP_NUM_THREADS": "none",
}
# What makes fewer threads: it is the user's word, unless --threads is.
FEWER = {
    "OMP_THREAD_LIMIT": "1",
    "OMP_DYNAMIC": "true",
    "KMP_DEVICE_THREAD_LIMIT": "1",
    "KMP_ALL_THREADS": "1",
}


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("variable", [*HOSTILE, "all of them"])
def test_an_inherited_environment_does_not_defeat_the_plan(
    runner: Runner, where: Callable[[str], str], variable: str, runtime: str
) -> None:
    """Threads sit where they would without a variable that a runtime prefers to its places."""
    options = "--proc-bind close --places cores"
    names = HOSTILE if variable == "all of them" else [variable]
    inherited = {name: HOSTILE[name].format(second=runner.desk.cpus[1]) for name in names}
    plan = runner.show(options, **inherited)
    assert plan["ranks"] == runner.show(options)["ranks"]
    done = check_threads(runner, options, [where(runtime), "--wait"], **inherited)
    assert done.ranks[0].threads == [[cpu] for cpu in runner.desk.cpus]
    assert [line for line in done.err.splitlines() if not line.startswith("ompbind: note")] == []


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("variable", [*FEWER, "all of them"])
def test_threads_by_option_are_as_many(
    runner: Runner, where: Callable[[str], str], variable: str, runtime: str
) -> None:
    """With --threads no inherited limit makes them fewer."""
    names = FEWER if variable == "all of them" else [variable]
    inherited = {name: FEWER[name] for name in names}
    done = check_threads(runner, "--threads 2", [where(runtime), "--wait"], **inherited)
    assert done.ranks[0].threads == [[cpu] for cpu in runner.desk.cpus]


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_limit_of_threads_is_planned_with(
    runner: Runner, where: Callable[[str], str], runtime: str
) -> None:
    """OMP_THREAD_LIMIT is the user's word: fewer threads are planned, so no runtime warns."""
    limit = {"OMP_THREAD_LIMIT": "1"}
    done = check_threads(runner, "", [where(runtime), "--wait"], **limit)
    assert done.ranks[0].threads == [[runner.desk.cpus[0]]]
    assert [line for line in done.err.splitlines() if not line.startswith("ompbind: note")] == []


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("value", ["spread,close", "close,spread", "master"])
def test_inherited_lists(
    runner: Runner, where: Callable[[str], str], value: str, runtime: str
) -> None:
    """Lists by nesting level are passed on, and every runtime takes them."""
    inherited = {"OMP_PROC_BIND": value, "OMP_NUM_THREADS": "2,1"}
    options = "--places cores"
    done = runner.run(options, [where(runtime), "--wait"], 1, **inherited)
    [rank] = done.ranks
    assert (rank.env["OMP_PROC_BIND"], rank.env["OMP_NUM_THREADS"]) == (value, "2,1")
    first = [runner.desk.cpus[0]]
    both = [[cpu] for cpu in runner.desk.cpus]
    assert rank.threads == ([first, first] if value == "master" else both)
    assert [line for line in done.err.splitlines() if not line.startswith("ompbind: note")] == []


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("first", ["OMP_PROC_BIND", "OMP_PLACES"])
def test_unbound_whatever_the_order(
    runner: Runner, where: Callable[[str], str], first: str, runtime: str
) -> None:
    """LLVM's runtime follows OMP_PLACES in spite of OMP_PROC_BIND=false when that comes first in
    the environment: threads stay unbound even then."""
    second = {"OMP_PROC_BIND", "OMP_PLACES"} - {first}
    inherited = {first: "true", second.pop(): "cores"}  # ours take the same positions
    worker = [where(runtime), "--wait"]
    done = check_threads(runner, "--proc-bind false --places cores", worker, **inherited)
    assert done.ranks[0].threads == [runner.desk.cpus] * 2


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
    "options", [" ".join(pair).strip() for pair in product(("", "-n 2"), ("", "--places cores"))]
)
def test_a_numpy_worker_stays_on_its_cpus(runner: Runner, options: str, binder: str) -> None:
    """All threads of a Python process, NumPy's own among them, have the plan's cpus and no more,
    and its environment was complete when it started."""
    pytest.importorskip("numpy")
    options = f"{options} --binder {binder}"
    worker = [sys.executable, "-c", NUMPY_WORKER]
    plan = runner.show(options, worker)
    done = runner.run(options, worker, len(plan["ranks"]))
    check_identity(plan, done)
    for planned, rank in zip(plan["ranks"], done.ranks, strict=True):
        check_environment(planned, rank)
        assert rank.command == worker
        assert len(rank.tasks) >= 1 + int(planned["env"]["OMP_NUM_THREADS"])
        assert {tuple(task) for task in rank.tasks} == {tuple(expand(planned["cpus"]))}


TORCH_WORKER = """
import os, subprocess, sys, threading
import torch

print("main", *sorted(os.sched_getaffinity(0)))
torch.ones(4000, 1000).exp_()
square = torch.ones(300, 300)
square @ square
print("threads", torch.get_num_threads())
seen = []
thread = threading.Thread(target=lambda: seen.extend(sorted(os.sched_getaffinity(0))))
thread.start()
thread.join()
print("thread", *seen)
code = "import os; print('child', *sorted(os.sched_getaffinity(0)))"
sys.stdout.flush()
subprocess.run([sys.executable, "-c", code], check=True)
tasks = [sorted(os.sched_getaffinity(int(task))) for task in os.listdir("/proc/self/task")]
print("tasks", *(",".join(map(str, cpus)) for cpus in sorted(tasks)))
"""


def run_torch(runner: Runner, options: str, **more: str) -> tuple[dict[str, list[str]], str]:
    """What a worker with torch tells of itself, by its lines' first words; what anybody said on
    standard error."""
    pytest.importorskip("torch")
    command = [*runner.command("run", options), "--", sys.executable, "-c", TORCH_WORKER]
    env = runner.environ | {"OPENBLAS_NUM_THREADS": "1"} | more
    done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=240)
    assert done.returncode == 0, done.stderr
    return {line.split()[0]: line.split()[1:] for line in done.stdout.splitlines()}, done.stderr


@pytest.mark.parametrize("options", ["", "--places wide", "--runtime libgomp", "--proc-bind false"])
def test_nothing_that_torch_starts_is_caught(runner: Runner, options: str) -> None:
    """After `import torch` the main thread, what it starts, and torch's own threads have the cpus
    that the plan gives them: by default, and with a wide first place, all of the rank's."""
    report, err = run_torch(runner, options)
    cpus = [str(cpu) for cpu in runner.desk.cpus]
    assert report["main"] == report["thread"] == report["child"] == cpus
    assert report["threads"] == ["2"]
    helper = cpus[1] if "wide" in options else ",".join(cpus)
    assert sorted(report["tasks"]) == sorted([",".join(cpus), helper])
    assert err == ""


def test_a_place_for_each_core_catches_what_torch_starts(runner: Runner) -> None:
    """The trap is there, or the default would have no reason: the main thread is left one cpu."""
    report, err = run_torch(runner, "--places cores")
    first, second = (str(cpu) for cpu in runner.desk.cpus)
    assert report["main"] == report["thread"] == report["child"] == [first]
    assert sorted(report["tasks"]) == sorted([first, second])
    assert err == ""


def test_torch_takes_the_old_name_of_primary(runner: Runner) -> None:
    """torch's libgomp is older than the name `primary`; it gets the old one."""
    report, err = run_torch(runner, "--places cores --proc-bind primary")
    assert report["tasks"] == [str(runner.desk.cpus[0])] * 2
    assert err == ""


def test_torch_makes_as_many_threads_as_planned(runner: Runner) -> None:
    """MKL alone would make one for each core, and torch follows it."""
    report, _ = run_torch(runner, "--places cores --threads 4", MKL_NUM_THREADS="1")
    assert report["threads"] == ["4"]
    first, second = (str(cpu) for cpu in runner.desk.cpus)
    assert sorted(report["tasks"]) == sorted([first, second] * 2)


def test_torch_under_another_runtime(runner: Runner) -> None:
    """With Intel's runtime preloaded, as servers on CPUs do, there are two in the process: with
    the default neither is left with a single cpu."""
    intel = f"{require_intel()}/libiomp5.so"
    report, err = run_torch(runner, "", LD_PRELOAD=intel)
    cpus = [str(cpu) for cpu in runner.desk.cpus]
    assert report["main"] == report["thread"] == report["child"] == cpus
    assert report["threads"] == ["2"]
    assert err == ""
