"""Read PCI devices: which there are, what they are near, and what GPU drivers report about them.

Sources: the kernel's ABI/testing/sysfs-bus-pci, and linux/pci_ids.h for the classes; NVIDIA's
driver README (the /proc interface) and MIG user guide (/proc/driver/nvidia/capabilities); the
kernel's amdgpu documentation of the KFD topology; the xe driver's sysfs ABI.
"""

from __future__ import annotations

from ompbind.cpuset import CpuSet, parse_whole
from ompbind.errors import TopologyError
from ompbind.machine.roots import numbered, read_int, read_list, read_mask
from ompbind.machine.topology import Device

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ompbind.machine.roots import Root
    from ompbind.machine.topology import Node

PCI = "sys/bus/pci/devices"
DRIVERS = "sys/bus/pci/drivers"
NVIDIA = "proc/driver/nvidia"
KFD = "sys/class/kfd/kfd/topology/nodes"

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


# --- what GPU drivers report in files: names, order, parts, and what is hidden --------------------


def add_driver_facts(root: Root, devices: Sequence[Device]) -> tuple[Device, ...]:
    """The devices with what their drivers say of them."""
    if any(is_nvidia(d) or is_gpu(d, "") for d in devices):
        devices = add_nvidia(root, devices)
    if any(is_gpu(d, "1002") for d in devices):
        devices = add_amd(root, devices)
    return tuple(add_drm(root, d) if d.vendor in ("1002", "8086") else d for d in devices)


def is_gpu(device: Device, vendor: str) -> bool:
    return device.kind in ("gpu", "accelerator") and device.vendor == vendor


def is_nvidia(device: Device) -> bool:
    return is_gpu(device, "10de")


def add_nvidia(root: Root, devices: Sequence[Device]) -> tuple[Device, ...]:
    """Of each GPU its UUID, its device file's number and MIG instances; one that the driver has but
    does not list is hidden, as in a container that was given others only."""
    listed = root.names(f"{NVIDIA}/gpus")
    found = []
    for d in devices:
        if d.pci in listed and d.kind == "gpu":
            said = read_fields(root, f"{NVIDIA}/gpus/{d.pci}/information", ":")
            uuid = said.get("GPU UUID", "")
            minor = parse_whole(said.get("Device Minor", ""))
            d = d.replace(  # noqa: PLW2901
                vendor="10de",
                uuid="" if "?" in uuid else uuid,  # GPU-????????-…: not yet initialized
                minor=minor,
                parts=0 if minor is None else count_mig(root, minor),
            )
        elif is_nvidia(d) and listed and d.driver in ("nvidia", None):
            d = d.replace(hidden=True)  # noqa: PLW2901
        found.append(d)
    return tuple(found)


def count_mig(root: Root, minor: int) -> int:
    """The compute instances that a GPU is divided into; 0: it is whole."""
    place = f"{NVIDIA}/capabilities/gpu{minor}/mig"
    instances = [f"{place}/gi{n}" for n in numbered(root.names(place), "gi")]
    return sum(len(numbered(root.names(i), "ci")) for i in instances)


def add_amd(root: Root, devices: Sequence[Device]) -> tuple[Device, ...]:
    """The order of ROCm is that of the KFD's nodes; a node that may not be read is hidden."""
    nodes = numbered([f"n{name}" for name in root.names(KFD)], "n")
    gpus: dict[str, list[tuple[int, str]]] = {}
    position = 0
    for number in nodes:
        said = read_fields(root, f"{KFD}/{number}/properties", " ")
        if parse_whole(said.get("simd_count", "")):
            unique = parse_whole20(said.get("unique_id", ""))
            uuid = f"GPU-{unique:016x}" if unique else ""
            gpus.setdefault(make_address(said), []).append((position, uuid))
            position += 1
    found = []
    for d in devices:
        own = gpus.get(d.pci)
        if own:
            parts = len(own) if own[1:] else 0
            d = d.replace(position=own[0][0], uuid="" if parts else own[0][1], parts=parts)  # noqa: PLW2901
        elif nodes and is_gpu(d, "1002") and d.driver in ("amdgpu", None):
            d = d.replace(hidden=True)  # noqa: PLW2901
        found.append(d)
    return tuple(found)


def make_address(said: dict[str, str]) -> str:
    """`0000:3b:00.0` from a KFD node's domain and location: bus, device and function in 16 bits."""
    location = parse_whole(said.get("location_id", "")) or 0
    domain = parse_whole(said.get("domain", "")) or 0
    return f"{domain:04x}:{location >> 8 & 0xFF:02x}:{location >> 3 & 0x1F:02x}.{location & 7}"


def parse_whole20(text: str) -> int:
    """A number of up to 64 bits; 0 for anything else."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 20 else 0


def add_drm(root: Root, device: Device) -> Device:
    """The number of an AMD or Intel GPU's device file, and of the latter the tiles, each of which
    Level Zero shows as a device."""
    files = numbered(root.names(f"{PCI}/{device.pci}/drm"), "renderD")
    if files:
        device = device.replace(minor=files[0])
    tiles = numbered(root.names(f"{PCI}/{device.pci}"), "tile") if is_gpu(device, "8086") else []
    return device.replace(parts=len(tiles)) if tiles[1:] else device


def read_fields(root: Root, path: str, separator: str) -> dict[str, str]:
    """Lines of `name: value`, or of `name value`."""
    lines = (root.read(path) or "").splitlines()
    pairs = (line.partition(separator) for line in lines)
    return {name.strip(): value.strip() for name, _, value in pairs}
