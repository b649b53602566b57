"""Which processes `verify` looks at, and what it expects of them: by made-up files of /proc."""

from __future__ import annotations

import itertools
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from ompbind.cpuset import CpuSet
from ompbind.errors import DeniedError, UsageError
from ompbind.machine.processes import HugePages, is_exiting, read_process
from ompbind.planner import make_plan
from ompbind.plans import Numbers, Plan, parse_roles
from ompbind.verify import (
    Target,
    add_huge_pages,
    check,
    check_family,
    check_stray,
    find_targets,
    is_inside,
)
from ompbind.verify.after_start import LATER, SECONDS, SETTLE, Verifier
from ompbind.verify.expected import expect_environ, expect_plan
from ompbind.verify.lineage import Lineage
from tests.support.machines import MACHINES, make_asked
from tests.support.processes import Processes


@pytest.fixture
def processes(tmp_path: Path) -> Processes:
    return Processes(tmp_path)


def worker(rank: int, cpus: str = "0-3") -> dict[str, str]:
    return {"OMPBIND_RANK": str(rank), "OMPBIND_CPUS": cpus}


def targets(processes: Processes, *pids: int, plan: Plan | None = None) -> list[int]:
    return [target.process.pid for target in find_targets(processes.root, pids, plan)]


def two_ranks(*args: str) -> Plan:
    """A plan for the made-up server: ranks on cpus 0-7 and 8-15."""
    return make_plan(MACHINES["server"], make_asked(["-n", "2", *args]))


def test_a_launcher_stands_for_its_workers(processes: Processes) -> None:
    """By rank, each once; what workers have started, near or far, is no worker."""
    processes.add(10, environ={})
    processes.add(11, 10, worker(1))
    processes.add(12, 10, worker(0))
    processes.add(13, 11, worker(1))
    processes.add(14, 13, worker(1))
    processes.add(15, 10, {})
    processes.add(16, 15, worker(2))
    assert targets(processes, 10) == [12, 11, 16]
    assert targets(processes, 11, 12, 11) == [11, 12]
    assert targets(processes, 13) == [13]


def test_what_cannot_be_compared_is_no_target(processes: Processes) -> None:
    """A process that no plan is known of; but one that exited or cannot be read is reported."""
    processes.add(10, environ={})
    processes.add(11, environ=None, state="Z", masks=())
    processes.add(12, environ={"OMPBIND_RANK": "x"})
    with pytest.raises(UsageError, match="no process has the pid 9"):
        targets(processes, 9)
    for pid in (10, 12):
        with pytest.raises(UsageError, match="is not a worker of ompbind"):
            targets(processes, pid)
    assert targets(processes, 11) == [11]
    assert [r.process.ended for r in check(processes.root, find_targets(processes.root, [11], None)
                                           ).processes] == [True]  # fmt: skip


def test_a_plan_has_a_rank_for_each_target(processes: Processes) -> None:
    """The one that its environment names, where the plan has it; else the one at its position."""
    plan = two_ranks()
    processes.add(11, environ=worker(1))
    processes.add(12, environ={})
    processes.add(13, environ=worker(2))
    found = find_targets(processes.root, [11, 12], plan)
    assert [t.expected and t.expected.rank for t in found] == [1, 1]
    assert [t.expected and t.expected.rank for t in find_targets(processes.root, [13], plan)] == [0]
    with pytest.raises(UsageError, match="--plan has 2 ranks; pid 13 would be rank 2"):
        find_targets(processes.root, [11, 12, 13], plan)


def test_what_a_rank_has_started_is_judged_with_it(processes: Processes) -> None:
    """Those that it started, whether or not they show its environment; not another launch's, nor
    what has exited. They may bind themselves inside its cpus."""
    processes.add(10, environ=worker(0), masks=["0-3"])
    processes.add(11, 10, worker(0), masks=["0-3"])
    processes.add(12, 10, worker(1), masks=["0-3"])
    processes.add(13, 10, worker(0, "4-7"), masks=["4-7"])
    processes.add(14, 10, None, masks=["0-3"])
    processes.add(15, 10, worker(0), state="Z", masks=())
    processes.add(16, 11, worker(0), masks=["0-4"])
    processes.add(17, 13, {}, masks=["0-4"])
    processes.add(18, 16, {}, masks=["1-2"])
    report = check(processes.root, find_targets(processes.root, [10], None))
    assert [(r.process.pid, r.parent) for r in report.processes] == [
        (10, 0), (11, 10), (14, 10), (16, 10), (18, 10),
    ]  # fmt: skip
    kinds = [[d.kind for d in r.differences] for r in report.processes]
    assert kinds == [[], [], [], ["changed"], []]
    assert "restricted by the program itself" in report.processes[-1].notes[0]


def test_a_number_that_was_reused_is_another_process(processes: Processes) -> None:
    """The target has exited; a process with its number is not judged in its place, nor what that
    has started. Its rank is the one it had, or the plan's; the next target is judged all the same.
    """
    processes.add(10, environ=worker(1), masks=["0-3"], started=5)
    processes.add(20, environ=worker(1, "4"), masks=["4"])
    target, other = find_targets(processes.root, [10, 20], None)
    planned = target.replace(expected=expect_plan(two_ranks().ranks[0]))
    processes.add(10, environ=worker(2), masks=["0-4"], started=6)
    processes.add(11, 10, environ=worker(2), masks=["0-4"])
    for ended, rank in ((target, 1), (planned, 0)):
        report, last = check(processes.root, [ended, other]).processes
        assert [d.kind for d in report.differences] == ["ended"]
        assert report.process.name == "w"  # as it was
        assert report.expected is not None
        assert report.expected.rank == rank
        assert (last.process.pid, last.differences) == (20, ())


def test_an_exited_process_has_the_rank_that_it_had(processes: Processes) -> None:
    """Also as a zombie, which has no environment, and where only its children named its rank."""
    processes.add(10, environ=worker(2), masks=["0-3"])
    processes.add(20, environ=b"\0" * 30, masks=["0-3"])
    processes.add(21, 20, worker(3), masks=["0-3"])
    processes.add(30, environ=None)
    found = find_targets(processes.root, [10, 20, 30], None)
    for leave in (processes.end, processes.remove):
        for pid in (10, 20, 30):
            leave(pid)
        reports = check(processes.root, found).processes
        assert [r.expected and r.expected.rank for r in reports] == [2, 3, None]
        assert [d.kind for r in reports for d in r.differences] == ["ended"] * 3


def test_a_process_that_cannot_be_read_is_a_target(processes: Processes) -> None:
    """What it is may still be known from its parents; if not, that is reported."""
    processes.add(10, environ=None)
    processes.add(11, 10, environ={"A": "1"})
    (target,) = find_targets(processes.root, [10], None)
    assert target == Target(target.process)
    with pytest.raises(UsageError, match=r"pid 11 .* is not a worker of ompbind"):
        find_targets(processes.root, [11], None)


def test_a_plan_is_what_a_family_is_compared_with(processes: Processes) -> None:
    """Not what its environments say; a renamed process whose plan is given is not guessed at."""
    plan = two_ranks("--places", "one")
    for rank, pid in enumerate((10, 20)):
        processes.add(pid, environ=worker(rank, "0-3"), masks=["0-7"])
        processes.add(pid + 1, pid, environ=worker(rank, "0-3"), masks=["8-15"])
    renamed = b"\0" * 30
    processes.add(30, environ=renamed)
    processes.add(31, 30, environ=worker(1, "0-3"), masks=["0-3"])
    for pids, wanted in (
        ([10, 20], [(10, 0, 1), (11, 0, 1), (20, 1, 1), (21, 1, 0)]),
        ([30], [(31, 1, 1)]),
    ):
        found = find_targets(processes.root, pids, plan)
        rows = [
            (r.process.pid, r.expected and r.expected.rank, len(r.differences))
            for r in check(processes.root, found).processes
        ]
        assert len(rows) == len(wanted)
        for (pid, rank, _), row in zip(wanted, rows, strict=True):
            assert row[:2] == (pid, rank)
        assert all(r.expected and r.expected.cpus == plan.ranks[r.expected.rank].cpus
                   for r in check(processes.root, found).processes)  # fmt: skip


def test_a_child_whose_environment_cannot_be_read_has_its_ranks_threads(
    processes: Processes,
) -> None:
    """Their number and places; a readable environment without any has none."""
    openmp = {"OMP_PLACES": "{0},{1}", "OMP_PROC_BIND": "close", "OMP_NUM_THREADS": "2"}
    processes.add(10, environ=worker(0) | openmp, masks=["0", "1"])
    processes.add(11, 10, environ=None, masks=["0", "1"])
    processes.add(12, 10, environ={}, masks=["0-3"])
    found = find_targets(processes.root, [10], None)
    reports = check(processes.root, found).processes
    assert [r.expected and r.expected.threads for r in reports] == [2, 2, None]
    assert [r.places for r in reports] == [(0, 1), (0, 1), (None,)]


def test_processes_that_exit_meanwhile_are_left_out(processes: Processes) -> None:
    """Those of a family, and those that have lost their parents, whatever is read of them."""
    processes.add(10, environ=worker(0), masks=["0-3"])
    for pid in (11, 12):
        processes.add(pid, 10, worker(0), masks=["0-3"])
    lineage = Lineage(processes.root)
    process = read_process(processes.root, 10)
    assert process is not None
    (target,) = find_targets(processes.root, [10], None)
    online = CpuSet(range(8))
    reports = check_family(lineage, target, process, online)
    assert [r.process.pid for r in reports] == [10, 11, 12]
    processes.remove(11)
    processes.end(12, 10)
    assert len(check_family(lineage, target, process, online)) == 1
    for pid in (11, 12, 99):
        assert check_stray(lineage, pid, reports, online) is None


def test_a_process_without_parents_is_of_the_rank_that_it_names(processes: Processes) -> None:
    """Else of the only one; by its own variables where no rank that is reported is the same."""
    processes.add(10, environ=worker(0), masks=["0-3"])
    processes.add(20, environ=worker(1, "4-7"), masks=["4-7"])
    processes.add(30, environ=worker(1, "4-7"), masks=["4-7"])
    processes.add(31, environ=worker(5, "4-7"), masks=["4-7"])
    processes.add(32, environ=None, masks=["0-3"])
    processes.add(33, environ={}, masks=["0-3"])
    processes.add(34, environ=b"\0" * 9, masks=["0-3"])
    processes.add(50, environ=None, masks=["0-3"])
    online = CpuSet(range(8))

    def stray(pid: int, *targets: int) -> tuple[int | None, int, int] | None:
        lineage = Lineage(processes.root)
        reports = check(processes.root, find_targets(processes.root, targets, None)).processes
        report = check_stray(lineage, pid, reports, online)
        if report is None:
            return None
        rank = report.expected.rank if report.expected else None
        return rank, report.parent, len(report.differences)

    assert stray(30, 10, 20) == (1, 20, 0)
    assert stray(31, 10, 20) == (5, 0, 0)
    assert stray(31, 10) == (5, 0, 0)
    for pid in (32, 34):
        assert stray(pid, 10) == (0, 10, 0)
        for pids in ((10, 20), (50,)):
            assert stray(pid, *pids) == (None, 0, 1)
    assert stray(33, 10) is None


def test_huge_pages_are_read_only_to_be_shown(processes: Processes) -> None:
    """The kernel walks all of a process's memory for them: not at each of many looks."""
    processes.add(10, environ=worker(0), masks=["0-3"])
    processes.add(11, state="Z", masks=())
    rollup, of_other = (processes.path / f"proc/{pid}/smaps_rollup" for pid in (10, 11))
    for file in (rollup, of_other):  # the number of one that ended may be another's by now
        file.write_text("0-1 ---p 0 00:00 0 [rollup]\nAnonHugePages: 2048 kB\n")
    report = check(processes.root, find_targets(processes.root, [10, 11], None))
    assert [p.process.huge_pages for p in report.processes] == [None, None]
    shown = add_huge_pages(processes.root, report)
    assert [p.process.huge_pages for p in shown.processes] == [HugePages(2 << 20), None]
    rollup.unlink()
    assert add_huge_pages(processes.root, report) == report


def test_who_is_inside_a_ranks_cpus(processes: Processes) -> None:
    """A process of which every thread is; nobody who has gone, and nobody without a rank."""
    processes.add(10, masks=["0-3", "1"])
    processes.add(11, masks=["0-3", "4"])
    expected = expect_environ(worker(0))
    assert [is_inside(processes.root, pid, expected) for pid in (10, 11, 99)] == [
        True, False, False,
    ]  # fmt: skip
    assert not is_inside(processes.root, 10, None)


def test_what_an_exited_rank_has_started_is_not_judged(processes: Processes) -> None:
    """The rank itself is reported as exited, and nothing else of it."""
    processes.add(10, environ=worker(0), masks=["0-3"])
    processes.add(11, 10, worker(0), masks=["0-4"])
    found = find_targets(processes.root, [10], None)
    for task in (processes.path / "proc" / "10" / "task").iterdir():
        shutil.rmtree(task)
    processes.add(10, environ=worker(0), state="Z", masks=())
    report = check(processes.root, found)
    assert [(r.process.pid, r.process.ended) for r in report.processes] == [(10, True)]


def verifier(processes: Processes, *, strict: bool = False) -> Verifier:
    return Verifier(processes.root, within=5, strict=strict, clock=lambda: 0.0)


def test_ranks_are_ready_when_their_threads_are_there(processes: Processes) -> None:
    """As many as planned, none of them new, and no longer numactl: each rank, or a child of it."""
    plan = two_ranks("--threads", "3")
    ready = verifier(processes)
    pids = {0: 10, 1: 20}
    processes.add(20, masks=["8-15"] * 3)
    processes.add(10, masks=["0-7"] * 2)
    assert ready.find_complete(plan, pids) == set()
    assert ready.find_complete(plan, pids) == {1}
    processes.add(10, masks=["0-7"] * 3)
    assert ready.find_complete(plan, pids) == {1}  # one is new
    assert ready.find_complete(plan, pids) == {0, 1}
    processes.add(10, masks=["0-7"] * 3, name="numactl")
    assert ready.find_complete(plan, pids) == {1}
    processes.add(10, masks=["0-7"] * 3)
    processes.add(11, 10, masks=["0-7"] * 4)
    assert ready.find_complete(plan, pids) == {1}  # its child's are new
    assert ready.find_complete(plan, pids) == {0, 1}


def test_only_living_ranks_are_verified_after_the_start(processes: Processes) -> None:
    """In the order of ranks; one that has exited is told by its status."""
    plan = two_ranks("--places", "one")
    processes.add(10, environ=worker(0, "0-7"), masks=["0-7"])
    processes.add(20, environ=worker(1, "8-15"), state="Z", masks=())
    report = verifier(processes).verify(plan, {1: 20, 0: 10})
    assert [p.process.pid for p in report.processes] == [10]
    assert verifier(processes).verify(plan, {1: 99}).processes == ()
    said: list[object] = []
    late = Verifier(processes.root, within=0, strict=False, clock=lambda: 0.0)
    assert late(plan, {1: 99}, {}, lambda *what: said.append(what)) == 0.1
    assert said == []  # until it is known when it exited
    assert late(plan, {}, {1: 0.1}, lambda *what: said.append(what)) is None
    unseen = "not verified: rank 1 exited after 0.1 s, before anything was seen of it"
    assert said == [("note", unseen)]
    processes.add(21, environ=worker(1, "8-15"), masks=["8-15"])
    report = verifier(processes).verify(plan, {1: 21, 0: 10})
    assert [p.process.pid for p in report.processes] == [10, 21]


def test_pauses_between_verifications_double(processes: Processes) -> None:
    """From a tenth of a second to a second, and no longer than is left; after the report there are
    a few later looks."""
    plan = two_ranks("--threads", "3", "--places", "one", "--no-rank-env")
    now = [0.0]
    waiting = Verifier(processes.root, within=3.0, strict=False, clock=lambda: now[0])
    processes.add(10, environ=dict(plan.ranks[0].env), masks=["0-7"])
    waits = []
    said: list[tuple[str, str]] = []
    while (wait := waiting(plan, {0: 10}, {}, lambda *what: said.append(what))) is not None:
        waits.append(wait)
        now[0] += wait
    assert waits == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.0, 0.5, *LATER])
    assert [kind for kind, _ in said] == ["note"]
    assert verifier(processes)(plan, {}, {}, lambda *what: said.append(what)) is None
    assert said[1:] == []


def test_a_difference_may_go_before_the_end(processes: Processes) -> None:
    """Threads may be about to bind themselves: only what lasts is reported."""
    plan = two_ranks("--places", "one", "--threads", "1", "--no-rank-env")
    said: list[tuple[str, str]] = []
    waiting = verifier(processes)
    for mask, wait in (("0-3", 0.1), ("0-3", 0.2), ("0-7", LATER[0])):
        processes.add(10, environ=dict(plan.ranks[0].env), masks=[mask])
        assert waiting(plan, {0: 10}, {}, lambda *what: said.append(what)) == wait
    assert [kind for kind, _ in said] == ["note"]


def test_a_plan_without_a_number_of_threads_waits_for_one(processes: Processes) -> None:
    """As somebody may have written it. A rank that has exited has none."""
    plan = two_ranks()
    bare = plan.replace(ranks=tuple(rank.replace(env=()) for rank in plan.ranks))
    processes.add(10, masks=["0-7"])
    waiting = verifier(processes)
    assert [waiting.find_complete(bare, {0: 10, 1: 99}) for _ in range(2)] == [set(), {0}]


def test_a_difference_is_a_warning_or_an_error(processes: Processes) -> None:
    """With --verify-strict the first one is raised."""
    plan = two_ranks("--places", "one", "--threads", "1", "--no-rank-env")
    environ = dict(plan.ranks[0].env)
    processes.add(10, environ=environ, masks=["0-7"])
    said: list[tuple[str, str]] = []

    def say(*what: str) -> None:
        said.append((what[0], what[1]))

    late = Verifier(processes.root, within=0, strict=True, clock=lambda: 0.0)
    assert late(plan, {0: 10}, {}, say) == LATER[0]
    assert [kind for kind, _ in said] == ["note"]
    assert re.search("as planned.*; not all threads had started after 0 s", said[0][1])
    processes.add(10, environ=environ, masks=["0-3"])
    loose = Verifier(processes.root, within=0, strict=False, clock=lambda: 0.0)
    assert loose(plan, {0: 10}, {}, say) == LATER[0]
    assert [kind for kind, _ in said[1:]] == ["warning"]
    strict = Verifier(processes.root, within=0, strict=True, clock=lambda: 0.0)
    with pytest.raises(DeniedError, match="may run only on cpus 0-3"):
        strict(plan, {0: 10}, {}, say)


def test_ranks_that_exit_early_are_judged_by_what_was_last_seen(processes: Processes) -> None:
    """As planned but for its threads, different, or never seen: each is said; what OpenMP's threads
    were about to do is not held against them."""
    plan = make_plan(MACHINES["server"], make_asked(["-n", "4", "--threads", "3"]))
    said: list[tuple[str, str]] = []

    def say(*what: str) -> None:
        said.append((what[0], what[1]))

    def look(masks: Sequence[str], *, strict: bool, name: str = "w") -> None:
        said.clear()
        early = verifier(processes, strict=strict)
        processes.add(10, environ=dict(plan.ranks[0].env), masks=masks, name=name)
        assert early(plan, {0: 10, 1: 20}, {}, say) is not None
        assert said == []
        assert early(plan, {}, {0: 2.0}, say) is None

    text = "verified in part: rank 0 exited after 2.0 s, before all threads were verified"
    for masks in (["0-3"], ["0", "0", "0"]):
        look(masks, strict=False)
        assert said == [("note", f"{text}; its mask and memory were as planned")]
        with pytest.raises(DeniedError, match=text):
            look(masks, strict=True)
    look(["3-7"] * 3, strict=False)
    assert [kind for kind, _ in said] == ["warning"]
    assert "rank 0, pid 10: every thread may run on cpus 3-7" in said[0][1]
    with pytest.raises(DeniedError, match="every thread may run on cpus 3-7"):
        look(["3-7"] * 3, strict=True)
    unseen = "not verified: rank 0 exited after 2.0 s, before anything was seen of it"
    look(["0-3"], strict=False, name="numactl")
    assert said == [("note", unseen)]
    with pytest.raises(DeniedError, match=unseen):
        look(["0-3"], strict=True, name="numactl")


@pytest.mark.parametrize("masks", [["0", "1", "2"], ["0", "0", "0"]])
@pytest.mark.parametrize("strict", [True, False])
def test_a_rank_that_exits_after_all_its_threads_were_seen(
    strict: bool, masks: list[str], processes: Processes
) -> None:
    """It counts as verified, though others are still waited for; not if its threads were misplaced
    when it was last seen."""
    plan = make_plan(MACHINES["server"], make_asked(["-n", "4", "--threads", "3"]))
    said: list[tuple[str, str]] = []

    def look(pids: dict[int, int], exits: dict[int, float]) -> float | None:
        return early(plan, pids, exits, lambda *words: said.append(words))

    early = verifier(processes, strict=strict)
    processes.add(10, environ=dict(plan.ranks[0].env), masks=masks)
    processes.add(20, environ=dict(plan.ranks[1].env), masks=["4-7"])
    assert [look({0: 10, 1: 20}, {}) for _ in range(2)] == [0.1, 0.2]
    processes.add(20, environ=dict(plan.ranks[1].env), masks=["4", "5", "6"])
    look({1: 20}, {0: 2.0})
    assert said == []
    if strict and masks[1] == "0":
        with pytest.raises(DeniedError, match="verified in part: rank 0 exited after"):
            look({1: 20}, {0: 2.0})
        return
    assert look({1: 20}, {0: 2.0}) == LATER[0]
    whole = ("note", "as planned: rank 0 exited after 2.0 s, after all threads were verified")
    assert (said[-1] == whole) == (masks[1] == "1")


def test_a_rank_is_not_verified_whole_if_its_childs_threads_were_misplaced(
    processes: Processes,
) -> None:
    """Although its own threads were in their places."""
    plan = make_plan(MACHINES["server"], make_asked(["-n", "4", "--threads", "3"]))
    said: list[tuple[str, str]] = []
    early = verifier(processes)
    processes.add(10, environ=dict(plan.ranks[0].env), masks=["0", "1", "2"])
    processes.add(11, 10, environ=dict(plan.ranks[0].env), masks=["0", "0", "0"])
    for _ in range(2):
        early(plan, {0: 10}, {}, lambda *words: said.append(words))
    early(plan, {}, {0: 2.0}, lambda *words: said.append(words))
    (kind, text), *_ = said
    assert (kind, text[:35]) == ("note", "verified in part: rank 0 exited aft")


def test_differences_are_said_in_the_order_of_ranks(processes: Processes) -> None:
    """Whichever of them exited first."""
    plan = two_ranks("--threads", "1", "--places", "one")
    said: list[tuple[str, str]] = []
    early = verifier(processes)
    for rank, pid in enumerate((20, 10)):
        processes.add(pid, environ=dict(plan.ranks[rank].env), masks=["3-5"])
    early(plan, {0: 20, 1: 10}, {}, lambda *words: said.append(words))
    early(plan, {}, {1: 1.0, 0: 2.0}, lambda *words: said.append(words))
    names = [text.partition(":")[0] for kind, text in said if kind == "warning"]
    assert list(dict.fromkeys(names)) == ["rank 0, pid 20", "rank 1, pid 10"]


def test_an_exiting_rank_is_waited_for(processes: Processes) -> None:
    """Without memory it has neither environment nor policy, which is no difference."""
    plan = two_ranks("--threads", "1", "--places", "one", "--no-rank-env")
    said: list[tuple[str, str]] = []
    processes.add(10, environ={}, masks=["0-7"])
    (processes.path / "proc/10/statm").write_text("0 0 0 0 0 0 0\n")
    late = Verifier(processes.root, within=0, strict=True, clock=lambda: 0.0)
    assert late(plan, {0: 10}, {}, lambda *what: said.append(what)) == 0.1
    assert said == []


def test_what_an_exiting_rank_has_started_does_not_stand_for_it(processes: Processes) -> None:
    """Nor does another rank that is there: all is said when it is known how the rank ended."""
    plan = two_ranks("--threads", "1", "--places", "one", "--no-rank-env")
    said: list[tuple[str, str]] = []
    processes.add(10, environ=dict(plan.ranks[0].env), masks=["0-7"])
    processes.add(11, 10, environ=dict(plan.ranks[0].env), masks=["0-7"])
    processes.add(20, environ=dict(plan.ranks[1].env), masks=["8-15"])
    (processes.path / "proc/10/statm").write_text("0 0 0 0 0 0 0\n")
    for pids in ({0: 10}, {0: 10, 1: 20}):
        late = Verifier(processes.root, within=0, strict=True, clock=lambda: 0.0)
        assert late(plan, pids, {}, lambda *what: said.append(what)) == 0.1
        assert said == []


def test_who_is_exiting(processes: Processes, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process without memory, or of which nothing is left; not one that may not be read."""
    processes.add(10)
    assert is_exiting(processes.root, 10) is False
    assert is_exiting(processes.root, 99) is True
    (processes.path / "proc/10/statm").write_text("0 0 0 0 0 0 0\n")
    assert is_exiting(processes.root, 10) is True
    (processes.path / "proc/10/statm").write_text("10 0 0 0 0 0 0\n")
    assert is_exiting(processes.root, 10) is False

    def refuse(path: str) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(processes.root, "read_whole", refuse)
    assert is_exiting(processes.root, 99) is False


def test_how_long_ranks_are_verified() -> None:
    """Five seconds, as is documented; later looks come ever less often, for five minutes."""
    assert SECONDS == 5.0
    assert [*itertools.accumulate(LATER)] == [5, 15, 35, 75, 155, 315]


def test_what_a_plan_expects_of_a_rank() -> None:
    """OpenMP's variables in its environment; places where its threads are bound."""
    rank = two_ranks("--rank-env").ranks[1]
    expected = expect_plan(rank)
    assert {name.partition("_")[0] for name, _ in expected.env} == {"OMP"}
    assert expected.places == rank.places
    assert expected.number == 1
    later = expect_plan(rank.replace(numbers=Numbers(9, 10)))
    assert (later.rank, later.number) == (1, 9)
    (moved, *_) = two_ranks("--mem", "bind", "--mem-balancing", "--no-rank-env").ranks
    grouped = expect_plan(moved.replace(group="prefill"))
    assert (grouped.group, grouped.balancing) == ("prefill", True)
    assert (expected.group, expected.balancing) == ("", False)
    roles = expect_environ({**worker(0), "OMPBIND_ROLE_KV": "5", "OTHER_CPUS": "6"})
    assert roles is not None
    assert (roles.roles, roles.number) == ((CpuSet([5]),), None)
    plain = expect_environ({**worker(0), "OMPBIND_ROLE_KV": "5", "KV": "pt_*"})
    assert plain is not None
    assert plain.named == ()  # another program's variable
    for name, group in (("prefill", "prefill"), ("a b", ""), ("", "")):
        member = expect_environ({**worker(0), "OMPBIND_GROUP": name})
        assert member is not None
        assert member.group == group


@pytest.mark.parametrize(
    ("environ", "mem", "places"),
    [
        ({}, "none", []),
        ({"OMPBIND_MEM": "bind:0-1"}, "bind", []),
        ({"OMPBIND_MEM": "other:0"}, "none", []),
        ({"OMPBIND_MEM": "bind"}, "none", []),
        ({"OMPBIND_MEM": "bind=balancing:"}, "none", []),
        ({"OMPBIND_MEM": "local"}, "local", []),
        ({"OMPBIND_MEM": "local:0"}, "none", []),
        ({"OMPBIND_MEM": "none:0"}, "none", []),
        ({"OMP_PLACES": "{0},{1}"}, "none", []),
        ({"OMP_PLACES": "{0},{1}", "OMP_PROC_BIND": "false"}, "none", []),
        ({"OMP_PLACES": "{0},{1}", "OMP_PROC_BIND": " Close,spread"}, "none", [0, 1]),
    ],
)
def test_what_an_environment_expects_of_its_worker(
    environ: dict[str, str], mem: str, places: list[int]
) -> None:
    """Only policies that ompbind sets, only places to which threads are bound."""
    expected = expect_environ({**worker(0), **environ})
    assert expected is not None
    assert (expected.mem, expected.places) == (mem, tuple(CpuSet([n]) for n in places))
    assert bool(expected.mems) == (mem == "bind")
    assert not expected.balancing
    if mem == "bind":
        moved = expect_environ({**worker(0), "OMPBIND_MEM": "bind=balancing:0-1"})
        assert moved == expected.replace(balancing=True)
    assert expected.cpus == CpuSet(range(4))


def test_an_environment_without_cpus_has_those_of_its_places() -> None:
    """As an earlier version's launcher left it; cpus that are no list make no worker."""
    environ = {"OMPBIND_RANK": "3", "OMP_PLACES": "{0},{5}", "OMP_PROC_BIND": "close"}
    expected = expect_environ(environ)
    assert expected is not None
    assert (expected.rank, expected.cpus) == (3, CpuSet([0, 5]))
    assert expect_environ(environ | {"OMPBIND_CPUS": "x"}) is None
    assert expect_environ(environ | {"OMPBIND_MEM": "bind:x"}) is None


def test_values_that_are_no_roles_are_left_out() -> None:
    """A program may use such a variable for something else."""
    environ = {"OMPBIND_ROLE_A": "0-1", "OMPBIND_ROLE_B": "x", "OMPBIND_ROLE_C": "4"}
    assert parse_roles(environ) == {"A": CpuSet([0, 1]), "C": CpuSet([4])}


def test_what_ranks_start_later_is_reported(processes: Processes) -> None:
    """Once, if it is still there a moment later; what differs is a warning, or raised with
    --verify-strict. The looks end, or the rank."""
    asked = make_asked(["-n", "4", "--places", "one", "--threads", "1", "--no-rank-env"])
    plan = make_plan(MACHINES["server"], asked)
    environ = dict(plan.ranks[0].env)
    said: list[tuple[str, str]] = []

    def look(verifier: Verifier) -> float | None:
        return verifier(plan, {0: 10}, {}, lambda kind, text: said.append((kind, text)))

    processes.add(10, environ=environ, masks=["0-3"])
    late, strict = verifier(processes), verifier(processes, strict=True)
    assert look(late) == look(strict) == 0.1
    assert look(late) == look(strict) == LATER[0]
    said.clear()
    assert look(late) == LATER[1]
    processes.add(11, 10, masks=["0-3"], environ=environ, name="brief")
    assert look(late) == SETTLE
    shutil.rmtree(processes.path / "proc" / "11")
    for pid in (12, 13):
        processes.add(pid, 10, masks=["0-3"] * 2, environ=bytes(9), name="VLLM::Worker_TP")
    assert look(late) == LATER[2]
    assert said == []
    assert look(late) == SETTLE
    assert look(late) == LATER[3]
    text = "as planned: 2 processes, 4 threads, started since: 2 VLLM::Worker_TP"
    assert said == [("note", text)]
    processes.add(14, 13, masks=["0-4"], environ=bytes(9))
    assert look(late) == look(strict) == SETTLE
    assert look(late) == LATER[4]
    assert [kind for kind, _ in said[1:]] == ["warning"]
    with pytest.raises(DeniedError, match="pid 14: every thread may run on cpus 0-4"):
        look(strict)
    assert [look(late), look(late)] == [LATER[5], None]
    assert late(plan, {}, {0: 99.0}, lambda *_: pytest.fail("all is said")) is None


def test_of_many_names_the_first_are_announced(processes: Processes) -> None:
    """Four at most: of five, three and an ellipsis."""
    asked = make_asked(["-n", "2", "--places", "one", "--threads", "1", "--no-rank-env"])
    plan = make_plan(MACHINES["server"], asked)
    said: list[tuple[str, str]] = []
    processes.add(10, environ=dict(plan.ranks[0].env), masks=["0-7"])
    late = verifier(processes)
    for more in (0, 0, 4, 4, 5, 5):
        for n in range(more):
            processes.add(11 + n, 10, masks=["0-7"], environ=bytes(9), name=f"w{n}", started=more)
        late(plan, {0: 10}, {}, lambda *words: said.append((words[0], words[1])))
    names = [text.partition("since: ")[2] for _, text in said]
    assert names == ["", "w0, w1, w2, w3", "w0, w1, w2, …"]


def test_verifying_takes_a_tenth_of_the_time_at_most(processes: Processes) -> None:
    """Where a look at the ranks takes long, the next one comes later, though not after the end."""
    plan = two_ranks("--threads", "3", "--places", "one", "--no-rank-env")
    processes.add(10, environ=dict(plan.ranks[0].env), masks=["0-7"])
    for cost, within, wait in ((0.25, 5.0, 2.5), (0.75, 5.0, 5.0), (0.005, 5.0, 0.1),
                               (0.25, 1.0, 1.0)):  # fmt: skip
        times = iter([100.0, 100.0 + cost])
        slow = Verifier(processes.root, within=within, strict=False, clock=lambda: next(times))  # noqa: B023
        assert slow(plan, {0: 10}, {}, lambda *_: None) == pytest.approx(wait)


def test_new_processes_have_two_seconds_to_bind_themselves() -> None:
    assert SETTLE == 2.0


def look_until_reported(
    processes: Processes, plan: Plan, pids: dict[int, int], *, strict: bool = False
) -> tuple[Verifier, list[tuple[str, str]]]:
    """A verifier that has reported these ranks, and what it said."""
    said: list[tuple[str, str]] = []
    early = verifier(processes, strict=strict)
    for wait in (0.1, LATER[0]):
        assert early(plan, pids, {}, lambda *words: said.append((words[0], words[1]))) == wait
    return early, said


def test_each_difference_of_each_rank_is_announced(processes: Processes) -> None:
    """With its likely cause; and what the ranks started that is as it should be is not."""
    plan = two_ranks("--places", "one", "--threads", "1", "--no-rank-env")
    said: list[tuple[str, str]] = []
    for rank, (pid, mask) in enumerate(((10, "0-3"), (20, "8-12"))):
        processes.add(pid, environ=dict(plan.ranks[rank].env), masks=[mask])
        processes.add(pid + 1, pid, dict(plan.ranks[rank].env), masks=["0-15"])
    (processes.path / "sys/devices/system/cpu/online").write_text("0-15\n")
    late = Verifier(processes.root, within=0, strict=False, clock=lambda: 0.0)
    late(plan, {0: 10, 1: 20}, {}, lambda *words: said.append((words[0], words[1])))
    assert [kind for kind, _ in said] == ["warning"] * 4
    starts = [f"rank {rank}, pid {pid}: " for rank, pid in ((0, 10), (0, 11), (1, 20), (1, 21))]
    assert all(text.startswith(start) for (_, text), start in zip(said, starts, strict=True))
    assert all("; likely: the mask was changed after the start" in text for _, text in said)


def test_a_strict_difference_has_its_remedy(processes: Processes) -> None:
    """And its likely cause, in the hint."""
    plan = two_ranks("--places", "one", "--threads", "1", "--no-rank-env")
    processes.add(10, environ=dict(plan.ranks[0].env), masks=["0-3"])
    strict = Verifier(processes.root, within=0, strict=True, clock=lambda: 0.0)
    with pytest.raises(DeniedError) as caught:
        strict(plan, {0: 10}, {}, lambda *_: None)
    assert re.fullmatch(
        r"restart it, or ompbind verify --repair \(the mask was .*\)", caught.value.hint
    )


def test_exits_are_described_together(processes: Processes) -> None:
    """Each way a rank ended has one line; ranks are named as their launch names them."""
    unnumbered = make_plan(
        MACHINES["server"], make_asked(["-n", "4", "--threads", "1", "--no-rank-env"])
    )
    said: list[tuple[str, str]] = []

    def look(pids: dict[int, int], exits: dict[int, float]) -> float | None:
        return early(plan, pids, exits, lambda *words: said.append((words[0], words[1])))

    numbered = unnumbered.replace(
        ranks=tuple(r.replace(numbers=Numbers(r.rank + 8, 12)) for r in unnumbered.ranks)
    )
    for first, plan in ((0, unnumbered), (8, numbered)):
        said.clear()
        early = verifier(processes)
        for rank, pid in enumerate((10, 20, 30)):
            processes.add(pid, environ=dict(plan.ranks[rank].env), masks=[str(4 * rank)])
        online = processes.path / "sys/devices/system/cpu/online"
        online.write_text("0-15\n")
        pids = {0: 10, 1: 20, 2: 30}
        assert look(pids | {3: 99}, {}) == 0.1
        assert look(pids | {3: 99}, {}) == 0.2
        assert look({}, {3: 0.1, 0: 2.0, 2: 3.04, 1: 1.0}) is None
        assert said == [
            ("note", f"not verified: rank {first + 3} exited after 0.1 s, before anything was seen "
             "of it"),
            ("note", f"as planned: ranks {first}-{first + 2} exited after 1.0 to 3.0 s, after all "
             "threads were verified"),
        ]  # fmt: skip
        said.clear()
        early = verifier(processes)
        assert look(pids | {3: 99}, {}) == 0.1
        assert look({}, {3: 0.1, 0: 2.0, 2: 2.0, 1: 2.04}) is None
        assert said[1:] == [
            ("note", f"verified in part: ranks {first}-{first + 2} exited after 2.0 s, before all "
             "threads were verified; masks and memory were as planned"),
        ]  # fmt: skip
        early = verifier(processes)
        said.clear()
        assert look({}, {3: 0.1, 0: 2.0}) is None
        assert said == [
            ("note", f"not verified: ranks {first},{first + 3} exited after 0.1 to 2.0 s, before "
             "anything was seen of them"),
        ]  # fmt: skip


def test_exits_in_strict_mode_say_how_to_accept_them(processes: Processes) -> None:
    plan = two_ranks("--threads", "2", "--places", "one", "--no-rank-env")
    early = verifier(processes, strict=True)
    with pytest.raises(DeniedError) as caught:
        early(plan, {}, {0: 0.1, 1: 0.2}, lambda *_: None)
    assert caught.value.hint == "--verify in place of --verify-strict accepts that"
    processes.add(10, environ=dict(plan.ranks[0].env), masks=["0-7"])
    early = verifier(processes, strict=True)
    early(plan, {0: 10}, {}, lambda *_: None)
    with pytest.raises(DeniedError, match="; its mask and memory were as planned") as caught:
        early(plan, {}, {0: 0.1}, lambda *_: None)
    assert "--verify=SECONDS waits less" in caught.value.hint


def test_differences_of_children_count_for_a_rank_that_exited(processes: Processes) -> None:
    """Each is a warning, and the rank is not called as planned."""
    plan = two_ranks("--threads", "2", "--places", "one", "--no-rank-env")
    processes.add(10, environ=dict(plan.ranks[0].env), masks=["0-7"])
    processes.add(11, 10, dict(plan.ranks[0].env), masks=["0-15"])
    (processes.path / "sys/devices/system/cpu/online").write_text("0-15\n")
    said: list[tuple[str, str]] = []
    early = verifier(processes)
    for exits in ({}, {0: 1.0}):
        early(plan, {} if exits else {0: 10}, exits, lambda *w: said.append((w[0], w[1])))
    assert [(kind, text.partition(":")[0]) for kind, text in said] == [
        ("warning", "rank 0, pid 11")
    ]


def test_a_rank_is_complete_until_it_differs(processes: Processes) -> None:
    """Of two that were seen with all threads, the one whose mask is changed before it exits is not
    called as planned; a rank that was not seen in the last look is as it was before."""
    plan = make_plan(MACHINES["server"], make_asked(
        ["-n", "4", "--threads", "1", "--places", "one", "--no-rank-env"]))  # fmt: skip
    said: list[tuple[str, str]] = []
    early = verifier(processes)

    def look(pids: dict[int, int], exits: dict[int, float]) -> float | None:
        return early(plan, pids, exits, lambda *words: said.append((words[0], words[1])))

    (processes.path / "sys/devices/system/cpu/online").write_text("0-15\n")
    for rank, pid in enumerate((10, 20, 30)):
        processes.add(pid, environ=dict(plan.ranks[rank].env), masks=[str(plan.ranks[rank].cpus)])
    pids = {0: 10, 1: 20, 2: 30, 3: 99}
    look(pids, {})
    look(pids, {})
    processes.remove(10)
    processes.add(20, environ=dict(plan.ranks[1].env), masks=["0"])
    look(pids, {})
    assert look({}, {0: 1.0, 1: 2.0, 2: 3.0}) is None
    assert [(kind, text.partition(" exited")[0]) for kind, text in said] == [
        ("warning", said[0][1]), ("note", "as planned: ranks 0,2"),
    ]  # fmt: skip
    assert said[0][1].startswith("rank 1, pid 20: ")


def test_numactl_is_not_the_worker_yet(processes: Processes) -> None:
    """A rank that is still numactl when time is up is neither seen nor settled."""
    plan = two_ranks("--threads", "1", "--places", "one", "--no-rank-env")
    processes.add(10, environ=dict(plan.ranks[0].env), masks=["0-7"], name="numactl")
    early = verifier(processes)
    assert [early(plan, {0: 10}, {}, lambda *_: None) for _ in range(3)] == [0.1, 0.2, 0.4]


def test_a_later_look_says_what_is_new_by_its_name(processes: Processes) -> None:
    """A process that renames itself counts as new, one that has a used number as well; names are
    one line each."""
    plan = two_ranks("--places", "one", "--threads", "1", "--no-rank-env")
    environ = dict(plan.ranks[0].env)
    processes.add(10, environ=environ, masks=["0-7"])
    processes.add(11, 10, environ, masks=["0-7"])
    late, said = look_until_reported(processes, plan, {0: 10})
    assert said == [("note", "as planned: 2 processes, 2 threads")]

    def look() -> float | None:
        return late(plan, {0: 10}, {}, lambda *words: said.append((words[0], words[1])))

    said.clear()
    processes.add(11, 10, environ, masks=["0-7"], name="a\nb")
    assert [look(), look()] == [SETTLE, LATER[1]]
    processes.add(11, 10, environ, masks=["0-7"], name="a\nb", started=2)
    assert [look(), look(), look()] == [SETTLE, LATER[2], LATER[3]]
    assert [text.partition("since: ")[2] for _, text in said] == ["a\\nb", "a\\nb"]
    assert late(plan, {}, {0: 9.0}, lambda *_: pytest.fail("all is said")) is None
