"""Launches that a signal ends, in the guest: how each ended, and whether anything of it was left.
It judges nothing; tests/test_guest.py does, outside."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tests.support import forks
from tests.support.observe import read_until_ready, status_field

LIMIT = 120  # seconds until nothing is left; a busy machine takes long
# Each rank has a child, which would outlive it.
WORKER = ("sh", "-c", "sleep 1000 & echo ready; wait")


def stop_all(ompbind: str, signals: Iterable[str]) -> dict[str, Any]:
    return {name: stop(ompbind, signal.Signals[f"SIG{name}"]) for name in signals}


def stop(ompbind: str, number: signal.Signals) -> dict[str, Any]:
    command = [ompbind, "run", "-n", "2", "--output", "inherit", "--", *WORKER]
    with forks.Fork(command, stdout=subprocess.PIPE) as process:
        assert read_until_ready(process.stdout, 2) is not None
        family = find_family(process.pid)
        os.kill(process.pid, number)
        status = process.wait()
        limit = time.monotonic() + LIMIT
        while (left := [pid for pid in family if is_alive(pid)]) and time.monotonic() < limit:
            time.sleep(0.05)
    return {"status": status, "processes": len(family), "left": len(left)}


def find_family(pid: int) -> list[int]:
    """All processes below one."""
    parents = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(process.name)] = int(status_field(process, "PPid"))
        except FileNotFoundError:
            continue  # it has ended
    family = [pid]
    for member in family:
        family += [child for child, parent in parents.items() if parent == member]
    return family[1:]


def is_alive(pid: int) -> bool:
    try:
        return not status_field(Path("/proc", str(pid)), "State").startswith("Z")
    except (FileNotFoundError, ProcessLookupError):
        return False
