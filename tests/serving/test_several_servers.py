"""Servers beside one another, each on its own cpus; how they end, and what is left of them."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.serving.running import KINDS, command_of, complete, running, variables_of
from tests.support.commands import OMPBIND, TIMEOUT
from tests.support.needs import REPOSITORY, need_cpus
from tests.support.recorder import wait_for
from tests.support.running import UNDER_TERMINAL, Running, Seen, ask, free_ports, see

BALANCE = REPOSITORY / "examples" / "balance.py"


def by_server(processes: list[Seen]) -> dict[int, list[Seen]]:
    """The processes of each server, by the pid of its front end."""
    parents = {p.pid: p.parent for p in processes}
    servers: dict[int, list[Seen]] = {p.pid: [p] for p in processes if p.name == "vllm"}
    for process in processes:
        pid = process.parent
        while pid in parents and pid not in servers:
            pid = parents[pid]
        if pid in servers:
            servers[pid].append(process)
    return servers


@contextmanager
def balancer(port: int, *servers: int) -> Iterator[subprocess.Popen[str]]:
    """examples/balance.py in front of servers, once it listens."""
    command = [sys.executable, str(BALANCE), str(port), *map(str, servers)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            assert process.stderr.readline().startswith("balance: http://")
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("kind", KINDS)
def test_two_servers_behind_a_balancer(kind: str) -> None:
    """Each with all its processes on its own core, inside which it binds its worker; verify sees
    them all; requests reach both, and the other one when one has gone. TERM ends all."""
    first, second = need_cpus(2)
    port = free_ports(3)
    options = ["-n", "2", "--numa-bind-cpus", str(first), str(second), "--template"]
    command = command_of(kind, "--port", f"{{{port + 1}+rank}}")
    whole = [OMPBIND, "run", *options, "--no-neighbours", "--", *command]
    with running(kind, whole, port + 1, port + 2) as server:
        servers = by_server(server.look())
        masks = [sorted({tuple(m) for p in s for m in p.masks}) for s in servers.values()]
        assert sorted(masks) == [[(first,)], [(second,)]]
        titles = ["VLLM::EngineCore", "VLLM::Worker"]
        for processes in servers.values():
            assert [p.title for p in processes if p.title.startswith("VLLM")] == titles
        report = verify(server.process.pid)
        assert report["holds"], report
        assert sorted(p["pid"] for p in report["processes"]) == sorted(
            p.pid for processes in servers.values() for p in processes
        )
        worker = next(p for p in servers[min(servers)] if p.title == "VLLM::Worker")
        (process,) = verify(worker.pid)["processes"]
        assert (process["name"], process["holds"]) == ("VLLM::Worker", True)
        assert process["rank"] in (0, 1)
        assert process["started_by"] in servers
        with balancer(port, port + 1, port + 2) as balance:
            assert balance.stderr is not None
            assert all(complete(port) for _ in range(2))
            assert {balance.stderr.readline() for _ in range(2)} <= {
                f"balance: to port {port + n}\n" for n in (1, 2)
            }
            server.process.terminate()
            assert server.process.wait(TIMEOUT) == 0
            assert server.wait_until_gone() == []
            assert ask(port, "/health") == 503


def test_servers_that_are_started_apart() -> None:
    """--part gives each its share of the machine; serve.sh in front does the same for nodes. Each
    can be stopped by itself."""
    need_cpus(2)
    port = free_ports(2)
    kind = "stand-in"
    commands = [command_of(kind, "--port", str(port + n)) for n in range(2)]
    parts = [[OMPBIND, "run", "--part", f"{n + 1}/2", "--", *commands[n]] for n in range(2)]
    with (
        running(kind, parts[0], port) as one,
        running(kind, parts[1], port + 1) as other,
    ):
        held = [
            {cpu for p in server.look() if p.name == "vllm" for mask in p.masks for cpu in mask}
            for server in (one, other)
        ]
        assert held[0]
        assert held[1]
        assert not held[0] & held[1]
        one.process.terminate()
        assert one.process.wait(TIMEOUT) == 0
        assert complete(port + 1)
        script = str(REPOSITORY / "examples" / "serve.sh")
        with running(kind, [script, *commands[0]], port) as wrapped:
            (front_end,) = [p for p in wrapped.look() if p.name == "vllm"]
            assert not [name for name in front_end.environ if name.startswith("OMP_")]


def verify(pid: int) -> Any:
    done = subprocess.run(
        [OMPBIND, "verify", "--format", "json", str(pid)], capture_output=True, text=True
    )
    assert done.stderr == ""
    return json.loads(done.stdout)


@pytest.mark.parametrize("kind", KINDS)
def test_a_server_that_is_killed_leaves_nothing(kind: str) -> None:
    """Nor does one whose launcher is killed; its engine and workers would go on."""
    cpus = need_cpus(2)
    port = free_ports(1)
    command = command_of(kind, "--port", str(port))
    with running(kind, [OMPBIND, "run", "--no-neighbours", "--", *command], port) as server:
        processes = server.look()
        (front_end,) = [p for p in processes if p.name == "vllm"]
        assert front_end.pid != server.process.pid
        (worker,) = [p for p in processes if p.title == "VLLM::Worker"]
        assert all(set(mask) < set(cpus) for mask in worker.masks)  # one is kept for the others
        os.kill(front_end.pid, signal.SIGKILL)
        assert server.process.wait(TIMEOUT) == 128 + signal.SIGKILL
        assert server.wait_until_gone() == []


def test_a_server_may_replace_ompbind() -> None:
    """With --no-supervise it has the pid that was started, and is ended as without ompbind."""
    port = free_ports(1)
    command = command_of("stand-in", "--port", str(port))
    whole = [OMPBIND, "run", "--no-supervise", "--", *command]
    with running("stand-in", whole, port) as server:
        processes = server.look()
        assert (processes[0].pid, processes[0].name) == (server.process.pid, "vllm")
        server.process.kill()
        server.process.wait()
        left = [p.title for p in processes[1:] if see(p.pid)]
        assert {"VLLM::EngineCore", "VLLM::Worker"} <= set(left)


@pytest.mark.parametrize("kind", KINDS)
def test_the_interrupt_of_a_terminal_ends_servers(kind: str) -> None:
    """Ctrl-C, once: both exit cleanly, and nothing is left."""
    first, second = need_cpus(2)
    port = free_ports(2)
    options = ["-n", "2", "--numa-bind-cpus", str(first), str(second), "--template"]
    command = command_of(kind, "--port", f"{{{port}+rank}}")
    controller, terminal = pty.openpty()
    whole = [*UNDER_TERMINAL, OMPBIND, "run", *options, "--no-neighbours", "--", *command]
    server = Running(whole, variables_of(kind), 400, terminal=terminal)
    os.close(terminal)
    try:
        server.wait_until_ready(port, port + 1)
        assert complete(port)
        os.write(controller, b"\x03")
        assert server.process.wait(TIMEOUT) == 0, server.written
        assert server.wait_until_gone() == []
    finally:
        server.end()
        os.close(controller)


def test_a_binding_that_is_overridden_is_found() -> None:
    """A server binds its worker by GOMP_CPU_AFFINITY; places that it inherits undo that."""
    need_cpus(2)
    port = free_ports(1)
    command = command_of("stand-in", "--port", str(port))
    whole = [OMPBIND, "run", "--omp", "all", "--no-neighbours", "--", *command]
    with running("stand-in", whole, port) as server:
        report = verify(server.process.pid)
        differing = {p["name"]: p["differences"] for p in report["processes"] if not p["holds"]}
        assert [*differing] == ["VLLM::Worker"]
        (difference,) = differing["VLLM::Worker"]
        assert "has no effect" in difference["text"]
        assert "--omp off" in difference["remedy"]


@pytest.mark.parametrize("kind", KINDS)
def test_workers_that_come_late_are_reported(kind: str, tmp_path: Path) -> None:
    """--verify has long said that all is as planned when a server starts its workers; they are
    looked at, too."""
    need_cpus(2)
    port = free_ports(1)
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    command = command_of(kind, "--port", str(port))
    whole = [OMPBIND, "run", "--verify=0", "--no-neighbours", "--", *command]
    server = Running(whole, variables_of(kind, STAND_IN_GATE=str(gate)), 400)
    try:
        wait_for(lambda: "as planned: " in server.written, 400)
        if kind == "stand-in":
            gate.write_text("go")
        wait_for(lambda: "VLLM::Worker" in server.written.partition("started since: ")[2], 400)
        assert "ompbind: warning" not in server.written
        assert "VLLM::Worker" not in server.written.partition("started since: ")[0]
    finally:
        server.process.terminate()
        server.process.wait(TIMEOUT)
        server.end()
