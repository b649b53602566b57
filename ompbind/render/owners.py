"""Whose each cpu is: a rank's, several ranks', a role's, or why it is nobody's. Pure."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ompbind.cpuset import CpuSet
    from ompbind.plans import Plan

# Kinds of cpus that are no single rank's, in the order in which a cpu of several counts.
KINDS = ("shared", "reserved", "other parts", "excluded", "not used", "not allowed")


class Owners:
    """The owners of cpus. `ranks`: the numbers of each cpu's ranks; `allowed`: the cpus that may be
    used at all; `roles`: the name of the role of each cpu that has one; `others`: kinds of further
    cpus; `names`: what kinds are called where they are called otherwise."""

    def __init__(
        self,
        ranks: dict[int, set[int]],
        allowed: CpuSet,
        roles: dict[int, str] | None = None,
        others: Sequence[tuple[str, CpuSet]] = (),
        names: dict[str, str] | None = None,
    ) -> None:
        self.ranks = ranks
        self.allowed = allowed
        self.roles = roles or {}
        self.others = others
        self.names = names or {}

    def owner(self, cpu: int) -> tuple[str, int]:
        """Return whose a cpu is: a kind, and the rank's number where it is a rank's; or the name of
        its role, and -1."""
        ranks = self.ranks.get(cpu, ())
        if len(ranks) == 1:
            return "rank", min(ranks)
        if ranks:
            return "shared", 0
        if cpu in self.roles:
            return self.roles[cpu], -1
        for kind, cpus in self.others:
            if cpu in cpus:
                return kind, 0
        return ("not used" if cpu in self.allowed else "not allowed"), 0

    def name(self, kind: str) -> str:
        """Return what a kind is called here."""
        return self.names.get(kind, kind)


def make_owners(plan: Plan) -> Owners:
    """Return the owners of a plan's cpus: its ranks, or the workers of its server."""
    names = {}
    numbered = [(r.number, r.cpus) for r in plan.ranks]
    reserved = plan.reserved
    if plan.server:
        numbered = [(w.worker, w.cpus) for w in plan.server.workers]
        reserved = plan.server.rest
        names = {"rank": "worker", "reserved": "engine and front end"}
    if plan.task and not plan.part:
        names["other parts"] = "other ranks"
    roles = {cpu: role.name for role in plan.roles for cpu in role.cpus}
    others = (("reserved", reserved), ("other parts", plan.others), ("excluded", plan.excluded))
    return Owners(list_owners(numbered), plan.host.allowed, roles, others, names)


def list_owners(numbered: Iterable[tuple[int, CpuSet]]) -> dict[int, set[int]]:
    """Return the numbers of each cpu's owners, given each owner's number and cpus."""
    owners: dict[int, set[int]] = {}
    for number, cpus in numbered:
        for cpu in cpus:
            owners.setdefault(cpu, set()).add(number)
    return owners
