"""Libraries to preload: where they are found, and whether ld.so would load them, by files alone;
ld.so itself is the judge of real ones."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ompbind.worker.elf import read_elf
from ompbind.worker.libraries import LIBRARIES, Finder, name_allocator
from ompbind.worker.versions import MAX_ENTRIES, Versions, read_versions
from tests.support.needs import unavailable
from tests.support.programs import compile_library

PYTHON = [os.path.realpath(sys.executable)]
ENV = {"PATH": os.environ["PATH"]}


@pytest.fixture
def library() -> str:
    return compile_library("libplain.so.1")


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine without any of these libraries but those that a test puts there."""
    monkeypatch.setattr("ompbind.worker.libraries.DIRECTORIES", (f"{tmp_path}/usr/lib64",))
    monkeypatch.setattr("ompbind.worker.libraries.INTEL", f"{tmp_path}/opt/intel/lib")
    monkeypatch.setattr("ompbind.worker.elf.CACHE", f"{tmp_path}/ld.so.cache")
    monkeypatch.setattr(sys, "executable", f"{tmp_path}/bin/python3")
    return tmp_path


def put(library: str, *places: Path | str) -> None:
    for place in map(Path, places):
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(library, place)


def test_where_they_are_found(alone: Path, library: str) -> None:
    """LD_LIBRARY_PATH before the command's own Python, that before conda's active environment, that
    before the system; of several files of a name the best."""
    python = alone / "venv/bin/python3"
    python.parent.mkdir(parents=True)
    shutil.copy(library, python)  # any binary of this machine
    python.chmod(0o755)
    site = alone / "venv/lib/python3.11/site-packages"
    put(library, site / "vllm/libs/libtcmalloc_minimal-a1b2.so.4.5.9")
    env = ENV | {"LD_LIBRARY_PATH": f"{alone}/given", "CONDA_PREFIX": f"{alone}/conda"}
    finder = Finder([str(python), "x.py"], env)
    wheel = site / "vllm/libs/libtcmalloc_minimal-a1b2.so.4.5.9"
    assert finder.find("tcmalloc") == str(wheel)
    steps = (
        ("jemalloc", alone / "usr/lib64/libjemalloc.so.2"),  # Red Hat's
        ("jemalloc", alone / "conda/lib/libjemalloc.so.2"),
        ("jemalloc", site / "ray/core/libjemalloc.so"),
        ("mimalloc", site / "cmeel.prefix/lib/libmimalloc.so.3.4"),
        ("iomp5", alone / "opt/intel/lib/libiomp5.so"),
        ("iomp5", alone / "venv/lib/libiomp5.so"),  # pip's and conda's
        ("tcmalloc", alone / "venv/lib/libtcmalloc.so"),
        ("tcmalloc", alone / "venv/lib/libtcmalloc_minimal.so.4"),
        ("tcmalloc", alone / "given/libtcmalloc.so.4"),
    )
    for name, path in steps:
        put(library, path)
        assert finder.find(name) == str(path), name
    assert Finder(["no-such-program"], ENV).find("tcmalloc") == ""


def test_others_of_the_name_are_passed_over(alone: Path, library: str) -> None:
    """A profiler or a debugging build is none of those that are meant; a file that does not load
    yields to one further on that does, and is the answer where there is no other."""
    lib = alone / "given"
    put(library, lib / "libtcmalloc_minimal_debug.so.4", lib / "libtcmalloc_and_profiler.so.4")
    put(library, lib / "libiomp5_db.so", lib / "libiomp5.dbg")
    finder = Finder(PYTHON, ENV | {"LD_LIBRARY_PATH": str(lib)})
    assert finder.find("tcmalloc") == finder.find("iomp5") == ""
    (lib / "libjemalloc.so.2").write_bytes(b"\x7fELF of something")
    assert finder.find("jemalloc") == str(lib / "libjemalloc.so.2")
    put(library, alone / "usr/lib64/libjemalloc.so.2")
    assert finder.find("jemalloc") == str(alone / "usr/lib64/libjemalloc.so.2")


@pytest.mark.parametrize(
    ("at", "value", "problem"),
    [
        (5, b"", "is built for another kind of processor than "),  # the byte order
        (18, b"\xb7\0", "is built for another kind of processor than "),  # AArch64
        (16, b"\2\0", "is not a shared library"),  # a program
        (0, b"#!/b", "is not a shared library"),
    ],
)
def test_what_does_not_fit(
    at: int, value: bytes, problem: str, library: str, tmp_path: Path
) -> None:
    """Another class, byte order or machine than the program's, and what is no library."""
    data = bytearray(Path(library).read_bytes())
    if data[18:20] == value:
        value = b"\x3e\0"
    data[at : at + len(value)] = value
    if at == 5:
        data[5], data[16:20] = 3 - data[5], data[17:15:-1] + data[19:17:-1]
    path = tmp_path / "libx.so"
    path.write_bytes(data)
    assert Finder(PYTHON, ENV).explain(str(path)).startswith(problem)
    assert Finder(PYTHON, ENV).explain(library) == ""


def test_what_is_not_there(tmp_path: Path) -> None:
    finder = Finder([], ENV)
    assert finder.explain("/no/such/lib.so") == "does not exist"
    assert finder.explain(str(tmp_path)) == "is not a shared library"


def load(library: str, *more: str) -> str:
    """What ld.so says when it preloads a library into a program."""
    env = {**ENV, "LD_PRELOAD": library, "LD_LIBRARY_PATH": ":".join(more)}
    done = subprocess.run(["/bin/true"], env=env, capture_output=True, text=True, timeout=60)
    return done.stderr


def test_what_a_library_needs(tmp_path: Path) -> None:
    """A library that it needs and that is not there, or that lacks a version of its symbols: ld.so
    refuses these too, the second with the end of the program."""
    script = tmp_path / "map"
    sources = {}
    for version in ("V_1", "V_2"):
        script.write_text(f"{version} {{ global: used; local: *; }};\n")
        sources[version] = compile_library(
            f"libver-{version}.so", f"-Wl,--version-script={script},-soname,libver.so",
            source="int used(void) { return 1; }\n",
        )  # fmt: skip
    folder = tmp_path / "lib"
    folder.mkdir()
    provider = folder / "libver.so"
    shutil.copy(sources["V_2"], provider)
    user = compile_library(
        "libuser.so", f"-L{folder}", "-l:libver.so",
        source="int used(void); int use(void) { return used(); }\n",
    )  # fmt: skip
    env = ENV | {"LD_LIBRARY_PATH": str(folder)}
    assert Finder(["true"], env).explain(user) == load(user, str(folder)) == ""
    shutil.copy(sources["V_1"], provider)
    assert Finder(["true"], env).explain(user) == (
        f"needs V_2 of libver.so, which {provider} does not have"
    )
    assert "version `V_2' not found" in load(user, str(folder))
    assert Finder(["true"], ENV).explain(user) == "needs libver.so, which is not found"
    assert "cannot be preloaded" in load(user) or "cannot open" in load(user)


def test_versions_are_those_that_readelf_lists() -> None:
    """Of a library with hundreds of them, the C library."""
    if not shutil.which("readelf"):
        unavailable("there is no readelf")
    paths = [p for p in Finder([], ENV).linker.cached("libc.so.6") if os.path.exists(p)]
    if not paths:
        unavailable("this system's C library is another one")
    elf = read_elf(paths[0])
    assert elf is not None
    done = subprocess.run(["readelf", "-V", "-W", paths[0]], capture_output=True, text=True)
    _, _, defined = done.stdout.partition("Version definition section")
    defined, _, needed = defined.partition("Version needs section")
    names = {w for line in defined.splitlines() if "Flags" in line for w in line.split()[-1:]}
    versions = read_versions(elf)
    assert versions.defined >= names > set()
    for library, version in versions.needed:
        assert f"File: {library}" in needed
        assert f"Name: {version}" in needed


@settings(max_examples=30)
@given(st.data())
def test_damaged_tables(data: st.DataObject) -> None:
    """Whatever bytes are changed, reading ends and raises nothing."""
    original = Path(compile_library("libplain.so.1")).read_bytes()
    damaged = bytearray(original)
    for _ in range(data.draw(st.integers(1, 40))):
        damaged[data.draw(st.integers(16, len(original) - 1))] = data.draw(st.integers(0, 255))
    path = Path(compile_library("libplain.so.1")).with_name("damaged.so")
    path.write_bytes(damaged)
    elf = read_elf(str(path))
    if elf is not None:
        versions = read_versions(elf)
        assert isinstance(versions, Versions)
        assert len(versions.needed) <= MAX_ENTRIES**2
    Finder([], ENV).explain(str(path))


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("libtcmalloc_minimal.so.4.5.10", "tcmalloc"),
        ("libjemalloc-1f2e.so.2", "jemalloc"),
        ("libmimalloc-secure.so.2.0", "mimalloc"),
        ("libmimalloc.a", ""),
        ("libc.so.6", ""),
        ("notlibjemalloc.so", ""),
    ],
)
def test_allocators_by_their_files(file: str, name: str) -> None:
    """Also as wheels rename them."""
    assert name_allocator(file) == name


def test_every_library_says_how_to_get_it() -> None:
    for name, library in LIBRARIES.items():
        assert library.hint
        assert all(file.startswith(library.start) and ".so" in file for file in library.files)
        assert library.start == f"lib{name}"
