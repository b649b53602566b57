"""RISC-V: what it shares with Arm, on a kernel and a Python that are newer."""

from __future__ import annotations

from tests.guest.cases.case import Boot, Case, Got, Spoiling
from tests.guest.machine import Machine

# Four nodes of two cores.
FOUR_NODES = Machine(packages=4, nodes=1, cores=2, memory=(512, 256, 256, 256))
CASES = {
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
        "Each of two ranks interleaves over its nodes.",
        "-n 2 --mem interleave",
        (
            Got("0-3", "0 1 2 3", "interleave", "0-1", pages={"0": 0.5, "1": 0.5}),
            Got("4-7", "4 5 6 7", "interleave", "2-3", pages={"2": 0.5, "3": 0.5}),
        ),
        touch=64,
    ),
    "preferred": Case(
        "Named cpus, and memory of nodes that are not theirs.",
        "--numa-bind-cpus 0-1 4-5 --numa-bind-nodes 2 0 --mem preferred",
        (
            Got("0-1", "0 1", "preferred", "2", pages={"2": 1}),
            Got("4-5", "4 5", "preferred", "0", pages={"0": 1}),
        ),
    ),
    "narrow mask": Case(
        "What the launcher was given is divided, and nothing else.",
        "--per numa --numa-bind",
        (Got("1", "1", "bind", "0", pages={"0": 1}), Got("6", "6", "bind", "3", pages={"3": 1})),
        mask="1,6",
    ),
}
SHOWN = {
    "bind": ("--numa-bind-nodes 2", {"policy": "bind", "physcpubind": "4 5", "membind": "2"}),
}
SPOILED = {
    "pages moved": Spoiling(
        "--numa-bind-nodes 2",
        "move pages",
        "2 1",
        ("memory",),
        r"on node 1; the plan says bind 2 .*migratepages \d+ 1 2 brings",
    ),
}
BOOTS = {
    "RISC-V": Boot(
        "Four nodes.",
        FOUR_NODES,
        CASES,
        SHOWN,
        SPOILED,
        stopped={"TERM": 143, "KILL": -9},
        architecture="riscv64",
    ),
}
