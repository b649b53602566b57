"""POWER: eight hardware threads of a core, which are switched off while plans run; pages of 64 KiB;
nodes that are not numbered one after another."""

from __future__ import annotations

from tests.guest.cases.case import Boot, Case, Got, Rebinding, Refusal, Spoiling
from tests.guest.cases.common import STOPPED, moved_pages
from tests.guest.machine import Machine

# Two packages, each a node of two cores: cpus 0-7 and 8-15 on node 0, 16-23 and 24-31 on node 5.
# Node 8 has only memory.
SMT8 = Machine(
    packages=2,
    nodes=1,
    cores=2,
    threads=8,
    memory_only=1,
    memory=(1024, 512, 512),
    distances=((10, 20, 30), (20, 10, 40), (30, 40, 10)),
    numbers=(0, 5, 8),
)
SMT_OFF = "1-7,9-15,17-23,25-31"
CASES = {
    "a thread of each core": Case(
        "Without --smt, the first; pages go to both nodes in turn.",
        "--mem interleave",
        (Got("0,8,16,24", "0 8 16 24", "interleave", "0,5", pages={"0": 0.5, "5": 0.5}),),
        touch=128,
    ),
    "all threads of each node": Case(
        "A place is a core with its eight threads.",
        "--per numa --numa-bind --smt all",
        (
            Got("0-15", "0-7 8-15", "bind", "0", pages={"0": 1}),
            Got("16-31", "16-23 24-31", "bind", "5", pages={"5": 1}),
        ),
    ),
    "places are threads": Case(
        "A place for each of two threads of a core.",
        "--numa-bind-nodes 5 --smt 2 --places threads",
        (Got("16-17,24-25", "16 17 24 25", "bind", "5", pages={"5": 1}),),
    ),
    "memory of node 8": Case(
        "Named cpus, and memory of the node that has nothing else.",
        "--numa-bind-cpus 8-11 --numa-bind-nodes 8 --mem preferred",
        (Got("8-11", "8-11", "preferred", "8", pages={"8": 1}),),
        touch=64,
    ),
    "SMT4": Case(
        "All threads are the four that are left.",
        "--numa-bind-nodes 5 0 --smt all",
        (
            Got("16-19,24-27", "16-19 24-27", "bind", "5", pages={"5": 1}),
            Got("0-3,8-11", "0-3 8-11", "bind", "0", pages={"0": 1}),
        ),
        offline="4-7,12-15,20-23,28-31",
    ),
    "SMT off": Case(
        "All threads are one of each core.",
        "-n 2 --smt all",
        (Got("0,8", "0 8"), Got("16,24", "16 24")),
        offline=SMT_OFF,
    ),
    "a core's first thread is off": Case(
        "The second takes its place.",
        "--numa-bind-nodes 5",
        (Got("17,24", "17 24", "bind", "5", pages={"5": 1}),),
        offline="16",
    ),
    "an emptied node": Case(
        "A node that has lost all its cpus gets no rank.",
        "--per numa --mem bind",
        (Got("0,8", "0 8", "bind", "0", pages={"0": 1}),),
        offline="16-31",
    ),
}
SHOWN = {
    "interleave": ("--mem interleave", {"policy": "interleave", "interleavemask": "0 5"}),
    "node 8": (
        "--numa-bind-cpus 0,8 --numa-bind-nodes 8",
        {"policy": "bind", "physcpubind": "0 8", "membind": "8"},
    ),
}
SPOILED = {
    "SMT switched off": Spoiling(
        "--numa-bind-nodes 0 --smt all --places threads",
        "set offline",
        "1-7,9-15",
        ("offline",),
        r"cpus 1-7,9-15 of the plan are offline, and 14 threads bound to no other",
    ),
    "pages moved": moved_pages(5, 8),
}
REFUSED = {
    "more threads than there are": Refusal(
        "With SMT off a core has no second thread.",
        "--smt 2",
        "--smt 2: no core has that many allowed hardware threads",
        "--smt 1",
        SMT_OFF,
    ),
    "an emptied node": Refusal(
        "Its cpus have gone offline.",
        "--numa-bind-nodes 5",
        "node 5 has no",
        "0",
        "16-31",
    ),
    "a number between": Refusal(
        "Nodes are numbered 0, 5, 8.",
        "--numa-bind-nodes 3",
        "node 3 does not exist",
        "0,5",
    ),
    "a plan of all threads": Refusal(
        "It was saved while SMT was on.",
        "--numa-bind-nodes 0 --smt all",
        "cpus 1-7,9-15 of the plan may not be used here",
        "",
        SMT_OFF,
        saved=True,
    ),
}
BOOTS = {
    "POWER": Boot(
        "SMT8, sparse nodes, 64 KiB pages.",
        SMT8,
        CASES,
        SHOWN,
        SPOILED,
        Rebinding("16-17", 5, 0, "0,8"),
        refused=REFUSED,
        stopped={**STOPPED, "INT": 130},
        architecture="ppc64el",
    ),
}
