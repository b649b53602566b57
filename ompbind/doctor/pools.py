"""Whether a container has cpus of its own, or those of Kubernetes' shared pool. Pure.

Source: Kubernetes' documentation on CPU management policies: only containers of the Guaranteed
class with whole cpus get cpus of their own from the static policy; the kubelet writes all others'
cpusets anew whenever such a container comes or goes.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from ompbind.cpuset import CpuSet
    from ompbind.machine.surroundings import Surroundings

SHARED, EXCLUSIVE = "shared", "exclusive"
# How the kubelet names the cgroups of the classes that never get cpus of their own.
LOWER_CLASSES = ("burstable", "besteffort")


def find_pool(
    surroundings: Surroundings, online: CpuSet, quota: float | None, environ: Mapping[str, str]
) -> str:
    """Return SHARED or EXCLUSIVE for a container of Kubernetes, "" for anything else. `quota`: the
    cgroup's, in cpus' worth of time."""
    of_pods = [path for path in surroundings.groups if "kubepods" in path]
    if not of_pods and "KUBERNETES_SERVICE_HOST" not in environ:
        return ""
    if any(name in path for path in of_pods for name in LOWER_CLASSES):
        return SHARED
    cpus = online if surroundings.cpuset is None else online & surroundings.cpuset
    whole = quota is None or quota == len(cpus)
    return EXCLUSIVE if cpus != online and whole else SHARED
