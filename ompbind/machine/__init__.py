"""Read a machine from where it is described: the running system, a directory or a saved file."""

from __future__ import annotations

import os
import sys

from ompbind.errors import TopologyError
from ompbind.machine.roots import DirectoryRoot
from ompbind.machine.topology import LEVELS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection

    from ompbind.machine.roots import Root
    from ompbind.machine.topology import Level, Machine

# A kind of processor, and how the names begin that uname gives it.
FAMILIES = (
    ("x86", ("x86_64", "i386", "i586", "i686")),
    ("arm", ("aarch64", "arm")),
    ("power", ("ppc",)),
    ("s390", ("s390",)),
    ("riscv", ("riscv",)),
)


def read_machine(
    path: str | None = None,
    levels: Collection[Level] = LEVELS,
    *,
    devices: bool = True,
    details: bool = False,
) -> Machine:
    """Return the running machine, or the one that `path` describes: a directory with its `sys` and
    `proc`, an archive of that, a snapshot, the JSON of topo, hwloc's XML or synthetic notation; `-`
    is standard input.

    Other `levels` may be None, and without `devices` there are none: they are not read. With
    `details` the processors' model and the caches are, as far as the machine's files have them.
    Raises TopologyError.
    """
    if path is None:
        return read_system(*running_system(), levels, devices=devices, details=details)
    from ompbind.machine.description import MEASUREMENT, add_path, open_description

    try:
        source = open_description(path)
        if not isinstance(source, tuple):
            return source
        machine = read_system(*source, levels, devices=devices, details=details)
        if text := source[1].read(MEASUREMENT):
            from ompbind.machine.measurement import parse_measurement

            machine = machine.replace(measured=parse_measurement(text))
        return machine
    except TopologyError as e:
        raise add_path(e, path) from None


def read_family(path: str | None = None) -> str:
    """Return the kind of processor, "x86", "arm", "power", "s390" or "riscv"; "" if unknown.

    Raises TopologyError for a directory that holds no machine.
    """
    if path is None:
        machine = os.uname().machine if hasattr(os, "uname") else ""
        return next((family for family, names in FAMILIES if machine.startswith(names)), "")
    root = linux_root(path)
    if root is None:
        return ""
    from ompbind.machine.details import parse_family

    return parse_family(root.read("proc/cpuinfo") or "")


def linux_root(path: str | None = None) -> Root | None:
    """Return the root of the running machine, or of that whose files `path` has; None for another
    system, and for what describes a machine otherwise. Raises TopologyError."""
    if path is None:
        return DirectoryRoot("/") if sys.platform == "linux" else None
    from ompbind.machine.description import add_path, open_description

    try:
        source = open_description(path)
    except TopologyError as e:
        raise add_path(e, path) from None
    return source[1] if isinstance(source, tuple) and source[0] == "linux" else None


def living_root() -> DirectoryRoot:
    """Return the running machine's root, which has its processes. Raises TopologyError."""
    if sys.platform != "linux":
        raise TopologyError("this system does not show where the threads of a process may run")
    return DirectoryRoot("/")


def running_system() -> tuple[str, Root]:
    """Return the name of the running system, as readers have it, and its root."""
    system = sys.platform
    if system == "linux":
        return "linux", DirectoryRoot("/")
    if system == "darwin":
        from ompbind.machine.darwin import SysctlRoot

        return "darwin", SysctlRoot()
    from ompbind.machine.portable import PsutilRoot

    return "generic", PsutilRoot()


def read_system(
    system: str,
    root: Root,
    levels: Collection[Level] = LEVELS,
    *,
    devices: bool = True,
    details: bool = False,
) -> Machine:
    """Read a machine of the named system from any root. Raises TopologyError."""
    if system == "linux":
        from ompbind.machine.cpus import read_topology
        from ompbind.machine.limits import read_allowed, read_hostname
        from ompbind.machine.topology import Machine

        if details:
            from ompbind.machine.details import CacheFilesRoot, add_details
            from ompbind.machine.memories import add_memory_facts

            root = CacheFilesRoot(root)
        topology = read_topology(root, levels, devices=devices)
        machine = Machine(topology, read_allowed(root, topology), read_hostname(root))
        return add_memory_facts(root, add_details(root, machine)) if details else machine
    if system == "darwin":
        from ompbind.machine.darwin import read_darwin

        return read_darwin(root)
    if system == "generic":
        from ompbind.machine.portable import read_generic

        return read_generic(root)
    raise TopologyError(f"unknown system {system[:40]!r}")
