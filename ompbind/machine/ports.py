"""Read the ports of network cards: what programs call them, and whether they have a link.

Sources: the kernel's ABI/stable/sysfs-class-infiniband (state, rate), ABI/testing/sysfs-class-net
(operstate, speed, and the `master` of an interface that is part of a bond or a bridge); for the
class `cxi` HPE's Slingshot driver, whose devices libfabric's fi_cxi(7) calls cxi0, cxi1, …
"""

from __future__ import annotations

from ompbind.machine.roots import parse_numbered, read_int
from ompbind.machine.topology import Port

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ompbind.machine.roots import Root

ACTIVE = "4"  # the state of a port, in `4: ACTIVE`
UP = {"up": True, "down": False, "lowerlayerdown": False, "notpresent": False, "dormant": False}


def read_ports(root: Root, directory: str) -> tuple[Port, ...]:
    """Return the ports of the card in a PCI device's directory: those for RDMA, then interfaces,
    also of a virtio device below it."""
    ports = [
        read_rdma_port(root, f"{directory}/infiniband/{card}/ports/{number}", f"{card}:{number}")
        for card in root.names(f"{directory}/infiniband")
        for number in parse_numbered(root.names(f"{directory}/infiniband/{card}/ports"), "") or [1]
    ]
    ports += [Port(name, "cxi") for name in root.names(f"{directory}/cxi")]
    inner = [directory]
    inner += [f"{directory}/virtio{n}" for n in parse_numbered(root.names(directory), "virtio")]
    interfaces = [f"{d}/net/{name}" for d in inner for name in root.names(f"{d}/net")]
    ports += [read_interface(root, interface) for interface in interfaces]
    return tuple(dict.fromkeys(ports))


def read_rdma_port(root: Root, directory: str, name: str) -> Port:
    state = (root.read(f"{directory}/state") or "").partition(":")[0].strip()
    speed = (root.read(f"{directory}/rate") or "").partition(" ")[0]  # `2.5 Gb/sec (1X SDR)`
    return Port(name, "rdma", state == ACTIVE if state else None, parse_gigabits(speed))


def read_interface(root: Root, directory: str) -> Port:
    """Return an interface, by the name of the bond or bridge that it is a part of, which has the
    addresses."""
    master = (root.resolve(f"{directory}/master") or "").rpartition("/")[2]
    up = UP.get((root.read(f"{directory}/operstate") or "").strip())
    speed = read_int(root, f"{directory}/speed")  # -1 or unreadable without a link
    return Port(master or directory.rpartition("/")[2], "net", up, max(speed or 0, 0))


def parse_gigabits(text: str) -> int:
    """Return Mbit/s for a number of Gbit/s such as `2.5`; 0 for anything else."""
    whole, _, part = text.strip().partition(".")
    digits = whole + f"{part:0<3}"[:3]
    return int(digits) if digits.isascii() and digits.isdigit() and len(digits) < 10 else 0
