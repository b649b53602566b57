"""What speaks against binding a running process: threads with places of their own, cpus and nodes
that its cgroup does not allow, and leases of other launches."""

from __future__ import annotations

from ompbind.cpuset import CpuSet, union
from ompbind.errors import PlanError
from ompbind.host import find_threads
from ompbind.host.holders import read_lease, read_leases
from ompbind.host.launches import subtract
from ompbind.messages import label, one_line
from ompbind.rebind.families import describe
from ompbind.verify.lineage import Lineage
from ompbind.worker.runtimes import select_runtimes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ompbind.machine.processes import Process, ProcessId
    from ompbind.machine.roots import LivingRoot
    from ompbind.machine.topology import Machine
    from ompbind.plans import RankPlan

# By which OpenMP runtimes bind their threads, and values with which they do not.
BINDING_VARIABLES = ("OMP_PLACES", "GOMP_CPU_AFFINITY", "KMP_AFFINITY", "OMP_PROC_BIND")
UNBOUND = ("", "false", "none", "disabled")
FORCE = "--force binds all threads of a rank to all of its cpus"


def find_places(process: Process, online: CpuSet) -> str:
    """Return how a process's threads come to places of their own, "" where they have none."""
    masks = [t.cpus & online for t in process.threads]
    narrow = {mask for mask in masks if mask and mask != union(masks)}
    if narrow:
        number = sum(mask in narrow for mask in masks)
        have, their = ("have places", "their") if number > 1 else ("has a place", "its")
        where = label("cpu", union(narrow))
        return f"{number} of {len(masks)} threads {have} of {their} own, {where}"
    environ = dict(process.environ or ())
    if environ.get("OMP_PROC_BIND", "").strip().lower() == "false":
        return ""
    for name in BINDING_VARIABLES if select_runtimes(process.libraries) else ():
        if environ.get(name, "").strip().lower() not in UNBOUND:
            return f"its OpenMP runtime binds threads by {name}={one_line(environ[name])}"
    return ""


def find_conflict(process: Process, cpus: CpuSet, online: CpuSet) -> str:
    """Return why a process's threads are better not bound to a rank's cpus; "" where nothing speaks
    against it, or all are bound so already."""
    if all(thread.cpus & online == cpus for thread in process.threads):
        return ""
    return find_places(process, online)


def check_limits(process: Process, rank: RankPlan, nodes: CpuSet) -> None:
    """Refuse cpus and memory nodes of a plan that a process's cgroup does not allow. Raises
    PlanError."""
    for noun, wanted, allowed in (
        ("cpu", rank.cpus, process.cpuset),
        ("memory node", nodes, process.mems),
    ):
        if allowed is not None and not wanted <= allowed:
            raise PlanError(
                f"rank {rank.rank}: {describe(process)} may not use "
                f"{label(noun, wanted - allowed)} of the plan: its cgroup allows {allowed}",
                hint="plan with what it allows: --numa-bind-cpus, --numa-bind-nodes",
                rank=rank.rank,
                wanted=wanted,
                available=allowed,
            )


def read_leases_of(root: LivingRoot, named: Sequence[ProcessId]) -> dict[int, CpuSet]:
    """Return the cpus that ranks of ompbind hold to which these processes belong, by the pid of
    the rank's own process."""
    lineage = Lineage(root)
    leases: dict[int, CpuSet] = {}
    for process in named:
        rank = lineage.find_rank(process.pid)
        if lineage.find_claim(process.pid) is None or rank in leases:
            continue
        try:
            held = read_lease(root, rank)
        except OSError:
            continue
        if held:
            leases[rank] = held
    return leases


def find_held(root: LivingRoot, machine: Machine, cpus: CpuSet, leases: Sequence[CpuSet]) -> CpuSet:
    """Return the hardware threads of the cores of `cpus` on which there are leases other than
    these."""
    return subtract(read_leases(root), leases) & find_threads(cpus, machine)
