"""`ompbind show --hosts`: the plan of every rank of a job on many hosts."""

from __future__ import annotations

from ompbind.cli.shell import argv_lines, environment_lines, find_rank
from ompbind.cluster import plan_cluster, plan_host
from ompbind.messages import say, write_output

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from ompbind.options import PlanOptions
    from ompbind.options.values import Values


def show_cluster(
    values: Values, options: PlanOptions, environ: Mapping[str, str], printed: str | None
) -> int:
    """Print the plan as --format says, with what is executed for the rank `printed` (None: the
    first); return the exit status. Raises OmpbindError."""
    cluster = plan_cluster(values["hosts"], options, environ)
    form = values.get("format", "table")
    single = form if form in ("env", "argv") else ""
    rank = find_rank(cluster.ranks, printed, single) or 0
    explanations: list[list[str]] = []
    if "explain" in values:
        from ompbind.render.sentences import explain

        pairs = zip(cluster.plans, cluster.groups, strict=True)
        explanations = [explain(plan, group.machine) for plan, group in pairs]
    position, local_rank = cluster.find_rank(rank)
    if form == "table":
        from ompbind.render import make_text
        from ompbind.render.cluster import draw_cluster

        plan = plan_host(cluster, position, options, environ)
        write_output(make_text(draw_cluster(cluster, explanations, plan, rank)))
        return 0
    if form == "json":
        write_output(cluster.to_json(explanations))
        return 0
    plan = plan_host(cluster, position, options, environ)
    lines = environment_lines if form == "env" else argv_lines
    write_output(lines(plan, local_rank))
    for caution in (*plan.cautions, *cluster.cautions):
        say("warning", caution.text, caution.hint)
    return 0
