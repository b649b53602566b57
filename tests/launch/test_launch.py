"""Ranks as processes, seen from outside: bindings, signals, ends, what is left behind, refusals."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from ompbind.cpuset import CpuSet
from ompbind.host import DESCRIPTOR
from ompbind.launch.forks import Inheritance
from ompbind.launch.syscalls import Library
from ompbind.machine import living_root, read_machine
from ompbind.machine.processes import read_process
from ompbind.verify.expected import expect_environ
from ompbind.verify.memory import is_same_policy
from tests.support.commands import (
    OMPBIND,
    TIMEOUT,
    environment,
    error,
    ompbind_run,
    read_report,
    report_command,
)
from tests.support.confine import denying
from tests.support.needs import need_cpus, need_numactl
from tests.support.recorder import (
    Starter,
    alive,
    children,
    record,
    recorder,
    supervisor_of,
    wait_for,
    wait_for_pids,
    watcher_of,
)

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="ompbind runs workers on Linux")


def cpus_of(pid: int) -> CpuSet:
    """A process' affinity mask, as the kernel tells others."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("Cpus_allowed_list:"):
            return CpuSet.parse_kernel(line.partition(":")[2])
    raise AssertionError("no Cpus_allowed_list")


def policies_of(pid: int) -> set[str]:
    """The memory policies of a process' mappings, as the kernel tells others."""
    lines = Path(f"/proc/{pid}/numa_maps").read_text()
    return set(re.findall(r"^\w+ ((?:prefer|weighted) [(i]\S+|\S+)", lines, re.M))


def need_numa() -> int:
    """A node with usable cpus and memory; skips on a kernel without NUMA, fails so in CI."""
    machine = read_machine()
    nodes = machine.topology.nodes_of(machine.allowed.cpus) & machine.allowed.nodes
    if not machine.topology.numa or not nodes:
        if os.environ.get("CI"):
            pytest.fail("no NUMA")
        pytest.skip("this kernel has no NUMA, or this process no node")
    return nodes.first


# --- bindings ------------------------------------------------------------------------------------


def test_masks_seen_from_outside(tmp_path: Path, binder: str, ranks: int, start: Starter) -> None:
    """Each rank is on its cpus, its memory on its node; several have one parent."""
    node = need_numa()
    cpus = need_cpus(2)[:ranks]
    args = ["--binder", binder, "--numa-bind-cpus", *map(str, cpus)]
    args += ["--numa-bind-nodes", *[str(node)] * ranks, "--", *recorder(tmp_path)]
    process = start("run", *args)
    pids = wait_for_pids(tmp_path, ranks)
    assert [cpus_of(p) for p in pids] == [CpuSet([c]) for c in cpus]
    assert all(policies_of(p) == {f"bind:{node}"} for p in pids)
    if ranks == 1:
        assert pids == [process.pid]
        assert children(process.pid) == []
    else:
        supervisor = supervisor_of(process.pid)
        assert sorted(children(supervisor)) == sorted(pids)
        for pid in (process.pid, watcher_of(process.pid), supervisor):
            assert cpus_of(pid) == CpuSet(os.sched_getaffinity(0))
            assert policies_of(pid) == {"default"}


@pytest.mark.parametrize(
    ("mem", "policy"),
    [
        ("bind", "bind:{node}"),
        ("preferred", "prefer:{node}"),
        ("interleave", "interleave:{nodes}"),
        ("local", "local"),
        ("none", "default"),
    ],
)
def test_memory_policies(
    mem: str, policy: str, tmp_path: Path, binder: str, ranks: int,
    start: Starter,
) -> None:  # fmt: skip
    """Every policy is what the kernel then says of the worker."""
    node = need_numa()
    cpus = need_cpus(ranks)
    nodes = read_machine().topology.nodes_of(CpuSet(cpus[:1]))
    if nodes != CpuSet([node]):
        pytest.skip("the first cpus are on another node")
    args = ["--binder", binder, "--numa-bind-cpus", *map(str, cpus), "--mem", mem]
    start("run", *args, "--", *recorder(tmp_path))
    pid = wait_for_pids(tmp_path, ranks)[0]
    assert policies_of(pid) == {policy.format(node=node, nodes=nodes)}


RECENT = {
    "weighted-interleave": ("--mem weighted-interleave", {"weighted interleave:{}"}),
    # What kernels before 6.12 write of the flag is nothing.
    "balancing": ("--mem bind --mem-balancing", {"bind=balancing:{}", "bind=:{}"}),
}


@pytest.mark.parametrize("name", RECENT)
def test_policies_of_recent_kernels(name: str, tmp_path: Path, ranks: int, start: Starter) -> None:
    """They are what the kernel then says of the worker, whatever numactl can do, and verify
    agrees."""
    node = need_numa()
    if not Path("/sys/kernel/mm/mempolicy/weighted_interleave").exists():
        pytest.skip("this kernel is older than 6.9")
    options, texts = RECENT[name]
    cpus = need_cpus(ranks)
    args = ["--numa-bind-cpus", *map(str, cpus), *options.split(), "--mem-nodes", str(node)]
    start("run", *args, "--", *recorder(tmp_path))
    pids = wait_for_pids(tmp_path, ranks)
    (policy,) = set().union(*map(policies_of, pids))
    assert policy in {text.format(node) for text in texts}
    (observed,) = [read_process(living_root(), pid) for pid in pids[:1]]
    assert observed is not None
    expected = expect_environ(dict(observed.environ or ()))
    assert expected is not None
    assert (expected.mem, str(expected.mems)) == (options.split()[1], str(node))
    assert observed.memory is not None
    assert is_same_policy(observed.memory.policy, expected)
    assert not is_same_policy(f"bind:{node}", expected)


def test_a_numactl_that_lacks_a_policy(tmp_path: Path) -> None:
    """It is replaced by the system calls, for all groups of a launch; where it was asked for, that
    is refused."""
    need_numactl()
    node, (cpu, other) = need_numa(), need_cpus(2)[:2]
    old = tmp_path / "numactl"
    old.write_text(
        f'#!/bin/sh\n[ $# = 0 ] || exec {shutil.which("numactl")} "$@"\n'
        "echo 'usage: numactl [--membind= | -m <nodes>]' >&2\nexit 1\n"
    )
    old.chmod(0o755)
    environ = {**environment(), "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    words = ["--numa-bind-cpus", str(cpu), "--mem", "bind", "--mem-balancing", "--", "true"]
    shown = ompbind_run("show", "--format", "argv", *words, env=environ)
    assert (shown.returncode, shown.stdout) == (0, "true\n")
    look = ["--mem", "bind", "--", "head", "-n1", "/proc/self/numa_maps"]
    groups = ["--numa-bind-cpus", str(other), *look, ":::"]
    groups += ["--numa-bind-cpus", str(cpu), "--mem-balancing", *look]
    done = ompbind_run("run", "--output", "inherit", *groups, env=environ)
    policies = sorted(line.split()[1] for line in done.stdout.splitlines())
    assert policies in ([f"bind:{node}", f"bind={flag}:{node}"] for flag in ("", "balancing"))
    done = ompbind_run("run", "--binder", "numactl", *words, env=environ)
    assert done.returncode == 125
    assert done.stderr == (
        "ompbind: error: --binder numactl: the installed numactl has no --balancing; 2.0.15 has\n"
        "hint: --binder native makes the same system calls without numactl\n"
    )


def test_policy_by_numactl_as_the_worker(binder: str, ranks: int) -> None:
    """numactl --show, run as the worker, agrees."""
    need_numactl()
    node = need_numa()
    cpus = need_cpus(2)[:ranks]
    args = ["--binder", binder, "--numa-bind-cpus", *map(str, cpus), "--mem", "bind"]
    done = ompbind_run("run", *args, "--output", "inherit", "--", "numactl", "--show")
    lines = done.stdout.splitlines()
    assert lines.count("policy: bind") == ranks
    assert sorted(ln.split()[1:] for ln in lines if ln.startswith("physcpubind")) == sorted(
        [str(c)] for c in cpus
    )
    assert sum(ln.split() == ["membind:", str(node)] for ln in lines) == ranks


# --- signals -------------------------------------------------------------------------------------


def test_signals_are_passed_on(tmp_path: Path, binder: str, start: Starter) -> None:
    """Sent to ompbind alone, INT, HUP, QUIT, USR1, USR2 and TERM reach each rank, each once."""
    need_cpus(2)
    process = start("run", "-n", "2", "--binder", binder, "--", *recorder(tmp_path))
    pids = wait_for_pids(tmp_path, 2)
    sent: list[str] = []
    for name in ("USR1", "USR2", "HUP", "INT", "QUIT", "TERM"):
        number = getattr(signal, f"SIG{name}")
        process.send_signal(number)
        sent.append(str(int(number)))
        wait_for(lambda: all(record(tmp_path, r)[2:] == sent for r in (0, 1)))
    assert process.wait(TIMEOUT) == 0  # the workers took TERM as a wish and ended well
    assert not any(alive(p) for p in pids)


# A rank and a child in its process group: each notes the first signal it gets and exits.
PAIR = """
import os, signal, sys
child = os.fork()
path = f"{sys.argv[1]}/{'rank' if child else 'child'}.{os.environ['OMPBIND_RANK']}"
def note(text):
    with open(path, "a") as file:
        file.write(text + " ")
def handle(number, frame):
    note(str(number))
    if child:
        os.waitpid(child, 0)
    os._exit(0)
for number in (1, 2, 3):
    signal.signal(number, handle)
note("ready")
while True:
    signal.pause()
"""


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT, signal.SIGQUIT])
def test_a_terminals_signals_reach_the_group(
    number: int, tmp_path: Path, binder: str, start: Starter
) -> None:
    """Sent to ompbind alone, they reach a rank's children in its group as well, as Ctrl-C would."""
    need_cpus(2)
    worker = [sys.executable, "-I", "-S", "-c", PAIR, str(tmp_path)]
    process = start("run", "-n", "2", "--binder", binder, "--grace", "600", "--", *worker)
    notes = [tmp_path / f"{name}.{rank}" for name in ("rank", "child") for rank in (0, 1)]
    wait_for(lambda: all(n.exists() and n.read_text() for n in notes))
    process.send_signal(number)
    assert process.wait(TIMEOUT) == 0
    assert [n.read_text() for n in notes] == [f"ready {number:d} "] * 4


def test_a_single_rank_gets_signals_itself(tmp_path: Path, binder: str, start: Starter) -> None:
    """There is nobody between: the worker is the process that was started."""
    process = start("run", "--binder", binder, "--", *recorder(tmp_path))
    assert wait_for_pids(tmp_path, 1) == [process.pid]
    process.send_signal(signal.SIGUSR1)
    wait_for(lambda: record(tmp_path, 0)[2:] == ["10"])
    process.terminate()
    assert process.wait(TIMEOUT) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_that_ends_the_ranks(number: int, tmp_path: Path, start: Starter) -> None:
    """Workers that do not handle it die of it, and ompbind says 128+N."""
    need_cpus(2)
    code = f'echo "pid $$" > {tmp_path}/record.$OMPBIND_RANK; exec sleep 60'
    process = start("run", "-n", "2", "--", "sh", "-c", code)
    pids = wait_for_pids(tmp_path, 2)
    process.send_signal(number)
    assert process.wait(TIMEOUT) == 128 + number
    assert not any(alive(p) for p in pids)


def test_interrupt_from_a_terminal(tmp_path: Path, start: Starter) -> None:
    """Ctrl-C goes to the whole foreground group: each rank gets it once, not twice."""
    need_cpus(2)
    code = "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0);"
    code += "os.execv(sys.argv[1], sys.argv[1:])"
    master, slave = pty.openpty()
    assert termios.tcgetattr(slave)[3] & termios.ISIG
    under = [sys.executable, "-I", "-S", "-c", code]
    process = start("run", "-n", "2", "--", *recorder(tmp_path), under=under, stdin=slave)
    os.close(slave)
    fcntl.fcntl(master, fcntl.F_SETFL, os.O_NONBLOCK)
    wait_for_pids(tmp_path, 2)
    os.write(master, b"\x03")
    wait_for(lambda: all(record(tmp_path, r)[2:] for r in (0, 1)))
    process.send_signal(signal.SIGUSR1)  # after what else may have come
    wait_for(lambda: all("10" in record(tmp_path, r) for r in (0, 1)))
    assert [record(tmp_path, r)[2:] for r in (0, 1)] == [["2", "10"]] * 2
    process.terminate()
    assert process.wait(TIMEOUT) == 0
    os.close(master)


# --- what a rank inherits ------------------------------------------------------------------------


def test_a_variable_that_is_removed_and_set() -> None:
    """A variable that the plan both takes away and sets is set: the user's value is gone, not the
    plan's. More threads than cores make the planner do so."""
    threads = 2 * len(os.sched_getaffinity(0))
    args = ["run", "--threads", str(threads), "--", "env"]
    done = ompbind_run(*args, env=environment(MKL_DYNAMIC="TRUE"))
    assert done.returncode == 0
    assert "MKL_DYNAMIC=FALSE" in done.stdout.splitlines()


class Kernel(Library):
    """Stands for the kernel's memory policy of a process, and lists what is set."""

    def __init__(self) -> None:
        self.policy = (3, CpuSet([0, 1]))
        self.calls: list[tuple[int, CpuSet]] = []

    def memory(self, which: int, mode: int = 0, mems: CpuSet | None = None) -> tuple[int, CpuSet]:
        if which == 0:
            self.policy = (mode, mems or CpuSet())
            self.calls.append(self.policy)
        return self.policy


def test_memory_policies_of_ranks_that_differ() -> None:
    """Each rank is forked with its own policy, whatever the one before had, and set only where it
    differs; "none" is the launcher's own, which it has again in the end."""
    kernel = Kernel()
    first, second = CpuSet([0]), CpuSet([1])
    inheritance = Inheritance(kernel)
    seen = []
    for mem, mems in (("bind", first), ("bind", first), ("bind", second), ("interleave", second),
                      ("none", CpuSet()), ("bind", second)):  # fmt: skip
        inheritance.set_memory(mem, mems)
        seen.append(kernel.policy)
    inheritance.restore()
    original = (3, CpuSet([0, 1]))
    assert seen == [(2, first), (2, first), (2, second), (3, second), original, (2, second)]
    assert kernel.policy == original
    assert len(kernel.calls) == 6  # the second rank shares the first one's


# --- ends ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("failing", [0, 1])
def test_a_failure_ends_the_others(
    failing: int, tmp_path: Path, binder: str, start: Starter
) -> None:
    """When a rank fails the others get TERM, and the failure's status is ompbind's."""
    need_cpus(2)
    args = ["-n", "2", "--binder", binder, "--", *recorder(tmp_path, f"fail{failing}")]
    process = start("run", *args)
    pids = wait_for_pids(tmp_path, 2)
    assert process.wait(8) == 3  # well before those that ignore TERM are killed
    assert record(tmp_path, 1 - failing)[2:] == ["15"]
    assert not any(alive(p) for p in pids)


def test_those_that_ignore_term_are_killed(tmp_path: Path, start: Starter) -> None:
    """After the time of grace KILL ends what outlives a failed rank."""
    need_cpus(2)
    process = start(
        "run", "-n", "2", "--grace", "1", "--", *recorder(tmp_path, "fail1", "stubborn")
    )
    pids = wait_for_pids(tmp_path, 2)
    wait_for(lambda: record(tmp_path, 0)[2:] == ["15"])
    assert process.wait(8) == 3
    assert not any(alive(p) for p in pids)


def test_success_of_one_ends_nobody(tmp_path: Path) -> None:
    """A rank that ends well leaves the others to go on."""
    need_cpus(2)
    # Rank 1 waits until rank 0 has exited and been reaped.
    code = """
        if [ "$OMPBIND_RANK" = 0 ]; then echo $$ >pid.new; mv pid.new pid
        else until [ -e pid ] && ! kill -0 "$(cat pid)" 2>/dev/null; do sleep 0.05; done; fi
        echo "$OMPBIND_RANK"
    """
    done = ompbind_run(
        "run", "-n", "2", "--output", "inherit", "--", "sh", "-c", code, cwd=tmp_path
    )
    assert (done.returncode, done.stdout) == (0, "0\n1\n")


def test_no_zombies_while_running(tmp_path: Path, binder: str, start: Starter) -> None:
    """What tried the bindings is gone, and a rank that has ended is not kept as a zombie."""
    need_cpus(2)
    code = (
        f'echo "pid $$" > {tmp_path}/record.$OMPBIND_RANK; [ $OMPBIND_RANK = 1 ] || exec sleep 60'
    )
    process = start("run", "-n", "2", "--binder", binder, "--", "sh", "-c", code)
    pids = wait_for_pids(tmp_path, 2)
    supervisor = supervisor_of(process.pid)
    wait_for(lambda: children(supervisor) == [pids[0]])
    process.terminate()
    assert process.wait(TIMEOUT) == 143
    assert not any(alive(p) for p in pids)


LIST_FDS = """
import os
fd = os.open("/proc/self/fd", os.O_RDONLY)
print(*sorted(set(map(int, os.listdir(fd))) - {fd, fd + 1}))  # listdir makes a copy
"""


@pytest.mark.parametrize("passed", [False, True])
def test_descriptors(passed: bool, binder: str, ranks: int) -> None:
    """A worker has those that ompbind was given, and the one of its lease."""
    ours = os.pipe() if passed else ()
    args = ["run", "--binder", binder, "-n", str(ranks), "--output", "inherit", "--"]
    done = subprocess.run(
        [OMPBIND, *args, sys.executable, "-I", "-S", "-c", LIST_FDS],
        env=environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True,
        pass_fds=ours, timeout=TIMEOUT, check=False,
    )  # fmt: skip
    for fd in ours:
        os.close(fd)
    assert (done.returncode, done.stderr) == (0, "")
    wanted = " ".join(map(str, sorted([0, 1, 2, *ours, DESCRIPTOR])))
    assert done.stdout.splitlines() == [wanted] * ranks


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_standard_descriptors(closed: str, tmp_path: Path, binder: str, ranks: int) -> None:
    """A daemon that has closed them can still start workers; they see no descriptor of ompbind's
    in their place."""
    script = f'exec "$0" "$@" {closed}'
    args = ["run", "--binder", binder, "-n", str(ranks), "--", *report_command(tmp_path)]
    done = subprocess.run(
        ["sh", "-c", script, OMPBIND, *args], env=environment(), timeout=TIMEOUT, check=False,
    )  # fmt: skip
    assert done.returncode == 0
    for rank in range(ranks):
        assert read_report(tmp_path, rank)["cpus"]


@pytest.mark.parametrize("number", [signal.SIGCHLD, signal.SIGTERM, signal.SIGHUP])
def test_signals_that_were_ignored(number: int, tmp_path: Path, binder: str, ranks: int) -> None:
    """Started with a signal ignored, as nohup does, the ranks start and end as ever."""
    code = f"import os, signal, sys; signal.signal({int(number)}, signal.SIG_IGN);"
    code += "os.execv(sys.argv[1], sys.argv[1:])"
    args = ["run", "--binder", binder, "-n", str(ranks), "--", "sh", "-c", "exit 4"]
    done = ompbind_run(*args, under=[sys.executable, "-I", "-S", "-c", code])
    assert done.returncode == 4
    assert all(ln.startswith("ompbind: rank ") for ln in done.stderr.splitlines())
    assert ranks == 2 or not done.stderr


def test_signals_that_were_blocked(tmp_path: Path, start: Starter) -> None:
    """A mask with TERM blocked is the workers' too, and still passes nothing by."""
    need_cpus(2)
    code = "import os, signal, sys; signal.pthread_sigmask(signal.SIG_BLOCK, [10]);"
    code += "os.execv(sys.argv[1], sys.argv[1:])"
    under = [sys.executable, "-I", "-S", "-c", code]
    process = start("run", "-n", "2", "--", *recorder(tmp_path), under=under)
    pids = wait_for_pids(tmp_path, 2)
    for pid in pids:
        status = Path(f"/proc/{pid}/status").read_text()
        blocked = next(ln for ln in status.splitlines() if ln.startswith("SigBlk:"))
        assert int(blocked.split()[1], 16) == 1 << 9
    process.terminate()
    assert process.wait(TIMEOUT) == 0


def test_all_or_nothing(tmp_path: Path, start: Starter) -> None:
    """When one rank's program cannot be executed, those started before it are gone too."""
    need_cpus(2)
    (tmp_path / "worker0").write_text(f"#!/bin/sh\necho $$ >> {tmp_path}/pid\nexec sleep 60\n")
    head = Path(sys.executable).read_bytes()[:64]  # of this machine's kind, and cut off
    (tmp_path / "worker1").write_bytes(head)
    for rank in (0, 1):
        (tmp_path / f"worker{rank}").chmod(0o755)
    args = ["--binder", "native", "-n", "2", "--template", "--", f"{tmp_path}/worker{{rank}}"]
    process = start("run", *args)
    assert process.wait(TIMEOUT) == 126
    assert process.stderr is not None
    lines = process.stderr.read().decode().splitlines()
    assert lines[0].startswith("ompbind: error: ")
    assert "worker1" in lines[0]
    pids = (tmp_path / "pid").read_text().split() if (tmp_path / "pid").exists() else []
    assert not any(alive(int(p)) for p in pids)


# --- refused bindings ----------------------------------------------------------------------------

REASONS = {"EPERM": "Operation not permitted", "ENOSYS": "Function not implemented"}
MEMORY_HINT = (
    "--on-denied degrade continues without, --mem none does not ask; "
    "in a container allow set_mempolicy (CAP_SYS_NICE)"
)
CALLS = ["set_mempolicy", "sched_setaffinity", "set_mempolicy,sched_setaffinity"]


def refusals(name: str, calls: str, cpus: int, node: int) -> list[tuple[str, str]]:
    """Message and what continuing without it means, for each refused part."""
    told = []
    if "sched_setaffinity" in calls:
        what = f"rank 0: the kernel refuses to bind cpus {cpus} (sched_setaffinity"
        told.append((f"{what}: {REASONS[name]})", "cpus"))
    if "set_mempolicy" in calls:
        what = f"rank 0: the kernel refuses to bind memory: bind {node} (set_mempolicy"
        told.append((f"{what}: {REASONS[name]})", "memory"))
    return told


def test_the_denial_denies() -> None:
    """What these tests stand on: the calls are refused, get_mempolicy is not."""
    for name in REASONS:
        code = "import os\ntry: os.sched_setaffinity(0, os.sched_getaffinity(0))\n"
        code += f"except OSError as e: print(e.errno == os.errno.{name})"
        code = code.replace("os.errno", "__import__('errno')")
        under = denying(name, "sched_setaffinity")
        done = subprocess.run([*under, sys.executable, "-c", code], capture_output=True,
                              text=True, timeout=TIMEOUT, check=False)  # fmt: skip
        assert done.stdout == "True\n"
    need_numactl()
    need_numa()
    under = denying("EPERM", "set_mempolicy")
    shown = subprocess.run([*under, "numactl", "--show"], capture_output=True, timeout=TIMEOUT)
    assert b"policy: default" in shown.stdout
    bound = subprocess.run([*under, "numactl", "--localalloc", "true"], capture_output=True,
                           timeout=TIMEOUT)  # fmt: skip
    assert bound.returncode != 0


@pytest.mark.parametrize("name", REASONS)
@pytest.mark.parametrize("calls", CALLS)
def test_a_denied_binding_starts_nothing(
    name: str, calls: str, tmp_path: Path, binder: str, ranks: int
) -> None:
    """Known before any worker's program starts: which rank, what, which call, why; status 125."""
    node = need_numa()
    cpus = need_cpus(2)[:ranks]
    args = ["--binder", binder, "--numa-bind-cpus", *map(str, cpus), "--mem", "bind"]
    done = ompbind_run("run", *args, "--", *report_command(tmp_path), under=denying(name, calls))
    message, part = refusals(name, calls, cpus[0], node)[0]
    hint = MEMORY_HINT if part == "memory" else "--on-denied degrade continues without"
    assert done.returncode == 125
    assert (done.stdout, done.stderr) == ("", error(message, hint))
    assert not list(tmp_path.glob("report.[0-9n]*"))


@pytest.mark.parametrize("name", REASONS)
@pytest.mark.parametrize("calls", CALLS)
def test_a_denied_binding_left_out(
    name: str, calls: str, tmp_path: Path, binder: str, ranks: int,
    start: Starter,
) -> None:  # fmt: skip
    """--on-denied degrade starts the workers without the refused part, says so, binds the other."""
    node = need_numa()
    cpus = need_cpus(2)[:ranks]
    args = ["--binder", binder, "--numa-bind-cpus", *map(str, cpus), "--mem", "bind"]
    args += ["--on-denied", "degrade", "--", *recorder(tmp_path)]
    process = start("run", *args, under=denying(name, calls))
    pids = wait_for_pids(tmp_path, ranks)
    inherited = CpuSet(os.sched_getaffinity(0))
    for pid, cpu in zip(pids, cpus, strict=True):
        unbound = "sched_setaffinity" in calls
        assert cpus_of(pid) == (inherited if unbound else CpuSet([cpu]))
        policy = "default" if "set_mempolicy" in calls else f"bind:{node}"
        assert policies_of(pid) == {policy}
    process.terminate()
    assert process.stderr is not None
    assert process.stderr.read().decode().splitlines() == [
        f"ompbind: warning: {message}; continuing with {part} unbound"
        for message, part in refusals(name, calls, cpus[0], node)
    ]
    assert process.wait(TIMEOUT) == 0


def test_what_is_not_asked_for_is_not_missed(tmp_path: Path, binder: str, ranks: int) -> None:
    """A kernel that refuses memory policies matters only to a plan that has one."""
    args = ["--binder", binder, "-n", str(ranks), "--mem", "none", "--", *report_command(tmp_path)]
    done = ompbind_run("run", *args, under=denying("EPERM", "set_mempolicy"))
    assert (done.returncode, done.stderr) == (0, "")
    assert read_report(tmp_path)["cpus"]


def test_a_numactl_that_fails(tmp_path: Path, ranks: int) -> None:
    """An old numactl that does not know a node: an error before the start, or done without it."""
    cpus = need_cpus(2)[:ranks]
    fake = tmp_path / "bin" / "numactl"
    fake.parent.mkdir()
    fake.write_text(
        "#!/bin/sh\necho 'libnuma: Warning: node argument 0 is out of range' >&2\nexit 1\n"
    )
    fake.chmod(0o755)
    env = environment(PATH=f"{fake.parent}:{os.environ['PATH']}")
    args = ["run", "--binder", "numactl", "--numa-bind-cpus", *map(str, cpus)]
    message = "numactl cannot bind as planned: libnuma: Warning: node argument 0 is out of range"
    done = ompbind_run(*args, "--", *report_command(tmp_path), env=env)
    assert done.returncode == 125
    assert done.stderr == error(
        message, "--binder native makes the same system calls without numactl"
    )
    assert not (tmp_path / "report.0").exists()

    done = ompbind_run(*args, "--on-denied", "degrade", "--", *report_command(tmp_path), env=env)
    assert done.returncode == 0
    without = "continuing with the same system calls without numactl"
    assert done.stderr == f"ompbind: warning: {message}; {without}\n"
    for rank, cpu in enumerate(cpus):
        assert read_report(tmp_path, rank)["cpus"] == str(cpu)
        (tmp_path / f"report.{rank}").unlink()

    # it need not say why
    fake.write_text("#!/bin/sh\nexit 3\n")
    done = ompbind_run(*args, "--", *report_command(tmp_path), env=env)
    message = "numactl cannot bind as planned: exit status 3"
    assert done.stderr.startswith(f"ompbind: error: {message}\n")

    # where nobody asked for numactl, it is replaced without being told to
    auto = ["run", "--numa-bind-cpus", *map(str, cpus)]
    done = ompbind_run(*auto, "--", *report_command(tmp_path), env=env)
    assert (done.returncode, done.stderr) == (0, f"ompbind: warning: {message}; {without}\n")
    for rank, cpu in enumerate(cpus):
        assert read_report(tmp_path, rank)["cpus"] == str(cpu)


@pytest.mark.parametrize("given", [{}, {"LANG": "C"}, {"LC_CTYPE": "C.UTF-8"}])
def test_the_workers_locale_is_the_given_one(given: dict[str, str], ranks: int) -> None:
    """In the C locale Python sets a variable for itself; a worker has what the user set alone."""
    env = {"PATH": os.environ["PATH"], **given}
    done = ompbind_run("run", "-n", str(ranks), "--share", "--", "env", env=env)
    assert done.returncode == 0, done.stderr
    told = [line.rpartition("] ")[2] for line in done.stdout.splitlines()]
    locale = {line for line in told if line.startswith(("LC_", "LANG"))}
    assert locale == {f"{name}={value}" for name, value in given.items()}


def test_a_command_is_found_where_the_worker_looks(tmp_path: Path, binder: str, ranks: int) -> None:
    """--env PATH is the worker's, and its command is looked for in it, with either binder."""
    tool = tmp_path / "own-tool"
    tool.write_text("#!/bin/sh\necho mine\n")
    tool.chmod(0o755)
    options = ["-n", str(ranks), "--share", "--binder", binder]
    done = ompbind_run("run", *options, "--env", f"PATH={tmp_path}:/usr/bin:/bin", "--", tool.name)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("mine") == ranks
    done = ompbind_run("run", *options, "--", tool.name)
    assert done.returncode == 127
