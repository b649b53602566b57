"""Threads that belong to a role by their names: the supervisor looks for them while ranks run, and
puts each on the role's cpus when it appears.

Nothing tells of a new thread, or of a new name, without rights that a launcher does not have. So
the ranks' threads are read again and again, at growing intervals and for one percent of a cpu at
most. A thread is bound once, so that the program has the last word. Only loaded where a role names
threads.
"""

from __future__ import annotations

import os
import time

from ompbind.cpuset import CpuSet
from ompbind.launch.syscalls import set_affinity
from ompbind.machine.processes import list_tasks, make_family, read_parents, read_task_name
from ompbind.messages import label, quote
from ompbind.plans import is_called

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ompbind.machine.roots import LivingRoot
    from ompbind.plans import Role

SHORTEST, LONGEST = 0.1, 5.0  # seconds from one look to the next, when something is new and later
GROWTH = 1.5
COST = 100  # at most one part in this of the time goes into looking


class RoleThreads:
    """Puts threads on the cpus of their roles.

    `say` gets a kind and a text: a thread that cannot be bound is a warning, the first of its name.
    """

    def __init__(
        self, root: LivingRoot, roles: Sequence[Role], say: Callable[[str, str], None]
    ) -> None:
        self.root, self.say = root, say
        self.roles = [role for role in roles if role.threads]
        self.names: dict[int, str] = {}  # of the threads seen at the last look, by tid
        self.reported: set[str] = set()
        self.pause = SHORTEST

    def look(self, pids: Mapping[int, int]) -> float:
        """Bind the threads that are new, or have another name, and return the seconds until the
        next look. `pids`: of the ranks that run, by rank."""
        began = time.thread_time()
        names: dict[int, str] = {}
        try:
            placed = self.place_new(pids, names)
        except OSError:  # no descriptors or memory left for now: the ranks run on, so do looks
            self.names.update(names)
            self.pause = LONGEST
        else:
            self.names = names
            self.pause = SHORTEST if placed else min(GROWTH * self.pause, LONGEST)
        return max(self.pause, COST * (time.thread_time() - began))

    def place_new(self, pids: Mapping[int, int], names: dict[int, str]) -> int:
        """Bind the threads that are new, or have another name; put the names of all into `names`,
        and return how many were bound. Raises OSError."""
        placed = 0
        families = make_family(pids.values(), read_parents(self.root))
        for rank, pid in pids.items():
            roles = [role for role in self.roles if rank in role.ranks]
            for process in (pid, *families[pid]) if roles else ():
                for tid in list_tasks(self.root, process):
                    before = self.names.get(tid)
                    name = read_task_name(self.root, process, tid)
                    if name is None:  # what is read again later is no new name
                        name = before
                    if name is None:
                        continue
                    names[tid] = name
                    if name != before:
                        placed += self.place(tid, name, roles)
        return placed

    def place(self, tid: int, name: str, roles: Sequence[Role]) -> bool:
        """Bind a thread to the cpus of the first role that its name belongs to; return whether it
        was bound."""
        role = next((r for r in roles if is_called(name, r.threads)), None)
        if role is None:
            return False
        try:
            if CpuSet(os.sched_getaffinity(tid)) <= role.cpus:
                return False
            set_affinity(role.cpus, tid)
        except ProcessLookupError:
            return False
        except OSError as e:
            if name not in self.reported:
                self.reported.add(name)
                where = f"{label('cpu', role.cpus)} of role {role.name}"
                who = f"thread {tid} ({quote(name)[1:-1]})"
                self.say("warning", f"{who} cannot be put on {where}: {e.strerror or e}")
            return False
        return True
