"""What only the running machine knows of its GPUs: NVML, and which device files may be opened.

NVML comes with NVIDIA's driver, its Python side (nvidia-ml-py) with the extra `ompbind[nvidia]`.
"""

from __future__ import annotations

import os

from ompbind.devices.visible import NvmlGpu, make_visible

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence
    from typing import Any

    from ompbind.devices.visible import Visible
    from ompbind.machine.topology import Device


def find_visible(
    devices: Sequence[Device],
    environ: Mapping[str, str],
    *,
    library: Any = None,
    may_use: Callable[[str], bool | None] | None = None,
) -> Visible:
    """Return the GPUs that workers started here will see. `library` replaces pynvml, `may_use` the
    question whether a device file can be opened."""
    may_use = may_use or can_open
    warnings: list[str] = []
    gpus = None
    if any(d.vendor == "10de" and d.kind == "gpu" and d.driver != "" for d in devices):
        library = library or find_library()
        if library is not None:
            gpus, problems = read_nvml(library)
            warnings += problems
        if gpus is None:
            devices, problems = hide_nvidia(devices, may_use)
            warnings += problems
    devices, problems = hide_others(devices, may_use)
    return make_visible(devices, environ, gpus, [*warnings, *problems])


def find_library() -> Any:
    """Return the module pynvml; None where it is not installed."""
    try:
        import pynvml  # type: ignore[import-untyped,unused-ignore]
    except ImportError:
        return None
    return pynvml


def read_nvml(library: Any) -> tuple[list[NvmlGpu] | None, list[str]]:
    """Return the GPUs in NVML's order, that of their addresses, and warnings; None when NVML does
    not work here."""
    try:
        library.nvmlInit()
    except library.NVMLError as e:
        return None, [failure(e)]
    gpus, warnings = [], []
    try:
        for n in range(library.nvmlDeviceGetCount()):
            try:
                gpus.append(read_gpu(library, library.nvmlDeviceGetHandleByIndex(n)))
            except library.NVMLError as e:  # fallen off the bus, or not permitted
                warnings.append(f"NVML: GPU {n} cannot be used: {e}")
    except library.NVMLError as e:
        return None, [*warnings, failure(e)]
    finally:
        library.nvmlShutdown()
    return gpus, warnings


def failure(error: Exception) -> str:
    return f"NVML does not work here ({error}): GPUs are taken from the kernel's files"


def read_gpu(library: Any, handle: Any) -> NvmlGpu:
    info = library.nvmlDeviceGetPciInfo(handle)
    return NvmlGpu(
        pci=make_address(text_of(info.busId)),
        uuid=text_of(library.nvmlDeviceGetUUID(handle)),
        mig=read_mig(library, handle),
    )


def read_mig(library: Any, handle: Any) -> tuple[str, ...] | None:
    """Return the UUIDs of a GPU's MIG devices; None: MIG is off, or unknown to GPU or driver."""
    try:
        if not library.nvmlDeviceGetMigMode(handle)[0]:
            return None
        most = library.nvmlDeviceGetMaxMigDeviceCount(handle)
    except library.NVMLError:
        return None
    uuids = []
    for n in range(most):
        try:
            part = library.nvmlDeviceGetMigDeviceHandleByIndex(handle, n)
        except library.NVMLError:  # numbers may have gaps
            continue
        uuids.append(text_of(library.nvmlDeviceGetUUID(part)))
    return tuple(uuids)


def make_address(text: str) -> str:
    """Return `0000:3b:00.0` for NVML's `00000000:3B:00.0`."""
    domain, _, rest = text.lower().partition(":")
    return f"{int(domain or '0', 16):04x}:{rest}"


def text_of(value: str | bytes) -> str:
    """Return text; older versions of the library give bytes."""
    return value.decode("ascii", "replace") if isinstance(value, bytes) else value


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
    devices: Sequence[Device], may_use: Callable[[str], bool | None] | None = None
) -> list[Device]:
    """Return the devices; accelerators whose device file is known, and missing or refused, are
    hidden, as those of other containers are."""
    may_use = may_use or can_open
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


def can_open(path: str) -> bool | None:
    """Return whether a device file could be opened; None: it does not exist. The answer respects a
    cgroup's list of devices as well as permissions."""
    if not os.path.exists(path):
        return None
    return os.access(path, os.R_OK | os.W_OK)
