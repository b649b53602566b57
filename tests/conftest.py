"""What several tests share: the program under test, compiled workers, a plain environment."""

from __future__ import annotations

import contextlib
import gc
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Generator, Iterator, Sequence
from functools import partial
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.guest.architectures import ARCHITECTURES
from tests.guest.boots import end_boots, start_boots
from tests.guest.cases import BOOTS
from tests.guest.cases.case import RUNTIMES
from tests.guest.guest import why_no_boots
from tests.support.bytecode import compile_modules, keep_bytecode, rewrite_share
from tests.support.commands import OMPBIND, TIMEOUT, environment
from tests.support.forks import Server
from tests.support.needs import REPOSITORY, need_binder, need_cpus
from tests.support.programs import can_compile, compile_where
from tests.support.shared import (
    alone,
    beside_others,
    keep_files_in_memory,
    make_shared_folder,
    remove_shared_folder,
    shared_folder,
)

# Set where output is wanted at once, it makes several writes of one print: ranks' lines would mix.
os.environ.pop("PYTHONUNBUFFERED", None)
# pytest's processes beside the first have it, and a pipe has no width.
os.environ.pop("COLUMNS", None)
# Whoever else runs ompbind here meanwhile is no business of the tests.
os.environ["OMPBIND_NEIGHBOURS"] = "no"


# No deadline: how long an example takes depends on what else the machine does. CI
# draws the same examples each time, so that what fails there is the change.
settings.register_profile(
    "ompbind",
    deadline=None,
    print_blob=True,
    derandomize="CI" in os.environ,
    # In a checkout that is not ours to write in there is none, about which Hypothesis would warn.
    **({} if os.access(REPOSITORY, os.W_OK) else {"database": None}),
    suppress_health_check=[HealthCheck.too_slow],
)
# For further versions of Python: the same properties, a look at each.
settings.register_profile("quick", settings.get_profile("ompbind"), max_examples=20)
settings.load_profile("ompbind")


def pytest_configure(config: pytest.Config) -> None:
    """Let what the tests start hear HUP, INT and QUIT although we may have been started by `nohup`
    or in the background of a script: what is ignored stays ignored across an exec, while what is
    handled, by doing nothing, is reset."""
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, lambda *_: None)
    config.addinivalue_line("markers", "alone: no other test may run at the same time")
    keep_bytecode()
    if is_first(config):
        compile_modules()
        make_shared_folder()
        # Alone, pytest keeps a failed test's files.
        if config.getoption("numprocesses", None) and (folder := keep_files_in_memory()):
            config.add_cleanup(partial(shutil.rmtree, folder, ignore_errors=True))


def pytest_unconfigure(config: pytest.Config) -> None:
    if is_first(config):
        end_boots(shared_folder("guest"))
        remove_shared_folder()


def is_first(config: pytest.Config) -> bool:
    """Whether this process was started by the user, not by pytest-xdist."""
    return not hasattr(config, "workerinput")


@pytest.hookimpl(wrapper=True)
def pytest_collection(session: pytest.Session) -> Generator[None, object, object]:
    """Python looks for garbage among what tests make, not among the tests: collecting them makes
    much that stays, and no garbage."""
    if not is_first(session.config):
        worker = session.config.workerinput  # type: ignore[attr-defined]
        number = int(worker["workerid"].removeprefix("gw"))
        rewrite_share(session.config.args, number, worker["workercount"])
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The guests' tests come last: their boots begin with the first test and take long."""
    items.sort(key=is_of_guest)


def is_of_guest(item: pytest.Item) -> bool:
    return "booted" in getattr(item, "fixturenames", ())


def pytest_collection_finish(session: pytest.Session) -> None:
    """One process starts the boots, if any of their tests is to run."""
    if (
        os.environ.get("PYTEST_XDIST_WORKER", "gw0") == "gw0"
        and not session.config.option.collectonly
        and any(map(is_of_guest, session.items))
    ):
        start_boots(shared_folder("guest"), OMPBIND, compile_programs())


def compile_programs() -> list[str]:
    """For each architecture that can be booted here its workers, as ARCHITECTURE/RUNTIME=PATH."""
    programs = []
    for name in dict.fromkeys(boot.architecture for boot in BOOTS.values()):
        architecture = ARCHITECTURES[name]
        if why_no_boots(architecture):
            continue
        if architecture.is_native:
            workers = {r: compile_where(r) for r in RUNTIMES if can_compile(r)}
        else:
            workers = {"libgomp": compile_where("libgomp", architecture.compiler)}
        programs += [f"{name}/{runtime}={path}" for runtime, path in workers.items()]
    return programs


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Keeps other processes' tests away from one that is marked `alone`."""
    with alone() if item.get_closest_marker("alone") else beside_others():
        return (yield)


@pytest.fixture(scope="session")
def ompbind() -> str:
    """The path of the installed command under test."""
    beside = Path(sys.executable).with_name("ompbind")
    found = str(beside) if beside.exists() else shutil.which("ompbind")
    if not found:
        pytest.fail("ompbind is not installed here: pip install -e .")
    return found


@pytest.fixture(scope="session")
def where() -> Callable[[str], str]:
    """examples/openmp/where.c for an OpenMP runtime: where("libgomp") is a path."""
    return compile_where


@pytest.fixture(scope="session")
def plain_environ() -> dict[str, str]:
    """This environment without what steers OpenMP or ompbind, or a library's threads."""
    steering = ("OMP_", "GOMP_", "KMP_", "OMPBIND_", "OPENBLAS_", "MKL_", "GOTO_")
    kept = {k: v for k, v in os.environ.items() if not k.startswith(steering)}
    return kept | {"OMPBIND_NEIGHBOURS": "no"}


@pytest.fixture(scope="session")
def forks() -> Iterator[Server]:
    """Runs the command line where its process is not what is tested."""
    with Server() as server:
        yield server


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
