"""A made-up machine, and QEMU's arguments for it."""

from __future__ import annotations

import re
import struct
from itertools import product
from typing import NamedTuple

LOCAL, SAME_PACKAGE, OTHER_PACKAGE, MEMORY_ONLY, UNUSED = 10, 12, 21, 28, 40  # distances


class Machine(NamedTuple):
    """packages × nodes × clusters × cores × threads, each count within one of the former, and nodes
    that have only memory after them.

    `numbering` of cpus: "adjacent", threads of a core follow each other; "spread", all cores' first
    threads before all second ones, as most servers have it; "interleaved", that, with the packages
    in turn. `memory`: MiB of each node, one for all, or 0 for none; `distances`: the whole table;
    `devices`: QEMU's name of a PCI device, and the node that it is on; `speeds`: MB/s of each
    node's memory for the cpus nearest to it, which the firmware then says (HMAT); `capacities`: of
    the clusters' cores, in turn. Clusters and capacities are for a device tree to describe.
    `numbers`: of the nodes, if they are not 0, 1, …
    """

    packages: int = 1
    nodes: int = 1
    cores: int = 1
    threads: int = 1
    memory_only: int = 0
    memory: tuple[int, ...] = (512,)
    distances: tuple[tuple[int, ...], ...] = ()
    offline: tuple[int, ...] = ()
    numbering: str = "adjacent"
    devices: tuple[tuple[str, int], ...] = ()
    speeds: tuple[int, ...] = ()
    clusters: int = 1
    capacities: tuple[int, ...] = ()
    numbers: tuple[int, ...] = ()

    @property
    def cpu_nodes(self) -> int:
        return self.packages * self.nodes

    @property
    def all_nodes(self) -> int:
        return self.cpu_nodes + self.memory_only

    @property
    def node_numbers(self) -> tuple[int, ...]:
        return self.numbers or tuple(range(self.all_nodes))

    @property
    def cpus_of_node(self) -> int:
        return self.clusters * self.cores * self.threads

    @property
    def cpus(self) -> int:
        return self.cpu_nodes * self.cpus_of_node

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return (self.packages, self.nodes, self.cores, self.threads)

    def node_sizes(self) -> tuple[int, ...]:
        sizes = self.memory * self.all_nodes if len(self.memory) == 1 else self.memory
        if len(sizes) != self.all_nodes or sizes[0] < 256 or not all(sizes[self.cpu_nodes :]):
            raise ValueError(f"memory {self.memory}: one for each node; node 0 holds the kernel")
        return sizes

    def initiator(self, node: int) -> int:
        """The node whose cpus are nearest to a node's memory."""
        return min(range(self.cpu_nodes), key=lambda n: self.distance(node, n))

    def distance(self, a: int, b: int) -> int:
        if self.distances:
            return self.distances[a][b]
        if a == b:
            return LOCAL
        if max(a, b) >= self.cpu_nodes:
            return MEMORY_ONLY
        return SAME_PACKAGE if a // self.nodes == b // self.nodes else OTHER_PACKAGE


def parse_machine(text: str) -> Machine:
    """2p2n4c2t1m: two packages of two nodes of four cores of two threads, one memory-only node."""
    found = re.fullmatch(r"(\d+)p(\d+)n(\d+)c(\d+)t(?:(\d+)m)?", text)
    if not found:
        raise ValueError(f"{text!r} is not a machine like 2p2n4c2t or 1p2n2c1t1m")
    packages, nodes, cores, threads, memory_only = map(int, found.groups("0"))
    return Machine(packages, nodes, cores, threads, memory_only)


def make_qemu_arguments(machine: Machine, *, dies: bool = True, numa: bool = True) -> list[str]:
    """Processors, memory and devices. A node of a package is a die to QEMU, where it has dies, or
    a socket of its own."""
    sizes = machine.node_sizes()
    sockets = f"sockets={machine.packages},dies={machine.nodes}"
    smp = sockets if dies else f"sockets={machine.cpu_nodes}"
    smp += f",cores={machine.clusters * machine.cores},threads={machine.threads}"
    arguments = ["-m", f"{sum(sizes)}M", "-smp", f"{machine.cpus},{smp}"]
    if not numa:
        return arguments
    arguments += ["-machine", "hmat=on"] if machine.speeds else []
    count, numbers = machine.cpus_of_node, machine.node_numbers
    for node, size in enumerate(sizes):
        described = f"node,nodeid={numbers[node]}"
        if machine.speeds:
            described += f",initiator={numbers[machine.initiator(node)]}"
        if node < machine.cpu_nodes:
            described += f",cpus={node * count}-{(node + 1) * count - 1}"
        if size:
            arguments += ["-object", f"memory-backend-ram,id=memory{node},size={size}M"]
            described += f",memdev=memory{node}"
        arguments += ["-numa", described]
    for number in set(range(max(numbers))) - set(numbers):  # QEMU wants all, if without anything
        arguments += ["-numa", f"node,nodeid={number}"]
    distances = {
        (numbers[a], numbers[b]): machine.distance(a, b)
        for a, b in product(range(machine.all_nodes), repeat=2)
    }
    for a, b in product(range(max(numbers) + 1), repeat=2):
        distance = distances.get((a, b), LOCAL if a == b else UNUSED)
        arguments += ["-numa", f"dist,src={a},dst={b},val={distance}"]
    return arguments + make_speed_arguments(machine) + make_device_arguments(machine)


def make_speed_arguments(machine: Machine) -> list[str]:
    """The firmware's table of memory: for other cpus than the nearest, half the bandwidth and twice
    the latency."""
    arguments = []
    for cpus, (node, speed) in product(range(machine.cpu_nodes), enumerate(machine.speeds)):
        factor = 1 if cpus == machine.initiator(node) else 2
        head = f"hmat-lb,initiator={cpus},target={node},hierarchy=memory,data-type=access-"
        if speed:  # else it has no memory
            arguments += ["-numa", f"{head}latency,latency={100 * factor}"]
            arguments += ["-numa", f"{head}bandwidth,bandwidth={speed // factor}M"]
    return arguments


def make_device_arguments(machine: Machine) -> list[str]:
    """Each device behind a host bridge of its own, which is what a node's number belongs to."""
    arguments = []
    for n, (model, node) in enumerate(machine.devices):
        for device in (
            f"pxb-pcie,id=host{n},bus_nr={64 + 32 * n},numa_node={node},bus=pcie.0",
            f"pcie-root-port,id=port{n},bus=host{n},chassis={n + 1}",
            f"pcie-pci-bridge,id=bridge{n},bus=port{n}",
            f"{model},bus=bridge{n},addr=1",
        ):
            arguments += ["-device", device]
    return arguments


def make_processor_table(machine: Machine) -> bytes:
    """An ACPI table of processors (MADT) in the order of the machine's numbering; b"" for QEMU's
    own. Linux numbers cpus as they stand there, and takes a table of a later revision from the
    initramfs in place of the firmware's.
    """
    if machine.numbering == "adjacent":
        return b""
    outermost_first = {"spread": (3, 0, 1, 2), "interleaved": (3, 2, 1, 0)}[machine.numbering]
    order = sorted(
        product(*map(range, machine.shape)),
        key=lambda place: [place[level] for level in outermost_first],
    )
    uids = {place: uid for uid, place in enumerate(product(*map(range, machine.shape)))}
    local_apic, usual = 0xFEE00000, 1
    body = struct.pack("<II", local_apic, usual)
    for place in order:  # type 0: a processor
        body += struct.pack("<BBBBI", 0, 8, uids[place], apic_number(machine, place), usual)
    body += struct.pack("<BBBBII", 1, 12, 0, 0, 0xFEC00000, 0)  # type 1: the I/O APIC
    level_high = 0xD
    for interrupt, wired_to, flags in (
        (0, 2, 0),
        *((n, n, level_high) for n in (5, 9, 10, 11)),  # as QEMU's own table has them
    ):
        body += struct.pack("<BBBBIH", 2, 10, 0, interrupt, wired_to, flags)
    body += struct.pack("<BBBHB", 4, 6, 0xFF, 0, 1)  # type 4: NMI of every processor
    size = struct.calcsize("<4sIBB6s8sI4sI") + len(body)

    def table(checksum: int) -> bytes:
        head = (b"APIC", size, 1, checksum, b"BOCHS ", b"BXPC    ", 2, b"BXPC", 1)
        return struct.pack("<4sIBB6s8sI4sI", *head) + body

    return table(-sum(table(0)) % 256)


def apic_number(machine: Machine, place: tuple[int, ...]) -> int:
    """The hardware's number of a processor: a field of whole bits for each level."""
    number = 0
    for part, count in zip(place, machine.shape, strict=True):
        number = number << (count - 1).bit_length() | part
    return number
