"""The bill of each rank: what it has used, measured while it runs and when it exits.

Only a launch that is asked for it (`-v`, `--report`) loads this. The kernel counts some figures for
a whole process, exactly, and returns them with its exit: cpu time, switches, faults, peak memory.
Others it keeps for each living thread, and forgets with it: they are read now and then, and of the
first thread once more when the process has exited and is not reaped yet. How much of the cpu time
belongs to threads that were seen so, the bill says itself.
"""

from __future__ import annotations

import os
import time

from ompbind.errors import OmpbindError
from ompbind.launch.outcome import Ended
from ompbind.machine.processes import make_family, read_numbers, read_parents
from ompbind.machine.usage import (
    TaskUse,
    Throttling,
    read_memory,
    read_swap,
    read_task,
    read_tasks,
    read_throttling,
)
from ompbind.messages import counted, format_size, quote
from ompbind.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    import resource
    from collections.abc import Iterable, Mapping
    from typing import Any

    from ompbind.machine.roots import LivingRoot
    from ompbind.plans import Plan, RankPlan

SCHEMA = 1
LONGEST = 300  # characters of a file's name in a message
FIRST, LAST = 0.02, 0.25  # seconds to the first reading, and between two later ones at most
GROWTH = 1.3  # of the time between two readings
SHARE = 0.005  # of one cpu's time that reading threads may take, and looking at pages once more
SEEN = 0.95  # the share of a rank's cpu time above which the time waited is given without a remark
# The policies that say on which nodes pages are to be.
POLICIES = ("bind", "preferred", "interleave", "weighted-interleave")


class Bill(Record):
    """What a rank has used until it exited. Seconds and bytes; None where the kernel does not say.
    `user`, `system`, `voluntary`, `involuntary` and `faults` include the children that it has
    waited for."""

    ended: Ended
    user: float
    system: float
    voluntary: int  # switches: it waited for something
    involuntary: int  # switches: its cpu was given to something else
    faults: int  # major ones, which read a file or swap
    waited: float | None  # ready to run, without a cpu; the sum over its threads and descendants
    observed: float | None  # the share of its cpu time that threads in `waited` have used
    migrations: int | None  # of the same threads
    swap: int | None  # the most that was seen swapped out of it and its descendants
    misplaced: int | None  # private memory that was last seen on other nodes than its policy's
    throttling: Throttling | None  # of the cgroup that all ranks share, since the launch began

    def to_dict(self) -> dict[str, Any]:
        """Return the rank's object in the report."""
        ended, rank = self.ended, self.ended.start.rank
        throttling = self.throttling
        return {
            "rank": rank.rank,
            "global_rank": rank.number,
            "name": rank.name,
            "pid": ended.pid,
            "cpus": str(rank.cpus),
            "nodes": str(rank.nodes),
            "mem": rank.mem,
            "mems": str(rank.mems),
            "status": ended.status,
            "signal": -ended.code if ended.code < 0 else None,
            "remark": ended.remark,
            "elapsed_seconds": round(ended.seconds, 6),
            "user_seconds": self.user,
            "system_seconds": self.system,
            "wait_seconds": self.waited,
            "wait_observed": self.observed,
            "voluntary_switches": self.voluntary,
            "involuntary_switches": self.involuntary,
            "migrations": self.migrations,
            "major_faults": self.faults,
            "peak_memory_bytes": ended.memory,
            "swap_bytes": self.swap,
            "misplaced_bytes": self.misplaced,
            "cgroup_throttled_seconds": throttling and round(throttling.seconds, 6),
            "cgroup_throttled_periods": throttling and throttling.periods,
        }


def make_line(bill: Bill) -> str:
    """Return `rank 3 used 11.9 s of cpu time (11.7 user, 0.2 system), waited 0.3 s for a cpu; 12
    involuntary switches`, with what else happened to it behind."""
    used = bill.user + bill.system
    text = (
        f"rank {bill.ended.name} used {used:.2f} s of cpu time ({bill.user:.2f} user, "
        f"{bill.system:.2f} system)"
    )
    if bill.waited is not None:
        text += f", waited {bill.waited:.2f} s for a cpu"
        if bill.observed is not None and bill.observed < SEEN:
            text += f" (seen: threads with {bill.observed:.0%} of that time)"
    parts = [text, counted(bill.involuntary, "involuntary switch")]
    if bill.migrations:
        parts.append(counted(bill.migrations, "migration"))
    if bill.throttling and bill.throttling.periods:
        parts.append(f"its cgroup was throttled for {bill.throttling.seconds:.2f} s")
    if bill.misplaced:
        parts.append(f"{format_size(bill.misplaced)} on other nodes than planned")
    if bill.swap:
        parts.append(f"{format_size(bill.swap)} swapped out")
    return "; ".join(parts)


class Account:
    """What has been seen of one rank: of each thread the last figures, by pid and thread number."""

    def __init__(self, rank: RankPlan) -> None:
        self.rank = rank
        self.tasks: dict[tuple[int, int], TaskUse] = {}
        self.past: list[TaskUse] = []  # of threads whose number another one has got
        self.processes: set[int] = set()
        self.swap = 0
        self.misplaced: int | None = None

    def note(self, pid: int, tid: int, use: TaskUse | None) -> None:
        """Take down a thread's figures; None for a thread that is gone."""
        if use is None:
            return
        before = self.tasks.get((pid, tid))
        if before and before.ran > use.ran:
            self.past.append(before)
        self.tasks[pid, tid] = use

    @property
    def uses(self) -> list[TaskUse]:
        return [*self.past, *self.tasks.values()]


class Meter:
    """Measures the ranks of one launch."""

    def __init__(self, root: LivingRoot, nodes: int) -> None:
        """`nodes`: how many the machine has; with several, it is looked where pages are."""
        self.root, self.nodes = root, nodes
        numbers = read_numbers(root, "self")
        self.readable = numbers == (os.getpid(),)  # not so of another pid namespace's /proc
        self.throttling = read_throttling(root)
        self.accounts: dict[int, Account] = {}
        self.bills: list[Bill] = []
        self.pause = FIRST
        self.opened = 0.0  # a monotonic time, as the next one
        self.memory_due = 0.0  # when pages are looked at next

    def open(self, ranks: Mapping[int, RankPlan]) -> float:
        """Begin to measure these ranks, by pid; return the seconds until the first reading."""
        self.accounts = {pid: Account(rank) for pid, rank in ranks.items()}
        self.opened = time.monotonic()
        return FIRST

    def sample(self, living: Iterable[int]) -> float:
        """Read what ranks that are still running have used, and return the seconds until that is
        to be done again: more and more, and so many that it takes little of a cpu."""
        began, cost_before = time.monotonic(), time.process_time()
        pids = [pid for pid in living if pid in self.accounts] if self.readable else []
        if pids:
            self.read_all(pids)
        pause = max(self.pause, self.find_pause(began, time.process_time() - cost_before))
        self.pause = min(self.pause * GROWTH, LAST)
        if pids and self.nodes > 1 and began >= self.memory_due:
            self.look_at_pages(pids)
        return pause

    def find_pause(self, now: float, cost: float) -> float:
        """Return the seconds from `now` after which something may be read again that takes `cost`
        seconds of a cpu: SHARE of it at most, but where ranks have not run for long, half as many
        as they have."""
        return min(cost / SHARE, (now - self.opened) / 2)

    def read_all(self, pids: list[int]) -> None:
        """Read the figures of each thread of these ranks and their descendants."""
        parents = read_parents(self.root)
        for pid, descendants in make_family(pids, parents).items():
            account = self.accounts[pid]
            # Those that have lost their parent are this process's children now.
            adopted = {p for p in account.processes if parents.get(p) == os.getpid()}
            account.processes = {pid, *descendants, *(adopted - self.accounts.keys())}
            swap = 0
            for process in account.processes:
                for tid, use in read_tasks(self.root, process):
                    account.note(process, tid, use)
                swap += read_swap(self.root, process)
            account.swap = max(account.swap, swap)

    def look_at_pages(self, pids: list[int]) -> None:
        """See on which nodes the pages of these ranks are, for which the kernel walks them all."""
        now, cost_before = time.monotonic(), time.process_time()
        for account in (self.accounts[pid] for pid in pids):
            if account.rank.mem in POLICIES:
                account.misplaced = self.measure_pages(account)
        self.memory_due = now + self.find_pause(now, time.process_time() - cost_before)

    def measure_pages(self, account: Account) -> int | None:
        """Return the bytes of private memory that are on other nodes than planned; what was seen
        last where nothing can be read now."""
        mems = account.rank.mems
        memories = [read_memory(self.root, pid) for pid in account.processes]
        sizes = [size for m in memories if m for _, node, size in m.private if node not in mems]
        return sum(sizes) if any(memories) else account.misplaced

    def read_exit(self, pid: int) -> None:
        """Read what can still be read of a rank that has exited and is not reaped yet."""
        account = self.accounts.get(pid)
        if account and self.readable:
            account.note(pid, pid, read_task(self.root, pid, pid))

    def close(self, ended: Ended, usage: resource.struct_rusage) -> Bill:
        """Return the bill of a rank that has exited; `usage`: what the kernel returned with it."""
        uses = self.accounts[ended.pid].uses if ended.pid in self.accounts else []
        used = usage.ru_utime + usage.ru_stime
        ran = sum(use.ran for use in uses) / 1e9
        moved = [use.migrations for use in uses if use.migrations is not None]
        after = read_throttling(self.root)
        account = self.accounts.get(ended.pid)
        bill = Bill(
            ended=ended,
            user=usage.ru_utime,
            system=usage.ru_stime,
            voluntary=usage.ru_nvcsw,
            involuntary=usage.ru_nivcsw,
            faults=usage.ru_majflt,
            waited=sum(use.waited for use in uses) / 1e9 if uses else None,
            observed=round(min(1.0, ran / used), 3) if uses and used else None,
            migrations=sum(moved) if moved else None,
            swap=account.swap if account and self.readable else None,
            misplaced=account.misplaced if account else None,
            throttling=after.since(self.throttling) if after and self.throttling else None,
        )
        self.bills.append(bill)
        return bill

    def write(self, path: str, plan: Plan, status: int, seconds: float) -> None:
        """Write the report, all of it or nothing. Raises OmpbindError."""
        write_report(path, make_report(self.bills, plan, status, seconds))


def make_report(bills: Iterable[Bill], plan: Plan, status: int, seconds: float) -> str:
    """Return the report of a launch as JSON: its status, how long it took, and each rank's bill."""
    import json

    report = {
        "schema": SCHEMA,
        "host": plan.host.name,
        "command": list(plan.command),
        "groups": [
            {"name": g.name, "ranks": str(g.ranks), "command": list(g.command)} for g in plan.groups
        ],
        "status": status,
        "elapsed_seconds": round(seconds, 6),
        "ranks": [b.to_dict() for b in sorted(bills, key=lambda b: b.ended.rank)],
    }
    return json.dumps(report, indent=1) + "\n"


def write_report(path: str, text: str) -> None:
    """Write a report to a file, in the place of one that is there. Raises OmpbindError."""
    data = text.encode("utf-8", "surrogateescape")
    plain = os.path.isfile(path) or not os.path.exists(path)
    try:
        if plain:
            replace_file(path, data)
        else:  # a device or FIFO stays what it is
            with open(path, "wb") as file:
                file.write(data)
    except OSError as e:
        raise OmpbindError(
            f"--report {quote(path, LONGEST)} cannot be written: {e.strerror}"
        ) from None


def replace_file(path: str, data: bytes) -> None:
    """Write a file beside `path`, which nobody else has prepared, and give it that name. Raises
    OSError."""
    part = f"{path}.{os.getpid()}.part"
    fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        with open(fd, "wb") as file:
            file.write(data)
        os.replace(part, path)
    except BaseException:
        os.unlink(part)
        raise
