"""A line for each rank when it starts: what it is bound to, and the machine with its cores marked,
`rank 0: cpus 0-3 node 0 mem bind:0 places one [####|....]`.

Only a launch that is asked for it (`-v`, `--report-bindings`) loads this.
"""

from __future__ import annotations

from ompbind.cpuset import CpuSet
from ompbind.messages import label

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ompbind.machine.topology import Level, Topology
    from ompbind.plans import Plan, RankPlan

# What is read of the machine: what a character may stand for, finest first.
LEVELS: tuple[Level, ...] = ("core", "l3", "node", "package")
# Between which groups there is a |: of the first level that has several, but fewer than characters.
BLOCKS: tuple[Level, ...] = ("node", "package", "l3")
MAX_WIDTH = 96  # characters, where the machine has a level with so few groups


class Announcer:
    """Makes the lines. It is given the machine before anything is started."""

    def __init__(self, topology: Topology) -> None:
        cores = topology.groups("core") or [CpuSet([c]) for c in topology.online]
        units = cores
        for level in LEVELS[1:]:
            if len(units) > MAX_WIDTH:
                units = topology.groups(level) or units
        levels = (topology.groups(level) for level in BLOCKS)
        groups = next((g for g in levels if 1 < len(g) < len(units)), [topology.online])
        self.cores = cores
        self.blocks = [[unit for unit in units if unit & group] for group in groups]

    def __call__(self, plan: Plan) -> list[str]:
        """Return a line for each rank of a plan."""
        host = f" on {plan.host.name}" if plan.task.nodes not in (None, 1) else ""
        return [self.make_line(rank, host) for rank in plan.ranks]

    def make_line(self, rank: RankPlan, host: str = "") -> str:
        """Return the line of a rank; `host`: ` on n001`, where a job has several."""
        parts = [label("cpu", rank.cpus) if rank.cpus else "any cpu"]
        if rank.cpus and rank.nodes:
            parts.append(label("node", rank.nodes))
        parts.append(f"mem {rank.binding.write_memory()}")
        if rank.places:
            parts.append(f"places {len(rank.places) if len(rank.places) > 1 else 'one'}")
        parts += [f"{kind} {','.join(names)}" for kind, _, names in rank.devices]
        if rank.cpus:
            parts.append(self.draw(rank.cpus))
        return f"rank {rank.name}{host}: {' '.join(parts)}"

    def draw(self, cpus: CpuSet) -> str:
        """Return the machine with a character for each core, on a large machine for each cache,
        node or package: `#` where these cpus have all its cores, by one thread or more, `+` where
        they have some, `.` where none."""
        cores = CpuSet(c for core in self.cores if core & cpus for c in core)
        return f"[{'|'.join(''.join(sign(u, cores) for u in units) for units in self.blocks)}]"


def sign(unit: CpuSet, cpus: CpuSet) -> str:
    if not unit & cpus:
        return "."
    return "#" if unit <= cpus else "+"
