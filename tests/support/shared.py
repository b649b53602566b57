"""What the processes of one run of the tests share: a folder, and a way to be alone.

The process that was started makes the folder; those of pytest-xdist inherit its name.
"""

from __future__ import annotations

import fcntl
import os
import pickle
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TypeVar

Value = TypeVar("Value")
VARIABLE = "TESTS_OF_OMPBIND_FOLDER"
MEMORY = "/dev/shm"
ROOM = 8 << 30  # bytes; the tests' files are about 1 GiB, and their guests take 5


def make_shared_folder() -> None:
    os.environ[VARIABLE] = tempfile.mkdtemp(prefix="ompbind-tests-")


def remove_shared_folder() -> None:
    shutil.rmtree(os.environ.pop(VARIABLE), ignore_errors=True)


def keep_files_in_memory() -> str | None:
    """Have temporary files made in a folder in memory, where there is plenty; return the folder. To
    make and remove them takes the kernel a sixth of the time there. What a guest is to see lies in
    the shared folder, which stays where it is."""
    try:
        place = os.statvfs(MEMORY)
        with open("/proc/meminfo") as file:
            sizes = {name: int(rest.split()[0]) << 10 for name, rest in (
                line.split(":") for line in file)}  # fmt: skip
    except (OSError, ValueError):
        return None
    room = min(place.f_bavail * place.f_frsize, sizes.get("MemAvailable", 0))
    if room < ROOM or place.f_flag & os.ST_NOEXEC or "TMPDIR" in os.environ:
        return None
    folder = tempfile.mkdtemp(prefix="ompbind-tests-", dir=MEMORY)
    os.chmod(folder, 0o1777)
    os.environ["TMPDIR"] = tempfile.tempdir = folder
    return folder


def shared_folder(name: str) -> Path:
    """A folder of this name, the same in every process of the run."""
    return make_folder(Path(os.environ[VARIABLE], name))


def shared_temporary_folder(name: str) -> Path:
    """The same, for many files that no guest is to see."""
    folder = Path(tempfile.gettempdir(), Path(os.environ[VARIABLE]).name)
    return make_folder(make_folder(folder) / name)


def make_folder(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    return folder


@contextmanager
def locked(name: str) -> Iterator[None]:
    """Holds one of the run's locks."""
    with (shared_folder("locks") / name).open("w") as file, flocked(file.fileno()):
        yield


def once(name: str, make: Callable[[], Value]) -> Value:
    """What `make` returns, made by the first process that asks; the others wait for it."""
    path = shared_folder("values") / name
    with locked(f"value-{name}"):
        if path.exists():
            value: Value = pickle.loads(path.read_bytes())
        else:
            value = make()
            path.write_bytes(pickle.dumps(value))
    return value


@contextmanager
def beside_others() -> Iterator[None]:
    """While no test of another process is alone. Every test is run so: two files are opened once,
    not for each test."""
    gate, tests = open_gates(os.getpid())
    with flocked(gate):
        fcntl.flock(tests, fcntl.LOCK_SH)
    try:
        yield
    finally:
        fcntl.flock(tests, fcntl.LOCK_UN)


@contextmanager
def alone() -> Iterator[None]:
    """While no test of another process runs: those that run end, others do not begin."""
    gate, tests = open_gates(os.getpid())
    with flocked(gate), flocked(tests):
        yield


@cache
def open_gates(pid: int) -> tuple[int, int]:
    """The descriptors of the files that are locked while a test begins, and while it runs: a
    process's own, as a fork would hold its parent's locks."""
    folder = shared_folder("locks")
    gate, tests = (os.open(folder / name, os.O_WRONLY | os.O_CREAT) for name in ("gate", "tests"))
    return gate, tests


@contextmanager
def flocked(descriptor: int) -> Iterator[None]:
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        yield
    finally:
        fcntl.flock(descriptor, fcntl.LOCK_UN)
