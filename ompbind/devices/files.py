"""Device files: devices whose file this process may not open are hidden from it and its workers.

The files say so for the running machine only, as in a container that was given some of the devices.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from ompbind.machine.topology import Device


def can_open(path: str) -> bool | None:
    """Return whether a device file could be opened; None: it does not exist. The answer respects a
    cgroup's list of devices as well as permissions."""
    if not os.path.exists(path):
        return None
    return os.access(path, os.R_OK | os.W_OK)


def hide_nvidia(
    devices: Sequence[Device], may_use: Callable[[str], bool | None]
) -> tuple[list[Device], list[str]]:
    """Return the devices and warnings; NVIDIA's GPUs whose device file is missing or refused are
    hidden, as CUDA will not see them.

    Without any of the driver's files nothing is known: on a host they are made at the first use,
    and in a container that was given no GPU they never are.
    """
    minors = [d.minor for d in devices if d.vendor == "10de" and d.minor is not None]
    if minors and may_use("/dev/nvidiactl") is None:
        text = (
            "/dev/nvidiactl does not exist: the driver has not been used yet, or this container "
            "was given no GPU"
        )
        return list(devices), [text]
    hidden = {
        d.pci
        for d in devices
        if d.vendor == "10de" and d.minor is not None and not may_use(f"/dev/nvidia{d.minor}")
    }
    return hide(devices, hidden), []


def hide_others(
    devices: Sequence[Device], may_use: Callable[[str], bool | None]
) -> tuple[list[Device], list[str]]:
    """Return the devices and warnings; AMD's and Intel's GPUs whose device file is missing or
    refused are hidden, all of AMD's where the file of its compute driver is."""
    candidates = [d for d in devices if d.vendor in ("1002", "8086") and d.minor is not None]
    rocm = not any(d.vendor == "1002" for d in candidates) or may_use("/dev/kfd")
    hidden = {d.pci for d in candidates if not may_use(f"/dev/dri/renderD{d.minor}")}
    hidden |= {d.pci for d in candidates if d.vendor == "1002" and not rocm}
    if not hidden:
        return list(devices), []
    path = "/dev/dri" if rocm else "/dev/kfd"
    return hide(devices, hidden), [
        f"{path} is missing or may not be used (groups video and render)"
    ]


def hide_accelerators(
    devices: Sequence[Device], may_use: Callable[[str], bool | None] = can_open
) -> list[Device]:
    """Return the devices; accelerators whose device file is known, and missing or refused, are
    hidden, as those of other containers are."""
    hidden = set()
    for d in devices:
        files = [f"/dev/accel/{name}" for name in d.names if name.startswith("accel")]
        if d.vendor == "19e5" and d.position is not None:
            files.append(f"/dev/davinci{d.position}")
        if d.kind == "accelerator" and not all(map(may_use, files)):
            hidden.add(d.pci)
    return hide(devices, hidden)


def hide(devices: Sequence[Device], addresses: Collection[str]) -> list[Device]:
    return [d.replace(hidden=True) if d.pci in addresses else d for d in devices]
