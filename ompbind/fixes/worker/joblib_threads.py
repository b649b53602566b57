"""Let joblib's processes divide the threads of the rank that starts them.

joblib gives each process of its pool its share of the cpus as OMP_NUM_THREADS, unless that is set:
under ompbind it is, to the number for the whole rank, and each process would start as many threads.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType
    from typing import Any

TARGET = "joblib._parallel_backends"
VERSIONS = ">=0.14"
REASON = "joblib's processes divide the rank's OMP_NUM_THREADS instead of each having all of it"
SOURCE = "joblib/joblib#940"
NAME = "OMP_NUM_THREADS"


def is_needed(module: ModuleType) -> bool:
    """Whether joblib would pass on what ompbind has set."""
    prepare = module.ParallelBackendBase._prepare_worker_env
    if not callable(prepare):
        raise LookupError("_prepare_worker_env is not a function")
    return "OMPBIND_CPUS" in os.environ and not hasattr(prepare, "ompbind_fix")


def apply(module: ModuleType) -> None:
    """Divide the number by that of the processes, where the program has not chosen one."""
    base: Any = module.ParallelBackendBase
    original = base._prepare_worker_env

    def prepare(self: Any, n_jobs: int, *args: Any, **kwargs: Any) -> Any:
        env = original(self, n_jobs, *args, **kwargs)
        chosen = kwargs.get("inner_max_num_threads", args[0] if args else None)
        chosen = chosen or getattr(self, "inner_max_num_threads", None)
        number = os.environ.get(NAME, "").partition(",")[0]
        if chosen is None and number.isdigit() and env.get(NAME) == os.environ.get(NAME):
            env[NAME] = str(max(int(number) // max(n_jobs, 1), 1))
        return env

    prepare.ompbind_fix = True  # type: ignore[attr-defined]
    base._prepare_worker_env = prepare
