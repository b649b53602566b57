"""Read what the machine does besides what is measured: the time that its cpus spend, what its other
processes use, waiting, swapping, throttling, and the frequencies of its cores.

All but the frequencies are counters, of which two readings give what happened between them.

Sources: proc_stat(5), proc_pid_stat(5), proc_vmstat(5), the kernel's accounting/psi.rst and
admin-guide/pm/cpufreq.rst and, for thermal_throttle, arch/x86/kernel/cpu/mce/therm_throt.c.
"""

from __future__ import annotations

import os

from ompbind.cpuset import CpuSet, parse_whole
from ompbind.machine.cpus import CPUS
from ompbind.machine.limits import parse_stat_cpus, parse_status
from ompbind.machine.roots import read_int
from ompbind.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from ompbind.machine.roots import Root


class ProcessTime(Record):
    """The cpu time of a process, in seconds, and how to tell it from others."""

    pid: int
    started: int  # in the kernel's ticks; tells it from a later process with the same number
    name: str
    seconds: float


class Activity(Record):
    """A reading of the counters; times are in seconds since the machine booted. None where the
    system does not say."""

    uptime: float
    busy: float  # that the cpus in question spent on work of any process
    stolen: float  # that the hypervisor kept from them
    cpus: CpuSet  # those in question that are online and that this process may use
    processes: tuple[ProcessTime, ...] = ()
    waiting: float | None = None  # in which any process waited for a cpu
    short_of_memory: float | None = None  # in which any process waited for memory
    swapped: int | None = None  # pages in and out
    hot: int | None = None  # how often cores and packages were slowed down because of heat


def read_activity(root: Root, cpus: CpuSet) -> Activity:
    """Return what the counters say of `cpus` now. Raises TopologyError."""
    stat = root.read("proc/stat") or ""
    busy, stolen = parse_cpu_times(stat, cpus)
    allowed = parse_status(root.read("proc/self/status") or "", "Cpus_allowed")
    online = parse_stat_cpus(stat) & cpus
    return Activity(
        uptime=parse_seconds((root.read("proc/uptime") or "").partition(" ")[0]),
        busy=busy,
        stolen=stolen,
        cpus=online if allowed is None else online & allowed,
        processes=tuple(read_processes(root)),
        waiting=parse_pressure(root.read("proc/pressure/cpu") or ""),
        short_of_memory=parse_pressure(root.read("proc/pressure/memory") or ""),
        swapped=parse_swapped(root.read("proc/vmstat") or ""),
        hot=read_throttle_count(root, cpus),
    )


def parse_cpu_times(text: str, cpus: CpuSet) -> tuple[float, float]:
    """Return the seconds that `cpus` worked and that were stolen from them, of a `/proc/stat`.

    Its fields: user, nice, system, idle, iowait, irq, softirq, steal, and guest times that user and
    nice contain.
    """
    busy = stolen = 0
    for line in text.splitlines():
        words = line.split()
        if words and words[0].startswith("cpu") and parse_whole(words[0][3:]) in cpus:
            ticks = [parse_whole(word) or 0 for word in words[1:9]]
            busy += sum(ticks[:3]) + sum(ticks[5:7])
            stolen += sum(ticks[7:])
    return busy / ticks_per_second(), stolen / ticks_per_second()


def read_processes(root: Root) -> Iterator[ProcessTime]:
    """Yield every visible process with its cpu time, without that of its ended children."""
    for name in root.names("proc"):
        pid = parse_whole(name)
        if pid is not None and (text := root.read(f"proc/{name}/stat")):
            comm = text[text.find("(") + 1 : text.rfind(")")]
            fields = text[text.rfind(")") + 2 :].split()
            if len(fields) > 19:
                ticks = (parse_whole(fields[11]) or 0) + (parse_whole(fields[12]) or 0)
                seconds = ticks / ticks_per_second()
                yield ProcessTime(pid, parse_whole(fields[19]) or 0, comm, seconds)


def parse_pressure(text: str) -> float | None:
    """Return the seconds of `some avg10=0.00 avg60=0.00 avg300=0.00 total=1234`."""
    for line in text.splitlines():
        if line.startswith("some "):
            microseconds = parse_whole(line.rpartition("total=")[2])
            return None if microseconds is None else microseconds / 1e6
    return None


def parse_swapped(text: str) -> int | None:
    """Return the pages swapped in and out, of lines such as `pswpin 12`."""
    pairs = (line.partition(" ") for line in text.splitlines())
    pages = [parse_whole(value) or 0 for key, _, value in pairs if key in ("pswpin", "pswpout")]
    return sum(pages) if pages else None


def read_throttle_count(root: Root, cpus: CpuSet) -> int | None:
    """Return how often the cores of `cpus`, and their packages, were slowed down because of heat,
    counted once for each cpu; only that it grows says anything."""
    folders = [f"{CPUS}/cpu{cpu}/thermal_throttle" for cpu in cpus]
    counts = [
        count
        for folder in folders
        for name in ("core_throttle_count", "package_throttle_count")
        if (count := read_int(root, f"{folder}/{name}")) is not None
    ]
    return sum(counts) if counts else None


def read_frequency(root: Root, cpus: CpuSet) -> float | None:
    """Return the highest frequency of `cpus` in GHz; None where the system does not say.

    To be read while some of them work: the frequency of an idle core says nothing.
    """
    paths = (f"{CPUS}/cpu{cpu}/cpufreq/scaling_cur_freq" for cpu in cpus)
    frequencies = [kilohertz for path in paths if (kilohertz := read_int(root, path))]
    return max(frequencies) / 1e6 if frequencies else None


def parse_seconds(word: str) -> float:
    """Return the seconds of `123.45`; 0 for anything else."""
    whole, _, hundredths = word.strip().partition(".")
    return (parse_whole(whole) or 0) + (parse_whole(hundredths[:2].ljust(2, "0")) or 0) / 100


def ticks_per_second() -> int:
    return os.sysconf("SC_CLK_TCK")
