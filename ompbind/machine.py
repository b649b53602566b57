"""A machine, read from wherever it is described."""

from __future__ import annotations

import os

from ompbind.errors import TopologyError
from ompbind.procfs import read_allowed, read_hostname
from ompbind.root import DirectoryRoot
from ompbind.sysfs import read_topology
from ompbind.topology import LEVELS, Machine

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection

    from ompbind.root import Root
    from ompbind.topology import Level


def read_machine(
    path: str | None = None, levels: Collection[Level] = LEVELS, *, devices: bool = True
) -> Machine:
    """The running machine, or the one whose `sys` and `proc` lie in the directory `path`.

    Levels not asked for are left None, and devices (), unread. Raises TopologyError.
    """
    root = find_root(path)
    try:
        return read_linux(root, levels, devices=devices)
    except TopologyError as e:
        if path is None:
            raise
        raise TopologyError(f"{path}: {e.message}", hint=e.hint, **e.data) from None


def read_linux(root: Root, levels: Collection[Level] = LEVELS, *, devices: bool = True) -> Machine:
    """A Linux machine under any root. Raises TopologyError."""
    topology = read_topology(root, levels, devices=devices)
    return Machine(topology, read_allowed(root, topology), read_hostname(root))


def find_root(path: str | None) -> Root:
    """The root that `path` stands for; None: the running machine. Raises TopologyError."""
    if path is None:
        return DirectoryRoot("/")
    for directory in (path, os.path.join(path, "fsroot")):
        if os.path.isdir(os.path.join(directory, "sys")):
            return DirectoryRoot(directory)
    hint = "give a directory that holds a machine's sys and proc directories"
    what = "holds no sys directory" if os.path.isdir(path) else "is not a directory"
    if not os.path.lexists(path):
        what = "does not exist"
    raise TopologyError(f"{path} {what}", hint=hint, path=path)
