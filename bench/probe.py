"""Run ompbind's command line and note what each of its processes spends in which phase:

    python probe.py FILE run ARGUMENTS...

appends a line to FILE for each process, as it executes another program or ends: its role, the
phases and the modules that it imported, each with nanoseconds of processor time and page faults, as
a Python literal.
Started by bench/phases.py with the Python that is measured; only the standard library.
"""

from __future__ import annotations

import time

BEGUN = time.process_time_ns()  # before any import of ours

import gc  # noqa: E402
import os  # noqa: E402
import resource  # noqa: E402
import sys  # noqa: E402
from importlib import import_module  # noqa: E402

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

# By module, the functions with which a phase begins and ends; what they call may be another one.
PHASES = {
    "ompbind.options": {"read_arguments": "options", "make_plan_options": "options"},
    "ompbind.resolve": {"resolve_plan": "planning"},
    "ompbind.machine": {"read_machine": "reading"},
    "ompbind.launch": {"run": "preparing"},
    "ompbind.launch.parent": {"wait_for": "waiting"},
}
METHODS = {"ompbind.launch.supervisor": ("Supervisor", {
    "fork_all": "forks", "run": "relaying", "finish": "end"})}  # fmt: skip


class Probe:
    """What this process has spent: `spent` and `imports` by name, as [nanoseconds, page faults]."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.role = "ompbind"
        self.begin()
        self.spent["interpreter"] = [BEGUN, self.faults]

    def begin(self) -> None:
        self.stack = ["other"]
        self.spent: dict[str, list[int]] = {}
        self.imports: dict[str, list[int]] = {}
        self.time, self.faults = look()

    def charge(self) -> None:
        """Charge what has been spent since the last call to the innermost phase."""
        name = self.stack[-1]
        before = self.time, self.faults
        self.time, self.faults = look()
        is_import = name.startswith("import ")
        costs = (self.imports if is_import else self.spent).setdefault(name, [0, 0])
        costs[0] += self.time - before[0]
        costs[1] += self.faults - before[1]

    def enter(self, name: str) -> None:
        self.charge()
        self.stack.append(name)

    def leave(self) -> None:
        self.charge()
        self.stack.pop()

    def write(self, *, executes: bool) -> None:
        self.charge()
        role = self.role
        if role != "ompbind":
            role = "rank" if executes else "supervisor" if "relaying" in self.spent else "watcher"
        line = repr({"role": role, "spent": self.spent, "imports": self.imports})
        file = os.open(self.file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.write(file, line.encode() + b"\n")
        os.close(file)


def look() -> tuple[int, int]:
    return time.process_time_ns(), resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def watch(probe: Probe) -> None:
    """Have the probe told of imports, phases, forks and ends."""
    importing: Any = import_module("importlib._bootstrap")
    load = importing._find_and_load
    fork, execute, leave = os.fork, os.execve, os._exit

    def find_and_load(name: str, import_: Any) -> Any:
        probe.enter(f"import {name}")
        try:
            module = load(name, import_)
        finally:
            probe.leave()
        if name == "ompbind.launch.syscalls":  # ranks execute by the C library's function
            prepare = module.Library.prepare_exec

            def prepare_noted(*args: Any) -> Any:
                call, arguments = prepare(*args)
                return noted(call, True), arguments

            module.Library.prepare_exec = prepare_noted
        for function, phase in PHASES.get(name, {}).items():
            setattr(module, function, in_phase(probe, phase, getattr(module, function)))
        if name in METHODS:
            kind, methods = METHODS[name]
            for function, phase in methods.items():
                owner = getattr(module, kind)
                setattr(owner, function, in_phase(probe, phase, getattr(owner, function)))
        return module

    def fork_noted() -> int:
        probe.charge()
        pid = fork()
        if pid == 0:
            probe.role = "child"
            probe.begin()
        return pid

    def noted(end: Any, executes: bool) -> Any:
        def end_noted(*args: object) -> Any:
            probe.write(executes=executes)
            return end(*args)

        return end_noted

    importing._find_and_load = find_and_load
    os.fork, os._exit = fork_noted, noted(leave, False)
    os.execve = noted(execute, True)


def in_phase(probe: Probe, phase: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that is charged to a phase."""

    def call(*args: Any, **keywords: Any) -> Any:
        probe.enter(phase)
        depth = len(probe.stack)
        try:
            return function(*args, **keywords)
        finally:
            if len(probe.stack) == depth:  # else this is another process, which has begun anew
                probe.leave()

    return call


if __name__ == "__main__":
    del sys.path[0]  # this folder
    gc.disable()
    watch(Probe(sys.argv[1]))
    from ompbind.cli import leave, main

    leave(main(sys.argv[2:]))
