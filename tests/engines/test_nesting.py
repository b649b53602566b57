"""Which engine started a process, where several have left their variables: made-up nestings."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from ompbind.engines import (
    ENGINES,
    Engine,
    Found,
    explain_threads,
    find_rank,
    find_task,
    make_task,
    parse_counts,
)
from ompbind.engines.by_hand import read_rank
from ompbind.errors import UsageError
from ompbind.machine.limits import MOST_ANCESTORS, find_ancestors
from tests.support.ancestry import OWN_PID, Above, Ancestry

Env = dict[str, str]


def slurm(rank: int = 0, ranks: int = 4, **more: str) -> Env:
    """A task of a step on one node."""
    return {
        "SLURM_JOB_ID": "7", "SLURM_STEP_ID": "0", "SLURM_PROCID": str(rank),
        "SLURM_LOCALID": str(rank), "SLURM_NODEID": "0", "SLURM_STEP_NUM_NODES": "1",
        "SLURM_STEP_NUM_TASKS": str(ranks), "SLURM_STEP_TASKS_PER_NODE": str(ranks),
    } | more  # fmt: skip


def openmpi(rank: int = 0, ranks: int = 4) -> Env:
    names = ("RANK", "SIZE", "LOCAL_RANK", "LOCAL_SIZE")
    values = (rank, ranks, rank, ranks)
    return {f"OMPI_COMM_WORLD_{n}": str(v) for n, v in zip(names, values, strict=True)}


def mpich(rank: int = 0, ranks: int = 4) -> Env:
    names = ("PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS")
    return dict(zip(names, map(str, (rank, ranks, rank, ranks)), strict=True))


def torchrun(rank: int = 0, ranks: int = 4) -> Env:
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    values = map(str, (rank, ranks, rank, ranks))
    group = {"GROUP_RANK": "0", "GROUP_WORLD_SIZE": "1", "TORCHELASTIC_RUN_ID": "x"}
    return dict(zip(names, values, strict=True)) | group


def found(environ: Mapping[str, str], *above: Above, pid: int = OWN_PID) -> Found:
    return find_task(environ, Ancestry(above, pid=pid))


# The ancestors, the environment, and which engine that is.
STEP, ORTED, MPIRUN = Above("slurmstepd"), Above("orted"), Above("mpirun")
HYDRA, ELASTIC, SHELL = Above("hydra_pmi_proxy"), Above("pt_elastic"), Above("sh")
NESTINGS: list[tuple[str, tuple[Above, ...], Env, str]] = [
    ("srun", (STEP,), slurm(1), "slurm"),
    ("srun sh -c", (SHELL, STEP), slurm(1), "slurm"),
    ("srun in salloc", (STEP, Above("slurmd")), slurm(1), "slurm"),
    ("mpirun in sbatch, ranks on the first node", (MPIRUN, Above("slurm_script"), STEP),
     {"SLURM_PROCID": "0", "SLURM_JOB_ID": "7"} | openmpi(1), "openmpi"),
    ("mpirun in salloc, orted started by srun", (ORTED, STEP), slurm(0, 2) | openmpi(1), "openmpi"),
    ("mpiexec in salloc", (HYDRA, STEP), slurm(0, 2) | mpich(1), "mpich"),
    ("mpirun of Open MPI inside a rank of MPICH", (MPIRUN, HYDRA), mpich() | openmpi(1), "openmpi"),
    ("mpiexec of MPICH inside a rank of Open MPI", (HYDRA, Above("mpiexec"), MPIRUN),
     openmpi(1) | mpich(1), "mpich"),
    ("torchrun under srun", (ELASTIC, STEP), slurm(0, 2) | torchrun(1), "torchrun"),
    ("torchrun under its old name", (Above("python3", environ=slurm(0, 2)), STEP),
     slurm(0, 2) | torchrun(1), "torchrun"),
    ("srun with stale variables of torchrun and mpirun", (STEP,),
     slurm(1) | torchrun(1) | openmpi(1), "slurm"),
    ("srun of a task with a shell around it and stale variables",
     (Above("sh", environ=slurm(1) | torchrun(1)), STEP), slurm(1) | torchrun(1), "slurm"),
    ("mpirun with stale variables of torchrun", (MPIRUN,), torchrun(2) | openmpi(1), "openmpi"),
    ("srun --mpi=pmi2", (STEP,), slurm(1) | {"PMI_RANK": "1", "PMI_SIZE": "4"}, "slurm"),
    ("srun --mpi=pmix", (STEP,),
     slurm(1) | {"PMIX_RANK": "1", "PMIX_NAMESPACE": "slurm.pmix.7.0"}, "slurm"),
    ("prterun", (Above("prterun"),),
     {"PMIX_RANK": "1", "PMIX_NAMESPACE": "prterun-h-9@1", "PRTE_LAUNCHED": "1"}, "prrte"),
    ("mpirun of Open MPI 5", (Above("prterun"),),
     openmpi(1) | {"PMIX_RANK": "1", "PMIX_NAMESPACE": "prterun-h-9@1", "PRTE_LAUNCHED": "1"},
     "openmpi"),
    ("Intel MPI", (HYDRA,), mpich(1) | {"I_MPI_PIN_INFO": "0"}, "intelmpi"),
    ("mpirun_rsh", (Above("mpispawn"),),
     {"MV2_COMM_WORLD_RANK": "1", "MV2_COMM_WORLD_SIZE": "2", "MV2_COMM_WORLD_LOCAL_RANK": "1",
      "MV2_COMM_WORLD_LOCAL_SIZE": "2"}, "mvapich"),
    ("PALS", (Above("palsd"),),
     {"PALS_RANKID": "5", "PALS_LOCAL_RANKID": "1", "PMI_SIZE": "8", "PMI_RANK": "5",
      "PMI_LOCAL_RANK": "1", "PMI_LOCAL_SIZE": "4"}, "pals"),
    ("jsrun", (Above("jsmd"),),
     {"JSM_NAMESPACE_RANK": "1", "JSM_NAMESPACE_SIZE": "2", "JSM_NAMESPACE_LOCAL_RANK": "1",
      "JSM_NAMESPACE_LOCAL_SIZE": "2"} | openmpi(1, 2), "jsrun"),
    ("flux run", (Above("flux-shell"),),
     {"FLUX_TASK_RANK": "5", "FLUX_TASK_LOCAL_ID": "1", "FLUX_JOB_SIZE": "8",
      "FLUX_JOB_NNODES": "2", "FLUX_JOB_ID": "f1"}, "flux"),
    ("a batch script", (Above("slurm_script"), STEP),
     {"SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NTASKS": "6", "SLURM_JOB_ID": "7"}, ""),
    ("an interactive step", (Above("bash"), STEP),
     slurm(0, 6, SLURM_STEP_ID="4294967290"), ""),
    ("srun --pty", (Above("bash"), STEP), slurm(0, 1), ""),
    ("a single task with stale variables", (STEP,), slurm(0, 1) | torchrun(1), ""),
    ("RANK alone, as enroot's hook sets it", (SHELL,), {"RANK": "1", "LOCAL_RANK": "1"}, ""),
    ("no environment can be read", (SHELL, Above("bash")), slurm(1) | openmpi(1), "openmpi"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("above", "environ", "name"), [n[1:] for n in NESTINGS], ids=[n[0] for n in NESTINGS]
)
def test_the_innermost_engine_counts(above: tuple[Above, ...], environ: Env, name: str) -> None:
    """By the nearest ancestor that is a daemon, or that was started without the rank."""
    result = found(environ, *above)
    assert result.task.engine == name
    assert bool(result.task) is bool(name)


@pytest.mark.parametrize(
    ("environ", "name"),
    [
        (slurm(1) | openmpi(1) | torchrun(1), "torchrun"),
        (slurm(1) | openmpi(1), "openmpi"),
        (slurm(1) | mpich(1), "mpich"),
        (slurm(1), "slurm"),
        ({}, ""),
    ],
)
def test_a_fixed_order_where_no_ancestor_is_visible(environ: Env, name: str) -> None:
    """In a container: what starts its ranks inside those of others comes first, and complete
    variables are never passed over altogether."""
    assert find_task(environ, Ancestry([STEP], visible=False)).task.engine == name


def test_srun_is_known_by_the_pid_of_its_task() -> None:
    """Where slurmstepd cannot be seen, as under hidepid, and stale variables are there, a process
    that is itself the task was started by srun; its child may be another engine's."""
    environ = slurm(1, SLURM_TASK_PID="900") | torchrun(1)
    assert find_task(environ, Ancestry([STEP], pid=900, visible=False)).task.engine == "slurm"
    assert find_task(environ, Ancestry([STEP], pid=901, visible=False)).task.engine == "torchrun"
    by = find_task(environ, Ancestry([STEP], pid=900)).task.by
    assert "slurmstepd" in by
    shell = Above("sh", environ=environ)  # pid 900, which is srun's task
    assert find_task(environ, Ancestry([shell], pid=901)).task.engine == "slurm"


def test_what_is_passed_over_is_named() -> None:
    """With the reason; so is what looks like a rank and is none."""
    task = found(slurm(0, 2) | openmpi(1), ORTED, STEP).task
    assert [name for name, _ in task.passed_over] == ["Slurm"]
    assert "Open MPI 4 is nearer (orted)" in task.passed_over[0][1]
    assert "OMPI_COMM_WORLD_RANK" in task.by
    assert "orted (pid 899)" in task.by
    task = found({"SLURM_PROCID": "0"}, SHELL).task
    assert not task
    assert "batch script" in task.passed_over[0][1]
    assert "one task" in found(slurm(0, 1), STEP).task.passed_over[0][1]


def test_an_engine_by_name() -> None:
    """--engine takes it from the variables, whoever is nearer; none takes nobody."""
    environ = slurm(0, 2) | openmpi(1)
    ancestry = Ancestry([ORTED, STEP])
    result = find_task(environ, ancestry, "slurm")
    assert (result.task.engine, result.task.local_ranks) == ("slurm", 2)
    assert result.task.by == "SLURM_STEP_ID, SLURM_PROCID; --engine slurm" or result.daemon
    assert not find_task(environ, ancestry, "none").task
    with pytest.raises(UsageError, match="--engine flux: the environment has no FLUX_TASK_RANK"):
        find_task(environ, ancestry, "flux")


def test_a_rank_that_ompbind_has_bound_is_no_rank_again() -> None:
    """A program of the rank may plan within it; ranks of an inner engine are ranks."""
    environ = slurm(1)
    task = found(environ, STEP).task
    inside = environ | {"OMPBIND_TASK": task.key, "OMPBIND_CPUS": "4-7"}
    ancestry = Ancestry([Above("python3"), STEP], "4-7")
    result = find_task(inside, ancestry)
    assert not result.task
    assert result.task.passed_over[0][0] == "Slurm"
    assert find_task(inside, Ancestry([Above("sh"), STEP], "0-15")).task  # `show --format env`
    assert find_task(inside | openmpi(1), Ancestry([MPIRUN, STEP], "4-7")).task.engine == "openmpi"
    assert find_task(inside | {"SLURM_STEP_ID": "1"}, ancestry).task
    assert find_task(inside | {"OMPBIND_CPUS": "x"}, ancestry).task


# --- numbers -------------------------------------------------------------------------------------


def engine(name: str) -> Engine:
    return next(e for e in ENGINES if e.name == name)


@pytest.mark.parametrize(
    ("environ", "numbers"),
    [
        (slurm(3, 6) | {"SLURM_NODEID": "1", "SLURM_STEP_TASKS_PER_NODE": "2(x2),1(x2)",
                        "SLURM_STEP_NUM_NODES": "4", "SLURM_LOCALID": "1"}, (3, 6, 1, 2, 1, 4)),
        (slurm(5, 6) | {"SLURM_NODEID": "3", "SLURM_STEP_TASKS_PER_NODE": "2(x2),1(x2)",
                        "SLURM_STEP_NUM_NODES": "4", "SLURM_LOCALID": "0"}, (5, 6, 0, 1, 3, 4)),
        # The list of tasks on this node, where the counts are missing, and the local rank.
        ({"SLURM_STEP_ID": "0", "SLURM_PROCID": "2", "SLURM_STEP_NUM_TASKS": "3",
          "SLURM_GTIDS": "0,2", "SLURM_NODEID": "0"}, (2, 3, 1, 2, 0, None)),
    ],
)  # fmt: skip
def test_numbers_of_slurm(environ: Env, numbers: tuple[int | None, ...]) -> None:
    """By the step's variables, never by the job's, which are stale inside mpiexec."""
    task = make_task(engine("slurm"), environ | {"SLURM_NTASKS": "99"}, "")
    assert (task.rank, task.ranks, task.local_rank, task.local_ranks, task.node) == numbers[:5]
    assert task.nodes == numbers[5]


def test_numbers_that_an_engine_does_not_say() -> None:
    """Flux gives its nodes, on which tasks are distributed evenly; PRRTE a rank, and no more."""
    flux = {"FLUX_TASK_RANK": "5", "FLUX_TASK_LOCAL_ID": "1", "FLUX_JOB_SIZE": "8"}
    assert make_task(engine("flux"), flux | {"FLUX_JOB_NNODES": "2"}, "").local_ranks == 4
    assert make_task(engine("flux"), flux | {"FLUX_JOB_NNODES": "3"}, "").local_ranks is None
    task = make_task(engine("prrte"), {"PMIX_RANK": "1", "PMIX_NAMESPACE": "prte"}, "")
    assert (task.rank, task.ranks, task.local_rank, task.local_ranks) == (1, None, None, None)


@pytest.mark.parametrize(
    ("environ", "problem"),
    [
        (openmpi(4, 4), "rank 4 of 4"),
        (openmpi() | {"OMPI_COMM_WORLD_LOCAL_RANK": "9"}, "local rank 9 of 4"),
        (openmpi() | {"OMPI_COMM_WORLD_LOCAL_SIZE": "9"}, "9 local ranks of 4"),
        (openmpi() | {"OMPI_COMM_WORLD_LOCAL_SIZE": "0"}, "local rank 0 of 0"),
        (openmpi() | {"OMPI_COMM_WORLD_RANK": "-1"}, "='-1' is not a whole number"),
        (openmpi() | {"OMPI_COMM_WORLD_SIZE": "many"}, "='many' is not a whole number"),
        (openmpi() | {"OMPI_COMM_WORLD_LOCAL_SIZE": ""}, "='' is not a whole number"),
    ],
)
def test_numbers_that_make_no_sense(environ: Env, problem: str) -> None:
    """Are refused, in one line that names the variable or the numbers."""
    with pytest.raises(UsageError, match=problem) as caught:
        found(environ, MPIRUN)
    assert "--engine none" in caught.value.hint


@pytest.mark.parametrize(
    ("text", "counts"),
    [
        ("2", [2]), ("2(x3),1", [2, 2, 2, 1]), ("1,2(x2)", [1, 2, 2]), ("", []), ("x", []),
        ("2(x0)", []), ("2(x2", []), ("2(3)", []), ("2(x99999999)", []), ("-1", []), ("2,", []),
    ],
)  # fmt: skip
def test_counts_of_tasks(text: str, counts: list[int]) -> None:
    """Slurm's notation; nothing for what is not."""
    assert parse_counts(text) == counts


# --- by hand -------------------------------------------------------------------------------------


def test_a_rank_by_hand() -> None:
    """A number, or a variable that counts from 0, from 1 as GNU parallel's do, or from what is
    said."""
    environ = {"SLOT": "3", "PARALLEL_JOBSLOT": "1", "BAD": "x", "ZERO": "0"}
    assert find_rank(2, None, environ).task.local_rank == 2
    assert find_rank(("SLOT", None), None, environ).task.local_rank == 3
    assert read_rank("SLOT", 1, environ) == 2
    assert read_rank("PARALLEL_JOBSLOT", None, environ) == 0
    assert read_rank("PARALLEL_JOBSLOT", 1, environ) == 0
    for name, first, problem in (
        ("NONE", None, "is not set"),
        ("BAD", None, "is not a number from 0"),
        ("ZERO", 1, "is not a number from 1"),
    ):
        with pytest.raises(UsageError, match=f"--rank env:{name}: .*{problem}"):
            read_rank(name, first, environ)


# --- what torchrun sets --------------------------------------------------------------------------


def test_one_thread_that_torchrun_has_set_is_not_the_users() -> None:
    """It sets OMP_NUM_THREADS=1 where nobody has: its own environment tells."""
    environ = torchrun(1) | {"OMP_NUM_THREADS": "1"}
    without, having = Above("pt_elastic", environ={}), Above("pt_elastic", environ=environ)
    result = found(environ, without)
    assert not result.user_threads
    assert explain_threads(result, environ).why == (
        "torchrun has set it, not the user; --threads 1 keeps it"
    )
    assert found(environ, having).user_threads
    assert not found(environ, Above("pt_elastic")).user_threads  # cannot be read
    assert found(environ | {"OMP_NUM_THREADS": "2"}, without).user_threads
    assert found(environ | torchrun(0, 1), without).user_threads
    assert found(openmpi(1) | {"OMP_NUM_THREADS": "1"}, Above("mpirun", environ={})).user_threads


# --- ancestors -----------------------------------------------------------------------------------


def test_ancestors_end() -> None:
    """A chain that is a circle, as a copied tree may have one, is followed for so long only."""
    ancestry = Ancestry([SHELL])
    loop = ancestry.files["proc/899/status"].replace(b"PPid:\t0", b"PPid:\t899")
    ancestry.files["proc/899/status"] = loop
    assert len(list(find_ancestors(ancestry, 899))) == MOST_ANCESTORS
    assert [a.name for a in find_ancestors(Ancestry([SHELL, STEP]), 899)] == ["sh", "slurmstepd"]
    assert list(find_ancestors(Ancestry([SHELL], visible=False), 0)) == []


def test_an_ancestor_whose_files_are_garbage() -> None:
    """Has no mask, and its name is still a name."""
    ancestry = Ancestry([Above("orted", cpus="x-y")])
    (above,) = find_ancestors(ancestry, 899)
    assert (above.name, above.cpus) == ("orted", None)
