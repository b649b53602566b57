"""Several commands in one plan: how they are asked for, what each gets, and what is refused."""

from __future__ import annotations

import builtins
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ompbind.cli import main
from ompbind.cli.run import read_launch
from ompbind.cpuset import CpuSet, union
from ompbind.errors import OmpbindError, PlanError, UsageError
from ompbind.groups import find_groups
from ompbind.groups.file import find_line
from ompbind.groups.line import make_name
from ompbind.groups.plan import check_engine, join, plan_all, plan_groups
from ompbind.groups.request import GroupRequest
from ompbind.options import make_plan_options, read_arguments
from ompbind.plan_json import parse_plan
from ompbind.plans import Plan
from tests.support.needs import REPOSITORY
from tests.support.trees import Shape, make_files, make_machine, write_tree

FILE = """\
# a job
grace = 30
smt = "all"
topology = "{machine}"

[groups.worker]
command = ["./worker", "--port", "{{8000+rank}}", "{{group}}", 3]
ranks = 2
cores-per-rank = 2
template = true
after = "router"
env = {{ MODE = "x", WHO = "{{group}}-{{rank}}" }}

[groups.router]
command = ["./router"]
cores-per-rank = 1
ready = 8000
mem = "bind"

[groups.loader]
command = ["./loader"]
role.io = 1
background = true
"""


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two nodes of four cores with two threads each, numbered by halves."""
    shape = Shape(packages=2, nodes=2, cores=8, threads=2, numbering="halves")
    return write_tree(make_files(shape), tmp_path_factory.mktemp("machine"))


def plan_line(machine: Path, line: str, environ: dict[str, str] | None = None) -> Plan:
    """The plan of a command line on the machine."""
    values, command = read_arguments(["--topology", str(machine), *line.split()], "show")
    groups = find_groups(values, command, "show")
    assert groups is not None
    return plan_groups(groups, environ or {})


def write_file(tmp_path: Path, machine: Path, text: str = FILE) -> Path:
    path = tmp_path / "node.toml"
    path.write_text(text.format(machine=machine))
    return path


def show(capfd: pytest.CaptureFixture[str], *args: str) -> tuple[int, str, str]:
    """The status, output and errors of `ompbind show`, in this process."""
    status = main(["show", *args])
    out, err = capfd.readouterr()
    return status, out, err


def by_group(plan: Plan) -> dict[str, list[str]]:
    """The cpus of each group's ranks."""
    return {g.name: [str(plan.ranks[r].cpus) for r in g.ranks] for g in plan.groups}


# --- what each gets ------------------------------------------------------------------------------


def test_groups_are_disjoint(machine: Path) -> None:
    """A group that says how many cores it wants is planned before one that takes what is left; no
    core is in two groups, and ranks are numbered in the order of the line."""
    line = "-n 2 -- ./worker ::: -n 1 --cores-per-rank 2 --smt all -- ./router"
    plan = plan_line(machine, line)
    assert by_group(plan) == {"worker": ["2-3", "4-7"], "router": ["0-1,8-9"]}
    assert [r.rank for r in plan.ranks] == [0, 1, 2]
    assert [r.name for r in plan.ranks] == ["worker.0", "worker.1", "router"]
    assert plan.taken == CpuSet([*range(10)])
    assert "group worker: " in plan.warnings[0]


def test_each_program_sees_its_group(machine: Path) -> None:
    """RANK and WORLD_SIZE are those of the group, as torch.distributed expects; ompbind's numbers
    are the launch's."""
    plan = plan_line(machine, "-n 2 --cores-per-rank 1 -- ./a ::: -n 2 --cores-per-rank 1 -- ./b")
    env = dict(plan.ranks[3].env)
    assert (env["RANK"], env["WORLD_SIZE"]) == ("1", "2")
    assert (env["OMPBIND_RANK"], env["OMPBIND_RANKS"], env["OMPBIND_GROUP"]) == ("3", "4", "b")


def test_a_file_is_the_same_as_a_line(
    machine: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Keys are options, what stands at the top is for every group or the launch; templates know
    the group."""
    status, out, err = show(capfd, "--file", str(write_file(tmp_path, machine)), "--format", "json")
    assert (status, err) == (0, "")
    plan = parse_plan(out)
    assert by_group(plan) == {
        "worker": ["0-1,8-9", "4-5,12-13"], "router": ["2,10"], "loader": ["3,6,11,14"],
    }  # fmt: skip
    assert [(role.name, str(role.cpus), str(role.ranks)) for role in plan.roles] == [
        ("io", "7,15", "3")
    ]
    worker, router, loader = plan.groups
    assert plan.ranks[1].command == ("./worker", "--port", "8001", "worker", "3")
    assert dict(plan.ranks[1].env)["WHO"] == "worker-1"
    assert (worker.after, router.ready, loader.background) == (("router",), ("8000",), True)
    assert plan.ranks[2].mem == "bind"
    assert plan.ranks[0].mem == "none"


def test_a_plan_of_groups_is_saved_and_read(machine: Path) -> None:
    """Nothing is lost in JSON."""
    plan = plan_line(
        machine,
        "-n 2 --cores-per-rank 2 --ready {8000+rank} -- ./a ::: --after a --background -- ./b",
    )
    assert plan.groups[0].ready == ("8000", "8001")
    again = parse_plan(plan.to_json())
    assert again.groups == plan.groups
    assert [(r.name, r.cpus, r.env) for r in again.ranks] == [
        (r.name, r.cpus, r.env) for r in plan.ranks
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"groups": [{"name": "a", "ranks": "0"}]}, "not each rank is in one group"),
        ({"groups": [{"name": "a", "ranks": "0"}, {"name": "a", "ranks": "1"}]}, "there twice"),
        ({"groups": [{"name": "../x", "ranks": "0-1"}]}, "'../x' is not a group's name"),
    ],
)
def test_groups_of_a_spoiled_plan(change: dict[str, Any], message: str, machine: Path) -> None:
    """Ranks in no group or two, and names that would be paths, are refused."""
    data = plan_line(machine, "--cores-per-rank 1 -- a ::: --cores-per-rank 1 -- b").to_dict()
    with pytest.raises(OmpbindError, match=message):
        parse_plan(json.dumps(data | change))


def test_roles_and_reserves_of_groups(machine: Path) -> None:
    """What a group sets aside is nobody else's, and its ranks have their own numbers."""
    line = "--cores-per-rank 2 -- ./a ::: -n 2 --role io=1 --reserve 1 -- ./b"
    plan = plan_line(machine, line)
    (role,) = plan.roles
    assert role.ranks == CpuSet([1, 2])
    owned = [*(r.cpus for r in plan.ranks), role.cpus, plan.reserved]
    assert sum(map(len, owned)) == len(union(owned))
    assert dict(plan.ranks[2].env)["OMPBIND_ROLE_IO"] == str(role.cpus)


def test_named_cpus_come_first(machine: Path) -> None:
    """A group that names cpus gets them, wherever it stands; two that name the same are refused,
    and threads of one core are warned of."""
    plan = plan_line(machine, "-n 1 --cores-per-rank 2 -- ./a ::: --numa-bind-cpus 0 -- ./b")
    assert by_group(plan) == {"a": ["1-2"], "b": ["0"]}
    with pytest.raises(PlanError, match="group b, rank 0: cpu 0 already belongs to group a"):
        plan_line(machine, "--numa-bind-cpus 0 -- ./a ::: --numa-bind-cpus 0-1 -- ./b")
    plan = plan_line(machine, "--numa-bind-cpus 0 -- ./a ::: --numa-bind-cpus 8 -- ./b")
    assert "groups a and b have 1 core in common: cpus 0,8" in plan.warnings


def test_nothing_is_left(machine: Path) -> None:
    """Two groups that take all: the second is refused, or shares with --oversubscribe."""
    with pytest.raises(PlanError, match=r"group b: no core is left \(taken: a 8 cpus\)"):
        plan_line(machine, "-n 2 -- ./a ::: -n 1 -- ./b")
    plan = plan_line(machine, "-n 2 -- ./a ::: -n 1 --oversubscribe -- ./b")
    assert any("groups a and b have 8 cores in common" in text for text in plan.warnings)
    with pytest.raises(PlanError, match=r"group b: .* \(cpus that other groups have: a 0-6\)"):
        plan_line(machine, "--cores-per-rank 7 -- ./a ::: -n 2 -- ./b")


def test_an_inherited_mask_holds_for_all(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Groups are planned inside what ompbind may use; the plan says whose machine it is."""
    plan = plan_line(machine, "--cores-per-rank 1 -- a ::: --cores-per-rank 1 -- b")
    assert plan.host.allowed == CpuSet(range(16))
    assert plan.narrowed == ()
    assert plan.unused == CpuSet([*range(2, 8), *range(10, 16)])


def test_groups_share_a_quota() -> None:
    """A cgroup's cpu time is divided among groups as their cpus are, so that not each has as many
    threads as all of it."""
    machine = make_machine(Shape(cores=8))
    machine = machine.replace(allowed=machine.allowed.replace(quota=4.0))
    pairs = []
    for name, cores in (("a", 6), ("b", 2)):
        values = {"ranks": 1, "cores_per_rank": (cores,), "group": name}
        pairs.append((GroupRequest(name, values, ("w",)), make_plan_options(values, ("w",), {})))
    planned = plan_all(machine, pairs, {})
    assert [dict(p.plan.ranks[0].env)["OMP_NUM_THREADS"] for p in planned] == ["3", "1"]
    assert join(machine, planned).host.quota == 4.0


def test_groups_have_gpus_of_their_own() -> None:
    """Each group's --env says which GPUs are its; --gpu-env gives each rank one of these, and two
    groups with one GPU are refused."""
    gpus = REPOSITORY / "examples" / "gpus.topo"
    first = "--per gpu --gpu-env --env CUDA_VISIBLE_DEVICES=0,1 --cores-per-rank 2 -- a"
    second = "--per gpu --env CUDA_VISIBLE_DEVICES=3 --cores-per-rank 2 -- b"
    plan = plan_line(gpus, f"{first} ::: {second}")
    assert [r.gpus for r in plan.ranks] == [("0",), ("1",), ("3",)]
    seen = [dict(r.env)["CUDA_VISIBLE_DEVICES"] for r in plan.ranks]
    assert seen == ["0", "1", "3"]
    assert by_group(plan) == {"a": ["8-9", "10-11"], "b": ["24-25"]}
    with pytest.raises(PlanError, match="groups a and b both have GPU 1"):
        plan_line(gpus, f"{first} ::: {second.replace('=3', '=1,2')}")


def test_groups_in_ranks_of_an_engine() -> None:
    """Each of several ranks on a node would plan all groups: refused; one on each node is not."""
    sizes = {"OMPI_COMM_WORLD_RANK": "0", "OMPI_COMM_WORLD_LOCAL_RANK": "0"}
    several = sizes | {"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_LOCAL_SIZE": "2"}
    with pytest.raises(UsageError, match="groups are for one ompbind on a node, and Open MPI"):
        check_engine(several, elsewhere=False)
    check_engine(several, elsewhere=True)
    check_engine(several | {"OMPI_COMM_WORLD_LOCAL_SIZE": "1"}, elsewhere=False)


def test_a_script_has_all_but_the_order(
    machine: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Each group's command is exported under its name; that they wait for one another is said to
    be left out."""
    path = str(write_file(tmp_path, machine))
    status, out, err = show(capfd, "--file", path, "--format", "sh")
    assert status == 0
    assert "# rank worker.1: cpus 4-5,12-13" in out
    assert "./router" in out
    assert out.startswith("#!/bin/sh\n# 4 ranks")
    assert "\n# not in here: the order in which groups start and end\n" in out
    assert "ompbind: warning: --format sh leaves out the order" in err
    status, _, err = show(capfd, "--file", path, "--format", "srun")
    assert (status, "different commands" in err) == (125, True)
    _, out, _ = show(capfd, "--file", path, "--format", "compose")
    assert "\n  worker-1:\n" in out


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 3), st.integers(0, 3), st.sampled_from(["1", "all"])),
                min_size=2, max_size=4))  # fmt: skip
def test_no_core_is_in_two_groups(machine: Path, wanted: list[tuple[int, int, str]]) -> None:
    """Whatever is asked for: a plan whose groups share no core and whose ranks are as many as
    asked, or one line of refusal that names a group."""
    segments = []
    for n, (ranks, cores, smt) in enumerate(wanted):
        size = f"--cores-per-rank {cores}" if cores else ""
        segments.append(f"-n {ranks} {size} --smt {smt} -- prog{n}")
    try:
        plan = plan_line(machine, " ::: ".join(segments))
    except PlanError as e:
        assert e.message.startswith("group prog")
        return
    assert [len(g.ranks) for g in plan.groups] == [ranks for ranks, *_ in wanted]
    taken = [CpuSet(cpu % 8 for cpu in r.cpus) for r in plan.ranks]
    assert sum(map(len, taken)) == len(union(taken))


# --- what is asked for ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "command",
    ["parallel echo ::: a b", "parallel echo ::: -a b", "echo ::: x -- y", "sh -c ::: :::"],
)
def test_marks_of_other_programs_stay_theirs(command: str) -> None:
    """GNU parallel has the same mark: it divides groups only before options and a --."""
    assert find_groups({}, command.split(), "run") is None


@pytest.mark.parametrize(
    ("command", "name"),
    [
        ("./router --x", "router"),
        ("/opt/x/my.prog.sh", "my"),
        ("python3 -u train.py", "train"),
        ("./2nd", "group"),
        ("é", "group"),
    ],
)
def test_groups_are_called_as_their_programs(command: str, name: str) -> None:
    """The program's name, of Python the script's; with a number where it is taken."""
    assert make_name(command.split(), set()) == name
    assert make_name(command.split(), {name}) == f"{name}-2"


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ("-- a : -n 1 -- b", "': -n' would be arguments of a: ompbind divides commands by :::"),
        ("-- a ::: --verbose -- b", "--verbose is for the launch as a whole"),
        ("--plan x -- a ::: -- b", "--plan is for one command, and there are groups"),
        ("-- a ::: --part 1/2 -- b", "--part is for one command, and there are groups"),
        ("--after x -- a", "--after is for one of several commands, and there is one"),
        ("-- a ::: --after x -- b", "group b: after 'x': there is no such group"),
        ("--after b -- a ::: --after a -- b", "no group can start first: a after b, b after a"),
        ("--group x -- a ::: --group x -- b", "two groups are called x"),
        ("--group 1x -- a ::: -- b", "--group: '1x' is not a group's name"),
        ("-- a ::: --ready x -- b", "--ready: 'x' is not a condition"),
        (
            "--cores-per-rank 1 -- a ::: --ready {x} -- b",
            "group b: --ready '{x}': unknown name 'x'",
        ),
        ("-- a ::: -n 0 -- b", "--ranks: '0' is not a whole number"),
        ("-- a ::: -n 1 --", "group 2 has no command"),
        ("--file x -- a", "--file names the commands, and there is one after --"),
        ("--file x -n 2", "--ranks does not go with --file"),
        ("--file x --plan y", "has no effect on a saved plan"),
        ("--file /nonexistent/x", "--file '/nonexistent/x': No such file or directory"),
    ],
)
def test_what_is_refused(args: str, message: str, capfd: pytest.CaptureFixture[str]) -> None:
    """One line that says which group and what; nothing is started."""
    status = main(["run", *args.split()])
    out, err = capfd.readouterr()
    assert (status, out) == (125, "")
    assert err.startswith("ompbind: error: ")
    assert message in err


def test_mpirun_s_own_colon_is_its_own() -> None:
    """A launcher that knows the colon gets it, and so does a program that is given one."""
    for command in (
        "mpirun -n 1 a : -n 1 b",
        "mpiexec.hydra -n 1 a : -n 1 b",
        "echo : x",
        "echo :",
    ):
        assert find_groups({}, command.split(), "run") is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("ranks = 2", "rank = 2"), "line 8: group worker: 'rank' is not a key here\nhint: did you "
                                    "mean ranks?"),
        (("grace = 30", "graze = 30"), "line 2: 'graze' is not a key here\nhint: did you mean "
                                       "grace?"),
        (("ranks = 2", "grace = 2"), "line 8: group worker: grace is for the launch as a whole"),
        (("ranks = 2", "ranks = 'x'"), "line 8: group worker: ranks: 'x' is not a whole number"),
        (("ranks = 2", "ranks = []"), "line 8: group worker: ranks: [] is of the wrong type"),
        (("ranks = 2", "ranks = 2 2"), "at line 8"),
        (('["./router"]', '"./router -x \'a b\'"'), 'line 15: group router: a command is a list of '
         'words: nothing goes to a shell\nhint: command = ["./router", "-x", "a b"]'),
        (('command = ["./router"]', ""), "line 14: group router: there is no command"),
        (('["./router"]', "[]"), "a command is a list of words"),
        (('["./router"]', '["a", []]'), "a command is a list of words and numbers"),
        (('["./router"]', '["a\\u0000"]'), "a word has a NUL character"),
        (("ready = 8000", "ready = 'x'"), "line 17: group router: ready: 'x' is not a condition"),
        (("ready = 8000", "mem-nodes = 'all'\nshare = true\n"), "group router: --share gives each"),
        (("[groups.router]", "[groups.'a b']"), "'a b' is not a group's name"),
        (("[groups.router]", "[groups]\nx = 1\n[groups.router]"), "groups.x is not a table"),
        (('after = "router"', 'after = "x"'), "group worker: after 'x': there is no such group"),
        (("smt =", "after ="), "'after' is not a key here"),
        (("smt =", "serve ="), "'serve' is not a key here"),
    ],
)  # fmt: skip
def test_mistakes_in_a_file(
    change: tuple[str, str],
    message: str,
    machine: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """The file, the line, the group and the nearest key; never a traceback."""
    before, after = change
    assert before in FILE
    text = FILE.format(machine=machine).replace(before, after)
    path = tmp_path / "node.toml"
    path.write_text(text)
    status, out, err = show(capfd, "--file", str(path))
    assert (status, out) == (125, "")
    assert err.startswith("ompbind: error: ")
    assert message in err


@given(st.text(max_size=200))
@settings(max_examples=40, deadline=None)
def test_any_text_as_a_file(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    """What is no file of groups is refused in one line."""
    path = tmp_path_factory.mktemp("any") / "x"
    path.write_text(text, encoding="utf-8", newline="")
    with pytest.raises(UsageError, match="--file"):
        find_groups({"file": str(path)}, [], "run")


def test_without_a_reader_of_toml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python 3.10 has none: one line says what to install."""
    path = tmp_path / "x"
    path.write_text("")
    original = builtins.__import__

    def refuse(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "tomli":
            raise ModuleNotFoundError(name)
        return original(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    monkeypatch.setattr(sys, "version_info", (3, 10, 0))
    with pytest.raises(UsageError, match="cannot read TOML without the package tomli") as e:
        find_groups({"file": str(path)}, [], "run")
    assert e.value.hint == "pip install 'ompbind[groups]'"


def test_a_file_for_another_machine_is_not_run(
    machine: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A topology in the file is refused by run, as on the command line."""
    assert main(["run", "--file", str(write_file(tmp_path, machine))]) == 125
    assert "--topology is another machine" in capfd.readouterr().err


def test_options_of_the_line_override_the_file(
    machine: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The launch's options may be given on the command line; a group's may not."""
    path = write_file(tmp_path, machine)
    values, _ = read_arguments(["--file", str(path), "--grace", "1"], "run")
    groups = find_groups(values, [], "run")
    assert groups is not None
    assert groups.values["grace"] == 1.0
    assert [m.values.get("smt", 1) for m in groups.members] == [None, None, None]


def test_options_of_a_site(machine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """OMPBIND_OPTIONS is for the launch, and for every group that says nothing else."""
    monkeypatch.setenv("OMPBIND_OPTIONS", "--smt all --grace 3")
    path = tmp_path / "x"
    path.write_text("[groups.a]\ncommand=['a']\nsmt=1\n[groups.b]\ncommand=['b']\n")
    for args in (["--file", str(path)], ["--smt", "1", "--", "a", ":::", "--", "b"]):
        values, command = read_launch(args, "run")
        groups = find_groups(values, command, "run")
        assert groups is not None
        assert [m.values["smt"] for m in groups.members] == [1, None]
        assert groups.values["grace"] == 3.0


@pytest.mark.parametrize(
    ("group", "key", "line"),
    [
        ("", "grace", 2),
        ("worker", "ranks", 8),
        ("worker", "x", 6),
        ("", "x", 0),
        ("router", "", 14),
    ],
)
def test_lines_are_found(group: str, key: str, line: int) -> None:
    """The line of a key, else of its table, else none."""
    assert find_line(FILE.split("\n"), group, key) == line


def test_the_table_has_the_groups(
    machine: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A column names each rank's group, lines say who waits for whom, and each command is shown."""
    path = str(write_file(tmp_path, machine))
    status, out, _ = show(capfd, "--file", path)
    assert status == 0
    assert "rank  group " in out
    assert "worker: started after router\n" in out
    assert "router: ready: 8000\n" in out
    assert "loader: ended when the other groups have exited\n" in out
    assert [line for line in out.splitlines() if line.startswith("executed for")] == [
        "executed for rank worker.0", "executed for rank router", "executed for rank loader",
    ]  # fmt: skip
    assert "another program" not in out
    _, out, _ = show(capfd, "--file", path, "--rank", "2")
    assert out.index("executed for rank router") < out.index("executed for rank worker.0")
