"""Real ranks of real engines, as they were recorded: environment, mask, ancestors.

The recordings are in `../shared/engines`; see `tests/support/shared_trees.py` for where that is.
`cases.jsonl` has ranks of a machine of 2 cpus, `masks-16cpu.txt` the masks of one with 16.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from ompbind.cpuset import CpuSet, union
from ompbind.engines import ENGINES, find_task, make_task
from ompbind.engines.fitting import ALL, OWN, SOME
from ompbind.plans import Plan
from tests.support.ancestry import Above, Ancestry, plan_rank
from tests.support.machines import make_machine
from tests.support.needs import unavailable
from tests.support.shared_trees import topologies
from tests.support.trees import Shape

PAIR = make_machine(Shape(cores=2))
SIXTEEN = make_machine(Shape(packages=2, nodes=2, cores=8, threads=2, l3s=2))

# By how the command begins; the longest that fits counts. A rank's engine, its number of local
# ranks, and of whom its mask is on the machine of 2 cpus.
EXPECTED: dict[str, tuple[str, int, str]] = {
    "mpirun.openmpi -n 2": ("openmpi", 2, OWN),
    "mpirun.openmpi -n 2 --bind-to none": ("openmpi", 2, ALL),
    "mpirun.openmpi -n 2 --bind-to socket": ("openmpi", 2, ALL),
    "ompi5/bin/mpirun -n 2": ("openmpi", 2, OWN),
    "ompi5/bin/mpirun -n 4 --oversubscribe": ("openmpi", 4, ALL),
    "ompi5/bin/mpirun -n 2 --bind-to package": ("openmpi", 2, ALL),
    "mpiexec.mpich -n 2": ("mpich", 2, ALL),
    "mpiexec.mpich -n 4": ("mpich", 4, ALL),
    "mpich5/bin/mpiexec -n 2": ("mpich", 2, ALL),
    "mpich5/bin/mpiexec -bind-to core -n 2": ("mpich", 2, OWN),
    "impi/bin/mpiexec -n 2": ("intelmpi", 2, OWN),
    "impi/bin/mpiexec -n 4": ("intelmpi", 4, SOME),
    "tv/bin/torchrun": ("torchrun", 2, ALL),
    "srun -N1 -n2": ("slurm", 2, OWN),
    "srun -N1 -n2 --cpu-bind=sockets": ("slurm", 2, ALL),
    "srun -N1 -n4 -O": ("slurm", 4, ALL),
    "srun -N2 -n3 -m cyclic": ("slurm", -1, OWN),  # 2 on one node, 1 on the other
    "srun -n1 : -n2": ("slurm", -1, OWN),
    "salloc -Q -N2 -n4 mpirun.openmpi": ("openmpi", 2, OWN),
    "salloc -Q -N2 -n4 mpirun.openmpi --bind-to none": ("openmpi", 2, ALL),
    "salloc -Q -N2 -n4 mpiexec.mpich": ("mpich", 2, ALL),
    "salloc -Q -N2 -n4 mpich5/bin/mpiexec": ("mpich", 2, ALL),
    "srun -N2 -n2 -c2 tv/bin/torchrun": ("torchrun", 2, ALL),
    "srun -N1 -n2, stale torchrun variables": ("slurm", 2, OWN),
    "salloc -Q -N2 -n4": ("", 0, ""),  # the shell of an allocation
}


@cache
def recordings() -> tuple[dict[str, Any], ...]:
    path = topologies().parent / "engines/cases.jsonl"
    if not path.exists():
        return ()
    return tuple(json.loads(line) for line in path.read_text().splitlines())


def name(case: str) -> str:
    """The row of EXPECTED for a case."""
    rows = [row for row in EXPECTED if case.startswith(row)]
    assert rows, f"a recording that the table does not have: {case}"
    return max(rows, key=len)


def need_recordings() -> None:
    if not recordings():
        unavailable("no recordings of engines beside the machines (OMPBIND_TOPOLOGIES)")


def make_ancestry(case: Mapping[str, Any], *, visible: bool = True) -> Ancestry:
    """The recorded ancestors; whose environment could not be read."""
    above = [Above(a["comm"], a["cpus"]) for a in case["ancestors"]]
    task = int(case["env"].get("SLURM_TASK_PID", 0))
    pid = task if case["own_pid_is_slurm_task_pid"] else 900_000
    return Ancestry(above, case["cpus"], pid, visible)


def launches() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """The recorded ranks of one launch on one node."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for case in recordings():
        node = case["env"].get("SLURMD_NODENAME", "")
        groups.setdefault((case["case"], node), []).append(case)
    for (command, _), cases in groups.items():
        yield command, cases


def test_every_recording_is_read_as_what_it_was() -> None:
    """The engine, the local rank and size, and whose the mask is."""
    need_recordings()
    for case in recordings():
        engine, count, sharing = EXPECTED[name(case["case"])]
        found = find_task(case["env"], make_ancestry(case))
        assert found.task.engine == engine, case["case"]
        if not engine:
            continue
        assert count in (found.task.local_ranks, -1), case["case"]
        if found.task.local_ranks == 1:
            sharing = OWN
        environ, own = case["env"], make_ancestry(case)
        many = len(CpuSet.parse_kernel(case["cpus"])) < (found.task.local_ranks or 1)
        words = "--oversubscribe" if many or sharing == SOME else ""
        plan = plan_rank(PAIR, environ, own, words)
        assert plan.task.sharing == sharing, case["case"]
        assert plan.ranks[0].local_rank == found.task.local_rank


def test_ranks_of_one_launch_have_different_numbers_and_cpus() -> None:
    """All global and local ranks are there once, and no two ranks get the same cpu, where there are
    as many cpus as ranks."""
    need_recordings()
    for command, cases in launches():
        if not EXPECTED[name(command)][0]:
            continue
        words = "--oversubscribe" if " -n 4" in command or "-O" in command else ""
        plans = [plan_rank(PAIR, c["env"], make_ancestry(c), words) for c in cases]
        numbers = sorted(p.numbers_of(p.ranks[0]).local_rank for p in plans)
        assert numbers == list(range(len(plans))), command
        if not words:
            assert_apart(plans, command)


def assert_apart(plans: list[Plan], command: str) -> None:
    cpus = [p.ranks[0].cpus for p in plans]
    assert sum(map(len, cpus)) == len(union(cpus)), f"{command}: {[str(c) for c in cpus]}"


def test_in_a_container_the_innermost_is_the_first_of_the_table() -> None:
    """Without visible ancestors an engine is taken all the same, and of several that which starts
    its ranks inside those of others."""
    need_recordings()
    for case in recordings():
        engine, environ = EXPECTED[name(case["case"])][0], case["env"]
        if "stale" in case["case"]:
            engine = "torchrun"  # cannot be told apart, as nobody is left who knows
            environ = {k: v for k, v in environ.items() if k != "SLURM_TASK_PID"}
        own = make_ancestry(case, visible=False)
        assert find_task(environ, own).task.engine == engine, case["case"]


# --- 16 cpus -------------------------------------------------------------------------------------


def variables(command: str, rank: int, count: int, parts: Mapping[str, str]) -> dict[str, str]:
    """The variables that a rank of this command has."""
    r, n = str(rank), str(count)
    if "srun" in command or "with -c" in command:
        kind, _, masks = parts["slurm"].partition(":")
        return {"SLURM_STEP_ID": "0", "SLURM_PROCID": r, "SLURM_LOCALID": r, "SLURM_NODEID": "0",
                "SLURM_STEP_NUM_TASKS": n, "SLURM_STEP_TASKS_PER_NODE": n, "SLURM_JOB_ID": "7",
                "SLURM_STEP_NUM_NODES": "1", "SLURM_CPU_BIND_TYPE": f"{kind}:",
                "SLURM_CPU_BIND_LIST": masks}  # fmt: skip
    if command.startswith(("mpirun.openmpi", "ompi5")):
        env = {f"OMPI_COMM_WORLD_{k}": v for k, v in
               (("RANK", r), ("SIZE", n), ("LOCAL_RANK", r), ("LOCAL_SIZE", n))}  # fmt: skip
        if command.startswith("ompi5"):
            return env | {"PRTE_LAUNCHED": "1", "OMPI_VERSION": "5.0.11"}
        asked = {"OMPI_MCA_hwloc_base_binding_policy": "x"} if "--bind-to" in command else {}
        return env | asked | ({"OMPI_MCA_orte_bound_at_launch": "1"} if parts["bal"] else {})
    env = {"PMI_RANK": r, "PMI_SIZE": n, "MPI_LOCALRANKID": r, "MPI_LOCALNRANKS": n}
    if parts["hub"]:
        env["HYDRA_USER_PROVIDED_BINDING"] = "1"
    if parts["impi"]:
        env["I_MPI_PIN_INFO"], _, env["I_MPI_PIN_MAPPING"] = parts["impi"].partition("/")
    return env


def read_masks() -> dict[str, list[dict[str, str]]]:
    """By command, of each rank its mask, its parent's, and what the engine says."""
    path = topologies().parent / "engines/masks-16cpu.txt"
    if not path.exists():
        unavailable("no recordings of engines beside the machines (OMPBIND_TOPOLOGIES)")
    launches: dict[str, list[dict[str, str]]] = {}
    ranks: list[dict[str, str]] = []
    for line in path.read_text().splitlines():
        if line.startswith(("==", "with")):
            ranks = launches.setdefault(line.removeprefix("== "), [])
        elif line.startswith("  r"):
            number, rest = line.split()[0][1:], line.partition(" own=")[2]
            words = f"own={rest}"
            parts = {"rank": number}
            keys = ("own", "parent", "bal", "slurm", "impi", "hub")
            at = [words.index(f"{key}=") for key in keys] + [len(words)]
            for key, start, end in zip(keys, at, at[1:], strict=False):
                parts[key] = words[start + len(key) + 1 : end].strip()
            ranks.append(parts)
    return {command: ranks for command, ranks in launches.items() if ranks}


def plan_all(command: str, ranks: list[dict[str, str]], within: str = "") -> list[Plan]:
    plans = []
    for parts in ranks:
        name, _, mask = parts["parent"].partition(":")
        environ = variables(command, int(parts["rank"]), len(ranks), parts)
        ancestry = Ancestry([Above(name, mask)], parts["own"])
        plans.append(plan_rank(SIXTEEN, environ, ancestry, within=within))
    return plans


BLIND = ("mpiexec.mpich -bind-to socket", "mpich5/bin/mpiexec -bind-to numa")


def test_no_two_ranks_of_a_recorded_launch_overlap() -> None:
    """Whatever the engine has bound: no cpu belongs to two ranks, except where it is not known who
    shares a mask, and then a warning names the engine's option and threads are divided."""
    for command, ranks in read_masks().items():
        plans = plan_all(command, ranks)
        if command.startswith(BLIND):
            for plan in plans:
                assert [c.kind for c in plan.cautions] == ["engine"]
                assert "-bind-to none" in plan.cautions[0].hint
                assert dict(plan.ranks[0].env)["OMP_NUM_THREADS"] == "2"
                assert len(plan.ranks[0].places) == 1
        else:
            assert_apart(plans, command)
        assert all(p.ranks[0].cpus for p in plans)


def test_within_node_divides_the_node_under_every_binding() -> None:
    """--within node gives up the engine's masks: the ranks divide what its daemon may
    use."""
    for command, ranks in read_masks().items():
        plans = plan_all(command, ranks, within="node")
        assert_apart(plans, command)
        whole = CpuSet(range(16))
        used = union(p.ranks[0].cpus | p.others | p.unused for p in plans)
        assert used & whole == CpuSet(range(0, 16, 2)) or used == whole, command


def test_default_binding_of_open_mpi_4_is_widened_with_a_note() -> None:
    """Four ranks on two sockets, two on each: the node is divided, and a note says so."""
    command = "mpirun.openmpi -n 4 ./who"
    plans = plan_all(command, read_masks()[command])
    assert [str(p.ranks[0].cpus) for p in plans] == ["0,2", "4,6", "8,10", "12,14"]
    assert all("its default" in p.task.note for p in plans)


def test_masks_of_slurm_that_some_tasks_share_are_divided() -> None:
    """Tasks with equal masks divide them, in the order of their numbers."""
    masks = read_masks()
    plans = plan_all("srun sockets", masks["srun -n 4 -c 4 --cpu-bind=sockets ./who"])
    assert [str(p.ranks[0].cpus) for p in plans] == ["0,2", "8,10", "4,6", "12,14"]
    plans = plan_all("srun cores", masks["srun -n 4 --exclusive --cpu-bind=cores ./who"])
    assert [str(p.ranks[0].cpus) for p in plans] == ["0", "2", "1", "3"]
    assert [c.kind for c in plans[0].cautions] == ["shared-core"]


def test_all_rows_of_the_table_are_about_variables_that_recordings_have() -> None:
    """Every variable that a recorded engine's row names as needed is in its recordings."""
    need_recordings()
    rows = {(e.name, e.label): e for e in ENGINES}
    for case in recordings():
        engine = EXPECTED[name(case["case"])][0]
        for (key, _), row in rows.items():
            if key == engine and all(n in case["env"] for n in (*row.needs, *row.one_of[:1])):
                assert make_task(row, case["env"], "").rank is not None, Path(row.label)
