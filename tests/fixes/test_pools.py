"""The fixes for pools: stand-ins of joblib and Dask in the shape of joblib 1.6 and 1.1 and of
distributed 2026.8, whose code is quoted in the fixes."""

from __future__ import annotations

import os
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from ompbind.fixes.worker import dask_threads, joblib_threads
from ompbind.fixes.worker.apply import ChangedError, apply_fix

NAMES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")


class Backend:
    """joblib 1.6's: the number that a program has chosen is a field."""

    inner_max_num_threads: int | None = None

    def _prepare_worker_env(self, n_jobs: int) -> dict[str, str]:
        value = self.inner_max_num_threads
        return {n: str(os.environ.get(n, 8 // n_jobs) if value is None else value) for n in NAMES}


class OldBackend:
    """joblib 1.1's: it is an argument."""

    def _prepare_worker_env(
        self, n_jobs: int, inner_max_num_threads: int | None = None
    ) -> dict[str, str]:
        value = inner_max_num_threads
        return {n: str(os.environ.get(n, 8 // n_jobs) if value is None else value) for n in NAMES}


def make_joblib(backend: type[Any]) -> Any:
    fresh = type("ParallelBackendBase", (), dict(vars(backend)))
    return SimpleNamespace(__name__="joblib._parallel_backends", ParallelBackendBase=fresh)


@pytest.fixture
def bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment of a rank of 8 threads, and versions that the fixes are for."""
    for name, version in (("joblib", "1.6.0"), ("distributed", "2026.8.0")):
        monkeypatch.setitem(sys.modules, name, SimpleNamespace(__version__=version))
    monkeypatch.delenv("OMPBIND_FIX_OFF", raising=False)
    monkeypatch.setenv("OMPBIND_CPUS", "0-7")
    monkeypatch.setenv("OMP_NUM_THREADS", "8")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)


@pytest.mark.usefixtures("bound")
@pytest.mark.parametrize("backend", [Backend, OldBackend])
def test_joblibs_processes_divide_the_threads(
    backend: type[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four of them have two each; what the program has chosen stays, as do other variables."""
    module = make_joblib(backend)
    plain = module.ParallelBackendBase()
    assert plain._prepare_worker_env(4)["OMP_NUM_THREADS"] == "8"
    assert apply_fix("joblib-threads", module) == ("applied", "")
    assert plain._prepare_worker_env(4) == {"OMP_NUM_THREADS": "2", "MKL_NUM_THREADS": "2"}
    assert plain._prepare_worker_env(n_jobs=16)["OMP_NUM_THREADS"] == "1"
    monkeypatch.setenv("OMP_NUM_THREADS", "6,2")
    assert plain._prepare_worker_env(3)["OMP_NUM_THREADS"] == "2"
    if backend is Backend:
        plain.inner_max_num_threads = 5
        assert plain._prepare_worker_env(4)["OMP_NUM_THREADS"] == "5"
    else:
        assert plain._prepare_worker_env(4, 5)["OMP_NUM_THREADS"] == "5"
        chosen = plain._prepare_worker_env(4, inner_max_num_threads=5)
        assert chosen["OMP_NUM_THREADS"] == "5"
    assert apply_fix("joblib-threads", module)[0] == "not needed"


@pytest.mark.usefixtures("bound")
def test_dasks_nannies_follow_their_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its OMP_NUM_THREADS is the configured one; other variables are as in the environment."""
    configured = {"OMP_NUM_THREADS": 1, "MKL_NUM_THREADS": 1}
    config = SimpleNamespace(get=lambda key: configured if "spawn" in key else {})

    def read(config_key: str) -> dict[str, str]:
        return {k: os.environ.get(k, str(v)) for k, v in config.get(config_key).items()}

    module: Any = SimpleNamespace(
        __name__="distributed.nanny",
        dask=SimpleNamespace(config=config),
        _get_env_variables=read,
    )
    monkeypatch.setenv("MKL_NUM_THREADS", "3")
    assert module._get_env_variables("pre-spawn")["OMP_NUM_THREADS"] == "8"
    assert apply_fix("dask-threads", module)[0] == "applied"
    assert module._get_env_variables("pre-spawn") == {
        "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "3",
    }  # fmt: skip
    assert module._get_env_variables("environ") == {}
    assert apply_fix("dask-threads", module)[0] == "not needed"


@pytest.mark.usefixtures("bound")
def test_without_ompbind_nothing_is_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes that are no ranks, and versions of another shape, are left as they are."""
    monkeypatch.delenv("OMPBIND_CPUS")
    assert apply_fix("joblib-threads", make_joblib(Backend))[0] == "not needed"
    for name, module in (
        ("joblib-threads", SimpleNamespace(__name__="joblib._parallel_backends")),
        ("dask-threads", SimpleNamespace(__name__="distributed.nanny", _get_env_variables=None)),
    ):
        with pytest.raises(ChangedError):
            apply_fix(name, module)  # type: ignore[arg-type]
    assert joblib_threads.TARGET.startswith("joblib.")
    assert dask_threads.TARGET.startswith("distributed.")
