"""This process as the rank that --rank gives. Pure."""

from __future__ import annotations

from ompbind.cpuset import parse_whole
from ompbind.errors import UsageError
from ompbind.messages import quote
from ompbind.plans import Task

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

FROM_ONE = ("PARALLEL_JOBSLOT", "PARALLEL_SEQ")  # GNU parallel's {%} and {#}


def make_hand_task(rank: int) -> Task:
    """Return this process as the rank that --rank gives."""
    return Task("hand", "--rank", rank, local_rank=rank, by="--rank is given")


def read_rank(name: str, first: int | None, environ: Mapping[str, str]) -> int:
    """Return the rank in a variable, which counts from `first`; from 0 where that is not said,
    but from 1 in GNU parallel's. Raises UsageError."""
    if name not in environ:
        raise UsageError(f"--rank env:{name}: the variable is not set", option="--rank")
    start = first if first is not None else 1 if name in FROM_ONE else 0
    number = parse_whole(environ[name])
    if number is None or number < start:
        problem = f"{name}={quote(environ[name])} is not a number from {start}"
        hint = f"env:{name}-1 is for a variable that counts from 1" if not start else ""
        raise UsageError(f"--rank env:{name}: {problem}", hint=hint, option="--rank")
    return number - start
