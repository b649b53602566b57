"""The devices that ranks use: GPUs, other accelerators, network cards."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
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
    """Return the GPUs that workers started on this machine will see. `library` replaces pynvml,
    `may_use` the question whether a device file can be opened."""
    from ompbind.devices.files import can_open, hide_nvidia, hide_others
    from ompbind.devices.visible import make_visible

    may_use = may_use or can_open
    warnings: list[str] = []
    gpus = None
    if any(d.vendor == "10de" and d.kind == "gpu" and d.driver != "" for d in devices):
        from ompbind.devices.nvml import find_library, read_nvml

        library = library or find_library()
        if library is not None:
            gpus, problems = read_nvml(library)
            warnings += problems
        if gpus is None:
            devices, problems = hide_nvidia(devices, may_use)
            warnings += problems
    devices, problems = hide_others(devices, may_use)
    return make_visible(devices, environ, gpus, [*warnings, *problems])
