"""A machine that is not the running one: what describes it, and what that is.

A directory with its files, a file of one of several kinds, which are told apart by how they begin,
standard input, or a line in hwloc's synthetic notation.
"""

from __future__ import annotations

import os

from ompbind.errors import TopologyError
from ompbind.inputs import STANDARD_INPUT, is_standard_input, read_input
from ompbind.machine.formats import is_archive, is_gzip
from ompbind.machine.roots import DirectoryRoot
from ompbind.messages import cut

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ompbind.machine.roots import Root
    from ompbind.machine.topology import Machine

HINT = (
    "give a file of ompbind topo --save or --format json, hwloc's XML, an archive of "
    "hwloc-gather-topology, a directory that holds a machine's sys and proc, or hwloc's notation, "
    "as in 'package:2 core:8 pu:2'"
)
MEASUREMENT = "ompbind/measured.json"  # in a snapshot or a directory, beside the machine's files
MAX_FILE_BYTES = 64 << 20  # of a file that describes a machine


def open_description(path: str) -> tuple[str, Root] | Machine:
    """Return the machine that `path` describes, or, where that is its files, the name of its system
    and their root. Raises TopologyError."""
    if is_line(path):
        from ompbind.machine.synthetic import parse_synthetic

        return parse_synthetic(path)
    if os.path.isdir(path) and not is_standard_input(path):
        return "linux", find_directory(path)
    data = read_file(path)
    start = data.lstrip()[:1]
    if start == b"<":
        from ompbind.machine.hwloc import parse_xml

        return parse_xml(data)
    if start in (b"{", b"["):
        from ompbind.machine.topology_json import parse_json

        return parse_json(data)
    if is_archive(data):
        from ompbind.machine.archive import parse_archive

        return "linux", parse_archive(data)
    if is_gzip(data):
        from ompbind.machine.snapshot import parse_snapshot

        return parse_snapshot(data)
    raise TopologyError("it does not describe a machine", hint=HINT)


def is_line(path: str) -> bool:
    """Whether it is a machine in one line, and not the name of a file."""
    if os.path.lexists(path) or is_standard_input(path):
        return False
    from ompbind.machine.synthetic import is_synthetic

    return is_synthetic(path)


def find_directory(path: str) -> Root:
    """Return the root in a directory: itself, or its `fsroot`. Raises TopologyError."""
    for directory in (path, os.path.join(path, "fsroot")):
        try:
            os.listdir(os.path.join(directory, "sys"))
        except PermissionError as e:
            raise TopologyError(f"{directory}: {e.strerror}") from None
        except OSError:
            continue  # no such directory: the next one, or the error below
        return DirectoryRoot(directory)
    raise TopologyError("has no sys directory")


def read_file(path: str) -> bytes:
    """Return the bytes of a file, or of standard input. Raises TopologyError, also for more than
    any machine needs."""
    try:
        data = read_input(path, MAX_FILE_BYTES + 1)
    except OSError as e:
        raise TopologyError(e.strerror or str(e)) from None
    if not data:
        raise TopologyError("the file is empty")
    if len(data) > MAX_FILE_BYTES:
        raise TopologyError(f"the file is larger than {MAX_FILE_BYTES >> 20} MiB")
    return data


def add_path(error: TopologyError, path: str) -> TopologyError:
    """Return the error with the file or directory it is about."""
    name = STANDARD_INPUT if is_standard_input(path) else cut(path, 400)
    return TopologyError(f"{name}: {error.message}", hint=error.hint or HINT, **error.data)
