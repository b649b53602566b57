"""Programs that tests start and end: servers and jobs, and what is seen of their processes from
outside."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

from ompbind.machine.processes import make_family, read_parents
from ompbind.machine.roots import DirectoryRoot
from tests.support.observe import mask_of
from tests.support.recorder import alive

# In front of a command: makes its standard input, a terminal, that of its session.
UNDER_TERMINAL = (
    sys.executable, "-I", "-S", "-c",
    "import fcntl, os, sys, termios; os.setsid(); fcntl.ioctl(0, termios.TIOCSCTTY, 0); "
    "os.execvp(sys.argv[1], sys.argv[1:])",
)  # fmt: skip


class Seen(NamedTuple):
    """A process of a server. `environ`: what there is of it, in its order; `overwritten`: whether
    it begins with zeros; `masks`: the distinct ones of its threads."""

    pid: int
    title: str  # its command's first word
    name: str
    parent: int
    environ: dict[str, str]
    overwritten: bool
    masks: list[list[int]]


class Running:
    """A command in a session of its own, and what it writes."""

    def __init__(
        self,
        command: Sequence[str],
        env: Mapping[str, str],
        seconds: float,
        terminal: int = -1,
        folder: Path | None = None,
    ) -> None:
        """`seconds`: until it must be ready; `terminal`: what the command has as its standard
        input, behind UNDER_TERMINAL."""
        self.seconds = seconds
        self.logs = tempfile.TemporaryFile(), tempfile.TemporaryFile()  # noqa: SIM115, `end` closes
        self.process = subprocess.Popen(
            command,
            env=env,
            cwd=folder or tempfile.gettempdir(),
            stdin=subprocess.DEVNULL if terminal < 0 else terminal,
            stdout=self.logs[0],
            stderr=self.logs[1],
            start_new_session=terminal < 0,
        )
        self.pids: set[int] = {self.process.pid}  # of all that were seen
        self.segments: set[Path] = set()  # of shared memory: a killed server leaves them

    @property
    def out(self) -> str:
        """What has been written to standard output."""
        return read(self.logs[0])

    @property
    def written(self) -> str:
        """The same, and what has been written to standard error."""
        return self.out + read(self.logs[1])

    def wait_until_ready(self, *ports: int) -> None:
        """Return once each server answers; fail if the command ends before, or in vain."""
        self.wait_until(lambda: all(ask(port, "/health") == 200 for port in ports))

    def wait_until(self, ready: Callable[[], bool]) -> None:
        """Return once the command is ready; fail if it ends before, or in vain."""
        end = time.monotonic() + self.seconds
        while not ready():
            assert self.process.poll() is None, f"it has ended: {self.written}"
            assert time.monotonic() < end, f"waited in vain: {self.written}"
            time.sleep(0.05)
        self.notice()

    def notice(self) -> None:
        """Note which processes there are now, and their shared memory."""
        for pid in self.list_pids():
            self.pids.add(pid)
            with contextlib.suppress(OSError):
                lines = Path("/proc", str(pid), "maps").read_text().splitlines()
                paths = {line.split(maxsplit=5)[-1] for line in lines}
                self.segments |= {Path(p) for p in paths if p.startswith("/dev/shm/psm_")}

    def list_pids(self) -> list[int]:
        pid = self.process.pid
        return [pid, *make_family([pid], read_parents(DirectoryRoot("/")))[pid]]

    def look(self) -> list[Seen]:
        """Return all processes that there are now, parents before their children."""
        return [seen for pid in self.list_pids() if (seen := see(pid))]

    def wait_until_gone(self, seconds: float = 60) -> list[int]:
        """Return who is left of all processes that were seen, after some seconds at the most."""
        end = time.monotonic() + seconds
        while (left := [pid for pid in self.pids if alive(pid)]) and time.monotonic() < end:
            time.sleep(0.05)
        return left

    def end(self) -> None:
        """Kill whatever is left, and remove what it leaves; close the log."""
        self.notice()
        for pid in self.pids:
            with contextlib.suppress(OSError):
                if os.getsid(pid) == self.process.pid:  # else the number was used again
                    os.kill(pid, signal.SIGKILL)
        self.process.wait()
        for segment in self.segments:
            segment.unlink(missing_ok=True)
        for log in self.logs:
            log.close()


def read(file: IO[bytes]) -> str:
    """Return what is in a file that a running command writes. Its offset is the command's, too: if
    it moved, the next line would overwrite the first."""
    return os.pread(file.fileno(), os.fstat(file.fileno()).st_size, 0).decode("utf-8", "replace")


def see(pid: int) -> Seen | None:
    """Return what there is to see of a process; None if it has gone."""
    process = Path("/proc", str(pid))
    try:
        environ = (process / "environ").read_bytes()
        pairs = [word.partition("=") for word in os.fsdecode(environ).split("\0")]
        title = os.fsdecode((process / "cmdline").read_bytes()).split("\0")[0].strip()
        stat = (process / "stat").read_text().rpartition(")")[2].split()
        masks = {tuple(mask_of(task)) for task in (process / "task").iterdir()}
        return Seen(
            pid,
            title.rpartition("/")[2],
            (process / "comm").read_text().strip(),
            int(stat[1]),
            {name: value for name, equals, value in pairs if equals},
            environ.startswith(b"\0"),
            [list(mask) for mask in sorted(masks)],
        )
    except OSError:
        return None


def ask(port: int, path: str, body: Any = None) -> int:
    """Return the status of a server's answer, 0 if there is none."""
    return talk(port, path, body)[0]


def talk(port: int, path: str, body: Any = None) -> tuple[int, dict[str, str], str]:
    """Return a server's answer: status, headers and text; (0, {}, "") if there is none."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    try:
        data = None if body is None else json.dumps(body)
        headers = {"content-type": "application/json"}
        connection.request("GET" if body is None else "POST", path, data, headers)
        response = connection.getresponse()
        text = response.read().decode()
        return response.status, {k.lower(): v for k, v in response.getheaders()}, text
    except (OSError, http.client.HTTPException):
        return 0, {}, ""
    finally:
        connection.close()


def free_ports(count: int) -> int:
    """Return the first of so many consecutive ports that are free now."""
    while True:
        with contextlib.ExitStack() as stack, contextlib.suppress(OSError, OverflowError):
            first = 0
            for number in range(count):
                listening = stack.enter_context(socket.socket())
                listening.bind(("127.0.0.1", first and first + number))
                first = first or listening.getsockname()[1]
            return first
