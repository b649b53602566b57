"""The cores that a request may use, in the order of the machine's tree."""

from __future__ import annotations

from ompbind.cpuset import CpuSet, union
from ompbind.errors import PlanError
from ompbind.machine.topology import TREE
from ompbind.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ompbind.machine.topology import Cpu, Level, Machine
    from ompbind.planner.request import Request


class Core(Record):
    """A physical core as a rank may use it."""

    cpus: CpuSet  # the hardware threads that are used
    threads: CpuSet  # all its hardware threads that are allowed
    first_cpu: Cpu  # the first of them, for the core's place in the tree
    weight: int = 1  # its capacity, on a machine with several kinds of core


def levels_for(request: Request) -> tuple[Level, ...]:
    """Return the levels of the topology that planning `request` reads."""
    dividing = (request.ranks, request.per, request.nodes, request.part)
    if all(value is None for value in dividing) and not request.free:
        # Nothing is divided. On a machine without an L3, a place of `l3` is an L2.
        more: list[Level] = ["l2"] if request.places == "l3" else []
        more += ["kind"] if request.kind != "all" or request.reserve.cores or request.roles else []
        return ("core", "package", "node", "l3", *more)
    return ("core", *TREE, "kind")


def make_cores(machine: Machine, request: Request) -> tuple[Core, ...]:
    """Return the cores that may be used, in the tree's order, each with the hardware threads to
    use. Raises PlanError."""
    excluded = find_excluded(machine, request)
    usable = machine.allowed.cpus - excluded
    if not usable:
        hint = f"allowed: {machine.allowed.cpus or 'none'}; excluded: {excluded}"
        if machine.allowed.cpus - request.exclude - request.exclude_cpus:
            hint += "; --exclude-cpus leaves the other hardware threads of their cores"
        raise PlanError("no cpu is left to use", hint=hint, wanted=1, available=0)
    groups = group_cores(machine, usable)
    if request.by_thread:
        groups = [(CpuSet([c.cpu]), c) for c in machine.topology.cpus if c.cpu in usable]
    most = max(len(threads) for threads, _ in groups)
    if request.smt is not None and request.smt > most:
        raise PlanError(
            f"--smt {request.smt}: no core has that many allowed hardware threads",
            hint=f"--smt {most} or --smt all",
            wanted=request.smt,
            available=most,
        )
    return in_tree_order(
        (
            Core(CpuSet(list(threads)[: request.smt]), threads, cpu, cpu.capacity or 1)
            for threads, cpu in groups
        ),
        levels_for(request),
    )


def find_excluded(machine: Machine, request: Request) -> CpuSet:
    """Return the cpus never to use.

    In a plan of one thread for each core, --exclude keeps whole cores out: the other threads of an
    excluded cpu's core would compete with what runs there. So it does beside --part, where launches
    with another --smt must cut the machine at the same places.
    """
    if not request.exclude or (request.smt != 1 and request.part is None):
        return request.exclude | request.exclude_cpus
    cores = machine.topology.groups("core")
    whole = union(core for core in cores if core & request.exclude)
    return request.exclude | whole | request.exclude_cpus


def keep_kind(machine: Machine, request: Request, cores: tuple[Core, ...]) -> tuple[Core, ...]:
    """Return the cores of --kind; all are performance cores where there is one kind only. Raises
    PlanError."""
    if request.kind == "fastest":
        return keep_fastest(machine, cores)
    kinds = {c.kind for c in machine.topology.cpus if c.kind is not None}
    if request.kind == "all" or (not kinds and request.kind == "performance"):
        return cores
    if not kinds:
        raise PlanError(
            f"--kind {request.kind}: the cores of this machine are all of one kind",
            hint="leave --kind out",
        )
    top = max(kinds)
    kept = tuple(c for c in cores if (c.first_cpu.kind == top) == (request.kind == "performance"))
    if not kept:
        raise PlanError(
            f"--kind {request.kind}: none of the usable cores is of that kind",
            hint="ompbind topo shows the kinds of core",
            wanted=1,
            available=0,
        )
    return kept


def keep_fastest(machine: Machine, cores: tuple[Core, ...]) -> tuple[Core, ...]:
    """Return those of the cores that were measured as the fastest; all, where they were measured as
    equally fast. Raises PlanError."""
    if machine.measured is None:
        raise PlanError(
            "--kind fastest: the cores of this machine were not measured",
            hint="ompbind topo --measure --save FILE measures them, then --measured FILE",
        )
    from ompbind.machine.measurement import find_fastest, is_unsure  # seldom wanted

    usable = union(core.threads for core in cores)
    fastest = [group & usable for group in find_fastest(machine.measured) if group & usable]
    if not fastest[1:] and is_unsure(machine.measured, usable):
        raise PlanError(
            "--kind fastest: the measurement could not tell which cores are faster",
            hint="ompbind topo --measure again, while nothing else runs",
        )
    return tuple(core for core in cores if core.cpus & fastest[0])


def group_cores(machine: Machine, cpus: CpuSet) -> list[tuple[CpuSet, Cpu]]:
    """Return `cpus` by core, each with its first cpu; a cpu whose core is unknown is a core."""
    groups: dict[object, list[Cpu]] = {}
    for c in machine.topology.cpus:
        if c.cpu in cpus:
            groups.setdefault((c.core, c.cpu if c.core is None else None), []).append(c)
    return [(CpuSet(c.cpu for c in group), group[0]) for group in groups.values()]


def in_tree_order(cores: Iterable[Core], levels: Sequence[Level]) -> tuple[Core, ...]:
    """Return the cores sorted by package, node, cache, then core: neighbours stand together.

    Only `levels` are compared, which are surely read, so that the order does not depend on what
    else was read.
    """
    order = [level for level in (*TREE, "core") if level in levels]

    def place(core: Core) -> tuple[int, ...]:
        keys = [getattr(core.first_cpu, level) for level in order]
        return (*(-1 if k is None else k for k in keys), core.cpus.first)

    return tuple(sorted(cores, key=place))


def split_by(cores: Sequence[Core], level: Level) -> list[tuple[Core, ...]]:
    """Return the cores by their group at `level`, groups in the order of their first core."""
    groups: dict[int | None, list[Core]] = {}
    for core in cores:
        groups.setdefault(getattr(core.first_cpu, level), []).append(core)
    return [tuple(group) for group in groups.values()]


def llc_level(machine: Machine) -> Level:
    """Return the level of the last-level cache: L3, or L2 on a machine without an L3."""
    return "l3" if any(c.l3 is not None for c in machine.topology.cpus) else "l2"
