"""The Python API, its ranks looked at from outside: bound and with their environment when their
program begins, the calling program untouched, what is refused told by type."""

from __future__ import annotations

import inspect
import json
import os
import pickle
import re
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Literal, get_args, get_origin, get_type_hints

import pytest

import ompbind
from ompbind import plan_json
from ompbind.host import DESCRIPTOR
from ompbind.options.keywords import options_for
from tests.support.commands import environment, ompbind_run
from tests.support.confine import denying
from tests.support.needs import need_binder, need_cpus, unavailable
from tests.support.observe import mask_of, policy_text, read_words, status_field
from tests.support.recorder import alive, all_children, wait_for
from tests.support.untouched import nothing_left, untouched

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="ompbind binds on Linux only")

REPOSITORY = Path(__file__).parents[1]
SERVER = REPOSITORY / "examples" / "server.topo"
BINDERS = ("native", "numactl")
TIMEOUT = 60


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plans do not depend on what the tests inherit."""
    for name in set(os.environ) - set(environment()):
        monkeypatch.delenv(name)


@pytest.fixture
def plan() -> ompbind.Plan:
    """Two ranks, each with a cpu of its own."""
    return two_ranks(binder="native")


def two_ranks(**options: Any) -> ompbind.Plan:
    first, second = need_cpus(2)
    return ompbind.plan(numa_bind_cpus=[str(first), str(second)], **options)


def need_numa() -> None:
    if not Path("/proc/self/numa_maps").exists():
        unavailable("a kernel without NUMA")


def process_of(process: subprocess.Popen[Any]) -> Path:
    """Where it can be seen, as soon as the kernel shows its program: exec closes descriptors, by
    which a start is known, an instant before."""
    there = Path("/proc", str(process.pid))
    wait_for(lambda: read_words(there / "environ"))
    return there


# --- plans ---------------------------------------------------------------------------------------

SAME = [
    ({}, []),
    ({"ranks": 2}, ["-n", "2"]),
    ({"per": "numa", "share": True, "smt": "all"}, ["--per", "numa", "--share", "--smt", "all"]),
    (
        {"numa_bind_nodes": [0, 0, 1, 1], "reserve": 2, "mem": "preferred", "binder": "native"},
        [
            "--numa-bind-nodes",
            "0",
            "0",
            "1",
            "1",
            "--reserve",
            "2",
            "--mem",
            "preferred",
            "--binder",
            "native",
        ],
    ),
    (
        {"numa_bind_cpus": ["0-3", range(4, 8), ompbind.CpuSet([8, 10])], "numa_bind_nodes": "0-2"},
        ["--numa-bind-cpus", "0-3", "4-7", "8,10", "--numa-bind-nodes", "0-2"],
    ),
    (
        {
            "ranks": 2,
            "exclude": [0, 8],
            "exclude_cpus": 3,
            "places": "l3",
            "proc_bind": "spread",
            "threads": 4,
        },
        [
            "-n",
            "2",
            "--exclude",
            "0",
            "--exclude=8",
            "--exclude-cpus",
            "3",
            "--places",
            "l3",
            "--proc-bind",
            "spread",
            "--threads",
            "4",
        ],
    ),
    (
        {"per": "numa", "cores_per_rank": [2, 3], "threads": "cores", "smt": "all"},
        ["--per", "numa", "--cores-per-rank", "2,3", "--threads", "cores", "--smt", "all"],
    ),
    ({"cores_per_rank": 3}, ["--cores-per-rank", "3"]),
    (
        {"ranks": 2, "rank_env": False, "template": True, "command": ["echo", "{rank}"]},
        ["-n", "2", "--no-rank-env", "--template", "--", "echo", "{rank}"],
    ),
    (
        {"ranks": 2, "env": {"A": "x{rank}", "B": ""}, "master_port": 29500},
        ["-n", "2", "--env", "A=x{rank}", "--env", "B=", "--master-port", "29500"],
    ),
    (
        {"ranks": 4, "per": "l3", "distribution": "cyclic", "role": {"kv": 1, "io": "1/rank"}},
        [
            "-n",
            "4",
            "--per",
            "l3",
            "--distribution",
            "cyclic",
            "--role",
            "kv=1",
            "--role",
            "io=1/rank",
        ],
    ),
    (
        {"part": "2/2", "oversubscribe": True, "ranks": 40},
        ["--part", "2/2", "--oversubscribe", "-n40"],
    ),
    (
        {"fix": ["torch-accelerator", "fxgraph-pickle"], "fix_children": False, "verbose": True},
        ["--fix", "torch-accelerator,fxgraph-pickle", "--no-fix-children", "--verbose"],
    ),
]


@pytest.mark.parametrize(("keywords", "words"), SAME)
def test_a_plan_is_the_command_lines(keywords: dict[str, Any], words: list[str]) -> None:
    """The same options give the same plan, to the last byte of its JSON; what ranks share is no
    part of a plan, but show tells it."""
    done = ompbind_run("show", "--topology", str(SERVER), "--format", "json", *words)
    assert done.returncode == 0, done.stderr
    shared = {"sharing": json.loads(done.stdout)["sharing"]}
    assert ompbind.plan(topology=SERVER, **keywords).to_json(**shared) == done.stdout


def choices_of(function: Callable[..., object]) -> dict[str, tuple[str, ...]]:
    """The texts that each keyword's type admits, () where it is not a choice of texts."""
    names = {"Literal": Literal, "Sequence": Sequence, "Mapping": Mapping, "IO": IO, "Any": Any,
             "Path": str | os.PathLike[str], "Cpus": str | Iterable[int]}  # fmt: skip
    hints = get_type_hints(function, localns=names)
    literals = {key: [t for t in get_args(hint) if get_origin(t) is Literal]
                for key, hint in hints.items()}  # fmt: skip
    return {key: get_args(found[0]) if found else () for key, found in literals.items()}


@pytest.mark.parametrize(
    ("function", "others"),
    [
        (ompbind.plan, ["command", "environ"]),
        (ompbind.run, ["plan", "argv", "environ", "cwd", "stdout", "stderr"]),
    ],
)
def test_every_option_is_a_keyword(function: Callable[..., object], others: list[str]) -> None:
    """The keywords are those that the table of options names, with the values of each."""
    keywords = list(inspect.signature(function).parameters)
    options = {option.key: option for option in options_for(function.__name__)}
    assert sorted(keywords) == sorted([*options, *others])
    choices = choices_of(function)
    for key, option in options.items():
        words = {word for word in option.metavar.split("|") if word.islower()}  # as in N|all
        assert set(choices[key]) == set(option.choices) | (words if key != "stdin" else set()), key


NUMBERS = "write numbers and ranges, as in 0-3,8"


@pytest.mark.parametrize(
    ("keywords", "words", "message", "hint"),
    [
        ({"numa_bind_cpus": ["0-3", "5-3"]}, ["--numa-bind-cpus", "0-3", "5-3"],
         "numa_bind_cpus, rank 1: '5-3' is a descending range", "write 3-5"),
        ({"numa_bind_nodes": [0, 7]}, ["--numa-bind-nodes", "0", "7"],
         "rank 1: node 7 does not exist", "nodes with usable cpus: 0-3"),
        ({"numa_bind_nodes": []}, ["--numa-bind-nodes"],
         "numa_bind_nodes needs at least one value", "numa_bind_nodes=NODE..."),
        ({"numa_bind_cpus": ["0", []]}, ["--numa-bind-cpus", "0", ""],
         "numa_bind_cpus, rank 1: an empty list", NUMBERS),
        ({"per": "nodes"}, ["--per", "nodes"],
         "per: 'nodes' is not one of numa, package, l3, core, gpu, accel, nic, "
         "die, cluster, l2, book, drawer", "did you mean numa?"),
        ({"ranks": 0}, ["-n", "0"], "ranks: 0 is not a whole number from 1 to 65535", ""),
        ({"ranks": -1}, ["--ranks=-1"], "ranks: -1 is not a whole number from 1 to 65535", ""),
        ({"ranks": "two"}, ["-n", "two"],
         "ranks: 'two' is not a whole number from 1 to 65535", ""),
        ({"ranks": 40}, ["-n", "40"], "rank 32: the machine has 32 usable cores for 40 ranks",
         "at most 32 ranks there, or oversubscribe=True to let them share cores"),
        ({"exclude": range(200)}, ["--exclude", "0-199"], "no cpu is left to use",
         "allowed: 0-63; excluded: 0-199"),
        ({"fix": "no-such"}, ["--fix", "no-such"], "fix: unknown fix 'no-such'",
         'ompbind run --fix list prints all; for a file\'s function: fix="path.py:function"'),
        ({"fix_children": True}, ["--fix-children"], "fix_children has no effect without fix",
         "ompbind run --fix list prints the fixes"),
        ({"per": "numa", "numa_bind_nodes": [0]}, ["--per", "numa", "--numa-bind-nodes", "0"],
         'per="numa" and a list of nodes or cpus both say where ranks go',
         "leave one of them out"),
        ({"numa_bind_cpus": "0", "smt": 2}, ["--smt", "2", "--numa-bind-cpus", "0"],
         "numa_bind_cpus names exactly the cpus to use; smt would change them", "leave smt out"),
        ({"reserve": 99}, ["--reserve", "99"], "reserve=99 would leave ranks without a core",
         None),
    ],
)  # fmt: skip
def test_a_refused_plan_is_refused_alike(
    keywords: dict[str, Any], words: list[str], message: str, hint: str | None
) -> None:
    """Where the command line refuses, with its message and hint, but in the words of Python."""
    done = ompbind_run("show", "--topology", str(SERVER), *words)
    with pytest.raises(ompbind.OmpbindError) as raised:
        ompbind.plan(topology=SERVER, **keywords)
    assert raised.value.message == str(raised.value) == message
    assert raised.value.hint == hint or hint is None
    assert raised.value.status == done.returncode == 125
    assert done.stderr.startswith("ompbind: error: ")


def test_a_refusal_has_its_data() -> None:
    """Which rank, what was wanted, what there is."""
    with pytest.raises(ompbind.PlanError) as raised:
        ompbind.plan(topology=SERVER, numa_bind_nodes=[0, 7])
    assert raised.value.data["rank"] == 1


@pytest.mark.parametrize(
    "keywords",
    [
        {"rang": 2},
        {"ranks": [1.5]},
        {"ranks": True},
        {"share": 1},
        {"numa_bind_cpus": 0.5},
        {"exclude": b"0"},
        {"topology": object()},
        {"command": "echo x"},
        {"env": 0.5},
    ],
)
def test_a_wrong_type_is_a_type_error(keywords: dict[str, Any]) -> None:
    """It names the keyword; so does a keyword that there is not."""
    (key,) = keywords
    with pytest.raises(TypeError, match=key):
        ompbind.plan(**keywords)


def test_a_plan_goes_through_a_file(plan: ompbind.Plan, tmp_path: Path) -> None:
    """Saved, it is what --plan takes; loaded, it is the same again, and can start ranks."""
    path = tmp_path / "plan.json"
    plan.save(path)
    again = ompbind.Plan.load(path)
    assert again == plan
    assert pickle.loads(pickle.dumps(plan)) == plan
    shown = ompbind_run("show", "--plan", str(path), "--format", "json").stdout
    assert shown == plan.to_json(sharing=json.loads(shown)["sharing"])
    with again.popen(1, ["true"]) as process:
        assert process.wait() == 0
    with pytest.raises(ompbind.UsageError, match="No such file"):
        ompbind.Plan.load(tmp_path / "none.json")


def test_importing_costs_nothing() -> None:
    """The package's names are imported when they are asked for, and only then."""
    code = "import __future__, sys; before = set(sys.modules); import ompbind\n"
    code += "print(*sorted(m for m in set(sys.modules) - before))\n"
    code += "print(sorted(set(ompbind.__all__) - set(dir(ompbind))))\n"
    code += "print([n for n in ompbind.__all__ if getattr(ompbind, n) is None])\n"
    code += "try: ompbind.nothing\nexcept AttributeError as e: print(e)\n"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.splitlines() == [
        "ompbind", "[]", "[]", "module 'ompbind' has no attribute 'nothing'"
    ]  # fmt: skip


# --- a rank's process -----------------------------------------------------------------------------


@pytest.mark.parametrize("binder", BINDERS)
@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_is_bound_when_its_program_begins(binder: str, rank: int) -> None:
    """By what the kernel says of it: its cpus, its memory's policy, its environment, its command;
    its pid and parent are those of a process started directly."""
    need_numa()
    need_binder(binder)
    plan = two_ranks(binder=binder, numa_bind_nodes=[0, 0])
    command = ["sh", "-c", "read line", "x y", ""]
    with nothing_left(), plan.popen(rank, command, stdin=subprocess.PIPE) as process:
        there = process_of(process)
        assert mask_of(there) == list(plan.ranks[rank].cpus)
        wait_for(lambda: read_words(there / "cmdline") == command)  # numactl's at first, if any
        policies = {line.split()[1] for line in (there / "numa_maps").read_text().splitlines()}
        assert policies & set(policy_text("bind", "0"))
        env = dict(word.partition("=")[::2] for word in read_words(there / "environ"))
        assert env == dict(os.environ) | dict(plan.ranks[rank].env) == plan.environ(rank)
        assert status_field(there, "PPid") == str(os.getpid())
        assert process.args == command


@pytest.mark.parametrize("locale", [{}, {"LC_CTYPE": "C"}, {"LC_ALL": "C"}, {"LANG": "POSIX"}])
def test_an_environment_is_exactly_what_was_given(
    plan: ompbind.Plan, locale: dict[str, str]
) -> None:
    """And the rank's own: nothing that Python sets for itself, whatever the locale is, and nothing
    that a runtime would follow instead of the plan."""
    given = {
        "PATH": os.environ["PATH"],
        "PYTHONHOME": "/nowhere",
        "ODD\udcff": "\udcfe=\n",
        **locale,
    }
    more = {"KMP_AFFINITY": "none", "OMP_PLACES": "{7}", "OMPBIND_RANK": "9"}
    with plan.popen(0, ["cat"], env=given | more, stdin=subprocess.PIPE) as process:
        told = read_words(process_of(process) / "environ")
    assert sorted(told) == sorted(f"{k}={v}" for k, v in (given | dict(plan.ranks[0].env)).items())


def test_an_argument_arrives_as_it_is(plan: ompbind.Plan, tmp_path: Path) -> None:
    """Bytes that are no text, quotes, line ends, nothing: no shell, no encoding between."""
    odd = [os.fsdecode(b"\xff\xfe"), "a'b\"c $(id) *", "two\nlines\r\n", "", "-x", "ünï", "{rank}"]
    command: list[str | Path] = ["sh", "-c", "read x", *odd, tmp_path]
    with plan.popen(0, command, stdin=subprocess.PIPE) as process:
        assert read_words(process_of(process) / "cmdline") == [*command[:-1], str(tmp_path)]


def test_popens_own_arguments_hold(plan: ompbind.Plan, tmp_path: Path) -> None:
    """Streams, working directory, descriptors, session, umask; a relative program is looked for
    where the worker will be."""
    script = tmp_path / "here.sh"
    script.write_text("#!/bin/sh\npwd; umask; cat; echo told >&2; echo more >/dev/fd/$1\n")
    script.chmod(0o755)
    reads, writes = os.pipe()
    process = plan.popen(
        1, ["./here.sh", str(writes)], cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True, pass_fds=[writes], start_new_session=True, umask=0o27,
    )  # fmt: skip
    os.close(writes)
    assert os.getsid(process.pid) == process.pid
    out, err = process.communicate("given\n", timeout=TIMEOUT)
    assert (out, err) == (f"{tmp_path}\n0027\ngiven\n", "told\n")
    with open(reads) as pipe:
        assert pipe.read() == "more\n"
    assert process.returncode == 0


def test_a_worker_starts_with_plain_signals(plan: ompbind.Plan) -> None:
    """Python's own ignored signals are not inherited, nor any descriptor but that of its lease."""
    with plan.popen(
        0, ["/bin/cat", "/proc/self/status"], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        told = process.stdout.read()
    for name in ("SigIgn", "SigBlk", "SigCgt"):
        signals = int(re.findall(rf"{name}:\s*(\w+)", told)[0], 16)
        assert signals & 0x7FFFFFFF == 0, name  # make ignores the C library's own, 32 and 33
    code = "import os; print(sorted(map(int, os.listdir('/proc/self/fd'))))"
    done = plan.popen(0, [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert done.communicate(timeout=TIMEOUT)[0] == f"[0, 1, 2, 3, {DESCRIPTOR}]\n"


@pytest.mark.parametrize("runtime", ["libgomp", "libomp"])
def test_openmp_threads_are_where_the_plan_says(where: Callable[[str], str], runtime: str) -> None:
    """Each thread of a rank with all cpus is in its own place."""
    cpus = need_cpus(2)
    plan = ompbind.plan(numa_bind_cpus=[cpus], places="threads")
    process = plan.popen(0, [where(runtime)], stdout=subprocess.PIPE, text=True)
    lines = process.communicate(timeout=TIMEOUT)[0].splitlines()
    masks = [re.findall(r"thread (\d+).* mask (\S+)", line)[0] for line in lines]
    assert sorted(masks) == [("0", str(cpus[0])), ("1", str(cpus[1]))]


def test_the_plans_command_of_rank_is_the_default() -> None:
    """With the rank's number filled in where the plan is a template."""
    plan = two_ranks(command=["echo", "rank {rank} of {ranks}"], template=True)
    process = plan.popen(1, stdout=subprocess.PIPE, text=True)
    assert process.communicate(timeout=TIMEOUT)[0] == "rank 1 of 2\n"


def test_what_lies_around_changes_nothing(
    plan: ompbind.Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Modules of the same names in the working directory or in PYTHONPATH are not imported by what
    binds, and reach the worker as they are."""
    for name in ("ompbind", "os", "sitecustomize", "_signal"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('imported')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("PYTHONSTARTUP", str(tmp_path / "os.py"))
    process = plan.popen(0, ["sh", "-c", "echo $PYTHONPATH"], cwd=tmp_path, stdout=subprocess.PIPE)
    assert process.communicate(timeout=TIMEOUT)[0].decode() == f"{tmp_path}\n"


def test_a_plan_that_does_not_bind_sets_the_environment(
    plan: ompbind.Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As plans are on macOS: the worker is started directly, its errors the same; where one can
    bind, such a plan is refused."""
    ranks = (r.replace(binding=r.binding.replace(binder="none")) for r in plan.ranks)
    unbound = plan.replace(ranks=tuple(ranks))
    assert unbound.binder == "none"
    with nothing_left(), pytest.raises(ompbind.PlanError, match="its binder is none"):
        unbound.popen(1, ["true"])
    monkeypatch.delattr(os, "sched_setaffinity")
    whole = sorted(os.sched_getaffinity(0))
    with nothing_left(), unbound.popen(1, ["cat"], stdin=subprocess.PIPE) as process:
        assert mask_of(process_of(process)) == whole
        assert "OMPBIND_RANK=1" in read_words(process_of(process) / "environ")
    for argv, status in ((["no-such-program"], 127), (["/etc/passwd"], 126)):
        with nothing_left(), pytest.raises(ompbind.CommandError) as raised:
            unbound.popen(1, argv)
        assert raised.value.status == status


# --- refusals -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argv", "kind", "status", "words"),
    [
        (["no-such-program"], ompbind.CommandError, 127, "command not found in PATH"),
        (["/etc/passwd"], ompbind.CommandError, 126, "not executable"),
        (["/"], ompbind.CommandError, 126, "is a directory"),
        ([], ompbind.UsageError, 125, "no command"),
        (["true", "x" * (1 << 20)], ompbind.CommandError, 126, "Argument list too long"),
    ],
)
def test_a_command_that_cannot_run_is_an_error(
    plan: ompbind.Plan, argv: list[str], kind: type[ompbind.OmpbindError], status: int, words: str
) -> None:
    """By type and words, not an exit status, with nothing left over."""
    with nothing_left(), pytest.raises(kind, match=words) as raised:
        plan.popen(0, argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert raised.value.status == status


def test_a_script_without_interpreter_is_an_error(plan: ompbind.Plan, tmp_path: Path) -> None:
    """It is not handed to a shell."""
    script = tmp_path / "script"
    script.write_text("echo hello\n")
    script.chmod(0o755)
    with nothing_left(), pytest.raises(ompbind.CommandError, match="neither a program nor"):
        plan.popen(0, [script])


def test_popens_own_errors_stay(plan: ompbind.Plan, tmp_path: Path) -> None:
    """A working directory that is not there is what it is without a plan."""
    with nothing_left(), pytest.raises(FileNotFoundError, match="gone"):
        plan.popen(0, ["true"], cwd=tmp_path / "gone")


@pytest.mark.parametrize(
    "keywords",
    [{"shell": True}, {"preexec_fn": print}, {"executable": "/bin/true"}, {"close_fds": False},
     {"restore_signals": False}],
)  # fmt: skip
def test_what_cannot_be_had_is_refused(plan: ompbind.Plan, keywords: dict[str, Any]) -> None:
    """Those of Popen's arguments; as they are by default they may be given."""
    (name,) = keywords
    with pytest.raises(ompbind.UsageError, match=name):
        plan.popen(0, ["true"], **keywords)
    good: dict[str, Any] = {
        "shell": False,
        "preexec_fn": None,
        "executable": None,
        "close_fds": True,
        "restore_signals": True,
    }
    with plan.popen(0, ["true"], **{name: good[name]}) as process:
        assert process.wait() == 0


def test_a_rank_that_there_is_not_is_refused(plan: ompbind.Plan) -> None:
    """With the ranks that there are."""
    for rank in (2, -1):
        with pytest.raises(ompbind.PlanError, match="ranks 0-1") as raised:
            plan.popen(rank, ["true"])
        assert raised.value.data["rank"] == rank
    with pytest.raises(TypeError, match="rank"):
        plan.popen("0", ["true"])  # type: ignore[arg-type]
    with pytest.raises(ompbind.UsageError, match="on_denied"):
        plan.popen(0, ["true"], on_denied="maybe")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="list of arguments"):
        plan.popen(0, "true")


def test_another_machines_plan_is_refused() -> None:
    """Its cpus are not here: the error says which, and which are."""
    plan = ompbind.plan(topology=SERVER, ranks=4, binder="native")
    assert max(plan.ranks[3].cpus) > os.cpu_count()  # type: ignore[operator]
    with nothing_left(), pytest.raises(ompbind.PlanError, match="may not be used here") as raised:
        plan.popen(3, ["true"])
    assert raised.value.data["rank"] == 3
    assert raised.value.data["wanted"] == plan.ranks[3].cpus


DENIED = """
import os, subprocess, sys, warnings, ompbind
plan = ompbind.plan(numa_bind_cpus=sys.argv[3:], numa_bind_nodes=[0, 0], binder=sys.argv[1])
if sys.argv[2] == "degrade":
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        process = plan.popen(1, ["cat", "/proc/self/status"], on_denied="degrade",
                             stdout=subprocess.PIPE, text=True)
        out = process.communicate()[0]
    print([l for l in out.splitlines() if "Cpus_allowed_list" in l][0].split()[1])
    print(*[w.message for w in told], sep="\\n")
    print(told[0].category.__name__, os.path.basename(told[0].filename))
    warnings.simplefilter("error")
    try:
        plan.popen(1, ["sleep", "100"], on_denied="degrade")
    except RuntimeWarning:
        try:
            os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            print("nobody left")
else:
    try:
        plan.popen(1, ["echo", "started"])
    except ompbind.DeniedError as e:
        print(e.message, e.data["rank"], e.data["part"], e.status)
    try:
        os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        print("nobody left")
"""


@pytest.mark.parametrize("binder", BINDERS)
@pytest.mark.parametrize("call", ["set_mempolicy", "sched_setaffinity"])
def test_a_denied_binding_is_an_error(tmp_path: Path, binder: str, call: str) -> None:
    """The kernel's refusal comes back with its rank and part, and the worker was not started."""
    cpus = need_cpus(2)
    script = tmp_path / "denied.py"
    script.write_text(DENIED)
    part = "memory" if call == "set_mempolicy" else "cpus"
    command = [*denying("EPERM", call), sys.executable, str(script), binder]
    done = subprocess.run([*command, "error", *map(str, cpus)], env=environment(),
                          capture_output=True, text=True, timeout=TIMEOUT)  # fmt: skip
    what = "memory: bind 0" if part == "memory" else f"cpus {cpus[1]}"
    assert done.stdout == (
        f"rank 1: the kernel refuses to bind {what} ({call}: Operation not permitted)"
        f" 1 {part} 125\nnobody left\n"
    ), done.stderr
    done = subprocess.run([*command, "degrade", *map(str, cpus)], env=environment(),
                          capture_output=True, text=True, timeout=TIMEOUT)  # fmt: skip
    mask, warning, kind, left = done.stdout.splitlines()
    assert (mask == str(cpus[1])) == (part == "memory")
    assert warning.endswith(f"continuing with {part} unbound")
    assert kind == "RuntimeWarning denied.py"
    assert left == "nobody left"


def test_a_python_that_cannot_start_is_an_error(
    plan: ompbind.Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was to bind the worker ended before it could; an interpreter that is none, and none."""
    for executable, kind, words in (
        ("/bin/false", ompbind.OmpbindError, "before it could"),
        ("/no/python", ompbind.CommandError, "cannot be started"),
        ("", ompbind.UsageError, "no Python"),
    ):
        monkeypatch.setattr(sys, "executable", executable)
        with nothing_left(), pytest.raises(kind, match=words):
            plan.popen(0, ["true"])


# --- the calling program --------------------------------------------------------------------------


def test_the_watcher_sees_an_instant(plan: ompbind.Plan) -> None:
    """What the next tests stand on: a thread that is bound for a moment is noticed, and so is a
    variable."""

    whole = os.sched_getaffinity(0)

    def wait_for_a_look() -> None:
        """Until a look has begun and ended since."""
        seen = looks[0]
        wait_for(lambda: looks[0] > seen + 1)

    def bind() -> None:
        os.sched_setaffinity(0, plan.ranks[0].cpus)
        wait_for_a_look()
        os.sched_setaffinity(0, whole)  # its end may be seen late

    def set_variable() -> None:
        os.environ["OMP_X"] = "1"
        wait_for_a_look()
        del os.environ["OMP_X"]

    for action, what in ((bind, "bindings"), (set_variable, "OMP_X")):
        thread = threading.Thread(target=action)
        with pytest.raises(AssertionError, match=what), untouched() as looks:  # noqa: PT012
            thread.start()
            thread.join()


def test_the_caller_is_untouched(plan: ompbind.Plan) -> None:
    """At no instant has a thread of it a rank's binding, or its environment a rank's variables."""
    with nothing_left(), untouched() as looks:
        for number in range(8):
            assert plan.popen(number % 2, ["true"]).wait() == 0
        assert ompbind.run(plan, ["true"]) == 0
    assert looks[0] > 20


def test_many_threads_start_at_once(plan: ompbind.Plan) -> None:
    """Each gets the rank that it asked for, and nothing is left over."""
    failures: list[BaseException] = []

    def start(number: int) -> None:
        try:
            for turn in range(4):
                rank = (number + turn) % 2
                with plan.popen(rank, ["cat"], stdin=subprocess.PIPE) as process:
                    there = process_of(process)
                    assert mask_of(there) == list(plan.ranks[rank].cpus)
                    assert f"OMPBIND_RANK={rank}" in read_words(there / "environ")
                assert process.returncode == 0
        except BaseException as e:
            failures.append(e)

    with nothing_left(), untouched():
        threads = [threading.Thread(target=start, args=(n,)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not failures, failures[0]


def test_variables_may_change_meanwhile(plan: ompbind.Plan) -> None:
    """A thread that sets and removes variables does not disturb one that starts ranks."""
    done = threading.Event()

    def change() -> None:
        while not done.is_set():
            for number in range(50):
                os.environ[f"CHANGING_{number}"] = "x"
            for number in range(50):
                del os.environ[f"CHANGING_{number}"]

    thread = threading.Thread(target=change)
    thread.start()
    try:
        for _ in range(5):
            assert ompbind.plan(ranks=1).ranks
            assert plan.popen(0, ["true"]).wait() == 0
        assert len([plan.environ(0) for _ in range(500)]) == 500
    finally:
        done.set()
        thread.join()


CLOSED = """
import os, subprocess, sys
out = os.dup(1)
import ompbind
plan = ompbind.plan(numa_bind_cpus=sys.argv[1:])
for fd in (0, 1, 2):
    os.close(fd)
process = plan.popen(1, ["sh", "-c", "echo $OMPBIND_RANK"], stdout=subprocess.PIPE)
os.write(out, process.communicate()[0])
with open("/dev/null", "w") as null:
    os.write(out, b"%d\\n" % ompbind.run(plan, ["sh", "-c", "exit 7"], stdout=null, stderr=null))
try:
    plan.popen(0, ["no-such-program"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
except ompbind.CommandError as e:
    os.write(out, e.message.encode())
"""


def test_a_daemon_without_standard_streams_can_start_ranks(tmp_path: Path) -> None:
    """Its descriptors 0, 1 and 2 are closed: what starts ranks keeps out of their way."""
    script = tmp_path / "closed.py"
    script.write_text(CLOSED)
    done = subprocess.run(
        [sys.executable, str(script), *map(str, need_cpus(2))],
        env=environment(), capture_output=True, text=True, timeout=TIMEOUT,
    )  # fmt: skip
    assert done.stdout == "1\n7\ncommand not found in PATH: 'no-such-program'", done.stderr


# --- all ranks ------------------------------------------------------------------------------------


def test_run_returns_the_command_lines_status(plan: ompbind.Plan) -> None:
    """0 when all end well, else that of the first that failed, 128+N for a signal N."""
    with nothing_left():
        assert ompbind.run(plan, ["true"]) == 0
        assert ompbind.run(plan, ["sh", "-c", "exit $((OMPBIND_RANK * 5))"]) == 5
        assert ompbind.run(plan, ["sh", "-c", "kill -9 $$"]) == 137
        assert (
            ompbind.run(two_ranks().replace(ranks=plan.ranks[:1]), ["sh", "-c", "kill -9 $$"])
            == 137
        )


def test_run_binds_and_writes_where_it_is_told(plan: ompbind.Plan, tmp_path: Path) -> None:
    """Each rank on its cpus, with the descriptor of its lease; what it is given as it was given."""
    script = "grep Cpus_allowed_list /proc/self/status; pwd; echo $OMPBIND_RANK$X; ls /proc/self/fd"
    with open(tmp_path / "out", "w+") as out:
        status = ompbind.run(
            plan, ["sh", "-c", f"[ $OMPBIND_RANK = 0 ] || {{ {script}; }}"], stdout=out,
            cwd=tmp_path, environ=os.environ | {"X": "y"}, output="inherit",
        )  # fmt: skip
        assert status == 0
        out.seek(0)
        words = out.read().split()
    assert words == ["Cpus_allowed_list:", str(plan.ranks[1].cpus), str(tmp_path), "1y",
                     "0", "1", "2", str(DESCRIPTOR), "3"]  # fmt: skip


def test_run_raises_what_the_command_line_refuses(plan: ompbind.Plan) -> None:
    """By type, before anything is started; options are the command line's."""
    with nothing_left():
        with pytest.raises(ompbind.CommandError, match="command not found") as raised:
            ompbind.run(plan, ["no-such-program"])
        assert raised.value.status == 127
        with pytest.raises(ompbind.UsageError, match="no command"):
            ompbind.run(plan)
        with pytest.raises(TypeError, match="grease"):
            ompbind.run(plan, ["true"], grease=1)  # type: ignore[call-arg]
        with pytest.raises(ompbind.UsageError, match=r"^on_denied: 'maybe' is not one of error"):
            ompbind.run(plan, ["true"], on_denied="maybe")  # type: ignore[arg-type]
        other = ompbind.plan(topology=SERVER, ranks=4)
        with pytest.raises(ompbind.PlanError, match="may not be used here"):
            ompbind.run(other, ["true"])


def test_run_takes_any_plan_with_its_command() -> None:
    """The plan's own command by default; one that is not from `ompbind.plan` will do."""
    made = two_ranks(command=["sh", "-c", "exit {rank}"], template=True)
    assert ompbind.run(plan_json.parse_plan(made.to_json())) == 1


INTERRUPTED = """
import os, signal, sys, threading, time, ompbind
plan = ompbind.plan(numa_bind_cpus=sys.argv[2:])
def interrupt():
    while len(os.listdir(sys.argv[1])) < 2:
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGINT)
threading.Thread(target=interrupt).start()
try:
    ompbind.run(plan, ["sh", "-c", 'touch "$0/$OMPBIND_RANK.$$"; exec sleep 100', sys.argv[1]])
except KeyboardInterrupt:
    print("interrupted")
    try:
        os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        print("nobody left")
"""


def test_an_interrupted_run_takes_its_ranks_along(tmp_path: Path) -> None:
    """KeyboardInterrupt comes through when all have ended."""
    script, marks = tmp_path / "interrupted.py", tmp_path / "marks"
    script.write_text(INTERRUPTED)
    marks.mkdir()
    done = subprocess.run(
        [sys.executable, str(script), str(marks), *map(str, need_cpus(2))],
        env=environment(), capture_output=True, text=True, timeout=TIMEOUT,
    )  # fmt: skip
    assert done.stdout == "interrupted\nnobody left\n", done.stderr
    assert len(list(marks.iterdir())) == 2
    for mark in marks.iterdir():
        assert not alive(int(mark.name.partition(".")[2]))


KILLED = """
import sys, ompbind
plan = ompbind.plan(numa_bind_cpus=sys.argv[2:])
ompbind.run(plan, ["sh", "-c", 'touch "$0/$OMPBIND_RANK.$$"; exec sleep 100', sys.argv[1]])
"""


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_killed_program_takes_its_run_along(tmp_path: Path, ranks: int) -> None:
    """Neither ranks nor what watches over them are left when the caller of `run` is killed."""
    script, marks = tmp_path / "killed.py", tmp_path / "marks"
    script.write_text(KILLED)
    marks.mkdir()
    command = [sys.executable, str(script), str(marks), *map(str, need_cpus(ranks))]
    with subprocess.Popen(command, env=environment(), stderr=subprocess.DEVNULL) as process:
        wait_for(lambda: len(list(marks.iterdir())) == ranks)
        started = all_children(process.pid)
        process.kill()
    assert len(started) >= ranks
    wait_for(lambda: not any(map(alive, started)))


def test_run_has_the_status_whoever_takes_its_processes_away(
    plan: ompbind.Plan, tmp_path: Path
) -> None:
    """Also in a program that ignores SIGCHLD, where the kernel forgets how a child ended."""
    plan.save(tmp_path / "plan")
    code = "import signal, sys, ompbind; signal.signal(signal.SIGCHLD, signal.SIG_IGN)\n"
    code += "plan = ompbind.Plan.load(sys.argv[1])\n"
    code += "print(ompbind.run(plan, ['sh', '-c', 'exit 7']))\n"
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "plan")],
        env=environment(), capture_output=True, text=True, timeout=TIMEOUT,
    )  # fmt: skip
    assert done.stdout == "7\n", done.stderr


# --- types ----------------------------------------------------------------------------------------

TYPED = """
from typing_extensions import assert_type
import subprocess
from collections.abc import Mapping
import ompbind
from ompbind import CpuSet, DeniedError, Plan, RankPlan

plan = ompbind.plan(ranks=2, per="numa", numa_bind_nodes=[0, 0, 1, 1], smt="all", exclude=range(4),
                    numa_bind_cpus=["0-3", CpuSet([4, 5])], topology="x", fix=["auto"])
assert_type(plan, Plan)
rank: RankPlan = plan.ranks[0]
assert_type(rank.cpus, CpuSet)
assert_type(rank.env, tuple[tuple[str, str], ...])
assert_type(plan.warnings, tuple[str, ...])
process: subprocess.Popen[str] = plan.popen(0, ["true"], text=True)
environment: Mapping[str, str] = plan.environ(1)
status: int = ompbind.run(plan, ["true"], on_denied="degrade")
assert_type(Plan.load("x"), Plan)
context = ompbind.multiprocessing.get_context(plan)
worker = context.Process(target=print, args=(1,), rank=1)
assert_type(worker.rank, int | None)
with context.Pool() as pool:
    numbers: list[int] = pool.map(abs, [1, 2])
try:
    worker.start()
except DeniedError as e:
    assert_type(e.data, dict[str, object])
"""

UNTYPED = [
    'ompbind.plan(per="node")',
    "ompbind.plan(rang=2)",
    "ompbind.plan(2)",
    'ompbind.plan(ranks="2")',
    "plan.ranks[0].cpu",
    "plan.binder = 'none'",
    'plan.popen(0, ["true"], on_denied="maybe")',
    'plan.popen("0", ["true"])',
    "ompbind.run(['true'])",
    "ompbind.nothing",
]


def test_the_public_types_check(tmp_path: Path) -> None:
    """A user's program passes mypy --strict, and each wrong line of another is found."""
    (tmp_path / "good.py").write_text(textwrap.dedent(TYPED))
    lines = ["import ompbind", "plan = ompbind.plan()", *UNTYPED]
    (tmp_path / "wrong.py").write_text("\n".join(lines) + "\n")
    command = [
        sys.executable,
        "-m",
        "mypy",
        "--strict",
        "--follow-imports=silent",  # as for an installed package
        "--python-version",
        "3.10",
        "--config-file",
        "",
    ]
    done = subprocess.run(
        [*command, "--cache-dir", str(tmp_path / "cache"), "good.py", "wrong.py"], cwd=tmp_path,
        env=os.environ | {"MYPYPATH": str(REPOSITORY)}, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    told = [line for line in done.stdout.splitlines() if ": error:" in line]
    assert not [line for line in told if not line.startswith("wrong.py")], done.stdout
    found = {int(line.split(":")[1]) for line in told}
    assert found == set(range(3, 3 + len(UNTYPED))), done.stdout
