"""Thread pools beside OpenMP's: which get a variable, which follow something else, which keep the
user's; what comes of it in real libraries is in tests/jobs/test_thread_pools.py."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import ompbind
from ompbind.cli import main
from ompbind.machine import read_machine
from ompbind.openmp.thread_pools import POOLS, choose_pools, is_planned
from ompbind.options import make_plan_options
from ompbind.plan_json import parse_plan
from ompbind.plans import POOL_MODES
from ompbind.resolve import resolve_plan
from tests.support.commands import environment, ompbind_run
from tests.support.needs import need_cpus, unavailable

SERVER = str(Path(__file__).parents[2] / "examples/server.topo")
COMMAND = ["python", "x.py"]
VARIABLES = {
    "NUMBA_NUM_THREADS": "4", "POLARS_MAX_THREADS": "4", "RAYON_NUM_THREADS": "4",
    "GOMAXPROCS": "4", "JDK_JAVA_OPTIONS": "-XX:ActiveProcessorCount=4",
    "JULIA_NUM_THREADS": "4", "PYTHON_CPU_COUNT": "4", "LLAMA_ARG_THREADS": "4",
}  # fmt: skip
NAMES = {name for pool in POOLS for name in pool.variables}


def plan_of(values: dict[str, object], **environ: str) -> tuple[dict[str, str], ompbind.Plan]:
    """The variables of pools that rank 0 gets, and the plan."""
    options = make_plan_options({"topology": SERVER, "ranks": 2, **values}, COMMAND, environ)
    plan = resolve_plan(options, environ)
    env = {k: v for k, v in plan.ranks[0].env if k in NAMES}
    return env, ompbind.Plan.made_from(plan)


def hows(plan: ompbind.Plan) -> dict[str, str]:
    return {pool.name: pool.how for pool in plan.pools}


def test_a_plan_that_does_not_ask_has_none() -> None:
    """Nothing is set, and nothing said, without --pools, --threads and a quota."""
    env, plan = plan_of({})
    assert (env, plan.pools) == ({}, ())
    assert "pools" not in plan.to_dict()
    assert plan_of({"threads": "4", "pools": False})[0] == {}
    assert plan_of({"threads": "4", "omp": "threads"})[0] == VARIABLES


def test_threads_are_for_all_pools() -> None:
    """With --threads each pool that follows something else gets a variable; those that follow
    OMP_NUM_THREADS, and those of no variable, get none, and all are named."""
    env, plan = plan_of({"threads": "4"})
    assert env == VARIABLES
    assert hows(plan) == {
        **dict.fromkeys(("OpenBLAS", "MKL", "BLIS", "NumExpr"), "openmp"),
        **dict.fromkeys(("Numba", "Polars", "Rayon", "Go", "Java"), "set"),
        **dict.fromkeys(("Julia", "Python 3.13", "llama.cpp"), "set"),
        **dict.fromkeys(("ONNX Runtime", "oneTBB"), "unreached"),
    }
    [first, *_] = plan.to_dict()["pools"]
    assert first == {"name": "OpenBLAS", "how": "openmp", "variable": "OMP_NUM_THREADS"}
    assert parse_plan(plan.to_json()).pools == plan.pools


def test_only_what_is_needed() -> None:
    """Where a rank has as many threads as cpus, pools that count their cpus count right."""
    env, plan = plan_of({"pools": True})
    names = ("JULIA_NUM_THREADS", "PYTHON_CPU_COUNT", "LLAMA_ARG_THREADS")
    assert env == dict.fromkeys(names, "16")
    assert hows(plan)["Numba"] == hows(plan)["oneTBB"] == "mask"
    assert hows(plan)["ONNX Runtime"] == "unreached"


def test_a_variable_of_the_users_stays() -> None:
    """Inherited, it is reported; by --env it wins; MKL's goes with --threads as it always did."""
    env, plan = plan_of({"threads": "4"}, NUMBA_NUM_THREADS="9", GOTO_NUM_THREADS="1",
                        MKL_NUM_THREADS="7")  # fmt: skip
    assert env == {k: v for k, v in VARIABLES.items() if k != "NUMBA_NUM_THREADS"}
    assert {i.name: i.action for i in plan.inherited} == {
        "MKL_NUM_THREADS": "removed", "GOTO_NUM_THREADS": "respected",
        "NUMBA_NUM_THREADS": "respected",
    }  # fmt: skip
    assert [hows(plan)[name] for name in ("OpenBLAS", "MKL", "Numba")] == ["kept", "openmp", "kept"]
    env, plan = plan_of({"threads": "4", "env": (("POLARS_MAX_THREADS", "3"),)})
    assert env == VARIABLES | {"POLARS_MAX_THREADS": "3"}
    assert hows(plan)["Polars"] == "kept"


def test_a_quota_asks_for_them() -> None:
    """Ranks share it, which no pool can know: each would take all of it."""
    machine = read_machine(SERVER)
    machine = machine.replace(allowed=machine.allowed.replace(quota=8.0))
    for words, wanted in (({}, VARIABLES), ({"pools": False}, {})):
        options = make_plan_options({"ranks": 2, **words}, COMMAND, {})
        plan = resolve_plan(options.replace(topology=SERVER), {}, machine)
        assert {k: v for k, v in plan.ranks[1].env if k in NAMES} == wanted


def test_what_is_refused(capfd: pytest.CaptureFixture[str]) -> None:
    """--pools without a number of threads, said or by the command."""
    assert main(["show", "--pools", "--omp", "off", "--", "true"]) == 125
    assert "--omp off plans none" in capfd.readouterr().err
    assert main(["show", "--pools", "--topology", SERVER, "--", "vllm", "serve", "m"]) == 125
    assert capfd.readouterr().err.startswith(
        "ompbind: error: --pools needs a number of threads, and the plan sets none: vLLM"
    )


def test_it_is_shown(capfd: pytest.CaptureFixture[str]) -> None:
    words = ["show", "--topology", SERVER, "-n", "2", "--threads", "4", "--explain"]
    words += ["--env", "GOMAXPROCS=2", "--", "x"]
    assert main(words) == 0
    out = " ".join(capfd.readouterr().out.split())
    assert (
        "other thread pools: as many threads each; kept as you set them: Go; out of reach: "
        "ONNX Runtime, oneTBB"
    ) in out
    assert (
        "Other thread pools: OpenBLAS, MKL, BLIS, NumExpr by OMP_NUM_THREADS; Numba, Polars, Rayon,"
        " Java, Julia, Python 3.13, llama.cpp by their variables; Go (GOMAXPROCS) as these"
        " variables of yours say; ONNX Runtime (SessionOptions.intra_op_num_threads), oneTBB"
        " (tbb::global_control) by no variable, but in the program."
    ) in out


def test_groups(capfd: pytest.CaptureFixture[str]) -> None:
    """Each group has its own number, and the plan says how the pools of all get theirs."""
    words = ["show", "--topology", SERVER, "--format", "json", "--cores-per-rank", "8"]
    words += ["--threads", "2", "--", "a", ":::", "--cores-per-rank", "4", "--", "b"]
    assert main(words) == 0
    plan = json.loads(capfd.readouterr().out)
    pools = [rank["env"].get("NUMBA_NUM_THREADS") for rank in plan["ranks"]]
    assert pools == ["2", None]
    assert {pool["how"] for pool in plan["pools"]} == {"openmp", "set", "unreached"}


def test_a_saved_plan_keeps_them(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """For another command, too, as they are a part of the plan; what only has their name is not."""
    file = tmp_path / "plan.json"
    _, plan = plan_of({"threads": "4"})
    file.write_text(plan.to_json())
    words = ["show", "--plan", str(file), "--format", "json", "--", "ls"]
    assert main(words) == 0
    told = json.loads(capfd.readouterr().out)
    assert told["ranks"][0]["env"].items() >= VARIABLES.items()
    assert [pool["how"] for pool in told["pools"]] == [pool.how for pool in plan.pools]
    file.write_text(plan.to_json().replace("-XX:ActiveProcessorCount=4", "-javaagent:/x.jar"))
    assert main(words) == 125
    assert "JDK_JAVA_OPTIONS='-javaagent:/x.jar'" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("name", "value", "planned"),
    [
        ("NUMBA_NUM_THREADS", "4", True),
        ("NUMBA_NUM_THREADS", "", False),
        ("NUMBA_NUM_THREADS", "4;x", False),
        ("JDK_JAVA_OPTIONS", "-XX:ActiveProcessorCount=12", True),
        ("JDK_JAVA_OPTIONS", "12", False),
        ("JDK_JAVA_OPTIONS", "-XX:ActiveProcessorCount=", False),
        ("GOTO_NUM_THREADS", "4", False),  # no plan has it
        ("PATH", "4", False),
    ],
)
def test_values_of_plans(name: str, value: str, planned: bool) -> None:
    assert is_planned(name, value) == planned


@given(
    st.integers(1, 300), st.integers(1, 300), st.sets(st.sampled_from(sorted(NAMES))),
    st.booleans(),
)  # fmt: skip
def test_every_pool_is_accounted_for(
    threads: int, cpus: int, given: set[str], nested: bool
) -> None:
    """Each is there once, in one of the ways; nothing that is given is set, and whatever is set is
    what a plan may have."""
    pools = choose_pools(f"{threads}{',2' * nested}", cpus, given)
    assert [pool.name for pool in pools] == [pool.name for pool in POOLS]
    for pool, row in zip(pools, POOLS, strict=True):
        assert pool.how in POOL_MODES
        assert (pool.how == "kept") == bool(given & {*row.variables})
        if pool.how == "set":
            assert pool.variable not in given
            assert is_planned(pool.variable, pool.value)


def test_in_a_process() -> None:
    """OpenBLAS starts as many threads as the plan says, and the variables arrive; by /proc."""
    pytest.importorskip("numpy")
    need_cpus(2)
    code = (
        "import os, numpy as np; a = np.ones((400, 400)); a @ a; "
        "print(len(os.listdir('/proc/self/task')), os.environ['PYTHON_CPU_COUNT'])"
    )
    done = ompbind_run("run", "--threads", "1", "--", sys.executable, "-c", code)
    assert (done.returncode, done.stdout.strip()) == (0, "1 1"), done.stderr


def test_java(tmp_path: Path) -> None:
    """The JVM counts the rank's threads as its processors."""
    if not shutil.which("java"):
        pytest.skip("there is no java")
    words = ["run", "--threads", "1", "--", "java", "-Xshare:auto", "-XX:+PrintFlagsFinal"]
    done = ompbind_run(*words, "-version", env=environment())
    if done.returncode != 0:
        unavailable(f"java does not run: {done.stderr}")
    line = next(ln for ln in done.stdout.splitlines() if " ActiveProcessorCount " in ln)
    assert line.split()[3] == "1"


def test_pythons_own_count() -> None:
    """os.cpu_count, which would be the whole machine's."""
    if sys.version_info < (3, 13):
        pytest.skip("this Python does not read PYTHON_CPU_COUNT; tools/test-pythons has others")
    done = ompbind_run("run", "--threads", "1", "--", sys.executable, "-c",
                       "import os; print(os.cpu_count(), os.process_cpu_count())")  # fmt: skip
    assert done.stdout.split() == ["1", "1"]
