"""A rank's binding to numactl's argument list."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ompbind.cpuset import CpuSet


def make_arguments(cpus: CpuSet, mem: str, mems: CpuSet) -> tuple[str, ...]:
    """`numactl` and its options; () when there is nothing to bind.

    Cpus by number, never by node: --cpunodebind widens past an inherited mask and refuses a node
    without memory (numactl/numactl#127).
    """
    options: list[str] = []
    if cpus:
        options.append(f"--physcpubind={cpus}")
    if mem == "local":
        options.append("--localalloc")
    elif mem != "none":
        options.append(f"--{'membind' if mem == 'bind' else mem}={mems}")
    return ("numactl", *options) if options else ()


def make_binding(binder: str, cpus: CpuSet, mem: str, mems: CpuSet) -> tuple[str, ...]:
    """What stands before the worker's arguments: numactl's where it binds, else nothing."""
    return make_arguments(cpus, mem, mems) if binder == "numactl" else ()


def make_command(binding: Sequence[str], command: Sequence[str]) -> tuple[str, ...]:
    """The binding's arguments before the worker's, which may itself begin with a dash."""
    fence = ("--",) if binding and command and command[0].startswith("-") else ()
    return (*binding, *fence, *command)
