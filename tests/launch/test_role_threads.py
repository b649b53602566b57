"""Threads that belong to a role by their names: what is asked for, who puts them there, and what
verify says of them."""

from __future__ import annotations

import errno
import json
import os
import re
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ompbind.cli import main
from ompbind.cli.run import settle_supervision
from ompbind.cpuset import CpuSet
from ompbind.errors import OmpbindError, UsageError
from ompbind.exports import make_export
from ompbind.launch import popen, role_threads
from ompbind.launch.rank import Settings
from ompbind.launch.role_threads import GROWTH, LONGEST, SHORTEST, RoleThreads
from ompbind.machine import living_root
from ompbind.machine.processes import Process, Thread
from ompbind.machine.roots import DirectoryRoot
from ompbind.options.values import parse_roles
from ompbind.plan_json import parse_plan
from ompbind.planner import make_plan
from ompbind.plans import Role, is_called
from ompbind.rebind.repair import find_named
from ompbind.saved import check_agreement
from ompbind.verify.expected import Expected, NamedThreads, expect_environ
from ompbind.verify.judge import judge
from ompbind.verify.observation import observe
from ompbind.verify.threads import Occupancy
from tests.support.commands import OMPBIND, environment
from tests.support.machines import MACHINES, make_asked
from tests.support.needs import need_cpus
from tests.support.observe import mask_of
from tests.support.processes import Processes

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="threads are bound on Linux")
ONLINE = CpuSet(range(8))

# A worker whose threads get their names late; it says so when they have the masks they wait for.
WORKER = r"""
import ctypes, os, subprocess, sys, threading, time
library = ctypes.CDLL(None)
role = {int(os.environ["OMPBIND_ROLE_IO"])}
def act(name):
    library.prctl(15, name, 0, 0, 0)
    while name.startswith(b"pt_") and os.sched_getaffinity(0) != role:
        time.sleep(0.02)
    done.release()
    stay.wait()
done, stay = threading.Semaphore(0), threading.Event()
names = [b"pt_data_worker", b"other"]
for name in names:
    threading.Thread(target=act, args=(name,), daemon=True).start()
if len(sys.argv) == 1:
    with subprocess.Popen([sys.executable, "-I", "-S", __file__, "child"], stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE, text=True) as child:
        for name in names:
            done.acquire()
        child.stdout.readline()
        print("ready", os.getpid(), flush=True)
        sys.stdin.read()
else:
    for name in names:
        done.acquire()
    print("ready", flush=True)
    sys.stdin.read()
"""


def test_threads_are_put_on_the_cpus_of_their_role(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Of a single rank, which is supervised for that, and of a process that it has started; others
    stay, and verify finds all as planned."""
    need_cpus(2)
    script = tmp_path / "worker.py"
    script.write_text(WORKER)
    with subprocess.Popen(
        [OMPBIND, "run", "--role", "io=1:pt_data*,nccl*", "--places", "one", "--",
         sys.executable, "-I", "-S", str(script)],
        env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        word, number = process.stdout.readline().split()
        assert word == "ready"
        pid = int(number)
        assert pid != process.pid
        (child,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        environ = dict(
            v.partition("=")[::2] for v in Path(f"/proc/{pid}/environ").read_text().split("\0")
        )
        role, cpus = (CpuSet.parse_kernel(environ[n]) for n in ("OMPBIND_ROLE_IO", "OMPBIND_CPUS"))
        assert environ["OMPBIND_THREADS_IO"] == "pt_data*,nccl*"
        for member in (str(pid), child):
            masks = {}
            for task in Path("/proc", member, "task").iterdir():
                masks[(task / "comm").read_text().strip()] = CpuSet(mask_of(task))
            assert masks.pop("pt_data_worker") == role
            assert set(masks.values()) == {cpus}
        assert main(["verify", str(pid), "--format", "json"]) == 0
        report = json.loads(capfd.readouterr().out)
        assert len(report["processes"]) == 2
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(60) == 0


# --- what is asked for --------------------------------------------------------------------------


def test_names_follow_the_number_of_cores() -> None:
    """Also of several roles in one text, and of each rank; from Python, too."""
    pools = parse_roles(["io=2:pt_data*,nccl*,kv=1/rank,x=1:a"], "--role")
    assert [(p.name, p.cores, p.per_rank, p.threads) for p in pools] == [
        ("io", 2, False, ("pt_data*", "nccl*")), ("kv", 1, True, ()), ("x", 1, False, ("a",)),
    ]  # fmt: skip
    (pool,) = parse_roles([("io", "1/rank:a,b")], "role")
    assert (pool.cores, pool.per_rank, pool.threads) == (1, True, ("a", "b"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("io=2:", "--role io: '' is not a list of names of threads"),
        ("io=2:a,,b", "--role io: 'a,,b' is not a list of names of threads"),
        ("io=2:a_name_of_twenty_so", "--role io: no thread is called 'a_name_of_twenty_so'"),
        ("io=x:a", "--role io: 'x' is not a whole number from 1"),
        ("io=0:a", "--role io: '0' is not a whole number from 1"),
        ("io=1:a,io=1:b", "--role: io is named twice"),
        ("io=1,a", "--role: 'a' is not NAME=N"),
    ],
)
def test_bad_names_are_refused(text: str, message: str) -> None:
    """In a line that names the role and what was given."""
    with pytest.raises(UsageError, match=f"^{re.escape(message)}"):
        parse_roles([text], "--role")


@given(st.text(max_size=20))
def test_any_text_is_roles_or_refused(text: str) -> None:
    """Never anything else."""
    try:
        pools = parse_roles([f"io=1:{text}"], "--role")
    except UsageError:
        return
    assert pools[0].name == "io"
    assert all(pools[0].threads)


@pytest.mark.parametrize(
    ("name", "called"),
    [("pt_data_worker", True), ("pt_pin", False), ("nccl", True), ("Nccl", False), ("", False)],
)
def test_names_are_compared_as_in_a_shell(name: str, called: bool) -> None:
    """With upper and lower case told apart."""
    assert is_called(name, ["pt_data*", "ncc?"]) == called


ASKED = ["-n", "2", "--role", "io=2:pt_*", "--role", "kv=1"]


def test_a_plan_has_the_names() -> None:
    """In its JSON, which is read back, and in the variables of its ranks; variables that say
    something else are refused."""
    plan = make_plan(MACHINES["server"], make_asked(ASKED))
    assert [(r.name, r.threads) for r in plan.roles] == [("io", ("pt_*",)), ("kv", ())]
    assert plan.names_threads
    for rank in plan.ranks:
        env = dict(rank.env)
        assert env["OMPBIND_THREADS_IO"] == "pt_*"
        assert "OMPBIND_THREADS_KV" not in env
    assert parse_plan(plan.to_json()).roles == plan.roles
    data = plan.to_dict()
    data["ranks"][0]["env"]["OMPBIND_THREADS_IO"] = "x"
    with pytest.raises(OmpbindError, match="env has OMPBIND_THREADS_IO='x', the role has pt_"):
        check_agreement(parse_plan(json.dumps(data)))


def test_where_nobody_watches_names_are_refused() -> None:
    """A rank that replaces ompbind, or is started from Python, has no supervisor; other tools know
    nothing of names."""
    plan = make_plan(MACHINES["server"], make_asked(["-n", "1", "--role", "io=2:pt_*"]))
    with pytest.raises(UsageError, match="--no-supervise leaves nobody who puts threads"):
        settle_supervision(Settings(supervise=False), {}, plan)
    with pytest.raises(UsageError, match="nobody watches a rank that is started so"):
        popen.start_rank(plan, plan.ranks[0], ["true"], {})
    _, warning, _ = make_export("taskset", plan, None, lambda name: name)
    assert "the threads of role io, which ompbind run binds" in warning


# --- who puts them there ------------------------------------------------------------------------


@pytest.fixture
def looking() -> Any:
    """A thread of this process, what renames it, and what says where it may run."""
    go, stay = threading.Event(), threading.Event()

    def wait() -> None:
        go.set()
        stay.wait()

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    go.wait()
    yield thread.native_id
    stay.set()
    thread.join()


def rename(tid: int, name: str) -> None:
    Path(f"/proc/self/task/{tid}/comm").write_text(name)


def test_a_thread_is_bound_once(looking: int) -> None:
    """When it gets its name; then the program has the last word. The looks get rarer, until there
    is something new."""
    first, second = need_cpus(2)
    said: list[str] = []
    role = Role("io", CpuSet([second]), CpuSet([0]), ("pt_*",))
    watch = RoleThreads(living_root(), [role], lambda kind, text: said.append(text))
    pids = {0: os.getpid()}
    before = os.sched_getaffinity(looking)
    assert [(watch.look(pids), watch.pause)[1] for _ in range(3)] == pytest.approx(
        [0.15, 0.225, 0.3375]
    )
    assert os.sched_getaffinity(looking) == before
    rename(looking, "pt_worker")
    watch.look(pids)
    assert watch.pause == SHORTEST
    assert os.sched_getaffinity(looking) == {second}
    os.sched_setaffinity(looking, {first})
    watch.look(pids)
    assert os.sched_getaffinity(looking) == {first}
    rename(looking, "pt_another")
    watch.look(pids)
    assert os.sched_getaffinity(looking) == {second}
    assert watch.look({}) >= SHORTEST
    for _ in range(20):
        watch.look({})
    assert watch.pause == LONGEST == 5.0
    assert not said


def test_what_cannot_be_bound_is_said_once(looking: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A warning for the first thread of a name, not for all."""

    def deny(cpus: CpuSet, tid: int) -> None:
        raise OSError(22, "Invalid argument")

    monkeypatch.setattr(role_threads, "set_affinity", deny)
    (cpu, _) = need_cpus(2)
    said: list[tuple[str, str]] = []
    role = Role("io", CpuSet([cpu]), CpuSet([0]), ("pt_*",))
    watch = RoleThreads(living_root(), [role], lambda kind, text: said.append((kind, text)))
    rename(looking, "pt_worker")
    watch.look({0: os.getpid()})
    watch.names = {}
    watch.look({0: os.getpid()})
    text = f"thread {looking} (pt_worker) cannot be put on cpu {cpu} of role io: Invalid argument"
    assert said == [("warning", text)]


class ShortRoot(DirectoryRoot):
    """The machine, where descriptors can run out: for the paths that begin so."""

    missing = "none"

    def names(self, path: str) -> list[str]:
        if path.startswith(self.missing):
            raise OSError(errno.EMFILE, "Too many open files")
        return super().names(path)

    def read_whole(self, path: str) -> bytes:
        if path.startswith(self.missing):
            raise OSError(errno.EMFILE, "Too many open files")
        return super().read_whole(path)


def test_a_look_that_fails_is_tried_again_later(looking: int) -> None:
    """Without descriptors the ranks run on, and a thread that was bound is not bound again."""
    first, second = need_cpus(2)
    root = ShortRoot("/")
    role = Role("io", CpuSet([second]), CpuSet([0]), ("pt_*",))
    watch = RoleThreads(root, [role], print)
    pids = {0: os.getpid()}
    rename(looking, "pt_worker")
    root.missing = "proc"
    assert watch.look(pids) == LONGEST
    root.missing = "none"
    watch.look(pids)
    assert os.sched_getaffinity(looking) == {second}
    os.sched_setaffinity(looking, {first})
    for missing in ("proc", f"proc/{os.getpid()}/task/{looking}/", "none"):
        root.missing = missing
        watch.look(pids)
    assert os.sched_getaffinity(looking) == {first}


class Threads:
    """Made-up threads of ranks' processes, by their numbers: their names, their masks, and what
    becomes of those that are to be bound."""

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch, *roles: Role) -> None:
        self.processes = Processes(path)
        self.masks: dict[int, CpuSet] = {}
        self.bound: list[tuple[int, CpuSet]] = []
        self.errors: dict[int, OSError] = {}
        self.said: list[tuple[str, str]] = []
        monkeypatch.setattr(role_threads, "set_affinity", self.bind)
        monkeypatch.setattr(os, "sched_getaffinity", lambda tid: self.masks.get(tid, ONLINE))
        root = ShortRoot(str(path))
        self.root = root
        self.watch = RoleThreads(root, roles, lambda *said: self.said.append(said))

    def bind(self, cpus: CpuSet, tid: int) -> None:
        if tid in self.errors:
            raise self.errors[tid]
        self.bound.append((tid, cpus))

    def add(self, pid: int, *names: str | None, parent: int = 1) -> None:
        """Write a process and its threads; None: the thread has exited meanwhile."""
        self.processes.add(pid, parent, masks=("0-7",) * len(names))
        for tid, name in enumerate(names, pid):
            if name is not None:
                (self.processes.path / f"proc/{pid}/task/{tid}/comm").write_text(f"{name}\n")

    def look(self, **ranks: int) -> list[int]:
        """Return which threads are bound at this look; `ranks`: pids by rank, `r0=10`."""
        self.bound.clear()
        self.watch.look({int(name[1:]): pid for name, pid in ranks.items()})
        return [tid for tid, _ in self.bound]


IO = Role("io", CpuSet([6, 7]), CpuSet([0]), ("pt_*",))
KV = Role("kv", CpuSet([5]), CpuSet([0, 1]), ("kv", "pt_kv"))
PLAIN = Role("x", CpuSet([4]), CpuSet([0, 1]))


def test_threads_of_several_roles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each gets the cpus of the first that its name belongs to, among those of its rank, also in a
    process that the rank has started; one that exits meanwhile, or is called otherwise, none."""
    threads = Threads(tmp_path, monkeypatch, IO, KV, PLAIN)
    threads.add(10, "w", "pt_a", None, "pt_kv", "kv")
    threads.add(20, "pt_b", "kv", parent=10)
    threads.add(30, "pt_a", "kv")
    assert threads.look(r0=10, r1=30) == [11, 13, 14, 20, 21, 31]
    assert dict(threads.bound) == {11: IO.cpus, 13: IO.cpus, 14: KV.cpus, 20: IO.cpus,
                                   21: KV.cpus, 31: KV.cpus}  # fmt: skip
    assert threads.watch.pause == SHORTEST
    assert threads.look(r0=10, r1=30, r2=40) == []
    assert threads.watch.pause == SHORTEST * GROWTH
    assert threads.said == []


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (None, []),
        (ProcessLookupError(3, "No such process"), []),
        (OSError(22, "Invalid argument"), ["Invalid argument"]),
        (OSError("odd"), ["odd"]),
    ],
)
def test_threads_that_are_not_bound(
    error: OSError | None, said: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that is on a part of the role's cpus already, has exited, or cannot be bound: nothing is
    new then, so that the looks get rarer."""
    threads = Threads(tmp_path, monkeypatch, IO)
    threads.add(10, "w", "pt_a")
    if error is None:
        threads.masks[11] = CpuSet([6])
    else:
        threads.errors[11] = error
    assert threads.look(r0=10) == []
    assert threads.watch.pause == SHORTEST * GROWTH
    texts = [f"thread 11 (pt_a) cannot be put on cpus 6-7 of role io: {why}" for why in said]
    assert threads.said == [("warning", text) for text in texts]


def test_what_was_seen_before_a_look_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Is not new at the next one: who was bound has the last word by then."""
    threads = Threads(tmp_path, monkeypatch, IO, Role("io", CpuSet([5]), CpuSet([1]), ("pt_*",)))
    threads.add(10, "pt_a")
    threads.add(20, "pt_b")
    threads.root.missing = "proc/20/task"
    assert threads.look(r0=10, r1=20) == [10]
    assert threads.watch.pause == LONGEST
    threads.root.missing = "none"
    assert threads.look(r0=10, r1=20) == [20]


def test_looking_takes_little(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One part in a hundred of the time, of the thread that looks."""
    threads = Threads(tmp_path, monkeypatch, IO)
    times = iter([7.0, 7.2, 8.0, 8.0005])
    monkeypatch.setattr(role_threads, "time", SimpleNamespace(thread_time=lambda: next(times)))
    assert threads.watch.look({}) == pytest.approx(20.0)
    assert threads.watch.look({}) == pytest.approx(0.225)


# --- what verify says ---------------------------------------------------------------------------


def seen(threads: str, **more: Any) -> Process:
    made = []
    for n, text in enumerate(threads.split()):
        name, mask = text.split(":")
        made.append(Thread(9 + n, name, "S", CpuSet.parse_kernel(mask), 0))
    return Process(9, 1, 7, threads=tuple(made), environ=(), **more)


def expect(places: str = "") -> Expected:
    expected = expect_environ({
        "OMPBIND_RANK": "0", "OMPBIND_CPUS": "0-3", "OMPBIND_ROLE_IO": "6-7", "OMP_PLACES": places,
        "OMP_PROC_BIND": "close", "OMPBIND_ROLE_KV": "5", "OMPBIND_THREADS_IO": "pt_*,nccl*",
        "OMPBIND_THREADS_NONE": "x", "OMPBIND_THREADS_KV": "",
    })  # fmt: skip
    assert expected is not None
    return expected


def test_an_environment_has_the_names() -> None:
    """With the cpus of their role; names without a role, and roles without names, are nothing."""
    assert expect().named == (NamedThreads("io", ("pt_*", "nccl*"), CpuSet([6, 7])),)


@pytest.mark.parametrize(
    ("threads", "tids"),
    [
        ("w:0-3 pt_a:6-7 nccl:6", []),
        ("w:0-3 pt_a:0-3 pt_b:7 nccl:0-3", [10, 12]),
        ("w:0-3 x:6", []),
        ("w:0-3 pt_a:5", [10]),
    ],
)
def test_threads_are_judged_by_their_names(threads: str, tids: list[int]) -> None:
    """Those of a role belong on its cpus, and repair brings them there."""
    process = seen(threads)
    report = judge(process, expect(), ONLINE)
    assert [d.kind for d in report.differences] == ["role"] * bool(tids)
    assert [tid for d in report.differences for tid in d.threads] == tids
    assert find_named(report) == dict.fromkeys(tids, CpuSet([6, 7]))


def test_threads_of_roles_are_not_openmps() -> None:
    """One on the cpus of a role does not stand for a thread that has left its place."""
    process = seen("w:0 w:0-3 w:2 w:3 pt_a:6", libraries=("libgomp.so.1",))
    expected = expect("{0},{1},{2},{3}")
    assert Occupancy(observe(process, expected, ONLINE)).vacant == 1
    assert [d.kind for d in judge(process, expected, ONLINE).differences] == ["wandered"]
