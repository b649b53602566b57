"""Saved machines: what the readers read, in one small file that plans and bug reports can use.

The file is JSON in gzip: `files`, `directories` and `links` by path. Nothing is ever unpacked, so
there is no path to climb out of.
"""

from __future__ import annotations

import json
import zlib

from ompbind.errors import TopologyError
from ompbind.machine.roots import SnapshotRoot

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

SCHEMA = 1
LARGEST_TEXT = 64 << 20  # bytes, unpacked; a machine of 4,096 cpus takes 6 MiB, 63 kB packed

# Of these files only the lines that begin so are kept; they hold much that is nobody's business.
KEPT_LINES = {
    "proc/self/status": ("Cpus_allowed", "Mems_allowed"),
    "proc/meminfo": ("MemTotal",),
    "proc/stat": ("cpu",),
}
# Of GPUs' files these lines, and those that name one GPU of all the world's with the host's name.
KEPT_OF_GPUS = (
    ("driver/nvidia/gpus/", ("Device Minor",), ("GPU UUID",)),
    ("kfd/topology/nodes/", ("simd_count", "location_id", "domain"), ("unique_id",)),
)
KEPT_NAMES = {"proc/self": ("numa_maps",)}
NAMES = ("proc/sys/kernel/hostname", "sysctl/kern.hostname", "generic/hostname")


def make_snapshot(system: str, root: SnapshotRoot, *, with_name: bool) -> bytes:
    """The file's bytes; the same for the same content. The host's name only `with_name`."""
    data = {
        "ompbind_snapshot": SCHEMA,
        "system": system,
        "files": {
            path: redact(path, text, with_name=with_name)
            for path, text in sorted(root.files.items())
            if with_name or path not in NAMES
        },
        "directories": {
            path: [n for n in names if n in KEPT_NAMES.get(path, names)]
            for path, names in sorted(root.directories.items())
        },
        "links": dict(sorted(root.links.items())),
    }
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    return packer.compress(json.dumps(data).encode()) + packer.flush()


def redact(path: str, text: str, *, with_name: bool = False) -> str:
    """What of a file belongs to a machine's topology."""
    lines = text.splitlines(keepends=True)
    if path in KEPT_LINES:
        lines = [line for line in lines if line.startswith(KEPT_LINES[path])]
        if path == "proc/stat":  # the cpus' numbers; their times say nothing about the machine
            lines = [line.split(" ", 1)[0] + " 0\n" for line in lines]
        return "".join(lines)
    if path == "proc/self/cgroup":
        return "".join(line for line in lines if is_wanted_cgroup(line))
    for place, wanted, naming in KEPT_OF_GPUS:
        if place in path:
            kept = (*wanted, *naming) if with_name else wanted
            return "".join(line for line in lines if line.startswith(kept))
    if path.endswith("/meminfo"):
        return "".join(line for line in lines if "MemTotal" in line)
    if path in ("proc/self/mountinfo", "proc/self/mounts", "proc/mounts"):
        return "".join(line for line in lines if " cgroup" in line or " cpuset " in line)
    return text


def is_wanted_cgroup(line: str) -> bool:
    """`4:cpuset:/path`, `1:cpu,cpuacct:/path` and `0::/path` are; others only tell of the host."""
    controllers = line.split(":", 2)[1:2]
    return bool(controllers) and bool({"", "cpu", "cpuset"} & set(controllers[0].split(",")))


def parse_snapshot(data: bytes) -> tuple[str, SnapshotRoot]:
    """The system's name and the root. Raises TopologyError."""
    return parse_text(unpack(data))


def unpack(data: bytes) -> bytes:
    """The text in a gzip file, not more of it than a machine can need. Raises TopologyError."""
    unpacker = zlib.decompressobj(31)
    try:
        text = unpacker.decompress(data, LARGEST_TEXT)
    except zlib.error as e:
        raise TopologyError(f"the snapshot is damaged: {e}") from None
    if unpacker.unconsumed_tail:
        raise TopologyError(f"the snapshot unpacks to more than {LARGEST_TEXT >> 20} MiB")
    if not unpacker.eof:
        raise TopologyError("the snapshot is cut short")
    return text


def parse_text(text: bytes) -> tuple[str, SnapshotRoot]:
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as e:
        raise TopologyError(f"the snapshot is damaged: {e}") from None
    if not isinstance(data, dict) or "ompbind_snapshot" not in data:
        raise TopologyError("this is not a snapshot", hint="ompbind topo --save FILE writes one")
    if data["ompbind_snapshot"] != SCHEMA:
        raise TopologyError("the snapshot is of a later version", hint="update ompbind")
    files, links = texts_of(data, "files"), texts_of(data, "links")
    directories: dict[str, list[str]] = {}
    for path, names in object_of(data, "directories").items():
        if not isinstance(names, list) or not all(isinstance(n, str) for n in names):
            raise TopologyError(f"the snapshot is damaged: directories[{path[:60]!r}]")
        directories[path] = names
    system = data.get("system")
    if not isinstance(system, str):
        raise TopologyError("the snapshot is damaged: it does not name a system")
    return system, SnapshotRoot(files, directories, links)


def object_of(data: dict[str, Any], key: str) -> dict[str, Any]:
    value = data.get(key)
    if not isinstance(value, dict):
        raise TopologyError(f"the snapshot is damaged: {key} is not an object")
    return value


def texts_of(data: dict[str, Any], key: str) -> dict[str, str]:
    value = object_of(data, key)
    if not all(isinstance(v, str) for v in value.values()):
        raise TopologyError(f"the snapshot is damaged: {key} holds something else than texts")
    return value
