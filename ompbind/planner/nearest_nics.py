"""The network card of each rank: the nearest, and of those that are equally near each for as many
ranks as the others. Pure.

A library that chooses for itself takes the first of several in every rank (openucx/ucx#8401).
"""

from __future__ import annotations

from ompbind.cpuset import CpuSet
from ompbind.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ompbind.devices.nics import Card
    from ompbind.machine.topology import Device, Machine
    from ompbind.planner.mapping import Share
    from ompbind.planner.request import Request

SELF, OTHER = 10, 20  # distances of a node to itself, and to another where none is said
UNKNOWN = 1 << 10  # farther than any


class Nearness(Record):
    """How near a rank is to a card; of two the smaller one is nearer. `bridges`: how many PCI
    bridges, the root complex among them, are above both the card and the rank's GPU, negative;
    `apart`: whether none of the rank's cpus is among those that the card is near; `distance`: of
    the nodes."""

    bridges: int
    apart: bool
    distance: int

    @property
    def key(self) -> tuple[int, bool, int]:
        return self.bridges, self.apart, self.distance


def give_nics(machine: Machine, request: Request, shares: Sequence[Share]) -> list[Share]:
    """Return the shares, each with the nearest network card; ranks that were mapped by their card
    have it already."""
    cards = request.cards.cards if request.cards else ()
    if not cards or any(share.nics for share in shares):
        return list(shares)
    nearest = [find_nearest(machine, share, cards) for share in shares]
    choices = [numbers for numbers, _ in nearest]
    world, wishes = request.world, None
    if request.group or (world is not None and world.local_size > len(shares)):
        positions = [find_position(machine, share) for share in shares]
        wishes = [pick_by_position(c, p) for c, p in zip(choices, positions, strict=True)]
    chosen = distribute(choices, len(cards), wishes)
    noun = "accelerator" if request.per == "accel" else "GPU"
    result = []
    for share, number, (numbers, near) in zip(shares, chosen, nearest, strict=True):
        why = explain(near, cards[number], len(numbers), noun)
        result.append(share.replace(nics=(cards[number],), nics_why=why))
    return result


def find_nearest(
    machine: Machine, share: Share, cards: Sequence[Card]
) -> tuple[tuple[int, ...], Nearness]:
    """Return the numbers of the cards that are nearest to a rank, and how near they are."""
    found = [measure(machine, share, card.device) for card in cards]
    best = min(found, key=lambda near: near.key)
    return tuple(n for n, near in enumerate(found) if near == best), best


def measure(machine: Machine, share: Share, device: Device) -> Nearness:
    """Return how near a rank and a card are: by PCI to the rank's GPU, then by cpus and nodes."""
    gpu = share.gpus[0].device if len(share.gpus) == 1 else None
    shared = 0
    for above, other in zip(gpu.bridges if gpu else (), device.bridges, strict=False):
        if above != other:
            break
        shared += 1
    topology, cpus = machine.topology, share.cpus
    apart = not device.cpus & cpus if device.cpus != topology.online else False
    node = device.node
    near = topology.nodes_of(device.cpus)
    if node is None and len(near) == 1:
        node = near.first
    return Nearness(-shared, apart, find_distance(machine, topology.nodes_of(cpus), node))


def find_distance(machine: Machine, nodes: CpuSet, other: int | None) -> int:
    """Return the least distance from any of these nodes to another one."""
    numbers = [n.node for n in machine.topology.nodes]
    rows = machine.topology.distances
    if other not in numbers or not nodes:
        return UNKNOWN
    if not rows:
        return SELF if other in nodes else OTHER
    column = numbers.index(other)
    return min(rows[numbers.index(node)][column] for node in nodes)


def distribute(
    choices: Sequence[Sequence[int]], count: int, wishes: Sequence[int] | None = None
) -> list[int]:
    """Return one of its choices for each rank, so that each of `count` cards is chosen as evenly as
    possible; of several as empty ones its wish, else the first. Ranks with fewer choices choose
    first: the sets of nearest cards lie inside one another or apart, as the parts of a tree do, so
    that nobody can choose better later."""
    loads = [0] * count
    chosen = [0] * len(choices)
    for rank in sorted(range(len(choices)), key=lambda r: (len(choices[r]), r)):
        wish = -1 if wishes is None else wishes[rank]
        best = min(choices[rank], key=lambda card, wish=wish: (loads[card], card != wish, card))  # type: ignore[misc]
        chosen[rank] = best
        loads[best] += 1
    return chosen


def find_position(machine: Machine, share: Share) -> float:
    """Return where the rank's first core stands among those of its node, from 0 to less than 1."""
    topology, first = machine.topology, share.cpus.first
    home = topology.nodes_of(CpuSet([first]))
    within = next((n.cpus for n in topology.nodes if n.node in home), topology.online)
    cores = topology.groups("core", within) or [CpuSet([cpu]) for cpu in within]
    return next(n for n, core in enumerate(cores) if first in core) / len(cores)


def pick_by_position(choices: Sequence[int], position: float) -> int:
    """Return one of the choices for a rank whose neighbours are planned apart, such as one of an
    engine's ranks with cpus of its own, or of one of several groups: they stand elsewhere in the
    node, and choose others."""
    return choices[int(position * len(choices))]


def explain(near: Nearness, card: Card, count: int, noun: str) -> str:
    """Return why a rank has a card, in a few words. `count`: how many are as near; `noun`: what its
    other device is."""
    if near.bridges < -1:
        reason = f"below the same PCI bridge as its {noun}"
    elif near.bridges:
        reason = f"at the same PCI root as its {noun}"
    elif near.distance == UNKNOWN:
        reason = "the machine does not say which card is near"
    elif near.apart or near.distance > SELF:
        reason = f"near node {card.device.node}, the nearest to its cpus that has one"
    else:
        reason = "near its cpus"
    return f"{reason}, one of {count}" if count > 1 else reason
