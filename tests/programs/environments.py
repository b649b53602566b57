"""The environments of programs: made from dependency groups of pyproject.toml as those of the
engines are, and kept beside them in the user's cache. To two of them something is added that no
wheel has: NumPy with MKL, and llama.cpp's server."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.jobs.environments import SIZES as ENGINES
from tests.jobs.environments import cache_folder, need_environment, set_up
from tests.programs.llama_server import SUITE, has_llama_server, make_llama_server

WANTED = "OMPBIND_TEST_PROGRAMS"  # set by `make test-programs`
# By group, with their sizes in MB.
SIZES = {"programs": 640, "mkl": 1100, "llamacpp": 180, "torchrun": ENGINES["torchrun"]}
# NumPy's wheels bring OpenBLAS: with MKL it has to be compiled. One instruction set is enough here.
NUMPY = "numpy==2.4.6"
MKL = "mkl-dynamic-lp64-iomp"


def need_program_environment(group: str) -> Path:
    """Return the folder of an environment's programs; skips without `make test-programs`."""
    return need_environment(group, WANTED, "tests.programs")


def set_up_program(group: str) -> None:
    """Make an environment where it is missing. Raises CalledProcessError, PlaceError."""
    set_up(group, SIZES[group])
    if group == "llamacpp" and not has_llama_server(cache_folder() / group):
        print(f"make: unpacking llama.cpp's server of Debian's {SUITE}", file=sys.stderr)
        make_llama_server(cache_folder() / group)
    if group == "mkl" and not is_compiled():
        print(f"make: compiling {NUMPY} with MKL", file=sys.stderr)
        folder = cache_folder() / group
        python = str(folder / "bin/python")
        options = [f"-Csetup-args=-D{name}={MKL}" for name in ("blas", "lapack")]
        options += ["-Csetup-args=-Dcpu-dispatch=none", "--no-binary", "numpy"]
        subprocess.run(
            [python, "-m", "pip", "--quiet", "--disable-pip-version-check", "install",
             "--no-cache-dir", *options, NUMPY],
            env=os.environ | {"PKG_CONFIG_PATH": str(folder / "lib/pkgconfig")},
            check=True, stdin=subprocess.DEVNULL, stdout=sys.stderr,
        )  # fmt: skip


def is_compiled() -> bool:
    """Whether there is a NumPy that uses MKL."""
    code = "import numpy; print(numpy.show_config('dicts')['Build Dependencies']['blas']['name'])"
    python = cache_folder() / "mkl" / "bin" / "python"
    done = subprocess.run([str(python), "-c", code], capture_output=True, text=True)
    return done.stdout.strip() == MKL
