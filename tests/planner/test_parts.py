"""Parts of the planner by themselves, where a plan shows them seldom."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from ompbind.cpuset import CpuSet
from ompbind.devices.visible import Visible, make_visible
from ompbind.errors import PlanError
from ompbind.machine.topology import Allowed, Cpu, Device, Machine, Node, Topology
from ompbind.planner import (
    LARGEST_WEIGHT,
    explain_sizes,
    is_about_devices,
    make_plan,
    warn_of_sizes,
)
from ompbind.planner.by_device import NearestNode, find_nearest_node
from ompbind.planner.by_place_list import without_unusable_list
from ompbind.planner.cores import Core, in_tree_order, levels_for, llc_level
from ompbind.planner.mapping import Share
from ompbind.planner.memory import (
    check_memory_nodes,
    choose_nodes,
    find_memory,
    find_nodes_of_kind,
    keep_allowed,
    node_with_memory,
    warn_of_denied_nodes,
    warn_of_weights,
)
from ompbind.planner.quota import share_quota
from ompbind.planner.request import Need, Pool, Request, Serving
from ompbind.planner.reservation import set_aside
from ompbind.plans import Inherited, Numbers, World
from tests.support.machines import MACHINES, make_asked, make_machine
from tests.support.trees import Pci, Shape


def make_share(*nodes: int | None, weight: int = 1, first: int = 0) -> Share:
    """A share with a core on each of these nodes."""
    cores = []
    for n, node in enumerate(nodes, first):
        cpus = CpuSet([n])
        cores.append(Core(cpus, cpus, Cpu(n, core=n, package=0, node=node), weight))
    return Share(tuple(cores), "here")


def test_capacity_may_differ_by_the_most_capable_core() -> None:
    """Where there are several kinds of core; more than that is worth a warning."""
    request = make_asked(["-n", "2"])
    alike = [make_share(0, weight=LARGEST_WEIGHT), make_share(0, 0, weight=LARGEST_WEIGHT)]
    assert warn_of_sizes(alike, request) == []
    uneven = [make_share(0, weight=512), make_share(0, 0, 0, weight=513)]
    (caution,) = warn_of_sizes(uneven, request)
    assert caution.text.startswith("ranks get from 512 to 1539 of capacity (1024:")
    # one kind that weighs something counts for all
    mixed = [Share((*make_share(0, 0).cores, *make_share(0, weight=2).cores), ""), make_share(0)]
    assert warn_of_sizes(mixed, request) == []


def test_sizes_that_somebody_asked_for_are_no_warning() -> None:
    """By lists of cpus or places, by things, or by numbers of cores."""
    uneven = [make_share(0), make_share(0, 0, 0)]
    request = make_asked(["-n", "2"])
    (caution,) = warn_of_sizes(uneven, request)
    assert caution.text == "ranks get from 1 to 3 cores"
    named = (CpuSet([0]), CpuSet([1]))
    for more in ({"cpus": named}, {"place_list": named}, {"per": "l3"}, {"cores_per_rank": (1, 3)}):
        assert warn_of_sizes(uneven, request.replace(**more)) == []
    assert len(warn_of_sizes(uneven, request.replace(cores_per_rank=(1,)))) == 1
    assert warn_of_sizes([make_share(0), make_share(0, 0)], request) == []


@pytest.mark.parametrize(
    "more", [{"ranks": None}, {"nodes": (CpuSet([0]),) * 2}, {"numa_bind": True}, {"share": True}]
)
def test_equal_sizes_are_for_ranks_that_divide_the_machine(more: dict[str, Any]) -> None:
    """The warning of sizes that differ names --balance only to them."""
    uneven = [make_share(0), make_share(0, 0, 0)]
    (caution,) = warn_of_sizes(uneven, make_asked(["-n", "2"]))
    assert caution.hint.startswith("--balance equal gives each rank 2, across nodes")
    (caution,) = warn_of_sizes(uneven, make_asked(["-n", "2"]).replace(**more))
    assert caution.hint == ""


def test_a_plan_without_openmps_variables_says_nothing_of_them() -> None:
    """Neither why places are as they are, nor what else would be removed."""
    off = make_plan(MACHINES["server"], make_asked(["-n", "2", "--omp", "off"]))
    assert (off.places_why, off.ranks[0].unset, off.ranks[0].places) == ("", (), ())
    every = make_plan(MACHINES["server"], make_asked(["-n", "2"]))
    assert every.ranks[0].unset
    assert every.places_why


def test_ranks_have_their_numbers_in_a_job() -> None:
    """Where they are a part of one; a plan of one of them has it alone, as rank 0."""
    request = make_asked(["-n", "2", "--rank-env"])
    assert [r.numbers for r in make_plan(MACHINES["server"], request).ranks] == [None, None]
    world = World(first=4, size=8, local_first=1, local_size=3)
    for only, ranks in ((None, [0, 1]), (1, [1])):
        more = request.replace(world=world.replace(only=only))
        plan = make_plan(MACHINES["server"], more)
        assert [r.numbers for r in plan.ranks] == [Numbers(4 + n, 8, 1 + n, 3) for n in ranks]
        assert [r.rank for r in plan.ranks] == [*range(len(ranks))]


def test_a_plan_without_a_job_around_it_is_the_whole_job() -> None:
    """Of which one rank may be all that is started here."""
    request = make_asked(["-n", "2", "--rank-env"]).replace(world=World(0, 0, 0, 0, only=1))
    assert [r.numbers for r in make_plan(MACHINES["server"], request).ranks] == [
        Numbers(1, 2, 1, 2)
    ]


def test_a_plan_of_one_rank_leaves_the_others_what_is_theirs() -> None:
    """Their cpus, and those of their roles, are neither its own nor free; a role of all ranks is
    its own as well."""
    request = make_asked(["-n", "2", "--role", "kv=1/rank,io=1"])
    world = World(0, 2, 0, 2)
    every = make_plan(MACHINES["server"], request.replace(world=world))
    one = make_plan(MACHINES["server"], request.replace(world=world.replace(only=1)))
    for plan, ranks, others, roles in (
        (every, ["0-6", "8-13"], "", ["kv 7 of 0", "kv 15 of 1", "io 14 of 0-1"]),
        (one, ["8-13"], "0-7", ["kv 15 of 0", "io 14 of 0"]),
    ):
        assert [str(r.cpus) for r in plan.ranks] == ranks
        assert (str(plan.others), str(plan.unused)) == (others, "")
        assert [f"{r.name} {r.cpus} of {r.ranks}" for r in plan.roles] == roles
    sharing = make_asked(["-n", "2", "--share"]).replace(world=world.replace(only=1))
    assert str(make_plan(MACHINES["server"], sharing).others) == "", "they are its own"
    with pytest.raises(PlanError, match=r"^--rank 2: the plan has 2 ranks, from 0$"):
        make_plan(MACHINES["server"], request.replace(world=world.replace(only=2)))


def test_a_launch_of_one_rank_of_a_plan_leaves_its_job_alone() -> None:
    """Unless it is asked to, it sets none of the variables that number a job's ranks."""
    request = make_asked(["-n", "2"])
    for world, rank_env, numbered in (
        (None, None, True),
        (World(0, 2, 0, 2), None, True),
        (World(0, 2, 0, 2, only=1), None, False),
        (World(0, 2, 0, 2, only=1), True, True),
    ):
        plan = make_plan(MACHINES["server"], request.replace(world=world, rank_env=rank_env))
        env = dict(plan.ranks[-1].env)
        assert env["OMPBIND_RANK"] == "1"
        assert ("RANK" in env, env.get("WORLD_SIZE")) == (numbered, "2" if numbered else None)


def test_ranks_know_their_group() -> None:
    """By a variable, where there are several; numbers are those in the group."""
    request = make_asked(["-n", "2"])
    (_, alone), (_, rank) = (
        make_plan(MACHINES["server"], r).ranks for r in (request, request.replace(group="router"))
    )
    assert (rank.group, dict(rank.env)["OMPBIND_GROUP"]) == ("router", "router")
    assert rank.group_numbers == Numbers(1, 2, 1, 2)
    assert (alone.group, alone.group_numbers, "OMPBIND_GROUP" in dict(alone.env)) == (
        "", None, False,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("asked", "needs"),
    [
        ([], [0, 0, 0]),
        (["--mem-need", "9K"], [3072, 3072, 3072]),
        (["--mem-need", "1K"], [342, 342, 342]),  # all together no less than that
        (["--mem-need", "1K/rank"], [1024, 1024, 1024]),
    ],
)
def test_memory_that_ranks_must_find(asked: list[str], needs: list[int]) -> None:
    """Of all together each has a part; a server that starts them as workers needs all of it."""
    request = make_asked(["-n", "3", *asked])
    assert [r.need for r in make_plan(MACHINES["desktop"], request).ranks] == needs
    serving = Serving("vllm", "vLLM", variable="LISTS")
    (server,) = make_plan(MACHINES["desktop"], request.replace(serving=serving)).ranks
    assert server.need == sum(needs)


def test_limits_that_would_change_the_threads_are_removed() -> None:
    """From the rank's environment; one that is kept, or that nobody has set, is not."""
    inherited = (Inherited("OMP_THREAD_LIMIT", "1", "removed", ""),
                 Inherited("OMP_DYNAMIC", "true", "respected", ""))  # fmt: skip
    request = make_asked([])
    (usual,) = make_plan(MACHINES["desktop"], request).ranks
    (rank,) = make_plan(MACHINES["desktop"], request.replace(inherited=inherited)).ranks
    assert rank.unset == (*usual.unset, "OMP_THREAD_LIMIT")


def test_words_are_filled_in_where_they_are_a_template() -> None:
    command = ("work", "{rank}", "{cpus}")
    for args, first in (([], "{rank} {cpus}"), (["--template"], "0 0-2")):
        ranks = make_plan(MACHINES["desktop"], make_asked(["-n", "2", *args], command)).ranks
        assert ranks[0].command == ("work", *first.split())


def test_one_place_is_a_list_for_one_rank() -> None:
    """Also where nobody said how many ranks there are."""
    request = make_asked([]).replace(place_list=(CpuSet([0]),), ranks=None)
    assert without_unusable_list(MACHINES["server"], request) is request
    assert without_unusable_list(MACHINES["server"], request.replace(ranks=2)).place_list is None


@pytest.mark.parametrize(
    "asked",
    [
        {"per": "gpu"}, {"per": "accel"}, {"per": "nic"}, {"near": "eth0"}, {"gpu_env": True},
        {"nic_env": True}, {"visible": Visible()},
    ],
    ids="-".join,
)  # fmt: skip
def test_what_the_devices_are_read_for(asked: dict[str, Any]) -> None:
    """Each by itself."""
    assert is_about_devices(Request(**asked))
    assert not is_about_devices(Request(ranks=2, per="numa", numa_bind=True))


@pytest.mark.parametrize(
    ("cores", "can_bind", "kinds"),
    [
        ((None, None), True, ["no-cores"]),
        ((None,), True, []),  # one cpu is one core
        ((None, 1), True, []),
        ((0, 1), True, []),
        ((None, None), False, ["no-binding"]),  # what is to be known of its cores is no matter
        ((0, 1), False, ["no-binding"]),
    ],
)
def test_what_the_machine_does_not_have_or_say(
    cores: tuple[int | None, ...], can_bind: bool, kinds: list[str]
) -> None:
    cpus = tuple(Cpu(n, core=core) for n, core in enumerate(cores))
    allowed = Allowed(CpuSet(range(len(cores))), CpuSet())
    machine = Machine(Topology(cpus, ()), allowed, can_bind=can_bind)
    assert [c.kind for c in make_plan(machine, make_asked([])).cautions] == kinds


def test_a_policy_on_a_kernel_without_numa() -> None:
    """Is said not to be set; that none is wanted goes without saying."""
    for args, kinds in (("", []), ("--mem none", []), ("--mem bind", ["no-numa"]),
                        ("--numa-bind", ["no-numa"])):  # fmt: skip
        plan = make_plan(MACHINES["flat"], make_asked(args.split()))
        assert [c.kind for c in plan.cautions] == kinds, args


def test_denied_memory_is_nothing_to_who_does_not_bind_it() -> None:
    """No node is left out then, though no rank is for any."""
    machine = make_machine(Shape(nodes=2, cores=4), "0-1", "1")
    assert make_plan(machine, make_asked(["-n", "2"])).warnings == ()


def test_hardware_threads_as_cores() -> None:
    """As an engine's ranks have them that are more than the cores: those that may be used."""
    plan = make_plan(MACHINES["container"], make_asked(["-n", "13"]).replace(by_thread=True))
    order = [cpu for core in range(6) for cpu in (core, core + 16)]
    assert [list(r.cpus) for r in plan.ranks] == [[cpu] for cpu in [*order, 7]]


def test_places_that_two_ranks_have() -> None:
    """Their threads are counted together, as no option says that they share."""
    request = make_asked(["-n", "2"]).replace(place_list=(CpuSet([0, 1]),) * 2)
    plan = make_plan(MACHINES["server"], request)
    assert [str(r.cpus) for r in plan.ranks] == ["0-1", "0-1"]
    assert "ranks 0-1 share 2 cpus and have 4 threads together" in plan.warnings[-1]


def test_a_plan_keeps_what_was_asked_for() -> None:
    """The command, whether it is a template, and why OpenMP's variables are as they are."""
    request = make_asked(
        ["-n", "2", "--template", "--omp", "off", "--part", "1/2"], ("a", "{rank}")
    )
    plan = make_plan(MACHINES["server"], request)
    assert (plan.command, plan.template, plan.omp, plan.part) == (
        ("a", "{rank}"),
        True,
        "off",
        "1/2",
    )
    assert plan.omp_why == request.omp_why != ""
    assert make_plan(MACHINES["server"], request.replace(omp="all")).omp_why == ""
    assert (plan.host.quota, str(plan.host.nodes)) == (None, "0-3")
    contained = make_plan(MACHINES["container"], make_asked(["-n", "2"]))
    assert (contained.host.quota, str(contained.host.allowed)) == (2.5, "0-5,7,16-21")
    whole = make_plan(MACHINES["server"], make_asked(["-n", "2", "--exclude", "0"]))
    assert (str(whole.excluded), whole.template, whole.part, whole.others) == (
        "0,16",
        False,
        "",
        CpuSet(),
    )
    assert str(plan.others) == "8-15,24-31"


def test_cores_without_a_group_come_before_all_groups() -> None:
    """Whatever their numbers are: what is not known of a core is no group 0."""
    cores = [
        Core(CpuSet([n]), CpuSet([n]), Cpu(n, core=n, package=0, l3=l3))
        for n, l3 in enumerate((1, 0, 0, None))
    ]
    ordered = in_tree_order(cores, ("package", "l3", "core"))
    assert [core.cpus.first for core in ordered] == [3, 1, 2, 0]
    unread = in_tree_order(cores, ("package", "core"))
    assert [core.cpus.first for core in unread] == [0, 1, 2, 3]


def test_sizes_are_explained_by_what_they_keep() -> None:
    """Ranks that keep to one node each, or nodes to one rank each; nothing else explains them."""
    assert explain_sizes([make_share(0, 0, 0), make_share(0)]) == ""
    assert explain_sizes([make_share(0, 0, 0), make_share(0, 1)]) == ""
    assert explain_sizes([make_share(0, 0, 0), make_share(1)]) == ", so that no node is divided"
    apart = [make_share(0, 0, 0), make_share(1), make_share(1)]
    assert explain_sizes(apart) == ", so that no rank spans two nodes"
    assert explain_sizes([make_share(None, 0, 0), make_share(1)]) == ""


@pytest.mark.parametrize(
    ("args", "levels"),
    [
        ("", "core package node l3"),
        ("--places l3", "core package node l3 l2"),
        ("--places cores", "core package node l3"),
        ("--kind performance", "core package node l3 kind"),
        ("--reserve 1", "core package node l3 kind"),
        ("--role kv=1", "core package node l3 kind"),
        ("--numa-bind-cpus 0", "core package node l3"),
    ],
)
def test_what_divides_nothing_reads_few_levels(args: str, levels: str) -> None:
    """Reading the others costs time at each start."""
    assert " ".join(levels_for(make_asked(args.split()))) == levels


@pytest.mark.parametrize(
    "args", ["-n 2", "--per numa", "--numa-bind-nodes 0", "--part 1/2", "--per core", "--free 2"]
)
def test_what_divides_reads_every_level(args: str) -> None:
    """The tree, and what kind each core is of."""
    levels = levels_for(make_asked(args.split()))
    assert {"core", "drawer", "book", "package", "node", "die", "l3", "l2", "kind"} <= {*levels}


def test_one_cpu_with_an_l3_makes_it_the_last_level() -> None:
    """Some cores of hybrid processors have none."""
    cpus = (Cpu(0, core=0, l2=0, l3=0), Cpu(1, core=1, l2=1))
    allowed = Allowed(CpuSet([0, 1]), CpuSet())
    assert llc_level(Machine(Topology(cpus, ()), allowed)) == "l3"
    assert llc_level(Machine(Topology(cpus[1:], ()), allowed)) == "l2"


def why(machine: str, args: str, environ: dict[str, str] | None = None) -> list[str]:
    plan = make_plan(MACHINES[machine], make_asked(args.split(), environ=environ))
    return [rank.why for rank in plan.ranks]


def test_ranks_say_what_they_are_on() -> None:
    """By the number of the thing, where the machine gives it one."""
    assert why("mute", "--per core")[1] == "cpu 1"
    assert why("server", "--per core")[1] == "core 1"
    assert why("server", "--part 2/4") == ["part 2/4 of the machine"]
    assert why("server", "--per l3 -n 2") == ["L3 0", "L3 1"]
    assert why("old-arm", "--per l3 -n 2") == ["L2 0", "L2 1"]  # the last level that it has
    assert why("server", "-n 2 --share")[0] == "the whole machine, shared by 2 ranks"
    assert why("server", "-n 2 --share --part 1/2")[0] == (
        "part 1/2 of the machine, shared by 2 ranks"
    )
    places = {"OMP_PLACES": "{0},{1},{2}", "OMP_PROC_BIND": "close"}
    assert why("server", "-n 2", places) == [
        "places 1-2 of OMP_PLACES",
        "place 3 of OMP_PLACES",
    ]


def test_ranks_say_what_was_set_aside() -> None:
    """Of their cores, by role, reserved ones last; one node and package go without saying."""
    machine = "1/2 of the machine, package"
    assert why("server", "-n 2 --reserve 1 --role kv=2") == [
        f"{machine} 0, nodes 0-1, less 1 for kv",
        f"{machine} 1, nodes 2-3, less 1 for kv and 1 reserved",
    ]
    assert why("server", "-n 2 --reserve 2 --role kv=1/rank --role io=2") == [
        f"{machine} 0, nodes 0-1, less 1 for kv, 1 for io and 1 reserved",
        f"{machine} 1, nodes 2-3, less 1 for kv, 1 for io and 1 reserved",
    ]
    assert why("server", "-n 2 --reserve 1")[0] == f"{machine} 0, nodes 0-1"
    assert why("desktop", "-n 2") == ["1/2 of the machine"] * 2


def test_parts_say_what_is_known_of_where_they_are() -> None:
    """Of two packages and nodes, which some cpus are on."""
    cpus = tuple(Cpu(n, core=n, package=n or None, node=n or None) for n in range(3))
    nodes = (Node(1, CpuSet([1]), 1 << 30), Node(2, CpuSet([2]), 1 << 30))
    machine = Machine(Topology(cpus, nodes), Allowed(CpuSet(range(3)), CpuSet([1, 2])))
    whole = "1/3 of the machine"
    assert [rank.why for rank in make_plan(machine, make_asked(["-n", "3"])).ranks] == [
        whole, f"{whole}, package 1, node 1", f"{whole}, package 2, node 2",
    ]  # fmt: skip


def test_threads_of_unknown_cores_share_none() -> None:
    """As far as anybody can say: no warning that ranks have threads of one core."""
    kinds = [c.kind for c in make_plan(MACHINES["mute"], make_asked(
        ["--numa-bind-cpus", "0", "1"])).cautions]  # fmt: skip
    assert kinds == ["no-cores"]


def shares_of(*sizes: int, weights: Sequence[int] = ()) -> list[Share]:
    """Shares of so many cores each, numbered through; `weights`: of each share's cores."""
    starts = [sum(sizes[:i]) for i in range(len(sizes))]
    return [
        make_share(*[0] * size, first=start, weight=weights[i] if weights else 1)
        for i, (size, start) in enumerate(zip(sizes, starts, strict=True))
    ]


def lists(shares: Sequence[Share]) -> list[str]:
    return [str(share.cpus) for share in shares]


@pytest.mark.parametrize(
    ("sizes", "pool", "left", "taken"),
    [
        ((3, 3), Pool("", 1, per_rank=True), ["0-1", "3-4"], "2,5"),
        ((3, 3), Pool("", 1), ["0-2", "3-4"], "5"),  # of the last rank with the most
        ((4, 3), Pool("", 2), ["0-2", "4-5"], "3,6"),
        ((2, 2), Pool("", 2), ["0", "2"], "1,3"),
        ((1, 3, 3), Pool("", 1, per_rank=True, if_spare=True), ["0", "1-2", "4"], "3,5-6"),
        ((2, 3), Pool("", 1, per_rank=True, if_spare=True), ["0", "2-3"], "1,4"),
        ((2, 2), Pool("", 2, per_rank=True, if_spare=True), ["0-1", "2-3"], ""),
        ((1, 2), Pool("", 1, per_rank=True, if_spare=True), ["0", "1-2"], ""),
        ((1, 1), Pool("", 1, if_spare=True), ["0", "1"], ""),
        ((1, 2), Pool("", 1, if_spare=True), ["0", "1"], "2"),
        ((2, 2), Pool("", 0), ["0-1", "2-3"], ""),
        ((1, 1), Pool("kv", 1, if_spare=True), ["0", "1"], ""),  # no role of no cores
    ],
)
def test_what_is_set_aside(sizes: tuple[int, ...], pool: Pool, left: list[str], taken: str) -> None:
    """From the end of each rank's cores; a wish that cannot be had is taken of all ranks together,
    or not at all."""
    request = Request(roles=(pool,)) if pool.name else Request(reserve=pool)
    remaining, reserved, roles = set_aside(shares_of(*sizes), request)
    assert (lists(remaining), str(reserved), roles) == (left, taken, ())


@pytest.mark.parametrize(("cores", "taken"), [(2, ""), (3, "1-2")])
def test_a_wish_of_ranks_that_share_their_cores(cores: int, taken: str) -> None:
    """Each asks for one of the same cores."""
    (share,) = shares_of(cores)
    wish = Request(reserve=Pool("", 1, per_rank=True, if_spare=True))
    assert str(set_aside([share, share], wish)[1]) == taken


def test_a_rank_keeps_its_last_core() -> None:
    """Though it is more capable than all that another has left."""
    shares = shares_of(1, 3, weights=(1024, 300))
    remaining, reserved, _ = set_aside(shares, Request(reserve=Pool("", 2)))
    assert (lists(remaining), str(reserved)) == (["0", "1"], "2-3")
    for pool, text in (
        (Pool("", 3), "--reserve 3 would leave ranks without a core"),
        (Pool("", 1, per_rank=True), "rank 0: --reserve 1/rank would leave it without a core"),
    ):
        with pytest.raises(PlanError, match=f"^{text}$"):
            set_aside(shares, Request(reserve=pool))


def test_ranks_are_told_of_their_roles() -> None:
    """By a variable for each: of those of each rank its own, of those of all together all."""
    plan = make_plan(
        MACHINES["server"], make_asked(["-n", "2", "--role", "kv=1/rank", "--role", "io=1"])
    )
    told = [{k: v for k, v in r.env if k.startswith("OMPBIND_ROLE_")} for r in plan.ranks]
    assert told == [
        {"OMPBIND_ROLE_KV": "7", "OMPBIND_ROLE_IO": "14"},
        {"OMPBIND_ROLE_KV": "15", "OMPBIND_ROLE_IO": "14"},
    ]


def test_roles_are_for_the_ranks_that_gave_them() -> None:
    """One of all ranks for all; those of each rank in the order of ranks, though some share."""
    request = Request(roles=(Pool("io", 1), Pool("kv", 1, per_rank=True)), reserve=Pool("", 1))
    remaining, reserved, roles = set_aside(shares_of(4, 4), request)
    assert (lists(remaining), str(reserved)) == (["0-1", "4-5"], "2")
    assert [(r.name, str(r.cpus), str(r.ranks)) for r in roles] == [
        ("kv", "3", "0"), ("kv", "7", "1"), ("io", "6", "0-1"),
    ]  # fmt: skip
    first, second = shares_of(4, 4)
    remaining, _, roles = set_aside(
        [first, second, first], Request(roles=(Pool("kv", 1, per_rank=True),))
    )
    assert lists(remaining) == ["0-1", "4-6", "0-1"]
    assert [(str(r.cpus), str(r.ranks)) for r in roles] == [("3", "0"), ("7", "1"), ("2", "2")]
    assert [share.notes for share in remaining] == [
        ", less 2 for kv", ", less 1 for kv", ", less 2 for kv",
    ]  # fmt: skip


def test_a_request_asks_for_nothing_by_itself() -> None:
    """Its defaults are what no argument at all makes."""
    assert make_asked([]) == Request(binder="numactl", command=("true",))
    assert [bool(Pool("kv", 1)), bool(Pool("kv", 0)), Pool("kv", 1).per_rank] == [
        True,
        False,
        False,
    ]
    assert str(Pool("kv", 2, True)) == "--role kv=2/rank"
    assert [Need(3).of_each(2), Need(3, per_rank=True).of_each(2)] == [2, 3]
    assert str(Pool("", 2)) == "--reserve 2"
    assert str(Pool("", 2, source="VARIABLE=2")) == "VARIABLE=2"


def test_a_single_thread_is_worth_no_warning() -> None:
    """With less of a cpu than one there is still a thread."""
    small = make_machine(Shape(cores=1), quota=0.5)
    plan = make_plan(small, make_asked([]))
    assert dict(plan.ranks[0].env)["OMP_NUM_THREADS"] == "1"
    assert plan.warnings == ()


def test_a_list_of_places_that_cannot_be_used_is_overridden() -> None:
    """With why; other variables keep their record. Ranks that share may be more than places."""
    environ = {"OMP_PLACES": "{0},{1}", "OMP_PROC_BIND": "close"}
    machine = MACHINES["server"]
    plan = make_plan(machine, make_asked(["-n", "3"], environ=environ))
    (places,) = [i for i in plan.inherited if i.name == "OMP_PLACES"]
    (bind,) = [i for i in plan.inherited if i.name == "OMP_PROC_BIND"]
    assert (places.action, places.why) == ("overridden", "it has 2 places for 3 ranks")
    assert bind.action != "overridden"
    assert [str(r.cpus) for r in plan.ranks] != ["0-1"] * 3
    shared = make_plan(machine, make_asked(["-n", "3", "--share"], environ=environ))
    assert [str(r.cpus) for r in shared.ranks] == ["0-1"] * 3


def test_one_rank_whose_place_holds_isolated_cores_is_enough() -> None:
    """The kernel spreads no threads over them; the other rank's cores are not isolated."""
    machine = make_machine(Shape(cores=4))
    isolated = machine.replace(topology=machine.topology.replace(isolated=CpuSet([0, 1])))
    plan = make_plan(isolated, make_asked(["-n", "2", "--places", "one"]))
    assert any("does not balance threads" in text for text in plan.warnings)
    apart = make_plan(isolated, make_asked(["-n", "2", "--places", "cores"]))
    assert not any("does not balance threads" in text for text in apart.warnings)


# --- memory --------------------------------------------------------------------------------------

FOUR = Topology(
    tuple(Cpu(n, core=n, node=n) for n in range(3)),
    (*(Node(n, CpuSet([n]), 1 << 30) for n in range(2)), Node(2, CpuSet([2]), 0),
     Node(3, CpuSet(), 1 << 30)),
    distances=((10, 20, 30, 40), (20, 10, 15, 40), (30, 15, 10, 12), (40, 40, 12, 10)),
)  # fmt: skip


@pytest.mark.parametrize(
    ("allowed", "node", "nearest"),
    [([0, 1, 3], 0, 0), ([0, 1, 3], 2, 3), ([0, 1], 2, 1), ([0], 2, 0), ([0, 2, 3], 2, 3)],
)
def test_memory_comes_from_the_nearest_node_that_has_some(
    allowed: list[int], node: int, nearest: int
) -> None:
    """Among those whose memory is allowed."""
    machine = Machine(FOUR, Allowed(CpuSet(range(3)), CpuSet(allowed)))
    assert node_with_memory(machine, 0, node) == nearest


def four(*nodes: int) -> Machine:
    """With memory allowed on these nodes; on all without."""
    return Machine(FOUR, Allowed(CpuSet(range(3)), CpuSet(nodes or range(4))))


def find(
    args: str, *cpus: int, node: int | None = None, nodes: Sequence[int] = (), **more: Any
) -> tuple[str, str, list[str]]:
    """The policy, the nodes and the warnings of rank 0, which has a core of each of these cpus."""
    cores = [Core(CpuSet([n]), CpuSet([n]), Cpu(n, core=n, node=n)) for n in cpus]
    request = make_asked(args.split()).replace(**more)
    home = CpuSet() if node is None else CpuSet([node])
    mem, mems, cautions = find_memory(four(*nodes), request, 0, Share(tuple(cores), "", home=home))
    assert {caution.kind for caution in cautions} <= {"memory"}
    return mem, str(mems), [caution.text for caution in cautions]


BARE = "node 2 has no memory; using node 3, the nearest that has"


@pytest.mark.parametrize(
    ("args", "cpus", "wanted"),
    [
        ("", [0], ("none", "", [])),
        ("--mem none", [0], ("none", "", [])),
        ("--mem local", [0], ("local", "", [])),
        ("--mem bind", [0], ("bind", "0", [])),
        ("--mem bind", [0, 1], ("bind", "0-1", [])),
        ("--mem bind", [2], ("bind", "3", [BARE])),
        ("--mem bind", [0, 2], ("bind", "0,3", [BARE])),
        ("--mem interleave", [0, 1], ("interleave", "0-1", [])),
        ("--mem interleave --mem-nodes 3", [0], ("interleave", "3", [])),
        ("--mem interleave --mem-nodes all", [0], ("interleave", "0-1,3", [])),
        ("--mem preferred", [1], ("preferred", "1", [])),
        ("--mem preferred", [0, 1], ("preferred", "0-1", [])),
        ("--mem preferred --mem-nodes 1", [0], ("preferred", "1", [])),
    ],
)
def test_a_ranks_memory(args: str, cpus: list[int], wanted: tuple[str, str, list[str]]) -> None:
    """Its policy, the nodes of its cpus or those named, and a warning where that is another one."""
    mem, mems, texts = find(args, *cpus)
    assert (mem, mems, len(texts)) == (*wanted[:2], len(wanted[2]))
    assert all(text.startswith(start) for text, start in zip(texts, wanted[2], strict=True))


def facts(kinds: str = "", weights: Sequence[int | None] = (None,) * 4) -> Machine:
    """The four nodes, with kinds of memory, by their first letters, and weights."""
    names = {"h": "hbm", "d": "dram", "c": "cxl", "?": ""}
    pairs = zip(FOUR.nodes, kinds or "????", weights, strict=True)
    nodes = tuple(n.replace(kind=names[kind], weight=weight) for n, kind, weight in pairs)
    return Machine(FOUR.replace(nodes=nodes), Allowed(CpuSet(range(3)), CpuSet([0, 1, 3])))


@pytest.mark.parametrize(
    ("weights", "nodes", "warned"),
    [
        ((5, 1, None, 1), "0-1", False), ((5, 1, None, 1), "1,3", True),
        ((5, None, None, 1), "0-1", False), ((1, 1, None, 1), "0", False),
    ],
)  # fmt: skip
def test_weights_that_make_no_difference(
    weights: tuple[int | None, ...], nodes: str, warned: bool
) -> None:
    """They are named, where there are several and all are known."""
    cautions = warn_of_weights(facts(weights=weights), CpuSet.parse_kernel(nodes))
    texts = [f"the kernel's weights of nodes {nodes} are all 1: their pages are interleaved evenly"]
    assert [c.text for c in cautions] == texts * warned


def test_weights_matter_only_to_a_weighted_policy() -> None:
    """Pages of any other policy do not go by them."""
    machine = facts(weights=(1, 1, None, 1))
    for mem, count in (("interleave", 0), ("weighted-interleave", 1)):
        request = make_asked(["--mem", mem, "--mem-nodes", "0,1"])
        cautions = find_memory(machine, request, 0, make_share(0, 1))[2]
        assert sum("weights" in c.text for c in cautions) == count


def test_nodes_that_do_not_exist_are_counted() -> None:
    """In the words of one and of several."""
    for nodes, said in (([9], "node 9 does"), ([8, 9], "nodes 8-9 do")):
        with pytest.raises(PlanError, match=f"^rank 2: {said} not exist$"):
            check_memory_nodes(MACHINES["server"], 2, CpuSet(nodes))


def test_who_shares_a_core_is_told_so() -> None:
    """A rank that has one to itself is not."""
    plan = make_plan(MACHINES["desktop"], make_asked(["-n", "8", "--oversubscribe"]))
    shared = [rank.cpus for rank in plan.ranks]
    for rank in plan.ranks:
        count = shared.count(rank.cpus)
        said = f", a core shared by {count} ranks" if count > 1 else ", a core"
        assert rank.why.endswith(said)
    assert len({*map(str, shared)}) == 6


@pytest.mark.parametrize(
    ("kinds", "kind", "near", "nodes"),
    [
        ("dh?h", "hbm", "0", "1"), ("dh?h", "hbm", "3", "3"), ("dh?h", "hbm", "0,3", "1,3"),
        ("dd?c", "cxl", "0-1", "3"), ("dd?c", "dram", "3", "0"),
    ],
)  # fmt: skip
def test_nodes_of_a_kind(kinds: str, kind: str, near: str, nodes: str) -> None:
    """For each of a rank's nodes the nearest, by distance here."""
    found = find_nodes_of_kind(facts(kinds), kind, CpuSet.parse_kernel(near))
    assert str(found) == nodes


@pytest.mark.parametrize(
    ("kinds", "problem", "hint"),
    [
        ("dd??", "no node of this machine is known to have such memory", "dram: 0-1; unknown: 2-3"),
        ("ddhc", "memory of node 2 is not allowed (cgroup cpuset)", "dram: 0-1; hbm: 2; cxl: 3"),
    ],
)
def test_a_kind_that_is_nowhere(kinds: str, problem: str, hint: str) -> None:
    """What there is instead is said."""
    with pytest.raises(PlanError) as caught:
        find_nodes_of_kind(facts(kinds), "hbm", CpuSet([0]))
    assert caught.value.message == f"--mem-kind hbm: {problem}"
    assert caught.value.hint == f"kinds of the nodes: {hint}; --mem-nodes names nodes"


def test_memory_goes_by_the_node_that_a_rank_is_for() -> None:
    """With --numa-bind; cpus of another node than the one that is named for it carry a warning."""
    assert find("--numa-bind-nodes 1", 0, node=1) == ("bind", "1", [])
    assert find("--numa-bind-nodes 1 --numa-bind-cpus 1", 1, node=1) == ("bind", "1", [])
    mem, mems, (text,) = find("--numa-bind-nodes 1 --numa-bind-cpus 0", 0, node=1)
    assert (mem, mems) == ("bind", "1")
    assert text.startswith("rank 0: its memory is on node 1, its cpus on 0 (farther away")
    assert find("--numa-bind-nodes 1 --numa-bind-cpus 0-1", 0, 1, node=1)[2] == []
    with pytest.raises(PlanError, match=r"^rank 0: node 9 does not exist$") as caught:
        find("--numa-bind-nodes 9 --numa-bind-cpus 0", 0, node=9)
    assert caught.value.data == {"rank": 0, "wanted": CpuSet([9]), "available": CpuSet(range(4))}


def test_memory_of_no_known_node() -> None:
    """Cannot be bound; without NUMA there is nothing to bind."""
    machine = Machine(FOUR.replace(nodes=()), Allowed(CpuSet(range(3)), CpuSet()))
    share = Share((Core(CpuSet([0]), CpuSet([0]), Cpu(0, core=0)),), "")
    with pytest.raises(PlanError, match=r"^rank 3: its cpus \(0\) are on no known node"):
        find_memory(machine, make_asked(["--mem", "bind"]), 3, share)
    flat = machine.replace(topology=machine.topology.replace(numa=False))
    for mem in ("bind", "local", "none"):
        request = make_asked(["--mem", mem])
        assert find_memory(flat, request, 3, share) == ("none", CpuSet(), [])
    (rank,) = make_plan(MACHINES["flat"], make_asked(["--mem", "bind", "--mem-kind", "hbm"])).ranks
    assert (rank.mem, rank.mem_why) == ("none", "")


def test_the_nodes_of_mem_nodes() -> None:
    """All that have memory and are allowed; named ones must exist."""
    assert [str(choose_nodes(four(*n), "all")) for n in ((), (0, 2), (2, 3))] == ["0-1,3", "0", "3"]
    assert choose_nodes(four(), CpuSet([2])) == CpuSet([2])
    for named, text in (([9], "node 9 does not exist"), ([0, 8, 9], "nodes 8-9 do not exist")):
        with pytest.raises(PlanError, match=f"^--mem-nodes: {text}$") as caught:
            choose_nodes(four(), CpuSet(named))
        assert caught.value.hint == "nodes: 0-3"


@pytest.mark.parametrize(
    ("args", "nodes", "denied"),
    [
        ("--numa-bind", [0, 1, 2, 3], ""),
        ("--numa-bind", [0, 3], "node 1"),
        ("--numa-bind", [0, 2, 3], "node 1"),
        ("--numa-bind --per numa", [0, 3], "node 1"),
        ("--numa-bind --per l3", [0, 3], ""),
        ("--numa-bind --mem local", [0, 3], ""),
        ("--numa-bind --mem none", [0, 3], ""),
        ("--numa-bind --mem-nodes 0 --mem bind", [0, 3], ""),
        ("--numa-bind-nodes 0", [0, 3], ""),
        ("--numa-bind-cpus 0", [0, 3], ""),
    ],
)
def test_nodes_that_numa_bind_leaves_idle(args: str, nodes: list[int], denied: str) -> None:
    """As their memory is denied, though their cpus are allowed; one without memory is none, and
    nothing is said where not all others have ranks."""
    cores = [Core(CpuSet([n]), CpuSet([n]), Cpu(n, core=n, node=n)) for n in range(2)]
    shares = [Share((cores[0],), "", home=CpuSet([0]))]
    request = make_asked(args.split())
    cautions = warn_of_denied_nodes(four(*nodes), request, cores, shares)
    texts = [f"--numa-bind leaves out {denied}, whose memory is not allowed"] * bool(denied)
    assert [c.text.partition(" (")[0] for c in cautions] == texts
    assert warn_of_denied_nodes(four(*nodes), request, cores, []) == []


def test_a_node_without_memory_is_not_denied() -> None:
    """Though it is not among the nodes that may be used, and has no rank."""
    cores = [Core(CpuSet([n]), CpuSet([n]), Cpu(n, core=n, node=n)) for n in range(3)]
    shares = [Share((core,), "", home=core.threads) for core in cores[:2]]
    assert warn_of_denied_nodes(four(0, 1, 3), make_asked(["--numa-bind"]), cores, shares) == []


def test_memory_that_is_denied_is_refused() -> None:
    """A node that has memory is not replaced by another."""
    machine = Machine(FOUR, Allowed(CpuSet(range(3)), CpuSet([0])))
    with pytest.raises(PlanError, match="rank 4: memory of node 1 is not allowed") as caught:
        node_with_memory(machine, 4, 1)
    assert caught.value.hint == "memory allowed on: 0; --mem none binds cpus only"
    nowhere = Machine(FOUR, Allowed(CpuSet(range(3)), CpuSet()))
    with pytest.raises(PlanError, match="rank 4: node 2 has no memory, nor has any other"):
        node_with_memory(nowhere, 4, 2)


@pytest.mark.parametrize(
    ("allowed", "wanted", "kept", "text"),
    [
        ([0, 1, 3], [0, 1], [0, 1], ""),
        ([0], [0, 1], [0], "rank 2: memory of node 1 is not allowed (cgroup cpuset): its memory is "
         "on node 0"),
        ([0], [1, 3], [], "rank 2: memory of nodes 1,3 is not allowed (cgroup cpuset): none is "
         "bound"),
        ([0], [2], [2], ""),  # it has none of its own; the nearest is taken later
        ([], [2], [], ""),
        ([], [0], [], "rank 2: memory of node 0 is not allowed (cgroup cpuset): none is bound"),
    ],
)  # fmt: skip
def test_what_is_denied_is_dropped(
    allowed: list[int], wanted: list[int], kept: list[int], text: str
) -> None:
    """With --on-denied degrade: a warning names the nodes, and what is left."""
    machine = Machine(FOUR, Allowed(CpuSet(range(3)), CpuSet(allowed)))
    nodes, cautions = keep_allowed(machine, 2, CpuSet(wanted))
    assert nodes == CpuSet(kept)
    assert [caution.text for caution in cautions] == [text] * bool(text)


def test_a_rank_whose_memory_is_denied_runs_without() -> None:
    """With --on-denied degrade, where none of its nodes' memory is allowed; else on what is."""
    machine = make_machine(Shape(nodes=2, packages=2, cores=4), nodes="0")
    args = ["-n", "2", "--mem", "bind", "--on-denied", "degrade"]
    plan = make_plan(machine, make_asked(args))
    assert [(r.mem, str(r.mems)) for r in plan.ranks] == [("bind", "0"), ("none", "")]
    assert plan.warnings == (
        "rank 1: memory of node 1 is not allowed (cgroup cpuset): none is bound",
    )
    balanced = make_plan(machine, make_asked([*args, "--mem-balancing"])).ranks
    assert [r.binding.balancing for r in balanced] == [True, False]


def test_ranks_of_the_same_cores_are_warned_of_once() -> None:
    """Whatever is wrong with the memory of one is wrong with that of the others."""
    machine = make_machine(Shape(nodes=2, packages=2, cores=4), nodes="0")
    args = ["-n", "2", "--share", "--threads", "2", "--mem", "bind", "--on-denied", "degrade"]
    plan = make_plan(machine, make_asked(args))
    assert [str(r.mems) for r in plan.ranks] == ["0", "0"]
    text = "rank 0: memory of node 1 is not allowed (cgroup cpuset): its memory is on node 0"
    assert plan.warnings == (text,)


def test_ranks_have_the_weights_of_their_nodes() -> None:
    """As far as they are known, of the nodes that pages are interleaved over by them."""
    machine = facts(weights=(5, 1, None, None))
    for args, weights in (
        ("--mem weighted-interleave --mem-nodes 0,3", ((0, 5),)),
        ("--mem weighted-interleave --mem-nodes 0,1", ((0, 5), (1, 1))),
        ("--mem interleave --mem-nodes 0,1", ()),
    ):
        assert make_plan(machine, make_asked(args.split())).ranks[0].weights == weights


@pytest.mark.parametrize(
    ("args", "text"),
    [
        ("--places cores", "places are cores: --places is given"),
        ("--places one", "one place: --places is given"),
        ("--places wide", "a place for each core, the first for all: --places is given"),
        ("--proc-bind false", "one place: threads are not to be bound (--proc-bind false)"),
    ],
)
def test_why_places_are_what_they_are(args: str, text: str) -> None:
    """What decided it stands behind the colon."""
    assert make_plan(MACHINES["desktop"], make_asked(args.split())).places_why == text


def test_the_users_places_are_why() -> None:
    """Where they are distributed; else the list explains nothing."""
    environ = {"OMP_PLACES": "{0},{1}", "OMP_PROC_BIND": "close"}
    for args, text in (
        (["-n", "2"], "the places of OMP_PLACES, distributed over the ranks"),
        (["-n", "3"], "places are cores"),
    ):
        plan = make_plan(MACHINES["server"], make_asked(args, environ=environ))
        assert plan.places_why == text


# --- devices -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("node", "cpus", "by_node", "nearest"),
    [
        (0, "0", [0, 1], (0, "", False)),
        (None, "0", [0, 1], (0, "", False)),  # its cpus say so
        (None, "0-1", [0, 1], (None, "", False)),
        (None, "0-1", [1], (1, "", False)),  # there is nothing to choose
        (None, "0-1", [None], (None, "", False)),
        (0, "0", [None], (None, "", False)),
        (0, "0", [1, 2],
         (1, "is near node 0, whose cpus may not be used; the nearest is node 1", True)),
        (2, "2", [0, 1],
         (1, "is near node 2, whose cpus may not be used; the nearest is node 1", True)),
        (0, "0", [None, 2],
         (2, "is near node 0, whose cpus may not be used; the nearest is node 2", True)),
        (3, "2", [0, 1, 2], (2, "nearest to its node 3, which has no cpus", False)),
        (3, "", [0, 1, 2], (2, "nearest to its node 3, which has no cpus", False)),
        (3, "0-1", [0, 1, 2], (0, "nearest to its node 3, which has no cpus", False)),
        (3, "2", [0, 1], (0, "nearest to its node 3, which has no cpus", False)),
        (9, "", [0, 1], (0, "nearest to its node 9, which has no cpus", False)),
    ],
)  # fmt: skip
def test_the_node_that_is_nearest_to_a_device(
    node: int | None, cpus: str, by_node: list[int | None], nearest: tuple[int | None, str, bool]
) -> None:
    """Its own, else the nearest whose cores may be used; cores of unknown nodes do not count."""
    machine = Machine(FOUR, Allowed(CpuSet(range(3)), CpuSet(range(4))))
    device = Device("gpu", "0000:01:00.0", node, CpuSet.parse_kernel(cpus))
    assert find_nearest_node(machine, device, dict.fromkeys(by_node)) == NearestNode(
        nearest[0], nearest[1], far=nearest[2]
    )


def test_a_machine_of_one_node_has_its_devices_there() -> None:
    """Though they do not say so."""
    one = Topology((Cpu(0, core=0, node=5),), (Node(5, CpuSet([0])),))
    machine = Machine(one, Allowed(CpuSet([0]), CpuSet([5])))
    device = Device("gpu", "0000:01:00.0", None, CpuSet())
    for by_node, nearest in (([5], 5), ([5, None], 5)):
        assert find_nearest_node(machine, device, dict.fromkeys(by_node)).node == nearest


def with_gpus(shape: Shape, *nodes: int) -> Machine:
    devices = [Pci(f"0000:{n + 1:02x}:00.0", "030200", node, None, "10de")
               for n, node in enumerate(nodes)]  # fmt: skip
    return make_machine(replace(shape, devices=tuple(devices)))


TWO_PACKAGES = Shape(packages=2, nodes=4, l3s=8, cores=16)


def cpus_for(machine: Machine, args: str, environ: dict[str, str] | None = None) -> list[str]:
    request = make_asked(args.split())
    visible = make_visible(machine.topology.devices, environ or {})
    return [str(r.cpus) for r in make_plan(machine, request.replace(visible=visible)).ranks]


def test_the_domain_of_a_gpu() -> None:
    """Its node, its package, or one of its node's caches in turn."""
    machine = with_gpus(TWO_PACKAGES, 0, 0, 3)
    assert cpus_for(machine, "--per gpu") == ["0-1", "2-3", "12-15"]
    assert cpus_for(machine, "--per gpu --gpu-domain package") == ["0-3", "4-7", "8-15"]
    assert cpus_for(machine, "--per gpu --gpu-domain package --share") == ["0-7", "0-7", "8-15"]
    assert cpus_for(machine, "--per gpu --gpu-domain l3") == ["0-1", "2-3", "12-13"]
    uneven = with_gpus(Shape(cores=8, l3s=2), 0, 0, 0)  # the larger cache first
    caches = cpus_for(uneven, "--per gpu --gpu-domain l3 --exclude 0 --share")
    assert caches == ["4-7", "1-3", "4-7"]
    four = with_gpus(TWO_PACKAGES, 0, 0, 0, 1)
    assert cpus_for(four, "--per gpu --gpu-domain l3 --share") == ["0-1", "2-3", "0-1", "4-5"]


def test_gpus_of_a_machine_without_nodes() -> None:
    """There is nothing that they could be near, and so nothing to warn of."""
    machine = with_gpus(Shape(cores=4, node_dir="hidden"), -1, -1)
    request = make_asked(["--per", "gpu"])
    visible = make_visible(machine.topology.devices, {})
    plan = make_plan(machine, request.replace(visible=visible))
    assert [str(r.cpus) for r in plan.ranks] == ["0-1", "2-3"]
    assert plan.warnings == ()


def test_gpus_of_unknown_nodes_go_where_fewest_ranks_are() -> None:
    """For its cores; the domain of one whose node nobody can know is the machine."""
    machine = with_gpus(Shape(packages=2, nodes=2, l3s=2, cores=8), 0, -1, -1)
    assert cpus_for(machine, "--per gpu --share") == ["0-3", "4-7", "0-3"]
    assert cpus_for(machine, "--per gpu -n 6 --share") == ["0-3", "0-3", "4-7", "4-7", "0-3", "0-3"]
    crowded = with_gpus(Shape(packages=2, nodes=2, l3s=2, cores=8), 0, 0, -1, -1, -1)
    assert cpus_for(crowded, "--per gpu --share") == ["0-3", "0-3", "4-7", "4-7", "0-3"]
    hidden = with_gpus(Shape(cores=4, l3s=2, node_dir="hidden"), -1, -1)
    assert cpus_for(hidden, "--per gpu --gpu-domain l3 --share") == ["0-3", "0-3"]


def test_why_there_is_no_gpu() -> None:
    """What is wrong with those that the environment names; nothing where nobody has looked."""
    machine = with_gpus(TWO_PACKAGES, 0)
    with pytest.raises(PlanError) as caught:
        make_plan(machine, make_asked(["-n", "2", "--gpu-env"]))
    assert caught.value.message == "--gpu-env gives each rank its GPU, and no rank has one"
    assert caught.value.hint == "--per gpu gives each rank one"
    with pytest.raises(PlanError) as caught:
        cpus_for(machine, "-n 2 --gpu-env")
    assert caught.value.message == "--gpu-env gives each rank its GPU, and no rank has one"
    with pytest.raises(PlanError, match=r"^--per gpu: no GPU to compute with was found$") as caught:
        make_plan(machine, make_asked(["--per", "gpu"]))
    assert caught.value.hint == ""
    with pytest.raises(PlanError, match=r"^--near gpu0: there are 0 visible GPUs$"):
        make_plan(machine, make_asked(["--near", "gpu0"]))
    problem = make_visible(machine.topology.devices, {"CUDA_VISIBLE_DEVICES": "7"}).problem
    assert problem
    unseen = "--gpu-env gives each rank its GPU, and no rank has one: "
    for args, start in (
        ("--near gpu0", "--near gpu0: "),
        ("--per gpu", "--per gpu: "),
        ("-n 2 --gpu-env", unseen),
    ):
        with pytest.raises(PlanError) as caught:
            cpus_for(machine, args, {"CUDA_VISIBLE_DEVICES": "7"})
        assert caught.value.message == start + problem
    with pytest.raises(PlanError, match=r"^--near gpu12345: there are 1 visible GPUs$"):
        cpus_for(machine, "--near gpu12345")
    for name in ("gpu123456", "gpux", "gpu"):  # of so many digits is no position
        with pytest.raises(PlanError) as caught:
            cpus_for(machine, f"--near {name}")
        assert "visible GPUs" not in caught.value.message
    with pytest.raises(PlanError, match=r"^--near gpu1: there are 1 visible GPUs$") as caught:
        cpus_for(machine, "--near gpu1")
    assert caught.value.hint == "gpu0 to gpu0, or a PCI address"


def test_a_quota_of_more_than_a_cpu_is_not_two() -> None:
    """Two threads are too many for one and a half; a quota of less than one leaves one thread."""
    request = make_asked(["-n", "2"])
    (caution,) = share_quota(request, [1, 1], 1.5, [])[1]
    assert "quota is worth 1.5 cpus" in caution.text
    assert share_quota(request, [1], 0.5, []) == ([1], [])
