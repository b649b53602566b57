"""Which accelerators beside GPUs a worker will see, and the variable that gives it one. Pure.

Any device of PCI class 12 counts, and AWS's by name, which are of another class. Sources:

- Huawei's CANN, environment variables: ASCEND_RT_VISIBLE_DEVICES lists the numbers of the devices
  that a process may use, which it then counts from 0. (ASCEND_VISIBLE_DEVICES is for the runtime of
  containers.) Its driver has a device's number in the PCI device's file `dev_id`.
- Intel Gaudi's documentation, "Gaudi-to-process Assignment": HABANA_VISIBLE_MODULES lists modules,
  the one at the position of its local rank is a process's; HLS_MODULE_ID names the process's own.
  (HABANA_VISIBLE_DEVICES is for the runtime of containers.) A device's module is in its file
  `module_id`, ABI/testing/sysfs-driver-habanalabs.
- AWS Neuron, "Neuron Runtime configuration" and "Logical NeuronCore configuration":
  NEURON_RT_VISIBLE_CORES takes cores, as in 0,4-7, counted over all devices;
  NEURON_LOGICAL_NC_CONFIG is how many make one, by default 2 on Trainium2 and later. No file says
  which device is which.
"""

from __future__ import annotations

from ompbind.cpuset import CpuSet, parse_whole
from ompbind.devices.visible import KINDS, Gpu, Visible, explain_unusable, pci_place, shorten
from ompbind.errors import ParseError
from ompbind.messages import quote
from ompbind.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ompbind.machine.topology import Device

GUEST_DRIVERS = ("vfio-pci", "pci-stub", "xen-pciback", "uio_pci_generic")
AMAZON = "1d0f"
LOGICAL_CORES = "NEURON_LOGICAL_NC_CONFIG"


class Vendor(Record):
    """A vendor's accelerators."""

    name: str
    listed: str  # the variable that says which a process sees
    given: str  # the variable that gives a rank its own
    tool: str  # the command that shows how the driver counts them


VENDORS = {
    "19e5": Vendor("Ascend", "ASCEND_RT_VISIBLE_DEVICES", "ASCEND_RT_VISIBLE_DEVICES",
                   "npu-smi info"),
    "1da3": Vendor("Gaudi", "HABANA_VISIBLE_MODULES", "HLS_MODULE_ID",
                   "hl-smi -Q module_id,bus_id -f csv"),
    AMAZON: Vendor("Neuron", "NEURON_RT_VISIBLE_CORES", "NEURON_RT_VISIBLE_CORES", "neuron-ls"),
}  # fmt: skip
VARIABLES = ("ASCEND_RT_VISIBLE_DEVICES", "HABANA_VISIBLE_MODULES", "HLS_MODULE_ID",
             "NEURON_RT_VISIBLE_CORES")  # fmt: skip


def make_visible(devices: Sequence[Device], environ: Mapping[str, str]) -> Visible:
    """Return the accelerators of one vendor that the environment leaves visible, in its driver's
    order. Of several vendors it is the first in VENDORS, or of others that with the lowest number.
    """
    candidates = [d for d in devices if is_accelerator(d)]
    usable = [d for d in candidates if not why_not(d)]
    if not usable:
        reasons = shorten([f"{d.pci} {why_not(d)}" for d in candidates])
        problem = f"no accelerator was found{': ' * bool(reasons)}{reasons}"
        is_gpu = any(d.kind == "accelerator" and d.kind in KINDS.get(d.vendor, ()) for d in devices)
        hint = "--per gpu counts AMD's Instinct" if is_gpu else "ompbind topo shows the devices"
        return Visible(problem=problem, hint=hint)
    present = {d.vendor for d in usable}
    first = next((v for v in VENDORS if v in present), min(present))
    chosen = [d for d in usable if d.vendor == first]
    warnings = []
    if len(chosen) < len(usable):
        others = ", ".join(d.pci for d in usable if d.vendor != first)
        warnings.append(f"ranks are mapped by the accelerators of one vendor; left out: {others}")
    vendor = VENDORS.get(first)
    if vendor is None:
        chosen.sort(key=pci_place)
        gpus = tuple(Gpu(d.names[-1] if d.names else d.pci, d) for d in chosen)
        return Visible(gpus, warnings=tuple(warnings))
    ordered, warning = put_in_order(chosen, vendor)
    if warning:
        warnings.append(warning)
    return select(ordered, vendor, environ).replace(warnings=tuple(warnings))


def is_accelerator(device: Device) -> bool:
    """Whether it is an accelerator that --per gpu does not count."""
    return device.kind == "accelerator" and device.kind not in KINDS.get(device.vendor, ())


def why_not(device: Device) -> str:
    """Return why no worker can use an accelerator; "": it can."""
    return explain_unusable(device, held=device.driver in GUEST_DRIVERS)


def put_in_order(devices: Sequence[Device], vendor: Vendor) -> tuple[list[Device], str]:
    """Return the devices as their driver counts them, and a warning where that is not known and
    matters, as they are near several nodes."""
    known = {d.position for d in devices} - {None}
    if len(known) == len(devices):
        return sorted(devices, key=lambda d: d.position or 0), ""
    ordered = sorted(devices, key=pci_place)
    if len({(d.node, str(d.cpus)) for d in devices}) == 1:
        return ordered, ""
    text = (
        f"the machine does not say how the driver counts its {vendor.name} devices: they are taken "
        f"in the order of their addresses ({vendor.tool} shows both)"
    )
    return ordered, text


def select(devices: Sequence[Device], vendor: Vendor, environ: Mapping[str, str]) -> Visible:
    """Return the devices that the vendor's variable leaves visible, by their names in it."""
    names = [name_parts(d, n, environ) for n, d in enumerate(devices)]
    text = environ.get(vendor.listed)
    hint = f"correct it, or unset {vendor.listed} to see all {vendor.name} devices"
    every = CpuSet(number for numbers in names for number in numbers)
    if text is None or not text.strip():
        chosen, problem = [*range(len(devices))], ""
    elif vendor.name == "Neuron":
        chosen, names, problem = pick_cores(text, names)
    else:
        chosen, problem = pick_numbers(text, names)
    if problem:
        there = f"devices there: {every}"
        return Visible((), vendor.given, problem=f"{vendor.listed} {problem}; {there}", bad=True,
                       hint=hint)  # fmt: skip
    gpus = tuple(Gpu(str(names[n]), devices[n]) for n in chosen)
    return Visible(gpus, vendor.given)


def name_parts(device: Device, number: int, environ: Mapping[str, str]) -> CpuSet:
    """Return the numbers by which a variable names the device that is `number` in order: one, or
    those of its NeuronCores."""
    if device.vendor != AMAZON:
        return CpuSet([number if device.position is None else device.position])
    from ompbind.machine.devices import NEURON_CORES  # launches with --env need the variables alone

    cores, logical = NEURON_CORES.get(device.model, (device.parts or 1, 1))
    logical = parse_whole(environ.get(LOGICAL_CORES, "")) or logical
    each = max((device.parts or cores) // logical, 1)
    place = number if device.position is None else device.position
    return CpuSet(range(place * each, (place + 1) * each))


def pick_numbers(text: str, names: Sequence[CpuSet]) -> tuple[list[int], str]:
    """Return the positions of the devices that a list names, in its order, and what is wrong."""
    chosen: list[int] = []
    for word in text.split(","):
        number = parse_whole(word.strip())
        matches = [n for n, name in enumerate(names) if number is not None and number in name]
        if not matches:
            return [], f"names {quote(word.strip())}"
        if matches[0] in chosen:
            return [], f"names {word.strip()} twice"
        chosen.append(matches[0])
    return chosen, ""


def pick_cores(text: str, names: Sequence[CpuSet]) -> tuple[list[int], list[CpuSet], str]:
    """Return the positions of the devices of which a list such as 0,4-7 names cores, the named
    cores of each device, and what is wrong."""
    try:
        cores = CpuSet.parse_user(text.replace(" ", ""))
    except ParseError as e:
        return [], list(names), f"is {quote(text)}: {e.message}"
    left = [name & cores for name in names]
    missing = cores - CpuSet(number for name in names for number in name)
    if missing:
        return [], left, f"names {missing}"
    return [n for n, name in enumerate(left) if name], left, ""
