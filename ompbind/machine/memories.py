"""Read what only some plans ask of memory nodes: the kernel's weights of weighted interleaving.

Source: the kernel's ABI/testing/sysfs-kernel-mm-mempolicy-weighted-interleave.
"""

from __future__ import annotations

from ompbind.machine.roots import read_int

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ompbind.machine.roots import Root
    from ompbind.machine.topology import Machine

WEIGHTS = "sys/kernel/mm/mempolicy/weighted_interleave"


def add_memory_facts(root: Root, machine: Machine) -> Machine:
    """Return the machine with its nodes' weights, as far as its files have them."""
    nodes = tuple(n.replace(weight=read_weight(root, n.node)) for n in machine.topology.nodes)
    return machine.replace(topology=machine.topology.replace(nodes=nodes))


def read_weight(root: Root, node: int) -> int | None:
    """Return how many pages in turn a node gets; None where the kernel does not say."""
    weight = read_int(root, f"{WEIGHTS}/node{node}")
    return weight if weight is not None and 0 < weight < 256 else None
