"""Workers that note what happens to them, and what is seen of processes from outside."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
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


def wait_for(what: Callable[[], object], seconds: float = 20) -> None:
    """Until it is so; fails when it takes too long."""
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


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
    return Path(f"/proc/{pid}").exists()
