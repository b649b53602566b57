"""The machines of a cluster's hosts, each distinct snapshot read once."""

from __future__ import annotations

import hashlib
import os

from ompbind.cluster.hosts import Host
from ompbind.errors import TopologyError, UsageError
from ompbind.hostlist import format_hostlist
from ompbind.machine.description import add_path, is_line, read_file
from ompbind.machine.formats import is_archive, is_gzip
from ompbind.messages import quote
from ompbind.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ompbind.machine.topology import Machine

COLLECT = "srun --ntasks-per-node=1 ompbind topo --save {}/%N writes them"


class Described(Record):
    """Hosts with one description: their positions in the list, the path of the first one's
    description (None: the running machine), and the machine."""

    positions: tuple[int, ...]
    path: str | None
    machine: Machine
    kind: str | None = None  # the path of their kind's description, where the list names one


def read_machines(
    hosts: Sequence[Host], topology: str | None, read: Callable[[str | None], Machine]
) -> list[Described]:
    """Return what is described, the most frequent description first.

    `topology`: one machine's description for all hosts, or a directory with a description for each
    host, under its name; None: the running machine's. `read` returns the machine that a path
    describes. Raises TopologyError, UsageError.
    """
    folder = topology if topology is not None and is_folder(topology) else None
    paths: list[str | None]
    if folder is None:
        paths = [host.kind or topology for host in hosts]
    else:
        names = find_descriptions(folder)
        paths = [
            os.path.join(folder, names[host.name]) if host.name in names else host.kind
            for host in hosts
        ]
        missing = [host.name for host, path in zip(hosts, paths, strict=True) if path is None]
        if missing:
            raise UsageError(
                f"--topology {quote(folder, 400)} has no snapshot of {shorten(missing)}",
                hint=COLLECT.format(folder),
            )
    return read_distinct(hosts, paths, read)


def read_distinct(
    hosts: Sequence[Host], paths: Sequence[str | None], read: Callable[[str | None], Machine]
) -> list[Described]:
    """Read each distinct description of these paths, one for each host."""
    key_of: dict[str | None, object] = {}
    groups: dict[tuple[object, str | None], list[int]] = {}
    for position, (host, path) in enumerate(zip(hosts, paths, strict=True)):
        if path not in key_of:
            key_of[path] = make_key(path)
        groups.setdefault((key_of[path], host.kind), []).append(position)
    machines: dict[object, Machine] = {}
    described = []
    for (key, kind), positions in groups.items():
        path = paths[positions[0]]
        if key not in machines:
            machines[key] = read(path)
        described.append(Described(tuple(positions), path, machines[key], kind))
    return sorted(described, key=lambda d: (-len(d.positions), d.positions))


def make_key(path: str | None) -> object:
    """Return a value that is the same for descriptions of equal machines, at least where they are
    equal files. Snapshots of a job's hosts differ in what does not matter."""
    if path is None or os.path.isdir(path) or is_line(path):
        return path
    try:
        data = read_file(path)
    except TopologyError as e:
        raise add_path(e, path) from None
    if is_gzip(data) and not is_archive(data):
        from ompbind.machine.snapshot import make_comparable, unpack

        try:
            data = make_comparable(unpack(data))
        except TopologyError as e:
            raise add_path(e, path) from None
    return hashlib.sha256(data).digest()


def is_folder(path: str) -> bool:
    """Whether it is a directory of descriptions, and not one that holds a machine's sys."""
    holds_machine = any(os.path.isdir(os.path.join(path, p)) for p in ("sys", "fsroot/sys"))
    return os.path.isdir(path) and not holds_machine


def find_descriptions(folder: str) -> dict[str, str]:
    """Return the names in a directory by the host that they describe: `n1`, `n1.topo`, `n1.xml`."""
    try:
        names = sorted(os.listdir(folder))
    except OSError as e:
        raise UsageError(f"--topology {quote(folder, 400)}: {e.strerror}") from None
    by_host = {os.path.splitext(n)[0]: n for n in names if n.endswith((".topo", ".xml"))}
    return by_host | {name: name for name in names}


def shorten(hosts: Sequence[str], most: int = 8) -> str:
    """Return hosts in brackets, cut where they are many."""
    text = format_hostlist(hosts)
    parts = format_hostlist(hosts[:most])
    return text if len(text) <= 120 else f"{parts} and {len(hosts) - most} more"
