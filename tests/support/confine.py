"""Runs a command inside restrictions as containers and batch systems make them: in a cgroup of its
own, without /sys, on a read-only or a full file system, without capabilities. Root's, mostly; where
one cannot be made here, the test that asks for it skips and says why."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support import deny
from tests.support.commands import TIMEOUT

CGROUPS = Path("/sys/fs/cgroup")
JOIN = 'echo $$ >"$1/cgroup.procs" && shift && exec "$@"'


def mounting(*script: str) -> list[str]:
    """What starts a command where these shell lines have been run, in mounts of its own."""
    lines = " && ".join([*script, 'exec "$@"'])
    return need(["unshare", "--mount", "--propagation", "private", "sh", "-c", lines, "sh"])


def need(command: list[str]) -> list[str]:
    """The command, or a skip where it does not work here."""
    done = subprocess.run([*command, "true"], capture_output=True, text=True, timeout=30)
    if done.returncode != 0:
        said = (done.stderr.strip().splitlines() or [f"status {done.returncode}"])[-1]
        pytest.skip(f"not possible here: {said}")
    return command


@contextmanager
def among_no_others() -> Iterator[list[str]]:
    """What starts commands that see each other and no other process, nor its leases: in a pid and a
    network namespace that they share, with their own /proc and /sys. All of them are killed at the
    end."""
    user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    apart = ["unshare", *user, "--net", "--pid", "--fork", "--mount-proc", "--kill-child"]
    own_sys = ["sh", "-c", 'mount -t sysfs sysfs /sys && exec "$@"', "sh"]
    need([*apart, *own_sys])
    holder = subprocess.Popen(
        [*apart, *own_sys, "sh", "-c", "echo ready && exec cat"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"ready\n"
        inside = [f"--pid=/proc/{holder.pid}/ns/pid_for_children", "--mount", "--net"]
        enter = ["--user", "--preserve-credentials"] if user else []
        yield need(["nsenter", "--target", str(holder.pid), *enter, *inside])
    finally:
        holder.communicate(timeout=TIMEOUT)  # the end of its input, and so of the namespace


@contextmanager
def in_cgroup(controller: str, files: Mapping[str, str]) -> Iterator[list[str]]:
    """What starts a command in a cgroup with these files, named as in version 2; version 1's names
    and units are made of them."""
    one = CGROUPS / controller
    folder = (one if one.is_dir() else CGROUPS) / f"ompbind-test-{os.getpid()}"
    try:
        if not one.is_dir():
            (CGROUPS / "cgroup.subtree_control").write_text(f"+{controller}")
        folder.mkdir()
    except OSError as e:
        pytest.skip(f"no cgroup of {controller} can be made here: {e}")
    try:
        for name, text in files.items() if not one.is_dir() else version_1(files, one):
            (folder / name).write_text(text)
        yield need(["sh", "-c", JOIN, "sh", str(folder)])
    finally:
        subprocess.run(["rmdir", str(folder)], check=False)


def version_1(files: Mapping[str, str], root: Path) -> Iterator[tuple[str, str]]:
    for name, text in files.items():
        if name == "cpuset.cpus":
            yield "cpuset.mems", (root / "cpuset.mems").read_text()
            yield name, text
        elif name == "cpu.max":
            quota, period = text.split()
            yield "cpu.cfs_period_us", period
            yield "cpu.cfs_quota_us", quota
        elif name == "memory.max":
            yield "memory.limit_in_bytes", text
        else:
            raise ValueError(name)


def as_nobody() -> list[str]:
    """What starts a command as a user without any privilege or capability."""
    if os.geteuid() != 0 or not shutil.which("unshare"):
        return []
    return need(["unshare", "--user"])  # files stay root's own to read


def denying(name: str, calls: str) -> list[str]:
    """What starts a command under a kernel that refuses these calls; skips where it cannot."""
    command = [sys.executable, "-I", "-S", deny.__file__, name, calls, "--"]
    done = subprocess.run([*command, "true"], timeout=TIMEOUT, capture_output=True, check=False)
    if done.returncode == deny.CANNOT:
        if os.environ.get("CI"):
            pytest.fail("no seccomp filter can be installed")
        pytest.skip("no seccomp filter can be installed here")
    assert done.returncode == 0
    return command
