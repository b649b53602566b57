"""How many threads each rank starts: of its cpus, and within the cgroup's quota."""

from __future__ import annotations

from ompbind import openmp
from ompbind.messages import counted, plural
from ompbind.plans import Caution

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ompbind.machine.topology import Machine
    from ompbind.planner.mapping import Share
    from ompbind.planner.request import Request


def make_threads(
    machine: Machine, request: Request, shares: Sequence[Share], warnings: list[Caution]
) -> list[str]:
    """OMP_NUM_THREADS of each rank.

    A quota is time, no set of cpus: more threads than it is worth all run for a part of each period
    and then wait together. So it is shared out as threads, one for each rank at least.
    """
    if request.threads is not None:
        texts = [openmp.limited(request.threads, request.limit)] * len(shares)
        numbers = [int(text.partition(",")[0]) for text in texts]
    else:
        numbers = [int(openmp.limited(str(count_own(request, s)), request.limit)) for s in shares]
        texts = [*map(str, numbers)]
    quota, total = machine.allowed.quota, sum(numbers)
    if quota is None or total <= max(quota, 1):
        return texts
    worth = f"the cgroup's quota is worth {quota:g} {plural('cpu', quota)}"
    if request.threads is not None:
        warnings.append(
            Caution("quota", f"{worth}, and {total} threads are asked for: they will be held up")
        )
        return texts
    within = max(int(quota), len(shares))
    from ompbind.planner.division import apportion

    numbers = apportion(numbers, within, [1] * len(shares), numbers)
    if within > quota:
        told = f"each of {len(shares)} ranks has one thread, and will be held up"
        told = "there is one thread" if len(shares) == 1 else told
    else:
        told = f"{counted(within, 'thread')} instead of {total}"
        told += " over all ranks" if len(shares) > 1 else ""
    warnings.append(Caution("quota", f"{worth}: {told} (--threads N overrides)"))
    return [*map(str, numbers)]


def count_own(request: Request, share: Share) -> int:
    """One thread for each place of a core or thread, for each cpu where places are larger."""
    if share.places:
        cores = [core.cpus for core in share.cores]
        small = all(any(place <= cpus for cpus in cores) for place in share.places)
        return len(share.places) if small else len(share.cpus)
    return len(share.cores) if request.places in ("cores", "wide") else len(share.cpus)
