"""The reader of PCI devices: which there are, what they are near, who drives them.

Sources: the kernel's ABI/testing/sysfs-bus-pci, and linux/pci_ids.h for the classes.
"""

from __future__ import annotations

from ompbind.cpuset import CpuSet
from ompbind.errors import TopologyError
from ompbind.machine.sysfiles import numbered, read_int, read_list, read_mask
from ompbind.machine.topology import Device

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from ompbind.machine.roots import Root
    from ompbind.machine.topology import Node

PCI = "sys/bus/pci/devices"
DRIVERS = "sys/bus/pci/drivers"

KINDS_OF_DEVICES = {"03": "gpu", "02": "nic", "12": "accelerator", "0b40": "coprocessor"}
CLASSES = ("drm", "net", "infiniband", "accel")
NAMED = ("net", "infiniband", "mic", "accel")  # the directories whose entries people know it by
GPU_DRIVERS = ("nvidia", "amdgpu", "i915", "xe")


def read_devices(root: Root, online: CpuSet, nodes: Iterable[Node]) -> tuple[Device, ...]:
    """The PCI devices that work is placed near, by address."""
    cpus_of = {node.node: node.cpus for node in nodes}
    found = find_pci_devices(root)
    said = any(root.resolve(f"{directory}/driver") is not None for directory in found.values())
    devices = []
    for pci, directory in sorted(found.items()):
        pci_class = hexadecimal(root, f"{directory}/class")
        kind = KINDS_OF_DEVICES.get(pci_class[:2]) or KINDS_OF_DEVICES.get(pci_class[:4])
        if kind and len(pci_class) == 6:
            node, place = find_node(root, directory)
            cpus = read_local_cpus(root, place)
            if cpus is None:
                cpus = cpus_of.get(node, online) if node is not None else online
            devices.append(
                Device(
                    kind, pci, node, cpus & online, hexadecimal(root, f"{directory}/vendor"),
                    model=hexadecimal(root, f"{directory}/device"),
                    names=read_names(root, directory),
                    driver=read_driver(root, directory) if said else None,
                    virtual=root.resolve(f"{directory}/physfn") is not None,
                )
            )  # fmt: skip
    return tuple(devices)


def has_driven_gpu(root: Root) -> bool:
    """Whether a driver of GPUs holds a device: told by a few directories, not by every device."""
    return any(
        is_pci_address(name) for driver in GPU_DRIVERS for name in root.names(f"{DRIVERS}/{driver}")
    )


def hexadecimal(root: Root, path: str) -> str:
    """The digits of `0x10de`; "" when it is absent."""
    return (root.read(path) or "").strip().removeprefix("0x")


def find_node(root: Root, directory: str) -> tuple[int | None, str]:
    """The device's node, and the directory that says so: its own, or that of a bridge above where
    it says -1 itself. Firmware often forgets the one and knows the other."""
    node = read_int(root, f"{directory}/numa_node")
    if node is not None and node < 0:
        above = (root.resolve(directory) or "").rpartition("/")[0]
        while is_pci_address(above.rpartition("/")[2]):
            bridge = read_int(root, f"{above}/numa_node")
            if bridge is not None and bridge >= 0:
                return bridge, above
            above = above.rpartition("/")[0]
    return (node if node is not None and node >= 0 else None), directory


def read_local_cpus(root: Root, directory: str) -> CpuSet | None:
    """The cpus near a device; None where it does not say, or says garbage (it only advises)."""
    try:
        cpus = read_mask(root, f"{directory}/local_cpus")
        return read_list(root, f"{directory}/local_cpulist") if cpus is None else cpus
    except TopologyError:
        return None


def read_names(root: Root, directory: str) -> tuple[str, ...]:
    """`eth0`, `mlx5_0`: its own entries, and those of a virtio device below it."""
    inner = [directory]
    inner += [f"{directory}/virtio{n}" for n in numbered(root.names(directory), "virtio")]
    return tuple(name for d in inner for what in NAMED for name in root.names(f"{d}/{what}"))


def read_driver(root: Root, directory: str) -> str:
    """The name of the driver that holds it; "" for none."""
    return (root.resolve(f"{directory}/driver") or "").rpartition("/")[2]


def find_pci_devices(root: Root) -> dict[str, str]:
    """Addresses and directories; through `sys/class` where the bus is hidden."""
    if names := root.names(PCI):
        return {name: f"{PCI}/{name}" for name in names}
    found: dict[str, str] = {}
    for name in CLASSES:
        for entry in root.names(f"sys/class/{name}"):
            directory = f"sys/class/{name}/{entry}/device"
            pci = (root.resolve(directory) or "").rpartition("/")[2]
            if is_pci_address(pci):
                found.setdefault(pci, directory)
    return found


def is_pci_address(text: str) -> bool:
    """Whether it is of the form `0000:3b:00.0`."""
    place, _, function = text.partition(".")
    domain, _, rest = place.partition(":")
    bus, _, slot = rest.partition(":")
    return (len(domain) >= 4, len(bus), len(slot), len(function)) == (True, 2, 2, 1) and all(
        c in "0123456789abcdef" for c in domain + bus + slot + function
    )
