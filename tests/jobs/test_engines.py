"""Engines in environments of their own: MPI's other launchers, torchrun, Ray, Dask, and checks by
Kubernetes' schemas. Run by `make test-engines`; everywhere else they skip."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
from ast import literal_eval
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.jobs.environments import need_environment
from tests.jobs.ranks import run_job
from tests.jobs.slurm import Slurm, free_ports
from tests.jobs.test_quick import assert_apart
from tests.jobs.test_recipes import JOBS, recipe_environment, run_script
from tests.serving.running import STAND_IN
from tests.support.commands import OMPBIND, TIMEOUT
from tests.support.needs import need_cpus, unavailable
from tests.support.running import free_ports as consecutive_ports
from tests.support.running import talk

HERE = Path(__file__).parent
MPIS = ("openmpi5", "mpich5", "intelmpi")


def run_command(
    *command: str, env: Mapping[str, str] | None = None, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command to its successful end."""
    done = subprocess.run(
        command,
        env=recipe_environment() if env is None else env,
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )
    assert done.returncode == 0, (command, done.stdout, done.stderr)
    return done


# --- MPI -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("group", MPIS)
@pytest.mark.parametrize("bound", [True, False])
def test_mpi(group: str, bound: bool, tmp_path: Path) -> None:
    """Whether the launcher binds or not, the two ranks are apart, and numbered as it does."""
    need_cpus(2)
    engine = [str(need_environment(group) / "mpiexec"), "-n", "2"]
    if not bound:
        engine += {"openmpi5": ["--bind-to", "none"], "intelmpi": ["-genv", "I_MPI_PIN", "0"]}.get(
            group, ["-bind-to", "none"]
        )
    job = run_job(engine, ["--rank-env"], tmp_path / "ranks")
    assert_apart(job.ranks, 2)
    assert job.values("RANK") == ["0", "1"]
    assert job.values("LOCAL_RANK") == ["0", "1"]
    assert job.values("LOCAL_WORLD_SIZE") == ["2", "2"]


@pytest.mark.parametrize("group", MPIS)
def test_mpi_messages(group: str) -> None:
    """The library finds its launcher through ompbind, also when ompbind watches; what MPI_Init does
    leaves the ranks where they are."""
    need_cpus(2)
    folder = need_environment(group)
    command = [str(folder / "mpiexec"), "-n", "2", OMPBIND, "run", "--verify"]
    done = run_command(*command, "--", str(folder / "python"), str(HERE / "allreduce.py"))
    total, size, cpus = done.stdout.split(maxsplit=2)
    assert (total, size) == ("3", "2")
    first, second = literal_eval(cpus)
    assert first
    assert second
    assert not set(first) & set(second)


@pytest.mark.parametrize("group", MPIS)
def test_mpirun_script(group: str, tmp_path: Path) -> None:
    """examples/jobs/mpirun.sh knows each launcher."""
    need_cpus(2)
    run_script(str(need_environment(group) / "mpirun"), tmp_path)


@pytest.mark.parametrize("group", MPIS)
def test_mpi_in_an_allocation(group: str, slurm: Slurm, tmp_path: Path) -> None:
    """A launcher inside a Slurm job has Slurm's variables as well; its own ranks count."""
    need_cpus(2)
    launcher = str(need_environment(group) / "mpiexec")
    options = {
        "openmpi5": "--prtemca plm ssh --prtemca ras ^slurm --bind-to none",
        "mpich5": "-launcher fork",
        "intelmpi": "-rmk user",
    }[group].split()
    engine = ["salloc", "-N1", "-n2", launcher, "-n", "2", *options]
    job = run_job(engine, ["--rank-env"], tmp_path / "ranks", slurm.environ)
    assert_apart(job.ranks, 2)
    assert job.values("RANK") == ["0", "1"]


# --- torchrun ------------------------------------------------------------------------------------


def read_told(folder: Path) -> list[dict[str, object]]:
    """What the ranks of train.py wrote, by rank."""
    paths = sorted(folder.glob("*.json"), key=lambda path: int(path.stem))
    return [json.loads(path.read_text()) for path in paths]


def test_torchrun(tmp_path: Path) -> None:
    """torchrun's ranks are apart, meet, and have a thread for each core: torchrun's own
    OMP_NUM_THREADS=1 is not taken for the user's."""
    need_cpus(2)
    folder = need_environment("torchrun")
    engine = [str(folder / "torchrun"), "--standalone", "--nproc-per-node", "2", "--no-python"]
    words = [OMPBIND, "run", "--", str(folder / "python"), str(HERE / "train.py"), str(tmp_path)]
    run_command(*engine, *words)
    first, second = read_told(tmp_path)
    assert not set(first["cpus"]) & set(second["cpus"])  # type: ignore[call-overload]
    for rank in (first, second):
        assert (rank["sum"], rank["size"]) == (3, 2)
        assert rank["threads"] == len(rank["cpus"])  # type: ignore[arg-type]


@pytest.mark.parametrize("recipe", ["torchrun.sbatch", "one-per-node.sbatch"])
def test_torch_under_slurm(recipe: str, slurm: Slurm, tmp_path: Path) -> None:
    """Two nodes with two ranks each meet: all four know it, and those of a node are apart."""
    need_cpus(2)
    folder = need_environment("torchrun")
    (port,) = free_ports(1)
    env = recipe_environment(folder, PORT=str(port), GLOO_SOCKET_IFNAME="lo")
    if recipe == "one-per-node.sbatch":  # a node of the tests has a name that nobody resolves
        script = (JOBS / recipe).read_text()
        changed = script.replace("--master-port", "--master-addr 127.0.0.1 --master-port")
        assert changed != script
        path = tmp_path / recipe
        path.write_text(changed)
    else:
        path = JOBS / recipe
    told = tmp_path / "told"
    told.mkdir()
    words = ("--nodes=2", str(path), "2", str(HERE / "train.py"), str(told))
    slurm.submit(*words, env=env, folder=tmp_path)
    ranks = read_told(told)
    assert [(rank["sum"], rank["size"]) for rank in ranks] == [(10, 4)] * 4
    for node in {rank["node"] for rank in ranks}:
        first, second = (r["cpus"] for r in ranks if r["node"] == node)
        assert not set(first) & set(second)  # type: ignore[call-overload]


# --- pools ---------------------------------------------------------------------------------------


def test_ray(tmp_path: Path) -> None:
    """Ray's actors and tasks start in their parts of the machine, and end with Ray."""
    need_cpus(2)
    python = need_environment("pools") / "python"
    env = recipe_environment(RAY_USAGE_STATS_ENABLED="0", RAY_DISABLE_IMPORT_WARNING="1")
    done = run_command(str(python), str(JOBS / "ray_actors.py"), env=env, cwd=tmp_path)
    lines = re.findall(r"^(\w+) .*: cpus (\[.*\]), (\d+) threads$", done.stdout, re.MULTILINE)
    assert [name for name, _, _ in lines] == ["actor", "actor", "task"]
    first, second, task = (literal_eval(cpus) for _, cpus, _ in lines)
    assert first
    assert second
    assert not set(first) & set(second)
    assert task == first
    assert all(int(threads) <= len(literal_eval(cpus)) for _, cpus, threads in lines)


def test_dask(tmp_path: Path) -> None:
    """Dask's workers are apart, carry the ranks' numbers in their names, and end with ompbind."""
    need_cpus(2)
    folder = need_environment("pools")
    (port,) = free_ports(1)
    address = f"tcp://127.0.0.1:{port}"
    scheduler = [str(folder / "dask"), "scheduler", "--host", "127.0.0.1", "--port", str(port),
                 "--no-dashboard"]  # fmt: skip
    ask = f"""
import os
from distributed import Client
with Client({address!r}, timeout=60) as client:
    client.wait_for_workers(2, timeout=60)
    told = client.run(lambda dask_worker: (
        dask_worker.name, sorted(os.sched_getaffinity(0)), os.environ["OMP_NUM_THREADS"],
        os.getpid()))
    print(sorted(told.values()))
"""
    workers = [str(JOBS / "dask.sh"), address, "2", "--no-dashboard"]
    with (
        background(*scheduler, cwd=tmp_path),
        background(*workers, env=recipe_environment(folder), cwd=tmp_path),
    ):
        done = run_command(str(folder / "python"), "-c", ask)
    (name, cpus, threads, pid), (other_name, other_cpus, _, other_pid) = literal_eval(done.stdout)
    assert [name[-2:], other_name[-2:]] == ["-0", "-1"]
    assert not set(cpus) & set(other_cpus)
    assert int(threads) == len(cpus)
    assert not any(Path(f"/proc/{p}").exists() for p in (pid, other_pid))


@contextmanager
def background(
    *command: str, env: Mapping[str, str] | None = None, cwd: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """A process beside the test, ended by TERM."""
    with ExitStack() as stack:
        log = stack.enter_context((cwd / f"{Path(command[0]).name}.log").open("wb"))
        process = subprocess.Popen(
            command, env=env or recipe_environment(), cwd=cwd, stdin=subprocess.DEVNULL,
            stdout=log, stderr=log,
        )  # fmt: skip
        try:
            yield process
        finally:
            process.terminate()
            process.wait(TIMEOUT)


# --- Kubernetes ----------------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", [False, True])
def test_kubernetes(wrong: bool, tmp_path: Path) -> None:
    """The manifest obeys the schemas of the API, strictly; a misspelt key does not."""
    program = need_environment("kubernetes") / "kubernetes-validate"
    text = (JOBS / "kubernetes.yaml").read_text()
    manifest = tmp_path / "kubernetes.yaml"
    manifest.write_text(text.replace("completionMode:", "completionModes:") if wrong else text)
    done = subprocess.run(
        [str(program), "--strict", str(manifest)],
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )
    assert (done.returncode != 0) is wrong, done.stdout + done.stderr


def test_the_pod_is_guaranteed(tmp_path: Path) -> None:
    """Requests equal limits and the cpus are whole: without that no container has cpus of its
    own."""
    python = need_environment("kubernetes") / "python"
    read = "import json, sys, yaml; json.dump(yaml.safe_load(open(sys.argv[1])), sys.stdout)"
    done = run_command(str(python), "-c", read, str(JOBS / "kubernetes.yaml"))
    pod = json.loads(done.stdout)["spec"]["template"]["spec"]
    for container in pod["containers"]:
        resources = container["resources"]
        assert resources["requests"] == resources["limits"]
        assert resources["limits"]["cpu"].isdigit()
        assert "memory" in resources["limits"]


# --- servers -------------------------------------------------------------------------------------


def test_replicas(slurm: Slurm, tmp_path: Path) -> None:
    """A replica of `vllm serve` on each node, a stand-in here, behind a balancer that asks each in
    turn; they end with the job."""
    need_environment("torchrun")  # only with these
    if shutil.which("haproxy", path=f"{os.environ['PATH']}:/usr/sbin") is None:
        unavailable("there is no haproxy; tools/setup-system engines installs it")
    port = consecutive_ports(3)
    env = recipe_environment(STAND_IN, PORT=str(port), **slurm.environ)
    env["PATH"] += f"{os.pathsep}/usr/sbin"
    words = ["sbatch", "--parsable", "--nodes=2", f"--output={tmp_path}/output"]
    recipe = [str(JOBS / "replicas.sbatch"), "made-up"]
    job = run_command(*words, *recipe, env=env, cwd=tmp_path).stdout.strip()
    workers: set[int] = set()
    try:
        wait_for(lambda: len(workers.union(ask(port, workers))) == 2, tmp_path / "output")
        places = {os.readlink(f"/proc/{pid}/cwd") for pid in workers}
        assert places == {str(tmp_path)}
    finally:
        slurm.run("scancel", job)
    wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers), tmp_path / "output")


def ask(port: int, workers: set[int]) -> set[int]:
    """Ask the balancer for a completion; add the process that worked on it to those known."""
    body = {"model": "made-up", "prompt": "x"}
    status, _, text = talk(port, "/v1/completions", body)
    if status == 200:
        workers.add(int(json.loads(text)["choices"][0]["text"].rpartition(" ")[2]))
    return workers


def wait_for(done: Callable[[], bool], log: Path) -> None:
    """Wait until a condition holds; a failure shows the job's output."""
    end = time.monotonic() + TIMEOUT
    while not done():
        text = log.read_text() if log.exists() else "no output yet"
        assert time.monotonic() < end, text
        time.sleep(0.1)
