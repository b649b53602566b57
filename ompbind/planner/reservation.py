"""Cores set aside from the ranks' shares: reserved for other work, or under the name of a role."""

from __future__ import annotations

from ompbind.cpuset import CpuSet, union
from ompbind.errors import PlanError
from ompbind.plans import Role

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ompbind.planner.cores import Core
    from ompbind.planner.mapping import Share
    from ompbind.planner.request import Pool, Request


class CorePool:
    """The cores of one rank, or of several that share them; cores are taken from its end."""

    def __init__(self, share: Share) -> None:
        self.cores = list(share.cores)
        self.ranks: list[int] = []
        self.taken: dict[str, int] = {}  # the number of cores by role; "": reserved

    @property
    def weight(self) -> int:
        return sum(core.weight for core in self.cores)

    def take_core(self, role: str) -> Core:
        """Remove and return the least capable core, of several the last. `role`: "" to reserve."""
        self.taken[role] = self.taken.get(role, 0) + 1
        least = min(core.weight for core in self.cores)
        last = max(i for i, core in enumerate(self.cores) if core.weight == least)
        return self.cores.pop(last)

    def make_note(self) -> str:
        """Return what was taken, for the `why` of the pool's ranks."""
        parts = [f"{n} for {role}" if role else f"{n} reserved" for role, n in self.taken.items()]
        *first, last = parts or [""]
        return f", less {', '.join(first)}{' and ' * bool(first)}{last}" if last else ""


def set_aside(
    shares: list[Share], request: Request
) -> tuple[list[Share], CpuSet, tuple[Role, ...]]:
    """Return the remaining shares, the cpus reserved, and the roles. Raises PlanError.

    First each rank gives cores of its share for what is asked of each. What is asked of all
    together is then taken one core at a time from the rank with the most, of several the last.
    Ranks that share their cores lose them together. All hardware threads of a reserved core are
    kept free; of a role's core those are used that workers would use.
    """
    asked = [*request.roles, request.reserve]
    pools = sorted((p for p in asked if p.cores), key=lambda p: not p.per_rank)
    if not pools:
        return shares, CpuSet(), ()
    core_pools: dict[int, CorePool] = {}
    for rank, share in enumerate(shares):
        core_pools.setdefault(id(share.cores), CorePool(share)).ranks.append(rank)
    reserved: list[Core] = []
    roles: list[Role] = []
    for pool in pools:
        for ranks, cores in take_cores(pool, list(core_pools.values())):
            if pool.name:
                cpus = union(c.cpus for c in cores)
                roles.append(Role(pool.name, cpus, CpuSet(ranks), pool.threads))
            else:
                reserved += cores
    rest = {key: (tuple(p.cores), p.make_note()) for key, p in core_pools.items()}
    remaining = []
    for share in shares:
        left, note = rest[id(share.cores)]
        remaining.append(share.replace(cores=left, notes=share.notes + note))
    return remaining, union(core.threads for core in reserved), tuple(roles)


def reduce_wish(pool: Pool, core_pools: list[CorePool]) -> Pool:
    """Return a pool that leaves each rank a core: itself, the same cores of all ranks together, or
    none."""
    if pool.per_rank:
        if all(pool.cores * len(p.ranks) < len(p.cores) for p in core_pools):
            return pool
        ranks = sum(len(p.ranks) for p in core_pools)
        pool = pool.replace(cores=pool.cores * ranks, per_rank=False)
    spare = sum(len(core_pool.cores) - 1 for core_pool in core_pools)
    return pool if pool.cores <= spare else pool.replace(cores=0)


def take_cores(pool: Pool, core_pools: list[CorePool]) -> list[tuple[list[int], list[Core]]]:
    """Take the cores of one --reserve or --role; return them, each time with the ranks that they
    are for. Raises PlanError where a rank would have none left."""
    if pool.if_spare:
        pool = reduce_wish(pool, core_pools)
    if not pool:
        return []
    if pool.per_rank:
        for core_pool in core_pools:
            spare = (len(core_pool.cores) - 1) // len(core_pool.ranks)
            if pool.cores > spare:
                raise PlanError(
                    f"rank {core_pool.ranks[0]}: {pool} would leave it without a core",
                    hint=f"at most {spare} can be taken from each rank there",
                    rank=core_pool.ranks[0],
                    wanted=pool.cores,
                    available=spare,
                )
        taken = [([rank], [core_pool.take_core(pool.name) for _ in range(pool.cores)])
                 for core_pool in core_pools for rank in core_pool.ranks]  # fmt: skip
        return sorted(taken, key=lambda ranks_and_cores: ranks_and_cores[0])
    spare = sum(len(core_pool.cores) - 1 for core_pool in core_pools)
    if pool.cores > spare:
        raise PlanError(
            f"{pool} would leave ranks without a core",
            hint=f"at most {spare} can be {'set aside' if pool.name else 'reserved'} "
            "with this many ranks",
            wanted=pool.cores,
            available=spare,
        )
    cores = []
    for _ in range(pool.cores):
        able = [i for i, core_pool in enumerate(core_pools) if len(core_pool.cores) > 1]
        most = max(able, key=lambda i: (core_pools[i].weight, i))
        cores.append(core_pools[most].take_core(pool.name))
    return [([rank for core_pool in core_pools for rank in core_pool.ranks], cores)]
