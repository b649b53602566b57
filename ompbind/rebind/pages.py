"""Move the pages of a running process to the nodes of its rank: those of its own memory under its
own policy. Files' pages and shared memory stay where they are, as do regions for which the program
has set a policy itself."""

from __future__ import annotations

import os

from ompbind.cpuset import CpuSet
from ompbind.errors import ParseError
from ompbind.launch.running import Moved, PageMover
from ompbind.machine.regions import find_policy, read_regions

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ompbind.machine.processes import Memory
    from ompbind.machine.regions import Region
    from ompbind.machine.roots import LivingRoot
    from ompbind.machine.topology import Machine
    from ompbind.plans import RankPlan

ROUNDS = 2  # a page that is in use just then may be moved a moment later


def find_nodes(rank: RankPlan, machine: Machine) -> CpuSet:
    """Return the nodes to which a rank's pages go: of its policy, or, where that names none, of its
    cpus, as far as they have memory."""
    nodes = machine.topology.nodes
    return rank.mems or CpuSet(
        n.node for n in nodes if n.node in rank.nodes and n.memory_bytes != 0
    )


def count_outside(memory: Memory | None, nodes: CpuSet) -> int:
    """Return how many bytes of a process's own memory are on other nodes than these."""
    if memory is None or not nodes:
        return 0
    return sum(size for policy, node, size in memory.private
               if policy == memory.policy and node not in nodes)  # fmt: skip


def find_other_nodes(memory: Memory | None, nodes: CpuSet) -> CpuSet:
    """Return the nodes, other than these, that a process's memory policy names."""
    if memory is None or not nodes:
        return CpuSet()
    try:
        return CpuSet.parse_kernel(memory.policy.partition(":")[2]) - nodes
    except ParseError:
        return CpuSet()


class Migration:
    """Moves the pages of processes, and says what became of them. `problem`: why none can be moved,
    "" where they can."""

    def __init__(self, root: LivingRoot) -> None:
        self.root = root
        self.problem = ""
        self.mover: PageMover | None = None
        try:
            self.mover = PageMover()
        except OSError as e:
            self.problem = e.strerror or str(e)

    def move(self, pid: int, nodes: CpuSet) -> Moved:
        """Move a process's pages that are on other nodes than these. What cannot be moved is
        counted, and so is all of it where the kernel denies the call. Without nodes nothing is."""
        if not nodes:
            return Moved()
        before = self.count(pid, nodes)
        moved = 0
        last = Moved()
        for _ in range(ROUNDS if before else 0):
            last = self.move_once(pid, nodes)
            moved += last.moved
            if not last.left:
                break
        if moved:  # huge pages take along what lies in other calls: look what is elsewhere now
            moved = max(moved, before - self.count(pid, nodes))
        return last.replace(moved=moved)

    def count(self, pid: int, nodes: CpuSet) -> int:
        """Return how many bytes there are to be moved."""
        return sum(region.count_outside(nodes) * region.page for region in self.list_regions(pid))

    def list_regions(self, pid: int) -> list[Region]:
        """Return the regions of a process's own memory under its own policy."""
        try:
            regions = read_regions(self.root, pid)
        except OSError:  # it has exited, or this kernel has no NUMA
            return []
        policy = find_policy(regions)
        return [r for r in regions if not r.is_file and r.policy == policy]

    def move_once(self, pid: int, nodes: CpuSet) -> Moved:
        total = Moved()
        for region in self.list_regions(pid) if self.mover else ():
            outside = region.count_outside(nodes) * region.page
            if not outside or not self.mover:
                continue
            try:
                part = self.mover.move_region(pid, region, nodes)
            except ProcessLookupError:
                break
            except OSError as e:
                part = Moved(0, outside, e.errno or 0)
            total = Moved(total.moved + part.moved, total.left + part.left,
                          part.reason or total.reason)  # fmt: skip
        return total


def explain(moved: Moved) -> str:
    """Return why pages are left where they were, in the system's words; "" where none is."""
    return os.strerror(moved.reason) if moved.left and moved.reason else ""
