"""A rank's memory: its policy and the nodes that policy is for."""

from __future__ import annotations

from ompbind.cpuset import CpuSet, union
from ompbind.errors import PlanError
from ompbind.messages import label
from ompbind.planner.mapping import nodes_of
from ompbind.plans import Caution

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ompbind.machine.topology import Machine
    from ompbind.planner.cores import Core
    from ompbind.planner.mapping import Share
    from ompbind.planner.request import Request


def find_memory(
    machine: Machine, request: Request, rank: int, share: Share
) -> tuple[str, CpuSet, list[Caution]]:
    """Return a rank's memory policy, its nodes (none for local and none), and warnings. Raises
    PlanError."""
    topology = machine.topology
    policy = request.mem or ("bind" if request.numa_bind else "none")
    if request.nodes is not None and request.cpus is not None:
        check_memory_nodes(machine, rank, request.nodes[rank])
    if policy in ("none", "local") or not topology.numa:
        return ("local" if policy == "local" and topology.numa else "none"), CpuSet(), []
    cpus = share.cpus
    named = request.mem_nodes_of(rank)
    wanted = choose_nodes(machine, named) if named else share.home or topology.nodes_of(cpus)
    if request.mem_kind is not None:
        wanted = find_nodes_of_kind(machine, request.mem_kind, wanted)
    if not wanted:
        raise PlanError(
            f"rank {rank}: its cpus ({cpus}) are on no known node, so there is no memory to bind",
            hint="--mem none",
            rank=rank,
        )
    cautions: list[Caution] = []
    if request.on_denied == "degrade":
        wanted, dropped = keep_allowed(machine, rank, wanted)
        cautions += dropped
        if not wanted:
            return "none", CpuSet(), cautions
    mems = CpuSet(node_with_memory(machine, rank, node) for node in wanted)
    for node in wanted - mems:
        near = node_with_memory(machine, rank, node)
        text = f"node {node} has no memory; using node {near}, the nearest that has"
        cautions.append(Caution("memory", text))
    cpu_nodes = topology.nodes_of(cpus)
    apart = request.cpus is not None and request.nodes is not None
    # A node without cpus is named for its memory: HBM, CXL.
    if apart and not mems & cpu_nodes and any(node_cpus(machine, n) for n in mems):
        text = (
            f"rank {rank}: its memory is on {label('node', mems)}, its cpus on {cpu_nodes} "
            "(farther away: name its cpus' node, or --mem interleave)"
        )
        cautions.append(Caution("memory", text))
    if policy == "weighted-interleave":
        cautions += warn_of_weights(machine, mems)
    return policy, mems, cautions


def warn_of_weights(machine: Machine, mems: CpuSet) -> list[Caution]:
    """Return a warning where the kernel's weights make no difference among these nodes."""
    weights = {n.weight for n in machine.topology.nodes if n.node in mems}
    if len(mems) < 2 or len(weights) > 1 or None in weights:
        return []
    text = (
        f"the kernel's weights of {label('node', mems)} are all {weights.pop()}: their pages are "
        "interleaved evenly"
    )
    hint = "root sets the weights, as files of sysfs (mm/mempolicy/weighted_interleave)"
    return [Caution("memory", text, hint)]


def find_nodes_of_kind(machine: Machine, kind: str, near: CpuSet) -> CpuSet:
    """Return for each of the nodes `near` the nearest that has this kind of memory. Raises
    PlanError."""
    topology, allowed = machine.topology, machine.allowed.nodes
    having = CpuSet(n.node for n in topology.nodes if n.kind == kind)
    if having & allowed:
        nearest = (topology.nearest(node, having & allowed) for node in near)
        return CpuSet(node for node in nearest if node is not None)
    problem = f"memory of {label('node', having)} is not allowed (cgroup cpuset)"
    if not having:
        problem = "no node of this machine is known to have such memory"
    kinds: dict[str, list[int]] = {}
    for n in topology.nodes:
        kinds.setdefault(n.kind or "unknown", []).append(n.node)
    there = "; ".join(f"{name}: {CpuSet(numbers)}" for name, numbers in kinds.items())
    raise PlanError(
        f"--mem-kind {kind}: {problem}",
        hint=f"kinds of the nodes: {there or 'none'}; --mem-nodes names nodes",
        wanted=kind,
        available=allowed,
    )


def choose_nodes(machine: Machine, named: CpuSet | str) -> CpuSet:
    """Return the nodes of --mem-nodes. Raises PlanError for one that does not exist."""
    numbers = machine.topology.node_numbers
    if isinstance(named, str):  # all
        bare = CpuSet(n.node for n in machine.topology.nodes if n.memory_bytes == 0)
        return (numbers & machine.allowed.nodes) - bare
    if missing := named - numbers:
        verb = "does not exist" if len(missing) == 1 else "do not exist"
        raise PlanError(
            f"--mem-nodes: {label('node', missing)} {verb}",
            hint=f"nodes: {numbers or 'none'}",
            wanted=named,
            available=numbers,
        )
    return named


def warn_of_denied_nodes(
    machine: Machine, request: Request, cores: Sequence[Core], shares: Sequence[Share]
) -> list[Caution]:
    """Return a warning of nodes whose cpus --numa-bind leaves idle, as their memory may not be
    used, while all others have ranks."""
    if request.mem in ("none", "local") or request.names_memory:
        return []
    if request.nodes or request.cpus or request.per not in (None, "numa"):
        return []
    bare = CpuSet(n.node for n in machine.topology.nodes if n.memory_bytes == 0)
    nodes = nodes_of(cores)
    denied = nodes - machine.allowed.nodes - bare
    if not denied or nodes - denied != union(s.home for s in shares):
        return []
    text = (
        f"--numa-bind leaves out {label('node', denied)}, whose memory is not allowed (cgroup "
        "cpuset): --mem none binds cpus only"
    )
    return [Caution("memory", text)]


def keep_allowed(machine: Machine, rank: int, wanted: CpuSet) -> tuple[CpuSet, list[Caution]]:
    """Return the nodes whose memory is allowed, for --on-denied degrade, and a warning of those
    that are dropped."""
    topology, allowed = machine.topology, machine.allowed.nodes
    bare = CpuSet(n.node for n in topology.nodes if n.memory_bytes == 0)
    dropped = wanted - allowed - bare
    kept = wanted - dropped if allowed else CpuSet()
    if not dropped:
        return kept, []
    rest = f"its memory is on {label('node', kept)}" if kept else "none is bound"
    text = f"rank {rank}: memory of {label('node', dropped)} is not allowed (cgroup cpuset): {rest}"
    return kept, [Caution("memory", text)]


def node_cpus(machine: Machine, number: int) -> CpuSet:
    node = machine.topology.find_node(number)
    return node.cpus if node else CpuSet()


def check_memory_nodes(machine: Machine, rank: int, nodes: CpuSet) -> None:
    """Refuse nodes that do not exist. Raises PlanError."""
    numbers = machine.topology.node_numbers
    if missing := nodes - numbers:
        verb = "does not exist" if len(missing) == 1 else "do not exist"
        raise PlanError(
            f"rank {rank}: {label('node', missing)} {verb}",
            hint=f"nodes: {numbers or 'none'}",
            rank=rank,
            wanted=nodes,
            available=numbers,
        )


def node_with_memory(machine: Machine, rank: int, number: int) -> int:
    """Return the node itself, or where it has no memory the nearest that has. Raises PlanError."""
    topology, allowed = machine.topology, machine.allowed
    node = topology.find_node(number)
    if node is not None and node.memory_bytes == 0:
        having = CpuSet(n.node for n in topology.nodes if n.memory_bytes != 0) & allowed.nodes
        near = topology.nearest(number, having)
        if near is None:
            raise PlanError(
                f"rank {rank}: node {number} has no memory, nor has any other that is allowed",
                hint=f"memory allowed on nodes: {allowed.nodes or 'none'}",
                rank=rank,
            )
        return near
    if number not in allowed.nodes:
        raise PlanError(
            f"rank {rank}: memory of node {number} is not allowed (cgroup cpuset)",
            hint=f"memory allowed on: {allowed.nodes or 'none'}; --mem none binds cpus only",
            rank=rank,
            wanted=number,
            available=allowed.nodes,
        )
    return number
