"""What a plan is to be, as values: the planner's input beside the machine."""

from __future__ import annotations

from ompbind.cpuset import CpuSet
from ompbind.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ompbind.devices.nics import Cards
    from ompbind.devices.visible import Visible
    from ompbind.plans import Inherited, World


class Pool(Record):
    """Cores to set aside, `cores` of all ranks together or of each; without a name: reserved.
    `source`: what asks for them where no option does; `if_spare`: they are wished for: where ranks
    would be left without a core, as many are taken of all together, or none."""

    name: str
    cores: int
    per_rank: bool = False
    source: str = ""
    if_spare: bool = False
    threads: tuple[str, ...] = ()  # patterns for the names of threads that belong there

    def __bool__(self) -> bool:
        return self.cores > 0

    def __str__(self) -> str:
        each = "/rank" if self.per_rank else ""
        option = f"--role {self.name}={self.cores}" if self.name else f"--reserve {self.cores}"
        return self.source or option + each


class Need(Record):
    """Memory in bytes, of all ranks together or of each."""

    bytes: int
    per_rank: bool = False

    def of_each(self, ranks: int) -> int:
        """Return the bytes of one of so many ranks."""
        return self.bytes if self.per_rank else -(-self.bytes // ranks)


class Serving(Record):
    """A server whose workers are planned. `engine`: as --serve names it; `name`: as people do;
    `version`: "" where it is not known. It is told of the workers' cpus by `variable`, or by words
    of its command: `node_words` before their nodes, `cpu_words` before their cpus, () where it
    takes none."""

    engine: str
    name: str
    version: str = ""
    variable: str = ""
    node_words: tuple[str, ...] = ()
    cpu_words: tuple[str, ...] = ()


class Request(Record):
    """What was asked for. None means: not asked for."""

    ranks: int | None = None
    per: str | None = None
    numa_bind: bool = False
    nodes: tuple[CpuSet, ...] | None = None  # of each rank
    cpus: tuple[CpuSet, ...] | None = None
    share: bool = False
    distribution: str = "block"
    cores_per_rank: tuple[int, ...] = ()  # of each rank, or one number for all
    balance: str = "local"  # or "equal": -n N divides without regard to nodes
    leave_over: bool = False  # -n N gives all as many cores, and some to none
    smt: int | None = 1  # None: every hardware thread
    oversubscribe: bool = False
    part: tuple[int, int] | None = None  # the first from 1; 0: any that is free
    free: Pool = Pool("", 0)  # cores to take of those that nobody else holds
    only: CpuSet = CpuSet()  # the hardware threads of the cores that were taken so; (): all cores
    kind: str = "all"
    reserve: Pool = Pool("", 0)
    roles: tuple[Pool, ...] = ()
    exclude: CpuSet = CpuSet()  # their cores stay out too, see `find_excluded`
    exclude_cpus: CpuSet = CpuSet()  # these and no others
    omp: str = "all"  # which of OpenMP's variables are set: all, threads or off
    omp_why: str = ""  # empty: nothing but the default asks for it
    places: str = "cores"  # without --places chosen by `resolve`, which sees what the worker is
    places_why: str = ""  # empty: they were not asked for
    place_list: tuple[CpuSet, ...] | None = None  # the user's own OMP_PLACES
    runtime: str = "auto"
    proc_bind: str = "close"
    threads: str | None = None  # the text of OMP_NUM_THREADS, or "cores": one for each core
    limit: int | None = None  # OMP_THREAD_LIMIT
    mem: str | None = None
    mem_balancing: bool = False
    mem_need: Need | None = None
    mem_kind: str | None = None
    # For the policy of each rank, or one for all; "all": each node that has memory.
    mem_nodes: tuple[CpuSet | str, ...] = ()
    binder: str = "auto"
    on_denied: str = "error"
    rank_env: bool | None = None
    template: bool = False
    gpu_domain: str = "numa"
    near: str | None = None
    gpu_env: bool = False
    nic_env: bool = False
    serving: Serving | None = None  # the ranks are workers that one server starts
    visible: Visible | None = None  # the GPUs that workers will see; None: not looked up
    cards: Cards | None = None  # the network cards that ranks may use; None: not looked up
    by_thread: bool = False  # each hardware thread counts as a core
    group: str = ""  # the name of the group that the ranks are in, where there are several
    world: World | None = None  # where the ranks stand among those of an engine's job
    inherited: tuple[Inherited, ...] = ()
    command: tuple[str, ...] = ()

    @property
    def names_memory(self) -> bool:
        """Whether memory comes from other nodes than those of the cpus."""
        return bool(self.mem_nodes) or self.mem_kind is not None

    def mem_nodes_of(self, rank: int) -> CpuSet | str | None:
        """Return the nodes that --mem-nodes names for a rank's memory."""
        named = self.mem_nodes
        return named[rank] if named[1:] else named[0] if named else None

    def cores_for(self, rank: int) -> int | None:
        """Return how many cores --cores-per-rank gives a rank."""
        sizes = self.cores_per_rank
        return sizes[rank] if sizes[1:] else sizes[0] if sizes else None
