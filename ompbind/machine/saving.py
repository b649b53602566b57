"""Save a machine: what was read of it, in a snapshot."""

from __future__ import annotations

import json

from ompbind.errors import TopologyError
from ompbind.machine import read_system, running_system
from ompbind.machine.description import MEASUREMENT, add_path, open_description
from ompbind.machine.measurement import to_dict
from ompbind.machine.roots import RecordingRoot
from ompbind.machine.snapshot import make_snapshot
from ompbind.machine.surroundings import CONTAINER_FILES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ompbind.machine.measurement import Measurement
    from ompbind.machine.topology import Machine


def pack_machine(
    path: str | None, *, with_name: bool, measured: Measurement | None = None
) -> tuple[bytes, Machine]:
    """Return the snapshot of the running machine, or of that whose files `path` has, and the
    machine; with what was measured of it, now or when those were saved. Raises TopologyError."""
    try:
        source = running_system() if path is None else open_description(path)
        if not isinstance(source, tuple):
            raise TopologyError("only a machine's own files can be saved, and this is none of them")
        system, root = source[0], RecordingRoot(source[1])
        machine = read_system(system, root, details=True)
        if system == "linux":
            for name in CONTAINER_FILES:  # who restricted it, for plans elsewhere
                root.read(name)
        if measured is not None:
            root.files[MEASUREMENT] = json.dumps(to_dict(measured))
        elif path is not None:
            root.read(MEASUREMENT)
    except TopologyError as e:
        raise (e if path is None else add_path(e, path)) from None
    return make_snapshot(system, root, with_name=with_name), machine


def save_machine(
    file: str, path: str | None, *, with_name: bool, measured: Measurement | None = None
) -> Machine:
    """Write the snapshot of a machine to a file, which `read_machine` can read. Raises
    TopologyError, also when it cannot be written."""
    data, machine = pack_machine(path, with_name=with_name, measured=measured)
    try:
        with open(file, "wb") as out:
            out.write(data)
    except OSError as e:
        raise TopologyError(f"--save {file}: {e.strerror}") from None
    return machine
