"""A program that runs already, in the guest, and `ompbind rebind`: where its threads and pages are
before and after. It judges nothing; tests/test_guest.py does, outside."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

from tests.guest.cases.case import Rebinding
from tests.support import forks
from tests.support.observe import mask_of, read_memory

LIMIT = 300  # seconds of a command
VARIABLES = {"OMP_PROC_BIND": "false", "OMP_NUM_THREADS": "2"}


def rebind(ompbind: str, worker: str, rebinding: Rebinding) -> dict[str, Any]:
    """What was seen before and after, and what the command printed."""
    command = ["taskset", "-c", rebinding.first, worker, "--wait", "--touch", "32"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                          env={**os.environ, **VARIABLES}) as process:  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        address = ""
        for line in process.stdout:
            if " at " in line:
                address = line.split()[-1]
            if line == "ready\n":
                break
        try:
            words = [ompbind, "rebind", str(process.pid), "--numa-bind-nodes"]
            words.append(str(rebinding.new_node))
            result = {"before": look(process.pid, address)}
            for name, more in (("dry run", ["--dry-run"]), ("done", [])):
                status, out, err = forks.run([*words, *more, "--format", "json"], timeout=LIMIT)
                result[name] = {
                    "status": status,
                    "result": json.loads(out or "{}"),
                    "err": err,
                    "seen": look(process.pid, address),
                }
        finally:
            process.stdin.close()
            process.wait()
    return result


def look(pid: int, address: str) -> dict[str, Any]:
    """Where its threads may run, and the pages that it touched on each node."""
    process = Path("/proc", str(pid))
    tasks = sorted((process / "task").iterdir())
    return {"masks": [mask_of(task) for task in tasks], "pages": read_memory(process, address)[1]}
