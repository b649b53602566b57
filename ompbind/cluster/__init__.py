"""A whole cluster on paper: which of its hosts are alike, and the plan of every rank of a job.

Nothing here talks to a host: machines are read from their descriptions.
"""

from __future__ import annotations

from ompbind.cluster.hosts import read_hosts
from ompbind.cluster.kinds import make_groups
from ompbind.cluster.plan import make_cluster_plan, plan_host
from ompbind.cluster.snapshots import read_machines
from ompbind.machine import read_machine
from ompbind.resolve import apply_inherited

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from ompbind.cluster.plan import ClusterPlan
    from ompbind.machine.topology import Machine
    from ompbind.options import PlanOptions

__all__ = ("plan_cluster", "plan_host")


def plan_cluster(text: str, options: PlanOptions, environ: Mapping[str, str]) -> ClusterPlan:
    """Return the plan of every rank on the hosts of --hosts. Raises OmpbindError."""
    hosts = read_hosts(text)

    def read(path: str | None) -> Machine:
        machine = read_machine(path)
        return apply_inherited(machine, options.replace(topology=path), environ)[0]

    groups = make_groups(read_machines(hosts, options.topology, read), read)
    return make_cluster_plan([host.name for host in hosts], groups, options, environ)
