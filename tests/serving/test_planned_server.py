"""One server by a plan: `ompbind run --serve vllm` and what each of its processes is bound to."""

from __future__ import annotations

import re
import subprocess

import pytest

from tests.serving.environment import model_folder
from tests.serving.running import KINDS, SECONDS, command_of, complete, running, variables_of
from tests.support.commands import OMPBIND
from tests.support.needs import REPOSITORY, need_cpus
from tests.support.running import Seen, free_ports

BIND = "VLLM_CPU_OMP_THREADS_BIND"


def find(processes: list[Seen], title: str) -> Seen:
    [process] = [p for p in processes if p.title == title]
    return process


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("option", ["--serve", "--from-env"])
def test_one_server_whose_workers_are_as_planned(kind: str, option: str) -> None:
    """Two workers, each on its own cpu, with one thread; engine and front end on both. With the
    variables of vLLM it is one server as well, which used to be started once for each list."""
    first, second = need_cpus(2)
    port = free_ports(1)
    command = command_of(kind, "--port", str(port), "-tp", "2")
    if option == "--serve":
        plan = ["--serve", "vllm", "--numa-bind-cpus", str(second), str(first)]
        variables = {}
    else:
        plan = ["--from-env", "vllm"]
        variables = {BIND: f"{second}|{first}"}
    with running(kind, [OMPBIND, "run", *plan, "--", *command], port, **variables) as server:
        processes = server.look()
        titles = sorted(p.title for p in processes)
        assert [t for t in titles if t.startswith("VLLM")] == [
            "VLLM::EngineCore", "VLLM::Worker_TP0", "VLLM::Worker_TP1",
        ]  # fmt: skip
        workers = [find(processes, f"VLLM::Worker_TP{n}") for n in range(2)]
        assert [w.masks for w in workers] == [[[second]], [[first]]]
        assert [w.environ["OMP_NUM_THREADS"] for w in workers] == ["1", "1"]
        (front_end,) = [p for p in processes if p.name == "vllm"]
        engine = find(processes, "VLLM::EngineCore")
        assert front_end.environ[BIND] == f"{second}|{first}"
        assert not [n for n in front_end.environ if n.startswith(("OMP_", "GOMP_", "KMP_"))]
        assert {first, second} <= set(engine.masks[0])
        assert engine.masks == front_end.masks
        assert complete(port)


@pytest.mark.parametrize("kind", KINDS)
def test_a_server_binds_its_workers_under_a_plain_run(kind: str) -> None:
    """Without an option about it the server keeps its own way to bind: no variable of OpenMP's
    that its workers would inherit overrides it."""
    first, second = need_cpus(2)
    port = free_ports(1)
    command = command_of(kind, "--port", str(port), "-tp", "2")
    whole = [OMPBIND, "run", "--numa-bind-cpus", f"{first},{second}", "--", *command]
    with running(kind, whole, port, **{BIND: f"{first}|{second}"}) as server:
        processes = server.look()
        workers = [find(processes, f"VLLM::Worker_TP{n}") for n in range(2)]
        assert [w.masks for w in workers] == [[[first]], [[second]]]
        assert complete(port)


WORKER = """
import os
names = ("RANK", "WORLD_SIZE", "MASTER_PORT")
rank, size, port = (int(os.environ[name]) for name in names)
assert os.environ["VLLM_CPU_OMP_THREADS_BIND"] == "nobind"
print(f"rank {rank} of {size} on cpus {sorted(os.sched_getaffinity(0))}: [1]")
"""


@pytest.mark.parametrize("kind", KINDS)
def test_ranks_that_are_workers(kind: str) -> None:
    """What --from-env is for beside servers: vLLM's external_launcher, one process for each worker,
    each on its cpus, all with the same tokens (examples/offline.py)."""
    first, second = need_cpus(2)
    program = ["python", str(REPOSITORY / "examples" / "offline.py"), str(model_folder("tiny"))]
    if kind == "stand-in":
        program = ["python", "-c", WORKER]
    env = variables_of(kind, **{BIND: f"{first}|{second}"}, LOAD_FORMAT="dummy")
    env["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    options = ["run", "--from-env", "vllm", "--master-port", "auto", "--output", "inherit"]
    done = subprocess.run(
        [OMPBIND, *options, "--", *program],
        env=env, capture_output=True, text=True, timeout=SECONDS[kind],
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = dict(re.findall(r"^rank (\d of 2 on cpus \[\d+\]): (.*)$", done.stdout, re.MULTILINE))
    assert sorted(lines) == [f"0 of 2 on cpus [{first}]", f"1 of 2 on cpus [{second}]"]
    assert len(set(lines.values())) == 1
