"""RISC-V: what it shares with Arm, on a kernel and a Python that are newer."""

from __future__ import annotations

from tests.guest.cases.case import Boot, Got
from tests.guest.cases.common import (
    ON_FOUR_NODES,
    STOPPED,
    moved_pages,
    narrow_mask,
    shown_node,
)
from tests.guest.machine import Machine

# Four nodes of two cores.
FOUR_NODES = Machine(packages=4, nodes=1, cores=2, memory=(512, 256, 256, 256))
CASES = {
    **ON_FOUR_NODES,
    "narrow mask": narrow_mask(
        "1,6",
        (Got("1", "1", "bind", "0", pages={"0": 1}), Got("6", "6", "bind", "3", pages={"3": 1})),
    ),
}
SHOWN = {
    "bind": shown_node(2, "4 5"),
}
SPOILED = {
    "pages moved": moved_pages(2, 1),
}
BOOTS = {
    "RISC-V": Boot(
        "Four nodes.",
        FOUR_NODES,
        CASES,
        SHOWN,
        SPOILED,
        stopped=STOPPED,
        architecture="riscv64",
    ),
}
