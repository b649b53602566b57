"""What was narrowed before ompbind started, and by whom as far as that can be told; pure.

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

    from ompbind.machine.limits import Surroundings
    from ompbind.machine.topology import Topology

MASK, CPUSET, MEMS, POLICY = "affinity mask", "cpuset", "memory nodes", "memory policy"
RESETTABLE = (MASK, POLICY)  # a process may undo them for its children, but not the others
WIDENED = "widened"

# How paths of cgroups tell who made them: a part of the path, and who that is.
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


def find_narrowed(
    found: Surroundings, topology: Topology, environ: Mapping[str, str]
) -> tuple[Inherited, ...]:
    """What is narrower than the machine: its name, what is left, "respected", and by whom."""
    told = []
    online, nodes = topology.online, topology.node_numbers
    cpuset = online if found.cpuset is None else online & found.cpuset
    if cpuset and cpuset != online:
        told.append(Inherited(CPUSET, f"{cpuset}", "respected", who_grouped(found, environ)))
    mask = cpuset if found.mask is None else online & found.mask
    if mask and cpuset - mask:
        told.append(Inherited(MASK, f"{mask}", "respected", who_masked(found, topology, environ)))
    mems = nodes if found.mems is None else nodes & found.mems
    if mems and mems != nodes:
        told.append(Inherited(MEMS, f"{mems}", "respected", who_grouped(found, environ)))
    if found.policy not in ("", "default"):
        told.append(Inherited(POLICY, found.policy, "respected", who_set(found, environ)))
    return tuple(told)


def refuse(narrowed: tuple[Inherited, ...]) -> None:
    """Raises PlanError where the mask or the memory policy is among what was narrowed."""
    for n in narrowed:
        if n.name in RESETTABLE:
            problem = f"the {n.name} was narrowed before: {n.value} is left (by {n.why})"
            hint = "--inherited intersect plans inside it, --inherited ignore resets it"
            raise PlanError(f"--inherited error: {problem}", hint=hint, wanted=n.name)


def can_be_reset(narrowed: tuple[Inherited, ...]) -> bool:
    """Whether a restriction among these ends when ompbind resets its own mask and memory policy."""
    return any(n.name in RESETTABLE for n in narrowed)


def widened(narrowed: tuple[Inherited, ...]) -> tuple[Inherited, ...]:
    """The same where the mask and the memory policy are reset."""
    return tuple(n.replace(action=WIDENED) if n.name in RESETTABLE else n for n in narrowed)


def who_masked(found: Surroundings, topology: Topology, environ: Mapping[str, str]) -> str:
    """Who narrowed the affinity mask, below the cpuset."""
    online = topology.online
    mask = online & (found.mask or CpuSet())
    cpuset = online if found.cpuset is None else online & found.cpuset
    if named := launcher_of(environ):
        return named
    if topology.isolated and cpuset - mask == cpuset & topology.isolated:
        return "the kernel: what is left out are isolated cpus (isolcpus=)"
    if found.parent_mask is not None and online & found.parent_mask != mask:
        by = f" after {found.parent}" if found.parent else ""
        return f"the command that started it{by}, as taskset and numactl do"
    unit = unit_of(found.groups)
    if unit:
        return f"inherited from {found.parent or 'its parent'}: systemd's CPUAffinity= of {unit}?"
    by = found.parent or "its parent"
    return f"inherited from {by}, which has the same mask (taskset or numactl around it?)"


def launcher_of(environ: Mapping[str, str]) -> str:
    """The launcher that says in the environment that it binds; ""."""
    bind = environ.get("SLURM_CPU_BIND", "")
    if "SLURM_STEP_ID" in environ and not bind.startswith(("none", "quiet,none", "verbose,none")):
        how = f" (SLURM_CPU_BIND={bind})" if bind else ""
        return f"Slurm{how}; srun --cpu-bind=none leaves the mask alone"
    if "OMPBIND_CPUS" in environ:
        return f"ompbind: this runs inside rank {environ.get('OMPBIND_RANK', '?')} of a launch"
    if "OMPI_COMM_WORLD_RANK" in environ:
        return "Open MPI; mpirun --bind-to none leaves the mask alone"
    if "PMI_RANK" in environ or "MPI_LOCALRANKID" in environ:
        return "MPICH's or Intel's mpiexec; -bind-to none leaves the mask alone"
    return ""


def who_grouped(found: Surroundings, environ: Mapping[str, str]) -> str:
    """Who made the cgroup."""
    for path in found.groups:
        for part, name in MAKERS:
            if part in path:
                return f"{name}: cgroup {path}"
    if found.groups[:1] not in ((), ("/",)):
        return f"cgroup {found.groups[0]}"
    if ".dockerenv" in found.files:
        return "docker (--cpuset-cpus, --cpuset-mems)"
    if found.files:
        return "podman (--cpuset-cpus, --cpuset-mems)"
    if "KUBERNETES_SERVICE_HOST" in environ:
        return "kubernetes"
    if "SLURM_JOB_ID" in environ:
        return f"Slurm: job {environ['SLURM_JOB_ID']}"
    return "a cgroup above the one that can be seen"


def who_set(found: Surroundings, environ: Mapping[str, str]) -> str:
    """Who set the memory policy."""
    if environ.get("SLURM_MEM_BIND", "none") not in ("", "none"):
        return f"Slurm (SLURM_MEM_BIND={environ['SLURM_MEM_BIND']})"
    if "OMPBIND_MEM" in environ:
        return f"ompbind: this runs inside rank {environ.get('OMPBIND_RANK', '?')} of a launch"
    return "the command that started it, as numactl does"


def unit_of(groups: tuple[str, ...]) -> str:
    """systemd's service that a cgroup is in; ""."""
    for path in groups:
        for part in reversed(path.split("/")):
            if part.endswith(".service") and not part.startswith("user@"):
                return part
    return ""
