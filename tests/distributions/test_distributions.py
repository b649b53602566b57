"""The wheel in each place: installed by the place's own pip, and then what a first user does, in
four locales, as an ordinary user whose home cannot be written to. Masks are judged from outside."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from ompbind.cpuset import CpuSet
from tests.distributions.inside import HOME, LOCALES, Inside
from tests.distributions.places import (
    MUSL,
    OLD,
    RELEASES,
    VERSIONS,
    Place,
    find_place,
    wheels_folder,
)
from tests.support.needs import REPOSITORY, need_cpus
from tests.support.observe import launch
from tests.support.programs import SOURCE, compile_where
from tests.support.shared import once, shared_folder

WANTED = "OMPBIND_TEST_DISTRIBUTIONS"  # set by `make test-distributions`
# What a wheel is built from.
SOURCES = ("ompbind", "docs", "scripts", "tools", "pyproject.toml", "setup.py", "MANIFEST.in",
           "README.md", "CHANGELOG.md", "LICENSE")  # fmt: skip
NAME = "größe"  # a word that neither C nor, in UTF-8, Latin-1 can say


@pytest.fixture(scope="session")
def wheel() -> Path:
    """ompbind's wheel, built from a copy of this tree, beside a compiled OpenMP program."""
    if WANTED not in os.environ:
        pytest.skip("make test-distributions runs it")
    return Path(once("distributions-wheel", build_wheel))


def build_wheel() -> str:
    source, files = shared_folder("distributions-source"), shared_folder("distributions-files")
    unwanted = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for name in SOURCES:
        path = REPOSITORY / name
        if path.is_dir():
            shutil.copytree(path, source / name, ignore=unwanted, symlinks=True)
        else:
            shutil.copy(path, source)
    pip = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check")
    command = [*pip, "wheel", "--no-deps", "--wheel-dir", str(files), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    shutil.copy(compile_where("libgomp"), files / "where")
    if MUSL:  # GNU's OpenMP needs GNU's libc: whole in a file, it runs anywhere
        compile_static = ["gcc", "-static", "-fopenmp", "-O2", "-w", "-o", str(files / "whole")]
        subprocess.run([*compile_static, str(SOURCE)], check=True, capture_output=True)
    return str(next(files.glob("*.whl")))


@pytest.fixture(
    scope="module", params=[pytest.param(n, marks=pytest.mark.xdist_group(n)) for n in VERSIONS]
)
def inside(request: pytest.FixtureRequest, wheel: Path) -> Inside:
    """A place with ompbind installed in a virtual environment below the user's home."""
    place = find_place(request.param)
    home = Path(once(f"distributions-{place.name}", lambda: install(place, wheel)))
    return Inside(place, home, wheel.parent)


def install(place: Place, wheel: Path) -> str:
    home = Path(tempfile.mkdtemp(prefix=f"{place.name}-", dir=shared_folder("distributions-homes")))
    files = wheel.parent
    for needed in wheels_folder(place.name).glob("*.whl"):
        shutil.copy(needed, home)
    shutil.copy(wheel, home)
    inside = Inside(place, home, files)
    make = [place.python, "-m", "venv", f"{HOME}/venv"]
    pip = [f"{HOME}/venv/bin/python", "-m", "pip"]
    if place.root == Path("/"):  # an unpacked Python may have no pip
        make.insert(-1, "--without-pip")
        pip = [sys.executable, "-m", "pip", f"--python={HOME}/venv/bin/python"]
    for command in (
        make,
        [*pip, "install", "--quiet", "--no-index", f"--find-links={HOME}", "ompbind"],
        [*pip, "check"],
    ):
        done = inside.run(*command, write=True)
        assert done.returncode == 0, f"{' '.join(command)}: {done.stdout}{done.stderr}"
    return str(home)


def succeed(inside: Inside, *words: str, locale: str = "utf8") -> str:
    """Run a command that must succeed and say nothing on standard error; return its output."""
    done = inside.run(*words, locale=locale)
    assert (done.returncode, done.stderr) == (0, ""), f"{words}: {done.stdout}{done.stderr}"
    return done.stdout


def where(inside: Inside) -> str:
    return f"/mnt/files/{'whole' if inside.place.name in MUSL else 'where'}"


def plan_two(inside: Inside, *words: str) -> list[dict[str, Any]]:
    text = succeed(inside, "ompbind", "show", *words, "--format", "json", "--", where(inside))
    ranks: list[dict[str, Any]] = json.loads(text)["ranks"]
    return ranks


def test_too_old_a_python_is_refused_in_a_line(wheel: Path, tmp_path: Path) -> None:
    """pip of a Python before 3.10 says so, and installs nothing; so does ompbind, where its files
    are there all the same."""
    place = find_place(OLD)
    shutil.copy(wheel, tmp_path)
    inside = Inside(place, tmp_path, wheel.parent)
    assert inside.run(place.python, "-m", "venv", f"{HOME}/venv", write=True).returncode == 0
    done = inside.run(f"{HOME}/venv/bin/pip", "install", "--no-deps", f"{HOME}/{wheel.name}")
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("ERROR:")]
    assert done.returncode == 1
    assert f"requires a different Python: {RELEASES[OLD]}." in line
    assert "not in '>=3.10'" in line
    env = {"PYTHONPATH": f"{HOME}/{wheel.name}"}
    done = inside.run(place.python, "-m", "ompbind", "show", env=env)
    assert (done.returncode, done.stdout) == (125, "")
    assert done.stderr.splitlines() == [
        f"ompbind: error: this is Python {RELEASES[OLD]}",
        "hint: ompbind needs Python 3.10 or newer",
    ]
    done = inside.run(place.python, "-c", "import ompbind", env=env)
    assert done.stderr.splitlines()[-1] == (
        f"ImportError: ompbind needs Python 3.10 or newer, and this is Python {RELEASES[OLD]}"
    )


def test_nothing_that_needs_a_compiler_is_installed(inside: Inside) -> None:
    """psutil, which reads other systems than Linux and has no wheels for some machines, is not."""
    folder = next((inside.home / "venv/lib").glob("python3.*")) / "site-packages"
    assert list(folder.glob("ompbind-*.dist-info"))
    assert not list(folder.glob("psutil*"))
    assert (inside.home / "venv/share/man/man1/ompbind.1").exists()


@pytest.mark.parametrize("locale", LOCALES)
def test_what_is_shown(inside: Inside, locale: str) -> None:
    """Tables, JSON, help and the documentation come out in every locale, in its own characters;
    the plan is the same in all, also by `python -m ompbind`."""
    json_of_utf8 = succeed(inside, "ompbind", "show", "--format", "json")
    assert succeed(inside, "ompbind", "show", "--format", "json", locale=locale) == json_of_utf8
    python = ("python", "-m", "ompbind")
    assert succeed(inside, *python, "show", "--format", "json", locale=locale) == json_of_utf8
    for words in (["show"], ["show", "--explain"], ["topo"], ["--help"], ["run", "--help"],
                  ["help"], ["help", "binding"], ["--version"], ["ps"]):  # fmt: skip
        text = succeed(inside, "ompbind", *words, locale=locale)
        assert text.strip(), words
        assert locale != "ascii" or text.isascii(), words
    encoding = {"utf8": "utf-8", "ascii": "ascii", "latin": "latin-1", "missing": "utf-8"}[locale]
    os.fsencode(succeed(inside, "ompbind", "topo", locale=locale)).decode(encoding)
    done = inside.run("ompbind", "doctor", locale=locale)
    assert done.returncode in (0, 1), done.stderr  # 1: this machine does not let it bind
    assert "Traceback" not in done.stdout + done.stderr


@pytest.mark.parametrize("binder", ["numactl", "native"])
def test_ranks_run_where_they_are_planned(inside: Inside, binder: str) -> None:
    """Two ranks: masks and OpenMP threads as `/proc` has them from outside, and as the place's own
    taskset and verify see them, are the plan's."""
    need_cpus(2)
    if binder == "numactl" and inside.place.name in MUSL:
        pytest.skip("numactl is not made for musl here")
    words = ["-n", "2", "--binder", binder]
    planned = plan_two(inside, *words)
    ompbind = inside.command("ompbind", "run", *words, "--", where(inside), "--wait")
    seen = launch(ompbind, ranks=2)
    assert (seen.status, seen.err) == (0, "")
    for rank, real in zip(planned, seen.ranks, strict=True):
        places = [list(CpuSet.parse_kernel(place)) for place in rank["places"]]
        assert real.threads == places
        assert real.env["OMP_PLACES"] == rank["env"]["OMP_PLACES"]
        assert real.env["HOME"] == HOME
    # PID 0 is the process itself for the kernel, but not for taskset: the shell is asked for it.
    look = "taskset -cp $$; ompbind verify $$ >&2"
    done = inside.run(
        "ompbind", "run", *words, "--verify", "--output", "tag", "--", "sh", "-c", look
    )
    assert done.returncode == 0, done.stderr
    lines = sorted(done.stdout.splitlines())
    for rank, line in zip(planned, lines, strict=True):
        assert line.startswith(f"[{rank['rank']}] ")
        assert CpuSet.parse_kernel(line.rpartition(": ")[2]) == CpuSet.parse_kernel(rank["cpus"])
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("locale", LOCALES)
def test_words_arrive_as_they_were_typed(inside: Inside, locale: str) -> None:
    """Arguments and variables that the locale has no characters for reach the worker byte for byte,
    and what a worker writes passes through."""
    code = 'printf "%s\\n" "$1" "$WORD"'
    done = inside.run(
        *("ompbind", "run", "--output", "tag", "--", "sh", "-c", code, "sh", NAME),
        locale=locale, env={"WORD": NAME},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"[0] {NAME}\n[0] {NAME}\n"
    shown = succeed(inside, "ompbind", "show", "--format", "sh", "--", "echo", NAME, locale=locale)
    assert NAME in shown


@pytest.mark.parametrize("locale", LOCALES)
def test_errors_are_a_line_and_a_status(inside: Inside, locale: str) -> None:
    """What cannot be had, executed or found ends with 125, 126 or 127 and one line, whatever the
    characters in it."""
    for words, status in (
        (["run", "--numa-bind-nodes", "999", "--", "true"], 125),
        (["run", "--numa-bind-cpus", "5-3", "--", "true"], 125),
        (["show", "-n", NAME], 125),
        (["show", f"--{NAME}"], 125),
        (["show", "--plan", f"/{NAME}.json"], 125),
        (["run", "--", "/etc/passwd"], 126),
        (["run", "--", f"/{NAME}"], 127),
    ):
        done = inside.run("ompbind", *words, locale=locale)
        assert (done.returncode, done.stdout) == (status, ""), words
        error, *hints = done.stderr.splitlines()
        assert error.startswith("ompbind: error: "), done.stderr
        assert len(hints) <= 1
        assert all(hint.startswith("hint: ") for hint in hints)


def test_a_home_that_is_missing(inside: Inside) -> None:
    """Without HOME, or with one that does not exist, everything works all the same."""
    for variables in ({"HOME": "/nonexistent"}, {"HOME": ""}):
        for words in (["show"], ["topo"], ["run", "-v", "--", "true"], ["ps"], ["--help"]):
            done = inside.run("ompbind", *words, env=variables)
            assert done.returncode == 0, f"{words}: {done.stderr}"
            assert "Traceback" not in done.stderr


def test_files_are_refused_where_nothing_can_be_written(inside: Inside) -> None:
    """A snapshot or a completion that cannot be saved is one line that says why."""
    for words in (["topo", "--save", f"{HOME}/machine.topo"], ["--install-completion", "bash"]):
        done = inside.run("ompbind", *words)
        assert done.returncode == 125, done.stdout
        assert done.stderr.startswith("ompbind: error: ")
        assert "ead-only" in done.stderr


def test_signals_end_the_ranks(inside: Inside) -> None:
    """TERM ends ompbind with 143, and nothing that it started is left."""
    words = ["--output", "tag", "--", "sh", "-c", "echo $$; exec sleep 1000"]
    command = inside.command("ompbind", "run", *words)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline().removeprefix("[0] "))
        assert Path(f"/proc/{pid}").exists()
        process.terminate()
        assert process.wait(60) == 143
    assert not Path(f"/proc/{pid}").exists()


def test_a_program_uses_the_package(inside: Inside) -> None:
    """`ompbind.plan` and its processes, in the place's own Python."""
    code = (
        "import ompbind, sys\n"
        "plan = ompbind.plan(ranks=1)\n"
        "process = plan.popen(0, ['sh', '-c', 'taskset -cp $$'])\n"
        "sys.exit(process.wait() or 'psutil' in sys.modules)\n"
    )
    text = succeed(inside, "python", "-c", code)
    (rank,) = json.loads(succeed(inside, "ompbind", "show", "--format", "json"))["ranks"]
    assert text.rpartition(": ")[2].strip().replace(",", "-")[:1] == rank["cpus"][:1]
