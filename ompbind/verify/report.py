"""The result of a verification: each process beside its plan, in words and as JSON."""

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
MAX_INDENTED_THREADS = 1000  # indenting the JSON of more takes longer than reading them


class Difference(Record):
    """A point in which a process is not as planned."""

    kind: str  # one word, for programs
    text: str
    cause: str  # the likely one
    remedy: str
    threads: tuple[int, ...] = ()  # the ids of the threads it is about, if it is about threads


class ProcessReport(Record):
    """A process beside its plan."""

    process: Process
    expected: Expected | None  # None: its plan is unknown
    parent: int = 0  # the pid of the rank's own process, for a process that the rank started
    places: tuple[int | None, ...] = ()  # for each thread the place it is bound to, or None
    openmp: tuple[bool | None, ...] = ()  # for each thread whether it is OpenMP's; None: unknown
    differences: tuple[Difference, ...] = ()
    notes: tuple[str, ...] = ()
    runtimes: tuple[str, ...] = ()  # the files of the OpenMP runtimes that it has loaded
    # The files of allocators that it has loaded; (): the C library's, or one inside the program.
    allocators: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        expected, rank = self.expected, ""
        if expected is not None:
            number = expected.rank if expected.number is None else expected.number
            group = f" ({expected.group})" if expected.group else ""
            rank = f"rank {number}{group}, "
        return f"{rank}pid {self.process.pid}"

    def to_dict(self, online: CpuSet) -> dict[str, Any]:
        process, expected = self.process, self.expected
        memory = process.memory
        return {
            "pid": process.pid,
            "rank": None if expected is None else expected.rank,
            **({"group": expected.group} if expected and expected.group else {}),
            "started_by": self.parent or None,
            "name": process.name,
            "holds": not self.differences,
            "planned": expected and {
                "cpus": str(expected.cpus),
                "places": [str(p) for p in expected.places],
                "threads": expected.threads,
                "mem": expected.mem,
                "mems": str(expected.mems),
                **({"mem_balancing": True} if expected.balancing else {}),
            },
            "threads": [
                {"tid": t.tid, "name": t.name, "state": t.state, "cpus": str(t.cpus & online),
                 "last_cpu": t.last, "place": place, "openmp": openmp}
                for t, place, openmp in zip(process.threads, self.places, self.openmp, strict=True)
            ],
            "runtimes": list(self.runtimes),
            "allocators": list(self.allocators),
            "cpuset": None if process.cpuset is None else str(process.cpuset),
            "memory": memory and {
                "policy": memory.policy,
                "bytes": {str(n): size for n, size in bytes_by_node(memory)},
                "file_bytes": {str(n): size for n, size in memory.files},
            },
            "huge_pages": process.huge_pages and dict(vars(process.huge_pages)),
            "unseen": [{"what": part, "why": reason} for part, reason in process.unreadable],
            "differences": [
                {"kind": d.kind, "text": d.text, "cause": d.cause, "remedy": d.remedy,
                 "threads": list(d.threads)}
                for d in self.differences
            ],
            "notes": list(self.notes),
        }  # fmt: skip


class Repair(Record):
    """What was done about differences of a process, or could not be. `kind`: "threads", that were
    bound, or "memory", that was moved."""

    pid: int
    rank: int | None
    kind: str
    text: str
    done: bool


class Report(Record):
    """All processes that were verified."""

    processes: tuple[ProcessReport, ...]
    online: CpuSet  # the machine's cpus at that time
    time: str = ""  # when it was, in ISO 8601; "": not one of several
    repairs: tuple[Repair, ...] | None = None  # what --repair has done before; None without it

    @property
    def holds(self) -> bool:
        return not any(p.differences for p in self.processes)

    @property
    def summary(self) -> str:
        """`2 processes, 8 threads`."""
        threads = sum(len(p.process.threads) for p in self.processes)
        return f"{counted(len(self.processes), 'process')}, {counted(threads, 'thread')}"

    def to_json(self, indent: int | None = 1) -> str:
        """Return the report as JSON that ends in a newline, on one line if there are thousands of
        threads."""
        import json

        if sum(len(p.process.threads) for p in self.processes) > MAX_INDENTED_THREADS:
            indent = None
        return json.dumps(self.to_dict(), indent=indent) + "\n"

    def to_dict(self) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "holds": self.holds,
            "online": str(self.online),
            **({"time": self.time} if self.time else {}),
            "processes": [p.to_dict(self.online) for p in self.processes],
            **({} if self.repairs is None else {"repairs": [dict(vars(r)) for r in self.repairs]}),
        }


def bytes_by_node(memory: Memory) -> list[tuple[int, int]]:
    """Return the process's private memory by node, whatever its policy."""
    sums: dict[int, int] = {}
    for _, node, size in memory.private:
        sums[node] = sums.get(node, 0) + size
    return sorted(sums.items())
