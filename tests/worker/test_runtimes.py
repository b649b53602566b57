"""What a worker is, and which OpenMP runtimes it brings: what we say, against what `ldd` says and
what really gets loaded."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ompbind.errors import CommandError
from ompbind.options import PlanOptions, make_request
from ompbind.resolve import resolve_plan
from ompbind.worker import is_executable_here, require_program
from ompbind.worker.elf import Linker, read_elf, walk_needed
from ompbind.worker.runtimes import (
    PLAIN,
    family_of,
    guess_worker,
    package_runtimes,
)
from tests.support.machines import MACHINES
from tests.support.needs import unavailable

ENV = {"PATH": os.environ["PATH"]}


def needed(path: str, env: dict[str, str] | None = None) -> dict[str, str]:
    return dict(walk_needed([path], Linker(env or ENV), ()))


def ldd(path: str, env: dict[str, str] | None = None) -> dict[str, str]:
    """The dynamic linker's own answer: names and files ("" for none)."""
    done = subprocess.run(["ldd", path], capture_output=True, text=True, env=env or ENV, timeout=60)
    told = re.findall(r"^\t(\S+) => (not found|\S+)", done.stdout, re.M)
    return {name: "" if file == "not found" else os.path.realpath(file) for name, file in told}


def real(found: dict[str, str], names: object) -> dict[str, str]:
    """Of the libraries named, the files that links lead to."""
    return {n: os.path.realpath(p) if p else "" for n, p in found.items() if n in list(names)}  # type: ignore[call-overload]


def require(*programs: str) -> None:
    for program in programs:
        if not shutil.which(program):
            unavailable(f"there is no {program}; `tools/setup-system test` installs it")


@pytest.mark.parametrize(
    "program", ["true", "bash", "numactl", "lstopo-no-graphics", "gcc", "qemu-system-x86_64"]
)
def test_the_linker_agrees(program: str) -> None:
    """For programs of every size we find the files that the dynamic linker finds, and no others."""
    require(program, "ldd")
    path = shutil.which(program) or ""
    theirs = ldd(path)
    ours = needed(path)
    assert real(ours, theirs) == theirs
    assert {n for n in ours if not n.startswith("ld-")} == set(theirs)


def build(folder: Path, name: str, *options: str, main: bool = False) -> Path:
    """A library (or program) that calls nothing, linked with what `options` say."""
    folder.mkdir(parents=True, exist_ok=True)
    source = folder / f"{name}.c"
    source.write_text("int main(void) { return 0; }\n" if main else "int here;\n")
    kind = [] if main else ["-shared", "-fPIC", f"-Wl,-soname,{name}"]
    command: list[str | Path] = ["gcc", *kind, "-o", folder / name, source]
    command += ["-Wl,--no-as-needed", *options]
    subprocess.run(command, check=True, timeout=60)
    return folder / name


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of `deep/libdeep.so`, which needs libgomp, `libmid.so`, which needs that, and
    programs that find `libmid.so` in different ways."""
    require("gcc", "ldd")
    top = tmp_path_factory.mktemp("chain")
    build(top / "deep", "libdeep.so", "-lgomp")
    find_deep = [f"-L{top}/deep", "-ldeep", f"-Wl,-rpath-link,{top}/deep"]
    build(top / "lib", "libmid.so", *find_deep, "-Wl,--enable-new-dtags,-rpath,$ORIGIN/../deep")
    build(top / "lost", "libmid.so", *find_deep)
    for name, folder, rpath in (
        ("runpath", "lib", "--enable-new-dtags,-rpath,$ORIGIN/lib"),
        ("rpath", "lib", "--disable-new-dtags,-rpath,${ORIGIN}/lib"),
        ("inherited", "lost", "--disable-new-dtags,-rpath,$ORIGIN/lost:$ORIGIN/deep"),
        ("notinherited", "lost", "--enable-new-dtags,-rpath,$ORIGIN/lost:$ORIGIN/deep"),
        ("searched", "lib", "--enable-new-dtags"),
    ):
        build(top, name, f"-L{top}/{folder}", "-lmid", f"-Wl,-rpath-link,{top}/deep",
              f"-Wl,{rpath}", main=True)  # fmt: skip
    return top


@pytest.mark.parametrize("how", ["runpath", "rpath", "inherited", "notinherited", "searched"])
@pytest.mark.parametrize("searched", ["", "lib", "lost:deep"])
def test_search_rules(chain: Path, how: str, searched: str) -> None:
    """DT_RPATH (which loaded libraries inherit), LD_LIBRARY_PATH, DT_RUNPATH (which they do not)
    and the linker's cache, in the linker's own order."""
    env = ENV.copy()
    if searched:
        env["LD_LIBRARY_PATH"] = ":".join(f"{chain}/{d}" for d in searched.split(":"))
    theirs = ldd(str(chain / how), env)
    assert real(needed(str(chain / how), env), theirs) == theirs
    deep = bool(theirs.get("libdeep.so"))
    found = guess_worker([str(chain / how)], env).runtimes
    assert [r.name for r in found] == ["libgomp"] * deep


@pytest.mark.parametrize("runtime", ["libgomp", "libomp", "libiomp5"])
def test_a_compiled_worker(where: Callable[[str], str], runtime: str) -> None:
    """A program has the runtime it was linked with, by the name of the file that gets loaded."""
    program = where(runtime)
    worker = guess_worker([program], ENV)
    assert (worker.kind, worker.names) == ("compiled", (runtime,))
    [found] = worker.runtimes
    assert found.path == ldd(program)[found.via]


def test_a_link_to_another_runtime(where: Callable[[str], str], tmp_path: Path) -> None:
    """Where libgomp.so.1 is a link to libomp, as conda makes it, libomp is what gets loaded."""
    [libomp] = guess_worker([where("libomp")], ENV).runtimes
    (tmp_path / "libgomp.so.1").symlink_to(libomp.path)
    env = ENV | {"LD_LIBRARY_PATH": str(tmp_path)}
    assert guess_worker([where("libgomp")], env).names == ("libomp",)


def test_a_preloaded_runtime(where: Callable[[str], str]) -> None:
    """LD_PRELOAD adds a runtime, in a Python worker as well; preloading the program's own does
    not make two of it."""
    [libomp] = guess_worker([where("libomp")], ENV).runtimes
    env = ENV | {"LD_PRELOAD": f"/no/such.so {libomp.path}"}
    assert guess_worker([where("libgomp")], env).names == ("libomp", "libgomp")
    assert guess_worker([where("libomp")], env).names == ("libomp",)
    worker = guess_worker([sys.executable], env)
    assert (worker.kind, worker.names) == ("python", ("libomp",))


def test_a_runtime_preloaded_for_what_a_shell_starts(where: Callable[[str], str]) -> None:
    """A shell, env or timeout needs no OpenMP: the runtime is for the program that it starts, of
    which nothing is known, so that it gets one place."""
    [libomp] = guess_worker([where("libomp")], ENV).runtimes
    env = ENV | {"LD_PRELOAD": libomp.path}
    worker = guess_worker(["sh", "-c", "python train.py"], env)
    assert (worker.kind, worker.names) == ("wrapper", ("libomp",))
    assert guess_worker(["sh", "-c", "python train.py"], ENV).kind == "compiled"
    request = make_request({}, ["sh", "-c", "python train.py"])
    plan = resolve_plan(PlanOptions(request), env)
    assert [r.places for r in plan.ranks] == [(r.cpus,) for r in plan.ranks]
    assert plan.places_why == (
        "one place: 'sh' needs no OpenMP runtime; libomp is preloaded for what it starts"
    )


def test_a_second_runtime_and_places_are_warned_of(where: Callable[[str], str]) -> None:
    """A preloaded runtime beside the program's own, where several places were asked for: with one
    place, which is the default then, and with the program's own runtime, nothing is said."""
    program = where("libgomp")
    [libomp], [libgomp] = (guess_worker([where(n)], ENV).runtimes for n in ("libomp", "libgomp"))
    for places, preloaded, count in (
        ("threads", libomp.path, 1),
        ("one", libomp.path, 0),
        (None, libomp.path, 0),
        ("threads", libgomp.path, 0),
    ):
        request = make_request({"places": places} if places else {}, [program])
        machine = MACHINES["desktop"]
        options = PlanOptions(request, topology="desktop")
        plan = resolve_plan(options, ENV | {"LD_PRELOAD": preloaded}, machine)
        said = [c.text for c in plan.cautions if c.kind == "openmp"]
        assert len(said) == count, (places, preloaded)
        assert all("(libomp, libgomp, by LD_PRELOAD)" in text for text in said)


def head(machine: int, bits: int, order: str = "little") -> bytes:
    """The first bytes of an ELF file."""
    data = bytearray(64)
    data[:6] = b"\x7fELF" + bytes([bits // 32, 1 if order == "little" else 2])
    data[18:20] = machine.to_bytes(2, order)  # type: ignore[arg-type]
    return bytes(data)


X86_64, I386, ARM64, ARM, PPC64, S390 = 62, 3, 183, 40, 21, 22


@pytest.mark.parametrize(
    ("program", "python", "machine", "executable"),
    [
        (head(X86_64, 64), head(X86_64, 64), "x86_64", True),
        (head(I386, 32), head(X86_64, 64), "x86_64", True),
        (head(ARM64, 64), head(X86_64, 64), "x86_64", False),
        (head(X86_64, 64, "big"), head(X86_64, 64), "x86_64", False),
        (head(PPC64, 64, "big"), head(PPC64, 64), "ppc64le", False),
        (head(ARM64, 64, "big"), head(ARM64, 64), "aarch64", False),
        (head(S390, 64, "big"), head(S390, 64, "big"), "s390x", True),
        (head(S390, 32, "big"), head(S390, 64, "big"), "s390x", True),
        # a 32-bit Python under a 64-bit kernel, and under a 32-bit one
        (head(ARM64, 64), head(ARM, 32), "aarch64", True),
        (head(ARM64, 64), head(ARM, 32), "armv7l", False),
        (head(X86_64, 64), head(I386, 32), "x86_64", True),
        (head(X86_64, 64), head(I386, 32), "i686", False),
        (head(ARM, 32), head(ARM, 32), "armv7l", True),
        (head(8, 32, "big"), head(8, 32, "big"), "mips", True),
    ],
    ids=lambda value: value[:20].hex() if isinstance(value, bytes) else None,
)
def test_what_the_kernel_executes(
    program: bytes, python: bytes, machine: str, executable: bool
) -> None:
    """The same family and byte order, and 64-bit programs under a 64-bit kernel, whatever Python
    is."""
    assert is_executable_here(program, python, machine) == executable


def test_a_program_of_the_other_byte_order_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """numactl's execvp would hand it to a shell."""
    monkeypatch.setattr("ompbind.worker.has_emulators", lambda: False)
    data = bytearray(Path(sys.executable).resolve().read_bytes()[:4096])
    data[5], data[18:20] = 3 - data[5], data[18:20][::-1]
    (tmp_path / "swapped").write_bytes(data)
    (tmp_path / "swapped").chmod(0o755)
    with pytest.raises(CommandError, match="built for another kind of processor"):
        require_program(str(tmp_path / "swapped"), ENV)


@pytest.mark.parametrize(
    ("first_line", "kind"),
    [
        ("#!/usr/bin/python3", "python"),
        ("#!/usr/bin/env python3", "python"),
        ("#!/usr/bin/env -S python3.12 -u", "python"),
        ("#!/bin/sh", "unknown"),
        ("not a script", "unknown"),
        ("", "unknown"),
    ],
)
def test_scripts(tmp_path: Path, first_line: str, kind: str) -> None:
    """A console script such as torchrun is Python by its first line; others nobody can tell."""
    script = tmp_path / "serve"
    script.write_text(f"{first_line}\n")
    script.chmod(0o755)
    assert guess_worker([str(script), "--port", "1"], ENV).kind == kind


@pytest.mark.parametrize(
    ("command", "kind"),
    [
        ([], "unknown"),
        (["python"], "python"),
        (["/opt/venv/bin/python3.13t", "-m", "x"], "python"),
        (["no-such-program"], "unknown"),
        (["/"], "unknown"),
        (["\0"], "unknown"),
        ([""], "unknown"),
        (["true"], "compiled"),
    ],
)
def test_other_commands(command: list[str], kind: str) -> None:
    """A worker that is not there or cannot be read is unknown, never an error."""
    worker = guess_worker(command, ENV)
    assert (worker.kind, worker.runtimes) == (kind, ())


def test_an_embedded_python(tmp_path: Path) -> None:
    """A compiled program that loads libpython is Python: its main thread runs Python code."""
    require("gcc")
    build(tmp_path, "libpython3.12.so.1.0")
    program = build(tmp_path, "app", str(tmp_path / "libpython3.12.so.1.0"), main=True)
    env = ENV | {"LD_LIBRARY_PATH": str(tmp_path)}
    assert guess_worker([str(program)], env).kind == "python"


def test_packages(tmp_path: Path, where: Callable[[str], str]) -> None:
    """A package has the runtimes that lie in it or beside it, and those its modules need."""
    package = tmp_path / "sklearnish"
    for file in ("lib/libgomp-a34b3233.so.1.0.0", "_impl/notomp.so", "data/libomp.txt"):
        (package / file).parent.mkdir(parents=True, exist_ok=True)
        (package / file).write_text("")
    beside = tmp_path / "sklearnish.libs" / "libiomp5-0f.so"
    beside.parent.mkdir()
    beside.write_text("")
    shutil.copy(where("libomp"), package / "_impl" / "module.cpython-311-x86_64-linux-gnu.so")
    found = package_runtimes(str(package), ENV)
    assert [r.name for r in found] == ["libgomp", "libiomp5", "libomp"]
    assert [r.path for r in found[:2]] == [
        str(package / "lib/libgomp-a34b3233.so.1.0.0"),
        str(beside),
    ]
    assert package_runtimes(str(tmp_path / "no such package"), ENV) == ()


def test_torch_ships_one_runtime() -> None:
    """torch's own libgomp is the only runtime that importing it maps, and the one that we name."""
    pytest.importorskip("torch")
    code = "import os, torch; print(os.path.dirname(torch.__file__))\n"
    code += "print(open('/proc/self/maps').read())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    directory, _, maps = done.stdout.partition("\n")
    mapped = {line.split()[-1] for line in maps.splitlines() if family_of(os.path.basename(line))}
    assert mapped
    assert {r.path for r in package_runtimes(directory, ENV)} == mapped


def show(ompbind: str, *words: str) -> dict[str, Any]:
    done = subprocess.run(
        [ompbind, "show", "--format", "json", *words],
        capture_output=True, text=True, env=ENV, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    plan: dict[str, Any] = json.loads(done.stdout)
    return plan


@pytest.mark.parametrize(
    ("options", "worker", "why"),
    [
        ("", "python", "one place: 'python' is Python: "),
        ("", "libgomp", "places are cores: 'where-libgomp' is a compiled program with one"),
        ("", "libomp", "places are cores: 'where-libomp' is a compiled program with one"),
        ("", "true", "one place: 'true' is a compiled program without an OpenMP runtime"),
        ("", "", "one place: no command is named"),
        ("", "no-such-program", "one place: what 'no-such-program' is cannot be seen"),
        ("--runtime libomp", "true", "places are cores: --runtime libomp"),
        ("--runtime auto", "true", "one place: 'true' is a compiled program without"),
        ("--runtime none", "libgomp", "one place: --runtime none"),
        ("--runtime libgomp", "python", "one place: 'python' is Python: "),
        ("--places cores", "python", "places are cores: --places is given"),
        ("--places wide", "python", "a place for each core, the first for all: --places is given"),
        ("--proc-bind false", "libgomp", "one place: threads are not to be bound"),
    ],
)
def test_a_plan_says_why_its_places_are_these(
    ompbind: str, where: Callable[[str], str], options: str, worker: str, why: str, tmp_path: Path
) -> None:
    """What a place is depends on what the worker is, the plan says so, and keeps it when saved."""
    command = [where(worker) if worker.startswith("lib") else worker] if worker else []
    plan = show(ompbind, *options.split(), "--", *command)
    assert plan["places_why"].startswith(why)
    [rank] = plan["ranks"]
    if why.startswith("one"):
        assert rank["places"] == [rank["cpus"]]
    elif "cores" in why:
        assert len(rank["places"]) == int(rank["env"]["OMP_NUM_THREADS"])
    saved = tmp_path / "plan.json"
    saved.write_text(json.dumps(plan))
    again = show(ompbind, "--plan", str(saved))
    assert (again["places_why"], again["ranks"]) == (plan["places_why"], plan["ranks"])


@pytest.mark.parametrize(
    ("file", "family"),
    [
        ("libgomp.so.1", "libgomp"),
        ("libgomp.so", "libgomp"),
        ("libgomp-24e2ab19.so.1.0.0", "libgomp"),
        ("libomp.so.5", "libomp"),
        ("libomp.dylib", "libomp"),
        ("libiomp5.so", "libiomp5"),
        ("libiomp5-2ffc3d.so", "libiomp5"),
        ("libomp5.so", "libomp"),
        ("libgomp-plugin-nvptx.so.1", ""),
        ("libgomp-plugin-gcn.so.1.0.0", ""),
        ("libomptarget.so", ""),
        ("libompd.so", ""),
        ("libgomp.spec", ""),
        ("libgompish.so", ""),
        ("libiomp5.a", ""),
        ("libomp", ""),
        ("", ""),
    ],
)
def test_names_of_runtimes(file: str, family: str) -> None:
    """Libraries with versions and wheels' hashes are known; their neighbours are not mistaken."""
    assert family_of(file) == family


@given(st.binary(max_size=200), st.integers(0, 4000), st.binary(max_size=24))
def test_damaged_files(data: bytes, at: int, put: bytes) -> None:
    """Whatever a file holds, it is read to an end: a damaged program is never an error."""
    whole = Path("/bin/true").read_bytes() if os.path.exists("/bin/true") else b"\x7fELF" * 400
    path = Path(os.environ.get("TMPDIR", "/tmp")) / f"ompbind-test-{os.getpid()}"
    try:
        for content in (b"\x7fELF\2\1" + data, whole[:at] + put + whole[at + len(put) :]):
            path.write_bytes(content)
            elf = read_elf(str(path))
            assert elf is None or all("\0" not in name for name in elf.needed)
            path.chmod(0o755)
            assert guess_worker([str(path)], ENV).kind in ("compiled", "unknown", "python")
    finally:
        path.unlink()


def test_what_is_not_looked_into() -> None:
    """The libraries that are spared a look need no OpenMP, by the linker's own word."""
    require("ldd")
    for name, path in needed(shutil.which("gcc") or sys.executable).items():
        if name.startswith(PLAIN) and path:
            assert not any(family_of(n) for n in ldd(path))
