"""Where memory that is measured lies, in the guest. It judges nothing; tests/test_guest.py does,
outside. Its figures say nothing: an emulated machine has no far memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ompbind.cpuset import CpuSet
from ompbind.launch.crew import Crew
from ompbind.machine import read_machine
from ompbind.machine.measurement import to_dict
from ompbind.measuring import Procedure, measure_machine
from ompbind.measuring.work import start_crew

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

QUICK = Procedure(sample=1e-4, together=1e-3, reading=1e-4, steps=100, budget=0.0,
                  lines=(16384, 16384))  # fmt: skip
CPUS = (4,)  # of node 2: more would only take longer


class Watched:
    """A crew whose processes' pages are looked at when all memory has been placed."""

    def __init__(self, crew: Crew) -> None:
        self.crew = crew
        self.placed: list[tuple[int, int, set[int]]] = []

    def __enter__(self) -> Watched:
        return self

    def __exit__(self, *_: object) -> None:
        self.crew.end()

    def ask(self, positions: Sequence[int], name: str, *numbers: float) -> list[list[float]]:
        if name != "place":
            return self.crew.ask(positions, name, *numbers)
        before = [pages_by_node(self.crew.members[n].pid) for n in positions]
        result = self.crew.ask(positions, name, *numbers)
        for position, old in zip(positions, before, strict=True):
            new = pages_by_node(self.crew.members[position].pid)
            grown = {node for node in new if new[node] - old.get(node, 0) >= 200}
            self.placed.append((position, int(numbers[1]), grown))
        return result


def pages_by_node(pid: int) -> dict[int, int]:
    """How many anonymous pages a process has on each node, in pages of 4 KiB."""
    pages: dict[int, int] = {}
    for line in Path(f"/proc/{pid}/numa_maps").read_text().splitlines():
        words = line.split()
        if any(word.startswith("anon=") for word in words):
            for word in words:
                if word[0] == "N" and "=" in word:
                    node, _, count = word[1:].partition("=")
                    pages[int(node)] = pages.get(int(node), 0) + int(count)
    return pages


def measure() -> dict[str, Any]:
    """What was measured, and for each block that was placed the process's position, the node asked
    for, and the nodes on which its pages grew."""
    watched: list[Watched] = []

    def make_crew(cpus: Sequence[CpuSet], lines: int) -> Any:
        watched.append(Watched(start_crew(cpus, lines)))
        return watched[0]

    machine = read_machine(details=True, devices=False)
    machine = machine.replace(allowed=machine.allowed.replace(cpus=CpuSet(CPUS)))
    result = measure_machine(machine, lambda _: None, QUICK, make_crew)
    placed = [(position, node, sorted(nodes)) for position, node, nodes in watched[0].placed]
    return {"measured": to_dict(result), "placed": placed}
