"""What people start with ompbind, plain and as one and two ranks: it does its work, its threads are
where the plan has them, `verify` agrees, and TERM and Ctrl-C end it with nothing left. `make
test-programs` runs it; what is judged is read from /proc."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from string import Template

import pytest

from tests.programs.environments import WANTED, need_program_environment
from tests.programs.pages import fill, find_launches, read_files
from tests.programs.table import ENDLESS, PROGRAMS, ROUND, Program
from tests.support.commands import OMPBIND, TIMEOUT, environment
from tests.support.needs import need_cpus, require_intel
from tests.support.observe import mask_of
from tests.support.recorder import all_children, children, supervisor_of
from tests.support.running import UNDER_TERMINAL, Running, free_ports

pytestmark = pytest.mark.skipif(WANTED not in os.environ, reason="make test-programs runs it")
SECONDS = 300.0  # until a program must be ready
# Debian has the server where not everybody looks for programs.
POSTGRES = [str(path) for path in Path("/usr/lib/postgresql").glob("*/bin")]
BINDS = {True: (True,), False: (False,), None: (True, False)}
RANKS = (0, 1, 2)  # 0: without ompbind


class Place:
    """A program that is ready to be started, in a folder of its own, on two cores."""

    def __init__(self, program: Program, folder: Path) -> None:
        self.program = program
        self.folder = folder
        self.cpus = need_cpus(2)
        self.env = environment()
        path = [str(folder), str(Path(sys.executable).parent), self.env["PATH"], *POSTGRES]
        if program.environment:
            path.insert(0, str(need_program_environment(program.environment)))
        self.env["PATH"] = os.pathsep.join(path)
        if program.name == "libiomp5":
            self.env["INTEL"] = require_intel()
        # What refuses root has another number, in a user namespace.
        ordinary = program.refuses_root and os.geteuid() == 0
        self.under = ["unshare", "--map-user=1000", "--map-group=1000"] if ordinary else []
        for name, text in read_files(program.page).items():
            (folder / name).write_text(text)
        if (
            program.name == "redis"
        ):  # Debian has one program for both, by its name, without a service
            (folder / "redis-server").symlink_to(shutil.which("redis-check-rdb") or "missing")
        for command in program.prepare:
            words = [Template(word).safe_substitute(self.env) for word in shlex.split(command)]
            subprocess.run([*self.under, *words], cwd=folder, env=self.env, check=True)
        self.port = free_ports(2) if program.port else 0

    def command(self, ranks: int, rounds: str = "") -> list[str]:
        """Return what starts so many ranks, 0 without ompbind, with the ports that are free."""
        program = self.program.command.split()
        words = program
        if ranks:
            words = find_launches(self.program.page, program)[ranks]
            words = [OMPBIND, *words[1:]]
        if self.program.port:
            return [word.replace(str(self.program.port), str(self.port)) for word in words]
        return [*words[:-1], rounds or words[-1]]

    def env_of(self, command: list[str]) -> dict[str, str]:
        """Return the environment of a command: what stands in for ompbind where it is missing."""
        return self.env if command[0] == OMPBIND else self.env | dict(self.program.alone)

    def cpus_of(self, ranks: int) -> list[list[int]]:
        """Return the cpus that each rank is to have."""
        return [[cpu] for cpu in self.cpus] if ranks == 2 else [self.cpus]

    @contextmanager
    def start(self, command: list[str], count: int = 2, *, terminal: int = -1) -> Iterator[Running]:
        """Start a command that may use so many cpus, and wait until each rank has done work."""
        mask = ",".join(map(str, self.cpus[:count]))
        under = [*self.under, "taskset", "-c", mask]
        if terminal >= 0:
            under = [*UNDER_TERMINAL, *under]
        running = Running([*under, *command], self.env_of(command), SECONDS, terminal, self.folder)
        try:
            ranks = 2 if "-n" in command else 1
            running.wait_until(lambda: self.has_worked(running, ranks))
            yield running
        finally:
            running.end()

    def has_worked(self, running: Running, ranks: int) -> bool:
        if self.program.ask is None:
            return all(rounds_of(running.out, rank, ranks) for rank in range(ranks))
        try:
            for rank in range(ranks):
                self.program.ask(self.port + rank)
        except OSError:
            return False
        return True


def rounds_of(out: str, rank: int, ranks: int) -> list[str]:
    """Return the lines of rounds that a rank has written, without its tag."""
    tag = f"[{rank}] " if ranks > 1 else ""
    matches = re.finditer(rf"^{re.escape(tag)}({ROUND}.*)\n", out, re.MULTILINE)
    return [match[1] for match in matches]


@pytest.fixture(params=PROGRAMS, ids=lambda p: p.name, scope="module")
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Place:
    return Place(request.param, tmp_path_factory.mktemp(request.param.name))


def pids_of_ranks(pid: int, ranks: int) -> list[int]:
    """Return the pid of each rank, in their order, below ompbind's process, or that itself."""
    if ranks == 2:
        return children(supervisor_of(pid))
    name = Path(f"/proc/{pid}/comm").read_text()
    return children(supervisor_of(pid)) if name == "ompbind\n" else [pid]


def masks_of(pid: int) -> list[list[int]]:
    """Return the masks of all threads of a process and of what it has started, less those that end
    while they are looked at."""
    masks = []
    for process in (pid, *all_children(pid)):
        tasks: list[Path] = []
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            tasks = list(Path(f"/proc/{process}/task").iterdir())
        for task in tasks:
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                masks.append(mask_of(task))
    return sorted(masks)


def status(running: Running) -> int:
    """Return a command's exit status, as a shell has it."""
    code = running.process.wait(TIMEOUT)
    return 128 - code if code < 0 else code


def check_output(program: Program, out: str, ranks: int, rounds: int = 0) -> None:
    """Every line is a whole one of some rank's, none is missing, and there are so many rounds."""
    assert out.endswith("\n") or not out
    if program.port:
        tag = r"\[[01]\] " if ranks > 1 else ""
        strange = [ln for ln in out.splitlines() if not re.fullmatch(tag + program.result, ln)]
        assert strange == []
        return
    ranks = max(ranks, 1)
    wanted = []
    for rank in range(ranks):
        lines = rounds_of(out, rank, ranks)
        for number, line in enumerate(lines, 1):
            assert re.fullmatch(f"round {number}: {program.result}", line), out
        assert rounds in (0, len(lines)), out
        wanted += lines
    assert len(out.splitlines()) == len(wanted), out


@pytest.mark.parametrize("ranks", RANKS)
def test_it_does_its_work(place: Place, ranks: int) -> None:
    """A job comes to its end with the right result from each rank, and no word is lost."""
    if place.program.ask:
        pytest.skip("a server has no end")
    rounds = int(place.program.command.split()[-1])
    command = place.command(ranks)
    done = subprocess.run(
        ["taskset", "-c", ",".join(map(str, place.cpus)), *command],
        env=place.env_of(command), cwd=place.folder, capture_output=True, text=True,
        timeout=SECONDS,
    )  # fmt: skip
    assert (done.returncode, "ompbind: " in done.stderr) == (0, False), done.stderr
    check_output(place.program, done.stdout, ranks, rounds)


@pytest.mark.parametrize("ranks", RANKS)
def test_it_is_where_the_plan_has_it(place: Place, ranks: int) -> None:
    """All threads of a rank, and of what it has started, are on the rank's cpus, `verify` says so,
    and TERM ends everything with the program's own status."""
    program = place.program
    with place.start(place.command(ranks, ENDLESS)) as running:
        if ranks:
            pids = pids_of_ranks(running.process.pid, ranks)
            for pid, cpus in zip(pids, place.cpus_of(ranks), strict=True):
                masks = masks_of(pid)
                if program.threads == "whole":
                    assert all(mask == cpus for mask in masks), masks
                elif program.threads == "each":
                    assert masks == [[cpu] for cpu in cpus]
                else:
                    assert all(set(mask) <= set(cpus) for mask in masks), masks
                maps = Path(f"/proc/{pid}/maps").read_text()
                assert f"/{program.library}" in maps
            done = subprocess.run(
                [OMPBIND, "verify", str(running.process.pid)], capture_output=True, text=True
            )
            assert done.returncode == 0, done.stdout + done.stderr
            assert done.stdout.splitlines()[-1].startswith("as planned: ")
        running.notice()
        running.process.send_signal(signal.SIGTERM)
        assert status(running) == program.term, running.written
        if ranks or not program.leaves:
            assert running.wait_until_gone() == []
        check_output(program, running.out, ranks)


@pytest.mark.parametrize("ranks", RANKS)
def test_an_interrupt_ends_it(place: Place, ranks: int) -> None:
    """Ctrl-C in a terminal ends everything with the program's own status."""
    controller, terminal = pty.openpty()
    try:
        command = place.command(ranks, ENDLESS)
        with place.start(command, terminal=terminal) as running:
            os.close(terminal)
            os.write(controller, b"\x03")
            assert status(running) == place.program.interrupt, running.written
            assert running.wait_until_gone() == []
            check_output(place.program, running.out, ranks)
    finally:
        os.close(controller)


def test_what_it_does_alone(place: Place) -> None:
    """Without ompbind it counts its threads, and binds them, as its page says; what counts the
    machine's cores has fewer as one of two ranks, if it is started as its page says."""
    program = place.program
    command = fill(place.command(0, ENDLESS))
    seen = []
    for count in (1, 2):
        with place.start(command, count) as running:
            seen.append(masks_of(running.process.pid))
    masked, free = seen
    left = [mask for mask in masked if mask != place.cpus[:1]]
    assert bool(left) is (program.counts == "machine" and program.binds is True), seen
    if not left:
        assert (len(masked) < len(free)) is (program.counts == "mask"), seen
    assert any(mask != place.cpus for mask in free) in BINDS[program.binds], seen
    if program.counts == "machine":
        with place.start(place.command(2)) as running:
            for pid in pids_of_ranks(running.process.pid, 2):
                assert len(masks_of(pid)) < len(masked), (masks_of(pid), masked)
