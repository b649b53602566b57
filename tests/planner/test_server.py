"""The plan of one server and the workers that it starts, by itself: who gets which memory, what the
server is told, and what is warned of."""

from __future__ import annotations

from typing import Any

import pytest

from ompbind.cpuset import CpuSet
from ompbind.errors import PlanError
from ompbind.machine.topology import Allowed, Cpu, Machine, Node, Topology
from ompbind.planner import make_plan
from ompbind.planner.request import Serving
from ompbind.planner.server import (
    make_server_plan,
    make_words,
    make_worker,
    memory_of,
    merge_roles,
    warn_of_memory,
    warn_of_quota,
)
from ompbind.plans import Binding, Plan, RankPlan, Role, ServerWorker
from tests.support.machines import MACHINES, make_asked

LISTS = Serving("vllm", "vLLM", "0.32", variable="LISTS")
WORDS = Serving("vllm", "vLLM", "0.32", node_words=("--on", "--nodes"), cpu_words=("--cpus",))
NODES = Serving("sglang", "SGLang", node_words=("--node",))

# Three nodes of two cpus; node 1 has no memory, node 3 no cpus.
TOPOLOGY = Topology(
    tuple(Cpu(n, core=n, node=n // 2) for n in range(6)),
    (Node(0, CpuSet([0, 1]), 1 << 30), Node(1, CpuSet([2, 3]), 0),
     Node(2, CpuSet([4, 5]), 1 << 30), Node(3, CpuSet(), 1 << 30)),
)  # fmt: skip


def machine(nodes: str = "0-3", quota: float | None = None) -> Machine:
    """With memory allowed on these nodes."""
    return Machine(TOPOLOGY, Allowed(CpuSet(range(6)), CpuSet.parse_kernel(nodes), quota=quota))


def rank(cpus: str, mem: str = "none", mems: str = "", **more: Any) -> RankPlan:
    binding = Binding(CpuSet.parse_kernel(cpus), mem, CpuSet.parse_kernel(mems))
    return RankPlan(more.pop("number", 0), binding, (), TOPOLOGY.nodes_of(binding.cpus), (), (), (),
                    **more)  # fmt: skip


def worker(number: int, cpus: str, mems: str, mem: str = "bind") -> ServerWorker:
    which = CpuSet.parse_kernel(cpus)
    return ServerWorker(number, which, TOPOLOGY.nodes_of(which), mem, CpuSet.parse_kernel(mems))


@pytest.mark.parametrize(
    ("serving", "allowed", "cpus", "mems", "wanted"),
    [
        (LISTS, "0-3", "0-1", "", "bind 0"),
        (LISTS, "0-3", "1,4", "", "bind 0"),  # the node of the first cpu
        (LISTS, "0-3", "4-5", "0", "bind 2"),  # whatever was planned
        (LISTS, "0-3", "2-3", "", "bind 0"),  # one without memory: the first that has some
        (LISTS, "2-3", "2-3", "", "bind 2"),  # ... and is allowed
        (LISTS, "2-3", "0-1", "", "bind 2"),
        (LISTS, "1-2", "2-3", "", "bind 2"),  # ... though another comes first
        (LISTS, "1", "0-1", "", "bind 1"),  # none that is allowed has any
        (LISTS, "", "0-1", "", "none "),
        (WORDS, "0-3", "0-1", "2", "bind 2"),
        (WORDS, "0-3", "0-1", "0,2", "bind 0,2"),
        (WORDS, "0-3", "0-1", "", "bind 0"),
        (WORDS, "", "0-1", "2", "none "),
    ],
)
def test_the_memory_that_an_engine_gives_a_worker(
    serving: Serving, allowed: str, cpus: str, mems: str, wanted: str
) -> None:
    """By lists of cpus the node of the first one, by words the planned nodes."""
    mem, nodes = memory_of(machine(allowed), serving, rank(cpus, "bind" * bool(mems), mems))
    assert f"{mem} {nodes}" == wanted


def test_a_machine_without_nodes_binds_no_memory() -> None:
    flat = MACHINES["flat"]
    assert memory_of(flat, LISTS, rank("0-1")) == ("none", CpuSet())
    assert memory_of(flat, WORDS, rank("0-1", "bind", "0")) == ("none", CpuSet())


def test_a_worker_is_its_rank() -> None:
    """With the engine's memory; another that was asked for is refused, a wider one is not."""
    made = make_worker(machine(), LISTS, rank("4-5", number=1, gpus=("7",), why="node 2"))
    assert made == ServerWorker(
        1, CpuSet([4, 5]), CpuSet([2]), "bind", CpuSet([2]), ("7",), "node 2"
    )
    assert make_worker(machine(), LISTS, rank("4-5", "bind", "0,2")).mems == CpuSet([2])
    for mem in ("preferred", "interleave"):
        assert make_worker(machine(), LISTS, rank("4-5", mem, "0")).mems == CpuSet([2])
    with pytest.raises(PlanError) as caught:
        make_worker(machine(), LISTS, rank("4-5", "bind", "0,3", number=1))
    assert caught.value.message == (
        "worker 1: its memory is to come from nodes 0,3, but vLLM binds it to node 2, that of its "
        "first cpu, 4"
    )
    assert caught.value.data == {"rank": 1, "wanted": CpuSet([0, 3]), "available": CpuSet([2])}


def test_workers_across_nodes_are_warned_of() -> None:
    """Those with cpus on nodes that their memory is not bound to, all in one line."""
    near, far, farther = worker(0, "0-1", "0"), worker(1, "1-2", "0"), worker(2, "3-4", "2")
    assert warn_of_memory(LISTS, (near,)) == []
    assert warn_of_memory(WORDS, (near, far)) == []
    assert warn_of_memory(LISTS, (worker(1, "1-2", "", "none"),)) == []
    (caution,) = warn_of_memory(LISTS, (near, far, farther))
    assert caution.kind == "memory"
    assert caution.text == (
        "workers 1-2: cpus of nodes 0-2, but vLLM binds a worker's memory to one node, here 0,2: "
        "that of its first cpu"
    )
    assert caution.hint


@pytest.mark.parametrize(
    ("serving", "quota", "text"),
    [
        (LISTS, None, ""),
        (LISTS, 4.0, ""),
        (LISTS, 3.9, "the cgroup's quota is worth 3.9 cpus, but vLLM starts a thread on each of "
         "its workers' 4 cpus"),
        (LISTS, 1.0, "the cgroup's quota is worth 1 cpu, but"),
        (LISTS, 0.5, "the cgroup's quota is worth 0.5"),
        (WORDS, 1.0, ""),
    ],
)  # fmt: skip
def test_workers_beyond_a_quota_are_warned_of(
    serving: Serving, quota: float | None, text: str
) -> None:
    """Where the engine starts a thread for each cpu; the cpus of all count, each once."""
    workers = (worker(0, "0-2", "0"), worker(1, "2-3", "0"))
    cautions = warn_of_quota(machine(quota=quota), serving, workers)
    assert [c.kind for c in cautions] == ["quota"] * bool(text)
    assert all(c.text.startswith(text) for c in cautions)


def test_one_cpu_is_never_beyond_a_quota() -> None:
    """Two are beyond less than two."""
    assert warn_of_quota(machine(quota=0.5), LISTS, (worker(0, "0", "0"),)) == []
    for quota in (0.5, 1.0, 1.5):
        assert len(warn_of_quota(machine(quota=quota), LISTS, (worker(0, "0-1", "0"),))) == 1


def test_what_a_server_is_told_by_words() -> None:
    """The nodes of all workers, then their cpus where the engine takes them."""
    workers = (worker(0, "4-5", "2"), worker(1, "0-1", "0"))
    assert make_words(LISTS, workers) == ()
    assert make_words(NODES, workers) == ("--node", "2", "0")
    assert make_words(WORDS, workers) == ("--on", "--nodes", "2", "0", "--cpus", "4-5", "0-1")


@pytest.mark.parametrize(
    ("cpus", "mems", "where"), [("0-5", "0,2", "nodes 0-2"), ("0-1", "", "node 0")]
)
def test_a_worker_of_several_nodes_cannot_be_told(cpus: str, mems: str, where: str) -> None:
    """Words name one node for each, the second worker here has another number."""
    with pytest.raises(PlanError) as caught:
        make_words(WORDS, (worker(0, "0", "0"), worker(1, cpus, mems)))
    assert caught.value.message == (f"worker 1: vLLM binds it to one node, its cpus are on {where}")
    assert caught.value.data == {"rank": 1}
    nowhere = worker(0, "0", "").replace(nodes=CpuSet())
    with pytest.raises(PlanError, match="its cpus are on no known node"):
        make_words(WORDS, (nowhere,))


def test_a_servers_plan_has_all_warnings() -> None:
    """Those of its workers' plan, and those of what the engine does with them."""
    texts = plan_for("container", "-n", "2", "--exclude", "99").warnings
    assert [text.partition(":")[0].partition(",")[0] for text in texts] == [
        "--exclude names cpus that this machine does not have",
        "the cgroup's quota is worth 2.5 cpus",
    ]


def plan_for(name: str, *args: str, serving: Serving = LISTS, **more: Any) -> Plan:
    request = make_asked(args, ("serve", "model"))
    return make_plan(MACHINES[name], request.replace(serving=serving, omp="off", **more))


def test_pools_of_workers_are_one_of_the_servers() -> None:
    """Under each name; the server is the only rank."""
    plan = plan_for("server", "-n", "2", "--role", "kv=1/rank", "--role", "io=1")
    assert merge_roles(plan) == plan.roles
    assert [(r.name, str(r.cpus), r.ranks) for r in plan.roles] == [
        ("kv", "7,15", CpuSet([0])), ("io", "14", CpuSet([0])),
    ]  # fmt: skip
    roles = (Role("a", CpuSet([1]), CpuSet([0])), Role("b", CpuSet([2]), CpuSet([0, 1])),
             Role("a", CpuSet([3]), CpuSet([1])))  # fmt: skip
    assert merge_roles(plan.replace(roles=roles)) == (
        Role("a", CpuSet([1, 3]), CpuSet([0])), Role("b", CpuSet([2]), CpuSet([0])),
    )  # fmt: skip


def test_a_server_has_its_workers_cpus_and_what_was_set_aside() -> None:
    """Or what nobody gets, where nothing was; not what a worker has."""
    plan = plan_for("server", "-n", "2", "--reserve", "2")
    assert plan.server is not None
    assert plan.server.rest == plan.reserved == CpuSet.parse_kernel("7,15,23,31")
    assert str(plan.ranks[0].cpus) == "0-15,23,31"
    assert str(plan.unused) == ""
    plan = plan_for("server", "--numa-bind-cpus", "0-3")
    assert plan.server is not None
    assert (str(plan.server.rest), str(plan.unused)) == ("4-15,20-31", "")
    request = make_asked(["-n", "2", "--reserve", "2"])
    base = make_plan(MACHINES["server"], request).replace(unused=CpuSet([20]))
    plan = make_server_plan(MACHINES["server"], request, LISTS, base)
    assert plan.server is not None
    assert (str(plan.server.rest), str(plan.unused)) == ("7,15,23,31", "20")
    plan = plan_for("server", "-n", "2", "--role", "kv=1/rank")
    assert plan.server is not None
    assert str(plan.server.rest) == "7,15"


def test_a_servers_memory_is_bound_only_where_that_was_asked_for() -> None:
    """For all its workers, to their nodes."""
    args = ("-n", "2", "--per", "numa")
    [free] = plan_for("server", *args).ranks
    assert (free.mem, free.mems) == ("none", CpuSet())
    [bound] = plan_for("server", *args, "--mem", "bind").ranks
    assert (bound.mem, str(bound.mems)) == ("bind", "0-1")
    request = make_asked([*args, "--mem", "bind"])
    base = make_plan(MACHINES["server"], request)
    first, second = base.ranks
    mixed = base.replace(ranks=(first, second.rebind(second.binding.without(("memory",)))))
    [part] = make_server_plan(MACHINES["server"], request, LISTS, mixed).ranks
    assert (part.mem, part.mems) == ("none", CpuSet())
    [other] = plan_for("server", *args, "--mem", "interleave").ranks
    assert (other.mem, other.mems) == ("none", CpuSet())


def test_a_servers_environment() -> None:
    """The lists of its workers, its roles, and of OpenMP the number of threads alone."""
    args = ("-n", "2", "--reserve", "0", "--role", "kv=1/rank", "--smt", "1")
    plan = plan_for("server", *args)
    [server] = plan.ranks
    assert dict(server.env) == {
        "OMPBIND_RANK": "0", "OMPBIND_RANKS": "1", "OMPBIND_CPUS": str(server.cpus),
        "OMPBIND_MEM": "none", "OMPBIND_ROLE_KV": str(plan.roles[0].cpus), "LISTS": "0-6|8-14",
    }  # fmt: skip
    by_words = dict(plan_for("server", *args, serving=NODES).ranks[0].env)
    assert by_words == {name: text for name, text in server.env if name != "LISTS"}
    request = make_asked(("-n", "2", "--threads", "3"), ("serve",)).replace(serving=LISTS)
    [threads] = make_plan(MACHINES["server"], request).ranks
    names = {name for name, _ in threads.env if not name.startswith(("OMPBIND_", "LISTS"))}
    assert names <= {"OMP_NUM_THREADS", "MKL_DYNAMIC"}
    assert dict(threads.env)["OMP_NUM_THREADS"] == "3"
    request = make_asked(("-n", "2", "--smt", "all", "--places", "threads"), ("serve",))
    [threads] = make_plan(MACHINES["server"], request.replace(serving=LISTS)).ranks
    assert dict(threads.env)["MKL_DYNAMIC"] == "FALSE"  # else MKL uses one thread for each core


def test_a_servers_command_has_its_words() -> None:
    """Behind the user's, with templates filled in; without a command there is nothing to add to."""
    args = ("-n", "2", "--per", "numa")
    [server] = plan_for("server", *args, serving=NODES).ranks
    assert server.command == ("serve", "model", "--node", "0", "1")
    assert server.why == "SGLang's workers and what it keeps beside them"
    assert (server.rank, server.places, str(server.nodes)) == (0, (), "0-3")
    request = make_asked([*args, "--template"], ("serve", "{cpus}", "{rank}"))
    [filled] = make_plan(MACHINES["server"], request.replace(serving=NODES, omp="off")).ranks
    assert filled.command == ("serve", str(filled.cpus), "0", "--node", "0", "1")
    plain = make_asked(args, ("serve", "{cpus}")).replace(serving=NODES, omp="off")
    assert make_plan(MACHINES["server"], plain).ranks[0].command[:2] == ("serve", "{cpus}")
    request = make_asked(args, ()).replace(serving=NODES, omp="off")
    assert make_plan(MACHINES["server"], request).ranks[0].command == ()
