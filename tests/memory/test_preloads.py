"""--preload: what is found, checked and refused, and what a rank's process really has."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import ompbind
from ompbind.cli import main
from ompbind.errors import UsageError
from ompbind.memory.preloads import Preload, find_preloads, join_preload
from ompbind.worker.libraries import ALLOCATORS, Finder
from tests.support.commands import ompbind_run
from tests.support.needs import unavailable
from tests.support.programs import compile_library

ENV = {"PATH": os.environ["PATH"]}
MAPS = "import os; print(open('/proc/self/maps').read()); print(os.environ['LD_PRELOAD'])"


@pytest.fixture
def plain() -> str:
    return compile_library("libplain.so.1")


@pytest.fixture
def jemalloc(tmp_path: Path) -> str:
    """A library of an allocator's name."""
    path = tmp_path / "libjemalloc.so.2"
    shutil.copy(compile_library("libplain.so.1"), path)
    return str(path)


def test_a_process_has_it(plain: str, jemalloc: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """By /proc: the libraries of --preload are mapped, in front of those of LD_PRELOAD."""
    other = compile_library("libother.so")
    monkeypatch.setenv("LD_PRELOAD", other)
    words = ["--preload", "jemalloc", "--preload", plain, "--env", "X=1"]
    monkeypatch.setenv("LD_LIBRARY_PATH", os.path.dirname(jemalloc))
    done = ompbind_run("run", *words, "--", sys.executable, "-I", "-S", "-c", MAPS)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    *maps, preload = done.stdout.splitlines()
    assert preload == f"{jemalloc}:{plain}:{other}"
    for path in (jemalloc, plain, other):
        assert any(line.endswith(f" {path}") for line in maps)


@pytest.mark.parametrize("name", ALLOCATORS)
def test_real_allocators(name: str) -> None:
    """Each one that is installed is found and loaded by a rank; `tools/setup-system test` installs
    two of them."""
    if not Finder([], dict(os.environ)).find(name):
        if name != "mimalloc":
            unavailable(f"there is no {name}; `tools/setup-system test` installs it")
        pytest.skip("there is no mimalloc")
    code = "print([line for line in open('/proc/self/maps') if 'malloc' in line][-1].split()[-1])"
    command = [sys.executable, "-I", "-S", "-c", code]
    done = ompbind_run("run", "--preload", name, "--", *command)
    assert (done.returncode, done.stderr) == (0, "")
    assert os.path.basename(done.stdout.strip()).startswith(f"lib{name}")


def show(capfd: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    status = main(["show", "-n", "1", *words])
    out, err = capfd.readouterr()
    return status, out, err


def test_a_plan_shows_it(plain: str, jemalloc: str, capfd: pytest.CaptureFixture[str]) -> None:
    """In the table, in the JSON and in words; a plan without it has nothing of it."""
    words = ["--preload", f"{jemalloc},{plain}"]
    _, out, err = show(capfd, *words, "--explain", "--", "true")
    line = f"preloaded: jemalloc ({jemalloc}), {plain}"
    assert "".join(line.split()) in "".join(out.split())  # it may be folded
    assert "jemalloc takes the place of the C library's allocator." in " ".join(out.split())
    assert err == ""
    _, out, _ = show(capfd, *words, "--format", "json", "--", "true")
    [rank] = json.loads(out)["ranks"]
    assert rank["preload"] == [jemalloc, plain]
    assert rank["env"]["LD_PRELOAD"] == f"{jemalloc}:{plain}"
    _, out, _ = show(capfd, "--format", "json", "--", "true")
    assert "preload" not in json.loads(out)["ranks"][0]
    made = ompbind.plan(ranks=1, preload=[jemalloc, plain], command=["true"])
    assert made.ranks[0].preloads == (jemalloc, plain)


@pytest.mark.parametrize(
    ("value", "error", "hint"),
    [
        ("tcmaloc", "--preload: 'tcmaloc' is neither tcmalloc, jemalloc, mimalloc, iomp5 nor a "
         "library that ld.so finds", "did you mean tcmalloc?"),
        ("/no/such/lib.so", "--preload: '/no/such/lib.so' does not exist", ""),
        ("/etc/passwd", "--preload: '/etc/passwd' is not a shared library", ""),
        ("a,,b", "--preload: 'a,,b' has an empty name",
         "names or paths with commas, as in tcmalloc,iomp5"),
        ("/a b/libx.so", "--preload: '/a b/libx.so' has a blank or a colon, which end a name in "
         "LD_PRELOAD", "a link to it without one will do"),
    ],
)  # fmt: skip
def test_what_is_refused(
    value: str, error: str, hint: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """In one line, before anything starts."""
    for command in ("run", "show"):
        assert main([command, "--preload", value, "--", "true"]) == 125
        expected = f"ompbind: error: {error}\n" + f"hint: {hint}\n" * bool(hint)
        assert capfd.readouterr() == ("", expected)


def test_a_library_of_the_linkers(capfd: pytest.CaptureFixture[str]) -> None:
    """A file that ld.so finds by its name alone becomes a path that is checked."""
    _, out, _ = show(capfd, "--preload", "libm.so.6", "--format", "json", "--", "true")
    path = json.loads(out)["ranks"][0]["env"]["LD_PRELOAD"]
    assert path.endswith("/libm.so.6")
    assert os.path.isfile(path)


def test_what_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says what installs it; two allocators in one process make no sense."""
    monkeypatch.setattr("ompbind.memory.preloads.Finder.find", lambda *_: "")
    with pytest.raises(UsageError, match="--preload mimalloc: not found here") as caught:
        find_preloads(["mimalloc"], [], ENV)
    assert caught.value.hint.startswith("apt-get install libmimalloc")
    monkeypatch.undo()
    for name in ("libjemalloc.so.2", "libtcmalloc.so.4"):
        shutil.copy(compile_library("libplain.so.1"), tmp_path / name)
    env = ENV | {"LD_LIBRARY_PATH": str(tmp_path)}
    with pytest.raises(UsageError, match="jemalloc and tcmalloc are both allocators"):
        find_preloads(["jemalloc", "tcmalloc"], [], env)
    [once] = find_preloads(["jemalloc", str(tmp_path / "libjemalloc.so.2")], [], env)
    assert once == Preload("jemalloc", str(tmp_path / "libjemalloc.so.2"))
    # what is on another machine cannot be seen
    [path] = find_preloads(["/there/libx.so"], [], ENV, check=False)
    assert path.path == "/there/libx.so"


def test_each_library_is_loaded_once() -> None:
    assert join_preload([Preload("b", "/b"), Preload("a", "/a")], "/a:/c /b") == "/b:/a:/c"
    assert join_preload([], "") == ""


def test_what_a_preload_does_not_do(
    jemalloc: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Warned of: a second allocator behind the first, a program into which nothing is loaded."""
    other = tmp_path / "libtcmalloc.so.4"
    shutil.copy(jemalloc, other)
    _, _, err = show(
        capfd, "--env", f"LD_PRELOAD={jemalloc}", "--preload", str(other), "--format", "argv",
        "--", "true",
    )  # fmt: skip
    assert err == (
        f"ompbind: warning: LD_PRELOAD: '{jemalloc}' comes after '{other}', and allocates nothing\n"
    )
    static = compile_library(
        "static", "-nostdlib", "-static", "-no-pie", "-Wl,-e,start",
        source="void start(void) {}\n", kind="program",
    )  # fmt: skip
    _, _, err = show(capfd, "--preload", jemalloc, "--format", "argv", "--", static)
    assert err == (
        "ompbind: warning: LD_PRELOAD: 'static' is statically linked: nothing is preloaded but "
        "into what it starts\n"
    )


def about_openmp(plan: dict[str, Any]) -> list[str]:
    """The warnings of a plan that are about OpenMP."""
    pairs = zip(plan["warnings"], plan["warning_kinds"], strict=True)
    return [text for text, kind in pairs if kind == "openmp"]


def test_a_second_openmp_runtime(
    where: Callable[[str], str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Never without a word: beside a program's own, also through --env, and beside those of the
    packages that a Python program imports. The program's own is no second one."""
    iomp5 = tmp_path / "libiomp5.so"
    shutil.copy(compile_library("libplain.so.1"), iomp5)
    program = where("libgomp")
    _, out, _ = show(capfd, "--preload", str(iomp5), "--format", "json", "--", program)
    plan = json.loads(out)
    [warning] = about_openmp(plan)
    assert f"--preload {iomp5}: 'where-libgomp' may load another" in warning
    assert "libgomp" in warning
    assert plan["places_why"].startswith("one place: 'where-libgomp' has several OpenMP runtimes")
    _, out, _ = show(capfd, "--env", f"LD_PRELOAD={iomp5}", "--format", "json", "--", program)
    assert json.loads(out)["places_why"] == plan["places_why"]
    package = tmp_path / "torchish/lib"
    package.mkdir(parents=True)
    (package / "libgomp.so.1").write_bytes(b"")
    script = tmp_path / "train.py"
    script.write_text("import torchish\n")
    command = [sys.executable, str(script)]
    _, out, _ = show(capfd, "--preload", str(iomp5), "--format", "json", "--", *command)
    assert f"libgomp ({package}/libgomp.so.1)" in about_openmp(json.loads(out))[0]
    script.write_text("import json\n")
    _, out, _ = show(capfd, "--preload", str(iomp5), "--format", "json", "--", *command)
    assert about_openmp(json.loads(out)) == []


def test_a_saved_plan(
    plain: str, jemalloc: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """It keeps what it preloads; files that have gone since are warned of; --preload adds to it."""
    file = tmp_path / "plan.json"
    _, out, _ = show(capfd, "--preload", plain, "--format", "json", "--", "true")
    file.write_text(out)
    saved = ["show", "--plan", str(file)]
    assert main([*saved, "--preload", jemalloc, "--format", "json"]) == 0
    assert json.loads(capfd.readouterr().out)["ranks"][0]["preload"] == [jemalloc, plain]
    assert main([*saved, "--format", "argv", "--", "ls"]) == 125
    assert "LD_PRELOAD" in capfd.readouterr().err
    assert main([*saved, "--preload", jemalloc, "--format", "json", "--", "ls"]) == 0
    assert json.loads(capfd.readouterr().out)["ranks"][0]["preload"] == [jemalloc]
    file.write_text(file.read_text().replace("libplain", "libgone"))
    assert main([*saved, "--format", "argv"]) == 0
    assert "libgone.so.1' does not exist, and will not" in capfd.readouterr().err
