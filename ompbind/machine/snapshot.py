"""Snapshots: what the readers read, in one small file for plans and bug reports.

The file is JSON in gzip: `files`, `directories` and `links` by path. Nothing is unpacked to disk,
so no path in it can do harm.
"""

from __future__ import annotations

import json
import re
import zlib

from ompbind.errors import TopologyError
from ompbind.machine.details import CPUINFO, FIELDS, find_s390_machines
from ompbind.machine.roots import SnapshotRoot
from ompbind.machine.surroundings import CONTAINER_FILES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

SCHEMA = 1
# Python's objects take up to 25 bytes for each byte of JSON, so both are bounded, unpacked. A
# machine of 4,096 cpus takes 6 MiB (63 kB packed) and 50,000 lists and objects.
MAX_TEXT_BYTES = 16 << 20
MAX_CONTAINERS = 1_000_000

# Only lines that begin so are kept of these files, which also have private information.
KEPT_LINES = {
    "proc/self/status": ("Cpus_allowed", "Mems_allowed"),
    "proc/meminfo": ("MemTotal",),
    "proc/stat": ("cpu",),
    CPUINFO: FIELDS,
}
# Of GPUs' files these lines, and with the host's name those that identify a GPU worldwide.
KEPT_OF_GPUS = (
    ("driver/nvidia/gpus/", ("Device Minor", "Node", "Status"), ("GPU UUID",)),
    ("kfd/topology/nodes/", ("simd_count", "location_id", "domain"), ("unique_id",)),
)
# What differs between the snapshots of equal machines, as it stands in the JSON: the number of a
# task in Slurm's name of its cgroup, and in sizes of memory what firmware keeps.
VARYING = ((rb"/task_\d+", b"/task_"), (rb"(MemTotal: *\d{3})\d*", rb"\1"))
# In the list of mounts: their numbers and those of devices and of peers, proc_pid_mountinfo(5).
MOUNTS = b'"proc/self/mountinfo": "'
VARYING_OF_MOUNTS = ((rb"\d+ \d+ \d+:\d+ /", b"/"), (rb" (shared|master):\d+", rb" \1:"))
KEPT_NAMES = {"proc/self": ("numa_maps",)}
NAMES = ("proc/sys/kernel/hostname", "sysctl/kern.hostname", "generic/hostname")


def make_snapshot(system: str, root: SnapshotRoot, *, with_name: bool) -> bytes:
    """Return the file's bytes, the same for the same content; the host's name only `with_name`."""
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
    """Return the part of a file that describes the machine's topology."""
    if path in CONTAINER_FILES:
        return ""  # podman's names the container and its image
    lines = text.splitlines(keepends=True)
    if path in KEPT_LINES:
        lines = [line for line in lines if line.startswith(KEPT_LINES[path])]
        if path == "proc/stat":  # only the cpus' numbers, not their times
            lines = [line.split(" ", 1)[0] + " 0\n" for line in lines]
        if path == CPUINFO:  # POWER's `cpu` must not keep x86's `cpu MHz`
            lines = [line for line in lines if line.partition(":")[0].strip() in KEPT_LINES[path]]
            lines = list_processors(lines)
            lines += [f"machine : {number}\n" for number in find_s390_machines(text)]
        return "".join(lines)
    if path == "proc/self/cgroup":
        return "".join(line for line in lines if is_wanted_cgroup(line))
    for directory, wanted, naming in KEPT_OF_GPUS:
        if directory in path:
            kept = (*wanted, *naming) if with_name else wanted
            return "".join(line for line in lines if line.startswith(kept))
    if path.endswith("/meminfo"):
        return "".join(line for line in lines if "MemTotal" in line)
    if path in ("proc/self/mountinfo", "proc/self/mounts", "proc/mounts"):
        return "".join(line for line in lines if " cgroup" in line or " cpuset " in line)
    return text


def list_processors(lines: list[str]) -> list[str]:
    """Return the lines of each kind of processor once, an empty line after each kind."""
    kinds: dict[tuple[str, ...], None] = {}
    kind: dict[str, str] = {}
    for line in lines:
        name = line.partition(":")[0].strip()
        if name in kind:
            kinds[tuple(kind.values())] = None
            kind = {}
        kind[name] = line
    kinds[tuple(kind.values())] = None
    return [line for kind_lines in kinds for line in (*kind_lines, "\n")] if lines else []


def is_wanted_cgroup(line: str) -> bool:
    """Whether a line is needed: `4:cpuset:/path`, `1:cpu,cpuacct:/path` and `0::/path` are."""
    controllers = line.split(":", 2)[1:2]
    return bool(controllers) and bool({"", "cpu", "cpuset"} & set(controllers[0].split(",")))


def parse_snapshot(data: bytes) -> tuple[str, SnapshotRoot]:
    """Return the system's name and the root. Raises TopologyError."""
    return parse_text(unpack(data))


def make_comparable(text: bytes) -> bytes:
    """Return a snapshot's text without what differs between equal machines of one job: the number
    of the task that wrote it, the numbers of mounts, and all but three digits of memory's sizes.

    Texts of different machines stay different.
    """
    for pattern, replacement in VARYING:
        text = re.sub(pattern, replacement, text)
    start = text.find(MOUNTS) + len(MOUNTS)
    end = text.find(b'"', start)
    if start < len(MOUNTS) or end < 0:
        return text
    mounts = text[start:end]
    for pattern, replacement in VARYING_OF_MOUNTS:
        mounts = re.sub(pattern, replacement, mounts)
    return text[:start] + mounts + text[end:]


def unpack(data: bytes) -> bytes:
    """Return the text in a gzip file. Raises TopologyError, also for more than a machine needs."""
    unpacker = zlib.decompressobj(31)
    try:
        text = unpacker.decompress(data, MAX_TEXT_BYTES)
    except zlib.error as e:
        raise TopologyError(f"the snapshot is damaged: {e}") from None
    if unpacker.unconsumed_tail:
        raise TopologyError(f"the snapshot unpacks to more than {MAX_TEXT_BYTES >> 20} MiB")
    if not unpacker.eof:
        raise TopologyError("the snapshot is truncated")
    return text


def parse_text(text: bytes) -> tuple[str, SnapshotRoot]:
    if text.count(b"[") + text.count(b"{") > MAX_CONTAINERS:
        raise TopologyError("the snapshot is damaged: more lists and objects than any machine has")
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as e:
        raise TopologyError(f"the snapshot is damaged: {e}") from None
    if not isinstance(data, dict) or "ompbind_snapshot" not in data:
        raise TopologyError("this is not a snapshot", hint="ompbind topo --save FILE writes one")
    if data["ompbind_snapshot"] != SCHEMA:
        raise TopologyError("the snapshot has a newer format", hint="update ompbind")
    files, links = get_texts(data, "files"), get_texts(data, "links")
    directories: dict[str, list[str]] = {}
    for path, names in get_object(data, "directories").items():
        if not isinstance(names, list) or not all(isinstance(n, str) for n in names):
            raise TopologyError(f"the snapshot is damaged: directories[{path[:60]!r}]")
        directories[path] = names
    system = data.get("system")
    if not isinstance(system, str):
        raise TopologyError("the snapshot is damaged: it does not name a system")
    return system, SnapshotRoot(files, directories, links)


def get_object(data: dict[str, Any], key: str) -> dict[str, Any]:
    value = data.get(key)
    if not isinstance(value, dict):
        raise TopologyError(f"the snapshot is damaged: {key} is not an object")
    return value


def get_texts(data: dict[str, Any], key: str) -> dict[str, str]:
    value = get_object(data, key)
    if not all(isinstance(v, str) for v in value.values()):
        raise TopologyError(f"the snapshot is damaged: {key} has values that are not texts")
    return value
