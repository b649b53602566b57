"""Commands that bind the workers they start: recognised, and left to do so (--omp)."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from ompbind.errors import PlanError
from ompbind.options import make_plan_options, read_arguments
from ompbind.plan_json import parse_plan
from ompbind.planner.request import Request
from ompbind.plans import Plan
from ompbind.render.sentences import explain
from ompbind.resolve import resolve_plan
from ompbind.saved import load_plan
from ompbind.worker import may_bind_workers
from ompbind.worker.launchers import LAUNCHERS, find_launch
from tests.support.commands import environment, ompbind_run
from tests.support.needs import need_cpus
from tests.support.trees import Shape, make_files, write_tree

RUN_CPU = "torch's run_cpu"
KNOWN = [
    ("vllm serve m -tp 2", "vLLM", "vllm"),
    ("/opt/v/bin/vllm serve m", "vLLM", "/opt/v/bin/vllm"),
    ("vllm bench throughput --model m", "vLLM", "vllm"),
    ("python -m vllm.entrypoints.openai.api_server --model m", "vLLM", "python"),
    ("python3.12 -u -X dev -mvllm.entrypoints.cli.main serve m", "vLLM", "python3.12"),
    ("/v/bin/python /v/bin/vllm serve m", "vLLM", "/v/bin/python"),
    ("env -u A B=c vllm serve m", "vLLM", "vllm"),
    ("numactl -C 0-3 --membind 0 -- vllm serve m", "vLLM", "vllm"),
    ("uv run --no-sync vllm serve m", "vLLM", "vllm"),
    ("timeout 9 env A=b python -m sglang.launch_server --tp 2", "SGLang", "python"),
    ("sglang serve --model-path m", "SGLang", "sglang"),
    ("python -m dynamo.vllm --model m", "vLLM", "python"),
    ("trtllm-serve serve m", "TensorRT-LLM", "trtllm-serve"),
    ("python -m torch.backends.xeon.run_cpu --ninstances 2 a.py", RUN_CPU, "python"),
    ("ipexrun a.py", RUN_CPU, "ipexrun"),
    ("deepspeed --bind_cores_to_rank a.py", "DeepSpeed", "deepspeed"),
    ("torchrun --nproc-per-node 2 --numa-binding=node a.py", "torchrun", "torchrun"),
    ("python -m torch.distributed.run --numa-binding node a.py", "torchrun", "python"),
]
OTHERS = [
    "", "true", "./solver vllm", "python train.py --backend vllm", "python -c vllm serve",
    "python -cvllm", "python -m vllmish", "python -m", "python", "vllm bench serve --model m",
    "vllm collect-env", "vllm --help", "deepspeed a.py", "torchrun --nproc-per-node 2 a.py",
    "env", "env A=vllm true", "uv run train.py vllm.txt", "echo sglang", "torchrun.sh vllm",
]  # fmt: skip


@pytest.mark.parametrize(("command", "name", "program"), KNOWN)
def test_a_launcher_is_recognised(command: str, name: str, program: str) -> None:
    """By its program's name or Python's module, with a path and behind other programs as well."""
    words = command.split()
    launch = find_launch(words)
    assert launch is not None
    assert (launch.launcher.name, launch.program) == (name, program)
    assert launch.arguments == tuple(words[len(words) - len(launch.arguments) :])
    assert may_bind_workers(words)


@pytest.mark.parametrize("command", OTHERS)
def test_other_commands_are_not(command: str) -> None:
    """An argument is no program, and some subcommands start no worker."""
    assert find_launch(command.split()) is None


def test_every_launcher_is_asked_for() -> None:
    """The short list that each launch looks at has something of every name."""
    for launcher in LAUNCHERS:
        for name in launcher.programs + launcher.modules:
            assert may_bind_workers(["python", name]), name


def plan_for(args: str, command: str, environ: Mapping[str, str] | None = None) -> Plan:
    values, rest = read_arguments(args.split(), "show")
    assert not rest
    environ = environ or {}
    return resolve_plan(make_plan_options(values, command.split(), environ), environ)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> str:
    shape = Shape(packages=2, nodes=2, cores=8, threads=2, l3s=2, numbering="halves")
    place = tmp_path_factory.mktemp("two-nodes")
    return f"--topology {write_tree(make_files(shape), place)} --binder native"


OPENMP = ("OMP_", "GOMP_", "KMP_", "MKL_")


def openmp_of(plan: Plan) -> dict[str, str]:
    [rank] = plan.ranks
    return {name: value for name, value in rank.env if name.startswith(OPENMP)}


def test_variables_are_left_alone(tree: str) -> None:
    """`off`: cpus and memory are bound as ever, and nothing of OpenMP's is set, removed or
    judged; what the environment has is passed on."""
    environ = {"GOMP_CPU_AFFINITY": "0 1", "OMP_NUM_THREADS": "1", "OMP_PLACES": "{0},{1}"}
    plan = plan_for(f"{tree} --omp off --numa-bind-nodes 1", "./solver", environ)
    [rank] = plan.ranks
    assert (str(rank.cpus), rank.mem, str(rank.mems)) == ("4-7", "bind", "1")
    assert (openmp_of(plan), rank.unset, rank.places, plan.inherited) == ({}, (), (), ())
    assert (plan.omp, plan.omp_why, plan.places_why) == ("off", "--omp is given", "")


def test_the_number_of_threads_alone(tree: str) -> None:
    """`threads`: OMP_NUM_THREADS as without --omp, and what limits it is judged."""
    environ = {"GOMP_CPU_AFFINITY": "0 1", "OMP_THREAD_LIMIT": "3", "OMP_PROC_BIND": "spread"}
    plan = plan_for(f"{tree} --omp threads --numa-bind-nodes 1", "./solver", environ)
    assert openmp_of(plan) == {"OMP_NUM_THREADS": "3"}
    assert [i.name for i in plan.inherited] == ["OMP_THREAD_LIMIT"]
    plan = plan_for(f"{tree} --omp threads --threads 16", "./solver", environ)
    assert openmp_of(plan) == {"OMP_NUM_THREADS": "16", "MKL_DYNAMIC": "FALSE"}
    assert "OMP_THREAD_LIMIT" in plan.ranks[0].unset
    assert "GOMP_CPU_AFFINITY" not in plan.ranks[0].unset
    assert [c.kind for c in plan.cautions] == ["threads"]


@pytest.mark.parametrize(
    ("args", "command", "mode"),
    [
        ("", "vllm serve m", "off"),
        ("-n 2", "python -m sglang.launch_server --tp 2", "off"),
        ("--threads 4", "vllm serve m", "threads"),
        ("--omp all", "vllm serve m", "all"),
        ("--places cores", "vllm serve m", "all"),
        ("--proc-bind false", "vllm serve m", "all"),
        ("", "python serve.py", "all"),
    ],
)
def test_a_launcher_chooses_and_an_option_wins(
    tree: str, args: str, command: str, mode: str
) -> None:
    """For vLLM and its like nothing is set unless somebody asks for it; the reason is told."""
    plan = plan_for(f"{tree} {args}", command)
    assert plan.omp == mode
    named = command.split(maxsplit=1)[0] == "vllm" or "sglang" in command
    if mode != "all":
        assert named
        assert "binds its workers itself" in plan.omp_why
        assert any("binds its workers itself" in line for line in explain(plan))
    assert bool(plan.places_why) == (mode == "all")
    assert parse_plan(plan.to_json()) == plan
    saved = json.loads(plan.to_json())
    assert (saved["omp"], saved["omp_why"]) == (plan.omp, plan.omp_why)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ("--omp off --places one", "--omp off leaves places to others, and --places is about them"),
        ("--omp threads --proc-bind true", "--omp threads leaves places to others"),
        ("--omp off --runtime libgomp", "--omp off leaves places to others"),
        ("--omp off --threads 2", "--omp off does not set OMP_NUM_THREADS, and --threads does"),
    ],
)
def test_contradictions_are_refused(args: str, message: str) -> None:
    """An option about a variable that is not set would have no effect."""
    with pytest.raises(PlanError, match=message):
        plan_for(args, "true")


@pytest.mark.parametrize(
    ("environ", "command", "warned"),
    [
        ({"VLLM_CPU_OMP_THREADS_BIND": "0|1"}, f"{sys.executable} offline.py", True),
        ({"SGLANG_CPU_OMP_THREADS_BIND": "0|1"}, f"{sys.executable} offline.py", True),
        ({"VLLM_CPU_OMP_THREADS_BIND": "nobind"}, f"{sys.executable} offline.py", False),
        ({"VLLM_CPU_OMP_THREADS_BIND": "0|1"}, "/bin/true", False),
        ({}, f"{sys.executable} offline.py", False),
    ],
)
def test_a_variable_that_binds_workers_is_noticed(
    tree: str, environ: dict[str, str], command: str, warned: bool
) -> None:
    """A program of which nothing is known may start vLLM: what to do about it is told."""
    cautions = plan_for(tree, command, environ).cautions
    assert [(c.kind, c.hint[:9]) for c in cautions] == [("openmp", "--omp off")] * warned
    assert not plan_for(f"{tree} --omp off", command, environ).cautions


@pytest.mark.parametrize(
    ("args", "value", "named"),
    [
        ("--numa-bind-cpus 1-3", "0-1|2-3", "cpu 0, which rank 0 "),
        ("--numa-bind-cpus 0-3 4-7", "0-1|2-3", "cpus 0-3, which rank 1 "),
        ("--numa-bind-cpus 0-3", "0-1|2-3", ""),
        ("--numa-bind-cpus 1-3", "auto", ""),
        ("--numa-bind-cpus 1-3", "nobind", ""),
        ("--numa-bind-cpus 1-3", "", ""),
        ("--serve vllm --numa-bind-cpus 1 2", "0|1", ""),
    ],
)
def test_lists_beyond_the_plan_are_noticed(tree: str, args: str, value: str, named: str) -> None:
    """The server would bind its workers there: GNU's OpenMP leaves the mask."""
    environ = {"VLLM_CPU_OMP_THREADS_BIND": value}
    texts = [c.text for c in plan_for(f"{tree} {args}", "vllm serve m -tp 2", environ).cautions
             if c.kind == "openmp"]  # fmt: skip
    assert [named in text for text in texts] == [True] * bool(named)


def test_one_warning_for_one_variable(tree: str) -> None:
    """Where OpenMP's variables override a list, its workers do not leave the plan for it."""
    environ = {"VLLM_CPU_OMP_THREADS_BIND": "0-1|2-3"}
    plan = plan_for(f"{tree} --numa-bind-cpus 1-3", "python serve.py", environ)
    texts = [c.text for c in plan.cautions if c.kind == "openmp"]
    assert len(texts) == 1
    assert texts[0].endswith("that they inherit from this plan override that")


def test_a_saved_plan_for_a_launcher(tree: str, tmp_path: Path) -> None:
    """A plan with places that is run with vLLM instead of its own command warns; one without does
    not, and removes nothing from the environment."""
    path = tmp_path / "plan.json"
    request = Request(command=("vllm", "serve", "m"))
    path.write_text(plan_for(tree, "./solver").to_json())
    plan = load_plan(str(path), request, {})
    assert [(c.kind, c.hint) for c in plan.cautions] == [("openmp", "save the plan with --omp off")]
    path.write_text(plan_for(f"{tree} --omp off", "./solver").to_json())
    plan = load_plan(str(path), request, {"KMP_AFFINITY": "none"})
    assert (plan.cautions, plan.inherited, plan.ranks[0].unset) == ((), (), ())


SERVER = """#!{python}
import os, subprocess, sys
for worker, cpus in enumerate(sys.argv[3:]):
    affinity = dict(os.environ, GOMP_CPU_AFFINITY=cpus, OMP_NUM_THREADS="1")
    print(f"worker {{worker}}", "OMP_NUM_THREADS" in os.environ, flush=True)
    subprocess.run([sys.argv[2]], env=affinity, check=True)
"""


def test_a_servers_workers_stay_where_it_binds_them(
    where: Callable[[str], str], tmp_path: Path
) -> None:
    """As vLLM does it: a worker each for two cpus, bound by GOMP_CPU_AFFINITY alone. With our
    places in its environment both would be on both cpus."""
    cpus = need_cpus(2)
    server = tmp_path / "vllm"
    server.write_text(SERVER.format(python=sys.executable))
    server.chmod(0o755)
    both = f"{cpus[0]},{cpus[1]}"
    command = ["--", str(server), "serve", where("libgomp"), *map(str, cpus[:2])]
    env = environment(PATH=os.environ["PATH"])
    done = ompbind_run("run", "--numa-bind-cpus", both, *command, env=env)
    assert done.returncode == 0, done.stderr
    assert re.findall(r"worker (\d) (\w+)", done.stdout) == [("0", "False"), ("1", "False")]
    assert re.findall(r"thread 0.* mask (\S+)", done.stdout) == [str(c) for c in cpus[:2]]
    done = ompbind_run("run", "--numa-bind-cpus", both, "--omp", "all", *command, env=env)
    assert re.findall(r"thread 0.* mask (\S+)", done.stdout) != [str(c) for c in cpus[:2]]
