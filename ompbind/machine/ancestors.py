"""Read the processes above this one: their names, masks and environments.

A separate module from `processes`, which reads everything about a process: a launch under an engine
needs one or two of these files, and waits for every import.
"""

from __future__ import annotations

from ompbind.cpuset import CpuSet, parse_whole
from ompbind.errors import ParseError
from ompbind.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from ompbind.machine.roots import LivingRoot

MOST = 64  # ancestors to look at: a loop of pids, as a copied tree could have one, must end


class Ancestor(Record):
    """This process or one above it. `name`: at most 15 characters, as the kernel keeps it; `cpus`:
    its affinity mask, None where it cannot be read."""

    pid: int
    name: str
    parent: int
    cpus: CpuSet | None


def find_ancestors(root: LivingRoot, pid: int, most: int = MOST) -> Iterator[Ancestor]:
    """Yield the process `pid` and those above it, up to the first that cannot be read.

    In a pid namespace of its own a process may see none; under hidepid those of its user only.
    """
    for _ in range(most):
        if not pid:
            return
        ancestor = read_status(root, str(pid))
        if not ancestor.pid:
            return
        yield ancestor
        pid = ancestor.parent


def read_status(root: LivingRoot, process: str) -> Ancestor:
    """Return a process; pid 0 where its status cannot be read. Source: proc_pid_status(5)."""
    text = root.read(f"proc/{process}/status") or ""
    pid, parent = parse_whole(find_value(text, "Pid")), parse_whole(find_value(text, "PPid"))
    mask = parse_mask(find_value(text, "Cpus_allowed_list"))
    return Ancestor(pid or 0, find_value(text, "Name"), parent or 0, mask)


def find_value(text: str, key: str) -> str:
    """Return the value of a line `key:\tvalue`; "" where there is none. Half of what it takes to
    look at each of the sixty lines, under every rank of an engine."""
    _, _, rest = ("\n" + text).partition(f"\n{key}:")
    return rest.partition("\n")[0].strip()


def parse_mask(text: str) -> CpuSet | None:
    """Return a list of cpus; None where it is empty or garbage, as where it cannot be read."""
    try:
        return CpuSet.parse_kernel(text) or None
    except ParseError:
        return None


def read_variables(root: LivingRoot, pid: int) -> dict[str, str] | None:
    """Return the environment with which a process was started; None if it may not be read."""
    try:
        data = root.read_whole(f"proc/{pid}/environ")
    except OSError:  # another user's, or it has exited
        return None
    pairs = (entry.partition(b"=") for entry in data.split(b"\0") if entry)
    return {k.decode("utf-8", "replace"): v.decode("utf-8", "replace") for k, _, v in pairs}
