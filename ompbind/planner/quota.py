"""Shares a cgroup's cpu quota out as threads. Pure."""

from __future__ import annotations

from ompbind.messages import counted, plural
from ompbind.plans import Caution

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ompbind.planner.request import Request
    from ompbind.plans import Role


def share_quota(
    request: Request, numbers: Sequence[int], quota: float, roles: Sequence[Role]
) -> tuple[list[int], list[Caution]]:
    """Return the threads of each rank within the quota, and warnings. `numbers`: the threads of
    each rank without a quota, or with --threads N, which the quota does not change.

    A quota is an amount of time, not a set of cpus: more threads than it is worth all run for a
    part of each period and are then throttled together. The threads of roles take their part of it,
    one on each of their cpus.
    """
    wanted, beside = sum(numbers), sum(len(role.cpus) for role in roles)
    if wanted + beside <= max(quota, 1):
        return list(numbers), []
    worth = f"the cgroup's quota is worth {quota:g} {plural('cpu', quota)}"
    of_roles = f", beside {beside} of roles" if beside else ""
    if request.threads is not None and request.threads != "cores":
        text = f"{worth}, but {wanted} threads are asked for{of_roles}: they will be throttled"
        return list(numbers), [Caution("quota", text)]
    limited = scale(numbers, int(quota) - beside)
    several = len(numbers) > 1
    if sum(limited) + beside > quota and several:
        result = f"each of {len(numbers)} ranks has one thread{of_roles}, and will be throttled"
    elif sum(limited) + beside > quota:
        result = f"there is one thread{of_roles}" + ": they will be throttled" * bool(beside)
    else:
        result = f"{counted(sum(limited), 'thread')} instead of {wanted}"
        result += f"{' over all ranks' * several}{of_roles}"
    return limited, [Caution("quota", f"{worth}: {result} (--threads N overrides)")]


def scale(numbers: Sequence[int], within: int) -> list[int]:
    """Return numbers in proportion to these, at least 1 and equal where these are equal, as large
    as can be with a sum `within`; all 1 where not even these fit.

    Ranks of equal size are mostly ranks that wait for each other: with 2 threads and 1 both would
    run as fast as the one.
    """
    counts = {number: list(numbers).count(number) for number in set(numbers)}

    def shrink(part: tuple[int, int]) -> dict[int, int]:
        return {number: max(1, number * part[0] // part[1]) for number in counts}

    # The numbers change only where one of them becomes whole: at part/number of their size.
    parts = sorted(((n, number) for number in counts for n in range(1, number + 1)),
                   key=lambda part: part[0] / part[1])  # fmt: skip
    least, beyond = 0, len(parts)  # of the numbers of parts that fit, and of those that do not
    while beyond - least > 1:
        middle = (least + beyond) // 2
        shrunk = shrink(parts[middle])
        if sum(shrunk[number] * count for number, count in counts.items()) <= within:
            least = middle
        else:
            beyond = middle
    shrunk = shrink(parts[least])
    return [shrunk[number] for number in numbers]
