"""Which engine started this process, as which of its ranks, and what the ranks beside it share.

Several engines are normal: every MPI launcher inside a Slurm allocation has Slurm's variables, too,
and srun passes on those of what submitted it. The innermost one counts; it is the one whose daemon
is the nearest ancestor. Given the environment and the processes above; starts and sets nothing.

At the end is their table, in this file because every rank of an engine waits for each. Sources:
srun(1) of Slurm 22.05, OUTPUT ENVIRONMENT VARIABLES; mpirun(1) of Open MPI 4.1; the environment
page of Open MPI 5.0's manual; MPICH's and Intel MPI's hydra as recorded from runs;
flux-environment(7); ALCF's pages on PALS; torch/distributed/run.py. What MVAPICH and jsrun set is
by public code that reads it, as neither could be run.
"""

from __future__ import annotations

from ompbind.cpuset import CpuSet, parse_whole
from ompbind.errors import ParseError, UsageError
from ompbind.machine import living_root
from ompbind.machine.limits import find_ancestors, read_status, read_variables
from ompbind.messages import quote
from ompbind.plans import ENGINE_TASK, Inherited, Task
from ompbind.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ompbind.machine.limits import Ancestor
    from ompbind.machine.roots import LivingRoot

    # An engine, how it is known, and the process that started this rank; None: it cannot be seen.
    Started = tuple["Engine", str, Ancestor | None]

# Steps of Slurm that have no tasks of a user: 0xfffffffa to 0xffffffff, of which the first is the
# shell of `salloc` and the second a batch script. Source: Slurm's slurm_common.h.
FIRST_SPECIAL_STEP = 0xFFFFFFFA
MOST_TASKS = 1 << 16  # on one node
BY_HAND = "--rank R --ranks N gives the rank by hand, --engine none leaves the engine out"


class Engine(Record):
    """One engine.

    How a rank of it is known. `needs`: the variables that each of its ranks has; `one_of`: of these
    it has at least one, () for no such condition, which tells it from an engine with the same
    variables; `prefixes`: a variable and how its value begins, where another engine sets it, too;
    `daemons`: the names of the processes that start its ranks, cut to 15 characters by the kernel.

    Where its ranks find their numbers, by variables of which the first that is set counts. `rank`,
    `size`: in the whole job; `local_rank`, `local_size`: on this node; `node`, `nodes`: the node's
    number and how many there are; `counts`: the tasks of each node, as in `2(x3),1`; `members`:
    the ranks of this node, as in `0,2`; `hosts`: the nodes' names, as in `n[0-3,7]`.

    What else it says. `job`: the variables that together name the job; `masks`: those by which it
    says what it bound to (see `sharing`); `asked`: one of these is set where the user has chosen a
    binding; `bound`: set where it has bound the ranks and says so. `unbind`: the option of its own
    that leaves masks alone; `crowd`: why it may have started more ranks than there are cpus.
    """

    name: str
    label: str
    needs: tuple[str, ...]
    daemons: tuple[str, ...]
    one_of: tuple[str, ...] = ()
    prefixes: tuple[tuple[str, str], ...] = ()
    rank: tuple[str, ...] = ()
    size: tuple[str, ...] = ()
    local_rank: tuple[str, ...] = ()
    local_size: tuple[str, ...] = ()
    node: tuple[str, ...] = ()
    nodes: tuple[str, ...] = ()
    counts: tuple[str, ...] = ()
    members: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    job: tuple[str, ...] = ()
    masks: tuple[str, ...] = ()
    asked: tuple[str, ...] = ()
    bound: tuple[str, ...] = ()
    unbind: str = ""
    crowd: str = ""


class Found(Record):
    """What `find_task` returns. `task`: false where this process is no rank of an engine; `engine`:
    its row of the table; `daemon`: the affinity mask of the process that started it, and `mask` its
    own, None where it cannot be seen; `user_threads`: whether OMP_NUM_THREADS is
    the user's, and not the engine's."""

    task: Task
    engine: Engine | None = None
    daemon: CpuSet | None = None
    user_threads: bool = True
    mask: CpuSet | None = None

    @property
    def seems_bound(self) -> bool:
        """Whether this rank probably has a mask of its own: then nothing is to be divided."""
        count = self.task.local_ranks
        if self.engine is None or count is None or count == 1:
            return self.engine is not None
        if not self.mask or not self.daemon:
            return False
        return len(self.mask) * count <= len(self.daemon)


def find_task(environ: Mapping[str, str], root: LivingRoot, name: str | None = None) -> Found:
    """Return this process as a rank of the innermost engine, or of the engine `name`, which is none
    for "none". Raises UsageError for an engine whose variables are missing or make no sense."""
    if name == "none":
        return Found(Task(by="--engine none"))
    seen = [engine for engine in ENGINES if is_seen(engine, environ)]
    passed_over = list_no_ranks(environ)
    if name is not None:
        named = [engine for engine in seen if engine.name == name]
        if not named:
            raise not_seen(name)
        this = read_status(root, "self")
        engine, by, daemon = find_daemon(named[0], root, this)
    elif not seen:
        return Found(Task(passed_over=passed_over))
    else:
        this = read_status(root, "self")
        engine, by, daemon = find_innermost(seen, environ, root, this)
    nearer = daemon.name if daemon else "as its ranks start inside those of others"
    others = tuple(
        (other.label, f"{engine.label} is nearer ({nearer})")
        for other in seen
        if other.name != engine.name and other.needs != engine.needs
    )
    job = name_job(engine, environ, str(daemon.pid) if daemon else "")
    task = make_task(engine, environ, by)
    task = task.replace(job=job, passed_over=(*others, *passed_over))
    if is_bound_already(task, environ, this.cpus):
        why = "this process is inside a rank that ompbind has bound"
        return Found(Task(passed_over=((engine.label, why), *task.passed_over)))
    if engine.name == "slurm" and task.ranks == 1:
        why = "a step of one task, as srun --pty makes"
        return Found(Task(passed_over=((engine.label, why), *task.passed_over)))
    return Found(
        task,
        engine,
        daemon.cpus if daemon else None,
        is_user_setting("OMP_NUM_THREADS", engine, daemon, environ, root),
        this.cpus,
    )


def find_rank(
    rank: int | tuple[str, int | None] | None, name: str | None, environ: Mapping[str, str]
) -> Found:
    """Return this process as a rank: the one that is given by hand, else that of an engine. Raises
    UsageError."""
    if rank is None:
        return find_task(environ, living_root(), name)
    from ompbind.engines.by_hand import make_hand_task, read_rank

    number = rank if isinstance(rank, int) else read_rank(*rank, environ)
    return Found(make_hand_task(number))


def explain_threads(found: Found, environ: Mapping[str, str]) -> Inherited:
    """Return what becomes of OMP_NUM_THREADS where the engine has set it, not the user."""
    name, label = "OMP_NUM_THREADS", found.task.label
    why = f"{label} has set it, not the user; --threads {environ[name]} keeps it"
    return Inherited(name, environ[name], "overridden", why)


def names() -> tuple[str, ...]:
    """Return what --engine takes, without `none`."""
    return tuple(dict.fromkeys(engine.name for engine in ENGINES))


# --- which engine --------------------------------------------------------------------------------


def is_seen(engine: Engine, environ: Mapping[str, str]) -> bool:
    """Whether the environment is that of a rank of this engine, or was inherited from one."""
    if any(name not in environ for name in engine.needs):
        return False
    if engine.one_of and not any(name in environ for name in engine.one_of):
        return False
    if engine.name == "slurm" and is_special_step(environ):
        return False
    return all(environ.get(name, "").startswith(start) for name, start in engine.prefixes)


def is_special_step(environ: Mapping[str, str]) -> bool:
    """Whether a Slurm step is the shell of an allocation or a batch script."""
    number = parse_whole(environ.get("SLURM_STEP_ID", ""))
    return number is not None and number >= FIRST_SPECIAL_STEP


def list_no_ranks(environ: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """Return what looks like a rank and is none, with the reason."""
    if "SLURM_PROCID" in environ and ("SLURM_STEP_ID" not in environ or is_special_step(environ)):
        return (("Slurm", "a batch script or the shell of an allocation is no task of a step"),)
    return ()


def not_seen(name: str) -> UsageError:
    needs = next(engine.needs for engine in ENGINES if engine.name == name)
    return UsageError(
        f"--engine {name}: the environment has no {' and '.join(needs)}",
        hint="ompbind show says which engine is seen; " + BY_HAND.partition(",")[0],
        option="--engine",
    )


def find_daemon(engine: Engine, root: LivingRoot, this: Ancestor) -> Started:
    """Return an engine that is given by name, with its nearest daemon."""
    for ancestor in find_ancestors(root, this.parent):
        if ancestor.name in engine.daemons:
            return engine, f"--engine {engine.name}", ancestor
    return engine, f"--engine {engine.name}", None


def find_innermost(
    seen: Sequence[Engine], environ: Mapping[str, str], root: LivingRoot, this: Ancestor
) -> Started:
    """Return the engine that started this process, or what this process runs in, last.

    Up through the ancestors: the first whose name is that of a daemon of one of these engines; or
    the first that was started without one of these engines' rank as it is here, so that the engine
    stands between it and this process, or is itself that process under another name. Where no
    ancestor says it, the first of `seen`.
    """
    slurm = next((engine for engine in seen if engine.name == "slurm"), None)
    task_pid = parse_whole(environ.get("SLURM_TASK_PID", "")) if slurm else None
    if slurm and task_pid and this.pid == task_pid:
        # Nothing stands between srun's task and itself. In a pid namespace the number is another.
        daemon = next(find_ancestors(root, this.parent), None)
        if daemon is not None and daemon.name in slurm.daemons:
            return slurm, explain(slurm, daemon.name, daemon.pid), daemon
        return slurm, explain(slurm, "SLURM_TASK_PID is this process"), None
    for ancestor in find_ancestors(root, this.parent):
        for engine in seen:
            if ancestor.name in engine.daemons:
                return engine, explain(engine, ancestor.name, ancestor.pid), ancestor
        variables = read_variables(root, ancestor.pid)
        if variables is None:
            continue
        for engine in seen:
            rank = next(name for name in engine.rank if name in environ)
            if variables.get(rank) != environ[rank]:
                how = explain(engine, ancestor.name or "a parent", ancestor.pid)
                return engine, how, ancestor
        if slurm and ancestor.pid == task_pid:
            return slurm, explain(slurm, "SLURM_TASK_PID is an ancestor"), None
    return seen[0], explain(seen[0], "no process above says more"), None


def explain(engine: Engine, how: str, pid: int = 0) -> str:
    """Return by which variables an engine is known, and by what it is the innermost."""
    process = f"started by {how} (pid {pid})" if pid else how
    return f"{', '.join(engine.needs)}; {process}"


def is_bound_already(task: Task, environ: Mapping[str, str], mask: CpuSet | None) -> bool:
    """Whether this process runs inside the very rank, which ompbind has bound: its variables name
    the same task, and its mask is within the rank's cpus."""
    if environ.get(ENGINE_TASK) != task.key:
        return False
    try:
        cpus = CpuSet.parse_kernel(environ.get("OMPBIND_CPUS", ""))
    except ParseError:
        return False
    return bool(cpus) and (mask is None or mask <= cpus)


def is_user_setting(
    name: str,
    engine: Engine,
    daemon: Ancestor | None,
    environ: Mapping[str, str],
    root: LivingRoot,
) -> bool:
    """Whether the user has set a variable, and not torchrun, which sets OMP_NUM_THREADS=1 for
    several ranks where it is not set: then torchrun itself was started without it.

    Where torchrun's own environment cannot be read, 1 is taken to be torchrun's.
    """
    if engine.name != "torchrun" or environ.get(name) != "1":
        return True
    if environ.get("LOCAL_WORLD_SIZE") == "1":
        return True
    variables = None if daemon is None else read_variables(root, daemon.pid)
    return variables is not None and name in variables


# --- its numbers ---------------------------------------------------------------------------------


def make_task(engine: Engine, environ: Mapping[str, str], by: str) -> Task:
    """Return this process as a rank of an engine, with the numbers that the engine gives; None is
    unknown. Raises UsageError for numbers that make no sense."""

    def number(variables: tuple[str, ...]) -> int | None:
        return read_number(engine, environ, variables)

    rank, ranks = number(engine.rank), number(engine.size)
    node, nodes = number(engine.node), number(engine.nodes)
    local_ranks = number(engine.local_size)
    members = read_list(environ, engine.members)
    counts = read_counts(environ, engine.counts)
    if local_ranks is None and counts and node is not None and node < len(counts):
        local_ranks = counts[node]
    if local_ranks is None and members:
        local_ranks = len(members)
    if local_ranks is None and ranks is not None and nodes is not None:
        # Flux says neither: tasks are distributed evenly unless asked otherwise.
        local_ranks = ranks // nodes if nodes and ranks % nodes == 0 else None
    local_rank = number(engine.local_rank)
    if local_rank is None and rank in members:
        local_rank = members.index(rank)
    if local_rank is None and local_ranks == 1:
        local_rank = 0
    if nodes is None and ranks is not None:
        # One rank on each node, where the engine starts as many everywhere.
        nodes = ranks if local_ranks == 1 else 1 if local_ranks == ranks else None
        if node is None and nodes is not None:
            node = rank if local_ranks == 1 else 0
    task = Task(
        engine.name, engine.label, rank, ranks, local_rank, local_ranks, node, nodes, by=by,
        uneven=len(set(counts)) > 1,
    )  # fmt: skip
    check_numbers(task)
    return task


def read_number(
    engine: Engine, environ: Mapping[str, str], variables: tuple[str, ...]
) -> int | None:
    """Return the number in the first of these variables that is set, None where none is. Raises
    UsageError."""
    for name in variables:
        if name in environ:
            value = parse_whole(environ[name])
            if value is None:
                problem = f"{name}={quote(environ[name])} is not a whole number"
                raise UsageError(f"{engine.label}: {problem}", hint=BY_HAND)
            return value
    return None


def check_numbers(task: Task) -> None:
    """Raises UsageError for numbers that contradict each other."""
    problem = ""
    if task.rank is not None and task.ranks is not None and task.rank >= task.ranks:
        problem = f"rank {task.rank} of {task.ranks}"
    elif (
        task.local_rank is not None
        and task.local_ranks is not None
        and not task.local_rank < task.local_ranks <= MOST_TASKS
    ):
        problem = f"local rank {task.local_rank} of {task.local_ranks}"
    elif task.ranks is not None and (task.local_ranks or 0) > task.ranks:
        problem = f"{task.local_ranks} local ranks of {task.ranks}"
    if problem:
        raise UsageError(f"{task.label} gives numbers that cannot be: {problem}", hint=BY_HAND)


def read_list(environ: Mapping[str, str], variables: tuple[str, ...]) -> list[int]:
    """Return the numbers of a list such as `0,2`; [] where it is not set, or is no such list."""
    text = next((environ[name] for name in variables if name in environ), "")
    numbers = [parse_whole(word) for word in text.split(",")]
    return [n for n in numbers if n is not None] if None not in numbers else []


def read_counts(environ: Mapping[str, str], variables: tuple[str, ...]) -> list[int]:
    """Return the tasks of each node by the first of these variables that is set; []: unknown."""
    text = next((environ[name] for name in variables if name in environ), "")
    return parse_counts(text)


def parse_counts(text: str, most: int = MOST_TASKS) -> list[int]:
    """Parse Slurm's `2(x3),1`, the tasks of each node: 2, 2, 2 and 1; [] for anything else."""
    counts: list[int] = []
    for word in text.split(","):
        count, times, rest = word.partition("(x")
        numbers = parse_whole(count), parse_whole(rest[:-1]) if times else 1
        if numbers[0] is None or not numbers[1] or (times and rest[-1:] != ")"):
            return []
        if len(counts) + numbers[1] > most:
            return []
        counts += [numbers[0]] * numbers[1]
    return counts


def name_job(engine: Engine, environ: Mapping[str, str], daemon: str) -> str:
    """Return what the ranks of one job on this node have in common: by the engine's variables, or
    by the process that started them all."""
    words = [environ[name] for name in engine.job if name in environ] or [daemon]
    return ":".join((engine.name, *words))


# --- the engines, one row each -------------------------------------------------------------------

# Where no ancestor can be seen, the first of these that has set its variables is taken: what runs
# inside another's ranks stands before it.
ENGINES: tuple[Engine, ...] = (
    Engine(
        "torchrun",
        "torchrun",
        needs=("TORCHELASTIC_RUN_ID", "LOCAL_RANK", "RANK"),
        daemons=("pt_elastic", "torchrun"),
        rank=("RANK",),
        size=("WORLD_SIZE",),
        local_rank=("LOCAL_RANK",),
        local_size=("LOCAL_WORLD_SIZE",),
        node=("GROUP_RANK",),
        nodes=("GROUP_WORLD_SIZE",),
        job=("TORCHELASTIC_RUN_ID",),
        unbind="torchrun without --numa-binding",
        crowd="torchrun --nproc-per-node",
    ),
    Engine(
        "openmpi",
        "Open MPI 5",
        needs=("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_LOCAL_RANK"),
        one_of=("PRTE_LAUNCHED", "OMPI_VERSION"),
        daemons=("prterun", "prted", "prte", "mpirun", "mpiexec"),
        rank=("OMPI_COMM_WORLD_RANK",),
        size=("OMPI_COMM_WORLD_SIZE",),
        local_rank=("OMPI_COMM_WORLD_LOCAL_RANK",),
        local_size=("OMPI_COMM_WORLD_LOCAL_SIZE",),
        job=("PMIX_NAMESPACE",),
        unbind="mpirun --bind-to none",
        crowd="mpirun --oversubscribe",
    ),
    Engine(
        "openmpi",
        "Open MPI 4",
        needs=("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_LOCAL_RANK"),
        daemons=("mpirun", "mpiexec", "orterun", "orted", "mpirun.openmpi", "mpiexec.openmpi",
                 "prterun", "prted"),
        rank=("OMPI_COMM_WORLD_RANK",),
        size=("OMPI_COMM_WORLD_SIZE",),
        local_rank=("OMPI_COMM_WORLD_LOCAL_RANK",),
        local_size=("OMPI_COMM_WORLD_LOCAL_SIZE",),
        job=("PMIX_NAMESPACE",),
        asked=("OMPI_MCA_hwloc_base_binding_policy",),
        bound=("OMPI_MCA_orte_bound_at_launch",),
        unbind="mpirun --bind-to none",
        crowd="mpirun --oversubscribe",
    ),
    Engine(
        "intelmpi",
        "Intel MPI",
        needs=("PMI_RANK", "MPI_LOCALRANKID"),
        one_of=("I_MPI_PIN_INFO", "I_MPI_PIN_MAPPING"),
        daemons=("hydra_pmi_proxy",),
        rank=("PMI_RANK",),
        size=("PMI_SIZE",),
        local_rank=("MPI_LOCALRANKID",),
        local_size=("MPI_LOCALNRANKS",),
        masks=("I_MPI_PIN_MAPPING",),
        unbind="I_MPI_PIN=0",
        crowd="mpiexec -n",
    ),
    Engine(
        "mvapich",
        "MVAPICH",
        needs=("MV2_COMM_WORLD_RANK", "MV2_COMM_WORLD_LOCAL_RANK"),
        daemons=("mpispawn", "hydra_pmi_proxy", "mpirun_rsh"),
        rank=("MV2_COMM_WORLD_RANK",),
        size=("MV2_COMM_WORLD_SIZE",),
        local_rank=("MV2_COMM_WORLD_LOCAL_RANK",),
        local_size=("MV2_COMM_WORLD_LOCAL_SIZE",),
        unbind="MV2_ENABLE_AFFINITY=0",
        crowd="mpirun_rsh -np",
    ),
    Engine(
        "mpich",
        "MPICH",
        needs=("PMI_RANK", "MPI_LOCALRANKID"),
        daemons=("hydra_pmi_proxy",),
        rank=("PMI_RANK",),
        size=("PMI_SIZE",),
        local_rank=("MPI_LOCALRANKID",),
        local_size=("MPI_LOCALNRANKS",),
        asked=("HYDRA_USER_PROVIDED_BINDING",),
        unbind="mpiexec -bind-to none",
        crowd="mpiexec -n",
    ),
    Engine(
        "prrte",
        "PRRTE",
        needs=("PMIX_RANK", "PMIX_NAMESPACE"),
        prefixes=(("PMIX_NAMESPACE", "prte"),),
        daemons=("prterun", "prted", "prte"),
        rank=("PMIX_RANK",),
        job=("PMIX_NAMESPACE",),
        unbind="prterun --bind-to none",
        crowd="prterun --map-by :oversubscribe",
    ),
    Engine(
        "pals",
        "PALS",
        needs=("PALS_RANKID", "PALS_LOCAL_RANKID"),
        daemons=("palsd",),
        rank=("PALS_RANKID", "PMI_RANK"),
        size=("PMI_SIZE", "PALS_SIZE"),
        local_rank=("PALS_LOCAL_RANKID", "PMI_LOCAL_RANK"),
        local_size=("PALS_LOCAL_SIZE", "PMI_LOCAL_SIZE"),
        node=("PALS_NODEID",),
        job=("PALS_APID",),
        unbind="mpiexec --cpu-bind none",
        crowd="mpiexec --ppn",
    ),
    Engine(
        "jsrun",
        "jsrun",
        needs=("JSM_NAMESPACE_RANK", "JSM_NAMESPACE_LOCAL_RANK"),
        daemons=("jsmd",),
        rank=("JSM_NAMESPACE_RANK",),
        size=("JSM_NAMESPACE_SIZE",),
        local_rank=("JSM_NAMESPACE_LOCAL_RANK",),
        local_size=("JSM_NAMESPACE_LOCAL_SIZE",),
        unbind="jsrun --bind none",
        crowd="jsrun --tasks_per_rs",
    ),
    Engine(
        "flux",
        "Flux",
        needs=("FLUX_TASK_RANK", "FLUX_TASK_LOCAL_ID"),
        daemons=("flux-shell",),
        rank=("FLUX_TASK_RANK",),
        size=("FLUX_JOB_SIZE",),
        local_rank=("FLUX_TASK_LOCAL_ID",),
        nodes=("FLUX_JOB_NNODES",),
        job=("FLUX_JOB_ID",),
        unbind="flux run -o cpu-affinity=off",
        crowd="flux run --tasks-per-core",
    ),
    Engine(
        "slurm",
        "Slurm",
        needs=("SLURM_STEP_ID", "SLURM_PROCID"),
        daemons=("slurmstepd",),
        rank=("SLURM_PROCID",),
        size=("SLURM_STEP_NUM_TASKS",),
        local_rank=("SLURM_LOCALID",),
        node=("SLURM_NODEID",),
        nodes=("SLURM_STEP_NUM_NODES",),
        counts=("SLURM_STEP_TASKS_PER_NODE",),
        members=("SLURM_GTIDS",),
        hosts=("SLURM_STEP_NODELIST", "SLURM_JOB_NODELIST"),
        job=("SLURM_JOB_ID", "SLURM_STEP_ID"),
        masks=("SLURM_CPU_BIND_TYPE", "SLURM_CPU_BIND_LIST"),
        unbind="srun --cpu-bind=none",
        crowd="srun --overcommit, or too few cpus allocated",
    ),
)  # fmt: skip
