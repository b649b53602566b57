"""The plan of a whole cluster, drawn: hosts of one kind folded."""

from __future__ import annotations

from ompbind.devices.visible import why_not
from ompbind.messages import counted, cut, plural
from ompbind.render.escape import escape
from ompbind.render.machine import machine_headline
from ompbind.render.plan import draw_caution, draw_executed, draw_ranks, rank_table
from ompbind.render.table import Table
from ompbind.render.text import Group, Text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ompbind.cluster.plan import ClusterPlan
    from ompbind.plans import Plan
    from ompbind.render.text import Drawing

MOST_DIFFERENT = 20  # groups of hosts that differ from their kind, in the table
MOST_TABLES = 3  # of their ranks
LONGEST_LIST = 200  # characters of a list of hosts


def draw_cluster(
    cluster: ClusterPlan, explanations: Sequence[Sequence[str]], plan: Plan, rank: int
) -> Drawing:
    """Draw the kinds and their plans, and what is executed for a rank of the job, which is one of
    `plan`."""
    numbers = range(len(cluster.groups))
    usual = usual_groups(cluster)
    different = [n for n in numbers if cluster.groups[n].differences]
    parts: list[Drawing] = [headline(cluster), kind_table(cluster, usual)]
    if different:
        parts += [Text("\nhosts that differ from their kind", style="bold")]
        parts += [difference_table(cluster, different)]
    for caution in escape(cluster.cautions):
        parts += [Text(), draw_caution(caution)]
    for number in usual:
        usual_plan = number_on_host(cluster.plans[number])
        name = f"each host of kind {usual.index(number)}"
        usual_plan = usual_plan.replace(host=usual_plan.host.replace(name=name))
        explanation = explanations[number] if explanations else ()
        machine = cluster.groups[number].machine
        parts += [Text(), draw_ranks(usual_plan, explanation, machine=machine)]
    parts += draw_changed(cluster, different, usual)
    position, local_rank = cluster.find_rank(rank)
    name = f"rank {rank}, rank {local_rank} of {cluster.hosts[position]}"
    return Group(*parts, *draw_executed(plan, local_rank, name))


def number_on_host(plan: Plan) -> Plan:
    """Return the plan with ranks numbered from 0 on each host: it stands for many hosts."""
    return plan.replace(ranks=tuple(r.replace(numbers=None) for r in plan.ranks))


def usual_groups(cluster: ClusterPlan) -> list[int]:
    """Return for each kind the number of the group that stands for it, the first of the kind."""
    first: dict[int, int] = {}
    for number, group in enumerate(cluster.groups):
        first.setdefault(group.kind, number)
    return list(first.values())


def headline(cluster: ClusterPlan) -> Text:
    hosts, kinds = len(cluster.hosts), cluster.groups[-1].kind + 1
    text = (
        f"{counted(cluster.ranks, 'rank')} on {counted(hosts, 'host')} of {counted(kinds, 'kind')}"
    )
    line = Text(text, style="bold")
    count = sum(len(group.positions) for group in cluster.groups if group.differences)
    if count:
        line.append(f"; {count} {'differs from its kind' if count == 1 else 'differ from theirs'}")
    return line.append("\n")


def kind_table(cluster: ClusterPlan, usual: Sequence[int]) -> Table:
    table = Table()
    for name in ("kind", "hosts", "ranks", "machine", "host names"):
        right = name in ("kind", "hosts", "ranks")
        table.add_column(name, overflow="fold", right=right)
    for kind, number in enumerate(usual):
        group = cluster.groups[number]
        count = sum(len(g.positions) for g in cluster.groups if g.kind == kind)
        machine = machine_headline(escape(group.machine.replace(name="")))
        gpus = sum(d.kind == "gpu" and not why_not(d) for d in group.machine.topology.devices)
        if gpus:
            machine.append(f", {counted(gpus, 'GPU')}")
        ranks = str(len(cluster.plans[number].ranks))
        table.add_row(
            str(kind), str(count), ranks, machine, cut(cluster.kind_hosts(kind), LONGEST_LIST)
        )
    return table


def difference_table(cluster: ClusterPlan, different: Sequence[int]) -> Drawing:
    table = Table()
    for name in ("hosts", "kind", "difference"):
        table.add_column(name, overflow="fold", right=name == "kind")
    for number in different[:MOST_DIFFERENT]:
        group = cluster.groups[number]
        texts = escape([d.text for d in group.differences])
        table.add_row(
            cut(cluster.hosts_of(number), LONGEST_LIST), str(group.kind), "\n".join(texts)
        )
    if not different[MOST_DIFFERENT:]:
        return table
    more = len(different) - MOST_DIFFERENT
    text = f"and {more} more {plural('group', more)} of hosts: --format json has them"
    return Group(table, Text(text, style="dim"))


def draw_changed(
    cluster: ClusterPlan, different: Sequence[int], usual: Sequence[int]
) -> list[Drawing]:
    """Draw the ranks of hosts whose difference changes the plan."""
    changed = [
        number
        for number in different
        if bindings(cluster.plans[number])
        != bindings(cluster.plans[usual[cluster.groups[number].kind]])
    ]
    parts: list[Drawing] = []
    for number in changed[:MOST_TABLES]:
        title = f"\nanother plan on {cut(cluster.hosts_of(number), LONGEST_LIST)}"
        parts += [
            Text(title, style="bold"),
            rank_table(escape(number_on_host(cluster.plans[number]))),
        ]
    if changed[MOST_TABLES:]:
        more = len(changed) - MOST_TABLES
        text = f"\nand {more} more with another plan: --format json has them"
        parts.append(Text(text, style="dim"))
    return parts


def bindings(plan: Plan) -> list[object]:
    """Return what of a plan does not depend on the host's place in the job."""
    return [
        (r.binding, r.places, r.devices, dict(r.env).get("OMP_NUM_THREADS")) for r in plan.ranks
    ]
