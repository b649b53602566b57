"""What spoils a measurement: the counters that are read, and what is said of them."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from ompbind.compare.spoilers import Period, Spoiler, find_spoilers
from ompbind.compare.watch import Watch
from ompbind.cpuset import CpuSet
from ompbind.machine import living_root
from ompbind.machine.activity import Activity, ProcessTime, read_activity, read_frequency
from ompbind.machine.roots import RecordingRoot, SnapshotRoot

CPUS = CpuSet([0, 1])
FILES = {
    "proc/uptime": "1000.25 1500.00\n",
    "proc/stat": "cpu  9 9 9 9\n"
    "cpu0 100 20 30 5000 7 1 2 40 11 0\n"
    "cpu1 200 0 0 5000 0 0 0 0 0 0\n"
    "cpu2 90000 0 0 0 0 0 0 0 0 0\n"
    "intr 7\n",
    "proc/self/status": "Name:\tx\nCpus_allowed_list:\t0-2\n",
    "proc/12/stat": "12 (a (b) c) S 1 12 12 0 -1 0 0 0 0 0 150 50 900 900 20 0 1 0 777 0 0",
    "proc/13/stat": "13 (short) S 1",
    "proc/pressure/cpu": "some avg10=0.00 avg60=0.00 avg300=0.00 total=2500000\n"
    "full avg10=0.00 avg60=0.00 avg300=0.00 total=1\n",
    "proc/pressure/memory": "some avg10=0.00 avg60=0.00 avg300=0.00 total=30000\n",
    "proc/vmstat": "nr_free_pages 4\npswpin 3\npswpout 4\n",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": "2000000\n",
    "sys/devices/system/cpu/cpu1/cpufreq/scaling_cur_freq": "3000000\n",
    "sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count": "5\n",
    "sys/devices/system/cpu/cpu1/thermal_throttle/package_throttle_count": "2\n",
}
START = Activity(uptime=0.0, busy=0.0, stolen=0.0, cpus=CPUS, waiting=0.0, short_of_memory=0.0,
                 swapped=0, hot=0)  # fmt: skip


def make_root(files: dict[str, str]) -> SnapshotRoot:
    return SnapshotRoot(files, {"proc": ["12", "13", "self", "stat"]}, {})


def make_period(number: int = 1, used: float = 0.0, **after: object) -> Period:
    """A round of ten seconds in which counters grew from 0 to what is given."""
    return Period(number, START, START.replace(uptime=10.0, **after), used)


def test_counters_are_read() -> None:
    """Times are those of the given cpus alone, in seconds; guest time is in user time already, and
    waiting for a disk is no work. What is too short for a process is left out."""
    activity = read_activity(make_root(FILES), CPUS)
    assert activity == Activity(
        uptime=1000.25, busy=3.53, stolen=0.4, cpus=CPUS, waiting=2.5, short_of_memory=0.03,
        swapped=7, hot=7, processes=(ProcessTime(12, 777, "a (b) c", 2.0),),
    )  # fmt: skip
    assert read_frequency(make_root(FILES), CPUS) == 3.0


def test_a_system_that_says_nothing() -> None:
    """Without the files nothing is known, and nothing is said."""
    root = make_root({})
    activity = read_activity(root, CPUS)
    assert activity == Activity(uptime=0.0, busy=0.0, stolen=0.0, cpus=CpuSet())
    assert read_frequency(root, CPUS) is None
    assert find_spoilers([Period(1, activity, activity, 0.0)], CPUS) == []
    assert find_spoilers([], CPUS) == []


def test_a_quiet_machine_has_no_spoilers() -> None:
    """What the runs used is not other load, and a little beside it is what daemons need."""
    assert find_spoilers([make_period(busy=19.9, used=19.0, waiting=9.0)], CPUS) == []


@pytest.mark.parametrize(("after", "kind", "amount", "text"), [
    ({"busy": 15.0}, "load", 1.5, "other processes used 1.5 of 2 cpus"),
    ({"busy": 15.0, "waiting": 4.0}, "load", 1.5,
     "other processes used 1.5 of 2 cpus, and for 40 % of the time some process waited for one"),
    ({"stolen": 2.0}, "stolen", 0.1, "the hypervisor kept the cpus for 10 % of the time"),
    ({"hot": 3}, "heat", 3, "cores were slowed down because of heat"),
    ({"swapped": 12}, "swap", 12, "the machine swapped 12 pages"),
    ({"short_of_memory": 1.0}, "memory", 0.1,
     "some process waited for memory for 10 % of the time"),
    ({"cpus": CpuSet([0])}, "cpus", 1,
     "cpu 1 of the plans went offline, or out of what ompbind may use"),
])  # fmt: skip
def test_each_spoiler(after: dict[str, object], kind: str, amount: float, text: str) -> None:
    """Each counter that has grown in a round is reported, alone and in a line."""
    assert find_spoilers([make_period(**after)], CPUS) == [Spoiler(kind, amount, (1,), text)]  # type: ignore[arg-type]


def test_quota() -> None:
    """A quota that held up the runs is reported with the cpu time that they did not get."""
    spoiler = find_spoilers([make_period().replace(throttled=3.0)], CPUS)
    assert [(s.kind, s.text) for s in spoiler] == [
        ("quota", "a cpu quota kept 3.0 s of cpu time from the runs")
    ]


def test_throttling_is_read_round_by_round() -> None:
    """What the cgroup's counter grew by between two ends of rounds is in the period between them;
    where the cgroup is not to be seen there is nothing."""
    files = FILES | {
        "proc/self/cgroup": "0::/job\n",
        "proc/self/mountinfo": "1 1 0:1 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n",
        "sys/fs/cgroup/job/cpu.stat": "nr_throttled 3\nthrottled_usec 1000000\n",
    }
    root = make_root(files)
    watch = Watch(root, CPUS)
    files["sys/fs/cgroup/job/cpu.stat"] = "nr_throttled 9\nthrottled_usec 3500000\n"
    watch.end(1)
    watch.end(2)
    del files["sys/fs/cgroup/job/cpu.stat"]
    watch.end(3)
    assert [p.throttled for p in watch.periods] == [2.5, 0.0, 0.0]


def test_frequencies_are_compared_between_rounds() -> None:
    """A frequency that is low in some rounds is reported, one that is low in all is a setting."""
    fast, slow = (make_period().replace(frequencies=(f, f)) for f in (3.0, 2.0))
    assert find_spoilers([slow, slow.replace(round=2)], CPUS) == []
    (spoiler,) = find_spoilers([fast, slow.replace(round=2), fast.replace(round=3)], CPUS)
    assert (spoiler.kind, spoiler.amount, spoiler.rounds) == ("frequency", 0.5, (2,))
    assert "between 2.00 and 3.00 GHz" in spoiler.text


def test_few_frequencies_are_read() -> None:
    """Of many cpus some all over the machine are read, as each reading may interrupt a core; and no
    more often in a round than says something."""
    path = "sys/devices/system/cpu/cpu{}/cpufreq/scaling_cur_freq"
    root = RecordingRoot(make_root({path.format(n): "2000000\n" for n in range(100)}))
    watch = Watch(root, CpuSet(range(100)))
    for _ in range(50):
        watch.sample()
    assert 8 <= len(root.files) <= 16
    assert path.format(98) in root.files
    watch.end(1)
    assert watch.periods[0].frequencies == (2.0,) * 20


def test_rounds_are_counted() -> None:
    """What was seen in some of the rounds says in how many; its amount is the mean of all."""
    periods = [make_period(1, busy=10.0), *(make_period(n) for n in (2, 3, 4))]
    (spoiler,) = find_spoilers(periods, CPUS)
    assert (spoiler.amount, spoiler.rounds) == (0.25, (1,))
    assert spoiler.text.endswith("(seen in 1 of 4 rounds)")


def test_ticks_are_not_load() -> None:
    """In rounds of a few ticks, counters that differ by some of them say nothing."""
    after = START.replace(uptime=0.05, busy=0.09, stolen=0.09)
    assert find_spoilers([Period(1, START, after, 0.0)], CPUS) == []


def test_processes_are_named() -> None:
    """The greatest users are named, first those that used most; not what started the runs, nor a
    process that has had its time before."""

    def make_processes(*seconds: float) -> tuple[ProcessTime, ...]:
        names = ("old", "make", "we", "cc\n1")
        return tuple(ProcessTime(n + 1, 5, names[n], s) for n, s in enumerate(seconds))

    before = START.replace(processes=make_processes(100.0, 0.0, 0.0))
    after = START.replace(uptime=10.0, busy=15.0, processes=make_processes(100.0, 4.0, 5.0, 6.0))
    (spoiler,) = find_spoilers([Period(1, before, after, 5.0, pid=3)], CPUS)
    assert spoiler.text == "other processes used 1.0 of 2 cpus: 'cc\\n1' (pid 4), 'make' (pid 2)"


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_living_machine() -> None:
    """Of two processes that work in a round, the one that was waited for counts as used, the other
    is read with its time."""
    work = "import time\nwhile time.process_time() < 0.2: pass\nprint(1, flush=True)\ninput()"
    argv = [sys.executable, "-I", "-S", "-c", work]
    with (
        subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other,
        subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as ours,
    ):
        assert other.stdout is not None
        assert ours.stdout is not None
        watch = Watch(living_root(), CpuSet(os.sched_getaffinity(0)))
        other.stdout.readline()
        ours.stdout.readline()
        ours.communicate(b"\n")
        watch.sample()
        watch.end(1)
        other.communicate(b"\n")
    (period,) = watch.periods
    assert period.used >= 0.15
    assert period.pid == os.getpid()
    assert period.seconds > 0
    assert period.after.busy > period.before.busy
    assert period.after.cpus == CpuSet(os.sched_getaffinity(0))
    times = {p.pid: p.seconds for p in period.after.processes}
    assert times[other.pid] >= 0.15
    assert ours.pid not in times
