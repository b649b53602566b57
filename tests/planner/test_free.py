"""Which of the free cores a launch takes."""

from __future__ import annotations

import pytest

from ompbind.cpuset import CpuSet
from ompbind.errors import PlanError
from ompbind.planner import make_plan
from ompbind.planner.free import choose_free
from ompbind.planner.request import Pool, Request
from tests.support.trees import Shape, make_machine

# 2 packages of 2 nodes with 2 caches of 4 cores each; with threads, the second ones are from 32 on.
SHAPE = Shape(packages=2, nodes=4, l3s=8, cores=32)
SERVER = make_machine(SHAPE)
THREADS = make_machine(Shape(packages=2, nodes=4, l3s=8, cores=32, threads=2, numbering="halves"))


@pytest.mark.parametrize(
    ("count", "held", "chosen"),
    [
        (4, "", "0-3"),
        (4, "0", "4-7"),  # a whole cache, not three cores of one and one of another
        (2, "0-1,5", "2-3"),  # the cache with the fewest free cores that has enough
        (3, "0-1,5", "4,6-7"),
        (1, "0-2", "3"),
        (4, "0,4,8,12,16,20,24", "28-31"),
        (8, "", "0-7"),
        (8, "2", "8-15"),  # one node
        (6, "0-1,8-9", "2-7"),  # a node and no more, and the first of two alike
        (9, "", "0-8"),  # two nodes of one package
        (9, "2", "0,8-15"),
        (16, "2", "16-31"),
        (24, "", "0-23"),
        (32, "", "0-31"),
    ],
)
def test_kept_together(count: int, held: str, chosen: str) -> None:
    """In as few packages, nodes and caches as can be, and where the fewest are left over."""
    request = Request(free=Pool("", count))
    assert str(choose_free(SERVER, request, CpuSet.parse_kernel(held))) == chosen


@pytest.mark.parametrize(
    ("ranks", "count", "held", "chosen"),
    [
        (2, 4, "", "0-7"),
        (2, 3, "", "0-2,4-6"),  # each in a cache, both on a node
        (2, 3, "4-5", "0-2,8-10"),  # rather than a rank in two caches
        # what is left of the node where the first is, though as much is free of one before it
        (2, 2, "1-3,5-7,11,13-31", "8-10,12"),
        (4, 8, "", "0-31"),
        (3, 8, "0", "8-31"),
        (None, 4, "", "0-3"),
    ],
)
def test_so_many_for_each_rank(ranks: int | None, count: int, held: str, chosen: str) -> None:
    """Each rank's cores lie together, and those of all."""
    request = Request(ranks=ranks, free=Pool("", count, per_rank=True))
    assert str(choose_free(SERVER, request, CpuSet.parse_kernel(held))) == chosen


def test_on_a_machine_whose_cores_share_all() -> None:
    """Or that does not say which of them share a cache: the first ones."""
    machine = make_machine(Shape(l2s=None))
    assert str(choose_free(machine, Request(free=Pool("", 2)), CpuSet([0]))) == "1-2"


def test_with_a_thread_the_whole_core_is_held() -> None:
    """Also one that the plan would not use, or may not."""
    request = Request(free=Pool("", 2))
    assert str(choose_free(THREADS, request, CpuSet([32, 1]))) == "2-3,34-35"
    allowed = THREADS.allowed.replace(cpus=CpuSet(range(32)))
    narrow = THREADS.replace(allowed=allowed)
    assert str(choose_free(narrow, request, CpuSet([32, 1]))) == "2-3"


def test_a_plan_on_the_cores_that_were_taken() -> None:
    """Has no others; what the request leaves out is not taken either."""
    request = Request(ranks=2, free=Pool("", 8), exclude=CpuSet([0]), binder="native")
    chosen = choose_free(SERVER, request, CpuSet())
    assert str(chosen) == "8-15"
    plan = make_plan(SERVER, request.replace(only=chosen))
    assert [str(rank.cpus) for rank in plan.ranks] == ["8-11", "12-15"]
    assert str(plan.unused) == "1-7,16-31"


def test_too_few() -> None:
    """With how many are free and which are held; without a hint to wait for more than there are."""
    with pytest.raises(PlanError) as caught:
        choose_free(SERVER, Request(free=Pool("", 4)), CpuSet(range(29)))
    text = "--free 4: 3 of 32 cores are free; others hold cpus 0-28"
    hint = "--wait waits for cores in turn; ompbind ps shows who holds what"
    assert (caught.value.message, caught.value.hint) == (text, hint)
    for count, more in ((32, hint), (33, "at most 32")):
        with pytest.raises(PlanError, match=f"^--free {count}: 31 of 32 cores are free") as caught:
            choose_free(SERVER, Request(free=Pool("", count)), CpuSet([0]))
        assert caught.value.hint == more
    with pytest.raises(PlanError, match=r"--free 9/rank: 32 of 32 cores are free$") as caught:
        choose_free(SERVER, Request(ranks=4, free=Pool("", 9, per_rank=True)), CpuSet())
    assert caught.value.hint == "at most 32"


@pytest.mark.parametrize(
    ("held", "said"),
    [
        ("0-31", "0 of 32 cores are free"),
        ("0-30", "1 of 32 cores is free"),
        ("0-29", "2 of 32 cores are free"),
    ],
)
def test_too_few_are_counted(held: str, said: str) -> None:
    """In the words of one and of several."""
    with pytest.raises(PlanError, match=f"--free 4: {said}; others hold cpus {held}"):
        choose_free(SERVER, Request(free=Pool("", 4)), CpuSet.parse_kernel(held))
