"""The environments of engines that no package of the system has: a virtual environment each, made
once from a dependency group of pyproject.toml and kept in the user's cache directory."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.needs import REPOSITORY

WANTED = "OMPBIND_TEST_ENGINES"  # set by `make test-engines`
# The groups; their sizes in MB are for the message.
SIZES = {
    "openmpi5": 30,
    "mpich5": 50,
    "intelmpi": 300,
    "torchrun": 950,
    "pools": 330,
    "frameworks": 440,
    "kubernetes": 120,
    "compose": 25,
}


def cache_folder() -> Path:
    """Return where the environments are kept (OMPBIND_ENGINES_CACHE names another place)."""
    if given := os.environ.get("OMPBIND_ENGINES_CACHE"):
        return Path(given)
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base, "ompbind", "engines")


def program(group: str, name: str) -> Path:
    """Return a program of an environment."""
    return cache_folder() / group / "bin" / name


def need_environment(group: str, wanted: str = WANTED, maker: str = "tests.jobs") -> Path:
    """Return the folder of an environment's programs; skips where the variable `wanted` is not
    set, as it is by the make target, and fails with it where the environment is missing, which
    the module `maker` makes."""
    if wanted not in os.environ:
        pytest.skip(f"make {wanted.removeprefix('OMPBIND_').lower().replace('_', '-')} runs it")
    assert is_set_up(group), f"python -m {maker} {group} makes the environment"
    return cache_folder() / group / "bin"


def stamp(group: str) -> str:
    """Return what an environment was made from: another Python or requirement makes it anew."""
    lines = (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8").splitlines()
    (requirements,) = [line for line in lines if line.startswith(f"{group} = [")]
    text = f"{sys.version_info[:2]} {requirements}"
    return hashlib.sha256(text.encode()).hexdigest()


def is_set_up(group: str) -> bool:
    complete = cache_folder() / group / "complete"
    return complete.exists() and complete.read_text() == stamp(group)


def set_up(group: str, size: int) -> None:
    """Make an environment of so many MB where it is missing or not what is asked for now. Raises
    CalledProcessError."""
    folder = cache_folder() / group
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / f"{group}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if is_set_up(group):
            return
        print(f"make: installing {group} ({size} MB) into {folder}", file=sys.stderr)
        shutil.rmtree(folder, ignore_errors=True)
        run(sys.executable, "-m", "venv", str(folder))
        # Our own pip, which knows groups: 25.1 or newer.
        pip = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check")
        run(*pip, "--python", str(folder / "bin/python"), "install", "--group", group)
        (folder / "complete").write_text(stamp(group))


def run(*command: str) -> None:
    subprocess.run(command, check=True, cwd=REPOSITORY, stdin=subprocess.DEVNULL, stdout=sys.stderr)
