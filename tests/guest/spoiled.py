"""Workers that are spoiled after their start, in the guest: what `ompbind verify` says of each
before and after, and when it has repaired them. It judges nothing; tests/test_guest.py does,
outside."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.guest.cases.case import Spoiling
from tests.support import forks
from tests.support.observe import expand

LIMIT = 300  # seconds of a command

CPUS = Path("/sys/devices/system/cpu")
CGROUP = Path("/sys/fs/cgroup")


def spoil_all(ompbind: str, worker: str, spoiled: Mapping[str, Spoiling]) -> dict[str, Any]:
    """By name: the reports before and after, and what could not be done, if so."""
    return {name: spoil(ompbind, worker, spoiling) for name, spoiling in spoiled.items()}


def spoil(ompbind: str, worker: str, spoiling: Spoiling) -> dict[str, Any]:
    options = spoiling.options
    do, undo = ACTIONS[spoiling.action]
    arguments = spoiling.arguments.split()
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
            do(process.pid, *arguments)
            result["after"] = verify(ompbind, plan, process.pid)
            result["repaired"] = verify(ompbind, plan, process.pid, "--repair")
        except (OSError, subprocess.SubprocessError, ValueError) as e:
            result["error"] = str(e)
        finally:
            process.stdin.close()
            process.wait()
            undo(*arguments)
    return result


def verify(ompbind: str, plan: str, pid: int, *more: str) -> dict[str, Any]:
    words = [ompbind, "verify", "--plan", plan, "--format", "json", *more, str(pid)]
    status, out, err = forks.run(words, timeout=LIMIT)
    if status not in (0, 1):
        raise ValueError(f"verify: status {status}: {err}")
    report: dict[str, Any] = json.loads(out)
    return report


def move_pages(pid: int, old: str, new: str) -> None:
    subprocess.run(["migratepages", str(pid), old, new], check=True, capture_output=True)


def set_offline(_: int, cpus: str) -> None:
    set_online(cpus, "0")


def set_online(cpus: str, value: str = "1") -> None:
    for cpu in expand(cpus):
        (CPUS / f"cpu{cpu}" / "online").write_text(value)


@contextmanager
def taken_offline(cpus: str) -> Iterator[None]:
    """These cpus are offline meanwhile; they come back in any case."""
    try:
        set_online(cpus, "0")
        yield
    finally:
        set_online(cpus)


def shrink_cgroup(pid: int, before: str, after: str) -> None:
    """Into a cpuset that has all of the rank's cpus, which then loses one."""
    (CGROUP / "cgroup.subtree_control").write_text("+cpuset")
    group = CGROUP / "spoiled"
    group.mkdir(exist_ok=True)
    (group / "cpuset.cpus").write_text(before)
    (group / "cgroup.procs").write_text(str(pid))
    (group / "cpuset.cpus").write_text(after)


def nothing(*_: str) -> None:
    pass


# What is done to a worker with a spoiling's arguments, and undone when it has ended.
ACTIONS: dict[str, tuple[Callable[..., None], Callable[..., None]]] = {
    "move pages": (move_pages, nothing),
    "set offline": (set_offline, set_online),
    "shrink cgroup": (shrink_cgroup, nothing),
}
