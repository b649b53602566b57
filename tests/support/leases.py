"""Directories that stand for the machine's cpus, whose leases nobody else meets; and processes that
take them."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from ompbind import host


def make_cpus(folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Make such a directory, with others above it, and let leases be taken there."""
    cpus = folder / "devices" / "system" / "cpu"
    cpus.mkdir(parents=True)
    monkeypatch.setattr(host, "CPUS", str(cpus))
    return str(cpus)


def fork(act: Callable[[], None]) -> int:
    """Start a process that calls `act` and exits with 0, or with 1 after an exception; its pid."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            act()
            status = 0
        finally:
            os._exit(status)
    return pid


def fork_holder(act: Callable[[], object]) -> tuple[int, int]:
    """Start a process that calls `act` and then stays until it is killed, or the descriptor that is
    returned with its pid is closed, at the latest with this process."""
    ready, tell = os.pipe()
    stay, go = os.pipe()

    def hold() -> None:
        os.close(go)
        act()
        os.write(tell, b".")
        os.read(stay, 1)

    pid = fork(hold)
    os.close(tell)
    os.close(stay)
    assert os.read(ready, 1), "it has failed"
    os.close(ready)
    return pid, go


def end_holder(pid: int, go: int) -> None:
    """Kill such a process."""
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    os.close(go)


def count_waiting(directory: str) -> int:
    """How many processes the kernel lets wait for a lock on a directory."""
    inode = f":{os.stat(directory).st_ino}"
    lines = Path("/proc/locks").read_text().splitlines()
    return sum("->" in line and line.split()[6].endswith(inode) for line in lines)
