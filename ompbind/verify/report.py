"""What verify found: each process beside its plan, in words and as JSON."""

from __future__ import annotations

from ompbind.cpuset import CpuSet
from ompbind.messages import counted
from ompbind.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ompbind.machine.processes import Memory, Process
    from ompbind.verify.expected import Expected

SCHEMA = 1


class Difference(Record):
    """Where a process is not as planned. `threads`: those concerned, if it is about threads."""

    kind: str
    text: str
    cause: str
    remedy: str
    threads: tuple[int, ...] = ()


class Checked(Record):
    """A process beside its plan. `parent` is the rank's own process, for one that the rank has
    started; `places`: for each thread the number of the place that it is bound to, or None;
    `openmp`: whether it is OpenMP's, or None where that cannot be told."""

    seen: Process
    expected: Expected | None
    parent: int = 0
    places: tuple[int | None, ...] = ()
    openmp: tuple[bool | None, ...] = ()
    differences: tuple[Difference, ...] = ()
    notes: tuple[str, ...] = ()
    runtimes: tuple[str, ...] = ()  # the files of the OpenMP runtimes that it has loaded

    @property
    def name(self) -> str:
        rank = "" if self.expected is None else f"rank {self.expected.rank}, "
        return f"{rank}pid {self.seen.pid}"

    def to_dict(self, online: CpuSet) -> dict[str, Any]:
        seen, expected = self.seen, self.expected
        memory = seen.memory
        return {
            "pid": seen.pid,
            "rank": None if expected is None else expected.rank,
            "started_by": self.parent or None,
            "name": seen.name,
            "holds": not self.differences,
            "planned": expected and {
                "cpus": str(expected.cpus),
                "places": [str(p) for p in expected.places],
                "threads": expected.threads,
                "mem": expected.mem,
                "mems": str(expected.mems),
            },
            "threads": [
                {"tid": t.tid, "name": t.name, "state": t.state, "cpus": str(t.cpus & online),
                 "last_cpu": t.last, "place": place, "openmp": openmp}
                for t, place, openmp in zip(seen.threads, self.places, self.openmp, strict=True)
            ],
            "runtimes": list(self.runtimes),
            "cpuset": None if seen.cpuset is None else str(seen.cpuset),
            "memory": memory and {
                "policy": memory.policy,
                "bytes": {str(n): size for n, size in bytes_by_node(memory)},
                "file_bytes": {str(n): size for n, size in memory.files},
            },
            "unseen": [{"what": what, "why": why} for what, why in seen.unseen],
            "differences": [
                {"kind": d.kind, "text": d.text, "cause": d.cause, "remedy": d.remedy,
                 "threads": list(d.threads)}
                for d in self.differences
            ],
            "notes": list(self.notes),
        }  # fmt: skip


class Report(Record):
    """All processes that were looked at; `online`: the machine's cpus at that time."""

    processes: tuple[Checked, ...]
    online: CpuSet

    @property
    def holds(self) -> bool:
        return not any(p.differences for p in self.processes)

    def to_json(self, indent: int | None = 1) -> str:
        """The report as one JSON text that ends in a newline; on one line when it is of thousands
        of threads, as indenting takes longer than looking."""
        import json

        if sum(len(p.seen.threads) for p in self.processes) > 1000:
            indent = None
        return json.dumps(self.to_dict(), indent=indent) + "\n"

    def to_dict(self) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "holds": self.holds,
            "online": str(self.online),
            "processes": [p.to_dict(self.online) for p in self.processes],
        }


def bytes_by_node(memory: Memory) -> list[tuple[int, int]]:
    """The process' own memory by node, whatever the policy."""
    sums: dict[int, int] = {}
    for _, node, size in memory.own:
        sums[node] = sums.get(node, 0) + size
    return sorted(sums.items())


def count_looked_at(report: Report) -> str:
    """`2 processes, 8 threads`."""
    count = len(report.processes)
    threads = sum(len(p.seen.threads) for p in report.processes)
    return f"{counted(count, 'process')}, {counted(threads, 'thread')}"
