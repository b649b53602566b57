"""Workers that note what happens to them, and what is seen of processes from outside."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

Starter = Callable[..., "subprocess.Popen[bytes]"]

# A worker that notes its pid and each signal it gets in a file, and ends well with TERM unless told
# to be stubborn; told `fail0` or `fail1`, that rank of two fails once both have started.
RECORDER = r"""
import os, signal, sys
path = sys.argv[1] + "." + os.environ["OMPBIND_RANK"]
def note(text):
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(fd, (text + " ").encode())
    os.close(fd)
def handle(number, frame):
    note(str(number))
    if number == signal.SIGTERM and "stubborn" not in sys.argv:
        os._exit(0)
for number in (1, 2, 3, 10, 12, 15):
    signal.signal(number, handle)
note("pid %d" % os.getpid())
if "fail%d" % int(os.environ["OMPBIND_RANK"]) in sys.argv:
    other = sys.argv[1] + "." + str(1 - int(os.environ["OMPBIND_RANK"]))
    import time
    while not os.path.exists(other) or b"pid" not in open(other, "rb").read():
        time.sleep(0.01)
    os._exit(3)
while True:
    signal.pause()
"""


def recorder(tmp_path: Path, *words: str) -> list[str]:
    script = tmp_path / "recorder.py"
    script.write_text(RECORDER)
    return [sys.executable, "-I", "-S", str(script), str(tmp_path / "record"), *words]


def wait_for(condition: Callable[[], object], seconds: float = 60) -> None:
    """Return once the condition holds; fail when that takes too long."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def state(pid: int) -> str:
    """The kernel's letter for what a process does; "" when it has gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


def switches(pid: int) -> list[str]:
    """How often a process has been taken from its cpu, as the kernel's two lines."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return [line for line in lines if "ctxt_switches" in line]


def wait_until_asleep(pids: Sequence[int]) -> None:
    """Return once none of these processes has run for a while and none wants to: each waits for
    something that the others do not do. One that a busy machine keeps waiting is not asleep."""
    before: list[list[str]] = []

    def asleep() -> bool:
        nonlocal before
        now = [switches(pid) for pid in pids]
        quiet = now == before and all(state(pid) == "S" for pid in pids)
        before = now
        if not quiet:
            time.sleep(0.1)
        return quiet

    wait_for(asleep)


def record(tmp_path: Path, rank: int) -> list[str]:
    """What a rank of the recorder has noted."""
    path = tmp_path / f"record.{rank}"
    return path.read_text().split() if path.exists() else []


def wait_for_pids(tmp_path: Path, count: int) -> list[int]:
    wait_for(lambda: all(len(record(tmp_path, r)) >= 2 for r in range(count)))
    return [int(record(tmp_path, r)[1]) for r in range(count)]


def children(pid: int) -> list[int]:
    """A process' children, zombies too."""
    return [int(n) for n in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def alive(pid: int) -> bool:
    """Whether there is such a process. A zombie that only the first process of all could reap is
    none: in a container that may be a program which does not reap."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return False
    return status[:2] != ["Z", "1"]


def all_children(pid: int) -> list[int]:
    """The pids of a process' descendants. One that ends meanwhile may be among them, without its
    children."""
    found: list[int] = []
    for task in Path("/proc", str(pid), "task").iterdir():
        text = ""
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            text = (task / "children").read_text()
        for child in map(int, text.split()):
            found.append(child)
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                found += all_children(child)
    return found


def watcher_of(pid: int) -> int:
    """The watcher of a launch of several ranks, which is the only child of ompbind's process."""
    (watcher,) = children(pid)
    return watcher


def supervisor_of(pid: int) -> int:
    """The supervisor of a launch of several ranks."""
    (supervisor,) = children(watcher_of(pid))
    return supervisor


def name_of(pid: int) -> str:
    return Path(f"/proc/{pid}/comm").read_text().strip()
