"""Whose each cpu of a plan is: a rank's, several ranks', a role's, or why it is nobody's. Pure."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ompbind.cpuset import CpuSet
    from ompbind.plans import Plan

# Kinds of cpus that are no single rank's, in the order in which a cpu of several counts.
KINDS = ("shared", "reserved", "other parts", "excluded", "not used", "not allowed")


class Owners:
    """The owners of a plan's cpus: its ranks, or the workers of its server."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.names = {"rank": "rank"}  # of kinds, where they are called otherwise
        numbered = [(r.number, r.cpus) for r in plan.ranks]
        reserved = plan.reserved
        if plan.server:
            numbered = [(w.worker, w.cpus) for w in plan.server.workers]
            reserved = plan.server.rest
            self.names = {"rank": "worker", "reserved": "engine and front end"}
        if plan.task and not plan.part:
            self.names["other parts"] = "other ranks"
        self.ranks: dict[int, set[int]] = {}  # the numbers of each cpu's ranks
        for number, cpus in numbered:
            for cpu in cpus:
                self.ranks.setdefault(cpu, set()).add(number)
        self.roles = {cpu: role.name for role in plan.roles for cpu in role.cpus}
        self.others: tuple[tuple[str, CpuSet], ...] = (
            ("reserved", reserved),
            ("other parts", plan.others),
            ("excluded", plan.excluded),
        )

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
        return ("not used" if cpu in self.plan.host.allowed else "not allowed"), 0

    def name(self, kind: str) -> str:
        """Return what a kind is called in this plan."""
        return self.names.get(kind, kind)
