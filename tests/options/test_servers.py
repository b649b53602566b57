"""Servers: the workers that a command asks for, and how an engine is told of their cpus."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ompbind.cpuset import CpuSet, union
from ompbind.errors import OmpbindError, PlanError, UsageError
from ompbind.options import make_plan_options, read_arguments
from ompbind.options.servers import ENGINES, Count, count_sglang, count_vllm, find_word
from ompbind.plan_json import parse_plan
from ompbind.planner import make_plan
from ompbind.planner.request import Request, Serving
from ompbind.plans import Plan
from ompbind.render import make_text
from ompbind.render.plan import draw_plan
from ompbind.render.sentences import explain
from ompbind.resolve import resolve_plan
from ompbind.saved import check_agreement, load_plan
from tests.support.machines import MACHINES, make_asked
from tests.support.trees import Pci, Shape, make_files, write_tree
from tests.worker.test_installed import make_environment

VLLM, SGLANG = "VLLM_CPU_OMP_THREADS_BIND", "SGLANG_CPU_OMP_THREADS_BIND"
LAUNCH_SGLANG = "python -m sglang.launch_server --device cpu"
X86 = {"proc/cpuinfo": "processor\t: 0\nvendor_id\t: GenuineIntel\n"}
TWO_NODES = Shape(packages=2, nodes=2, cores=8, threads=2, l3s=2, numbering="halves")


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Cores 0-3 on node 0, 4-7 on node 1; cpu 8 and up are the second threads."""
    place = tmp_path_factory.mktemp("two-nodes")
    return f"--topology {write_tree(make_files(TWO_NODES) | X86, place)} --binder native"


@pytest.fixture(scope="module")
def gpu_tree(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The same with two GPUs, the first near node 1."""
    gpus = tuple(
        Pci(f"0000:{bus}:00.0", "030200", node=node, driver="nvidia")
        for bus, node in (("18", 1), ("98", 0))
    )
    shape = Shape(packages=2, nodes=2, cores=8, threads=2, l3s=2, numbering="halves", devices=gpus)
    place = tmp_path_factory.mktemp("gpus")
    return f"--topology {write_tree(make_files(shape) | X86, place)} --binder native"


def plan_for(args: str, command: str, environ: Mapping[str, str] | None = None) -> Plan:
    values, rest = read_arguments(args.split(), "show")
    assert not rest
    environ = environ or {}
    return resolve_plan(make_plan_options(values, command.split(), environ), environ)


def lists_of(plan: Plan, variable: str = VLLM) -> str:
    """What the server is told in its environment."""
    [rank] = plan.ranks
    return dict(rank.env)[variable]


# --- how many workers ----------------------------------------------------------------------------

COUNTS = [
    ("", 1, ""),
    ("-tp 2", 2, "-tp 2"),
    ("m --tensor-parallel-size=2 -pp 3", 6, "--tensor-parallel-size 2 -pp 3"),
    ("--tensor_parallel_size 2 --port 8000", 2, "--tensor_parallel_size 2"),
    ("-tp 2 -dp 3", 6, "-tp 2 -dp 3"),
    ("-tp 2 -dp 4 --data-parallel-size-local 1", 2,
     "-tp 2 -dp 4 --data-parallel-size-local 1"),
    ("-tp 2 -dp 4 -dpl 2 --nnodes 2", 4, "-tp 2 -dp 4 -dpl 2 --nnodes 2"),
    ("-tp 8 --nnodes 2", 4, "-tp 8 --nnodes 2"),
    ("-tp 2 -dp 4 --data-parallel-rank 1", 2, "-tp 2 -dp 4"),
    ("-tp 4 -tp 2", 2, "-tp 2"),
    ("-tp=2", 2, "-tp 2"),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "number", "text"), COUNTS)
def test_vllms_workers_are_counted_as_it_does(arguments: str, number: int, text: str) -> None:
    """Tensor times pipeline parallel, for each data-parallel engine of this machine."""
    assert count_vllm(arguments.split(), {}) == Count(number, text)


def test_vllms_workers_beyond_its_options() -> None:
    """A server of several started one by one has a slice of all lists; a file is not read."""
    assert count_vllm(["-tp", "2"], {"VLLM_DP_SIZE": "2"}) == Count(4, "-tp 2 VLLM_DP_SIZE=2")
    assert count_vllm(["-tp", "2", "-dp", "3"], {"VLLM_DP_SIZE": "2"}) == Count(6, "-tp 2 -dp 3")
    assert count_vllm(["--config", "a.yaml"], {}) is None
    assert count_vllm(["--config", "a.yaml", "-tp", "2"], {}) == Count(2, "-tp 2")
    with pytest.raises(UsageError, match="Ray starts the workers"):
        count_vllm(["--distributed-executor-backend", "ray"], {})


def test_sglangs_workers() -> None:
    """It has other names for the same."""
    assert count_sglang(["--tp", "2", "--pp-size", "2"], {}) == Count(4, "--tp 2 --pp-size 2")
    assert count_sglang(["--tp-size=3"], {}) == Count(3, "--tp-size 3")
    assert count_sglang(["--config", "a.yaml"], {}) is None
    with pytest.raises(UsageError, match="--nnodes"):
        count_sglang(["--nnodes", "2"], {})


@pytest.mark.parametrize("text", ["", "0", "two", "-1", "2.5"])
def test_a_size_that_is_none_is_refused(text: str) -> None:
    """In one line that names the option, before anything is started."""
    with pytest.raises(UsageError, match=r"^the command's -tp: .* is not a number of workers$"):
        count_vllm(["-tp", text], {})


@given(st.lists(st.sampled_from(["-tp", "-tp=4", "-dp", "2", "3", "--x", "", "-", "--", "=", "."])))
def test_any_command_is_counted_or_refused(arguments: list[str]) -> None:
    """Whatever the words are: a number of 1 or more, or one clear error."""
    try:
        count = count_vllm(arguments, {})
    except UsageError as e:
        assert "is not a number of workers" in e.message
    else:
        assert count is not None
        assert count.number >= 1
    assert find_word(arguments, ("--absent",)) == ("--absent", None)


# --- vLLM on CPUs --------------------------------------------------------------------------------


def test_one_server_and_its_workers(tree: str) -> None:
    """One process with the cpus of all workers and the reserved cores, its memory free; a list for
    each worker in vLLM's variable, and nothing of OpenMP's."""
    plan = plan_for(f"{tree} --serve vllm", "vllm serve m -tp 2", {"OMP_NUM_THREADS": "3"})
    [rank] = plan.ranks
    assert plan.server is not None
    assert [(str(w.cpus), w.mem, str(w.mems)) for w in plan.server.workers] == [
        ("0-2", "bind", "0"), ("4-6", "bind", "1"),
    ]  # fmt: skip
    assert (str(plan.server.rest), str(plan.reserved)) == ("3,7,11,15", "3,7,11,15")
    assert (str(rank.cpus), rank.mem, rank.places) == ("0-7,11,15", "none", ())
    assert dict(rank.env) == {
        "OMPBIND_RANK": "0", "OMPBIND_RANKS": "1", "OMPBIND_CPUS": "0-7,11,15",
        "OMPBIND_MEM": "none", VLLM: "0-2|4-6",
    }  # fmt: skip
    assert (rank.command, rank.unset) == (("vllm", "serve", "m", "-tp", "2"), ())
    assert (plan.omp, plan.inherited, plan.cautions) == ("off", (), ())


WAYS = [
    ("", "-tp 4", "0|2|4|6"),  # more workers than nodes: vLLM refuses, here nodes are divided
    ("--reserve 0", "-tp 4", "0-1|2-3|4-5|6-7"),
    ("--reserve 1", "-tp 2", "0-3|4-6"),
    ("--numa-bind-nodes 1 0", "-tp 2", "4-6|0-2"),
    ("--numa-bind-cpus 0-1 4-5", "-tp 2", "0-1|4-5"),
    ("--per numa --smt all", "-tp 2", "0-2,8-10|4-6,12-14"),
    ("--part 2/2", "", "4-6"),
    ("--part 1/2", "-tp 2", "0|2"),
    ("--cores-per-rank 2", "-tp 2", "0-1|4-5"),
    ("--role kv=1/rank --reserve 0", "-tp 2", "0-2|4-6"),
    ("--exclude 0", "-tp 2", "1-2|4-6"),
]


@pytest.mark.parametrize(("args", "words", "lists"), WAYS)
def test_all_options_plan_the_workers(tree: str, args: str, words: str, lists: str) -> None:
    """As they plan ranks; what vLLM reserves by itself is taken where nothing else is said."""
    plan = plan_for(f"{tree} --serve vllm {args}", f"vllm serve m {words}")
    assert lists_of(plan) == lists
    [rank] = plan.ranks
    assert plan.server is not None
    workers = union(w.cpus for w in plan.server.workers)
    assert rank.cpus == workers | plan.server.rest
    assert not workers & plan.server.rest
    assert workers <= CpuSet(range(16))
    assert parse_plan(plan.to_json()) == plan


def test_roles_are_the_servers(tree: str) -> None:
    """A pool of each worker is one pool of the process that they all inherit from."""
    plan = plan_for(f"{tree} --serve vllm --role kv=1/rank", "vllm serve m -tp 2")
    assert [(r.name, str(r.cpus), str(r.ranks)) for r in plan.roles] == [("kv", "3,7", "0")]
    assert dict(plan.ranks[0].env)["OMPBIND_ROLE_KV"] == "3,7"
    assert lists_of(plan) == "0-1|4-5"
    assert str(plan.reserved) == "2,6,10,14"
    assert plan.ranks[0].cpus == CpuSet.parse_kernel("0-7,10,14")


def test_the_rest_of_explicit_lists_is_the_engines(tree: str) -> None:
    """Where nothing is reserved, cores without a worker are left to engine and front end, as
    without ompbind; those of other parts are not."""
    plan = plan_for(f"{tree} --serve vllm --numa-bind-cpus 0-1 4-5", "vllm serve m -tp 2")
    assert (str(plan.ranks[0].cpus), str(plan.unused)) == ("0-7,10-11,14-15", "")
    plan = plan_for(f"{tree} --serve vllm --part 1/2 --reserve 0", "vllm serve m")
    assert str(plan.ranks[0].cpus) == "0-3"


def test_memory_that_the_engine_binds_otherwise(tree: str) -> None:
    """vLLM takes the node of a worker's first cpu. What contradicts that is refused; cpus of
    several nodes carry a warning."""
    with pytest.raises(PlanError, match="worker 0: its memory is to come from node 1, but vLLM"):
        plan_for(f"{tree} --serve vllm --numa-bind-cpus 0-3 --numa-bind-nodes 1", "vllm serve m")
    plan = plan_for(f"{tree} --serve vllm --share --per package -n 1", "vllm serve m")
    assert not plan.cautions
    plan = plan_for(f"{tree} --serve vllm --numa-bind-cpus 2-5", "vllm serve m")
    assert [c.kind for c in plan.cautions] == ["memory"]
    assert "binds a worker's memory to one node, here 0" in plan.cautions[0].text
    plan = plan_for(f"{tree} --serve vllm --mem bind", "vllm serve m -tp 2")
    assert (plan.ranks[0].mem, str(plan.ranks[0].mems)) == ("bind", "0-1")


def test_a_quota_is_worth_less_than_the_workers() -> None:
    """vLLM makes a thread for each cpu of a list; that they will be throttled is told."""
    serving = Serving("vllm", "vLLM", "", VLLM)
    for args, kinds in (([], ["quota"]), (["--cores-per-rank", "1"], [])):
        request = make_asked(["-n", "2", *args], ("vllm", "serve"))
        plan = make_plan(MACHINES["container"], request.replace(serving=serving, omp="off"))
        assert [c.kind for c in plan.cautions if c.kind == "quota"] == kinds


def test_threads_are_the_engines(tree: str) -> None:
    """--threads sets OMP_NUM_THREADS in the server's environment, and nothing else."""
    plan = plan_for(f"{tree} --serve vllm --threads 2", "vllm serve m -tp 2")
    assert plan.omp == "threads"
    assert [n for n, _ in plan.ranks[0].env if n.startswith("OMP_")] == ["OMP_NUM_THREADS"]


# --- vLLM's variables ----------------------------------------------------------------------------


@pytest.mark.parametrize("option", ["--serve vllm", "--serve auto", "--from-env vllm"])
def test_variables_are_for_one_server(tree: str, option: str) -> None:
    """--from-env with a server's command plans that one server; it is not started for each list."""
    plan = plan_for(f"{tree} {option}", "vllm serve m -tp 2", {VLLM: "0-1|4-5"})
    assert (len(plan.ranks), lists_of(plan)) == (1, "0-1|4-5")
    assert [(i.name, i.action) for i in plan.inherited] == [(VLLM, "respected")]
    environ = {"VLLM_CPU_NUM_OF_RESERVED_CPU": "4", "CPU_VISIBLE_MEMORY_NODES": "1,0"}
    plan = plan_for(f"{tree} {option}", "vllm serve m -tp 2", environ)
    assert lists_of(plan) == "4-5|0-1"
    plan = plan_for(f"{tree} {option} --numa-bind-nodes 1 0", "vllm serve m -tp 2", {VLLM: "0|1"})
    assert lists_of(plan) == "4-6|0-2"
    assert [(i.name, i.action) for i in plan.inherited] == [(VLLM, "overridden")]


def test_a_server_that_is_not_to_be_bound(tree: str) -> None:
    """`nobind` is respected, and then one server has everything; --serve asks for more."""
    plan = plan_for(f"{tree} --from-env vllm", "vllm serve m -tp 2", {VLLM: "nobind"})
    assert (len(plan.ranks), str(plan.ranks[0].cpus), plan.server) == (1, "0-15", None)
    assert plan.omp == "off"
    assert VLLM not in dict(plan.ranks[0].env)  # it is inherited
    plan = plan_for(f"{tree} --serve vllm", "vllm serve m -tp 2", {VLLM: "nobind"})
    assert lists_of(plan) == "0-2|4-6"
    assert [(i.name, i.action) for i in plan.inherited] == [(VLLM, "overridden")]


def test_workers_that_are_ranks_stay_so(tree: str) -> None:
    """A program that is no server is a worker: one for each list, as external_launcher has it."""
    plan = plan_for(f"{tree} --from-env vllm", "python offline.py", {VLLM: "0-1|4-5"})
    assert [(str(r.cpus), dict(r.env)[VLLM]) for r in plan.ranks] == [
        ("0-1", "nobind"), ("4-5", "nobind"),
    ]  # fmt: skip
    assert plan.server is None


# --- SGLang --------------------------------------------------------------------------------------


def test_sglang_on_cpus(tree: str) -> None:
    """Its own variable; a core in all is left to what is not a worker."""
    plan = plan_for(f"{tree} --serve sglang", f"{LAUNCH_SGLANG} --tp 2")
    assert lists_of(plan, SGLANG) == "0-3|4-6"
    assert str(plan.ranks[0].cpus) == "0-7,15"
    plan = plan_for(f"{tree} --serve auto --reserve 0", f"{LAUNCH_SGLANG} --tp 4")
    assert lists_of(plan, SGLANG) == "0-1|2-3|4-5|6-7"
    plan = plan_for(f"{tree} --serve sglang", f"{LAUNCH_SGLANG} --tp 2", {SGLANG: "0-1|6-7"})
    assert lists_of(plan, SGLANG) == "0-1|6-7"
    plan = plan_for(f"{tree} --serve sglang", f"{LAUNCH_SGLANG} --tp 2", {SGLANG: "all"})
    assert lists_of(plan, SGLANG) == "0-3|4-6"
    with pytest.raises(UsageError, match="each data-parallel replica the same cpus"):
        plan_for(f"{tree} --serve sglang", f"{LAUNCH_SGLANG} --dp 2")
    with pytest.raises(UsageError, match="each pipeline stage the same cpus"):
        plan_for(f"{tree} --serve sglang", f"{LAUNCH_SGLANG} --pp-size 2")


# --- GPUs ----------------------------------------------------------------------------------------


def test_gpu_workers_are_bound_by_words(gpu_tree: str) -> None:
    """vLLM's --numa-bind options, each worker on the cores near its GPU, all hardware threads."""
    plan = plan_for(f"{gpu_tree} --serve vllm", "vllm serve m -tp 2", {VLLM: "0|1"})
    words = "--numa-bind --numa-bind-nodes 1 0 --numa-bind-cpus 4-7,12-15 0-3,8-11"
    assert plan.ranks[0].command == ("vllm", "serve", "m", "-tp", "2", *words.split())
    assert plan.server is not None
    assert plan.server.variable == ""
    assert [w.gpus for w in plan.server.workers] == [("0",), ("1",)]
    assert VLLM not in dict(plan.ranks[0].env)
    assert [(i.name, i.action) for i in plan.inherited] == [(VLLM, "overridden")]
    assert parse_plan(plan.to_json()) == plan
    plan = plan_for(f"{gpu_tree} --serve sglang", "python -m sglang.launch_server --tp 2")
    assert plan.ranks[0].command[-3:] == ("--numa-node", "1", "0")


@pytest.mark.parametrize(
    ("command", "environ"),
    [
        ("vllm serve m -tp 2 --device cpu", {}),
        ("vllm serve m -tp 2", {"CUDA_VISIBLE_DEVICES": ""}),
    ],
)
def test_cpu_workers_beside_gpus(gpu_tree: str, command: str, environ: Mapping[str, str]) -> None:
    """Where the command or the environment says so."""
    assert lists_of(plan_for(f"{gpu_tree} --serve vllm", command, environ)) == "0-2|4-6"


HIGHEST = "sys/devices/system/cpu/cpu0/acpi_cppc/highest_perf"
PCT = {
    "proc/cpuinfo": "processor\t: 0\nvendor_id\t: GenuineIntel\nmodel name\t: Intel Xeon 6776P\n",
    HIGHEST: "46\n",
}
XEON = Shape(
    packages=2, nodes=4, cores=128, threads=2, l3s=4, numbering="halves",
    devices=tuple(Pci(f"0000:{bus}:00.0", "030200", node=node, driver="nvidia")
                  for bus, node in (("18", 0), ("98", 2))),
)  # fmt: skip


@pytest.fixture(scope="module")
def xeon(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tree(make_files(XEON) | PCT, tmp_path_factory.mktemp("xeon"))


@pytest.mark.parametrize(
    ("highest", "args", "cpus"),
    [
        ("46", "", "0-1,16-17,128-129,144-145"),
        ("46", "--smt 1", "0-1,16-17"),
        ("40", "", "0-31,128-159"),  # the firmware has it off
        ("46", "--exclude 0", "1-31,128-159"),
        ("46", "--kind all", "0-31,128-159"),
    ],
)
def test_priority_cores_of_a_xeon(xeon: Path, highest: str, args: str, cpus: str) -> None:
    """vLLM binds GPU workers to the cores that Priority Core Turbo favours, by model and number;
    so does the plan, unless an option chooses cores."""
    (xeon / HIGHEST).write_text(f"{highest}\n")
    tree = f"--topology {xeon} --binder native"
    plan = plan_for(f"{tree} --serve vllm {args}", "vllm serve m -tp 2")
    assert plan.server is not None
    assert str(plan.server.workers[0].cpus) == cpus


def test_a_saved_plan_keeps_the_words(gpu_tree: str, tmp_path: Path) -> None:
    """Another command of the same engine is told of its workers as well."""
    path = tmp_path / "plan.json"
    path.write_text(plan_for(f"{gpu_tree} --serve vllm", "vllm serve m -tp 2").to_json())
    plan = load_plan(str(path), Request(command=("vllm", "serve", "other", "-tp", "2")), {})
    assert plan.ranks[0].command[:6] == ("vllm", "serve", "other", "-tp", "2", "--numa-bind")
    assert not plan.cautions


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"words": ["--trust-remote-code"]}, "what tells it of its workers says otherwise"),
        ({"words": ["--numa-bind", "--numa-bind-nodes", "0", "0"]}, "says otherwise"),
        ({"words": []}, "says otherwise"),
        ({"variable": "LD_PRELOAD"}, "says otherwise"),
        ({"engine": "other"}, "the engine 'other' is not known"),
        ({"rest": "99"}, "cpus 99 are not among those of its process"),
    ],
)
def test_a_saved_server_brings_no_words_of_its_own(
    gpu_tree: str, tmp_path: Path, changes: dict[str, object], problem: str
) -> None:
    """What is added to my command is about its workers' cpus and nodes, as the plan has them."""
    plan = json.loads(plan_for(f"{gpu_tree} --serve vllm", "vllm serve m -tp 2").to_json())
    path = tmp_path / "plan.json"
    plan["server"] |= changes
    path.write_text(json.dumps(plan))
    with pytest.raises(UsageError, match=problem):
        load_plan(str(path), Request(command=("vllm", "serve", "other")), {})


def test_a_saved_servers_lists_are_its_workers(tree: str, tmp_path: Path) -> None:
    """The variable is not foreign to the plan, and says what the plan says."""
    plan = json.loads(plan_for(f"{tree} --serve vllm", "vllm serve m -tp 2").to_json())
    path = tmp_path / "plan.json"
    path.write_text(json.dumps(plan))
    plan_of_mine = plan_for(f"--plan {path} --no-neighbours", "vllm serve other -tp 2")
    assert lists_of(plan_of_mine) == "0-2|4-6"
    assert plan_of_mine.ranks[0].command == ("vllm", "serve", "other", "-tp", "2")
    plan["ranks"][0]["env"][VLLM] = "0|4-6"
    path.write_text(json.dumps(plan))
    with pytest.raises(UsageError, match="says otherwise"):
        load_plan(str(path), Request(), {})


@given(
    st.sampled_from(sorted(MACHINES)),
    st.integers(1, 6),
    st.sampled_from(["", "--reserve 1/rank", "--reserve 2", "--role kv=1", "--smt all", "--share",
                     "--part 1/2", "--per numa", "--oversubscribe"]),
)  # fmt: skip
@settings(max_examples=80, deadline=None)
def test_any_servers_plan_agrees_with_itself(name: str, workers: int, args: str) -> None:
    """On any machine: as many lists as workers, all inside the server's mask, none in what is left
    to the engine, and disjoint unless workers are to share; or one clear refusal."""
    serving = Serving("vllm", "vLLM", "", VLLM)
    try:
        request = make_asked(["-n", str(workers), *args.split()], ("vllm", "serve"))
        plan = make_plan(MACHINES[name], request.replace(serving=serving, omp="off"))
    except OmpbindError as e:
        assert e.hint
        return
    assert plan.server is not None
    cpus = [w.cpus for w in plan.server.workers]
    assert lists_of(plan) == "|".join(map(str, cpus))
    assert len(cpus) == workers
    assert union([plan.server.rest, *cpus]) == plan.ranks[0].cpus <= MACHINES[name].allowed.cpus
    assert not union(cpus) & plan.server.rest
    if args not in ("--share", "--oversubscribe"):
        assert sum(map(len, cpus)) == len(union(cpus))
    check_agreement(parse_plan(plan.to_json()))


# --- refusals ------------------------------------------------------------------------------------

REFUSED = [
    ("--serve vllm -n 3", "vllm serve m -tp 2", {},
     "the number of workers is unclear: --ranks is for 3, -tp 2 is for 2"),
    ("--serve vllm -n 3", "vllm serve m", {}, "--ranks is for 3, its command"),
    ("--serve vllm", "./start.sh", {}, "does not show how many workers it starts"),
    ("--serve vllm", "vllm serve --config a.yaml", {}, "does not show how many workers"),
    ("--serve auto", "./start.sh", {}, "the command is no server that is known"),
    ("--serve sglang", "vllm serve m", {}, "--serve sglang: the command starts vLLM"),
    ("--serve vllm", "vllm serve m --numa-bind", {}, "the command has '--numa-bind' itself"),
    ("--serve vllm", "vllm serve m -tp 2", {VLLM: "0|1|2"},
     "VLLM_CPU_OMP_THREADS_BIND is for 3, -tp 2 is for 2"),
    ("--from-env vllm", "vllm serve m", {VLLM: "0|1"},
     "VLLM_CPU_OMP_THREADS_BIND is for 2, the server's command is for 1"),
    ("--serve vllm --numa-bind-nodes 0 1", "vllm serve m", {}, "--numa-bind-nodes is for 2"),
    ("--serve vllm --omp all", "vllm serve m", {}, "--serve leaves OpenMP's variables to the"),
    ("--serve vllm --places one", "vllm serve m", {}, "and --places is about them"),
    ("--serve vllm --mem interleave", "vllm serve m", {}, "--mem interleave is something else"),
    ("--serve vllm", "vllm serve m -tp 9", {}, "9 ranks"),
]  # fmt: skip


@pytest.mark.parametrize(("args", "command", "environ", "message"), REFUSED)
def test_what_cannot_be_served_is_refused(
    tree: str, args: str, command: str, environ: Mapping[str, str], message: str
) -> None:
    """With a hint, before anything is started."""
    with pytest.raises(OmpbindError) as e:
        plan_for(f"{tree} {args}", command, environ)
    assert message in e.value.message
    assert e.value.hint


def test_a_number_of_workers_that_the_command_hides(tree: str) -> None:
    """-n says it for a script, or for a file of options."""
    plan = plan_for(f"{tree} --serve vllm -n 2", "./start.sh")
    assert lists_of(plan) == "0-2|4-6"
    assert lists_of(plan_for(f"{tree} --serve vllm -n 2", "")) == "0-2|4-6"


# --- what is shown -------------------------------------------------------------------------------


def test_who_gets_what_is_shown(tree: str) -> None:
    """Each worker, the server, and what is left to its engine, in the table and in sentences."""
    plan = plan_for(f"{tree} --serve vllm", "vllm serve m -tp 2")
    text = make_text(draw_plan(plan))
    assert text.startswith("1 vLLM server with 2 workers: 16 of 16 cpus allowed")
    rows = {line.split("  ")[0]: line.split() for line in text.splitlines()}
    assert rows["server"][1:4] == ["0-7,11,15", "0-1", "none"]
    assert rows["worker 1"][2:6] == ["4-6", "1", "bind", "1"]
    assert rows["the rest"][2] == "3-15:4"
    assert "000=111= ···=···=" in text
    assert "= engine and front end" in text
    sentences = " ".join(explain(plan))
    assert "Worker 1: cpus 4-6 (node 1, less 1 reserved); on node 1; memory comes" in sentences
    assert "vLLM gets its workers' cpus in VLLM_CPU_OMP_THREADS_BIND" in sentences
    server = json.loads(plan.to_json())["server"]
    assert server["workers"][1] == {
        "worker": 1, "cpus": "4-6", "nodes": "1", "mem": "bind", "mems": "1", "gpus": [],
        "why": "node 1, less 1 reserved",
    }  # fmt: skip
    assert (server["engine"], server["rest"], server["words"]) == ("vllm", "3,7,11,15", [])


def test_every_engine_is_known_by_its_command() -> None:
    """--serve names engines that `worker.launchers` recognises."""
    from ompbind.worker.launchers import LAUNCHERS

    assert {e.name for e in ENGINES.values()} <= {launcher.name for launcher in LAUNCHERS}


# --- the version that is installed ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("version", "words", "lists"),
    [
        ("0.32.0+cpu", "-tp 2", "0-2|4-6"),
        ("0.31.0", "-tp 2", "0-2|4-6"),
        ("0.30.2", "-tp 2", "0-3|4-6"),
        ("0.19.1", "-tp 2 --kv-transfer-config {}", "0-2|4-6"),
        ("0.33.0", "-tp 2 --kv-transfer-config {}", "0-1|4-5"),
        ("1.0", "-tp 2", "0-2|4-6"),
        ("0.32.0", "-tp 4", "0|2|4|6"),
        ("0.30.0", "-tp 4", "0-1|2-3|4-5|6"),
    ],
)
def test_cores_are_reserved_as_that_vllm_does(
    tree: str, tmp_path: Path, version: str, words: str, lists: str
) -> None:
    """Since 0.31 one for each worker on x86, and as many again with KV transfer."""
    folder = make_environment(tmp_path, f"vllm-{version}")
    plan = plan_for(f"{tree} --serve vllm", f"{folder}/vllm serve m {words}")
    assert lists_of(plan) == lists
    assert plan.server is not None
    assert plan.server.version == version
    assert f"vLLM {version} server" in make_text(draw_plan(plan))
