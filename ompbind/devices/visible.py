"""The GPUs that a worker will see: the machine's devices after what the environment hides. Pure."""

from __future__ import annotations

from ompbind.devices.variables import pick_cuda, pick_hip, pick_level_zero, pick_rocr
from ompbind.machine.topology import Device
from ompbind.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

VENDORS = {"10de": "NVIDIA", "1002": "AMD", "8086": "Intel"}
DRIVERS = {"10de": ("nvidia",), "1002": ("amdgpu",), "8086": ("i915", "xe")}
KINDS = {"10de": ("gpu",), "1002": ("gpu", "accelerator"), "8086": ("gpu",)}
VARIABLES = {
    "10de": ("CUDA_VISIBLE_DEVICES",),
    "1002": ("ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES",
             "GPU_DEVICE_ORDINAL"),
    "8086": ("ZE_AFFINITY_MASK",),
}  # fmt: skip


class Gpu(Record):
    """A GPU, or a part of one, as a worker sees it: `name` is its text in the vendor's variable."""

    name: str
    device: Device


class NvmlGpu(Record):
    """A GPU as NVML describes it."""

    pci: str
    uuid: str
    mig: tuple[str, ...] | None = None  # the UUIDs of its MIG devices; None: it is not divided


class Visible(Record):
    """The GPUs in the runtime's order, and the variables that give a rank some of them."""

    gpus: tuple[Gpu, ...] = ()
    variable: str = ""  # selects a rank's GPUs
    env: tuple[tuple[str, str], ...] = ()  # is set beside it
    unset: tuple[str, ...] = ()  # would select otherwise
    problem: str = ""  # why there are none, or fewer than the environment names
    bad: bool = False  # the environment names what does not exist
    hint: str = ""
    warnings: tuple[str, ...] = ()


def make_visible(
    devices: Sequence[Device],
    environ: Mapping[str, str],
    nvml: Sequence[NvmlGpu] | None = None,
    warnings: Sequence[str] = (),
) -> Visible:
    """Return the visible GPUs of these devices. `nvml`: the GPUs that NVML knows, None without it;
    `warnings`: of what read them."""
    if nvml is not None:
        devices = [with_nvml(d, nvml) for d in devices]
    usable = [d for d in devices if d.vendor in VENDORS and not why_not(d)]
    vendors = [v for v in VENDORS if any(d.vendor == v for d in usable)]
    if not vendors:
        return Visible(
            problem=explain_none(devices),
            hint="; ".join(warnings) or hint_for(environ),
            warnings=tuple(warnings),
        )
    messages = list(warnings)
    if vendors[1:]:
        others = " and ".join(VENDORS[v] for v in vendors[1:])
        messages.append(
            f"ranks are mapped by the {VENDORS[vendors[0]]} GPUs; those of {others} are left out"
        )
    gpus = [d for d in usable if d.vendor == vendors[0]]
    # A container or a job that was given only some is as it should be: no warning of hidden ones.
    unusable = [
        f"{d.pci} {why_not(d)}"
        for d in devices
        if d.vendor == vendors[0] and d.kind in KINDS[d.vendor] and why_not(d)
        if not (d.virtual or d.hidden or is_integrated(d))
    ]
    if unusable:
        messages.append(f"not used: {shorten(unusable)}")
    visible = MAKERS[vendors[0]](gpus, environ, nvml)
    return visible.replace(
        warnings=(*messages, *visible.warnings),
        unset=tuple(n for n in VARIABLES[vendors[0]] if n in environ and n != visible.variable),
    )


# --- which devices are GPUs to compute with ------------------------------------------------------


def why_not(device: Device) -> str:
    """Return why no worker can compute on a device; "": it can."""
    vendor = device.vendor
    if vendor not in VENDORS or device.kind not in KINDS[vendor]:
        if device.kind == "gpu":
            return f"is a display of vendor {vendor or 'unknown'}"
        return f"is not a GPU but of kind {device.kind}"
    if is_integrated(device):
        return "is the package's own display"
    other = device.driver is not None and device.driver not in DRIVERS[vendor]
    return explain_unusable(device, held=other)


def explain_unusable(device: Device, *, held: bool) -> str:
    """Return why no worker can use a device of a kind that ranks are mapped by; "": it can. `held`:
    its driver is not the one by which workers use it."""
    if device.virtual:
        return "is a virtual function, for a guest"
    if device.driver == "":
        return "has no driver"
    if held:
        return f"is held by the driver {device.driver}"
    return "is hidden from this process" if device.hidden else ""


def is_integrated(device: Device) -> bool:
    """Return whether a device is the package's own display: Intel puts nothing else there."""
    return device.vendor == "8086" and device.pci == "0000:00:02.0"


def with_nvml(device: Device, nvml: Sequence[NvmlGpu]) -> Device:
    """Return the device as NVML knows it; one that NVML does not know is hidden."""
    if device.vendor != "10de" or device.kind != "gpu":
        return device
    for n, gpu in enumerate(nvml):
        if gpu.pci == device.pci:
            parts = 0 if gpu.mig is None else len(gpu.mig)
            return device.replace(uuid=gpu.uuid, position=n, parts=parts, hidden=False)
    return device if why_not(device) else device.replace(hidden=True)


def explain_none(devices: Sequence[Device]) -> str:
    """Return why there is no GPU to compute with."""
    reasons = [
        f"{d.pci} {why_not(d)}"
        for d in devices
        if d.kind == "gpu" or d.kind in KINDS.get(d.vendor, ())
    ]
    return f"no GPU to compute with was found{': ' if reasons else ''}{shorten(reasons)}"


def shorten(texts: Sequence[str], most: int = 3) -> str:
    more = f" and {len(texts) - most} more" if len(texts) > most else ""
    return ", ".join(texts[:most]) + more


def hint_for(environ: Mapping[str, str]) -> str:
    value = environ.get("NVIDIA_VISIBLE_DEVICES")
    if value is not None:
        return f"this container was given NVIDIA_VISIBLE_DEVICES={value[:60]}"
    return "ompbind topo shows the devices; a container needs to be given them (docker run --gpus)"


# --- vendors -------------------------------------------------------------------------------------


def make_nvidia(
    devices: Sequence[Device], environ: Mapping[str, str], nvml: Sequence[NvmlGpu] | None
) -> Visible:
    gpus = sorted(devices, key=pci_place)
    text = environ.get("CUDA_VISIBLE_DEVICES")
    variable = "CUDA_VISIBLE_DEVICES"
    warnings = []
    mig = {gpu.pci: gpu.mig or () for gpu in nvml or ()}
    parts = [(name, gpu) for gpu in gpus for name in mig.get(gpu.pci, ())]
    divided = [gpu for gpu in gpus if gpu.parts and not mig.get(gpu.pci)]
    wants_mig = text is not None and text.strip().upper().startswith("MIG-")
    if (divided and text is None) or (wants_mig and nvml is None):
        reason = f"{variable} names MIG parts"
        if not wants_mig:
            reason = f"GPU {divided[0].pci} is divided (MIG)"
        return unnamed(variable, f"{reason}, and only NVML knows the parts")
    wants_uuid = text is not None and text.strip().upper().startswith("GPU-")
    if wants_uuid and not all(gpu.uuid for gpu in gpus):
        lacking = next(gpu.pci for gpu in gpus if not gpu.uuid)
        return unnamed(variable, f"{variable} names UUIDs, and that of {lacking} is not known")
    if text is None and parts:  # CUDA takes parts by their names only
        named = [Gpu(name, device) for name, device in parts]
        named += [Gpu(gpu.uuid, gpu) for gpu in gpus if not gpu.parts]
        return Visible(tuple(named), variable)
    selection = pick_cuda(text, [gpu.uuid for gpu in gpus], [name for name, _ in parts])
    numbered = [*gpus, *(gpu for _, gpu in parts)]
    env: tuple[tuple[str, str], ...] = ()
    by_number = not (wants_uuid or wants_mig)
    if by_number and len({gpu.model for gpu in gpus}) > 1 and not in_pci_order(environ):
        if text is None:
            env = (("CUDA_DEVICE_ORDER", "PCI_BUS_ID"),)
        warnings.append(
            "the GPUs are of several models, and CUDA puts the fastest first; ompbind takes them "
            "in the order of their addresses: set CUDA_DEVICE_ORDER=PCI_BUS_ID, or use UUIDs"
        )
    return visible_of(variable, selection.entries, numbered, selection.problem, text).replace(
        env=env, warnings=tuple(warnings)
    )


def unnamed(variable: str, problem: str) -> Visible:
    return Visible(
        (), variable, problem=problem, hint="NVML knows them: pip install 'ompbind[nvidia]'"
    )


def in_pci_order(environ: Mapping[str, str]) -> bool:
    return environ.get("CUDA_DEVICE_ORDER") == "PCI_BUS_ID"


def make_amd(
    devices: Sequence[Device], environ: Mapping[str, str], _: Sequence[NvmlGpu] | None
) -> Visible:
    known = all(d.position is not None for d in devices)
    gpus = sorted(devices, key=lambda d: (d.position or 0,) if known else pci_place(d))
    units = [gpu for gpu in gpus for _ in range(max(gpu.parts, 1))]
    variable = "ROCR_VISIBLE_DEVICES"
    text = environ.get(variable)
    selection = pick_rocr(text, [gpu.uuid for gpu in units])
    if selection.problem:
        return visible_of(variable, selection.entries, units, selection.problem, text)
    # HIP counts anew what ROCr has left; the texts stay ROCr's.
    names = [n for n in VARIABLES["1002"][1:] if environ.get(n)]
    left = [units[n] for _, n in selection.entries]
    inner = pick_hip(environ[names[0]] if names else None, [gpu.uuid for gpu in left])
    entries = [selection.entries[n] for _, n in inner.entries]
    source = names[0] if names else variable
    visible = visible_of(source, entries, units, inner.problem, environ.get(source))
    return visible.replace(variable=variable)


def make_intel(
    devices: Sequence[Device], environ: Mapping[str, str], _: Sequence[NvmlGpu] | None
) -> Visible:
    gpus = sorted(devices, key=pci_place)
    variable = "ZE_AFFINITY_MASK"
    text = environ.get(variable)
    flat = environ.get("ZE_FLAT_DEVICE_HIERARCHY") != "COMPOSITE"
    selection = pick_level_zero(text, [max(gpu.parts, 1) for gpu in gpus], flat=flat)
    return visible_of(variable, selection.entries, gpus, selection.problem, text)


def visible_of(
    variable: str,
    entries: Sequence[tuple[str, int]],
    devices: Sequence[Device],
    problem: str,
    text: str | None,
) -> Visible:
    gpus = tuple(Gpu(name, devices[n]) for name, n in entries)
    bad = bool(problem)
    if problem:
        problem = f"{variable} {problem}"
    elif not gpus:
        problem = f"{variable}={(text or '')[:60]} hides all {len(devices)} GPUs"
    hint = f"correct it, or unset {variable} to see all GPUs" if problem else ""
    return Visible(gpus, variable, problem=problem, bad=bad, hint=hint)


def pci_place(device: Device) -> tuple[int, ...]:
    """Return a key for the order of addresses, whose domain may have more than four digits."""
    return tuple(any_hexadecimal(part) for part in device.pci.replace(".", ":").split(":"))


def any_hexadecimal(text: str) -> int:
    """Return a number; other text, as another tool's file may hold, comes last."""
    plain = text.isascii() and text.isalnum() and len(text) <= 8
    try:
        return int(text, 16) if plain else 1 << 32
    except ValueError:
        return 1 << 32


MAKERS = {"10de": make_nvidia, "1002": make_amd, "8086": make_intel}
