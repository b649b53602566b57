"""Read PCI devices: which there are, what they are near, and what GPU drivers report about them.

Sources: the kernel's ABI/testing/sysfs-bus-pci, and linux/pci_ids.h for the classes; NVIDIA's
driver README (the /proc interface) and MIG user guide (/proc/driver/nvidia/capabilities); the
kernel's amdgpu documentation of the KFD topology; the xe driver's sysfs ABI.
"""

from __future__ import annotations

from ompbind.cpuset import CpuSet, parse_whole
from ompbind.errors import TopologyError
from ompbind.machine.ports import read_ports
from ompbind.machine.roots import parse_numbered, read_int, read_list, read_mask
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

KINDS_OF_DEVICES = {
    "03": "gpu",
    "02": "nic",
    "0c06": "nic",  # InfiniBand as a serial bus: old cards of QLogic and Mellanox
    "12": "accelerator",
    "0b40": "coprocessor",
}
AMAZON = "1d0f"
# AWS's Inferentia and Trainium, accelerators of another class, by model: how many NeuronCores a
# device has, and how many of them make a logical one by default.
NEURON_CORES = {
    "7064": (4, 1), "7164": (2, 1), "7264": (2, 1), "7364": (8, 2), "7564": (8, 2),
}  # fmt: skip
CLASSES = ("drm", "net", "infiniband", "accel")
NAMED = ("net", "infiniband", "cxi", "mic", "accel")  # directories with the names that people use
POSITIONS = {"19e5": "dev_id", "1da3": "module_id"}  # the files of Ascend's and Gaudi's drivers
NEURON = "sys/devices/virtual/neuron_device/neuron0/core_count"
GPU_DRIVERS = ("nvidia", "amdgpu", "i915", "xe")


def read_devices(root: Root, online: CpuSet, nodes: Iterable[Node]) -> tuple[Device, ...]:
    """Return the PCI devices that ranks may be placed near, by address."""
    cpus_of = {node.node: node.cpus for node in nodes}
    directories = find_pci_devices(root)
    has_drivers = any(root.resolve(f"{d}/driver") is not None for d in directories.values())
    devices = []
    for pci, directory in sorted(directories.items()):
        pci_class = read_digits(root, f"{directory}/class")
        vendor = read_digits(root, f"{directory}/vendor")
        model = read_digits(root, f"{directory}/device") if vendor == AMAZON else ""
        kind = find_kind(pci_class, vendor, model)
        if kind and len(pci_class) == 6:
            node, bridge = locate_device(root, directory)
            cpus = read_local_cpus(root, bridge)
            if cpus is None:
                cpus = cpus_of.get(node, online) if node is not None else online
            devices.append(
                Device(
                    kind, pci, node, cpus & online, vendor,
                    model=model or read_digits(root, f"{directory}/device"),
                    names=read_names(root, directory),
                    driver=read_driver(root, directory) if has_drivers else None,
                    virtual=root.resolve(f"{directory}/physfn") is not None,
                    bridges=find_bridges(root, directory),
                    ports=read_ports(root, directory) if kind == "nic" else (),
                )
            )  # fmt: skip
    return tuple(devices)


def find_kind(pci_class: str, vendor: str, model: str) -> str:
    """Return the kind of a device by its PCI class, four or six digits, and the models of AWS; ""
    for devices that matter to no rank."""
    if vendor == AMAZON and model in NEURON_CORES:
        return "accelerator"
    return KINDS_OF_DEVICES.get(pci_class[:2]) or KINDS_OF_DEVICES.get(pci_class[:4], "")


def has_driven_gpu(root: Root) -> bool:
    """Whether a GPU driver has a device, by a few directories instead of all devices."""
    return any(
        is_pci_address(name) for driver in GPU_DRIVERS for name in root.names(f"{DRIVERS}/{driver}")
    )


def read_digits(root: Root, path: str) -> str:
    """Return the digits of `0x10de`; "" if it is absent."""
    return (root.read(path) or "").strip().removeprefix("0x")


def locate_device(root: Root, directory: str) -> tuple[int | None, str]:
    """Return the device's node, and the directory that says so: the device's, or that of a bridge
    above it if the device has -1. Firmware often sets only one of them."""
    node = read_int(root, f"{directory}/numa_node")
    if node is not None and node < 0:
        above = (root.resolve(directory) or "").rpartition("/")[0]
        while is_pci_address(above.rpartition("/")[2]):
            bridge = read_int(root, f"{above}/numa_node")
            if bridge is not None and bridge >= 0:
                return bridge, above
            above = above.rpartition("/")[0]
    return (node if node is not None and node >= 0 else None), directory


def find_bridges(root: Root, directory: str) -> tuple[str, ...]:
    """Return the root complex and the bridges above a device, outermost first; () if unknown."""
    words = (root.resolve(directory) or "").split("/")[:-1]
    return tuple(w for w in words if is_pci_address(w) or is_root_complex(w))


def is_root_complex(name: str) -> bool:
    """Whether it is of the form `pci0000:17`."""
    domain, _, bus = name.removeprefix("pci").partition(":")
    return name.startswith("pci") and len(domain) >= 4 and len(bus) == 2


def read_local_cpus(root: Root, directory: str) -> CpuSet | None:
    """Return the cpus near a device; None if that is unknown or garbage (it only advises)."""
    try:
        cpus = read_mask(root, f"{directory}/local_cpus")
        return read_list(root, f"{directory}/local_cpulist") if cpus is None else cpus
    except TopologyError:
        return None


def read_names(root: Root, directory: str) -> tuple[str, ...]:
    """Return names such as `eth0` and `mlx5_0`, also those of a virtio device below it."""
    inner = [directory]
    inner += [f"{directory}/virtio{n}" for n in parse_numbered(root.names(directory), "virtio")]
    return tuple(name for d in inner for kind in NAMED for name in root.names(f"{d}/{kind}"))


def read_driver(root: Root, directory: str) -> str:
    """Return the name of its driver; "" without one."""
    return (root.resolve(f"{directory}/driver") or "").rpartition("/")[2]


def find_pci_devices(root: Root) -> dict[str, str]:
    """Return directories by address, through `sys/class` where the bus is hidden."""
    if names := root.names(PCI):
        return {name: f"{PCI}/{name}" for name in names}
    directories: dict[str, str] = {}
    for name in CLASSES:
        for entry in root.names(f"sys/class/{name}"):
            directory = f"sys/class/{name}/{entry}/device"
            pci = (root.resolve(directory) or "").rpartition("/")[2]
            if is_pci_address(pci):
                directories.setdefault(pci, directory)
    return directories


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
    """Return the devices with what their drivers report about them."""
    if any(is_nvidia(d) or is_gpu(d, "") for d in devices):
        devices = add_nvidia(root, devices)
    if any(is_gpu(d, "1002") for d in devices):
        devices = add_amd(root, devices)
    if any(d.kind == "accelerator" for d in devices):
        devices = [add_accelerator(root, d) for d in devices]
    return tuple(add_drm(root, d) if d.vendor in ("1002", "8086") else d for d in devices)


def is_gpu(device: Device, vendor: str) -> bool:
    return device.kind in ("gpu", "accelerator") and device.vendor == vendor


def is_nvidia(device: Device) -> bool:
    return is_gpu(device, "10de")


def add_nvidia(root: Root, devices: Sequence[Device]) -> tuple[Device, ...]:
    """Add each GPU's UUID, device file number, MIG instances and memory. A GPU that the driver has
    but does not list is hidden, as in a container that was given others."""
    listed = root.names(f"{NVIDIA}/gpus")
    result = []
    for d in devices:
        if d.pci in listed and d.kind == "gpu":
            fields = read_fields(root, f"{NVIDIA}/gpus/{d.pci}/information", ":")
            uuid = fields.get("GPU UUID", "")
            minor = parse_whole(fields.get("Device Minor", ""))
            d = d.replace(  # noqa: PLW2901
                vendor="10de",
                uuid="" if "?" in uuid else uuid,  # GPU-????????-…: not yet initialized
                minor=minor,
                parts=0 if minor is None else count_mig(root, minor),
                memory_node=read_memory_node(root, d.pci),
            )
        elif is_nvidia(d) and listed and d.driver in ("nvidia", None):
            d = d.replace(hidden=True)  # noqa: PLW2901
        result.append(d)
    return tuple(result)


def read_memory_node(root: Root, pci: str) -> int | None:
    """Return the NUMA node that is a GPU's memory (POWER9's NVLink, Grace); None: there is none."""
    fields = read_fields(root, f"{NVIDIA}/gpus/{pci}/numa_status", ":")
    return parse_whole(fields.get("Node", "")) if fields.get("Status") == "online" else None


def count_mig(root: Root, minor: int) -> int:
    """Return the number of compute instances that a GPU is divided into; 0 if it is not."""
    mig = f"{NVIDIA}/capabilities/gpu{minor}/mig"
    instances = [f"{mig}/gi{n}" for n in parse_numbered(root.names(mig), "gi")]
    return sum(len(parse_numbered(root.names(i), "ci")) for i in instances)


def add_amd(root: Root, devices: Sequence[Device]) -> tuple[Device, ...]:
    """Add the positions in ROCm's order, which is that of KFD nodes. A GPU without a readable node
    is hidden."""
    nodes = parse_numbered([f"n{name}" for name in root.names(KFD)], "n")
    gpus: dict[str, list[tuple[int, str]]] = {}
    position = 0
    for number in nodes:
        fields = read_fields(root, f"{KFD}/{number}/properties", " ")
        if parse_whole(fields.get("simd_count", "")):
            unique = parse_unique_id(fields.get("unique_id", ""))
            uuid = f"GPU-{unique:016x}" if unique else ""
            gpus.setdefault(make_address(fields), []).append((position, uuid))
            position += 1
    result = []
    for d in devices:
        units = gpus.get(d.pci)
        if units:
            parts = len(units) if units[1:] else 0
            d = d.replace(position=units[0][0], uuid="" if parts else units[0][1], parts=parts)  # noqa: PLW2901
        elif nodes and is_gpu(d, "1002") and d.driver in ("amdgpu", None):
            d = d.replace(hidden=True)  # noqa: PLW2901
        result.append(d)
    return tuple(result)


def make_address(fields: dict[str, str]) -> str:
    """Return `0000:3b:00.0` for a KFD node's domain and location, which has bus, device and
    function in 16 bits."""
    location = parse_whole(fields.get("location_id", "")) or 0
    domain = parse_whole(fields.get("domain", "")) or 0
    return f"{domain:04x}:{location >> 8 & 0xFF:02x}:{location >> 3 & 0x1F:02x}.{location & 7}"


def parse_unique_id(text: str) -> int:
    """Return a number of up to 64 bits; 0 for anything else."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 20 else 0


def add_drm(root: Root, device: Device) -> Device:
    """Add the device file number of an AMD or Intel GPU, and the latter's number of tiles, each of
    which is a device for Level Zero."""
    files = parse_numbered(root.names(f"{PCI}/{device.pci}/drm"), "renderD")
    if files:
        device = device.replace(minor=files[0])
    tiles = (
        parse_numbered(root.names(f"{PCI}/{device.pci}"), "tile") if is_gpu(device, "8086") else []
    )
    return device.replace(parts=len(tiles)) if tiles[1:] else device


def add_accelerator(root: Root, device: Device) -> Device:
    """Add the number of an Ascend device or the module of a Gaudi, and the number of cores of a
    Neuron device, of which all of a machine have as many."""
    if device.vendor in POSITIONS:
        paths = [f"{PCI}/{device.pci}/{POSITIONS[device.vendor]}"]
        paths += [f"{PCI}/{device.pci}/habanalabs/{name}/{POSITIONS[device.vendor]}"
                  for name in root.names(f"{PCI}/{device.pci}/habanalabs")]  # fmt: skip
        numbers = [n for n in (read_int(root, path) for path in paths) if n is not None and n >= 0]
        return device.replace(position=numbers[0]) if numbers else device
    if device.vendor == AMAZON and device.model in NEURON_CORES:
        return device.replace(parts=read_int(root, NEURON) or 0)
    return device


def read_fields(root: Root, path: str, separator: str) -> dict[str, str]:
    """Return the fields of lines such as `name: value` or `name value`."""
    lines = (root.read(path) or "").splitlines()
    pairs = (line.partition(separator) for line in lines)
    return {name.strip(): value.strip() for name, _, value in pairs}
