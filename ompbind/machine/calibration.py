"""A machine as it was measured: kinds of core, capacities and distances by figures, not by what the
firmware says. Takes no time: `ompbind.measuring` measures.
"""

from __future__ import annotations

import hashlib

from ompbind.cpuset import CpuSet
from ompbind.errors import TopologyError
from ompbind.machine import linux_root, read_machine
from ompbind.machine.details import CPUINFO, parse_model
from ompbind.machine.measurement import HINT, find_fastest, group_figures
from ompbind.messages import quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ompbind.machine.measurement import CoreSpeed, Measurement
    from ompbind.machine.topology import Machine, Topology

NEAR = 10  # the distance of a node to itself, in ACPI's tables
FULL = 1024  # the capacity of the fastest cores


def make_shape(topology: Topology) -> str:
    """Return the fingerprint of a machine's cpus, caches and nodes. Machines that are built alike
    have the same one; only what every reading of a machine has is in it."""
    cpus = [(c.cpu, c.core, c.package, c.l3, c.node) for c in topology.cpus]
    nodes = [(n.node, str(n.cpus), n.memory_bytes == 0) for n in topology.nodes]
    return hashlib.sha256(repr((cpus, nodes)).encode()).hexdigest()[:16]


def use_measurement(machine: Machine, file: str | None, path: str | None) -> Machine:
    """Return the machine, the running one or that which `path` describes, with the kinds and
    distances that were measured: as the file says, or the one that describes the machine. Raises
    TopologyError for another machine's figures."""
    measurement, source = machine.measured, path or ""
    if file is not None:
        source = f"--measured {file}"
        measurement = read_machine(file, (), devices=False).measured
    if measurement is None:
        raise TopologyError(f"{source}: nothing was measured when this was saved", hint=HINT)
    if not machine.model and (root := linux_root(path)) is not None:
        machine = machine.replace(model=parse_model(root.read(CPUINFO) or ""))
    check_machine(measurement, machine, source)
    return apply_measurement(machine, measurement)


def check_machine(measurement: Measurement, machine: Machine, source: str) -> None:
    """Refuse figures of another machine. Raises TopologyError."""
    model = machine.model or measurement.model
    if measurement.model and model != measurement.model:
        raise TopologyError(
            f"{source}: measured on another machine: {quote(measurement.model)}, and this is "
            f"{quote(model)}",
            hint=HINT,
        )
    if make_shape(machine.topology) != measurement.shape:
        text = "measured on another machine, or on this one when it had other cpus or nodes"
        raise TopologyError(f"{source}: {text}", hint=HINT)


def apply_measurement(machine: Machine, measurement: Measurement) -> Machine:
    """Return the machine with the kinds, capacities, distances and initiators that were measured,
    as far as the figures tell them apart; what they do not tell stays as the machine says it."""
    topology = machine.topology
    kinds = find_fastest(measurement)
    if kinds[1:]:
        speeds = [max(speed_of(core, kinds) for core in measurement.cores if core.cpus <= cpus)
                  for cpus in kinds]  # fmt: skip
        kind_of = {cpu: n for n, cpus in enumerate(reversed(kinds)) for cpu in cpus}
        capacity = {cpu: max(1, round(FULL * speed / speeds[0]))
                    for cpus, speed in zip(kinds, speeds, strict=True) for cpu in cpus}  # fmt: skip
        slowest = min(capacity.values())  # also of cpus that were not allowed then
        topology = topology.replace(
            cpus=tuple(
                c.replace(kind=kind_of.get(c.cpu, 0), capacity=capacity.get(c.cpu, slowest))
                for c in topology.cpus
            )
        )
    ranks = {number: rank_nodes(measurement, number) for number in topology.node_numbers}
    nodes = tuple(
        n.replace(initiators=CpuSet(ranks[n.node][0])) if ranks[n.node][1:] and not n.cpus else n
        for n in topology.nodes
    )
    topology = topology.replace(nodes=nodes, distances=make_distances(topology, measurement))
    return machine.replace(topology=topology, measured=measurement)


def speed_of(core: CoreSpeed, kinds: Sequence[CpuSet]) -> float:
    """Return a core's speed: with all others busy, where that tells kinds apart."""
    return core.together.value if core.together is not None and kinds[1:] else core.alone.value


def rank_nodes(measurement: Measurement, memory: int) -> list[list[int]]:
    """Return the nodes whose cores were measured with a node's memory, nearest first, those that
    the figures do not tell apart together."""
    figures = {a.node: a.latency for a in measurement.accesses if a.memory == memory}
    # The greatest come first among figures, so the far ones do here.
    known = {node: figure for node, figure in figures.items() if figure is not None}
    return group_figures(known)[::-1] if known else [[]]


def make_distances(topology: Topology, measurement: Measurement) -> tuple[tuple[int, ...], ...]:
    """Return the distances between nodes by measured latency, 10 for the nearest; as the machine
    says them where a pair was not measured either way, or nothing was told apart."""
    latency = {(a.node, a.memory): a.latency for a in measurement.accesses}
    numbers = [n.node for n in topology.nodes]
    steps: dict[tuple[int, int], int] = {}
    for number in numbers:
        row = {m: f for m in numbers if (f := latency.get((number, m))) is not None}
        groups = group_figures(row)[::-1] if row else []
        least = row[groups[0][-1]].value if groups else 0
        for group in groups:
            value = min(row[m].value for m in group)
            steps |= {(number, m): round(NEAR * value / least) for m in group}
    for a in numbers:
        for b in numbers:
            steps.setdefault((a, b), steps.get((b, a), NEAR if a == b else 0))
    if any(not steps[a, b] for a in numbers for b in numbers) or len(set(steps.values())) < 2:
        return topology.distances
    return tuple(tuple(steps[a, b] for b in numbers) for a in numbers)
