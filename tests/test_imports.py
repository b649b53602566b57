"""The structure of DESIGN.md, held by reading the source.

ALLOWED is the structure: for each module the modules of ompbind that it may import, anywhere in it
and also only for its types. A module may import from rows above its own, never from below, so there
are no cycles. A new module needs a row; think where it belongs:

- values and notations: errors, record, cpuset, root, topology
- readers, each given a root: procfs, sysfs and the other systems'; machine chooses one
- pure parts: numactl, openmp, plans, options, arguments, request, outline; the planner and its
  parts: cores, dividing, dealing, memory
- the outside world: program, elf and runtime (look at files), syscalls and launch (start and bind)
- worker-side fixes: fixes.worker knows nothing of ompbind, and ompbind of it only what it offers
- what joins them: prepare, render and cli (the only importers of rich and typer), commands
- what a Python program sees: api, multiprocessing; __init__ names it all, for whoever asks

launch knows Plan and not the planner, so that a saved plan runs alone.
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "ompbind"

ALLOWED: dict[str, str] = {
    # values
    "errors": "",
    "record": "",
    "cpuset": "errors",
    "root": "",
    "topology": "cpuset record",
    "colours": "",
    # readers
    "procfs": "cpuset errors record root topology",
    "processes": "cpuset errors procfs record root",
    "sysfiles": "cpuset errors root",
    "pci": "cpuset errors root sysfiles topology",
    "gpufiles": "cpuset root sysfiles topology",
    "sysfs": "cpuset errors gpufiles pci procfs record root sysfiles topology",
    "conditions": "cpuset procfs record root",
    "darwin": "cpuset errors record root topology",
    "generic": "cpuset errors record root topology",
    "hwloc": "cpuset errors pci record root topology",
    "snapshot": "errors record root",
    "machine": "errors root topology pci procfs sysfs darwin generic hwloc snapshot",
    # pure parts
    "devices": "record",
    "visible": "devices record topology",
    "numactl": "cpuset",
    "claims": "cpuset",
    "places": "cpuset errors",
    "openmp": "cpuset errors places record",
    "template": "cpuset errors",
    "plans": "cpuset errors numactl openmp record",
    "options": "record",
    "arguments": "cpuset errors options",
    "request": "arguments cpuset errors openmp record visible",
    "cores": "cpuset errors record request topology",
    "dividing": "cores topology",
    "dealing": "cores cpuset dividing errors record request topology visible",
    "pools": "cores cpuset dealing errors plans request",
    "memory": "cpuset dealing errors request topology",
    "narrowing": "cpuset errors openmp procfs topology",
    "neighbours": "claims cpuset errors processes record root",
    "vllm": "arguments cpuset errors openmp topology",
    "gpus": "cores cpuset dealing dividing errors record request topology visible",
    "listed": "cores cpuset dealing dividing request topology",
    "threads": "dealing dividing openmp request topology",
    "planner": "claims cores cpuset dealing dividing errors gpus listed memory numactl openmp plans"
    " pools record request template threads topology",
    "explain": "cpuset plans",
    "advice": "cpuset plans",
    "outline": "cpuset record topology",
    "expected": "claims cpuset errors plans record",
    "report": "cpuset expected processes record",
    "verify": "cpuset expected processes record report",
    # the outside world
    "nvml": "topology visible",
    "program": "cpuset errors procfs root",
    "elf": "record",
    "runtime": "elf program record",
    "doctor": "conditions openmp record runtime topology",
    "syscalls": "cpuset",
    "launch.settings": "arguments cpuset errors plans record",
    "launch.refusals": "claims cpuset errors numactl plans record",
    "launch.pipes": "",
    "launch.binding": "cpuset errors launch.pipes launch.refusals numactl plans program syscalls",
    "launch.start": "cpuset errors launch.binding launch.refusals plans program record syscalls",
    "launch.loop": "",
    "launch.ladder": "record",
    "launch.verdict": "record",
    "launch.descendants": "processes root",
    "launch.output": "launch.loop",
    "launch.feed": "launch.loop",
    "launch.streams": "colours cpuset errors launch.feed launch.loop launch.output launch.pipes"
    " launch.settings launch.start",
    "launch.supervise": "errors launch.descendants launch.ladder launch.loop launch.pipes"
    " launch.refusals launch.settings launch.start launch.streams launch.verdict plans syscalls",
    "launch.front": "errors launch.descendants launch.pipes launch.settings launch.start"
    " launch.streams launch.supervise launch.verdict plans syscalls",
    "launch.portable": "launch.start",
    "launch.__init__": "errors launch.binding launch.front launch.portable launch.refusals"
    " launch.settings launch.start launch.streams plans program",
    "launch.report": "errors record",
    "launch.trampoline": "cpuset launch.__init__ launch.binding launch.report launch.settings"
    " numactl plans",
    "launch.bound": "errors launch.pipes launch.report launch.start launch.trampoline plans",
    # worker-side fixes
    "fixes.__init__": "",
    "fixes.worker.__init__": "",
    "fixes.worker.apply": "",
    "fixes.worker.fxgraph_pickle": "",
    "fixes.worker.torch_accelerator": "",
    "fixes.registry": "fixes.worker.apply arguments cpuset errors record",
    "fixes.carry": "cpuset errors fixes.registry plans program",
    # what joins them
    "environment": "arguments cpuset errors plans record template",
    "prepare": "advice arguments claims cores cpuset environment errors fixes.carry fixes.registry"
    " machine narrowing neighbours numactl nvml openmp planner plans program request runtime"
    " template topology visible vllm",
    "render.__init__": "",
    "render.plan": "colours cpuset openmp plans",
    "render.doctor": "doctor",
    "render.machine": "cpuset outline topology visible",
    "render.report": "cpuset processes report",
    "checking": "claims cpuset errors expected plans processes record report root sysfs verify",
    # what a Python program sees
    "api": "arguments cpuset errors launch.bound launch.start options plans prepare",
    "multiprocessing": "errors launch.bound plans",
    "__init__": "api cpuset errors multiprocessing plans",
    # the commands
    "proving": "checking errors expected plans processes report root",
    "examining": "conditions doctor launch.binding launch.refusals machine narrowing openmp plans"
    " program runtime topology",
    "cli": "__init__ options",
    "commands": "arguments checking cli cpuset errors fixes.registry launch.__init__"
    " doctor examining explain render.doctor"
    " launch.settings machine options plans prepare processes proving render.__init__"
    " render.machine render.plan render.report report request topology",
    "supervised": "commands launch.report launch.start",
    "__main__": "commands",
}

# Who may import what does not come with Python.
OTHERS = {"typer": {"cli"}, "rich": {"render"}, "psutil": {"generic"}, "pynvml": {"nvml"}}

# Modules that `ompbind run` on Linux never imports; the others must stay quick to import.
OFF_THE_LAUNCH_PATH = {"cli", "render.__init__", "render.plan", "render.machine", "render.report",
                       "outline", "checking", "expected", "report", "verify", "processes",
                       "proving", "conditions", "explain", "doctor", "examining", "render.doctor",
                       "hwloc", "snapshot", "darwin", "generic", "launch.portable",
                       "launch.bound", "api", "multiprocessing",
                       "fixes.worker.fxgraph_pickle", "fixes.worker.torch_accelerator"}  # fmt: skip
SLOW = {"typing", "dataclasses", "re", "enum", "json", "inspect", "subprocess", "asyncio",
        "pathlib", "logging", "argparse", "collections", "functools", "contextlib", "shutil",
        "signal", "threading", "tempfile", "importlib", "shlex", "difflib", "ctypes"}  # fmt: skip

# fixes/worker/path holds what Python runs in a worker before its code: tests/test_fixes.py has it.
NAMES = sorted(
    ".".join(p.relative_to(SOURCE).with_suffix("").parts)
    for p in SOURCE.rglob("*.py")
    if p.parent.name != "path"
)


class Import:
    """A module imported somewhere: its name, whether at import time, whether for types only."""

    def __init__(self, name: str, *, top: bool, types: bool) -> None:
        self.name, self.top, self.types = name, top, types
        self.first = name.partition(".")[0]


@cache
def tree(name: str) -> ast.Module:
    return ast.parse((SOURCE / f"{name.replace('.', '/')}.py").read_text(encoding="utf-8"))


def imports(name: str) -> list[Import]:
    return list(_imports(tree(name), top=True, types=False))


def _imports(node: ast.AST, *, top: bool, types: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            for alias in child.names:
                yield Import(alias.name, top=top, types=types)
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, "imports are absolute here"
            module = child.module or ""
            for alias in child.names:
                inner = is_module(f"{module}.{alias.name}")
                yield Import(f"{module}.{alias.name}" if inner else module, top=top, types=types)
        elif isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
            for part in child.body:
                yield from _imports(ast.Module([part], []), top=top, types=True)
            for part in child.orelse:
                yield from _imports(ast.Module([part], []), top=top, types=types)
        else:
            inside = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            yield from _imports(child, top=top and not inside, types=types)


def is_module(name: str) -> bool:
    """Whether it is a module or a package of ompbind's, and not a name in one."""
    place = SOURCE.parent / name.replace(".", "/")
    return place.with_suffix(".py").exists() or place.is_dir()


def row(imported: str) -> str:
    """The table's name for an imported module: `__init__` for a package itself."""
    name = imported.removeprefix("ompbind").removeprefix(".")
    folder = SOURCE / name.replace(".", "/")
    return f"{name}.__init__".removeprefix(".") if folder.is_dir() else name


def is_one_of(name: str, modules: Iterable[str]) -> bool:
    """Whether it is one of these modules or lies in one of these packages."""
    return any(name == m or name.startswith(f"{m}.") for m in modules)


def docstrings(name: str) -> set[int]:
    """The ids of the nodes that are docstrings."""
    found = set()
    for node in ast.walk(tree(name)):
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and isinstance(body[0], ast.Expr):
            found.add(id(body[0].value))
    return found


def test_every_module_has_its_place() -> None:
    """The table has a row for each module, and for no other."""
    assert sorted(ALLOWED) == NAMES


def test_the_table_has_no_way_up() -> None:
    """A row allows only rows above it, so no import can go round in a circle."""
    above: set[str] = set()
    for name, allowed in ALLOWED.items():
        assert set(allowed.split()) <= above, name
        above.add(name)


@pytest.mark.parametrize("name", NAMES)
def test_imports_go_one_way(name: str) -> None:
    """A module imports of ompbind only what its row allows, also inside functions and for types."""
    ours = {i.name for i in imports(name) if i.first == "ompbind"}
    used = {row(n) for n in ours}
    assert used <= set(ALLOWED[name].split())


def test_the_core_knows_nothing_above_it() -> None:
    """The planner and what it stands on read nothing, start nothing and print nothing."""
    core = {"errors", "record", "cpuset", "topology", "numactl", "openmp", "plans", "cores",
            "dividing", "dealing", "memory", "planner", "devices", "visible", "gpus"}  # fmt: skip
    outside = {"launch", "syscalls", "program", "machine", "procfs", "sysfs", "pci", "gpufiles",
               "nvml", "root", "prepare",
               "commands", "cli", "render"}  # fmt: skip
    for name in core:
        used = {i.name.removeprefix("ompbind.") for i in imports(name)}
        assert not any(is_one_of(u, outside) for u in used), name
        assert not {i.first for i in imports(name)} & {"os", "sys", "subprocess", "signal"}, name


def test_launch_does_not_know_the_planner() -> None:
    """A saved plan runs without the planner, the request and the topology."""
    for name in (n for n in NAMES if is_one_of(n, ["launch"])):
        known = {i.name.removeprefix("ompbind.") for i in imports(name)}
        assert not known & {"planner", "request", "topology", "machine", "prepare"}, name


def test_only_launch_makes_system_calls() -> None:
    """The raw calls have one caller."""
    callers = {n for n in NAMES if "ompbind.syscalls" in {i.name for i in imports(n)}}
    assert all(is_one_of(n, ["launch"]) for n in callers)


@pytest.mark.parametrize("name", NAMES)
def test_other_packages(name: str) -> None:
    """rich, typer and psutil each have one importer, and nothing else is needed."""
    for i in imports(name):
        if i.first in ("ompbind", "__future__") or i.first in sys.stdlib_module_names:
            continue
        if not i.types:
            assert is_one_of(name, OTHERS.get(i.first, ())), f"{name} imports {i.name}"


@pytest.mark.parametrize("name", sorted(set(NAMES) - OFF_THE_LAUNCH_PATH))
def test_the_launch_path_is_quick_to_import(name: str) -> None:
    """Modules that every launch imports leave the slow ones to the functions that need them."""
    assert not {i.first for i in imports(name) if i.top and not i.types} & SLOW


@pytest.mark.parametrize("name", NAMES)
def test_paths_of_the_machine_are_in_their_readers(name: str) -> None:
    """/sys is spelled out in its reader only."""
    if name in ("sysfs", "pci", "gpufiles", "procfs", "conditions"):
        return
    told = docstrings(name)
    for node in ast.walk(tree(name)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in told:
            assert not node.value.startswith(("/sys", "sys/"))
            assert " /sys" not in node.value
            assert "sys/devices" not in node.value


STARTERS = ("abort", "fork", "forkpty", "posix_spawn", "posix_spawnp", "kill", "killpg", "waitpid",
            "sched_setaffinity", "execv", "execve", "execvp", "execvpe", "execl",
            "execle")  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_nothing_goes_through_a_shell(name: str) -> None:
    """No shell, no preexec_fn, no eval; forks, execs, signals and bindings are launch's alone."""
    for node in ast.walk(tree(name)):
        if isinstance(node, ast.keyword):
            assert node.arg != "preexec_fn"
            assert node.arg != "shell"
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            if node.value.id == "os":
                assert node.attr not in ("system", "popen")
                assert node.attr not in STARTERS or is_one_of(name, ("launch", "syscalls")), (
                    node.attr
                )
            if node.value.id == "subprocess":
                assert is_one_of(name, ["launch"])
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in ("eval", "exec")


@pytest.mark.parametrize("name", NAMES)
def test_no_hidden_state(name: str) -> None:
    """No `global`, no suppressed errors over whole blocks, no Manager."""
    for node in ast.walk(tree(name)):
        assert not isinstance(node, ast.Global)
        if isinstance(node, ast.Name):
            assert node.id != "suppress"
        if isinstance(node, ast.ClassDef):
            assert "Manager" not in node.name
        if isinstance(node, ast.ExceptHandler):
            assert node.type is not None, "a bare except"
    assert name not in ("utils", "helpers", "common")


@pytest.mark.parametrize("name", NAMES)
def test_no_work_at_import(name: str) -> None:
    """A module's top level only defines; the entry point's is the exception."""
    if name == "__main__":
        return
    for node in tree(name).body:
        assert not isinstance(node, ast.For | ast.While | ast.With | ast.Try), ast.unparse(node)
        if isinstance(node, ast.Expr):
            assert isinstance(node.value, ast.Constant), ast.unparse(node)
        if isinstance(node, ast.If):
            assert ast.unparse(node.test) == "TYPE_CHECKING", ast.unparse(node.test)


# Without `site`, which for an editable install imports half of these itself.
START = "import sys; from ompbind.cli import main; sys.exit(main(sys.argv[1:]))"


@pytest.mark.skipif(sys.platform != "linux", reason="run binds on Linux only")
@pytest.mark.parametrize(
    "args", [[], ["-n", "1", "--binder", "native"], ["--numa-bind-nodes", "0"]]
)
def test_run_imports_next_to_nothing(args: list[str]) -> None:
    """By what Python says it imported, before the worker started."""
    command = [sys.executable, "-S", "-X", "importtime", "-c", START, "run", *args, "--", "true"]
    done = subprocess.run(
        command, cwd=SOURCE.parent, capture_output=True, text=True, timeout=30, check=False
    )
    lines = [ln for ln in done.stderr.splitlines() if ln.startswith("import time:")]
    imported = {ln.rpartition("|")[2].strip() for ln in lines}
    if done.returncode != 0:  # a machine that lets nobody bind: still nothing slow is imported
        assert "ompbind: error:" in done.stderr, done.stderr
    assert "ompbind.launch" in imported
    assert "ompbind.planner" in imported
    slow = {"typer", "click", "rich", "psutil", "pydantic", "asyncio", "subprocess", "json", "re",
            "dataclasses", "typing", "enum", "inspect", "argparse", "pathlib", "signal",
            "difflib", "collections", "functools", "contextlib", "logging", "shlex"}  # fmt: skip
    assert not {i.partition(".")[0] for i in imported} & slow


def test_importing_everything_prints_nothing() -> None:
    """Each module can be imported first, alone, in silence."""
    modules = [f"ompbind.{n}" for n in NAMES if "__" not in n and n != "cli"]
    code = "import importlib, sys\nfor m in sys.argv[1:]:\n"
    code += "    [sys.modules.pop(k) for k in list(sys.modules) if k.startswith('ompbind')]\n"
    code += "    importlib.import_module(m)\n"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *modules],
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
