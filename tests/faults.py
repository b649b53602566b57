"""Faults: every system call that ompbind makes fails once, and each time ompbind must either do
what it was asked or refuse in the contract's words, and leave nothing behind.

    python -m tests.faults [--sample N] [--jobs N] [--list] [SCENARIO]...

For each scenario, one run is listened to with strace: it tells which system calls the ompbind
process makes from the start of its `main` on, and which ones each child that it forks makes up to
its exec. Then the scenario runs once for each of these calls (`--sample N`: for N of them), with
strace making just that one fail. What is not covered: the interpreter's own start and the import of
`ompbind.cli`, where Python itself has the word; programs that ompbind executes (numactl, the
worker); system calls that have no error, or none for what ompbind passes (exit, getpid,
rt_sigaction…).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import mmap
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from ompbind.cpuset import CpuSet, union
from ompbind.verify.expected import read_places

LIMIT = 60  # seconds of one run
LEFT_LIMIT = 5  # seconds until what a run started must be gone

# The error for each call: of several in turn.
ERRNOS: dict[str, tuple[str, ...]] = {
    "openat": ("EMFILE", "EACCES", "ENOMEM", "EIO"),
    "open": ("EMFILE", "EACCES"),
    "read": ("EIO", "EINTR", "EACCES"),
    "pread64": ("EIO",),
    "write": ("EIO", "ENOSPC", "EPIPE", "EINTR"),
    "close": ("EIO", "EINTR"),
    "mmap": ("ENOMEM",),
    "munmap": ("ENOMEM",),
    "mremap": ("ENOMEM",),
    "mprotect": ("ENOMEM", "EACCES"),
    "brk": ("retval=0",),  # no break above the old one: the kernel's brk has no error numbers
    "clone": ("EAGAIN", "ENOMEM"),
    "clone3": ("EAGAIN", "ENOMEM", "ENOSYS"),
    "fork": ("EAGAIN", "ENOMEM"),
    "vfork": ("EAGAIN", "ENOMEM"),
    "execve": ("ENOMEM", "EACCES", "E2BIG", "ENOENT"),
    "pipe2": ("EMFILE", "ENFILE"),
    "poll": ("EINTR", "ENOMEM"),
    "ppoll": ("EINTR", "ENOMEM"),
    "wait4": ("EINTR",),
    "waitid": ("EINTR",),
    "sched_setaffinity": ("EPERM", "EINVAL", "ENOSYS"),
    "sched_getaffinity": ("EPERM", "EINVAL"),
    "set_mempolicy": ("EPERM", "ENOSYS", "EINVAL"),
    "get_mempolicy": ("EPERM", "ENOSYS"),
    "prctl": ("EINVAL", "EPERM"),
    "pidfd_open": ("EMFILE", "ENOSYS"),
    "signalfd4": ("EMFILE", "ENOMEM"),
    "dup": ("EMFILE",),
    "dup2": ("EMFILE",),
    "dup3": ("EMFILE",),
    "newfstatat": ("EACCES", "EIO", "ENOMEM"),
    "fstat": ("EIO",),
    "getdents64": ("EIO", "ENOMEM"),
    "readlink": ("EACCES", "EIO"),
    "socketpair": ("EMFILE",),
    "memfd_create": ("EMFILE",),
}
OTHERWISE = ("EIO", "ENOMEM", "EACCES")
# These have no error, or none that a program could do anything about.
SKIPPED = {"exit", "exit_group", "rt_sigreturn", "restart_syscall", "getpid", "getppid", "gettid",
           "getuid", "geteuid", "getgid", "getegid", "futex", "arch_prctl", "rseq",
           "set_robust_list", "set_tid_address", "kill", "tgkill", "rt_sigprocmask",
           "rt_sigaction"}  # fmt: skip

PIPE_WRITE = r"write\(\d+<pipe:"
# What Python writes in its signal handler: a process that reads from the pipe itself gets no error.
WAKEUP = PIPE_WRITE + r'\[\d+\]>, "\\21", 1\)'
WAKEUP_SAID = "Exception ignored when trying to write to the signal wakeup fd"

# Begins like the installed command; stops where `main` starts, and every forked child where it
# starts, until whoever listens has come. `kill` for that is not a call of ompbind's. A process that
# ompbind itself continues meanwhile stops again: its gate, a byte of a file in memory, is closed.
WRAPPER = r"""
import mmap, os, sys
from ompbind.cli import main
import _signal
with open(sys.argv.pop(2), "r+b") as file:
    gates = mmap.mmap(file.fileno(), 0)
def stop(what, fd=int(sys.argv.pop(1))):
    os.write(fd, b"%s %d\n" % (what, os.getpid()))
    while gates[os.getpid()] == 0:
        os.kill(os.getpid(), _signal.SIGSTOP)
    gates[os.getpid()] = 2
def fork(own=os.fork):
    pid = own()
    if pid == 0:
        stop(b"child")
    return pid
os.fork = fork
stop(b"main")
sys.exit(main(sys.argv[1:]))
"""

# Tells where it was bound, as the kernel has it.
WORKER = '{ echo "$OMP_PLACES"; cat /proc/$$/status /proc/$$/numa_maps; } '
WORKER += '>"$0.$OMPBIND_RANK.part" 2>/dev/null; '
WORKER += 'mv "$0.$OMPBIND_RANK.part" "$0.$OMPBIND_RANK"'


class Scenario(NamedTuple):
    """A command line; {folder}, {plan} and {pid} are filled in. `ranks`: how many workers it
    starts; `then`: what they do after they have told where they are."""

    args: str
    ranks: int = 0
    then: str = ""


SCENARIOS = {
    "run native": Scenario("run --binder native --numa-bind-nodes 0", 1),
    "run numactl": Scenario("run --binder numactl --numa-bind-nodes 0", 1),
    "run 2 native": Scenario("run --binder native --numa-bind-nodes 0 0", 2),
    "run 2 numactl": Scenario("run --binder numactl --numa-bind-nodes 0 0", 2),
    "run plan": Scenario("run --plan {plan}", 2),
    "run verify": Scenario("run --verify=0.3 --places one --numa-bind-nodes 0", 1, "; sleep 0.5"),
    "show": Scenario("show -n 2 --numa-bind"),
    "show json": Scenario("show -n 2 --numa-bind --format json -- true"),
    "topo": Scenario("topo"),
    "topo json": Scenario("topo --format json"),
    "topo save": Scenario("topo --save {folder}/saved"),
    "verify": Scenario("verify {pid}"),
    "verify json": Scenario("verify --format json {pid}"),
    "rebind": Scenario("rebind {pid} --force --numa-bind-nodes 0"),
    "rebind json": Scenario("rebind {pid} --dry-run --force --numa-bind-nodes 0 --format json"),
    "doctor": Scenario("doctor"),
}


class Fault(NamedTuple):
    """The call `name` of a process (0: ompbind, 1…: its forked children in order) fails the n-th
    time."""

    scenario: str
    process: int
    name: str
    n: int
    errno: str

    def __str__(self) -> str:
        who = "ompbind" if self.process == 0 else f"child {self.process}"
        return f"{self.scenario}: {who}, {self.name} {self.n}: {self.errno}"


class Outcome(NamedTuple):
    status: int | None  # None: it hung
    out: str
    err: str
    reports: dict[int, str]
    left: list[str]
    logs: dict[int, str]
    saved: bool


class Place(NamedTuple):
    """What all runs share."""

    folder: Path
    plan: Path
    pid: int
    expected: dict[str, list[tuple[CpuSet, str]]]


def run(scenario: str, place: Place, fault: Fault | None) -> Outcome:
    """One run, listened to by strace: the processes that `fault` names, or all."""
    with tempfile.TemporaryDirectory(dir=place.folder) as text:
        folder = Path(text)
        words = SCENARIOS[scenario].args.format(folder=folder, plan=place.plan, pid=place.pid)
        command = words.split()
        if SCENARIOS[scenario].ranks:
            worker = WORKER + SCENARIOS[scenario].then
            command += ["--", "/bin/sh", "-c", worker, str(folder / "report")]
        ours, theirs = os.pipe()
        with (folder / "gates").open("wb") as file:
            file.truncate(int(Path("/proc/sys/kernel/pid_max").read_text()) + 1)
        with (
            open(folder / "out", "wb") as out,
            open(folder / "err", "wb") as err,
            subprocess.Popen(
                [sys.executable, "-c", WRAPPER, str(theirs), str(folder / "gates"), *command],
                stdin=subprocess.DEVNULL, stdout=out, stderr=err, pass_fds=[theirs],
                start_new_session=True, env=make_environment(),
            ) as process,
        ):  # fmt: skip
            os.close(theirs)
            listener = threading.Thread(target=listen, args=(ours, folder, fault))
            listener.start()
            status: int | None
            try:
                status = process.wait(LIMIT)
            except subprocess.TimeoutExpired:
                status = None
            left = [] if status is None else find_left(process.pid)
            end_session(process.pid)
            process.wait()
        listener.join()
        reports = {
            int(path.suffix[1:]): path.read_text(errors="replace")
            for path in folder.glob("report.[0-9]")
        }
        logs = {int(p.suffix[1:]): p.read_text(errors="replace") for p in folder.glob("log.*")}
        return Outcome(status, (folder / "out").read_text(errors="replace"),
                       (folder / "err").read_text(errors="replace"), reports, left, logs,
                       (folder / "saved").exists())  # fmt: skip


def make_environment() -> dict[str, str]:
    steering = ("OMP_", "GOMP_", "KMP_", "OMPBIND_", "PYTHON", "FORCE_COLOR")
    env = {k: v for k, v in os.environ.items() if not k.startswith(steering)}
    return env | {"COLUMNS": "96", "NO_COLOR": "1", "PYTHONDONTWRITEBYTECODE": "1",
                  "OMPBIND_NEIGHBOURS": "no"}  # fmt: skip


def listen(fd: int, folder: Path, fault: Fault | None) -> None:
    """Lets every process that has stopped go on, after strace has come where it is wanted."""
    tracers = []
    with (
        open(fd, "rb") as stream,
        (folder / "gates").open("r+b") as file,
        mmap.mmap(file.fileno(), 0) as gates,
    ):
        for number, line in enumerate(iter(stream.readline, b"")):
            pid = int(line.split()[1])
            if wait_until_stopped(pid) and (fault is None or fault.process == number):
                tracers.append(attach(pid, folder / f"log.{number}", fault))
            release(pid, gates)
    for tracer in tracers:
        try:
            tracer.wait(LIMIT)
        except subprocess.TimeoutExpired:
            tracer.kill()
            tracer.wait()


def attach(pid: int, log: Path, fault: Fault | None) -> subprocess.Popen[bytes]:
    """strace, which stays until the process ends or executes another program."""
    what = ["-y", "-e", "trace=all"]
    if fault is not None:
        error = fault.errno if "=" in fault.errno else f"error={fault.errno}"
        rule = f"{fault.name}:{error}:when={fault.n}"
        what = ["-e", f"trace={fault.name}", "-e", f"inject={rule}"]
    tracer = subprocess.Popen(
        ["strace", "-q", "-b", "execve", "-o", str(log), *what, "-p", str(pid)],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        start_new_session=True,
    )  # fmt: skip
    while tracer.poll() is None and not re.search(r"^TracerPid:\s*[1-9]", status_of(pid), re.M):
        time.sleep(0.001)
    return tracer


def release(pid: int, gates: mmap.mmap) -> None:
    """Open a process's gate; it may be about to stop once more."""
    gates[pid] = 1
    while True:
        signal_process(pid, signal.SIGCONT)
        again = time.monotonic() + 0.25
        while time.monotonic() < again:
            if gates[pid] == 2 or has_exited(status_of(pid)):
                return
            time.sleep(0.001)


def has_exited(status: str) -> bool:
    return "State:\tX" in status or "State:\tZ" in status


def status_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return "TracerPid: 1\nState:\tX"


def wait_until_stopped(pid: int) -> bool:
    while "State:\tT" not in (text := status_of(pid)):
        if has_exited(text):
            return False
        time.sleep(0.001)
    return True


def signal_process(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def find_left(session: int) -> list[str]:
    """The processes of a session that do not go away."""
    end = time.monotonic() + LEFT_LIMIT
    while (left := in_session(session)) and time.monotonic() < end:
        time.sleep(0.01)
    return [name for _, name in left]


def in_session(session: int) -> list[tuple[int, str]]:
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = path.read_text(errors="replace")
        except OSError:
            continue
        fields = text.rpartition(")")[2].split()
        if int(fields[3]) == session and fields[0] not in "ZX":
            found.append((int(path.parent.name), text[text.find("(") : text.rfind(")") + 1]))
    return found


def end_session(session: int) -> None:
    for pid, _ in in_session(session):
        signal_process(pid, signal.SIGKILL)


# --- what there is to fail -----------------------------------------------------------------------


def find_faults(scenario: str, place: Place) -> list[Fault]:
    """Every call of a run that goes well, each with an error that it could have."""
    outcome = run(scenario, place, None)
    problem = judge(scenario, place, outcome)
    if problem or outcome.status != 0:
        raise SystemExit(f"{scenario} does not work here: {problem or outcome.err}")
    faults = []
    for process, log in sorted(outcome.logs.items()):
        counts: Counter[str] = Counter()
        for line in log.splitlines():
            found = re.match(r"(\w+)\(", line)
            if not found or found[1] in SKIPPED:
                continue
            name = found[1]
            counts[name] += 1
            if re.match(WAKEUP, line):
                continue
            errnos = ERRNOS.get(name, OTHERWISE)
            if re.match(PIPE_WRITE, line):
                errnos = ("EPIPE", "EINTR")
            errno = errnos[(counts[name] - 1) % len(errnos)]
            faults.append(Fault(scenario, process, name, counts[name], errno))
    return faults


def sample(faults: Sequence[Fault], count: int) -> list[Fault]:
    """Some of them: the rare calls all, as most of the code is around them, others evenly."""
    rarity = Counter((f.scenario, f.process, f.name) for f in faults)
    order = sorted(range(len(faults)), key=lambda i: (rarity[faults[i][:3]], i * 7919 % 1009))
    return [faults[i] for i in sorted(order[:count])]


# --- how it ended --------------------------------------------------------------------------------


def judge(scenario: str, place: Place, outcome: Outcome) -> str:
    """What is wrong with the end of a run; "" when nothing is."""
    if outcome.status is None:
        return "it hung"
    if outcome.left:
        return f"left behind: {', '.join(outcome.left)}"
    if "Traceback" in outcome.err or "Fatal Python" in outcome.err:
        return "a traceback"
    said = outcome.err.splitlines()
    if strange := [ln for ln in said if not ln.startswith(("ompbind: ", "hint: "))]:
        return f"not in ompbind's words: {strange[0]}"
    errors = [ln for ln in said if ln.startswith("ompbind: error: ")]
    for rank, report in outcome.reports.items():
        if problem := judge_binding(report, place.expected[scenario][rank]):
            return f"rank {rank} ran though it was {problem}"
    allowed = {0, 125, 126, 127, 141} | (
        {1} if scenario.startswith(("verify", "rebind", "doctor")) else set()
    )
    if outcome.status not in allowed:
        return f"status {outcome.status}"
    if outcome.status in (0, 1) and errors:
        return f"status {outcome.status} with an error"
    if outcome.status >= 125 and len(errors) != 1 and outcome.status != 141 and said:
        return f"status {outcome.status} with {len(errors)} errors"
    return judge_output(scenario, outcome) if outcome.status == 0 else ""


def judge_output(scenario: str, outcome: Outcome) -> str:
    """Whether a run that says that all went well has done what it was asked."""
    ranks = SCENARIOS[scenario].ranks
    if ranks and sorted(outcome.reports) != list(range(ranks)):
        return f"status 0, but ranks {sorted(outcome.reports)} ran"
    if scenario.endswith("json"):
        try:
            json.loads(outcome.out)
        except ValueError:
            return "status 0, but no JSON"
    elif scenario == "topo save":
        return "" if outcome.saved else "status 0, but nothing was saved"
    elif not ranks and len(outcome.out.splitlines()) < 3:
        return "status 0, but no output"
    return ""


def judge_binding(report: str, expected: tuple[CpuSet, str]) -> str:
    """A file that cannot be read may make it another plan, as where a container hides it: a rank
    then has to be where that one puts it."""
    cpus, policy = expected
    told = union(read_places(report.partition("\n")[0]))
    cpus = told or cpus
    found = re.search(r"^Cpus_allowed_list:\s*(\S+)", report, re.M)
    online = CpuSet.parse_kernel(Path("/sys/devices/system/cpu/online").read_text())
    if not found or CpuSet.parse_kernel(found[1]) & online != cpus:
        return f"on cpus {found and found[1]}, not on {cpus}"
    stack = re.search(r"^\w+ (\S+) stack", report, re.M)
    if stack and stack[1] != policy:
        return f"with the policy {stack[1]}, not {policy}"
    return ""


# --- all of them ---------------------------------------------------------------------------------


def make_place(folder: Path, pid: int, names: Sequence[str]) -> Place:
    """What the scenarios need, and what their ranks are to get."""
    plan = folder / "plan.json"
    shown = show("show --binder native --numa-bind-nodes 0 0 --format json")
    plan.write_text(shown)
    expected = {}
    for name in names:
        if SCENARIOS[name].ranks:
            text = shown
            if "--plan" not in SCENARIOS[name].args:
                args = re.sub(r"--verify\S*", "", SCENARIOS[name].args.replace("run", "show", 1))
                text = show(f"{args} --format json")
            expected[name] = [
                (CpuSet.parse_kernel(r["cpus"]), f"{r['mem']}:{r['mems']}")
                for r in json.loads(text)["ranks"]
            ]
    return Place(folder, plan, pid, expected)


def show(args: str) -> str:
    done = subprocess.run([sys.executable, "-m", "ompbind", *args.split()], env=make_environment(),
                          capture_output=True, text=True, timeout=LIMIT)  # fmt: skip
    if done.returncode:
        raise SystemExit(f"ompbind {args}: {done.stderr}")
    return done.stdout


def usable() -> list[str]:
    """The scenarios that there is something for on this machine."""
    from ompbind.cli import COMMANDS

    names = [n for n, s in SCENARIOS.items() if s.args.split()[0] in COMMANDS]
    if not shutil.which("numactl"):
        names = [n for n in names if "numactl" not in n]
    return names


def why_not() -> str:
    """Why no fault can be made here; "" when they can."""
    if sys.platform != "linux":
        return "ompbind runs workers on Linux"
    if not shutil.which("strace"):
        return "there is no strace; `tools/setup-system test` installs it"
    probe = subprocess.run(["strace", "-qq", "-o", os.devnull, "true"], capture_output=True)
    return "" if probe.returncode == 0 else "strace may not trace here"


class Result(NamedTuple):
    fault: Fault
    problem: str
    end: str  # "worked", "refused", "not reached"
    err: str


def try_all(names: Sequence[str], count: int | None = None, jobs: int = 2) -> Iterator[Result]:
    """Tries the faults of the scenarios, `count` of them all together or every one."""
    with tempfile.TemporaryDirectory(prefix="ompbind-faults-") as text, worker() as pid:
        place = make_place(Path(text), pid, names)
        faults = [f for name in names for f in find_faults(name, place)]
        if count is not None:
            faults = sample(faults, count)
        with ThreadPoolExecutor(jobs) as pool:
            yield from pool.map(lambda fault: try_one(fault, place), faults)


def try_one(fault: Fault, place: Place) -> Result:
    outcome = run(fault.scenario, place, fault)
    log = outcome.logs.get(fault.process, "")
    if WAKEUP_SAID in outcome.err:  # the order of writes is not the same in each run
        return Result(fault, "", "not reached", outcome.err)
    problem = judge(fault.scenario, place, outcome)
    end = "worked" if outcome.status == 0 else "refused"
    return Result(fault, problem, end if "INJECTED" in log else "not reached", outcome.err)


class worker:
    """A worker of ompbind that `verify` can look at."""

    def __enter__(self) -> int:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "ompbind", "run", "--", "sh", "-c", "echo; read x"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=make_environment(),
        )  # fmt: skip
        assert self.process.stdout is not None
        self.process.stdout.readline()
        return self.process.pid

    def __exit__(self, *_: Any) -> None:
        self.process.communicate()


def main(args: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults")
    parser.add_argument("--sample", type=int, metavar="N")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, metavar="N")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("scenario", nargs="*", metavar="SCENARIO")
    asked = parser.parse_args(args)
    if reason := why_not():
        print(f"faults: {reason}", file=sys.stderr)
        return 2
    names = asked.scenario or usable()
    if asked.list:
        print("\n".join(names))
        return 0
    started = time.monotonic()
    ends: Counter[tuple[str, str]] = Counter()
    bad: list[Result] = []
    print(f"{'scenario':16}{'worked':>10}{'refused':>10}{'not reached':>14}{'bad':>8}", flush=True)
    shown: list[str] = []

    def show_row(name: str) -> None:
        row = [ends[name, end] for end in ("worked", "refused", "not reached", "bad")]
        print(f"{name:16}{row[0]:10}{row[1]:10}{row[2]:14}{row[3]:8}", flush=True)

    for result in try_all(names, asked.sample, asked.jobs):  # in the order of scenarios
        if shown[-1:] != [result.fault.scenario]:
            shown += [result.fault.scenario]
            if shown[1:]:
                show_row(shown[-2])
        ends[result.fault.scenario, "bad" if result.problem else result.end] += 1
        if result.problem:
            bad.append(result)
            print(f"{result.fault}: {result.problem}\n{result.err}", flush=True)
    if shown:
        show_row(shown[-1])
    tried = sum(n for (_, end), n in ends.items() if end != "not reached")
    took = time.monotonic() - started
    print(f"faults: {tried} tried, {tried - len(bad)} survived, in {took:.0f} s")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
