"""`ompbind ps`: who holds which cpus, by variables, leases and masks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ompbind import host
from ompbind.cli import main
from ompbind.cpuset import CpuSet
from ompbind.host.launches import (
    Launch,
    Member,
    Survey,
    VisibleProcess,
    find_ranks,
    subtract,
    survey,
)
from ompbind.machine.topology import Machine
from ompbind.render import make_text
from ompbind.render.launches import describe_age, draw_survey
from tests.support.commands import OMPBIND, TIMEOUT, environment
from tests.support.confine import among_no_others
from tests.support.needs import need_cpus
from tests.support.processes import Processes as ProcessFiles
from tests.support.trees import MemoryRoot, Shape, make_machine

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="leases are Linux's")

SERVER = make_machine(Shape(packages=1, nodes=2, l3s=2, cores=16, threads=2, numbering="halves"))

# Starts launches, prints their pids, and what ps says of them: to root, and to another user, who
# may not read what is imported here.
DRIVER = r"""
import json, os, subprocess, sys
import ompbind.cli.ps, ompbind.host.launches, ompbind.host.holders, ompbind.machine.cpus, pwd
import ompbind.machine.limits, ompbind.options.values, time, fcntl
from ompbind.cli import main
ompbind, first, second = sys.argv[1:]
def start(*command):
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    process.stdout.readline()
    return process
WORKER = ["sh", "-c", "echo; read line"]
several = start(ompbind, "run", "--output", "inherit", "--stdin", "all", "--numa-bind-cpus", first,
                second, "--", *WORKER)
several.stdout.readline()
INNER = "sh -c 'echo; read x'; :"
single = start(ompbind, "run", "--numa-bind-cpus", second, "--", "sh", "-c", INNER)
other = start("taskset", "-c", first, *WORKER)
def look(user):
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.dup2(writer, 1)
        if user:
            os.setgid(user)
            os.setuid(user)
        os._exit(main(["ps", "--format", "json"]))
    os.close(writer)
    with open(reader) as file:
        data = json.load(file)
    assert os.waitpid(pid, 0)[1] == 0
    return data
out = {"pids": [several.pid, single.pid, other.pid], "root": look(0)}
if os.getuid() == 0:
    out["user"] = look(54321)
for process in (several, single, other):
    process.communicate(b"\n\n")
out["after"] = look(0)
print(json.dumps(out))
"""


def test_what_a_rank_leaves_behind_is_no_launch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that has lost its parents, and that the supervisor has adopted, is none of the
    ranks that its record names; without a record nobody can tell."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(4)))
    made = ProcessFiles(tmp_path)
    claim = {"OMPBIND_RANK": "0", "OMPBIND_CPUS": "0-3"}
    made.add(10, name="ompbind")
    made.add(11, 10, claim, masks=["0-3"])
    made.add(12, 10, claim, masks=["0-3"])
    processes = {
        pid: VisibleProcess(pid, parent, 1, name, 0, CpuSet(range(4)), (name,), environ)
        for pid, parent, name, environ in (
            (10, 1, "ompbind", {}), (11, 10, "w", claim), (12, 10, "orphan", claim),
        )
    }  # fmt: skip
    assert sorted(find_ranks(made.root, processes)) == [11, 12]
    made.keep(10, {11: claim})
    assert find_ranks(made.root, processes) == {11: (0, CpuSet(range(4)))}


def test_launches_are_seen_from_outside() -> None:
    """By the user that started them, with all ranks; by another one, by their leases; and nothing
    when they have exited. Other programs are seen by their masks."""
    first, second = need_cpus(2)
    cpus = CpuSet([first, second])
    command = [sys.executable, "-c", DRIVER, OMPBIND, str(first), str(second)]
    with among_no_others() as apart:
        done = subprocess.run(
            [*apart, "taskset", "-c", str(cpus), *command], env=environment(),
            capture_output=True, text=True, timeout=TIMEOUT, check=False,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    out = json.loads(done.stdout)
    several, single, other = out["pids"]
    launches = {launch["pid"]: launch for launch in out["root"]["launches"]}
    assert [r["cpus"] for r in launches[several]["ranks"]] == [str(first), str(second)]
    assert [r["rank"] for r in launches[several]["ranks"]] == [0, 1]
    assert (launches[several]["by"], launches[several]["cpus"]) == ("variables", str(cpus))
    assert launches[several]["command"] == ["sh", "-c", "echo; read line"]
    assert launches[several]["since"].startswith("20")
    assert [r["cpus"] for r in launches[single]["ranks"]] == [str(second)]  # without its child
    assert (launches[other]["by"], launches[other]["cpus"]) == ("mask", str(first))
    bound = {pid for pid, launch in launches.items() if launch["by"] != "mask"}
    assert bound == {several, single}
    assert not cpus & CpuSet.parse_kernel(out["root"]["free"]["cpus"])
    for launch in out["after"]["launches"]:
        assert launch["by"] == "mask"
    assert cpus <= CpuSet.parse_kernel(out["after"]["free"]["cpus"])
    if "user" in out:
        assert out["user"]["hidden"] >= 5
        leased = [launch for launch in out["user"]["launches"] if launch["by"] == "lease"]
        assert {(launch["user"], launch["cpus"]) for launch in leased} == {
            ("root", str(cpus)), ("root", str(second))
        }  # fmt: skip
        assert out["user"]["free"] == out["root"]["free"]


class Processes(MemoryRoot):
    """Made-up processes."""

    def read_whole(self, path: str) -> bytes:
        if path not in self.files:
            raise FileNotFoundError(2, "No such file", path)
        return self.files[path].encode()


def make_processes(monkeypatch: pytest.MonkeyPatch, *processes: tuple[object, ...]) -> Processes:
    """Processes of pid, parent, mask, command and variables."""
    files, masks = {"proc/stat": "cpu 1\nbtime 1000\n"}, {}
    for pid, parent, mask, command, *variables in processes:
        files[f"proc/{pid}/stat"] = f"{pid} ({str(command).split()[0]}) S {parent} " + "0 " * 60
        files[f"proc/{pid}/cmdline"] = str(command).replace(" ", "\0") + "\0"
        files[f"proc/{pid}/status"] = "Name: x\nUid:\t0\t0\t0\t0\n"
        if variables != [None]:
            files[f"proc/{pid}/environ"] = "\0".join(map(str, variables))
        masks[pid] = set(CpuSet.parse_kernel(str(mask)))
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: masks[pid])
    return Processes(files)


def rank(number: int, cpus: str, count: int = 1, *more: str) -> tuple[str, ...]:
    return f"OMPBIND_RANK={number}", f"OMPBIND_CPUS={cpus}", f"OMPBIND_RANKS={count}", *more


@pytest.fixture
def no_leases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "CPUS", str(tmp_path))


def describe(found: Survey) -> list[tuple[int, str, list[tuple[int, int | None, str]]]]:
    return [(n.pid, n.by, [(m.pid, m.rank, str(m.cpus)) for m in n.members])
            for n in found.launches]  # fmt: skip


def test_ranks_are_put_together(no_leases: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of one supervisor, under the process that the user started, and those of one engine's
    job; roles are theirs too, but not other variables that look so. What a rank has started is no
    launch."""
    root = make_processes(
        monkeypatch,
        (1, 0, "0-31", "init"),
        (10, 1, "0-31", "ompbind run"), (11, 10, "0-31", "rank-watcher"),
        (12, 11, "0-31", "ompbind run"),
        (13, 12, "4-7", "solver", *rank(1, "4-7", 2)),
        (14, 12, "0-3", "solver", *rank(0, "0-3", 2)),
        (15, 14, "0-3", "helper", *rank(0, "0-3", 2)),
        (20, 1, "8", "mpi x", *rank(0, "8", 2, "OMPBIND_TASK=job/0")),
        (21, 1, "9", "mpi x", *rank(1, "9", 2, "OMPBIND_TASK=job/1")),
        (30, 1, "10", "server", *rank(0, "10", 1, "OMPBIND_ROLE_IO=11")),
        (31, 30, "11", "taskset -c 11"),
        (35, 1, "14", "own", *rank(0, "14", 1, "OMPBIND_ROLE_X=mine", "OMPBIND_ROLE_Y=15")),
        (40, 1, "12", "moved", *rank(0, "13")),  # its claim is void
        (50, 1, "0-31", "odd", *rank(0, "x-y")),
        (60, 1, "20", "long", "OMPBIND_RANK=" + "9" * 5000, "OMPBIND_CPUS=20"),
    )  # fmt: skip
    found = survey(root, SERVER)
    assert describe(found) == [
        (10, "variables", [(14, 0, "0-3"), (13, 1, "4-7")]),
        (20, "variables", [(20, 0, "8"), (21, 1, "9")]),
        (30, "variables", [(30, 0, "10-11")]),
        (35, "variables", [(35, 0, "14-15")]),
        (60, "variables", [(60, None, "20")]),
        (40, "mask", [(40, None, "12")]),
    ]
    assert [str(n.cpus) for n in found.launches[:3]] == ["0-7", "8-9", "10-11"]
    assert str(found.launches[0].nodes) == "0"
    assert found.launches[0].since == 1000.0
    assert found.hidden == 0
    assert [str(core) for core in found.free][:2] == ["12,28", "13,29"]


def test_other_programs_by_their_masks(no_leases: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where they are narrower than that of the process that started them, its children together;
    their cpus stay free, as nobody holds them."""
    root = make_processes(
        monkeypatch,
        (1, 0, "0-31", "init", None),
        (10, 1, "0-31", "mpirun -n 2"),
        (11, 10, "0-3", "solver"), (12, 10, "4-7", "solver"), (13, 12, "4-7", "helper"),
        (20, 1, "8", "sshd"), (21, 20, "9", "deeper"),
        (30, 999, "0-31", "whole"),
    )  # fmt: skip
    found = survey(root, SERVER)
    assert describe(found) == [
        (11, "mask", [(11, None, "0-3"), (12, None, "4-7")]),
        (20, "mask", [(20, None, "8")]),
        (21, "mask", [(21, None, "9")]),
    ]
    assert len(found.free) == 16
    assert str(found.bound) == "0-9"
    assert found.hidden == 1


def test_leases_without_a_launch() -> None:
    """What is left of the leases when each launch has explained one on each of its cpus."""
    leases = [CpuSet([0, 1]), CpuSet([1, 2]), CpuSet([7])]
    assert str(subtract(leases, [CpuSet([0, 1, 2])])) == "1,7"
    assert not subtract(leases, [*leases, CpuSet([4])])


def test_cpus_that_the_machine_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Anybody can lease a cpu that does not exist, or claim it in variables: nobody holds it."""
    monkeypatch.setattr(host, "CPUS", str(tmp_path))
    status = tmp_path.stat()
    device = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}"
    root = make_processes(
        monkeypatch, (1, 0, "0-31", "init"), (10, 1, "0-31", "odd", *rank(0, "8-4000")),
        (20, 1, "5000", "odd", *rank(0, "5000")),
    )  # fmt: skip
    lock = "OFDLCK  ADVISORY  READ -1"
    root.files["proc/locks"] = (
        f"1: {lock} {device}:{status.st_ino} 30 4000\n2: {lock} {device}:{status.st_ino} 77 77\n"
    )
    result = survey(root, SERVER)
    assert describe(result) == [(10, "variables", [(10, 0, "8-31")])]
    assert str(result.held) == "30-31"


def made_up(machine: Machine = SERVER) -> Survey:
    def launch(pid: int, cpus: str, by: str, *command: str) -> Launch:
        held = CpuSet.parse_kernel(cpus)
        members = (Member(pid, 0, held, machine.topology.nodes_of(held)),)
        return Launch(
            pid, "ada" if pid else "", command, by, 1000.0 if pid else None, members, held
        )

    launches = (
        launch(4711, "0-3,16-19", "variables", "python", "train it.py", "x" * 80),
        launch(0, "4", "lease"),
        launch(99, "3,8-9", "mask", "bad\x1b[2J"),
    )
    return Survey(machine, launches, CpuSet.parse_kernel("0-4"), 2)


def test_a_survey_drawn() -> None:
    """A row for each launch with its sign in the map, and what is free; no control characters."""
    lines = make_text(draw_survey(made_up(), 1000.0 + 7500)).splitlines()
    assert lines[0].split() == ["pid", "user", "ranks", "cpus", "nodes", "since", "known", "by",
                                "command"]  # fmt: skip
    assert lines[1].startswith(
        "0  4711  ada       1  0-3,16-19  0      2 h 05 min  variables  python"
    )
    assert lines[1].endswith("python 'train it.py' " + "x" * 38 + "…")
    assert lines[2].split() == ["1", "-", "-", "-", "4", "0", "-", "lease", "-"]
    assert lines[3].split()[:5] == ["2", "99", "ada", "-", "3,8-9"]
    assert "\x1b" not in "".join(lines)
    text = "\n".join(lines)
    assert "000+1···" in text
    assert "22······" in text
    assert "digit: launch  + several  = on a held core  · free" in text
    assert lines[-3:] == [
        "free: 11 cores, cpus 5-15,21-31",
        "bound to free cpus: other programs, cpus 8-9",
        "not seen: the variables of 2 processes, by which a rank is known",
    ]


def test_nothing_is_held(monkeypatch: pytest.MonkeyPatch) -> None:
    """The map and what is free."""
    text = make_text(draw_survey(Survey(SERVER, (), CpuSet()), 0.0))
    assert "pid" not in text
    assert text.endswith("\nfree: 16 cores, cpus 0-31\n")
    full = Survey(SERVER, (), CpuSet(range(16)))
    assert make_text(draw_survey(full, 0.0)).endswith("\nfree: no core\n")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (59, "59 s"), (61, "1 min"), (3599, "59 min"), (3600, "1 h 00 min"),
     (7500, "2 h 05 min"), (86399, "23 h 59 min"), (100000, "1 d 3 h")],
)  # fmt: skip
def test_ages(seconds: float, text: str) -> None:
    """In the two largest units."""
    assert describe_age(seconds) == text


def test_words_that_ps_does_not_take(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["ps", "4711"]) == 125
    assert capfd.readouterr().err.startswith("ompbind: error: ps takes no '4711'\n")
