"""What guests of several architectures have in common: cases, and ways to spoil a worker."""

from __future__ import annotations

from tests.guest.cases.case import Case, Got, Spoiling

# Signals that end a launch, and the exit status that it then has.
STOPPED = {"TERM": 143, "KILL": -9}

# Four nodes of two cores, whose first threads are cpus 0-7 in order.
ON_FOUR_NODES = {
    "each node": Case(
        "A rank for each node, bound to it.",
        "--per numa --numa-bind",
        (
            Got("0-1", "0 1", "bind", "0", pages={"0": 1}),
            Got("2-3", "2 3", "bind", "1", pages={"1": 1}),
            Got("4-5", "4 5", "bind", "2", pages={"2": 1}),
            Got("6-7", "6 7", "bind", "3", pages={"3": 1}),
        ),
    ),
    "two interleaved": Case(
        "Each of two ranks interleaves over its own two nodes.",
        "-n 2 --mem interleave",
        (
            Got("0-3", "0 1 2 3", "interleave", "0-1", pages={"0": 0.5, "1": 0.5}),
            Got("4-7", "4 5 6 7", "interleave", "2-3", pages={"2": 0.5, "3": 0.5}),
        ),
        touch=64,
    ),
    "preferred": Case(
        "Memory comes from the preferred node while it has some, also when the cpus are elsewhere.",
        "--numa-bind-cpus 0-1 4-5 --numa-bind-nodes 2 0 --mem preferred",
        (
            Got("0-1", "0 1", "preferred", "2", pages={"2": 1}),
            Got("4-5", "4 5", "preferred", "0", pages={"0": 1}),
        ),
        touch=64,
    ),
}


def narrow_mask(mask: str, ranks: tuple[Got, ...], options: str = "--per numa --numa-bind") -> Case:
    """Return the case of a launcher that may use these cpus alone."""
    return Case("What the launcher was given is divided, nothing else.", options, ranks, mask=mask)


def other_nodes_memory(cpus: str, nodes: str, ranks: tuple[Got, ...], touch: int = 64) -> Case:
    """Return the case of lists of cpus with nodes for memory that are not theirs."""
    return Case(
        "Named cpus, and memory of nodes that are not theirs.",
        f"--numa-bind-cpus {cpus} --numa-bind-nodes {nodes}",
        ranks,
        touch=touch,
    )


def shown_node(node: int, cpus: str) -> tuple[str, dict[str, str]]:
    """Return what `numactl --show` says in a rank on a node."""
    wanted = {"policy": "bind", "physcpubind": cpus, "membind": str(node)}
    return (f"--numa-bind-nodes {node}", wanted)


def moved_pages(node: int, other: int) -> Spoiling:
    """Return the worker on a node whose pages somebody moves to another."""
    return Spoiling(
        f"--numa-bind-nodes {node}",
        "move pages",
        f"{node} {other}",
        ("memory",),
        rf"on node {other}; the plan says bind {node} .*migratepages \d+ {other} {node} brings",
    )
