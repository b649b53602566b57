"""Which processes `verify` looks at, and what it expects of them: by made-up files of /proc."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from ompbind.cpuset import CpuSet
from ompbind.errors import DeniedError, UsageError
from ompbind.machine.processes import is_exiting
from ompbind.planner import make_plan
from ompbind.plans import Plan
from ompbind.verify import check, find_targets, is_inside
from ompbind.verify.after_start import LATER, SECONDS, SETTLE, Verifier
from ompbind.verify.expected import expect_environ, expect_plan, parse_role_cpus
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
    """The target has exited; a process with its number is not judged in its place."""
    processes.add(10, environ=worker(0), masks=["0-3"], started=5)
    found = find_targets(processes.root, [10], None)
    processes.add(10, environ=worker(0), masks=["0-3"], started=6)
    (report,) = check(processes.root, found).processes
    assert [d.kind for d in report.differences] == ["ended"]
    assert report.process.name == "w"  # as it was


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
    """As somebody may have written it."""
    plan = two_ranks()
    bare = plan.replace(ranks=tuple(rank.replace(env=()) for rank in plan.ranks))
    processes.add(10, masks=["0-7"])
    waiting = verifier(processes)
    assert [waiting.find_complete(bare, {0: 10}) for _ in range(2)] == [set(), {0}]


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
    """Five seconds, as the documentation says."""
    assert SECONDS == 5.0


def test_what_a_plan_expects_of_a_rank() -> None:
    """OpenMP's variables in its environment; places where its threads are bound."""
    rank = two_ranks("--rank-env").ranks[1]
    expected = expect_plan(rank)
    assert {name.partition("_")[0] for name, _ in expected.env} == {"OMP"}
    assert expected.places == rank.places


@pytest.mark.parametrize(
    ("environ", "mem", "places"),
    [
        ({}, "none", []),
        ({"OMPBIND_MEM": "bind:0-1"}, "bind", []),
        ({"OMPBIND_MEM": "other:0"}, "none", []),
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
    assert parse_role_cpus(["0-1", "x", "4"]) == (CpuSet([0, 1]), CpuSet([4]))


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
