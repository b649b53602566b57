"""Which of the free cores a launch takes: those that lie closest together. Pure."""

from __future__ import annotations

from ompbind.cpuset import union
from ompbind.errors import PlanError
from ompbind.messages import counted, label
from ompbind.planner import find_usable
from ompbind.planner.cores import split_by

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ompbind.cpuset import CpuSet
    from ompbind.machine.topology import Level, Machine
    from ompbind.planner.cores import Core
    from ompbind.planner.request import Request

    Cores = tuple[Core, ...]

# The parts of a machine inside which cores are kept together, the largest first.
LEVELS: tuple[Level, ...] = ("package", "node", "l3", "l2")


def choose_free(machine: Machine, request: Request, held: CpuSet) -> CpuSet:
    """Return all hardware threads of the cores for `request.free`, none of which is in `held`.
    Raises PlanError where there are too few."""
    whole = {c: core for core in machine.topology.groups("core") for c in core}
    usable = find_usable(machine, request).cores
    free = tuple(c for c in usable if not held & (whole.get(c.first_cpu.cpu, c.threads)))
    count, times = request.free.cores, 1
    if request.free.per_rank:
        times = request.ranks or 1
    if count * times > len(free):
        raise make_too_few(request, count * times, free, usable, held)
    chosen: list[Core] = []
    for _ in range(times):  # each rank's cores lie close together, then all of them
        nodes = {core.first_cpu.node for core in chosen}
        beside = [core for core in free if core.first_cpu.node in nodes]
        best = choose_close(free, count)
        near = choose_close(beside, count) if len(beside) >= count else best
        chosen += near if count_groups(near) <= count_groups(best) else best
        free = leave_out(free, chosen)
    return union(core.threads for core in chosen)


def name_free(request: Request) -> str:
    """Return the option as it was given: `--free 8`, `--free 8/rank`."""
    return f"--free {request.free.cores}{'/rank' * request.free.per_rank}"


def make_too_few(
    request: Request, count: int, free: Cores, usable: Cores, held: CpuSet
) -> PlanError:
    """Return the error for more cores than are free."""
    message = f"{name_free(request)}: "
    are = "is" if 1 in (len(free), len(usable)) else "are"
    message += f"{len(free)} of {counted(len(usable), 'core')} {are} free"
    if count > len(usable):
        return PlanError(message, hint=f"at most {len(usable)}", wanted=count, available=len(free))
    taken = held & union(core.threads for core in usable)
    message += f"; others hold {label('cpu', taken)}"
    hint = "--wait waits for cores in turn; ompbind ps shows who holds what"
    return PlanError(message, hint=hint, wanted=count, available=len(free))


def choose_close(cores: Sequence[Core], count: int) -> Cores:
    """Return `count` of these cores: in as few packages, nodes and caches as possible, and there
    where the fewest free cores are left over, so that large parts stay whole."""
    level = next((lv for lv in LEVELS if len(split_by(cores, lv)) > 1), None)
    if level is None or count >= len(cores):
        return tuple(cores[:count])
    groups = split_by(cores, level)
    fitting = [group for group in groups if len(group) >= count]
    if fitting:
        choices = [(choose_close(group, count), len(group)) for group in fitting]
        return min(choices, key=lambda choice: (count_groups(choice[0]), choice[1]))[0]
    largest = max(groups, key=len)
    return largest + choose_close(leave_out(cores, largest), count - len(largest))


def count_groups(cores: Sequence[Core]) -> tuple[int, ...]:
    """Return in how many packages, nodes and caches these cores lie."""
    return tuple(len(split_by(cores, level)) for level in LEVELS)


def leave_out(cores: Sequence[Core], others: Sequence[Core]) -> Cores:
    """Return `cores` without these others."""
    cpus = {core.first_cpu.cpu for core in others}
    return tuple(core for core in cores if core.first_cpu.cpu not in cpus)
