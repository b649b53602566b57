"""What pytest loads for a mutation run (`-p tests.mutants.plugin`): a server of test runs.

When the tests are collected, it reads requests, one JSON object a line, from the file descriptor
that OMPBIND_MUTANTS names first, runs the tests in a fork of itself, and answers on the second. So
one collection serves for many changes. A request names

    record   true: run all, and note each test's duration, the functions of ompbind it calls in
             this process, whether it starts others, and whether it passes; the answer is a
             dictionary of these by test
    module   the module that was changed, as "ompbind.planner"; its file is changed already, which
             is what new processes see; in this one its functions take over the code in the file
    function the end of "file:name": only tests that call it are run, the fastest first; "": all
    started  true: tests that start processes are run as well, after these
    skip     tests that are not run
    only     tests that alone are run
    tests    what was recorded
    patience times its usual duration that a test may take, and the same number of seconds

and the answer is the first test that fails, hangs or dies, "" if none does, or null where the
module's functions cannot take the new code over.
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from types import CodeType, FrameType, FunctionType, ModuleType
from typing import Any

import psutil
import pytest
from hypothesis import HealthCheck, Phase, settings

PATIENCE = 10  # of a request

settings.register_profile(
    "mutants",
    deadline=None,
    database=None,
    derandomize=True,  # a killed mutant stays killed
    max_examples=30,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)

Recorded = dict[str, tuple[float, list[str], bool, bool]]


def become_subreaper() -> None:
    """Let what a run leaves behind be this process's children."""
    ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER


def end_children() -> None:
    """Kill all processes below this one."""
    while children := psutil.Process().children(recursive=True):
        for child in children:
            with suppress(psutil.NoSuchProcess):
                child.kill()
        psutil.wait_procs(children)


def pytest_configure(config: pytest.Config) -> None:
    settings.load_profile("mutants")
    config.pluginmanager.register(Server())


class Server:
    """Runs the collected tests once for each request."""

    def __init__(self) -> None:
        self.failed: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.failed.append(report.nodeid)

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        become_subreaper()
        requests, answers = map(int, os.environ["OMPBIND_MUTANTS"].split(","))
        with os.fdopen(requests) as lines, os.fdopen(answers, "w") as out:
            print("null", file=out, flush=True)  # the tests are collected
            for line in lines:
                request = json.loads(line)
                reader, writer = os.pipe()
                if os.fork() == 0:
                    try:
                        here = os.getpid()
                        answer = self.run(session.items, request, writer)
                        if os.getpid() == here:  # not a test's fork that a change let go on
                            self.send(writer, answer)
                            os._exit(0)  # at once, without what pytest does at its end
                    finally:
                        os._exit(1)
                os.close(writer)
                answer = self.wait(reader, request)
                end_children()
                os.close(reader)
                out.write(json.dumps(answer) + "\n")
                out.flush()
        return True

    def send(self, writer: int, value: object) -> None:
        """Write the answer, or before a test a list of its name."""
        data = json.dumps(value).encode() + b"\n"
        while data:
            data = data[os.write(writer, data) :]

    def wait(self, reader: int, request: dict[str, Any]) -> object:
        """Return the answer of a fork, or the test in which it died, or hangs in spite of its own
        limit; "died" if that is before any test."""
        test, limit = "died", None
        tests: Recorded = request.get("tests", {})
        left = b""
        while select.select([reader], [], [], limit)[0]:
            if not (data := os.read(reader, 1 << 20)):
                break
            *lines, left = (left + data).split(b"\n")
            for value in map(json.loads, lines):
                if not isinstance(value, list):
                    return value
                (test,) = value
                took = tests[test][0] if test in tests else 0.0
                limit = 2 * limit_of(request, took) + 10
        return test

    def run(self, items: Sequence[pytest.Item], request: dict[str, Any], writer: int) -> object:
        if request.get("record"):
            return self.record(items)
        module = sys.modules.get(request.get("module", ""))
        if module is not None and not take_over(module):
            return None
        tests: Recorded = request["tests"]
        only, skip = request.get("only"), request.get("skip", [])
        order: list[tuple[bool, float, int]] = []
        for i, item in enumerate(items):
            took, called, starts, _ = tests.get(item.nodeid, (0.0, [], True, True))
            function = request["function"]
            calls = not function or any(name.endswith(function) for name in called)
            if (
                (calls or (starts and request["started"]))
                and item.nodeid not in skip
                and only in (None, [item.nodeid])
            ):
                order.append((not calls, took, i))
        for _, took, i in sorted(order):
            self.send(writer, [items[i].nodeid])
            if not self.passes(items[i], limit_of(request, took)):
                return items[i].nodeid
        return ""

    def passes(self, item: pytest.Item, limit: float) -> bool:
        """Run one test, for so many seconds at most."""

        def give_up(*_: object) -> None:
            raise KeyboardInterrupt  # nothing that a test catches

        signal.signal(signal.SIGALRM, give_up)
        signal.setitimer(signal.ITIMER_REAL, limit, 1)
        try:
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=None)
        except BaseException:  # pytest lets KeyboardInterrupt through
            return False
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        return not self.failed

    def record(self, items: Sequence[pytest.Item]) -> Recorded:
        """Run all tests and note what each one does."""
        tests: Recorded = {}
        codes: set[CodeType] = set()
        started: list[str] = []

        def note(frame: FrameType, event: str, argument: Any) -> None:
            if event == "call":
                codes.add(frame.f_code)

        def audit(event: str, arguments: object) -> None:
            if event in ("subprocess.Popen", "os.fork", "os.posix_spawn", "os.exec", "os.system"):
                started.append(event)

        sys.addaudithook(audit)
        threading.setprofile(note)
        for item in items:
            codes.clear()
            started.clear()
            self.failed.clear()
            begin = time.monotonic()
            sys.setprofile(note)
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=None)
            sys.setprofile(None)
            took = time.monotonic() - begin
            names = {f"{c.co_filename}:{c.co_name}" for c in codes
                     if "/ompbind/" in c.co_filename}  # fmt: skip
            tests[item.nodeid] = (took, sorted(names), bool(started), not self.failed)
        return tests


def limit_of(request: dict[str, Any], took: float) -> float:
    """Return the seconds that a test may take."""
    return float(request.get("patience", PATIENCE) * (1 + took))


def take_over(module: ModuleType) -> bool:
    """Give a loaded module's functions the code that is now in its file, wherever they were
    imported to; returns whether all could take it."""
    file = module.__file__ or ""
    fresh: dict[str, Any] = {"__name__": module.__name__, "__package__": module.__package__,
                             "__file__": file, "__builtins__": __builtins__}  # fmt: skip
    with open(file, "rb") as source:
        exec(compile(source.read(), file, "exec"), fresh)
    pairs = [(getattr(module, name, None), new) for name, new in fresh.items()]
    try:
        for old, new in functions(pairs, module.__name__):
            old.__code__ = new.__code__
            old.__defaults__, old.__kwdefaults__ = new.__defaults__, new.__kwdefaults__
    except ValueError:  # other variables of the function around it
        return False
    return True


def functions(
    pairs: Sequence[tuple[Any, Any]], module: str
) -> Iterator[tuple[FunctionType, FunctionType]]:
    """Yield the functions and methods that a module itself defines, each with its new self."""
    for old, new in pairs:
        if type(old) is not type(new) or getattr(new, "__module__", module) != module:
            continue
        if isinstance(new, type):
            yield from functions([(vars(old).get(n), v) for n, v in vars(new).items()], module)
        elif isinstance(new, property):
            yield from functions([(old.fget, new.fget), (old.fset, new.fset)], module)
        elif isinstance(new, (staticmethod, classmethod)):
            yield from functions([(old.__func__, new.__func__)], module)
        elif isinstance(new, FunctionType):
            yield from functions(
                [(getattr(old, "__wrapped__", None), getattr(new, "__wrapped__", None))], module
            )
            if hasattr(new, "__wrapped__"):
                continue
            yield old, new
