"""Pools of threads in the real libraries: how each counts by itself, and with what ompbind sets,
which is what the table in ompbind/openmp/thread_pools.py says."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.jobs.environments import need_environment
from tests.support.commands import environment, ompbind_run
from tests.support.needs import need_cpus

# What each library has been told, or has worked out itself; OpenBLAS by its threads.
CODE = """
import json, os
import numpy as np
np.ones((500, 500)) @ np.ones((500, 500))
blas = len(os.listdir("/proc/self/task"))
from tokenizers import Tokenizer, models
Tokenizer(models.BPE()).encode_batch(["a b"] * 2000)
rayon = len(os.listdir("/proc/self/task")) - blas  # beside the main thread
import numba, numexpr, polars
print(json.dumps({"OpenBLAS": blas, "Rayon": rayon, "Numba": numba.config.NUMBA_NUM_THREADS,
                  "NumExpr": numexpr.nthreads, "Polars": polars.thread_pool_size()}))
"""


@pytest.fixture(scope="module")
def python() -> Path:
    need_cpus(2)
    return need_environment("frameworks") / "python"


def count(python: Path, *words: str, under: tuple[str, ...] = (), **env: str) -> dict[str, int]:
    """Return the threads of each pool of a rank that ompbind starts with these options, or without
    any of `python` alone."""
    command = [str(python), "-c", CODE]
    if words:
        done = ompbind_run("run", *words, "--", *command, env=environment(**env))
    else:
        done = subprocess.run(
            [*under, *command], env=environment(**env), capture_output=True, text=True, timeout=120
        )
    assert done.returncode == 0, done.stderr
    counts: dict[str, int] = json.loads(done.stdout)
    return counts


def test_what_they_count_themselves(python: Path) -> None:
    """OpenBLAS and NumExpr follow OMP_NUM_THREADS, NumExpr else the whole machine; Numba, Polars
    and Rayon follow the mask, and not that variable."""
    cpus = need_cpus(2)
    alone = count(python, OMP_NUM_THREADS="1")
    assert (alone["OpenBLAS"], alone["NumExpr"]) == (1, 1)
    assert all(alone[name] > 1 for name in ("Numba", "Polars", "Rayon"))
    masked = count(python, under=("taskset", "-c", str(cpus[0])))
    assert (masked["Numba"], masked["Polars"], masked["Rayon"]) == (1, 1, 1)
    assert masked["NumExpr"] > 1


def test_a_rank_has_as_many_of_each(python: Path) -> None:
    """With --threads all pools have that many, on more cpus than that; --no-pools leaves those that
    do not follow OpenMP; a variable of the user's is obeyed."""
    assert set(count(python, "--threads", "1").values()) == {1}
    cpus = need_cpus(2)
    rank = ("--numa-bind-cpus", f"{cpus[0]},{cpus[1]}", "--threads", "1")
    assert set(count(python, *rank).values()) == {1}
    assert count(python, *rank, "--no-pools")["Polars"] == 2
    assert count(python, *rank, NUMBA_NUM_THREADS="2")["Numba"] == 2
