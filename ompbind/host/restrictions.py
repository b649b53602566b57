"""Restrictions that held before ompbind started, and who probably made them. Pure.

Sources: Slurm's srun(1) for its variables, the kernel's cgroup paths as docker, podman, kubernetes,
Slurm and systemd make them, systemd.exec(5) for CPUAffinity.
"""

from __future__ import annotations

from ompbind.cpuset import CpuSet
from ompbind.errors import PlanError
from ompbind.plans import Inherited

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from ompbind.machine.surroundings import Surroundings
    from ompbind.machine.topology import Topology

MASK, CPUSET, MEMS, POLICY = "affinity mask", "cpuset", "memory nodes", "memory policy"
RESETTABLE = (MASK, POLICY)  # a process may undo them for its children, but not the others
WIDENED = "widened"

# What a cgroup's path contains, and who makes such paths.
MAKERS = (
    ("kubepods", "kubernetes"),
    ("docker", "docker"),
    ("libpod", "podman"),
    ("containerd", "containerd"),
    ("crio", "CRI-O"),
    ("lxc", "LXC"),
    ("slurm", "Slurm"),
    (".service", "systemd"),
    (".scope", "systemd"),
    (".slice", "systemd"),
)


def find_restrictions(
    surroundings: Surroundings, topology: Topology, environ: Mapping[str, str]
) -> tuple[Inherited, ...]:
    """Return what restricts this process: name, what remains, "respected", and by whom."""
    restrictions = []
    online, nodes = topology.online, topology.node_numbers
    cpuset = online if surroundings.cpuset is None else online & surroundings.cpuset
    if cpuset and cpuset != online:
        restrictions.append(
            Inherited(CPUSET, f"{cpuset}", "respected", explain_cgroup(surroundings, environ))
        )
    mask = cpuset if surroundings.mask is None else online & surroundings.mask
    if mask and cpuset - mask:
        restrictions.append(
            Inherited(MASK, f"{mask}", "respected", explain_mask(surroundings, topology, environ))
        )
    mems = nodes if surroundings.mems is None else nodes & surroundings.mems
    if mems and mems != nodes:
        restrictions.append(
            Inherited(MEMS, f"{mems}", "respected", explain_cgroup(surroundings, environ))
        )
    if surroundings.policy not in ("", "default"):
        restrictions.append(
            Inherited(
                POLICY, surroundings.policy, "respected", explain_policy(surroundings, environ)
            )
        )
    return tuple(restrictions)


def refuse_restrictions(restrictions: tuple[Inherited, ...]) -> None:
    """Raises PlanError if the affinity mask or the memory policy is restricted."""
    for r in restrictions:
        if r.name in RESETTABLE:
            problem = f"the {r.name} is restricted to {r.value} (by {r.why})"
            hint = "--inherited intersect plans within it, --inherited ignore resets it"
            raise PlanError(f"--inherited error: {problem}", hint=hint, wanted=r.name)


def can_be_reset(restrictions: tuple[Inherited, ...]) -> bool:
    """Whether a restriction among these ends when ompbind resets its own mask and memory policy."""
    return any(r.name in RESETTABLE for r in restrictions)


def mark_reset(restrictions: tuple[Inherited, ...]) -> tuple[Inherited, ...]:
    """Return the restrictions, those that --inherited ignore resets marked so."""
    return tuple(r.replace(action=WIDENED) if r.name in RESETTABLE else r for r in restrictions)


def explain_mask(surroundings: Surroundings, topology: Topology, environ: Mapping[str, str]) -> str:
    """Say who restricted the affinity mask to less than the cpuset, to be read after "by"."""
    online = topology.online
    mask = online & (surroundings.mask or CpuSet())
    cpuset = online if surroundings.cpuset is None else online & surroundings.cpuset
    if launcher := find_launcher(environ):
        return launcher
    if topology.isolated and cpuset - mask == cpuset & topology.isolated:
        return "the kernel, which keeps isolated cpus out (isolcpus=)"
    if surroundings.parent_mask is not None and online & surroundings.parent_mask != mask:
        by = f" after {surroundings.parent}" if surroundings.parent else ""
        return f"the command that started it{by}, as taskset and numactl do"
    if not surroundings.parent and surroundings.parent_mask is None:
        return "an unknown process (its files were not read)"
    parent = surroundings.parent or "its parent"
    if unit := find_unit(surroundings.groups):
        return f"{parent} or whoever started it (systemd's CPUAffinity= of {unit}?)"
    return f"{parent} or whoever started it: it has the same mask (taskset or numactl around it?)"


def find_launcher(environ: Mapping[str, str]) -> str:
    """Return the launcher that binds, by the variables that it sets; ""."""
    bind = environ.get("SLURM_CPU_BIND", "")
    if "SLURM_STEP_ID" in environ and not bind.startswith(("none", "quiet,none", "verbose,none")):
        setting = f" (SLURM_CPU_BIND={bind})" if bind else ""
        return f"Slurm{setting}; srun --cpu-bind=none leaves the mask alone"
    if "OMPBIND_CPUS" in environ:
        return f"ompbind: this runs inside rank {environ.get('OMPBIND_RANK', '?')} of a launch"
    if "OMPI_COMM_WORLD_RANK" in environ:
        return "Open MPI; mpirun --bind-to none leaves the mask alone"
    if "PMI_RANK" in environ or "MPI_LOCALRANKID" in environ:
        return "MPICH's or Intel's mpiexec; -bind-to none leaves the mask alone"
    return ""


def explain_cgroup(surroundings: Surroundings, environ: Mapping[str, str]) -> str:
    """Say who made the cgroup, by its own path: under version 1 a process is also in cgroups of
    other controllers, made by others."""
    for part, name in MAKERS:
        if part in surroundings.group:
            return f"{name}: cgroup {surroundings.group}"
    if surroundings.group not in ("", "/"):
        return f"cgroup {surroundings.group}"
    if ".dockerenv" in surroundings.files:
        return "docker (--cpuset-cpus, --cpuset-mems)"
    if surroundings.files:
        return "podman (--cpuset-cpus, --cpuset-mems)"
    if "KUBERNETES_SERVICE_HOST" in environ:
        return "kubernetes"
    if "SLURM_JOB_ID" in environ:
        return f"Slurm: job {environ['SLURM_JOB_ID']}"
    return "a cgroup above the visible one"


def explain_policy(surroundings: Surroundings, environ: Mapping[str, str]) -> str:
    """Say who set the memory policy."""
    if environ.get("SLURM_MEM_BIND", "none") not in ("", "none"):
        return f"Slurm (SLURM_MEM_BIND={environ['SLURM_MEM_BIND']})"
    if "OMPBIND_MEM" in environ:
        return f"ompbind: this runs inside rank {environ.get('OMPBIND_RANK', '?')} of a launch"
    return "the command that started it, as numactl does"


def find_unit(groups: tuple[str, ...]) -> str:
    """Return the systemd service that a cgroup belongs to; ""."""
    for path in groups:
        for part in reversed(path.split("/")):
            if part.endswith(".service") and not part.startswith("user@"):
                return part
    return ""
