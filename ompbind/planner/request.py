"""What a plan is to be, as values: the planner's input beside the machine."""

from __future__ import annotations

from ompbind.cpuset import CpuSet
from ompbind.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ompbind.gpus.visible import Visible
    from ompbind.plans import Inherited


class Pool(Record):
    """Cores set aside, `cores` of all ranks together or of each; without a name: reserved."""

    name: str
    cores: int
    per_rank: bool = False

    def __str__(self) -> str:
        each = "/rank" if self.per_rank else ""
        return (
            f"--role {self.name}={self.cores}{each}"
            if self.name
            else f"--reserve {self.cores}{each}"
        )


class Request(Record):
    """None means: not asked for. `smt` None is every hardware thread; `threads` is the text of
    OMP_NUM_THREADS, `limit` OMP_THREAD_LIMIT, `place_list` the user's own OMP_PLACES. `places`,
    not asked for, is settled by `resolve`, which can see what the worker is; `runtime` None is
    auto. `sources` maps the fields that were asked for to "flag" or the variable."""

    ranks: int | None = None
    per: str | None = None
    numa_bind: bool = False
    nodes: tuple[int, ...] | None = None
    cpus: tuple[CpuSet, ...] | None = None
    share: bool = False
    distribution: str = "block"
    cores_per_rank: int | None = None
    smt: int | None = 1
    oversubscribe: bool = False
    part: tuple[int, int] | None = None
    kind: str = "all"
    reserve: Pool = Pool("", 0)
    roles: tuple[Pool, ...] = ()
    exclude: CpuSet = CpuSet()
    places: str = "cores"
    places_why: str = ""
    place_list: tuple[CpuSet, ...] | None = None
    runtime: str | None = None
    proc_bind: str = "close"
    threads: str | None = None
    limit: int | None = None
    mem: str | None = None
    binder: str = "auto"
    degrade: bool = False
    rank_env: bool | None = None
    template: bool = False
    gpu_domain: str = "numa"
    near: str | None = None
    gpu_env: bool = False
    visible: Visible | None = None  # what workers see of the GPUs, where that was looked up
    inherited: tuple[Inherited, ...] = ()
    sources: tuple[tuple[str, str], ...] = ()
    command: tuple[str, ...] = ()

    def asked(self, *fields: str) -> str | None:
        """The first of `fields` that was asked for."""
        sources = dict(self.sources)
        return next((f for f in fields if f in sources), None)
