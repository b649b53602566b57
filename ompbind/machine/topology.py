"""What a machine is made of and what of it may be used: frozen values and questions on them."""

from __future__ import annotations

from ompbind.cpuset import CpuSet
from ompbind.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal

    Level = Literal[
        "core", "package", "die", "cluster", "l2", "l3", "node", "book", "drawer", "kind"
    ]

# Every way in which the cpus of a machine are grouped.
LEVELS: tuple[Level, ...] = (
    "core", "package", "die", "cluster", "l2", "l3", "node", "book", "drawer", "kind",
)  # fmt: skip

# The tree that a machine is divided by and drawn as; where two levels divide it into as many parts,
# the first is the coarser.
TREE: tuple[Level, ...] = ("drawer", "book", "package", "node", "die", "l3", "cluster", "l2")


class Cpu(Record):
    """An online OS logical cpu (a hardware thread).

    `node` is the real NUMA node number. The others are group numbers, dense, in the order of each
    group's lowest cpu, unique over the machine: two cpus share one exactly when they share the
    thing. `kind` numbers the kinds of core, least capable first; `capacity` is what a kind can do
    beside the most capable one, which has 1024; it is read with `kind`. None: the machine does not
    say, has one kind only, or was not asked (see the readers' `levels`).
    """

    cpu: int
    core: int | None = None
    package: int | None = None
    die: int | None = None
    cluster: int | None = None
    l2: int | None = None
    l3: int | None = None
    node: int | None = None
    book: int | None = None
    drawer: int | None = None
    kind: int | None = None
    capacity: int | None = None


class Node(Record):
    """A NUMA node: its online cpus (it may have none) and its memory in bytes.

    memory_bytes 0: a node without memory; None: the machine does not say.
    """

    node: int
    cpus: CpuSet
    memory_bytes: int | None = None


class Device(Record):
    """A PCI device and the node and cpus near it; node None: not on one, or not said.

    `names` are those of its network interfaces and the like; `driver` "" is none, None: the machine
    does not say of any; `virtual`: an SR-IOV function of another device. A GPU's driver tells its
    `uuid`, the `minor` number of its device file, its `position` in the driver's own order, the
    `parts` (MIG instances, partitions, tiles; 0: it is not divided), and whether it is `hidden`
    from this process."""

    kind: str  # "gpu", "nic", "accelerator" or "coprocessor"
    pci: str  # the address, "0000:3b:00.0"
    node: int | None
    cpus: CpuSet
    vendor: str = ""  # "10de"; a management controller's display is a "gpu" of 1a03 or 102b
    model: str = ""
    names: tuple[str, ...] = ()
    driver: str | None = None
    virtual: bool = False
    uuid: str = ""
    minor: int | None = None
    position: int | None = None
    parts: int = 0
    hidden: bool = False


class Topology(Record):
    """A machine. `cpus` are the online ones in ascending order; `nodes` in ascending order.

    `distances[i][j]` is the ACPI SLIT distance from nodes[i] to nodes[j] (10: itself); () where the
    machine does not say. `possible` are the cpus that may ever be online, `offline` those that are
    there but switched off; `isolated` and `nohz_full` what the kernel keeps free of other work
    (isolcpus=, nohz_full=). `numa` is False where the kernel has no NUMA support: node 0 then
    stands for the whole machine, and there is no memory policy to set.
    """

    cpus: tuple[Cpu, ...]
    nodes: tuple[Node, ...]
    distances: tuple[tuple[int, ...], ...] = ()
    devices: tuple[Device, ...] = ()
    possible: CpuSet = CpuSet()
    offline: CpuSet = CpuSet()
    isolated: CpuSet = CpuSet()
    nohz_full: CpuSet = CpuSet()
    numa: bool = True

    @property
    def online(self) -> CpuSet:
        return CpuSet(c.cpu for c in self.cpus)

    @property
    def node_numbers(self) -> CpuSet:
        return CpuSet(n.node for n in self.nodes)

    def nodes_of(self, cpus: CpuSet) -> CpuSet:
        """The nodes that hold any of `cpus`; a cpu in several counts for the lowest."""
        found = []
        for node in self.nodes:
            if node.cpus & cpus:
                found.append(node.node)
                cpus -= node.cpus
        return CpuSet(found)

    def find_node(self, number: int) -> Node | None:
        return next((n for n in self.nodes if n.node == number), None)

    def groups(self, level: Level, within: CpuSet | None = None) -> list[CpuSet]:
        """The groups of cpus at `level`, by group number; cpus of no group are left out."""
        masks: dict[int, int] = {}
        for c in self.cpus:
            number: int | None = getattr(c, level)
            if number is not None and (within is None or c.cpu in within):
                masks[number] = masks.get(number, 0) | 1 << c.cpu
        return [CpuSet.from_mask(masks[n]) for n in sorted(masks)]

    def nearest(self, node: int, among: CpuSet) -> int | None:
        """Of the nodes `among`, the one nearest to `node` (ties: the lowest); None if none.

        Without distances, the lowest.
        """
        numbers = [n.node for n in self.nodes]
        choice = [n for n in numbers if n in among]
        if self.distances and node in numbers:
            row = self.distances[numbers.index(node)]
            choice.sort(key=lambda n: (row[numbers.index(n)], n))
        return choice[0] if choice else None


class Allowed(Record):
    """What this process may use: online cpus in its affinity mask and cpuset, memory nodes, and
    the cgroup's quota in cpus' worth of time (None: no quota)."""

    cpus: CpuSet
    nodes: CpuSet
    quota: float | None = None


class Machine(Record):
    """A topology, what is allowed of it, the host's name ("" where it is not known), and whether
    its system lets processes be bound to cpus and memory."""

    topology: Topology
    allowed: Allowed
    name: str = ""
    can_bind: bool = True

    def to_json(self) -> str:
        """The contract's object of `ompbind topo`, as text that ends in a newline. No host name."""
        topology, allowed = self.topology, self.allowed
        data = {
            "schema": 1,
            "cpus": [{"cpu": c.cpu} | {lv: getattr(c, lv) for lv in (*LEVELS, "capacity")}
                     for c in topology.cpus],
            "nodes": [
                {"node": n.node, "cpus": str(n.cpus), "memory_bytes": n.memory_bytes}
                for n in topology.nodes
            ],
            "distances": [list(row) for row in topology.distances],
            "devices": [
                {"kind": d.kind, "pci": d.pci, "node": d.node, "cpus": str(d.cpus),
                 "vendor": d.vendor, "model": d.model, "names": list(d.names),
                 "driver": d.driver, "hidden": d.hidden}
                for d in topology.devices
            ],
            "allowed": {"cpus": str(allowed.cpus), "nodes": str(allowed.nodes),
                        "quota": allowed.quota},
            "possible": str(topology.possible),
            "offline": str(topology.offline),
            "isolated": str(topology.isolated),
            "nohz_full": str(topology.nohz_full),
            "numa": topology.numa,
        }  # fmt: skip
        # A line for each cpu, node, row and device: short enough to read, and to compare.
        lines = []
        for key, value in data.items():
            if isinstance(value, list) and value:
                rows = ",\n  ".join(map(make_json, value))
                lines.append(f"{make_json(key)}: [\n  {rows}]")
            else:
                lines.append(f"{make_json(key)}: {make_json(value)}")
        return "{" + ",\n ".join(lines) + "}\n"


def make_json(value: object) -> str:
    """`value` as json.dumps would write it, without the import: reading a machine takes less time
    than `json` does to load."""
    if value is None or value is True or value is False:
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, dict):
        return "{" + ", ".join(f"{make_json(k)}: {make_json(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(make_json, value)) + "]"
    if isinstance(value, str):
        if value.isascii() and value.isprintable() and '"' not in value and "\\" not in value:
            return f'"{value}"'
        import json

        return json.dumps(value)
    return repr(value)
