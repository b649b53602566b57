"""The plans of a cluster's hosts: one for each group of hosts that are alike, and the numbers of
their ranks in the whole job."""

from __future__ import annotations

from ompbind.cluster.snapshots import shorten
from ompbind.errors import OmpbindError, PlanError
from ompbind.hostlist import format_hostlist
from ompbind.messages import counted
from ompbind.plans import Caution
from ompbind.record import Record
from ompbind.resolve import resolve_plan

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from ompbind.cluster.kinds import Group
    from ompbind.options import PlanOptions
    from ompbind.plans import Plan

SCHEMA = 1


class ClusterPlan(Record):
    """The plan of every rank of a job. `hosts`: in their order; `groups`: of hosts with one plan;
    `plans`: of each group, its ranks numbered on their host; `group_of`, `first_ranks`: of each
    host, its group and the number of its first rank in the job."""

    hosts: tuple[str, ...]
    groups: tuple[Group, ...]
    plans: tuple[Plan, ...]
    group_of: tuple[int, ...]
    first_ranks: tuple[int, ...]
    cautions: tuple[Caution, ...] = ()  # about the cluster as a whole; each plan has its own

    @property
    def ranks(self) -> int:
        """The number of ranks of the job."""
        return self.first_ranks[-1] + len(self.plans[self.group_of[-1]].ranks)

    def find_rank(self, rank: int) -> tuple[int, int]:
        """Return the position of a rank's host, and its number there."""
        from bisect import bisect_right

        position = bisect_right(self.first_ranks, rank) - 1
        return position, rank - self.first_ranks[position]

    def plan_of(self, position: int) -> Plan:
        """Return the plan of one host, its ranks' variables numbered in the whole job."""
        plan, first = self.plans[self.group_of[position]], self.first_ranks[position]
        ranks = []
        for r in plan.ranks:
            env = dict(r.env)
            if "RANK" in env:
                env |= {"RANK": str(first + r.rank), "WORLD_SIZE": str(self.ranks)}
            ranks.append(r.replace(env=tuple(env.items())))
        host = plan.host.replace(name=self.hosts[position])
        return plan.replace(host=host, ranks=tuple(ranks))

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
        """Return a group as the JSON has it. The plan's ranks lack RANK, which differs from host
        to host."""
        group = self.groups[number]
        plan = self.plan_of(group.positions[0]).to_dict()
        plan["host"]["name"] = ""
        for rank in plan["ranks"]:
            rank["env"].pop("RANK", None)
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
    plans, failures = [], []
    for group in groups:
        planned = options.replace(topology=group.path, neighbours=False)
        try:
            plans.append(resolve_plan(planned, environ, group.machine))
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
        count += len(plans[number].ranks)
    return ClusterPlan(
        tuple(hosts),
        tuple(groups),
        tuple(plans),
        tuple(group_of),
        tuple(first_ranks),
        (*warn_of_paths(groups), *warn_of_counts(plans)),
    )


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


def warn_of_counts(plans: Sequence[Plan]) -> list[Caution]:
    """Return a warning where hosts have different numbers of ranks."""
    counts = [len(plan.ranks) for plan in plans]
    if min(counts) == max(counts):
        return []
    text = f"hosts have from {counted(min(counts), 'rank')} to {max(counts)}"
    return [Caution("uneven", text, "-n N gives each host N ranks")]
