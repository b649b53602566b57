"""Worker-side fixes from outside: what a worker's Python gets, and what stays as it was."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import venv
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from ompbind.fixes.environment import HOOK, explain_failure, join_path
from ompbind.fixes.registry import BUILT_IN, WORKER, find_fixes
from ompbind.fixes.worker.apply import find_version, in_range, parse_release
from tests.support.commands import TIMEOUT, environment, ompbind_run

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="ompbind runs workers on Linux")

# A package to fix: `count` tells how often that was done.
TARGET = '__version__ = "{version}"\ncount = 0\n\ndef answer():\n    return 41\n'
FIX = '''
TARGET = "target"

def right(module):
    """The answer is 42."""
    module.count += 1
    wrong = module.answer
    module.answer = lambda: wrong() + 1
    return "one up"
'''
ASK = "import target; print(target.answer(), target.count)"


class Place:
    """A directory with a package `target` and a file of fixes, and an environment that has it in
    PYTHONPATH."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.write("target/__init__.py", TARGET.format(version="1.2.3"))
        self.fix = f"{self.write('fixes.py', FIX)}:right"

    def write(self, name: str, text: str, mode: int = 0o644) -> Path:
        file = self.path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        file.chmod(mode)
        return file

    def env(self, **changes: str) -> dict[str, str]:
        return environment(PYTHONPATH=str(self.path), PYTHONDONTWRITEBYTECODE="1", **changes)

    def run(self, *args: str, code: str = ASK, **changes: str) -> subprocess.CompletedProcess[str]:
        """Runs Python code with the file's fix and these further arguments of ompbind."""
        worker = [sys.executable, "-c", code]
        return ompbind_run("run", "--fix", self.fix, *args, "--", *worker, env=self.env(**changes))


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def notes(stderr: str) -> list[str]:
    """The lines about fixes, without the number of the process."""
    lines = [re.sub(r"process \d+", "process N", line) for line in stderr.splitlines()
             if not line.startswith("ompbind: rank ")]  # fmt: skip  # how it ended, with -v
    return [line.partition(": fix ")[0] + ": " + line.rpartition(".py:")[2] for line in lines]


# --- applied -------------------------------------------------------------------------------------


def test_a_fix_is_applied_when_its_module_is_imported(place: Place) -> None:
    """The program sees the fixed module; without the fix it sees the other; nothing is said."""
    done = place.run()
    assert (done.returncode, done.stdout, done.stderr) == (0, "42 1\n", "")
    plain = ompbind_run("run", "--", sys.executable, "-c", ASK, env=place.env())
    assert (plain.returncode, plain.stdout, plain.stderr) == (0, "41 0\n", "")


def test_a_fix_is_applied_once(place: Place) -> None:
    """However often the module is imported or reloaded, and logged once with -v."""
    code = "import importlib, target; importlib.import_module('target')\n"
    code += f"importlib.reload(target); {ASK}"
    done = place.run("-v", code=code)
    assert (done.returncode, done.stdout) == (0, "42 1\n")
    assert notes(done.stderr) == ["ompbind: note: right: applied in process N (one up)"]


def test_a_submodule_can_be_the_target(place: Place) -> None:
    """The fix acts when target.part is imported, not earlier."""
    place.write("target/part.py", "answer = lambda: 0\ncount = 0\n")
    place.write("fixes.py", FIX.replace('"target"', '"target.part"'))
    code = f"{ASK}; from target.part import answer; print(answer())"
    assert place.run(code=code).stdout == "41 0\n1\n"


def test_several_ranks_and_several_fixes(place: Place) -> None:
    """Each rank carries all fixes that are named, by one option or by two, each once."""
    more = "\ndef another(module):\n    module.count += 10\n"
    file = place.write("more.py", 'TARGET = "target"\n' + more)
    share = ("-n", "2", "--share") if len(os.sched_getaffinity(0)) < 2 else ("-n", "2")
    shared = (*share, "--output", "inherit")
    done = place.run(*shared, "--fix", f"{file}:another,{file}:another")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split() == ["42", "11"] * 2


def test_a_failed_import_stays_what_it_is(place: Place) -> None:
    """The module's own error comes through, and a later import is fixed."""
    body = "import os\nif 'BROKEN' in os.environ:\n    raise ImportError('not today')\n"
    place.write("target/__init__.py", body + TARGET.format(version="1"))
    code = "import os\ntry:\n    import target\nexcept ImportError as e:\n    print(e)\n"
    code += f"del os.environ['BROKEN']\n{ASK}"
    assert place.run(code=code, BROKEN="1").stdout == "not today\n42 1\n"


@pytest.mark.parametrize("name", ["gc", "__hello__", "zipped"])
def test_modules_of_any_loader(place: Place, name: str) -> None:
    """Built-in, frozen and zipped modules are fixed, and no other that their loader loads."""
    file = place.path / "modules.zip"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("zipped.py", "x = 1\n")
        archive.writestr("other.py", "x = 1\n")
    place.write("fixes.py", f'TARGET = "{name}"\n\ndef right(module):\n    module.fixed = True\n')
    code = f"import sys; sys.path.append({str(file)!r})\nimport {name}\n"
    code += "import other, __phello__, faulthandler\nmodules = other, __phello__, faulthandler\n"
    code += "from importlib.machinery import BuiltinImporter as b, FrozenImporter as f\n"
    code += "changed = [i for i in (b, f) if 'sitecustomize' in i.exec_module.__module__]\n"
    code += f"print({name}.fixed, [m for m in modules if hasattr(m, 'fixed')], changed)"
    done = place.run(code=code)
    assert (done.stdout.splitlines()[-1], done.stderr) == ("True [] []", "")


def test_a_module_keeps_its_source_and_loader(place: Place) -> None:
    """What asks the loader for the source or for data still gets it."""
    code = "import inspect, pkgutil, target\n"
    code += "print(len(inspect.getsource(target)), type(target.__loader__).__name__)\n"
    code += "print(len(pkgutil.get_data('target', '__init__.py')))"
    size = len(TARGET.format(version="1.2.3"))
    assert place.run(code=code).stdout == f"{size} SourceFileLoader\n{size}\n"


# --- judged --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("beside", "outcome"),
    [
        ('VERSIONS = "1.2.*"', "note: applied (one up)"),
        ('VERSIONS = ">=1.3"', "note: not needed (target is 1.2.3, for >=1.3 only)"),
        ("def is_needed(m):\n    return m.count == 0", "note: applied (one up)"),
        ("def is_needed(m):\n    return m.count > 0", "note: not needed (target does not need it)"),
        ("def is_needed(m):\n    return m.gone > 0", "warning: changed (target has changed shape, "
         "unchanged: it has no gone)"),
        ("def is_needed(m):\n    raise LookupError('too big')",
         "warning: changed (target has changed shape, unchanged: too big)"),
        ("def is_needed(m):\n    return 1 / 0", "warning: failed (ZeroDivisionError: division by "
         "zero)"),
    ],
)  # fmt: skip
def test_a_fix_is_judged_before_it_is_applied(place: Place, beside: str, outcome: str) -> None:
    """By versions and by its probe; a target of another shape is left alone, and that is said."""
    place.write("fixes.py", f"{beside}\n{FIX}")
    applied = "applied" in outcome
    for args in (["-v"], []):
        done = place.run(*args)
        assert (done.returncode, done.stdout) == (0, "42 1\n" if applied else "41 0\n")
        told = [line.replace("right: ", "").replace(" in process N", "") for line in
                notes(done.stderr)]  # fmt: skip
        assert told == ([f"ompbind: {outcome}"] if args or "warning" in outcome else [])


@pytest.mark.parametrize(
    "statement",
    ["raise KeyError('oh')", "import sys; sys.exit(9)", "import no_such_module", "x = module.y.z"],
)
def test_a_fix_that_fails_never_takes_the_worker_down(place: Place, statement: str) -> None:
    """One warning line, and the program goes on."""
    place.write("fixes.py", f'TARGET = "target"\n\ndef right(module):\n    {statement}\n')
    done = place.run()
    assert (done.returncode, done.stdout) == (0, "41 0\n")
    assert len(done.stderr.splitlines()) == 1
    assert "failed in process" in done.stderr
    assert done.stderr.startswith("ompbind: warning: fix ")


def test_quiet_fixes(place: Place) -> None:
    """With -q a worker's standard error is its own, even where a fix fails."""
    place.write("fixes.py", 'TARGET = "target"\n\ndef right(module):\n    raise KeyError\n')
    done = place.run("-q")
    assert (done.returncode, done.stdout, done.stderr) == (0, "41 0\n", "")


def test_a_worker_without_standard_error_goes_on(place: Place) -> None:
    """A fix that has something to say where nobody can hear it does not stop the program."""
    place.write("fixes.py", 'TARGET = "target"\n\ndef right(module):\n    raise KeyError\n')
    script = f'exec "{sys.executable}" -c "{ASK}" 2>&-'
    args = ("run", "--fix", place.fix, "--", "sh", "-c", script)
    done = ompbind_run(*args, env=place.env())
    assert (done.returncode, done.stdout) == (0, "41 0\n")


@pytest.mark.parametrize("off", ["all", "x,{fix}"])
def test_a_fix_can_be_switched_off(place: Place, off: str) -> None:
    """OMPBIND_FIX_OFF in a process' environment keeps it from being applied there."""
    done = place.run("-v", OMPBIND_FIX_OFF=off.format(fix=place.fix))
    assert done.stdout == "41 0\n"
    assert "switched off" in done.stderr


def test_a_missing_file_is_said(place: Place) -> None:
    """A plan whose fix is gone when it is run runs, with a warning."""
    worker = (sys.executable, "-c", ASK)
    args = ("--fix", place.fix, "--format", "json")
    plan = ompbind_run("show", *args, "--", *worker, env=place.env()).stdout
    file = place.write("plan.json", plan)
    (place.path / "fixes.py").unlink()
    done = ompbind_run("run", "--plan", str(file), env=place.env())
    assert (done.returncode, done.stdout) == (0, "41 0\n")
    assert "FileNotFoundError" in done.stderr


@pytest.mark.parametrize(
    ("version", "wanted", "held"),
    [
        ("2.10.0", "2.10.*", True),
        ("2.10.0+cpu", "2.10.*", True),
        ("2.10.1.dev20260101+cu128", "2.10.*", True),
        ("2.10.0a0+git1234567", "2.10.*", True),
        ("2.10", "2.10.*", True),
        ("2.10rc1", "2.10.*", True),
        ("2.10.0.post1", "2.10.*", True),
        ("v2.10.0", "2.10.*", True),
        ("1!2.10.0", "2.10.*", True),
        ("2.1.0", "2.10.*", False),
        ("2.100.0", "2.10.*", False),
        ("2.9.1+cpu", "2.10.*", False),
        ("2.11.0.dev20260101", "2.10.*", False),
        ("3.10.0", "2.10.*", False),
        ("2", "2.10.*", False),
        ("2", "2.0.*", True),
        ("2.10.0+2.11.0", "2.11.*", False),
        ("2.13.0+cpu", ">=2.6", True),
        ("2.5.1", ">=2.6", False),
        ("2.6", ">=2.6.0", True),
        ("2.6.0", "<=2.6", True),
        ("1.26.4", ">=1.26, <3", True),
        ("3.0", ">=1.26,<3", False),
        ("2.6.0", "2.6", True),
        ("2.6.1", "==2.6", False),
        ("2.6.1", "!=2.6.*", False),
        ("2.6.1", ">2.6", True),
    ],
)
def test_versions(version: str, wanted: str, held: bool) -> None:
    """A version is judged by its release numbers, whatever build it is."""
    assert in_range(version, wanted) is held


@pytest.mark.parametrize("wanted", [">=2.6,x", "2.*.1", ">=2.6.*", "~=2", "2.10a", ">", "2.²"])
def test_what_is_no_range(wanted: str) -> None:
    """A range that cannot be read is an error, not one that always or never holds."""
    with pytest.raises(ValueError, match="range of versions"):
        in_range("1", wanted)


@pytest.mark.parametrize("version", ["", "unknown", "+cpu", "git1234"])
def test_what_is_no_version(version: str) -> None:
    """Text without release numbers is an error."""
    with pytest.raises(ValueError, match="not a version"):
        parse_release(version)


def test_the_version_of_a_package_that_does_not_say_it() -> None:
    """Its installation's record is asked; None: not even that."""
    assert find_version("pytest") == pytest.__version__
    assert find_version("no_such_package_anywhere") is None


# --- what stays as it was ------------------------------------------------------------------------

SITES = {
    "none": None,
    "one": "print('hello from', __name__)",
    "error": "1 / 0",
    "import error": "import no_such_module",
    "exit": "import sys; sys.exit(7)",
}
TELL = "import sys\nprint('sitecustomize' in sys.modules, 'usercustomize' in sys.modules)\n"
TELL += "print([p for p in sys.path if p])\ntry:\n    import sitecustomize\n"
TELL += "    print(sitecustomize.__file__)\nexcept ImportError as e:\n    print(e)\n"


@pytest.mark.parametrize("kind", SITES)
@pytest.mark.parametrize("name", ["sitecustomize", "usercustomize"])
def test_the_users_own_customisation(place: Place, name: str, kind: str) -> None:
    """A sitecustomize or usercustomize does once what it would do without us, errors as well."""
    body = SITES[kind]
    if body is not None:  # not in ompbind's own Python, which sees it too
        place.write(f"{name}.py", f"import os\nif 'OMPBIND_RANK' in os.environ:\n    {body}\n")
    base = os.path.realpath(sys.executable)  # no virtual environment: those have no usercustomize
    env = place.env(OMPBIND_RANK="0", HOME=str(place.path))
    command = [base, "-c", TELL]
    plain = subprocess.run(command, env=env, capture_output=True, text=True, timeout=TIMEOUT)
    del env["OMPBIND_RANK"]
    fixed = ompbind_run("run", "--fix", place.fix, "--", *command, env=env)
    assert (fixed.returncode, fixed.stdout) == (plain.returncode, plain.stdout)
    if kind == "exit":  # Python dies of it with a traceback, in which the hook stands too
        assert plain.returncode == 1
        assert fixed.stderr.splitlines()[-1] == plain.stderr.splitlines()[-1] == "SystemExit: 7"
    else:
        assert fixed.stderr == plain.stderr
    assert fixed.stdout.count("hello") == (kind == "one")


def test_a_virtual_environments_own_customisation(place: Place) -> None:
    """The sitecustomize in a virtual environment without ompbind runs, and fixes act there."""
    venv.create(place.path / "venv", symlinks=True)
    (packages,) = (place.path / "venv").glob("lib/python*/site-packages")
    (packages / "sitecustomize.py").write_text("print('hello')\n")
    python = str(place.path / "venv/bin/python")
    # Debian's own Python has one of its own that comes before a virtual environment's.
    alone = subprocess.run([python, "-c", ""], capture_output=True, text=True, timeout=60)
    worker = [python, "-c", f"import importlib.util as u; print(u.find_spec('ompbind')); {ASK}"]
    args = ("run", "--fix", place.fix, "--", *worker)
    done = ompbind_run(*args, env=place.env(), cwd=place.path)
    assert alone.stdout in ("hello\n", "")
    assert (done.stdout, done.stderr) == (alone.stdout + "None\n42 1\n", "")


def test_nothing_more_is_imported(place: Place) -> None:
    """Until a target is imported a worker has the same modules as without fixes, and no file of
    ours but the hook has been read."""
    code = "import sys; print(sorted(sys.modules))"
    plain = ompbind_run("run", "--", sys.executable, "-c", code, env=place.env())
    done = place.run("--fix", "auto", code=code)
    assert (done.returncode, done.stdout) == (0, plain.stdout)


def test_an_empty_path_stays_one() -> None:
    """An empty entry of PYTHONPATH is the current directory, an empty PYTHONPATH is none."""
    assert join_path("") == HOOK
    assert join_path(":/a") == f"{HOOK}::/a"
    assert join_path(f"/a:{HOOK}:/b") == f"{HOOK}:/a:/b"


def test_the_hook_is_small() -> None:
    """Its directory holds one file, which any version of Python can read and which at start
    imports only what is there already."""
    assert [n for n in os.listdir(HOOK) if n != "__pycache__"] == ["sitecustomize.py"]
    tree = ast.parse(Path(HOOK, "sitecustomize.py").read_text())
    for node in ast.walk(tree):
        assert not isinstance(node, ast.JoinedStr | ast.AnnAssign | ast.NamedExpr)
        if isinstance(node, ast.FunctionDef):
            assert node.returns is None
            assert not any(a.annotation for a in node.args.args)
    top = [n for n in tree.body if isinstance(n, ast.Import | ast.ImportFrom)]
    assert [a.name for n in top for a in n.names] == ["os", "sys"]


def test_workers_files_need_the_standard_library_only() -> None:
    """What runs in the worker imports neither ompbind nor one another nor other packages."""
    for file in Path(WORKER).rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for name in names:
                first = name.partition(".")[0]
                assert first in {*sys.stdlib_module_names, "sitecustomize"}, file


def test_the_hook_takes_under_a_millisecond(place: Place) -> None:
    """By Python's own account of what the import took, the best of several."""
    env = environment(
        PYTHONPATH=HOOK, OMPBIND_FIX="torch-accelerator@torch.accelerator",
        PYTHONPYCACHEPREFIX=str(place.path / "cache"),
    )  # fmt: skip
    command = [sys.executable, "-X", "importtime", "-c", "pass"]
    times = []
    for _ in range(8):
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=TIMEOUT)
        found = re.findall(r"(\d+) \|\s+(\d+) \|\s+sitecustomize$", done.stderr, re.M)
        times.append(int(found[-1][1]))
    assert min(times) < 1000, times


# --- children ------------------------------------------------------------------------------------

SUBPROCESS = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {ASK!r}], check=True)"
SPAWN = """
import multiprocessing, sys
import child
if __name__ == "__main__":
    context = multiprocessing.get_context(sys.argv[1])
    process = context.Process(target=child.ask)
    process.start()
    process.join()
    sys.exit(process.exitcode)
"""


@pytest.mark.parametrize("children", [True, False])
@pytest.mark.parametrize("how", ["subprocess", "spawn", "forkserver", "fork"])
def test_children(place: Place, how: str, children: bool) -> None:
    """Fixes reach every Python that the worker starts, or with --no-fix-children none of them but
    copies of itself."""
    place.write("child.py", f"def ask():\n    {ASK}\n")
    script = place.write("main.py", SUBPROCESS if how == "subprocess" else SPAWN)
    args = ("run", "--fix", place.fix, "--fix-children" if children else "--no-fix-children")
    done = ompbind_run(*args, "--", sys.executable, str(script), how, env=place.env())
    wanted = "42 1\n" if children or how == "fork" else "41 0\n"
    assert (done.returncode, done.stdout, done.stderr) == (0, wanted, "")


def test_children_have_their_own_environment_back(place: Place) -> None:
    """With --no-fix-children nothing of the mechanism is left in what the worker hands on."""
    code = "import os; print(os.environ['PYTHONPATH'], [k for k in os.environ if 'BIND_FIX' in k])"
    done = place.run("--no-fix-children", code=code + f"; {ASK}")
    assert done.stdout == f"{place.path} []\n42 1\n"
    env = environment()
    args = ("run", "--no-fix-children", "--fix", "auto", "--", sys.executable, "-c")
    done = ompbind_run(*args, "import os; print('PYTHONPATH' in os.environ)", env=env)
    assert done.stdout == "False\n"


def test_ompbind_within_ompbind(place: Place) -> None:
    """The inner one's fixes are applied once, though both put the hook in the way."""
    inner = [sys.executable, "-m", "ompbind", "run", "--fix", place.fix, "--"]
    worker = [sys.executable, "-c", f"{ASK}; import os; print(os.environ['PYTHONPATH'])"]
    done = ompbind_run("run", "--fix", place.fix, "--", *inner, *worker, env=place.env())
    assert done.stdout == f"42 1\n{HOOK}:{place.path}\n"


def test_two_installed_ompbinds(place: Place) -> None:
    """The hooks of two copies of ompbind, one in the other's environment, apply a fix once."""
    shutil.copytree(WORKER, place.path / "copy")
    path = os.pathsep.join([str(place.path / "copy/path"), str(place.path)])
    env = place.env() | {"PYTHONPATH": path}
    done = ompbind_run("run", "--fix", place.fix, "--", sys.executable, "-c", ASK, env=env)
    assert (done.returncode, done.stdout, done.stderr) == (0, "42 1\n", "")


# --- where fixes cannot act ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["-I"], "isolated mode"),
        (["-E"], "it ignores PYTHONPATH"),
        (["-S"], "it does not import site"),
        (["-sE"], "it ignores PYTHONPATH"),
        (["-X", "dev", "-W", "error", "-I"], "isolated mode"),
        (["-Xdev", "-Werror", "-S"], "it does not import site"),
        (["--check-hash-based-pycs", "always", "-I"], "isolated mode"),
        ([], ""),
        (["-s", "-P"], ""),
        (["-W", "-I"], ""),
        (["script.py", "-I"], ""),
        (["-m", "module", "-I"], ""),
        (["-cpass", "-I"], ""),
        (["-", "-I"], ""),
    ],
)
def test_options_that_keep_python_from_looking(words: list[str], told: str) -> None:
    """-I, -E and -S are found among Python's own options, and not among the program's."""
    for name in ("python", "/usr/bin/python3.12", "python3.13t", "pypy3"):
        problem = explain_failure([name, *words], {})
        assert (told in problem) if told else problem == ""


def test_python_that_does_not_look(place: Place) -> None:
    """One warning line, and the worker starts."""
    worker = [sys.executable, "-I", "-c", "print('started')"]
    done = ompbind_run("run", "--fix", "auto", "--", *worker, env=place.env())
    assert (done.returncode, done.stdout) == (0, "started\n")
    (line,) = done.stderr.splitlines()
    assert line.startswith("ompbind: warning: --fix: ")
    assert "-I (isolated mode), so fixes have no effect" in line


@pytest.mark.parametrize(
    ("first", "acts"),
    [
        ("#!{python}\n", True),
        ("#!/usr/bin/env python3\n", True),
        ("#!/usr/bin/env -S python3 -u\n", True),
        ("#! {python}\n", True),
        ("#!{python} -I\n", False),
        ("#!/usr/bin/env -S python3 -E\n", False),
        ("#!/bin/sh\n'''exec' \"{python}\" \"$0\" \"$@\"\n' '''\n", True),
        ("#!/bin/sh\n'''exec' \"{python}\" -I \"$0\" \"$@\"\n' '''\n", False),
        ("#!/bin/sh\n", False),
        ("#!/usr/bin/env sh\n", False),
    ],
)
def test_scripts_are_judged_by_their_first_line(place: Place, first: str, acts: bool) -> None:
    """A console script is Python where its #! line, or pip's second line, says so."""
    script = place.write("serve", first.format(python=sys.executable) + "pass\n", 0o755)
    for command in ([str(script)], ["serve"]):
        problem = explain_failure(command, {"PATH": str(place.path)})
        assert (problem == "") is acts


def test_what_is_not_python(place: Place) -> None:
    """A shell is not Python: that is said, it starts, and the Python that it starts is fixed."""
    script = f'"{sys.executable}" -c "{ASK}"'
    done = ompbind_run("run", "--fix", place.fix, "--", "sh", "-c", script, env=place.env())
    assert (done.returncode, done.stdout) == (0, "42 1\n")
    (line,) = done.stderr.splitlines()
    assert line == (
        "ompbind: warning: --fix: 'sh' does not seem to be Python: "
        "only Python that it starts is fixed"
    )
    assert explain_failure(["no-such-command"], {"PATH": str(place.path)}) == ""  # 127 tells it


def test_a_link_to_python_is_python(place: Place) -> None:
    """A program of another name that is a link to Python is recognised."""
    (place.path / "serve").symlink_to(sys.executable)
    assert explain_failure([str(place.path / "serve"), "x.py"], {}) == ""
    assert "-I" in explain_failure([str(place.path / "serve"), "-I"], {})


# --- the command line ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("torch-acelerator", "unknown fix 'torch-acelerator'",
         "did you mean torch-accelerator?"),
        ("qqq", "unknown fix 'qqq'", "ompbind run --fix list prints"),
        (",auto", "an empty name", "ompbind run --fix list prints"),
        ("auto,", "an empty name", "ompbind run --fix list prints"),
        ("{dir}/fixes.py", "names no function", "--fix path.py:function"),
        ("{dir}/none.py:right", "No such file or directory", "--fix path.py:function"),
        ("{dir}/fixes.py:rihgt", "the file has no function 'rihgt'", "did you mean right?"),
        ("{dir}/broken.py:f", "line 1 is not Python: invalid syntax", "fix the syntax error"),
        ("{dir}/nothing.py:f", "the file has no function 'f'", "its functions: none"),
        ("{dir}/no_target.py:f", "the file has no TARGET", "write TARGET = "),
        ("{dir}/range.py:f", "'new' is not a range of versions", 'as in VERSIONS = ">=1.26,<3"'),
    ],
)  # fmt: skip
def test_what_cannot_be_a_fix(place: Place, text: str, message: str, hint: str) -> None:
    """ompbind refuses before anything starts, in the contract's two lines."""
    place.write("broken.py", "def f(:\n")
    place.write("nothing.py", "")
    place.write("no_target.py", "def f(module):\n    pass\n")
    place.write("range.py", 'TARGET = "t"\nVERSIONS = "new"\n\ndef f(module):\n    pass\n')
    args = ("run", f"--fix={text.format(dir=place.path)}", "--", "echo", "started")
    done = ompbind_run(*args, env=place.env())
    assert (done.returncode, done.stdout) == (125, "")
    first, second = done.stderr.splitlines()
    assert first.startswith("ompbind: error: --fix")
    assert message in first
    assert second.startswith(f"hint: {hint}")


def test_children_without_fixes() -> None:
    """--no-fix-children without --fix is refused: it would do nothing."""
    done = ompbind_run("run", "--no-fix-children", "--", "true")
    assert done.returncode == 125
    assert "--no-fix-children has no effect without --fix" in done.stderr


def test_list() -> None:
    """--fix list prints every fix with what it is for, and needs no command."""
    for args in (("run", "--fix", "list"), ("show", "--fix", "auto", "--fix=list", "--", "true")):
        done = ompbind_run(*args)
        assert (done.returncode, done.stderr) == (0, "")
        for name in BUILT_IN:
            assert f"\n{name}\n" in f"\n{done.stdout}"
        assert "torch 2.10.*" in done.stdout
        assert "vllm-project/vllm#38205" in done.stdout


def test_every_fix_says_what_it_is() -> None:
    """ompbind's own have a target, versions, a reason, its source and a probe; auto is all."""
    fixes = find_fixes("auto")
    assert [f.name for f in fixes] == list(BUILT_IN)
    for fix in fixes:
        assert all((fix.target, fix.versions, fix.reason, fix.source, fix.probed))
        assert Path(fix.path).is_file()
        assert "#" in fix.source


def test_a_files_fix_is_not_executed_by_ompbind(place: Place) -> None:
    """What the file says is read from its text; only the worker runs it."""
    place.write("fixes.py", f"import os\nprint('ran in', os.environ['OMPBIND_RANK'])\n{FIX}")
    assert place.run().stdout == "ran in 0\n42 1\n"
    assert find_fixes(place.fix)[0].reason == "The answer is 42."


def test_a_path_with_odd_characters(tmp_path: Path) -> None:
    """Percent signs, at signs, colons and spaces in a file's path reach the worker."""
    odd = Place(tmp_path / "50%2C a@b;c=d")
    env = odd.env()
    done = ompbind_run("run", "--fix", odd.fix, "--", sys.executable, "-c", ASK, env=env)
    assert (done.stdout, done.stderr) == ("42 1\n", "")
    args = ("run", "--fix", "./fixes.py:right", "--", sys.executable, "-c", ASK)
    assert ompbind_run(*args, env=env, cwd=odd.path).stdout == "42 1\n"


def offer(place: Place, value: str) -> None:
    """An installed package `offer` with a fix named `answer`; importing the package fails."""
    place.write("offer/__init__.py", "raise RuntimeError('imported')\n")
    place.write("offer/inner.py", FIX)
    place.write("offer-1.dist-info/METADATA", "Metadata-Version: 2.1\nName: offer\nVersion: 1\n")
    place.write("offer-1.dist-info/entry_points.txt", f"[ompbind.fixes]\nanswer = {value}\n")


def test_a_fix_by_entry_point(place: Place) -> None:
    """An installed package offers one by name; neither ompbind nor the worker imports it."""
    offer(place, "offer.inner:right")
    args = ("run", "--fix", "answer", "--", sys.executable, "-c", ASK)
    done = ompbind_run(*args, env=place.env())
    assert (done.returncode, done.stdout, done.stderr) == (0, "42 1\n", "")
    listed = ompbind_run("run", "--fix", "list", env=place.env()).stdout
    assert "answer\n  The answer is 42.\n  for: target (any version)" in listed
    assert "offered by: offer" in listed


@pytest.mark.parametrize("value", ["offer.none:right", "json:loads.x", "offer.inner", "sys:exit"])
def test_an_entry_point_that_is_none(place: Place, value: str) -> None:
    """One that leads nowhere is refused when asked for, and does not spoil the list."""
    offer(place, value)
    done = ompbind_run("run", "--fix", "answer", "--", "true", env=place.env())
    assert done.returncode == 125
    assert done.stderr.startswith("ompbind: error: --fix 'answer': the entry point")
    listed = ompbind_run("run", "--fix", "list", env=place.env())
    assert listed.returncode == 0
    assert "answer\n  cannot be used: " in listed.stdout


# --- the plan ------------------------------------------------------------------------------------


def test_the_plan_shows_and_carries_fixes(place: Place) -> None:
    """show prints the variables; a saved plan has them, with the PYTHONPATH of when it runs."""
    worker = (sys.executable, "-c", ASK)
    args = ("--fix", place.fix, "-v", "--format", "json", "--", *worker)
    shown = ompbind_run("show", *args, env=environment(PYTHONPATH="/elsewhere")).stdout
    env = json.loads(shown)["ranks"][0]["env"]
    assert env["OMPBIND_FIX"] == f"{place.fix}@target"
    assert env["OMPBIND_FIX_CHILDREN"] == "yes"
    assert env["PYTHONPATH"] == f"{HOOK}:/elsewhere"
    plan = place.write("plan.json", shown)
    done = ompbind_run("run", "--plan", str(plan), env=place.env())
    assert done.stdout == "42 1\n"
    assert "applied" in done.stderr


def test_a_saved_plan_takes_fixes(place: Place) -> None:
    """--fix beside --plan gives the plan's workers fixes that it did not have; a warning is about
    the command that is run."""
    shown = ompbind_run("show", "--fix", "auto", "--format", "json", "--", "sh").stdout
    assert "does not seem to be Python" in json.loads(shown)["warnings"][0]
    plan = place.write("plan.json", shown)
    worker = (sys.executable, "-c", ASK)
    args = ("run", "--plan", str(plan), "--fix", place.fix)
    done = ompbind_run(*args, "--", *worker, env=place.env())
    assert (done.stdout, done.stderr) == ("42 1\n", "")


def test_without_fixes_nothing_of_them_is_imported() -> None:
    """The launch path pays for --fix only where it is given."""
    code = "import sys; from ompbind.cli import main; import atexit\n"
    code += "atexit.register(lambda: print([m for m in sys.modules if 'fixes' in m]))\n"
    code += "sys.exit(main(sys.argv[1:]))"
    ask: Callable[..., str] = lambda *a: subprocess.run(  # noqa: E731
        [sys.executable, "-c", code, "show", *a, "--format", "argv", "--", "python"],
        env=environment(), capture_output=True, text=True, timeout=TIMEOUT,
    ).stdout  # fmt: skip
    assert ask().splitlines()[-1] == "[]"
    assert "ompbind.fixes.environment" in ask("--fix", "auto")


# --- the manual ----------------------------------------------------------------------------------


def test_the_manuals_example(tmp_path: Path) -> None:
    """The fix in docs/how-to/fixes.md passes the test that stands beside it."""
    text = (Path(__file__).parents[2] / "docs/how-to/fixes.md").read_text(encoding="utf-8")
    blocks = re.findall(r"<!-- (\w+\.py) -->\n```python\n(.*?)```", text, re.DOTALL)
    assert [name for name, _ in blocks] == ["acme_threads.py", "test_acme_threads.py"]
    for name, block in blocks:
        (tmp_path / name).write_text(block)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, cwd=tmp_path,
                          timeout=TIMEOUT)  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert "2 passed" in done.stdout


def test_the_manual_names_every_fix() -> None:
    """docs/how-to/fixes.md tells of each of ompbind's own, with its source, and of each outcome."""
    text = (Path(__file__).parents[2] / "docs/how-to/fixes.md").read_text(encoding="utf-8")
    for fix in find_fixes("auto"):
        assert f"**`{fix.name}`** ({fix.source})" in " ".join(text.split())
    for outcome in ("applied", "not needed", "switched off", "changed", "failed"):
        assert f"| `{outcome}` |" in text
