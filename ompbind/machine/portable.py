"""Read any other system through psutil. Its machines can be planned for, but not bound."""

from __future__ import annotations

from ompbind.cpuset import LIMIT, CpuSet, parse_whole
from ompbind.errors import TopologyError
from ompbind.machine.topology import Allowed, Cpu, Machine, Node, Topology

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ompbind.machine.roots import Root


class PsutilRoot:
    """The running system as psutil describes it, as files `generic/NAME`."""

    def read(self, path: str) -> str | None:
        import platform

        import psutil

        value: object = None
        if path == "generic/logical":
            value = psutil.cpu_count()
        elif path == "generic/physical":
            value = psutil.cpu_count(logical=False)
        elif path == "generic/memory":
            value = psutil.virtual_memory().total
        elif path == "generic/hostname":
            value = platform.node()
        return None if value is None else str(value)

    def names(self, path: str) -> list[str]:
        return []

    def resolve(self, path: str) -> str | None:
        return None


def read_generic(root: Root) -> Machine:
    """Return the machine under `root`. Raises TopologyError if the number of cpus is unknown.

    Cores are known only if each has one thread, or each has two: Windows and the BSDs then give
    adjacent numbers to the threads of a core.
    """
    logical, physical = (read_count(root, n) for n in ("logical", "physical"))
    if not logical or logical >= LIMIT:
        raise TopologyError("the number of cpus of this system is unknown")
    threads = {physical: 1, 2 * (physical or 0): 2}.get(logical)
    everything = CpuSet(range(logical))
    cpus = [Cpu(c, core=None if threads is None else c // threads, node=0) for c in everything]
    topology = Topology(
        cpus=tuple(cpus),
        nodes=(Node(0, everything, read_count(root, "memory")),),
        possible=everything,
        numa=False,
    )
    name = (root.read("generic/hostname") or "").strip()
    return Machine(topology, Allowed(everything, CpuSet([0])), name, can_bind=False)


def read_count(root: Root, name: str) -> int | None:
    return parse_whole(root.read(f"generic/{name}") or "")
