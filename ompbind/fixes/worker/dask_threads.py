"""Let Dask's nannies give their workers the OMP_NUM_THREADS of Dask's configuration.

A Dask worker has several threads, each of which may call OpenMP, so Dask's configuration says 1. A
nanny follows the environment instead where the variable is set, as it is under ompbind.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType
    from typing import Any

TARGET = "distributed.nanny"
VERSIONS = ">=2022.8.1"
REASON = "a worker's threads each have the OMP_NUM_THREADS of Dask's configuration, not the rank's"
SOURCE = "dask/distributed#6841"
NAME = "OMP_NUM_THREADS"


def is_needed(module: ModuleType) -> bool:
    """Whether nannies would pass on what ompbind has set."""
    read = module._get_env_variables
    if not callable(read):
        raise LookupError("_get_env_variables is not a function")
    return "OMPBIND_CPUS" in os.environ and not hasattr(read, "ompbind_fix")


def apply(module: Any) -> None:
    """Take the variable from the configuration, where that has it."""
    original = module._get_env_variables

    def read(config_key: str) -> Any:
        variables = original(config_key)
        configured = module.dask.config.get(config_key).get(NAME)
        if NAME in variables and configured is not None:
            variables[NAME] = str(configured)
        return variables

    read.ompbind_fix = True  # type: ignore[attr-defined]
    module._get_env_variables = read
