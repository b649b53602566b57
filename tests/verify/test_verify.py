"""Workers against their plan: by real workers that are then spoiled, and by files of /proc that
are made up."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ompbind.cli import main
from ompbind.machine.processes import (
    HugePages,
    make_family,
    parse_environ,
    parse_huge_pages,
    parse_libraries,
    parse_numa_maps,
    parse_stat,
    read_process,
)
from ompbind.machine.roots import DirectoryRoot
from ompbind.verify.expected import (
    count_team,
    expect_environ,
    expect_plan,
    read_places,
)
from tests.support.commands import OMPBIND, TIMEOUT, environment, error, ompbind_run
from tests.support.needs import need_cpus, unavailable
from tests.support.observe import let_all_read
from tests.support.programs import compile_library
from tests.support.recorder import alive

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="verify reads Linux' /proc")

# --- what the kernel writes ----------------------------------------------------------------------


def test_plans_and_environments_say_the_same() -> None:
    """What is expected of a rank comes out alike from its plan and from its own environment."""
    done = ompbind_run("show", "--mem", "local", "--format", "json", "--", "true")
    from ompbind.plan_json import parse_plan

    rank = parse_plan(done.stdout).ranks[0]
    by_plan = expect_plan(rank)
    told = dict(rank.env) | {
        "OMPBIND_CPUS": str(rank.cpus),
        "OMPBIND_MEM": f"{rank.mem}:{rank.mems}",
    }
    assert expect_environ(told) == by_plan.replace(env=(), number=None)
    assert by_plan.env


@pytest.mark.parametrize(
    ("text", "places"),
    [
        ("{0},{1}", "0 1"),
        ("{0,4},{1,5}", "0,4 1,5"),
        ("cores", ""),
        ("{0:4}", "0-3"),
        ("{0},{1}:4:2", "0 1 3 5 7"),
        ("{0,1},{0},{1}", "0-1 0 1"),
        ("!{0}", ""),
        ("{}", ""),
        ("", ""),
        ("{99999999}", ""),
    ],
)
def test_places_are_read_as_the_standard_writes_them(text: str, places: str) -> None:
    """Places may overlap, as --places wide has them; nothing is guessed from a name or garbage."""
    assert " ".join(map(str, read_places(text))) == places


@pytest.mark.parametrize(
    ("text", "threads"), [("4", 4), ("4,2", 8), (" 4 , 2", 8), ("", None), ("x", None), ("0", None)]
)
def test_nested_levels_multiply(text: str, threads: int | None) -> None:
    """A list of numbers of threads is one for each level, and all of them may be there."""
    assert count_team(text) == threads


@pytest.mark.parametrize("value", ["", "x", "-1", "1.5", "9" * 30])
def test_a_strange_rank_is_no_worker(value: str) -> None:
    """Only a number makes a worker."""
    assert expect_environ({"OMPBIND_RANK": value}) is None


def test_names_may_hold_anything() -> None:
    """The name of a thread may hold brackets and blanks."""
    fields = b"7 (a) (b) S 3 " + b" ".join(str(n).encode() for n in range(5, 53))
    stat = parse_stat(fields)
    assert (stat.name, stat.state, stat.parent, stat.started, stat.last) == (
        "a) (b",
        "S",
        3,
        22,
        39,
    )
    assert parse_stat(b"7 (cut").last is None


NUMA_MAPS = b"""\
55d0 bind:0 file=/usr/bin/some\\040worker mapped=3 N0=3 kernelpagesize_kB=4
55d1 bind:0 heap anon=10 dirty=10 N0=8 N1=2 kernelpagesize_kB=4
7f00 prefer (many):0-1 anon=2 dirty=2 N1=2 kernelpagesize_kB=2048
7f01 weighted interleave:0-1 anon=1 dirty=1 N1=1 kernelpagesize_kB=4
7f02 default file=/usr/lib/libgomp.so.1.0.0 mapped=1 N1=1 kernelpagesize_kB=4
7f03 default file=/opt/libgomp-1/libother.so
7f04 bind:0 file=/anon_hugepage\\040(deleted) huge anon=2 dirty=2 N0=2 kernelpagesize_kB=2048
7ffd bind:0 stack anon=4 dirty=4 N0=4 kernelpagesize_kB=4
7ffe default
"""


def test_numa_maps_are_read() -> None:
    """Sums by policy and node, large pages at their size, files' apart; the stack tells the policy
    that the main thread has."""
    memory = parse_numa_maps(NUMA_MAPS)
    assert memory.policy == "bind:0"
    assert memory.private == (
        ("bind:0", 0, 12 * 4096 + (2 << 21)),
        ("bind:0", 1, 2 * 4096),
        ("prefer (many):0-1", 1, 2 << 21),
        ("weighted interleave:0-1", 1, 4096),
    )
    assert memory.files == ((0, 3 * 4096), (1, 4096))
    assert parse_libraries(NUMA_MAPS) == ("libgomp.so.1.0.0", "libother.so")


def test_huge_pages_are_read() -> None:
    """Those of all kinds, in bytes, of a file that a kernel wrote."""
    text = (
        b"00400000-7ffe0000 ---p 00000000 00:00 0    [rollup]\nRss:  9000 kB\n"
        b"AnonHugePages:      2048 kB\nShmemPmdMapped:        0 kB\nFilePmdMapped:      4096 kB\n"
        b"Shared_Hugetlb:        0 kB\nPrivate_Hugetlb:    8192 kB\nSwap:  1 kB\n"
    )
    assert parse_huge_pages(text) == HugePages(6 << 20, 8 << 20)
    assert parse_huge_pages(b"") == parse_huge_pages(b"\nAnonHugePages:\nx: y\n") == HugePages()


@given(st.binary())
def test_garbage_is_survived(data: bytes) -> None:
    """Files of a kernel to come, or cut ones, never end in a traceback."""
    parse_numa_maps(data)
    parse_stat(data)
    parse_environ(data)
    parse_libraries(data)


def test_an_environment_is_read_as_it_is() -> None:
    """Values may hold = and bytes that are no text; what is no variable is left out."""
    data = b"A=1=2\0B=\xff\0broken\0\0C="
    assert parse_environ(data) == (("A", "1=2"), ("B", "\udcff"), ("C", ""))


def test_families_are_found() -> None:
    """Descendants of descendants, and nobody else's."""
    parents = {2: 1, 3: 2, 4: 2, 5: 3, 9: 8}
    assert make_family([2, 8, 7], parents) == {2: [3, 4, 5], 8: [9], 7: []}


def write_process(root: Path, pid: int, tasks: dict[int, str]) -> None:
    """A process under root/proc with threads of these states, no NUMA and no environment."""
    for tid, state in tasks.items():
        task = root / "proc" / str(pid) / "task" / str(tid)
        task.mkdir(parents=True)
        rest = " ".join(str(n) for n in range(5, 53))
        (task / "stat").write_text(f"{tid} (w) {state} 1 {rest}\n")
        (task / "status").write_text(f"Name:\tw\nUid:\t5\t6\t7\t8\nCpus_allowed_list:\t{tid}\n")
    (root / "proc" / str(pid) / "stat").write_text(f"{pid} (w) S 1 {rest}\n")


def test_threads_that_have_ended_do_not_count(tmp_path: Path) -> None:
    """A main thread that is gone leaves the others; a zombie has none."""
    write_process(tmp_path, 5, {5: "Z", 6: "S", 7: "R"})
    write_process(tmp_path, 8, {8: "Z"})
    process = read_process(DirectoryRoot(str(tmp_path)), 5)
    assert process is not None
    assert [(t.tid, str(t.cpus), t.last) for t in process.threads] == [(6, "6", 39), (7, "7", 39)]
    assert (process.user, process.environ, process.memory, process.unreadable) == (
        6,
        None,
        None,
        (),
    )
    zombie = read_process(DirectoryRoot(str(tmp_path)), 8)
    assert zombie is not None
    assert zombie.ended
    assert read_process(DirectoryRoot(str(tmp_path)), 9) is None


# --- real workers --------------------------------------------------------------------------------

Starter = Callable[..., "Running"]


class Running:
    """An ompbind in the background, and the pids of its workers, all of which have said "ready"."""

    def __init__(self, process: subprocess.Popen[str], pids: list[int]) -> None:
        self.process, self.pids = process, pids

    def tids(self, rank: int = 0) -> list[int]:
        tids = map(int, os.listdir(f"/proc/{self.pids[rank]}/task"))
        return sorted(tids, key=lambda t: (t != self.pids[rank], t))

    def end(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(TIMEOUT)


@pytest.fixture
def start() -> Iterator[Starter]:
    """Starts workers that write "pid N" and "ready", and lets them end at last."""
    started: list[subprocess.Popen[str]] = []

    def start_one(*args: str, ranks: int = 1, under: Sequence[str] = ()) -> Running:
        process = subprocess.Popen(
            [*under, *let_all_read([OMPBIND, "run", *args])], env=environment(), text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip
        started.append(process)
        assert process.stdout is not None
        pids: dict[int, int] = {}
        ready = 0
        while ready < ranks:
            line = process.stdout.readline()
            assert line, f"ended early: {process.wait()}"
            ready += line == "ready\n"
            if found := re.match(r"rank (\d+) pid (\d+)", line):
                pids[int(found[1])] = int(found[2])
        return Running(process, [pids[r] for r in sorted(pids)])

    yield start_one
    for process in started:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.close()
        try:
            process.wait(TIMEOUT)
        finally:
            if process.returncode is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.stdout.close()


def verify(*args: object) -> tuple[int, dict[str, Any]]:
    """The status and the report."""
    done = ompbind_run("verify", "--format", "json", *map(str, args))
    assert done.returncode in (0, 1), done.stderr
    assert done.stderr == ""
    report: dict[str, Any] = json.loads(done.stdout)
    assert report["holds"] == (done.returncode == 0)
    return done.returncode, report


def kinds_in(report: dict[str, Any]) -> list[str]:
    return [d["kind"] for p in report["processes"] for d in p["differences"]]


def python_worker(code: str) -> list[str]:
    """A Python worker that runs `code`, says that it is ready, and waits."""
    head = "import os, sys, threading, time\n"
    tail = "\nprint('rank', os.environ['OMPBIND_RANK'], 'pid', os.getpid())\nprint('ready')\n"
    tail += "sys.stdout.flush()\nsys.stdin.read()\n"
    return [sys.executable, "-I", "-S", "-c", head + code + tail]


@pytest.fixture
def gomp(where: Callable[[str], str]) -> list[str]:
    return [where("libgomp"), "--wait", "--touch", "16"]


def test_workers_are_as_planned(start: Starter, gomp: list[str], tmp_path: Path) -> None:
    """Ranks in their places hold, by their own pids, by the launcher's, and by the plan's file."""
    need_cpus(2)
    plan = ompbind_run("show", "-n", "2", "--mem", "local", "--format", "json")
    (tmp_path / "plan.json").write_text(plan.stdout)
    allocator = tmp_path / "libjemalloc.so.2"
    shutil.copy(compile_library("libplain.so.1"), allocator)
    words = ["-n", "2", "--mem", "local", "--preload", str(allocator)]
    running = start(*words, "--", *gomp, ranks=2)
    for args in (
        running.pids,
        [running.process.pid],
        ["--plan", tmp_path / "plan.json", *running.pids],
        ["--plan", tmp_path / "plan.json", running.process.pid],
    ):
        status, report = verify(*args)
        assert (status, kinds_in(report)) == (0, [])
        assert [p["pid"] for p in report["processes"]] == running.pids
        assert [p["rank"] for p in report["processes"]] == [0, 1]
        assert sum(report["processes"][0]["memory"]["bytes"].values()) >= 16 << 20
        assert any("libgomp" in r for r in report["processes"][0]["runtimes"])
        assert [p["allocators"] for p in report["processes"]] == [["libjemalloc.so.2"]] * 2
        if Path("/proc/self/smaps_rollup").exists():
            pages = report["processes"][0]["huge_pages"]
            assert sorted(pages) == ["reserved", "transparent"]
            assert all(size >= 0 for size in pages.values())
    running.end()


def test_every_thread_is_told(start: Starter, gomp: list[str]) -> None:
    """Its allowed cpus, the cpu it last ran on, its place, and that it is OpenMP's."""
    cpus = need_cpus(2)
    running = start("--numa-bind-cpus", f"{cpus[0]},{cpus[1]}", "--", *gomp)
    _, report = verify(running.pids[0])
    threads = report["processes"][0]["threads"]
    assert [t["tid"] for t in threads] == running.tids()
    assert [(t["cpus"], t["place"], t["openmp"]) for t in threads] == [
        (str(cpu), n, True) for n, cpu in enumerate(cpus)
    ]
    assert [t["last_cpu"] for t in threads] == cpus


def test_a_thread_that_wandered_is_found(start: Starter, gomp: list[str]) -> None:
    """One whose mask was widened by taskset, with the command that sets it back."""
    cpus = need_cpus(2)
    both = f"{cpus[0]},{cpus[1]}"
    running = start("--numa-bind-cpus", both, "--", *gomp)
    tid = running.tids()[1]
    taskset("-p", "-c", both, str(tid))
    status, report = verify(running.pids[0])
    assert (status, kinds_in(report)) == (1, ["wandered"])
    difference = report["processes"][0]["differences"][0]
    assert difference["threads"] == [tid]
    assert difference["remedy"].endswith("or ompbind verify --repair")
    assert ompbind_run("verify", "--repair", str(running.pids[0])).returncode == 0
    assert verify(running.pids[0])[0] == 0


def test_masks_that_were_changed_are_found(start: Starter, gomp: list[str]) -> None:
    """All threads of a rank of one cpu, moved to another."""
    cpus = need_cpus(2)
    running = start("--numa-bind-cpus", str(cpus[0]), "--", *gomp)
    taskset("-a", "-p", "-c", str(cpus[1]), str(running.pids[0]))
    status, report = verify(running.pids[0])
    assert (status, kinds_in(report)) == (1, ["changed"])
    assert f"the plan says {cpus[0]}" in report["processes"][0]["differences"][0]["text"]


def test_a_main_thread_that_is_caught_is_found(start: Starter) -> None:
    """Threads and a process started from a main thread that sits on one cpu, as after the import of
    a library with OpenMP."""
    cpus = need_cpus(2)
    code = f"""os.sched_setaffinity(0, [{cpus[0]}])
for _ in range(3):
    threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
child = os.fork()
if child == 0:
    os.execv('/bin/cat', ['cat'])
"""
    code += "import atexit\natexit.register(os.waitpid, child, 0)"
    running = start(
        "--numa-bind-cpus", f"{cpus[0]},{cpus[1]}", "--places", "cores", "--", *python_worker(code)
    )
    status, report = verify(running.pids[0])
    assert (status, kinds_in(report)) == (1, ["caught", "caught"])
    rank, child = report["processes"]
    assert rank["differences"][0]["threads"] == running.tids()
    assert (child["started_by"], child["name"]) == (rank["pid"], "cat")


def test_threads_of_other_libraries_are_fine(start: Starter) -> None:
    """A pool that is not OpenMP's, inside the rank's cpus, is told and no difference."""
    need_cpus(2)
    code = "for _ in range(5):\n"
    code += "    threading.Thread(target=time.sleep, args=(60,), daemon=True).start()"
    running = start("--places", "cores", "--", *python_worker(code))
    status, report = verify(running.pids[0])
    assert (status, kinds_in(report)) == (0, [])
    notes = report["processes"][0]["notes"]
    assert any("OpenMP's threads cannot be identified" in n for n in notes)


def test_a_policy_that_the_worker_changed_is_found(start: Starter) -> None:
    """A worker that sets its memory policy back is not as planned."""
    code = "import ctypes, platform\n"
    code += "number = {'x86_64': 238, 'aarch64': 237}[platform.machine()]\n"
    code += "ctypes.CDLL(None).syscall(number, 0, None, 0)"
    if not Path("/proc/self/numa_maps").exists():
        unavailable("this kernel has no NUMA")
    running = start("--mem", "local", "--", *python_worker(code))
    status, report = verify(running.pids[0])
    assert (status, kinds_in(report)) == (1, ["policy"])
    assert "is default; the plan says local" in report["processes"][0]["differences"][0]["text"]


@pytest.fixture
def cpuset_group() -> Iterator[Path]:
    """A cgroup with a cpuset of its own, empty of processes; skips where none can be made."""
    groups = (Path("/sys/fs/cgroup/cpuset"), Path("/sys/fs/cgroup"))
    top = next((g for g in groups if (g / "cpuset.cpus").exists()
                or (g / "cpuset.cpus.effective").exists()), None)  # fmt: skip
    if top is None or os.geteuid() != 0:
        pytest.skip("no cgroup with a cpuset can be made here")
    group = top / f"ompbind-test-{os.getpid()}"
    try:
        group.mkdir()
        if (group / "cpuset.mems").exists() and (top / "cpuset.mems").exists():
            (group / "cpuset.mems").write_text((top / "cpuset.mems").read_text())
        if not (group / "cpuset.cpus").exists():
            pytest.skip("the cgroup has no cpuset")
        (group / "cpuset.cpus").write_text(",".join(map(str, need_cpus(2))))
    except OSError as e:
        if group.exists():
            group.rmdir()
        pytest.skip(f"no cgroup with a cpuset can be made here: {e}")
    yield group
    for pid in (group / "cgroup.procs").read_text().split():
        (top / "cgroup.procs").write_text(pid)
    group.rmdir()


def test_a_cgroup_that_shrank_is_found(start: Starter, gomp: list[str], cpuset_group: Path) -> None:
    """When the cpuset loses a cpu of the plan, that is named as the cause."""
    cpus = need_cpus(2)
    enter = f'echo $$ >{cpuset_group}/cgroup.procs && exec "$@"'
    running = start("--", *gomp, under=["bash", "-c", enter, "enter"])
    assert verify(running.pids[0])[0] == 0
    (cpuset_group / "cpuset.cpus").write_text(str(cpus[0]))
    status, report = verify(running.pids[0])
    assert status == 1
    assert kinds_in(report)[0] == "cgroup"
    assert (
        f"no longer allows cpu {cpus[1]} of the plan"
        in report["processes"][0]["differences"][0]["text"]
    )
    running.end()


def test_a_process_that_has_ended_is_told(start: Starter, tmp_path: Path) -> None:
    """A zombie is a worker no more; no such process is bad input."""
    child = subprocess.Popen(["true"])
    while Path(f"/proc/{child.pid}/stat").read_text().split()[2] != "Z":
        time.sleep(0.01)
    status, report = verify(child.pid)
    assert (status, kinds_in(report)) == (1, ["ended"])
    child.wait()
    done = ompbind_run("verify", str(child.pid))
    assert (done.returncode, done.stderr) == (
        125, error(f"no process has the pid {child.pid}", "give pids of running workers"),
    )  # fmt: skip


def test_what_is_no_worker_is_refused() -> None:
    """Without a plan there is nothing that it could be compared with."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE,
                               stderr=subprocess.DEVNULL, env=environment())  # fmt: skip
    try:
        done = ompbind_run("verify", str(process.pid))
    finally:
        process.communicate()
    assert done.returncode == 125
    assert done.stderr.startswith(f"ompbind: error: pid {process.pid} (")
    assert "is not a worker of ompbind" in done.stderr
    assert done.stderr.endswith("hint: --plan FILE gives the plan to compare it with\n")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ("", "no pid to verify"),
        ("x", "'x' is not a pid"),
        ("-1", "'-1' is not a pid"),
        ("1 --frob", "'--frob' is not an option"),
        ("--watch=x 1", "--watch: 'x' is not a number of seconds"),
        ("--watch=0 1", "--watch: '0' is too often"),
        ("--plan /nonexistent 1", "--plan '/nonexistent': No such file or directory"),
        ("99999999999999999999", "'99999999999999999999' is not a pid"),
    ],
)
def test_bad_input_is_refused(args: str, message: str) -> None:
    """In a line of the contract, with 125."""
    done = ompbind_run("verify", *args.split())
    assert done.returncode == 125
    assert done.stderr.startswith(f"ompbind: error: {message}")
    assert done.stdout == ""


def test_more_pids_than_ranks_are_refused(tmp_path: Path) -> None:
    """A plan of one rank has nothing to say of a second process."""
    plan = ompbind_run("show", "-n", "1", "--format", "json")
    (tmp_path / "plan.json").write_text(plan.stdout)
    others = [subprocess.Popen(["sleep", "60"]) for _ in range(2)]
    pids = [str(p.pid) for p in others]
    done = ompbind_run("verify", "--plan", str(tmp_path / "plan.json"), *pids)
    for process in others:
        process.kill()
        process.wait()
    assert done.returncode == 125
    assert f"--plan has 1 ranks; pid {pids[1]} would be rank 1" in done.stderr


def test_other_users_processes_are_told_from_what_can_be_seen(
    start: Starter, gomp: list[str], tmp_path: Path
) -> None:
    """Without its environment, the plan's file still lets the masks be judged; the memory is said
    to be out of sight."""
    if os.geteuid() != 0:
        unavailable("to become another user takes root")
    plan = ompbind_run("show", "--mem", "local", "--format", "json")
    file = tmp_path / "plan.json"
    file.write_text(plan.stdout)
    running = start("--mem", "local", "--", *gomp)
    as_nobody = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"]
    tmp_path.chmod(0o755)
    probe = subprocess.run([*as_nobody, sys.executable, "-c", f"open({str(file)!r})"],
                           capture_output=True)  # fmt: skip
    hidden = probe.returncode != 0
    given = [] if hidden else ["--plan", str(file)]
    done = ompbind_run("verify", "--format", "json", *given, str(running.pids[0]), under=as_nobody)
    if done.returncode not in (0, 1):
        unavailable(f"another user cannot start this ompbind: {done.stderr}")
    report = json.loads(done.stdout)
    assert kinds_in(report) == ["unseen"]
    assert done.returncode == 1
    threads = report["processes"][0]["threads"]
    assert [t["tid"] for t in threads] == running.tids()
    assert {u["what"] for u in report["processes"][0]["unseen"]} == {"environment", "memory"}


def test_the_table_says_what_is_wrong(start: Starter, gomp: list[str]) -> None:
    """For people: the threads, the verdict, the cause and the remedy."""
    cpus = need_cpus(2)
    running = start("--", *gomp)
    done = ompbind_run("verify", str(running.pids[0]))
    assert done.returncode == 0
    assert "as planned: 1 process" in done.stdout
    taskset("-p", "-c", f"{cpus[0]},{cpus[1]}", str(running.tids()[1]))
    done = ompbind_run("verify", str(running.pids[0]))
    assert done.returncode == 1
    assert re.search(r"^not as planned: 1 difference in 1 process", done.stdout, re.M)
    assert "  likely: " in done.stdout
    assert "  remedy: " in done.stdout
    assert "\x1b" not in done.stdout


def test_one_cause_is_said_once(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process without all of the plan's variables has a difference for each, and one remedy."""
    monkeypatch.setenv("COLUMNS", "200")  # each a line
    running = subprocess.Popen(["sleep", "100"], env=environment())
    try:
        assert main(["show", "--format", "json", "--", "sleep", "100"]) == 0
        file = tmp_path / "plan.json"
        file.write_text(capfd.readouterr().out)
        assert main(["verify", "--plan", str(file), str(running.pid)]) == 1
    finally:
        running.kill()
        running.wait()
    lines = capfd.readouterr().out.splitlines()
    missing = [n for n, line in enumerate(lines) if "is not set in its environment" in line]
    assert len(missing) == 3
    assert missing == list(range(missing[0], missing[0] + 3))
    assert lines[missing[-1] + 1].startswith("  likely: ")
    assert lines[missing[-1] + 2].startswith("  remedy: ")


def test_watching_goes_on_until_interrupted(start: Starter, gomp: list[str]) -> None:
    """A report a line, each as things are then; the status is that of the last."""
    cpus = need_cpus(2)
    running = start("--", *gomp)
    command = [OMPBIND, "verify", "--watch=0.1", "--format", "json", str(running.pids[0])]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment(), text=True) as watch:
        assert watch.stdout is not None
        report = json.loads(watch.stdout.readline())
        assert report["holds"]
        assert datetime.fromisoformat(report["time"][:19])  # with a zone, which it is local to
        taskset("-p", "-c", f"{cpus[0]},{cpus[1]}", str(running.tids()[1]))
        while json.loads(watch.stdout.readline())["holds"]:
            pass
        watch.send_signal(signal.SIGINT)
        assert watch.wait(TIMEOUT) == 1


def test_watching_ends_with_its_processes(start: Starter, gomp: list[str]) -> None:
    """When all have ended there is no more to see; the status is that of when there was."""
    running = start("--", *gomp)
    command = [OMPBIND, "verify", "--watch=0.1", str(running.pids[0])]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment(), text=True) as watch:
        assert watch.stdout is not None
        assert re.fullmatch(r"at \d\d:\d\d:\d\d\n", watch.stdout.readline())
        assert watch.stdout.readline() == "\n"
        assert watch.stdout.readline().startswith("rank 0, pid ")
        running.end()
        watch.stdout.read()
        assert watch.wait(TIMEOUT) == 0


# --- run --verify ---------------------------------------------------------------------------------


@pytest.mark.parametrize("ranks", [1, 2])
def test_run_verifies_its_ranks(ranks: int, where: Callable[[str], str]) -> None:
    """Once their threads are there, however late, a line says that all is as planned; the status
    stays the worker's."""
    need_cpus(2)
    script = 'sleep 0.7; "$0" --wait; exit 3'
    command = [OMPBIND, "run", "-n", str(ranks), "--verify=30", "--on-failure", "keep", "--stdin",
               "all", "--", "sh", "-c", script, where("libgomp")]  # fmt: skip
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        env=environment(), text=True,
    ) as process:  # fmt: skip
        assert process.stderr is not None
        line = process.stderr.readline()
        while line.startswith("ompbind: warning: the cgroup's quota"):
            line = process.stderr.readline()
        process.communicate()
    assert line.startswith("ompbind: note: as planned: ")
    assert "not all threads" not in line
    assert process.returncode == 3


def misbound(cpu: int) -> list[str]:
    """A worker that narrows its own mask and would then sleep for long."""
    code = f"import os, time; os.sched_setaffinity(0, [{cpu}]); time.sleep(float(os.argv[1]))"
    code = code.replace("os.argv", "__import__('sys').argv")
    return [sys.executable, "-I", "-S", "-c", code]


def test_run_warns_of_ranks_that_are_not_as_planned() -> None:
    """A worker that binds itself elsewhere is told, with what is likely behind it; it goes on."""
    cpu = need_cpus(2)[1]
    done = ompbind_run("run", "--places", "one", "--verify=0.5", "--", *misbound(cpu), "1.5")
    assert done.returncode == 0
    words = rf"the main thread may run only on cpu {cpu} of .*; likely: the mask was changed after"
    assert re.search(rf"^ompbind: warning: rank 0, pid \d+: {words}", done.stderr, re.M)


def test_run_ends_ranks_that_are_not_as_planned_if_strict() -> None:
    """With --verify-strict such ranks are ended, and the status is ompbind's own."""
    cpu = need_cpus(2)[1]
    args = ["--places", "one", "--verify=0.5", "--verify-strict"]
    done = ompbind_run("run", *args, "--", *misbound(cpu), "600")
    assert done.returncode == 125
    found = re.search(r"^ompbind: error: rank 0, pid (\d+): the main thread may run only on cpu",
                      done.stderr, re.M)  # fmt: skip
    assert found
    assert not alive(int(found[1]))
    assert re.search(r"^hint: restart it", done.stderr, re.M)


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_worker_that_exits_early_is_judged_by_what_was_seen(ranks: int) -> None:
    """Never in silence: it was as planned so far, or nothing was seen of it; with --verify-strict
    both are errors, so that the status does not depend on which it was."""
    need_cpus(2)
    args = ["-n", str(ranks), "--threads", "2", "--oversubscribe"]
    done = ompbind_run("run", *args, "--verify=60", "--", "sleep", "2")
    assert done.returncode == 0
    assert re.search(
        r"^ompbind: note: verified in part: ranks? \S+ exited after \d", done.stderr, re.M
    )
    done = ompbind_run("run", *args, "--verify", "--", "true")
    assert done.returncode == 0
    assert re.search(r"^ompbind: note: (not verified|verified in part): rank", done.stderr, re.M)
    done = ompbind_run("run", *args, "--verify-strict", "--", "true")
    assert done.returncode == 125
    assert re.search(r"^ompbind: error: (not verified|verified in part): rank", done.stderr, re.M)


def test_a_worker_that_exits_misbound_is_not_passed() -> None:
    """It exited before its threads were there, but its mask had been seen."""
    cpu = need_cpus(2)[1]
    args = ["--places", "one", "--threads", "2"]
    done = ompbind_run("run", *args, "--verify=60", "--", *misbound(cpu), "4")
    assert done.returncode == 0
    assert re.search(rf"^ompbind: warning: rank 0, .* may run only on cpu {cpu}", done.stderr, re.M)
    done = ompbind_run("run", *args, "--verify=60", "--verify-strict", "--", *misbound(cpu), "4")
    assert done.returncode == 125
    assert re.search(rf"^ompbind: error: rank 0, .* may run only on cpu {cpu}", done.stderr, re.M)


def test_a_worker_that_fails_early_keeps_its_status() -> None:
    """It comes before that of what could not be verified."""
    done = ompbind_run("run", "--verify", "--verify-strict", "--", "sh", "-c", "exit 5")
    assert done.returncode == 5
    assert "verified" in done.stderr


def test_looking_waits_for_the_threads() -> None:
    """The look is late enough for threads that come one after another, and not later than asked."""
    from ompbind.plan_json import parse_plan
    from ompbind.verify.after_start import LATER, Verifier

    done = ompbind_run("show", "--threads", "3", "--format", "json", "--", "true")
    plan = parse_plan(done.stdout)
    now, said = [0.0], []
    prover = Verifier(DirectoryRoot("/"), within=1.0,
                    strict=False, clock=lambda: now[0])  # fmt: skip
    child = subprocess.Popen(["sleep", "60"])
    try:
        os.sched_setaffinity(child.pid, plan.ranks[0].cpus)
        waits = []
        while (
            wait := prover(plan, {0: child.pid}, {}, lambda kind, _: said.append(kind))
        ) is not None:
            waits.append(wait)
            now[0] += wait
    finally:
        child.kill()
        child.wait()
    assert sum(waits) == pytest.approx(1.0 + sum(LATER))
    assert said
    assert (
        Verifier(DirectoryRoot("/"), within=1, strict=True)(plan, {}, {}, lambda *_: None) is None
    )


MANY = r"""
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
static void *wait_here(void *nothing) { pause(); return nothing; }
int main(int argc, char **argv) {
    pthread_attr_t small;
    pthread_attr_init(&small);
    pthread_attr_setstacksize(&small, 65536);
    for (int i = 1; i < atoi(argv[1]); i++) {
        pthread_t thread;
        if (pthread_create(&thread, &small, wait_here, NULL)) return 1;
    }
    printf("rank 0 pid %d\nready\n", (int)getpid());
    fflush(stdout);
    getchar();
    return 0;
}
"""


def test_ten_thousand_threads_are_looked_at(start: Starter, tmp_path: Path) -> None:
    """All of them, in a time that is measured in seconds even on a slow machine."""
    source, program = tmp_path / "many.c", tmp_path / "many"
    source.write_text(MANY)
    try:
        subprocess.run(["gcc", "-O2", "-pthread", "-o", program, source], check=True)
    except FileNotFoundError:
        unavailable("there is no gcc")
    running = start("--places", "one", "--", str(program), "10000")
    before = time.monotonic()
    status, report = verify(running.pids[0])
    assert time.monotonic() - before < 30
    assert status == 0
    assert len(report["processes"][0]["threads"]) == 10000
    done = ompbind_run("verify", str(running.pids[0]))
    assert len(done.stdout.splitlines()) < 40


def taskset(*args: str) -> None:
    subprocess.run(["taskset", *args], check=True, capture_output=True)
