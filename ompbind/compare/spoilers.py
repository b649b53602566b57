"""Judge what spoilt a measurement: other load, a hypervisor, frequencies that moved, heat, quotas,
memory that ran short, cpus that were missing. Pure.

A period is a round, with a reading of the machine's counters before and after it. What the measured
runs used themselves is known from the kernel's account of each, so that the rest is others'.
"""

from __future__ import annotations

from ompbind.cpuset import union
from ompbind.messages import counted, label, quote
from ompbind.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Literal

    from ompbind.cpuset import CpuSet
    from ompbind.machine.activity import Activity

    Kind = Literal["load", "stolen", "frequency", "heat", "quota", "memory", "swap", "cpus"]

# From where on each counts. A tenth of one cpu, as one thread that waits holds up all that meet it
# at a barrier; daemons of an idle machine use less than half of that.
LOAD = 0.1  # cpus
STOLEN = 0.02  # of the time of the cpus
FREQUENCY = 0.05  # from the slowest round to the fastest
QUOTA = 0.01  # of the time
WAITING = 0.01  # of the time, for memory
SECONDS = 0.1  # of cpu time: counters in ticks of 10 ms say less than that by chance
NAMED = 3  # processes


class Period(Record):
    """A round: its number, the counters before and after it, and what is known of its runs."""

    round: int
    before: Activity
    after: Activity
    used: float  # seconds of cpu time, of the runs and of the process that started them
    pid: int = 0  # of that process
    frequencies: tuple[float, ...] = ()  # in GHz, read while runs were working
    throttled: float = 0.0  # seconds of cpu time that a quota kept from the cgroup

    @property
    def seconds(self) -> float:
        return self.after.uptime - self.before.uptime


class Spoiler(Record):
    """Something that spoilt rounds, and how much: `amount` is in cpus for load and cpus, in pages
    for swap, in seconds of cpu time for quota, times a core was slowed down for heat, and a share
    for the others (0.1: 10 %)."""

    kind: Kind
    amount: float
    rounds: tuple[int, ...]  # in which it was seen
    text: str  # one line for the user


def find_spoilers(periods: Sequence[Period], cpus: CpuSet) -> list[Spoiler]:
    """Return what spoilt the rounds of runs that were to have `cpus`; those that explain most come
    first."""
    judges = (judge_cpus, judge_quota, judge_load, judge_stolen, judge_heat, judge_frequency,
              judge_swap, judge_memory)  # fmt: skip
    spoilers = [judge(periods, cpus) for judge in judges if sum(p.seconds for p in periods) > 0]
    return [spoiler for spoiler in spoilers if spoiler]


def judge_cpus(periods: Sequence[Period], cpus: CpuSet) -> Spoiler | None:
    """Report cpus that went offline or out of this process's mask."""
    missing = [cpus - (period.before.cpus & period.after.cpus) for period in periods]
    rounds = tuple(p.round for p, lost in zip(periods, missing, strict=True) if lost)
    if not rounds:
        return None
    lost = union(missing)
    text = f"{label('cpu', lost)} of the plans went offline, or out of what ompbind may use"
    return Spoiler("cpus", len(lost), rounds, text + say_rounds(rounds, periods))


def judge_quota(periods: Sequence[Period], cpus: CpuSet) -> Spoiler | None:
    rounds = tuple(p.round for p in periods if p.throttled > QUOTA * p.seconds)
    seconds = sum(p.throttled for p in periods)
    text = f"a cpu quota kept {seconds:.1f} s of cpu time from the runs"
    return make_spoiler("quota", seconds, rounds, periods, text)


def judge_load(periods: Sequence[Period], cpus: CpuSet) -> Spoiler | None:
    """Report the cpu time of processes that do not belong to the measurement, and their names."""
    others = [find_others(period) for period in periods]
    rounds = tuple(
        p.round for p, seconds in zip(periods, others, strict=True)
        if seconds > max(LOAD * p.seconds, SECONDS)
    )  # fmt: skip
    load = find_share(periods, others)
    text = f"other processes used {load:.1f} of {counted(len(cpus), 'cpu')}"
    waited = find_share(periods, [grown(p.before.waiting, p.after.waiting) for p in periods])
    if waited > WAITING:
        text += f", and for {waited * 100:.0f} % of the time some process waited for one"
    return make_spoiler("load", load, rounds, periods, text, name_processes(periods))


def judge_stolen(periods: Sequence[Period], cpus: CpuSet) -> Spoiler | None:
    stolen = [p.after.stolen - p.before.stolen for p in periods]
    rounds = tuple(
        p.round for p, seconds in zip(periods, stolen, strict=True)
        if seconds > max(STOLEN * p.seconds * len(cpus), SECONDS)
    )  # fmt: skip
    share = find_share(periods, stolen) / len(cpus)
    text = f"the hypervisor kept the cpus for {share * 100:.0f} % of the time"
    return make_spoiler("stolen", share, rounds, periods, text)


def judge_heat(periods: Sequence[Period], cpus: CpuSet) -> Spoiler | None:
    times = [grown(p.before.hot, p.after.hot) for p in periods]
    rounds = tuple(p.round for p, count in zip(periods, times, strict=True) if count)
    text = "cores were slowed down because of heat"
    return make_spoiler("heat", sum(times), rounds, periods, text)


def judge_frequency(periods: Sequence[Period], cpus: CpuSet) -> Spoiler | None:
    """Report a frequency that differed from round to round; one that is always low is a setting."""
    means = {p.round: sum(p.frequencies) / len(p.frequencies) for p in periods if p.frequencies}
    if not means:
        return None
    low, high = min(means.values()), max(means.values())
    rounds = tuple(number for number, ghz in means.items() if ghz < high / (1 + FREQUENCY))
    text = f"the cores' frequency moved between {low:.2f} and {high:.2f} GHz, and was low"
    return make_spoiler("frequency", high / low - 1, rounds, periods, text)


def judge_swap(periods: Sequence[Period], cpus: CpuSet) -> Spoiler | None:
    pages = [grown(p.before.swapped, p.after.swapped) for p in periods]
    rounds = tuple(p.round for p, count in zip(periods, pages, strict=True) if count)
    text = f"the machine swapped {counted(round(sum(pages)), 'page')}"
    return make_spoiler("swap", sum(pages), rounds, periods, text)


def judge_memory(periods: Sequence[Period], cpus: CpuSet) -> Spoiler | None:
    waits = [grown(p.before.short_of_memory, p.after.short_of_memory) for p in periods]
    rounds = tuple(
        p.round for p, seconds in zip(periods, waits, strict=True)
        if seconds > WAITING * p.seconds
    )  # fmt: skip
    share = find_share(periods, waits)
    text = f"some process waited for memory for {share * 100:.0f} % of the time"
    return make_spoiler("memory", share, rounds, periods, text)


def make_spoiler(
    kind: Kind,
    amount: float,
    rounds: tuple[int, ...],
    periods: Sequence[Period],
    text: str,
    names: str = "",
) -> Spoiler | None:
    """Return a spoiler of these rounds; None if there are none."""
    return (
        Spoiler(kind, amount, rounds, text + say_rounds(rounds, periods) + names)
        if rounds
        else None
    )


def say_rounds(rounds: tuple[int, ...], periods: Sequence[Period]) -> str:
    """Return in how many of the rounds something was seen, "" for all of them."""
    if len(rounds) == len(periods):
        return ""
    return f" (seen in {len(rounds)} of {counted(len(periods), 'round')})"


def grown(before: float | None, after: float | None) -> float:
    """Return by how much a counter has grown; 0 where the system has none."""
    return 0 if before is None or after is None else max(after - before, 0)


def find_share(periods: Sequence[Period], seconds: Sequence[float]) -> float:
    """Return the seconds of all periods as a share of the time that they took."""
    return sum(seconds) / sum(p.seconds for p in periods)


def find_others(period: Period) -> float:
    """Return the cpu time in seconds of what does not belong to the measurement."""
    return max(period.after.busy - period.before.busy - period.used, 0)


def name_processes(periods: Sequence[Period]) -> str:
    """Return `: name (pid 1), other (pid 2)`, of those that used most and more than LOAD; "" where
    they cannot be named, as they have ended or belong to another container."""
    used: dict[tuple[int, str], float] = {}
    for period in periods:
        before = {(p.pid, p.started): p.seconds for p in period.before.processes}
        for p in period.after.processes:
            if p.pid != period.pid:
                seconds = p.seconds - before.get((p.pid, p.started), 0)
                used[p.pid, p.name] = used.get((p.pid, p.name), 0) + seconds
    least = LOAD * sum(p.seconds for p in periods)
    most = sorted(
        ((seconds, key) for key, seconds in used.items() if seconds > least), reverse=True
    )
    names = [f"{quote(name)} (pid {pid})" for _, (pid, name) in most[:NAMED]]
    return ": " + ", ".join(names) if names else ""
