"""Ranks of engines without engines: made-up ancestors, and the plan of one rank among them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ompbind.cpuset import CpuSet
from ompbind.engines import Found, find_task
from ompbind.engines.fitting import Fitted, fit
from ompbind.machine.topology import Machine
from ompbind.planner import make_plan
from ompbind.plans import Plan
from tests.support.machines import make_asked

OWN_PID = 900


@dataclass(frozen=True)
class Above:
    """An ancestor: its name and mask, and the environment that it was started with; None: it may
    not be read."""

    name: str
    cpus: str = "0-15"
    environ: Mapping[str, str] | None = None


@dataclass(frozen=True)
class Ancestry:
    """What a process can read of those above it: `above`, the parent first. Where it is not
    `visible`, as in a pid namespace, it has no parent that it could see."""

    above: Sequence[Above] = ()
    cpus: str = "0-15"
    pid: int = OWN_PID
    visible: bool = True
    files: dict[str, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        parents = [self.pid - 1 - n for n in range(len(self.above))]
        first = parents[0] if parents and self.visible else 0
        self.files["proc/self/status"] = make_status("ompbind", self.pid, first, self.cpus)
        for n, above in enumerate(self.above if self.visible else ()):
            parent = parents[n + 1] if n + 1 < len(parents) else 0
            path = f"proc/{parents[n]}"
            self.files[f"{path}/status"] = make_status(above.name, parents[n], parent, above.cpus)
            if above.environ is not None:
                pairs = (f"{k}={v}\0".encode() for k, v in above.environ.items())
                self.files[f"{path}/environ"] = b"".join(pairs)

    def read(self, path: str) -> str | None:
        data = self.files.get(path)
        return None if data is None else data.decode()

    def read_whole(self, path: str) -> bytes:
        if path not in self.files:
            raise PermissionError(path)
        return self.files[path]

    def names(self, path: str) -> list[str]:
        return []

    def resolve(self, path: str) -> str | None:
        return None


def make_status(name: str, pid: int, parent: int, cpus: str) -> bytes:
    fields = f"Pid:\t{pid}\nPPid:\t{parent}\nTracerPid:\t0\nUid:\t0\t0\t0\t0\n"
    masks = f"Cpus_allowed:\tffff\nCpus_allowed_list:\t{cpus}\nMems_allowed:\t1\n"
    return f"Name:\t{name[:15]}\nState:\tS (sleeping)\n{fields}{masks}".encode()


def with_mask(machine: Machine, cpus: str) -> Machine:
    """The machine, of which this process may use these cpus."""
    return machine.replace(allowed=machine.allowed.replace(cpus=CpuSet.parse_kernel(cpus)))


def fit_rank(
    machine: Machine,
    environ: Mapping[str, str],
    ancestry: Ancestry,
    words: str = "",
    *,
    within: str = "",
    engine: str | None = None,
    cpuset: str | None = None,
) -> tuple[Found, Fitted]:
    """What a rank finds, and what it then plans; `words`: options, `cpuset`: of its cgroup."""
    found = find_task(environ, ancestry, engine)
    own = with_mask(machine, ancestry.cpus)
    if cpuset is not None:
        own = own.replace(allowed=own.allowed.replace(cpuset=CpuSet.parse_kernel(cpuset)))
    return found, fit(own, make_asked(words.split()), found, environ, within)


def plan_rank(
    machine: Machine,
    environ: Mapping[str, str],
    ancestry: Ancestry,
    words: str = "",
    *,
    within: str = "",
    cpuset: str | None = None,
) -> Plan:
    """The plan that one rank makes for itself."""
    _, fitted = fit_rank(machine, environ, ancestry, words, within=within, cpuset=cpuset)
    return fitted.complete(make_plan(fitted.machine, fitted.request))
