"""A plan: what every rank gets, as frozen values, and its JSON both ways. No algorithm."""

from __future__ import annotations

from ompbind.cpuset import CpuSet, union
from ompbind.errors import ParseError
from ompbind.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from typing import Any

SCHEMA = 1
POLICIES = ("bind", "preferred", "interleave", "weighted-interleave", "local", "none")
WARM_POLICIES = ("preferred", "interleave", "none")  # under which files are read
BINDERS = ("numactl", "native", "none")
OMP_MODES = ("all", "threads", "off")
POOL_MODES = ("kept", "set", "unreached", "openmp", "mask")

# The variables in which a rank advertises its number, its cpus and its memory.
RANK_VARIABLE, RANKS_VARIABLE = "OMPBIND_RANK", "OMPBIND_RANKS"
CPUS_VARIABLE, MEMORY_VARIABLE = "OMPBIND_CPUS", "OMPBIND_MEM"
GROUP_VARIABLE = "OMPBIND_GROUP"  # and the group that it is in
# What the variables of roles begin with: their cpus, and the names of threads that belong there.
ROLE_VARIABLE, THREADS_VARIABLE = "OMPBIND_ROLE_", "OMPBIND_THREADS_"
# The engine that started the launch, and the rank of it that this launch is.
ENGINE_VARIABLE, ENGINE_TASK = "OMPBIND_ENGINE", "OMPBIND_TASK"
TASK_TEXTS = ("label", "by", "sharing", "why", "note", "job")
TASK_NUMBERS = ("rank", "ranks", "local_rank", "local_ranks", "node", "nodes")

PRELOAD_VARIABLE = "LD_PRELOAD"  # the libraries that ld.so loads before all others

# What of the machine's devices a rank is given: the field of RankPlan, and what one is called in a
# table and in a sentence.
DEVICES = (
    ("gpus", "gpu", "GPU"),
    ("accels", "accel", "accelerator"),
    ("nics", "nic", "network card"),
)

# The file in a supervisor's memory that names its ranks: for each its pid and the variables that
# say what it is, with a NUL after each and another one after the last. verify reads it through
# /proc/PID/fd, as a program may write over its own environment.
RECORD_NAME = "ompbind-ranks"


def split_preload(text: str) -> tuple[str, ...]:
    """Return the files in a value of LD_PRELOAD."""
    return tuple(text.replace(":", " ").split())


class Host(Record):
    """The machine a plan was made for."""

    name: str
    cpus: CpuSet
    allowed: CpuSet
    nodes: CpuSet
    quota: float | None = None  # the cgroup's, as a number of cpus; None without one


class Role(Record):
    """Cpus set aside under a name, for threads that these ranks bind themselves. `threads`:
    patterns for the names of those that the supervisor binds for them."""

    name: str
    cpus: CpuSet
    ranks: CpuSet
    threads: tuple[str, ...] = ()

    def environment(self) -> tuple[tuple[str, str], ...]:
        """Return the variables that advertise it to its ranks."""
        name = self.name.upper()
        names = ((f"{THREADS_VARIABLE}{name}", ",".join(self.threads)),) if self.threads else ()
        return ((f"{ROLE_VARIABLE}{name}", str(self.cpus)), *names)


def parse_roles(environ: Mapping[str, str]) -> dict[str, CpuSet]:
    """Return the cpus of each role that is advertised in an environment, by the role's name in
    upper case. Values that the program has put there itself are left out."""
    roles = {}
    for variable, text in environ.items():
        if variable.startswith(ROLE_VARIABLE):
            try:
                roles[variable.removeprefix(ROLE_VARIABLE)] = CpuSet.parse_kernel(text)
            except ParseError:
                continue
    return roles


class Inherited(Record):
    """Something this process inherited: an environment variable, or a restriction such as its
    affinity mask. `action`: what became of it, "respected", "overridden", "removed" or "widened";
    `why`: the reason, in a few words."""

    name: str
    value: str
    action: str
    why: str


class ThreadPool(Record):
    """A pool of threads beside OpenMP's. `how`: how it gets its number of threads: by `variable`,
    which the plan sets to `value` ("set") or the user has ("kept"), by OMP_NUM_THREADS ("openmp"),
    by the rank's cpus ("mask"), or by nothing that a plan can set ("unreached")."""

    name: str
    how: str
    variable: str = ""
    value: str = ""


class Task(Record):
    """A launch as a rank of the engine that started it; false without an engine. None: unknown.

    `rank` of `ranks` in the whole job, `local_rank` of `local_ranks` on this node, which is `node`
    of `nodes`; `by`: how the engine is known; `passed_over`: other engines that are seen, each with
    the reason; `job`: what the ranks of one job have in common; `uneven`: whether nodes have
    different numbers of ranks; `sharing`: "own", "all" or "some", of which ranks its cpus are, and
    `why`; `note`: what was decided that a user may not expect.
    """

    engine: str = ""
    label: str = ""
    rank: int | None = None
    ranks: int | None = None
    local_rank: int | None = None
    local_ranks: int | None = None
    node: int | None = None
    nodes: int | None = None
    by: str = ""
    passed_over: tuple[tuple[str, str], ...] = ()
    job: str = ""
    uneven: bool = False
    sharing: str = ""
    why: str = ""
    note: str = ""

    def __bool__(self) -> bool:
        return bool(self.engine)

    @property
    def key(self) -> str:
        """What tells this rank from all others."""
        return f"{self.job}/{'' if self.rank is None else self.rank}"


def describe_numbers(task: Task) -> str:
    """Return a rank's numbers in its job and on its node, `?` for one that is not known."""
    numbers = (task.rank, task.ranks, task.local_rank, task.local_ranks)
    rank, ranks, local_rank, local_ranks = ("?" if n is None else n for n in numbers)
    return f"rank {rank} of {ranks}, {local_rank} of {local_ranks} on this node"


class World(Record):
    """Where the ranks of a plan stand among all ranks of a job: rank r of the plan is `first` + r
    of `size`, and on this node `local_first` + r of `local_size`. `only`: the rank of the plan that
    this process starts, None for all."""

    first: int
    size: int
    local_first: int
    local_size: int
    only: int | None = None


class Numbers(Record):
    """A rank's number among all ranks of its job, `rank` of `size`, and among those on its node."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1

    @classmethod
    def make(cls, world: World, rank: int) -> Numbers:
        """Return the numbers of a plan's rank."""
        local = world.local_first + rank
        return cls(world.first + rank, world.size, local, world.local_size)

    def environment(self) -> tuple[tuple[str, str], ...]:
        """Return the variables that torch.distributed and others take these numbers from."""
        return (
            ("RANK", str(self.rank)),
            ("LOCAL_RANK", str(self.local_rank)),
            ("WORLD_SIZE", str(self.size)),
            ("LOCAL_WORLD_SIZE", str(self.local_size)),
        )


class Binding(Record):
    """What a process is bound to, and by what. `cpus`: empty for any; `mem`: one of POLICIES;
    `mems`: the nodes of that policy; `binder`: one of BINDERS; `balancing`: of "bind", whether the
    kernel may migrate pages among its nodes (MPOL_F_NUMA_BALANCING)."""

    cpus: CpuSet = CpuSet()
    mem: str = "none"
    mems: CpuSet = CpuSet()
    binder: str = "native"
    balancing: bool = False

    @property
    def is_recent(self) -> bool:
        """Whether older kernels, and older versions of numactl, lack its memory policy."""
        several = self.mem == "preferred" and len(self.mems) > 1
        return several or self.balancing or self.mem == "weighted-interleave"

    def numactl(self) -> tuple[str, ...]:
        """Return `numactl` and its options; () when there is nothing to bind.

        Cpus by number, never by node: --cpunodebind widens past an inherited mask and refuses a
        node without memory (numactl/numactl#127).
        """
        options: list[str] = []
        if self.cpus:
            options.append(f"--physcpubind={self.cpus}")
        if self.mem == "local":
            options.append("--localalloc")
        elif self.mem != "none":
            options += ["--balancing"] if self.balancing else []  # it counts before --membind only
            option = "membind" if self.mem == "bind" else self.mem
            option += "-many" if self.mem == "preferred" and len(self.mems) > 1 else ""
            options.append(f"--{option}={self.mems}")
        return ("numactl", *options) if options else ()

    def make_argv(self, command: tuple[str, ...]) -> tuple[str, ...]:
        """Return what is executed for a command: numactl with it where numactl binds, else itself.

        A `--` separates them only where the command begins with a dash.
        """
        words = self.numactl() if self.binder == "numactl" else ()
        fence = ("--",) if words and command and command[0].startswith("-") else ()
        return (*words, *fence, *command)

    def parse_argv(self, argv: tuple[str, ...]) -> tuple[str, ...]:
        """Return the command of which `make_argv` made this. Raises ParseError for an argv that
        does not bind as this binding says."""
        words = self.numactl() if self.binder == "numactl" else ()
        if argv[: len(words)] != words or (not words and argv[:1] == ("numactl",)):
            raise ParseError("argv does not bind as cpus, mem and mems say", part="argv")
        command = argv[len(words) :]
        return command[1:] if words and command[:1] == ("--",) else command

    def environment(self) -> tuple[tuple[str, str], ...]:
        """Return the variables that advertise the binding: cpus `0-3`, "" for any, and memory."""
        return (CPUS_VARIABLE, str(self.cpus)), (MEMORY_VARIABLE, self.write_memory())

    def write_memory(self) -> str:
        """Return the memory policy as the kernel writes it, but by our names: `bind:0`, `local`,
        `none`, `bind=balancing:0-1`."""
        policy = f"{self.mem}=balancing" if self.balancing else self.mem
        return f"{policy}:{self.mems}" if self.mems else policy

    def without(self, parts: Collection[str]) -> Binding:
        """Return the binding without some of its parts: "cpus", "memory"; without "numactl" the
        same by system calls."""
        return Binding(
            CpuSet() if "cpus" in parts else self.cpus,
            "none" if "memory" in parts else self.mem,
            CpuSet() if "memory" in parts else self.mems,
            "native" if "numactl" in parts else self.binder,
            self.balancing and "memory" not in parts,
        )

    def keep_nodes(self, nodes: CpuSet) -> Binding:
        """Return the binding with only these of its memory nodes; with none left, memory is not
        bound."""
        kept = self.mems & nodes
        return self.replace(mems=kept) if kept or not self.mems else self.without(["memory"])


def describe_policy(mem: str, mems: CpuSet, *, balancing: bool = False) -> str:
    """Return a memory policy in words: `bind 0-1`, `local`, `bind 0-1 with balancing`."""
    words = f"{mem} {mems}".rstrip()
    return f"{words} with balancing" if balancing else words


class RankPlan(Record):
    """One worker. `rank`: its position in the plan; `numbers`: its own, where the plan has only a
    part of a job's ranks; `group`: the name of the group that it is in, "" without groups, and
    `group_numbers`: its numbers there, which are those that its program sees."""

    rank: int
    binding: Binding
    places: tuple[CpuSet, ...]  # in OpenMP's order; () where OMP_PLACES is not set
    nodes: CpuSet  # of its cpus
    env: tuple[tuple[str, str], ...]  # what is added to its environment
    unset: tuple[str, ...]  # what is removed from it, unless it is in env
    command: tuple[str, ...]  # without numactl, templates filled in
    gpus: tuple[str, ...] = ()
    why: str = ""  # the reason for its cpus, in a few words
    why_shared: str = ""  # the same without the part of a domain that this rank has
    numbers: Numbers | None = None
    group: str = ""
    group_numbers: Numbers | None = None
    accels: tuple[str, ...] = ()  # other accelerators, each as in the vendor's variable
    nics: tuple[str, ...] = ()  # as UCX and libfabric name them: "mlx5_0:1", "eth0"
    nics_why: str = ""  # the reason for these
    # Of weighted-interleave: how many pages in turn each node gets, as the kernel had it when the
    # plan was made.
    weights: tuple[tuple[int, int], ...] = ()
    mem_why: str = ""  # the reason for its memory nodes, where they are not those of its cpus
    need: int = 0  # bytes of memory that it must find; 0: nothing is said

    @property
    def name(self) -> str:
        """What it is called in tags and messages: `3`, or in groups `worker.3`, `router`."""
        if self.group_numbers is None:
            return str(self.number)
        alone = self.group_numbers.size == 1
        return self.group if alone else f"{self.group}.{self.group_numbers.rank}"

    @property
    def number(self) -> int:
        """Its number among all ranks of its job, by which it is called."""
        return self.rank if self.numbers is None else self.numbers.rank

    @property
    def local_rank(self) -> int:
        """Its number among the ranks on its node."""
        return self.rank if self.numbers is None else self.numbers.local_rank

    @property
    def cpus(self) -> CpuSet:
        return self.binding.cpus

    @property
    def mem(self) -> str:
        return self.binding.mem

    @property
    def mems(self) -> CpuSet:
        """The nodes of its memory policy."""
        return self.binding.mems

    @property
    def preloads(self) -> tuple[str, ...]:
        """The files that its environment preloads, in their order."""
        return split_preload(dict(self.env).get(PRELOAD_VARIABLE, ""))

    @property
    def devices(self) -> list[tuple[str, str, tuple[str, ...]]]:
        """Its devices of each kind in DEVICES of which it has some, after the kind's two names."""
        rows = [(short, noun, getattr(self, field)) for field, short, noun in DEVICES]
        return [row for row in rows if row[2]]

    @property
    def argv(self) -> tuple[str, ...]:
        """Exactly what is executed."""
        return self.binding.make_argv(self.command)

    def rebind(self, binding: Binding) -> RankPlan:
        """Return the rank with another binding, also in its environment."""
        env = dict(self.env) | dict(binding.environment())
        return self.replace(binding=binding, env=tuple(env.items()))


class Group(Record):
    """Ranks of one command among those of a launch with several. `command`: as the user gave it,
    templates not filled in; `after`: the groups that must be ready before its ranks are executed;
    `ready`: by what it is known that it is (see launch/ready.py), all of these; () for as soon as
    its ranks have been executed."""

    name: str
    ranks: CpuSet
    command: tuple[str, ...] = ()
    template: bool = False
    after: tuple[str, ...] = ()
    ready: tuple[str, ...] = ()
    background: bool = False  # ended when all other groups have exited


class ServerWorker(Record):
    """A worker that a server starts and binds, as it is told to."""

    worker: int
    cpus: CpuSet
    nodes: CpuSet  # of its cpus
    mem: str
    mems: CpuSet
    gpus: tuple[str, ...] = ()
    why: str = ""  # the reason for its cpus, in a few words


class Server(Record):
    """A server's workers in the plan of its one process, which is rank 0, and how it is told of
    them: by a variable of the rank's environment, or by words added to its command."""

    engine: str  # as --serve names it
    name: str  # as people do
    version: str  # "" where it is not known
    workers: tuple[ServerWorker, ...]
    rest: CpuSet  # what no worker gets of its cpus, for its engine and its front end
    variable: str = ""
    words: tuple[str, ...] = ()


class WarmFile(Record):
    """A file that is read into memory before the ranks start. `bytes`: its size; `mem`, `mems`:
    "preferred" for one node, "interleave" for several, "none" where there is nothing to choose."""

    path: str
    bytes: int
    mem: str
    mems: CpuSet


class Caution(Record):
    """A warning that goes with a plan: its kind, a word that programs may test, and its text.

    The kinds: "exclude", "no-binding", "no-cores", "no-numa", "uneven", "oversubscribed",
    "threads", "shared-threads", "quota", "isolated", "shared-core", "memory", "gpu",
    "accel", "nic", "numa-balancing", "neighbours", "engine", "fix", "openmp", "preload", "idle";
    "" in a plan saved before there were kinds. `hint`: what to do about it, where the text does not
    say it.
    """

    kind: str
    text: str
    hint: str = ""


class Plan(Record):
    """All ranks, and what explains them."""

    host: Host
    ranks: tuple[RankPlan, ...]
    reserved: CpuSet = CpuSet()
    roles: tuple[Role, ...] = ()
    unused: CpuSet = CpuSet()  # allowed cpus of cores that no rank got
    part: str = ""  # "1/2" is the first half of the machine; "" is all of it
    others: CpuSet = CpuSet()  # the cpus of the other parts
    excluded: CpuSet = CpuSet()  # allowed cpus that --exclude keeps out, with their cores
    cautions: tuple[Caution, ...] = ()
    inherited: tuple[Inherited, ...] = ()  # variables
    command: tuple[str, ...] = ()  # the worker's as the user gave it, templates not filled in
    template: bool = False
    places_why: str = ""  # what a place is, and the reason; "" where no places are set
    omp: str = "all"  # which of OpenMP's variables are set: one of OMP_MODES
    omp_why: str = ""  # the reason, where it is not all
    server: Server | None = None  # where the command starts workers by this plan
    narrowed: tuple[Inherited, ...] = ()  # restrictions
    reset_inherited: bool = False  # whether the launcher's own mask and policy are reset first
    task: Task = Task()  # what this launch is for the engine that started it
    groups: tuple[Group, ...] = ()  # of ranks with commands of their own; () for one command
    warm: tuple[WarmFile, ...] = ()
    pools: tuple[ThreadPool, ...] = ()  # of threads beside OpenMP's; () where they are left alone
    huge_pages: str = ""  # "thp" or "2M", which ranks' allocators take; "" where nobody asks

    @property
    def warnings(self) -> tuple[str, ...]:
        """The texts of the plan's warnings."""
        return tuple(caution.text for caution in self.cautions)

    def warn(self, *cautions: Caution) -> Plan:
        """Return the plan with further warnings."""
        return self.replace(cautions=(*self.cautions, *cautions))

    def bind_natively(self) -> Plan:
        """Return the plan with the same bindings by system calls, where numactl is the binder."""
        if self.binder != "numactl":
            return self
        return self.replace(
            ranks=tuple(r.rebind(r.binding.without(["numactl"])) for r in self.ranks)
        )

    def numbers_of(self, rank: RankPlan) -> Numbers:
        """Return a rank's numbers."""
        count = len(self.ranks)
        return rank.group_numbers or rank.numbers or Numbers(rank.rank, count, rank.rank, count)

    @property
    def omp_text(self) -> str:
        """What is left alone of OpenMP's variables, and why; "" where all are set."""
        if self.omp == "all":
            return ""
        what = "are left alone" if self.omp == "off" else "but OMP_NUM_THREADS are left alone"
        return f"OpenMP's variables {what}: {self.omp_why}"

    @property
    def binder(self) -> str:
        """The binder, the same for all ranks."""
        return self.ranks[0].binding.binder

    @property
    def names_threads(self) -> bool:
        """Whether a role names threads, which somebody then must put on its cpus."""
        return any(role.threads for role in self.roles)

    def held_by(self, rank: RankPlan) -> CpuSet:
        """Return the cpus that a rank has for itself: its own, and those of its roles."""
        return union([rank.cpus, *(r.cpus for r in self.roles if rank.rank in r.ranks)])

    @property
    def taken(self) -> CpuSet:
        """The cpus that have an owner: a rank, a role, other work, another part."""
        owned = [r.cpus for r in self.ranks] + [role.cpus for role in self.roles]
        return union([*owned, self.reserved, self.others])

    @property
    def idle(self) -> CpuSet:
        """The allowed cpus that nothing else explains: further hardware threads of cores in use,
        and cores that --kind or --near passes over."""
        return self.host.allowed - self.taken - self.unused - self.excluded

    def to_json(self, explanation: Sequence[str] = (), **more: object) -> str:
        """Return the documented JSON object, as text that ends in a newline. `more`: fields that
        the plan does not have by itself."""
        import json

        extra = {"explanation": list(explanation)} if explanation else {}
        return json.dumps(self.to_dict() | more | extra, indent=1) + "\n"

    def task_to_dict(self) -> dict[str, Any] | None:
        """Return the JSON of `task`; None where no engine is seen at all."""
        task = self.task
        if task == Task():
            return None
        numbers = self.numbers_of(self.ranks[0])
        passed_over = [{"name": name, "why": why} for name, why in task.passed_over]
        return {
            "name": task.engine,
            **{field: getattr(task, field) for field in TASK_TEXTS + TASK_NUMBERS},
            "world_size": numbers.size,
            "local_world_size": numbers.local_size,
            "passed_over": passed_over,
        }

    def to_dict(self) -> dict[str, Any]:
        host = self.host
        return {
            "schema": SCHEMA,
            "host": {
                "name": host.name,
                "cpus": str(host.cpus),
                "allowed": str(host.allowed),
                "nodes": str(host.nodes),
                "quota": host.quota,
            },
            "ranks": [
                {
                    "rank": r.rank,
                    "global_rank": r.number,
                    "local_rank": r.local_rank,
                    "cpus": str(r.cpus),
                    "places": [str(p) for p in r.places],
                    "nodes": str(r.nodes),
                    "mem": r.mem,
                    "mems": str(r.mems),
                    **{field: list(getattr(r, field)) for field, _, _ in DEVICES},
                    "nics_why": r.nics_why,
                    "env": dict(r.env),
                    "unset": list(r.unset),
                    "argv": list(r.argv),
                    "why_shared": r.why_shared,
                    "why": r.why,
                    **memory_to_dict(r),
                    **group_to_dict(r),
                    **({"preload": list(r.preloads)} if r.preloads else {}),
                }
                for r in self.ranks
            ],
            **({"groups": [groups_entry(g) for g in self.groups]} if self.groups else {}),
            "places_why": self.places_why,
            **({"huge_pages": self.huge_pages} if self.huge_pages else {}),
            **({"pools": [pool_entry(pool) for pool in self.pools]} if self.pools else {}),
            "omp": self.omp,
            "omp_why": self.omp_why,
            "server": None if self.server is None else server_to_dict(self.server),
            "binder": self.binder,
            "reserved": str(self.reserved),
            "roles": [
                {
                    "name": r.name,
                    "cpus": str(r.cpus),
                    "ranks": str(r.ranks),
                    "threads": list(r.threads),
                }
                for r in self.roles
            ],
            "unused": str(self.unused),
            "part": self.part,
            "others": str(self.others),
            "excluded": str(self.excluded),
            "idle": str(self.idle),
            "warnings": list(self.warnings),
            "warning_kinds": [caution.kind for caution in self.cautions],
            "warning_hints": [caution.hint for caution in self.cautions],
            "inherited": [dict(vars(i)) for i in self.inherited],
            "narrowed": [dict(vars(i)) for i in self.narrowed],
            "reset_inherited": self.reset_inherited,
            "engine": self.task_to_dict(),
            "command": list(self.command),
            "template": self.template,
            "warm": [
                {"file": f.path, "bytes": f.bytes, "mem": f.mem, "mems": str(f.mems)}
                for f in self.warm
            ],
        }


def memory_to_dict(rank: RankPlan) -> dict[str, Any]:
    """Return the fields of a rank that only some options about memory give it."""
    fields: dict[str, Any] = {"mem_balancing": True} if rank.binding.balancing else {}
    if rank.weights:
        fields["mem_weights"] = {str(node): weight for node, weight in rank.weights}
    if rank.mem_why:
        fields["mem_why"] = rank.mem_why
    if rank.need:
        fields["mem_need_bytes"] = rank.need
    return fields


def group_to_dict(rank: RankPlan) -> dict[str, Any]:
    """Return the fields of a rank that is in a group."""
    if rank.group_numbers is None:
        return {}
    return {"group": rank.group, "group_rank": rank.group_numbers.rank}


def is_called(name: str, patterns: Sequence[str]) -> bool:
    """Whether a thread's name is like one of a role's patterns."""
    from fnmatch import fnmatchcase

    return any(fnmatchcase(name, pattern) for pattern in patterns)


def is_group_name(text: str) -> bool:
    """Whether it can be a group's name, also in tags, in names of files and in templates."""
    plain = text.replace("-", "a").replace("_", "a")
    return text.isascii() and text[:1].isalpha() and plain.isalnum() and len(text) <= 40


def groups_entry(group: Group) -> dict[str, Any]:
    return {
        "name": group.name,
        "ranks": str(group.ranks),
        "command": list(group.command),
        "template": group.template,
        "after": list(group.after),
        "ready": list(group.ready),
        "background": group.background,
    }


def pool_entry(pool: ThreadPool) -> dict[str, str]:
    return {"name": pool.name, "how": pool.how, "variable": pool.variable}


def server_to_dict(server: Server) -> dict[str, Any]:
    return {
        "engine": server.engine,
        "name": server.name,
        "version": server.version,
        "workers": [
            {
                "worker": w.worker,
                "cpus": str(w.cpus),
                "nodes": str(w.nodes),
                "mem": w.mem,
                "mems": str(w.mems),
                "gpus": list(w.gpus),
                "why": w.why,
            }
            for w in server.workers
        ],
        "rest": str(server.rest),
        "variable": server.variable,
        "words": list(server.words),
    }
