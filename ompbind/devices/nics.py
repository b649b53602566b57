"""Which network cards ranks may use, and the variables that name a rank's card. Pure.

Sources: UCX's FAQ and `ucx_info -c` (UCX_NET_DEVICES: `mlx5_0:1`, `eth0`); NVIDIA's NCCL user
guide, Environment Variables (NCCL_IB_HCA: names are prefixes; after a leading = exact, with their
port); libfabric's fi_verbs(7) (FI_VERBS_DEVICE_NAME and FI_VERBS_IFACE, "the prefix or the full
name"), fi_tcp(7) (FI_TCP_IFACE), fi_efa(7) (FI_EFA_IFACE), fi_cxi(7) (FI_CXI_DEVICE_NAME) and
fi_psm3(7) (PSM3_NIC). Variables that take the number of a unit, as HFI_UNIT of PSM2 and
FI_OPX_HFI_SELECT, are not set: only the driver knows how it counts (PRRTE leaves them alone, too).
NCCL_SOCKET_IFNAME and GLOO_SOCKET_IFNAME are not set either: ranks find each other by them, and
cards of one host may be in networks that do not reach one another.
"""

from __future__ import annotations

from ompbind.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ompbind.machine.topology import Device, Port

VARIABLES = ("UCX_NET_DEVICES", "NCCL_IB_HCA", "FI_VERBS_DEVICE_NAME", "FI_VERBS_IFACE",
             "FI_TCP_IFACE", "FI_EFA_IFACE", "FI_CXI_DEVICE_NAME", "PSM3_NIC")  # fmt: skip
FABRICS = ("rdma", "cxi")  # kinds of ports that go before plain Ethernet
INTEL = "8086"


class Card(Record):
    """A port of a network card that a rank may use."""

    name: str  # as in its variables
    device: Device
    variables: tuple[tuple[str, str], ...] = ()  # those that tell a program to use it


class Cards(Record):
    """The network cards that ranks may use, by PCI address and port."""

    cards: tuple[Card, ...] = ()
    problem: str = ""  # why there are none
    left_out: tuple[str, ...] = ()  # those that were passed over, each with the reason

    @property
    def variables(self) -> tuple[str, ...]:
        """The names of all variables that any of the cards is named by."""
        return tuple(dict.fromkeys(name for card in self.cards for name, _ in card.variables))


def find_cards(devices: Iterable[Device]) -> Cards:
    """Return the cards that ranks may use: those with a link, of these those for RDMA before plain
    Ethernet, and of these the fastest. SR-IOV functions count where there is nothing else, as in a
    container that was given one."""
    nics = [d for d in devices if d.kind == "nic"]
    usable, reasons = list_ports(d for d in nics if not d.virtual)
    if not usable:
        usable, more = list_ports(d for d in nics if d.virtual)
        reasons += more
    if not usable:
        return Cards(problem=explain_none(reasons))
    fastest = max(port.rate for _, port in usable)
    slow = [port for _, port in usable if 0 < port.rate < fastest]
    left_out = [f"{p.name} ({p.rate:,} Mbit/s; others have {fastest:,})" for p in slow]
    named: dict[str, tuple[Device, Port]] = {}
    for device, port in usable:
        if port not in slow:
            named.setdefault(port.name, (device, port))  # a bond has several cards
    names = [name.partition(":")[0] for name in named]
    cards = (Card(name, d, make_variables(d, p, names)) for name, (d, p) in named.items())
    return Cards(tuple(cards), left_out=tuple(dict.fromkeys(left_out)))


def list_ports(nics: Iterable[Device]) -> tuple[list[tuple[Device, Port]], list[str]]:
    """Return the ports of these cards that may be used, only those for RDMA where there are any,
    and why cards have none."""
    usable: list[tuple[Device, Port]] = []
    reasons = []
    for device in nics:
        ports, problem = split_ports(device)
        usable += [(device, port) for port in ports]
        reasons += [f"{device.pci} {problem}"] if problem else []
    return [pair for pair in usable if pair[1].kind in FABRICS] or usable, reasons


def split_ports(device: Device) -> tuple[list[Port], str]:
    """Return the ports of a card that may be used, and why there are none."""
    if device.driver == "":
        return [], "has no driver"
    linked = [port for port in device.ports if port.up is not False]
    if linked:
        return linked, ""
    return [], "has no link" if device.ports else "has no interface here"


def explain_none(reasons: Sequence[str]) -> str:
    from ompbind.devices.visible import shorten  # saved plans need the variables alone

    shown = f": {shorten(reasons)}" if reasons else ""
    return f"no network card to use was found{shown}"


def make_variables(device: Device, port: Port, names: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Return the variables that name a port. `names`: those of all ports, without their numbers.

    A variable that takes a prefix is left out where other names begin so: mlx5_1 beside mlx5_10.
    """
    name = port.name.partition(":")[0]
    if port.kind == "cxi":
        return (("FI_CXI_DEVICE_NAME", name),)
    if port.kind == "net":
        return (("UCX_NET_DEVICES", name), ("FI_TCP_IFACE", name))
    variables = [("UCX_NET_DEVICES", port.name)]
    if device.driver == "efa":  # NCCL reaches it through libfabric
        return (*variables, ("FI_EFA_IFACE", name))
    variables.append(("NCCL_IB_HCA", f"={port.name}"))
    if sum(other.startswith(name) for other in dict.fromkeys(names)) == 1:
        variables.append(("FI_VERBS_DEVICE_NAME", name))
        interfaces = [p.name for p in device.ports if p.kind == "net"]
        if len(interfaces) == 1:
            variables.append(("FI_VERBS_IFACE", interfaces[0]))
    if device.vendor == INTEL and device.driver != "hfi1":
        variables.append(("PSM3_NIC", name))
    return tuple(variables)
