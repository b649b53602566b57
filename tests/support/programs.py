"""The compiled workers."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest

from tests.support.needs import (
    COMPILERS,
    REPOSITORY,
    find_intel,
    find_torch,
    require_intel,
    unavailable,
)
from tests.support.shared import locked, shared_folder

SOURCE = REPOSITORY / "examples" / "openmp" / "where.c"


def can_compile(runtime: str) -> bool:
    """Whether programs can be made for an OpenMP runtime here."""
    return bool(shutil.which(COMPILERS[runtime])) and (
        runtime != "libiomp5" or find_intel() is not None
    )


def compile_where(runtime: str, cross_compiler: str = "") -> str:
    """The path of examples/openmp/where.c compiled for an OpenMP runtime, once in a run of the
    tests; "torch" stands for the libgomp that torch brings. Skips where it cannot be."""
    compiler = cross_compiler or COMPILERS[runtime]
    # A guest of another architecture sees the programs' folder.
    name = f"where-{compiler}" if cross_compiler else f"where-{runtime}"
    program = shared_folder("where") / name
    if not shutil.which(compiler):
        unavailable(f"there is no {compiler}; `tools/setup-system test` installs it")
    options = ["-fopenmp"]
    if runtime == "libiomp5":
        intel = require_intel()
        options = ["-fopenmp=libiomp5", f"-L{intel}", f"-Wl,-rpath,{intel}"]
    elif runtime == "torch":
        options += [f"-Wl,-rpath,{find_torch()}"]
    with locked(name):
        if not program.exists():
            part = f"{program}.part"
            done = subprocess.run(
                [compiler, *options, "-O2", "-o", part, SOURCE],
                capture_output=True,
                text=True,
                timeout=300,
            )
            if done.returncode != 0:
                pytest.fail(f"{compiler} cannot compile {SOURCE.name}: {done.stderr}")
            os.rename(part, program)
    return str(program)


def compile_library(
    name: str, *options: str, source: str = "int here;\n", kind: str = "library"
) -> str:
    """The path of a shared library with this name that does nothing, or what `source` says; or of a
    program. It is compiled once in a run of the tests."""
    folder = shared_folder("libraries")
    file = folder / name
    if not shutil.which("gcc"):
        unavailable("there is no gcc; `tools/setup-system test` installs it")
    with locked(f"library-{name}"):
        if not file.exists():
            code = folder / f"{name}.c"
            code.write_text(source)
            part = f"{file}.part"
            shared = ["-shared", "-fPIC", f"-Wl,-soname,{name}"] if kind == "library" else []
            command = ["gcc", *shared, "-o", part, str(code), *options]
            subprocess.run(command, check=True, timeout=300)
            os.rename(part, file)
    return str(file)
