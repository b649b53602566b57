"""The device tree that a firmware hands to a kernel: read from QEMU's, changed so that processors
have the clusters, caches and speeds of a made-up machine, and written again.

The format is in the Devicetree Specification, chapter 5; the nodes that Linux reads are in its
Documentation/devicetree/bindings/cpu/cpu-topology.txt and cpu-capacity.txt.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from itertools import count, cycle

from tests.guest.machine import Machine

MAGIC = 0xD00DFEED
BEGIN, END, PROPERTY, NOTHING, LAST = 1, 2, 3, 4, 9  # tokens
FIRST_PHANDLE = 0x10000  # above QEMU's
CACHE_SIZES = {2: 1 << 20, 3: 8 << 20}  # bytes, by level
LINE, WAYS = 64, 16


@dataclass
class Node:
    name: str
    properties: dict[str, bytes] = field(default_factory=dict)
    children: list[Node] = field(default_factory=list)

    def child(self, name: str) -> Node:
        return next(child for child in self.children if child.name == name)


def parse_tree(blob: bytes) -> tuple[Node, bytes]:
    """The root of a flattened tree, and its table of reserved memory."""
    magic, _, structure, strings, reserved, *_ = struct.unpack_from(">7I", blob)
    if magic != MAGIC:
        raise ValueError("this is no flattened device tree")
    open_nodes = [Node("")]
    at = structure
    while True:
        (token,) = struct.unpack_from(">I", blob, at)
        at += 4
        if token == BEGIN:
            end = blob.index(b"\0", at)
            node = Node(blob[at:end].decode())
            open_nodes[-1].children.append(node)
            open_nodes.append(node)
            at = align(end + 1)
        elif token == PROPERTY:
            size, name = struct.unpack_from(">II", blob, at)
            start = strings + name
            key = blob[start : blob.index(b"\0", start)].decode()
            open_nodes[-1].properties[key] = blob[at + 8 : at + 8 + size]
            at = align(at + 8 + size)
        elif token == END:
            open_nodes.pop()
        elif token == LAST:
            return open_nodes[0].children[0], blob[reserved:structure]
        elif token != NOTHING:
            raise ValueError(f"unknown token {token} in a device tree")


def make_blob(root: Node, reserved: bytes) -> bytes:
    """The flattened tree, version 17."""
    names: dict[str, int] = {}
    strings = bytearray()
    structure = bytearray()

    def write(node: Node) -> None:
        name = node.name.encode() + b"\0"
        structure.extend(struct.pack(">I", BEGIN) + pad(name))
        for key, value in node.properties.items():
            if key not in names:
                names[key] = len(strings)
                strings.extend(key.encode() + b"\0")
            structure.extend(struct.pack(">III", PROPERTY, len(value), names[key]) + pad(value))
        for child in node.children:
            write(child)
        structure.extend(struct.pack(">I", END))

    write(root)
    structure.extend(struct.pack(">I", LAST))
    header = 40
    first = header + len(reserved)
    second = first + len(structure)
    total = second + len(strings)
    head = struct.pack(
        ">10I", MAGIC, total, first, second, header, 17, 16, 0, len(strings), len(structure)
    )
    return head + reserved + bytes(structure) + bytes(strings)


def align(position: int) -> int:
    return -(-position // 4) * 4


def pad(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


def cell(number: int) -> bytes:
    return struct.pack(">I", number)


def describe_cpus(root: Node, machine: Machine) -> None:
    """Group the cpus of QEMU's tree as the machine's are: packages, clusters, cores and threads; an
    L2 cache to each cluster, an L3 to each package; and the capacity of each cluster's cores."""
    cpus = root.child("cpus")
    cores = sorted(
        (node for node in cpus.children if node.name.startswith("cpu@")),
        key=lambda node: node.properties["reg"],
    )
    waiting = iter(cores)
    phandles = count(FIRST_PHANDLE)
    capacities = cycle(machine.capacities or (0,))
    tree, caches = Node("cpu-map"), []
    for package in range(machine.packages):
        last = make_cache(f"l3-cache{package}", 3, next(phandles))
        caches.append(last)
        socket = Node(f"socket{package}")
        tree.children.append(socket)
        for place in range(machine.nodes * machine.clusters):
            cluster = Node(f"cluster{place}")
            socket.children.append(cluster)
            nearest = make_cache(f"l2-cache{len(caches)}", 2, next(phandles))
            nearest.properties["next-level-cache"] = last.properties["phandle"]
            caches.append(nearest)
            capacity = next(capacities)
            for core in range(machine.cores):
                group = Node(f"core{core}")
                cluster.children.append(group)
                for thread in range(machine.threads):
                    cpu = next(waiting)
                    cpu.properties["next-level-cache"] = nearest.properties["phandle"]
                    if capacity:
                        cpu.properties["capacity-dmips-mhz"] = cell(capacity)
                    link = {"cpu": cpu.properties["phandle"]}
                    if machine.threads > 1:
                        group.children.append(Node(f"thread{thread}", link))
                    else:
                        group.properties |= link
    cpus.children = [node for node in cpus.children if node.name != "cpu-map"]
    cpus.children += [*caches, tree]


def make_cache(name: str, level: int, phandle: int) -> Node:
    size = CACHE_SIZES[level]
    properties = {
        "compatible": b"cache\0",
        "cache-level": cell(level),
        "cache-unified": b"",
        "cache-size": cell(size),
        "cache-line-size": cell(LINE),
        "cache-sets": cell(size // LINE // WAYS),
        "phandle": cell(phandle),
    }
    return Node(name, properties)
