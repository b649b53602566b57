"""The stand-in has vLLM's shape: the same processes, names, parents, variables and masks."""

from __future__ import annotations

import signal

import pytest

from tests.serving.running import KINDS, command_of, complete, running
from tests.support.needs import need_cpus
from tests.support.running import Running, Seen, free_ports, see

METHOD, PRELOAD, SIZE = "VLLM_WORKER_MULTIPROC_METHOD", "LD_PRELOAD", "LOCAL_WORLD_SIZE"
BIND, THREADS, AFFINITY = "VLLM_CPU_OMP_THREADS_BIND", "OMP_NUM_THREADS", "GOMP_CPU_AFFINITY"
NAMES = (BIND, METHOD, PRELOAD, SIZE, THREADS, AFFINITY)


def shape_of(processes: list[Seen]) -> list[tuple[str, str, list[str], bool]]:
    """Each process' title, its parent's, which of the variables it shows, and whether most of its
    environment is overwritten."""
    titles = {p.pid: name_of(p) for p in processes}
    return sorted(
        (name_of(p), titles.get(p.parent, ""), [n for n in NAMES if n in p.environ], p.overwritten)
        for p in processes
    )


def name_of(process: Seen) -> str:
    """Its title; a Python without one of its own is called so, and vLLM's command `vllm`."""
    if process.name == "vllm":
        return "vllm"
    return "python" if process.title.startswith("python") else process.title


def find(processes: list[Seen], title: str) -> Seen:
    (found,) = [p for p in processes if name_of(p) == title]
    return found


def stop(server: Running, number: signal.Signals) -> int:
    """Send a signal to the front end alone, and return its status when everybody has gone."""
    server.process.send_signal(number)
    status = server.process.wait(60)
    assert server.wait_until_gone() == []
    return status


@pytest.mark.parametrize("kind", KINDS)
def test_two_workers(kind: str) -> None:
    """The engine and the workers are renamed, and show what was set by vLLM only; each worker is
    where its list says; TERM ends them all."""
    first, second = need_cpus(2)
    port = free_ports(1)
    command = command_of(kind, "--port", str(port), "-tp", "2")
    with running(kind, command, port, **{BIND: f"{first}|{second}"}) as server:
        processes = server.look()
        assert shape_of(processes) == [
            ("VLLM::EngineCore", "vllm", [METHOD, PRELOAD, SIZE], True),
            ("VLLM::Worker_TP0", "VLLM::EngineCore", [METHOD, PRELOAD, SIZE, THREADS, AFFINITY],
             True),
            ("VLLM::Worker_TP1", "VLLM::EngineCore", [METHOD, PRELOAD, SIZE, THREADS, AFFINITY],
             True),
            ("python", "vllm", [BIND, METHOD, PRELOAD, SIZE], False),
            ("vllm", "", [BIND], False),
        ]  # fmt: skip
        workers = [find(processes, f"VLLM::Worker_TP{n}") for n in range(2)]
        assert [w.environ[AFFINITY] for w in workers] == [str(first), str(second)]
        assert [w.masks for w in workers] == [[[first]], [[second]]]
        assert [w.name for w in workers] == ["VLLM::Worker_TP"] * 2
        front_end = find(processes, "vllm").masks
        assert find(processes, "VLLM::EngineCore").masks == front_end
        assert len(front_end) == 1
        assert {first, second} <= set(front_end[0])
        assert complete(port)
        assert stop(server, signal.SIGTERM) == 0


@pytest.mark.parametrize("kind", KINDS)
def test_one_worker(kind: str) -> None:
    """vLLM keeps a core free beside it, but OMP_PLACES from outside undoes that: GNU's OpenMP
    prefers it. Killing the front end leaves engine and worker behind."""
    cpus = need_cpus(2)
    places = f"{{{','.join(map(str, cpus))}}}"
    port = free_ports(1)
    command = ["taskset", "-c", ",".join(map(str, cpus)), *command_of(kind, "--port", str(port))]
    with running(kind, command, port, OMP_PLACES=places, OMP_PROC_BIND="true") as server:
        processes = server.look()
        assert [row[:2] for row in shape_of(processes)] == [
            ("VLLM::EngineCore", "vllm"), ("VLLM::Worker", "VLLM::EngineCore"),
            ("python", "vllm"), ("vllm", ""),
        ]  # fmt: skip
        worker, engine = find(processes, "VLLM::Worker"), find(processes, "VLLM::EngineCore")
        assert worker.environ[AFFINITY] == str(cpus[0])
        assert worker.environ[THREADS] == "1"
        assert [p.masks for p in processes] == [[cpus]] * 4
        server.process.kill()
        server.process.wait()
        assert [name_of(p) for pid in (engine.pid, worker.pid) if (p := see(pid))] == [
            "VLLM::EngineCore", "VLLM::Worker",
        ]  # fmt: skip
