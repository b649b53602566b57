"""Directories that stand for the machine's cpus, whose leases nobody else meets; and processes that
take them."""

from __future__ import annotations

import os
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


def count_waiting(directory: str) -> int:
    """How many processes the kernel lets wait for a lock on a directory."""
    inode = f":{os.stat(directory).st_ino}"
    lines = Path("/proc/locks").read_text().splitlines()
    return sum("->" in line and line.split()[6].endswith(inode) for line in lines)
