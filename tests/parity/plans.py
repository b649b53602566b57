"""ompbind's side of a comparison: the plan that options give on a machine."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ompbind.machine.topology import Topology
from ompbind.options import make_plan_options, read_arguments
from ompbind.plans import Plan
from ompbind.resolve import resolve_plan


def plan_for(machine: Path, options: str, environ: Mapping[str, str] | None = None) -> Plan:
    """What `ompbind show --topology MACHINE OPTIONS` plans. Raises OmpbindError."""
    args = ["--topology", str(machine), *options.split()]
    values, rest = read_arguments(args, "show")
    assert rest == [], f"not options: {rest}"
    environ = environ or {}
    return resolve_plan(make_plan_options(values, ("worker",), environ), environ)


def cpus_of(plan: Plan) -> list[str]:
    """Each rank's cpus, as the kernel writes them."""
    return [str(rank.cpus) for rank in plan.ranks]


def cores_of(topology: Topology, cpus: frozenset[int] | set[int]) -> frozenset[int]:
    """The cores that hold any of `cpus`; where cores are not known, each cpu is one."""
    core = {c.cpu: -1 - c.cpu if c.core is None else c.core for c in topology.cpus}
    return frozenset(core[cpu] for cpu in cpus)
