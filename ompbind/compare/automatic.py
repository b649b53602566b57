"""The variants of --vary auto: what may matter on this machine, and why the rest does not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ompbind.compare.variants import Omitted, Wish
from ompbind.messages import counted
from ompbind.plans import PRELOAD_VARIABLE, split_preload
from ompbind.worker.libraries import LIBRARIES, Finder

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ompbind.compare.metric import Metric
    from ompbind.machine.topology import Machine
    from ompbind.options import Texts

WHOLE = "whole machine"
AUTO = "auto"
# Options that say where ranks go, or how many there are.
PLACING = ("ranks", "per", "numa_bind", "numa_bind_nodes", "numa_bind_cpus", "share", "balance",
           "cores_per_rank", "near", "part")  # fmt: skip


def make_automatic(
    machine: Machine,
    common: Texts,
    metric: Metric,
    command: Sequence[str],
    environ: Mapping[str, str],
) -> tuple[list[Wish], list[Omitted]]:
    """Return the variants that may differ on this machine, and those that cannot, with reasons."""
    wishes = [Wish(WHOLE)]
    omitted: list[Omitted] = []

    def add(name: str, key: str, value: str | list[str], why_not: str) -> None:
        why = f"--{key.replace('_', '-')} is given" if key in common else why_not
        if why:
            omitted.append(Omitted(name, why))
        else:
            wishes.append(Wish(name, ((key, value),)))

    topology, allowed = machine.topology, machine.allowed
    cores = [core & allowed.cpus for core in topology.groups("core") if core & allowed.cpus]
    nodes = [node for node in topology.nodes if node.cpus & allowed.cpus]
    l3s = [group for group in topology.groups("l3") if group & allowed.cpus]
    memory = [n for n in topology.nodes if n.node in allowed.nodes and n.memory_bytes != 0]
    placing = next((f"--{k.replace('_', '-')} is given" for k in PLACING if k in common), "")
    several = placing or why_not_several(metric)

    one_thread = "" if any(len(core) > 1 for core in cores) else "one hardware thread in each core"
    add("smt=all", "smt", "all", one_thread)
    one_core = "" if cores[1:] else "only one core is allowed"
    for kind in ("cores", "one", "wide"):
        add(f"places={kind}", "places", kind, one_core)
    one_node = "" if nodes[1:] else "one NUMA node"
    add("one node", "numa_bind_nodes", [str(n.node) for n in nodes[:1]], one_node or placing)
    add("per=numa", "per", "numa", one_node or several)
    few_l3s = f"{counted(len(l3s), 'L3 cache')} in {counted(len(nodes), 'NUMA node')}"
    add("per=l3", "per", "l3", (few_l3s if len(l3s) <= len(nodes) else "") or several)
    one_memory = "" if memory[1:] else "one node with memory"
    add("mem=interleave", "mem", "interleave", one_memory)
    finder = Finder(command, environ)
    before = split_preload(environ.get(PRELOAD_VARIABLE, ""))
    variables = common.get("env")
    given = variables if isinstance(variables, list) else []
    for name in LIBRARIES:
        path = finder.find(name)
        why_not = finder.explain(path) if path else "not installed"
        if path in before or any(text.startswith(PRELOAD_VARIABLE) for text in given):
            why_not = f"{PRELOAD_VARIABLE} is given"
        add(f"preload={name}", "preload", name, why_not)
    return wishes, omitted


def why_not_several(metric: Metric) -> str:
    """Return why variants of several ranks cannot be compared with one rank; "" if they can."""
    if metric.is_printed:
        return ""
    return (
        f"each rank would do the whole work, and {metric.title} says nothing of how much that is; "
        "with --metric REGEX, as of a rate, they are compared"
    )
