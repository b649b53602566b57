"""Arm: a device tree shows the kernel clusters, caches and kinds of core that no made-up PC has."""

from __future__ import annotations

from tests.guest.cases.case import Boot, Case, Got
from tests.guest.cases.common import (
    STOPPED,
    moved_pages,
    narrow_mask,
    other_nodes_memory,
    shown_node,
)
from tests.guest.machine import Machine

# Two packages, each a node with an L3 cache, of a fast and a slow cluster of two cores, with an L2
# cache each: cpus 0-1 and 4-5 are fast, 2-3 and 6-7 slow. Node 2 has only memory.
BIG_LITTLE = Machine(
    packages=2,
    nodes=1,
    clusters=2,
    cores=2,
    memory_only=1,
    memory=(512, 384, 256),
    distances=((10, 20, 17), (22, 10, 28), (18, 29, 10)),
    capacities=(1024, 446),
)
CASES = {
    "no options": Case(
        "One rank on every core, fast or slow.", "", (Got("0-7", "0 1 2 3 4 5 6 7"),)
    ),
    "each cluster": Case(
        "A rank for each cluster; memory comes from its node.",
        "--per cluster --mem bind",
        (
            Got("0-1", "0 1", "bind", "0", pages={"0": 1}),
            Got("2-3", "2 3", "bind", "0", pages={"0": 1}),
            Got("4-5", "4 5", "bind", "1", pages={"1": 1}),
            Got("6-7", "6 7", "bind", "1", pages={"1": 1}),
        ),
    ),
    "fast cores": Case(
        "Only the cores of the greater capacity; pages go to both nodes in turn.",
        "--kind performance --mem interleave",
        (Got("0-1,4-5", "0 1 4 5", "interleave", "0-1", pages={"0": 0.5, "1": 0.5}),),
        touch=64,
    ),
    "slow cores": Case(
        "Only those of the lesser; a place for each cache of several cores.",
        "--kind efficiency --per l3 --places l3 --mem preferred",
        (
            Got("2-3", "2-3", "preferred", "0", pages={"0": 1}),
            Got("6-7", "6-7", "preferred", "1", pages={"1": 1}),
        ),
    ),
    "memory of a node without cpus": other_nodes_memory(
        "6-7 0-1",
        "2 1",
        (
            Got("6-7", "6 7", "bind", "2", pages={"2": 1}),
            Got("0-1", "0 1", "bind", "1", pages={"1": 1}),
        ),
        touch=16,
    ),
    "narrow mask": narrow_mask(
        "1-2,4,7",
        (
            Got("1-2", "1 2", "local", pages={"0": 1}),
            Got("4,7", "4 7", "local", pages={"1": 1}),
        ),
        "--per numa --mem local",
    ),
}
SHOWN = {
    "bind": shown_node(1, "4 5 6 7"),
}
SPOILED = {
    "pages moved": moved_pages(1, 0),
}
BOOTS = {
    "arm64": Boot(
        "Clusters, caches, fast and slow cores, a node of memory.",
        BIG_LITTLE,
        CASES,
        SHOWN,
        SPOILED,
        stopped=STOPPED,
        architecture="arm64",
    ),
}
