"""The plan of a server: one process, and the workers that it starts and binds as it is told to.

The workers are planned as ranks are. Then they are handed over: the server's process gets all their
cpus and what was set aside, and their lists in the engine's own words. Pure.
"""

from __future__ import annotations

from ompbind.cpuset import CpuSet, union
from ompbind.errors import PlanError
from ompbind.messages import label, plural
from ompbind.planner.ranks import make_rank_environment
from ompbind.plans import Binding, Caution, Numbers, RankPlan, Role, Server, ServerWorker

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ompbind.machine.topology import Machine
    from ompbind.planner.request import Request, Serving
    from ompbind.plans import Plan


def make_server_plan(machine: Machine, request: Request, serving: Serving, plan: Plan) -> Plan:
    """Return the plan for one server whose workers are the ranks of `plan`. Raises PlanError."""
    workers = tuple(make_worker(machine, serving, rank) for rank in plan.ranks)
    taken = union(w.cpus for w in workers)
    rest = union([plan.reserved, *(role.cpus for role in plan.roles)])
    unused = plan.unused
    if not rest:  # what nobody gets is the engine's; a server left alone would use it as well
        rest, unused = unused, CpuSet()
    words = make_words(serving, workers)
    server = Server(
        serving.engine,
        serving.name,
        serving.version,
        workers,
        rest - taken,
        serving.variable,
        words,
    )
    roles = merge_roles(plan)
    return plan.replace(
        ranks=(make_server_rank(machine, request, plan, server, roles),),
        roles=roles,
        unused=unused,
        server=server,
        cautions=(
            *plan.cautions,
            *warn_of_memory(serving, workers),
            *warn_of_quota(machine, serving, workers),
        ),
    )


def make_worker(machine: Machine, serving: Serving, rank: RankPlan) -> ServerWorker:
    """Return a worker with the memory that the engine will give it. Raises PlanError where another
    was asked for."""
    mem, mems = memory_of(machine, serving, rank)
    if rank.mem == "bind" and not mems <= rank.mems:
        raise PlanError(
            f"worker {rank.rank}: its memory is to come from {label('node', rank.mems)}, but "
            f"{serving.name} binds it to node {mems}, that of its first cpu, {rank.cpus.first}",
            hint="give the worker cpus of the node whose memory it is to use",
            rank=rank.rank,
            wanted=rank.mems,
            available=mems,
        )
    return ServerWorker(rank.rank, rank.cpus, rank.nodes, mem, mems, rank.gpus, rank.why)


def memory_of(machine: Machine, serving: Serving, rank: RankPlan) -> tuple[str, CpuSet]:
    """Return the policy and nodes that the engine gives a worker: the node of its first cpu, or the
    first with memory where that has none; by words, the node that these name.

    Sources: vLLM's CPUWorker (init_cpu_memory_env) and numa_utils (--membind); SGLang's
    init_cpu_threads_env and numa_utils.
    """
    if not machine.topology.numa or not machine.allowed.nodes:
        return "none", CpuSet()
    if serving.node_words and rank.mems:
        return "bind", rank.mems
    node = machine.topology.nodes_of(CpuSet([rank.cpus.first]))
    usable = CpuSet(n.node for n in machine.topology.nodes if n.memory_bytes != 0)
    usable &= machine.allowed.nodes
    return "bind", node & usable or CpuSet([(usable or machine.allowed.nodes).first])


def warn_of_memory(serving: Serving, workers: tuple[ServerWorker, ...]) -> list[Caution]:
    """Return a warning for workers with cpus on nodes that their memory is not bound to."""
    far = [w for w in workers if w.mem == "bind" and w.nodes - w.mems]
    if not far or serving.node_words:
        return []
    who = label("worker", CpuSet(w.worker for w in far))
    nodes = union(w.nodes for w in far)
    text = (
        f"{who}: cpus of {label('node', nodes)}, but {serving.name} binds a worker's memory to one "
        f"node, here {union(w.mems for w in far)}: that of its first cpu"
    )
    return [Caution("memory", text, "a worker for each node, or fewer cpus, keeps memory near")]


def warn_of_quota(
    machine: Machine, serving: Serving, workers: tuple[ServerWorker, ...]
) -> list[Caution]:
    """Return a warning for CPU workers with more cpus than the cgroup's quota is worth: the engine
    starts a thread on each of them."""
    quota, cpus = machine.allowed.quota, len(union(w.cpus for w in workers))
    if quota is None or serving.node_words or cpus <= max(quota, 1):
        return []
    text = (
        f"the cgroup's quota is worth {quota:g} {plural('cpu', quota)}, but {serving.name} starts "
        f"a thread on each of its workers' {cpus} cpus: they will be throttled"
    )
    return [Caution("quota", text, "--cores-per-rank N gives each worker N cores")]


def make_words(serving: Serving, workers: tuple[ServerWorker, ...]) -> tuple[str, ...]:
    """Return what is added to the server's command. Raises PlanError for a worker whose memory is
    not of one node."""
    if not serving.node_words:
        return ()
    for w in workers:
        if len(w.mems) != 1:
            raise PlanError(
                f"worker {w.worker}: {serving.name} binds it to one node, its cpus are on "
                f"{label('node', w.nodes) if w.nodes else 'no known node'}",
                hint="--numa-bind-nodes names one for each worker",
                rank=w.worker,
            )
    words = (*serving.node_words, *(str(w.mems) for w in workers))
    if serving.cpu_words:
        words += (*serving.cpu_words, *(str(w.cpus) for w in workers))
    return words


def merge_roles(plan: Plan) -> tuple[Role, ...]:
    """Return the roles as the server has them: those of each worker together, under their name."""
    merged: dict[str, Role] = {}
    for role in plan.roles:
        cpus = role.cpus | merged.get(role.name, role).cpus
        merged[role.name] = role.replace(cpus=cpus, ranks=CpuSet([0]))
    return tuple(merged.values())


def make_server_rank(
    machine: Machine, request: Request, plan: Plan, server: Server, roles: tuple[Role, ...]
) -> RankPlan:
    """Return the server's own process, bound to the cpus of all its workers and the rest of it; its
    memory only where that was asked for."""
    first = plan.ranks[0]
    cpus = union([server.rest, *(w.cpus for w in server.workers)])
    mem, mems = "none", CpuSet()
    if all(rank.mem == "bind" for rank in plan.ranks):
        mem, mems = "bind", union(w.mems for w in server.workers)
    binding = Binding(cpus, mem, mems, first.binding.binder)
    env = tuple(pair for pair in first.env if pair[0] in ("OMP_NUM_THREADS", "MKL_DYNAMIC"))
    env += make_rank_environment(Numbers(), request.rank_env, several=False) + binding.environment()
    env += tuple(variable for role in roles for variable in role.environment())
    if server.variable:
        env += ((server.variable, "|".join(str(w.cpus) for w in server.workers)),)
    nodes = machine.topology.nodes_of(cpus)
    command = request.command
    if request.template:
        from ompbind.worker.template import fill_arguments, make_names

        command = fill_arguments(command, make_names(Numbers(), cpus, nodes))
    return RankPlan(
        rank=0,
        binding=binding,
        places=(),
        nodes=nodes,
        env=env,
        unset=first.unset,
        command=(*command, *server.words) if command else (),
        why=f"{server.name}'s workers and what it keeps beside them",
        need=sum(rank.need for rank in plan.ranks),
    )
