"""What binding running processes has changed, or would change, as JSON and for the table."""

from __future__ import annotations

from ompbind.cpuset import CpuSet
from ompbind.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ompbind.plans import Plan
    from ompbind.verify.report import Report

SCHEMA = 1


class Change(Record):
    """A process of a rank: what it was, and what has become of it. `rank`: its position in the
    plan; `parent`: the process that was named, 0 for that itself; `before`: the cpus on which its
    threads might run; `rebound`: how many of them got other ones, or would; `outside`: the bytes of
    its own memory that were on other nodes than the plan's, of which `moved` were moved, and `left`
    could not be, for `reason`."""

    pid: int
    rank: int
    parent: int
    name: str
    threads: int
    before: CpuSet
    rebound: int
    outside: int
    moved: int = 0
    left: int = 0
    reason: str = ""


class Result(Record):
    """What was done, or with --dry-run would be. `nodes`: to which the pages of each rank go;
    `report`: how the processes were after it, None with --dry-run."""

    plan: Plan
    nodes: tuple[CpuSet, ...]
    changes: tuple[Change, ...]
    notes: tuple[str, ...] = ()
    report: Report | None = None

    @property
    def holds(self) -> bool:
        return self.report is None or self.report.holds

    def to_json(self) -> str:
        """Return the documented JSON object, as text that ends in a newline."""
        import json

        return json.dumps(self.to_dict(), indent=1) + "\n"

    def to_dict(self) -> dict[str, Any]:
        ranks = []
        for rank in self.plan.ranks:
            members = [c for c in self.changes if c.rank == rank.rank]
            ranks.append({
                "rank": rank.rank,
                "pid": next((c.pid for c in members if not c.parent), None),
                "cpus": str(rank.cpus),
                "memory_nodes": str(self.nodes[rank.rank]),
                "processes": [
                    {"pid": c.pid, "name": c.name, "threads": c.threads, "rebound": c.rebound,
                     "cpus_before": str(c.before), "bytes_outside": c.outside,
                     "bytes_moved": c.moved, "bytes_left": c.left, "why_left": c.reason}
                    for c in members
                ],
            })  # fmt: skip
        return {
            "schema": SCHEMA,
            "dry_run": self.report is None,
            "holds": self.report and self.report.holds,
            "plan": self.plan.to_dict(),
            "ranks": ranks,
            "notes": list(self.notes),
            "verify": self.report and self.report.to_dict(),
        }
