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


class Stock:
    """What one or, where they share, several ranks have; cores are taken from its end."""

    def __init__(self, share: Share) -> None:
        self.cores = list(share.cores)
        self.ranks: list[int] = []
        self.taken: dict[str, int] = {}  # how many cores, by role; "": reserved

    @property
    def weight(self) -> int:
        return sum(core.weight for core in self.cores)

    def take(self, name: str) -> Core:
        """The least capable core, of several the last."""
        self.taken[name] = self.taken.get(name, 0) + 1
        least = min(core.weight for core in self.cores)
        last = max(i for i, core in enumerate(self.cores) if core.weight == least)
        return self.cores.pop(last)

    def told(self) -> str:
        """What was taken, for the `why` of its ranks."""
        parts = [f"{n} for {name}" if name else f"{n} reserved" for name, n in self.taken.items()]
        *first, last = parts or [""]
        return f", less {', '.join(first)}{' and ' * bool(first)}{last}" if last else ""


def set_aside(
    shares: list[Share], request: Request
) -> tuple[list[Share], CpuSet, tuple[Role, ...]]:
    """The shares without, then the cpus reserved, and the roles.

    What each rank gives comes first, from its own cores; what all give together is taken one at a
    time from whoever has the most, the last such rank first. Ranks that share a domain lose it
    together. Of a reserved core every thread is kept free, of a role's those are used that
    workers would use.
    """
    asked = [*request.roles, request.reserve]
    pools = sorted((p for p in asked if p.cores), key=lambda p: not p.per_rank)
    if not pools:
        return shares, CpuSet(), ()
    stocks: dict[int, Stock] = {}
    for rank, share in enumerate(shares):
        stocks.setdefault(id(share.cores), Stock(share)).ranks.append(rank)
    reserved: list[Core] = []
    roles: list[Role] = []
    for pool in pools:
        for ranks, cores in take_pool(pool, list(stocks.values())):
            if pool.name:
                roles.append(Role(pool.name, union(c.cpus for c in cores), CpuSet(ranks)))
            else:
                reserved += cores
    left = {key: tuple(stock.cores) for key, stock in stocks.items()}
    shares = [
        s.replace(cores=left[id(s.cores)], why=s.why + stocks[id(s.cores)].told()) for s in shares
    ]
    return shares, union(core.threads for core in reserved), tuple(roles)


def take_pool(pool: Pool, stocks: list[Stock]) -> list[tuple[list[int], list[Core]]]:
    """Which ranks got which cores set aside. Raises PlanError where a rank would have none left."""
    if pool.per_rank:
        for stock in stocks:
            spare = (len(stock.cores) - 1) // len(stock.ranks)
            if pool.cores > spare:
                raise PlanError(
                    f"rank {stock.ranks[0]}: {pool} would leave it without a core",
                    hint=f"at most {spare} can be taken from each rank there",
                    rank=stock.ranks[0],
                    wanted=pool.cores,
                    available=spare,
                )
        dealt = [([r], [stock.take(pool.name) for _ in range(pool.cores)])
                 for stock in stocks for r in stock.ranks]  # fmt: skip
        return sorted(dealt, key=lambda d: d[0])
    spare = sum(len(stock.cores) - 1 for stock in stocks)
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
        able = [i for i, stock in enumerate(stocks) if len(stock.cores) > 1]
        most = max(able, key=lambda i: (stocks[i].weight, i))
        cores.append(stocks[most].take(pool.name))
    return [([r for stock in stocks for r in stock.ranks], cores)]
