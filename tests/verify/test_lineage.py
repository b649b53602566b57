"""Which rank a process belongs to, where its environment does not say so: programs that rename
themselves write over it. By made-up files of /proc, and by real processes."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ompbind.errors import UsageError
from ompbind.machine.processes import (
    is_overwritten,
    make_family,
    read_environ,
    read_name,
    read_parents,
)
from ompbind.machine.roots import DirectoryRoot
from ompbind.planner import make_plan
from ompbind.plans import RECORD_NAME
from ompbind.verify import check, find_targets
from ompbind.verify.after_start import Verifier
from ompbind.verify.lineage import Lineage
from ompbind.verify.report import Report
from tests.support.commands import OMPBIND, TIMEOUT, environment, ompbind_run
from tests.support.machines import MACHINES, make_asked
from tests.support.needs import REPOSITORY, need_cpus
from tests.support.processes import Processes
from tests.support.recorder import wait_for

RENAMED = b"\0" * 40 + b"LOCAL_WORLD_SIZE=2\0"  # as setproctitle leaves it in vLLM's workers


@pytest.fixture
def processes(tmp_path: Path) -> Processes:
    return Processes(tmp_path)


def worker(rank: int = 0, cpus: str = "0-3", **more: str) -> dict[str, str]:
    return {"OMPBIND_RANK": str(rank), "OMPBIND_CPUS": cpus, **more}


def verify(processes: Processes, *pids: int) -> Report:
    return check(processes.root, find_targets(processes.root, pids, None))


def rows(report: Report) -> list[tuple[int, int | None, int, list[str]]]:
    """Of each process its pid, its rank, which process started it, and what differs."""
    return [
        (r.process.pid, r.expected.rank if r.expected else None, r.parent,
         [d.kind for d in r.differences])
        for r in report.processes
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("data", "overwritten"),
    [
        (b"", False),
        (b"A=1\0B=\0", False),
        (b"A=1", False),  # a truncated read
        (RENAMED, True),
        (b"\0" * 30, True),
        (b"eCore\0\0\0\0B=1\0", True),  # a name longer than the arguments
        (b"eCore\0B=1\0", True),
        (b"A=1\0\0\0\0", True),
    ],
)
def test_what_is_overwritten(data: bytes, overwritten: bool) -> None:
    """An environment has NAME=VALUE after NAME=VALUE; a name or zeros were written over it."""
    assert is_overwritten(data) is overwritten


def test_processes_that_renamed_themselves_are_verified(processes: Processes) -> None:
    """By their parents, with what they have started; the rest of their environment says nothing
    about OpenMP's places."""
    processes.add(10, environ=worker(OMP_PLACES="{0},{1},{2},{3}", OMP_PROC_BIND="close"),
                  masks=["0-3"])  # fmt: skip
    processes.add(11, 10, RENAMED, masks=["0-3", "0-3"])
    processes.add(12, 11, RENAMED, masks=["4-5"])
    processes.add(13, 11, b"\0" * 9 + b"OMPBIND_RANK=1\0OMPBIND_CPUS=4-7\0", masks=["2"])
    report = verify(processes, 10)
    assert rows(report) == [(10, 0, 0, []), (11, 0, 10, []), (12, 0, 10, ["changed"]),
                            (13, 0, 10, [])]  # fmt: skip
    assert not report.holds
    notes = [" ".join(r.notes) for r in report.processes]
    assert ["written over its environment" in text for text in notes] == [False, True, True, True]
    assert "may run only on cpu 2 of 0-3: restricted by the program itself" in notes[3]


def test_a_process_of_a_rank_can_be_named(processes: Processes) -> None:
    """Whether it shows its rank, has cleared it, or has written over it; with what it started."""
    processes.add(10, environ=worker(), masks=["0-3"])
    processes.add(11, 10, RENAMED, masks=["0-3"])
    processes.add(12, 11, RENAMED, masks=["0"])
    processes.add(13, 12, {}, masks=["0"])
    processes.add(14, 13, worker(), masks=["7"])
    assert rows(verify(processes, 12)) == [
        (12, 0, 10, []), (13, 0, 10, []), (14, 0, 10, ["changed"]),
    ]  # fmt: skip
    assert rows(verify(processes, 13, 14)) == [
        (13, 0, 10, []), (14, 0, 10, ["changed"]), (14, 0, 10, ["changed"]),
    ]  # fmt: skip


def test_a_process_that_changed_its_own_variables(processes: Processes) -> None:
    """It is bound as its rank is, whatever it says of that; OpenMP's places are its own."""
    processes.add(10, environ=worker(), masks=["0-3"])
    changed = {"OMPBIND_CPUS": "4-7", "OMPBIND_MEM": "bind:1", "OMP_PLACES": "{0},{1}",
               "OMP_PROC_BIND": "close", "OMP_NUM_THREADS": "2"}  # fmt: skip
    processes.add(11, 10, changed, masks=["0", "1"])
    _, child = verify(processes, 10).processes
    assert child.expected is not None
    assert (str(child.expected.cpus), child.expected.mem) == ("0-3", "none")
    assert child.places == (0, 1)
    assert child.differences == ()


def test_the_trap_of_the_main_thread_is_found_in_renamed_processes(processes: Processes) -> None:
    """They are confined with the rank's main thread, which OpenMP has bound."""
    variables = worker(OMP_PLACES="{0},{1},{2},{3}", OMP_PROC_BIND="close")
    processes.add(10, environ=variables, masks=["0", "0-3"])
    processes.add(11, 10, RENAMED, masks=["0", "0"])
    assert rows(verify(processes, 10))[1] == (11, 0, 10, ["caught"])


def test_a_renamed_rank_is_known_by_what_it_started(processes: Processes) -> None:
    """If all of that is of one rank, whose cpus it keeps to; else what it is cannot be known, and
    that is no agreement."""
    processes.add(10, environ=RENAMED, masks=["0-3"])
    processes.add(11, 10, worker(), masks=["0-3"])
    processes.add(12, 10, RENAMED, masks=["0-4"])
    assert rows(verify(processes, 10)) == [
        (10, 0, 0, []),
        (11, 0, 10, []),
        (12, 0, 10, ["changed"]),
    ]
    processes.add(10, environ=RENAMED, masks=["0-7"])
    assert rows(verify(processes, 10)) == [
        (10, None, 0, ["unseen"]), (12, None, 10, ["unseen"]), (11, 0, 0, []),
    ]  # fmt: skip
    (unseen,) = verify(processes, 10).processes[0].differences
    assert "it has written over its environment, so its plan is unknown" in unseen.text
    assert "SPT_NOENV=1" in unseen.remedy
    processes.add(10, environ=RENAMED, masks=["0-3"])
    processes.add(13, 10, worker(1, "4-7"), masks=["4-7"])
    assert [row[:2] for row in rows(verify(processes, 10))] == [
        (10, None), (12, None), (11, 0), (13, 1),
    ]  # fmt: skip


def test_a_renamed_process_of_no_launch_is_refused(processes: Processes) -> None:
    """With a hint that keeps setproctitle from it."""
    processes.add(10, environ=RENAMED, name="gunicorn: mas")
    processes.add(11, 10, RENAMED)
    words = r"pid 10 \(gunicorn: mas\) has written over its environment"
    with pytest.raises(UsageError, match=words) as caught:
        find_targets(processes.root, [10], None)
    assert "--env SPT_NOENV=1" in caught.value.hint
    assert "run --supervise" in caught.value.hint


def test_a_circle_of_parents_is_survived(processes: Processes) -> None:
    """Parents are read one after another, and pids are used again."""
    processes.add(10, 11, RENAMED)
    processes.add(11, 10, {})
    lineage = Lineage(processes.root)
    assert lineage.find_claim(10) is None
    assert lineage.find_rank(10) == 10
    assert lineage.family_of(10) == [11, 10]


# --- the record of a supervisor -------------------------------------------------------------------


def add_launch(processes: Processes, cgroup: str = "", *, first: int = 1) -> None:
    """A launch of two ranks that renamed themselves: the user's process, a watcher, the supervisor,
    its ranks 10 and 20, a child of each, and one that the supervisor has adopted."""
    processes.add(1, 0, {}, cgroup="/init.scope", started=0)
    for n, pid in enumerate((3, 4, 5)):
        processes.add(pid, pid - 1 if n else 1, {}, cgroup=cgroup, started=first + n)
    for rank, mask in enumerate(("0-3", "4-7")):
        pid = 10 * (rank + 1)
        processes.add(pid, 5, RENAMED, masks=[mask], cgroup=cgroup, started=7)
        processes.add(pid + 1, pid, RENAMED, masks=[mask], cgroup=cgroup, started=8)
    processes.add(30, 5, RENAMED, masks=["0-3"], cgroup=cgroup, started=9)
    processes.keep(5, {10: worker(0), 20: worker(1, "4-7")})


def test_a_supervisors_record_says_which_rank_is_which(processes: Processes) -> None:
    """Asked for by any of its processes; in the order of ranks, whatever their pids are."""
    add_launch(processes)
    for pid in (3, 4, 5):
        assert rows(verify(processes, pid)) == [
            (10, 0, 0, []), (11, 0, 10, []), (20, 1, 0, []), (21, 1, 20, []),
        ]  # fmt: skip
    assert rows(verify(processes, 21, 10)) == [(21, 1, 20, []), (10, 0, 0, []), (11, 0, 10, [])]
    processes.keep(5, {20: worker(0), 10: worker(1, "4-7")})
    assert [row[:2] for row in rows(verify(processes, 5))] == [(20, 0), (21, 0), (10, 1), (11, 1)]


def test_an_adopted_process_is_of_the_only_rank_left(processes: Processes) -> None:
    """With two nobody knows whose it is; the number of one that exited may be another's by now."""
    add_launch(processes)
    assert Lineage(processes.root).find_claim(30) is None
    with pytest.raises(UsageError, match=r"pid 30 .* has written over its environment"):
        find_targets(processes.root, [30], None)
    processes.remove(20, 21)
    processes.add(20, 1, {})
    lineage = Lineage(processes.root)
    assert lineage.find_claim(30) == worker(0)
    assert lineage.find_claim(20) is None
    assert [lineage.find_rank(pid) for pid in (10, 11, 20)] == [10, 10, 20]
    assert lineage.list_workers(5) == [10]


def test_a_rank_may_launch_ranks_of_its_own(processes: Processes) -> None:
    """Of the same number, on the same cpus: each is the process of its rank."""
    processes.add(2, 1, worker(), masks=["0-3"])
    processes.add(5, 2, worker(), masks=["0-3"])
    processes.add(10, 5, worker(), masks=["0-3"])
    processes.add(11, 10, worker(), masks=["0-3"])
    processes.keep(5, {10: worker()})
    lineage = Lineage(processes.root)
    assert [lineage.find_rank(pid) for pid in (2, 5, 10, 11)] == [2, 2, 10, 10]
    assert lineage.list_launchers(10) == [5, 2]
    assert lineage.list_launchers(11) == []


def test_ranks_inside_of_ranks_are_others(processes: Processes) -> None:
    """A process is of the nearest rank: the first of its ancestors that are of the same."""
    for pid, rank in ((2, 0), (3, 1), (4, 0), (5, 0)):
        processes.add(pid, pid - 1, worker(rank))
    lineage = Lineage(processes.root)
    assert [lineage.find_rank(pid) for pid in (2, 3, 4, 5)] == [2, 3, 4, 4]


def test_a_record_is_of_the_moment_when_it_was_read(processes: Processes) -> None:
    """The supervisor may exit meanwhile; a process that was started since is nobody's, though the
    supervisor is the first process of a container."""
    processes.add(1, 0, {})
    processes.add(10, 1, RENAMED)
    processes.keep(1, {10: worker()})
    lineage = Lineage(processes.root)
    assert lineage.is_supervised(10)
    assert lineage.find_claim(99) is None
    assert lineage.list_ancestors(99) == []
    (processes.path / "proc/1/fd/5").unlink()
    assert lineage.find_claim(10) == worker()
    assert not Lineage(processes.root).is_supervised(10)
    assert not Lineage(processes.root).is_supervised(99)


def test_a_claim_has_the_variables_of_a_rank_alone(processes: Processes) -> None:
    """OpenMP's and ompbind's; a process of which they say nothing is its parent's."""
    processes.add(10, 1, worker(OMP_NUM_THREADS="2", HOME="/", KMP_AFFINITY="none"))
    processes.add(11, 10, {"OMPBIND_RANK": "x"})
    lineage = Lineage(processes.root)
    assert lineage.find_claim(10) == lineage.find_claim(11) == worker(OMP_NUM_THREADS="2")


def test_a_rank_that_shows_its_environment_is_known_by_it(processes: Processes) -> None:
    """Rather than by the record, which the program may have outgrown."""
    processes.add(5, 1, {})
    processes.add(10, 5, worker(OMP_NUM_THREADS="2"))
    processes.keep(5, {10: worker()})
    assert Lineage(processes.root).find_claim(10) == worker(OMP_NUM_THREADS="2")


def test_descendants_come_in_the_order_of_their_numbers(processes: Processes) -> None:
    """However their folders are listed."""
    pids = [9, 10, 100, 11, 99]
    for pid in pids:
        processes.add(pid, 5)
    assert Lineage(processes.root).family_of(5) == sorted(pids)


def test_a_process_whose_children_claim_nothing_gets_no_claim(processes: Processes) -> None:
    """Nor does one without children."""
    processes.add(10, environ={})
    processes.add(11, 10, {})
    assert [Lineage(processes.root).guess_claim(pid) for pid in (10, 11)] == [None, None]


def test_who_asks_is_nobodys_descendant(processes: Processes) -> None:
    """`ompbind verify` started by a rank is none of its processes; nor is what it has started."""
    processes.add(10, 1, worker())
    processes.add(os.getpid(), 10, worker())
    processes.add(11, 10, worker())
    (processes.path / "proc/self").symlink_to(str(os.getpid()))
    assert Lineage(processes.root).family_of(10) == [11]


def test_a_damaged_record_says_nothing(processes: Processes) -> None:
    """Of a rank without a number: its process is reported as unknown."""
    processes.add(5, 1, {})
    processes.add(10, 5, None, masks=["0-3"])
    processes.add(11, 5, worker(1), masks=["0-3"])
    processes.keep(5, {10: {"OMPBIND_RANK": "x"}, 11: worker(1)})
    assert rows(verify(processes, 5)) == [(10, None, 0, ["unseen"]), (11, 1, 0, [])]
    (processes.path / "proc/5/fd/5").unlink()
    assert Lineage(processes.root).find_claim(10) is None


# --- processes that have lost their parents ------------------------------------------------------


def add_service(processes: Processes, cgroup: str, *, first: int = 1) -> None:
    """A rank on cpus 0-3, pid 10, in a cgroup, with processes there that init has adopted."""
    processes.add(1, 0, {}, cgroup="/init.scope", started=0)
    processes.add(10, environ=worker(), masks=["0-3"], cgroup=cgroup, started=first)
    processes.add(11, 10, worker(), masks=["0-3"], cgroup=cgroup, started=3)
    processes.add(20, 1, worker(), masks=["0-3"], cgroup=cgroup, started=4)
    processes.add(21, 20, RENAMED, masks=["0-4"], cgroup=cgroup, started=5)
    processes.add(22, 1, RENAMED, masks=["5"], cgroup=cgroup, started=6)
    processes.add(23, 1, {}, masks=["0-7"], cgroup=cgroup, started=7)
    processes.add(30, 1, RENAMED, masks=["0-7"], cgroup="/other", started=8)


def test_a_cgroup_shows_who_has_lost_his_parents(processes: Processes) -> None:
    """Where the launch was the first in it, as in a service of systemd: such a process is judged as
    the rank's; one that shows that it is of no launch is not."""
    add_service(processes, "/system.slice/model.service")
    assert rows(verify(processes, 10)) == [
        (10, 0, 0, []), (11, 0, 10, []), (20, 0, 10, []), (21, 0, 10, ["changed"]),
        (22, 0, 10, ["changed"]),
    ]  # fmt: skip
    assert [r[0] for r in rows(verify(processes, 11))] == [11]


@pytest.mark.parametrize("cgroup", ["", "/", "/user.slice/session-1.scope"])
def test_a_cgroup_of_others_shows_nothing(processes: Processes, cgroup: str) -> None:
    """None at all, the root, and one in which somebody else was first: a login's, for instance."""
    add_service(processes, cgroup)
    if len(cgroup) > 1:
        add_service(processes, cgroup, first=2)
        processes.add(9, 1, {}, cgroup=cgroup, started=1)
    assert [r[0] for r in rows(verify(processes, 10))] == [10, 11]


def test_a_stray_of_unknown_rank_is_reported(processes: Processes) -> None:
    """With several ranks in the cgroup nobody knows whose it is."""
    add_service(processes, "/system.slice/model.service")
    processes.add(
        12, 11, worker(1, "4-7"), masks=["4-7"], cgroup="/system.slice/model.service", started=9
    )
    assert rows(verify(processes, 10, 12))[-1] == (22, None, 0, ["unseen"])


def test_a_launch_reports_a_stray_of_unknown_rank(processes: Processes) -> None:
    """Which stands for none of its ranks."""
    cgroup = "/system.slice/model.service"
    add_service(processes, cgroup)
    processes.add(12, 11, worker(1, "4-7"), masks=["4-7"], cgroup=cgroup, started=9)
    plan = make_plan(MACHINES["server"], make_asked(["-n", "2"]))
    said: list[str] = []
    late = Verifier(processes.root, within=0, strict=False, clock=lambda: 0.0)
    late(plan, {0: 10, 1: 12}, {}, lambda _, text: said.append(text))
    assert any(text.startswith("pid 22: ") for text in said)


def test_the_processes_of_a_launch_are_no_strays(processes: Processes) -> None:
    """The user's process was the first in the cgroup; its parents and what it adopted are others'.
    Where an earlier one is there, a cgroup says nothing."""
    group = "/system.slice/model.service"
    add_launch(processes, group)
    processes.add(40, 1, RENAMED, masks=["0-7"], cgroup=group, started=9)
    processes.add(41, 40, RENAMED, masks=["0-7"], cgroup="/other", started=9)
    processes.add(42, 40, RENAMED, masks=["0-7"], cgroup=group, started=9)
    lineage = Lineage(processes.root)
    assert lineage.list_launchers(10) == [5, 4, 3]
    assert lineage.list_strays([10, 20]) == [40, 41, 42]
    assert lineage.list_strays([10]) == [40, 41, 42]
    assert lineage.list_strays([20, 40]) == []
    processes.add(2, 1, {}, cgroup=group, started=1)  # with the same tick, and started before
    processes.add(3, 2, {}, cgroup=group, started=1)
    assert Lineage(processes.root).list_strays([10, 20]) == []
    processes.add(3, 1, {}, cgroup=group, started=1)
    processes.add(2, 1, {}, cgroup=group, started=2)
    assert Lineage(processes.root).list_strays([10, 20]) == [2, 40, 41, 42]
    assert Lineage(processes.root).list_strays([]) == []


def test_a_stray_that_is_a_ranks_parent_does_not_bring_it_along(processes: Processes) -> None:
    """A rank whose launcher exited was adopted by it: the rank is known."""
    processes.add(40, 1, RENAMED, cgroup="/service", started=3)
    processes.add(10, 40, worker(), cgroup="/service", started=1)
    processes.add(41, 40, RENAMED, cgroup="/service", started=3)
    assert Lineage(processes.root).list_strays([10]) == [40, 41]


def test_the_order_of_cgroups_does_not_matter(processes: Processes) -> None:
    """Of version 1, one for each controller."""
    groups = ["2:memory:/a\n", "1:cpu:/b\n"]
    for pid, text in ((10, "".join(groups)), (11, "".join(reversed(groups))), (12, groups[0])):
        processes.add(pid, 1, worker() if pid == 10 else RENAMED)
        (processes.path / "proc" / str(pid) / "cgroup").write_text(text)
    assert Lineage(processes.root).list_strays([10]) == [11]


def test_each_cgroup_is_looked_at_by_itself(processes: Processes) -> None:
    """One that somebody else was first in does not hide another."""
    for n, name in enumerate(("/login", "/one", "/two")):
        pid = 10 * (n + 1)
        processes.add(pid, 1, worker(n), cgroup=name, started=2)
        processes.add(pid + 1, 1, RENAMED, cgroup=name, started=3 if n else 1)
    lineage = Lineage(processes.root)
    assert lineage.list_strays([10, 20, 30]) == [21, 31]
    assert lineage.list_strays([10, 20]) == [21]


def test_a_stray_is_reported_once(processes: Processes) -> None:
    """Though it has the number of a process that was to be verified, and has exited."""
    add_service(processes, "/system.slice/model.service")
    processes.add(40, 10, worker(), masks=["0-3"], started=1)
    found = find_targets(processes.root, [40, 10], None)
    processes.add(40, 1, worker(), masks=["0-3"], cgroup="/system.slice/model.service", started=9)
    pids = [r[0] for r in rows(check(processes.root, found))]
    assert pids == [40, 10, 11, 20, 21, 22]


# --- real processes ------------------------------------------------------------------------------

# Renames itself, once its child has; both then wait.
RENAMER = """
import ctypes, os, signal, sys
sys.path.insert(0, sys.argv[1])
from server import set_title
child = os.fork()
set_title("renamed %s" % ("parent" if child else "child"))
while True:
    signal.pause()
"""


def read_report(*args: str, **variables: str) -> dict[str, Any]:
    done = ompbind_run("verify", "--format", "json", *args, env=environment(**variables))
    assert done.returncode in (0, 1), done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    return report


@pytest.mark.skipif(sys.platform != "linux", reason="verify reads Linux' /proc")
def test_renamed_ranks_are_known_by_their_supervisor(
    start: Callable[..., subprocess.Popen[bytes]],
) -> None:
    """Of several ranks that have all renamed themselves each is judged as what it is, asked for by
    the launcher's pid, its own, or its child's; the record is not inherited by them."""
    cpus = need_cpus(2)
    root = DirectoryRoot("/")
    folder = str(REPOSITORY / "tests" / "support")
    command = [sys.executable, "-I", "-S", "-c", RENAMER, folder]
    launcher = start("run", "-n", "2", "--no-neighbours",
                     "--places", "one", "--", *command)  # fmt: skip

    def list_renamed() -> list[int]:
        names = {pid: read_name(root, pid) for pid in read_parents(root)}
        family = make_family([launcher.pid], read_parents(root))[launcher.pid]
        return [pid for pid in family if "renamed" in names.get(pid, "")]

    wait_for(lambda: len(list_renamed()) == 4)
    parents = read_parents(root)
    ranks = [pid for pid in list_renamed() if parents[pid] not in list_renamed()]
    assert not any("OMPBIND_RANK" in dict(read_environ(root, pid) or ()) for pid in ranks)
    report = read_report(str(launcher.pid))
    assert report["holds"]
    found = [(p["rank"], p["started_by"], p["planned"]["cpus"]) for p in report["processes"]]
    assert [(rank, cpus) for rank, _, cpus in found] == [
        (0, str(cpus[0])), (0, str(cpus[0])), (1, str(cpus[1])), (1, str(cpus[1])),
    ]  # fmt: skip
    assert [bool(by) for _, by, _ in found] == [False, True, False, True]
    (child,) = [pid for pid in list_renamed() if parents[pid] == ranks[1]]
    report = read_report(str(child))
    assert [(p["pid"], p["started_by"], p["holds"]) for p in report["processes"]] == [
        (child, ranks[1], True)
    ]
    subprocess.run(["taskset", "-a", "-p", "-c", str(cpus[0]), str(child)], check=True,
                   capture_output=True)  # fmt: skip
    report = read_report(str(ranks[1]))
    assert [p["holds"] for p in report["processes"]] == [True, False]
    links = [link.readlink() for pid in ranks for link in Path(f"/proc/{pid}/fd").iterdir()]
    assert not [link for link in links if RECORD_NAME in str(link)]
    launcher.send_signal(signal.SIGTERM)
    launcher.wait(TIMEOUT)


@pytest.mark.skipif(sys.platform != "linux", reason="verify reads Linux' /proc")
def test_verify_in_a_rank_leaves_itself_out() -> None:
    """Started by a rank, it is no process of the rank."""
    script = f'"{OMPBIND}" verify $$; echo done'  # not the last command, which sh would become
    done = ompbind_run("run", "--no-neighbours", "--", "sh", "-c", script)
    assert re.search(r"as planned: 1 process, 1 thread\ndone", done.stdout), (
        done.stdout + done.stderr
    )
