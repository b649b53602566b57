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

HINT = (
    "give a directory that holds a machine's sys and proc, a file that ompbind topo --save wrote, "
    "or hwloc's XML"
)
# A kind of processor, and how the names begin that uname gives it.
FAMILIES = (
    ("x86", ("x86_64", "i386", "i586", "i686")),
    ("arm", ("aarch64", "arm")),
    ("power", ("ppc",)),
    ("s390", ("s390",)),
    ("riscv", ("riscv",)),
)
MAX_FILE_BYTES = 64 << 20  # of a file that describes a machine


def read_machine(
    path: str | None = None, levels: Collection[Level] = LEVELS, *, devices: bool = True
) -> Machine:
    """Return the running machine, or the one that `path` describes: a directory with its `sys` and
    `proc`, a snapshot, or hwloc's XML.

    Other `levels` may be None, and without `devices` there are none: they are not read. Raises
    TopologyError.
    """
    if path is None:
        return read_system(*running_system(), levels, devices=devices)
    try:
        if os.path.isdir(path):
            return read_system("linux", find_directory(path), levels, devices=devices)
        data = read_file(path)
        if data[:2] == b"\x1f\x8b":
            from ompbind.machine.snapshot import parse_snapshot

            return read_system(*parse_snapshot(data), levels, devices=devices)
        if data.lstrip()[:1] == b"<":
            from ompbind.machine.hwloc import parse_xml

            return parse_xml(data)
    except TopologyError as e:
        raise add_path(e, path) from None
    raise TopologyError(f"{path} does not describe a machine", hint=HINT)


def read_family(path: str | None = None) -> str:
    """Return the kind of processor, "x86", "arm", "power", "s390" or "riscv"; "" if unknown.

    Raises TopologyError for a directory that holds no machine.
    """
    if path is None:
        machine = os.uname().machine if hasattr(os, "uname") else ""
        return next((family for family, names in FAMILIES if machine.startswith(names)), "")
    if os.path.isdir(path):
        from ompbind.machine.limits import parse_family

        return parse_family(find_directory(path).read("proc/cpuinfo") or "")
    return ""


def add_path(error: TopologyError, path: str) -> TopologyError:
    """Return the error with the file or directory it is about."""
    return TopologyError(f"{path}: {error.message}", hint=error.hint or HINT, **error.data)


def linux_root(path: str | None = None) -> Root | None:
    """Return the root of the running machine, or of the directory or snapshot `path`; None for
    another system and for hwloc's XML. Raises TopologyError."""
    if path is None:
        return DirectoryRoot("/") if sys.platform == "linux" else None
    if os.path.isdir(path):
        return find_directory(path)
    data = read_file(path)
    if data[:2] != b"\x1f\x8b":
        return None
    from ompbind.machine.snapshot import parse_snapshot

    system, root = parse_snapshot(data)
    return root if system == "linux" else None


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
    system: str, root: Root, levels: Collection[Level] = LEVELS, *, devices: bool = True
) -> Machine:
    """Read a machine of the named system from any root. Raises TopologyError."""
    if system == "linux":
        from ompbind.machine.cpus import read_topology
        from ompbind.machine.limits import read_allowed, read_hostname
        from ompbind.machine.topology import Machine

        topology = read_topology(root, levels, devices=devices)
        return Machine(topology, read_allowed(root, topology), read_hostname(root))
    if system == "darwin":
        from ompbind.machine.darwin import read_darwin

        return read_darwin(root)
    if system == "generic":
        from ompbind.machine.portable import read_generic

        return read_generic(root)
    raise TopologyError(f"unknown system {system[:40]!r}")


def save_machine(file: str, path: str | None, *, with_name: bool) -> Machine:
    """Read a machine and write what was read to `file`, which `read_machine` can read.

    Raises TopologyError, also when `file` cannot be written.
    """
    from ompbind.machine.roots import RecordingRoot
    from ompbind.machine.snapshot import make_snapshot

    try:
        if path is None:
            system, inner = running_system()
        elif os.path.isdir(path):
            system, inner = "linux", find_directory(path)
        else:
            raise TopologyError("only the running machine or a directory can be saved")
        root = RecordingRoot(inner)
        machine = read_system(system, root)
        if system == "linux":
            from ompbind.machine.limits import CONTAINER_FILES

            for file_of_container in CONTAINER_FILES:  # who restricted it, for plans elsewhere
                root.read(file_of_container)
    except TopologyError as e:
        raise (e if path is None else add_path(e, path)) from None
    try:
        with open(file, "wb") as out:
            out.write(make_snapshot(system, root, with_name=with_name))
    except OSError as e:
        raise TopologyError(f"--save {file}: {e.strerror}") from None
    return machine


def find_directory(path: str) -> Root:
    """Return the root in a directory: itself, or its `fsroot`. Raises TopologyError."""
    for directory in (path, os.path.join(path, "fsroot")):
        if os.path.isdir(os.path.join(directory, "sys")):
            return DirectoryRoot(directory)
    raise TopologyError("has no sys directory")


def read_file(path: str) -> bytes:
    """Return a file's bytes. Raises TopologyError, also for one larger than any machine needs."""
    try:  # must not block on a FIFO
        fd = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
        with open(fd, "rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as e:
        raise TopologyError(e.strerror or str(e)) from None
    if not data:
        raise TopologyError("the file is empty")
    if len(data) > MAX_FILE_BYTES:
        raise TopologyError(f"the file is larger than {MAX_FILE_BYTES >> 20} MiB")
    return data
