"""What pytest loads for a mutation run (`-p tests.mutants.plugin`).

OMPBIND_MUTANTS names a directory. With OMPBIND_MUTANTS_RECORD set, the run writes there how long
each test took and which functions of ompbind it called in this process. Without it, those tests
run first that call the function OMPBIND_MUTANTS_FUNCTION, the fastest foremost, each for a limited
time, and the name of the first that fails is written there.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings

FOLDER = Path(os.environ.get("OMPBIND_MUTANTS", "."))
RECORD = "OMPBIND_MUTANTS_RECORD" in os.environ
HUNG = 99  # the exit status when a test took too long
PATIENCE = 10  # times its usual duration that a test may take, and the same number of seconds

settings.register_profile(
    "mutants",
    deadline=None,
    database=None,
    derandomize=True,  # a killed mutant stays killed
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)


def pytest_configure(config: pytest.Config) -> None:
    settings.load_profile("mutants")
    config.pluginmanager.register(Recorder() if RECORD else Runner())


class Recorder:
    """Writes each test's duration in seconds and the functions it calls, as "file:name"."""

    def __init__(self) -> None:
        self.tests: dict[str, tuple[float, list[str]]] = {}

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        codes = set()

        def note(frame: FrameType, event: str, argument: Any) -> None:
            if event == "call":
                codes.add(frame.f_code)

        started = time.monotonic()
        sys.setprofile(note)
        yield
        sys.setprofile(None)
        took = time.monotonic() - started
        names = {f"{c.co_filename}:{c.co_name}" for c in codes if "/ompbind/" in c.co_filename}
        self.tests[item.nodeid] = (took, sorted(names))

    def pytest_sessionfinish(self) -> None:
        (FOLDER / "tests.json").write_text(json.dumps(self.tests))


class Runner:
    """Orders the tests and stops at the first that fails or hangs."""

    def __init__(self) -> None:
        self.tests: dict[str, tuple[float, list[str]]] = json.loads(
            (FOLDER / "tests.json").read_text()
        )
        self.function = os.environ.get("OMPBIND_MUTANTS_FUNCTION", "")

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        def order(item: pytest.Item) -> tuple[bool, float]:
            took, called = self.tests.get(item.nodeid, (0.0, []))
            return not any(name.endswith(self.function) for name in called), took

        items.sort(key=order)

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        took, _ = self.tests.get(item.nodeid, (0.0, []))

        def give_up(*_: object) -> None:
            (FOLDER / "failed").write_text(item.nodeid)
            os._exit(HUNG)

        signal.signal(signal.SIGALRM, give_up)
        signal.setitimer(signal.ITIMER_REAL, PATIENCE * (1 + took))
        yield
        signal.setitimer(signal.ITIMER_REAL, 0)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            (FOLDER / "failed").write_text(report.nodeid)
