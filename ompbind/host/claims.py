"""Claims on cpus: a lock on each cpu's own directory under `/sys`, held by whoever keeps it open.

There is no file and no daemon, and everybody may lock: the kernel frees a claim when the last
process that has inherited it exits, however it ends. A claim is seen by all who share the same
sysfs, also by other users and in other pid namespaces, but not from a network namespace with a
sysfs of its own, as most containers have. Source: flock(2); measured on Linux 6.18.
"""

from __future__ import annotations

import os

from ompbind.errors import OmpbindError, PlanError
from ompbind.messages import counted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ompbind.cpuset import CpuSet

CPUS = "/sys/devices/system/cpu"


def claim_free(parts: Sequence[CpuSet], *, keep: bool) -> int:
    """Return which of these parts is the first that nobody has claimed. To `keep` it, it is claimed
    for this process and whatever it executes or starts. Raises PlanError where all are claimed,
    OmpbindError where the system has no locks.
    """
    for number, cpus in enumerate(parts):
        held = claim(cpus)
        if held is None:
            continue
        for fd in held:
            if keep:
                os.set_inheritable(fd, True)
            else:
                os.close(fd)
        return number
    raise PlanError(
        f"--part auto/{len(parts)}: {counted(len(parts), 'part')} of the machine, and all are in "
        "use",
        hint="a part is free again when the processes that were started in it have exited",
        wanted=1,
        available=0,
    )


def claim(cpus: CpuSet, root: str = CPUS) -> list[int] | None:
    """Return the descriptors that hold these cpus; None where somebody else holds one of them.

    They are taken in ascending order, so that of two who want overlapping cpus one gets them.
    Raises OmpbindError.
    """
    import fcntl

    held: list[int] = []
    try:
        for cpu in cpus:
            held.append(os.open(f"{root}/cpu{cpu}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
            fcntl.flock(held[-1], fcntl.LOCK_EX | fcntl.LOCK_NB)
        return held
    except BlockingIOError:
        release(held)
        return None
    except OSError as e:
        release(held)
        raise OmpbindError(
            f"--part auto: cpus cannot be claimed here: {e.strerror}", hint="--part 1/2, ..."
        ) from None


def release(held: Sequence[int]) -> None:
    """Give up a claim."""
    for fd in held:
        os.close(fd)
