"""What pytest loads for a mutation run (`-p tests.mutants.plugin`): a server of test runs.

When the tests are collected, it reads requests, one JSON object a line, from the file descriptor
that OMPBIND_MUTANTS names first, runs the tests in a fork of itself, and answers on the second. So
one collection serves for many changes. A request is one of

    record   a test file, with the `path` where what its tests do is written (`Record`), and that
             of a file to which the processes that they start may write (`noted`)
    recorded such paths: what was written there is what later requests go by
    only     a test that alone is run, `patience` times its usual duration at most, and the same
             number of seconds
    lines    of a module, first and last: the tests that run one of these are run; null: all are

with, for the last two,

    module   the module that was changed, as "planner/division": its file is changed already, which
             is what new processes see; here its functions take over the code in the file; "": the
             tests have imported the change
    first    tests that are run before the others, which come in the order of their durations
    started  false: only tests that start no processes, which do not need to be asked about again:
             they fail with the change twice, and pass without it, at once; true: only the others
    longest  seconds that a test takes which is run
    budget   seconds of the processor after which no further test is run
    skip     tests that are not run

The answer is the first test that fails, hangs or dies, behind a "!" where it needs no further run;
"" if none does; or null where the module's functions cannot take the new code over.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import re
import resource
import select
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any, NamedTuple

import psutil
import pytest
from hypothesis import HealthCheck, Phase, settings

from tests.mutants import lines

PATIENCE = 10  # of a request
TRIES = 10  # failures that say nothing, after which a change has survived
HANG = 120  # seconds in which a test of no processes has used its few seconds of the processor
ASLEEP = 15  # seconds in which it has used none, and does not want to
MEMORY = 2 << 30  # bytes that such a test may take
ROOT = Path(__file__).parents[2]

settings.register_profile(
    "mutants",
    deadline=None,
    database=None,
    derandomize=True,  # a killed mutant stays killed
    max_examples=30,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)


class Record(NamedTuple):
    """What a test does without a change."""

    took: float  # seconds; of the processor where it starts no processes
    starts: bool  # processes
    passed: bool
    lines: dict[str, list[int]] | None  # that it runs, by module; None: not known


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
        self.tests: dict[str, Record] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.failed.append(report.nodeid)

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        become_subreaper()
        requests, answers = map(int, os.environ["OMPBIND_MUTANTS"].split(","))
        with os.fdopen(requests) as requested, os.fdopen(answers, "w") as out:
            print("null", file=out, flush=True)  # the tests are collected
            for line in requested:
                request = json.loads(line)
                if paths := request.get("recorded"):
                    self.tests = {test: Record(*record) for path in paths for test, record in
                                  json.loads(Path(path).read_text()).items()}  # fmt: skip
                    continue
                gc.collect()
                gc.freeze()  # a collection in a fork would copy what it looks at
                reader, writer = os.pipe()
                if (pid := os.fork()) == 0:
                    try:
                        here = os.getpid()
                        answer = self.run(session.items, request, writer)
                        if os.getpid() == here:  # not a test's fork that a change let go on
                            self.send(writer, answer)
                            os._exit(0)  # at once, without what pytest does at its end
                    finally:
                        os._exit(1)
                os.close(writer)
                answer = self.wait(pid, reader, request)
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

    def wait(self, pid: int, reader: int, request: dict[str, Any]) -> object:
        """Return the answer of a fork, or the test in which it died, or hangs in spite of its own
        limit; "died" if that is before any test."""
        test, limit = "died", None if "record" in request else float(HANG)
        left = b""
        while self.can_read(reader, limit, None if request.get("started", True) else pid):
            if not (data := os.read(reader, 1 << 20)):
                break
            *answers, left = (left + data).split(b"\n")
            for value in map(json.loads, answers):
                if not isinstance(value, list):
                    return value
                (test,) = value
                limit = 2 * limit_of(request, self.tests[test].took) + 10
                if not request["started"]:
                    limit = max(limit, HANG)
        return test

    def can_read(self, reader: int, limit: float | None, pid: int | None) -> bool:
        """Wait for an answer; false where none comes in time. `pid`: of a fork whose tests start no
        processes, so that one which sleeps will never wake up."""
        begin, asleep, used = time.monotonic(), 0.0, -1.0
        while limit is None or time.monotonic() - begin < limit:
            if select.select([reader], [], [], 1.0)[0]:
                return True
            if pid is not None and limit is not None:
                with suppress(psutil.NoSuchProcess):
                    process = psutil.Process(pid)
                    idle = process.status() == psutil.STATUS_SLEEPING
                    before, used = used, process.cpu_times().user
                    asleep = asleep + 1 if idle and used == before else 0
                if asleep > ASLEEP:
                    return False
        return False

    def run(self, items: Sequence[pytest.Item], request: dict[str, Any], writer: int) -> object:
        if file := request.get("record"):
            chosen = [item for item in items if item.nodeid.startswith(f"{file}::")]
            Path(request["path"]).write_text(json.dumps(self.record(chosen, request["noted"])))
            return ""
        change = Change(request["module"])
        if not change.make():
            return None
        by_name = {item.nodeid: item for item in items}
        if only := request.get("only"):
            self.send(writer, [only])
            return "" if self.passes(by_name[only], request) else only
        if not request["started"]:
            resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
        tries, begin = 0, time.process_time()
        for test in self.choose(request):
            self.send(writer, [test])
            if self.passes(by_name[test], request):
                if time.process_time() - begin > request["budget"]:
                    break
                continue
            if request["started"] or not request["module"]:
                return test
            fails = not self.passes(by_name[test], request)
            change.undo()
            if fails and self.passes(by_name[test], request):
                return f"!{test}"
            change.make()
            tries += 1
            if tries == TRIES:
                break
        return ""

    def choose(self, request: dict[str, Any]) -> list[str]:
        """Return the tests that may notice a change, in the order in which they are run."""
        module, wanted = request["place"], request["lines"]
        order = []
        for test, record in self.tests.items():
            if not record.passed or record.starts != request["started"] or test in request["skip"]:
                continue
            if record.took > request["longest"]:
                continue
            if wanted is not None and record.lines is not None:
                first, last = wanted
                if not any(first <= n <= last for n in record.lines.get(module, ())):
                    continue
            touches = record.lines is None or module in record.lines
            order.append((test not in request["first"], not touches, record.took, test))
        return [test for *_, test in sorted(order)]

    def passes(self, item: pytest.Item, request: dict[str, Any]) -> bool:
        """Run one test, for so many seconds at most: of the processor where it starts no processes,
        as then all that it can do is to compute."""
        record = self.tests[item.nodeid]
        limit = limit_of(request, record.took)
        timer, number = (
            (signal.ITIMER_REAL, signal.SIGALRM)
            if record.starts
            else (signal.ITIMER_PROF, signal.SIGPROF)
        )

        def give_up(*_: object) -> None:
            raise KeyboardInterrupt  # nothing that a test catches

        self.failed.clear()
        signal.signal(number, give_up)
        signal.setitimer(timer, limit if record.starts else limit / 5, 1)
        try:
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=None)
        except BaseException:  # pytest lets KeyboardInterrupt through
            return False
        finally:
            signal.setitimer(timer, 0)
        return not self.failed

    def record(self, items: Sequence[pytest.Item], path: str) -> dict[str, Record]:
        """Run all tests and note what each one does. One that fails while it is watched is run once
        more without that."""
        noted = Path(path)
        noted.touch()
        noted.chmod(0o666)  # some tests run as another user
        folder = f"{ROOT / 'ompbind'}/"
        started: list[str] = []

        def audit(event: str, arguments: object) -> None:
            if event in ("subprocess.Popen", "os.fork", "os.posix_spawn", "os.exec", "os.system"):
                started.append(event)

        sys.addaudithook(audit)
        tests = {}
        for item in items:
            self.failed.clear()
            started.clear()
            lines.seen.clear()
            os.truncate(noted, 0)
            lines.start(folder, str(noted), os.getpid())
            begin, used = time.monotonic(), time.process_time()
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=None)
            took, used = time.monotonic() - begin, time.process_time() - used
            lines.stop()
            ran: dict[str, list[int]] = {}
            of_forks = (line.rsplit("\t", 1) for line in noted.read_text().splitlines())
            for name, number in [*lines.seen, *((name, int(n)) for name, n in of_forks)]:
                module = name.removeprefix(folder).removesuffix(".py")
                if module.startswith(("planner/", "verify/", "launch/")):
                    ran.setdefault(module, []).append(number)
            if unknown := bool(self.failed):
                self.failed.clear()
                item.config.hook.pytest_runtest_protocol(item=item, nextitem=None)
            tests[item.nodeid] = Record(
                took if started else used,
                bool(started),
                not self.failed,
                None if unknown else ran,
            )
        return tests


def limit_of(request: dict[str, Any], took: float) -> float:
    """Return the seconds that a test may take."""
    return float(request.get("patience", PATIENCE) * (1 + took))


class Change:
    """What a module's file is now, taken over by what was imported from it: `planner/division`."""

    def __init__(self, place: str) -> None:
        self.place = place
        self.old: list[Callable[[], None]] = []  # what undoes it

    def make(self) -> bool:
        """Returns whether all could take it."""
        if not self.place:
            return True
        name = f"ompbind.{self.place}".replace("/", ".").removesuffix(".__init__")
        module = sys.modules.get(name)
        return module is not None and take_over(module, self.old)

    def undo(self) -> None:
        while self.old:
            self.old.pop()()


def take_over(module: ModuleType, old: list[Callable[[], None]]) -> bool:
    """Give a loaded module's functions the code that is now in its file, and plain values what they
    are there, wherever they were imported to; appends what undoes each step to `old`, and returns
    whether all could take it."""
    file = module.__file__ or ""
    fresh: dict[str, Any] = {"__name__": module.__name__, "__package__": module.__package__,
                             "__file__": file, "__builtins__": __builtins__}  # fmt: skip
    with open(file, "rb") as source:
        exec(compile(source.read(), file, "exec"), fresh)
    pairs = [(getattr(module, name, None), new) for name, new in fresh.items()]
    try:
        for before, new in functions(pairs, module.__name__):
            names = ("__code__", "__defaults__", "__kwdefaults__")
            old.extend(partial(setattr, before, n, getattr(before, n)) for n in names)
            for name in names:
                setattr(before, name, getattr(new, name))
    except ValueError:  # other variables of the function around it
        return False
    return take_values_over(module, fresh, old)


def take_values_over(
    module: ModuleType, fresh: dict[str, Any], old: list[Callable[[], None]]
) -> bool:
    for name, new in fresh.items():
        before = vars(module).get(name)
        if name.startswith("__") or not is_plain(before) or not is_plain(new) or before == new:
            continue
        for other in list(sys.modules.values()):
            names = getattr(other, "__dict__", {})
            if names.get(name, fresh) is before:
                old.append(partial(names.__setitem__, name, before))
                names[name] = new
    return True


def is_plain(value: object) -> bool:
    """Whether a value is made of no functions or classes, so that it is the same in any module."""
    if isinstance(value, dict):
        return all(is_plain(item) for pair in value.items() for item in pair)
    if isinstance(value, (tuple, list, set, frozenset)):
        return type(value) in (tuple, list, set, frozenset) and all(map(is_plain, value))
    return value is None or type(value) in (bool, int, float, str, bytes, re.Pattern)


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
