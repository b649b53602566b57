"""The engines, one row each: how a rank of one is known, and where it finds its numbers. Data only.

Sources: srun(1) of Slurm 22.05, OUTPUT ENVIRONMENT VARIABLES; mpirun(1) of Open MPI 4.1; the
environment page of Open MPI 5.0's manual; MPICH's and Intel MPI's hydra as recorded from runs;
flux-environment(7); ALCF's pages on PALS; torch/distributed/run.py. What MVAPICH and jsrun set is
by public code that reads it, as neither could be run.
"""

from __future__ import annotations

from ompbind.record import Record


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


def names() -> tuple[str, ...]:
    """Return what --engine takes, without `none`."""
    return tuple(dict.fromkeys(engine.name for engine in ENGINES))
