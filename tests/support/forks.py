"""ompbind's command line in a fork of a process that has loaded it. Where the processor is emulated
an interpreter's start takes most of a launch, and is not what the tests there are about.

Only the standard library, as this runs inside the guest.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import ompbind.cli
from ompbind.cli import leave, main
from tests.support.observe import expand

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import NoReturn

LIMIT = 120  # seconds of a command; a busy machine takes long
FAILED = 70  # the exit status of a fork whose end was none of the command line's
# What launches, plans and verifications import. A command that needs more imports it in its fork.
LOADED = (
    "cli.pids.",
    "cli.run.",
    "cli.shell.",
    "cli.show.",
    "cli.verify.",
    "host.holders.",
    "host.neighbours.",
    "host.restrictions.",
    "launch.",
    "machine.",
    "openmp.",
    "options.",
    "planner.",
    "resolve.",
    "saved.",
    "verify.",
    "worker.",
)
# What these do not, in the same packages: other systems, files of machines, tools' own options.
NOT_LOADED = (
    "launch.bill.",
    "launch.popen.",
    "launch.portable.",
    "launch.ready.",
    "launch.stages.",
    "launch.trial.",
    "machine.archive.",
    "machine.darwin.",
    "machine.description.",
    "machine.hwloc.",
    "machine.portable.",
    "machine.saving.",
    "machine.snapshot.",
    "machine.synthetic.",
    "machine.topology_json.",
    "options.defaults.",
    "options.foreign.",
    "options.keywords.",
    "options.patterns.",
    "options.servers.",
    "options.vllm.",
)


def load() -> None:
    """Import what most commands import, so that no fork has to."""
    folder = Path(ompbind.cli.__file__).parents[1]
    for path in sorted(folder.rglob("*.py")):
        name = ".".join(path.relative_to(folder).with_suffix("").parts).removesuffix(".__init__")
        if f"{name}.".startswith(LOADED) and not f"{name}.".startswith(NOT_LOADED):
            importlib.import_module(f"ompbind.{name}")
    importlib.import_module("ctypes")  # which a launch that binds memory imports late


class Fork:
    """What subprocess.Popen is for `[OMPBIND, *ARGS]`, as far as tests use it, in a fork of this
    process, which must have one thread. `cpus`: its affinity mask, if not this process' own."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        stdin: int = subprocess.DEVNULL,
        stdout: int | IO[Any] = subprocess.PIPE,
        stderr: IO[Any] | None = None,
        env: Mapping[str, str] | None = None,
        cpus: str = "",
        text: bool = True,
        start_new_session: bool = True,
    ) -> None:
        assert text
        assert start_new_session
        assert threading.active_count() == 1
        null = os.open(os.devnull, os.O_RDWR)
        ends: list[tuple[int, int]] = []  # of each pipe, the child's and ours
        given = []
        for stream, is_input in ((stdin, True), (stdout, False), (stderr, False)):
            if stream == subprocess.PIPE:
                read, write = os.pipe()
                ends.append((read, write) if is_input else (write, read))
                given.append(ends[-1][0])
            elif stream == subprocess.DEVNULL:
                given.append(null)
            else:
                assert not isinstance(stream, int)
                given.append(2 if stream is None else stream.fileno())
        self.pid = os.fork()
        if self.pid == 0:
            become(command, given, env, cpus)
        os.close(null)
        for theirs, _ in ends:
            os.close(theirs)
        ours = iter([end for _, end in ends])
        self.stdin = os.fdopen(next(ours), "w") if stdin == subprocess.PIPE else None
        self.stdout = os.fdopen(next(ours)) if stdout == subprocess.PIPE else None
        self.returncode: int | None = None

    def wait(self) -> int:
        if self.returncode is None:
            self.returncode = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self.returncode

    def __enter__(self) -> Fork:
        return self

    def __exit__(self, *_: object) -> None:
        for stream in (self.stdin, self.stdout):
            if stream is not None:
                stream.close()
        self.wait()


def become(
    command: Sequence[str], streams: Sequence[int], env: Mapping[str, str] | None, cpus: str
) -> NoReturn:
    """Be the command, in the child."""
    try:
        os.setsid()
        high = [os.dup(stream) for stream in streams]  # one may be where another goes
        for number, stream in enumerate(high):
            os.dup2(stream, number)
        os.closerange(3, 256)
        if env is not None:
            os.environ.clear()
            os.environ.update(env)
        if cpus:
            os.sched_setaffinity(0, expand(cpus))
        sys.argv = list(command)
        leave(main(command[1:]))
    finally:
        os._exit(FAILED)


class Server:
    """A process that has loaded ompbind and runs commands in forks of itself, for a process that
    has too much in it, or threads."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.forks"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
        )

    def run(
        self, command: Sequence[str], *, env: Mapping[str, str] | None = None, cpus: str = ""
    ) -> tuple[int, str, str]:
        """The exit status of a command, and what it printed on both streams."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        request = {"command": command, "env": env, "cpus": cpus, "timeout": LIMIT}
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        status, out, err = json.loads(self.process.stdout.readline())
        return status, out, err

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.communicate()


def serve() -> None:
    load()
    for line in sys.stdin:
        print(json.dumps(run(**json.loads(line))), flush=True)


def run(
    command: Sequence[str],
    *,
    timeout: float,
    env: Mapping[str, str] | None = None,
    cpus: str = "",
) -> tuple[int, str, str]:
    """The exit status of a command, and what it printed on both streams. One that does not end is
    killed."""
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        with Fork(command, stdout=out, stderr=err, env=env, cpus=cpus) as process:
            watchdog = threading.Timer(timeout, os.killpg, (process.pid, signal.SIGKILL))
            watchdog.start()
            status = process.wait()
            watchdog.cancel()
            watchdog.join()
        out.seek(0)
        err.seek(0)
        return status, out.read(), err.read()


if __name__ == "__main__":
    serve()
