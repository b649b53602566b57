"""The command line from outside: the installed ompbind, its exit statuses, messages, workers."""

from __future__ import annotations

import copy
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import ompbind
from ompbind.cli import main
from ompbind.cli import run as command_run
from ompbind.cli.run import run as main_of_run
from ompbind.cli.show import show as main_of_show
from ompbind.cli.verify import verify as main_of_verify
from ompbind.cpuset import CpuSet
from ompbind.errors import UsageError
from ompbind.machine import read_machine
from ompbind.plan_json import parse_plan
from ompbind.planner import make_plan
from ompbind.plans import Caution
from tests.support.commands import (
    OMPBIND,
    TIMEOUT,
    environment,
    error,
    ompbind_run,
    read_report,
    report_command,
)
from tests.support.machines import MACHINES, make_asked
from tests.support.needs import need_cpus, need_numactl
from tests.support.trees import Shape, make_files, write_tree

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="ompbind runs workers on Linux")

# --- refusals ------------------------------------------------------------------------------------

LIST_HINT = "write numbers and ranges, as in 0-3,8"
FENCE_HINT = "put -- between the values and the worker's command"

REFUSALS: list[tuple[str, str, str | None]] = [
    # a node, a cpu that is not there
    ("--numa-bind-nodes 900 -- WORKER", "rank 0: node 900 does not exist",
     "nodes with usable cpus: {nodes}"),
    ("--numa-bind-nodes {node} 900 -- WORKER", "rank 1: node 900 does not exist",
     "nodes with usable cpus: {nodes}"),
    ("--numa-bind-cpus 60000 -- WORKER", "rank 0: cpu 60000 does not exist",
     "allowed cpus: {allowed}"),
    ("--numa-bind-cpus {cpu} 60000-60001 -- WORKER", "rank 1: cpus 60000-60001 do not exist",
     "allowed cpus: {allowed}"),
    # more ranks than cores
    ("-n 60000 -- WORKER", "rank {cores}: the machine has {cores} usable core{s} for 60000 ranks",
     "at most {cores} rank{s} there, or --oversubscribe to let them share cores"),
    ("--reserve 60000 -- WORKER", "--reserve 60000 would leave ranks without a core",
     "at most {spare} can be reserved with this many ranks"),
    ("--smt 60000 -- WORKER", "--smt 60000: no core has that many allowed hardware threads",
     "--smt {smt} or --smt all"),
    # lists of unequal length, empty lists
    ("--numa-bind-nodes 0 0 --numa-bind-cpus 0 -- WORKER",
     "the number of ranks is unclear: --numa-bind-nodes is for 2, --numa-bind-cpus is for 1",
     "give each list one value for every rank"),
    ("-n 3 --numa-bind-nodes 0 0 -- WORKER",
     "the number of ranks is unclear: --numa-bind-nodes is for 2, --ranks is for 3",
     "give each list one value for every rank"),
    ("-n 1 --numa-bind-nodes 0,1 -- WORKER",
     "the number of ranks is unclear: --numa-bind-nodes is for 2, --ranks is for 1",
     "one rank on several nodes: --numa-bind-nodes 0+1"),
    ("--numa-bind-cpus EMPTY -- WORKER", "--numa-bind-cpus, rank 0: an empty list", LIST_HINT),
    ("--numa-bind-nodes EMPTY -- WORKER", "--numa-bind-nodes, rank 0: an empty list",
     "write node numbers, as in 0 0 1 1"),
    ("--exclude EMPTY -- WORKER", "--exclude: an empty list", LIST_HINT),
    ("--numa-bind-nodes -- WORKER", "--numa-bind-nodes needs at least one value",
     "--numa-bind-nodes NODE..."),
    # no lists
    ("--numa-bind-cpus 5-3 -- WORKER", "--numa-bind-cpus, rank 0: '5-3' is a descending range",
     "write 3-5"),
    ("--numa-bind-cpus 0- -- WORKER",
     "--numa-bind-cpus, rank 0: '0-' is not a number or a range", LIST_HINT),
    ("--numa-bind-cpus a -- WORKER",
     "--numa-bind-cpus, rank 0: 'a' is not a number or a range", LIST_HINT),
    ("--numa-bind-cpus -1 -- WORKER",
     "--numa-bind-cpus, rank 0: '-1' is not a number or a range", LIST_HINT),
    ("--numa-bind-cpus 99999999999999999999 -- WORKER",
     "--numa-bind-cpus, rank 0: '99999999999999999999' is too large: the highest number is 65535",
     LIST_HINT),
    ("--numa-bind-cpus 0,,1 -- WORKER",
     "--numa-bind-cpus, rank 0: an empty part in '0,,1' is not a number or a range", LIST_HINT),
    ("--numa-bind-nodes 5-3 -- WORKER", "--numa-bind-nodes, rank 0: '5-3' is a descending range",
     "write 3-5"),
    ("--numa-bind-nodes 0- -- WORKER",
     "--numa-bind-nodes, rank 0: '0-' is not a number or a range", LIST_HINT),
    ("--numa-bind-nodes -1 -- WORKER",
     "--numa-bind-nodes, rank 0: '-1' is not a number or a range", LIST_HINT),
    ("--numa-bind-nodes 99999999999999999999 -- WORKER",
     "--numa-bind-nodes, rank 0: '99999999999999999999' is too large: the highest number is 65535",
     LIST_HINT),
    ("--exclude 5-3 -- WORKER", "--exclude: '5-3' is a descending range", "write 3-5"),
    ("-n 0 -- WORKER", "--ranks: '0' is not a whole number from 1 to 65535", ""),
    ("-n -1 -- WORKER", "--ranks: '-1' is not a whole number from 1 to 65535", ""),
    ("-n 99999999999999999999 -- WORKER",
     "--ranks: '99999999999999999999' is not a whole number from 1 to 65535", ""),
    ("--threads a -- WORKER", "--threads: 'a' is neither cores nor a whole number from 1 to 65535",
     "leave --threads out for a thread for each place"),
    # a missing --
    ("--numa-bind-nodes 0 python w.py",
     "--numa-bind-nodes, rank 1: 'python' is not a number or a range", FENCE_HINT),
    ("--numa-bind-cpus 0 ./solver",
     "--numa-bind-cpus, rank 1: './solver' is not a number or a range", FENCE_HINT),
    ("--numa-bind-cpus 0 /bin/solver 2",
     "--numa-bind-cpus, rank 1: '/bin/solver' is not a number or a range", FENCE_HINT),
    ("", "no command to run", "put it after --: ompbind run -- COMMAND"),
    ("--", "no command to run", "put it after --: ompbind run -- COMMAND"),
    ("-n 2", "no command to run", "put it after --: ompbind run -- COMMAND"),
    # options
    ("--numa-bind-node 0 -- WORKER", "'--numa-bind-node' is not an option",
     "did you mean --numa-bind-nodes?"),
    ("--frobnicate -- WORKER", "'--frobnicate' is not an option",
     "the worker's own options follow its command; see ompbind run --help"),
    ("--share=yes -- WORKER", "--share takes no value, got 'yes'", "leave the value out: --share"),
    ("--per socket -- WORKER",
     "--per: 'socket' is not one of numa, package, l3, core, gpu, accel, nic, "
         "die, cluster, l2, book, drawer", None),
    ("--topology /x -- WORKER", "--topology is another machine, where nothing can be run from here",
     "ompbind show --topology plans for it"),
    ("--plan NOWHERE -- WORKER", "--plan 'NOWHERE': No such file or directory",
     "ompbind show --format json writes a plan"),
]  # fmt: skip


@pytest.mark.parametrize(("args", "message", "hint"), REFUSALS, ids=[r[0] for r in REFUSALS])
def test_refusal(args: str, message: str, hint: str | None, tmp_path: Path) -> None:
    """One line, at most one hint, 125, nothing on standard output, and no worker started."""
    machine = read_machine()
    topology, allowed = machine.topology, machine.allowed.cpus
    nodes = topology.nodes_of(allowed)
    if "node" in args and not nodes:
        pytest.skip("this machine does not say its nodes")
    cores = topology.groups("core", allowed) or [CpuSet([c]) for c in allowed]
    worker = report_command(tmp_path)
    facts = {
        "nodes": nodes,
        "node": nodes.first if nodes else 0,
        "allowed": allowed,
        "cpu": allowed.first,
        "cores": len(cores),
        "s": "s" if len(cores) != 1 else "",
        "spare": len(cores) - 1,
        "smt": max(len(c) for c in cores),
    }
    words: list[str] = []
    for word in args.format(**facts).split():
        words += worker if word == "WORKER" else ["" if word == "EMPTY" else word]
    done = ompbind_run("run", *words, cwd=tmp_path)
    assert done.returncode == 125
    assert done.stdout == ""
    if hint is None:
        lines = done.stderr.splitlines()
        assert lines[0] + "\n" == error(message.format(**facts))
        assert len(lines) <= 2
        assert all(line.startswith("hint: ") for line in lines[1:])
    else:
        assert done.stderr == error(message.format(**facts), hint.format(**facts))
    assert not list(tmp_path.glob("report.[0-9n]*"))


def test_a_missing_fence_before_a_worker_with_options() -> None:
    """A list that has swallowed the worker's name says so, not that -u is no option of ours."""
    done = ompbind_run("run", "--numa-bind-nodes", "0", "0", "python", "-u", "w.py")
    assert done.returncode == 125
    assert done.stderr.endswith(f"\nhint: {FENCE_HINT}\n")
    assert len(done.stderr.splitlines()) == 2


def test_cpus_outside_the_mask(tmp_path: Path) -> None:
    """A cpu that this process may not use is refused, with those it may."""
    first, second = need_cpus(2)
    done = ompbind_run(
        "run",
        "--numa-bind-cpus",
        str(second),
        "--",
        *report_command(tmp_path),
        under=held_to(first),
    )
    assert done.returncode == 125
    assert done.stderr == error(
        f"rank 0: cpu {second} is not allowed (affinity mask or cgroup)", f"allowed cpus: {first}"
    )
    assert not (tmp_path / "report.0").exists()


def held_to(*cpus: int) -> list[str]:
    """What starts a command with its affinity mask narrowed to `cpus`."""
    code = "import os, sys; os.sched_setaffinity(0, map(int, sys.argv[1].split(',')));"
    code += "os.execv(sys.argv[2], sys.argv[2:])"
    return [sys.executable, "-I", "-S", "-c", code, ",".join(map(str, cpus))]


def test_an_inherited_mask_is_kept_to(tmp_path: Path, binder: str) -> None:
    """A narrowed mask narrows the plan: the worker gets no cpu that ompbind did not have."""
    _, second = need_cpus(2)
    args = ["run", "--binder", binder, "--", *report_command(tmp_path)]
    done = ompbind_run(*args, under=held_to(second))
    assert (done.returncode, done.stderr) == (0, "")
    told = read_report(tmp_path)
    assert told["cpus"] == str(second)
    assert told["env"]["OMP_PLACES"] == f"{{{second}}}"


def test_an_offline_cpu(tmp_path: Path) -> None:
    """A cpu that is switched off is refused as offline, on the machine that `show` plans for."""
    tree = write_tree(make_files(Shape(cores=4, offline="2-3")), tmp_path)
    for cpus, said in (("2", "cpu 2 is offline"), ("1-3", "cpus 2-3 are offline")):
        done = ompbind_run("show", "--topology", str(tree), "--numa-bind-cpus", cpus)
        assert done.returncode == 125
        assert done.stderr == error(f"rank 0: {said}", "allowed cpus: 0-1")


def test_numactl_missing(tmp_path: Path) -> None:
    """--binder numactl without numactl is an error; auto does without it, and binds."""
    (cpu,) = need_cpus(1)
    env = environment(PATH=str(tmp_path))
    worker = report_command(tmp_path)
    done = ompbind_run("run", "--binder", "numactl", "--", *worker, env=env)
    assert done.returncode == 125
    message = "--binder numactl: numactl is not installed (not in PATH)"
    assert done.stderr == error(message, "install it, or --binder native")
    assert not (tmp_path / "report.0").exists()

    done = ompbind_run("run", "--numa-bind-cpus", str(cpu), "--", *worker, env=env)
    assert (done.returncode, done.stderr) == (0, "")
    assert read_report(tmp_path)["cpus"] == str(cpu)
    plan = ompbind_run("show", "--format", "json", "--", "true", env=env)
    assert parse_plan(plan.stdout).binder == "native"


def make_programs(tmp_path: Path) -> None:
    """Files that cannot be executed, each in its own way."""
    (tmp_path / "plain").write_text("#!/bin/sh\n")
    for name, data in (
        ("no-interpreter", b"#!/nowhere/sh\n"),
        ("no-line", b"touch started\n"),
        ("empty", b""),
        ("damaged", b"\x7fELF\x00\x01\x02damaged\x00\ntouch started\n"),
    ):
        (tmp_path / name).write_bytes(data)
        (tmp_path / name).chmod(0o755)
    (tmp_path / "directory").mkdir()


@pytest.mark.parametrize(
    ("command", "status", "message", "hint"),
    [
        ("no-such-program", 127, "command not found in PATH: 'no-such-program'", ""),
        ("./no-such-program", 127, "command not found: './no-such-program'", ""),
        ("", 127, "command not found in PATH: ''", ""),
        ("a\nb", 127, "command not found in PATH: 'a\\nb'", ""),
        ("./plain", 126, "command is not executable: './plain'",
         "chmod +x ./plain, or name its interpreter"),
        ("./directory", 126, "command is a directory: './directory'", ""),
        ("./no-interpreter", 126,
         "command './no-interpreter': its interpreter '/nowhere/sh' cannot be executed",
         "fix the #! line"),
        ("./no-line", 126, "command './no-line' is neither a program nor a script with a #! line",
         "name its interpreter: -- sh SCRIPT"),
        ("./empty", 126, "command './empty' is neither a program nor a script with a #! line",
         "name its interpreter: -- sh SCRIPT"),
    ],
)  # fmt: skip
def test_a_command_that_cannot_be_executed(
    command: str, status: int, message: str, hint: str, tmp_path: Path, binder: str, ranks: int
) -> None:
    """127 for what is not found, 126 for what cannot be executed, by either binder."""
    make_programs(tmp_path)
    done = ompbind_run("run", "--binder", binder, "-n", str(ranks), "--", command, cwd=tmp_path)
    assert done.returncode == status
    assert (done.stdout, done.stderr) == ("", error(message, hint))
    assert not (tmp_path / "started").exists()


def test_a_damaged_program(tmp_path: Path, binder: str, ranks: int) -> None:
    """A binary that this machine cannot execute is 126, and no shell is given it to interpret."""
    make_programs(tmp_path)
    done = ompbind_run("run", "--binder", binder, "-n", str(ranks), "--", "./damaged", cwd=tmp_path)
    assert not (tmp_path / "started").exists()
    assert done.returncode == 126
    assert done.stdout == ""
    assert re.fullmatch(r"ompbind: error: .*\./damaged.*\n(hint: .*\n)?", done.stderr)


def test_a_missing_command_of_one_rank(tmp_path: Path, binder: str) -> None:
    """With a template the ranks' programs differ: one that is missing keeps all from starting."""
    need_cpus(2)
    (tmp_path / "worker0").write_text("#!/bin/sh\ntouch started\n")
    (tmp_path / "worker0").chmod(0o755)
    args = ["run", "--binder", binder, "-n", "2", "--template", "--", "./worker{rank}"]
    done = ompbind_run(*args, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (127, error("command not found: './worker1'"))
    assert not (tmp_path / "started").exists()


@pytest.mark.parametrize(
    ("args", "message", "hint"),
    [
        (["rn"], "'rn' is not a command of ompbind", "did you mean run?"),
        (["true"], "'true' is not a command of ompbind", None),
        (["a\nb\x1b[31m"], "'a\\nb\\x1b[31m' is not a command of ompbind", None),
        (["show", "--rank", "3"], "--rank '3': there is no such rank", "the only rank is 0"),
        (["show", "--rank", "x"], "--rank 'x': there is no such rank", "the only rank is 0"),
        (["show", "--format", "yaml"], "--format: 'yaml' is not one of table, json, env, argv, "
         "srun, rankfile, systemd, docker, compose, k8s, taskset, sh", ""),
        (["show", "--topology", "/nowhere"], None, None),
        (["show", "--plan", "/nowhere", "-n", "2"], "--ranks has no effect on a saved plan",
         "leave --plan or --ranks out"),
    ],
)  # fmt: skip
def test_other_refusals(args: list[str], message: str | None, hint: str | None) -> None:
    """Errors of the other commands are lines of the same form."""
    done = ompbind_run(*args)
    assert done.returncode == 125
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert 1 <= len(lines) <= 2
    assert lines[0].startswith(f"ompbind: error: {message or ''}")
    if hint is not None:
        assert done.stderr == error(message or "", hint)
    assert all(line.isprintable() for line in lines)


# --- exit statuses -------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [0, 1, 7, 125, 255])
def test_the_workers_exit_status(status: int, binder: str, ranks: int) -> None:
    """ompbind's status is the worker's own."""
    code = f'exit "$(({status} * (OMPBIND_RANK == {ranks - 1})))"'
    done = ompbind_run("run", "--binder", binder, "-n", str(ranks), "--", "sh", "-c", code)
    assert (done.returncode, done.stdout) == (status, "")
    told = done.stderr.splitlines()  # the other rank may have been ended
    assert bool(told) == (status != 0 and ranks > 1)
    assert all(f" ended with status {status} after " in line for line in told[:1])


@pytest.mark.parametrize("number", [6, 9, 15])
def test_a_signal_is_the_status(number: int, binder: str, ranks: int) -> None:
    """128+N for one rank of several; a single one is ompbind itself and seen to die of N."""
    args = ["run", "--binder", binder, "-n", str(ranks), "--", "sh", "-c", f"kill -{number} $$"]
    assert ompbind_run(*args).returncode == (-number if ranks == 1 else 128 + number)


def test_the_first_failure_counts() -> None:
    """Among several the first that fails says the status, not those ended because of it."""
    need_cpus(2)
    code = 'if [ "$OMPBIND_RANK" = 1 ]; then exit 3; else exec sleep 60; fi'
    assert ompbind_run("run", "-n", "2", "--", "sh", "-c", code).returncode == 3


# --- what a worker gets --------------------------------------------------------------------------


def test_one_rank_is_ompbind_itself(tmp_path: Path, binder: str) -> None:
    """The same process: its pid, its parent, its directory."""
    args = [OMPBIND, "run", "--binder", binder, "--", *report_command(tmp_path)]
    child = subprocess.Popen(args, env=environment(), cwd=tmp_path)
    assert child.wait(TIMEOUT) == 0
    told = read_report(tmp_path)
    assert (told["pid"], told["parent"]) == (child.pid, os.getpid())
    assert told["cwd"] == str(tmp_path)


def test_environment_of_several(tmp_path: Path, binder: str) -> None:
    """Each rank knows who it is, and what show said of it is what it has."""
    need_cpus(2)
    args = ["-n", "2", "--binder", binder, "--", *report_command(tmp_path)]
    done = ompbind_run("run", *args)
    assert (done.returncode, done.stderr) == (0, "")
    plan = parse_plan(ompbind_run("show", "--format", "json", *args).stdout)
    for rank in range(2):
        told = read_report(tmp_path, rank)
        env = told["env"]
        assert (env["OMPBIND_RANK"], env["OMPBIND_RANKS"]) == (str(rank), "2")
        assert (env["RANK"], env["LOCAL_RANK"]) == (str(rank), str(rank))
        assert (env["WORLD_SIZE"], env["LOCAL_WORLD_SIZE"]) == ("2", "2")
        assert dict(plan.ranks[rank].env).items() <= env.items()
        assert told["cpus"] == str(plan.ranks[rank].cpus)
        assert env["PATH"] == environment()["PATH"]


def test_nothing_else_in_the_environment_changes(tmp_path: Path, binder: str, ranks: int) -> None:
    """What the user has set reaches the worker, in bytes that are not UTF-8 too."""
    odd = environment(ODD=os.fsdecode(b"\xff\n'"), EMPTY="", OMP_SCHEDULE="static")
    args = ["run", "--binder", binder, "-n", str(ranks), "--", *report_command(tmp_path)]
    assert ompbind_run(*args, env=odd).returncode == 0
    env = read_report(tmp_path)["env"]
    own = {"OMP_NUM_THREADS", "OMP_PLACES", "OMP_PROC_BIND", "OMPBIND_RANK", "OMPBIND_RANKS"}
    own |= {"OMPBIND_CPUS", "OMPBIND_MEM"}
    if ranks > 1:
        own |= {"RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE"}
    assert env.keys() - odd.keys() - {"LC_CTYPE"} == own  # LC_CTYPE: the worker is a Python
    assert {k: env[k] for k in odd} == odd


@pytest.mark.parametrize(
    ("option", "count", "there"),
    [("--rank-env", 1, True), ("--no-rank-env", 2, False), ("--rank-env", 2, True)],
)
def test_rank_env(option: str, count: int, there: bool, tmp_path: Path) -> None:
    """--rank-env sets RANK and the like for one rank too, --no-rank-env for none."""
    need_cpus(count)
    done = ompbind_run("run", option, "-n", str(count), "--", *report_command(tmp_path))
    assert done.returncode == 0
    env = read_report(tmp_path, count - 1)["env"]
    assert env["OMPBIND_RANK"] == str(count - 1)
    names = {"RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE"} & env.keys()
    assert len(names) == (4 if there else 0)


def test_one_rank_leaves_torchruns_variables(tmp_path: Path) -> None:
    """A single rank under another launcher keeps that one's RANK."""
    env = environment(RANK="5", WORLD_SIZE="8")
    assert ompbind_run("run", "--", *report_command(tmp_path), env=env).returncode == 0
    told = read_report(tmp_path)["env"]
    assert (told["RANK"], told["WORLD_SIZE"], told["OMPBIND_RANK"]) == ("5", "8", "0")


def test_template(tmp_path: Path, binder: str, ranks: int) -> None:
    """Templates are filled in on request, and only then; doubled braces become single ones."""
    words = ["--port={8000+rank}", "{rank}/{ranks}", "{{rank}}", "{{}}", "%d"]
    args = ["-n", str(ranks), "--binder", binder]
    command = ["--", *report_command(tmp_path), *words]
    assert ompbind_run("run", *args, *command).returncode == 0
    assert read_report(tmp_path)["argv"] == [w.encode() for w in words]
    assert ompbind_run("run", *args, "--template", *command).returncode == 0
    for r in range(ranks):
        filled = [f"--port={8000 + r}", f"{r}/{ranks}", "{rank}", "{}", "%d"]
        assert read_report(tmp_path, r)["argv"] == [w.encode() for w in filled]


def test_template_refused(tmp_path: Path, ranks: int) -> None:
    """Braces that are no template are an error that says how to write them; nothing starts."""
    command = [*report_command(tmp_path), '{"a": 1}']
    done = ompbind_run("run", "-n", str(ranks), "--template", "--", *command)
    assert done.returncode == 125
    assert "argument 5, '{\"a\": 1}': '{\"a\": 1}': unexpected '\"'" in done.stderr
    assert "literal braces as {{ and }}" in done.stderr
    assert not list(tmp_path.glob("report.[0-9]"))


HOSTILE = [
    b"; rm -rf x", b"$(touch x)", b"`touch x`", b"& touch x", b"| touch x", b"> x", b"*", b"~",
    b"$HOME", b"'", b'"', b"'\"'\"'", b"a b", b"a\nb\r\n", b"\t", b"\\", b"\\n", b"", b" ",
    b"\xff\xfe", b"caf\xc3\xa9", b"\xe2\x82\xac\x80", b"--", b"-", b"-n", b"--help", b"--membind=9",
    b"!!", b"#", b"%s", b"{rank}", b"\x1b[31m", b"=", b"a=b", b"@file",
]  # fmt: skip


def test_hostile_arguments(tmp_path: Path, binder: str, ranks: int) -> None:
    """Whatever stands in the worker's arguments arrives there byte for byte, and does nothing."""
    long = b"x" * (100 << 10)
    args = ["run", "--binder", binder, "-n", str(ranks), "--", *report_command(tmp_path)]
    done = ompbind_run(*args, *HOSTILE, long, cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    for rank in range(ranks):
        assert read_report(tmp_path, rank)["argv"] == [*HOSTILE, long]
    assert not (tmp_path / "x").exists()


def test_a_program_with_a_hostile_name(tmp_path: Path, binder: str, ranks: int) -> None:
    """A program may be called --help, or hold blanks and quotes: it is executed under its name."""
    for name in ("--help", "-x", "a b;'\"$(touch x)", "é\udcff", "A=b"):
        program = tmp_path / name
        program.write_text('#!/bin/sh\nprintf "%s\\n" "$0"\n')
        program.chmod(0o755)
        env = environment(PATH=f"{tmp_path}:{os.environ['PATH']}")
        args = ["--binder", binder, "-n", str(ranks), "--output", "inherit"]
        done = ompbind_run("run", *args, "--", name, env=env)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout == f"{tmp_path}/{name}\n" * ranks


# Signals 32 and 33, glibc's own: what GNU make starts has them ignored, and nobody can reset them.
OF_THE_C_LIBRARY = 1 << 31 | 1 << 32


def test_signals_are_as_they_were(tmp_path: Path, binder: str, ranks: int) -> None:
    """SIGPIPE ends a worker as it always did, and no signal is blocked or ignored."""
    reset = "import os, signal, sys; signal.signal(13, signal.SIG_DFL); signal.signal(25, 0);"
    reset += "os.execv(sys.argv[1], sys.argv[1:])"
    args = ["run", "--binder", binder, "-n", str(ranks), "--", *report_command(tmp_path)]
    done = ompbind_run(*args, under=[sys.executable, "-I", "-S", "-c", reset])
    assert done.returncode == 0
    for rank in range(ranks):
        told = read_report(tmp_path, rank)
        # the worker is a Python, which ignores PIPE and XFSZ itself
        assert told["ignored"] & ~(1 << 12 | 1 << 24 | OF_THE_C_LIBRARY) == 0
        assert told["blocked"] == 0
    look = ["grep", "-E", "^Sig(Ign|Blk)", "/proc/self/status"]
    args = ["run", "--binder", binder, "-n", str(ranks), "--output", "inherit", "--"]
    done = ompbind_run(*args, *look)
    masks = [int(line.split()[1], 16) for line in done.stdout.splitlines()]
    assert [mask & ~OF_THE_C_LIBRARY for mask in masks] == [0] * 2 * ranks


def test_output_is_the_workers(binder: str, ranks: int) -> None:
    """Standard input, output and error are the worker's; ompbind adds nothing."""
    args = ["run", "--binder", binder, "-n", str(ranks), "--output", "inherit", "--"]
    done = ompbind_run(*args, "sh", "-c", "echo out; echo err >&2")
    assert (done.stdout, done.stderr) == ("out\n" * ranks, "err\n" * ranks)
    assert ompbind_run(*args, "cat", stdin="in").stdout == "in"


# --- inherited environment -----------------------------------------------------------------------


def test_what_would_defeat_the_plan_is_gone(tmp_path: Path, binder: str, ranks: int) -> None:
    """KMP_AFFINITY and its like are removed, others overridden, and it is said once."""
    env = environment(
        KMP_AFFINITY="compact",
        GOMP_CPU_AFFINITY="0 1",
        KMP_HW_SUBSET="1t",
        KMP_PLACE_THREADS="1t",
        OMP_PLACES="{0},{7}",
        OMP_PROC_BIND="false",
        OMP_NUM_THREADS="3",
        OMP_DYNAMIC="true",
    )
    args = ["run", "--binder", binder, "-n", str(ranks), "--threads", "1", "--"]
    done = ompbind_run(*args, *report_command(tmp_path), env=env)
    assert done.returncode == 0
    assert done.stderr == (
        "ompbind: note: GOMP_CPU_AFFINITY=0 1 removed; KMP_AFFINITY=compact removed; "
        "KMP_HW_SUBSET=1t removed; KMP_PLACE_THREADS=1t removed; OMP_PLACES={0},{7} overridden; "
        "OMP_PROC_BIND=false overridden; OMP_NUM_THREADS=3 overridden; OMP_DYNAMIC=true removed "
        "(ompbind show tells why)\n"
    )
    for rank in range(ranks):
        told = read_report(tmp_path, rank)["env"]
        assert not [k for k in told if k.startswith(("KMP_", "GOMP_"))]
        assert told["OMP_PLACES"] != "{0},{7}"
        assert (told["OMP_PROC_BIND"], told["OMP_NUM_THREADS"]) == ("close", "1")
        assert "OMP_DYNAMIC" not in told


def test_wishes_of_the_environment_are_kept(tmp_path: Path) -> None:
    """OMP_PROC_BIND and OMP_NUM_THREADS of the user's, and places by their standard names."""
    env = environment(OMP_PROC_BIND="spread", OMP_NUM_THREADS="1", OMP_PLACES="threads")
    done = ompbind_run("run", "--", *report_command(tmp_path), env=env)
    assert done.returncode == 0
    assert done.stderr.count("respected") == 3
    told = read_report(tmp_path)["env"]
    assert (told["OMP_PROC_BIND"], told["OMP_NUM_THREADS"]) == ("spread", "1")
    assert told["OMP_PLACES"].startswith("{")


def test_show_tells_why() -> None:
    """The table names each inherited variable, what became of it and why."""
    done = ompbind_run("show", env=environment(KMP_AFFINITY="compact", COLUMNS="200"))
    assert "KMP_AFFINITY=compact" in done.stdout
    assert "removed" in done.stdout
    assert "a runtime would follow it" in done.stdout


# --- show ----------------------------------------------------------------------------------------


def test_show_says_what_run_does(tmp_path: Path, binder: str, ranks: int) -> None:
    """The cpus, the environment and the arguments of show are those that a worker has."""
    args = ["--binder", binder, "-n", str(ranks), "--places", "one", "--"]
    args += [*report_command(tmp_path), "a b"]
    plan = parse_plan(ompbind_run("show", "--format", "json", *args).stdout)
    assert plan.binder == binder
    assert not list(tmp_path.glob("report.[0-9n]*"))
    assert ompbind_run("run", *args).returncode == 0
    for r in plan.ranks:
        told = read_report(tmp_path, r.rank)
        assert CpuSet.parse_kernel(told["cpus"]) == r.cpus
        assert dict(r.env).items() <= told["env"].items()
        assert r.argv[-1] == "a b"
        assert told["argv"] == [b"a b"]


def test_show_of_undecodable_arguments() -> None:
    """Arguments that are not UTF-8 neither break a form of show nor change in it."""
    word = b"\xff'\n\x1b[31m"
    for form in ("table", "json", "env", "argv"):
        done = ompbind_run("show", "--format", form, "--", "true", word)
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr
        if form == "json":
            assert parse_plan(done.stdout).command == ("true", os.fsdecode(word))
        if form == "argv":
            assert os.fsdecode(b"'\xff'\"'\"'\n\x1b[31m'") in done.stdout


def test_show_env_can_be_evaluated(tmp_path: Path) -> None:
    """A shell that evals it has just the rank's environment, the removed variables gone."""
    need_cpus(2)
    script = f'eval "$("$0" show -n 2 --rank 1 --format env)"; exec "$@" {tmp_path}/report'
    command = [*report_command(tmp_path)[:-1]]
    env = environment(KMP_AFFINITY="compact", OMP_PLACES="{9}", KEPT="x")
    done = subprocess.run(
        ["sh", "-c", script, OMPBIND, *command],
        env=env, capture_output=True, text=True, timeout=TIMEOUT, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    told = read_report(tmp_path, 1)["env"]
    plan = parse_plan(ompbind_run("show", "-n", "2", "--format", "json").stdout)
    assert dict(plan.ranks[1].env).items() <= told.items()
    assert "KMP_AFFINITY" not in told
    assert told["KEPT"] == "x"


def test_show_env_quotes(tmp_path: Path) -> None:
    """A saved plan's values reach the shell as they are, whatever is in them."""
    data = json.loads(ompbind_run("show", "--format", "json").stdout)
    value = "a b;'\"$(touch x)`touch x`\\\n*"
    data["ranks"][0]["env"]["ODD"] = value
    (tmp_path / "plan").write_text(json.dumps(data))
    shown = ompbind_run("show", "--plan", str(tmp_path / "plan"), "--format", "env").stdout
    done = subprocess.run(
        ["sh", "-c", 'eval "$1"; printf %s "$ODD"', "sh", shown],
        cwd=tmp_path, capture_output=True, text=True, timeout=TIMEOUT, check=False,
    )  # fmt: skip
    assert done.stdout == value
    assert not (tmp_path / "x").exists()


def test_show_env_is_for_one_rank() -> None:
    """Several ranks have several environments: one has to be chosen."""
    need_cpus(2)
    done = ompbind_run("show", "-n", "2", "--format", "env")
    assert done.returncode == 125
    assert done.stderr == error("--format env is for one rank", "--rank R; ranks: 0-1")


def test_show_argv_pasted_into_a_shell_binds(tmp_path: Path) -> None:
    """A line for each rank; a shell that runs it starts the worker bound, hostile words and all."""
    need_numactl()
    need_cpus(2)
    args = ["show", "-n", "2", "--format", "argv", "--binder", "numactl", "--"]
    done = ompbind_run(*args, *report_command(tmp_path), *HOSTILE)
    one = ompbind_run(*args[:-1], "--rank", "1", "--", *report_command(tmp_path), *HOSTILE)
    assert done.stdout.endswith(one.stdout)
    (tmp_path / "script").write_bytes(os.fsencode(one.stdout))
    ran = subprocess.run(
        ["sh", str(tmp_path / "script")], env=environment(), cwd=tmp_path, timeout=TIMEOUT,
        check=False,
    )  # fmt: skip
    assert ran.returncode == 0
    plan = parse_plan(ompbind_run("show", "-n", "2", "--format", "json").stdout)
    told = read_report(tmp_path, "none")
    assert told["argv"] == HOSTILE
    assert told["cpus"] == str(plan.ranks[1].cpus)


def test_show_argv_without_numactl_says_so() -> None:
    """Pasted, a native plan's arguments do not bind: standard error says it."""
    done = ompbind_run("show", "--binder", "native", "--format", "argv", "--", "true", "a b")
    assert done.stdout == "true 'a b'\n"
    assert "do not bind" in done.stderr
    assert "hint: --format taskset " in done.stderr


def test_the_table_of_one_rank() -> None:
    """--rank chooses whose command the table shows; JSON always has all ranks."""
    need_cpus(2)
    args = ["show", "-n", "2", "--rank", "1"]
    done = ompbind_run(*args, "--", "true", env=environment(COLUMNS="200"))
    assert "executed for rank 1" in done.stdout
    assert "OMPBIND_RANK=1" in done.stdout
    assert "OMPBIND_RANK=0" not in done.stdout
    done = ompbind_run(*args, "--format", "json")
    assert done.stderr == error("--rank has no effect on --format json", "leave one of them out")


def test_too_few_descriptors() -> None:
    """Where no more files can be opened the error says what to raise."""
    command = ["sh", "-c", f"ulimit -n 16; exec {OMPBIND} run -n 2 -- true"]
    done = subprocess.run(
        command, env=environment(), capture_output=True, text=True, timeout=TIMEOUT, check=False
    )
    assert done.returncode == 125
    message = "rank 0: no descriptors are left for its streams: ompbind may open 16 files, and 2 "
    assert done.stderr.startswith(f"ompbind: error: {message}ranks need ")
    assert "\nhint: raise the hard limit (ulimit -Hn " in done.stderr


def test_show_for_another_machine(tmp_path: Path) -> None:
    """A directory with a machine's files is planned for, whatever is installed here."""
    shape = Shape(packages=2, nodes=4, l3s=8, cores=16, threads=2, numbering="halves")
    tree = write_tree(make_files(shape), tmp_path)
    args = ["--topology", str(tree), "--numa-bind-nodes", "0", "0", "1", "1"]
    plan = parse_plan(ompbind_run("show", "--format", "json", *args, "--", "w").stdout)
    assert [str(r.cpus) for r in plan.ranks] == ["0-1", "2-3", "4-5", "6-7"]
    assert plan.ranks[3].argv == ("numactl", "--physcpubind=6-7", "--membind=1", "w")
    table = ompbind_run("show", *args, env=environment(COLUMNS="120"))
    assert "0011" in table.stdout.replace(" ", "")


def test_warnings_of_show() -> None:
    """Warnings are in the table and the JSON; beside env and argv on standard error."""
    args = ["show", "--exclude", "60000"]
    said = "--exclude names cpus that this machine does not have: 60000"
    assert said in ompbind_run(*args, env=environment(COLUMNS="200")).stdout
    assert json.loads(ompbind_run(*args, "--format", "json").stdout)["warnings"] == [said]
    for form in ("env", "argv"):
        done = ompbind_run(*args, "--format", form, "--binder", "numactl", "--", "true")
        assert f"ompbind: warning: {said}\n" in done.stderr
    assert f"ompbind: warning: {said}\n" in ompbind_run("run", *args[1:], "--", "true").stderr


@pytest.mark.parametrize("changes", [{}, {"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_no_colour_in_a_pipe(changes: dict[str, str]) -> None:
    """No escape codes where nobody sees colours."""
    for args in (["show"], ["--help"], ["run", "--help"], ["run", "--frobnicate"]):
        done = ompbind_run(*args, env=environment(**{"TERM": "xterm-256color"} | changes))
        assert "\x1b" not in done.stdout + done.stderr


def test_colour_on_a_terminal_unless_no_color() -> None:
    """On a terminal the table has colours; NO_COLOR turns them off."""
    if shutil.which("script") is None:
        pytest.skip("no `script` to make a terminal")
    for changes, coloured in (({}, True), ({"NO_COLOR": "1"}, False)):
        done = subprocess.run(
            ["script", "-qec", f"{OMPBIND} show", "/dev/null"],
            env=environment(TERM="xterm-256color", **changes),
            stdin=subprocess.DEVNULL, capture_output=True, timeout=TIMEOUT, check=False,
        )  # fmt: skip
        assert (b"\x1b[3" in done.stdout) == coloured


def test_a_reader_that_goes_away() -> None:
    """`ompbind show | head -0` is no error worth a traceback."""
    for form in ("json", "table", "argv"):
        done = subprocess.run(
            ["sh", "-c", f'"$0" show -n 1 --format {form} -- true | true', OMPBIND],
            env=environment(), capture_output=True, text=True, timeout=TIMEOUT, check=False,
        )  # fmt: skip
        assert "Traceback" not in done.stderr
        assert "Exception" not in done.stderr


@pytest.mark.parametrize(
    ("form", "where"),
    [("json", ">/dev/full"), ("table", ">/dev/full"), ("argv", ">/dev/full"), ("json", ">&-")],
)
def test_output_that_cannot_be_written(form: str, where: str) -> None:
    """A full disk or a closed standard output is an error of one line, not a traceback."""
    done = subprocess.run(
        ["sh", "-c", f'exec "$0" show --format {form} --binder native -- true {where}', OMPBIND],
        env=environment(), stderr=subprocess.PIPE, text=True, timeout=TIMEOUT, check=False,
    )  # fmt: skip
    lines = done.stderr.splitlines()
    while lines and lines[0].startswith(("ompbind: note:", "hint:")):
        del lines[0]  # about the plan
    assert done.returncode == 125
    (error,) = lines
    assert error.startswith("ompbind: error: ")


# --- saved plans ---------------------------------------------------------------------------------


def save_plan(tmp_path: Path, *args: str, **changes: object) -> list[str]:
    """The option that names a plan made with `args`, its first rank changed."""
    data = json.loads(ompbind_run("show", "--format", "json", *args).stdout)
    data["ranks"][0].update(changes)
    (tmp_path / "plan.json").write_text(json.dumps(data))
    return ["--plan", str(tmp_path / "plan.json")]


def test_a_saved_plan_runs(tmp_path: Path, binder: str, ranks: int) -> None:
    """What show wrote, run executes, with its own command or with another."""
    worker = report_command(tmp_path)
    args = ["--binder", binder, "-n", str(ranks), "--template", "--", *worker, "{rank}"]
    saved = save_plan(tmp_path, *args)
    plan = parse_plan((tmp_path / "plan.json").read_text())
    assert ompbind_run("run", *saved).returncode == 0
    for r in plan.ranks:
        told = read_report(tmp_path, r.rank)
        assert (told["cpus"], told["argv"]) == (str(r.cpus), [str(r.rank).encode()])
    assert ompbind_run("run", *saved, "--", *worker, "other{rank}", "b c").returncode == 0
    for r in plan.ranks:
        told = read_report(tmp_path, r.rank)
        assert told["cpus"] == str(r.cpus)
        assert told["argv"] == [f"other{r.rank}".encode(), b"b c"]


def test_a_plan_saved_inside_a_mask_runs_there(tmp_path: Path) -> None:
    """What was restricted is written so that it can be read back."""
    need_cpus(2)
    under = ("taskset", "-c", str(min(os.sched_getaffinity(0))))
    done = ompbind_run("show", "--format", "json", "--", "true", under=under)
    assert json.loads(done.stdout)["reset_inherited"] is False
    (tmp_path / "plan").write_text(done.stdout)
    done = ompbind_run("run", "--plan", str(tmp_path / "plan"), under=under)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_saved_plan_beats_the_environment(tmp_path: Path) -> None:
    """It has its own OMP_ variables; what is inherited is overridden and said."""
    saved = save_plan(tmp_path, "--", *report_command(tmp_path))
    env = environment(OMP_NUM_THREADS="99", KMP_AFFINITY="compact")
    done = ompbind_run("run", *saved, env=env)
    assert done.returncode == 0
    assert "OMP_NUM_THREADS=99 overridden" in done.stderr
    told = read_report(tmp_path)["env"]
    assert told["OMP_NUM_THREADS"] != "99"
    assert "KMP_AFFINITY" not in told


@pytest.mark.parametrize(
    "changes",
    [
        {"cpus": "60000"},  # not of this machine
        {"cpus": ""},  # unbound without having been told to
        {"argv": ["true"]},  # not bound by numactl
        {"argv": ["numactl", "--physcpubind=60000", "true"]},  # bound elsewhere
        {"argv": ["numactl", "--all", "true"]},
        {"argv": []},
        {"mem": "bind", "mems": "900"},
        {"mem": "bind"},  # without nodes
        {"rank": 1},
        {"env": {"": "x"}},
        {"env": {"A=B": "x"}},
        {"env": {"A": "\ud800"}},
        {"argv": ["\ud800"]},
        {"argv": ["true\0"]},
        {"places": ["a"]},
    ],
    ids=str,
)
def test_a_tampered_plan_is_refused(tmp_path: Path, changes: dict[str, object]) -> None:
    """A plan whose parts do not agree, or that does not fit this machine, starts nothing."""
    need_numactl()
    saved = save_plan(tmp_path, "--binder", "numactl", "--", *report_command(tmp_path), **changes)
    done = ompbind_run("run", *saved)
    assert done.returncode == 125
    assert done.stdout == ""
    assert done.stderr.startswith("ompbind: error: ")
    assert len(done.stderr.splitlines()) <= 2
    assert not (tmp_path / "report.0").exists()


def test_a_plan_of_another_machine_is_refused(tmp_path: Path) -> None:
    """A plan that agrees with itself, but names cpus that are not here, says for whom it is."""
    args = ["--binder", "native", "--", *report_command(tmp_path)]
    env = json.loads(ompbind_run("show", "--format", "json", *args).stdout)["ranks"][0]["env"]
    env |= {"OMPBIND_CPUS": "60000", "OMP_PLACES": "{60000}"}
    saved = save_plan(tmp_path, *args, cpus="60000", places=["60000"], env=env)
    plan = parse_plan((tmp_path / "plan.json").read_text())
    done = ompbind_run("run", *saved)
    assert done.returncode == 125
    message = "rank 0: cpus 60000 of the plan may not be used here"
    hint = f"allowed cpus: {read_machine().allowed.cpus}; the plan is for {plan.host.name}"
    assert done.stderr == error(message, hint)
    assert not (tmp_path / "report.0").exists()


def test_a_plan_without_a_name_is_refused(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A plan for a snapshot, which has no host's name, says which cpus its machine has."""
    topology = ["--topology", "core:70 pu:1", "--format", "json"]
    assert main(["show", *topology, "--", "true"]) == 0
    file = tmp_path / "plan.json"
    file.write_text(capfd.readouterr().out)
    assert main(["run", "--plan", str(file)]) == 125
    assert capfd.readouterr().err.endswith("; the plan is for a machine with cpus 0-69\n")


def test_a_plan_without_command(tmp_path: Path) -> None:
    """A plan made without a command needs one to run."""
    done = ompbind_run("run", *save_plan(tmp_path))
    assert done.returncode == 125
    hint = "put it after --: ompbind run -- COMMAND"
    assert done.stderr == error("no command to run", hint)


def test_a_file_that_is_no_plan(tmp_path: Path) -> None:
    """Another file's contents are refused with its name."""
    for data in (b"", b"{}", b"\xff\xfe", b"[" * 100_000):
        (tmp_path / "plan.json").write_bytes(data)
        done = ompbind_run("run", "--plan", str(tmp_path / "plan.json"), "--", "true")
        assert done.returncode == 125
        assert len(done.stderr.splitlines()) <= 2
        assert done.stderr.startswith(f"ompbind: error: --plan '{str(tmp_path)[:40]}")
    done = ompbind_run("run", "--plan", str(tmp_path), "--", "true")
    assert done.returncode == 125


# --- as a module ----------------------------------------------------------------------------------


def test_as_a_module() -> None:
    """python -m ompbind is the same program."""
    command = [sys.executable, "-m", "ompbind", "run", "--", "sh", "-c", "exit 3"]
    done = subprocess.run(command, env=environment(), timeout=TIMEOUT, check=False)
    assert done.returncode == 3


@pytest.mark.parametrize(
    ("field", "value", "problem"),
    [
        ("OMPBIND_CPUS", "7", "ranks[0]: env has OMPBIND_CPUS='7', its binding is "),
        ("OMPBIND_MEM", "bind:0", "ranks[0]: env has OMPBIND_MEM='bind:0', its binding is 'none'"),
        ("OMPBIND_RANK", "1", "ranks[0]: env has OMPBIND_RANK='1', its binding is '0'"),
        ("OMP_PLACES", "{7}", "ranks[0]: env has OMP_PLACES='{7}', places says otherwise"),
        ("OMPBIND_ROLE_KV", "7", "ranks[0]: env has OMPBIND_ROLE_KV='7', the role has 4000"),
        ("places", ["4001"], "ranks[0]: places have cpus 4001, which are not among its cpus "),
        ("roles", "0-1", "role 'kv' is for ranks 1, which the plan does not have"),
        ("words", "--evil", "server: what tells it of its workers says otherwise"),
    ],
)
def test_a_plan_that_contradicts_itself(
    tmp_path: Path,
    field: str,
    value: str | list[str],
    problem: str,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Workers and other launches go by the variables, the kernel by the binding: refused in one
    line wherever a saved plan is read."""
    args = ["--mem", "none", "--format", "json", "--", "true"]
    plan = json.loads(show(capfd, *args))
    plan["roles"] = [{"name": "kv", "cpus": "4000", "ranks": "0"}]
    rank = plan["ranks"][0]
    rank["env"]["OMPBIND_ROLE_KV"] = "4000"
    path = tmp_path / "plan.json"
    path.write_text(json.dumps(plan))
    assert ompbind.Plan.load(path).roles
    if field == "words":
        facts = {"engine": "vllm", "name": "vLLM", "version": "", "workers": [], "rest": ""}
        plan["server"] = facts | {"words": ["--numa-bind-nodes", "0", value]}
    elif field == "roles":
        plan["roles"][0]["ranks"] = value
    elif isinstance(value, list):
        rank[field] = value
        del rank["env"]["OMP_PLACES"]
    else:
        rank["env"][field] = value
    path.write_text(json.dumps(plan))
    monkeypatch.setattr("gc.disable", lambda: None)  # run is not the last that this process does
    for refuse in (
        lambda: main_of_run(["--plan", str(path)]),
        lambda: main_of_show(["--plan", str(path)]),
        lambda: main_of_verify(["--plan", str(path), "1"]),
        lambda: ompbind.Plan.load(path),
    ):
        with pytest.raises(UsageError) as e:
            refuse()
        assert f": {problem}" in e.value.message
        assert "\n" not in e.value.message


def test_a_plan_that_binds_nothing_is_not_run(tmp_path: Path) -> None:
    """With cpus but the binder none it would run unbound where binding is possible."""
    args = ["--binder", "native", "--format", "json", "--", "true"]
    plan = json.loads(ompbind_run("show", *args).stdout)
    path = tmp_path / "plan.json"
    path.write_text(json.dumps(plan | {"binder": "none"}))
    done = ompbind_run("run", "--plan", str(path))
    assert done.returncode == 125
    assert "nothing to bind them with: its binder is none" in done.stderr
    assert "; not bound" in ompbind_run("show", "--plan", str(path)).stdout


def test_show_tells_where_ranks_of_a_plan_differ(tmp_path: Path) -> None:
    """In their programs and foreign variables, from any rank's view; ranks' own places do not
    count."""
    args = ["-n", "2", "--share", "--binder", "native", "--env", "X={rank}", "--format", "json"]
    plan = json.loads(ompbind_run("show", *args, "--", "true").stdout)
    plan["ranks"][0]["env"]["X"] = plan["ranks"][1]["env"]["X"]
    path = tmp_path / "plan.json"
    path.write_text(json.dumps(plan))
    shown = ompbind_run("show", "--plan", str(path)).stdout
    assert "another program" not in shown
    assert "rank 1 has" not in shown
    plan["ranks"][1]["argv"] = ["sh", "-c", "evil"]
    plan["ranks"][1]["env"] |= {"LD_PRELOAD": "evil.so"}
    path.write_text(json.dumps(plan))
    shown = ompbind_run("show", "--plan", str(path)).stdout
    assert "\nrank 1 executes another program: sh\nrank 1 has LD_PRELOAD=evil.so\n" in shown
    shown = ompbind_run("show", "--plan", str(path), "--rank", "1").stdout
    assert "\nrank 0 executes another program: true\nrank 0 has no LD_PRELOAD\n" in shown


def test_a_plan_brings_no_variables_into_my_command(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """With a command of one's own, a plan's LD_PRELOAD, fix or other variable that is not about
    binding is refused; --env replaces it, --plan-env takes it, --fix replaces fixes."""
    args = ["-n", "2", "--share", "--rank-env", "--format", "json"]
    plan = json.loads(show(capfd, *args, "--", "true"))
    path = tmp_path / "plan.json"
    mine = ["--plan", str(path), "--", "/bin/sh", "-c", "true"]
    path.write_text(json.dumps(plan))
    assert "RANK=1" in show(capfd, "--format", "env", "--rank", "1", *mine)
    for name, value in (
        ("LD_PRELOAD", "/nowhere"),
        ("PATH", "/nowhere"),
        ("X", "1"),
        ("OMP_TOOL_LIBRARIES", "evil.so"),
        ("OMPBIND_FIX", "fxgraph-pickle@torch,/evil.py:apply@os"),
        ("OMPBIND_FIX", "../evil@os"),
    ):
        changed = copy.deepcopy(plan)
        changed["ranks"][1]["env"][name] = value
        path.write_text(json.dumps(changed))
        with pytest.raises(UsageError, match=rf"rank 1 has {name}='.*', which is not about bindi"):
            main_of_show(mine)
        assert f"{name}=" in show(capfd, "--format", "env", "--rank", "1", "--plan-env", *mine)
        if name.startswith("OMPBIND"):
            assert "evil" not in show(
                capfd, "--format", "env", "--rank", "1", "--fix", "auto", *mine
            )
        else:
            shown = show(capfd, "--format", "env", "--rank", "1", "--env", f"{name}=mine", *mine)
            assert f"export {name}=mine\n" in shown
    changed = copy.deepcopy(plan)
    for rank in changed["ranks"]:
        rank["env"] |= {"OMPBIND_FIX": "fxgraph-pickle@torch", "PYTHONPATH": "/evil"}
    path.write_text(json.dumps(changed))
    shown = show(capfd, "--format", "env", "--rank", "1", *mine)
    assert "OMPBIND_FIX=fxgraph-pickle@torch" in shown
    assert "evil" not in shown
    done = ompbind_run("run", "--plan", str(path), "--env", "X=2", "--", "sh", "-c", "echo $X")
    assert done.returncode == 0
    assert sorted(done.stdout.splitlines()) == ["[0] 2", "[1] 2"]


def show(capfd: pytest.CaptureFixture[str], *args: str) -> str:
    """What `show` prints, in this process."""
    assert main_of_show(args) == 0
    return capfd.readouterr().out


def test_run_does_not_repeat_what_is_so_on_each_server(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """NUMA balancing is the kernel's default, and --share gives ranks more threads together than
    cpus: show, --explain and doctor warn of that, run does not; other warnings stand."""
    plan = make_plan(MACHINES["server"], make_asked(["-n", "2", "--share"]))
    assert [caution.kind for caution in plan.cautions] == ["shared-threads"]
    text = "NUMA balancing migrates pages"
    cautions = (Caution("numa-balancing", text), Caution("memory", "node 1 has no memory"))
    planned = plan.replace(cautions=(*plan.cautions, *cautions))
    monkeypatch.setattr("ompbind.resolve.resolve_plan", lambda *_, **__: planned)
    monkeypatch.setattr("ompbind.launch.run", lambda *_: 0)
    assert command_run.start({"ranks": 2}, ["true"]) == 0
    assert capsys.readouterr().err == "ompbind: warning: node 1 has no memory\n"
    assert text in planned.to_json()


@pytest.mark.parametrize(
    ("module", "hint"),
    [
        ("dataclasses",
         "install Python's whole standard library: Debian's python3, not only python3-minimal"),
        ("typer", "install ompbind with what it needs: pip install ompbind"),
    ],
)  # fmt: skip
def test_a_module_that_is_not_installed(
    module: str, hint: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As with Debian's python3-minimal, or after pip install --no-deps: what to install."""

    def fail(_: object) -> int:
        raise ModuleNotFoundError(f"No module named '{module}.x'", name=f"{module}.x")

    monkeypatch.setattr("ompbind.cli.find_command", lambda _: fail)
    assert main(["show"]) == 125
    said = error(f"cannot load a module: No module named '{module}.x'", hint)
    assert capsys.readouterr().err == said


@pytest.mark.parametrize("named", [True, False])
def test_show_refuses_numactl_where_run_does(
    named: bool, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """On a kernel without NUMA numactl refuses to work, there and here; auto binds without it."""
    tree = str(write_tree(make_files(Shape(cores=4, node_dir="none")), tmp_path / "tree"))
    args = ["show", "--topology", tree, "-n", "2", "--format", "json"]
    if not named:
        assert main(args) == 0
        assert parse_plan(capfd.readouterr().out).binder == "native"
        return
    assert main([*args, "--binder", "numactl"]) == 125
    assert capfd.readouterr().err == error(
        "--binder numactl: this kernel has no NUMA, and numactl refuses to work without",
        "--binder native binds the cpus by system calls",
    )
