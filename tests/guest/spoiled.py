"""Workers that are spoiled after their start, in the guest: what `ompbind verify` says of each
before and after, and when it has repaired them. It judges nothing; tests/test_guest.py does,
outside."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.support import forks

LIMIT = 300  # seconds of a command

CPUS = Path("/sys/devices/system/cpu")
CGROUP = Path("/sys/fs/cgroup")


def spoil_all(ompbind: str, worker: str) -> dict[str, Any]:
    """By name: the reports before and after, and what could not be done, if so."""
    return {
        name: spoil(ompbind, worker, options, do, undo)
        for name, (options, do, undo) in SPOILED.items()
    }


def spoil(
    ompbind: str, worker: str, options: str, do: Callable[[int], None], undo: Callable[[], None]
) -> dict[str, Any]:
    command = [ompbind, "run", *options.split(), "--", worker, "--wait", "--touch", "32"]
    plan = f"/tmp/spoiled-{os.getpid()}.json"
    words = [ompbind, "show", *options.split(), "--format", "json", "--", worker]
    status, out, err = forks.run(words, timeout=LIMIT)
    assert status == 0, err
    Path(plan).write_text(out)
    result: dict[str, Any] = {}
    with forks.Fork(command, stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for line in process.stdout:
            if line == "ready\n":
                break
        try:
            result["before"] = verify(ompbind, plan, process.pid)
            do(process.pid)
            result["after"] = verify(ompbind, plan, process.pid)
            result["repaired"] = verify(ompbind, plan, process.pid, "--repair")
        except (OSError, subprocess.SubprocessError, ValueError) as e:
            result["error"] = str(e)
        finally:
            process.stdin.close()
            process.wait()
            undo()
    return result


def verify(ompbind: str, plan: str, pid: int, *more: str) -> dict[str, Any]:
    words = [ompbind, "verify", "--plan", plan, "--format", "json", *more, str(pid)]
    status, out, err = forks.run(words, timeout=LIMIT)
    if status not in (0, 1):
        raise ValueError(f"verify: status {status}: {err}")
    report: dict[str, Any] = json.loads(out)
    return report


def move_pages(pid: int) -> None:
    subprocess.run(["migratepages", str(pid), "2", "1"], check=True, capture_output=True)


def set_online(cpu: int, value: int) -> None:
    (CPUS / f"cpu{cpu}" / "online").write_text(str(value))


def shrink_cgroup(pid: int) -> None:
    """Into a cpuset that has all of the rank's cpus, which then loses one."""
    (CGROUP / "cgroup.subtree_control").write_text("+cpuset")
    group = CGROUP / "spoiled"
    group.mkdir(exist_ok=True)
    (group / "cpuset.cpus").write_text("2-3")
    (group / "cgroup.procs").write_text(str(pid))
    (group / "cpuset.cpus").write_text("2")


def nothing() -> None:
    pass


SPOILED: dict[str, tuple[str, Callable[[int], None], Callable[[], None]]] = {
    "pages moved": ("--numa-bind-nodes 2", move_pages, nothing),
    "cpu offline": (
        "--numa-bind-nodes 3",
        lambda pid: set_online(7, 0),
        lambda: set_online(7, 1),
    ),
    "cgroup shrunk": ("--numa-bind-nodes 1", shrink_cgroup, nothing),
}
