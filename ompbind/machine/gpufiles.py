"""The reader of what GPUs' drivers say in files: names, order, parts, and what is hidden.

Sources: NVIDIA's driver README (the /proc interface) and MIG user guide (/proc/driver/nvidia/
capabilities); the kernel's amdgpu documentation of the KFD topology; the xe driver's sysfs ABI.
"""

from __future__ import annotations

from ompbind.cpuset import parse_whole
from ompbind.machine.sysfiles import numbered

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ompbind.machine.roots import Root
    from ompbind.machine.topology import Device

NVIDIA = "proc/driver/nvidia"
KFD = "sys/class/kfd/kfd/topology/nodes"
PCI = "sys/bus/pci/devices"


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
