"""What several tests share: the program under test, compiled workers, a plain environment."""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import os
import platform
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NoReturn

import pytest

# Set where output is wanted at once, it makes several writes of one print: ranks' lines would mix.
os.environ.pop("PYTHONUNBUFFERED", None)
# Whoever else runs ompbind here meanwhile is no business of the tests.
os.environ["OMPBIND_NEIGHBOURS"] = "no"

REPOSITORY = Path(__file__).parents[1]
COMPILERS = {"libgomp": "gcc", "libomp": "clang", "libiomp5": "clang", "torch": "gcc"}


def unavailable(reason: str) -> NoReturn:
    """Skips a test that this machine lacks something for; where CI runs, nothing may be lacking."""
    if os.environ.get("CI"):
        pytest.fail(f"{reason} (a failure, as CI is set)")
    pytest.skip(reason)


@pytest.fixture(scope="session")
def ompbind() -> str:
    """The path of the installed command under test."""
    beside = Path(sys.executable).with_name("ompbind")
    found = str(beside) if beside.exists() else shutil.which("ompbind")
    if not found:
        pytest.fail("ompbind is not installed here: pip install -e .")
    return found


@pytest.fixture(scope="session")
def where(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """Compiles examples/openmp/where.c for an OpenMP runtime, once: where("libgomp") is a path,
    where("torch") one that runs with the libgomp that torch brings."""
    folder = tmp_path_factory.mktemp("where")

    def compiled(runtime: str) -> str:
        program = folder / f"where-{runtime}"
        if not program.exists():
            compiler = COMPILERS[runtime]
            if not shutil.which(compiler):
                unavailable(f"there is no {compiler}; `tools/setup-system test` installs it")
            source = REPOSITORY / "examples" / "openmp" / "where.c"
            command = [compiler, "-fopenmp", "-O2"]
            if runtime == "libiomp5":
                intel = require_intel()
                command = [
                    compiler,
                    "-fopenmp=libiomp5",
                    "-O2",
                    f"-L{intel}",
                    f"-Wl,-rpath,{intel}",
                ]
            elif runtime == "torch":
                command += [f"-Wl,-rpath,{find_torch()}"]
            done = subprocess.run(
                [*command, "-o", program, source], capture_output=True, text=True, timeout=120
            )
            if done.returncode != 0:
                pytest.fail(f"{compiler} cannot compile {source.name}: {done.stderr}")
        return str(program)

    return compiled


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


@pytest.fixture(scope="session")
def plain_environ() -> dict[str, str]:
    """This environment without what steers OpenMP or ompbind, or a library's threads."""
    steering = ("OMP_", "GOMP_", "KMP_", "OMPBIND_", "OPENBLAS_", "MKL_", "GOTO_")
    kept = {k: v for k, v in os.environ.items() if not k.startswith(steering)}
    return kept | {"OMPBIND_NEIGHBOURS": "no"}


@pytest.fixture(params=["numactl", "native"])
def binder(request: pytest.FixtureRequest) -> str:
    """Each way to bind that there is here."""
    from tests.test_command_line import need_binder

    need_binder(request.param)
    return str(request.param)


@pytest.fixture(params=[1, 2])
def ranks(request: pytest.FixtureRequest) -> int:
    """One rank, and several, as far as there are cores."""
    from tests.test_command_line import need_cpus

    need_cpus(request.param)
    return int(request.param)


@pytest.fixture
def start() -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Starts ompbind in the background; whatever is left of it at the end is killed."""
    from tests.test_command_line import OMPBIND, TIMEOUT, environment

    started: list[subprocess.Popen[bytes]] = []

    def start_one(
        *args: str, under: Sequence[str] = (), stdin: int = subprocess.DEVNULL
    ) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [*under, OMPBIND, *args],
            env=environment(),
            stdin=stdin,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        started.append(process)
        return process

    yield start_one
    for process in started:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # its session is its own: workers too
        process.communicate(timeout=TIMEOUT)
