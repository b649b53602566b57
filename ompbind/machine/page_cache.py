"""Where the pages of a file are in memory, and which processes have it mapped.

Sources: numa(7) for numa_maps, which counts the pages of a mapping by node; proc_pid_maps(5).
"""

from __future__ import annotations

import os

from ompbind.cpuset import parse_whole
from ompbind.machine.regions import parse_regions

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ompbind.machine.roots import LivingRoot

WRITTEN = {ord(c): f"\\{ord(c):03o}" for c in "\n\t= "}  # the kernel's show_numa_map()


def read_mapped_nodes(root: LivingRoot, fd: int) -> dict[int, int]:
    """Return how many bytes of the file at this descriptor are mapped into this process, by node.
    Raises OSError."""
    name = root.resolve(f"proc/self/fd/{fd}")
    if not name:
        return {}
    # As numa_maps has it: some bytes in octal, but a backslash as it is, so no way back is sure.
    word = b" file=" + os.fsencode(name.translate(WRITTEN)) + b" "
    numa_maps = root.read_whole("proc/self/numa_maps")
    lines = (line for line in numa_maps.split(b"\n") if word in line + b" ")
    sizes: dict[int, int] = {}
    for region in parse_regions(b"\n".join(lines)):
        for node, count in region.pages:
            sizes[node] = sizes.get(node, 0) + count * region.page
    return sizes


def find_mappers(root: LivingRoot, fd: int, but: int) -> list[tuple[int, str]]:
    """Return the processes, with their names, that have the file at this descriptor mapped, as far
    as this user may see that; without the process `but`. Raises OSError."""
    mappers = []
    path, inode = root.resolve(f"proc/self/fd/{fd}") or "", os.fstat(fd).st_ino
    ending = f" {path}".encode("utf-8", "surrogateescape")
    number = f" {inode} ".encode()
    for name in root.names("proc"):
        pid = parse_whole(name)
        if pid is None or pid == but:
            continue
        try:
            maps = root.read_whole(f"proc/{pid}/maps")
        except OSError:  # it has exited, or is somebody else's
            continue
        if any(number in line and line.endswith(ending) for line in maps.splitlines()):
            mappers.append((pid, (root.read(f"proc/{pid}/comm") or "").strip()))
    return mappers
