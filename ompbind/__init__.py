"""ompbind: starts worker processes where they belong on a machine.

In a program: `plan` makes a plan, `Plan.popen` starts one of its ranks, `run` all of them to their
end; `ompbind.multiprocessing` has a context whose processes are ranks.
"""

from __future__ import annotations

import sys

# pip does not install it there, but a clone can be imported; `python -m` says it itself, with 125.
if sys.version_info < (3, 10) and sys.argv[:1] != ["-m"]:
    raise ImportError(
        "ompbind needs Python 3.10 or newer, and this is Python "
        + ".".join(map(str, sys.version_info[:2]))
    )

__version__ = "0.2.0.dev0"

__all__ = [
    "CommandError",
    "CpuSet",
    "DeniedError",
    "OmpbindError",
    "ParseError",
    "Plan",
    "PlanError",
    "RankPlan",
    "TopologyError",
    "UsageError",
    "multiprocessing",
    "plan",
    "run",
]

# Where the names are that are no errors.
_HOMES = {"CpuSet": "cpuset", "Plan": "api", "RankPlan": "plans", "plan": "api", "run": "api"}


TYPE_CHECKING = False
if TYPE_CHECKING:
    from ompbind import multiprocessing as multiprocessing
    from ompbind.api import Plan as Plan
    from ompbind.api import plan as plan
    from ompbind.api import run as run
    from ompbind.cpuset import CpuSet as CpuSet
    from ompbind.errors import CommandError as CommandError
    from ompbind.errors import DeniedError as DeniedError
    from ompbind.errors import OmpbindError as OmpbindError
    from ompbind.errors import ParseError as ParseError
    from ompbind.errors import PlanError as PlanError
    from ompbind.errors import TopologyError as TopologyError
    from ompbind.errors import UsageError as UsageError
    from ompbind.plans import RankPlan as RankPlan
else:

    def __getattr__(name: str) -> object:
        """Imports a public name when it is first asked for: every launch imports this package."""
        if name not in __all__:
            raise AttributeError(f"module 'ompbind' has no attribute {name!r}")
        from importlib import import_module

        if name == "multiprocessing":
            return import_module("ompbind.multiprocessing")
        return getattr(import_module(f"ompbind.{_HOMES.get(name, 'errors')}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__} - {"sys"})
