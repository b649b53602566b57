"""A Slurm of our own: slurmctld and some slurmd on this machine, without munge, root or /etc."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.support.commands import TIMEOUT, environment
from tests.support.needs import unavailable

PROGRAMS = ("slurmctld", "slurmd", "srun", "sbatch", "sinfo", "scancel")
SBIN = "/usr/sbin"  # Debian has the daemons there, which is not in everybody's PATH
CONFIGURATION = """\
ClusterName=test
SlurmctldHost={host}({address})
SlurmctldPort={port}
AuthType=auth/none
CredType=cred/none
SlurmUser={user}
SlurmdUser={user}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool.%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/affinity
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=1,sched_min_interval=1
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
KillWait=2
PartitionName=p Nodes=ALL Default=YES MaxTime=INFINITE OverSubscribe=YES:8
"""


class Slurm:
    """The commands of a running cluster."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environ = {"SLURM_CONF": str(folder / "slurm.conf")}

    def run(self, *command: str, expect: int | None = 0) -> subprocess.CompletedProcess[str]:
        """Run a command of Slurm's, such as `srun -n2 …`, to its end."""
        done = subprocess.run(
            command,
            env=environment(**self.environ),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
        )
        assert expect is None or done.returncode == expect, (command, done.stderr, self.logs())
        return done

    def submit(self, *words: str, env: Mapping[str, str], folder: Path) -> str:
        """Submit a batch script, wait for its end, and return what it has written."""
        output = folder / "output"
        options = ("--parsable", f"--output={output}", f"--chdir={folder}")
        done = subprocess.run(
            ["sbatch", *options, *words],
            env={**env, **self.environ},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
        )
        assert done.returncode == 0, done.stderr
        # `sbatch --wait` asks every few seconds only.
        end = time.monotonic() + TIMEOUT
        state = ""
        while state in ("", "PENDING", "RUNNING", "COMPLETING") and time.monotonic() < end:
            time.sleep(0.1)
            job = self.run("scontrol", "--oneliner", "show", "job", done.stdout.strip()).stdout
            state = job.partition("JobState=")[2].split()[0]
        text = output.read_text() if output.exists() else ""
        assert state == "COMPLETED", (state, text, self.logs())
        return text

    def logs(self) -> str:
        """Return the daemons' last words, for a failure."""
        texts = [path.read_text(errors="replace")[-1500:] for path in self.folder.glob("*.log")]
        return "\n".join(texts)


def find_daemon(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:{SBIN}")


def need_slurm() -> None:
    missing = [name for name in PROGRAMS if find_daemon(name) is None]
    if missing:
        unavailable(f"there is no {', '.join(missing)}; tools/setup-system test installs Slurm")


@contextmanager
def running_slurm(nodes: int = 1, address: str = "127.0.0.1", cgroup: str = "") -> Iterator[Slurm]:
    """A cluster of so many nodes, n0 and up, each of which is this machine; its daemons, and all
    that they have started, end with it. `cgroup`: the text of cgroup.conf."""
    need_slurm()
    # Not below pytest's folder: the path of a socket has at most 107 characters.
    folder = Path(tempfile.mkdtemp(prefix="ompbind-slurm-"))
    try:
        slurm = Slurm(folder)
        write_configuration(slurm, nodes, address)
        if cgroup:
            (folder / "cgroup.conf").write_text(cgroup)
        with ExitStack() as stack:
            names = [f"n{n}" for n in range(nodes)]
            stack.enter_context(daemon(slurm, "slurmctld", "-D", "-i"))
            for name in names:
                stack.enter_context(daemon(slurm, "slurmd", "-D", "-N", name))
            wait_until_idle(slurm, nodes)
            yield slurm
            slurm.run("scancel", f"--user={user_name()}", expect=None)
    finally:
        shutil.rmtree(folder)


def write_configuration(slurm: Slurm, nodes: int, address: str) -> None:
    folder = slurm.folder
    (folder / "state").mkdir()
    ports = free_ports(nodes + 1)
    text = CONFIGURATION.format(
        host=socket.gethostname().partition(".")[0],
        address=address,
        port=ports[0],
        user=user_name(),
        folder=folder,
    )
    counts = node_counts()
    for n in range(nodes):
        (folder / f"spool.n{n}").mkdir()
        text += f"NodeName=n{n} NodeHostname={socket.gethostname().partition('.')[0]} "
        text += f"NodeAddr={address} Port={ports[n + 1]} {counts}\n"
    (folder / "slurm.conf").write_text(text)


def node_counts() -> str:
    """Return what slurmd counts on this machine: `CPUs=2 Boards=1 SocketsPerBoard=1 …`."""
    command = [str(find_daemon("slurmd")), "-C"]
    text = subprocess.run(command, capture_output=True, text=True, check=True, timeout=TIMEOUT)
    words = text.stdout.splitlines()[0].split()
    wanted = ("CPUs=", "Boards=", "SocketsPerBoard=", "CoresPerSocket=", "ThreadsPerCore=")
    return " ".join(word for word in words if word.startswith(wanted))


@contextmanager
def daemon(slurm: Slurm, name: str, *args: str) -> Iterator[subprocess.Popen[bytes]]:
    """A daemon in the foreground, ended by TERM, and by KILL if it does not listen."""
    process = subprocess.Popen(
        [str(find_daemon(name)), *args],
        env=environment(**slurm.environ),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()


def wait_until_idle(slurm: Slurm, nodes: int) -> None:
    """Wait until all nodes have registered."""
    end = time.monotonic() + TIMEOUT
    while time.monotonic() < end:
        done = slurm.run("sinfo", "--noheader", "--Node", "--format=%T", expect=None)
        if done.returncode == 0 and done.stdout.split().count("idle") == nodes:
            return
        time.sleep(0.05)
    raise AssertionError(f"the nodes are not idle: {slurm.logs()}")


def user_name() -> str:
    return pwd.getpwuid(os.getuid()).pw_name


def free_ports(count: int) -> list[int]:
    """Return different ports that are free now."""
    with ExitStack() as stack:
        sockets: Sequence[socket.socket] = [
            stack.enter_context(socket.socket()) for _ in range(count)
        ]
        for s in sockets:
            s.bind(("", 0))
        return [s.getsockname()[1] for s in sockets]
