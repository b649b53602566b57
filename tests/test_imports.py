"""The structure of DESIGN.md, held by reading the source.

LAYERS is the structure: a package (or a module beside the packages) may import, anywhere in it and
also only for its types, what lies in the rows above its own, and nothing of its own row. So there
are no circles, and none of planner, launch, verify and fixes knows another: a saved plan runs
without the planner. Inside a package modules import one another freely, without circles.
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

from tests.support.needs import need_cpus
from tests.support.trees import Shape, make_files, write_tree

SOURCE = Path(__file__).parents[1] / "ompbind"

LAYERS = (
    "errors record inputs",
    "messages",
    "cpuset colours hostlist",
    "plans machine",
    "plan_json",
    "devices openmp worker host",
    "planner launch verify fixes exports",
    "engines rebind",
    "options doctor",
    "memory",
    "saved claims",
    "resolve",
    "cluster compare groups",
    "measuring",
    "api multiprocessing render",
    "cli",
)

# Who may import what does not come with Python.
OTHERS = {"typer": {"cli.group"}, "psutil": {"machine.portable"},
          "pynvml": {"devices.nvml"}, "tomli": {"groups.file"},
          "tomllib": {"groups.file"}}  # of Python from 3.11 on  # fmt: skip

# Modules that `ompbind run` on Linux never imports; the others must stay quick to import.
OFF_THE_LAUNCH_PATH = {"cli.group", "plan_json", "cli.show", "cli.show_cluster",
                       "cli.shell", "cli.verify",
                       "cluster", "compare", "groups", "render", "measuring",
                       "machine.measurement", "machine.calibration", "verify", "doctor",
                       "exports", "launch.ready", "launch.running", "launch.role_threads", "rebind",
                       "cli.rebind", "cli.pids",
                       "devices.nvml",
                       "hostlist", "machine.processes", "machine.hwloc", "machine.snapshot",
                       "machine.darwin", "machine.details", "machine.formats",
                       "machine.description", "machine.saving", "machine.synthetic",
                       "machine.archive", "machine.topology_json", "inputs",
                       "machine.portable", "launch.portable", "launch.popen", "launch.crew", "api",
                       "machine.usage", "launch.bill", "launch.oom", "launch.announcement",
                       "cli.output_file", "options.keywords", "options.defaults",
                       "options.commands", "options.reports", "options.comparison", "cli.child",
                       "multiprocessing",
                       "fixes.worker.fxgraph_pickle",
                       "fixes.worker.joblib_threads", "fixes.worker.dask_threads",
                       "fixes.worker.torch_accelerator"}  # fmt: skip
SLOW = {"typing", "dataclasses", "re", "enum", "json", "inspect", "subprocess", "asyncio",
        "pathlib", "logging", "argparse", "collections", "functools", "contextlib", "shutil",
        "signal", "threading", "tempfile", "importlib", "shlex", "difflib", "ctypes"}  # fmt: skip

# fixes/worker/path holds what Python runs in a worker before its code: tests/fixes/ has it.
NAMES = sorted(
    ".".join(p.relative_to(SOURCE).with_suffix("").parts)
    for p in SOURCE.rglob("*.py")
    if p.parent.name != "path"
)


# The parts of Python that have statements in them.
HOLDERS = (ast.stmt, ast.excepthandler, ast.match_case)


class Import:
    """A module imported somewhere: its name, whether at import time, whether for types only."""

    def __init__(self, name: str, *, top: bool, types: bool) -> None:
        self.name, self.top, self.types = name, top, types
        self.first = name.partition(".")[0]


@cache
def tree(name: str) -> ast.Module:
    return ast.parse((SOURCE / f"{name.replace('.', '/')}.py").read_text(encoding="utf-8"))


@cache
def nodes(name: str) -> tuple[ast.AST, ...]:
    return tuple(ast.walk(tree(name)))


@cache
def imports(name: str) -> tuple[Import, ...]:
    return tuple(_imports(tree(name), top=True, types=False))


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
        elif (
            isinstance(child, ast.If)
            and isinstance(child.test, ast.Name)
            and child.test.id == "TYPE_CHECKING"
        ):
            for part in child.body:
                yield from _imports(ast.Module([part], []), top=top, types=True)
            for part in child.orelse:
                yield from _imports(ast.Module([part], []), top=top, types=types)
        elif isinstance(child, HOLDERS):
            inside = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            yield from _imports(child, top=top and not inside, types=types)


@cache
def is_module(name: str) -> bool:
    """Whether it is a module or a package of ompbind's, and not a name in one."""
    place = SOURCE.parent / name.replace(".", "/")
    return place.with_suffix(".py").exists() or place.is_dir()


def room(module: str) -> str:
    """The package that a module lies in, or itself where it lies beside the packages."""
    return module.removeprefix("ompbind").removeprefix(".").partition(".")[0] or "__init__"


def is_one_of(name: str, modules: Iterable[str]) -> bool:
    """Whether it is one of these modules or lies in one of these packages."""
    return any(name == m or name.startswith(f"{m}.") for m in modules)


def strings(name: str) -> list[str]:
    """The strings of a module that are not docstrings."""
    docstrings = set()
    for node in nodes(name):
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and isinstance(body[0], ast.Expr):
            docstrings.add(body[0].value)
    return [
        node.value
        for node in nodes(name)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in docstrings
    ]


def test_every_module_has_its_layer() -> None:
    """Each package and each module beside the packages is in one row, and nothing else is."""
    rows = " ".join(LAYERS).split()
    assert sorted(rows) == sorted({room(n) for n in NAMES} - {"__init__", "__main__"})


# Each of these tests judges all modules, and names those that break its rule: as tests of their own
# a thousand and more of them would take longer to be reported than to be judged.
def test_imports_go_down() -> None:
    """A module imports only from lower rows and its own package, inside functions and for types
    as well; the package itself has nothing that a module needs but its version."""
    row = {n: number for number, names in enumerate(LAYERS) for n in names.split()}
    bad = []
    for name in (n for n in NAMES if room(n) not in ("__init__", "__main__")):
        used = {room(i.name) for i in imports(name) if i.first == "ompbind"} - {room(name)}
        if name == "cli.help":
            used -= {"__init__"}
        bad += [f"{name}: {u}" for u in sorted(used) if row.get(u, 99) >= row[room(name)]]
    assert not bad


def test_no_circles() -> None:
    """Nowhere does an import, followed from module to module, come back to where it began."""
    below = {
        name: {module_name(i.name) for i in imports(name) if i.first == "ompbind"} for name in NAMES
    }
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, f"{' -> '.join(path)} -> {name}"
        if name not in done:
            for other in below[name]:
                visit(other, (*path, name))
            done.add(name)

    for name in NAMES:
        visit(name, ())


def module_name(imported: str) -> str:
    """The name in NAMES of an imported module: `x.__init__` for a package."""
    name = imported.removeprefix("ompbind").removeprefix(".")
    return name if name in NAMES else f"{name}.__init__".removeprefix(".")


def test_the_core_knows_nothing_above_it() -> None:
    """The planner and what it stands on read nothing, start nothing and print nothing."""
    core = {"errors", "record", "cpuset", "openmp", "plans", "planner", "machine.topology",
            "devices.variables", "devices.visible"}  # fmt: skip
    outside = {"launch", "machine.cpus", "machine.limits", "machine.devices", "machine.roots",
               "machine.__init__", "machine.processes", "devices.nvml", "devices.files",
               "worker.__init__", "resolve", "cli", "render"}  # fmt: skip
    for name in (n for n in NAMES if is_one_of(n, core)):
        used = {i.name.removeprefix("ompbind.") for i in imports(name)}
        assert not any(is_one_of(u, outside) for u in used), name
        assert not {i.first for i in imports(name)} & {"os", "sys", "subprocess", "signal"}, name


def test_launch_does_not_know_the_planner() -> None:
    """A saved plan runs without the planner, the request and the topology."""
    for name in (n for n in NAMES if is_one_of(n, ["launch"])):
        known = {i.name.removeprefix("ompbind.") for i in imports(name)}
        assert not {k.partition(".")[0] for k in known} & {"planner", "options", "resolve"}, name


def test_only_launch_makes_system_calls() -> None:
    """The raw calls have one caller."""
    callers = {n for n in NAMES if "ompbind.launch.syscalls" in {i.name for i in imports(n)}}
    assert all(is_one_of(n, ["launch"]) for n in callers)


def test_other_packages() -> None:
    """typer and psutil each have one importer, and nothing else is needed."""
    bad = [
        f"{name} imports {i.name}"
        for name in NAMES
        for i in imports(name)
        if i.first not in ("ompbind", "__future__")
        and i.first not in sys.stdlib_module_names
        and not i.types
        and not is_one_of(name, OTHERS.get(i.first, ()))
    ]
    assert not bad


def test_the_launch_path_is_quick_to_import() -> None:
    """Modules that every launch imports leave the slow ones to the functions that need them."""
    bad = [
        f"{name} imports {i.name}"
        for name in NAMES
        if not is_one_of(name, OFF_THE_LAUNCH_PATH)
        for i in imports(name)
        if i.top and not i.types and i.first in SLOW
    ]
    assert not bad


def test_paths_of_the_machine_are_in_their_readers() -> None:
    """/sys and /proc are spelled out in their readers only."""
    bad = [
        f"{name}: {text!r}"
        for name in NAMES
        if not is_one_of(name, ("machine", "host"))
        for text in strings(name)
        if text.startswith(("/sys", "sys/", "/proc", "proc/"))
        or " /sys" in text
        or "sys/devices" in text
    ]
    assert not bad


STARTERS = {("os", name) for name in
            ("abort", "fork", "forkpty", "posix_spawn", "posix_spawnp", "kill", "killpg", "waitpid",
             "sched_setaffinity", "execv", "execve", "execvp", "execvpe", "execl",
             "execle")}  # fmt: skip


def test_nothing_goes_through_a_shell() -> None:
    """No shell, no preexec_fn, no eval; forks, execs, signals and bindings are launch's alone."""
    bad = []
    for name in NAMES:
        is_launch = is_one_of(name, ["launch"])
        for node in nodes(name):
            if isinstance(node, ast.keyword) and node.arg in ("preexec_fn", "shell"):
                bad.append(f"{name}: {node.arg}=")
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                place, used = node.value.id, node.attr
                if place == "os" and used in ("system", "popen"):
                    bad.append(f"{name}: os.{used}")
                if not is_launch and (place == "subprocess" or (place, used) in STARTERS):
                    bad.append(f"{name}: {place}.{used}")
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Name)
                and node.func.id in ("eval", "exec")
            ):
                bad.append(f"{name}: {node.func.id}")
    assert not bad


def test_no_hidden_state() -> None:
    """No `global`, no suppressed errors over whole blocks, no Manager."""
    bad = []
    for name in NAMES:
        for node in nodes(name):
            if (
                isinstance(node, ast.Global)
                or (isinstance(node, ast.Name) and node.id == "suppress")
                or (isinstance(node, ast.ClassDef) and "Manager" in node.name)
                or (isinstance(node, ast.ExceptHandler) and node.type is None)
            ):
                bad.append(f"{name}, line {node.lineno}: {ast.unparse(node)}")
    assert not bad
    assert not {"utils", "helpers", "common"} & set(NAMES)


def test_no_work_at_import() -> None:
    """A module's top level only defines; the entry point's is the exception, and the package
    refuses a Python that is too old."""
    bad = []
    for name in NAMES:
        for node in () if name == "__main__" else tree(name).body:
            if (
                isinstance(node, ast.For | ast.While | ast.With | ast.Try)
                or (isinstance(node, ast.Expr) and not isinstance(node.value, ast.Constant))
                or (
                    isinstance(node, ast.If)
                    and ast.unparse(node.test) != "TYPE_CHECKING"
                    and not (name == "__init__" and isinstance(node.body[0], ast.Raise))
                )
            ):
                bad.append(f"{name}: {ast.unparse(node)}")
    assert not bad


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


def test_drawings_import_no_package(tmp_path: Path) -> None:
    """`show` and `topo` are typed all day: they import no other package, nor what is slow, and nor
    do help and `--version`. Of a machine's own files they need no JSON, and no patterns. What makes
    no plan imports no planner."""
    code = "import os, sys; from ompbind.cli import main; out = os.dup(1); "
    code += "os.dup2(os.open(os.devnull, os.O_WRONLY), 1); place = ['--topology', sys.argv[1]]\n"
    code += "for words in (['topo', *place], ['run', '--help'], ['--version'], ['show', *place]):\n"
    code += "    assert main(words) == 0\n"
    code += "    assert words[0] == 'show' or 'ompbind.planner' not in sys.modules\n"
    code += "os.write(out, ' '.join(sys.modules).encode())"
    slow = {"typer", "rich", "psutil", "typing", "dataclasses", "inspect", "tarfile", "lzma",
            "subprocess", "asyncio", "pathlib", "logging", "email"}  # fmt: skip
    files = write_tree(make_files(Shape(nodes=2, cores=4, threads=2)), tmp_path)
    snapshot = SOURCE.parent / "examples/server.topo"
    for place, also in ((snapshot, set()), (files, {"json", "re", "enum", "shlex"})):
        done = subprocess.run(
            [sys.executable, "-S", "-c", code, place],
            cwd=SOURCE.parent, capture_output=True, text=True, timeout=60, check=True,
        )  # fmt: skip
        assert "ompbind.render.table" in done.stdout.split()
        assert not {name.partition(".")[0] for name in done.stdout.split()} & (slow | also)


@pytest.mark.skipif(sys.platform != "linux", reason="run binds on Linux only")
def test_who_restricted_a_launch_is_for_show() -> None:
    """Within a mask `run` does as `show`, and does not look for who made it."""
    code = f"import os; os.sched_setaffinity(0, [{need_cpus(2)[0]}]); {START}"
    for command, expected in (("run", set()), ("show", {"ompbind.host.restrictions"})):
        done = subprocess.run(
            [sys.executable, "-X", "importtime", "-c", code, command, "--", "true"],
            cwd=SOURCE.parent, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        imported = {ln.rpartition("|")[2].strip() for ln in done.stderr.splitlines()}
        assert imported & {"ompbind.host.restrictions"} == expected


@pytest.mark.skipif(sys.platform != "linux", reason="run binds on Linux only")
def test_path_is_searched_twice_for_a_program() -> None:
    """For what it is, then to execute it: a folder of PATH may be on a slow network file system.
    Each program has a search of its own, numactl also where it is not installed."""
    code = "import os, sys; from ompbind import worker; from ompbind.cli import main\n"
    code += "names, real = [], worker.candidates\n"
    code += "worker.candidates = lambda name, env: (names.append(name), real(name, env))[1]\n"
    code += "os.execve = lambda *_: (print(*names), os._exit(0))\n"
    code += "sys.exit(main(sys.argv[1:]))"
    for binder, most in (("native", {"true": 2}), ("auto", {"true": 2, "numactl": 2})):
        done = subprocess.run(
            [sys.executable, "-u", "-c", code, "run", "--binder", binder, "--", "true"],
            cwd=SOURCE.parent, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        if done.returncode != 0:  # a machine that lets nobody bind
            assert "ompbind: error:" in done.stderr, done.stderr
            continue
        names = done.stdout.split()
        assert set(names) <= set(most)
        assert all(names.count(name) <= count for name, count in most.items()), names


@pytest.mark.skipif(sys.platform != "linux", reason="run binds on Linux only")
@pytest.mark.parametrize("begin", ["run_path('scripts/ompbind'", "run_module('ompbind'"])
def test_a_launch_collects_no_garbage(begin: str) -> None:
    """Looking for it took a tenth of a launch: once the command has begun, Python does not."""
    code = "import gc, os, runpy, sys\n"
    code += "def note(phase, _):\n    if 'ompbind.cli' in sys.modules: os.write(1, b'collected')\n"
    code += f"gc.callbacks.append(note)\nrunpy.{begin}, run_name='__main__')\n"
    done = subprocess.run(
        [sys.executable, "-c", code, "run", "--", "true"],
        cwd=SOURCE.parent, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.stdout == ""


def test_importing_everything_prints_nothing() -> None:
    """Each module can be imported first, alone, in silence. Its bytecode is read once."""
    modules = [f"ompbind.{n}" for n in NAMES if "__" not in n and n != "cli.group"]
    code = "import functools, importlib, sys\nfrom importlib.machinery import SourceFileLoader\n"
    code += "SourceFileLoader.get_code = functools.cache(SourceFileLoader.get_code)\n"
    code += "for m in sys.argv[1:]:\n"
    code += "    [sys.modules.pop(k) for k in list(sys.modules) if k.startswith('ompbind')]\n"
    code += "    importlib.import_module(m)\n"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *modules],
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
