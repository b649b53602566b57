"""s390: numbers are written from the other end, and the kernel has no NUMA."""

from __future__ import annotations

from tests.guest.cases.case import Boot, Case, Got, Refusal
from tests.guest.cases.common import STOPPED, narrow_mask
from tests.guest.machine import Machine

CASES = {
    "no options": Case("One rank on every core.", "", (Got("0-3", "0 1 2 3"),)),
    "two": Case(
        "Two ranks divide the machine; memory is left alone.",
        "-n 2",
        (Got("0-1", "0 1"), Got("2-3", "2 3")),
    ),
    "narrow mask": narrow_mask("1,3", (Got("1", "1"), Got("3", "3")), "-n 2"),
    "the only node": Case(
        "There is nothing to bind memory to, which is said.",
        "--numa-bind-nodes 0",
        (Got("0-3", "0 1 2 3"),),
    ),
    "an offline cpu": Case(
        "What is offline is not used.", "", (Got("0,2-3", "0 2 3"),), offline="1"
    ),
}
REFUSED = {
    "a second node": Refusal(
        "All memory is one.", "--numa-bind-nodes 1", "rank 0: node 1 does not exist", "0"
    ),
}
BOOTS = {
    "s390": Boot(
        "Big endian, no NUMA.",
        Machine(cores=4, memory=(1024,)),
        CASES,
        refused=REFUSED,
        stopped=STOPPED,
        binders=("native",),
        architecture="s390x",
    ),
}
