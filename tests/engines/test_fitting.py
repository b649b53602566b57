"""What options mean for one rank of an engine, on made-up machines: every local rank plans by
itself, and what they plan together is compared."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ompbind.cpuset import CpuSet, union
from ompbind.engines import Found, fitting
from ompbind.engines.by_hand import make_hand_task
from ompbind.engines.fitting import OWN, SOME, count_crowd, fit, pick_rank
from ompbind.engines.masks import parse_hexadecimal, read_intel, read_slurm, repeat
from ompbind.engines.variables import fit_variables
from ompbind.errors import PlanError, UsageError
from ompbind.machine.processes import Process
from ompbind.machine.topology import Machine, Topology
from ompbind.plan_json import parse_plan
from ompbind.planner import make_plan
from ompbind.plans import Plan
from ompbind.verify.after_start import describe_exits
from ompbind.verify.expected import expect_plan
from ompbind.verify.report import ProcessReport
from ompbind.worker.environment import Variables, with_environment
from tests.engines.test_nesting import mpich, openmpi, slurm, torchrun
from tests.support.ancestry import Above, Ancestry, fit_rank, plan_rank
from tests.support.machines import make_asked, make_machine
from tests.support.trees import Pci, Shape

# Cores 0-3 are cpus 0-7 on package and node 0, cores 4-7 the others.
SERVER = make_machine(Shape(packages=2, nodes=2, cores=8, threads=2, l3s=2))
HYDRA = Above("hydra_pmi_proxy", "0-15")


def plans_of(
    words: str = "", count: int = 4, machine: Machine = SERVER, mask: str = "0-15", within: str = ""
) -> list[Plan]:
    """What each of `count` ranks of MPICH plans, all with the same mask."""
    ancestry = Ancestry([Above("hydra_pmi_proxy", mask)], mask)
    return [
        plan_rank(machine, mpich(rank, count), ancestry, words, within=within)
        for rank in range(count)
    ]


def cpus(plans: list[Plan]) -> list[str]:
    return [str(p.ranks[0].cpus) for p in plans]


# The options, and how many ranks: the ranks plan what one launch would plan for all of them.
AS_ONE = [
    ("", 4), ("", 3), ("", 1), ("--smt all", 4), ("--per numa", 4), ("--per package", 2),
    ("--per l3 --distribution cyclic", 4), ("--per core", 8), ("--numa-bind", 4),
    ("--numa-bind-nodes 0 0 1 1", 4), ("--numa-bind-cpus 0 4 8 12", 4), ("--part 2/2", 4),
    ("--part 1/2 --per l3", 2), ("--reserve 2", 4), ("--reserve 1/rank", 4), ("--role kv=2", 4),
    ("--role kv=1/rank --reserve 1", 2), ("--exclude 0-1", 7), ("--cores-per-rank 1", 4),
    ("--share", 4), ("--share --per numa", 4), ("--oversubscribe", 16), ("--mem interleave", 2),
]  # fmt: skip


@pytest.mark.parametrize(("words", "count"), AS_ONE, ids=[f"{n}: {w}" for w, n in AS_ONE])
def test_ranks_together_are_one_launch(words: str, count: int) -> None:
    """Where all ranks share their cpus, each has what `-n` would give it: cpus, places, memory,
    threads; and knows which cpus are the others'."""
    plans = plans_of(words, count)
    implied = "numa-bind-" in words or count == 1
    asked = make_asked([*words.split(), *([] if implied else ["-n", str(count)])])
    whole = make_plan(SERVER, asked)
    assert len(whole.ranks) == count
    for rank, plan in enumerate(plans):
        (mine,), theirs = plan.ranks, whole.ranks[rank]
        assert (mine.rank, mine.number, mine.local_rank) == (0, rank, rank)
        assert (mine.binding, mine.places, mine.nodes) == (
            theirs.binding, theirs.places, theirs.nodes,
        )  # fmt: skip
        env, wanted = dict(mine.env), dict(theirs.env)
        for name in ("OMP_NUM_THREADS", "OMP_PLACES", "OMPBIND_RANK", "OMPBIND_RANKS"):
            assert env[name] == wanted[name]
        assert [v for k, v in env.items() if "ROLE" in k] == [
            v for k, v in wanted.items() if "ROLE" in k
        ]
        assert "RANK" not in env
        assert plan.reserved == whole.reserved
        assert plan.unused == whole.unused
        others = union(r.cpus for r in whole.ranks if r.rank != rank) - theirs.cpus
        assert plan.others >= whole.others | others
        assert parse_plan(plan.to_json()) == plan


@given(st.integers(1, 8), st.sampled_from(["0-15", "0-7", "4-11", "0,2,4-9", "1,3,8-15"]))
def test_no_two_ranks_overlap(count: int, mask: str) -> None:
    """However many share whatever mask, cpus are disjoint and nobody has none."""
    parts = [p.ranks[0].cpus for p in plans_of("--smt all", count, mask=mask)]
    assert all(parts)
    assert all(not a & b for n, a in enumerate(parts) for b in parts[:n])
    assert union(parts) <= CpuSet.parse_kernel(mask)


def test_a_rank_with_a_mask_of_its_own_stays_in_it() -> None:
    """Bound by its engine, each plans its mask alone; lists give the local rank's value, and what
    is taken from all ranks together is taken from the last ones."""
    for rank, mask in enumerate(("0-3", "4-7", "8-11", "12-15")):
        ancestry = Ancestry([HYDRA], mask)

        def plan(words: str, rank: int = rank, ancestry: Ancestry = ancestry) -> Plan:
            return plan_rank(SERVER, mpich(rank), ancestry, words)

        assert str(plan("--smt all").ranks[0].cpus) == mask
        assert plan("").task.sharing == OWN
        nodes = plan("--numa-bind-nodes 0 0 1 1").ranks[0]
        assert (str(nodes.mems), len(nodes.cpus)) == (str(rank // 2), 2)
        one = plan("--numa-bind-cpus 0 4 8 12").ranks[0]
        assert str(one.cpus) == str(4 * rank)
        reserved = plan("--reserve 2").reserved
        assert len(reserved) == (2 if rank >= 2 else 0)  # a core has two hardware threads
        assert plan("--per numa").ranks[0].local_rank == rank
    with pytest.raises(PlanError, match="cpu 4 is not allowed"):
        plan_rank(SERVER, mpich(1), Ancestry([HYDRA], "0-3"), "--numa-bind-cpus 0 4 8 12")


def test_within() -> None:
    """node plans over all that the engine has; task keeps to the mask, also of a binding that is
    its default."""
    ancestry = Ancestry([HYDRA], "8-11")
    plan = plan_rank(SERVER, mpich(1), ancestry, within="node")
    assert str(plan.ranks[0].cpus) == "4,6"
    assert plan.host.allowed == CpuSet(range(16))
    confined = plan_rank(SERVER, mpich(1), ancestry, within="node", cpuset="8-15")
    assert str(confined.ranks[0].cpus) == "10"
    assert str(plan_rank(SERVER, mpich(1), ancestry, within="task").ranks[0].cpus) == "8,10"
    default = openmpi(1) | {"OMPI_MCA_orte_bound_at_launch": "1"}
    ancestry = Ancestry([Above("mpirun")], "0-7")
    assert plan_rank(SERVER, default, ancestry).task.note
    kept = plan_rank(SERVER, default, ancestry, within="task")
    assert (kept.task.sharing, kept.task.note, kept.cautions) == (SOME, "", ())
    assert dict(kept.ranks[0].env)["OMP_NUM_THREADS"] == "2"


def test_restrictions_that_are_given_up_are_marked() -> None:
    """The inherited mask is widened, and says why."""
    _, fitted = fit_rank(SERVER, mpich(1), Ancestry([HYDRA], "8-11"), within="node")
    from ompbind.plans import Inherited

    mask = Inherited("affinity mask", "8-11", "respected", "MPICH")
    cpuset = Inherited("cpuset", "0-15", "respected", "docker")
    narrowed = fitted.narrow((mask, cpuset))
    assert [(r.name, r.action) for r in narrowed] == [
        ("affinity mask", "widened"), ("cpuset", "respected"),
    ]  # fmt: skip
    assert fitted.widened


def test_a_bound_rank_divides_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a large node it would take the time that an engine may cost: a rank whose mask is its own
    counts neither cores nor all packages, caches and cores; one whose mask is a core's counts
    these, as several ranks may have it."""

    def refuse(*_: object) -> None:
        raise AssertionError("the whole machine was looked at")

    monkeypatch.setattr(fitting, "group_cores", refuse)
    grouped: list[str] = []
    whole = Topology.groups

    def groups(topology: Topology, level: Any) -> list[CpuSet]:
        grouped.append(level)
        return whole(topology, level)

    monkeypatch.setattr(Topology, "groups", groups)
    for mask, levels in (("8-10", []), ("2-3", ["core"]), ("0-7", ["package"])):
        fit_rank(SERVER, mpich(1, 2), Ancestry([HYDRA], mask))
        assert grouped == levels
        grouped.clear()


def test_packages_of_different_sizes_decide_alike() -> None:
    """Three ranks bound to two packages of 2 and 6 cores share at least one: all of them say so."""
    machine = make_machine(Shape(packages=2, nodes=2, cores=8, l3s=2), "0,1,4-7", "0-1")
    around = CpuSet.parse_kernel("0-1,4-7")
    for mask in ("0-1", "4-7"):
        assert count_crowd(3, CpuSet.parse_kernel(mask), around, machine.topology) == 2
        assert count_crowd(2, CpuSet.parse_kernel(mask), around, machine.topology) == 1
    assert count_crowd(3, CpuSet([0]), around, machine.topology) == 1
    assert count_crowd(None, CpuSet([0]), around, machine.topology) == 1


def test_more_ranks_than_cores() -> None:
    """Hardware threads are shared out, with a warning; with more ranks than cpus the engine's own
    cause is named."""
    plans = plans_of("", 4, mask="0-3")
    assert cpus(plans) == ["0", "1", "2", "3"]
    assert [c.kind for c in plans[0].cautions] == ["shared-core"]
    with pytest.raises(PlanError, match=r"MPICH has started 8 ranks on cpus 0-3, 2 cores") as e:
        plans_of("", 8, mask="0-3")
    assert "--oversubscribe" in e.value.hint
    assert len(plans_of("--oversubscribe", 8, mask="0-3")) == 8
    many = slurm(1, 4, SLURM_CPU_BIND_TYPE="mask_cpu:", SLURM_CPU_BIND_LIST="0x1")
    with pytest.raises(PlanError, match="--overcommit"):
        plan_rank(SERVER, many, Ancestry([Above("slurmstepd")], "0"))


def test_tasks_beside_each_other_on_a_core() -> None:
    """Slurm's -n 4 with two hardware threads in a core: each keeps its own, and is warned."""
    masks = {"SLURM_CPU_BIND_TYPE": "mask_cpu:", "SLURM_CPU_BIND_LIST": "0x0001,0x0100,0x0002,0x10"}
    for rank, cpu in enumerate(("0", "8", "1", "4")):
        plan = plan_rank(SERVER, slurm(rank) | masks, Ancestry([Above("slurmstepd")], cpu))
        assert str(plan.ranks[0].cpus) == cpu
        assert [c.kind for c in plan.cautions] == (["shared-core"] if rank in (0, 2) else [])
    assert (
        "--hint=nomultithread"
        in plan_rank(SERVER, slurm(0) | masks, Ancestry([Above("slurmstepd")], "0"))
        .cautions[0]
        .hint
    )


# --- -n, and the numbers of the whole job --------------------------------------------------------

NODES = {"SLURM_STEP_NUM_NODES": "3", "SLURM_STEP_TASKS_PER_NODE": "1(x3)",
         "SLURM_STEP_NODELIST": "n[7-9]", "SLURM_STEP_NUM_TASKS": "3"}  # fmt: skip
STEP = Ancestry([Above("slurmstepd")])


def on_node(node: int, words: str) -> Plan:
    environ = slurm(node) | NODES | {"SLURM_NODEID": str(node), "SLURM_LOCALID": "0"}
    return plan_rank(SERVER, environ, STEP, words)


def test_one_ompbind_on_each_node() -> None:
    """It starts -n ranks there, with the numbers of the whole job."""
    for node in range(3):
        plan = on_node(node, "-n 4 --template --smt all")
        assert [r.rank for r in plan.ranks] == [0, 1, 2, 3]
        assert [r.number for r in plan.ranks] == [4 * node + r for r in range(4)]
        env = dict(plan.ranks[3].env)
        assert [env[n] for n in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")] == [
            str(4 * node + 3), "12", "3", "4",
        ]  # fmt: skip
        assert (env["OMPBIND_RANK"], env["OMPBIND_ENGINE"]) == ("3", "slurm")
        assert all(not a.cpus & b.cpus for a, b in pairwise(plan.ranks))
        assert parse_plan(plan.to_json()) == plan
    assert [r.number for r in on_node(2, "--numa-bind-nodes 0 1 -n 2").ranks] == [4, 5]


@pytest.mark.parametrize(
    ("environ", "problem"),
    [
        (slurm(1), "Slurm has already started 4 ranks on made-up"),
        (slurm(1) | NODES | {"SLURM_STEP_TASKS_PER_NODE": "2,1", "SLURM_NODEID": "1",
                             "SLURM_LOCALID": "0"}, "several ranks on some nodes and one here"),
        (torchrun(0, 2) | {"LOCAL_WORLD_SIZE": "1", "GROUP_WORLD_SIZE": "2"},
         "torchrun has given each of its workers a rank"),
        ({"PMIX_RANK": "0", "PMIX_NAMESPACE": "prterun-x"}, "PRRTE does not say which"),
    ],
)  # fmt: skip
def test_a_number_of_ranks_that_is_refused(environ: dict[str, str], problem: str) -> None:
    """Where the engine has started several, where nodes differ, and where the node is unknown."""
    with pytest.raises(PlanError, match=f"--ranks 2: .*{problem}"):
        plan_rank(SERVER, environ, Ancestry([Above("sh")]), "-n 2")


def test_lists_have_a_value_for_each_local_rank() -> None:
    """The error names the host and the number."""
    for words in ("--numa-bind-nodes 0 1", "--numa-bind-cpus 0 1 2"):
        with pytest.raises(PlanError, match=r"--numa-bind-.* has started 4 on made-up") as e:
            plans_of(words)
        assert "4 values" in e.value.hint


def test_a_thing_for_one_rank() -> None:
    """--per on a node with one rank gives it the first, and says how to get the others."""
    plan = on_node(0, "--per numa")
    assert [str(r.nodes) for r in plan.ranks] == ["0"]
    assert [c.kind for c in plan.cautions] == ["engine"]
    assert "-n N" in plan.cautions[0].hint
    assert on_node(0, "").cautions == ()


def test_numbers_that_are_asked_for() -> None:
    """With --rank-env RANK is the engine's; templates have the whole job's numbers, too."""
    (rank,) = plan_rank(
        SERVER, slurm(2) | {"SLURM_NODEID": "1", "SLURM_STEP_TASKS_PER_NODE": "1,3",
                            "SLURM_LOCALID": "1"}, STEP, "--rank-env",
    ).ranks  # fmt: skip
    env = dict(rank.env)
    assert [env[n] for n in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")] == [
        "2", "4", "1", "3",
    ]  # fmt: skip
    unknown = {"PMIX_RANK": "1", "PMIX_NAMESPACE": "prterun-x"}
    with pytest.raises(PlanError, match="PRRTE does not say the number of ranks"):
        plan_rank(SERVER, unknown, Ancestry([Above("prterun")], "0-1"), "--rank-env")


def test_what_verify_calls_a_rank() -> None:
    """Its number in the whole job, also where the plan has only that rank."""
    (rank,) = plans_of("", 4)[2].ranks
    expected = expect_plan(rank)
    assert (expected.rank, expected.number) == (0, 2)
    assert ProcessReport(Process(77), expected).name == "rank 2, pid 77"
    assert ProcessReport(Process(77), expected.replace(number=None)).name == "rank 0, pid 77"
    assert describe_exits({0: 1.0}, 2) == "rank 2 exited after 1.0 s"


def test_a_local_rank_that_is_not_known() -> None:
    """Is needed only where ranks share their cpus."""
    unknown = {"PMIX_RANK": "1", "PMIX_NAMESPACE": "prterun-x"}
    own = plan_rank(SERVER, unknown, Ancestry([Above("prterun")], "0-1"))
    assert str(own.ranks[0].cpus) == "0"
    with pytest.raises(PlanError, match="does not say the local rank") as e:
        plan_rank(SERVER, unknown, Ancestry([Above("prterun")]))
    assert "env:PMIX_RANK" in e.value.hint


# --- GPUs, by hand, saved plans ------------------------------------------------------------------


def test_gpus_by_local_rank() -> None:
    """Rank r gets the r-th GPU and the cores near it, also within a mask of its own."""
    from ompbind.devices.visible import make_visible

    gpus = tuple(
        Pci(f"0000:{bus:02x}:00.0", "030200", node=node, cpus="0-7" if node == 0 else "8-15")
        for bus, node in ((0x1A, 0), (0x1B, 0), (0x2A, 1), (0x2B, 1))
    )
    machine = make_machine(Shape(packages=2, nodes=2, cores=8, threads=2, l3s=2, devices=gpus))
    visible = make_visible(machine.topology.devices, {})
    request = make_asked(["--per", "gpu"]).replace(visible=visible)
    for masks in (["0-15"] * 4, ["0-3", "4-7", "8-11", "12-15"]):
        names = []
        for rank, mask in enumerate(masks):
            from ompbind.engines import find_task
            from tests.support.ancestry import with_mask

            found = find_task(mpich(rank), Ancestry([HYDRA], mask))
            here = with_mask(machine, mask)
            fitted = fit(here, request, found, mpich(rank), "")
            (planned,) = make_plan(fitted.machine, fitted.request).ranks
            names.append(planned.gpus)
            assert planned.nodes == CpuSet([rank // 2])
        assert names == [("0",), ("1",), ("2",), ("3",)]


def test_a_rank_by_hand() -> None:
    """Is the rank of the plan for all, with its numbers; the plan must have it."""
    hand = Found(make_hand_task(2))
    whole = make_plan(SERVER, make_asked(["--per", "l3", "-n", "4"]))
    request = make_asked(["--per", "l3", "-n", "4", "--rank-env"])
    fitted = fit(SERVER, request, hand, {}, "")
    (rank,) = make_plan(fitted.machine, fitted.request).ranks
    assert rank.binding == whole.ranks[2].binding
    assert (rank.number, dict(rank.env)["WORLD_SIZE"]) == (2, "4")
    with pytest.raises(PlanError, match="--rank 2: the plan has 2 ranks, from 0"):
        make_plan(SERVER, make_asked(["-n", "2"]).replace(world=fitted.request.world))


def test_a_saved_plan_has_a_rank_for_each_local_rank() -> None:
    """The rank of the engine starts its own of them."""
    saved = make_plan(SERVER, make_asked(["-n", "4"]))
    found, _ = fit_rank(SERVER, mpich(3), Ancestry([HYDRA]))
    plan = pick_rank(saved, found)
    assert plan.ranks[0].binding == saved.ranks[3].binding
    assert (plan.ranks[0].rank, plan.ranks[0].number) == (0, 3)
    assert dict(plan.ranks[0].env)["OMPBIND_ENGINE"] == "mpich"
    assert pick_rank(saved, Found(make_hand_task(1))).ranks[0].number == 1
    with pytest.raises(PlanError, match="--rank 4: the plan has 4 ranks"):
        pick_rank(saved, Found(make_hand_task(4)))
    found, _ = fit_rank(SERVER, mpich(1, 3), Ancestry([HYDRA]))
    with pytest.raises(PlanError, match="--plan has 4 ranks; MPICH has started 3 here"):
        pick_rank(saved, found)
    assert pick_rank(plan, found) == plan  # it was saved by a rank


# --- MASTER_ADDR and MASTER_PORT -----------------------------------------------------------------


def master(environ: dict[str, str], variables: Variables, words: str = "") -> dict[str, str]:
    found, fitted = fit_rank(SERVER, environ, STEP, words)
    plan = make_plan(fitted.machine, fitted.request)
    done = with_environment(plan, fit_variables(variables, found, plan, environ), environ)
    return dict(done.ranks[0].env)


def test_the_master_is_the_first_host() -> None:
    """The first of Slurm's list, or this node where all ranks are on it; RANK is the engine's."""
    port = Variables(master_port=29500)
    env = master(slurm(1) | NODES | {"SLURM_NODEID": "1", "SLURM_LOCALID": "0"}, port)
    names = ("MASTER_ADDR", "MASTER_PORT", "RANK", "WORLD_SIZE", "LOCAL_RANK")
    assert [env[n] for n in names] == ["n7", "29500", "1", "3", "0"]
    assert master(slurm(1), port)["MASTER_ADDR"] == "127.0.0.1"
    assert master(slurm(1), port.replace(master_addr="n1"))["MASTER_ADDR"] == "n1"
    several = openmpi(1, 8) | {"OMPI_COMM_WORLD_LOCAL_SIZE": "4"}
    assert master(several, port.replace(master_addr="n1"))["RANK"] == "1"
    for environ, variables, problem in (
        (several, port, "does not say which host is the first"),
        (slurm(1) | NODES | {"SLURM_STEP_NODELIST": "n[7", "SLURM_LOCALID": "0"}, port, "n.7"),
        (slurm(1), Variables(master_port="auto"), "each would take another port"),
        (torchrun(1), port, "torchrun has set MASTER_ADDR"),
    ):
        with pytest.raises(UsageError, match=problem):
            master(environ, variables)
    assert master(slurm(1), Variables()) == dict(plan_env(slurm(1)))


def plan_env(environ: dict[str, str]) -> dict[str, str]:
    _, fitted = fit_rank(SERVER, environ, STEP)
    return dict(make_plan(fitted.machine, fitted.request).ranks[0].env)


# --- the engines' own words ----------------------------------------------------------------------


@given(st.lists(st.integers(0, 5), min_size=1, max_size=8), st.integers(1, 12))
def test_slurms_list_of_masks(ids: list[int], count: int) -> None:
    """Disjoint masks, reused from the start for further tasks: tasks with equal ones share them."""
    masks = [0b11 << 2 * i for i in ids]
    text = ",".join(f"0x{m:08X}" for m in masks)
    for rank in range(count):
        result = read_slurm("mask_cpu:", text, count, rank, CpuSet([40, 41]))
        assert result == [masks[r % len(masks)] for r in range(count)]
    assert read_slurm("mask_cpu:", text, count, 0, CpuSet([40])) == []  # narrowed since


@given(st.text("0123456789abcdefx,*:-m", max_size=20), st.integers(1, 4))
def test_any_text_in_place_of_masks(text: str, count: int) -> None:
    """Is a list for all ranks, nothing, or refused as overlapping."""
    for kind in ("mask_cpu:", "map_cpu:", "none", "", "rank:", "mask_ldom:"):
        try:
            result = read_slurm(kind, text, count, 0, CpuSet([0]))
        except PlanError as e:
            assert "overlap in part" in e.message
            continue
        assert len(result) in (0, count)
    assert len(read_intel(text, count, 0, CpuSet([0]))) in (0, count)


def test_words_of_engines() -> None:
    """Repetitions, other kinds of list, overlapping masks, Intel's mapping."""
    assert repeat("0x3*2") == ["0x3", "0x3"]
    assert repeat("0x3") == ["0x3"]
    assert repeat("0x3*x") == []
    assert parse_hexadecimal("0xFf") == 255
    assert parse_hexadecimal("3") == 3
    assert parse_hexadecimal("-3") == 0
    assert parse_hexadecimal("f" * 5000) == 0
    one = CpuSet([3])
    assert read_slurm("mask_cpu:", "0x3*2,0xC*2", 4, 0, CpuSet([0, 1])) == [3, 3, 12, 12]
    assert read_slurm("map_cpu:", "0,1*2", 4, 0, one) == ["0", "1", "1", "0"]
    assert read_slurm("map_cpu:", "0,1", 2, 0, CpuSet([0, 1])) == []
    assert read_slurm("mask_ldom:", "0x1,0x2", 2, 0, CpuSet([0, 1])) == ["0x1", "0x2"]
    assert read_slurm("none", "", 2, 0, one) == []
    with pytest.raises(PlanError, match="overlap in part: 0x3,0x6"):
        read_slurm("mask_cpu:", "0x3,0x6", 2, 0, CpuSet([0, 1]))
    text = "4:0 0,1 4,2 8,3 12"
    assert read_intel(text, 4, 1, CpuSet([4, 5])) == [0, 4, 8, 12]
    assert read_intel(text, 4, 1, CpuSet([5])) == []  # narrowed since
    assert read_intel(text, 3, 1, CpuSet([4])) == []
    assert read_intel("4:0 0,1 x", 4, 0, CpuSet([0])) == []
