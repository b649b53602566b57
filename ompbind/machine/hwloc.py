"""Read hwloc's XML, version 2 as `lstopo --of xml` writes it, and version 1.

Sources: hwloc's manual ("Importing and exporting topologies from/to XML files") and hwloc2.dtd.
hwloc's objects form a tree; a cpu's groups are the objects above it.
"""

from __future__ import annotations

import re
from xml.parsers import expat

from ompbind.cpuset import LIMIT, CpuSet, parse_whole
from ompbind.errors import ParseError, TopologyError
from ompbind.machine.cpus import make_capacities, make_kinds, make_steps
from ompbind.machine.details import clean_model, join_models, name_model
from ompbind.machine.devices import find_kind
from ompbind.machine.ports import ACTIVE
from ompbind.machine.topology import Allowed, Cache, Cpu, Device, Machine, Node, Port, Topology

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

MAX_BYTES = 64 << 20
MAX_DEPTH = 256  # of nested elements; hwloc's have a dozen
MAX_OBJECTS = 1 << 20

MEMORY_SIDE = "MemorySideCache"
# Of Intel's hybrid processors, by hwloc, as in `cpus.read_core_types`.
CORE_TYPES = {"IntelAtom": 1, "IntelCore": 2}

# Infos of packages that name a processor, and what /proc/cpuinfo calls them. Of Arm, hwloc's model
# is the kernel's name of the architecture.
INFOS = {"CPUModel": "model name", "CPUImplementer": "CPU implementer", "CPUPart": "CPU part"}
PORT_STATE = re.compile(r"Port(\d{1,3})State")  # an info of an InfiniBand card, for each port
CACHE_KINDS = {"0": "", "1": "d", "2": "i"}  # cache_type

# What hwloc calls a node's memory, where it knows (its guess_memory_tiers); the other names do not
# say how fast it is.
MEMORY_KINDS = {
    "HBM": "hbm", "MCDRAM": "hbm", "DRAM": "dram", "NVM": "cxl", "CXL-DRAM": "cxl",
    "CXL-NVM": "cxl",
}  # fmt: skip

# hwloc's type, or a Group's subtype, to our level.
LEVELS = {
    "Package": "package", "Socket": "package", "Die": "die", "L3Cache": "l3", "L2Cache": "l2",
    "Core": "core", "Cluster": "cluster", "Book": "book", "Drawer": "drawer",
}  # fmt: skip


def parse_xml(data: bytes) -> Machine:
    """Parse a machine. Raises TopologyError."""
    if len(data) > MAX_BYTES:
        raise TopologyError(f"more than {MAX_BYTES >> 20} MiB of XML")
    reader = XmlReader()
    parser = expat.ParserCreate("UTF-8")  # as hwloc writes it, whatever the file claims
    parser.buffer_text = True
    parser.StartElementHandler = reader.start
    parser.EndElementHandler = reader.end
    parser.CharacterDataHandler = reader.text
    parser.EntityDeclHandler = refuse_entities
    try:
        parser.Parse(data, True)
        return reader.make_machine()
    except expat.ExpatError as e:
        raise TopologyError(f"not well-formed XML: {e}") from None
    except ParseError as e:
        raise TopologyError(f"hwloc XML: {e.message}", hint=e.hint) from None


def refuse_entities(*_: object) -> NoReturn:
    raise TopologyError("the XML defines entities, which hwloc's never does")


class XmlReader:
    """Collects a machine from the parser's events."""

    def __init__(self) -> None:
        self.version = ""
        self.stack: list[dict[str, Any]] = []  # the open elements
        self.counts: dict[str, int] = {}
        self.objects = 0
        self.cpus: dict[int, dict[str, int]] = {}
        self.nodes: dict[int, tuple[CpuSet, int | None]] = {}
        self.memories: dict[int, str] = {}  # the kind of a node's memory
        self.devices: list[Device] = []
        self.kinds: list[tuple[CpuSet, dict[str, str]]] = []  # the cpus, and what is said of them
        self.machine: dict[str, str] = {}
        self.name = ""
        self.distances: dict[str, str] = {}
        self.models: list[dict[str, str]] = []  # what is said of each processor
        self.caches: list[Cache] = []

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        self.objects += 1
        if not self.stack and tag != "topology":
            raise TopologyError(f"the XML is not hwloc's: it begins with <{tag[:40]}>")
        if len(self.stack) >= MAX_DEPTH or self.objects > MAX_OBJECTS:
            raise TopologyError("the XML is larger or deeper than any machine")
        above = self.stack[-1] if self.stack else {}
        # An element inherits the groups, cpus, bridges and device of the one around it.
        element = {"tag": tag, "levels": above.get("levels", {}), "cpuset": above.get("cpuset"),
                   "device": above.get("device"), "bridges": above.get("bridges", ())}  # fmt: skip
        self.stack.append(element)
        if tag == "topology":
            self.version = attributes.get("version", "1")
        elif tag == "object":
            self.start_object(element, attributes)
        elif tag == "distances2":
            kind = (attributes.get("type"), attributes.get("indexing"))
            latency = attributes.get("name", "NUMALatency") == "NUMALatency"
            element["wanted"] = kind == ("NUMANode", "os") and latency and not self.distances
        elif tag == "cpukind":
            self.kinds.append((parse_bitmap(attributes.get("cpuset", "")), {}))
        elif tag == "info" and above.get("tag") == "cpukind":
            self.kinds[-1][1][attributes.get("name", "")] = attributes.get("value", "")
        elif tag == "info" and above.get("card"):
            if port := PORT_STATE.fullmatch(attributes.get("name", "")):
                name = f"{above['card']}:{port[1]}"
                self.set_port(above["device"], name, attributes.get("value", ""))
        elif tag == "info" and attributes.get("name") == "HostName":
            self.name = attributes.get("value", "")
        elif tag == "info" and attributes.get("name") in INFOS:
            fields = above.setdefault("model", {})
            if not fields:
                self.models.append(fields)
            fields[INFOS[attributes["name"]]] = clean_model(attributes.get("value", ""))

    def start_object(self, element: dict[str, Any], attributes: dict[str, str]) -> None:
        kind = attributes.get("type", "")
        if kind == "Cache":  # version 1
            kind = f"L{attributes.get('depth', '')[:1]}Cache"
        if attributes.get("subtype") == MEMORY_SIDE:
            kind = ""  # in front of a node's memory: no cache that its cpus share
        if "cpuset" in attributes:
            element["cpuset"] = parse_bitmap(attributes["cpuset"])
        if kind in ("Machine", "System") and not self.machine:
            self.machine = attributes
        size = parse_whole(attributes.get("cache_size", "")) if kind.endswith("Cache") else None
        if size:
            self.add_cache(attributes, size, element["cpuset"] or CpuSet())
        level = LEVELS.get(attributes.get("subtype", "") if kind == "Group" else kind)
        if level:
            number = self.counts.setdefault(level, 0)
            self.counts[level] += 1
            element["levels"] = element["levels"] | {level: number}
        elif kind == "PU":
            self.cpus[parse_number(attributes, "os_index")] = element["levels"]
        elif kind == "NUMANode":
            memory = parse_whole(attributes.get("local_memory", "0"))  # absent: mostly none
            cpus = element["cpuset"] or CpuSet()
            number = parse_number(attributes, "os_index")
            self.nodes[number] = (cpus, memory)
            self.memories[number] = MEMORY_KINDS.get(attributes.get("subtype", ""), "")
        elif kind == "Bridge":  # a host bridge has no address, but the buses below it
            below = attributes.get("bridge_pci", "").partition("-")[0].replace("[", "")
            name = attributes.get("pci_busid") or f"pci{below}"
            element["bridges"] = (*element["bridges"], name)
        elif kind == "PCIDev":
            cpus, bridges = element["cpuset"] or CpuSet(), element["bridges"]
            element["device"] = self.add_device(attributes, cpus, bridges)
        elif kind == "OSDev" and attributes.get("osdev_type") in ("2", "3"):  # network, OpenFabrics
            name, rdma = attributes.get("name", ""), attributes["osdev_type"] == "3"
            element["card"] = name if rdma else ""
            self.add_name(element["device"], name, rdma=rdma)

    def add_cache(self, attributes: dict[str, str], size: int, cpus: CpuSet) -> None:
        depth = attributes.get("depth", "")
        kind = CACHE_KINDS.get(attributes.get("cache_type", ""))
        if depth in ("1", "2", "3", "4", "5") and kind is not None:
            self.caches.append(Cache(f"L{depth}{kind}", size, cpus))

    def add_device(
        self, attributes: dict[str, str], cpus: CpuSet, bridges: tuple[str, ...]
    ) -> int | None:
        """Add a device and return its position; None if its kind does not matter."""
        pci_type = attributes.get("pci_type", "")  # `0200 [15b3:101d] [15b3:0007] 00`
        vendor, _, model = pci_type.partition("[")[2][:9].partition(":")
        kind = find_kind(pci_type[:4], vendor, model)
        if not kind:
            return None
        pci = attributes.get("pci_busid", "")
        self.devices.append(Device(kind, pci, None, cpus, vendor, model, bridges=bridges))
        return len(self.devices) - 1

    def add_name(self, number: int | None, name: str, *, rdma: bool) -> None:
        if number is not None and name:
            device = self.devices[number]
            ports = device.ports
            if device.kind == "nic":
                ports += (Port(f"{name}:1", "rdma") if rdma else Port(name, "net"),)
            names = (*device.names, name)
            self.devices[number] = device.replace(names=names, ports=ports)

    def set_port(self, number: int | None, name: str, state: str) -> None:
        """Set the state of a card's port for RDMA, of which all but the first are named only so."""
        if number is not None and self.devices[number].kind == "nic":
            ports = {port.name: port for port in self.devices[number].ports}
            ports[name] = Port(name, "rdma", state == ACTIVE)
            self.devices[number] = self.devices[number].replace(ports=tuple(ports.values()))

    def text(self, text: str) -> None:
        if len(self.stack) > 1 and self.stack[-2].get("wanted"):
            tag = self.stack[-1]["tag"]
            self.distances[tag] = self.distances.get(tag, "") + text

    def end(self, _: str) -> None:
        self.stack.pop()

    def make_machine(self) -> Machine:
        """Return the machine that was collected. Raises TopologyError if it has no cpus."""
        if not self.cpus:
            raise TopologyError("the XML has no cpu (no object of type PU)")
        online = CpuSet(self.cpus)
        root_cpus = parse_bitmap(self.machine.get("complete_cpuset", ""))
        allowed = self.bitmap("allowed_cpuset", online) & online
        # A node that is only memory is listed with cpus near it; a cpu is on its lowest node.
        left, node_of, nodes = online, dict[int, int](), []
        for number in sorted(self.nodes):
            cpus, memory = self.nodes[number]
            near, cpus = cpus & online, cpus & left
            left -= cpus
            node_of |= dict.fromkeys(cpus, number)
            first = CpuSet() if cpus or near == online else CpuSet(node_of[c] for c in near)
            nodes.append(Node(number, cpus, memory, first, self.memories[number]))
        if all(not node.memory_bytes for node in nodes):  # an export that left it out
            nodes = [node.replace(memory_bytes=None) for node in nodes]
        kinds, capacities = self.make_kinds(online)
        groups = renumber_groups({c: self.cpus[c] for c in sorted(self.cpus)})
        topology = Topology(
            cpus=tuple(
                Cpu(
                    c,
                    **groups[c],
                    node=node_of.get(c, None if nodes else 0),
                    kind=kinds.get(c),
                    capacity=capacities.get(c),
                )
                for c in sorted(self.cpus)
            ),
            nodes=tuple(nodes) or (Node(0, online),),
            distances=self.make_distances(),
            devices=tuple(self.make_devices(online)),
            possible=root_cpus | online,
            numa=bool(nodes),
        )
        numbers = topology.node_numbers
        allowed_nodes = self.bitmap("allowed_nodeset", numbers) & numbers
        return Machine(
            topology,
            Allowed(allowed, allowed_nodes),
            self.name,
            model=join_models(name_model(fields) for fields in self.models),
            caches=self.make_caches(online),
        )

    def make_caches(self, online: CpuSet) -> tuple[Cache, ...]:
        """Return the caches of cpus that are online, as a machine's own files give them."""
        caches = [c.replace(cpus=c.cpus & online) for c in self.caches]
        return tuple(sorted((c for c in caches if c.cpus), key=lambda c: (c.name, c.cpus.first)))

    def make_kinds(self, online: CpuSet) -> tuple[dict[int, int], dict[int, int]]:
        """Return the kind of each cpu, least capable first, and its capacity; ({}, {}) if all are
        of one kind.

        hwloc has a kind for each difference in frequency. They are put together as those of a
        machine's own files are; where nothing is said of them, they stay as they are listed.
        """
        said = {cpu: said for cpus, said in self.kinds for cpu in cpus & online}
        if len(self.kinds) < 2 or CpuSet(said) != online:
            return {}, {}

        def read_all(name: str) -> dict[int, int]:
            values = {cpu: parse_whole(said[cpu].get(name, "")) for cpu in said}
            return {c: v for c, v in values.items() if v} if all(values.values()) else {}

        capacity, peak, base = (
            read_all(name) or dict.fromkeys(said, 0)
            for name in ("LinuxCapacity", "FrequencyMaxMHz", "FrequencyBaseMHz")
        )
        types = {cpu: CORE_TYPES.get(said[cpu].get("CoreType", ""), 0) for cpu in said}
        if not any((*types.values(), *capacity.values(), *peak.values(), *base.values())):
            return {cpu: n for n, (cpus, _) in enumerate(self.kinds) for cpu in cpus & online}, {}
        peak = make_steps(peak, base)
        kinds = make_kinds(types, capacity, peak, base)
        capacities = make_capacities(kinds, (capacity, peak)) if kinds else {}
        return kinds, {cpu: capacities[kind] for cpu, kind in kinds.items() if capacities}

    def bitmap(self, name: str, default: CpuSet) -> CpuSet:
        text = self.machine.get(name)
        return default if text is None else parse_bitmap(text)

    def make_distances(self) -> tuple[tuple[int, ...], ...]:
        """Return the distances in the order of nodes; () unless they are there for all nodes."""
        order, values = (
            [n for w in self.distances.get(tag, "").split() if (n := parse_whole(w)) is not None]
            for tag in ("indexes", "u64values")
        )
        if sorted(order) != sorted(self.nodes) or len(values) != len(order) ** 2:
            return ()
        position = {node: n for n, node in enumerate(order)}
        columns = [position[node] for node in sorted(self.nodes)]
        return tuple(tuple(values[a * len(order) + b] for b in columns) for a in columns)

    def make_devices(self, online: CpuSet) -> list[Device]:
        """Return the devices. One is on a node if the cpus near it are exactly the node's."""
        devices = []
        for device in sorted(self.devices, key=lambda d: (d.pci, d.kind)):
            cpus = device.cpus & online
            nodes = [n for n, (near, _) in sorted(self.nodes.items()) if near & online == cpus]
            devices.append(device.replace(node=nodes[0] if nodes else None, cpus=cpus))
        return devices


def renumber_groups(levels: dict[int, dict[str, int]]) -> dict[int, dict[str, int]]:
    """Return group numbers in the order of each group's lowest cpu."""
    seen: dict[str, dict[int, int]] = {}
    result = {}
    for cpu, groups in levels.items():
        dense = {}
        for level, number in groups.items():
            numbers = seen.setdefault(level, {})
            dense[level] = numbers.setdefault(number, len(numbers))
        result[cpu] = dense
    return result


def parse_bitmap(text: str) -> CpuSet:
    """Parse hwloc's notation: words of 32 bits, `0x0000ffff,0xffffffff`, where an empty word is 0
    and `0xf...f` in front stands for all higher bits, which no machine has. Raises ParseError."""
    words = text.strip().split(",")
    if words[0] == "0xf...f":
        words = words[1:]
    if len(words) > LIMIT // 32:
        raise ParseError("a bitmap is longer than that of any machine", text=text[:60])
    plain = ",".join(word.removeprefix("0x") or "0" for word in words)
    return CpuSet.parse_mask(plain)


def parse_number(attributes: dict[str, str], key: str) -> int:
    text = attributes.get(key, "")
    number = parse_whole(text)
    if number is None or number >= LIMIT:
        raise ParseError(f"{key} {text[:60]!r} is out of range", text=text[:60])
    return number
