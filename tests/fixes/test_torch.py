"""The fixes for torch, in a real torch without an accelerator and in stand-ins of other shapes."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.support.commands import OMPBIND, environment

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="ompbind runs workers on Linux")

TIMEOUT = 120
MESSAGE = "Cannot access accelerator device when none is available."


def need(what: str, present: bool) -> None:
    """Skips where something is missing; fails there in continuous integration."""
    if not present:
        if os.environ.get("CI"):
            pytest.fail(f"{what} is not installed")
        pytest.skip(f"{what} is not installed (pip install --group torch)")


@pytest.fixture(scope="session")
def torch_version() -> str:
    """The installed torch, a build without accelerators, asked without importing it."""
    try:
        found = version("torch")
    except PackageNotFoundError:
        found = ""
    need("torch", bool(found))
    spec = find_spec("torch")
    assert spec is not None
    assert spec.origin is not None
    said = Path(spec.origin).with_name("version.py").read_text().splitlines()
    built = [line for line in said if re.match(r"(cuda|hip|xpu)\b.*= '", line)]
    need("a torch for CPUs only", not built)
    return found


def run_python(
    code: str | Path,
    *fixes: str,
    path: Path | None = None,
    changes: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Code or a script under `ompbind run --fix`, without it when no fix is named; CUDA's devices
    hidden. `path`: its PYTHONPATH."""
    env = environment(CUDA_VISIBLE_DEVICES="", PYTHONDONTWRITEBYTECODE="1")
    env |= changes or {}
    if path is not None:
        env["PYTHONPATH"] = str(path)
    worker = [sys.executable, *([str(code)] if isinstance(code, Path) else ["-c", code])]
    options = ["-v", "--fix", ",".join(fixes)] if fixes else []
    return subprocess.run(
        [OMPBIND, "run", *options, "--", *worker],
        env=env, capture_output=True, text=True, timeout=TIMEOUT,
    )  # fmt: skip


# --- torch-accelerator ---------------------------------------------------------------------------

# A runner of the shape that servers have: what it shares with the one for accelerators shuts down.
RUNNER = """
import gc, json, sys, weakref
import torch


class Runner:
    def __init__(self):
        self.model = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.Linear(64, 8))
        self.caches = [torch.zeros(16, 64) for _ in range(4)]

    def free_caches(self):
        torch.accelerator.synchronize()
        self.caches.clear()
        gc.collect()
        torch.accelerator.empty_cache()

    def shutdown(self):
        torch.accelerator.synchronize()
        self.free_caches()
        self.model = None
        gc.collect()
        torch.accelerator.empty_cache()


class CpuRunner(Runner):
    def step(self):
        with torch.no_grad():
            return self.model(self.caches[0]).shape


runner = CpuRunner()
assert runner.step() == (16, 8)
held = [weakref.ref(t) for t in (*runner.model.parameters(), *runner.caches)]
try:
    runner.shutdown()
finally:
    left = sum(ref() is not None for ref in held)
    print(json.dumps({"held": len(held), "left": left}))
"""

# Calls everything that torch.accelerator offers, as far as arguments can be made up.
SURVEY = """
import inspect, json, sys
import torch

told = {}
for place in (torch.accelerator, torch.accelerator.memory):
    for name in place.__all__:
        for args in ((), (0,), ("cpu",), (torch.device("cpu"),)):
            try:
                result = ["returned", repr(getattr(place, name)(*args)).partition(" at 0x")[0]]
            except Exception as e:
                result = [type(e).__name__, str(e)]
            told[f"{place.__name__}.{name} {args}"] = result
functions = {n: getattr(torch.accelerator, n) for n in torch.accelerator.__all__}
signatures = {n: str(inspect.signature(f)) for n, f in functions.items() if inspect.isfunction(f)}
docs = {n: f.__doc__ for n, f in functions.items()}
print(json.dumps({"told": told, "signatures": signatures, "docs": docs}))
"""


def test_a_runner_shuts_down(torch_version: str, tmp_path: Path) -> None:
    """With the fix the shared clean-up runs to its end: all weights and caches are freed, exit 0;
    without it, nothing is freed and the worker fails."""
    script = tmp_path / "runner.py"
    script.write_text(RUNNER)
    fixed = run_python(script, "torch-accelerator")
    assert (fixed.returncode, json.loads(fixed.stdout)) == (0, {"held": 8, "left": 0})
    assert fixed.stderr.count("fix torch-accelerator: applied") == 1
    assert "ended with status 0" in fixed.stderr  # -v tells that, too
    plain = run_python(script)
    assert (plain.returncode, json.loads(plain.stdout)) == (1, {"held": 8, "left": 8})
    assert f"RuntimeError: {MESSAGE}" in plain.stderr


def test_only_what_synchronises_or_frees_changes(torch_version: str) -> None:
    """Every function that returns a fact or sets something does what it did; each that fails for
    want of a device, returns nothing and needs no argument does nothing."""
    plain = json.loads(run_python(SURVEY).stdout)
    fixed = json.loads(run_python(SURVEY, "torch-accelerator").stdout)
    assert fixed["signatures"] == plain["signatures"]
    assert fixed["docs"] == plain["docs"]
    changed = {k for k, v in fixed["told"].items() if v != plain["told"][k]}
    quiet = {"empty_cache", "empty_host_cache", "synchronize", "reset_peak_memory_stats",
             "reset_accumulated_memory_stats"}  # fmt: skip
    assert {c.split()[0].rpartition(".")[2] for c in changed} == quiet
    for call in changed:
        assert fixed["told"][call] == ["returned", "None"]
        assert plain["told"][call][0] == "RuntimeError"
        assert plain["told"][call][1] in (MESSAGE, "Accelerator expected")
    assert fixed["told"]["torch.accelerator.synchronize ('cpu',)"][0] == "returned"
    assert fixed["told"]["torch.accelerator.empty_cache (0,)"][0] == "TypeError"
    for name in ("memory_allocated", "current_stream", "current_device_index", "get_memory_info"):
        assert fixed["told"][f"torch.accelerator.{name} ()"] == ["RuntimeError", MESSAGE]
    assert fixed["told"]["torch.accelerator.set_device_index (0,)"] == ["RuntimeError", MESSAGE]
    assert fixed["told"]["torch.accelerator.device_count ()"] == ["returned", "0"]


def test_inert_where_a_device_exists(torch_version: str) -> None:
    """As soon as torch says that there is a device, an error is an error; it is asked when a call
    fails, not when torch is imported."""
    code = """
import torch
torch.accelerator.synchronize()
torch.accelerator.is_available = lambda: True
for f in (torch.accelerator.synchronize, torch.accelerator.memory.empty_cache):
    try:
        f()
    except RuntimeError as e:
        print(e)
"""
    done = run_python(code, "torch-accelerator")
    assert (done.returncode, done.stdout) == (0, f"{MESSAGE}\n{MESSAGE}\n")


def test_importing_names_of_it(torch_version: str) -> None:
    """A program that takes the functions by name, and asks the fix again, has them wrapped once."""
    code = """
import sys
from torch.accelerator import synchronize
from torch.accelerator.memory import empty_cache
import torch
synchronize(); empty_cache()
fix = next(m for n, m in sys.modules.items() if n.endswith("torch_accelerator.py"))
assert not fix.is_needed(torch.accelerator)
fix.apply(torch.accelerator)
print(torch.accelerator.synchronize is synchronize, hasattr(synchronize.__wrapped__, "__wrapped__"))
"""
    done = run_python(code, "torch-accelerator")
    assert (done.returncode, done.stdout) == (0, "True False\n"), done.stderr


# A torch to come: an accelerator package with more in it.
LATER = {
    "torch/__init__.py": "__version__ = '3.1.0.dev20300101+cpu'\nfrom . import accelerator\n",
    "torch/accelerator/__init__.py": '''
from .memory import trim_pools
from .errors import fail

def is_available() -> bool:
    return False

def synchronize(device=None, /) -> None:
    fail()

def flush(*streams, wait: bool = True) -> "None":
    fail()

def set_defaults() -> None:
    fail()

def set_device_index(device, /) -> None:
    fail()

def record(event) -> None:
    fail()

def utilization(device=None) -> int:
    fail()

def unsaid(device=None):
    fail()

def broken() -> None:
    raise RuntimeError("something else")

def _private() -> None:
    fail()
''',
    "torch/accelerator/memory.py": "from .errors import fail\n\n"
    "def trim_pools() -> None:\n    fail()\n",
    "torch/accelerator/errors.py": "def fail():\n"
    f"    raise RuntimeError({MESSAGE!r} + ' (at x.cpp)')\n",
}  # fmt: skip
LATER_CODE = """
import torch
a = torch.accelerator
a.synchronize(); a.flush(); a.trim_pools(); a.memory.trim_pools()
for f, args in ((a.set_defaults, ()), (a.set_device_index, (0,)), (a.record, (1,)),
                (a.utilization, ()), (a.unsaid, ()), (a.broken, ()), (a._private, ())):
    try:
        f(*args)
    except RuntimeError as e:
        print(f.__name__, "something else" in str(e))
"""  # fmt: skip


def write_files(path: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        file = path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return path


def test_what_later_versions_add(tmp_path: Path) -> None:
    """New functions are judged by their shape: those that only act go quiet, without a list."""
    path = write_files(tmp_path, LATER)
    done = run_python(LATER_CODE, "torch-accelerator", path=path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "set_defaults False", "set_device_index False", "record False", "utilization False",
        "unsaid False", "broken True", "_private False",
    ]  # fmt: skip
    assert "(broken, flush, synchronize, trim_pools)" in done.stderr


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("def is_available", "def was_available", "it has no is_available"),
        ("/) -> None", "/)", "synchronize is no longer annotated to return None"),
    ],
)
def test_an_accelerator_of_another_shape(tmp_path: Path, old: str, new: str, told: str) -> None:
    """It is left alone, in a warning, and the worker goes on."""
    files = {**LATER, "torch/accelerator/memory.py": "def trim_pools():\n    pass\n"}
    text = files["torch/accelerator/__init__.py"].replace(old, new, 1)
    text = text if "is_available" in old else text.split("def flush")[0]
    path = write_files(tmp_path, files | {"torch/accelerator/__init__.py": text})
    done = run_python("import torch; print('on')", "torch-accelerator", path=path)
    assert (done.returncode, done.stdout) == (0, "on\n")
    assert "ompbind: warning: fix torch-accelerator: changed" in done.stderr
    assert told in done.stderr


# --- fxgraph-pickle ------------------------------------------------------------------------------

# The shape of torch 2.10's class: what concerns the fix of it.
CODECACHE = '''
import io, pickle

class BypassFxGraphCache(Exception):
    pass

class FxGraphCachePickler(pickle.Pickler):
    def __init__(self, gm, has_user_defined_triton_kernels=False):
        self._stream = io.BytesIO()
        super().__init__(self._stream)

    def dumps(self, obj):
        """Pickle an object and return a byte string."""
        try:
            self.dump(obj)
            return self._stream.getvalue()
        except (TypeError, AttributeError, pickle.PicklingError) as e:
            raise BypassFxGraphCache("Failed to pickle cache key") from e
        finally:
            self._stream.seek(0)
            self._stream.truncate(0)

class AOTAutogradCachePickler(FxGraphCachePickler):
    pass
'''
PICKLES = """
import pickle, torch._inductor.codecache as c

class Bad:
    def __init__(self, error):
        self.error = error
    def __reduce__(self):
        raise self.error

for kind in (c.FxGraphCachePickler, c.AOTAutogradCachePickler):
    pickler = kind(None)
    for error in (ValueError("circular"), UnicodeError("odd"), TypeError("t"), KeyError("k"),
                  RuntimeError("r"), RecursionError("d")):
        try:
            pickler.dumps(Bad(error))
        except Exception as e:
            print(type(e).__name__, e.__cause__ is error, e is error)
    assert pickle.loads(pickler.dumps({"a": 1})) == {"a": 1}
print(hasattr(c.FxGraphCachePickler.dumps, "__wrapped__"),
      hasattr(getattr(c.FxGraphCachePickler.dumps, "__wrapped__", None), "__wrapped__"),
      c.FxGraphCachePickler.dumps.__doc__)
"""
BYPASSED, ITSELF = "BypassFxGraphCache True False", " False True"


def stand_in(path: Path, version: str, codecache: str = CODECACHE) -> Path:
    """A package torch of that version, with a code cache."""
    return write_files(path, {
        "torch/__init__.py": f"__version__ = {version!r}\n",
        "torch/_inductor/__init__.py": "",
        "torch/_inductor/codecache.py": codecache,
    })  # fmt: skip


def outcomes(value: str) -> list[str]:
    """Of the errors above, when a ValueError becomes `value`."""
    return [value or f"ValueError{ITSELF}", value or f"UnicodeError{ITSELF}", BYPASSED,
            f"KeyError{ITSELF}", f"RuntimeError{ITSELF}", f"RecursionError{ITSELF}"]  # fmt: skip


DOC = "Pickle an object and return a byte string."


@pytest.mark.parametrize(
    ("version", "fixed"),
    [
        ("2.10.0", True),
        ("2.10.0+cpu", True),
        ("2.10.1.dev20260101+cu128", True),
        ("2.10.0a0+git1234567", True),
        ("2.9.1+cpu", False),
        ("2.1.0", False),
        ("2.11.0.dev20260101+cpu", False),
        ("2.100.0", False),
    ],
)
def test_a_value_error_bypasses_the_cache(tmp_path: Path, version: str, fixed: bool) -> None:
    """In any build of 2.10 and in no other; the cause stays chained, other errors and good objects
    are untouched, subclasses are covered, and it is wrapped once."""
    done = run_python(PICKLES, "fxgraph-pickle", path=stand_in(tmp_path, version))
    assert done.returncode == 0, done.stderr
    wanted = outcomes(BYPASSED if fixed else "") * 2
    assert done.stdout.splitlines() == [*wanted, f"{fixed} False {DOC}"]
    assert ("applied" if fixed else "not needed in process") in done.stderr
    assert fixed or f"(torch is {version}, for 2.10.* only)" in done.stderr


def test_without_the_fix_a_value_error_comes_out(tmp_path: Path) -> None:
    """The stand-in has the fault that the fix is for."""
    done = run_python(PICKLES, path=stand_in(tmp_path, "2.10.0"))
    assert done.stdout.splitlines() == [*outcomes("") * 2, f"False False {DOC}"]


def test_a_patched_2_10_is_left_alone(tmp_path: Path) -> None:
    """A 2.10 with the later fix in it does not need ours."""
    patched = CODECACHE.replace("PicklingError)", "PicklingError, ValueError)")
    done = run_python(PICKLES, "fxgraph-pickle", path=stand_in(tmp_path, "2.10.1", patched))
    assert done.stdout.splitlines() == [*outcomes(BYPASSED) * 2, f"False False {DOC}"]
    assert "fxgraph-pickle: not needed in process" in done.stderr


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("FxGraphCachePickler", "GraphPickler", "it has no FxGraphCachePickler"),
        ("BypassFxGraphCache", "Bypass", "it has no BypassFxGraphCache"),
        ("def dumps(self, obj)", "def dumps(self, obj, protocol)", "takes other arguments"),
        ("def dumps", "def dump_it", "it has no "),
    ],
)
def test_a_code_cache_of_another_shape(tmp_path: Path, old: str, new: str, told: str) -> None:
    """It is left alone, in a warning, and the worker goes on."""
    path = stand_in(tmp_path, "2.10.0", CODECACHE.replace(old, new))
    code = "import torch._inductor.codecache; print('on')"
    done = run_python(code, "fxgraph-pickle", path=path)
    assert (done.returncode, done.stdout) == (0, "on\n")
    assert "ompbind: warning: fix fxgraph-pickle: changed" in done.stderr
    assert told in done.stderr


COMPILED = """
import torch
from torch._dynamo.utils import counters
import torch._inductor.codecache as c

def work(x):
    return (x.sin() + x.cos()).sum()

x = torch.arange(64.0)
assert torch.allclose(torch.compile(work)(x), work(x))
torch.accelerator.synchronize()
found = counters["inductor"]
print(found["fxgraph_cache_miss"], found["fxgraph_cache_hit"], found["fxgraph_cache_bypass"])
print(hasattr(c.FxGraphCachePickler.dumps, "__wrapped__"))
"""


def test_a_compiled_graph_comes_from_the_cache(torch_version: str, tmp_path: Path) -> None:
    """torch.compile works under both fixes: one process fills the cache, the next one hits it; a
    torch that does without fxgraph-pickle is untouched, which is said."""
    need("a C++ compiler", shutil.which("g++") is not None)
    cache = {
        "TORCHINDUCTOR_CACHE_DIR": str(tmp_path),
        "TORCHINDUCTOR_FX_GRAPH_CACHE": "1",
        "TORCHINDUCTOR_AUTOGRAD_CACHE": "0",
        "TORCHINDUCTOR_COMPILE_THREADS": "1",
    }
    for counts in ("1 0 0", "0 1 0"):
        done = run_python(COMPILED, "auto", changes=cache)
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines() == [counts, "False"]
        assert "fxgraph-pickle: not needed in process" in done.stderr
        assert f"(torch is {torch_version}" in done.stderr
        assert "torch-accelerator: applied" in done.stderr
