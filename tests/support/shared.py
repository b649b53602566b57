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
from pathlib import Path
from typing import TypeVar

Value = TypeVar("Value")
VARIABLE = "TESTS_OF_OMPBIND_FOLDER"


def make_shared_folder() -> None:
    os.environ[VARIABLE] = tempfile.mkdtemp(prefix="ompbind-tests-")


def remove_shared_folder() -> None:
    shutil.rmtree(os.environ.pop(VARIABLE), ignore_errors=True)


def shared_folder(name: str) -> Path:
    """A folder of this name, the same in every process of the run."""
    folder = Path(os.environ[VARIABLE], name)
    folder.mkdir(exist_ok=True)
    return folder


@contextmanager
def locked(name: str, operation: int = fcntl.LOCK_EX) -> Iterator[None]:
    """Holds one of the run's locks."""
    with (shared_folder("locks") / name).open("w") as file:
        fcntl.flock(file, operation)
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
    """While no test of another process is alone."""
    with locked("gate"):
        file = (shared_folder("locks") / "tests").open("w")
        fcntl.flock(file, fcntl.LOCK_SH)
    with file:
        yield


@contextmanager
def alone() -> Iterator[None]:
    """While no test of another process runs: those that run end, others do not begin."""
    with locked("gate"), locked("tests"):
        yield
