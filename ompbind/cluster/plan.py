"""The plans of a cluster's hosts: one for each group of hosts that are alike, and the numbers of
their ranks in the whole job."""

from __future__ import annotations

from ompbind.cluster.snapshots import shorten
from ompbind.errors import OmpbindError, PlanError, UsageError
from ompbind.hostlist import format_hostlist
from ompbind.messages import counted
from ompbind.planner.sharing import list_sharing
from ompbind.plans import Caution, World
from ompbind.record import Record
from ompbind.resolve import resolve_plan

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from ompbind.cluster.kinds import Group
    from ompbind.options import PlanOptions
    from ompbind.plans import Plan
    from ompbind.worker.environment import Variables

SCHEMA = 1


class ClusterPlan(Record):
    """The plan of every rank of a job. `hosts`: in their order; `groups`: of hosts with one plan;
    `plans`: of each group, that of its first host; `group_of`, `first_ranks`: of each host, its
    group and the number of its first rank in the job."""

    hosts: tuple[str, ...]
    groups: tuple[Group, ...]
    plans: tuple[Plan, ...]
    group_of: tuple[int, ...]
    first_ranks: tuple[int, ...]
    ranks: int  # of the job, their number
    cautions: tuple[Caution, ...] = ()  # about the cluster as a whole; each plan has its own

    def find_rank(self, rank: int) -> tuple[int, int]:
        """Return the position of a rank's host, and its number there."""
        from bisect import bisect_right

        position = bisect_right(self.first_ranks, rank) - 1
        return position, rank - self.first_ranks[position]

    def hosts_of(self, number: int) -> str:
        """Return the hosts of a group as a list in brackets."""
        return format_hostlist(self.hosts[p] for p in self.groups[number].positions)

    def kind_hosts(self, kind: int) -> str:
        """Return all hosts of a kind as a list in brackets."""
        groups = self.groups
        return format_hostlist(
            host
            for host, number in zip(self.hosts, self.group_of, strict=True)
            if groups[number].kind == kind
        )

    def to_json(self, explanations: Sequence[Sequence[str]] = ()) -> str:
        """Return the documented JSON object, as text that ends in a newline. `explanations`: of
        each group's plan, () for none."""
        import json

        data = {
            "schema": SCHEMA,
            "host_count": len(self.hosts),
            "rank_count": self.ranks,
            "kind_count": self.groups[-1].kind + 1,
            "groups": [
                self.describe_group(n, explanations[n] if explanations else ())
                for n in range(len(self.groups))
            ],
            "warnings": [c.text for c in self.cautions],
            "warning_kinds": [c.kind for c in self.cautions],
            "warning_hints": [c.hint for c in self.cautions],
        }
        text = json.dumps(data, indent=1)
        hosts = (
            json.dumps({"host": name, "group": group, "first_rank": first})
            for name, group, first in zip(self.hosts, self.group_of, self.first_ranks, strict=True)
        )
        return text[:-2] + ',\n "hosts": [\n  ' + ",\n  ".join(hosts) + "]}\n"

    def describe_group(self, number: int, explanation: Sequence[str]) -> dict[str, Any]:
        """Return a group as the JSON has it."""
        group = self.groups[number]
        plan = self.plans[number].to_dict()
        plan |= {"sharing": list_sharing(self.plans[number], group.machine)}
        return {
            "kind": group.kind,
            "hosts": self.hosts_of(number),
            "host_count": len(group.positions),
            "snapshot": group.path,
            "differences": [dict(vars(d)) for d in group.differences],
            "plan": plan | ({"explanation": list(explanation)} if explanation else {}),
        }


def make_cluster_plan(
    hosts: Sequence[str], groups: Sequence[Group], options: PlanOptions, environ: Mapping[str, str]
) -> ClusterPlan:
    """Return the plan of every rank. Raises OmpbindError, naming the hosts that it is about."""
    counts, failures = [], []
    for group in groups:
        try:
            # Only for the number of ranks, which the variables of all others depend on.
            plan = plan_group(group, options.replace(variables=None), environ)
            counts.append(len(plan.ranks))
        except OmpbindError as e:
            failures.append((group, e))
    if failures:
        raise make_failure(hosts, failures, all_fail=len(failures) == len(groups))
    group_of = [0] * len(hosts)
    for number, group in enumerate(groups):
        for position in group.positions:
            group_of[position] = number
    first_ranks, count = [], 0
    for number in group_of:
        first_ranks.append(count)
        count += counts[number]
    cluster = ClusterPlan(
        tuple(hosts), tuple(groups), (), tuple(group_of), tuple(first_ranks), count
    )
    plans = tuple(plan_host(cluster, g.positions[0], options, environ) for g in groups)
    cautions = (*warn_of_paths(groups), *warn_of_counts(counts))
    return cluster.replace(plans=plans, cautions=cautions)


def plan_host(
    cluster: ClusterPlan, position: int, options: PlanOptions, environ: Mapping[str, str]
) -> Plan:
    """Return the plan of one host, its ranks numbered in the whole job. Raises OmpbindError."""
    group = cluster.groups[cluster.group_of[position]]
    first = cluster.first_ranks[position]
    after = (*cluster.first_ranks, cluster.ranks)[position + 1]
    world = World(first, cluster.ranks, 0, after - first)
    options = options.replace(request=options.request.replace(world=world))
    if options.variables is not None:
        options = options.replace(variables=meet_on_first_host(options.variables, cluster))
    plan = plan_group(group, options, environ)
    return plan.replace(host=plan.host.replace(name=cluster.hosts[position]))


def plan_group(group: Group, options: PlanOptions, environ: Mapping[str, str]) -> Plan:
    """Return the plan of a host of this group. Raises OmpbindError."""
    options = options.replace(topology=group.path, neighbours=False)
    return resolve_plan(options, environ, group.machine)


def meet_on_first_host(variables: Variables, cluster: ClusterPlan) -> Variables:
    """Return the variables with the address where all ranks meet. Raises UsageError."""
    if variables.master_port == "auto":
        raise UsageError(
            "--master-port auto: each host would take another port",
            hint="name one that is free on the first host: --master-port 29500",
            option="--master-port",
        )
    if variables.master_port is None or variables.master_addr is not None:
        return variables
    return variables.replace(master_addr=cluster.hosts[0])


def make_failure(
    hosts: Sequence[str], failures: Sequence[tuple[Group, OmpbindError]], *, all_fail: bool
) -> OmpbindError:
    """Return the first failure with the hosts that it is about, and those that fail otherwise."""
    first = failures[0][1]
    alike = [group for group, error in failures if error.message == first.message]
    if all_fail and len(alike) == len(failures):
        return first
    names = sorted(position for group in alike for position in group.positions)
    message = f"{shorten([hosts[p] for p in names])}: {first.message}"
    if len(alike) < len(failures):
        others = sorted(p for group, _ in failures if group not in alike for p in group.positions)
        message += f"; {shorten([hosts[p] for p in others])} cannot be planned either"
    return PlanError(message, hint=first.hint, **first.data)


def warn_of_paths(groups: Sequence[Group]) -> list[Caution]:
    """Return a warning where hosts are planned as if they were the running machine."""
    if all(group.path is not None for group in groups):
        return []
    text = "no snapshot is named: every host is planned as if it were this one"
    return [Caution("hosts", text, "--topology PATH")]


def warn_of_counts(counts: Sequence[int]) -> list[Caution]:
    """Return a warning where hosts have different numbers of ranks."""
    if min(counts) == max(counts):
        return []
    text = f"hosts have from {counted(min(counts), 'rank')} to {max(counts)}"
    return [Caution("uneven", text, "-n N gives each host N ranks")]
