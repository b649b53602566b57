"""Cores that a plan leaves idle although nobody asked for that, and what would use them. Pure."""

from __future__ import annotations

from ompbind.cpuset import union
from ompbind.errors import PlanError
from ompbind.messages import counted
from ompbind.planner.cores import split_by
from ompbind.plans import Caution

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ompbind.machine.topology import Level
    from ompbind.planner.cores import Core
    from ompbind.planner.mapping import Share
    from ompbind.planner.request import Request

    PlanCores = Callable[[Request], tuple[Sequence[Core], Sequence[Share], Sequence[Caution]]]

WORTH_A_WARNING = 4  # where more than one core of so many is idle
# The things of --per that are warned of: who asks for smaller ones has a reason for them.
LEVELS: dict[str, Level] = {"numa": "node", "package": "package"}


def warn_of_idle_cores(
    request: Request, cores: Sequence[Core], shares: Sequence[Share], plan_cores: PlanCores
) -> list[Caution]:
    """Return a warning where ranks are bound to fewer nodes or packages than there are, so that
    more than a quarter of the usable cores is idle, with options that would use them: each was
    planned. None where the request says in another way which part of the machine is to be used.
    `plan_cores`: returns for another request the cores it may use, the shares, and warnings."""
    if names_a_part(request) or any(share.gpus for share in shares):
        return []
    idle = count_idle(cores, shares)
    if idle * WORTH_A_WARNING <= len(cores):
        return []
    level: Level = LEVELS[request.per or "numa"]
    domains = split_by(cores, level)
    used = sum(count_idle(domain, shares) < len(domain) for domain in domains)
    option = f"--per {request.per}" if request.per else "--numa-bind"
    text = (
        f"{option} puts {counted(len(shares), 'rank')} on {used} of "
        f"{counted(len(domains), level)}: {idle} of {len(cores)} cores are idle"
    )
    return [Caution("idle", text, make_hint(request, len(domains), level, plan_cores))]


def names_a_part(request: Request) -> bool:
    """Whether anything but the number of ranks says how much of the machine is to be used, or that
    others use the rest."""
    return bool(
        request.per not in (None, *LEVELS)
        or request.nodes is not None
        or request.mem_nodes[1:]  # of each rank
        or request.cpus is not None
        or request.place_list is not None
        or request.cores_per_rank
        or request.threads is not None
        or request.distribution != "block"
        or request.part
        or request.free
        or request.only
        or request.reserve
        or request.roles
        or request.exclude
        or request.exclude_cpus
        or request.kind != "all"
        or request.near
        or request.serving
        or request.group
        or (request.world and request.per)  # an engine sets their number, which it warns of itself
    )


def count_idle(cores: Sequence[Core], shares: Sequence[Share]) -> int:
    """Return how many of these cores no rank has."""
    taken = union(share.cpus for share in shares)
    return sum(not core.threads & taken for core in cores)


def make_hint(request: Request, domains: int, noun: str, plan_cores: PlanCores) -> str:
    """Return the options that would use these cores; "" if none would. The number of ranks is
    another program's where an engine starts them."""
    hints = []
    mem = request.mem or ("bind" if request.numa_bind else None)
    if uses_machine(request.replace(numa_bind=False, per=None, mem=mem), plan_cores):
        typed = request.ranks is not None and request.world is None
        words = [f"-n {request.ranks}"] * typed
        words += [f"--mem {mem}"] * bool(mem)
        does = f"divides all {noun}s among the ranks"
        if request.ranks in (None, 1):
            does = f"gives the rank all {noun}s"
        hints += [f"{' '.join(words)} {does}"] * bool(words)
    if request.world is None and uses_machine(request.replace(ranks=domains), plan_cores):
        words = [f"-n {domains}"] + [f"--per {request.per}"] * bool(request.per)
        words += ["--numa-bind"] * request.numa_bind
        hints.append(f"{' '.join(words)} starts a rank on each {noun}")
    return "; ".join(hints)


def uses_machine(request: Request, plan_cores: PlanCores) -> bool:
    """Whether a request can be planned, without a warning, and leaves few cores idle."""
    try:
        cores, shares, cautions = plan_cores(request)
    except PlanError:
        return False
    return not cautions and count_idle(cores, shares) * WORTH_A_WARNING <= len(cores)
