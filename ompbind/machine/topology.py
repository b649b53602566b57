"""A machine's parts and what may be used of them: frozen values and questions about them."""

from __future__ import annotations

from ompbind.cpuset import CpuSet
from ompbind.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal

    from ompbind.machine.measurement import Measurement

    Level = Literal[
        "core", "package", "die", "cluster", "l2", "l3", "node", "book", "drawer", "kind"
    ]

# Every way in which the cpus of a machine are grouped.
LEVELS: tuple[Level, ...] = (
    "core", "package", "die", "cluster", "l2", "l3", "node", "book", "drawer", "kind",
)  # fmt: skip

# The tree by which a machine is divided and drawn. Of two levels with the same number of parts, the
# first one here is the coarser.
TREE: tuple[Level, ...] = ("drawer", "book", "package", "node", "die", "l3", "cluster", "l2")


class Cpu(Record):
    """An online OS logical cpu (a hardware thread).

    All fields but `cpu`, `node` and `capacity` are group numbers: dense, in the order of each
    group's lowest cpu, and unique over the machine, so that two cpus have the same number exactly
    when they share the thing. None: the machine does not say, or the reader was not asked for it
    (see `levels` there).
    """

    cpu: int
    core: int | None = None
    package: int | None = None
    die: int | None = None
    cluster: int | None = None
    l2: int | None = None
    l3: int | None = None
    node: int | None = None  # the number of its NUMA node
    book: int | None = None
    drawer: int | None = None
    kind: int | None = None  # of core, least capable first; None also where there is one kind only
    capacity: int | None = None  # relative to the most capable kind, 1024; read with `kind`


class Node(Record):
    """A NUMA node."""

    node: int
    cpus: CpuSet  # the online ones; it may have none
    memory_bytes: int | None = None  # 0: a node without memory; None: the machine does not say
    # Of a node without cpus: those whose cpus have the best access to it; empty where none is said.
    initiators: CpuSet = CpuSet()
    kind: str = ""  # of memory, "hbm", "dram" or "cxl"; "": unknown, or not read (`memories`)
    weight: int | None = None  # of weighted interleaving; None: the same


class Cache(Record):
    """A cache: its level and whether it is for data or instructions only, as in `L1d`."""

    name: str
    bytes: int
    cpus: CpuSet  # the online ones that share it


class Port(Record):
    """A port of a network card, as programs name it: `mlx5_0:1`, `cxi0`, `eth0`.

    `kind`: "rdma" (InfiniBand, RoCE and the like), "cxi" (Slingshot) or "net"; `up`: whether it has
    a link, None where the machine does not say; `rate`: in Mbit/s, 0 where it is unknown.
    """

    name: str
    kind: str
    up: bool | None = None
    rate: int = 0


class Device(Record):
    """A PCI device, and what its driver reports about a GPU or a network card."""

    kind: str  # "gpu", "nic", "accelerator" or "coprocessor"
    pci: str  # the address, "0000:3b:00.0"
    node: int | None  # the one it is near; None: none, or the machine does not say
    cpus: CpuSet  # the online ones near it
    vendor: str = ""  # "10de"; a management controller's display is a "gpu" of 1a03 or 102b
    model: str = ""
    names: tuple[str, ...] = ()  # of its network interfaces and the like
    driver: str | None = None  # "": none; None: the machine names no device's driver
    virtual: bool = False  # an SR-IOV function of another device
    uuid: str = ""
    minor: int | None = None  # the number of its device file
    position: int | None = None  # in the driver's order
    parts: int = 0  # MIG instances, partitions or tiles; 0: it is not divided
    memory_node: int | None = None  # the NUMA node that is its own memory; None: it is none
    hidden: bool = False  # from this process, as in a container that was given others
    # What is above it on its way to the cpus, outermost first: "pci0000:17", "0000:17:01.0", ...
    bridges: tuple[str, ...] = ()
    ports: tuple[Port, ...] = ()  # of a network card


class Topology(Record):
    """A machine's parts."""

    cpus: tuple[Cpu, ...]  # the online ones, ascending
    nodes: tuple[Node, ...]  # ascending
    # distances[i][j]: the ACPI SLIT distance from nodes[i] to nodes[j], 10 to itself; (): unknown.
    distances: tuple[tuple[int, ...], ...] = ()
    devices: tuple[Device, ...] = ()
    possible: CpuSet = CpuSet()  # cpus that may ever be online
    offline: CpuSet = CpuSet()  # present, but switched off
    isolated: CpuSet = CpuSet()  # kept free of other work by the kernel's isolcpus=
    nohz_full: CpuSet = CpuSet()  # ... by nohz_full=
    # False: the kernel has no NUMA support. Node 0 then stands for the whole machine, and there is
    # no memory policy to set.
    numa: bool = True

    @property
    def online(self) -> CpuSet:
        return CpuSet(c.cpu for c in self.cpus)

    @property
    def node_numbers(self) -> CpuSet:
        return CpuSet(n.node for n in self.nodes)

    def nodes_of(self, cpus: CpuSet) -> CpuSet:
        """Return the nodes that have any of `cpus`; a cpu in several counts for the lowest."""
        numbers = []
        for node in self.nodes:
            if node.cpus & cpus:
                numbers.append(node.node)
                cpus -= node.cpus
        return CpuSet(numbers)

    def find_node(self, number: int) -> Node | None:
        return next((n for n in self.nodes if n.node == number), None)

    def groups(self, level: Level, within: CpuSet | None = None) -> list[CpuSet]:
        """Return the groups of cpus at `level` by number, without cpus that are in none."""
        masks: dict[int, int] = {}
        for c in self.cpus:
            number: int | None = getattr(c, level)
            if number is not None and (within is None or c.cpu in within):
                masks[number] = masks.get(number, 0) | 1 << c.cpu
        return [CpuSet.from_mask(masks[n]) for n in sorted(masks)]

    def group_of(self, cpu: int, level: Level) -> CpuSet:
        """Return the cpus of the group at `level` that has this cpu; empty where none has."""
        number = next((getattr(c, level) for c in self.cpus if c.cpu == cpu), None)
        if number is None:
            return CpuSet()
        return CpuSet(c.cpu for c in self.cpus if getattr(c, level) == number)

    def nearest(self, node: int, among: CpuSet) -> int | None:
        """Return the node of `among` nearest to `node`: one of its initiators, or one that has it
        for an initiator, else by distance, the lowest of several; None if `among` has none. Without
        either it is the lowest."""
        numbers = [n.node for n in self.nodes]
        candidates = [n for n in numbers if n in among]
        if node in numbers:
            position = numbers.index(node)
            row = self.distances[position] if self.distances else [0] * len(numbers)
            first = self.nodes[position].initiators
            first |= CpuSet(n.node for n in self.nodes if node in n.initiators)
            candidates.sort(key=lambda n: (n not in first, row[numbers.index(n)], n))
        return candidates[0] if candidates else None


class Allowed(Record):
    """What this process may use of a machine."""

    cpus: CpuSet  # affinity mask ∩ cgroup cpuset ∩ online
    nodes: CpuSet  # for memory
    quota: float | None = None  # the cgroup's, in cpus' worth of time; None: unlimited
    cpuset: CpuSet | None = None  # the cgroup's cpus; None: all, or unknown


class Machine(Record):
    """A machine and this process on it."""

    topology: Topology
    allowed: Allowed
    name: str = ""  # the host's; "": unknown
    can_bind: bool = True  # whether its system binds processes to cpus and memory
    model: str = ""  # of its processors; "": unknown, or not read (see `details` there)
    caches: tuple[Cache, ...] = ()  # the same; without those whose size is unknown
    measured: Measurement | None = None  # what topo --measure found, where that was saved with it

    def to_json(self) -> str:
        """Return the object that `ompbind topo` prints, as text that ends in a newline. It does not
        name the host."""
        import json

        topology, allowed = self.topology, self.allowed
        data = {
            "schema": 1,
            "cpus": [{"cpu": c.cpu} | {lv: getattr(c, lv) for lv in (*LEVELS, "capacity")}
                     for c in topology.cpus],
            "nodes": [
                {"node": n.node, "cpus": str(n.cpus), "memory_bytes": n.memory_bytes,
                 "initiators": str(n.initiators)}
                | ({"kind": n.kind} if n.kind else {})
                | ({} if n.weight is None else {"weight": n.weight})
                for n in topology.nodes
            ],
            "distances": [list(row) for row in topology.distances],
            "devices": [
                {"kind": d.kind, "pci": d.pci, "node": d.node, "cpus": str(d.cpus),
                 "vendor": d.vendor, "model": d.model, "names": list(d.names),
                 "driver": d.driver, "hidden": d.hidden, "virtual": d.virtual,
                 "memory_node": d.memory_node,
                 "bridges": list(d.bridges), "ports": [dict(vars(p)) for p in d.ports]}
                for d in topology.devices
            ],
            "allowed": {"cpus": str(allowed.cpus), "nodes": str(allowed.nodes),
                        "quota": allowed.quota},
            "possible": str(topology.possible),
            "offline": str(topology.offline),
            "isolated": str(topology.isolated),
            "nohz_full": str(topology.nohz_full),
            "numa": topology.numa,
            "model": self.model,
            "measured": None,
            "caches": [{"name": c.name, "bytes": c.bytes, "cpus": str(c.cpus)}
                       for c in self.caches],
        }  # fmt: skip
        if self.measured is not None:
            from ompbind.machine.measurement import to_dict

            data["measured"] = to_dict(self.measured)
        # A line for each cpu, node, row of distances and device: two machines can be diffed.
        lines = []
        for key, value in data.items():
            if isinstance(value, list) and value:
                rows = ",\n  ".join(map(json.dumps, value))
                lines.append(f'"{key}": [\n  {rows}]')
            else:
                lines.append(f'"{key}": {json.dumps(value)}')
        return "{" + ",\n ".join(lines) + "}\n"
