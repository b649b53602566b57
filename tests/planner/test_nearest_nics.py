"""The network card of each rank: the nearest, and as evenly as that allows."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ompbind.cpuset import CpuSet
from ompbind.devices.accelerators import make_visible as make_accelerators
from ompbind.devices.nics import find_cards
from ompbind.devices.visible import make_visible
from ompbind.errors import PlanError
from ompbind.machine.topology import Machine, Port
from ompbind.planner import make_plan
from ompbind.planner.cores import Core, group_cores
from ompbind.planner.mapping import Share
from ompbind.planner.nearest_nics import (
    OTHER,
    SELF,
    distribute,
    find_distance,
    measure,
    pick_by_position,
)
from ompbind.plans import Inherited, Plan, World
from tests.support.machines import make_asked
from tests.support.shared_trees import need_topologies, read_tree
from tests.support.trees import Pci, Shape, make_machine

NEAR = ("0-7,32-39", "8-15,40-47", "16-23,48-55", "24-31,56-63")
SERVER = Shape(packages=2, nodes=4, l3s=8, cores=32, threads=2, numbering="halves")


def card(bus: str, name: str, node: int = -1, bridges: tuple[str, ...] = ()) -> Pci:
    near = NEAR[node] if node >= 0 else None
    port = Port(f"{name}:1", "rdma", True, 100_000)
    return Pci(f"0000:{bus}:00.0", "020700", node, near, "15b3", driver="mlx5_core",
               ports=(port,), bridges=bridges)  # fmt: skip


def gpu(bus: str, node: int, bridges: tuple[str, ...] = ()) -> Pci:
    return Pci(f"0000:{bus}:00.0", "030200", node, NEAR[node], "10de", "2330", driver="nvidia",
               bridges=bridges)  # fmt: skip


def plan_for(devices: tuple[Pci, ...], args: str, world: World | None = None,
             cpus: str = "") -> Plan:  # fmt: skip
    machine = make_machine(replace(SERVER, devices=devices))
    if cpus:
        allowed = machine.allowed.replace(cpus=CpuSet.parse_user(cpus))
        machine = machine.replace(allowed=allowed)
    found = machine.topology.devices
    visible, cards = make_visible(found, {}), find_cards(found)
    request = make_asked(args.split()).replace(visible=visible, cards=cards, world=world)
    return make_plan(machine, request)


def nics(plan: Plan) -> list[str]:
    return [" ".join(r.nics) for r in plan.ranks]


def test_the_nearest_node() -> None:
    """A card of the rank's own node, else of the node that is nearest by distance."""
    devices = (card("18", "a", 0), card("98", "b", 2))
    plan = plan_for(devices, "--per numa --nic-env")
    assert nics(plan) == ["a:1", "a:1", "b:1", "b:1"]
    assert plan.ranks[0].nics_why == "near its cpus"
    assert plan.ranks[3].nics_why == "near node 2, the nearest to its cpus that has one"


def test_equally_near_cards_are_distributed() -> None:
    """Ranks that several cards are as near to share them evenly, in the order of ranks."""
    devices = (card("18", "a", 0), card("19", "b", 0))
    plan = plan_for(devices, "--numa-bind-nodes 0 0 0 0 --nic-env")
    assert nics(plan) == ["a:1", "b:1", "a:1", "b:1"]
    assert plan.ranks[0].nics_why == "near its cpus, one of 2"


def test_the_gpus_switch_goes_before_its_node() -> None:
    """Among cards of one node the one below the deepest bridge that is the GPU's, too."""
    left, right = ("pci0000:10", "0000:10:01.0"), ("pci0000:20", "0000:20:01.0")
    devices = (gpu("11", 0, left), gpu("21", 0, right), card("22", "b", 0, right),
               card("12", "a", 0, left))  # fmt: skip
    plan = plan_for(devices, "--per gpu --nic-env")
    assert nics(plan) == ["a:1", "b:1"]
    assert [r.nics_why for r in plan.ranks] == ["below the same PCI bridge as its GPU"] * 2
    root = (gpu("11", 0, left[:1]), card("12", "a", 0, left), card("22", "b", 0, right))
    assert (
        plan_for(root, "--per gpu --nic-env").ranks[0].nics_why == "at the same PCI root as its GPU"
    )


def test_accelerators_are_no_gpus() -> None:
    """What a rank is near to, and has, goes by its own name."""
    left = ("pci0000:10", "0000:10:01.0")
    npu = Pci("0000:11:00.0", "120000", 0, NEAR[0], "19e5", "d802", driver="npu", bridges=left)
    for device, per, make, noun in (
        (npu, "accel", make_accelerators, "accelerator"),
        (gpu("11", 0, left), "gpu", make_visible, "GPU"),
    ):
        found = make_machine(replace(SERVER, devices=(device, card("12", "a", 0, left))))
        devices = found.topology.devices
        request = make_asked(["--per", per, "--nic-env"])
        visible = make(devices, {})
        request = request.replace(visible=visible, cards=find_cards(devices))
        (rank,) = make_plan(found, request).ranks
        assert rank.nics_why == f"below the same PCI bridge as its {noun}"
        assert (rank.gpus, rank.accels) == (((), ("0",)) if per == "accel" else (("0",), ()))


def test_nobody_knows_where_they_are() -> None:
    """Cards of unknown place are distributed as if all were equally near, and that is said."""
    plan = plan_for((card("18", "a"), card("19", "b")), "-n 4 --nic-env")
    assert nics(plan) == ["a:1", "b:1", "a:1", "b:1"]
    assert plan.ranks[0].nics_why == "the machine does not say which card is near, one of 2"
    mapped = plan_for((card("18", "a"), card("19", "b")), "--per nic")
    assert nics(mapped) == ["a:1", "b:1"]
    assert any("does not say which node its network cards are near" in w for w in mapped.warnings)


def test_only_who_asks_for_cards_has_one() -> None:
    """Though they were looked up; and who asks for cards alone needs no GPUs looked up."""
    devices = (card("18", "a", 1), card("98", "b", 2))
    assert nics(plan_for(devices, "-n 2")) == ["", ""]
    machine = make_machine(replace(SERVER, devices=devices))
    request = make_asked(["--per", "nic"]).replace(cards=find_cards(machine.topology.devices))
    plan = make_plan(machine, request)
    assert (nics(plan), [str(r.nodes) for r in plan.ranks]) == (["a:1", "b:1"], ["1", "2"])


def test_more_and_fewer_ranks_than_cards() -> None:
    """--per nic maps ranks to cards in blocks, and says where cards have none."""
    devices = (card("18", "a", 1), card("98", "b", 2))
    assert nics(plan_for(devices, "--per nic -n 4")) == ["a:1", "a:1", "b:1", "b:1"]
    equal = plan_for((card("18", "a", 0), card("19", "b", 0)), "--per nic -n 4 --nic-env")
    assert nics(equal) == ["a:1", "a:1", "b:1", "b:1"]  # not in turn, as without --per nic
    few = plan_for(devices, "--per nic -n 1")
    assert few.warnings == ("1 of 2 network cards get a rank, the last ones none",)
    assert few.cautions[0].kind == "nic"
    assert few.ranks[0].why == "network card a:1, node 1"
    assert plan_for(devices[:1], "--per nic -n 3").warnings == ()


def test_cards_that_are_left_out() -> None:
    """Are named, with the reason, to who goes by the others."""
    slow = card("98", "b", 2)
    slow = replace(slow, ports=(slow.ports[0].replace(rate=10_000),))
    plan = plan_for((card("18", "a", 1), slow), "--per nic")
    assert nics(plan) == ["a:1"]
    assert [c.kind for c in plan.cautions] == ["nic"]
    assert plan.warnings == ("left out: b:1 (10,000 Mbit/s; others have 100,000)",)
    down = replace(slow, ports=(slow.ports[0].replace(up=False),))
    for args in ("--per nic", "--nic-env"):
        with pytest.raises(PlanError, match=f"^{args}: .*0000:98:00.0 has no link"):
            plan_for((down,), args)
        with pytest.raises(PlanError, match=f"^{args}: no network card to use was found$"):
            make_plan(make_machine(SERVER), make_asked(args.split()))


def test_a_rank_of_an_engine_goes_by_its_cpus() -> None:
    """Ranks that are planned each by itself, with cpus of their own, do not all take the first."""
    devices = (card("18", "a", 0), card("19", "b", 0))
    world = World(0, 4, 0, 4)
    chosen = [
        nics(plan_for(devices, "--nic-env", world.replace(local_first=n, only=0), cpus))[0]
        for n, cpus in enumerate(["0-1", "2-3", "4-5", "6-7"])
    ]
    assert Counter(chosen) == {"a:1": 2, "b:1": 2}


def test_groups_go_by_their_cpus() -> None:
    """Groups that are planned one after the other do not all begin with the first card; the ranks
    of each are even all the same."""
    machine = make_machine(replace(SERVER, devices=(card("18", "a", 0), card("19", "b", 0))))
    cards = find_cards(machine.topology.devices)
    chosen = []
    for cpus, ranks in (
        ("0-3", "1"), ("4-7", "1"), ("0-7", "4"), ("8-11", "1"), ("12-15", "1"),
    ):  # fmt: skip
        part = machine.replace(allowed=machine.allowed.replace(cpus=CpuSet.parse_user(cpus)))
        request = make_asked(["-n", ranks, "--nic-env"]).replace(cards=cards, group="router")
        chosen.append(sorted(nics(make_plan(part, request))))
    assert chosen == [["a:1"], ["b:1"], ["a:1", "a:1", "b:1", "b:1"], ["a:1"], ["b:1"]]


def test_distances_are_measured_from_the_nearest_of_a_ranks_nodes() -> None:
    """Without a table, another node is farther than its own; what nobody knows is farther still."""
    known = make_machine(SERVER)
    rows = ((10, 12, 20, 30), (12, 10, 20, 30), (20, 20, 10, 30), (30, 30, 30, 10))
    known = known.replace(topology=known.topology.replace(distances=rows))
    bare = known.replace(topology=known.topology.replace(distances=()))
    both = CpuSet([0, 2])
    assert [find_distance(known, both, node) for node in (0, 1, 2, 3)] == [10, 12, 10, 30]
    assert [find_distance(bare, both, node) for node in (0, 1)] == [SELF, OTHER]
    assert SELF < OTHER < find_distance(bare, both, None) == find_distance(known, CpuSet(), 0)
    assert find_distance(known, both, 9) > max(map(max, rows))


def test_cpus_say_where_a_card_is() -> None:
    """Where its node is not said; and whether any of them is the rank's."""
    machine = make_machine(replace(SERVER, devices=(card("18", "a", 0), card("98", "b", 2))))
    (first, *_) = make_plan(machine, make_asked(["--per", "numa"])).ranks
    share = Share((), "here").replace(cores=tuple(machine_cores(machine, first.cpus)))
    here, there = (d.replace(node=None) for d in machine.topology.devices)
    assert [measure(machine, share, device).apart for device in (here, there)] == [False, True]
    assert measure(machine, share, here).distance < measure(machine, share, there).distance < 1000
    away = here.replace(node=3)  # which stands, though its cpus are elsewhere
    assert measure(machine, share, away).distance > measure(machine, share, here).distance


@pytest.mark.parametrize(
    ("node", "near", "why"),
    [
        (0, "0-7,32-39", "near its cpus"),
        (0, None, "near its cpus"),
        (0, "4-7,36-39", "near node 0, the nearest to its cpus that has one"),
        (1, "8-15,40-47", "near node 1, the nearest to its cpus that has one"),
        (1, None, "near node 1, the nearest to its cpus that has one"),
    ],
)
def test_why_a_card_is_a_ranks(node: int, near: str | None, why: str) -> None:
    """Near are those of its node, also where the card is near some or all cpus; a node as close as
    11 is another one."""
    devices = (replace(card("18", "a", node), cpus=near),)
    machine = make_machine(replace(SERVER, devices=devices))
    rows = tuple(tuple(10 if n == m else 11 for m in range(4)) for n in range(4))
    machine = machine.replace(topology=machine.topology.replace(distances=rows))
    request = make_asked(["--numa-bind-cpus", "0-3", "--nic-env"])
    plan = make_plan(machine, request.replace(cards=find_cards(machine.topology.devices)))
    assert plan.ranks[0].nics_why == why


def machine_cores(machine: Machine, cpus: CpuSet) -> list[Core]:
    return [Core(core, core, cpu) for core, cpu in group_cores(machine, cpus)]


def test_all_ranks_of_an_engine_on_a_node_are_even() -> None:
    """Where they are planned together, cards go round, wherever they stand."""
    devices = (card("18", "a", 0), card("19", "b", 0))
    for exclude in ("4-31", "0-3,8-31"):
        args = f"-n 2 --nic-env --exclude {exclude}"
        alone, world = plan_for(devices, args), World(0, 2, 0, 2)
        assert nics(alone) == nics(plan_for(devices, args, world)) == ["a:1", "b:1"]


def test_groups_on_cores_that_nobody_knows() -> None:
    """Where they stand is then told by their cpus."""
    shape = Shape(cores=4, devices=(replace(card("18", "a"), cpus=None),
                                    replace(card("19", "b"), cpus=None)))  # fmt: skip
    machine = make_machine(shape)
    cpus = tuple(cpu.replace(core=None) for cpu in machine.topology.cpus)
    machine = machine.replace(topology=machine.topology.replace(cpus=cpus))
    chosen = []
    for cpu in range(4):
        part = machine.replace(allowed=machine.allowed.replace(cpus=CpuSet([cpu])))
        request = make_asked(["--nic-env"])
        cards = find_cards(machine.topology.devices)
        chosen += nics(make_plan(part, request.replace(cards=cards, group="router")))
    assert chosen == ["a:1", "a:1", "b:1", "b:1"]


def test_a_variable_that_is_set_already_stays() -> None:
    """--nic-env sets the others, and alone sets any."""
    machine = make_machine(replace(SERVER, devices=(card("18", "a", 0),)))
    cards = find_cards(machine.topology.devices)
    request = make_asked(["--nic-env"]).replace(cards=cards)
    every = dict(make_plan(machine, request).ranks[0].env)
    assert (every["UCX_NET_DEVICES"], every["NCCL_IB_HCA"]) == ("a:1", "=a:1")
    by_card = make_asked(["--per", "nic"]).replace(cards=cards)
    (unset,) = make_plan(machine, by_card).ranks
    assert not any(name in dict(unset.env) for name in ("UCX_NET_DEVICES", "NCCL_IB_HCA"))
    for action, kept in (("respected", True), ("overridden", False)):
        inherited = (Inherited("NCCL_IB_HCA", "mine", action, ""),)
        env = dict(make_plan(machine, request.replace(inherited=inherited)).ranks[0].env)
        assert env.keys() == every.keys() - ({"NCCL_IB_HCA"} if kept else set())


@given(st.integers(1, 4), st.data())
def test_nobody_could_be_given_less_crowded_cards(count: int, data: st.DataObject) -> None:
    """With choices that lie inside one another or apart, the fullest card is as empty as it can
    be: compared with every other way."""
    half = max(count // 2, 1)
    sets = [tuple(range(count)), tuple(range(half)), tuple(range(half, count)), (0,)]
    sets = [s for s in sets if s]
    choices = data.draw(st.lists(st.sampled_from(sets), min_size=1, max_size=4))
    chosen = distribute(choices, count)
    assert all(c in allowed for c, allowed in zip(chosen, choices, strict=True))
    best = min(max(Counter(way).values()) for way in every_way(choices))
    assert max(Counter(chosen).values()) == best


def every_way(choices: list[tuple[int, ...]]) -> list[tuple[int, ...]]:
    ways: list[tuple[int, ...]] = [()]
    for allowed in choices:
        ways = [(*way, c) for way in ways for c in allowed]
    return ways


@given(st.integers(1, 9), st.floats(0, 1, exclude_max=True))
def test_a_position_is_a_choice(count: int, position: float) -> None:
    """The first and the last cpu of a node have a card, too."""
    assert pick_by_position(range(count), position) in range(count)


def test_real_machines() -> None:
    """Cards of real trees: RDMA ones that have a link, on the nodes that the trees say."""
    need_topologies()
    for name, expected in (
        ("32em64t-2n8c+dax+nvme+mic+dimms", {"mlx4_0:1": 1}),
        ("40intel64-2g2n4c+pcilocality", {"qib0:1": None}),
    ):
        machine = read_tree(name)
        cards = find_cards(machine.topology.devices).cards
        assert {c.name: c.device.node for c in cards}.keys() == expected.keys()
