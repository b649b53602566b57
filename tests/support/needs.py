"""What tests need of the machine they run on, and how they skip, or fail under CI, without it."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import shutil
from pathlib import Path
from typing import NoReturn

import pytest

from ompbind.cpuset import CpuSet
from ompbind.machine import read_machine

REPOSITORY = Path(__file__).parents[2]
COMPILERS = {"libgomp": "gcc", "libomp": "clang", "libiomp5": "clang", "torch": "gcc"}


def unavailable(reason: str) -> NoReturn:
    """Skips a test that this machine lacks something for; where CI runs, nothing may be lacking."""
    if os.environ.get("CI"):
        pytest.fail(f"{reason} (a failure, as CI is set)")
    pytest.skip(reason)


def need_numactl() -> None:
    """Skips where numactl is not installed; fails there in continuous integration."""
    if shutil.which("numactl") is None:
        if os.environ.get("CI"):
            pytest.fail("numactl is not installed")
        pytest.skip("numactl is not installed")


def need_cpus(count: int) -> list[int]:
    """The first `count` cores' first cpus; skips where there are fewer, fails so in CI."""
    machine = read_machine()
    topology, allowed = machine.topology, machine.allowed.cpus
    cores = topology.groups("core", allowed) or [CpuSet([c]) for c in allowed]
    if len(cores) < count:
        if os.environ.get("CI"):
            pytest.fail(f"fewer than {count} cores")
        pytest.skip(f"fewer than {count} cores may be used here")
    return [c.first for c in cores[:count]]


def need_binder(binder: str) -> None:
    if binder == "numactl":
        need_numactl()


def find_intel() -> str | None:
    """The directory of Intel's runtime, from the Python package intel-openmp, if there is one."""
    try:
        files = importlib.metadata.files("intel-openmp") or ()
    except importlib.metadata.PackageNotFoundError:
        return None
    found = next(str(f.locate()) for f in files if f.name == "libiomp5.so")
    return os.path.dirname(os.path.realpath(found))


def require_intel() -> str:
    """The same; skips the test where it is not there."""
    if platform.machine() != "x86_64":
        pytest.skip("Intel's OpenMP runtime is for x86-64 only")
    return find_intel() or unavailable(
        "there is no intel-openmp; `pip install --group dev` installs it"
    )


def find_torch() -> str:
    """The directory of the libgomp that torch brings."""
    spec = importlib.util.find_spec("torch")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("there is no torch; `pip install --group torch` installs it")
    folder = Path(spec.submodule_search_locations[0]) / "lib"
    if not (folder / "libgomp.so.1").exists():
        pytest.skip("this torch brings no libgomp of its own")
    return str(folder)
