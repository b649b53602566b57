"""What several tests share: the program under test, compiled workers, a plain environment."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.support.commands import OMPBIND, TIMEOUT, environment
from tests.support.needs import (
    COMPILERS,
    REPOSITORY,
    find_torch,
    need_binder,
    need_cpus,
    require_intel,
    unavailable,
)

# Set where output is wanted at once, it makes several writes of one print: ranks' lines would mix.
os.environ.pop("PYTHONUNBUFFERED", None)
# Whoever else runs ompbind here meanwhile is no business of the tests.
os.environ["OMPBIND_NEIGHBOURS"] = "no"


# No deadline: how long an example takes depends on what else the machine does. CI
# draws the same examples each time, so that what fails there is the change.
settings.register_profile(
    "ompbind",
    deadline=None,
    print_blob=True,
    derandomize="CI" in os.environ,
    suppress_health_check=[HealthCheck.too_slow],
)
# For further versions of Python: the same properties, a look at each.
settings.register_profile("quick", settings.get_profile("ompbind"), max_examples=20)
settings.load_profile("ompbind")


def pytest_configure() -> None:
    """Let what the tests start hear HUP, INT and QUIT although we may have been started by `nohup`
    or in the background of a script: what is ignored stays ignored across an exec, while what is
    handled, by doing nothing, is reset."""
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, lambda *_: None)


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


@pytest.fixture(scope="session")
def plain_environ() -> dict[str, str]:
    """This environment without what steers OpenMP or ompbind, or a library's threads."""
    steering = ("OMP_", "GOMP_", "KMP_", "OMPBIND_", "OPENBLAS_", "MKL_", "GOTO_")
    kept = {k: v for k, v in os.environ.items() if not k.startswith(steering)}
    return kept | {"OMPBIND_NEIGHBOURS": "no"}


@pytest.fixture(params=["numactl", "native"])
def binder(request: pytest.FixtureRequest) -> str:
    """Each way to bind that there is here."""
    need_binder(request.param)
    return str(request.param)


@pytest.fixture(params=[1, 2])
def ranks(request: pytest.FixtureRequest) -> int:
    """One rank, and several, as far as there are cores."""
    need_cpus(request.param)
    return int(request.param)


@pytest.fixture
def start() -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Starts ompbind in the background; whatever is left of it at the end is killed."""
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
