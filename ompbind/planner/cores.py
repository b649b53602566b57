"""The cores that a request may use, in the order of the machine's tree."""

from __future__ import annotations

from ompbind.cpuset import CpuSet
from ompbind.errors import PlanError
from ompbind.machine.topology import TREE
from ompbind.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ompbind.machine.topology import Cpu, Level, Machine
    from ompbind.planner.request import Request


class Core(Record):
    """A physical core as a rank may use it: `cpus` the hardware threads used, `threads` all that
    are allowed, `traits` its first cpu's place in the tree, `weight` what it can do beside others
    of the machine."""

    cpus: CpuSet
    threads: CpuSet
    traits: Cpu
    weight: int = 1


def levels_for(request: Request) -> tuple[Level, ...]:
    """The levels of the topology that planning `request` looks at; the rest need not be read."""
    dividing = (request.ranks, request.per, request.nodes, request.part)
    if all(wish is None for wish in dividing):
        # Nothing is divided. Without an L3 anywhere, a place of `l3` is the L2.
        more: list[Level] = ["l2"] if request.places == "l3" else []
        more += ["kind"] if request.kind != "all" or request.reserve.cores or request.roles else []
        return ("core", "package", "node", "l3", *more)
    return ("core", *TREE, "kind")


def make_cores(machine: Machine, request: Request) -> tuple[Core, ...]:
    """The cores that may be used, in the tree's order, each with the hardware threads to use."""
    usable = machine.allowed.cpus - request.exclude
    if not usable:
        raise PlanError(
            "no cpu is left to use",
            hint=f"allowed: {machine.allowed.cpus or 'none'}; excluded: {request.exclude}",
            wanted=1,
            available=0,
        )
    threads = group_cores(machine, usable)
    most = max(len(cpus) for cpus, _ in threads)
    if request.smt is not None and request.smt > most:
        raise PlanError(
            f"--smt {request.smt}: no core has that many allowed hardware threads",
            hint=f"--smt {most} or --smt all",
            wanted=request.smt,
            available=most,
        )
    return in_tree_order(
        (
            Core(CpuSet(list(cpus)[: request.smt]), cpus, traits, traits.capacity or 1)
            for cpus, traits in threads
        ),
        levels_for(request),
    )


def keep_kind(machine: Machine, request: Request, cores: tuple[Core, ...]) -> tuple[Core, ...]:
    """Those of --kind. Where all cores are of one kind, none can do more."""
    kinds = {c.kind for c in machine.topology.cpus if c.kind is not None}
    if request.kind == "all" or (not kinds and request.kind == "performance"):
        return cores
    if not kinds:
        raise PlanError(
            f"--kind {request.kind}: the cores of this machine are all of one kind",
            hint="leave --kind out",
        )
    top = max(kinds)
    kept = tuple(c for c in cores if (c.traits.kind == top) == (request.kind == "performance"))
    if not kept:
        raise PlanError(
            f"--kind {request.kind}: none of the usable cores is of that kind",
            hint="ompbind topo tells the kinds of core",
            wanted=1,
            available=0,
        )
    return kept


def group_cores(machine: Machine, cpus: CpuSet) -> list[tuple[CpuSet, Cpu]]:
    """`cpus` by core, with the first one's traits; where cores are not known, each by itself."""
    groups: dict[object, list[Cpu]] = {}
    for c in machine.topology.cpus:
        if c.cpu in cpus:
            groups.setdefault((c.core, c.cpu if c.core is None else None), []).append(c)
    return [(CpuSet(c.cpu for c in group), group[0]) for group in groups.values()]


def in_tree_order(cores: Iterable[Core], levels: Sequence[Level]) -> tuple[Core, ...]:
    """Neighbours stand together: sorted by package, node, cache, then by core; by those `levels`
    only that are surely known, so that the order does not depend on what else was read."""
    order = [level for level in (*TREE, "core") if level in levels]

    def place(core: Core) -> tuple[int, ...]:
        keys = [getattr(core.traits, level) for level in order]
        return (*(-1 if k is None else k for k in keys), core.cpus.first)

    return tuple(sorted(cores, key=place))


def split_by(cores: Sequence[Core], level: Level) -> list[tuple[Core, ...]]:
    """The cores by their group at `level`, groups in the order of their first core."""
    groups: dict[int | None, list[Core]] = {}
    for core in cores:
        groups.setdefault(getattr(core.traits, level), []).append(core)
    return [tuple(group) for group in groups.values()]


def llc_level(machine: Machine) -> Level:
    """The level of the last-level cache: L3, on machines without one L2."""
    return "l3" if any(c.l3 is not None for c in machine.topology.cpus) else "l2"
