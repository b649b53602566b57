"""Which rank of which launch a process belongs to.

A rank's environment says so, and what it starts inherits that. Programs that rename themselves
(setproctitle: vLLM, Ray, gunicorn, nginx) write over it, and others clear it; then the record that
a supervisor keeps of its ranks says so, or the process's parents do, or for a rank that replaced
ompbind, what it has started.
"""

from __future__ import annotations

from ompbind.machine.processes import (
    find_process,
    find_this,
    parse_environ,
    read_groups,
    read_parents,
    read_record,
    read_start,
)
from ompbind.plans import CPUS_VARIABLE, RANK_VARIABLE, RECORD_NAME
from ompbind.verify.expected import expect_environ

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection

    from ompbind.machine.roots import LivingRoot
    from ompbind.verify.expected import Expected

    Environ = dict[str, str]


class Lineage:
    """All processes as they were at one moment, by their parents. This process is nobody's
    descendant: `ompbind verify` may have been started by a rank, but is none of its workers."""

    def __init__(self, root: LivingRoot) -> None:
        self.root = root
        self.parents = read_parents(root)
        self.this = find_this(root)
        self.children: dict[int, list[int]] = {}
        for pid in sorted(self.parents):
            if pid != self.this:
                self.children.setdefault(self.parents[pid], []).append(pid)
        self.claims: dict[int, Environ | None] = {}
        self.records: dict[int, dict[int, Environ]] = {}

    def family_of(self, pid: int) -> list[int]:
        """Return the descendants of a process, parents before their children."""
        family = self.children.get(pid, [])[:]
        for child in family:  # grows while it is walked
            if child != pid:  # parents are read one after another, and pids are used again
                family += self.children.get(child, ())
        return family

    def find_claim(self, pid: int) -> Environ | None:
        """Return the variables that say which rank a process belongs to, and where that is bound;
        None if no launch of ompbind is known that it could belong to."""
        passed: list[int] = []
        claim: Environ | None = None
        for member in (pid, *self.list_ancestors(pid)):
            if member in self.claims:
                claim = self.claims[member]
                break
            passed.append(member)
            claim = self.read_claim(member)
            if claim is None and (record := self.read_record(self.parents.get(member, 0))):
                # One that is not in it has lost its parent, and the supervisor has adopted it.
                only = next(iter(record.values())) if len(record) == 1 else None
                claim = record.get(member, only)
                break
            if claim is not None:
                break
        self.claims |= dict.fromkeys(passed, claim)
        return claim

    def read_claim(self, pid: int) -> Environ | None:
        """Return the claim in a process's own environment; None if there is none to be read."""
        process = find_process(self.root, pid)
        if process is None or process.overwritten:
            return None
        return select_claim(dict(process.environ or ()))

    def read_record(self, pid: int) -> dict[int, Environ]:
        """Return the claims of a supervisor's ranks, by pid; {} for any other process."""
        if pid not in self.records:
            texts = read_record(self.root, pid, RECORD_NAME)
            self.records[pid] = {
                rank: dict(parse_environ(data))
                for rank, data in texts.items()
                if self.parents.get(rank) == pid
            }
        return self.records[pid]

    def guess_claim(self, pid: int) -> Environ | None:
        """Return the claim of the processes that a process has started itself, if they agree; the
        process may be their rank, or a program around the launch."""
        children = self.children.get(pid, ())
        claims = [claim for child in children if (claim := self.read_claim(child))]
        return claims[0] if claims and all(is_same(claims[0], c) for c in claims[1:]) else None

    def find_rank(self, pid: int) -> int:
        """Return the process of the rank that a process belongs to: the first of its ancestors that
        belong to the same rank, or itself."""
        claim = self.find_claim(pid)
        for ancestor in self.list_ancestors(pid) if claim else ():
            if self.is_supervised(pid) or not is_same(claim, self.find_claim(ancestor)):
                break
            pid = ancestor
        return pid

    def is_supervised(self, pid: int) -> bool:
        """Whether a supervisor's record names a process."""
        return pid in self.read_record(self.parents.get(pid, 0))

    def list_workers(self, pid: int) -> list[int]:
        """Return the ranks among a process's descendants, but not what ranks have started."""
        workers: list[int] = []
        inside: set[int] = set()
        for child in self.family_of(pid):
            if self.parents[child] in inside:
                inside.add(child)
            elif self.is_supervised(child) or self.read_claim(child):
                inside.add(child)
                workers.append(child)
        return workers

    def list_strays(self, ranks: Collection[int]) -> list[int]:
        """Return the processes that ranks have started and that have lost their parents since, as
        far as a cgroup tells: one in which a launch was the first, a service's for instance."""
        strays: list[int] = []
        groups: dict[str, list[int]] = {}
        for pid in ranks:
            if group := self.read_group(pid):
                groups.setdefault(group, []).append(pid)
        members: dict[str, list[int]] = {group: [] for group in groups}
        for pid in self.parents if groups else ():
            if (group := self.read_group(pid)) in members:
                members[group].append(pid)
        known = {child for pid in ranks for child in (pid, *self.family_of(pid))}
        for group, pids in members.items():
            launchers = {p for rank in groups[group] for p in self.list_launchers(rank)}
            oldest = min(pids, key=lambda pid: (read_start(self.root, pid), pid))
            if oldest not in launchers | {*groups[group]}:
                continue
            for pid in pids:
                if pid not in known | launchers and self.parents[pid] not in pids:
                    strays += [pid, *(p for p in self.family_of(pid) if p not in known)]
        return strays

    def read_group(self, pid: int) -> str:
        """Return the cgroups of a process as a text to compare; "" where they say nothing: there
        are none, or the root alone."""
        groups = read_groups(self.root, pid)
        return str(sorted(groups.items())) if set(groups.values()) - {"/"} else ""

    def list_ancestors(self, pid: int) -> list[int]:
        """Return the parents of a process, the nearest first."""
        ancestors: list[int] = []
        while (pid := self.parents.get(pid, 0)) in self.parents and pid not in ancestors:
            ancestors.append(pid)
        return ancestors

    def list_launchers(self, rank: int) -> list[int]:
        """Return the supervisor of a rank, its watcher, and the process that the user started; []
        without."""
        return self.list_ancestors(rank)[:3] if self.is_supervised(rank) else []


def select_claim(environ: Environ) -> Environ | None:
    """Return the variables of an environment that are a rank's: OpenMP's and ompbind's own."""
    if RANK_VARIABLE not in environ or expect_environ(environ) is None:
        return None
    return {k: v for k, v in environ.items() if k.startswith(("OMP_", "OMPBIND_"))}


def is_same(claim: Environ | None, other: Environ | None) -> bool:
    """Whether two claims are of the same rank."""
    names = (RANK_VARIABLE, CPUS_VARIABLE)
    return [(claim or {}).get(n) for n in names] == [(other or {}).get(n) for n in names]


def expect_member(claim: Environ, environ: Environ | None) -> Expected | None:
    """Return what is expected of a process of a rank: the rank's binding, and OpenMP's threads by
    its own environment; by the rank's if that is None: it could not be read."""
    if environ is None:
        return expect_environ(claim)
    openmp = {k: v for k, v in environ.items() if k.startswith("OMP_")}
    return expect_environ({k: v for k, v in claim.items() if not k.startswith("OMP_")} | openmp)
