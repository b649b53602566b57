"""The GPUs of this machine as NVML, NVIDIA's management library, describes them.

NVML comes with NVIDIA's driver, its Python side (nvidia-ml-py) with the extra `ompbind[nvidia]`.
"""

from __future__ import annotations

from ompbind.devices.visible import NvmlGpu

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


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
