"""What only the running machine can tell of its GPUs: NVML, and which device files may be opened.

NVML comes with NVIDIA's driver, its Python side (nvidia-ml-py) with the extra `ompbind[nvidia]`.
"""

from __future__ import annotations

import os

from ompbind.gpus.visible import NvmlGpu, make_visible

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from ompbind.gpus.visible import Visible
    from ompbind.machine.topology import Device


def find_visible(
    devices: Sequence[Device],
    environ: Mapping[str, str],
    *,
    library: Any = None,
    may_use: Callable[[str], bool | None] | None = None,
) -> Visible:
    """The GPUs that workers started here will see. `library` stands for pynvml, `may_use` for the
    question whether a device file can be opened."""
    may_use = may_use or can_open
    warnings: list[str] = []
    asked = None
    if any(d.vendor == "10de" and d.kind == "gpu" and d.driver != "" for d in devices):
        library = library or find_library()
        if library is not None:
            asked = read_nvml(library, warnings)
        if asked is None:
            devices = hide_nvidia(devices, may_use, warnings)
    return make_visible(hide_others(devices, may_use, warnings), environ, asked, warnings)


def find_library() -> Any:
    """The module pynvml; None where it is not installed."""
    try:
        import pynvml  # type: ignore[import-untyped,unused-ignore]
    except ImportError:
        return None
    return pynvml


def read_nvml(library: Any, warnings: list[str]) -> list[NvmlGpu] | None:
    """The GPUs in NVML's order, that of their addresses; None when NVML does not work here."""
    try:
        library.nvmlInit()
    except library.NVMLError as e:
        warnings.append(f"NVML does not work here ({e}): GPUs are taken from the kernel's files")
        return None
    try:
        gpus = []
        for n in range(library.nvmlDeviceGetCount()):
            try:
                gpus.append(read_gpu(library, library.nvmlDeviceGetHandleByIndex(n)))
            except library.NVMLError as e:  # fallen off the bus, or not permitted
                warnings.append(f"NVML: GPU {n} cannot be used: {e}")
        return gpus
    except library.NVMLError as e:
        warnings.append(f"NVML does not work here ({e}): GPUs are taken from the kernel's files")
        return None
    finally:
        library.nvmlShutdown()


def read_gpu(library: Any, handle: Any) -> NvmlGpu:
    info = library.nvmlDeviceGetPciInfo(handle)
    return NvmlGpu(
        pci=make_address(text_of(info.busId)),
        uuid=text_of(library.nvmlDeviceGetUUID(handle)),
        mig=read_mig(library, handle),
    )


def read_mig(library: Any, handle: Any) -> tuple[str, ...] | None:
    """The UUIDs of a GPU's MIG devices; None: MIG is off, or unknown to this GPU or driver."""
    try:
        if not library.nvmlDeviceGetMigMode(handle)[0]:
            return None
        most = library.nvmlDeviceGetMaxMigDeviceCount(handle)
    except library.NVMLError:
        return None
    found = []
    for n in range(most):
        try:
            part = library.nvmlDeviceGetMigDeviceHandleByIndex(handle, n)
        except library.NVMLError:  # numbers may have gaps
            continue
        found.append(text_of(library.nvmlDeviceGetUUID(part)))
    return tuple(found)


def make_address(text: str) -> str:
    """`0000:3b:00.0` from NVML's `00000000:3B:00.0`."""
    domain, _, rest = text.lower().partition(":")
    return f"{int(domain or '0', 16):04x}:{rest}"


def text_of(value: str | bytes) -> str:
    """Older versions of the library give bytes."""
    return value.decode("ascii", "replace") if isinstance(value, bytes) else value


def hide_nvidia(
    devices: Sequence[Device], may_use: Callable[[str], bool | None], warnings: list[str]
) -> list[Device]:
    """NVIDIA's GPUs whose device file is missing or refused are hidden: CUDA will not see them.

    Without any of the driver's files nothing is known: they are made at the first use on a host,
    and never in a container that was given no GPU.
    """
    minors = [d.minor for d in devices if d.vendor == "10de" and d.minor is not None]
    if minors and may_use("/dev/nvidiactl") is None:
        warnings.append(
            "/dev/nvidiactl is not there: the driver has not been used yet, or this container was "
            "given no GPU"
        )
        return list(devices)
    return [
        d.replace(hidden=True)
        if d.vendor == "10de" and d.minor is not None and not may_use(f"/dev/nvidia{d.minor}")
        else d
        for d in devices
    ]


def hide_others(
    devices: Sequence[Device], may_use: Callable[[str], bool | None], warnings: list[str]
) -> list[Device]:
    """AMD's and Intel's GPUs whose device file is missing or refused are hidden; all of AMD's where
    that of its compute driver is."""
    ours = [d for d in devices if d.vendor in ("1002", "8086") and d.minor is not None]
    rocm = not any(d.vendor == "1002" for d in ours) or may_use("/dev/kfd")
    hidden = {d.pci for d in ours if not may_use(f"/dev/dri/renderD{d.minor}")}
    hidden |= {d.pci for d in ours if d.vendor == "1002" and not rocm}
    if hidden:
        names = "/dev/dri" if rocm else "/dev/kfd"
        warnings.append(f"{names} is missing or may not be used (groups video and render)")
    return [d.replace(hidden=True) if d.pci in hidden else d for d in devices]


def can_open(path: str) -> bool | None:
    """Whether a device file can be opened, without doing so; None: it is not there. The answer
    minds a cgroup's list of devices as well as permissions."""
    if not os.path.exists(path):
        return None
    return os.access(path, os.R_OK | os.W_OK)
